"""The question answered no, wherever one is asked: code 5, and nothing is sent."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app.inbox import run_inbox
from bulkbind.app.notices.run_end import of_inbox, of_run
from bulkbind.app.session.listener import Listener
from bulkbind.errors import ExitCode
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, Settings
from tests.support.manifests import fleet, write_csv


class Unwilling(Listener):
    """Says no to everything."""

    def confirm(self, _plan):
        return False

    def confirm_undo(self, _undo):
        return False


@pytest.fixture
async def sandbox():
    """Serve a sandbox."""
    async with Sandbox() as served:
        yield served


@pytest.fixture
def settings(tmp_path, sandbox):
    """Return settings against the sandbox."""
    return Settings(
        api=ApiSettings(endpoint=sandbox.url),
        auth=AuthSettings(token=SecretStr("any")),
        ledger=tmp_path / "ledger.db",
        out=tmp_path / "report",
    )


async def test_a_run_that_is_declined(tmp_path, settings, sandbox):
    """Nothing is sent, no run is left, and whoever is notified gets the code."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))

    result = await bulkbind.run([manifest], settings, listener=Unwilling())

    assert (result.exit_code, result.report) == (ExitCode.DECLINED, None)
    assert of_run(result).summary == {"exit_code": 5}
    assert not sandbox.bindings
    assert bulkbind.runs(settings) == []


async def test_an_undo_that_is_declined(tmp_path, settings, sandbox):
    """What the run bound stays bound."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    ended = await bulkbind.run([manifest], settings)
    assert ended.report is not None

    undone = await bulkbind.undo(settings, ended.report.summary.run_id, listener=Unwilling())

    assert (undone.exit_code, undone.summary) == (ExitCode.DECLINED, None)
    assert len(sandbox.bindings) == 3


async def test_a_file_of_an_inbox_that_is_declined(tmp_path, settings, sandbox):
    """It stays where it is; that is worse than rows that need a person, and no fault."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    write_csv(inbox / "fleet.csv", fleet(3))

    result = await run_inbox(
        inbox, tmp_path / "done", settings, min_age_s=0.0, listener=Unwilling()
    )

    assert [item.exit_code for item in result.files] == [ExitCode.DECLINED]
    assert result.exit_code is of_inbox(result).exit_code is ExitCode.DECLINED
    assert (inbox / "fleet.csv").is_file()
    assert not sandbox.bindings

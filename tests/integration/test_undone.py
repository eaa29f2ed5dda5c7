"""An undo that is given again, and what a run says of requests that never left."""

from __future__ import annotations

import socket

import pytest
from pydantic import SecretStr

from bulkbind.app.reports import status
from bulkbind.app.run import run
from bulkbind.app.session.listener import Listener
from bulkbind.app.undo import undo
from bulkbind.cli.commands.status import _lines
from bulkbind.errors import ExitCode
from bulkbind.report import as_text
from bulkbind.report.summary import sentence
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, ReadbackSettings, Settings
from tests.support.manifests import write_csv


class Hears(Listener):
    """Keeps the notices."""

    def __init__(self):
        self.notices: list[str] = []

    def notice(self, text):
        self.notices.append(text)


def settings(tmp_path, endpoint):
    """Return the settings of a run against an endpoint."""
    return Settings(
        api=ApiSettings(endpoint=endpoint),
        auth=AuthSettings(token=SecretStr("any")),
        doubt=ReadbackSettings(readback_settle=0.1),
        ledger=tmp_path / "l.db",
        out=tmp_path / "out",
    )


async def test_an_undo_that_is_given_again_says_when_it_was_done(tmp_path):
    """Nothing is sent, and the exit code is that of the first one."""
    manifest = write_csv(tmp_path / "a.csv", [("A1", "u", "", ""), ("A2", "u", "", "")])
    hears = Hears()
    async with Sandbox() as sandbox:
        given = settings(tmp_path, sandbox.url)
        done = await run([manifest], given)
        assert done.report is not None
        run_id = done.report.summary.run_id
        first = await undo(given, run_id, devices=2)
        before = dict(sandbox.counts)
        second = await undo(given, run_id, devices=2, listener=hears)
        after = dict(sandbox.counts)

    assert first.summary is not None
    assert second.summary is not None
    ended = str(first.summary.ended_at)
    said = f"{ended[:10]} {ended[11:19]} UTC"
    assert hears.notices == [f"run {run_id} was already undone at {said}"]
    assert (first.exit_code, second.exit_code) == (ExitCode.DONE, ExitCode.DONE)
    assert second.summary.counts == {"unbound": 2}
    assert before == after


async def test_a_later_run_that_skipped_what_was_undone_since_says_so(tmp_path):
    """Its counts stay as they were; of the undone run the first line says it already."""
    manifest = write_csv(tmp_path / "a.csv", [("A1", "u", "", ""), ("A2", "u", "", "")])
    later = write_csv(tmp_path / "b.csv", [("A1", "u", "", "")])
    since = "since then 1 of those that it counts as bound was unbound"
    async with Sandbox() as sandbox:
        given = settings(tmp_path, sandbox.url)
        done = await run([manifest], given)
        assert done.report is not None
        run_id = done.report.summary.run_id
        await run([later], given)
        before = status(given)
        await undo(given, run_id, devices=2)
        after = status(given)

    assert sentence(after.summary) == "1 of 1 device is bound: 1 known."
    assert (before.unbound_since, after.unbound_since) == (0, 1)
    assert since not in _lines(before, "")
    assert since in _lines(after, "")
    assert not any(line.startswith("since then") for line in _lines(status(given, run_id), ""))


@pytest.fixture
def closed_port():
    """Return a port of this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield free.getsockname()[1]


async def test_what_never_left_this_machine_was_not_sent(tmp_path, closed_port):
    """Connections that are refused are no requests: the summary tells what the time went to."""
    manifest = write_csv(tmp_path / "a.csv", [("A1", "u", "", "")])
    given = settings(tmp_path, f"http://127.0.0.1:{closed_port}")
    given = given.model_copy(update={"send": given.send.model_copy(update={"deadline": 0.5})})

    done = await run([manifest], given)

    assert done.report is not None
    assert done.exit_code is ExitCode.STOPPED
    assert done.report.summary.facts.requests == 0
    assert "requests in" not in as_text(done.report.summary)
    assert "was never reached: connection refused" in str(done.report.summary.stop_reason)

"""An undo that is given again, and what a run says of requests that never left."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing

import pytest
from pydantic import SecretStr

from bulkbind.app.reports import runs, status
from bulkbind.app.run import run
from bulkbind.app.session.listener import Listener
from bulkbind.app.unbind import unbind
from bulkbind.app.undo import undo
from bulkbind.cli.commands.status import _lines
from bulkbind.errors import ExitCode, UsageError
from bulkbind.ledger.store import CODES
from bulkbind.model import Status
from bulkbind.report import as_text
from bulkbind.report.summary import sentence
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, ReadbackSettings, SendSettings, Settings
from tests.support.manifests import write_csv

IN_DOUBT = CODES[Status.IN_DOUBT]


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


@pytest.mark.slow
async def test_while_it_undoes_status_says_how_fast_and_what_it_waits_for(tmp_path):
    """Rate, limit and time left are those of the undo, which asks about what is in doubt."""
    rows = [(f"A{n}", f"u{n % 5}", "", "") for n in range(30)]
    manifest = write_csv(tmp_path / "a.csv", rows)
    async with Sandbox() as sandbox:
        given = settings(tmp_path, sandbox.url)
        done = await run([manifest], given)
        assert done.report is not None
        run_id = done.report.summary.run_id
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            db.execute("UPDATE stored_rows SET status = ? WHERE id % 6 = 0", (IN_DOUBT,))
            db.commit()
        slow = given.model_copy(update={"send": SendSettings(rate=5.0)})
        undoing = asyncio.create_task(undo(slow, run_id, devices=30))
        told = []
        while not undoing.done():
            await asyncio.sleep(0.3)  # noqa: TID251
            found = await asyncio.to_thread(status, given, run_id)
            told.append((found, _lines(found, "resume it with"), as_text(found.summary)))
        await undoing

    busy = [(each, "\n".join(lines), text) for each, lines, text in told if each.is_undoing]
    assert all(lines.splitlines()[1].startswith("undoing: pid ") for _, lines, _ in busy)
    later = [(each, lines) for each, lines, _ in busy if each.per_s > 1]
    assert later
    assert all("/s of 5/s (set by --rate)" in lines for _, lines in later)
    assert any(each.left_s and "left" in lines for each, lines in later)
    in_doubt = [text for _, _, text in busy if "in_doubt" in text]
    assert in_doubt
    assert all("-> its undo asks the server" in text for text in in_doubt)
    assert not told[-1][0].is_undoing or told[-1][0].left_s is not None


@pytest.mark.parametrize("devices", [400, 1])
async def test_a_number_that_is_not_there_is_refused_where_nothing_is_to_unbind(tmp_path, devices):
    """As of any other number: nothing is called undone, whatever the run was."""
    manifest = write_csv(tmp_path / "a.csv", [("A1", "u", "", "")])
    async with Sandbox() as sandbox:
        given = settings(tmp_path, sandbox.url)
        first = await run([manifest], given)
        skipped = await run([manifest], given)
        gone = await unbind([manifest], given, devices=1)
        for ended in (skipped, gone):
            assert ended.report is not None
            with pytest.raises(UsageError, match=f"{devices:,} device.* has 0$"):
                await undo(given, ended.report.summary.run_id, devices=devices)
        states = {each["run_id"]: each["undo"] for each in runs(given)}

    assert first.report is not None
    assert set(states.values()) == {None}


async def test_the_number_that_is_refused_is_taken_apart(tmp_path):
    """What is in doubt counts, and is told beside what is known as bound."""
    manifest = write_csv(tmp_path / "a.csv", [(f"A{n}", "u", "", "") for n in range(5)])
    async with Sandbox() as sandbox:
        given = settings(tmp_path, sandbox.url)
        done = await run([manifest], given)
        assert done.report is not None
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            db.execute("UPDATE stored_rows SET status = ? WHERE id % 2 = 0", (IN_DOUBT,))
            db.commit()
        with pytest.raises(UsageError) as refused:
            await undo(given, done.report.summary.run_id, devices=3)

    assert str(refused.value).endswith("has 5: 2 bound, and 3 in doubt")

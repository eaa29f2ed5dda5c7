"""The report that is written while connections are only listened to: right, or not there."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from contextlib import suppress

import pytest

import bulkbind as library
from bulkbind import report
from bulkbind.app import reports
from bulkbind.clock import SystemClock
from bulkbind.errors import LedgerError
from tests.acceptance.test_proof import SETTINGS, OneTooMany, run_here
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, environment, read_results, statuses

pytestmark = pytest.mark.slow
FILES = {"results.csv", "failed.csv", "problems.csv", "summary.json", "report.html"}


@pytest.fixture
def written(monkeypatch):
    """Return where the rows of reports are written from now on, and the run's state then."""
    found = []
    write = report.write_rows

    def write_rows(run, folder):
        found.append((folder.name, run.summary().state.value))
        return write(run, folder)

    monkeypatch.setattr(report, "write_rows", write_rows)
    return found


def names(folder):
    """Return what a report folder holds."""
    return {path.name for path in folder.iterdir()}


def content(folder):
    """Return what the files of a report say, but for when the page was made."""
    return {name: (folder / name).read_bytes() for name in FILES}


def written_anew(folder):
    """Write the report again from the ledger, elsewhere; return what it says."""
    given = {"ledger": folder / "ledger.db", "out": folder / "anew"}
    library.write_report(library.load_settings(None, given))
    return content(folder / "anew")


async def test_the_rows_are_written_before_the_run_has_ended(tmp_path, written):
    """Once, while connections are listened to; what is told of the run follows."""
    rows = [*fleet(8, users=1), *fleet(1, users=1), ("a code with blanks", "u", "", "")]
    async with OneTooMany().serving() as port:
        result = await run_here(tmp_path, port, rows, on_invalid="skip")

    [(name, state)] = written
    assert name.startswith(".draft.")
    assert state == "sending"
    assert names(tmp_path / "fleet") == {path.name for path in result.report.files} == FILES
    assert result.report.summary.state == "done"
    assert statuses(tmp_path / "fleet") == {"bound": 8, "duplicate": 1, "invalid": 1}
    assert content(tmp_path / "fleet") == written_anew(tmp_path)


async def test_an_answer_too_many_has_the_rows_written_anew(tmp_path, written):
    """It comes when they are written: the report tells what the lists showed afterwards."""
    server = OneTooMany(twice=8, after_s=0.3)
    async with server.serving() as port:
        result = await run_here(tmp_path, port, fleet(8, users=1))

    assert [(name[:7], state) for name, state in written] == [
        (".draft.", "sending"),
        ("fleet", "done"),
    ]
    assert server.lists > 0
    assert result.exit_code == 0
    assert names(tmp_path / "fleet") == FILES
    assert any("list" in row["detail"] for row in read_results(tmp_path / "fleet"))
    assert content(tmp_path / "fleet") == written_anew(tmp_path)


async def test_what_the_draft_of_another_form_leaves_is_a_whole_report(tmp_path, written):
    """A failed file in a folder of its own takes its place there; an older one goes."""
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet/failed.csv").write_text("of an earlier run", encoding="utf-8")
    lines = [json.dumps({"machine_code": "SN1", "user_id": "u"})]
    (tmp_path / "fleet.jsonl").write_text("\n".join(lines), encoding="utf-8")
    async with OneTooMany().serving() as port:
        given = {"endpoint": f"http://127.0.0.1:{port}", "auth.token": "any"}
        given |= {"ledger": tmp_path / "ledger.db", "out": tmp_path / "fleet"}
        result = await library.run([tmp_path / "fleet.jsonl"], library.load_settings(None, given))

    assert [state for _, state in written] == ["sending"]
    assert names(tmp_path / "fleet") == FILES - {"failed.csv"} | {"failed"}
    assert result.report is not None
    assert (tmp_path / "fleet/failed/fleet.jsonl") in result.report.files
    assert all(path.is_file() for path in result.report.files)


async def test_a_draft_that_cannot_be_written_is_no_loss(tmp_path, written, monkeypatch):
    """The report is written at the end, as without it."""

    def refuse(*_):
        raise LedgerError("no room")

    monkeypatch.setattr(reports, "put_in_place", refuse)
    async with OneTooMany().serving() as port:
        result = await run_here(tmp_path, port, fleet(3, users=1))

    assert [state for _, state in written] == ["sending", "done"]
    assert result.exit_code == 0
    assert names(tmp_path / "fleet") == FILES
    assert statuses(tmp_path / "fleet") == {"bound": 3}


async def until_drafted(folder):
    """Wait until the rows are written."""
    async with asyncio.timeout(20):
        while not list(folder.glob(".draft.*/problems.csv")):  # a process writes
            await SystemClock().sleep(0.01)


async def test_a_run_that_is_cancelled_meanwhile_leaves_nothing_of_a_report(tmp_path):
    """Neither the draft nor what is told of its end; the next command writes it."""
    async with OneTooMany().serving() as port:
        running = asyncio.create_task(run_here(tmp_path, port, fleet(8, users=1)), name="run")
        await until_drafted(tmp_path / "fleet")
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    assert names(tmp_path / "fleet") == set()


async def test_a_kill_meanwhile_leaves_no_half_report(tmp_path):
    """No file has its name yet; the next run writes the report of what was sent."""
    (tmp_path / "config.yaml").write_text(SETTINGS, encoding="utf-8")
    write_csv(tmp_path / "fleet.csv", fleet(8, users=1))
    server = OneTooMany()
    async with server.serving() as port:
        words = ["fleet.csv", "--endpoint", f"http://127.0.0.1:{port}", "--yes"]
        words = ["run", *words, "--config", "config.yaml", "--ledger", "l.db", "--out", "fleet"]
        how = {"cwd": tmp_path, "env": environment(tmp_path), "stderr": subprocess.DEVNULL}
        started = await asyncio.create_subprocess_exec(*BULKBIND, *words, **how)
        await until_drafted(tmp_path / "fleet")
        started.send_signal(signal.SIGKILL)
        code = await started.wait()
        found = names(tmp_path / "fleet")
        again = await asyncio.create_subprocess_exec(*BULKBIND, *words, **how)
        code_again = await again.wait()

    assert (code, code_again) == (-signal.SIGKILL, 0)
    assert [name[:7] for name in found] == [".draft."]
    assert server.posts == 8
    assert names(tmp_path / "fleet") - found == FILES
    assert statuses(tmp_path / "fleet") == {"bound": 8}

"""Pruning a real ledger, and the report folders beside it."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta

import pytest

from bulkbind.app.prune import prune as keep_house
from bulkbind.clock import iso
from bulkbind.errors import LedgerBusyError, LedgerError, UsageError
from bulkbind.ledger import all_runs, bindings_of, find_run, prune, reading, size_of
from bulkbind.ledger.lock import LedgerLock
from bulkbind.model import Device, NoAnswer, Refused, RunState, Source, Transient
from bulkbind.settings import ApiSettings, SendSettings, Settings
from tests.integration.test_engine import ENDPOINT, HOLDER, Bench
from tests.support.fake_clock import START, FakeClock
from tests.support.paths import ROOT

LATER = iso(START + timedelta(days=400))


def devices(*numbers):
    """Return devices by number."""
    return [Device(f"user_{number % 3}", f"SN{number}") for number in numbers]


def pruned(path, before=LATER, **more):
    """Prune with everything old, unless told otherwise."""
    given = {"before": before, "now": LATER, "is_trial": False} | more
    return prune(path, ENDPOINT, HOLDER, **given)


@pytest.fixture
async def bench(tmp_path):
    """Return a bench on which three nights have passed; one device is refused each time."""
    bench = Bench(tmp_path / "ledger.db")
    bench.server.planned.extend([Refused(), Transient()])
    for night, count in enumerate((4, 6, 8)):
        if night:
            bench.server.planned.append(Refused())
        bench.renew()
        await bench.ran(devices(*range(count)), name="fleet.csv")
    return bench


async def test_what_is_bound_stays_known(bench):
    """After all rows are gone, the same manifest sends nothing but what was never bound."""
    before = sum(bench.server.binds.values())

    done = pruned(bench.path)
    bench.renew()
    state = await bench.ran(devices(*range(8)), name="fleet.csv")

    assert (done.runs, done.rows) == (3, 18)
    assert done.attempts == 4
    assert state is RunState.DONE
    assert bench.counts(run=4)["skipped"] >= 6
    assert sum(bench.server.binds.values()) - before <= 1
    assert bench.server.posted_again == 0


async def test_a_pruned_run_is_listed_and_cannot_be_reported(bench):
    """`runs` still tells how it ended; its rows are asked for in vain, with the reason."""
    before = {run["run_id"]: run["counts"] for run in all_runs(bench.path)}

    pruned(bench.path)

    after = {run["run_id"]: run for run in all_runs(bench.path)}
    assert "fleet.csv" in after  # what it bound is still known as bound by it
    for run_id, run in after.items():
        assert run["counts"] == before[run_id]
        assert run["manifests"] == ["fleet.csv"]
    with reading(bench.path) as db, pytest.raises(UsageError, match="were pruned on"):
        find_run(db, "fleet.csv")


async def test_only_what_is_old_goes(bench):
    """A moment between two nights divides them."""
    with closing(sqlite3.connect(bench.path)) as db:
        db.executemany(
            "UPDATE runs SET ended_at = ? WHERE run = ?",
            [(f"2026-0{run}-01T00:00:00.000Z", run) for run in (1, 2, 3)],
        )
        db.commit()

    trial = pruned(bench.path, "2026-02-15T00:00:00.000Z", is_trial=True)
    done = pruned(bench.path, "2026-02-15T00:00:00.000Z")

    assert (trial.runs, trial.rows) == (done.runs, done.rows) == (2, 10)
    assert sum(bench.counts(run=3).values()) == 8
    assert pruned(bench.path, "2026-02-15T00:00:00.000Z").runs == 0


async def test_what_can_go_on_and_what_is_in_doubt_stays(tmp_path):
    """Neither a stopped run nor one with a row in doubt loses a row."""
    bench = Bench(tmp_path / "ledger.db")
    bench.server.list_planned.extend([NoAnswer()] * 50)
    bench.server.planned.append(NoAnswer())
    bench.send = SendSettings(concurrency=1, max_attempts=1)
    await bench.ran(devices(1), name="doubtful")
    assert bench.counts() == {"in_doubt": 1}
    bench.renew()
    async with bench.ledger() as ledger:
        await bench.staged(ledger, devices(2, 3), "unfinished")

    done = pruned(bench.path)

    assert done.rows == 0
    assert bench.counts() == {"in_doubt": 1}
    assert bench.counts(run=2) == {"pending": 2}


async def test_a_run_that_holds_the_ledger_keeps_it(bench):
    """Exit code 75, and nothing is deleted."""
    lock = LedgerLock(bench.path)
    lock.acquire(HOLDER)
    try:
        with pytest.raises(LedgerBusyError):
            pruned(bench.path)
    finally:
        lock.release()

    assert sum(bench.counts(run=3).values()) == 8


def test_no_ledger_is_made_to_be_pruned(tmp_path):
    """A wrong path is told, and no file is made there."""
    with pytest.raises(LedgerError, match="there is no ledger"):
        pruned(tmp_path / "none.db")

    assert size_of(tmp_path / "none.db") is None
    assert bindings_of(tmp_path / "none.db") is None
    assert list(tmp_path.iterdir()) == []


def large(path, runs=4, rows=30_000):
    """Make a ledger of many rows with SQL alone, as finished runs leave it."""
    from bulkbind.ledger.opening import connect  # noqa: PLC0415  # the real schema

    connect(path, ENDPOINT).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN")
        for run in range(1, runs + 1):
            db.execute(
                "INSERT INTO runs (run, run_id, state, digest, created_at, ended_at, operator, "
                "host, pid, version, settings) VALUES (?, ?, 'done', '', ?1, ?3, '', '', 1, '', "
                "'{}')",
                (run, f"run{run}", f"2026-01-{run:02}T00:00:00.000Z"),
            )
            db.execute(
                "INSERT INTO sources VALUES (?, 0, ?)",
                (run, json.dumps(asdict(Source("fleet.csv", "csv", "utf-8", bom=False)))),
            )
            db.execute(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "INSERT INTO rows (id, run, source, line, user_id, machine_code, status, detail) "
                "SELECT (? << 40) + i, ?, 0, i + 2, 'user' || (i % 99), 'SN' || i, 'skipped', "
                "'bound since 2026-01-01T00:00:00.000Z by run 20260101-000000-aaaa' FROM n",
                (rows - 1, run, run),
            )
        db.execute("COMMIT")


@pytest.mark.slow
def test_the_file_shrinks_where_it_pays(tmp_path):
    """Three of four runs gone: the file is written anew; nothing more gone: it is left alone."""
    path = tmp_path / "ledger.db"
    large(path)
    before = path.stat().st_size

    done = pruned(path, "2026-01-04T00:00:00.000Z")
    again = pruned(path, "2026-01-04T00:00:00.000Z")

    assert (done.runs, done.rows, done.is_vacuumed) == (3, 90_000, True)
    assert path.stat().st_size < before * 0.4
    assert done.bytes_after == path.stat().st_size
    assert (again.runs, again.is_vacuumed) == (0, False)
    with reading(path) as db:
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (30_000,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_prune_that_is_killed_is_gone_on_with(tmp_path):
    """Killed between two batches: what it had begun is not reported by halves, and then goes."""
    path = tmp_path / "ledger.db"
    large(path, runs=3)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from bulkbind.ledger import prune\n"
        f"prune(Path({str(path)!r}), {ENDPOINT!r}, {HOLDER!r}, before={LATER!r}, now={LATER!r},\n"
        "      is_trial=False, on_batch=lambda rows: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], timeout=60, cwd=ROOT, check=False)
    with closing(sqlite3.connect(path)) as db:
        (left,) = db.execute("SELECT count(*) FROM rows").fetchone()
    with reading(path) as db, pytest.raises(UsageError, match="pruned"):
        find_run(db, "run1")

    done = pruned(path)

    assert killed.returncode == -signal.SIGKILL
    assert left == 90_000 - 20_000
    assert done.rows == left
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM rows").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (0,)


# --- report folders -------------------------------------------------------------------------------


def report_folder(root, day, *, run_id=None, name=None, **facts):
    """Make a report folder of a run of a day in November."""
    name = name or f"202611{day:02}-021500-a{day:03x}"
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"run_id": run_id or name, **facts}))
    (folder / "results.csv").write_text("x")
    return folder


def settings(root):
    """Return settings whose report folders lie in *root*."""
    return Settings(api=ApiSettings(endpoint=ENDPOINT), out=root)


def test_reports_are_kept_by_count_or_age(tmp_path):
    """The newest stay; what is no report folder of ours is never touched."""
    folders = [report_folder(tmp_path, day) for day in range(1, 11)]
    strange = [tmp_path / "notes", tmp_path / "20261101-000000-copy"]
    for folder in strange:
        folder.mkdir()
    other = report_folder(tmp_path, 20, run_id="another")
    link = tmp_path / "20261101-021500-ffff"
    link.symlink_to(folders[0], target_is_directory=True)
    clock = FakeClock(START)  # noon of 23 November

    trial = keep_house(settings(tmp_path), keep_reports=7, is_trial=True, clock=clock)
    by_count = keep_house(settings(tmp_path), keep_reports=7, clock=clock)
    by_age = keep_house(settings(tmp_path), reports_older_than_s=16 * 86_400.0, clock=clock)

    assert trial.reports == by_count.reports == tuple(folders[:3])
    assert by_age.reports == tuple(folders[3:7])
    assert sorted(tmp_path.iterdir()) == sorted([*folders[7:], *strange, other, link])


def test_reports_of_one_second_go_by_their_time(tmp_path):
    """Ids of older versions do not tell which of them is newer; the summaries do."""
    folders = [
        report_folder(
            tmp_path, 1, name=f"20261101-021500-{end}", created_at=f"2026-11-01T02:15:00.{ms}Z"
        )
        for end, ms in (("ffff", "100"), ("0000", "200"), ("8000", "300"))
    ]

    gone = keep_house(settings(tmp_path), keep_reports=1, clock=FakeClock(START))

    assert set(gone.reports) == set(folders[:2])
    assert folders[2].exists()


def test_the_newest_report_is_never_too_old(tmp_path):
    """A job that has not run for a year keeps its last report."""
    folders = [report_folder(tmp_path, day) for day in (1, 2)]
    clock = FakeClock(START + timedelta(days=365))

    gone = keep_house(settings(tmp_path), reports_older_than_s=86_400.0, clock=clock)

    assert gone.reports == (folders[0],)
    assert folders[1].exists()

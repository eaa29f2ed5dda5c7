"""A ledger of an older version is brought up to date, also in the middle of a run."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulkbind.clock import iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import RunReader, reading, store
from bulkbind.model import Record, RunState
from tests.integration.test_engine import ENDPOINT, Bench

OLD = Path(__file__).with_name("ledger_version_1.sql")
LATER = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
IN_DOUBT = {"SN000003", "SN000008", "SN000009", "SN000012", "SN000013"}


@pytest.fixture
def old(tmp_path):
    """Return a ledger of version 1 that was cut off while it was sent."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD.read_text(encoding="utf-8"))
    return path


def version(path):
    """Return the version that a file says it has."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0]


def columns(path):
    """Return every column of every table, and the statements of every index."""
    with closing(sqlite3.connect(path)) as db:
        tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        indexes = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'index'").fetchall()
        info = {name: db.execute(f"PRAGMA table_info({name})").fetchall() for (name,) in tables}
        return info, set(indexes)


def statements(script):
    """Yield the statements of a script."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def told(path):
    """Return what a report of the run would be made of."""
    with reading(path) as db:
        reader = RunReader(db, 1)
        return list(reader.rows()), list(reader.attempts()), reader.summary()


def test_an_upgraded_ledger_is_like_a_new_one(tmp_path, old):
    """The scripts, one after the other, lead to one schema, whatever version they begin with."""
    store.connect(tmp_path / "new.db", ENDPOINT).close()
    store.connect(old, ENDPOINT).close()

    assert version(old) == store.VERSION
    assert columns(old) == columns(tmp_path / "new.db")


def test_an_upgrade_changes_nothing_that_is_told(old):
    """Who only reads an old ledger brings it up to date; rows and attempts are told as before."""
    with closing(sqlite3.connect(old)) as db:
        before = db.execute(
            "SELECT line, coalesce(user_id, ''), coalesce(machine_code, ''), code, message, "
            "attempts FROM rows ORDER BY id"
        ).fetchall()
        attempts = db.execute("SELECT count(*) FROM attempts").fetchone()[0]
    assert before
    assert version(old) == 1

    first = told(old)

    assert version(old) == store.VERSION
    assert before == [
        (row.line, row.user_id, row.machine_code, row.code, row.message, row.attempts)
        for row in first[0]
    ]
    assert len(first[1]) == attempts
    store.connect(old, ENDPOINT).close()
    assert told(old) == first


def test_who_waited_for_an_upgrade_finds_it_done(old):
    """The version counts that is read once nobody else can change it."""
    with (
        closing(sqlite3.connect(old, isolation_level=None)) as first,
        closing(sqlite3.connect(old, isolation_level=None, check_same_thread=False)) as second,
        ThreadPoolExecutor() as threads,
    ):
        second.execute("PRAGMA busy_timeout = 10000")
        first.execute("BEGIN IMMEDIATE")
        waiting = threads.submit(store._migrate, second)
        assert wait([waiting], timeout=0.3).not_done
        for number, script in enumerate(store.MIGRATIONS[1:], start=2):
            for statement in statements(script.read_text("utf-8")):
                first.execute(statement)
            first.execute(f"PRAGMA user_version = {number}")
        first.execute("COMMIT")
        waiting.result(timeout=20)

    assert version(old) == store.VERSION


def test_an_upgrade_is_all_or_nothing(old):
    """A script that breaks off in its middle leaves the version that was there, and its tables."""
    with closing(sqlite3.connect(old)) as db:
        db.execute("ALTER TABLE rows ADD COLUMN misses")  # the script's third statement fails
    before = columns(old)

    with pytest.raises(LedgerError):
        store.connect(old, ENDPOINT)

    assert version(old) == 1
    assert columns(old) == before


@pytest.mark.slow
async def test_a_run_that_an_older_version_was_killed_in_goes_on(old):
    """What was claimed or in doubt is settled by the lists; nothing is lost or posted again."""
    bench = Bench(old)
    bench.clock._began = LATER
    rows, _, _ = told(old)
    for row in rows:
        if row.status == "bound" or row.machine_code in IN_DOUBT:
            moment = row.create_time or iso(datetime(2026, 11, 24, 6, 28, 3, tzinfo=UTC))
            record = Record(row.machine_code, row.device_id or f"id_{row.line}", moment)
            bench.server.bindings[row.user_id][row.machine_code] = record

    async with bench.ledger() as ledger:
        state = await bench.sent(ledger, 1)

    after = {row.machine_code: row for row in bench.rows()}
    assert state is RunState.DONE
    assert bench.counts() == {"bound": 24}
    assert {code for code, row in after.items() if "found on the" in row.detail} == IN_DOUBT
    assert bench.server.posted_again == 0
    assert sum(bench.server.binds.values()) == 11


def test_migrations_are_numbered_without_a_gap():
    """Each script stands for one version."""
    numbers = [int(script.name.partition("-")[0]) for script in store.MIGRATIONS]

    assert numbers == list(range(1, store.VERSION + 1))

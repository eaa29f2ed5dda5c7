"""A ledger of an older version is brought up to date, also in the middle of a run."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from bulkbind.clock import iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import RunReader, opening, reading, store, versions
from bulkbind.model import Held, Record, RunState
from tests.integration.test_engine import ENDPOINT, Bench

LEDGERS = Path(__file__).parents[1] / "ledgers"
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
    opening.connect(tmp_path / "new.db", ENDPOINT).close()
    opening.connect(old, ENDPOINT).close()

    assert version(old) == versions.VERSION
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

    assert version(old) == versions.VERSION
    assert before == [
        (row.line, row.user_id, row.machine_code, row.code, row.message, row.attempts)
        for row in first[0]
    ]
    assert len(first[1]) == attempts
    opening.connect(old, ENDPOINT).close()
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
        waiting = threads.submit(versions.migrate, second)
        assert wait([waiting], timeout=0.3).not_done
        for (name,) in first.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        ).fetchall():
            first.execute(f"DROP TABLE {name}")
        for script in versions.MIGRATIONS:
            for statement in statements(script.read_text("utf-8")):
                first.execute(statement)
        first.execute(f"PRAGMA user_version = {versions.VERSION}")
        first.execute("COMMIT")
        waiting.result(timeout=20)

    assert version(old) == versions.VERSION


def test_an_upgrade_is_all_or_nothing(old):
    """A script that breaks off in its middle leaves the version that was there, and its tables."""
    with closing(sqlite3.connect(old)) as db:
        db.execute("ALTER TABLE rows ADD COLUMN misses")  # the script's third statement fails
    before = columns(old)

    with pytest.raises(LedgerError):
        opening.connect(old, ENDPOINT)

    assert version(old) == 1
    assert columns(old) == before


TABLES = (
    """
SELECT id, run, source, line, user_id, machine_code, device_name, device_os, problems, duplicate_of,
       cells, status, sent_at, attempts, doubts, repeats, device_id, create_time, http_status, code,
       message, trace_id, settled_at, detail, changes
  FROM rows ORDER BY id
""",
    """
SELECT user_id, machine_code, device_id, create_time, device_name, device_os, since, run
  FROM bindings ORDER BY user_id, machine_code
""",
    "SELECT id, verdict, silent_at, misses, missed_at FROM rows WHERE status = 'in_doubt'",
)
"""What version 5 held of rows and bindings; what a doubt knows means nothing once it is over."""
ODD = """
UPDATE rows SET device_name = 'another', device_os = NULL WHERE id % 5 = 1 AND problems IS NULL;
UPDATE rows SET changes = 'cleaned' WHERE id % 7 = 1;
UPDATE rows SET trace_id = 'odd', device_id = '007', create_time = '2026-02-30T00:00:00.000Z'
 WHERE id % 6 = 1 AND status = 'bound';
UPDATE rows SET trace_id = printf('%042d', 1) || CASE id % 5 WHEN 0 THEN '00000000000001e5'
                           WHEN 1 THEN '0000000000000485' WHEN 2 THEN '-000000000000017'
                           WHEN 3 THEN '0000000000000000' ELSE '00000000000000f5' END
 WHERE id % 6 <> 1 AND status = 'bound';
UPDATE bindings SET device_name = 'as bound' WHERE rowid_of % 2;
"""
GONE = """
INSERT INTO rows (id, run, source, line, user_id, machine_code, device_name, status, duplicate_of)
VALUES ((2 << 40) + 900, 2, 0, 900, 'gone', 'GONE1', 'first', 'skipped', NULL),
       ((2 << 40) + 901, 2, 0, 901, 'gone', 'GONE1', 'other', 'duplicate', (2 << 40) + 900),
       ((2 << 40) + 902, 2, 0, 902, 'else', 'GONE1', NULL, 'duplicate', (2 << 40) + 900);
"""
"""Rows whose device no binding and no row that was sent names any more."""


def at_version_5(old):
    """Bring a ledger to version 5, with rows of every kind and nights of skipped ones."""
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        for number, script in enumerate(versions.MIGRATIONS[1:5], start=2):
            db.executescript(script.read_text("utf-8"))
            db.execute(f"PRAGMA user_version = {number}")
        db.executescript(ODD.replace("rowid_of", "length(machine_code || device_id)"))
        names = [name for _, name, *_ in db.execute("PRAGMA table_info(runs)")]
        db.execute(
            f"INSERT INTO runs SELECT 2, 'night', 'done', {', '.join(names[3:])} FROM runs"  # noqa: S608  # constants
        )
        db.execute(
            "INSERT INTO sources SELECT 2, source, form FROM sources WHERE run = 1",
        )
        db.execute(
            "INSERT INTO rows (id, run, source, line, user_id, machine_code, device_name, "
            "device_os, status, device_id, create_time, detail) "
            "SELECT (2 << 40) + row_number() OVER (), 2, 0, row_number() OVER (), b.user_id, "
            "b.machine_code, b.device_name, b.device_os, 'skipped', b.device_id, "
            "CASE WHEN row_number() OVER () = 2 THEN 'another time' ELSE b.create_time END, "
            "'bound since ' || b.since || ' by run ' || r.run_id FROM bindings b JOIN runs r "
            "USING (run)"
        )
        db.executescript(GONE)
        return [db.execute(query).fetchall() for query in TABLES]


def test_every_value_of_version_5_is_told_as_it_was(old):
    """Rows of every kind, odd ids and moments, other names, skipped rows: to the letter."""
    before = at_version_5(old)
    kept = len([row for row in before[0] if row[11] == "skipped"])
    assert kept > 3

    opening.connect(old, ENDPOINT).close()

    with closing(sqlite3.connect(old)) as db:
        assert [db.execute(query).fetchall() for query in TABLES] == before
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        of_its_own = db.execute("SELECT count(*) FROM outcomes WHERE id >> 40 = 2").fetchone()
    assert of_its_own == (2,)  # whose time is another than its binding's, and whose has none


def test_the_ledger_as_it_was_is_kept_beside_the_new_one(old):
    """The copy is whole, private and of the old version; only an upgrade makes one."""
    before = at_version_5(old)
    copy = old.with_name("ledger.db.version-5")

    opening.connect(old, ENDPOINT).close()

    assert version(copy) == 5
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert [db.execute(query).fetchall() for query in TABLES] == before
    copy.unlink()
    opening.connect(old, ENDPOINT).close()
    assert sorted(path.name for path in old.parent.iterdir()) == ["ledger.db"]


def test_an_upgrade_without_room_leaves_all_as_it_was(old, monkeypatch):
    """It says what it needs and what is free, before anything is written."""
    before = at_version_5(old)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=120_000))

    with pytest.raises(LedgerError, match=r"upgrade to version \d+ needs 0\.\d MB .* 0\.1 MB are"):
        opening.connect(old, ENDPOINT)

    with closing(sqlite3.connect(old)) as db:
        assert [db.execute(query).fetchall() for query in TABLES] == before
    assert version(old) == 5
    assert not old.with_name("ledger.db.version-5").exists()


@pytest.mark.parametrize("moment", ["copy", "half", "commit", "place"])
def test_an_upgrade_that_is_killed_begins_anew(old, moment):
    """Cut off while it copies, amid a script, at its end, or as it takes its place: no change."""
    before = at_version_5(old)
    code = KILLED.format(path=str(old), endpoint=ENDPOINT, moment=moment)
    killed = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert version(old) == 5
    with closing(sqlite3.connect(f"file:{old}?mode=ro", uri=True)) as db:
        assert [db.execute(query).fetchall() for query in TABLES] == before

    opening.connect(old, ENDPOINT).close()

    with closing(sqlite3.connect(old)) as db:
        assert [db.execute(query).fetchall() for query in TABLES] == before
    assert sorted(path.name for path in old.parent.iterdir()) == [
        "ledger.db",
        "ledger.db.version-5",
    ]


KILLED = """
import os, signal
from pathlib import Path
from bulkbind.ledger import backup, opening, versions


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half(script):
    for statement in statements(script):
        if "INTO outcomes" in statement and "FROM old.rows" in statement:
            kill()
        yield statement


statements = versions.statements
if {moment!r} == "copy":
    backup.os.fsync = kill
elif {moment!r} == "half":
    versions.statements = half
elif {moment!r} == "place":
    versions.take_place = lambda new, db: new.backup(db, pages=9, progress=kill)
else:
    versions.statements = lambda script: [*statements(script)] + ["SELECT kill()"]
    connect = opening.sqlite3.connect

    def connected(*arguments, **options):
        db = connect(*arguments, **options)
        db.create_function("kill", 0, kill)
        return db

    opening.sqlite3.connect = connected
opening.connect(Path({path!r}), {endpoint!r})
"""


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
    numbers = [int(script.name.partition("-")[0]) for script in versions.MIGRATIONS]

    assert numbers == list(range(1, versions.VERSION + 1))


def test_an_upgrade_tells_whose_bindings_are(tmp_path):
    """Bound by a row, or by a pruned run that found nothing: ours; anything else was found."""
    path = shutil.copyfile(LEDGERS / "version-6.db", tmp_path / "ledger.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        devices = [row[0] for row in db.execute("SELECT device FROM stored_bindings ORDER BY 1")]
        found, other_id, pruned_ours, pruned_mixed = devices[:4]
        db.execute("UPDATE stored_rows SET status = 5 WHERE device = ?", (found,))
        db.execute("UPDATE stored_bindings SET device_id = 1 WHERE device = ?", (other_id,))
        for device, counts in ((pruned_ours, {"bound": 9}), (pruned_mixed, {"already_bound": 1})):
            facts = json.dumps({"pruned_at": "2026", "pruned_counts": counts})
            run = db.execute(
                "INSERT INTO runs (run_id, state, digest, created_at, operator, host, pid, version,"
                " settings, facts) VALUES (?, 'done', '', '', '', '', 1, '', '{}', ?) "
                "RETURNING run",
                (str(device), facts),
            ).fetchone()[0]
            db.execute("UPDATE stored_bindings SET run = ? WHERE device = ?", (run, device))
            db.execute("DELETE FROM stored_rows WHERE device = ?", (device,))

    with closing(opening.connect(path, None)) as db:
        held = dict(db.execute("SELECT device, held FROM stored_bindings"))

    assert {device for device, whose in held.items() if whose} == {found, other_id, pruned_mixed}
    assert held[found] == store.HELD_CODES[Held.FOUND]

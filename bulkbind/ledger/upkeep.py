"""Upkeep: damage check, size, and pruning of old runs, which keeps every binding."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulkbind.errors import LedgerError, NoLedgerError
from bulkbind.ledger.backup import back_up
from bulkbind.ledger.lock import LedgerLock
from bulkbind.ledger.opening import connect, reading, translated
from bulkbind.ledger.reading import RunReader
from bulkbind.ledger.scopes import FORGET_NAMED, remember
from bulkbind.ledger.store import OPEN, ROW_TABLES, RUN_SHIFT, int_of, put_facts, span, transaction
from bulkbind.ledger.versions import shrink
from bulkbind.model import RunFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_FAULTS = 5


def faults(path: Path, endpoint: str | None) -> list[str]:
    """Return at most `MOST_FAULTS` damages that SQLite finds; reads the whole file.

    Raises: LedgerError if it cannot be read, is no ledger, or of another endpoint.
    """
    with reading(path, endpoint) as db:
        found = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({MOST_FAULTS})")]
    return [] if found == ["ok"] else found


BATCH = 20_000
"""Rows deleted in one transaction, so that the log stays small and readers are not blocked."""

# Excludes runs that can resume, that have rows in doubt, or whose undo is unfinished.
_OLD = f"""
SELECT r.run FROM runs r
 WHERE r.facts ->> 'pruned_at' IS NULL AND coalesce(r.ended_at, r.created_at) < ?
   AND (r.state = 'done' OR r.superseded_by IS NOT NULL)
   AND NOT EXISTS (SELECT 1 FROM stored_rows d INDEXED BY rows_open
                    WHERE d.{OPEN} AND d.id >> {RUN_SHIFT} = r.run)
   AND NOT EXISTS (SELECT 1 FROM undos u WHERE u.run = r.run AND u.state <> 'done')
 ORDER BY r.run
"""  # noqa: S608  # constants
_UNNAMED = """
DELETE FROM runs
 WHERE facts ->> 'pruned_at' IS NOT NULL AND facts ->> 'pruned_rows' IS NULL
   AND run NOT IN (SELECT run FROM stored_bindings)
   AND run NOT IN (SELECT run FROM former_bindings)
   AND run NOT IN (SELECT until FROM former_bindings)
   AND run NOT IN (SELECT run FROM undos)
   AND run NOT IN (SELECT run FROM scope_devices)
   AND run NOT IN (SELECT superseded_by FROM runs WHERE superseded_by IS NOT NULL)
"""
# What no row or binding that is left needs any more. The last binding of a device that is not bound
# now stays, so that a list to unbind that names it again costs nothing.
_UNUSED = (
    FORGET_NAMED,
    f"""
DELETE FROM former_bindings
 WHERE until < coalesce((SELECT min(id) >> {RUN_SHIFT} FROM stored_rows), until + 1)
   AND (device IN (SELECT device FROM stored_bindings)
        OR until < (SELECT max(until) FROM former_bindings f
                     WHERE f.device = former_bindings.device))
""",  # noqa: S608  # constants
    """
DELETE FROM devices WHERE device NOT IN (
       SELECT device FROM stored_bindings UNION SELECT device FROM former_bindings
        UNION SELECT device FROM scope_devices
        UNION SELECT device FROM stored_rows WHERE device NOT NULL)
""",
    "DELETE FROM names WHERE device NOT IN (SELECT device FROM devices)",
    "DELETE FROM users WHERE user NOT IN (SELECT user FROM devices)",
    "DELETE FROM answers WHERE answer NOT IN (SELECT answer FROM outcomes WHERE answer NOT NULL)",
    "DELETE FROM traces WHERE trace NOT IN (SELECT trace FROM outcomes WHERE trace NOT NULL)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was pruned, or would be in a trial."""

    runs: int
    rows: int
    attempts: int
    bytes_before: int
    bytes_after: int
    is_vacuumed: bool
    why_not: str = ""
    """Why the file was not vacuumed although that was worthwhile."""


def size_of(path: Path) -> int | None:
    """Return the size of a ledger and its log in bytes; None if there is no ledger."""
    if not path.exists():
        return None
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def back_up_file(path: Path, endpoint: str | None, target: Path) -> int:
    """Write a copy of a ledger, also beside a running run; return its bytes.

    Raises: LedgerError if *target* exists or cannot be written, and as `reading`.
    """
    with reading(path, endpoint) as db:
        return back_up(db, target)


_CONTENTS = {
    "runs": "SELECT count(*) FROM runs",
    "rows": "SELECT count(*) FROM stored_rows",
    "users": "SELECT count(*) FROM users",
    "devices": "SELECT count(*) FROM devices",
    "bindings": "SELECT count(*) FROM stored_bindings",
}


def contents(path: Path, endpoint: str | None) -> dict[str, int]:
    """Return a ledger's bytes, how many of them are free, and what it holds.

    Raises: as `reading`.
    """
    with reading(path, endpoint) as db:
        page_bytes = int_of(db, "PRAGMA page_size")
        return {
            "bytes": size_of(path) or 0,
            "bytes free in it": int_of(db, "PRAGMA freelist_count") * page_bytes,
            **{name: int_of(db, query) for name, query in _CONTENTS.items()},
        }


def bindings_of(path: Path) -> int | None:
    """Return the number of bindings; None if there is no ledger. Raises: LedgerError."""
    try:
        with reading(path) as db:
            return int_of(db, "SELECT count(*) FROM stored_bindings")
    except NoLedgerError:
        return None


def prune(
    path: Path,
    endpoint: str,
    holder: dict[str, Any],
    *,
    before: str,
    now: str,
    is_trial: bool,
    on_batch: Callable[[int], None] = lambda _rows: None,
) -> Pruned:
    """Delete rows and attempts of runs that ended before a given time, and shrink the file.

    Every binding, every row in doubt and every run that can resume is kept. Devices bound by a
    pruned run stay known as bound, but the run can no longer be reported or undone.

    *before* and *now* are times as `iso` writes them, *holder* is for the lock. *is_trial*: count
    only. *on_batch* is called with the number of rows deleted so far.

    Raises: LedgerBusyError while a run holds the ledger, LedgerError.
    """
    if not path.exists():
        raise LedgerError(f"there is no ledger {path}", hint="no run has been made yet")
    real = path.resolve()
    lock = LedgerLock(real)
    lock.acquire(holder)
    try:
        with closing(connect(real, endpoint)) as db:
            bytes_before = size_of(real) or 0
            rows, attempts, runs = _pruned(db, before, now, is_trial=is_trial, on_batch=on_batch)
            is_vacuumed, why_not = (False, "") if is_trial else shrink(db, real)
            return Pruned(
                runs=runs,
                rows=rows,
                attempts=attempts,
                bytes_before=bytes_before,
                bytes_after=size_of(real) or 0,
                is_vacuumed=is_vacuumed,
                why_not=why_not,
            )
    except sqlite3.Error as error:
        raise translated(real, error) from error
    finally:
        lock.release()


def _pruned(
    db: sqlite3.Connection,
    before: str,
    now: str,
    *,
    is_trial: bool,
    on_batch: Callable[[int], None],
) -> tuple[int, int, int]:
    """Return how many rows, attempts and runs were pruned."""
    old = [run for (run,) in db.execute(_OLD, (before,))]
    # Left over from a prune that was killed.
    interrupted = [
        run for (run,) in db.execute("SELECT run FROM runs WHERE facts ->> 'pruned_rows' = 1")
    ]
    if is_trial:
        return (
            _count(db, [*interrupted, *old], "stored_rows", "id"),
            _count(db, [*interrupted, *old], "attempts", "row"),
            len(old),
        )
    for run in old:
        _mark(db, run, now)
    rows = attempts = 0
    for run in [*interrupted, *old]:
        attempts += sum(_deleted(db, run, "attempts", "row"))
        list(_deleted(db, run, "unbindings", "row"))
        for table in ROW_TABLES:
            for deleted in _deleted(db, run, table, "id"):
                if table == "stored_rows":
                    rows += deleted
                    on_batch(rows)
        with transaction(db):
            db.execute("DELETE FROM notices WHERE run = ?", (run,))
            db.execute("DELETE FROM sources WHERE run = ?", (run,))
            db.execute(
                "UPDATE runs SET facts = json_remove(facts, '$.pruned_rows') WHERE run = ?", (run,)
            )
    db.execute("PRAGMA temp_store = FILE")  # what is still named may not fit in memory
    with transaction(db):
        for statement in _UNUSED:
            db.execute(statement)
        db.execute(_UNNAMED)
    return rows, attempts, len(old)


def _mark(db: sqlite3.Connection, run: int, now: str) -> None:
    """Keep a short summary of a run, and mark that its rows are being deleted."""
    summary = RunReader(db, run).summary()
    facts = RunFacts()
    facts.pruned_at = now
    facts.pruned_rows = 1
    facts.pruned_counts = summary.counts
    facts.pruned_manifests = summary.manifests
    with transaction(db):
        remember(db, run)
        put_facts(db, "runs", run, facts)
        db.execute("UPDATE runs SET settings = '{}' WHERE run = ?", (run,))


def _deleted(db: sqlite3.Connection, run: int, table: str, key: str) -> Iterator[int]:
    """Delete a run's rows of a table batch by batch; yield the size of each batch."""
    first, last = span(run)
    while True:
        found = db.execute(
            f"SELECT max(k) FROM (SELECT {key} AS k FROM {table} WHERE {key} BETWEEN ? AND ? "  # noqa: S608  # constants
            f"ORDER BY {key} LIMIT ?)",
            (first, last, BATCH),
        ).fetchone()[0]
        if found is None:
            return
        with transaction(db):
            deleted = db.execute(
                f"DELETE FROM {table} WHERE {key} BETWEEN ? AND ?",  # noqa: S608  # constants
                (first, found),
            ).rowcount
        yield deleted


def _count(db: sqlite3.Connection, runs: list[int], table: str, key: str) -> int:
    query = f"SELECT count(*) FROM {table} WHERE {key} BETWEEN ? AND ?"  # noqa: S608  # constants
    return sum(int_of(db, query, span(run)) for run in runs)

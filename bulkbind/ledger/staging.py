"""Staging: the whole manifest is written to the ledger before anything is sent.

All functions except `withdraw` manage their own transactions.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import changes
from bulkbind.ledger.store import (
    ALL_FIELDS,
    OPEN,
    RUN_SHIFT,
    differs,
    get_facts,
    int_of,
    marks,
    optional_of,
    put_facts,
    relaxed,
    span,
    sql_list,
    transaction,
)
from bulkbind.model import IS_UNCONFIRMED, CheckedRow, Refreshed, RunState, Source, Status
from bulkbind.model.fields import DETAILS, FIELDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

BATCH = 10_000
"""Rows per transaction while staging."""

# Each batch goes through a temporary table, so that SQLite processes it as a whole.
# Precedence of states: invalid, duplicate, moved, in doubt (from another run), skipped.
_BATCH_TABLE = f"""
CREATE TEMP TABLE IF NOT EXISTS batch (
  id INTEGER PRIMARY KEY, line, {ALL_FIELDS}, cells, changes)
"""
_INSERT_BATCH = f"INSERT INTO batch VALUES ({marks(4 + len(FIELDS))})"  # noqa: S608  # constants
# The unique index on a run's devices rejects all but the first row of a device. Inserting in index
# order touches each page once per batch.
_STAGE_FIRST = f"""
INSERT OR IGNORE INTO rows (id, run, source, line, {ALL_FIELDS}, cells, changes, status)
SELECT id, :run, :source, line, {ALL_FIELDS}, cells, changes, 'staged'
  FROM batch ORDER BY user_id, machine_code, id
"""  # noqa: S608  # constants
_STAGE_DUPLICATES = f"""
INSERT INTO rows (id, run, source, line, {ALL_FIELDS}, cells, changes, duplicate_of, status)
SELECT b.id, :run, :source, b.line, b.user_id, b.machine_code, {optional_of("b")},
       CASE WHEN :keep_duplicates THEN b.cells END, b.changes, f.id, 'duplicate'
  FROM batch b JOIN rows f INDEXED BY rows_device
    ON f.run = :run AND f.user_id = b.user_id AND f.machine_code = b.machine_code
   AND f.problems IS NULL AND f.duplicate_of IS NULL
 WHERE f.id <> b.id
"""  # noqa: S608  # constants
# A device that is also bound to this user is not moved.
_MARK_MOVED = """
UPDATE rows SET status = 'moved', message = 'bound to another user',
       detail = 'bound to user ' || b.user_id
  FROM bindings b
 WHERE rows.id BETWEEN :first AND :last AND rows.status = 'staged'
   AND b.machine_code = rows.machine_code AND b.user_id <> rows.user_id
   AND NOT EXISTS (SELECT 1 FROM bindings k WHERE k.user_id = rows.user_id
                      AND k.machine_code = rows.machine_code)
"""
_STAGE_MOVES = """
INSERT INTO unbindings (row, kind, user_id, machine_code, device_id)
SELECT r.id, 'move', b.user_id, b.machine_code, b.device_id
  FROM rows r JOIN bindings b ON b.machine_code = r.machine_code AND b.user_id <> r.user_id
 WHERE r.id BETWEEN :first AND :last AND r.status = 'moved'
"""
_MARK_IN_DOUBT = f"""
UPDATE rows SET status = 'in_doubt', detail = 'in doubt since run ' || r.run_id,
       silent_at = d.silent_at, misses = d.misses, missed_at = d.missed_at
  FROM rows d INDEXED BY rows_open JOIN runs r ON r.run = d.run
 WHERE rows.id BETWEEN :first AND :last AND rows.status = 'staged'
   AND d.user_id = rows.user_id AND d.machine_code = rows.machine_code
   AND d.{OPEN} AND d.run <> :run
"""  # noqa: S608  # constants
_MARK_SKIPPED = f"""
UPDATE rows SET status = 'skipped', device_id = b.device_id, create_time = b.create_time,
       detail = 'bound since ' || b.since || ' by run ' || r.run_id
                || CASE WHEN {differs("b", "rows")}
                        THEN '; under another {DETAILS}: --rebind sends these' ELSE '' END
  FROM bindings b JOIN runs r USING (run)
 WHERE rows.id BETWEEN :first AND :last AND rows.status = 'staged' AND NOT :rebind
   AND b.user_id = rows.user_id AND b.machine_code = rows.machine_code
"""  # noqa: S608  # constants
# A row that got an error from an older run may be bound anyway: only a list can settle it, and the
# new run waits for that.
_DOUBT_OLDER = """
UPDATE rows SET status = 'in_doubt', doubts = doubts + 1, verdict = NULL,
       silent_at = ?1, misses = 0, missed_at = NULL,
       detail = 'sent, and answered with an error, when another run took its run''s place'
 WHERE id BETWEEN ?2 AND ?3 AND status = 'staged' AND attempts > 0
"""
# Found only by `--refresh`; such a row was skipped, so no request for it is in flight.
_GONE = "not on the user's list any more"
_FAIL_VANISHED = """
UPDATE rows SET status = 'failed', settled_at = ?1, device_id = '', create_time = '',
       message = 'the binding has vanished from the server',
       detail = detail || ', ' || ?2 || ': --rebind-missing binds it again'
 WHERE id = ?3 AND status = 'skipped'
"""
_STAGE_VANISHED = """
UPDATE rows SET status = 'staged', device_id = '', create_time = '', detail = ?1
 WHERE id = ?2 AND status = 'skipped'
"""
_FORGET_VANISHED = """
DELETE FROM bindings WHERE (user_id, machine_code) IN (
       SELECT user_id, machine_code FROM rows
        WHERE id BETWEEN ? AND ? AND status = 'staged' AND detail = ?)
"""
# Rows still skipped when a run starts are never returned to the operator, so drop their cells.
_FORGET_CELLS = "UPDATE rows SET cells = NULL WHERE id BETWEEN ? AND ? AND status = 'skipped'"
_STAGE_UNSENT = f"""
INSERT INTO rows (status, id, run, source, line, {ALL_FIELDS}, cells, changes, problems, message,
                  detail)
VALUES ({marks(10 + len(FIELDS))})
"""  # noqa: S608  # constants


def begin(db: sqlite3.Connection, run: dict[str, object]) -> int:
    """Insert a run with state `staging` and return its number. See `1-schema.sql` for the keys."""
    with transaction(db):
        cursor = db.execute(
            "INSERT INTO runs (run_id, state, digest, created_at, operator, host, pid, version, "
            "settings) VALUES (:run_id, 'staging', :digest, :created_at, :operator, :host, :pid, "
            ":version, :settings)",
            run,
        )
    assert cursor.lastrowid is not None  # an INSERT has one
    return cursor.lastrowid


def add_source(db: sqlite3.Connection, run: int, source: int, form: Source) -> None:
    """Record a manifest's form."""
    with transaction(db):
        db.execute("INSERT INTO sources VALUES (?, ?, ?)", (run, source, json.dumps(asdict(form))))


def stage_manifest(  # noqa: PLR0917  # one value each, all needed
    db: sqlite3.Connection,
    run: int,
    source: int,
    form: Source,
    position: int,
    rows: Iterable[CheckedRow],
    *,
    rebind: bool,
    keep_duplicates: bool = False,
    move: bool = False,
    on_batch: Callable[[int], None],
) -> int:
    """Write a whole manifest batch by batch and return the position after its last row.

    For the arguments see `stage`. *rows* is read in the writer's thread. *on_batch* is called there
    with the position reached; an exception from it ends the staging.
    """
    add_source(db, run, source, form)
    iterator = iter(rows)
    with relaxed(db):
        while batch := list(islice(iterator, BATCH)):
            position = stage(
                db, run, source, position, batch,
                rebind=rebind, keep_duplicates=keep_duplicates, move=move,
            )  # fmt: skip
            on_batch(position)
    return position


def stage(
    db: sqlite3.Connection,
    run: int,
    source: int,
    position: int,
    rows: Sequence[CheckedRow],
    *,
    rebind: bool,
    keep_duplicates: bool = False,
    move: bool = False,
) -> int:
    """Write a batch of rows in one transaction and return the position after the last one.

    *source* is the index of the manifest, *position* the 0-based position of the first row within
    the run. *rebind*: stage rows known to be bound, too. *keep_duplicates*: keep the cells of
    duplicates, which may become invalid. *move*: stage the unbindings of moved devices.
    """
    first = (run << RUN_SHIFT) + position
    valid: list[tuple[object, ...]] = []
    unsent: list[tuple[object, ...]] = []
    for number, row in enumerate(rows, start=first):
        if row.left_out:
            why = ("[]", "", f"left out by {row.left_out}")
            known = (number, run, source, row.line, *row.values, None, None, *why)
            unsent.append((Status.LEFT_OUT, *known))
        elif not row.problems:
            valid.append((number, row.line, *row.values, _cells(row), _changes(row)))
        else:
            place = (number, run, source, row.line)
            known = (*place, *row.values, _cells(row), _changes(row))
            unsent.append((Status.INVALID, *known, *_problems(row)))
    values = {"run": run, "source": source, "rebind": rebind, "keep_duplicates": keep_duplicates}
    values |= {"move": move, "first": first, "last": first + len(rows) - 1}
    db.execute(_BATCH_TABLE)
    with transaction(db):
        db.execute("DELETE FROM batch")
        db.executemany(_INSERT_BATCH, valid)
        db.executemany(_STAGE_UNSENT, unsent)
        if db.execute(_STAGE_FIRST, values).rowcount < len(valid):
            db.execute(_STAGE_DUPLICATES, values)
        _mark_known(db, values)
        written = int_of(
            db, "SELECT count(*) FROM rows WHERE id BETWEEN ? AND ?", (first, values["last"])
        )
        if written != len(rows):
            raise LedgerError(f"the ledger took {written} of {len(rows)} rows; none was kept")
    return position + len(rows)


def _mark_known(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    """Mark staged rows whose devices the ledger knows as moved, in doubt or skipped."""
    has_bindings, has_open = db.execute(
        "SELECT EXISTS (SELECT 1 FROM bindings), "  # noqa: S608  # constants
        f"EXISTS (SELECT 1 FROM rows INDEXED BY rows_open WHERE {OPEN})"
    ).fetchone()
    if has_bindings and db.execute(_MARK_MOVED, values).rowcount and values["move"]:
        db.execute(_STAGE_MOVES, values)
    if has_open:
        db.execute(_MARK_IN_DOUBT, values)
    if has_bindings:
        db.execute(_MARK_SKIPPED, values)


def _cells(row: CheckedRow) -> str:
    """Return what the operator wrote as JSON; three times faster than `json.dumps` for a list."""
    if row.text:
        return encode_basestring_ascii(row.text)
    if isinstance(row.cells, dict):
        return json.dumps(row.cells)
    return f"[{','.join(map(encode_basestring_ascii, row.cells))}]"


def _problems(row: CheckedRow) -> tuple[str, str, str]:
    """Return the problems as JSON, their rules, and their display texts."""
    return (
        json.dumps([asdict(problem) for problem in row.problems]),
        "; ".join(problem.rule for problem in row.problems),
        "; ".join(problem.text for problem in row.problems),
    )


def _changes(row: CheckedRow) -> str | None:
    return "; ".join(change.text for change in row.changes) if row.changes else None


def ready(db: sqlite3.Connection, run: int) -> None:
    """Record that the whole manifest is staged."""
    with transaction(db):
        db.execute("UPDATE runs SET state = ? WHERE run = ?", (RunState.READY, run))


def mark_vanished(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    rows: Sequence[int],
    *,
    users: int,
    bind_again: bool,
    not_proven: int = 0,
) -> None:
    """Fail skipped rows whose bindings have vanished, or stage them if *bind_again*.

    *users*: the number of users whose lists were read; *not_proven*: of bindings that lists lack
    which prove nothing.
    """
    with transaction(db):
        if bind_again:
            db.executemany(_STAGE_VANISHED, [(_GONE, row) for row in rows])
        else:
            db.executemany(_FAIL_VANISHED, [(iso(now), _GONE, row) for row in rows])
        facts = get_facts(db, "runs", run)
        facts.refreshed = Refreshed(users=users, vanished=len(rows), bound_again=bind_again)
        if not_proven:
            facts.refreshed = {**facts.refreshed, "not_proven": not_proven}
        put_facts(db, "runs", run, facts)


def confirm(db: sqlite3.Connection, now: datetime, run: int) -> int:
    """Confirm this run, which replaces every older unfinished one.

    Rows that those still had staged become `withdrawn`. Returns: the number of withdrawn rows.
    """
    with transaction(db):
        withdrawn = 0
        older = db.execute(
            "SELECT o.run, n.run_id FROM runs o JOIN runs n ON n.run = ? "
            "WHERE o.run <> n.run AND o.superseded_by IS NULL AND o.state <> 'done'",
            (run,),
        ).fetchall()
        for number, run_id in older:
            in_doubt, left = withdraw(db, now, number, f"run {run_id} took this run's place")
            withdrawn += left
            if in_doubt:
                first, last = span(run)
                db.execute(_MARK_IN_DOUBT, {"run": run, "first": first, "last": last})
            db.execute("UPDATE runs SET superseded_by = ? WHERE run = ?", (run, number))
        db.execute(_FORGET_CELLS, span(run))
        facts = get_facts(db, "runs", run)
        if facts.refreshed is not None and facts.refreshed["bound_again"]:
            # Only now: an unconfirmed run must not delete bindings.
            db.execute(_FORGET_VANISHED, (*span(run), _GONE))
        if (different := changes.changes(db, run)) is not None:
            facts.changes = facts.changes.merge(different)
            put_facts(db, "runs", run, facts)
        db.execute(
            "UPDATE runs SET state = ?, confirmed_at = ? WHERE run = ?",
            (RunState.CONFIRMED, iso(now), run),
        )
    return withdrawn


def withdraw(db: sqlite3.Connection, now: datetime, run: int, why: str) -> tuple[int, int]:
    """Withdraw a run's staged rows. Returns: rows put in doubt (may be bound), rows withdrawn."""
    in_doubt = db.execute(_DOUBT_OLDER, (now.timestamp(), *span(run))).rowcount
    withdrawn = db.execute(
        "UPDATE rows SET status = ?, settled_at = ?, detail = ? "
        "WHERE id BETWEEN ? AND ? AND status = 'staged'",
        (Status.WITHDRAWN, iso(now), why, *span(run)),
    ).rowcount
    return in_doubt, withdrawn


def discard(db: sqlite3.Connection, run: int) -> None:
    """Delete a run that was never confirmed."""
    with transaction(db):
        db.execute("DELETE FROM unbindings WHERE row BETWEEN ? AND ?", span(run))
        db.execute("DELETE FROM rows WHERE id BETWEEN ? AND ?", span(run))
        db.execute("DELETE FROM sources WHERE run = ?", (run,))
        db.execute("DELETE FROM runs WHERE run = ?", (run,))


def discard_unconfirmed(db: sqlite3.Connection) -> int:
    """Delete all runs that were killed before confirmation. Returns how many."""
    runs = db.execute(
        f"SELECT run FROM runs WHERE state IN {sql_list(IS_UNCONFIRMED)}"  # noqa: S608  # constants
    ).fetchall()
    for (run,) in runs:
        discard(db, run)
    return len(runs)

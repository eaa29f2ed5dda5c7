"""What became of a device, or of a user's devices: every row, attempt and binding. Read-only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger.store import RUN_SHIFT, sql_list
from bulkbind.model import BEYOND_ROWS, IS_PENDING, IS_UNCONFIRMED, PENDING
from bulkbind.model.history import Appearance, History, Known, Left, Taken, Try

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

# Rows have no index by device, which would cost half of what a night takes: they are read through.
_OF_DEVICE = """
SELECT id FROM stored_rows
 WHERE device IN (SELECT device FROM devices WHERE machine_code = ?1)
 UNION SELECT id FROM broken WHERE machine_code = ?1
"""
_OF_USER = """
SELECT id FROM stored_rows r
 WHERE device IN (SELECT d.device FROM devices d JOIN users u ON u.user = d.user
                   WHERE u.user_id = ?1)
 UNION SELECT k.id FROM broken k WHERE k.user_id = ?1 AND k.machine_code IN (
       SELECT d.machine_code FROM devices d JOIN users u ON u.user = d.user WHERE u.user_id = ?1)
 UNION SELECT row FROM unbindings WHERE user_id = ?1
"""
_ROW = f"""
SELECT n.run_id, n.state, n.created_at, n.operator || '@' || n.host,
       coalesce(n.facts ->> 'note', ''), s.form ->> 'name', r.line, coalesce(r.user_id, ''),
       coalesce(r.machine_code, ''),
       CASE WHEN r.status IN {sql_list(IS_PENDING)} THEN '{PENDING}' ELSE r.status END,
       r.device_id, r.create_time, r.attempts, r.http_status, r.code, r.message,
       CASE WHEN r.duplicate_of IS NULL THEN r.detail ELSE (
            SELECT 'same device as ' || (o.form ->> 'name') || ':' || f.line
              FROM rows f JOIN sources o ON o.run = f.run AND o.source = f.source
             WHERE f.id = r.duplicate_of) END,
       r.trace_id, coalesce(r.settled_at, '')
  FROM rows r JOIN runs n ON n.run = r.run JOIN sources s ON s.run = r.run AND s.source = r.source
 WHERE r.id = ? AND n.state NOT IN {sql_list(IS_UNCONFIRMED)}
"""  # noqa: S608  # constants
_NAMES = (
    *("run_id", "state", "began_at", "operator", "note", "file", "line", "user_id"),
    *("machine_code", "status", "device_id", "create_time", "attempts", "http_status", "code"),
    *("message", "detail", "trace_id", "settled_at"),
)
_TRIES = """
SELECT sent_at, verdict, http_status, code, message, trace_id FROM attempts
 WHERE row = ? ORDER BY rowid
"""
# An undo has an operator of its own; a move is part of its run.
_TAKEN = """
SELECT u.kind, u.status, u.user_id, u.device_id, coalesce(u.settled_at, ''),
       CASE WHEN u.kind = 'undo' AND d.run IS NOT NULL THEN d.operator || '@' || d.host
            ELSE n.operator || '@' || n.host END,
       u.http_status, u.code, u.message, u.trace_id
  FROM unbindings u JOIN rows r ON r.id = u.row JOIN runs n ON n.run = r.run
  LEFT JOIN undos d ON d.run = r.run
 WHERE u.row = ? AND u.kind <> 'leave' -- what a row lists to be unbound, it tells itself
"""
_TAKEN_NAMES = (
    *("kind", "status", "user_id", "device_id", "at", "operator", "http_status", "code"),
    *("message", "trace_id"),
)
# A leaver of a scope has no row in the run that unbinds it.
_LEFT = f"""
SELECT u.kind, u.status, u.user_id, u.device_id, coalesce(u.settled_at, ''),
       n.operator || '@' || n.host, u.http_status, u.code, u.message, u.trace_id, n.run_id, n.state,
       n.created_at, coalesce(n.facts ->> 'note', ''), u.machine_code
  FROM unbindings u JOIN runs n ON n.run = u.row >> {RUN_SHIFT}
 WHERE u.{{}} = ? AND u.kind = 'leave' AND u.row & ((1 << {RUN_SHIFT}) - 1) >= {BEYOND_ROWS}
   AND n.state NOT IN {sql_list(IS_UNCONFIRMED)}
 ORDER BY u.row
"""  # noqa: S608  # constants
_LEFT_NAMES = (*_TAKEN_NAMES, "run_id", "state", "began_at", "note", "machine_code")
_KNOWN = """
SELECT b.user_id, b.machine_code, b.device_id, b.create_time, b.since, n.run_id
  FROM bindings b JOIN runs n USING (run) WHERE b.{} = ? ORDER BY b.user_id, b.machine_code
"""


def history_of_device(db: sqlite3.Connection, machine_code: str) -> History:
    """Return every row that names a device, whoever its user."""
    rows = {row for (row,) in db.execute(_OF_DEVICE, (machine_code,))}
    return History(
        machine_code=machine_code,
        user_id=None,
        bindings=_known(db, "machine_code", machine_code),
        rows=_appearances(db, rows),
        left=_left(db, "machine_code", machine_code),
    )


def history_of_user(db: sqlite3.Connection, user_id: str) -> History:
    """Return every row that names a user, and those that took a device of the user's."""
    rows = {row for (row,) in db.execute(_OF_USER, (user_id,))}
    return History(
        machine_code=None,
        user_id=user_id,
        bindings=_known(db, "user_id", user_id),
        rows=_appearances(db, rows),
        left=_left(db, "user_id", user_id),
    )


def _known(db: sqlite3.Connection, column: str, value: str) -> tuple[Known, ...]:
    names = ("user_id", "machine_code", "device_id", "create_time", "since", "run_id")
    found = db.execute(_KNOWN.format(column), (value,))
    return tuple(Known(**dict(zip(names, row, strict=True))) for row in found)


def _appearances(db: sqlite3.Connection, rows: Iterable[int]) -> tuple[Appearance, ...]:
    return tuple(
        Appearance(
            **dict(zip(_NAMES, told, strict=True)), tries=_tries(db, row), taken=_taken(db, row)
        )
        for row in sorted(rows)
        if (told := db.execute(_ROW, (row,)).fetchone()) is not None
    )


def _tries(db: sqlite3.Connection, row: int) -> tuple[Try, ...]:
    names = ("at", "verdict", "http_status", "code", "message", "trace_id")
    return tuple(
        Try(**dict(zip(names, (iso(datetime.fromtimestamp(sent_at, UTC)), *rest), strict=True)))
        for sent_at, *rest in db.execute(_TRIES, (row,))
    )


def _left(db: sqlite3.Connection, column: str, value: str) -> tuple[Left, ...]:
    found = db.execute(_LEFT.format(column), (value,))
    return tuple(Left(**dict(zip(_LEFT_NAMES, told, strict=True))) for told in found)


def _taken(db: sqlite3.Connection, row: int) -> tuple[Taken, ...]:
    found = db.execute(_TAKEN, (row,))
    return tuple(Taken(**dict(zip(_TAKEN_NAMES, told, strict=True))) for told in found)

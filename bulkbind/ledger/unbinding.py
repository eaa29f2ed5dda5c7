"""Taking bindings back: an undo's beginning and end, and the life of an unbinding.

As in `transitions`, each function runs inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger import staging
from bulkbind.ledger.store import change_each, int_of, span
from bulkbind.ledger.transitions import answer_of
from bulkbind.model import GONE, RunState, Unbinding, UnbindKind, UnbindStatus

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

_LEFT = "row BETWEEN ? AND ? AND kind = ? AND status IN ('staged', 'claimed')"
_OPEN = "row = ? AND kind = ? AND user_id = ? AND status IN ('staged', 'claimed')"
# In the same transaction as the end of the last unbinding: between the two steps of a move the
# device is staged, and any start of the run sends it.
_SEND_MOVED = """
UPDATE rows SET status = 'staged', message = '', detail = ''
 WHERE id = ? AND status = 'moved' AND NOT EXISTS (
       SELECT 1 FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status NOT IN ('unbound', 'already_gone'))
"""
_KEEP_MOVED = """
UPDATE rows SET detail = detail || (
       SELECT '; not moved: ' || u.detail || ' ' || u.message FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status IN ('changed', 'failed') LIMIT 1)
 WHERE id = ? AND status = 'moved' AND EXISTS (
       SELECT 1 FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status IN ('changed', 'failed'))
"""


def begin_undo(db: sqlite3.Connection, now: datetime, run: int, who: Mapping[str, object]) -> None:
    """Say that a run is to be undone, and stage what it bound: from now on none of it is sent.

    What an earlier undo did not find is looked for again: its lists may have been wrong.

    *who*: `started_at`, `operator`, `host`, `pid`, `version`.
    """
    _stage_again(db, run, UnbindStatus.ALREADY_GONE)
    staging.withdraw(db, now, run, "the run is undone")
    db.execute("UPDATE runs SET state = ? WHERE run = ?", (RunState.DONE, run))
    db.execute(
        "INSERT INTO undos (run, state, created_at, operator, host, pid, version) "
        "VALUES (:run, 'confirmed', :started_at, :operator, :host, :pid, :version) "
        "ON CONFLICT DO UPDATE SET state = 'confirmed', ended_at = NULL, stop_reason = NULL, "
        "operator = :operator, host = :host, pid = :pid, version = :version",
        {"run": run, **who},
    )
    stage_undo(db, run)


def stage_undo(db: sqlite3.Connection, run: int) -> int:
    """Stage whatever the run bound and still has; what could not be unbound is tried again.

    Returns: How many bindings are left to take back.
    """
    _stage_again(db, run, UnbindStatus.FAILED, UnbindStatus.CHANGED)
    db.execute(
        "INSERT OR IGNORE INTO unbindings (row, kind, user_id, machine_code, device_id) "
        "SELECT id, 'undo', user_id, machine_code, device_id FROM rows "
        "WHERE id BETWEEN ? AND ? AND status = 'bound'",
        span(run),
    )
    return left(db, run, UnbindKind.UNDO)


def _stage_again(db: sqlite3.Connection, run: int, *statuses: UnbindStatus) -> None:
    """Stage what an undo has ended in one of these ways."""
    db.executemany(
        "UPDATE unbindings SET status = 'staged', attempts = 0, detail = '' "
        "WHERE row BETWEEN ? AND ? AND kind = 'undo' AND status = ?",
        [(*span(run), status) for status in statuses],
    )


def to_undo(db: sqlite3.Connection, run: int) -> tuple[str, int, int, int, int]:
    """Return how an undo stands before it goes on.

    Returns: Its state (empty: never begun); how many bindings the run made that no undo has
        unbound; how many of its rows are in doubt; how many of the bindings had been moved from
        other users; how many of them an earlier undo did not find.
    """
    state = db.execute("SELECT state FROM undos WHERE run = ?", (run,)).fetchone()
    # What a run bound, whether it had been moved, and how its undo ended, if it did.
    counts: tuple[int, int, int, int] = db.execute(
        "WITH has AS (SELECT r.status, u.status AS undone, m.row AS moved FROM rows r "
        "LEFT JOIN unbindings u ON u.row = r.id AND u.kind = 'undo' AND u.user_id = r.user_id "
        "LEFT JOIN (SELECT DISTINCT row FROM unbindings WHERE row BETWEEN ?1 AND ?2 "
        "AND kind = 'move') m ON m.row = r.id "
        "WHERE r.id BETWEEN ?1 AND ?2 AND r.status IN ('bound', 'in_doubt')) "
        "SELECT count(*) FILTER (WHERE b), count(*) FILTER (WHERE status = 'in_doubt'), "
        "count(*) FILTER (WHERE b AND moved NOT NULL), "
        "count(*) FILTER (WHERE b AND undone = 'already_gone') "
        "FROM (SELECT *, status = 'bound' AND undone IS NOT 'unbound' AS b FROM has)",
        span(run),
    ).fetchone()
    return state[0] if state else "", *counts


def start_undo(db: sqlite3.Connection, run: int) -> None:
    """The undo is sending from now on."""
    db.execute("UPDATE undos SET state = 'sending' WHERE run = ?", (run,))


def finish_undo(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    stop_reason: str | None,
    facts: Mapping[str, object],
) -> RunState:
    """End the undo, and return its last state."""
    # The server may hold bindings of rows in doubt, which the ledger does not know.
    more = left(db, run, UnbindKind.UNDO) or int_of(
        db,
        "SELECT count(*) FROM rows INDEXED BY rows_open "
        "WHERE status IN ('claimed', 'in_doubt') AND run = ?",
        (run,),
    )
    state = RunState.STOPPED if more and stop_reason else RunState.DONE
    db.execute(
        "UPDATE undos SET state = ?, ended_at = ?, stop_reason = ?, facts = ? WHERE run = ?",
        (state, iso(now), stop_reason if more else None, json.dumps(facts), run),
    )
    return state


def left(db: sqlite3.Connection, run: int, kind: UnbindKind) -> int:
    """Return how many bindings a run has left to take back."""
    return int_of(
        db,
        f"SELECT count(*) FROM unbindings WHERE {_LEFT}",  # noqa: S608  # constants
        (*span(run), kind),
    )


def next_rows(db: sqlite3.Connection, run: int, kind: UnbindKind, most: int) -> int | None:
    """Return the last row of the next *most* that have something to take back, None if none has."""
    found: tuple[int | None] = db.execute(
        f"SELECT max(row) FROM (SELECT row FROM unbindings WHERE {_LEFT} ORDER BY row LIMIT ?)",  # noqa: S608  # constants
        (*span(run), kind, most),
    ).fetchone()
    return found[0]


def users(db: sqlite3.Connection, run: int, kind: UnbindKind, last: int) -> list[str]:
    """Return the users, in order, who have something to be taken back by rows up to *last*."""
    found = db.execute(
        "SELECT DISTINCT user_id FROM unbindings INDEXED BY unbindings_open "
        "WHERE status IN ('staged', 'claimed') AND kind = ? AND row BETWEEN ? AND ? "
        "ORDER BY user_id",
        (kind, span(run)[0], last),
    )
    return [row[0] for row in found]


def open_of(
    db: sqlite3.Connection, run: int, kind: UnbindKind, user_id: str, last: int
) -> list[Unbinding]:
    """Return what is to be taken back from a user by rows up to *last*."""
    found = db.execute(
        "SELECT row, user_id, machine_code, device_id, status "
        "FROM unbindings INDEXED BY unbindings_open "
        "WHERE status IN ('staged', 'claimed') AND kind = ? AND user_id = ? "
        "AND row BETWEEN ? AND ? ORDER BY row",
        (kind, user_id, span(run)[0], last),
    )
    return [
        Unbinding(row, kind, user, code, device, was_sent=status == UnbindStatus.CLAIMED)
        for row, user, code, device, status in found
    ]


def claim(db: sqlite3.Connection, items: Sequence[Unbinding]) -> None:
    """Say that requests for these may leave from now on."""
    _mark(db, items, "claimed")


def release(db: sqlite3.Connection, items: Sequence[Unbinding]) -> None:
    """Say that no request for these has left."""
    _mark(db, items, "staged")


def _mark(db: sqlite3.Connection, items: Sequence[Unbinding], status: str) -> None:
    change_each(
        db,
        f"UPDATE unbindings SET status = ? WHERE {_OPEN}",  # noqa: S608  # a constant
        [(status, item.row, item.kind, item.user_id) for item in items],
    )


def settle(db: sqlite3.Connection, now: datetime, items: Sequence[Unbinding]) -> None:
    """Write down how unbindings ended; what is gone is no binding any more."""
    change_each(
        db,
        "UPDATE unbindings SET status = ?, attempts = ?, settled_at = ?, detail = ?, "  # noqa: S608  # a constant
        "http_status = ?, code = coalesce(?, ''), message = coalesce(?, ''), "
        f"trace_id = coalesce(?, '') WHERE {_OPEN}",
        [
            (
                *(item.status, item.attempts, iso(now), item.detail),
                *answer_of(item.last),
                *(item.row, item.kind, item.user_id),
            )
            for item in items
        ],
    )
    gone = [item for item in items if item.status in GONE]
    db.executemany(
        "DELETE FROM bindings WHERE user_id = ? AND machine_code = ? AND device_id = ?",
        [(item.user_id, item.machine_code, item.device_id) for item in gone],
    )
    moved = [(item.row,) for item in items if item.kind is UnbindKind.MOVE]
    db.executemany(_SEND_MOVED, moved)
    db.executemany(_KEEP_MOVED, moved)

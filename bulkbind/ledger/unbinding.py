"""The start and end of an undo, and the transitions of an unbinding.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from bulkbind.clock import iso
from bulkbind.ledger import leaving, staging, transitions
from bulkbind.ledger.store import (
    CODES,
    OPEN,
    RUN_SHIFT,
    THESE,
    UNBIND_OPEN,
    as_json,
    check_changed,
    get_facts,
    int_of,
    of_status,
    put_facts,
    span,
    sql_list,
)
from bulkbind.model import (
    GONE,
    IS_OURS,
    NOT_UNBOUND,
    RunState,
    Status,
    Unbinding,
    UnbindKind,
    UnbindStatus,
    ended_of,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from bulkbind.model import RunFacts

_LEFT = f"row BETWEEN ? AND ? AND kind = ? AND {UNBIND_OPEN}"
_MARK = f"""
UPDATE unbindings SET status = ?
 WHERE (row, kind, user_id) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))
   AND {UNBIND_OPEN}
"""  # noqa: S608  # constants
_MARK_ROWS = f"UPDATE stored_rows SET status = ? WHERE status = ? AND id IN {THESE}"  # noqa: S608  # a constant
_End: TypeAlias = "tuple[str, int, str, int | None, str, str]"
"""Status, attempts, detail, and the answer's HTTP status, code and message."""
_TOGETHER = 50
"""So many that ended alike are written by one statement, as values: JSON takes longer to read."""
_SETTLE = f"""
UPDATE unbindings
   SET settled_at = ?, status = ?, attempts = ?, detail = ?, http_status = ?, code = ?,
       message = ?, trace_id = e.trace_id
  FROM (WITH e (row, user_id, trace_id) AS (VALUES {", ".join(["(?, ?, ?)"] * _TOGETHER)})
        SELECT * FROM e) e
 WHERE unbindings.row = e.row AND unbindings.kind = ? AND unbindings.user_id = e.user_id
   AND unbindings.{UNBIND_OPEN}
"""  # noqa: S608  # constants
_FORGET = f"""
DELETE FROM stored_bindings WHERE device IN (
       SELECT b.device FROM {leaving.THESE_DEVICES}
         JOIN stored_bindings b ON b.device = d.device
        WHERE coalesce(CAST(b.device_id AS TEXT), '') = t.value ->> 2)
"""  # noqa: S608  # constants
# In the same transaction as the last unbinding, so that after a crash in the middle of a move the
# row is already staged and a resumed run sends it.
_SEND_MOVED = f"""
UPDATE rows SET status = 'staged', message = '', detail = ''
 WHERE id = ? AND status = 'moved' AND NOT EXISTS (
       SELECT 1 FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status NOT IN {sql_list(GONE)})
"""  # noqa: S608  # constants
_KEEP_MOVED = f"""
UPDATE rows SET detail = detail || (
       SELECT '; not moved: ' || u.detail || ' ' || u.message FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status IN {sql_list(NOT_UNBOUND)} LIMIT 1)
 WHERE id = ? AND status = 'moved' AND EXISTS (
       SELECT 1 FROM unbindings u
        WHERE u.row = rows.id AND u.kind = 'move' AND u.status IN {sql_list(NOT_UNBOUND)})
"""  # noqa: S608  # constants


def begin_undo(db: sqlite3.Connection, now: datetime, run: int, who: Mapping[str, object]) -> None:
    """Confirm the undo of a run: withdraw its staged rows and stage the unbinding of what it bound.

    Devices that an earlier undo did not find are looked up again, as its lists may have been wrong.
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
    """Stage the run's bindings, also those not unbound before; return how many are left."""
    _stage_again(db, run, UnbindStatus.FAILED, UnbindStatus.CHANGED)
    db.execute(
        "INSERT OR IGNORE INTO unbindings (row, kind, user_id, machine_code, device_id) "  # noqa: S608  # constants
        "SELECT id, 'undo', user_id, machine_code, device_id FROM rows "
        f"WHERE id IN ({of_status(IS_OURS)})",
        span(run),
    )
    return count_left(db, run, UnbindKind.UNDO)


def _stage_again(db: sqlite3.Connection, run: int, *statuses: UnbindStatus) -> None:
    db.executemany(
        "UPDATE unbindings SET status = 'staged', attempts = 0, detail = '' "
        "WHERE row BETWEEN ? AND ? AND kind = 'undo' AND status = ?",
        [(*span(run), status) for status in statuses],
    )


def undo_progress(db: sqlite3.Connection, run: int) -> tuple[str, int, int, int, int]:
    """Return the state of an undo (empty if it never started), and how much is left to undo.

    Returns: State; number of bindings that the run made and no undo has unbound; of rows in doubt;
        of those bindings moved from other users; of those an earlier undo did not find.
    """
    state = db.execute("SELECT state FROM undos WHERE run = ?", (run,)).fetchone()
    # The rows bound by the run, whether they were moved, and how their undo ended, if it did.
    counts: tuple[int, int, int, int] = db.execute(
        "WITH has AS (SELECT r.status, u.status AS undone, m.row AS moved FROM rows r "  # noqa: S608  # constants
        "LEFT JOIN unbindings u ON u.row = r.id AND u.kind = 'undo' AND u.user_id = r.user_id "
        "LEFT JOIN (SELECT DISTINCT row FROM unbindings WHERE row BETWEEN ?1 AND ?2 "
        "AND kind = 'move') m ON m.row = r.id "
        f"WHERE r.id BETWEEN ?1 AND ?2 AND r.status IN {sql_list((*IS_OURS, Status.IN_DOUBT))}) "
        "SELECT count(*) FILTER (WHERE b), count(*) FILTER (WHERE status = 'in_doubt'), "
        "count(*) FILTER (WHERE b AND moved NOT NULL), "
        "count(*) FILTER (WHERE b AND undone = 'already_gone') "
        f"FROM (SELECT *, status IN {sql_list(IS_OURS)} AND undone IS NOT 'unbound' AS b FROM has)",
        span(run),
    ).fetchone()
    return state[0] if state else "", *counts


def start_undo(db: sqlite3.Connection, run: int, who: Mapping[str, object]) -> None:
    """Record that the undo is sending, and who sends it: as of `begin_undo`."""
    db.execute(
        "UPDATE undos SET state = 'sending', operator = :operator, host = :host, pid = :pid, "
        "version = :version WHERE run = :run",
        {"run": run, **who},
    )


def finish_undo(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    stop_reason: str | None,
    facts: RunFacts,
) -> RunState:
    """End the undo and return its final state. *facts*: of this session."""
    # The server may hold bindings of rows in doubt that the ledger does not know.
    more = count_left(db, run, UnbindKind.UNDO) or int_of(
        db,
        "SELECT count(*) FROM stored_rows INDEXED BY rows_open "  # noqa: S608  # constants
        f"WHERE {OPEN} AND id BETWEEN ? AND ?",
        span(run),
    )
    state = RunState.STOPPED if more and stop_reason else RunState.DONE
    db.execute(
        "UPDATE undos SET state = ?, ended_at = ?, stop_reason = ? WHERE run = ?",
        (state, iso(now), stop_reason if more else None, run),
    )
    put_facts(db, "undos", run, get_facts(db, "undos", run).merge(facts))
    return state


def count_left(db: sqlite3.Connection, run: int, kind: UnbindKind) -> int:
    """Return how many bindings a run has left to unbind."""
    return int_of(
        db,
        f"SELECT count(*) FROM unbindings WHERE {_LEFT}",  # noqa: S608  # constants
        (*span(run), kind),
    )


def next_rows(db: sqlite3.Connection, run: int, kind: UnbindKind, most: int) -> int | None:
    """Return the last row of the next *most* open unbindings; None if none is left."""
    found: tuple[int | None] = db.execute(
        f"SELECT max(row) FROM (SELECT row FROM unbindings WHERE {_LEFT} ORDER BY row LIMIT ?)",  # noqa: S608  # constants
        (*span(run), kind, most),
    ).fetchone()
    return found[0]


def users(db: sqlite3.Connection, run: int, kind: UnbindKind, last: int) -> dict[str, int]:
    """Return the numbers of open unbindings of rows up to *last* by user, in order of their rows.

    So users that are served together have rows near each other, and few pages change.
    """
    found = db.execute(
        "SELECT user_id, count(*) FROM unbindings INDEXED BY unbindings_open "  # noqa: S608  # constants
        f"WHERE {UNBIND_OPEN} AND kind = ? AND row BETWEEN ? AND ? "
        "GROUP BY user_id ORDER BY min(row)",
        (kind, span(run)[0], last),
    )
    return dict(found.fetchall())


def open_of(
    db: sqlite3.Connection, run: int, kind: UnbindKind, user_ids: Sequence[str], last: int
) -> list[Unbinding]:
    """Return the open unbindings of rows up to *last* of some users, one after the other."""
    found = db.execute(
        "SELECT x.row, x.user_id, x.machine_code, x.device_id, x.status "  # noqa: S608  # constants
        "FROM json_each(?) u CROSS JOIN unbindings x INDEXED BY unbindings_open "
        f"ON x.user_id = u.value WHERE x.{UNBIND_OPEN} AND x.kind = ? "
        "AND x.row BETWEEN ? AND ? ORDER BY u.key, x.row",
        (json.dumps(list(user_ids)), kind, span(run)[0], last),
    )
    return [
        Unbinding(row, kind, user, code, device, was_sent=status == UnbindStatus.CLAIMED)
        for row, user, code, device, status in found
    ]


def claim(db: sqlite3.Connection, items: Sequence[Unbinding]) -> None:
    """Record that requests for these may be sent from now on."""
    _mark(db, items, UnbindStatus.CLAIMED)
    _mark_rows(db, items, Status.STAGED, Status.CLAIMED)


def release(db: sqlite3.Connection, items: Sequence[Unbinding]) -> None:
    """Record that no request for these was sent."""
    _mark(db, items, UnbindStatus.STAGED)
    _mark_rows(db, items, Status.CLAIMED, Status.STAGED)


def _mark(db: sqlite3.Connection, items: Sequence[Unbinding], status: UnbindStatus) -> None:
    keys = [(item.row, item.kind, item.user_id) for item in items]
    check_changed(len(items), db.execute(_MARK, (status, as_json(keys))).rowcount)


def _mark_rows(
    db: sqlite3.Connection, items: Sequence[Unbinding], before: Status, after: Status
) -> None:
    """Mark the rows that name what is to be unbound; those in doubt stay so."""
    rows = [item.row for item in items if item.is_listed]
    db.execute(_MARK_ROWS, (CODES[after], CODES[before], as_json(rows)))


def settle(db: sqlite3.Connection, now: datetime, items: Sequence[Unbinding]) -> None:
    """Record how unbindings ended, and delete the bindings that are gone."""
    _settle(db, now, items)
    # Released, and then a list decided: for the row it was sent all the same.
    sent = [item for item in items if item.attempts or item.was_sent]
    _mark_rows(db, sent, Status.STAGED, Status.CLAIMED)
    transitions.settle(db, now, [ended_of(item) for item in items if item.is_listed])
    gone = [item for item in items if item.status.about.is_gone]
    leaving.remember(db, [item for item in gone if item.kind is UnbindKind.LEAVE])
    keys = [(item.user_id, item.machine_code, item.device_id) for item in gone]
    db.execute(_FORGET, (as_json(keys),))
    moved = [(item.row,) for item in items if item.kind is UnbindKind.MOVE]
    db.executemany(_SEND_MOVED, moved)
    db.executemany(_KEEP_MOVED, moved)
    _withdraw_moved(db, now, {row >> RUN_SHIFT for (row,) in moved})


def _settle(db: sqlite3.Connection, now: datetime, items: Sequence[Unbinding]) -> None:
    alike = defaultdict[tuple[_End, UnbindKind], list[tuple[int, str, str]]](list)
    for item in items:
        http_status, code, message, trace = transitions.answer_of(item.last)
        said = (http_status, code or "", message or "")
        ended = (item.status, item.attempts, item.detail, *said)
        alike[ended, item.kind].append((item.row, item.user_id, trace or ""))
    moment, changed = iso(now), 0
    for (end, kind), those in alike.items():
        for first in range(0, len(those), _TOGETHER):
            some: list[tuple[object, ...]] = [*those[first : first + _TOGETHER]]
            some += [(None, None, None)] * (_TOGETHER - len(some))
            values = (moment, *end, *chain.from_iterable(some), kind)
            changed += db.execute(_SETTLE, values).rowcount
    check_changed(len(items), changed)


def _withdraw_moved(db: sqlite3.Connection, now: datetime, runs: Collection[int]) -> None:
    """Withdraw what is to be sent after a move, where another run took its run's place."""
    for run in runs:
        query = "SELECT n.run_id FROM runs r JOIN runs n ON n.run = r.superseded_by WHERE r.run = ?"
        for (instead,) in db.execute(query, (run,)).fetchall():
            staging.withdraw(db, now, run, f"run {instead} took this run's place")

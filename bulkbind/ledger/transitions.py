"""A row's life once it is staged: claimed, released, in doubt, settled.

The SQL of each step; which steps are allowed is the table in `model.statuses`.

Each function runs inside the caller's transaction. Raises: LedgerError if one of the given rows
does not change; the transaction must then be rolled back.
"""

from __future__ import annotations

import json
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from bulkbind.clock import iso
from bulkbind.ledger.store import (
    CODES,
    HELD_CODES,
    OPEN,
    RUN_SHIFT,
    THESE,
    as_json,
    change_each,
    check_changed,
    codes,
    int_of,
    marks,
    numbers_of,
    span,
    sql_list,
    stored_id,
    stored_time,
)
from bulkbind.model import (
    BY_ANSWER,
    IS_BOUND,
    IS_OURS,
    AlreadyBound,
    Claim,
    Device,
    Held,
    NoAnswer,
    Refused,
    RunKind,
    Status,
    Transient,
    Verdict,
)
from bulkbind.model.fields import OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from bulkbind.model import Attempt, Ended, Record

_COLUMNS = f"""
id, json_array(user_id, machine_code, json_array({", ".join(OPTIONAL)})), attempts, doubts, sent_at
"""
"""The columns of a claim, in the order of `Claim`."""
_CLAIMS = msgspec.json.Decoder(list[tuple[int, Device, int, int, float | None]])
_CLAIM = f"SELECT json_group_array(json_array({_COLUMNS})) FROM"
_STAGED, _CLAIMED = CODES[Status.STAGED], CODES[Status.CLAIMED]
_IN_DOUBT = CODES[Status.IN_DOUBT]
_FREE = f"id BETWEEN ? AND ? AND status = {_STAGED} AND id NOT IN {THESE}"
_LIST_TURNS = f"""
INSERT INTO turns (row)
SELECT r.id FROM stored_rows r JOIN devices d ON d.device = r.device WHERE {_FREE}
 ORDER BY row_number() OVER (PARTITION BY d.user ORDER BY r.id), r.id
"""  # noqa: S608  # constants
_MARK_CLAIMED = (
    f"UPDATE stored_rows SET status = {_CLAIMED} WHERE status = {_STAGED} AND id IN {THESE}"  # noqa: S608  # constants
)
_MARK_SENT = """
INSERT INTO sending (id, sent_at) SELECT value, ?2 FROM json_each(?1) WHERE true
    ON CONFLICT DO UPDATE SET sent_at = excluded.sent_at WHERE attempts = 0 AND doubts = 0
"""


def claim(
    db: sqlite3.Connection,
    run: int,
    after: int,
    most: int,
    sent_at: float | None,
    *,
    excluding: Iterable[int] = (),
) -> list[Claim]:
    """Claim up to *most* staged rows after row *after* (0: from the first), in manifest order.

    *sent_at*: the server's current time, the earliest at which the rows may be sent; None if not
    known yet. *excluding*: rows that another task holds.
    """
    (rows,) = db.execute(
        "SELECT json_group_array(id) FROM "  # noqa: S608  # a constant
        f"(SELECT id FROM stored_rows WHERE {_FREE} ORDER BY id LIMIT ?)",
        (max(after + 1, span(run)[0]), span(run)[1], json.dumps(list(excluding)), most),
    ).fetchone()
    return _claimed(db, rows, sent_at)


def _claimed(db: sqlite3.Connection, rows: str, sent_at: float | None) -> list[Claim]:
    """Claim staged rows, a JSON list of ids; return them in its order, which is theirs or turns."""
    (text,) = db.execute(f"{_CLAIM} rows WHERE id IN {THESE}", (rows,)).fetchone()
    claims = {taken.row: taken for taken in _claims(text)}
    check_changed(len(claims), db.execute(_MARK_CLAIMED, (rows,)).rowcount)
    db.execute(_MARK_SENT, (rows, sent_at))
    for taken in claims.values():
        _sent_first(taken, sent_at)
    return [claims[row] for row in msgspec.json.decode(rows)]


def claim_in_turns(
    db: sqlite3.Connection,
    run: int,
    most: int,
    sent_at: float | None,
    *,
    excluding: Iterable[int] = (),
) -> list[Claim]:
    """Claim up to *most* staged rows round-robin by user. For the arguments see `claim`.

    The first call since `start`, or since no row was left, fixes the order in a temporary table in
    memory (about 20 bytes per row), from which claimed rows are deleted.
    """
    if not int_of(db, "SELECT count(*) FROM temp.sqlite_schema WHERE name = 'turns'"):
        db.execute("CREATE TEMP TABLE turns (place INTEGER PRIMARY KEY, row INTEGER)")
        db.execute(_LIST_TURNS, (*span(run), json.dumps(list(excluding))))
    (rows,) = db.execute(
        "SELECT json_group_array(row) FROM (SELECT row FROM turns ORDER BY place LIMIT ?)", (most,)
    ).fetchone()
    claims = _claimed(db, rows, sent_at)
    db.execute(
        "DELETE FROM turns WHERE place IN (SELECT place FROM turns ORDER BY place LIMIT ?)", (most,)
    )
    if not claims:
        # A run that moves devices stages more rows later; they need a new list.
        db.execute("DROP TABLE temp.turns")
    return claims


def reclaim(db: sqlite3.Connection, claim: Claim, sent_at: float | None) -> None:
    """Claim one released row again."""
    row = json.dumps([claim.row])
    check_changed(1, db.execute(_MARK_CLAIMED, (row,)).rowcount)
    db.execute(_MARK_SENT, (row, sent_at))
    _sent_first(claim, sent_at)


def release(db: sqlite3.Connection, claims: Sequence[Claim]) -> None:
    """Return rows to `staged`: certainly not bound by any request so far."""
    change_each(
        db,
        f"UPDATE stored_rows SET status = {_STAGED} WHERE id = ? AND {OPEN}",  # noqa: S608  # constants
        [(taken.row,) for taken in claims],
    )
    db.executemany(
        "UPDATE sending SET attempts = ?, sent_at = ? WHERE id = ?",
        [(taken.attempts, taken.sent_at, taken.row) for taken in claims],
    )
    db.executemany(
        "DELETE FROM sending WHERE id = ? AND attempts = 0 AND doubts = 0",
        [(taken.row,) for taken in claims],
    )


def _claims(text: str) -> list[Claim]:
    claims = [Claim(*columns) for columns in _CLAIMS.decode(text)]
    claims.sort(key=attrgetter("row"))
    return claims


def _sent_first(taken: Claim, sent_at: float | None) -> None:
    if taken.attempts == 0 and taken.doubts == 0:
        taken.sent_at = sent_at


_DOUBT = f"""
SELECT json_group_array(json_array({_COLUMNS}, verdict,
       json_object('silent_at', silent_at, 'misses', misses, 'missed_at', missed_at))) FROM
"""  # noqa: S608  # constants
_DOUBTS = msgspec.json.Decoder(
    list[tuple[int, Device, int, int, float | None, str | None, dict[str, Any]]]
)
_ANSWERED: dict[str, Verdict] = {
    type(verdict).__name__: verdict for verdict in (AlreadyBound(), Refused(), Transient())
}
"""Verdicts that decide how doubt may end; NoAnswer is not among them."""


def doubt(
    db: sqlite3.Connection,
    now: datetime,
    claim: Claim,
    attempts: Iterable[tuple[int, Attempt]] = (),
) -> None:
    """Mark a row in doubt: no answer settled it, or only the list can confirm the answer.

    *attempts*: as in `settle`.
    """
    record_attempts(db, attempts)
    verdict = type(claim.last.verdict).__name__ if claim.last else None
    under_way_s = (claim.last.under_way_s if claim.last else None) or 0.0
    changed = db.execute(
        f"UPDATE stored_rows SET status = {_IN_DOUBT} WHERE id = ? AND status = {_CLAIMED}",  # noqa: S608  # constants
        (claim.row,),
    )
    check_changed(1, changed.rowcount)
    db.execute(
        "UPDATE rows SET attempts = ?, doubts = ?, sent_at = ?, verdict = ?, "
        "silent_at = ?, misses = 0, missed_at = NULL, detail = '', http_status = ?, "
        "code = coalesce(?, ''), message = coalesce(?, ''), trace_id = coalesce(?, '') "
        "WHERE id = ?",
        (
            *(claim.attempts, claim.doubts, claim.sent_at, verdict, now.timestamp() + under_way_s),
            *answer_of(claim.last),
            claim.row,
        ),
    )


_SETTLED_BY_ANSWER = sql_list(BY_ANSWER)
_CONFIRMABLE = sql_list(_ANSWERED)


def doubt_again(
    db: sqlite3.Connection, now: datetime, rows: Iterable[int]
) -> tuple[list[Claim], list[Status]]:
    """Mark settled rows in doubt, as their answers may belong to other requests.

    Rows that only wait for a list to confirm such an answer wait for one that decides.

    Returns: The claims of those that were settled, and what they were.
    """
    these = json.dumps(list(rows))
    waiting = db.execute(
        f"SELECT id FROM rows WHERE id IN {THESE} AND status = 'in_doubt' "  # noqa: S608  # constants
        f"AND verdict IN {_CONFIRMABLE}",
        (these,),
    ).fetchall()
    still = json.dumps([row for (row,) in waiting])
    db.execute(
        f"UPDATE sending SET verdict = NULL, doubts = doubts + 1 WHERE id IN {THESE}",  # noqa: S608  # constants
        (still,),
    )
    _disprove(db, still)
    found = db.execute(
        f"SELECT id, status FROM rows WHERE id IN {THESE} AND status IN {_SETTLED_BY_ANSWER}",  # noqa: S608  # constants
        (these,),
    ).fetchall()
    these = json.dumps([row for row, _ in found])
    db.execute(
        "DELETE FROM stored_bindings AS b WHERE device IN (SELECT r.device FROM stored_rows r "  # noqa: S608  # constants
        f"JOIN outcomes o USING (id) WHERE r.id IN {THESE} AND r.id >> {RUN_SHIFT} = b.run "
        "AND o.device_id IS b.device_id)",
        (these,),
    )
    _disprove(db, these)
    db.execute(
        "UPDATE rows SET status = 'in_doubt', doubts = doubts + 1, verdict = NULL, silent_at = ?, "  # noqa: S608  # a constant
        "misses = 0, missed_at = NULL, settled_at = NULL, device_id = '', create_time = '', "
        f"detail = 'its answer may be that to another request' WHERE id IN {THESE}",
        (now.timestamp(), these),
    )
    (text,) = db.execute(f"{_CLAIM} rows WHERE id IN {THESE}", (these,)).fetchone()
    return _claims(text), [Status(status) for _, status in found]


def _disprove(db: sqlite3.Connection, these: str) -> None:
    """Note that the last requests of rows got no answer: another's refusal is no repeat."""
    db.execute(
        f"UPDATE attempts SET verdict = '{NoAnswer.__name__}' FROM rows r "  # noqa: S608  # constants
        "WHERE r.id = attempts.row "
        f"AND r.trace_id = attempts.trace_id AND r.id IN {THESE}",
        (these,),
    )


CUT_OFF_WHILE_SENT = "the run was cut off while it was sent"


def recover(db: sqlite3.Connection, now: datetime, why: str = CUT_OFF_WHILE_SENT) -> int:
    """Mark claimed rows in doubt, as they may have been sent. Returns how many.

    Counts no attempt: a crash is not the device's fault. Call only while holding the lock.
    """
    found = db.execute(
        f"UPDATE stored_rows INDEXED BY rows_open SET status = {_IN_DOUBT} "  # noqa: S608  # constants
        f"WHERE {OPEN} AND status = {_CLAIMED} RETURNING id"
    ).fetchall()
    db.execute(
        "UPDATE rows SET doubts = doubts + 1, detail = ?, "  # noqa: S608  # a constant
        f"verdict = NULL, silent_at = ?, misses = 0, missed_at = NULL WHERE id IN {THESE}",
        (why, now.timestamp(), json.dumps([row for (row,) in found])),
    )
    return len(found)


def doubts(db: sqlite3.Connection) -> list[Claim]:
    """Return every row in doubt that may be bound, of any run, in order of user."""
    (text,) = db.execute(
        f"{_DOUBT} rows WHERE id IN (SELECT id FROM stored_rows INDEXED BY rows_open "  # noqa: S608  # constants
        f"WHERE {OPEN} AND status = {_IN_DOUBT}) "  # constants
        f"AND run IN (SELECT run FROM runs WHERE kind = '{RunKind.BIND}')"
    ).fetchone()
    claims = [
        Claim(
            row,
            device,
            attempts,
            doubts,
            sent_at,
            earlier_verdict=_ANSWERED.get(verdict or ""),
            **silence,
        )
        for row, device, attempts, doubts, sent_at, verdict, silence in _DOUBTS.decode(text)
    ]
    return sorted(claims, key=lambda claim: (claim.device.user_id, claim.row))


def missed(db: sqlite3.Connection, now: datetime, rows: Iterable[int]) -> None:
    """Record that a trustworthy list did not show these rows."""
    db.executemany(
        "UPDATE rows SET misses = misses + 1, missed_at = ? WHERE id = ? AND status = 'in_doubt'",
        [(now.timestamp(), row) for row in rows],
    )


def note_doubt(db: sqlite3.Connection, rows: Iterable[int], why: str) -> None:
    """Record why rows stay in doubt."""
    db.executemany(
        "UPDATE rows SET detail = ? WHERE id = ? AND status = 'in_doubt'",
        [(why, row) for row in rows],
    )


_SETTLE = f"""
UPDATE stored_rows SET status = ?
 WHERE id IN {THESE} AND ({OPEN} OR status = {_STAGED} AND ?)
"""  # noqa: S608  # constants
_OUTCOME = ("id", "sent_at", "attempts", "device_id", "create_time", "answer", "trace", "traced")
_TOGETHER = 50
"""So many outcomes are written by one statement, as values: to read them from JSON takes longer."""
# What an earlier answer said stays if there is no later one.
_OUTCOMES = f"""
WITH o ({", ".join(_OUTCOME)}) AS (VALUES {", ".join([f"({marks(len(_OUTCOME))})"] * _TOGETHER)})
INSERT OR REPLACE INTO outcomes (id, sent_at, attempts, device_id, create_time, answer, trace,
                                 traced, settled_at)
SELECT o.id, coalesce(o.sent_at, s.sent_at), o.attempts,
       {stored_id("o.device_id")}, {stored_time("o.create_time")},
       coalesce(o.answer, e.answer), iif(o.answer IS NULL, e.trace, o.trace),
       iif(o.answer IS NULL, e.traced, o.traced), n.settled_at
  FROM o CROSS JOIN (SELECT {stored_time(f"?{len(_OUTCOME) * _TOGETHER + 1}")} AS settled_at
                      LIMIT 1) n -- the limit has it read once
  LEFT JOIN sending s ON s.id = o.id
  LEFT JOIN outcomes e ON e.id = o.id
 WHERE o.id IS NOT NULL
"""  # noqa: S608  # constants
_REMARKED = f"""
SELECT id FROM sending WHERE doubts > 0 AND id IN {THESE}
 UNION ALL SELECT id FROM remarks WHERE id IN {THESE}
"""  # noqa: S608  # constants
"""Rows that have or need a remark, whatever is said now."""
_REMARKS = """
INSERT INTO remarks (id, doubts, repeats, detail)
SELECT o.value ->> 0, coalesce(s.doubts, 0), 0, o.value ->> 1
  FROM json_each(?) o LEFT JOIN sending s ON s.id = o.value ->> 0 WHERE true
    ON CONFLICT DO UPDATE SET doubts = excluded.doubts, detail = excluded.detail
"""
_ENDED = f"DELETE FROM sending WHERE id IN {THESE}"  # noqa: S608  # constants
TRACE_LENGTH, TRACE_PROCESS = 58, 42
"""Characters of our trace ids, and of the part that a process has in common."""
_FORGET_CELLS = f"DELETE FROM cells WHERE id IN {THESE}"  # noqa: S608  # constants
# Requests made while the device was already bound: those sent after the binding was made (`sent_at`
# is never later than the true time), and those that were refused. Includes earlier processes. The
# row's first request is none, whatever answer was taken for its own: the requests are those
# recorded here, and those in doubt that are not, since a crash or an acceptance is not recorded.
_REFUSALS = sql_list(kind.__name__ for kind in (Refused, AlreadyBound))
_UNSURE = sql_list(kind.__name__ for kind in (NoAnswer, Transient))
_COUNT_REPEATS = f"""
UPDATE rows SET repeats = ?1 + (
       SELECT max(0, min(
              count(*) FILTER (WHERE a.verdict IN {_REFUSALS} OR a.sent_at > ?2),
              count(*) + max(0, doubts - count(*) FILTER (WHERE a.verdict = '{NoAnswer.__name__}'))
              - 1))
         FROM attempts a
        WHERE a.row = rows.id AND (a.verdict IN {_REFUSALS} OR a.verdict IN {_UNSURE}))
 WHERE id = ?3
"""  # noqa: S608  # constants
_OURS = HELD_CODES[Held.BOUND]
_MADE_OURS = f"excluded.held = {_OURS} AND held <> {_OURS}"
# What was found again as it was known stays whose it was.
_BIND = f"""
INSERT INTO stored_bindings (device, device_id, create_time, since, run, name, held)
SELECT r.device, o.device_id, o.create_time, o.settled_at, r.id >> {RUN_SHIFT}, r.name,
       iif(r.status IN {codes(IS_OURS)}, {_OURS}, {HELD_CODES[Held.FOUND]})
  FROM stored_rows r CROSS JOIN outcomes o ON o.id = r.id WHERE r.id IN {THESE}
    ON CONFLICT DO UPDATE SET device_id = excluded.device_id, create_time = excluded.create_time,
       name = excluded.name, since = iif({_MADE_OURS}, excluded.since, since),
       run = iif({_MADE_OURS}, excluded.run, run),
       held = iif(excluded.held = {_OURS} OR device_id IS NOT excluded.device_id,
                  excluded.held, held)
"""  # noqa: S608  # constants


def settle(
    db: sqlite3.Connection,
    now: datetime,
    ended: Sequence[Ended],
    attempts: Iterable[tuple[int, Attempt]] = (),
) -> None:
    """Record the outcomes of rows, and the new bindings.

    *attempts*: row and attempt of those not accepted outright and not written yet.
    """
    record_attempts(db, attempts)  # first: repeats are counted among them
    if not ended:
        return
    said = {claim.row: _said(db, claim.row, claim.last) for claim, _ in ended if claim.last}
    answers = numbers_of(db, {answer for answer, _, _ in said.values()})
    traces = _numbers_of_traces(db, {trace for _, trace, _ in said.values() if trace})
    numbers: dict[int, tuple[object, ...]] = {
        row: (answers[answer], traces.get(trace), count)
        for row, (answer, trace, count) in said.items()
    }
    nothing = (None, None, None)
    rows = as_json([claim.row for claim, _ in ended])
    _settle(db, ended)
    outcomes = [
        (
            *(claim.row, claim.sent_at, claim.attempts, outcome.device_id, outcome.create_time),
            *numbers.get(claim.row, nothing),
        )
        for claim, outcome in ended
    ]
    missing = (None,) * len(_OUTCOME)
    for first in range(0, len(outcomes), _TOGETHER):
        some = outcomes[first : first + _TOGETHER]
        some += [missing] * (_TOGETHER - len(some))
        db.execute(_OUTCOMES, (*chain.from_iterable(some), iso(now)))
    remarked = {row for (row,) in db.execute(_REMARKED, (rows, rows))}
    remarks = [(c.row, o.detail) for c, o in ended if o.detail or c.row in remarked]
    if remarks:
        db.execute(_REMARKS, (as_json(remarks),))
    db.execute(_ENDED, (rows,))
    db.executemany(
        _COUNT_REPEATS,
        [
            (outcome.repeated, outcome.made_at, claim.row)
            for claim, outcome in ended
            if outcome.made_at is not None
        ],
    )
    bound = [
        (claim.row, outcome.status) for claim, outcome in ended if outcome.status.about.is_bound
    ]
    gone = [claim.row for claim, outcome in ended if outcome.status.about.is_gone]
    db.execute(_FORGET_CELLS, (as_json([row for row, _ in bound] + gone),))
    # A skipped row's binding is known from the run that made it.
    db.execute(_BIND, (as_json([row for row, status in bound if status is not Status.SKIPPED]),))


def _settle(db: sqlite3.Connection, ended: Sequence[Ended]) -> None:
    """Change the states of rows, those that end alike at once."""
    alike: dict[tuple[Status, bool], list[int]] = {}
    for claim, outcome in ended:
        alike.setdefault((outcome.status, outcome.is_unsent), []).append(claim.row)
    for (status, is_unsent), rows in alike.items():
        changed = db.execute(_SETTLE, (CODES[status], as_json(rows), is_unsent))
        check_changed(len(rows), changed.rowcount)


def _said(
    db: sqlite3.Connection, row: int, attempt: Attempt
) -> tuple[tuple[str, str, int | None], str, str | bytes | None]:
    """Return an answer as it is stored: its words, and the two parts of its trace id.

    The second is a number, or else bytes: a text like `1e5` would become another number.
    """
    status, trace = attempt.http_status, attempt.trace_id
    if status is None:  # an earlier one stays
        query = "SELECT a.http_status FROM outcomes JOIN answers a USING (answer) WHERE id = ?"
        (status,) = db.execute(query, (row,)).fetchone() or (None,)
    if len(trace) != TRACE_LENGTH:
        return (attempt.code, attempt.message, status), trace, None
    process, count = trace[:TRACE_PROCESS], trace[TRACE_PROCESS:].lstrip("0")
    is_number = count.isascii() and count.isdecimal()
    return (attempt.code, attempt.message, status), process, count if is_number else count.encode()


def _numbers_of_traces(db: sqlite3.Connection, words: Iterable[str]) -> dict[str, int]:
    """Return the numbers of what trace ids begin with; new ones get one."""
    numbers: dict[str, int] = {}
    for word in words:
        found = db.execute("SELECT trace FROM traces WHERE word = ?", (word,)).fetchone() or (
            db.execute("INSERT INTO traces (word) VALUES (?) RETURNING trace", (word,)).fetchone()
        )
        numbers[word] = found[0]
    return numbers


_HAS_BOUND = f"""
SELECT EXISTS (SELECT 1 FROM stored_bindings b JOIN devices d USING (device)
                WHERE d.user = u.user AND b.run = :run)
    OR EXISTS (SELECT 1 FROM stored_bindings b JOIN devices d USING (device)
                WHERE d.user = u.user AND b.run <> :run)
   AND EXISTS (SELECT 1 FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
                WHERE r.id BETWEEN :first AND :last AND d.user = u.user
                  AND r.status IN {codes(set(IS_BOUND) - {Status.SKIPPED})})
  FROM users u WHERE u.user_id = :user_id
"""  # noqa: S608  # constants


def has_bound(db: sqlite3.Connection, run: int, user_id: str) -> bool:
    """Return whether the server has accepted any of a user's rows in a run.

    It mostly shows in the bindings; only a user with older ones may have had one of them renewed.
    """
    first, last = span(run)
    values = {"run": run, "first": first, "last": last, "user_id": user_id}
    found = db.execute(_HAS_BOUND, values).fetchone()
    return found is not None and bool(found[0])


def answer_of(attempt: Attempt | None) -> tuple[int | None, str | None, str | None, str | None]:
    """Return the recorded part of an answer: HTTP status, code, message and trace id."""
    if attempt is None:
        return None, None, None, None
    return attempt.http_status, attempt.code, attempt.message, attempt.trace_id


def record_attempts(db: sqlite3.Connection, attempts: Iterable[tuple[int, Attempt]]) -> None:
    """Record attempts that were not accepted outright."""
    db.executemany(
        "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                row,
                attempt.sent_at,
                attempt.took_s,
                type(attempt.verdict).__name__,
                attempt.http_status,
                attempt.code,
                _with_request_id(attempt),
                attempt.trace_id,
            )
            for row, attempt in attempts
        ],
    )


def _with_request_id(attempt: Attempt) -> str:
    """Return an attempt's message with its id. A row's message has none, so that reasons group."""
    if not attempt.request_id:
        return attempt.message
    return f"{attempt.message} [request id {attempt.request_id}]"


def known(db: sqlite3.Connection, user_id: str) -> dict[str, str]:
    """Return the device ids of a user's known bindings, by machine code."""
    return known_of(db, [user_id])[user_id]


def known_of(db: sqlite3.Connection, user_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the device ids of users' known bindings, by user and machine code."""
    found: dict[str, dict[str, str]] = {user_id: {} for user_id in user_ids}
    query = (
        "SELECT user_id, machine_code, device_id FROM bindings "  # noqa: S608  # a constant
        f"WHERE user_id IN {THESE} ORDER BY machine_code"
    )
    for user_id, code, device_id in db.execute(query, (as_json(user_ids),)):
        found[user_id][code] = device_id
    return found


def stranger(
    db: sqlite3.Connection, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
) -> str | None:
    """Return a machine code of *records* whose binding is known as another user's, if any is."""
    ids = {code: record.device_id for code, record in records.items() if code not in known}
    found: tuple[str] | None = db.execute(
        "SELECT b.machine_code FROM json_each(?) l CROSS JOIN bindings b "
        "ON b.machine_code = l.key AND b.device_id = l.value AND b.user_id <> ? LIMIT 1",
        (msgspec.json.encode(ids).decode(), user_id),
    ).fetchone()
    return found[0] if found else None

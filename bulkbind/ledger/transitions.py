"""A row's life once it is staged: claimed, released, in doubt, settled.

The SQL of each step; which steps are allowed is the table in `model.statuses`.

Each function runs inside the caller's transaction. Raises: LedgerError if one of the given rows
does not change; the transaction must then be rolled back.
"""

from __future__ import annotations

import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from bulkbind.clock import iso
from bulkbind.ledger.store import (
    ALL_FIELDS,
    OPEN,
    change_each,
    check_changed,
    int_of,
    span,
    sql_list,
)
from bulkbind.model import (
    BY_ANSWER,
    IS_BOUND,
    AlreadyBound,
    Claim,
    Device,
    NoAnswer,
    Refused,
    Status,
    Transient,
    Verdict,
)
from bulkbind.model.fields import OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from bulkbind.model import Attempt, Ended, Outcome, Record

# Rows are exchanged with SQLite as one JSON text: each step of a statement would release and
# reacquire the GIL, for which the event loop competes.
_COLUMNS = f"""
id, json_array(user_id, machine_code, json_array({", ".join(OPTIONAL)})), attempts, doubts, sent_at
"""
"""The columns of a claim, in the order of `Claim`."""
_CLAIMS = msgspec.json.Decoder(list[tuple[int, Device, int, int, float | None]])
_CLAIM = f"SELECT json_group_array(json_array({_COLUMNS})) FROM"
_THESE = "(SELECT value FROM json_each(?))"
_FREE = f"status = 'staged' AND id NOT IN {_THESE}"
_LIST_TURNS = f"""
INSERT INTO turns (row)
SELECT id FROM rows WHERE id BETWEEN ? AND ? AND {_FREE}
 ORDER BY row_number() OVER (PARTITION BY user_id ORDER BY id), id
"""  # noqa: S608  # constants
_MARK_CLAIMED = """
UPDATE rows SET status = 'claimed',
       sent_at = CASE WHEN attempts = 0 AND doubts = 0 THEN ? ELSE sent_at END
 WHERE id
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
    others = json.dumps(list(excluding))
    (text,) = db.execute(
        f"{_CLAIM} (SELECT * FROM rows WHERE id BETWEEN ? AND ? AND {_FREE} ORDER BY id LIMIT ?)",  # noqa: S608  # a constant
        (max(after + 1, span(run)[0]), span(run)[1], others, most),
    ).fetchone()
    claims = _claims(text)
    if claims:
        # These are all free rows from the first to the last, so a range selects them.
        changed = db.execute(
            f"{_MARK_CLAIMED} BETWEEN ? AND ? AND {_FREE}",
            (sent_at, claims[0].row, claims[-1].row, others),
        ).rowcount
        check_changed(len(claims), changed)
    for taken in claims:
        _sent_first(taken, sent_at)
    return claims


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
    (text,) = db.execute(f"{_CLAIM} rows WHERE id IN {_THESE}", (rows,)).fetchone()
    claims = {taken.row: taken for taken in _claims(text)}
    changed = db.execute(f"{_MARK_CLAIMED} IN {_THESE} AND status = 'staged'", (sent_at, rows))
    check_changed(len(claims), changed.rowcount)
    db.execute(
        "DELETE FROM turns WHERE place IN (SELECT place FROM turns ORDER BY place LIMIT ?)", (most,)
    )
    if not claims:
        # A run that moves devices stages more rows later; they need a new list.
        db.execute("DROP TABLE temp.turns")
    for taken in claims.values():
        _sent_first(taken, sent_at)
    return [claims[row] for row in msgspec.json.decode(rows)]


def reclaim(db: sqlite3.Connection, claim: Claim, sent_at: float | None) -> None:
    """Claim one released row again."""
    changed = db.execute(f"{_MARK_CLAIMED} = ? AND status = 'staged'", (sent_at, claim.row))
    check_changed(1, changed.rowcount)
    _sent_first(claim, sent_at)


def release(db: sqlite3.Connection, claims: Sequence[Claim]) -> None:
    """Return rows to `staged`: certainly not bound by any request so far."""
    change_each(
        db,
        "UPDATE rows SET status = 'staged', attempts = ?1, "  # noqa: S608  # constants
        "sent_at = CASE WHEN ?1 = 0 AND doubts = 0 THEN NULL ELSE ?2 END "
        f"WHERE id = ?3 AND {OPEN}",
        [(taken.attempts, taken.sent_at, taken.row) for taken in claims],
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
    changed = db.execute(
        "UPDATE rows SET status = 'in_doubt', attempts = ?, doubts = ?, sent_at = ?, verdict = ?, "
        "silent_at = ?, misses = 0, missed_at = NULL, detail = '', http_status = ?, "
        "code = coalesce(?, ''), message = coalesce(?, ''), trace_id = coalesce(?, '') "
        "WHERE id = ? AND status = 'claimed'",
        (
            *(claim.attempts, claim.doubts, claim.sent_at, verdict, now.timestamp()),
            *answer_of(claim.last),
            claim.row,
        ),
    )
    check_changed(1, changed.rowcount)


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
        "UPDATE rows SET verdict = NULL, doubts = doubts + 1 WHERE status = 'in_doubt' "  # noqa: S608  # constants
        f"AND verdict IN {_CONFIRMABLE} AND id IN {_THESE} RETURNING id",
        (these,),
    ).fetchall()
    _disprove(db, json.dumps([row for (row,) in waiting]))
    found = db.execute(
        f"SELECT id, status FROM rows WHERE id IN {_THESE} AND status IN {_SETTLED_BY_ANSWER}",  # noqa: S608  # constants
        (these,),
    ).fetchall()
    these = json.dumps([row for row, _ in found])
    db.execute(
        "DELETE FROM bindings WHERE (user_id, machine_code, device_id, run) IN "  # noqa: S608  # a constant
        f"(SELECT user_id, machine_code, device_id, run FROM rows WHERE id IN {_THESE})",
        (these,),
    )
    _disprove(db, these)
    db.execute(
        "UPDATE rows SET status = 'in_doubt', doubts = doubts + 1, verdict = NULL, silent_at = ?, "  # noqa: S608  # a constant
        "misses = 0, missed_at = NULL, settled_at = NULL, device_id = '', create_time = '', "
        f"detail = 'its answer may be that to another request' WHERE id IN {_THESE}",
        (now.timestamp(), these),
    )
    (text,) = db.execute(f"{_CLAIM} rows WHERE id IN {_THESE}", (these,)).fetchone()
    return _claims(text), [Status(status) for _, status in found]


def _disprove(db: sqlite3.Connection, these: str) -> None:
    """Note that the last requests of rows got no answer: another's refusal is no repeat."""
    db.execute(
        f"UPDATE attempts SET verdict = '{NoAnswer.__name__}' FROM rows r "  # noqa: S608  # constants
        "WHERE r.id = attempts.row "
        f"AND r.trace_id = attempts.trace_id AND r.id IN {_THESE}",
        (these,),
    )


def recover(db: sqlite3.Connection, now: datetime) -> int:
    """Mark claimed rows in doubt at start-up, as they may have been sent. Returns how many.

    Counts no attempt: a crash is not the device's fault. Call only while holding the lock.
    """
    return db.execute(
        "UPDATE rows INDEXED BY rows_open SET status = 'in_doubt', doubts = doubts + 1, "  # noqa: S608  # constants
        "detail = 'the run was cut off while it was sent', verdict = NULL, silent_at = ?, "
        "misses = 0, missed_at = NULL "
        f"WHERE {OPEN} AND status = 'claimed'",
        (now.timestamp(),),
    ).rowcount


def doubts(db: sqlite3.Connection) -> list[Claim]:
    """Return every row in doubt, of any run, in order of user."""
    (text,) = db.execute(
        f"{_DOUBT} rows INDEXED BY rows_open WHERE {OPEN} AND status = 'in_doubt'"
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
UPDATE rows SET status = o.value ->> 1, attempts = o.value ->> 2,
       device_id = o.value ->> 3, create_time = o.value ->> 4,
       http_status = coalesce(o.value ->> 5, http_status), code = coalesce(o.value ->> 6, code),
       message = coalesce(o.value ->> 7, message), trace_id = coalesce(o.value ->> 8, trace_id),
       detail = o.value ->> 9, settled_at = ?2, sent_at = coalesce(o.value ->> 12, sent_at),
       cells = CASE WHEN o.value ->> 10 THEN NULL ELSE cells END
  FROM json_each(?1) o
 WHERE rows.id = o.value ->> 0
   AND (rows.{OPEN} OR rows.status = 'staged' AND o.value ->> 11)
"""  # noqa: S608  # constants
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
_BIND = f"""
INSERT INTO bindings ({ALL_FIELDS}, device_id, create_time, since, run)
SELECT {ALL_FIELDS}, device_id, create_time, settled_at, run
  FROM rows WHERE id IN (SELECT value FROM json_each(?))
    ON CONFLICT DO UPDATE SET device_id = excluded.device_id, create_time = excluded.create_time,
       {", ".join(f"{name} = excluded.{name}" for name in OPTIONAL)}
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
    outcomes = msgspec.json.encode([_settled(*item) for item in ended]).decode()
    check_changed(len(ended), db.execute(_SETTLE, (outcomes, iso(now))).rowcount)
    db.executemany(
        _COUNT_REPEATS,
        [
            (outcome.repeated, outcome.made_at, claim.row)
            for claim, outcome in ended
            if outcome.made_at is not None
        ],
    )
    bound = [
        claim.row
        for claim, outcome in ended
        if outcome.status.about.is_bound and outcome.status is not Status.SKIPPED
    ]  # a skipped row's binding is known from the run that made it
    if bound:
        db.execute(_BIND, (msgspec.json.encode(bound).decode(),))


def _settled(claim: Claim, outcome: Outcome) -> tuple[object, ...]:
    """Return the values of `_SETTLE`, in its order."""
    return (
        claim.row,
        outcome.status,
        claim.attempts,
        outcome.device_id,
        outcome.create_time,
        *answer_of(claim.last),
        outcome.detail,
        outcome.status.about.is_bound,
        outcome.is_unsent,
        claim.sent_at,
    )


_ACCEPTED = sql_list(status for status in IS_BOUND if status is not Status.SKIPPED)


def has_bound(db: sqlite3.Connection, run: int, user_id: str) -> bool:
    """Return whether the server has accepted any of a user's rows in a run."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM rows WHERE run = ? AND user_id = ? AND problems IS NULL "  # noqa: S608  # constants
        f"AND duplicate_of IS NULL AND status IN {_ACCEPTED})",
        (run, user_id),
    ).fetchone()
    return bool(found[0])


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
    return dict(
        db.execute("SELECT machine_code, device_id FROM bindings WHERE user_id = ?", (user_id,))
    )


def stranger(
    db: sqlite3.Connection, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
) -> str | None:
    """Return a machine code of *records* whose binding is known as another user's, if any is."""
    ids = {code: record.device_id for code, record in records.items() if code not in known}
    found: tuple[str] | None = db.execute(
        "SELECT b.machine_code FROM json_each(?) l JOIN bindings b "
        "ON b.machine_code = l.key AND b.device_id = l.value AND b.user_id <> ? LIMIT 1",
        (msgspec.json.encode(ids).decode(), user_id),
    ).fetchone()
    return found[0] if found else None

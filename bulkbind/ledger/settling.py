"""Settling: how rows ended, what is bound by that, and the attempts that led there.

As in `claiming`, each function runs inside a transaction of the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bulkbind.ledger.store import agree
from bulkbind.model import Status

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from bulkbind.model import Attempt, Settlement

_SETTLE = """
UPDATE rows SET status = o.value ->> 1, attempts = o.value ->> 2,
       device_id = o.value ->> 3, create_time = o.value ->> 4,
       http_status = coalesce(o.value ->> 5, http_status), code = coalesce(o.value ->> 6, code),
       message = coalesce(o.value ->> 7, message), trace_id = coalesce(o.value ->> 8, trace_id),
       detail = o.value ->> 9, settled_at = ?2,
       cells = CASE WHEN o.value ->> 10 THEN NULL ELSE cells END
  FROM json_each(?1) o
 WHERE rows.id = o.value ->> 0 AND rows.status IN ('claimed', 'in_doubt')
"""
# Requests that met the binding: those sent after it was made (`sent_at` is never later than the
# true moment), and those that were told no, which made none. They may be of several processes.
_COUNT_REPEATS = """
UPDATE rows SET repeats = ?1 + (
       SELECT count(*) FROM attempts a
        WHERE a.row = rows.id AND (a.verdict IN ('Refused', 'AlreadyBound')
           OR a.verdict IN ('NoAnswer', 'Transient') AND a.sent_at > ?2))
 WHERE id = ?3
"""
_BIND = """
INSERT INTO bindings (user_id, machine_code, device_id, create_time, device_name, device_os, since,
                      run)
SELECT user_id, machine_code, device_id, create_time, device_name, device_os, settled_at, run
  FROM rows WHERE id IN (SELECT value FROM json_each(?))
    ON CONFLICT DO UPDATE SET device_id = excluded.device_id, create_time = excluded.create_time,
       device_name = excluded.device_name, device_os = excluded.device_os
"""
_BINDS = (Status.BOUND, Status.ALREADY_BOUND)
_KNOWN = (*_BINDS, Status.SKIPPED)


def settle(db: sqlite3.Connection, settlements: Sequence[Settlement], moment: str) -> None:
    """Write down how rows ended, and what is bound now."""
    if not settlements:
        return
    outcomes = msgspec.json.encode([_settled(item) for item in settlements]).decode()
    agree(len(settlements), db.execute(_SETTLE, (outcomes, moment)).rowcount)
    db.executemany(
        _COUNT_REPEATS,
        [
            (item.outcome.repeated, item.outcome.made_at, item.row)
            for item in settlements
            if item.outcome.made_at is not None
        ],
    )
    bound = [item.row for item in settlements if item.outcome.status in _BINDS]
    if bound:
        db.execute(_BIND, (msgspec.json.encode(bound).decode(),))


def _settled(item: Settlement) -> tuple[object, ...]:
    """Return the values of `_SETTLE`, in its order."""
    outcome, attempt = item.outcome, item.attempt
    return (
        item.row,
        outcome.status,
        item.attempts,
        outcome.device_id,
        outcome.create_time,
        attempt.http_status if attempt else None,
        attempt.code if attempt else None,
        attempt.message if attempt else None,
        attempt.trace_id if attempt else None,
        outcome.detail,
        outcome.status in _KNOWN,
    )


def record_attempts(db: sqlite3.Connection, attempts: Iterable[tuple[int, Attempt]]) -> None:
    """Keep attempts that were not simply accepted."""
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
    """Return the message of one attempt; a row's own has no such id, so that reasons add up."""
    if not attempt.request_id:
        return attempt.message
    return f"{attempt.message} [request id {attempt.request_id}]"

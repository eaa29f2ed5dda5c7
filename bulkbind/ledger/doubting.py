"""Doubt: rows of which the server may hold the binding, until its list has told.

As in `claiming`, each function runs inside a transaction of the caller's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bulkbind.ledger.claiming import COLUMNS
from bulkbind.ledger.store import expect
from bulkbind.model import AlreadyBound, Claim, Device, Refused, Transient, Verdict

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_DOUBT = f"""
SELECT json_group_array(json_array({COLUMNS}, verdict,
       json_object('silent_at', silent_at, 'misses', misses, 'missed_at', missed_at))) FROM
"""  # noqa: S608  # constants
_HEARD: dict[str, Verdict] = {
    type(verdict).__name__: verdict for verdict in (AlreadyBound(), Refused(), Transient())
}
"""Verdicts that say how doubt may end; no answer is none of them."""


def doubt(db: sqlite3.Connection, taken: Claim, now_s: float) -> None:
    """A request for this row got no answer that settles it, or none that the list need not confirm.

    *now_s*: the local clock, seconds since 1970.
    """
    attempt = taken.last
    expect(
        db,
        "UPDATE rows SET status = 'in_doubt', attempts = ?, doubts = ?, sent_at = ?, verdict = ?, "
        "silent_at = ?, misses = 0, missed_at = NULL, "
        "http_status = ?, code = ?, message = ?, trace_id = ?, detail = '' "
        "WHERE id = ? AND status = 'claimed'",
        [
            (
                taken.attempts,
                taken.doubts,
                taken.sent_at,
                type(attempt.verdict).__name__ if attempt else None,
                now_s,
                attempt.http_status if attempt else None,
                attempt.code if attempt else "",
                attempt.message if attempt else "",
                attempt.trace_id if attempt else "",
                taken.row,
            )
        ],
    )


def recover(db: sqlite3.Connection, now_s: float) -> int:
    """Take stock at start-up: what is found claimed may have been sent. Returns how many rows.

    It costs no attempt: a crash is not the device's fault. Only the holder of the lock may call
    this. *now_s*: the local clock, seconds since 1970.
    """
    return db.execute(
        "UPDATE rows INDEXED BY rows_open SET status = 'in_doubt', doubts = doubts + 1, "
        "detail = 'the run was cut off while it was sent', verdict = NULL, silent_at = ?, "
        "misses = 0, missed_at = NULL "
        "WHERE status IN ('claimed', 'in_doubt') AND status = 'claimed'",
        (now_s,),
    ).rowcount


def doubts(db: sqlite3.Connection) -> list[Claim]:
    """Return every row in doubt, whoever left it, in order of user."""
    (text,) = db.execute(
        f"{_DOUBT} rows INDEXED BY rows_open "
        "WHERE status IN ('claimed', 'in_doubt') AND status = 'in_doubt'"
    ).fetchone()
    claims = [
        Claim(row, Device(*device), attempts, doubts, sent_at, left=_HEARD.get(verdict), **silence)
        for row, *device, attempts, doubts, sent_at, verdict, silence in msgspec.json.decode(text)
    ]
    return sorted(claims, key=lambda claim: (claim.device.user_id, claim.row))


def missed(db: sqlite3.Connection, rows: Iterable[int], now_s: float) -> None:
    """A list that could be trusted did not show these rows. *now_s*: the local clock."""
    db.executemany(
        "UPDATE rows SET misses = misses + 1, missed_at = ? WHERE id = ? AND status = 'in_doubt'",
        [(now_s, row) for row in rows],
    )


def note_doubt(db: sqlite3.Connection, rows: Iterable[int], why: str) -> None:
    """Write down why rows stay in doubt."""
    db.executemany(
        "UPDATE rows SET detail = ? WHERE id = ? AND status = 'in_doubt'",
        [(why, row) for row in rows],
    )


def known(db: sqlite3.Connection, user_id: str) -> set[str]:
    """Return the machine codes that the ledger knows as bound to a user."""
    return {
        row[0]
        for row in db.execute("SELECT machine_code FROM bindings WHERE user_id = ?", (user_id,))
    }

"""Claims: rows that are handed to workers, and those that come back.

Each function runs inside a transaction of the caller's; once that is committed, the transition
survives a crash.
"""

from __future__ import annotations

import json
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from bulkbind.ledger.store import agree, expect, span
from bulkbind.model import Claim, Device

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

# Many rows go to and fro as one JSON text: each step of a statement would take and drop Python's
# lock, which the event loop wants at the same time.
COLUMNS = "id, user_id, machine_code, device_name, device_os, attempts, doubts, sent_at"
"""What a claim is made of."""
_CLAIM = f"SELECT json_group_array(json_array({COLUMNS})) FROM"
_THESE = "(SELECT value FROM json_each(?))"
_FREE = "status = 'staged' AND id NOT IN (SELECT value FROM json_each(?))"
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
    but: Iterable[int] = (),
) -> list[Claim]:
    """Take up to *most* staged rows behind row *after*, in manifest order.

    Args:
        db: The ledger.
        run: The run's number.
        after: A row of it, or 0.
        most: How many.
        sent_at: The server's time now, None where it is not known yet: the earliest moment at
            which the rows may be sent.
        but: Rows that somebody else has in hand.
    """
    others = json.dumps(list(but))
    (text,) = db.execute(
        f"{_CLAIM} (SELECT * FROM rows WHERE id BETWEEN ? AND ? AND {_FREE} ORDER BY id LIMIT ?)",  # noqa: S608  # a constant
        (max(after + 1, span(run)[0]), span(run)[1], others, most),
    ).fetchone()
    claims = _claims(text)
    if claims:
        # All that is free from the first to the last, so a range names them.
        changed = db.execute(
            f"{_MARK_CLAIMED} BETWEEN ? AND ? AND {_FREE}",
            (sent_at, claims[0].row, claims[-1].row, others),
        ).rowcount
        agree(len(claims), changed)
    for taken in claims:
        _sent_first(taken, sent_at)
    return claims


def claim_in_turns(
    db: sqlite3.Connection, run: int, most: int, sent_at: float | None, *, but: Iterable[int] = ()
) -> list[Claim]:
    """Take up to *most* staged rows, one of each user, then another one of each, and so on.

    The order is that of the first call since `start`, or since none was left: a list of its own, in
    memory, of some 20 bytes a row, from which rows are struck that have been taken. Arguments as
    of `claim`.
    """
    (is_listed,) = db.execute(
        "SELECT count(*) FROM temp.sqlite_schema WHERE name = 'turns'"
    ).fetchone()
    if not is_listed:
        db.execute("CREATE TEMP TABLE turns (place INTEGER PRIMARY KEY, row INTEGER)")
        db.execute(_LIST_TURNS, (*span(run), json.dumps(list(but))))
    (rows,) = db.execute(
        "SELECT json_group_array(row) FROM (SELECT row FROM turns ORDER BY place LIMIT ?)", (most,)
    ).fetchone()
    (text,) = db.execute(f"{_CLAIM} rows WHERE id IN {_THESE}", (rows,)).fetchone()  # constants
    claims = {taken.row: taken for taken in _claims(text)}
    changed = db.execute(f"{_MARK_CLAIMED} IN {_THESE} AND status = 'staged'", (sent_at, rows))
    agree(len(claims), changed.rowcount)
    db.execute(
        "DELETE FROM turns WHERE place IN (SELECT place FROM turns ORDER BY place LIMIT ?)", (most,)
    )
    if not claims:
        # A run that moves devices stages more rows later.
        db.execute("DROP TABLE temp.turns")
    for taken in claims.values():
        _sent_first(taken, sent_at)
    return [claims[row] for row in msgspec.json.decode(rows)]


def reclaim(db: sqlite3.Connection, taken: Claim, sent_at: float | None) -> None:
    """Take one row again that was released."""
    changed = db.execute(f"{_MARK_CLAIMED} = ? AND status = 'staged'", (sent_at, taken.row))
    agree(1, changed.rowcount)
    _sent_first(taken, sent_at)


def release(db: sqlite3.Connection, claims: Iterable[Claim]) -> None:
    """Put rows back to `staged`: surely not bound by what was sent, if anything was."""
    expect(
        db,
        "UPDATE rows SET status = 'staged', attempts = ?, "
        "sent_at = CASE WHEN ? = 0 AND doubts = 0 THEN NULL ELSE ? END "
        "WHERE id = ? AND status IN ('claimed', 'in_doubt')",
        [(taken.attempts, taken.attempts, taken.sent_at, taken.row) for taken in claims],
    )


def _claims(text: str) -> list[Claim]:
    """Return claims in the order of their rows."""
    claims = [
        Claim(number, Device(user, code, name, system), attempts, doubts, sent_at)
        for number, user, code, name, system, attempts, doubts, sent_at in msgspec.json.decode(text)
    ]
    claims.sort(key=attrgetter("row"))
    return claims


def _sent_first(taken: Claim, sent_at: float | None) -> None:
    if taken.attempts == 0 and taken.doubts == 0:
        taken.sent_at = sent_at

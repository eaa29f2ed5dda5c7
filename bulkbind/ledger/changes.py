"""Differences between a run and the previous one of the same manifests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bulkbind.ledger.store import CODES, VALID, codes, int_of, of_status, span
from bulkbind.model import IS_BOUND, NEEDS_PERSON, Changes, Example, Status
from bulkbind.model.wording import reason

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

MOST_NEW = 3
"""Rows named as examples of those that need a person."""
_SAME_NAMES = (
    "(SELECT json_group_array(form ->> 'name') FROM sources s WHERE s.run = r.run) = "
    "(SELECT json_group_array(form ->> 'name') FROM sources s WHERE s.run = ?1) AND "
    "(SELECT json_group_array(key) FROM json_each(r.facts, '$.left_out.by')) = "
    "(SELECT json_group_array(e.key) FROM runs n, json_each(n.facts, '$.left_out.by') e "
    "WHERE n.run = ?1) AND r.kind = (SELECT kind FROM runs WHERE run = ?1)"
)
"""Manifests of the same names, of which the same conditions say which rows are meant, for runs
that do the same with them."""
_DEVICES = f"SELECT device FROM stored_rows WHERE id BETWEEN ? AND ? AND {VALID}"  # noqa: S608  # constants
"""The devices of a run."""
_LAST = "SELECT coalesce(max(id), 0) FROM stored_rows WHERE id BETWEEN ? AND ?"
_DEVICE_OF = f"CASE WHEN {{row}}.{VALID} THEN {{row}}.device END"
_DIFFER = f"""
SELECT EXISTS (
       SELECT 1 FROM stored_rows r LEFT JOIN stored_rows o ON o.id = r.id + ?
        WHERE r.id BETWEEN ? AND ?
          AND {_DEVICE_OF.format(row="r")} IS NOT {_DEVICE_OF.format(row="o")})
"""  # noqa: S608  # constants
"""Much faster than two sets of all devices, which an unchanged manifest does not need."""
_MENDED = f"""
SELECT count(*) FROM ({_DEVICES} AND status IN {codes(IS_BOUND)}) WHERE device IN (
       SELECT d.device FROM json_each(?) k JOIN users u ON u.user_id = k.value ->> 0
         JOIN devices d ON d.machine_code = k.value ->> 1 AND d.user = u.user)
"""  # noqa: S608  # constants


def changes(db: sqlite3.Connection, run: int) -> Changes | None:
    """Return the differences from the last run of manifests with the same names; None if none ran.

    Returns: `since`, `added`, `removed`, `renamed`.
    """
    earlier = db.execute(
        "SELECT r.run, r.run_id, (r.digest, r.version) = (n.digest, n.version) "  # noqa: S608  # constants
        f"FROM runs r JOIN runs n ON n.run = ?1 WHERE r.run < ?1 AND {_SAME_NAMES} "
        "ORDER BY r.run DESC LIMIT 1",
        (run,),
    ).fetchone()
    if earlier is None:
        return None
    number, run_id, is_same = earlier
    found = Changes()
    found.since = run_id
    found.added = found.removed = 0
    if not (is_same or _are_alike(db, number, run)):
        found.added = _only_in(db, run, number)
        found.removed = _only_in(db, number, run)
    found.renamed = int_of(
        db,
        "SELECT count(*) FROM stored_rows r JOIN stored_bindings b USING (device) "  # noqa: S608  # constants
        f"WHERE r.id BETWEEN ? AND ? AND r.status = {CODES[Status.SKIPPED]} "
        "AND r.device IN (SELECT device FROM names) AND r.name <> b.name",
        span(run),
    )
    return found


def outcomes(db: sqlite3.Connection, run: int) -> Changes | None:
    """Compare outcomes with the last finished run of the same manifests; None if there is none.

    Returns: `newly_failed`, `newly_failed_rows`, `mended`.
    """
    earlier = db.execute(
        f"SELECT r.run FROM runs r WHERE r.run < ?1 AND r.state = 'done' AND {_SAME_NAMES} "  # noqa: S608  # constants
        "ORDER BY r.run DESC LIMIT 1",
        (run,),
    ).fetchone()
    if earlier is None:
        return None
    known = {key for _, key in _needing(db, earlier[0])}
    fresh: dict[tuple[str, str], int] = {}
    for row, key in _needing(db, run):
        if key not in known:
            fresh.setdefault(key, row)
    found = Changes()
    found.newly_failed = len(fresh)
    found.newly_failed_rows = [example(db, row) for row in list(fresh.values())[:MOST_NEW]]
    found.mended = int_of(db, _MENDED, (*span(run), json.dumps(list(known)))) if known else 0
    return found


def needing(db: sqlite3.Connection, run: int) -> list[Example]:
    """Return the first rows of a run that need a person."""
    first = [row for row, _ in _needing(db, run, MOST_NEW)]
    return [example(db, row) for row in first]


def _needing(
    db: sqlite3.Connection, run: int, most: int = -1
) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield id and device of the rows that need a person, in manifest order."""
    found = db.execute(
        "SELECT id, coalesce(user_id, ''), coalesce(machine_code, '') FROM rows "  # noqa: S608  # constants
        f"WHERE id IN ({of_status(NEEDS_PERSON)}) ORDER BY id LIMIT ?",
        (*span(run), most),
    )
    for row, user, code in found:
        yield row, (user, code)


def example(db: sqlite3.Connection, row: int) -> Example:
    """Return a row for display."""
    name, line, status, code, message, detail = db.execute(
        "SELECT s.form ->> 'name', r.line, r.status, r.code, r.message, r.detail FROM rows r "
        "JOIN sources s USING (run, source) WHERE r.id = ?",
        (row,),
    ).fetchone()
    why = reason(code, message or detail)
    return Example(place=f"{name}:{line}", status=status, why=why)


def _are_alike(db: sqlite3.Connection, run: int, other: int) -> bool:
    """Return whether two runs have the same devices at the same places; ends at a difference."""
    ends = [int_of(db, _LAST, span(number)) - span(number)[0] for number in (run, other)]
    further = span(other)[0] - span(run)[0]
    return ends[0] == ends[1] and not int_of(db, _DIFFER, (further, *span(run)))


def _only_in(db: sqlite3.Connection, run: int, other: int) -> int:
    """Return how many devices one run has that another lacks."""
    return int_of(
        db,
        f"SELECT count(*) FROM ({_DEVICES} EXCEPT {_DEVICES})",  # noqa: S608  # constants
        (*span(run), *span(other)),
    )

"""The rows of an unchanged manifest: taken from the run that had them before, without reading it.

They are marked as if they had been read, by what the ledger knows now; what would have to be sent,
or might come back to the operator, needs the manifest's own cells, and so is read after all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.ledger import leaving, staging
from bulkbind.ledger.store import (
    ALL_FIELDS,
    CODES,
    OPEN,
    RUN_SHIFT,
    codes,
    counts,
    int_of,
    parts,
    relaxed,
    span,
    transaction,
)
from bulkbind.model import IS_BOUND, Status

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from bulkbind.model import Source

_FITS = {*IS_BOUND, Status.DUPLICATE, Status.INVALID}
"""How all rows of the earlier run must have ended."""
_OWN = _FITS.difference(IS_BOUND)
_OF_ITS_OWN = f"r.status IN {codes(_OWN)}"
_RANGE = "r.id BETWEEN :first AND :last"
# Known as bound to its user, and in doubt nowhere: staging would mark it as skipped, and not as
# moved, whoever else has the device as well.
_IS_KNOWN = f"""
r.device IN (SELECT device FROM stored_bindings)
AND r.device NOT IN (SELECT device FROM stored_rows INDEXED BY rows_open WHERE {OPEN})
"""  # noqa: S608  # constants
_UNKNOWN = f"""
SELECT {leaving.IS_OPEN} OR EXISTS (
       SELECT 1 FROM stored_rows r WHERE {_RANGE} AND NOT ({_OF_ITS_OWN}) AND NOT ({_IS_KNOWN}))
"""  # noqa: S608  # constants
_TAKE = (
    f"""
INSERT INTO stored_rows (id, device, source, line, name, status)
SELECT id + :further, device, source, line, name,
       CASE WHEN {_OF_ITS_OWN} THEN status ELSE {CODES[Status.SKIPPED]} END
  FROM stored_rows r WHERE {_RANGE} ORDER BY id
""",  # noqa: S608  # constants
    f"""
INSERT INTO remarks (id, duplicate_of, changes, doubts, repeats, detail)
SELECT id + :further, duplicate_of + :further, changes, 0, 0,
       CASE WHEN {_OF_ITS_OWN} THEN detail ELSE '' END
  FROM remarks JOIN stored_rows r USING (id)
 WHERE {_RANGE} AND ({_OF_ITS_OWN} OR changes NOT NULL) ORDER BY id
""",  # noqa: S608  # constants
)
_TAKE_OF_ITS_OWN = (
    f"""
INSERT INTO outcomes (id, attempts, answer)
SELECT id + :further, 0, answer FROM outcomes JOIN stored_rows r USING (id)
 WHERE {_RANGE} AND {_OF_ITS_OWN} ORDER BY id
""",  # noqa: S608  # constants
    f"""
INSERT INTO cells (id, cells)
SELECT id + :further, cells FROM cells JOIN stored_rows r USING (id)
 WHERE {_RANGE} AND {_OF_ITS_OWN} ORDER BY id
""",  # noqa: S608  # constants
    f"""
INSERT INTO broken (id, problems, {ALL_FIELDS})
SELECT id + :further, problems, {ALL_FIELDS} FROM broken r WHERE {_RANGE} ORDER BY id
""",  # noqa: S608  # constants
)
_EARLIER = """
SELECT e.run FROM runs e JOIN runs r ON r.run = ?
 WHERE e.run < r.run AND e.state = 'done' AND e.digest = r.digest AND e.version = r.version
   AND e.facts ->> 'pruned_at' IS NULL
 ORDER BY e.run DESC LIMIT 1
"""
_EMPTY = """
SELECT count(*) FROM sources s
 WHERE s.run = :run AND NOT EXISTS (
       SELECT 1 FROM stored_rows r WHERE r.id BETWEEN :first AND :last AND r.source = s.source)
"""
"""Sources without rows, which is told when they are read."""


AT_ONCE = 100_000
"""Rows that are taken by one statement: SQLite holds them in memory before it writes the first."""


class Repeated(NamedTuple):
    """What was taken from an earlier run."""

    rows: int
    notices: list[list[str]]
    """Of each source."""


def repeat(db: sqlite3.Connection, run: int, forms: Sequence[Source]) -> Repeated | None:
    """Stage the rows of the last run of the same manifest, if none of them is to be sent.

    The earlier run must have ended well, and have read the same bytes with the same options under
    the same names by the same version. What staging would find out now is found out here: whether
    bindings have gone, changed, or are in doubt.

    *forms*: of the sources, as they are read now.

    Returns: What was taken; None if the manifest must be read, and nothing is staged.
    """
    found = db.execute(_EARLIER, (run,)).fetchone()
    if found is None:
        return None
    (earlier,) = found
    known = db.execute(
        "SELECT form, texts FROM sources JOIN notices USING (run, source) WHERE run = ? "
        "ORDER BY source",
        (earlier,),
    ).fetchall()
    before = counts(db, earlier)
    is_same = [form for form, _ in known] == [staging.form_text(form) for form in forms]
    if not (is_same and before and _FITS.issuperset(before)):
        return None
    first, last = span(earlier)
    values = {"run": earlier, "first": first, "last": last, "further": (run - earlier) << RUN_SHIFT}
    if int_of(db, _EMPTY, values) or int_of(db, _UNKNOWN, values):
        return None
    has_own = not before.keys().isdisjoint(_OWN)
    with relaxed(db), transaction(db):
        for first, last in parts(db, earlier, AT_ONCE):
            values |= {"first": first, "last": last}
            for statement in _TAKE + (_TAKE_OF_ITS_OWN if has_own else ()):
                db.execute(statement, values)
    for source, form in enumerate(forms):
        staging.add_source(db, run, source, form)
        staging.note(db, run, source, json.loads(known[source][1]))
    return Repeated(sum(before.values()), [json.loads(texts) for _, texts in known])

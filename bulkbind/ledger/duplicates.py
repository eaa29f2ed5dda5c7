"""Rows that repeat a device of their run become invalid, or duplicates of the row that counts."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING

from bulkbind.ledger.store import RUN_SHIFT, span, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from bulkbind.model import Repeat

_BATCH = 10_000
_MAKE_INVALID = """
UPDATE rows SET status = 'invalid', duplicate_of = NULL, problems = ?, message = ?, detail = ?,
       device_id = '', create_time = ''
 WHERE id = ?
"""
# Most repeats are duplicates already, as the first row of their user counts.
_MAKE_DUPLICATE = """
UPDATE rows SET status = 'duplicate', duplicate_of = ?1, message = '', detail = '', cells = NULL,
       device_id = '', create_time = ''
 WHERE id = ?2 AND duplicate_of IS NOT ?1
"""
# Unbindings of rows that are no longer to be moved, or to be unbound.
_DELETE_UNBINDINGS = """
DELETE FROM unbindings WHERE row BETWEEN ? AND ?
   AND (SELECT r.status FROM rows r WHERE r.id = unbindings.row)
       <> CASE kind WHEN 'move' THEN 'moved' ELSE 'staged' END
"""


def mark_repeats(db: sqlite3.Connection, run: int, repeats: Iterable[Repeat]) -> None:
    """Mark rows of a staged run that repeat a device and do not count. Manages its transactions.

    *repeats*: is read in the writer's thread.
    """
    first = run << RUN_SHIFT
    left = iter(repeats)
    while batch := list(islice(left, _BATCH)):
        with transaction(db):
            db.executemany(
                _MAKE_INVALID,
                [
                    (json.dumps([asdict(p)]), p.rule, p.text, first + repeat.position)
                    for repeat in batch
                    if repeat.is_invalid
                    for p in (repeat.problem,)
                ],
            )
            db.executemany(
                _MAKE_DUPLICATE,
                [
                    (first + repeat.counts, first + repeat.position)
                    for repeat in batch
                    if not repeat.is_invalid
                ],
            )
    with transaction(db):
        db.execute(_DELETE_UNBINDINGS, span(run))

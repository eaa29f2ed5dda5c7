"""Devices named more than once in a manifest, for the same user or for different users."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import LedgerError
from bulkbind.ledger.store import of_status, reading, span, transaction
from bulkbind.model import Problem, Status
from bulkbind.model.fields import NAME, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from bulkbind.model import CheckedRow

_BATCH = 10_000
_NAME = OPTIONAL[NAME]

# The first row per device and user, for devices with several users; the winner is that of the user
# in the last row, be it a duplicate, unless these are errors. Runs on a second connection, which
# sorts on disk and sees a consistent snapshot.
_CONFLICTS = """
WITH named AS (
  SELECT r.id, r.source, r.line, r.machine_code, r.user_id, r.duplicate_of,
         max(r.id) OVER (PARTITION BY r.machine_code, r.user_id) AS own_last,
         min(r.user_id) OVER device AS low, max(r.user_id) OVER device AS high,
         min(r.id) OVER device AS first, max(r.id) OVER device AS last
    FROM rows r WHERE r.id BETWEEN ? AND ? AND r.problems IS NULL
     AND r.machine_code IN (SELECT machine_code FROM devices GROUP BY 1 HAVING count(*) > 1)
     AND (? OR r.duplicate_of IS NULL)
  WINDOW device AS (PARTITION BY r.machine_code)),
firsts AS (
  SELECT *, max(CASE WHEN own_last = last THEN id END) OVER (PARTITION BY machine_code) AS winner
    FROM named WHERE low <> high AND duplicate_of IS NULL)
SELECT r.id, r.machine_code, s.form ->> 'name', o.line, o.user_id, r.first, r.winner
  FROM firsts r
  JOIN firsts o
    ON o.user_id = CASE WHEN r.user_id = r.low THEN r.high ELSE r.low END
   AND o.machine_code = r.machine_code
  JOIN sources s ON s.run = ? AND s.source = o.source
"""
_DUPLICATES = f"""
SELECT r.id, r.machine_code, s.form ->> 'name', f.line,
       CASE WHEN f.{_NAME} IS r.{_NAME} THEN '' ELSE coalesce(f.{_NAME}, '') END
  FROM rows r JOIN rows f ON f.id = r.duplicate_of
  JOIN sources s ON s.run = f.run AND s.source = f.source
 WHERE r.id IN ({of_status([Status.DUPLICATE])})
"""  # noqa: S608  # constants
_MAKE_INVALID = """
UPDATE rows SET status = 'invalid', duplicate_of = NULL, problems = ?, message = ?, detail = ?,
       device_id = '', create_time = ''
 WHERE id = ?
"""
_MAKE_DUPLICATE = """
UPDATE rows SET status = 'duplicate', duplicate_of = ?, message = '', detail = '', cells = NULL,
       device_id = '', create_time = ''
 WHERE id = ?
"""
# Duplicates of a row that lost a conflict now point to the winner.
_REPOINT_DUPLICATES = f"""
UPDATE rows SET duplicate_of = (SELECT f.duplicate_of FROM rows f WHERE f.id = rows.duplicate_of)
 WHERE id IN ({of_status([Status.DUPLICATE])})
   AND (SELECT f.status FROM rows f WHERE f.id = rows.duplicate_of) = 'duplicate'
"""  # noqa: S608  # constants
# Unbindings of rows that are no longer to be moved.
_DELETE_MOVES = """
DELETE FROM unbindings WHERE row BETWEEN ? AND ?
   AND (SELECT r.status FROM rows r WHERE r.id = unbindings.row) <> 'moved'
"""


class Policy(NamedTuple):
    """How to treat devices named more than once in a run."""

    on_duplicate: str
    """`first` or `error`."""
    on_conflict: str
    """`error`, `first` or `last`."""


def duplicate(code: str, place: str, other_name: str) -> Problem:
    """Return the problem of a row that repeats an earlier row's device and user."""
    named = f", under the name {other_name!r}" if other_name else ""
    return Problem(
        "machine_code", "machine_code", code, "machine_code: a device stands once in a run",
        f"{place} has it, too{named}", "--on-duplicate first takes the first row",
        "--on-duplicate first",
    )  # fmt: skip


def conflict(code: str, place: str, other_user: str) -> Problem:
    """Return the problem of a row whose device another row gives to another user."""
    return Problem(
        "machine_code", "machine_code", code, "machine_code: a device has one user in a run",
        f"{place} gives it to {other_user}", "--on-conflict first or last says which row counts",
        "--on-conflict first or last",
    )  # fmt: skip


def resolve_duplicates(db: sqlite3.Connection, run: int, policy: Policy) -> None:
    """Mark devices named more than once in a staged run as invalid or duplicate, per *policy*.

    Manages its own transactions.
    """
    (_, _, path) = db.execute("PRAGMA database_list").fetchone()
    with reading(Path(path)) as before:
        if policy.on_duplicate == "error":
            again = before.execute(_DUPLICATES, span(run))
            _invalidate(
                db, ((row, duplicate(c, f"{o}:{line}", name)) for row, c, o, line, name in again)
            )
        counts_again = policy.on_duplicate != "error"
        rows = before.execute(_CONFLICTS, (*span(run), counts_again, run))
        if policy.on_conflict == "error":
            _invalidate(
                db,
                ((row, conflict(c, f"{o}:{line}", user)) for row, c, o, line, user, _, _ in rows),
            )
        elif _mark_losers(db, rows, 5 if policy.on_conflict == "first" else 6):
            with transaction(db):
                db.execute(_REPOINT_DUPLICATES, span(run))
    with transaction(db):
        db.execute(_DELETE_MOVES, span(run))


def _invalidate(db: sqlite3.Connection, problems: Iterator[tuple[int, Problem]]) -> None:
    while batch := list(islice(problems, _BATCH)):
        with transaction(db):
            db.executemany(
                _MAKE_INVALID,
                [(json.dumps([asdict(p)]), p.rule, p.text, row) for row, p in batch],
            )


def _mark_losers(db: sqlite3.Connection, rows: Iterable[tuple[int, ...]], winner_at: int) -> bool:
    """Mark the losing rows of conflicts as duplicates; return whether there were any."""
    losers = ((row[winner_at], row[0]) for row in rows if row[winner_at] != row[0])
    found = False
    while batch := list(islice(losers, _BATCH)):
        found = True
        with transaction(db):
            db.executemany(_MAKE_DUPLICATE, batch)
    return found


_CACHE_KB = 16_384


# Every row of a device that is named more than once, in the order of the manifests: with the first
# row of its device and user, that of another user, and that of the user who counts.
_AGAIN = """
WITH named AS (
  SELECT s.id, s.source, s.line, s.code, s.user, s.name,
         min(s.id) OVER own AS own_first,
         CASE WHEN :counts_again THEN max(s.id) OVER own ELSE min(s.id) OVER own END AS own_last,
         min(s.user) OVER device AS low, max(s.user) OVER device AS high,
         min(s.id) OVER device AS first
    FROM seen s JOIN (SELECT code FROM seen GROUP BY code HAVING count(*) > 1) USING (code)
  WINDOW own AS (PARTITION BY s.code, s.user), device AS (PARTITION BY s.code)),
users AS (
  SELECT *, max(own_last) OVER (PARTITION BY code) AS last FROM named),
won AS (
  SELECT *, max(CASE WHEN own_last = last THEN own_first END) OVER (PARTITION BY code) AS latest
    FROM users)
SELECT r.source, r.line, r.code, r.id <> r.own_first, r.low <> r.high,
       CASE :on_conflict WHEN 'first' THEN r.first = r.own_first
                         WHEN 'last' THEN r.latest = r.own_first END,
       o.source, o.line, o.user, CASE WHEN o.name IS r.name THEN '' ELSE coalesce(o.name, '') END
  FROM won r
  JOIN seen o ON o.id = CASE
    WHEN r.id <> r.own_first THEN r.own_first
    WHEN :on_conflict = 'first' THEN r.first
    WHEN :on_conflict = 'last' THEN r.latest
    ELSE (SELECT min(other.id) FROM seen other WHERE other.code = r.code
             AND other.user = CASE WHEN r.user = r.low THEN r.high ELSE r.low END) END
 ORDER BY r.id
"""


class Repeat(NamedTuple):
    """A row whose device another row names as well."""

    source: int
    line: int
    problem: Problem
    is_invalid: bool
    """Whether it breaks a rule; otherwise it is a duplicate of the row that counts."""


class Seen:
    """Devices kept in a private temporary file, so that memory stays flat.

    Takes about 100 bytes of disk per row (in `SQLITE_TMPDIR` or `TMPDIR`). Raises: LedgerError if
    that disk is full.
    """

    def __init__(self) -> None:
        # An empty name means a private temporary database on disk.
        self._db = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KB}"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(
            "CREATE TABLE seen (id INTEGER PRIMARY KEY, source, line, code, user, name)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()
        if isinstance(error, sqlite3.Error):
            raise LedgerError(
                f"the devices seen cannot be kept: {error}",
                hint="free the disk of the temporary folder, or set TMPDIR to another one",
            ) from error

    def add(self, source: int, rows: Iterable[CheckedRow]) -> None:
        """Record the devices of valid rows."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO seen (source, line, code, user, name) VALUES (?, ?, ?, ?, ?)",
            [
                (source, row.line, code, user, optional[NAME])
                for row in rows
                if not row.problems
                for user, code, *optional in (row.values,)
            ],
        )
        self._db.execute("COMMIT")

    def repeats(self, names: Sequence[str], policy: Policy) -> Iterator[Repeat]:
        """Yield the rows that repeat a device and do not count, in the order of the manifests.

        The same rows that `resolve_duplicates` marks. *names*: the sources' names for messages.
        """
        self._db.execute("CREATE INDEX seen_device ON seen (code, user, id)")
        counts_again = policy.on_duplicate != "error"
        values = {"counts_again": counts_again, "on_conflict": policy.on_conflict}
        for row in self._db.execute(_AGAIN, values):
            source, line, code, is_again, is_contested, counts, *other, user, name = row
            place = f"{names[other[0]]}:{other[1]}"
            if is_again:
                problem = duplicate(code, place, name)
                yield Repeat(source, line, problem, is_invalid=policy.on_duplicate == "error")
            elif is_contested and not counts:
                problem = conflict(code, place, user)
                yield Repeat(source, line, problem, is_invalid=policy.on_conflict == "error")

"""Devices named more than once in a manifest, for the same user or for different users."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import LedgerError
from bulkbind.ledger.store import reading, span, transaction
from bulkbind.model import Problem
from bulkbind.model.fields import NAME, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from bulkbind.model import CheckedRow

MOST_EXAMPLES = 10
_BATCH = 10_000
_NAME = OPTIONAL[NAME]

# The first row per device and user, for devices with several users. Runs on a second connection,
# which sorts on disk and sees a consistent snapshot.
_CONFLICTS = """
WITH firsts AS (
  SELECT r.id, r.source, r.line, r.machine_code, r.user_id, min(r.user_id) OVER device AS low,
         max(r.user_id) OVER device AS high, min(r.id) OVER device AS first,
         max(r.id) OVER device AS last
    FROM rows r WHERE r.id BETWEEN ? AND ? AND r.problems IS NULL AND r.duplicate_of IS NULL
  WINDOW device AS (PARTITION BY r.machine_code))
SELECT r.id, own.form ->> 'name', r.line, r.machine_code, s.form ->> 'name', o.line, o.user_id,
       r.first, r.last
  FROM firsts r
  JOIN rows o INDEXED BY rows_device
    ON o.run = ? AND o.user_id = CASE WHEN r.user_id = r.low THEN r.high ELSE r.low END
   AND o.machine_code = r.machine_code AND o.problems IS NULL AND o.duplicate_of IS NULL
  JOIN sources s ON s.run = o.run AND s.source = o.source
  JOIN sources own ON own.run = o.run AND own.source = r.source
 WHERE r.low <> r.high
"""
_DUPLICATES = f"""
SELECT r.id, own.form ->> 'name', r.line, r.machine_code, s.form ->> 'name', f.line,
       CASE WHEN f.{_NAME} IS r.{_NAME} THEN '' ELSE coalesce(f.{_NAME}, '') END
  FROM rows r JOIN rows f ON f.id = r.duplicate_of
  JOIN sources s ON s.run = f.run AND s.source = f.source
  JOIN sources own ON own.run = r.run AND own.source = r.source
 WHERE r.id BETWEEN ? AND ? AND r.status = 'duplicate'
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
_REPOINT_DUPLICATES = """
UPDATE rows SET duplicate_of = (SELECT f.duplicate_of FROM rows f WHERE f.id = rows.duplicate_of)
 WHERE id BETWEEN ? AND ? AND status = 'duplicate'
   AND (SELECT f.status FROM rows f WHERE f.id = rows.duplicate_of) = 'duplicate'
"""
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
    )  # fmt: skip


def conflict(code: str, place: str, other_user: str) -> Problem:
    """Return the problem of a row whose device another row gives to another user."""
    return Problem(
        "machine_code", "machine_code", code, "machine_code: a device has one user in a run",
        f"{place} gives it to {other_user}", "--on-conflict first or last says which row counts",
    )  # fmt: skip


def resolve_duplicates(db: sqlite3.Connection, run: int, policy: Policy) -> list[str]:
    """Mark devices named more than once in a staged run as invalid or duplicate, per *policy*.

    Manages its own transactions. Returns: Some of the problems, each with its place.
    """
    examples: list[str] = []
    (_, _, path) = db.execute("PRAGMA database_list").fetchone()
    with reading(Path(path)) as before:
        if policy.on_duplicate == "error":
            _invalidate(db, _duplicates(before, run), examples)
        rows = before.execute(_CONFLICTS, (*span(run), run))
        if policy.on_conflict == "error":
            problems = (
                (row, f"{name}:{line}", conflict(code, f"{other}:{other_line}", user))
                for row, name, line, code, other, other_line, user, _, _ in rows
            )
            _invalidate(db, problems, examples)
        elif _mark_losers(db, rows, 7 if policy.on_conflict == "first" else 8):
            with transaction(db):
                db.execute(_REPOINT_DUPLICATES, span(run))
    with transaction(db):
        db.execute(_DELETE_MOVES, span(run))
    return examples


def _duplicates(db: sqlite3.Connection, run: int) -> Iterator[tuple[int, str, Problem]]:
    for row, name, line, code, other, other_line, other_name in db.execute(_DUPLICATES, span(run)):
        yield row, f"{name}:{line}", duplicate(code, f"{other}:{other_line}", other_name)


def _invalidate(
    db: sqlite3.Connection, problems: Iterator[tuple[int, str, Problem]], examples: list[str]
) -> None:
    while batch := list(islice(problems, _BATCH)):
        with transaction(db):
            db.executemany(
                _MAKE_INVALID,
                [(json.dumps([asdict(p)]), p.rule, p.text, row) for row, _, p in batch],
            )
        room = MOST_EXAMPLES - len(examples)
        examples += [f"{place}: {problem.text}" for _, place, problem in batch[:room]]


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


class Repeat(NamedTuple):
    """A row whose device another row names as well."""

    source: int
    line: int
    problem: Problem
    is_conflict: bool
    """Whether the other row is for another user."""


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
        """Yield the rows that repeat a device, device by device.

        For one user: all rows but the first, whatever the policy. For several users: the first row
        of each, if conflicts are errors. *names*: the sources' names for messages.
        """
        self._db.execute("CREATE INDEX seen_device ON seen (code, user, id)")
        again = self._db.execute(
            "SELECT code, min(user), max(user) FROM seen GROUP BY code HAVING count(*) > 1"
        )
        for code, low, high in again:
            firsts = {user: self._first(code, user) for user in {low, high}}
            before = None
            rows = self._db.execute(
                "SELECT source, line, user, name FROM seen WHERE code = ? ORDER BY user, id",
                (code,),
            )
            for source, line, user, name in rows:
                if before is not None and before[2] == user:
                    other_name = "" if before[3] == name else before[3] or ""
                    place = f"{names[before[0]]}:{before[1]}"
                    yield Repeat(
                        source, line, duplicate(code, place, other_name), is_conflict=False
                    )
                    continue
                before = (source, line, user, name)
                if low != high and policy.on_conflict == "error":
                    other = high if user == low else low
                    other_source, other_line = firsts[other]
                    place = f"{names[other_source]}:{other_line}"
                    yield Repeat(source, line, conflict(code, place, other), is_conflict=True)

    def _first(self, code: str, user: str) -> tuple[int, int]:
        found: tuple[int, int] = self._db.execute(
            "SELECT source, line FROM seen WHERE code = ? AND user = ? ORDER BY id LIMIT 1",
            (code, user),
        ).fetchone()
        return found

"""Which devices a validation has met, where no ledger keeps them."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import LedgerError
from bulkbind.ledger.repeats import Policy, conflict, duplicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from bulkbind.model import CheckedRow, Problem

_CACHE_KB = 16_384


class Repeat(NamedTuple):
    """A row whose device stands in another one, too."""

    source: int
    line: int
    problem: Problem
    is_conflict: bool
    """Whether the other row is for another user."""


class Seen:
    """Devices in a private file that is gone at the end, so that memory stays flat.

    It takes some 100 bytes of disk a row (`TMPDIR`, or `SQLITE_TMPDIR`); a LedgerError says where
    that disk is full.
    """

    def __init__(self) -> None:
        # The empty name is SQLite's for a database on disk that nobody else sees.
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
        """Remember the devices of some rows."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO seen (source, line, code, user, name) VALUES (?, ?, ?, ?, ?)",
            [
                (source, row.line, code, user, name)
                for row in rows
                if not row.problems
                for user, code, name, _ in (row.values,)
            ],
        )
        self._db.execute("COMMIT")

    def repeats(self, names: Sequence[str], policy: Policy) -> Iterator[Repeat]:
        """Yield the rows that repeat a device, device by device.

        For one user, all rows but the first; for several users, the first row of each, unless
        the policy says which one counts.

        Args:
            names: What messages call the sources.
            policy: Which of them are wanted as problems is the caller's affair.
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

"""What a run's report says is bound, as the ledger knows it now. Read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.model import Record

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_VALID = "r.problems IS NULL AND r.duplicate_of IS NULL"


def user_ids(db: sqlite3.Connection, run: int, only: str = "") -> Iterator[str]:
    """Yield the users of a run's valid rows, in order; *only*: a condition more, of ours."""
    last = ""
    while True:
        # From one user to the next in the index, however many rows stand between.
        found = db.execute(
            "SELECT r.user_id FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
            f"WHERE r.run = ? AND r.user_id > ? AND {_VALID} {only} ORDER BY r.user_id LIMIT 1",
            (run, last),
        ).fetchone()
        if found is None:
            return
        last = found[0]
        yield last


class SkippedReader:
    """The devices of one run that are not sent because the ledger knows them as bound."""

    def __init__(self, db: sqlite3.Connection, run: int) -> None:
        self._db = db
        self._run = run

    def user_ids(self) -> Iterator[str]:
        """Yield the users who have such devices, in order."""
        return user_ids(self._db, self._run, "AND r.status = 'skipped'")

    def of(self, user_id: str) -> Iterator[tuple[int, str]]:
        """Yield row and machine code of a user's."""
        return self._db.execute(
            "SELECT r.id, r.machine_code FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
            f"WHERE r.run = ? AND r.user_id = ? AND {_VALID} AND r.status = 'skipped'",
            (self._run, user_id),
        )


class BoundReader:
    """The devices of one run that are bound: by it, or before it."""

    def __init__(self, db: sqlite3.Connection, run: int) -> None:
        self._db = db
        self._run = run

    def user_ids(self) -> Iterator[str]:
        """Yield the users of the run's valid rows, in order."""
        return user_ids(self._db, self._run)

    def of(self, user_id: str) -> Iterator[Record]:
        """Yield what the run says is bound to a user, and nobody has taken back since."""
        found = self._db.execute(
            "SELECT b.machine_code, b.device_id, b.create_time, b.device_name, b.device_os "  # noqa: S608  # constants
            "FROM rows r INDEXED BY rows_device JOIN bindings b USING (user_id, machine_code) "
            f"WHERE r.run = ? AND r.user_id = ? AND {_VALID} "
            "AND r.status IN ('bound', 'already_bound', 'skipped')",
            (self._run, user_id),
        )
        return (Record(*row) for row in found)

    def known(self, user_id: str) -> set[str]:
        """Return the machine codes that the ledger knows as bound to a user, whoever bound them."""
        found = self._db.execute("SELECT machine_code FROM bindings WHERE user_id = ?", (user_id,))
        return {code for (code,) in found}

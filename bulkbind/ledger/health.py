"""Whether a ledger's file is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.ledger.store import reading

if TYPE_CHECKING:
    from pathlib import Path

MOST_FAULTS = 5


def faults(path: Path, endpoint: str | None) -> list[str]:
    """Return what SQLite finds damaged, at most five faults; reads the whole file, writes nothing.

    Raises: LedgerError if it cannot be read, is no ledger, or another endpoint's.
    """
    with reading(path, endpoint) as db:
        told = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({MOST_FAULTS})")]
    return [] if told == ["ok"] else told

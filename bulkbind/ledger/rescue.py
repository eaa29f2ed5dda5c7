"""A ledger that was deleted under our hands: what is open still holds all of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError
from bulkbind.ledger.trouble import ELSEWHERE

if TYPE_CHECKING:
    from pathlib import Path

Identity = tuple[int, int]
"""Of a file: device and inode."""


def identity(path: Path) -> Identity | None:
    """Return which file stands at a path, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(db: sqlite3.Connection, path: Path) -> LedgerError:
    """Write all that a deleted ledger held to a file again, and close it.

    In the old place where nothing stands there now, else beside it. Returns: the error to end with.
    """
    what = f"ledger {path} was deleted or replaced while it was in use"
    try:
        target = _copied(db, path)
    except (OSError, sqlite3.Error) as error:
        return LedgerError(
            f"{what}, and what it held could not be written again: {error}",
            hint="what was sent is known to the server alone: run the manifest once more, and what "
            f"is bound already is told by its answers and lists; {ELSEWHERE}",
        )
    if target == path:
        return LedgerError(
            f"{what}; all that it held was put back there",
            hint="`bulkbind resume` goes on, and what was in flight is settled by the server's "
            "list; find out who deletes it",
        )
    return LedgerError(
        f"{what}; all that it held is in {target}",
        hint=f"another file stands in its place: `bulkbind resume --ledger {target}` goes on",
    )


def _copied(db: sqlite3.Connection, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(part)) as copy:
            db.backup(copy)
        # Closed before the copy takes its place: SQLite deletes the log that stands beside it.
        db.close()
        return _linked(part, path)
    finally:
        for ending in ("", "-wal", "-shm"):
            part.with_name(part.name + ending).unlink(missing_ok=True)


def _linked(part: Path, path: Path) -> Path:
    """Give the copy a name, never one that is taken."""
    if not path.exists():
        for leftover in ("-wal", "-shm"):  # of the deleted file: they are no part of the copy
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(part, path)
            return path
    beside = path.with_name(f"{path.stem}.rescued-{os.getpid()}{path.suffix}")
    os.link(part, beside)
    return beside

"""Copies of a ledger, whole and of one moment: `ledger backup`, and the one kept by an upgrade."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError
from bulkbind.files import create, make_folder, sync
from bulkbind.ledger.lock import ELSEWHERE, FREE, refused

if TYPE_CHECKING:
    from pathlib import Path

ENDINGS = ("", "-wal", "-shm", "-journal")
"""Endings of the names of all files that SQLite may keep for a database."""


def bytes_of(db: sqlite3.Connection) -> int:
    """Return the bytes of a database as the connection sees it, its log included."""
    pages, page_bytes = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size")
    )
    return pages * page_bytes


_ANOTHER = "or name another file for the copy"


def need_room(folder: Path, needed: int, what: str, elsewhere: str = ELSEWHERE) -> None:
    """Check that a folder's disk has room. *elsewhere*: as `refused`. Raises: LedgerError."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LedgerError(
            f"{what} needs {needed / 1e6:,.1f} MB of disk in {folder}, "
            f"{free / 1e6:,.1f} MB are free",
            hint=FREE.replace(ELSEWHERE, elsewhere),
        )


def copy_database(db: sqlite3.Connection, file: Path) -> None:
    """Copy a database to a new file, for its owner only, that needs no other beside it.

    Raises: OSError, sqlite3.Error.
    """
    os.close(create(file, os.O_EXCL | os.O_WRONLY))
    with closing(sqlite3.connect(file, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
    sync(file)


def back_up(db: sqlite3.Connection, target: Path, *, may_replace: bool = False) -> int:
    """Write a copy of a database that is there whole or not at all; return its bytes.

    The connection may be one that reads beside a running run: the copy is what it sees.

    *may_replace*: an earlier copy is replaced.

    Raises: LedgerError if there is one, no room, or no right to write; sqlite3.Error.
    """
    part = target.with_name(f".{target.name}.part")
    what = f"backup {target} cannot be written"
    elsewhere = ELSEWHERE if may_replace else _ANOTHER  # else it stands beside its ledger
    if target.exists() and not may_replace:
        raise LedgerError(f"{what}: it exists", hint="name a new file: a backup replaces nothing")
    try:
        make_folder(target.parent)
        need_room(target.parent, bytes_of(db), f"backup {target}", elsewhere)
        delete_database(part)  # of one that was killed
        copy_database(db, part)
        if may_replace:
            part.replace(target)
        else:
            os.link(part, target)
        return target.stat().st_size
    except OSError as error:
        raise refused(what, error, elsewhere) from error
    finally:
        delete_database(part)


def delete_database(part: Path) -> None:
    """Delete a database, if there is one, and what SQLite keeps beside it."""
    for ending in ENDINGS:
        with suppress(OSError):  # what must go and stays is met when the copy is made
            part.with_name(part.name + ending).unlink()

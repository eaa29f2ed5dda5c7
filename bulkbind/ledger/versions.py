"""The versions of a ledger: what makes one of an older one, and what that takes."""

from __future__ import annotations

import shutil
import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from bulkbind.ledger.backup import back_up, bytes_of, need_room
from bulkbind.ledger.store import int_of, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x62626C31
"""`bbl1` in the file's header: distinguishes a ledger from other SQLite files."""
_SCRIPTS = resources.files("bulkbind.ledger") / "migrations"
MIGRATIONS = sorted(_SCRIPTS.iterdir(), key=lambda script: int(script.name.partition("-")[0]))
"""Script n, `n-what.sql`, makes a ledger of version n of an older one; the first one, a new one."""
VERSION = len(MIGRATIONS)
REWRITES = 6
"""The last version whose script writes all rows anew."""
UPGRADE_ROOM = 3
"""Free disk that it takes, in ledgers: the copy, the log, and the rows in their new form."""


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring a ledger up to date, with a copy beside it where its rows are written anew.

    Killed at any moment, it begins anew: the version and the rows change in one transaction, and
    the copy takes its name when it is whole. Raises: LedgerError if there is no room.
    """
    version = int_of(db, "PRAGMA user_version")
    is_rewritten = 0 < version < REWRITES
    if is_rewritten:
        needed = UPGRADE_ROOM * bytes_of(db)
        what = f"ledger {path} is of version {version}: its upgrade to version {VERSION}"
        need_room(path.parent, needed, what)
        back_up(db, path.with_name(f"{path.name}.version-{version}"), may_replace=True)
        db.execute("PRAGMA temp_store = FILE")  # what is sorted may not fit in memory
    migrate(db)
    if is_rewritten:
        shrink(db, path)
        db.execute("PRAGMA temp_store = MEMORY")


VACUUM_FROM = 0.25
"""Share of the file that must be free before it is vacuumed."""
VACUUM_FROM_BYTES = 4 << 20


def shrink(db: sqlite3.Connection, path: Path) -> tuple[bool, str]:
    """Vacuum the file if that frees much; return whether it did, or what prevented it."""
    free, pages, page_bytes = (
        int_of(db, f"PRAGMA {name}") for name in ("freelist_count", "page_count", "page_size")
    )
    if free < VACUUM_FROM * pages or free * page_bytes < VACUUM_FROM_BYTES:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return False, ""
    # For the new file, and the same again in the log.
    needed = 2 * (pages - free) * page_bytes
    if shutil.disk_usage(path.parent).free < needed:
        return False, f"to shrink the file takes {needed / 1e6:,.0f} MB of free disk"
    db.execute("PRAGMA temp_store = FILE")  # the copy may not fit in memory
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return True, ""


def migrate(db: sqlite3.Connection) -> None:
    """Run the scripts that a ledger lacks, each in a transaction of its own."""
    while int_of(db, "PRAGMA user_version") < VERSION:
        with transaction(db):
            version = int_of(db, "PRAGMA user_version")
            if version >= VERSION:
                return  # another process has done it
            for statement in statements(MIGRATIONS[version].read_text("utf-8")):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {version + 1}")


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

"""The versions of a ledger: what makes one of an older one, and what that takes."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.files import create
from bulkbind.ledger.backup import back_up, bytes_of, delete_database, need_room
from bulkbind.ledger.lock import refused
from bulkbind.ledger.store import int_of, transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

APPLICATION_ID = 0x62626C31
"""`bbl1` in the file's header: distinguishes a ledger from other SQLite files."""
_SCRIPTS = resources.files("bulkbind.ledger") / "migrations"
MIGRATIONS = sorted(
    (script for script in _SCRIPTS.iterdir() if script.name[0].isdecimal()),
    key=lambda script: int(script.name.partition("-")[0]),
)
"""Script n, `n-what.sql`, makes a ledger of version n of an older one; the first one, a new one."""
VERSION = len(MIGRATIONS)
REWRITES = 6
"""The last version in which all rows are written anew: its script only makes the tables."""
_ROWS = _SCRIPTS / f"from-{REWRITES - 1}.sql"
UPGRADE_ROOM = 3
"""Free disk that it takes, in ledgers: the copy, the new one, and the log."""


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring a ledger up to date, with a copy beside it where its rows are written anew.

    Killed at any moment, it begins anew: the version and the rows change in one transaction, and
    the copy takes its name when it is whole. Raises: LedgerError if there is no room, or no right
    to write beside it.
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
    """Run the scripts that a ledger lacks, each in a transaction of its own.

    Raises: LedgerError if it must be written anew, and nothing can be written beside it.
    """
    while (version := int_of(db, "PRAGMA user_version")) < VERSION:
        if version == REWRITES - 1:
            _rewrite(db)
            continue
        with transaction(db):
            version = int_of(db, "PRAGMA user_version")
            if version >= VERSION:
                return  # another process has done it
            _run(db, MIGRATIONS[version])
            _call(db, version + 1)


def _rewrite(db: sqlite3.Connection) -> None:
    """Write a ledger anew into another file, all of which then takes its place at once.

    That takes less time and disk than new tables beside the old ones, which would have to be
    dropped, and leaves nothing to be shrunk.
    """
    seen = int_of(db, "PRAGMA data_version")
    path = Path(db.execute("PRAGMA database_list").fetchone()[2])
    part = path.with_name(f".{path.name}.new")
    delete_database(part)  # of one that was killed
    try:
        os.close(create(part, os.O_EXCL | os.O_WRONLY))
        with closing(sqlite3.connect(part.as_uri(), uri=True, isolation_level=None)) as new:
            _fill(new, path, int_of(db, "PRAGMA page_size"))
            migrate(new)
            if int_of(db, "PRAGMA data_version") == seen:  # else another process has done it
                take_place(new, db)
    except OSError as error:
        raise refused(f"ledger {path} cannot be upgraded", error) from error
    finally:
        delete_database(part)


def _fill(new: sqlite3.Connection, path: Path, page_bytes: int) -> None:
    """Make a ledger of the version that is written anew, out of one of the version before."""
    new.execute(f"PRAGMA page_size = {page_bytes}")
    for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
        new.execute(f"PRAGMA {setting}")
    new.execute("ATTACH ? AS old", (f"{path.as_uri()}?mode=ro",))
    for name in ("main", "old"):
        new.execute(f"PRAGMA {name}.cache_size = -16384")
    new.execute("BEGIN")
    for script in (*MIGRATIONS[:REWRITES], _ROWS):
        _run(new, script)
    _call(new, REWRITES)
    new.execute("COMMIT")
    new.execute("DETACH old")


def take_place(new: sqlite3.Connection, db: sqlite3.Connection) -> None:
    """Replace all that a ledger holds, in one transaction of its own."""
    new.backup(db)


def _run(db: sqlite3.Connection, script: Traversable) -> None:
    for statement in statements(script.read_text("utf-8")):
        db.execute(statement)


def _call(db: sqlite3.Connection, version: int) -> None:
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {version}")


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

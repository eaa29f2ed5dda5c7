"""The ledger's file: opened, checked, read, copied; and the translation of errors."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import tempfile
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.clock import SystemClock, iso
from bulkbind.errors import LedgerError, NoLedgerError
from bulkbind.files import copy_file, create, make_folder
from bulkbind.ledger import versions
from bulkbind.ledger.lock import ELSEWHERE, FREE, READ_ONLY, RIGHTS, LedgerLock, refused
from bulkbind.ledger.store import OPEN, RUN_SHIFT, get_meta, int_of, put_meta, sql_list, transaction
from bulkbind.ledger.versions import APPLICATION_ID, VERSION
from bulkbind.model import IS_BOUND, IS_OPEN, IS_UNCONFIRMED, LiveFacts, RunFacts, Unreachable
from bulkbind.settings import ledger_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.settings import Settings

_SQLITE_HINTS = {
    "CANTOPEN": RIGHTS,
    "PERM": RIGHTS,
    "AUTH": RIGHTS,
    "READONLY": READ_ONLY,
    "FULL": FREE,
    "IOERR": f"see to the disk (space, quota, cables), {ELSEWHERE}",
    "BUSY": "another program has it open: end it, and try again",
}


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is damaged."""
    return "CORRUPT" in _name(error)


def damaged(path: Path, what: str, *, is_untouched: bool) -> LedgerError:
    """Return the error for a damaged ledger. *is_untouched*: whether we wrote nothing to it."""
    hint = "restore a copy of it, or choose another file with --ledger; " + (
        "it was not written to"
        if is_untouched
        else "this run has written to it: keep it beside the copy, which lacks what was done since"
    )
    return LedgerError(f"ledger {path} is damaged: {what}", hint=hint)


def translated(path: Path, error: sqlite3.Error, *, is_untouched: bool = True) -> LedgerError:
    """Translate an SQLite error into a LedgerError."""
    name = _name(error)
    if "NOTADB" in name:
        return LedgerError(
            f"{path} is not a ledger: {error}", hint="the file was not touched; name another one"
        )
    if is_damage(error):
        return damaged(path, str(error), is_untouched=is_untouched)
    hints = [hint for word, hint in _SQLITE_HINTS.items() if name.startswith(f"SQLITE_{word}")]
    return LedgerError(f"ledger {path}: {error}", hint="".join(hints[:1]))


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


CHECKED_BYTES = 64 << 20
"""A ledger up to this size (about 150,000 rows, less than a second) is checked for damage before it
is written to; in a larger one, damage shows when it is read."""
_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: a plain fsync may stop at the drive's cache
    "busy_timeout = 10000",
    "temp_store = MEMORY",
    "cache_size = -32768",  # 32 MiB
)


def connect(path: Path, endpoint: str | None) -> sqlite3.Connection:
    """Open a ledger for writing; a new file gets the schema, an older one is migrated.

    Call it with the lock held, unless nobody else knows the file. A missing file or folder is
    created for its owner only. *endpoint*: the one that the ledger must belong to; None: any.

    Raises: LedgerError if the file is no ledger, damaged, newer or of another endpoint.
    """
    try:
        make_folder(path.parent)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))  # as `open` would
        # A descriptor of an existing file is not closed: that would end SQLite's locks on it.
        with suppress(FileExistsError):
            os.close(create(path, os.O_RDWR | os.O_EXCL))
    except OSError as error:
        raise refused(f"ledger {path} cannot be opened", error) from error
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _refuse_foreign(db, path)
            _refuse_damaged(db, path)
            for setting in _SETTINGS:
                db.execute(f"PRAGMA {setting}")
            versions.upgrade(db, path)
            if endpoint is not None:
                _claim_endpoint(db, path, endpoint)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise translated(path, error) from error
    return db


def ledger_of(settings: Settings) -> Path:
    """Return the file of the ledger: as set, else the endpoint's own in the user's state folder.

    An earlier version's file of that endpoint is used as long as there is none of today's name.

    Raises: UsageError without an endpoint, LedgerError if that file cannot be read.
    """
    path, earlier = settings.ledger_path(), settings.earlier_ledger_path()
    if earlier is None or path.exists() or not earlier.is_file():
        return path
    try:
        with reading(earlier) as db:
            known = get_meta(db, "endpoint")
    except NoLedgerError:
        return path
    return earlier if ledger_name(str(known)) == ledger_name(settings.endpoint()) else path


@contextmanager
def reading(path: Path, endpoint: str | None = None) -> Iterator[sqlite3.Connection]:
    """Open a ledger read-only, also during a run; the whole block sees one consistent snapshot.

    Raises: NoLedgerError, LedgerError if it cannot be read.
    """
    none = "no run has been made against this endpoint yet"
    if not path.exists():
        raise NoLedgerError(f"there is no ledger {path}", hint=none)
    if path.is_dir():
        raise refused(f"ledger {path} cannot be read", IsADirectoryError(errno.EISDIR, "a folder"))
    try:
        with _readable(path) as file, closing(_read_only(file)) as db:
            if not _refuse_foreign(db, path):
                raise NoLedgerError(f"ledger {path} is empty", hint=none)
            db.execute("PRAGMA busy_timeout = 10000")
            db.execute("BEGIN")
            if endpoint is not None:
                _refuse_other(db, path, endpoint)
            yield db
    except sqlite3.Error as error:
        raise translated(path, error) from error


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _refuse_foreign(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether a database that may be a ledger holds anything. Raises: LedgerError."""
    has_tables = int_of(db, "SELECT count(*) FROM sqlite_schema") > 0
    if has_tables and int_of(db, "PRAGMA application_id") != APPLICATION_ID:
        raise LedgerError(
            f"{path} is a database, but not a ledger of bulkbind",
            hint="give another file with --ledger; this one was not touched",
        )
    version = int_of(db, "PRAGMA user_version")
    if version > VERSION:
        raise LedgerError(
            f"ledger {path} has version {version}, this bulkbind knows up to {VERSION}",
            hint="use the newer bulkbind that wrote it; the file was not touched",
        )
    return has_tables


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Yield the file to read a ledger from: itself, brought up to date, or else a copy of it.

    SQLite needs to write beside a ledger even to read it, and so does an upgrade; a copy serves
    where that cannot be, as on a read-only disk, or while a run of an older version holds it.
    """
    try:
        with closing(_read_only(path)) as db:
            version = int_of(db, "PRAGMA user_version")
    except sqlite3.Error as error:
        if not _name(error).startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
            yield path  # the caller's own read reports the error
            return
        version = 0
    else:
        if version in (0, VERSION) or version > VERSION or _is_upgraded(path):
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="bulkbind-ledger-") as folder:
        copy = Path(folder, path.name)
        _copy_files(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            _refuse_foreign(db, path)
            if int_of(db, "PRAGMA user_version"):
                versions.migrate(db)
        yield copy


def _is_upgraded(path: Path) -> bool:
    """Bring an older ledger up to date; return False if it cannot be written now."""
    lock = LedgerLock(path.resolve())
    here = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        lock.acquire(here | {"started_at": iso(SystemClock().utc_now())})
    except LedgerError:
        return False
    try:
        connect(path, None).close()
    finally:
        lock.release()
    return True


COPY_TRIES = 5


def _copy_files(path: Path, copy: Path) -> None:
    """Copy a ledger and its log as they were at one moment. Raises: LedgerError."""
    pairs = [(path.with_name(path.name + end), copy.with_name(copy.name + end)) for end in _FILES]

    def seen() -> list[tuple[int, int] | None]:
        return [(s.st_size, s.st_mtime_ns) if (s := _stat(file)) else None for file, _ in pairs]

    for _ in range(COPY_TRIES):
        before = seen()
        try:
            for file, to in pairs:
                to.unlink(missing_ok=True)
                if file.exists():
                    copy_file(file, to)
        except OSError as error:
            where = f"(copied to {copy.parent}, since nothing can be written beside it)"
            raise refused(f"ledger {path} cannot be read {where}", error) from error
        if seen() == before:
            return
    raise LedgerError(
        f"ledger {path} cannot be read: nothing can be written beside it, and it changes while it "
        "is copied",
        hint="try again when no run is sending, or as a user who may write to its folder",
    )


_FILES = ("", "-wal")
"""Endings of the names of a ledger's files; `-shm` is made anew."""


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _refuse_damaged(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECKED_BYTES:
        return
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(str(found).split()), is_untouched=True)


def _claim_endpoint(db: sqlite3.Connection, path: Path, endpoint: str) -> None:
    with transaction(db):
        known = get_meta(db, "endpoint")
        if known is not None and ledger_name(str(known)) == ledger_name(endpoint):
            return
        if known is not None:
            _refuse_other(db, path, endpoint)
            db.execute("DELETE FROM meta")  # learned of another gateway, if at all
        put_meta(db, "endpoint", endpoint)


def _refuse_other(db: sqlite3.Connection, path: Path, endpoint: str) -> None:
    known = get_meta(db, "endpoint")
    if ledger_name(str(known)) != ledger_name(endpoint) and _was_sent(db):
        raise LedgerError(
            f"ledger {path} belongs to {known}, not to {endpoint}",
            hint="each endpoint has a ledger of its own: leave --ledger away, or name another file",
        )


def _was_sent(db: sqlite3.Connection) -> bool:
    """Return whether anything in a ledger may have been sent to its endpoint."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM bindings) OR EXISTS (SELECT 1 FROM undos) "  # noqa: S608  # constants
        f"OR EXISTS (SELECT 1 FROM attempts WHERE verdict <> '{Unreachable.__name__}' "
        "           AND trace_id <> '') "
        "OR EXISTS (SELECT 1 FROM runs WHERE facts ->> 'pruned_at' IS NOT NULL) "
        "OR EXISTS (SELECT 1 FROM rows WHERE attempts > 0 OR doubts > 0 "
        f"           OR status IN {sql_list([*IS_OPEN, *IS_BOUND])})"
    ).fetchone()
    return bool(found[0])


# Only what staging reads; the real ledger is neither written to nor locked.
_COPY = f"""
BEGIN;
INSERT INTO runs (run, run_id, kind, state, digest, created_at, operator, host, pid, version,
                  settings, facts, superseded_by)
SELECT run, run_id, kind, state, digest, created_at, operator, host, pid, version, '{{}}', facts,
       superseded_by
  FROM known.runs WHERE state NOT IN {sql_list(IS_UNCONFIRMED)};
INSERT OR REPLACE INTO meta
SELECT * FROM known.meta WHERE key IN ('{LiveFacts.key}', '{RunFacts.limit.name}');
INSERT INTO users SELECT * FROM known.users;
INSERT INTO devices SELECT * FROM known.devices;
INSERT INTO names SELECT * FROM known.names;
INSERT INTO stored_bindings SELECT * FROM known.stored_bindings;
INSERT INTO former_bindings SELECT * FROM known.former_bindings;
INSERT INTO stored_rows SELECT * FROM known.stored_rows INDEXED BY rows_open WHERE {OPEN};
INSERT INTO sending
SELECT * FROM known.sending
 WHERE id IN (SELECT id FROM known.stored_rows INDEXED BY rows_open WHERE {OPEN});
COMMIT;
"""  # noqa: S608  # constants
# What runs of scopes named last stands for their rows.
_COPY_SCOPES = f"""
BEGIN;
INSERT INTO scopes SELECT * FROM known.scopes;
UPDATE runs SET scope = (
       SELECT k.scope FROM known.runs k
        WHERE k.run = runs.run AND k.run NOT IN (SELECT run FROM known.undos));
INSERT INTO scope_devices SELECT * FROM known.scope_devices;
INSERT OR REPLACE INTO scope_devices (scope, device, run)
SELECT n.scope, r.device, n.run
  FROM (SELECT scope, max(run) AS run FROM runs WHERE scope NOT NULL GROUP BY scope) n
 CROSS JOIN known.stored_rows r
    ON r.id BETWEEN n.run << {RUN_SHIFT} AND ((n.run + 1) << {RUN_SHIFT}) - 1
 WHERE r.device NOT NULL;
COMMIT;
"""  # noqa: S608  # constants


def copy_known(ledger: Path, copy: Path, endpoint: str, *, scopes: bool = False) -> None:
    """Create a ledger *copy* with the devices that *ledger* knows to be bound or in doubt.

    A consistent snapshot, also during a run. If there is no ledger yet, the copy is empty.

    *scopes*: also with what runs of each scope named last.

    Raises: LedgerError if the file is no ledger, or of another endpoint.
    """
    connect(copy, endpoint).close()
    try:
        with reading(ledger, endpoint):
            pass  # only its checks
    except NoLedgerError:
        return
    try:
        with (
            _readable(ledger) as file,
            closing(sqlite3.connect(copy.as_uri(), uri=True, isolation_level=None)) as db,
        ):
            db.execute("PRAGMA synchronous = OFF")  # the copy need not survive a crash
            db.execute("ATTACH ? AS known", (f"{file.resolve().as_uri()}?mode=ro",))
            db.executescript(_COPY)
            if scopes:
                db.executescript(_COPY_SCOPES)
    except sqlite3.Error as error:
        raise translated(ledger, error) from error

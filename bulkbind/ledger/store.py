"""The ledger's file: its lock, its schema and version, what is refused, what its errors mean."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from contextlib import closing, contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from bulkbind.errors import LedgerBusyError, LedgerError
from bulkbind.files import take_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ELSEWHERE = "or choose another place with --ledger FILE"
_FREE = f"free the disk, {ELSEWHERE}"
_READ_ONLY = f"its disk or file is read-only: make it writable, {ELSEWHERE}"
_RIGHTS = f"give this user the right to read and write it and its folder, {ELSEWHERE}"
_FOLDER = "it is a folder: name a file, for instance one in it, with --ledger FILE"
_NO_FOLDER = f"a part of its path is a file: {ELSEWHERE[3:]}"
_HINTS = {
    errno.EISDIR: _FOLDER,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,  # as `mkdir` says it
}
_SQLITE_HINTS = {
    "CANTOPEN": _RIGHTS,
    "PERM": _RIGHTS,
    "AUTH": _RIGHTS,
    "READONLY": _READ_ONLY,
    "FULL": _FREE,
    "IOERR": f"see to the disk (space, quota, cables), {ELSEWHERE}",
    "BUSY": "another program has it open: end it, and try again",
}


def refused(what: str, error: OSError) -> LedgerError:
    """Return the error of an operating system that does not give us a file."""
    hint = _HINTS.get(error.errno or 0, ELSEWHERE[3:])
    return LedgerError(f"{what}: {error.strerror}", hint=hint)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file is damaged."""
    return "CORRUPT" in _name(error)


def damaged(path: Path, what: str, *, is_untouched: bool) -> LedgerError:
    """Return the error of a damaged ledger. *is_untouched*: whether nothing was written to it."""
    hint = "restore a copy of it, or choose another file with --ledger; " + (
        "it was not written to"
        if is_untouched
        else "this run has written to it: keep it beside the copy, which lacks what was done since"
    )
    return LedgerError(f"ledger {path} is damaged: {what}", hint=hint)


def translated(path: Path, error: sqlite3.Error, *, is_untouched: bool = True) -> LedgerError:
    """Return an error of SQLite's as one of ours."""
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


class LedgerLock:
    """Holds `<ledger>.lock` from `acquire` to `release`, or until the process dies."""

    def __init__(self, ledger: Path) -> None:
        self._path = ledger.with_name(ledger.name + ".lock")
        self._file: int | None = None

    def acquire(self, holder: dict[str, Any]) -> None:
        """Take the lock and write *holder* (`pid`, `host`, `started_at`) into it.

        Raises: LedgerBusyError that names the holder, LedgerError if the file cannot be made.
        """
        try:
            self._file = take_lock(self._path)
        except OSError as error:
            raise refused(f"lock {self._path} cannot be made", error) from error
        if self._file is None:
            raise LedgerBusyError(
                f"another run holds the ledger: {self._holder()}",
                hint="--wait 10m waits for it; `bulkbind runs` shows it",
            )
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(holder).encode(), 0)

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _holder(self) -> str:
        try:
            holder = json.loads(self._path.read_bytes())
            return f"pid {holder['pid']} on {holder['host']} since {holder['started_at']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "it has not said who it is"


APPLICATION_ID = 0x62626C31
"""`bbl1` in the file's header: tells a ledger from any other SQLite file."""
MIGRATIONS = ("schema.sql", "doubt.sql", "changes.sql", "unbindings.sql")
"""Script number n brings a ledger from version n to n + 1."""
VERSION = len(MIGRATIONS)
CHECKED_BYTES = 64 << 20
"""A ledger up to this size, some 150,000 rows, is checked as a whole before anything is written to
it: less than a second. In a larger one, damage is met where it is."""
_SETTINGS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: a plain fsync may stop at the drive's cache
    "busy_timeout = 10000",
    "temp_store = MEMORY",
    "cache_size = -32768",  # 32 MiB: bounded, whatever the manifest's size
)
RUN_SHIFT = 40
"""A row's id is run * 2**40 + its position."""


View = sqlite3.Connection
"""A connection that only reads, for those who may not know what it is."""


def connect(path: Path, endpoint: str | None) -> sqlite3.Connection:
    """Open a ledger for writing; a new file gets the schema, an older one is brought up to date.

    Args:
        path: The file; it and a missing folder are made for their owner only.
        endpoint: Whose ledger it is: a file of another endpoint is refused. None: as it says.

    Raises: LedgerError for a file that is not a ledger, is damaged, newer or another endpoint's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise refused(f"ledger {path} cannot be opened", error) from error
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _refuse_strangers(db, path)
            _refuse_damaged(db, path)
            for setting in _SETTINGS:
                db.execute(f"PRAGMA {setting}")
            _migrate(db)
            if endpoint is not None:
                _claim_endpoint(db, path, endpoint)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise translated(path, error) from error
    return db


@contextmanager
def reading(path: Path, endpoint: str | None = None) -> Iterator[sqlite3.Connection]:
    """Open a ledger read-only, beside a run that writes; one consistent view for the whole block.

    Raises: LedgerError if there is no ledger or it cannot be read.
    """
    if not path.exists():
        raise LedgerError(
            f"there is no ledger {path}", hint="no run has been made against this endpoint yet"
        )
    if path.is_dir():
        raise refused(f"ledger {path} cannot be read", IsADirectoryError(errno.EISDIR, "a folder"))
    _bring_up_to_date(path)
    try:
        with closing(_read_only(path)) as db:
            _refuse_strangers(db, path)
            db.execute("PRAGMA busy_timeout = 10000")
            db.execute("BEGIN")
            if endpoint is not None:
                _refuse_other(path, get_meta(db, "endpoint"), endpoint)
            yield db
    except sqlite3.Error as error:
        raise translated(path, error) from error


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _refuse_strangers(db: sqlite3.Connection, path: Path) -> None:
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


def _bring_up_to_date(path: Path) -> None:
    """Bring a ledger of an older version up to date before it is only read."""
    try:
        with closing(_read_only(path)) as db:
            version = int_of(db, "PRAGMA user_version")
    except sqlite3.Error:
        return  # whoever reads it says what is wrong
    if 0 < version < VERSION:
        connect(path, None).close()


def _refuse_damaged(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECKED_BYTES:
        return
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(str(found).split()), is_untouched=True)


def _migrate(db: sqlite3.Connection) -> None:
    folder = resources.files("bulkbind.ledger")
    for version in range(int_of(db, "PRAGMA user_version"), VERSION):
        script = folder.joinpath(MIGRATIONS[version]).read_text("utf-8")
        db.executescript(
            f"BEGIN EXCLUSIVE;\n{script}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {version + 1};\nCOMMIT;"
        )


def _claim_endpoint(db: sqlite3.Connection, path: Path, endpoint: str) -> None:
    if get_meta(db, "endpoint") is None:
        put_meta(db, "endpoint", endpoint)
    _refuse_other(path, get_meta(db, "endpoint"), endpoint)


def _refuse_other(path: Path, known: object, endpoint: str) -> None:
    if known != endpoint:
        raise LedgerError(
            f"ledger {path} belongs to {known}, not to {endpoint}",
            hint="each endpoint has a ledger of its own: leave --ledger away, or name another file",
        )


# What staging looks at, and nothing else: the real ledger is neither written to nor held.
_COPY = """
BEGIN;
INSERT INTO runs (run, run_id, state, digest, created_at, operator, host, pid, version, settings,
                  facts, superseded_by)
SELECT run, run_id, state, digest, created_at, operator, host, pid, version, '{}', facts,
       superseded_by
  FROM known.runs WHERE state NOT IN ('staging', 'ready');
INSERT INTO bindings (user_id, machine_code, device_id, create_time, device_name, device_os, since,
                      run)
SELECT user_id, machine_code, device_id, create_time, device_name, device_os, since, run
  FROM known.bindings;
INSERT INTO rows (id, run, source, line, user_id, machine_code, status)
SELECT id, run, source, line, user_id, machine_code, status
  FROM known.rows INDEXED BY rows_open WHERE status IN ('claimed', 'in_doubt');
COMMIT;
"""


def copy_known(ledger: Path, copy: Path, endpoint: str) -> None:
    """Make a ledger *copy* that knows which devices *ledger* knows as bound or in doubt.

    One consistent view, also beside a run that writes. Where there is no ledger yet, nothing is
    known.

    Raises: LedgerError if the ledger is none, or another endpoint's.
    """
    connect(copy, endpoint).close()
    if not ledger.exists():
        return
    with reading(ledger, endpoint):
        pass  # it is one, and this endpoint's
    try:
        with closing(sqlite3.connect(copy.as_uri(), uri=True, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # nobody needs it after a crash
            db.execute("ATTACH ? AS known", (f"{ledger.resolve().as_uri()}?mode=ro",))
            db.executescript(_COPY)
    except sqlite3.Error as error:
        raise translated(ledger, error) from error


def span(run: int) -> tuple[int, int]:
    """Return the first and the last possible row id of a run."""
    return run << RUN_SHIFT, ((run + 1) << RUN_SHIFT) - 1


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, also when cancelled; durable once the block is left."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # A full disk may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def relaxed(db: sqlite3.Connection) -> Iterator[None]:
    """Let commits of the block wait for no disk, and checkpoints be rare: twice as fast.

    Only for what is thrown away after a crash. The next commit outside the block makes all of it
    durable, since it waits for the same log.
    """
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 8000")
    try:
        yield
    finally:
        db.execute("PRAGMA wal_autocheckpoint = 1000")
        db.execute("PRAGMA synchronous = FULL")


def count_by(
    db: sqlite3.Connection, run: int, expression: str, values: Sequence[str]
) -> dict[str, int]:
    """Return how many rows of a run have each of *values*, those without any left out.

    In one pass and without memory: GROUP BY would sort all rows first, a million of them in 40 MB.

    Args:
        db: The ledger.
        run: The run's number.
        expression: SQL over the columns of `rows r`; a constant of ours.
        values: All that it can come to.
    """
    columns = ", ".join([f"count(*) FILTER (WHERE {expression} = ?)"] * len(values))
    found = db.execute(
        f"SELECT {columns} FROM rows r WHERE r.id BETWEEN ? AND ?",  # noqa: S608  # constants
        (*values, *span(run)),
    ).fetchone()
    return {str(name): count for name, count in zip(values, found, strict=True) if count}


def int_of(db: sqlite3.Connection, query: str, values: Sequence[object] = ()) -> int:
    """Return the one number that a query asks for."""
    return int(db.execute(query, values).fetchone()[0])


def change_each(db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Change one row with each set of values. Raises: LedgerError if one was not changed."""
    if rows:
        agree(len(rows), db.executemany(sql, rows).rowcount)


def agree(wanted: int, changed: int) -> None:
    """Check that as many rows were changed as were to be. Raises: LedgerError."""
    if changed != wanted:
        raise LedgerError(
            f"the ledger and the run disagree: {wanted} rows to change, {changed} changed",
            hint="nothing was written; please report this with `bulkbind runs --json`",
        )


def get_meta(db: sqlite3.Connection, key: str) -> object:
    """Return a remembered value, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return json.loads(row[0]) if row else None


def put_meta(db: sqlite3.Connection, key: str, value: object) -> None:
    """Remember a value that JSON can hold."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

"""The ledger's file: schema, version, checks on opening, and translation of errors."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sqlite3
import tempfile
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bulkbind.clock import SystemClock, iso
from bulkbind.errors import LedgerError, NoLedgerError
from bulkbind.files import copy_file, create, make_folder
from bulkbind.ledger.backup import back_up, bytes_of, need_room
from bulkbind.ledger.lock import ELSEWHERE, FREE, READ_ONLY, RIGHTS, LedgerLock, refused
from bulkbind.model import (
    IS_BOUND,
    IS_OPEN,
    IS_UNCONFIRMED,
    UNBIND_PENDING,
    Held,
    RunFacts,
    RunKind,
    Status,
    Unreachable,
)
from bulkbind.model.fields import FIELDS, OPTIONAL
from bulkbind.settings import ledger_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

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
RUN_SHIFT = 40
"""A row's id is run * 2**40 + its position."""
ROW_TABLES = ("cells", "broken", "sending", "remarks", "outcomes", "stored_rows")
"""What the view `rows` consists of, by row id; `stored_rows` has every row."""


View = sqlite3.Connection
"""A read-only connection, for modules that may not import sqlite3."""


class OfRun:
    """What the ledger holds of one run, read from a connection with a consistent snapshot."""

    def __init__(self, db: View, run: int) -> None:
        self._db = db
        self._run = run

    def run_id(self) -> str:
        """Return the run's id."""
        query = "SELECT run_id FROM runs WHERE run = ?"
        return str(self._db.execute(query, (self._run,)).fetchone()[0])

    def kind(self) -> RunKind:
        """Return what the run does."""
        query = "SELECT kind FROM runs WHERE run = ?"
        return RunKind(self._db.execute(query, (self._run,)).fetchone()[0])

    def facts(self) -> RunFacts:
        """Return what is known of the run, apart from its rows."""
        return get_facts(self._db, "runs", self._run)


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
            _upgrade(db, path)
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
                _migrate(db)
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


def _upgrade(db: sqlite3.Connection, path: Path) -> None:
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
    _migrate(db)
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


def _migrate(db: sqlite3.Connection) -> None:
    while int_of(db, "PRAGMA user_version") < VERSION:
        with transaction(db):
            version = int_of(db, "PRAGMA user_version")
            if version >= VERSION:
                return  # another process has done it
            for statement in _statements(MIGRATIONS[version].read_text("utf-8")):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {version + 1}")


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


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


def sql_list(words: Iterable[str]) -> str:
    """Return words of ours as the right side of `IN`: `('a', 'b')`."""
    return "({})".format(", ".join(f"'{word}'" for word in words))


_STORED = (
    *("bound", "skipped", "staged", "claimed", "in_doubt", "already_bound", "failed", "invalid"),
    *("duplicate", "moved", "withdrawn", "left_out"),
    *("unbound", "already_gone", "changed", "not_ours"),
)
CODES = {Status(word): code for code, word in enumerate(_STORED)}
"""The numbers by which `stored_rows` holds the states of rows; the view `rows` has the words."""


def codes(statuses: Iterable[str]) -> str:
    """Return states as the right side of `IN` for `stored_rows`: `(0, 5)`."""
    return f"({', '.join(str(CODES[Status(status)]) for status in statuses)})"


HELD_CODES = {held: code for code, held in enumerate(Held)}
"""The numbers by which `stored_bindings` holds whose a binding is; the view has the words."""
OPEN = f"status IN {codes(IS_OPEN)}"
"""Stored rows of which the server may hold the binding; as in the index `rows_open`."""
VALID = f"status NOT IN {codes((Status.INVALID, Status.LEFT_OUT, Status.DUPLICATE))}"
"""Stored rows that keep every rule, each device once."""


def of_status(statuses: Iterable[str], rows: str = "BETWEEN ? AND ?") -> str:
    """Return a query for the ids of rows in some states: of a range unless *rows* says otherwise.

    Reads only what is stored of every row, which is much less than the view `rows` has.
    """
    return f"SELECT id FROM stored_rows WHERE id {rows} AND status IN {codes(statuses)}"  # noqa: S608  # constants


def stored_id(value: str) -> str:
    """Return the SQL of a device id as it is stored: an integer if that gives back the text."""
    return (
        f"CASE WHEN CAST(CAST({value} AS INTEGER) AS TEXT) = {value} "
        f"THEN CAST({value} AS INTEGER) WHEN {value} <> '' THEN {value} END"
    )


def stored_time(value: str) -> str:
    """Return the SQL of a moment as it is stored: milliseconds if they give back the text."""
    ms = f"strftime('%s', {value}) * 1000 + substr({value}, 21, 3)"
    return (
        f"CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', ({ms}) / 1000.0, 'unixepoch') = {value} "
        f"THEN {ms} WHEN {value} <> '' THEN {value} END"
    )


def shown_time(value: str) -> str:
    """Return the SQL of the text of a moment as it is stored."""
    text = f"strftime('%Y-%m-%dT%H:%M:%fZ', {value} / 1000.0, 'unixepoch')"
    return f"CASE typeof({value}) WHEN 'integer' THEN {text} ELSE {value} END"


UNBIND_OPEN = f"status IN {sql_list(UNBIND_PENDING)}"
"""Unbindings that have not ended; as in the index `unbindings_open`."""
ALL_FIELDS = ", ".join(FIELDS)
"""The columns of a row's fields."""


def optional_of(table: str) -> str:
    """Return the columns of a table's optional fields."""
    return ", ".join(f"{table}.{name}" for name in OPTIONAL)


def differs(one: str, other: str) -> str:
    """Return the condition that two tables' rows have different optional values."""
    return f"({optional_of(one)}) IS NOT ({optional_of(other)})"


def marks(count: int) -> str:
    """Return the marks of so many parameters."""
    return ", ".join("?" * count)


# Only what staging reads; the real ledger is neither written to nor locked.
_COPY = f"""
BEGIN;
INSERT INTO runs (run, run_id, kind, state, digest, created_at, operator, host, pid, version,
                  settings, facts, superseded_by)
SELECT run, run_id, kind, state, digest, created_at, operator, host, pid, version, '{{}}', facts,
       superseded_by
  FROM known.runs WHERE state NOT IN {sql_list(IS_UNCONFIRMED)};
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


def span(run: int) -> tuple[int, int]:
    """Return the first and the last possible row id of a run."""
    return run << RUN_SHIFT, ((run + 1) << RUN_SHIFT) - 1


def parts(db: sqlite3.Connection, run: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last id of parts of a run, of so many rows at most, in order."""
    first, last = span(run)
    last = int_of(db, "SELECT coalesce(max(id), 0) FROM stored_rows WHERE id <= ?", (last,))
    for begin in range(first, last + 1, most):
        yield begin, min(begin + most - 1, last)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction: durable at its end, rolled back on any error."""
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
    """Commit without waiting for the disk, and checkpoint rarely: twice as fast.

    Only for data that is discarded after a crash. The next commit outside the block makes all of it
    durable, since it syncs the same log.
    """
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 8000")
    try:
        yield
    finally:
        db.execute("PRAGMA wal_autocheckpoint = 1000")
        db.execute("PRAGMA synchronous = FULL")


def counts(
    db: sqlite3.Connection, run: int, among: Collection[Status] = tuple(Status)
) -> dict[Status, int]:
    """Return the number of a run's rows by status, zeros omitted; of those *among* them.

    One pass, without sorting in memory, whose time is that of the statuses asked for.
    """
    columns = ", ".join(f"count(*) FILTER (WHERE status = {CODES[status]})" for status in among)
    found = db.execute(
        f"SELECT {columns} FROM stored_rows WHERE id BETWEEN ? AND ?",  # noqa: S608  # constants
        span(run),
    ).fetchone()
    return {status: count for status, count in zip(among, found, strict=True) if count}


def int_of(
    db: sqlite3.Connection, query: str, values: Sequence[object] | Mapping[str, object] = ()
) -> int:
    """Return the single integer that a query selects."""
    return int(db.execute(query, values).fetchone()[0])


def numbers_of(
    db: sqlite3.Connection, answers: Iterable[tuple[str, str, int | None]]
) -> dict[tuple[str, str, int | None], int]:
    """Return the numbers of answers (code, message, HTTP status); new ones get one."""
    numbers: dict[tuple[str, str, int | None], int] = {}
    for answer in answers:
        found = db.execute(
            "SELECT answer FROM answers WHERE code = ? AND message = ? AND http_status IS ?", answer
        ).fetchone()
        if found is None:
            sql = "INSERT INTO answers (code, message, http_status) VALUES (?, ?, ?)"
            found = db.execute(f"{sql} RETURNING answer", answer).fetchone()
        numbers[answer] = found[0]
    return numbers


def change_each(db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Change one row with each set of values. Raises: LedgerError if one was not changed."""
    if rows:
        check_changed(len(rows), db.executemany(sql, rows).rowcount)


def check_changed(wanted: int, changed: int) -> None:
    """Check that *wanted* rows were changed. Raises: LedgerError."""
    if changed != wanted:
        raise LedgerError(
            f"the ledger and the run disagree: {wanted} rows to change, {changed} changed",
            hint="nothing was written; please report this with `bulkbind runs --json`",
        )


def get_meta(db: sqlite3.Connection, key: str) -> object:
    """Return a stored value, or None."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return json.loads(row[0]) if row else None


def get_facts(db: sqlite3.Connection, table: Literal["runs", "undos"], run: int) -> RunFacts:
    """Return what the sessions of a run, or of its undo, learned and spent."""
    query = f"SELECT facts FROM {table} WHERE run = ?"  # noqa: S608  # constants
    return RunFacts(json.loads(db.execute(query, (run,)).fetchone()[0]))


def put_facts(
    db: sqlite3.Connection, table: Literal["runs", "undos"], run: int, facts: RunFacts
) -> None:
    """Store what `get_facts` returns."""
    query = f"UPDATE {table} SET facts = ? WHERE run = ?"  # noqa: S608  # constants
    db.execute(query, (json.dumps(facts.as_json()), run))


def put_meta(db: sqlite3.Connection, key: str, value: object) -> None:
    """Store a JSON-serializable value."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

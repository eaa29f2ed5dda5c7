"""How a ledger holds things: the words of its tables, ids of rows, transactions, values."""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import msgspec

from bulkbind.errors import LedgerError
from bulkbind.model import IS_OPEN, UNBIND_PENDING, Held, RunFacts, RunKind, Status
from bulkbind.model.fields import FIELDS, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

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
    wanted = list(statuses)
    # Most rows are bound or skipped, the two lowest: one comparison is less than a look at a list.
    least = f"status >= {min(CODES[Status(status)] for status in wanted)} AND " if wanted else ""
    return f"SELECT id FROM stored_rows WHERE id {rows} AND {least}status IN {codes(wanted)}"  # noqa: S608  # constants


def stored_id(value: str) -> str:
    """Return the SQL of a device id as it is stored: an integer if that gives back the text."""
    return (
        f"CASE WHEN CAST(CAST({value} AS INTEGER) AS TEXT) = {value} "
        f"THEN CAST({value} AS INTEGER) WHEN {value} <> '' THEN {value} END"
    )


def stored_time(value: str) -> str:
    """Return the SQL of a moment as it is stored: milliseconds if they give back the text."""
    ms = f"unixepoch({value}) * 1000 + substr({value}, 21, 3)"
    return (
        f"CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', ({ms}) / 1000.0, 'unixepoch') = {value} "
        f"THEN {ms} WHEN {value} <> '' THEN {value} END"
    )


def shown_time(value: str) -> str:
    """Return the SQL of the text of a moment as it is stored."""
    text = f"strftime('%Y-%m-%dT%H:%M:%fZ', {value} / 1000.0, 'unixepoch')"
    return f"CASE typeof({value}) WHEN 'integer' THEN {text} ELSE {value} END"


# Many values are exchanged with SQLite as one JSON text: each step of a statement would release and
# reacquire the GIL, for which the event loop competes.
THESE = "(SELECT value FROM json_each(?))"
"""The values of a JSON array, as the right side of `IN`."""
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

    Without sorting in memory. Nearly all rows mostly have the status of the first: to look for
    others once, and at them alone, takes a third of the time.
    """
    rows = "FROM stored_rows WHERE id BETWEEN ?1 AND ?2"
    usual = db.execute(f"SELECT status {rows} LIMIT 1", span(run)).fetchone() or (None,)
    total, others = db.execute(
        f"SELECT count(*), count(*) FILTER (WHERE status <> ?3) {rows}", (*span(run), *usual)
    ).fetchone()
    counts = {status: total - others for status in among if usual == (CODES[status],)}
    if others:
        columns = ", ".join(f"count(*) FILTER (WHERE status = {CODES[each]})" for each in among)
        query = f"SELECT {columns} {rows} AND status <> ?3"
        found = db.execute(query, (*span(run), *usual)).fetchone()
        counts = dict(zip(among, found, strict=True)) | counts
    return {status: count for status, count in counts.items() if count}


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


def as_json(value: object) -> str:
    """Return a value for SQLite's functions that read JSON."""
    return msgspec.json.encode(value).decode()


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

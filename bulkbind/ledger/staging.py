"""Staging: the whole manifest is written to the ledger before anything is sent.

All functions except `withdraw` manage their own transactions.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, cast

from bulkbind.clock import iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import changes, leaving, scopes
from bulkbind.ledger.leaving import kind_of
from bulkbind.ledger.store import (
    ALL_FIELDS,
    CODES,
    OPEN,
    ROW_TABLES,
    RUN_SHIFT,
    THESE,
    as_json,
    get_facts,
    int_of,
    marks,
    numbers_of,
    of_status,
    optional_of,
    put_facts,
    relaxed,
    span,
    sql_list,
    stored_time,
    transaction,
)
from bulkbind.model import (
    IS_UNCONFIRMED,
    CheckedRow,
    GoodRows,
    Refreshed,
    RunKind,
    RunState,
    Source,
    Status,
)
from bulkbind.model.fields import FIELDS, OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

BATCH = 10_000
"""Rows per transaction while staging."""

# Devices get their numbers in the order of the manifest, so that a run's rows lie together. A batch
# of new devices alone needs no more than those numbers; any other one goes through temporary
# tables, so that SQLite processes it as a whole.
# Precedence of states: invalid, duplicate, moved, in doubt (from another run), skipped.
TOGETHER = 50
"""Rows that are handed to SQLite at once: each hand-over releases and takes Python's lock."""
MOST_USERS = 50_000
"""Users whose numbers are remembered while a manifest is staged."""
_BATCH_TABLES = (
    f"batch (id INTEGER PRIMARY KEY, line, user, machine_code, {', '.join(OPTIONAL)})",
    "placed (id INTEGER PRIMARY KEY, device, name)",
)
_NEW_USERS = f"INSERT OR IGNORE INTO users (user_id) SELECT value FROM {THESE}"  # noqa: S608  # constants
_USERS = f"SELECT user_id, user FROM users WHERE user_id IN {THESE}"  # noqa: S608  # constants
_NEW_DEVICE = f"OR IGNORE INTO devices (user, machine_code, {', '.join(OPTIONAL)})"
_STAGED_ROW = "INTO stored_rows (id, device, source, line, name, status)"
_STAGE_NEW = f"""
INSERT {_STAGED_ROW}
SELECT device + :to_id, device, :source, device + :to_line, 0, {CODES[Status.STAGED]}
  FROM devices WHERE device BETWEEN :new AND :newest ORDER BY device
"""  # noqa: S608  # constants
_NAME_NEW = """
INSERT INTO named (device, id)
SELECT device, id FROM stored_rows WHERE id BETWEEN :first AND :last AND device NOT NULL ORDER BY id
"""
_SAME_NAME = f"({optional_of('n')}) IS ({optional_of('b')})"
_KNOWN_NAME = f"SELECT n.name FROM names n WHERE {_SAME_NAME} AND n.device"  # noqa: S608  # constants
_PLACE = f"""
INSERT OR REPLACE INTO placed (id, device, name)
SELECT b.id, d.device, CASE WHEN ({optional_of("d")}) IS ({optional_of("b")}) THEN 0
                            ELSE ({_KNOWN_NAME} = d.device) END
  FROM batch b LEFT JOIN devices d ON d.machine_code = b.machine_code AND d.user = b.user
"""  # noqa: S608  # constants
_UNPLACED = "b.id IN (SELECT id FROM placed WHERE device IS NULL)"
_NEW_DEVICES = f"""
INSERT OR IGNORE INTO devices (user, machine_code, {", ".join(OPTIONAL)})
SELECT b.user, b.machine_code, {optional_of("b")} FROM batch b WHERE {_UNPLACED} ORDER BY b.id
"""  # noqa: S608  # constants
_NEW_NAMES = f"""
INSERT INTO names (device, name, {", ".join(OPTIONAL)})
SELECT device, coalesce((SELECT max(n.name) FROM names n WHERE n.device = p.device), 0)
               + row_number() OVER (PARTITION BY device), {", ".join(OPTIONAL)}
  FROM (SELECT DISTINCT device, {", ".join(OPTIONAL)}
          FROM placed JOIN batch USING (id) WHERE name IS NULL) p
"""  # noqa: S608  # constants
_NAME_PLACED = f"""
UPDATE placed SET name = ({_KNOWN_NAME} = placed.device)
  FROM batch b WHERE b.id = placed.id AND placed.name IS NULL
"""  # noqa: S608  # constants
_NAME_DEVICES = "INSERT OR IGNORE INTO named (device, id) SELECT device, id FROM placed ORDER BY id"
_STAGE = f"""
INSERT INTO stored_rows (id, device, source, line, name, status)
SELECT p.id, p.device, :source, b.line, p.name,
       CASE WHEN n.id = p.id THEN {CODES[Status.STAGED]} ELSE {CODES[Status.DUPLICATE]} END
  FROM placed p JOIN batch b USING (id) JOIN named n ON n.device = p.device ORDER BY p.id
"""  # noqa: S608  # constants
_DUPLICATES = f"""
SELECT id FROM stored_rows
 WHERE id BETWEEN :first AND :last AND status = {CODES[Status.DUPLICATE]}
"""  # noqa: S608  # constants
_REMARK_DUPLICATES = f"""
INSERT INTO remarks (id, duplicate_of, doubts, repeats, detail)
SELECT r.id, n.id, 0, 0, '' FROM stored_rows r JOIN named n ON n.device = r.device
 WHERE r.id IN ({_DUPLICATES})
"""  # noqa: S608  # constants
_REMARK_CHANGE = """
INSERT INTO remarks (id, changes, doubts, repeats, detail) VALUES (?, ?, 0, 0, '')
    ON CONFLICT DO UPDATE SET changes = excluded.changes
"""
_IS_STAGED = f"r.id BETWEEN :first AND :last AND r.status = {CODES[Status.STAGED]}"
# A device that is also bound to this user is not moved.
_MARK_MOVED = f"""
UPDATE rows SET status = 'moved', message = 'bound to another user',
       detail = 'bound to user ' || b.user_id
  FROM (SELECT r.id, min(u.user_id) AS user_id
          FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
         CROSS JOIN devices o ON o.machine_code = d.machine_code AND o.user <> d.user
         CROSS JOIN stored_bindings b ON b.device = o.device
         CROSS JOIN users u ON u.user = o.user
         WHERE {_IS_STAGED}
           AND NOT EXISTS (SELECT 1 FROM stored_bindings k WHERE k.device = r.device)
         GROUP BY r.id) b
 WHERE rows.id = b.id
"""  # noqa: S608  # constants
_STAGE_MOVES = f"""
INSERT INTO unbindings (row, kind, user_id, machine_code, device_id)
SELECT r.id, 'move', b.user_id, b.machine_code, b.device_id
  FROM stored_rows r JOIN devices d ON d.device = r.device JOIN users u ON u.user = d.user
  JOIN bindings b ON b.machine_code = d.machine_code AND b.user_id <> u.user_id
 WHERE r.id BETWEEN :first AND :last AND r.status = {CODES[Status.MOVED]}
"""  # noqa: S608  # constants
_MARK_IN_DOUBT = f"""
UPDATE rows SET status = 'in_doubt', detail = 'in doubt since run ' || d.run_id,
       silent_at = d.silent_at, misses = d.misses, missed_at = d.missed_at
  FROM (SELECT r.id, n.run_id, s.silent_at, s.misses, s.missed_at
          FROM stored_rows r
         CROSS JOIN stored_rows d INDEXED BY rows_open ON d.device = r.device AND d.{OPEN}
         CROSS JOIN sending s ON s.id = d.id CROSS JOIN runs n ON n.run = d.id >> {RUN_SHIFT}
         WHERE {_IS_STAGED} AND n.run <> :run
         GROUP BY r.id) d
 WHERE rows.id = d.id
"""  # noqa: S608  # constants
# What its binding says now is what the view `rows` will say of it.
_MARK_SKIPPED = f"""
UPDATE stored_rows AS r SET status = {CODES[Status.SKIPPED]}
 WHERE {_IS_STAGED} AND NOT :rebind AND device IN (SELECT device FROM stored_bindings)
"""  # noqa: S608  # constants
# Of many rows at once, for which the view `rows` would be slow.
_END_WITHDRAWN = (
    f"""
INSERT INTO remarks (id, doubts, repeats, detail)
SELECT r.id, coalesce(s.doubts, 0), 0, :why FROM stored_rows r LEFT JOIN sending s USING (id)
 WHERE {_IS_STAGED}
    ON CONFLICT DO UPDATE SET doubts = excluded.doubts, detail = excluded.detail
""",  # noqa: S608  # constants
    f"""
INSERT INTO outcomes (id, sent_at, attempts, settled_at)
SELECT r.id, s.sent_at, coalesce(s.attempts, 0), n.settled_at
  FROM (SELECT {stored_time(":now")} AS settled_at LIMIT 1) n
 CROSS JOIN stored_rows r LEFT JOIN sending s USING (id)
 WHERE {_IS_STAGED}
    ON CONFLICT DO UPDATE SET sent_at = excluded.sent_at, attempts = excluded.attempts,
       settled_at = excluded.settled_at
""",  # noqa: S608  # constants
    f"DELETE FROM sending WHERE id IN (SELECT id FROM stored_rows r WHERE {_IS_STAGED})",  # noqa: S608  # constants
)
_MARK_WITHDRAWN = f"""
UPDATE stored_rows AS r SET status = {CODES[Status.WITHDRAWN]} WHERE {_IS_STAGED}
"""  # noqa: S608  # constants
# A row that got an error from an older run may be bound anyway: only a list can settle it, and the
# new run waits for that.
_DOUBT_OLDER = f"""
UPDATE rows SET status = 'in_doubt', doubts = doubts + 1, verdict = NULL,
       silent_at = ?, misses = 0, missed_at = NULL,
       detail = 'sent, and answered with an error, when another run took its run''s place'
 WHERE id IN (SELECT id FROM sending WHERE attempts > 0 AND id IN ({of_status([Status.STAGED])}))
"""  # noqa: S608  # constants
# Found only by `--refresh`; such a row was skipped, so no request for it is in flight.
_GONE = "not on the user's list any more"
_FAIL_VANISHED = """
UPDATE rows SET status = 'failed', settled_at = ?1, device_id = '', create_time = '',
       message = 'the binding has vanished from the server',
       detail = detail || ', ' || ?2 || ': --rebind-missing binds it again'
 WHERE id = ?3 AND status = 'skipped'
"""
_STAGE_VANISHED = """
UPDATE rows SET status = 'staged', device_id = '', create_time = '', detail = ?1
 WHERE id = ?2 AND status = 'skipped'
"""
_FORGET_VANISHED = f"""
DELETE FROM stored_bindings WHERE device IN (
       SELECT r.device FROM stored_rows r JOIN remarks x USING (id)
        WHERE r.id BETWEEN ? AND ? AND r.status = {CODES[Status.STAGED]} AND x.detail = ?)
"""  # noqa: S608  # constants
# Rows still skipped when a run starts are never returned to the operator, so drop their cells.
_FORGET_CELLS = f"""
DELETE FROM cells
 WHERE id BETWEEN ?1 AND ?2
   AND EXISTS (SELECT 1 FROM stored_rows
                WHERE id BETWEEN ?1 AND ?2 AND status = {CODES[Status.SKIPPED]})
   AND (SELECT status FROM stored_rows r WHERE r.id = cells.id) = {CODES[Status.SKIPPED]}
"""  # noqa: S608  # constants
_STAGE_BROKEN = (
    "stored_rows (id, source, line, name, status) VALUES (?, ?, ?, 0, ?)",
    f"broken (id, {ALL_FIELDS}, problems) VALUES ({marks(2 + len(FIELDS))})",
    "cells (id, cells) VALUES (?, ?)",
    "remarks (id, changes, doubts, repeats, detail) VALUES (?, ?, 0, 0, ?)",
    "outcomes (id, attempts, answer) VALUES (?, 0, ?)",
)


def begin(db: sqlite3.Connection, run: dict[str, object]) -> int:
    """Insert a run with state `staging` and return its number.

    See `1-schema.sql` for the keys; `scope` is a name, or None.
    """
    with transaction(db):
        db.execute("DELETE FROM named")
        scope = scopes.scope_number(db, cast("str | None", run.get("scope")))
        cursor = db.execute(
            "INSERT INTO runs (run_id, kind, state, digest, created_at, operator, host, pid, "
            "version, settings, scope) VALUES (:run_id, :kind, 'staging', :digest, :created_at, "
            ":operator, :host, :pid, :version, :settings, :scope)",
            {"kind": RunKind.BIND, **run, "scope": scope},
        )
    assert cursor.lastrowid is not None  # an INSERT has one
    return cursor.lastrowid


def add_source(db: sqlite3.Connection, run: int, source: int, form: Source) -> None:
    """Record a manifest's form."""
    with transaction(db):
        db.execute("INSERT INTO sources VALUES (?, ?, ?)", (run, source, form_text(form)))


def form_text(form: Source) -> str:
    """Return a manifest's form as it is recorded."""
    return json.dumps(asdict(form))


def note(db: sqlite3.Connection, run: int, source: int, notices: Sequence[str]) -> None:
    """Record what was noticed while a manifest was read."""
    with transaction(db):
        db.execute("INSERT INTO notices VALUES (?, ?, ?)", (run, source, json.dumps(notices)))


def stage_manifest(  # noqa: PLR0917  # one value each, all needed
    db: sqlite3.Connection,
    run: int,
    source: int,
    form: Source,
    position: int,
    rows: Iterable[CheckedRow | GoodRows],
    *,
    rebind: bool,
    keep_duplicates: bool = False,
    move: bool = False,
    on_batch: Callable[[int], None],
) -> int:
    """Write a whole manifest batch by batch and return the position after its last row.

    For the arguments see `stage`. *rows* is read in the writer's thread. *on_batch* is called there
    with the position reached; an exception from it ends the staging.
    """
    add_source(db, run, source, form)
    writing = Writing(db)
    with relaxed(db):
        for batch in _batches(rows):
            position = stage(
                db, run, source, position, batch,
                rebind=rebind, keep_duplicates=keep_duplicates, move=move, writing=writing,
            )  # fmt: skip
            on_batch(position)
    return position


def _batches(rows: Iterable[CheckedRow | GoodRows]) -> Iterator[list[CheckedRow | GoodRows]]:
    batch: list[CheckedRow | GoodRows] = []
    count = 0
    for row in rows:
        batch.append(row)
        count += len(row) if isinstance(row, GoodRows) else 1
        if count >= BATCH:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def stage(
    db: sqlite3.Connection,
    run: int,
    source: int,
    position: int,
    rows: Iterable[CheckedRow | GoodRows],
    *,
    rebind: bool,
    keep_duplicates: bool = False,
    move: bool = False,
    writing: Writing | None = None,
) -> int:
    """Write a batch of rows in one transaction and return the position after the last one.

    *source* is the index of the manifest, *position* the 0-based position of the first row within
    the run. *rebind*: stage rows known to be bound, too. *keep_duplicates*: keep the cells of
    duplicates, which may become invalid. *move*: stage the unbindings of moved devices. *writing*:
    by what the batches before of the same manifest were written.
    """
    first = number = (run << RUN_SHIFT) + position
    valid = _Valid()
    alone: list[tuple[int, CheckedRow]] = []
    broken: list[tuple[int, CheckedRow]] = []
    for row in rows:
        if isinstance(row, GoodRows):
            valid.add_each(alone)
            alone = []
            valid.add_all(number, row)
            number += len(row)
            continue
        (broken if row.problems or row.left_out else alone).append((number, row))
        number += 1
    valid.add_each(alone)
    values = {"run": run, "source": source, "rebind": rebind, "keep_duplicates": keep_duplicates}
    values |= {"move": move, "first": first, "last": number - 1}
    writing = writing or Writing(db)
    with transaction(db):
        _stage_broken(db, source, broken)
        if valid.ids:
            writing.stage(valid, values)
        if kind_of(db, run) is RunKind.UNBIND:
            leaving.mark(db, values, takes_any=get_facts(db, "runs", run).takes_any)
        else:
            mark_known(db, values)
        written = int_of(
            db,
            "SELECT count(*) FROM stored_rows WHERE id BETWEEN ? AND ?",
            (first, values["last"]),
        )
        if written != number - first:
            raise LedgerError(f"the ledger took {written} of {number - first} rows; none was kept")
    return position + number - first


class _Valid:
    """The rows of a batch that keep every rule, column by column."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.lines: list[int] = []
        self.values: list[list[str | None]] = [[] for _ in FIELDS]
        self.cells: list[tuple[int, str]] = []
        """What the operator wrote in rows whose values do not tell it, by id."""
        self.changes: list[tuple[int, str]] = []
        """What cleaning did to rows, by id."""

    def add_all(self, first: int, rows: GoodRows) -> None:
        """Add rows that follow each other, from an id on."""
        self._add(range(first, first + len(rows)), rows.lines, rows.values)
        if not rows.tell_cells:
            self.cells += enumerate(_all_cells(rows), start=first)

    def add_each(self, numbered: Sequence[tuple[int, CheckedRow]]) -> None:
        """Add rows, each with its id."""
        if numbered:
            ids, rows = zip(*numbered, strict=True)
            columns = tuple(zip(*[row.values for row in rows], strict=True))
            self._add(ids, [row.line for row in rows], columns)
            self.cells += zip(ids, map(_cells, rows), strict=True)
            changed = ((number, _changes(row)) for number, row in numbered if row.changes)
            self.changes += [(number, changes) for number, changes in changed if changes]

    def _add(
        self, ids: Sequence[int], lines: Sequence[int], columns: Sequence[Sequence[str | None]]
    ) -> None:
        self.ids += ids
        self.lines += lines
        for column, values in zip(self.values, columns, strict=True):
            column.extend(values)

    @property
    def follow_each_other(self) -> bool:
        """Whether each has the id and the line after those of the row before."""
        return _are_counted(self.ids) and _are_counted(self.lines)


def _are_counted(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


class Writing:
    """Writes the rows of a manifest that keep every rule, batch by batch.

    They are staged, or duplicates of the first row of their device.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._users: dict[str | None, int] = {}
        """The numbers of the last ones."""
        self._are_new = not int_of(db, "SELECT EXISTS (SELECT 1 FROM devices)")
        """Whether most devices of the batch before were; at first, whether all must be."""
        for table in _BATCH_TABLES:
            db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {table}")

    def stage(self, valid: _Valid, values: Mapping[str, int]) -> None:
        """Write a batch, in the caller's transaction. *values*: as for the statements."""
        count = len(valid.ids)
        users, codes, *optional = valid.values
        devices: list[Sequence[object]] = [self._numbers_of(users), codes, *optional]
        made = self._insert(_NEW_DEVICE, devices) if self._are_new else 0
        self._are_new = made * 2 >= count
        if made == count:
            self._stage_new(valid, values)
        else:
            made += self._place(valid, devices)
            self._are_new = made * 2 >= count
            for statement in (_NAME_DEVICES, _STAGE, _REMARK_DUPLICATES):
                self._db.execute(statement, values)
        self._db.executemany(_REMARK_CHANGE, valid.changes)
        self._stage_cells(valid, values)

    def _stage_new(self, valid: _Valid, values: Mapping[str, int]) -> None:
        """Write rows whose devices were made just now, one for each."""
        count = len(valid.ids)
        newest = int_of(self._db, "SELECT max(device) FROM devices")
        new = newest - count + 1
        if valid.follow_each_other:
            to_id, to_line = valid.ids[0] - new, valid.lines[0] - new
            found = {**values, "new": new, "newest": newest, "to_id": to_id, "to_line": to_line}
            self._db.execute(_STAGE_NEW, found)
        else:
            alike = ([each] * count for each in (values["source"], 0, CODES[Status.STAGED]))
            source, name, status = alike
            devices = range(new, newest + 1)
            self._insert(_STAGED_ROW, (valid.ids, devices, source, valid.lines, name, status))
        self._db.execute(_NAME_NEW, values)

    def _place(self, valid: _Valid, devices: Sequence[Sequence[object]]) -> int:
        """Find or make the device of each row, and its name; return how many were made."""
        self._db.execute("DELETE FROM batch")
        self._db.execute("DELETE FROM placed")
        self._insert("INTO batch", (valid.ids, valid.lines, *devices))
        self._db.execute(_PLACE)
        made = 0
        if int_of(self._db, "SELECT EXISTS (SELECT 1 FROM placed WHERE device IS NULL)"):
            made = self._db.execute(_NEW_DEVICES).rowcount
            self._db.execute(f"{_PLACE} WHERE {_UNPLACED}")
        if int_of(self._db, "SELECT EXISTS (SELECT 1 FROM placed WHERE name IS NULL)"):
            self._db.execute(_NEW_NAMES)
            self._db.execute(_NAME_PLACED)
        return made

    def _stage_cells(self, valid: _Valid, values: Mapping[str, int]) -> None:
        if not valid.cells:
            return
        without = set() if values["keep_duplicates"] else set(self._db.execute(_DUPLICATES, values))
        if cells := [item for item in valid.cells if (item[0],) not in without]:
            self._insert("INTO cells (id, cells)", tuple(zip(*cells, strict=True)))

    def _numbers_of(self, user_ids: Sequence[str | None]) -> list[int]:
        """Return the numbers of users; new ones get one."""
        if unknown := dict.fromkeys(user_ids).keys() - self._users.keys():
            if len(self._users) + len(unknown) > MOST_USERS:
                self._users.clear()
            these = as_json([user for user in dict.fromkeys(user_ids) if user not in self._users])
            self._db.execute(_NEW_USERS, (these,))
            self._users.update(self._db.execute(_USERS, (these,)))
        return list(map(self._users.__getitem__, user_ids))

    def _insert(self, into: str, columns: Sequence[Sequence[object]]) -> int:
        """Insert rows, given column by column; return how many were inserted."""
        width = len(columns)
        values: list[object] = [None] * (width * len(columns[0]))
        for at, column in enumerate(columns):
            values[at::width] = column
        inserted = 0
        whole = len(values) // (width * TOGETHER) * width * TOGETHER
        for rows, begin, end in ((TOGETHER, 0, whole), (1, whole, len(values))):
            insert = f"INSERT {into} VALUES {', '.join([f'({marks(width)})'] * rows)}"  # noqa: S608  # constants
            step = width * rows
            some = (values[at : at + step] for at in range(begin, end, step))
            inserted += self._db.executemany(insert, some).rowcount
        return inserted


def _stage_broken(
    db: sqlite3.Connection, source: int, broken: Sequence[tuple[int, CheckedRow]]
) -> None:
    """Write rows that break a rule, or that a condition leaves out."""
    if not broken:
        return
    problems = [(number, row, *_problems(row)) for number, row in broken]
    kept = [(number, row) for number, row in broken if not row.left_out]
    answers = numbers_of(db, {("", rules, None) for _, _, _, rules, _ in problems if rules})
    written: tuple[list[tuple[object, ...]], ...] = (
        [(number, source, row.line, _unsent(row)) for number, row, *_ in problems],
        [(number, *row.values, as_json) for number, row, as_json, *_ in problems],
        [(number, _cells(row)) for number, row in kept],
        [(number, _changes(row), texts) for number, row, _, _, texts in problems],
        [(number, answers["", rules, None]) for number, _, _, rules, _ in problems if rules],
    )
    for statement, of_rows in zip(_STAGE_BROKEN, written, strict=True):
        db.executemany(f"INSERT INTO {statement}", of_rows)  # constants


def _unsent(row: CheckedRow) -> int:
    return CODES[Status.LEFT_OUT if row.left_out else Status.INVALID]


def mark_known(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    """Mark staged rows whose devices the ledger knows as moved, in doubt or skipped.

    *values*: `run`; `first` and `last` row; `rebind` and `move`, as in `stage`.
    """
    has_bindings, has_open, is_leaving = db.execute(
        "SELECT EXISTS (SELECT 1 FROM stored_bindings), "  # noqa: S608  # constants
        f"EXISTS (SELECT 1 FROM stored_rows INDEXED BY rows_open WHERE {OPEN}), " + leaving.IS_OPEN
    ).fetchone()
    if has_bindings:
        db.execute(_MARK_MOVED, values)
        if values["move"]:
            db.execute(_STAGE_MOVES, values)
    if has_open:
        db.execute(_MARK_IN_DOUBT, values)
    if is_leaving:
        leaving.mark_in_doubt(db, values)
    if has_bindings:
        db.execute(_MARK_SKIPPED, values)


def _cells(row: CheckedRow) -> str:
    """Return what the operator wrote as JSON; three times faster than `json.dumps` for a list."""
    if row.text:
        return encode_basestring_ascii(row.text)
    if isinstance(row.cells, dict):
        return json.dumps(row.cells)
    return f"[{','.join(map(encode_basestring_ascii, row.cells))}]"


def _all_cells(rows: GoodRows) -> list[str]:
    """Return the same of many rows, mostly by encoding all at once, which is much faster."""
    if rows.texts is not None:
        return list(map(encode_basestring_ascii, rows.texts))
    cells = list(rows.cells())
    text = "\n".join(map("\t".join, cells))
    marks_within = "\\" in text or text.count("\n") >= len(cells)
    if marks_within or text.count("\t") != len(cells) * (len(cells[0]) - 1):
        return [f"[{','.join(map(encode_basestring_ascii, row))}]" for row in cells]
    encoded = encode_basestring_ascii(text).replace(r"\t", '","').replace(r"\n", '"]\n["')
    return f"[{encoded}]".split("\n")


def _problems(row: CheckedRow) -> tuple[str, str, str]:
    """Return the problems as JSON, their rules, and their display texts."""
    if row.left_out:
        return "[]", "", f"left out by {row.left_out}"
    return (
        json.dumps([asdict(problem) for problem in row.problems]),
        "; ".join(problem.rule for problem in row.problems),
        "; ".join(problem.text for problem in row.problems),
    )


def _changes(row: CheckedRow) -> str | None:
    return (
        "; ".join(change.text for change in row.changes)
        if row.changes and not row.left_out
        else None
    )


def ready(db: sqlite3.Connection, run: int) -> None:
    """Record that the whole manifest is staged."""
    with transaction(db):
        db.execute("DELETE FROM named")
        db.execute("UPDATE runs SET state = ? WHERE run = ?", (RunState.READY, run))


def mark_vanished(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    rows: Sequence[int],
    *,
    users: int,
    bind_again: bool,
    not_proven: int = 0,
) -> None:
    """Fail skipped rows whose bindings have vanished, or stage them if *bind_again*.

    *users*: the number of users whose lists were read; *not_proven*: of bindings that lists lack
    which prove nothing.
    """
    with transaction(db):
        if bind_again:
            db.executemany(_STAGE_VANISHED, [(_GONE, row) for row in rows])
        else:
            db.executemany(_FAIL_VANISHED, [(iso(now), _GONE, row) for row in rows])
        facts = get_facts(db, "runs", run)
        facts.refreshed = Refreshed(users=users, vanished=len(rows), bound_again=bind_again)
        if not_proven:
            facts.refreshed = {**facts.refreshed, "not_proven": not_proven}
        put_facts(db, "runs", run, facts)


def confirm(db: sqlite3.Connection, now: datetime, run: int) -> int:
    """Confirm this run, which replaces every older unfinished one.

    Rows that those still had staged become `withdrawn`. Returns: the number of withdrawn rows.
    """
    with transaction(db):
        withdrawn = 0
        older = db.execute(
            "SELECT o.run, n.run_id FROM runs o JOIN runs n ON n.run = ? "
            "WHERE o.run <> n.run AND o.superseded_by IS NULL AND o.state <> 'done'",
            (run,),
        ).fetchall()
        for number, run_id in older:
            in_doubt, left = withdraw(db, now, number, f"run {run_id} took this run's place")
            withdrawn += left
            if in_doubt:
                first, last = span(run)
                db.execute(_MARK_IN_DOUBT, {"run": run, "first": first, "last": last})
            db.execute("UPDATE runs SET superseded_by = ? WHERE run = ?", (run, number))
        db.execute(_FORGET_CELLS, span(run))
        scopes.keep_belonging(db, run)
        facts = get_facts(db, "runs", run)
        if facts.refreshed is not None and facts.refreshed["bound_again"]:
            # Only now: an unconfirmed run must not delete bindings.
            db.execute(_FORGET_VANISHED, (*span(run), _GONE))
        if (different := changes.changes(db, run)) is not None:
            facts.changes = facts.changes.merge(different)
            put_facts(db, "runs", run, facts)
        db.execute(
            "UPDATE runs SET state = ?, confirmed_at = ? WHERE run = ?",
            (RunState.CONFIRMED, iso(now), run),
        )
    return withdrawn


def withdraw(db: sqlite3.Connection, now: datetime, run: int, why: str) -> tuple[int, int]:
    """Withdraw a run's staged rows. Returns: rows put in doubt (may be bound), rows withdrawn."""
    staged = of_status([Status.STAGED])
    in_doubt = int_of(
        db,
        f"SELECT count(*) FROM sending WHERE attempts > 0 AND id IN ({staged})",  # noqa: S608  # constants
        span(run),
    )
    if in_doubt:
        db.execute(_DOUBT_OLDER, (now.timestamp(), *span(run)))
    leaving.withdraw(db, run)
    first, last = span(run)
    values = {"first": first, "last": last, "now": iso(now), "why": why}
    for statement in _END_WITHDRAWN:
        db.execute(statement, values)
    withdrawn = db.execute(_MARK_WITHDRAWN, values).rowcount
    return in_doubt, withdrawn


def discard(db: sqlite3.Connection, run: int) -> None:
    """Delete a run that was never confirmed."""
    with transaction(db):
        db.execute("DELETE FROM named")
        db.execute("DELETE FROM unbindings WHERE row BETWEEN ? AND ?", span(run))
        for table in ROW_TABLES:
            db.execute(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", span(run))  # noqa: S608  # constants
        db.execute("DELETE FROM notices WHERE run = ?", (run,))
        db.execute("DELETE FROM sources WHERE run = ?", (run,))
        db.execute("DELETE FROM runs WHERE run = ?", (run,))


def discard_unconfirmed(db: sqlite3.Connection) -> int:
    """Delete all runs that were killed before confirmation. Returns how many."""
    runs = db.execute(
        f"SELECT run FROM runs WHERE state IN {sql_list(IS_UNCONFIRMED)}"  # noqa: S608  # constants
    ).fetchall()
    for (run,) in runs:
        discard(db, run)
    return len(runs)

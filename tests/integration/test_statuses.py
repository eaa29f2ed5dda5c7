"""A row in each status, in a ledger: whatever reads it knows the status, or says so."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing

import pytest

from bulkbind.errors import UsageError
from bulkbind.ledger import Outlook, RunReader, UndoReader, changes, reading, runs, transitions
from bulkbind.ledger.opening import connect
from bulkbind.ledger.outlook import BoundReader
from bulkbind.ledger.store import CODES, OPEN, RUN_SHIFT, UNBIND_OPEN, span
from bulkbind.model import (
    IS_BOUND,
    MEANINGS,
    NEEDS_PERSON,
    PENDING,
    UNBIND_MEANINGS,
    PlanWord,
    RunState,
    Status,
    UnbindStatus,
)
from bulkbind.report import FORMS, parse_filter, write_form, write_report
from tests.integration.test_ledger import ENDPOINT, values

RUN = 1
PLACE = {status: (RUN << RUN_SHIFT) + number for number, status in enumerate(Status)}
"""The row in each status; another row, a duplicate of it, is a thousand further."""
NO_DEVICE = (Status.INVALID, Status.DUPLICATE, Status.LEFT_OUT)
"""Rows that do not stand for a device of the run."""
PROBLEM = [{"field": "machine_code", "column": "c", "value": "-", "rule": "r", "found": "f"}]


@pytest.fixture
def path(tmp_path):
    """Return a ledger with a row in each status, a duplicate of each, and an unbinding in each."""
    path = tmp_path / "ledger.db"
    connect(path, ENDPOINT).close()
    with closing(sqlite3.connect(path)) as db, db:  # unwatched: no transition leads here
        run = values("each") | {"run": RUN, "state": RunState.DONE}
        names = ", ".join(run)
        db.execute(
            f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(run))})",  # noqa: S608  # constants
            tuple(run.values()),
        )
        form = {"name": "f.csv", "format": "csv", "encoding": "utf-8", "bom": False}
        db.execute(
            "INSERT INTO sources VALUES (?, 0, ?)",
            (RUN, json.dumps(form | {"header": ["machine_code", "user_id"]})),
        )
        for status, row in PLACE.items():
            put(db, row, status, status)
            if status not in NO_DEVICE:
                put(db, row + 1000, Status.DUPLICATE, status, of=row)
        for row, unbinding in zip(PLACE.values(), UnbindStatus, strict=False):
            db.execute(
                "INSERT INTO unbindings (row, kind, user_id, machine_code, device_id, status) "
                "VALUES (?, 'undo', 'u', 'c', 'd', ?)",
                (row, unbinding),
            )
    return path


def put(db, row, status, code, of=None):
    """Insert a row as it is."""
    problems = {Status.INVALID: json.dumps(PROBLEM), Status.LEFT_OUT: "[]"}.get(status)
    first = PLACE[Status.BOUND] if status is Status.DUPLICATE and of is None else of
    db.execute(
        "INSERT INTO rows (id, run, source, line, user_id, machine_code, cells, status, problems, "
        "duplicate_of, message, settled_at) VALUES (?, ?, 0, 2, 'u', ?, '[\"c\", \"u\"]', ?, ?, ?, "
        "'why', '2026-11-23T12:00:00.000Z')",
        (row, RUN, code, status, problems, first),
    )


def checked(path, table, column):
    """Return the words that a new ledger takes in a column."""
    with closing(sqlite3.connect(path)) as db:
        (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    (words,) = re.findall(rf"CHECK \({column} IN \(([^)]*)\)\)", sql)
    return set(re.findall(r"'(\w+)'", words))


def test_the_newest_schema_takes_every_state(tmp_path):
    """The tables of states and the CHECKs of the ledger hold the same words."""
    path = tmp_path / "ledger.db"
    connect(path, ENDPOINT).close()

    with closing(sqlite3.connect(path)) as db:
        for status, code in CODES.items():
            is_wrong = status is Status.INVALID
            db.execute("DELETE FROM stored_rows")
            db.execute(
                "INSERT INTO rows (id, source, line, user_id, machine_code, status, problems) "
                "VALUES (1, 0, 1, 'u', 'c', ?, ?)",
                (status, "[]" if is_wrong else None),
            )
            assert db.execute("SELECT status FROM stored_rows").fetchall() == [(code,)]
            assert db.execute("SELECT status FROM rows").fetchall() == [(status,)]
    assert set(CODES) == set(Status)
    assert checked(path, "unbindings", "status") == set(UnbindStatus)
    assert checked(path, "runs", "state") == set(RunState)
    assert checked(path, "undos", "state") < set(RunState)


def test_the_indexes_of_what_is_open_are_those_of_the_tables(tmp_path):
    """SQLite uses a partial index only if its condition stands in the query word by word."""
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        indexes = dict(db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index'"))

    assert OPEN in indexes["rows_open"]
    assert UNBIND_OPEN in " ".join(indexes["unbindings_open"].split())


def test_a_plan_has_a_word_for_every_status(path):
    """Each row counts once, under its status's word; none is guessed."""
    with reading(path) as db:
        outlook = Outlook(db, RUN)
        counts, _ = outlook.counts()
        wanted = {row.machine_code: row.word for row in outlook.wanted("u")}
        users = outlook.users()

    assert set(counts) == set(PlanWord)
    assert sum(counts.values()) == len(Status) * 2 - 3
    assert users == {"u": {word: count for word, count in counts.items() if count}}
    assert wanted == {status: status.about.planned for status in Status if status not in NO_DEVICE}


def test_a_report_has_every_status(path, tmp_path):
    """Counts, rows, duplicates' first rows, reasons, the page, every form, a filter for each."""
    with reading(path) as db:
        run = RunReader(db, RUN)
        rows = {row.machine_code: row for row in run.rows() if not row.detail.startswith("same")}
        firsts = [row.detail for row in run.rows() if row.detail.startswith("same")]
        summary, _ = write_report(run, tmp_path)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        for form in FORMS:
            write_form(run, summary, tmp_path, form, None)
        for status in MEANINGS:
            only = parse_filter([f"status={status}"])
            assert only is not None
            assert {row.status for row in only.rows(run)} == {status}
        people = run.newest(NEEDS_PERSON, 100)
        reasons = {reason["status"] for reason in summary.reasons}

    assert list(summary.counts) == list(MEANINGS)
    assert {code: row.status for code, row in rows.items() if code != "duplicate"} == {
        status: status.shown for status in Status if status is not Status.DUPLICATE
    }
    ends = {detail.rsplit(", which ", 1)[1].removeprefix("is ") for detail in firsts}
    assert ends == {status for status in MEANINGS if status not in NO_DEVICE}
    assert reasons == set(NEEDS_PERSON)
    assert {line.split(": ")[1] for line in people} == set(NEEDS_PERSON)
    for status in MEANINGS:
        assert f'<span class="name">{status}</span>' in page or f">{status}<" in page
        if status not in IS_BOUND:
            assert f'data-status="{status}"' in page


def test_users_are_counted_as_their_rows_are_told(path):
    """Rows with a device, rows without one, and one that has no user; the same user is one."""
    with closing(sqlite3.connect(path)) as db, db:
        for number, user in enumerate(("v", None, "w", "w")):
            db.execute(
                "INSERT INTO rows (id, run, source, line, user_id, status, problems) "
                "VALUES (?, ?, 0, 2, ?, 'invalid', ?)",
                (PLACE[Status.BOUND] + 2000 + number, RUN, user, json.dumps(PROBLEM)),
            )
    with reading(path) as db:
        run = RunReader(db, RUN)
        told: dict[str, Counter[str]] = defaultdict(Counter)
        for row in run.rows():
            told[row.user_id][row.status] += 1
        users, count = run.users(10)

        assert set(told) == {"u", "v", "w", ""}
        assert {each["user_id"]: each["counts"] for each in users} == told
        assert {each["user_id"]: each["rows"] for each in users} == {
            user: counts.total() for user, counts in told.items()
        }
        assert count == len(told) == len(users)
        assert run.users(2) == (users[:2], count)


def test_what_follows_from_a_status(path):
    """Who is bound, what is open, who needs a person, what is left to undo."""
    with reading(path) as db:
        assert len(list(BoundReader(db, RUN).of("u"))) == 0  # the ledger knows no binding
        assert {claim.device.machine_code for claim in transitions.doubts(db)} == {"in_doubt"}
        assert [code for _, (_, code) in changes._needing(db, RUN)] == list(NEEDS_PERSON)
        assert [
            status
            for status in Status
            if db.execute(changes._MENDED, (*span(RUN), json.dumps([("u", status)]))).fetchone()[0]
        ] == list(IS_BOUND)
        assert set(runs.counts(db, RUN)) == set(Status)
        undo = UndoReader(db, RUN)
        assert list(undo.counts()) == list(UNBIND_MEANINGS)
        assert {row.status for row in undo.rows()} == set(UNBIND_MEANINGS)
        assert RunReader(db, RUN).counts()[PENDING] == 2


def test_a_filter_for_an_unknown_status_names_all():
    """Whoever mistypes one sees which there are."""
    with pytest.raises(UsageError) as caught:
        parse_filter(["status=unheard_of"])

    assert caught.value.hint == f"statuses are {', '.join(MEANINGS)}"

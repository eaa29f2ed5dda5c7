"""What is stored once is told in full, as it was, whatever becomes of it later."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bulkbind.ledger import RunReader, runs, staging, transitions, unbinding, upkeep
from bulkbind.ledger.lines import AT_ONCE
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import span, transaction
from bulkbind.model import (
    Attempt,
    CheckedRow,
    Claim,
    Outcome,
    Refused,
    RunFacts,
    Status,
    UnbindKind,
    UnbindStatus,
)
from bulkbind.model.fields import DETAILS
from bulkbind.report.tables import _cells_of
from tests.integration.test_ledger import (
    ENDPOINT,
    FORM,
    NOW,
    claimed,
    invalid,
    settle,
    staged,
    valid,
    values as run_values,
)
from tests.support.rows import values

LATER = datetime(2026, 12, 1, tzinfo=UTC)
WHO = {"started_at": "now", "operator": "me", "host": "here", "pid": 1, "version": "0"}
HOURS = ("00:00:00", "09:59:59", "23:59:59")
SINCE = "bound since 2026-11-23T12:00:01.000Z by run first"


@pytest.fixture
def db(tmp_path):
    """Return a ledger in which a run has bound a device that a later run skipped."""
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        settle(db, claimed(db, confirmed(db, "first", [valid(2, "A"), valid(3, "B")])))
        confirmed(db, "second", [valid(2, "A"), valid(3, "B")])
        yield db


def confirmed(db, name, rows, **options):
    """Stage and confirm a run; return its number."""
    run = staged(db, name, rows, **options)
    staging.confirm(db, NOW, run)
    return run


def told(db, run=2):
    """Return what a report says of a run's rows: in every form the same."""
    reader = RunReader(db, run)
    rows = list(reader.rows())
    shown = list(map(_cells_of, rows))
    ids = db.execute(
        "SELECT id FROM stored_rows WHERE id BETWEEN ? AND ? ORDER BY id", span(run)
    ).fetchall()
    names = [source.name for source in reader.sources()]
    at = 0
    for first, last, count, text in reader.lines():
        some = shown[at : at + count]
        assert ids[at : at + count][:: max(1, count - 1)] == [(n,) for n in sorted({first, last})]
        if text:
            lines = [",".join(map(str, (names[cells[0]], *cells[1:-1]))) for cells in some]
            assert text == "\r\n".join(lines)
        at += count
    assert at == len(rows)
    cells = list(reader.cells(*span(run)))
    assert [cells[1:] for cells in cells] == shown
    return rows


def undo(db):
    """The run that bound the device is undone."""
    with transaction(db):
        unbinding.begin_undo(db, LATER, 1, WHO)
        unbind(db, 1, UnbindKind.UNDO)


def unbind(db, run, kind):
    """Unbind what a run's unbindings of user u say."""
    items = unbinding.open_of(db, run, kind, ["u"], 2**62)
    assert items
    unbinding.claim(db, items)
    for item in items:
        item.status = UnbindStatus.UNBOUND
    unbinding.settle(db, LATER, items)


def move(db):
    """A later run moves the device to another user."""
    run = staging.begin(db, run_values("moving"))
    staging.add_source(db, run, 0, FORM)
    staging.stage(db, run, 0, 0, [valid(2, "A", "other")], rebind=False, move=True)
    staging.ready(db, run)
    staging.confirm(db, LATER, run)
    with transaction(db):
        unbind(db, run, UnbindKind.MOVE)
    settle(db, claimed(db, run))


def refresh(db):
    """A later run finds that the binding has vanished, and binds the device again."""
    run = staged(db, "refreshed", [valid(2, "A")])
    staging.mark_vanished(db, LATER, run, [span(run)[0]], users=1, bind_again=True)
    staging.confirm(db, LATER, run)
    settle_anew(db, run)


def rebind(db):
    """A later run binds the device again, under another name and with another id."""
    settle_anew(db, confirmed(db, "again", [named(2, "A", "other name")], rebind=True))


def doubt(db):
    """The answer that bound the device turns out to be another request's."""
    with transaction(db):
        transitions.doubt_again(db, LATER, [span(1)[0]])


def repeated(db):
    """The binding changes twice: only the first change matters to what was skipped before."""
    rebind(db)
    settle_anew(db, confirmed(db, "once more", [valid(2, "A")], rebind=True), device_id="7")
    undo(db)


def settle_anew(db, run, device_id="0042"):
    """Bind the rows of a run, with another id and time."""
    outcome = Outcome(Status.BOUND, device_id, "2026-12-01T00:00:00.500Z")
    with transaction(db):
        claims = transitions.claim(db, run, 0, 100, 1.0)
        transitions.settle(db, LATER, [(Claim(c.row, c.device, 1), outcome) for c in claims])


def named(line, code, name):
    """Return a row with a name."""
    return CheckedRow(line, [code], values("u", code, name))


@pytest.mark.parametrize(
    "change", [undo, move, refresh, rebind, doubt, repeated], ids=lambda f: f.__name__
)
def test_a_skipped_row_tells_what_its_binding_was(db, change):
    """Nothing of it is stored with the row; still it stays what the report of that night said."""
    before = told(db)
    assert [(row.status, row.detail, row.device_id) for row in before] == [
        ("skipped", SINCE, "id1")
    ] * 2
    kept = db.execute("SELECT count(*) FROM outcomes WHERE id BETWEEN ? AND ?", span(2))
    assert kept.fetchone() == (0,)

    change(db)

    assert told(db) == before
    night = confirmed(db, "next", [valid(2, "B")])
    if change is not undo and change is not repeated:
        assert told(db, night)[0].detail == SINCE


def test_a_later_night_tells_of_the_binding_as_it_is_then(db):
    """Each night keeps its own view: before the change, between two changes, and after both."""
    first = told(db)
    rebind(db)
    between = confirmed(db, "between", [named(2, "A", "other name")])
    seen = told(db, between)
    settle_anew(db, confirmed(db, "once more", [valid(2, "A")], rebind=True), device_id="7")
    last = told(db, confirmed(db, "last", [valid(2, "A")]))

    assert told(db) == first
    assert told(db, between) == seen
    assert [(row.device_id, row.detail) for row in seen] == [("0042", SINCE)]
    assert [(row.device_id, row.detail) for row in last] == [("7", SINCE)]


def test_pruning_keeps_what_younger_rows_tell(db):
    """Its bindings stay, present and former, and its id; nothing that is not used any more."""
    failing = confirmed(db, "failing", [valid(2, "F", "nobody")])
    settle(db, claimed(db, failing), Status.FAILED)
    rebind(db)
    before = {run: told(db, run) for run in (2, 4)}
    for run in (1, failing):
        db.execute("UPDATE runs SET state = 'done', ended_at = '2026' WHERE run = ?", (run,))

    rows, _, pruned = upkeep._pruned(
        db, "2026-11", "2027", is_trial=False, on_batch=lambda _rows: None
    )

    assert (rows, pruned) == (3, 2)
    assert {run: told(db, run) for run in (2, 4)} == before
    users = [user for (user,) in db.execute("SELECT user_id FROM users")]
    assert users == ["u"]
    assert count(db, "devices") == 2
    assert count(db, "former_bindings") == 1
    assert ("first",) in db.execute("SELECT run_id FROM runs").fetchall()
    for run in (2, 4):
        db.execute("UPDATE runs SET state = 'done', ended_at = '2026' WHERE run = ?", (run,))
    upkeep._pruned(db, "2026-11", "2027", is_trial=False, on_batch=lambda _rows: None)
    assert count(db, "stored_rows") == count(db, "former_bindings") == count(db, "answers") == 0
    assert count(db, "stored_bindings") == 2


def test_another_name_is_told_by_the_row_and_by_the_night(db):
    """A device keeps its first name; rows and bindings that name it otherwise say so themselves."""
    run = confirmed(db, "renamed", [named(2, "A", "van"), named(3, "B", None)])
    again = confirmed(db, "once more", [named(2, "A", "van"), named(3, "B", "bus")])
    rows = told(db, run)

    suffix = f"; under another {DETAILS}: --rebind sends these"
    assert [(row.optional[0], row.detail) for row in rows] == [("van", SINCE + suffix), ("", SINCE)]
    assert [row.optional[0] for row in told(db, again)] == ["van", "bus"]
    assert db.execute("SELECT count(*) FROM names").fetchone() == (2,)
    assert [row.optional[0] for row in told(db)] == ["", ""]


@pytest.mark.parametrize(
    ("device_id", "create_time", "trace_id"),
    [
        ("1842812272691451648", "2026-11-24T00:00:00.000Z", "ab" * 21 + f"{255:016x}"),
        ("99999999999999999999", "2026-11-24T00:00:00Z", "0" * 58),
        ("007", "2026-11-24 00:00:00.000", "short"),
        ("-5", "1969-12-31T23:59:59.999Z", "x" * 59),
        ("id 1", "2026-02-30T00:00:00.000Z", "Z" * 42 + "0x00000000000001"),
        ("", "", ""),
        ("0", "9999-12-31T23:59:59.999Z", "ab" * 21 + "0" * 16),
        ("1e3", "2026-11-24T00:00:00.0000Z", "é" * 58),
        ("+1", "5", "a" * 57),
        ("1e5", "1e5", "ab" * 21 + "00000000000001e5"),
    ],
)
def test_what_is_stored_shorter_is_told_to_the_letter(db, device_id, create_time, trace_id):
    """Ids, moments and trace ids of any form come back as they came."""
    run = confirmed(db, "odd", [valid(2, "X")])
    said = Attempt(
        Refused(), "1", "why", trace_id=trace_id, sent_at=0.0, took_s=0.0, http_status=200
    )
    with transaction(db):
        (claim,) = transitions.claim(db, run, 0, 1, 1.0)
        claim.last = said
        transitions.settle(db, NOW, [(claim, Outcome(Status.BOUND, device_id, create_time))])
    before = told(db, run)[0]
    with transaction(db):  # through the view, which stores all of it anew
        db.execute("UPDATE rows SET repeats = 3 WHERE id = ?", (claim.row,))
    night = told(db, confirmed(db, "next", [valid(2, "X")]))[0]

    found = (before.device_id, before.create_time, before.trace_id)
    assert found == (device_id, create_time, trace_id)
    assert (before.code, before.message, before.http_status) == ("1", "why", 200)
    assert told(db, run)[0] == before
    assert (night.device_id, night.create_time) == (device_id, create_time)


def test_moments_of_many_days_are_told_side_by_side(db):
    """The likeliest day is that of the rows before, which may be another one, or none at all."""
    days = ["2026-11-24", "2026-11-24", "2026-11-25", "1970-01-01", "0999-12-31", "2026-11-24"]
    moments = [f"{day}T{hour}.{n:03}Z" for n, day in enumerate(days) for hour in HOURS]
    moments += ["", "5", *moments] * 10
    run = confirmed(db, "days", [valid(n, f"X{n}") for n in range(len(moments))])
    with transaction(db):
        for claim, moment in zip(
            transitions.claim(db, run, 0, len(moments), 1.0), moments, strict=True
        ):
            at = datetime(2026, 12, 1 + claim.row % 7, 23, 59, 59, tzinfo=UTC)
            claim.last = Attempt(
                Refused(), "1", "", trace_id="0" * 58, sent_at=0.0, took_s=0.0, http_status=200
            )
            transitions.settle(db, at, [(claim, Outcome(Status.BOUND, "1", moment))])
    night = confirmed(db, "next", [valid(n, f"X{n}") for n in range(len(moments))])

    assert len(moments) > AT_ONCE
    assert [row.create_time for row in told(db, run)] == moments
    assert [row.create_time for row in told(db, night)] == moments


@pytest.mark.parametrize(
    "broken",
    [range(1), range(AT_ONCE - 1, AT_ONCE + 2), range(AT_ONCE, 2 * AT_ONCE + 1), (7, 9, 500)],
)
def test_rows_are_told_in_parts_wherever_a_rule_is_broken(db, broken):
    """Lines of many rows are put together; every row is told once, in order."""
    rows = [invalid(n) if n in broken else valid(n, f"X{n}") for n in range(2 * AT_ONCE + 101)]
    run = confirmed(db, "large", rows)

    assert [row.line for row in told(db, run)] == list(range(len(rows)))


def test_rows_whose_devices_are_all_new_are_told_as_among_others(db):
    """A batch without anything known is placed faster; known and broken rows make no difference."""
    rows = [named(n, f"N{n}", "van" if n % 3 else None) for n in range(2 * staging.TOGETHER + 7)]
    fresh = confirmed(db, "fresh", rows)
    expected = told(db, fresh)
    others = [named(n, f"O{n}", "van" if n % 3 else None) for n in range(len(rows))]
    mixed = confirmed(db, "mixed", [invalid(900), *others[:60], valid(901, "A"), *others[60:]])

    assert [row.machine_code for row in expected] == [row.values[1] for row in rows]
    assert [row.optional[0] for row in expected] == [
        "van" if n % 3 else "" for n in range(len(rows))
    ]
    found = [row for row in told(db, mixed) if row.line < 900]
    assert [(row.line, row.user_id, row.optional) for row in found] == [
        (row.line, row.user_id, row.optional) for row in expected
    ]
    assert [row.machine_code for row in found] == [row.values[1] for row in others]


def test_rows_of_several_manifests_name_their_own(db):
    """Also where those of three lie together, and one of them has rows that are told apart."""
    run = staging.begin(db, run_values("several"))
    position = 0
    for source, name in enumerate(["a.csv", "b.csv", "c.csv"]):
        staging.add_source(db, run, source, replace(FORM, name=name))
        rows = [valid(2, f"{source}"), valid(3, f"{source}x"), *[invalid(4)] * (source == 1)]
        position = staging.stage(db, run, source, position, rows, rebind=False)
    staging.ready(db, run)
    staging.confirm(db, NOW, run)

    assert [row.source for row in told(db, run)] == [0, 0, 1, 1, 1, 2, 2]


def test_an_answer_without_status_leaves_the_earlier_one(db):
    """What was heard last counts; of what it does not say, the earlier answer does."""
    run = confirmed(db, "doubted", [valid(2, "X")])
    heard = Attempt(Refused(), "1", "no", trace_id="t1", sent_at=0.0, took_s=0.0, http_status=502)
    silent = Attempt(
        Refused(), "", "reset", trace_id="t2", sent_at=0.0, took_s=0.0, http_status=None
    )
    with transaction(db):
        (claim,) = transitions.claim(db, run, 0, 1, 1.0)
        claim.last = heard
        transitions.doubt(db, NOW, claim)
        claim.last = silent
        transitions.settle(db, NOW, [(claim, Outcome(Status.FAILED))])
    (row,) = told(db, run)

    assert (row.http_status, row.code, row.message, row.trace_id) == (502, "", "reset", "t2")


def test_the_tables_hold_what_a_night_needs_and_no_more(db):
    """Another night of known devices adds a stored row each; its cells go when it is confirmed."""
    tables = ("devices", "cells", "remarks", "outcomes", "sending", "stored_bindings", "named")
    before = [count(db, table) for table in tables]
    staged(db, "night", [valid(2, "A"), valid(3, "B")])
    assert count(db, "cells") == 2
    staging.confirm(db, NOW, 3)
    with transaction(db):
        runs.start(db, 3)
        runs.finish(db, NOW, 3, None, RunFacts())

    assert [count(db, table) for table in tables] == before
    assert count(db, "stored_rows") == 6


def count(db, table):
    """Return the number of rows of a table."""
    return db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608  # constants


def test_what_is_withdrawn_keeps_what_it_went_through(db):
    """Rows of a run that another one replaces: what was sent and doubted stays told of them."""
    run = confirmed(db, "replaced", [valid(2, "X"), valid(3, "Y")])
    with transaction(db):
        transitions.claim(db, run, 0, 1, 7.5)
        transitions.recover(db, NOW)
        transitions.release(db, transitions.doubts(db))
    with transaction(db):
        counts = staging.withdraw(db, NOW, run, "why")

    assert counts == (0, 2)
    columns = "status, detail, settled_at, attempts, doubts, sent_at"
    found = db.execute(f"SELECT {columns} FROM rows WHERE id BETWEEN ? AND ?", span(run))  # noqa: S608  # constants
    assert found.fetchall() == [
        ("withdrawn", "why", "2026-11-23T12:00:01.000Z", 0, 1, 7.5),
        ("withdrawn", "why", "2026-11-23T12:00:01.000Z", 0, 0, None),
    ]
    assert count(db, "sending") == 0


def test_an_unknown_status_is_not_stored(db):
    """A word that no table of ours has is refused, as the CHECK of the table did."""
    with pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE rows SET status = 'lost'")

"""An unchanged manifest is not read again, unless something about its rows has changed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

import bulkbind
from bulkbind.app import run as run_module
from bulkbind.ledger import (
    RunReader,
    changes,
    leaving,
    reading,
    repeating,
    runs,
    staging,
    transitions,
    unbinding,
)
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import span, transaction
from bulkbind.model import Record, RunFacts, RunKind, UnbindKind, UnbindStatus
from bulkbind.model.fields import OPTIONAL
from bulkbind.sandbox import Sandbox
from bulkbind.settings import ApiSettings, AuthSettings, ManifestSettings
from tests.integration.test_ledger import (
    ENDPOINT,
    FORM,
    NOW,
    claimed,
    invalid,
    settle,
    valid,
    values as run_values,
)
from tests.integration.test_stored_once import move, rebind, told, undo
from tests.support.manifests import write_csv

ROWS = [valid(2, "A"), valid(3, "B"), valid(4, "A"), invalid(5), valid(6, "C", "v")]
LATER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def db(tmp_path):
    """Return a ledger in which two nights of one manifest have ended."""
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        settle(db, claimed(db, night(db, "first")))
        end(db, 1)
        night(db, "second")
        end(db, 2)
        yield db


def night(db, name, rows=ROWS, digest="same"):
    """Stage and confirm a run of the manifest; return its number."""
    run = begin(db, name, digest=digest)
    staging.add_source(db, run, 0, FORM)
    staging.stage(db, run, 0, 0, rows, rebind=False)
    staging.note(db, run, 0, ["noticed"])
    staging.ready(db, run)
    staging.confirm(db, NOW, run)
    return run


def begin(db, name, **other):
    """Begin a run of the manifest."""
    return staging.begin(db, run_values(name) | {"digest": "same"} | other)


def end(db, run):
    """Let a run end well."""
    with transaction(db):
        runs.start(db, run)
        runs.finish(db, NOW, run, None, RunFacts())


def test_what_is_taken_is_what_reading_would_give(db, monkeypatch):
    """Skipped, duplicate and invalid rows, with their cells and problems, and the notices."""
    monkeypatch.setattr(repeating, "AT_ONCE", 2)
    run = begin(db, "third")
    taken = repeating.repeat(db, run, [FORM])
    staging.ready(db, run)
    staging.confirm(db, NOW, run)

    assert taken == (5, [["noticed"]])
    assert told(db, run) == told(db, 2)
    assert RunReader(db, run).counts() == {"skipped": 3, "duplicate": 1, "invalid": 1}
    assert RunReader(db, run).sources() == [FORM]
    read = night(db, "fourth")
    assert told(db, read) == told(db, run)


@pytest.mark.parametrize(
    ("rows", "added", "removed"),
    [
        (ROWS, 0, 0),
        ([*ROWS, valid(7, "D")], 1, 0),
        (ROWS[:-1], 0, 1),
        ([*ROWS[:-1], valid(6, "D", "v")], 1, 1),
        ([valid(2, "B"), valid(3, "A"), *ROWS[2:]], 0, 0),
        ([*ROWS[:2], invalid(4), *ROWS[3:]], 0, 0),
        ([invalid(2), *ROWS[1:3], invalid(5), invalid(6)], 0, 1),
    ],
    ids=["none", "more", "fewer", "other", "order", "no repeat", "no first"],
)
def test_a_night_tells_which_devices_came_and_went(db, rows, added, removed):
    """Whatever their places; duplicates and what breaks a rule are no devices of a night."""
    found = changes.changes(db, night(db, "third", rows, digest="other"))

    assert found is not None
    assert (found.added, found.removed) == (added, removed)


def test_the_first_night_is_enough(db):
    """What it bound is skipped; nothing else of how it was sent is taken over."""
    with transaction(db):
        db.execute("UPDATE runs SET digest = 'other' WHERE run = 2")
    run = begin(db, "third")
    repeating.repeat(db, run, [FORM])
    staging.ready(db, run)
    staging.confirm(db, NOW, run)

    assert told(db, run) == told(db, 2)


def doubt(db):
    """The answer that bound a device is another request's."""
    with transaction(db):
        transitions.doubt_again(db, LATER, [span(1)[0]])


def vanish(db):
    """A run in between finds that a binding has vanished."""
    run = begin(db, "refreshed", digest="other")
    staging.add_source(db, run, 0, FORM)
    staging.stage(db, run, 0, 0, [valid(2, "A")], rebind=False)
    staging.mark_vanished(db, LATER, run, [span(run)[0]], users=1, bind_again=True)
    staging.ready(db, run)
    staging.confirm(db, LATER, run)


def withdraw(db):
    """Another run of the same manifest is undone before it was sent."""
    run = night(db, "withdrawn", [*ROWS, valid(7, "NEW")])
    with transaction(db):
        staging.withdraw(db, LATER, run, "why")
        db.execute("UPDATE runs SET state = 'sending' WHERE run = ?", (run,))
        db.execute("UPDATE runs SET state = 'done' WHERE run = ?", (run,))


def leave(db, status=UnbindStatus.UNBOUND):
    """An unbind run takes a device from its user."""
    run = begin(db, "leaving", kind=RunKind.UNBIND)
    staging.add_source(db, run, 0, FORM)
    staging.stage(db, run, 0, 0, [valid(2, "B")], rebind=False)
    staging.ready(db, run)
    staging.confirm(db, LATER, run)
    with transaction(db):
        (item,) = unbinding.open_of(db, run, UnbindKind.LEAVE, ["u"], 2**62)
        unbinding.claim(db, [item])
        if status is UnbindStatus.UNBOUND:
            item.status = status
            unbinding.settle(db, LATER, [item])


def leave_unheard(db):
    """An unbind run was cut off while it sent, and another run took its place."""
    leave(db, UnbindStatus.CLAIMED)
    other = night(db, "other", [valid(2, "X")], digest="other")
    settle(db, claimed(db, other))
    end(db, other)
    assert leaving.left_in_doubt(db, other)


def leave_without_row(db):
    """A run that was cut off may have unbound a device that its manifest had no row for."""
    run = night(db, "other", [valid(2, "X")], digest="other")
    settle(db, claimed(db, run))
    end(db, run)
    db.execute(
        "INSERT INTO unbindings (row, kind, user_id, machine_code, device_id) "
        "VALUES (?, 'leave', 'u', 'B', 'id1')",
        (span(run)[0] + 2**39,),
    )
    db.execute("UPDATE unbindings SET status = 'claimed'")


@pytest.mark.parametrize(
    "change",
    [undo, move, doubt, vanish, withdraw, leave, leave_unheard, leave_without_row],
    ids=lambda function: function.__name__,
)
def test_it_is_read_where_a_row_would_not_be_skipped(db, change):
    """Nothing is left of the attempt."""
    change(db)
    run = begin(db, "third")

    assert repeating.repeat(db, run, [FORM]) is None
    for table in ("stored_rows", "cells", "remarks", "outcomes", "broken"):
        left = f"SELECT count(*) FROM {table} WHERE id BETWEEN ? AND ?"  # noqa: S608  # constants
        assert db.execute(left, span(run)).fetchone() == (0,)


@pytest.mark.parametrize(
    ("run", "forms"),
    [
        ({"digest": "other"}, [FORM]),
        ({"version": "another"}, [FORM]),
        ({}, [replace(FORM, name="other.csv")]),
        ({}, [replace(FORM, encoding="latin-1")]),
        ({}, [FORM, FORM]),
    ],
    ids=["bytes", "version", "name", "encoding", "sources"],
)
def test_it_is_read_where_the_manifest_is_another(db, run, forms):
    """Other bytes or options, another version, another name, encoding or number of sources."""
    assert repeating.repeat(db, begin(db, "third", **run), forms) is None


def test_a_binding_made_anew_is_told_as_it_is_now(db):
    """The rows are taken, and say what the binding says today."""
    rebind(db)
    end(db, 3)
    run = begin(db, "fourth")
    assert repeating.repeat(db, run, [FORM]) is not None
    staging.ready(db, run)
    staging.confirm(db, NOW, run)
    assert told(db, run)[0].device_id == "0042"
    assert told(db, run) == told(db, night(db, "read"))


def test_what_is_adopted_meanwhile_is_told_as_it_is_now(db):
    """The user's list shows the device under another id; another user's list shows it as well."""
    for user, device_id in (("u", "77"), ("w", "78")):
        shown = Record("A", device_id, "2026-12-01T00:00:00.000Z", (None,) * len(OPTIONAL))
        with transaction(db):
            leaving.adopt(db, LATER, 2, [(user, shown)])
    run = begin(db, "third")
    assert repeating.repeat(db, run, [FORM]) is not None
    staging.ready(db, run)
    staging.confirm(db, NOW, run)
    assert told(db, run)[0].device_id == "77"
    assert told(db, run) == told(db, night(db, "read"))


async def test_an_unchanged_night_reads_no_row_and_reports_all(tmp_path, monkeypatch):
    """The report of a night that took its rows is that of one that read them; nothing is sent."""
    manifest = write_csv(
        tmp_path / "fleet.csv",
        [("SN1", "u", "a", ""), ("SN2", "u", "", "b"), ("SN1", "u", "c", ""), ("-", "u", "", "")],
    )
    reports = []
    async with Sandbox() as sandbox:
        settings = bulkbind.Settings(
            api=ApiSettings(endpoint=sandbox.url),
            auth=AuthSettings(token=SecretStr("any")),
            manifest=ManifestSettings(on_invalid="skip"),
            ledger=tmp_path / "ledger.db",
            out=tmp_path / "report",
        )
        for number in range(4):
            if number == 3:
                monkeypatch.setattr(run_module.Staging, "_stage", None)
            await bulkbind.run([manifest], settings)
            reports.append((tmp_path / "report" / "results.csv").read_bytes())
    with reading(tmp_path / "ledger.db") as db:
        stored = db.execute("SELECT count(*) FROM stored_rows").fetchone()

    assert reports[1] == reports[2] == reports[3]
    assert b"bound since" in reports[3]
    assert stored == (16,)

"""The ledger on real files: staging, transitions, what is refused, one at a time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bulkbind.clock import iso
from bulkbind.errors import LedgerBusyError, LedgerError, NoLedgerError, UsageError
from bulkbind.ledger import (
    Ledger,
    RunReader,
    all_runs,
    bindings_of,
    copy_known,
    duplicates,
    find_run,
    reading,
    run_names,
    runs,
    staging,
    transitions,
)
from bulkbind.ledger.lock import LedgerLock
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import span, transaction
from bulkbind.ledger.versions import APPLICATION_ID, MIGRATIONS, VERSION
from bulkbind.ledger.writer import Verb, verb
from bulkbind.model import CheckedRow, Claim, Outcome, Problem, RunFacts, Source, Status
from bulkbind.model.wording import SUCH_AS
from tests.support.fake_clock import FakeClock
from tests.support.rows import repeats_of, values as row_values

ENDPOINT = "https://example.test"
NOW = datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)
FORM = Source("fleet.csv", "csv", "utf-8", bom=False, header=("machine_code",))


def values(name):
    """Return what a run is recorded with."""
    return {
        "run_id": name,
        "digest": name,
        "created_at": "now",
        "operator": "me",
        "host": "here",
        "pid": 1,
        "version": "0",
        "settings": "{}",
    }


def valid(line, code, user="u"):
    """Return a row that keeps every rule."""
    return CheckedRow(line, [code], row_values(user, code))


def invalid(line):
    """Return a row that breaks one."""
    problem = Problem("machine_code", "Serial", "a-b", "machine_code: rule", "'-' at 2")
    return CheckedRow(line, ["a-b"], row_values("u", "a-b"), (problem,))


def staged(db, name, rows, *, rebind=False):
    """Stage a run and return its number."""
    run = staging.begin(db, values(name))
    staging.add_source(db, run, 0, FORM)
    staging.stage(db, run, 0, 0, rows, rebind=rebind)
    staging.ready(db, run)
    return run


def settle(db, claims, status=Status.BOUND):
    """Settle claims, all alike."""
    with transaction(db):
        outcome = Outcome(status, "id1", "2026-11-23T12:00:00Z")
        transitions.settle(db, NOW, [(Claim(c.row, c.device, 1), outcome) for c in claims])


def claimed(db, run, most=100):
    """Claim rows and return them."""
    with transaction(db):
        return transitions.claim(db, run, 0, most, 1.0)


@pytest.fixture
def db(tmp_path):
    """Return a new ledger."""
    with closing(connect(tmp_path / "ledger.db", ENDPOINT)) as db:
        yield db


def shown(db, run):
    """Return line and status of a run's rows."""
    return [(row.line, row.status) for row in RunReader(db, run).rows()]


def test_staging_says_of_each_row_what_it_is(db):
    """Valid rows are staged, later rows of a device are duplicates, broken ones invalid."""
    run = staged(db, "a", [valid(2, "A"), invalid(3), valid(4, "A"), valid(5, "A", "v")])
    rows = list(RunReader(db, run).rows())

    assert [row.status for row in rows] == ["pending", "invalid", "duplicate", "pending"]
    assert rows[2].detail == "same device as fleet.csv:2, which is pending"
    assert rows[1].broken == {"machine_code"}


def test_what_each_user_has_left_is_counted(db):
    """What has not ended, staged or sent, of valid rows; nothing where there are too many users."""
    rows = [valid(2, "A"), valid(3, "B"), valid(4, "C"), invalid(5), valid(6, "D", "v")]
    run = staged(db, "a", [*rows, valid(7, "A")])
    staged(db, "another", [valid(2, "Z", "w")])
    settle(db, claimed(db, run, 2)[:1])

    assert runs.left_by_user(db, run) == {"u": 2, "v": 1}
    assert runs.left_by_user(db, run, most=2) == {"u": 2, "v": 1}
    assert runs.left_by_user(db, run, most=1) == {}


def test_duplicates_are_found_across_batches(db):
    """A device that another batch brought is a duplicate, too, in whatever order."""
    run = staging.begin(db, values("a"))
    staging.add_source(db, run, 0, FORM)
    for position in range(3):
        rows = [valid(2 + position, f"S{position}"), valid(3, "SAME")]
        staging.stage(db, run, 0, position * 2, rows, rebind=False)

    assert runs.counts(db, run) == {"staged": 4, "duplicate": 2}


def test_what_is_known_is_skipped_or_moved(db):
    """A known binding is skipped, one of another user moved; a duplicate wins over both."""
    first = staged(db, "a", [valid(2, "A"), valid(3, "B")])
    settle(db, claimed(db, first))
    second = staged(
        db, "b", [valid(2, "A"), valid(3, "A"), valid(4, "B", "other"), valid(5, "B", "other")]
    )
    rows = list(RunReader(db, second).rows())

    assert [row.status for row in rows] == ["skipped", "duplicate", "moved", "duplicate"]
    assert rows[0].detail == "bound since 2026-11-23T12:00:01.000Z by run a"
    assert (rows[0].device_id, rows[0].create_time) == ("id1", "2026-11-23T12:00:00Z")
    assert rows[2].detail == "bound to user u"


def test_a_device_known_for_two_users_is_skipped_for_both(db):
    """A server that let both have it, knows it for each: the second night is as the first."""
    rows = [valid(2, "A"), valid(3, "A", "other")]
    settle(db, claimed(db, staged(db, "a", rows)))

    assert shown(db, staged(db, "b", rows)) == [(2, "skipped"), (3, "skipped")]


@pytest.mark.parametrize(
    ("users", "policy", "left"),
    [
        (("b", "c"), ("first", "error"), []),
        (("b", "a"), ("first", "error"), []),
        (("b", "a"), ("first", "last"), []),
        (("b", "c"), ("first", "first"), [2]),
        (("b", "c"), ("first", "last"), [3]),
    ],
)
def test_only_a_row_that_is_moved_takes_a_binding_back(db, users, policy, left):
    """A row that its manifest contradicts leaves the device with the user who has it."""
    settle(db, claimed(db, staged(db, "a", [valid(2, "X", "a")])))
    run = staging.begin(db, values("b"))
    staging.add_source(db, run, 0, FORM)
    rows = [valid(line, "X", user) for line, user in enumerate(users, start=2)]
    staging.stage(db, run, 0, 0, rows, rebind=False, keep_duplicates=True, move=True)
    duplicates.mark_repeats(db, run, repeats_of(rows, *policy))

    moves = db.execute("SELECT r.line FROM unbindings u JOIN rows r ON r.id = u.row")
    assert [line for (line,) in moves] == left


def test_rebind_stages_what_is_known(db):
    """With `--rebind`, a known binding is sent again; a moved device is not."""
    settle(db, claimed(db, staged(db, "a", [valid(2, "A"), valid(3, "B")])))
    second = staged(db, "b", [valid(2, "A"), valid(3, "B", "other")], rebind=True)

    assert shown(db, second) == [(2, "pending"), (3, "moved")]


def test_cells_are_kept_until_a_row_is_bound(db):
    """The operator's cells are there as long as the row may come back."""
    run = staged(db, "a", [valid(2, "A"), valid(3, "B"), invalid(4)])
    settle(db, claimed(db, run, 1))

    assert [row.cells for row in RunReader(db, run).rows()] == [None, '["B"]', '["a-b"]']


def test_claims_come_in_order_and_once(db):
    """A claim takes staged rows in manifest order; the cursor passes what was taken."""
    run = staged(db, "a", [valid(2 + n, f"S{n}") for n in range(5)])
    first = claimed(db, run, 2)
    with transaction(db):
        rest = transitions.claim(db, run, first[-1].row, 10, 1.0)

    assert [c.device.machine_code for c in first + rest] == [f"S{n}" for n in range(5)]


def test_claims_in_turns_take_one_row_of_each_user_at_a_time(db):
    """The first row of each user, then the second of each; each row once, none of *but*."""
    users = ["ann"] * 4 + ["bob"] * 2 + ["cid"]
    run = staged(db, "r", [valid(n, f"SN{n}", user) for n, user in enumerate(users, start=2)])
    left_out = run_row(db, run, "SN4")
    staging.confirm(db, NOW, run)
    batches = []
    with transaction(db):
        runs.start(db, run)
    for _ in range(4):
        with transaction(db):
            batches.append(transitions.claim_in_turns(db, run, 3, 7.0, excluding=[left_out]))

    codes = [claim.device.machine_code for batch in batches for claim in batch]
    assert codes == ["SN2", "SN6", "SN8", "SN3", "SN7", "SN5"]
    assert runs.counts(db, run)[Status.CLAIMED] == 6
    assert {claim.sent_at for batch in batches for claim in batch} == {7.0}


def test_rows_that_are_staged_once_all_were_taken_get_their_turns(db):
    """A run that moves devices stages more rows after the others have been sent."""
    run = staged(db, "a", [valid(2, "SN1"), valid(3, "SN2")])
    taken = []
    for back in ([], ["SN2"]):
        with transaction(db):
            rows = [(run_row(db, run, code),) for code in back]
            db.executemany("UPDATE rows SET status = 'staged' WHERE id = ?", rows)
        for _ in range(2):
            with transaction(db):
                found = transitions.claim_in_turns(db, run, 8, 7.0)
            taken.append([claim.device.machine_code for claim in found])

    assert taken == [["SN1", "SN2"], [], ["SN2"], []]


def run_row(db, run, code):
    """Return the id of a row of a run."""
    (row,) = db.execute(
        "SELECT id FROM rows WHERE machine_code = ? AND id BETWEEN ? AND ?", (code, *span(run))
    ).fetchone()
    return row


def test_a_crash_leaves_claimed_rows_in_doubt(db):
    """What is found claimed at start-up may have been sent; that costs no attempt."""
    run = staged(db, "a", [valid(2, "A"), valid(3, "B")])
    claimed(db, run, 1)
    with transaction(db):
        found = transitions.recover(db, NOW)
        doubts = transitions.doubts(db)

    assert found == 1
    assert [(c.device.machine_code, c.attempts, c.doubts, c.sent_at) for c in doubts] == [
        ("A", 0, 1, 1.0)
    ]


def test_a_released_row_forgets_when_it_was_sent_unless_it_counted(db):
    """After a row was surely not processed, its next sending is its first."""
    run = staged(db, "a", [valid(2, "A"), valid(3, "B")])
    one, two = claimed(db, run)
    two.attempts = 1
    with transaction(db):
        transitions.release(db, [one, two])
        transitions.reclaim(db, one, 9.0)
        transitions.reclaim(db, two, 9.0)

    assert (one.sent_at, two.sent_at) == (9.0, 1.0)


def test_confirming_takes_the_place_of_older_runs(db):
    """Staged rows of an older unfinished run are withdrawn; what it bound stays."""
    first = staged(db, "a", [valid(2, "A"), valid(3, "B")])
    staging.confirm(db, NOW, first)
    settle(db, claimed(db, first, 1))
    second = staged(db, "b", [valid(2, "C")])
    withdrawn = staging.confirm(db, NOW, second)

    assert withdrawn == 1
    assert shown(db, first) == [(2, "bound"), (3, "withdrawn")]


def test_what_was_never_confirmed_is_thrown_away(db):
    """A run killed while staging, or declined, leaves nothing behind."""
    staged(db, "a", [valid(2, "A"), invalid(3)])
    staging.discard_unconfirmed(db)

    left = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("runs", "rows")]  # noqa: S608  # constants
    assert left == [0, 0]


def test_a_broken_promise_is_refused(db):
    """Settling a row that nobody holds changes nothing and is an error."""
    run = staged(db, "a", [valid(2, "A")])
    claims = claimed(db, run)
    settle(db, claims)

    with pytest.raises(LedgerError, match="disagree"):
        settle(db, claims, Status.FAILED)

    assert shown(db, run) == [(2, "bound")]


def test_open_rows_are_found_by_their_index(db):
    """Start-up and staging look at the few open rows, not at all rows."""
    staged(db, "a", [valid(2, "A")])
    plan = db.execute(
        f"EXPLAIN QUERY PLAN {staging._MARK_IN_DOUBT}", {"run": 1, "first": 1, "last": 2}
    )

    assert "rows_open (device=?)" in "; ".join(row[3] for row in plan)


@pytest.mark.parametrize("beginning", ["2026-a", "2026", "2026-ab"], ids=str)
def test_runs_are_found_by_the_beginning_of_their_id(db, beginning):
    """A run's id may be cut short as long as it is clear."""
    staging.confirm(db, NOW, staged(db, "2026-ab", [valid(2, "A")]))

    assert find_run(db, beginning) == 1


def test_an_unclear_or_unknown_run_is_refused(db):
    """Two runs that begin alike, or none, are an error that names them."""
    for name in ("2026-ab", "2026-ac"):
        staging.confirm(db, NOW, staged(db, name, [valid(2, "A")]))

    with pytest.raises(UsageError, match="2026-ac, 2026-ab"):
        find_run(db, "2026")
    with pytest.raises(UsageError, match="no run 2027"):
        find_run(db, "2027")


def test_reasons_count_every_broken_rule(db):
    """A row that breaks two rules counts for each; the example names its place."""
    two = invalid(4)
    more = Problem("device_os", "OS", "x-y", "device_os: rule", "'-' at 2")
    two = CheckedRow(4, two.cells, two.values, (*two.problems, more))
    run = staged(db, "a", [valid(2, "A"), invalid(3), two])
    reasons = RunReader(db, run).summary().reasons

    assert [(r["message"], r["count"], r["example"]) for r in reasons] == [
        ("machine_code: rule", 2, "fleet.csv:3"),
        ("device_os: rule", 1, "fleet.csv:4"),
    ]


def test_reasons_that_differ_in_an_example_only_are_one(db):
    """Doubt for which lists lack other devices is one reason, with the first example."""
    run = staged(db, "a", [valid(2, "A"), valid(3, "B"), valid(4, "C")])
    for claim in claimed(db, run):
        transitions.doubt(db, NOW, claim)
        why = f"a list lacks devices{SUCH_AS}{claim.device.machine_code} and 1 more"
        transitions.note_doubt(db, [claim.row], why)
    (reason,) = RunReader(db, run).summary().reasons

    assert (reason["message"], reason["count"]) == ("a list lacks devices", 3)
    assert reason["detail"] == "such as A and 1 more"


# --- files ---------------------------------------------------------------------------------------


def test_the_file_and_its_folder_are_private(tmp_path):
    """Ledgers hold personal data: nobody else can read them."""
    path = tmp_path / "state" / "ledger.db"
    connect(path, ENDPOINT).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_another_endpoints_ledger_is_refused(tmp_path):
    """A ledger serves the one endpoint that something was sent to."""
    path = tmp_path / "ledger.db"
    with closing(connect(path, ENDPOINT)) as db:
        db.execute("INSERT INTO attempts VALUES (1, 0, 0, 'Refused', 200, '1', 'no', 'a trace id')")

    with pytest.raises(LedgerError, match=r"belongs to https://example\.test"):
        connect(path, "https://other.test")


def read_only(path):
    """Open a ledger as reports do."""
    with reading(path):
        pass


@pytest.mark.parametrize(
    "opening", [lambda path: connect(path, ENDPOINT), read_only], ids=["write", "read"]
)
def test_strange_files_are_refused_and_left_alone(tmp_path, opening):
    """A text file, another program's database and a newer ledger are not touched."""
    text = tmp_path / "text.db"
    text.write_bytes(b"machine_code,user_id\n" * 100)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    newer = tmp_path / "newer.db"
    with closing(connect(newer, ENDPOINT)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = [path.read_bytes() for path in (text, other, newer)]
    messages = []
    for path in (text, other, newer):
        with pytest.raises(LedgerError) as caught:
            opening(path)
        messages.append(str(caught.value))

    assert "not a ledger" in messages[0]
    assert "not a ledger" in messages[1]
    assert f"version {VERSION + 1}" in messages[2]
    assert [path.read_bytes() for path in (text, other, newer)] == before


def test_an_older_ledger_is_brought_up_to_date_by_a_reader_too(tmp_path):
    """What is new is added before it is read, and all that was there is kept."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        script = MIGRATIONS[0].read_text("utf-8")
        db.executescript(f"{script}\nPRAGMA application_id = {APPLICATION_ID};")
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO meta VALUES ('endpoint', ?)", (json.dumps(ENDPOINT),))
        run = ("r1", "done", "d", "now", "me", "here", 1, "0", "{}")
        columns = "run_id, state, digest, created_at, operator, host, pid, version, settings"
        db.execute(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", run)  # noqa: S608  # constants
        row = ((1 << 40), 1, 0, 2, "u", "SN1", "bound")
        names = "id, run, source, line, user_id, machine_code, status"
        db.execute(f"INSERT INTO rows ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608  # constants
        db.commit()
    [told] = all_runs(path, ENDPOINT)
    with closing(sqlite3.connect(path)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        unbindings = db.execute("SELECT count(*) FROM unbindings").fetchone()[0]
        rows = db.execute("SELECT count(*) FROM rows").fetchone()[0]

    assert (told["counts"], told["undo"]) == ({"bound": 1}, None)
    assert (version, unbindings, rows) == (VERSION, 0, 1)


def test_what_runs_are_known_by_is_read_without_their_rows(tmp_path):
    """The newest ones, also of a pruned run, as the list of all runs has them: no row is needed."""
    path = tmp_path / "l.db"
    with closing(connect(path, ENDPOINT)) as db:
        numbers = [staged(db, name, [valid(2, name)]) for name in ("r1", "r2", "r3")]
        for number in range(1, 12):
            staging.add_source(db, numbers[2], number, replace(FORM, name=f"{number}.csv"))
        facts = json.dumps({"pruned_manifests": ["a.csv", "b.csv"], "pruned_counts": {"bound": 1}})
        db.execute("UPDATE runs SET facts = ? WHERE run = ?", (facts, numbers[1]))
        known = [
            (run["run_id"], run["state"], tuple(run["manifests"]))
            for run in all_runs(path, ENDPOINT)
        ]
        db.execute("DROP TABLE stored_rows")

    assert run_names(path, ENDPOINT, 3) == known
    assert run_names(path, ENDPOINT, 2) == known[:2]


def test_a_ledger_that_is_not_there_is_said_plainly(tmp_path):
    """Reading makes no file; one whose creation was cut off, as on a full disk, is none."""
    with pytest.raises(NoLedgerError, match="there is no ledger"):
        all_runs(tmp_path / "none.db")

    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(NoLedgerError, match="is empty") as caught:
        all_runs(tmp_path / "empty.db")
    assert "no run has been made" in caught.value.hint
    assert bindings_of(tmp_path / "empty.db") is None
    copy_known(tmp_path / "empty.db", tmp_path / "copy.db", ENDPOINT)
    assert all_runs(tmp_path / "copy.db") == []


def test_the_lock_names_its_holder(tmp_path):
    """A second holder ends at once and hears who is first; afterwards the lock is free."""
    first, second = LedgerLock(tmp_path / "l.db"), LedgerLock(tmp_path / "l.db")
    first.acquire({"pid": 42, "host": "here", "started_at": "noon"})
    with pytest.raises(LedgerBusyError, match="pid 42 on here since noon"):
        second.acquire({})
    first.release()
    second.acquire({})
    second.release()

    assert LedgerBusyError("x").exit_code == 75


def test_a_dead_process_holds_no_lock(tmp_path):
    """A lock left by a killed process is no lock."""
    code = (
        "import os, sys, pathlib; from bulkbind.ledger.lock import LedgerLock; "
        f"LedgerLock(pathlib.Path({str(tmp_path / 'l.db')!r})).acquire({{}}); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=20)

    lock = LedgerLock(tmp_path / "l.db")
    lock.acquire({})
    lock.release()


def _note(_db, order, number):
    order.append(number)


# --- the writer's thread -------------------------------------------------------------------------


async def test_operations_share_transactions_and_keep_their_order(tmp_path):
    """What is handed in together is committed together, in order."""
    ledger = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    await ledger.open({})
    order: list[int] = []
    futures = [ledger._writer.submit(verb(_note), order, number) for number in range(50)]
    await asyncio.gather(*futures)
    await ledger.close()

    assert order == list(range(50))


async def test_after_a_failure_nothing_more_is_written(tmp_path):
    """A failed write fails whoever waits, and everybody who comes later."""
    ledger = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    await ledger.open({})
    with pytest.raises(LedgerError, match="no such table"):
        await ledger._writer.submit(verb(lambda db: db.execute("INSERT INTO missing VALUES (1)")))
    with pytest.raises(LedgerError, match="no such table"):
        await ledger.start(1)
    await ledger.close()


async def test_a_second_ledger_on_the_same_file_is_refused(tmp_path):
    """One sending run at a time, also within one process."""
    first = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    second = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    await first.open({"pid": 1, "host": "h", "started_at": "t"})
    with pytest.raises(LedgerBusyError):
        await second.open({})
    await first.close()


async def test_reports_can_be_read_beside_a_writer(tmp_path):
    """A reader sees one consistent state while a run holds the ledger."""
    ledger = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    await ledger.open({})
    run = await ledger.begin(values("a"))
    await ledger.stage(
        run, 0, FORM, 0, [valid(2, "A")], rebind=False, on_batch=lambda _reached: None
    )
    await ledger.ready(run)
    await ledger.confirm(run)
    with reading(tmp_path / "l.db") as db:
        before = RunReader(db, run).counts()
        await ledger.claim(run, 0, 1, None, excluding=())
        after = RunReader(db, run).counts()
    await ledger.close()

    assert before == after == {"pending": 1}


# --- whether rows have changed --------------------------------------------------------------------

ASIDE = {
    "get_meta": ("any",),
    "put_meta": ("any", 1),
    "counts": (1,),
    "asked": (),
    "count_left": (1, "move"),
    "next_rows": (1, "move", 10),
    "finish": (1, None, RunFacts()),
}
"""The verbs that leave every row as it was, and with what they are called."""


async def two_sent(ledger):
    """Have a run of three rows, of which one is settled and one is claimed; return their claims."""
    await ledger.open({})
    run = await ledger.begin(values("a"))
    rows = [valid(line, code) for line, code in enumerate("ABC", start=2)]
    await ledger.stage(run, 0, FORM, 0, rows, rebind=False, on_batch=lambda _reached: None)
    await ledger.ready(run)
    await ledger.confirm(run)
    await ledger.start(run)
    claims = await ledger.claim(run, 0, 2, None, excluding=())
    ledger.settle(claims[0], Outcome(Status.BOUND, "1842812272691451648", iso(NOW)))
    await ledger.flushed()
    return claims


async def test_the_verbs_that_leave_rows_alone_do(tmp_path):
    """No table but those of runs and of what is noted is another one; nor is the number."""
    ledger = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    *_, claimed = await two_sent(ledger)
    await ledger.release([claimed])  # what is claimed at the end would change
    verbs = {**vars(Ledger), **vars(type(ledger.unbindings))}
    aside = {name for name, each in verbs.items() if isinstance(each, Verb) and each.is_aside}

    def content():
        with closing(sqlite3.connect(tmp_path / "l.db")) as db:
            return [line for line in db.iterdump() if '"meta"' not in line and '"runs"' not in line]

    before, number = content(), ledger.changes
    for name, arguments in ASIDE.items():
        await getattr(ledger if hasattr(ledger, name) else ledger.unbindings, name)(*arguments)
    after = content()
    await ledger.close()

    assert aside == set(ASIDE)
    assert after == before
    assert ledger.changes == number


async def test_whatever_changes_a_row_changes_the_number(tmp_path):
    """An outcome does once it is flushed."""
    ledger = Ledger(tmp_path / "l.db", ENDPOINT, FakeClock())
    settled, claimed = await two_sent(ledger)
    numbers = [ledger.changes]
    ledger.settle(claimed, Outcome(Status.FAILED))
    await ledger.flushed()
    numbers.append(ledger.changes)
    await ledger.doubt_again([settled.row])
    numbers.append(ledger.changes)
    await ledger.release(await ledger.doubts())
    numbers.append(ledger.changes)
    await ledger.claim(1, 0, 2, None, excluding=())
    numbers.append(ledger.changes)
    await ledger.close()

    assert numbers == sorted(set(numbers))

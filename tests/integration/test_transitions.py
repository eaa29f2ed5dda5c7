"""The tables of states against the ledger's SQL: every change in them is made, and no other."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing, nullcontext, suppress

import pytest
from msgspec.structs import replace

from bulkbind.errors import LedgerError
from bulkbind.ledger import (
    adopting,
    duplicates,
    leaving,
    repeating,
    runs,
    staging,
    transitions,
    unbinding,
)
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import span, transaction
from bulkbind.model import (
    ROW_TRANSITIONS,
    UNBIND_TRANSITIONS,
    Claim,
    Outcome,
    Record,
    RunFacts,
    RunKind,
    RunState,
    Status,
    UnbindKind,
    UnbindStatus,
)
from tests.integration.conftest import ALLOWED
from tests.integration.test_ledger import ENDPOINT, FORM, NOW, invalid, valid, values
from tests.support.rows import repeats_of

WHO = {"started_at": "now", "operator": "me", "host": "here", "pid": 1, "version": "0"}
ANYWHERE = 2**62
"""A row behind all others."""


class Life:
    """One ledger, and whole lives of runs in it; each method is a step as a command takes it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def staged(self, name, *devices, line=2, kind=RunKind.BIND):
        """Stage a run of devices, each as user and code; return its number."""
        run = staging.begin(self.db, values(name) | {"kind": kind})
        rows = [valid(n, code, user) for n, (user, code) in enumerate(devices, start=line)]
        staging.stage_manifest(
            self.db, run, 0, FORM, 0, [*rows, invalid(line + len(rows))],
            rebind=False, keep_duplicates=True, move=True, on_batch=lambda _position: None,
        )  # fmt: skip
        staging.ready(self.db, run)
        return run

    def confirmed(self, name, *devices, kind=RunKind.BIND):
        """Stage and confirm a run, and start its sending."""
        run = self.staged(name, *devices, kind=kind)
        staging.confirm(self.db, NOW, run)
        self.do(runs.start, run)
        return run

    def do(self, verb, *arguments):
        """Do something within a transaction."""
        with transaction(self.db):
            return verb(self.db, *arguments)

    def claimed(self, run):
        """Claim whatever is staged; return the claims by machine code."""
        claims = self.do(transitions.claim, run, 0, 100, 1.0)
        return {claim.device.machine_code: claim for claim in claims}

    def doubted(self, run):
        """Claim whatever is staged and leave it in doubt."""
        for claim in self.claimed(run).values():
            self.do(transitions.doubt, NOW, claim)

    def settle(self, claim, status, *, is_unsent=False):
        """Settle a claim."""
        outcome = Outcome(status, "id", "now", is_unsent=is_unsent)
        settlement = (Claim(claim.row, claim.device, 1), outcome)
        self.do(transitions.settle, NOW, [settlement])

    def settle_doubt(self, run, *statuses):
        """Settle rows in doubt, one with each status."""
        first, last = span(run)
        doubts = [c for c in transitions.doubts(self.db) if first <= c.row <= last]
        for claim, status in zip(doubts, statuses, strict=False):
            self.settle(claim, status)

    def unbind(self, run, kind, *statuses):
        """Settle unbindings of user u, one with each status; claim and release the others."""
        items = unbinding.open_of(self.db, run, kind, ["u"], ANYWHERE)
        for item, status in zip(items, statuses, strict=False):
            item.status = status
            self.do(unbinding.settle, NOW, [item])
        rest = items[len(statuses) :]
        self.do(unbinding.claim, rest)
        self.do(unbinding.release, rest)


def send_and_go_on(life):
    """Rows are claimed, and end in each way; a run is cut off, stops, resumes and ends."""
    run = life.confirmed("sent", *[("u", code) for code in "ABCDEFGHIJ"], ("u", "A"))
    claims = life.claimed(run)
    for code, status in (("A", "bound"), ("B", "already_bound"), ("C", "failed")):
        life.settle(claims[code], Status(status))
    life.do(transitions.doubt, NOW, claims["D"])
    life.do(transitions.release, [claims["E"], claims["D"], claims["J"]])
    life.settle(claims["J"], Status.FAILED, is_unsent=True)
    assert (
        life.do(runs.finish, NOW, run, "enough", RunFacts()) is RunState.STOPPED
    )  # F to I were claimed
    life.do(runs.start, run)
    life.settle_doubt(run, *map(Status, ("bound", "already_bound", "failed", "skipped")))
    for claim in life.claimed(run).values():
        life.settle(claim, Status.FAILED)
    again, before = life.do(
        transitions.doubt_again, NOW, [claims[code].row for code in ("A", "B", "C")]
    )
    assert sorted(before) == ["already_bound", "bound", "failed"]
    assert {claim.device.machine_code: claim.doubts for claim in again} == dict.fromkeys("ABC", 1)
    life.settle_doubt(run, *map(Status, ("bound", "already_bound", "failed")))
    assert life.do(runs.finish, NOW, run, None, RunFacts()) is RunState.DONE


def withdraw(life):
    """A run takes another one's place; what that had sent is in doubt, and may be withdrawn."""
    old = life.confirmed("old", ("u", "SENT"), ("u", "NEVER"))
    claims = life.claimed(old)
    claims["SENT"].attempts = 1
    life.do(transitions.release, list(claims.values()))
    life.confirmed("new", ("u", "SENT"))
    life.settle_doubt(old, Status.WITHDRAWN)


def know(life):
    """What the ledger knows as bound is skipped or moved; it may have vanished, or be freed."""
    first = life.confirmed("known", ("u", "K1"), ("u", "K2"), ("u", "K3"))
    for claim in life.claimed(first).values():
        life.settle(claim, Status.BOUND)
    staging.note(life.db, first, 0, [])
    life.do(runs.finish, NOW, first, None, RunFacts())
    digest = values("known")["digest"]
    unchanged = staging.begin(life.db, values("unchanged") | {"digest": digest})
    assert repeating.repeat(life.db, unchanged, [FORM]) is not None
    staging.discard(life.db, unchanged)
    second = life.staged("again", ("u", "K1"), ("u", "K2"), ("w", "K3"))
    rows = [span(second)[0], span(second)[0] + 1]
    staging.mark_vanished(life.db, NOW, second, rows[:1], users=1, bind_again=False)
    staging.mark_vanished(life.db, NOW, second, rows[1:], users=1, bind_again=True)
    staging.confirm(life.db, NOW, second)
    life.unbind(second, UnbindKind.MOVE, UnbindStatus.ALREADY_GONE)


def judge(life):
    """Devices that stand twice, in every state that staging gives: errors, or the first counts."""
    known = life.confirmed("judged", ("u", "X1"), ("u", "X2"))
    for claim in life.claimed(known).values():
        life.settle(claim, Status.BOUND)
    life.doubted(life.confirmed("left in doubt", ("u", "Y1"), ("u", "Y2")))
    devices = [
        *(("w", "X1"), ("u", "X1")),  # moved, skipped
        *(("u", "X2"), ("w", "X2")),  # skipped, moved
        *(("w", "Y1"), ("u", "Y1")),  # staged, in doubt
        *(("u", "Y2"), ("w", "Y2")),  # in doubt, staged
        *(("u", "Z"), ("u", "Z")),  # staged, duplicate
    ]
    rows = [valid(line, code, user) for line, (user, code) in enumerate(devices, start=2)]
    for policy in (("error", "error"), ("first", "first")):
        run = life.staged("judging", *devices)
        duplicates.mark_repeats(life.db, run, repeats_of(rows, *policy))
        staging.discard(life.db, run)


def leave_out(life):
    """A condition leaves a row out, which is kept and never sent, and stands in no other's way."""
    run = staging.begin(life.db, values("left out"))
    rows = [replace(valid(2, "L", "u"), left_out="--where Site=Berlin"), valid(3, "L", "u")]
    staging.stage_manifest(
        life.db, run, 0, FORM, 0, rows, rebind=False, on_batch=lambda _position: None
    )
    assert life.do(runs.counts, run) == {"staged": 1, "left_out": 1}


def take_over(life):
    """What a list shows is taken over by a run without rows, which is done from the beginning."""
    run = life.do(adopting.begin, values("adopted"))
    record = Record("T1", "1842", "2026-11-27T10:00:00.000Z")
    life.do(adopting.take_over, NOW, run, [("u", record)], [("u", "gone")])
    life.do(adopting.end, NOW, run, None, RunFacts())
    assert life.do(transitions.known, "u") == {"T1": "1842"}


def undo(life):
    """Runs are undone in every state; an undo stops, resumes, ends, and is begun again."""
    undone = life.confirmed("undone", *[("u", f"U{n}") for n in range(12)])
    for claim in life.claimed(undone).values():
        life.settle(claim, Status.BOUND)
    for expected in (RunState.STOPPED, RunState.DONE, RunState.DONE):
        if life.do(unbinding.undo_progress, undone)[0] in ("", "done"):
            life.do(unbinding.begin_undo, NOW, undone, WHO)
        life.do(unbinding.start_undo, undone, WHO)
        life.unbind(undone, UnbindKind.UNDO, *map(UnbindStatus, ("already_gone", "changed")))
        life.unbind(undone, UnbindKind.UNDO, UnbindStatus.FAILED)
        if expected is RunState.DONE:
            items = unbinding.open_of(life.db, undone, UnbindKind.UNDO, ["u"], ANYWHERE)
            life.do(unbinding.claim, items)
            life.unbind(
                undone,
                UnbindKind.UNDO,
                *map(UnbindStatus, ("unbound", "already_gone", "changed", *["failed"] * 9)),
            )
        assert life.do(unbinding.finish_undo, NOW, undone, "enough", RunFacts()) is expected
    stopped = life.confirmed("stopped", ("u", "S"))
    life.do(runs.finish, NOW, stopped, "enough", RunFacts())
    confirmed = life.staged("confirmed", ("u", "T"))
    staging.confirm(life.db, NOW, confirmed)
    for run in (stopped, confirmed):
        life.do(unbinding.begin_undo, NOW, run, WHO)


def leave(life):
    """What a list names is unbound, gone, changed or not ours; killed, replaced and looked up."""
    codes = [f"L{n}" for n in range(9)]
    first = life.confirmed("first", *[("u", code) for code in codes])
    claims = life.claimed(first)
    life.settle(claims.pop("L8"), Status.ALREADY_BOUND)
    for claim in claims.values():
        life.settle(claim, Status.BOUND)
    judged = (("u", "L8"), ("w", "L8"), ("u", "L8"))  # not ours, not ours, duplicate
    rows = [valid(line, code, user) for line, (user, code) in enumerate(judged, start=2)]
    for policy in (("error", "error"), ("first", "first")):
        run = life.staged("judged leavers", *judged, kind=RunKind.UNBIND)
        duplicates.mark_repeats(life.db, run, repeats_of(rows, *policy))
        staging.discard(life.db, run)

    left = life.confirmed("left", *[("u", code) for code in codes[:4]], kind=RunKind.UNBIND)
    life.unbind(left, UnbindKind.LEAVE, *map(UnbindStatus, ("already_gone", "changed", "failed")))
    items = unbinding.open_of(life.db, left, UnbindKind.LEAVE, ["u"], ANYWHERE)
    life.do(unbinding.claim, items)
    life.unbind(left, UnbindKind.LEAVE, UnbindStatus.UNBOUND)
    assert life.do(runs.finish, NOW, left, None, RunFacts()) is RunState.DONE

    for policy in (("error", "error"), ("first", "first")):
        gone = (("w", "L0"), ("u", "L0"))  # not ours, gone already
        rows = [valid(line, code, user) for line, (user, code) in enumerate(gone, start=2)]
        run = life.staged("gone leavers", *gone, kind=RunKind.UNBIND)
        duplicates.mark_repeats(life.db, run, repeats_of(rows, *policy))
        staging.discard(life.db, run)

    killed = life.confirmed("killed", *[("u", code) for code in codes[1:8]], kind=RunKind.UNBIND)
    items = unbinding.open_of(life.db, killed, UnbindKind.LEAVE, ["u"], ANYWHERE)
    life.do(unbinding.claim, items)
    for item, status in zip(items[:3], ("already_gone", "changed", "failed"), strict=True):
        item.status = UnbindStatus(status)
        life.do(unbinding.settle, NOW, [item])
    life.do(transitions.recover, NOW)
    assert transitions.doubts(life.db) == []
    life.confirmed("instead", ("u", "L6"))
    (doubtful,) = leaving.left_in_doubt(life.db, 0).values()
    assert [item.machine_code for item in doubtful] == [item.machine_code for item in items[3:]]
    for item, status in zip(doubtful, ("unbound", "changed", "failed"), strict=True):
        item.status = UnbindStatus(status)
        life.do(unbinding.settle, NOW, [item])


def test_the_ledger_makes_every_transition_of_its_tables_and_no_other(tmp_path, state_guard):
    """What the verbs do in the lives of runs is what the tables say, to the letter."""
    for story in (send_and_go_on, withdraw, know, judge, leave_out, leave, take_over, undo):
        with closing(connect(tmp_path / f"{story.__name__}.db", ENDPOINT)) as db:
            story(Life(db))

    assert state_guard.seen == ALLOWED


def put(path, table, **states):
    """Give all rows of a table a state behind the guard's back, and what a state goes with."""
    changes = ", ".join(f"{column} = :{column}" for column in states)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"UPDATE {table} SET {changes}", states)  # noqa: S608  # names of ours


ROW_VERBS = (
    lambda life, run, _: life.do(transitions.claim, run, 0, 1, 1.0),
    lambda life, run, _: life.do(transitions.claim_in_turns, run, 1, 1.0),
    lambda life, _, claim: life.do(transitions.reclaim, claim, 1.0),
    lambda life, _, claim: life.do(transitions.release, [claim]),
    lambda life, *_: life.do(transitions.recover, NOW),
    lambda life, _, claim: life.do(transitions.doubt, NOW, claim),
    lambda life, _, claim: life.do(transitions.doubt_again, NOW, [claim.row]),
    lambda life, _, claim: life.settle(claim, Status.BOUND),
    lambda life, _, claim: life.settle(claim, Status.ALREADY_BOUND),
    lambda life, _, claim: life.settle(claim, Status.FAILED),
    lambda life, _, claim: life.settle(claim, Status.FAILED, is_unsent=True),
    lambda life, run, _: life.do(staging.withdraw, NOW, run, "for a test"),
    lambda life, run, claim: staging.mark_vanished(
        life.db, NOW, run, [claim.row], users=1, bind_again=False
    ),
    lambda life, run, claim: staging.mark_vanished(
        life.db, NOW, run, [claim.row], users=1, bind_again=True
    ),
    lambda life, run, _: life.unbind(run, UnbindKind.MOVE, UnbindStatus.ALREADY_GONE),
)


def test_a_row_changes_as_its_table_allows_or_not_at_all(tmp_path, state_guard):
    """Whatever state a row is in, and whatever is done to it: the SQL knows which states may be."""
    path = tmp_path / "l.db"
    with closing(connect(path, ENDPOINT)) as db:
        life = Life(db)
        run = life.confirmed("r", ("u", "A"))
        db.execute("DELETE FROM rows WHERE status = 'invalid'")
        (claim,) = life.claimed(run).values()
        db.execute(
            "INSERT INTO unbindings (row, kind, user_id, machine_code, device_id) "
            "VALUES (?, 'move', 'u', 'A', 'id')",
            (claim.row,),
        )
        never_sent = {Status.INVALID, Status.LEFT_OUT}
        for status, verb in itertools.product(set(Status) - never_sent, ROW_VERBS):
            first = claim.row if status is Status.DUPLICATE else None
            put(path, "rows", status=status, duplicate_of=first)
            put(path, "unbindings", status=UnbindStatus.STAGED)
            life.do(runs.start, run)
            with suppress(LedgerError):
                verb(life, run, claim)
            assert state_guard.refused == []


def test_an_unbinding_that_has_ended_stays_so(tmp_path):
    """It is claimed, released and settled while it is open; afterwards that is refused."""
    path = tmp_path / "l.db"
    with closing(connect(path, ENDPOINT)) as db:
        life = Life(db)
        run = life.confirmed("r", ("u", "A"))
        (claim,) = life.claimed(run).values()
        life.settle(claim, Status.BOUND)
        life.do(unbinding.begin_undo, NOW, run, WHO)
        (item,) = unbinding.open_of(db, run, UnbindKind.UNDO, ["u"], ANYWHERE)
        item.status = UnbindStatus.FAILED
        works = (unbinding.claim, [item]), (unbinding.release, [item])
        for status, work in itertools.product(
            UnbindStatus, (*works, (unbinding.settle, NOW, [item]))
        ):
            put(path, "unbindings", status=status)
            is_open = status in (UnbindStatus.STAGED, UnbindStatus.CLAIMED)
            with nullcontext() if is_open else pytest.raises(LedgerError, match="disagree"):
                life.do(*work)

            if not is_open:
                assert db.execute("SELECT status FROM unbindings").fetchall() == [(status,)]


@pytest.mark.parametrize(
    ("states", "table"),
    [(Status, ROW_TRANSITIONS), (UnbindStatus, UNBIND_TRANSITIONS)],
    ids=["rows", "unbindings"],
)
def test_every_state_can_be_reached(states, table):
    """A new state without a transition into it is a state that nobody makes."""
    assert {after for afters in table.values() for after in afters} == set(states)


def test_a_wrong_transition_in_the_sql_is_caught(tmp_path, state_guard, monkeypatch):
    """A statement that changes a state as the table does not allow is aborted, and named."""
    monkeypatch.setattr(
        staging, "_STAGE_VANISHED", "UPDATE rows SET status = 'bound', detail = ?1 WHERE id = ?2"
    )
    with closing(connect(tmp_path / "l.db", ENDPOINT)) as db:
        run = Life(db).staged("a", ("u", "A"))
        with pytest.raises(sqlite3.IntegrityError, match="no such transition"):
            staging.mark_vanished(db, NOW, run, [span(run)[0]], users=1, bind_again=True)

        assert db.execute("SELECT status FROM rows").fetchall() == [("staged",), ("invalid",)]
    assert state_guard.refused == [("rows", "staged", "bound")]
    state_guard.refused.clear()

"""Any sequence of runs, claims, answers, crashes and resumes leaves every row with one state."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bulkbind.ledger import RunReader, repeating, runs, staging, transitions
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import transaction
from bulkbind.model import (
    CheckedRow,
    Claim,
    Outcome,
    Problem,
    RunFacts,
    RunState,
    Source,
    Status,
)
from tests.integration.test_stored_once import told
from tests.support.rows import values as row_values

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
USERS = ("u", "v")
CODES = tuple("ABCDEFGH")
FORM = Source("fleet.csv", "csv", "utf-8", bom=False, header=("machine_code",))
FINAL = (Status.BOUND, Status.ALREADY_BOUND, Status.FAILED)


class LedgerMachine(RuleBasedStateMachine):
    """Drives the ledger as engine and use cases do, with a model of what must hold."""

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name, "ledger.db")
        self._db = connect(self._path, "https://example.test")
        self._names = 0
        self._run = 0
        self._after = 0
        self._held: list[Claim] = []
        self._sizes: dict[int, int] = {}
        self._ended: dict[int, str] = {}
        """Row -> the final state it was seen in: it must stay."""
        self._devices: dict[int, list[tuple[str, str]]] = {}
        """Run -> its manifest."""
        self._done = 0
        """The last run that is done, whose manifest may come again."""

    def teardown(self):
        self._db.close()
        self._folder.cleanup()

    @initialize(devices=st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(CODES))))
    def first(self, devices):
        self._new_run(devices, skip_invalid=True)

    def _begun(self, digest=None):
        self._names += 1
        name = f"run{self._names}"
        values: dict[str, object] = {"run_id": name, "digest": digest or name, "created_at": "t"}
        values |= {"operator": "o"}
        values |= {"host": "h", "pid": 1, "version": "0", "settings": "{}"}
        return staging.begin(self._db, values)

    def _new_run(self, devices, *, skip_invalid):
        run = self._begun()
        self._devices[run] = devices
        staging.add_source(self._db, run, 0, FORM)
        staging.note(self._db, run, 0, [])
        rows = []
        for line, (user, code) in enumerate(devices, start=2):
            found = row_values(user, code)
            if skip_invalid and line % 7 == 0:
                problem = Problem("machine_code", "c", code, "rule", "found")
                rows.append(CheckedRow(line, [code], found, (problem,)))
            else:
                rows.append(CheckedRow(line, [code], found))
        half = len(rows) // 2
        position = staging.stage(self._db, run, 0, 0, rows[:half], rebind=False)
        staging.stage(self._db, run, 0, position, rows[half:], rebind=False)
        staging.ready(self._db, run)
        return run, len(rows)

    @precondition(lambda self: not self._held)
    @rule(
        devices=st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(CODES)), max_size=12),
        is_confirmed=st.booleans(),
    )
    def begin(self, devices, is_confirmed):
        run, size = self._new_run(devices, skip_invalid=True)
        if not is_confirmed:
            staging.discard(self._db, run)
            return
        staging.confirm(self._db, NOW, run)
        self._run, self._after = run, 0
        self._sizes[run] = size

    @precondition(lambda self: self._run)
    @rule(most=st.integers(1, 5))
    def claim(self, most):
        with transaction(self._db):
            claims = transitions.claim(self._db, self._run, self._after, most, 1.0)
        if claims:
            self._after = claims[-1].row
        self._held += claims

    @precondition(lambda self: self._held)
    @rule(status=st.sampled_from(FINAL))
    def settle(self, status):
        claim = self._held.pop()
        with transaction(self._db):
            outcome = Outcome(status, "id", "t")
            transitions.settle(self._db, NOW, [(Claim(claim.row, claim.device, 1), outcome)])

    @precondition(lambda self: self._held)
    @rule()
    def release(self):
        with transaction(self._db):
            transitions.release(self._db, [self._held.pop()])

    @precondition(lambda self: self._held)
    @rule()
    def doubt(self):
        claim = self._held.pop()
        claim.doubts += 1
        with transaction(self._db):
            transitions.doubt(self._db, NOW, claim)

    @rule(
        status=st.sampled_from((*FINAL, Status.SKIPPED, Status.WITHDRAWN, None)),
        pick=st.integers(0, 20),
    )
    def read_back(self, status, pick):
        doubts = transitions.doubts(self._db)
        if not doubts:
            return
        claim = doubts[pick % len(doubts)]
        is_own = claim.row >> 40 == self._run
        with transaction(self._db):
            if status is None and is_own:
                transitions.release(self._db, [claim])
            else:
                status = status or Status.WITHDRAWN  # another run took that one's place
                transitions.settle(
                    self._db, NOW, [(Claim(claim.row, claim.device, 1), Outcome(status))]
                )

    @rule()
    def crash(self):
        """The process dies and a new one takes stock."""
        held = {claim.row for claim in self._held}
        self._held.clear()
        self._db.close()
        self._db = connect(self._path, "https://example.test")
        staging.discard_unconfirmed(self._db)
        with transaction(self._db):
            assert transitions.recover(self._db, NOW) == len(held)
        self._after = 0

    @precondition(lambda self: self._run)
    @rule(is_stopped=st.booleans())
    def finish(self, is_stopped):
        self._held.clear()
        with transaction(self._db):
            runs.start(self._db, self._run)
            state = runs.finish(
                self._db, NOW, self._run, "stopped" if is_stopped else None, RunFacts()
            )
        if state is RunState.DONE:
            self._done, self._run = self._run, 0  # another run settles its doubt

    @precondition(lambda self: self._done and not self._held)
    @rule()
    def same_again(self):
        """What is taken from the earlier run is what reading the manifest once more gives."""
        query = "SELECT digest FROM runs WHERE run = ?"
        run = self._begun(*self._db.execute(query, (self._done,)).fetchone())
        taken = repeating.repeat(self._db, run, [FORM])
        told = self._told(run)
        staging.discard(self._db, run)
        run, size = self._new_run(self._devices[self._done], skip_invalid=True)
        if taken is not None:
            assert taken.rows == size
            assert told == self._told(run)
        else:
            assert told == []
        staging.discard(self._db, run)

    def _told(self, run):
        """Return a run's rows, without the cells, which skipped rows have until confirmed."""
        return [replace(row, cells=None) for row in told(self._db, run)]

    @invariant()
    def every_row_has_one_state(self):
        for run, size in self._sizes.items():
            rows = told(self._db, run)
            assert [row.line for row in rows] == list(range(2, size + 2))
            assert sum(RunReader(self._db, run).counts().values()) == size

    @invariant()
    def what_has_ended_stays_ended(self):
        ended = dict(
            self._db.execute(
                "SELECT id, status FROM rows WHERE status NOT IN ('staged', 'claimed', 'in_doubt')"
            ).fetchall()
        )
        for row, status in self._ended.items():
            assert ended.get(row, status) == status
        self._ended |= {row: status for row, status in ended.items() if row >> 40 in self._sizes}

    @invariant()
    def claimed_rows_are_those_in_hand(self):
        claimed = {row[0] for row in self._db.execute("SELECT id FROM rows WHERE status='claimed'")}
        assert claimed == {claim.row for claim in self._held}

    @invariant()
    def bound_rows_are_known(self):
        (missing,) = self._db.execute(
            "SELECT count(*) FROM rows r WHERE r.status IN ('bound', 'already_bound') "
            "AND NOT EXISTS (SELECT 1 FROM bindings b WHERE b.user_id = r.user_id "
            "AND b.machine_code = r.machine_code)"
        ).fetchone()
        assert missing == 0

    @invariant()
    def one_row_of_a_run_per_device_is_sent(self):
        twice = self._db.execute(
            "SELECT 1 FROM rows WHERE status NOT IN ('invalid', 'duplicate') "
            "GROUP BY run, user_id, machine_code HAVING count(*) > 1"
        ).fetchall()
        assert not twice

    @invariant()
    def only_the_newest_run_can_send(self):
        rows = self._db.execute(
            "SELECT DISTINCT r.run FROM rows r JOIN runs u USING (run) "
            "WHERE r.status = 'staged' AND u.state NOT IN ('staging', 'ready')"
        ).fetchall()
        assert all(run == self._run for (run,) in rows)


LedgerMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestLedger = LedgerMachine.TestCase

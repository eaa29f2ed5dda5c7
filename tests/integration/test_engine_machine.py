"""Any order of faults, kills, edits, late servers and other people: every row ends exactly once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bulkbind.ledger import RunReader, all_runs, find_run, reading
from bulkbind.model import RunState
from bulkbind.settings import SendSettings
from tests.integration.test_engine import Bench, devices
from tests.integration.test_engine_properties import (
    LIST_PLANS,
    PLANS,
    SECOND_BINDS,
    begun,
    sent_and_killed,
)
from tests.support.fakes import LATE

pytestmark = pytest.mark.slow

FLEET = devices(10, users=2)
OPEN = {"staged", "claimed", "pending"}
BOUND = {"bound", "already_bound", "skipped"}


class RunMachine(RuleBasedStateMachine):
    """An operator, a network and a server that do what they like, one after the other."""

    def __init__(self):
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._loop = asyncio.new_event_loop()
        self._bench = Bench(Path(self._folder.name, "ledger.db"))
        self._bench.send = SendSettings(
            concurrency=3, max_attempts=40, backoff_base=0.1, backoff_cap=1.0
        )
        self._wanted = list(FLEET)
        self._foreign: set[str] = set()
        """Machine codes that somebody else bound: a first request that is told no says no more."""
        self._has_lived = False

    @initialize(second_bind=SECOND_BINDS, lands_late=st.booleans(), is_pool=st.booleans())
    def serve(self, second_bind, lands_late, is_pool):
        self._bench.server.is_pool = is_pool
        self._bench.server.lands_late = lands_late
        self._bench.server.second_bind_is_error = second_bind != "same"
        self._bench.server.second_bind_is_refused = second_bind == "refused"

    @rule(plans=st.lists(PLANS, min_size=1, max_size=8))
    def spoil_binds(self, plans):
        self._bench.server.planned.extend(plans)

    @rule(late_s=st.sampled_from([1.0, 4.0, 9.0, 30.0]), number=st.integers(1, 3))
    def be_late(self, late_s, number):
        self._bench.server.late_s = late_s
        self._bench.server.planned.extend([LATE] * number)

    @rule(plans=st.lists(LIST_PLANS, min_size=1, max_size=3))
    def spoil_lists(self, plans):
        self._bench.server.list_planned.extend(plans)

    @rule(wanted=st.lists(st.sampled_from(FLEET), min_size=1, unique=True))
    def edit(self, wanted):
        self._wanted = wanted

    @rule(device=st.sampled_from(FLEET))
    def bind_by_somebody_else(self, device):
        if device.machine_code not in self._bench.server.bindings[device.user_id]:
            self._bench.server.put(device.user_id, device.machine_code)
            self._foreign.add(device.machine_code)

    @rule(seconds=st.sampled_from([0.5, 3.0, 20.0]))
    def wait(self, seconds):
        self._bench.clock.advance(seconds)

    @rule(kill_after=st.floats(0.001, 12.0))
    def run_and_kill(self, kill_after):
        self._has_lived = True
        self._do(sent_and_killed(self._bench, self._wanted, kill_after=kill_after))

    def _do(self, work):
        return self._loop.run_until_complete(work)

    def _runs(self):
        """Return the rows of every run, by its number."""
        if not self._has_lived:
            return {}
        with reading(self._bench.path) as db:
            numbers = [find_run(db, run["run_id"]) for run in all_runs(self._bench.path)]
            return {number: list(RunReader(db, number).rows()) for number in numbers}

    @invariant()
    def every_row_has_one_state(self):
        for rows in self._runs().values():
            assert [row.line for row in rows] == list(range(2, len(rows) + 2))
            assert len({(row.user_id, row.machine_code) for row in rows}) == len(rows)

    def teardown(self):
        try:
            self._do(self._finish())
            self._check()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()
            self._folder.cleanup()

    async def _finish(self):
        """Without further faults, the last manifest goes through in a few sendings at most."""
        bench, self._has_lived = self._bench, True
        bench.server.planned.clear()
        bench.server.list_planned.clear()
        bench.clock.advance(60.0)  # whatever is late is done
        bench.server.catch_up()
        for _ in range(4):
            bench.renew()
            async with bench.ledger() as ledger:
                run = await begun(bench, ledger, self._wanted)
                if await bench.sent(ledger, run) is RunState.DONE:
                    return
        raise AssertionError("the run never ends")

    def _check(self):
        runs = self._runs()
        last = runs[max(runs)]
        held = {
            (user, code): record.device_id
            for user, codes in self._bench.server.bindings.items()
            for code, record in codes.items()
        }
        for rows in runs.values():
            assert not {row.status for row in rows} & {*OPEN, "in_doubt"}
            for row in rows:
                if row.status in BOUND:
                    assert held[row.user_id, row.machine_code] == row.device_id
        for row in last:
            is_held = (row.user_id, row.machine_code) in held
            if row.machine_code not in self._foreign:
                assert (row.status in BOUND) == is_held, (row.machine_code, row.status)
            assert row.status in BOUND | {"failed"}
        assert len(last) == len(self._wanted)


RunMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRuns = RunMachine.TestCase

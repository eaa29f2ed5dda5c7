"""Any schedule of faults and crashes: once a run is through, server, ledger and report agree."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from bulkbind.engine import Parts, Pipeline
from bulkbind.model import (
    ClockRefused,
    NoAnswer,
    Refused,
    RunState,
    Throttled,
    Transient,
    Unreachable,
)
from bulkbind.settings import SendSettings
from tests.integration.test_engine import Bench, devices
from tests.support.fakes import ERRED, LOST

pytestmark = pytest.mark.slow

PLANS = st.sampled_from(
    [
        None,
        None,
        None,
        LOST,
        ERRED,
        NoAnswer(),
        Transient(),
        Throttled(),
        Throttled(limit=50.0, window_s=1.0),
        Unreachable(),
        ClockRefused(),
        Refused(),
    ]
)
LIST_PLANS = st.sampled_from([Throttled(), Transient(), NoAnswer(), Unreachable()])
ROWS = 12


async def begun(bench, ledger, wanted):
    """Go on with the unfinished run of these devices, or stage one; return its number."""
    name = repr(wanted)
    known = await ledger.unfinished(name)
    return known[0] if known else await bench.staged(ledger, wanted, name)


async def sent_and_killed(bench, wanted, *, kill_after):
    """Begin or go on with the run, and stop as a killed process does."""
    bench.renew()
    async with bench.ledger() as ledger:
        run = await begun(bench, ledger, wanted)
        await ledger.start(run)
        parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
        sending = asyncio.create_task(
            Pipeline(parts, run, bench.send, bench.readback).run(), name="sending"
        )
        killing = asyncio.create_task(bench.clock.sleep(kill_after))
        await asyncio.wait([sending, killing], return_when=asyncio.FIRST_COMPLETED)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if not task.get_name().startswith("Task-") and task.get_name() != "flush":
                task.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        killing.cancel()


async def scenario(path, plans, list_plans, kills, *, second_bind, edited=()):
    """Kill a run as often as *kills* says, then let it go through.

    *edited*: how many devices the manifest of each sending has; the last one has them all.
    """
    bench = Bench(path)
    bench.send = SendSettings(concurrency=3, max_attempts=20, backoff_base=0.1, backoff_cap=1.0)
    bench.server.planned.extend(plans)
    bench.server.list_planned.extend(list_plans)
    bench.server.second_bind_is_error = second_bind != "same"
    bench.server.second_bind_is_refused = second_bind == "refused"
    fleet = devices(ROWS, users=2)
    for kill_after, size in zip_longest(kills, edited[: len(kills)], fillvalue=ROWS):
        await sent_and_killed(bench, fleet[-size:] if size < ROWS else fleet, kill_after=kill_after)
        bench.clock.advance(1.0)
    # Without further faults the run goes through, in a few sendings at most.
    bench.server.planned.clear()
    bench.server.list_planned.clear()
    run, state = 0, RunState.STOPPED
    for _ in range(3):
        if state is RunState.DONE:
            break
        bench.renew()
        async with bench.ledger() as ledger:
            run = await begun(bench, ledger, fleet)
            state = await bench.sent(ledger, run)
    return bench, run, state


SECOND_BINDS = st.sampled_from(["same", "error", "refused"])


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    plans=st.lists(PLANS, max_size=25),
    list_plans=st.lists(LIST_PLANS, max_size=4),
    kills=st.lists(st.floats(0.001, 8.0), max_size=4),
    edited=st.lists(st.integers(1, ROWS), max_size=4),
    second_bind=SECOND_BINDS,
)
@example(plans=[None, LOST, LOST], list_plans=[], kills=[0.02], edited=[], second_bind="error")
@example(plans=[None, NoAnswer()], list_plans=[], kills=[6.0], edited=[], second_bind="error")
@example(plans=[None, ERRED, ERRED], list_plans=[], kills=[], edited=[], second_bind="refused")
@example(plans=[None, LOST], list_plans=[], kills=[0.03], edited=[6], second_bind="refused")
@example(plans=[ERRED, Throttled()], list_plans=[], kills=[0.5], edited=[1], second_bind="refused")
def test_every_device_is_settled_exactly_once(plans, list_plans, kills, edited, second_bind):
    """Nothing is lost or guessed, whatever is edited; only an error makes us post again."""
    with tempfile.TemporaryDirectory() as folder:
        bench, run, state = asyncio.run(
            scenario(
                Path(folder, "ledger.db"),
                plans,
                list_plans,
                kills,
                second_bind=second_bind,
                edited=edited,
            )
        )
        rows = bench.rows(run)
    held = {(user, code) for user, codes in bench.server.bindings.items() for code in codes}
    called_bound = {
        (row.user_id, row.machine_code)
        for row in rows
        if row.status in ("bound", "already_bound", "skipped")
    }

    assert state is RunState.DONE
    assert len(rows) == ROWS
    assert {row.status for row in rows} <= {"bound", "already_bound", "skipped", "failed"}
    assert called_bound == held
    assert bench.server.posted_again <= plans.count(ERRED)

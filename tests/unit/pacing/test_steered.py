"""A pacer that an operator steers while it is used."""

from __future__ import annotations

import asyncio
import math

import pytest

from bulkbind.engine import StopSignal
from bulkbind.model import Accepted, Throttled, TimeUse
from bulkbind.pacing import Pacer
from tests.support.fake_clock import FakeClock

USERS = tuple(f"u{number}" for number in range(3))


@pytest.fixture
def clock():
    """Return a clock that is turned by hand."""
    return FakeClock()


def asking(pacer, clock, given, *, is_held=False, users=(None,)):
    """Start a task that asks for permits for ever and notes when they came."""

    async def ask(user):
        while True:
            permit = await pacer.permit(user)
            given.append(clock.monotonic())
            await clock.sleep(1_000 if is_held else 0.01)
            pacer.report(permit, Accepted("", ""))

    async def all_of_them():
        await asyncio.gather(*(ask(user) for user in users))

    return asyncio.create_task(all_of_them())


async def ended(task):
    """End a task."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("per_user", [False, True])
@pytest.mark.parametrize(("before", "after"), [(0.1, 50.0), (50.0, 2.0), (None, 5.0), (5.0, None)])
async def test_another_cap_holds_within_a_second(clock, per_user, before, after):
    """Also for whoever waits for a slot of the old one, and for each user alone."""
    pacer = Pacer(clock, StopSignal(), before, per_user=per_user)
    given: list[float] = []
    users = USERS if per_user else (None,)
    task = asking(pacer, clock, given, users=users)
    await clock.sleep(1.05 if before else 0.0)
    given.clear()

    pacer.cap(after)
    await clock.sleep(1.0 if after else 0.6)
    seen = len(given)
    await clock.sleep(1.0 if after else 0.0)
    await ended(task)

    if after is None:
        assert pacer.per_s() is None
        assert seen > 20
    else:
        assert len(given) - seen == pytest.approx(after * len(users), abs=1.5 * len(users))
        assert pacer.source().endswith("set by --rate")


async def test_a_cap_never_lifts_what_the_gateway_states(clock):
    """It is told 10/s: more is never sent, and less where the operator says so."""
    pacer = Pacer(clock, StopSignal(), 5.0)
    permit = await pacer.permit()
    pacer.report(permit, Throttled(limit=10, window_s=1.0))
    await clock.sleep(2)
    permit = await pacer.permit()
    pacer.report(permit, Accepted("", ""))

    seen = []
    for cap in (2.0, 100.0, None):
        pacer.cap(cap)
        seen.append(pacer.per_s() or math.inf)

    assert seen[0] == 2.0
    assert all(9.0 < per_s <= 10.0 for per_s in seen[1:])


async def test_nothing_leaves_while_it_is_paused(clock):
    """It goes on where it was, and the time counts as a pause."""
    pacer = Pacer(clock, StopSignal(), 10.0)
    given: list[float] = []
    task = asking(pacer, clock, given)
    await clock.sleep(1.0)
    pacer.is_paused = True
    before = len(given)

    await clock.sleep(60.0)

    assert len(given) == before
    assert pacer.time.seconds(TimeUse.PAUSED) > 59.0
    pacer.is_paused = False
    await clock.sleep(1.0)
    assert len(given) - before >= 7
    await ended(task)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
async def test_another_concurrency_holds_at_once(clock, before, after):
    """As many are in flight; what is already is not called back."""
    pacer = Pacer(clock, StopSignal(), concurrency=before)
    given: list[float] = []
    tasks = [asking(pacer, clock, given, is_held=True) for _ in range(20)]
    await clock.sleep(0.1)
    first = len(given)

    pacer.widen(after)
    await clock.sleep(0.5)
    pacer.report(1, Accepted("", ""))
    await clock.sleep(0.5)

    assert first == before
    assert len(given) == (before if after < before else after + 1)
    for task in tasks:
        await ended(task)

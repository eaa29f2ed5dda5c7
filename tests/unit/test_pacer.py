from __future__ import annotations

import asyncio

import pytest

from bulkbind.engine import Pacer, StopReason, StopSignal
from bulkbind.engine.stop import DrainedError
from bulkbind.model import Accepted, NoAnswer, Throttled, Told, Unreachable
from tests.kit import FakeClock


@pytest.fixture
def clock():
    """Return a clock that is turned by hand."""
    return FakeClock()


async def moments(pacer, clock, count):
    """Ask for permits at once and return when each was given."""

    async def one():
        permit = await pacer.permit()
        at = clock.monotonic()
        pacer.report(permit, Accepted("", ""))
        return at

    return sorted(await asyncio.gather(*(one() for _ in range(count))))


async def test_permits_come_at_the_pace(clock):
    """At 10/s, 21 permits take two seconds."""
    given = await moments(Pacer(clock, StopSignal(), 10.0), clock, 21)

    assert given[-1] == pytest.approx(2.0)


async def test_after_a_429_one_probe_goes_alone(clock):
    """When the gate opens, one request goes; the others follow once it is answered."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Throttled(retry_after_s=5.0))
    probe = await pacer.permit()
    probed_at = clock.monotonic()
    others = [asyncio.create_task(pacer.permit()) for _ in range(3)]
    await clock.sleep(60)
    waiting = [task.done() for task in others]
    pacer.report(probe, Accepted("", ""))
    await asyncio.gather(*others)

    assert probed_at == 5.0
    assert waiting == [False] * 3


@pytest.mark.parametrize("verdict", [Throttled(), NoAnswer(), Unreachable()], ids=str)
async def test_a_failed_probe_closes_the_gate_again(clock, verdict):
    """A probe that does not get through lets nobody pass, and the wait grows."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Unreachable())
    pacer.report(await pacer.permit(), verdict)
    again = await pacer.permit()

    assert clock.monotonic() == pytest.approx(0.5 + 1.0)
    assert again == 2


async def test_a_forgotten_probe_makes_room_for_another(clock):
    """A probe that we break off ourselves does not lock everybody out."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Throttled(retry_after_s=1.0))
    pacer.forget(await pacer.permit())
    another = await asyncio.wait_for(pacer.permit(), 5)

    assert another == 1


async def test_a_cancelled_waiter_gives_its_turn_back(clock):
    """Whoever stops waiting costs nobody a slot."""
    pacer = Pacer(clock, StopSignal(), 1.0)
    await pacer.permit()
    first = asyncio.create_task(pacer.permit())
    second = asyncio.create_task(pacer.permit())
    for _ in range(3):
        await asyncio.sleep(0)  # noqa: TID251  # lets them begin to wait
    first.cancel()
    await second

    assert clock.monotonic() == pytest.approx(1.0)


async def test_a_stop_ends_every_wait(clock):
    """When the run stops, waiters are told that nothing may be sent; later ones at once."""
    stop = StopSignal()
    pacer = Pacer(clock, stop)
    pacer.report(await pacer.permit(), Throttled(retry_after_s=3600.0))
    waiters = [asyncio.create_task(pacer.permit()) for _ in range(4)]
    await clock.sleep(1.0)
    stop.set(StopReason("enough"))
    ends = await asyncio.gather(*waiters, return_exceptions=True)

    assert all(isinstance(end, DrainedError) for end in ends)
    assert clock.monotonic() < 3600
    with pytest.raises(DrainedError):
        await pacer.permit()


def test_what_headers_tell_is_the_pace():
    """A limit in an answer's headers is followed at once; the tightest counts, a day's does not."""
    pacer = Pacer(FakeClock(), StopSignal())
    minute = Told(600, 60.0, 599, None, "X-Apig-RateLimit-user")
    pacer.report(0, Accepted("1", ""), (minute, Told(50, 86400.0, 40, None, "X-Apig-RateLimit-ip")))

    assert pacer.per_s() == pytest.approx(9.8)
    assert pacer.source() == "told by X-Apig-RateLimit-user"


def test_a_window_that_is_not_told_is_the_longest_reset():
    """X-RateLimit has no window: the time to the reset grows up to it."""
    pacer = Pacer(FakeClock(), StopSignal())
    for reset_s in (20.0, 60.0, 3.0):
        pacer.report(0, Accepted("1", ""), (Told(600, None, 5, reset_s, "X-RateLimit"),))

    assert pacer.per_s() == pytest.approx(9.8)


def test_headers_never_lift_the_cap():
    """What the operator allows stays the most."""
    pacer = Pacer(FakeClock(), StopSignal(), 5.0)
    pacer.report(0, Accepted("1", ""), (Told(600, 1.0, 5, None, "RateLimit"),))

    assert pacer.per_s() == 5.0

from __future__ import annotations

import asyncio

import pytest

from bulkbind.engine import StopReason, StopSignal
from bulkbind.engine.stop import DrainedError
from bulkbind.model import Accepted, ServerLimit, Throttled, Unreachable
from bulkbind.pacing import Limit, Pacer
from bulkbind.pacing.traffic import KEEP_S
from bulkbind.sandbox.limiters import Bucket, Window
from tests.support.fake_clock import FakeClock

DONE = Accepted("1", "")


@pytest.fixture
def clock():
    """Return a clock that is turned by hand."""
    return FakeClock()


def pacer_for(clock, cap_per_s=None, **more):
    """Return a pacer of users."""
    return Pacer(clock, StopSignal(), cap_per_s, per_user=True, **more)


async def sent(pacer, clock, user, count, verdict=DONE):
    """Send requests for a user one after the other; return when the last one left."""
    for _ in range(count):
        pacer.report(await pacer.permit(user), verdict)
    return clock.monotonic()


async def test_a_cap_holds_for_each_user(clock):
    """At 10/s, two users' 21 requests each take two seconds, together as well as alone."""
    pacer = pacer_for(clock, 10.0)
    await asyncio.gather(*(sent(pacer, clock, user, 21) for user in ("ann", "bob")))

    assert clock.monotonic() == pytest.approx(2.0)
    assert pacer.source() == "for each user, set by --rate"


async def test_a_429_closes_the_gate_of_its_user_alone(clock):
    """Ann waits for as long as she was told; Bob does not."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "bob", 1)
    await sent(pacer, clock, "ann", 3)
    await sent(pacer, clock, "ann", 1, Throttled(retry_after_s=5.0))
    bob_at = await sent(pacer, clock, "bob", 1)
    ann_at = await sent(pacer, clock, "ann", 1)

    assert bob_at == 0.0
    assert ann_at == 5.0


async def test_what_one_user_was_told_paces_all(clock):
    """A limit is learned once: whoever comes next goes at it from the first request on."""
    pacer = pacer_for(clock)
    pacer.report(await pacer.permit("ann"), DONE, (ServerLimit(600, 60.0, 599, None, "RateLimit"),))
    took_s = -clock.monotonic() + await sent(pacer, clock, "bob", 11)

    assert took_s == pytest.approx(10 / 9.95)
    assert pacer.pace() == pytest.approx(9.95)
    assert pacer.source() == "for each user, told by RateLimit"
    assert pacer.limit() == Limit(9.95, is_spaced=False)


async def test_what_left_before_the_pace_was_known_is_counted(clock):
    """A user who has sent five when a limit of five a second is told waits for the next second."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "bob", 5)
    await sent(pacer, clock, "ann", 5)
    await sent(pacer, clock, "ann", 1, Throttled(limit=5.0, window_s=1.0))

    assert await sent(pacer, clock, "bob", 1) == pytest.approx(5 / 4.975)


async def test_nobody_searches_beside_the_guide(clock):
    """While the first one refused looks for the limit, nobody sends more than it could."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "ann", 5)
    await sent(pacer, clock, "ann", 1, Throttled())
    moments = [await sent(pacer, clock, "bob", 1) for _ in range(6)]

    assert moments[:5] == [0.0] * 5
    assert moments[5] > 0.0


async def run(pacer, clock, limiters, rows, name="user"):
    """Send *rows* for every user against a limiter each; return how many were refused."""
    refused = 0

    async def one(user, limiter):
        nonlocal refused
        left = rows
        while left:
            permit = await pacer.permit(user)
            await clock.sleep(0.005)
            if limiter.peek(clock.monotonic()).left < 1:
                refused += 1
                pacer.report(permit, Throttled())
            else:
                limiter.take(clock.monotonic())
                pacer.report(permit, DONE)
                left -= 1

    await asyncio.gather(*(one(f"{name}{n}", limiter) for n, limiter in enumerate(limiters)))
    return refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limiter", "per_s", "users"),
    [(lambda: Window(5, 1.0), 5, 20), (lambda: Bucket(20, 1.0, 20), 20, 8)],
    ids=["5/s in windows", "20/s in buckets"],
)
async def test_an_untold_limit_costs_one_search(clock, limiter, per_s, users):
    """Many users take little longer than one would, and few of their requests are refused."""
    rows = 12 * per_s
    pacer = pacer_for(clock)
    refused = await run(pacer, clock, [limiter() for _ in range(users)], rows)

    assert clock.monotonic() < 1.25 * 12
    assert refused < 0.06 * users * rows


async def test_one_user_with_a_lower_limit_does_not_hold_all_to_it(clock):
    """Where 20/s are known, a user with 2/s is refused, and waits, alone."""
    pacer = pacer_for(clock, learned=Limit(20.0, is_spaced=False))
    await sent(pacer, clock, "user0", 1)
    slow = asyncio.create_task(run(pacer, clock, [Bucket(2, 1.0, 2)], 40, "slow"))
    await run(pacer, clock, [Bucket(20, 1.0, 20) for _ in range(4)], 200)
    fast_s = clock.monotonic()
    await slow

    assert fast_s < 1.25 * 200 / 20
    assert clock.monotonic() > 40 / 2 - 2


async def test_users_with_nothing_to_do_are_forgotten(clock):
    """Twenty thousand users one after the other: the pacer knows those of the last seconds."""
    pacer = pacer_for(clock, 5.0)
    most = 0
    for number in range(20_000):
        clock.advance(0.01)
        await sent(pacer, clock, f"u{number}", 1)
        most = max(most, len(pacer.traffic.gates))

    assert most <= (KEEP_S + 1) / 0.01


async def test_users_who_were_asked_for_and_sent_nothing_are_forgotten(clock):
    """Whether a user's turn is far off is asked for many who never send."""
    pacer = pacer_for(clock, 5.0)
    for number in range(1000):
        clock.advance(0.1)
        assert not pacer.is_far(f"asked{number}")
        await sent(pacer, clock, f"sent{number}", 1)

    assert len(pacer.traffic.gates) <= 2 * (KEEP_S + 1) / 0.1


async def test_a_guide_with_nothing_left_to_send_holds_nobody(clock):
    """Where the one that looks for the limit sends no more, another one does."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "ann", 1, Throttled())
    await sent(pacer, clock, "bob", 3)

    assert clock.monotonic() < 1.0


async def test_rows_that_are_put_off_leave_one_by_one_and_keep_nobody_waiting(clock):
    """Each of a user's rows that makes way waits for a turn of its own; others have room."""
    pacer = pacer_for(clock, 0.5)
    await sent(pacer, clock, "ann", 1)
    left_at: list[float] = []

    async def leave() -> None:
        pacer.report(await pacer.permit("ann"), DONE)
        left_at.append(clock.monotonic())

    assert pacer.is_far("ann")
    assert not pacer.is_far("bob")
    put_off = [asyncio.create_task(leave()) for _ in range(3)]
    await clock.sleep(0.1)
    assert pacer.has_room()
    await asyncio.gather(*put_off)

    assert left_at == pytest.approx([2.0, 4.0, 6.0], abs=0.05)


async def test_it_is_closed_where_every_user_with_rows_has_to_wait(clock):
    """Users with rows who wait for closed gates stand still until the first one opens."""
    pacer = pacer_for(clock)
    permits = [await pacer.permit(user) for user in ("ann", "bob")]
    pacer.report(permits[0], Throttled(retry_after_s=30.0))
    waiting = [asyncio.create_task(pacer.permit("ann"))]
    await clock.sleep(0.01)
    one = pacer.closed_for_s()
    pacer.report(permits[1], Throttled(retry_after_s=90.0))
    waiting.append(asyncio.create_task(pacer.permit("bob")))
    await clock.sleep(0.01)
    both = pacer.closed_for_s()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert one == pytest.approx(30.0, abs=1.0)
    assert both == pytest.approx(30.0, abs=1.0)


async def test_a_server_that_is_away_is_away_for_all(clock):
    """Where no connection is made, one request of one user tries."""
    pacer = pacer_for(clock)
    pacer.report(await pacer.permit("ann"), Unreachable())
    tried = await pacer.permit("bob")
    waiting = asyncio.create_task(pacer.permit("ann"))
    await clock.sleep(10)
    was_done = waiting.done()
    pacer.report(tried, DONE)
    await waiting

    assert not was_done
    assert not pacer.is_far("bob")


async def test_a_gateway_that_refuses_everybody_is_known_to(clock):
    """One user who gets through shows that others are refused for themselves."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "ann", 8, Throttled())
    refused_s = pacer.refused_for_s()
    await sent(pacer, clock, "bob", 1)

    assert refused_s > 0.2
    assert pacer.refused_for_s() == 0.0


async def test_a_stop_ends_every_wait(clock):
    """When the run stops, whoever waits for a user's turn is told that nothing may be sent."""
    pacer = pacer_for(clock)
    await sent(pacer, clock, "ann", 1, Throttled(retry_after_s=3600.0))
    waiters = [asyncio.create_task(pacer.permit("ann")) for _ in range(3)]
    await clock.sleep(1.0)
    pacer._stop.set(StopReason("enough"))
    ends = await asyncio.gather(*waiters, return_exceptions=True)

    assert all(isinstance(end, DrainedError) for end in ends)
    assert pacer.traffic.gates["ann"].waiting == 0


async def test_a_cancelled_waiter_gives_its_turn_back(clock):
    """Whoever stops waiting costs its user no slot."""
    pacer = pacer_for(clock, 1.0)
    await pacer.permit("ann")
    first = asyncio.create_task(pacer.permit("ann"))
    second = asyncio.create_task(pacer.permit("ann"))
    for _ in range(3):
        await asyncio.sleep(0)  # noqa: TID251  # lets them begin to wait
    first.cancel()
    await second

    assert clock.monotonic() == pytest.approx(1.0)

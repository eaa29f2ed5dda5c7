from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bulkbind.engine import StopReason, StopSignal
from bulkbind.engine.stop import DrainedError
from bulkbind.model import Accepted, NoAnswer, ServerLimit, Throttled, TimeUse, Unreachable
from bulkbind.pacing import Left, Limit, Pacer, flight, traffic
from tests.support.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import Verdict


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
    first = await pacer.permit()
    await clock.sleep(1)
    pacer.report(first, Throttled(retry_after_s=5.0))
    probe = await pacer.permit()
    probed_at = clock.monotonic()
    others = [asyncio.create_task(pacer.permit()) for _ in range(3)]
    await clock.sleep(1)
    waiting = [task.done() for task in others]
    pacer.report(probe, Accepted("", ""))
    await asyncio.gather(*others)

    assert probed_at == 6.0
    assert waiting == [False] * 3
    assert clock.monotonic() < 8.0


async def test_a_probe_that_would_have_been_refused_by_now_has_got_through(clock):
    """429s come in 10 ms; the server works for a minute on what it lets through: others go on."""
    pacer = Pacer(clock, StopSignal())
    first = await pacer.permit()
    await clock.sleep(0.01)
    pacer.report(first, Throttled(retry_after_s=5.0))
    await pacer.permit()
    probed_at = clock.monotonic()
    await pacer.permit()

    assert clock.monotonic() - probed_at == pytest.approx(0.02)


async def test_a_probe_of_a_server_that_is_away_goes_alone_until_it_is_answered(clock):
    """Where no answer ever came, none is no sign of anything."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Unreachable())
    probe = await pacer.permit()
    other = asyncio.create_task(pacer.permit())
    await clock.sleep(600)
    was_waiting = not other.done()
    pacer.report(probe, Accepted("", ""))
    await other

    assert was_waiting


async def test_another_one_tries_a_server_that_is_away_when_the_first_is_silent(clock):
    """A try that is lost holds nobody back until its time-out; any answer lets all go."""
    pacer = Pacer(clock, StopSignal())
    first, second = await pacer.permit(), await pacer.permit()
    await clock.sleep(0.1)
    pacer.report(first, Accepted("", ""))
    pacer.report(second, Unreachable())
    lost = await pacer.permit()
    tried_at = clock.monotonic()
    await pacer.permit()
    waited_s = clock.monotonic() - tried_at
    third = asyncio.create_task(pacer.permit())
    await clock.sleep(0.1)
    was_waiting = not third.done()
    pacer.report(lost, Accepted("", ""))
    await third

    assert waited_s == pytest.approx(1.0 + 1.0)
    assert was_waiting
    assert pacer.time.now() is not TimeUse.AWAY


@pytest.mark.parametrize("verdict", [NoAnswer(), Unreachable()], ids=str)
async def test_a_failed_try_closes_the_gate_again(clock, verdict):
    """A try that does not get through lets nobody pass, and the wait grows."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Unreachable())
    pacer.report(await pacer.permit(), verdict)
    await pacer.permit()

    assert clock.monotonic() == pytest.approx(0.5 + 1.0)


async def test_an_answer_that_was_read_closes_no_gate(clock):
    """It may be none to its request, but it shows that the server is there."""
    pacer = Pacer(clock, StopSignal())
    for _ in range(50):
        pacer.report(await pacer.permit(), NoAnswer(was_read=True))

    assert not pacer.is_closed
    assert clock.monotonic() < 0.2


async def test_a_forgotten_try_makes_room_for_another(clock):
    """A try that we break off ourselves does not lock everybody out."""
    pacer = Pacer(clock, StopSignal())
    pacer.report(await pacer.permit(), Throttled(retry_after_s=1.0))
    pacer.forget(await pacer.permit())
    await asyncio.wait_for(pacer.permit(), 5)

    assert pacer.is_closed


async def test_a_permit_may_be_had_at_once_or_not_at_all(clock):
    """At 10/s one leaves at once, the next after its slot, and none while others wait in line."""
    pacer = Pacer(clock, StopSignal(), 10.0)
    first, second = pacer.try_permit(), pacer.try_permit()
    await clock.sleep(0.1)
    third = pacer.try_permit()
    waiting = asyncio.create_task(pacer.permit())
    await clock.sleep(0.01)
    while_others_wait = pacer.try_permit()
    await waiting

    assert first is not None
    assert third is not None
    assert (second, while_others_wait) == (None, None)


async def test_after_a_stop_no_permit_is_had_at_once(clock):
    """Nothing may be sent then, though the pace would allow it."""
    stop = StopSignal()
    pacer = Pacer(clock, stop)
    stop.set(StopReason("enough"))

    assert pacer.try_permit() is None


async def test_permits_forgotten_long_after_return_their_places(clock):
    """A sender that died holds four of four places; once they are forgotten, four may leave.

    Forgotten once more, or reported by nobody, they change nothing.
    """
    pacer = Pacer(clock, StopSignal(), concurrency=4)

    async def had(count: int) -> list[int | None]:
        return [pacer.try_permit() for _ in range(count) if await clock.sleep(0.01) is None]

    lost = await had(5)
    await clock.sleep(600.0)
    for permit in (*lost, *lost):
        if permit is not None:
            pacer.forget(permit)
    again = await had(5)

    assert [permit is None for permit in lost] == [False] * 4 + [True]
    assert [permit is None for permit in again] == [False] * 4 + [True]
    assert pacer.time.silent() == (0, 0.0, 0.0)


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


async def test_what_headers_tell_is_the_pace():
    """A limit in an answer's headers is followed at once; the tightest counts, a day's does not."""
    pacer = Pacer(FakeClock(), StopSignal())
    minute = ServerLimit(600, 60.0, 599, None, "X-Apig-RateLimit-user")
    pacer.report(
        await pacer.permit(),
        Accepted("1", ""),
        (minute, ServerLimit(50, 86400.0, 40, None, "X-Apig-RateLimit-ip")),
    )

    assert pacer.per_s() == pytest.approx(9.95)
    assert pacer.source() == "told by X-Apig-RateLimit-user"


async def test_a_window_that_is_not_told_is_the_longest_reset():
    """X-RateLimit has no window: the time to the reset grows up to it."""
    pacer = Pacer(FakeClock(), StopSignal())
    for reset_s in (20.0, 60.0, 3.0):
        pacer.report(
            await pacer.permit(),
            Accepted("1", ""),
            (ServerLimit(600, None, 5, reset_s, "X-RateLimit"),),
        )

    assert pacer.per_s() == pytest.approx(9.95)


async def test_headers_never_lift_the_cap():
    """What the operator allows stays the most."""
    pacer = Pacer(FakeClock(), StopSignal(), 5.0)
    pacer.report(
        await pacer.permit(), Accepted("1", ""), (ServerLimit(600, 1.0, 5, None, "RateLimit"),)
    )

    assert pacer.per_s() == 5.0


async def test_no_more_are_in_flight_than_is_useful(clock):
    """At first few requests are in flight; another one leaves when one is answered."""
    pacer = Pacer(clock, StopSignal())
    permits = [await pacer.permit() for _ in range(flight.START)]
    more = asyncio.create_task(pacer.permit())
    await clock.sleep(1.0)
    was_done = more.done()
    pacer.report(permits[0], Accepted("1", ""))
    await asyncio.wait_for(more, 5)

    assert not was_done


async def test_a_limit_in_flight_lowers_no_pace(clock):
    """429s that meet more in flight than ever got through make fewer go at once, no slower."""
    pacer = Pacer(clock, StopSignal())
    permits = [await pacer.permit() for _ in range(4)]
    for permit in permits[:2]:
        pacer.report(permit, Accepted("1", ""))
    for permit in permits[2:]:
        pacer.report(permit, Throttled())

    assert pacer.in_flight() == 2
    assert pacer.per_s() is None
    assert pacer.source() == "a limit on requests in flight"


async def test_at_a_limit_in_flight_a_bunch_is_spread(clock):
    """Answers that come together are followed by requests that do not leave together."""
    pacer = Pacer(clock, StopSignal())
    permits = [await pacer.permit() for _ in range(4)]
    await clock.sleep(0.1)
    for permit in permits[:3]:
        pacer.report(permit, Accepted("1", ""))
    pacer.report(permits[3], Throttled())
    given = [clock.monotonic() for _ in range(3) if await pacer.permit()]

    assert pacer.in_flight() == 3
    assert given[2] - given[1] == pytest.approx(flight.SPREAD * 0.1 / 3, rel=0.1)
    assert pacer.time.seconds(TimeUse.PACED) < 0.01


async def test_time_refused_and_time_paced_are_told_apart(clock):
    """A run knows for how long it kept to its pace, and for how long it was refused."""
    pacer = Pacer(clock, StopSignal(), 1.0)
    for _ in range(3):
        pacer.report(await pacer.permit(), Accepted("1", ""))
    pacer.report(await pacer.permit(), Throttled(retry_after_s=10.0))
    pacer.report(await pacer.permit(), Accepted("1", ""))

    assert pacer.time.seconds(TimeUse.PACED) == pytest.approx(3.0)
    assert pacer.time.seconds(TimeUse.CLOSED) == pytest.approx(10.0)


async def test_what_was_learned_is_for_the_next_run(clock):
    """A told or met limit is handed on; a mere `--rate` is none."""
    told, capped = Pacer(clock, StopSignal()), Pacer(clock, StopSignal(), 5.0)
    told.report(await told.permit(), Throttled(limit=60, window_s=1.0))
    capped.report(await capped.permit(), Accepted("1", ""))

    assert told.limit() == Limit(59.7, is_spaced=False)
    assert capped.limit() is None


async def test_a_gateway_that_refuses_everything_is_known_to(clock):
    """For how long nothing has got through decides whether a run waits on."""
    pacer = Pacer(clock, StopSignal())
    for _ in range(20):
        pacer.report(await pacer.permit(), Throttled())

    assert pacer.refused_for_s() == pytest.approx(clock.monotonic())


TIME_OUT_S = 30.0


class Load:
    """Requests against a server of a hundredth of a second, some of which stay silent."""

    def __init__(self, pacer, clock, is_silent, user=None):
        self.most = 0
        """In flight at once, silent ones included."""
        self.answered_at = 0.0
        """When the last one was answered."""
        self._pacer, self._clock, self._is_silent = pacer, clock, is_silent
        self._user = user
        self._out = 0

    async def run(self, count, workers):
        """Send so many, each worker one at a time; return this."""
        numbers = iter(range(count))

        async def work():
            for number in numbers:
                await self._one(number)

        await asyncio.gather(*(work() for _ in range(workers)))
        return self

    async def _one(self, number):
        permit = await self._pacer.permit(self._user)
        self._out += 1
        self.most = max(self.most, self._out)
        is_silent = self._is_silent(number)
        await self._clock.sleep(TIME_OUT_S if is_silent else 0.01)
        self._out -= 1
        if not is_silent:
            self.answered_at = self._clock.monotonic()
        self._pacer.report(permit, NoAnswer() if is_silent else Accepted("1", ""))


SILENT = {
    "one in 60": lambda number: number % 60 == 59,
    "four in a row": lambda number: 60 <= number < 64,
    "eight in a row": lambda number: 60 <= number < 68,
}


@pytest.mark.parametrize("is_silent", SILENT.values(), ids=list(SILENT))
@pytest.mark.parametrize("per_user", [False, True], ids=["one stream", "per user"])
async def test_silent_requests_hold_nobody_up(clock, per_user, is_silent):
    """480 at 60/s take 8 s and what the first silence takes to be one; the silent ones, 30 more."""
    pacer = Pacer(clock, StopSignal(), 60.0, concurrency=32, per_user=per_user)
    load = await Load(pacer, clock, is_silent, "ann").run(480, 32)

    assert load.answered_at < 8.0 + 3.0
    assert clock.monotonic() < 8.0 + 3.0 + TIME_OUT_S
    assert load.most <= flight.START + 9


@pytest.mark.parametrize("concurrency", [1, 4, 6, 32])
async def test_silent_requests_count_for_the_concurrency(clock, concurrency):
    """Where a tenth stay silent, never more are in flight than the operator allows."""
    pacer = Pacer(clock, StopSignal(), 60.0, concurrency=concurrency)
    load = await Load(pacer, clock, lambda number: number % 10 == 9).run(200, 64)

    assert load.most <= concurrency


async def test_a_server_that_falls_silent_gets_few_more(clock):
    """When all answers stay away, a few leave, and then one a second, to see."""
    pacer = Pacer(clock, StopSignal(), 60.0, concurrency=32)
    load = Load(pacer, clock, lambda number: number >= 120)
    running = asyncio.ensure_future(load.run(300, 32))
    await clock.sleep(20.0)

    assert load.answered_at == pytest.approx(2.0, abs=0.1)
    assert load.most <= 2 * flight.START + 18
    running.cancel()


@pytest.mark.slow
async def test_time_outs_of_what_left_long_ago_do_not_close_the_gate(clock):
    """Eight that fell silent together time out together: those since were answered."""
    pacer = Pacer(clock, StopSignal(), 60.0, concurrency=32)
    await Load(pacer, clock, SILENT["eight in a row"]).run(60 * 40, 32)

    assert not pacer.time.seconds(TimeUse.AWAY)
    assert pacer.time.seconds(TimeUse.CLOSED) == 0.0
    assert clock.monotonic() < 40 + 3.0


def busy(
    clock, verdicts: Sequence[Verdict] = (), rounds=600, at_once=16, *, by_groups: bool = False
):
    """Let so many leave every 2 ms, and be answered in the next round; return the pacer.

    *verdicts*: of the first ones of each of the last rounds; all others are accepted.
    *by_groups*: whether it is asked for all at once.
    """
    pacer = Pacer(clock, StopSignal(), concurrency=64)
    out: list[int] = []
    for number in range(rounds):
        clock.advance(0.002)
        first = verdicts if number > rounds - 50 else ()
        told: list[Verdict] = [*first, *[Accepted("", "")] * (0 if by_groups else len(out))]
        for permit, verdict in zip(out, told, strict=False):
            pacer.report(permit, verdict)
        if by_groups:
            pacer.passed(out[len(first) :])
            out = pacer.try_permits(at_once)
            continue
        permits = [pacer.try_permit() for _ in range(at_once)]
        out = [permit for permit in permits if permit is not None]
    for permit in out[:4]:
        pacer.report(permit, Accepted("", ""))
    return pacer


@pytest.mark.parametrize("verdicts", [(), (NoAnswer(),), (NoAnswer(was_read=True),) * 3])
def test_what_leaves_at_once_counts_as_if_each_left_alone(monkeypatch, verdicts):
    """Far from any limit, requests share what is known of them; what comes of it is the same."""
    clock = FakeClock()
    pacers = [busy(clock, verdicts, by_groups=True), busy(clock, verdicts)]
    monkeypatch.setattr(traffic, "MANY", float("inf"))
    pacers.append(busy(clock, verdicts))
    clock.advance(30.0)

    by_groups, together, alone = [
        (
            *(pacer.traffic.gate("", 0.0).number, pacer.is_closed, pacer.per_s()),
            *(pacer.flight.wide, pacer.time.silent()[0]),
        )
        for pacer in pacers
    ]
    assert by_groups == together == alone
    assert together[-1] == 12
    assert together[0] > 3000


def test_each_permit_is_another_where_silent_requests_leave_no_room():
    """More may be out then than leave along with others: none does."""
    clock = FakeClock()
    pacer = busy(clock)
    permits: list[int] = []
    for _ in range(9):
        clock.advance(3.0)
        permits += pacer.try_permits(16)

    assert len(set(permits)) == len(permits) > 16
    assert permits == sorted(permits)


def test_what_is_due_soon_may_be_had_ahead_at_the_pace(clock):
    """Each is due a slot after the one before; nothing is gained but the time until then."""
    pacer = Pacer(clock, StopSignal(), 100.0)
    taken = []
    for seconds, most, ahead_s in [
        (0, 9, 0.035), (0, 9, 0.035), (0.045, 9, 0.0), (0, 2, 0.04), (0, 9, 0.04),
    ]:  # fmt: skip
        clock.advance(seconds)
        permits = pacer.try_permits(most, ahead_s)
        pacer.passed(permits)
        taken.append(len(permits))
    pacer.is_paused = True
    clock.advance(1.0)
    taken.append(len(pacer.try_permits(9, 0.05)))

    assert taken == [4, 0, 1, 2, 2, 0]


def test_nothing_leaves_ahead_of_a_gate_that_is_closed(clock):
    """One request alone tries, once it may."""
    pacer = Pacer(clock, StopSignal(), 100.0)
    first, *others = pacer.try_permits(9, 0.05)
    pacer.report(first, Throttled(retry_after_s=0.04))
    for permit in others:
        pacer.forget(permit)

    assert pacer.try_permits(9, 0.05) == []
    assert pacer.traffic.gate("", 0.0).through == 0


async def test_what_is_mostly_under_way_to_workers_shows_no_limit_in_flight(clock):
    """Those in flight are then not those at the server; what was believed before is forgotten."""
    limits = []
    for carried_s in (0.0, 0.3):
        pacer = Pacer(clock, StopSignal(), learned=Limit(50.0, is_spaced=False))
        for _ in range(9):
            await clock.sleep(0.1)
            pacer.report(await pacer.permit(), Accepted("", ""))
        out = [await pacer.permit() for _ in range(4)]
        clock.advance(0.2)
        pacer.carried(carried_s)
        pacer.report(out[0], Accepted("", ""))
        pacer.report(out[-1], Throttled())
        limits.append(pacer.in_flight())
        pacer.carried(0.3)
        limits.append(pacer.in_flight())

    assert limits == [3, None, None, None]


def test_a_limit_is_found_as_well_where_requests_leave_at_once():
    """A 429 ends that: from then on each request is told apart."""
    clock = FakeClock()
    pacer = busy(clock)
    assert pacer.per_s() is None
    permits = [permit for _ in range(16) if (permit := pacer.try_permit()) is not None]
    clock.advance(0.002)
    for permit in permits[:4]:
        pacer.report(permit, Accepted("", ""))
    for permit in permits[4:8]:
        pacer.report(permit, Throttled(limit=5000.0, window_s=1.0))

    assert pacer.per_s() == pytest.approx(5000.0, rel=0.01)
    assert pacer.try_permit() is None


def test_what_is_left_to_others_is_told_where_it_counts():
    """Of a limit known from before; not where there is none yet, nor where --rate is less."""
    left = Left(0.5, 0.0)
    known = Limit(60.0, is_spaced=False)

    def told(*, cap_per_s=None, learned=known, left=left):
        return Pacer(FakeClock(), StopSignal(), cap_per_s, learned=learned, left=left)

    assert (told().per_s(), told().left()) == (30.0, left)
    assert told(learned=None).left() is None
    assert told(cap_per_s=20.0).left() is None
    assert told(left=Left(1.0, 0.0)).left() is None

"""The sandbox's limits over a real socket: what they let through, and when they hold."""

from __future__ import annotations

import pytest

from tests.support.fake_clock import FakeClock, HandClock
from tests.support.sandbox_client import PATH, hanging, serving, until

WORDS = "The throttling threshold has been reached"


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "amount", "window_s"),
    [
        pytest.param("2/s", "limit:2,time:1 second", 1, id="2 / 1 s"),
        pytest.param("window:2/min", "limit:2,time:1 minute", 60, id="2 / 60 s"),
        pytest.param("2/hour", "limit:2,time:1 hour", 3600, id="2 / 3600 s"),
        pytest.param("2/day,tell=text", "limit:2,time:1 day", 86_400, id="2 / 86400 s"),
    ],
)
async def test_a_window_answers_in_the_gateways_words(limit, amount, window_s):
    """As many as ordered pass in a window, then 429 with limit and window; a new window opens."""
    clock = FakeClock()

    async with serving(clock, limits=[limit]) as asker:
        clock.advance(0.25)
        answers = [await asker.list_devices() for _ in range(3)]
        clock.advance(window_s - 0.25)
        shut = await asker.statuses(1)
        clock.advance(0.25)
        open_again = await asker.statuses(3)
        stats = await asker.counts()

    assert [found for found, _ in answers] == [200, 200, 429]
    assert shut == [429]
    assert open_again == [200, 200, 429]
    assert answers[2][1] == {
        "error_code": "APIG.0308",
        "error_msg": f"{WORDS}: policy user over ratelimit,{amount}",
        "request_id": "sandbox",
    }
    assert stats == {"bindings": 0, "lists": 4, "throttled": 3}


async def test_a_sliding_window_has_no_edge():
    """Requests come free one by one, each a window after it was made, where a fixed one opens."""
    clock = FakeClock()

    async with serving(clock, limits=["sliding:2/s"]) as asker:
        found = []
        for step_s in (0, 0.5, 0.25, 0.25, 0, 0.25, 0.25):  # 0, .5, .75, 1, 1, 1.25, 1.5
            clock.advance(step_s)
            found += await asker.statuses(1)

    assert found == [200, 200, 429, 200, 429, 429, 200]


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        pytest.param("bucket:10/s", [200] * 10 + [429] * 2, id="burst is N unless given"),
        pytest.param("bucket:10/s,burst=3", [200] * 3 + [429] * 9, id="burst of 3"),
        pytest.param("bucket:10/s,burst=1", [200] + [429] * 11, id="burst of 1"),
    ],
)
async def test_a_bucket_holds_its_burst_and_refills_evenly(limit, found):
    """A full bucket goes at once; then a token comes every 100 ms, and no sooner."""
    clock = FakeClock()

    async with serving(clock, limits=[limit]) as asker:
        at_once = await asker.statuses(12)
        drips = []
        for _ in range(8):
            clock.advance(0.05)
            drips += await asker.statuses(1)

    assert at_once == found
    assert drips == [429, 200] * 4


async def test_inflight_limits_what_is_in_flight():
    """Two hang and a third is refused; once one has ended there is room again."""
    clock = HandClock()

    async with serving(clock, limits=["inflight:2"], faults=["delay-after=1,count=2"]) as asker:
        async with hanging(asker) as one, hanging(asker) as two:
            await until(lambda: len(clock.sleeps_s) == 2)
            status, answer = await asker.list_devices()
            clock.advance(1)
            ended = [(await task).status for task in (one, two)]
        after = await asker.statuses(3)

    assert (status, answer["error_msg"]) == (
        429,
        f"{WORDS}: policy user over concurrency,limit:2",
    )
    assert ended == [200, 200]
    assert after == [200, 200, 200]


async def test_inflight_forgets_who_hangs_up():
    """A request that its client gave up takes no room any more."""
    async with serving(limits=["inflight:1"], faults=["silence-after=1,count=1"]) as asker:
        async with hanging(asker):
            await until(lambda: asker.sandbox.counts["silence-after"])
            shut = await asker.statuses(1)
        await until(lambda: not asker.sandbox._in_flight)
        free = await asker.statuses(1)

    assert (shut, free) == ([429], [200])


# --- several, and when they hold -----------------------------------------------------------------


async def test_what_is_throttled_does_nothing():
    """The limit holds for binds too, and counts wrong requests as any other."""
    async with serving(limits=["1/day"]) as asker:
        await asker.bind(X_Traceid="short")
        status, _ = await asker.bind()
        stats = await asker.counts()

    assert status == 429
    assert stats == {"bindings": 0, "refused": 1, "throttled": 1}


async def test_every_limit_holds_and_a_refusal_is_charged_to_none():
    """2/s refuses within the second, 3/min later on; what 2/s refused cost the minute nothing."""
    clock = FakeClock()

    async with serving(clock, limits=["3/min", "2/s"]) as asker:
        first = await asker.reply("GET")
        found = [first.status, *await asker.statuses(3)]
        clock.advance(1)
        later = [await asker.ask("GET", PATH) for _ in range(2)]

    assert found == [200, 200, 429, 429]
    assert [status for status, _ in later] == [200, 429]
    assert later[1][1]["error_msg"].endswith("limit:3,time:1 minute")


async def test_limits_change_on_a_schedule():
    """Each holds from its own moment to its own end, counted since the start."""
    clock = FakeClock()
    limits = ["3/s,until=20s", "1/s,from=20s,until=40", "2/s,from=40s,until=1m"]

    async with serving(clock, limits=limits) as asker:
        found = []
        for step_s in (0, 19, 1, 19, 1, 19, 1):  # 0, 19, 20, 39, 40, 59, 60
            clock.advance(step_s)
            found.append((await asker.statuses(4)).count(200))

    assert found == [3, 3, 1, 1, 2, 2, 4]


async def test_a_limit_on_lists_leaves_binds_alone():
    """With on=list only lists are counted and refused; each call can have a limit of its own."""
    async with serving(limits=["2/day,on=list", "1/day,on=unbind"]) as asker:
        binds = await asker.statuses(3, "POST")
        lists = await asker.statuses(3, "GET")
        unbinds = [(await asker.unbind("7"))[0] for _ in range(2)]
        stats = await asker.counts()

    assert binds == [200, 200, 200]
    assert lists == [200, 200, 429]
    assert unbinds == [200, 429]
    assert stats["throttled"] == 2


async def test_a_limit_on_binds_leaves_lists_alone():
    """With on=bind a throttled worker can still read back."""
    async with serving(limits=["1/day,on=bind"]) as asker:
        found = await asker.statuses(2, "POST") + await asker.statuses(2, "GET")

    assert found == [200, 429, 200, 200]


@pytest.mark.parametrize(
    ("per", "found"),
    [
        pytest.param(",per=user", [200, 429, 200, 429], id="per user"),
        pytest.param("", [200, 429, 429, 429], id="one count for all"),
    ],
)
async def test_a_limit_counts_by_user_where_that_is_ordered(per, found):
    """By default the gateway's user is the caller; with per=user it is X-User-Id."""
    async with serving(limits=[f"1/day{per}"]) as asker:
        statuses = [
            status
            for user in ("user_1", "user_2")
            for status in await asker.statuses(2, X_User_Id=user)
        ]

    assert statuses == found


async def test_the_sandboxs_own_pages_are_not_limited():
    """Whoever watches it costs nobody anything."""
    async with serving(limits=["1/day"]) as asker:
        for _ in range(3):
            await asker.stats()
        found = await asker.statuses(2)

    assert found == [200, 429]

"""The sandbox's limits over a real socket: what they let through, and how they tell."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.asker import BODY, PATH, HandClock, hanging, serving, until
from tests.kit import FakeClock

WORDS = "The throttling threshold has been reached"


# --- kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "told", "window_s"),
    [
        pytest.param("2/s", "limit:2,time:1 second", 1, id="2 / 1 s"),
        pytest.param("window:2/min", "limit:2,time:1 minute", 60, id="2 / 60 s"),
        pytest.param("2/hour", "limit:2,time:1 hour", 3600, id="2 / 3600 s"),
        pytest.param("2/day,tell=text", "limit:2,time:1 day", 86_400, id="2 / 86400 s"),
    ],
)
async def test_a_window_answers_in_the_gateways_words(limit, told, window_s):
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
        "error_msg": f"{WORDS}: policy user over ratelimit,{told}",
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


async def test_inflight_limits_what_is_under_way():
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
        await until(lambda: not asker.sandbox._under_way)
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
async def test_a_limit_counts_by_user_if_told_so(per, found):
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


# --- telling -------------------------------------------------------------------------------------

RATE_FIELDS = ("retry", "limit")


def told(reply) -> dict[str, str]:
    """Return the headers of an answer that tell of a limit."""
    return {
        name: text
        for name, text in reply.headers.items()
        if any(word in name.lower() for word in RATE_FIELDS)
    }


@pytest.mark.parametrize(
    ("form", "first", "refused"),
    [
        pytest.param("text", {}, {}, id="text"),
        pytest.param("nothing", {}, {}, id="nothing"),
        pytest.param("retry-after", {}, {"Retry-After": "60"}, id="retry-after"),
        pytest.param(
            "x-ratelimit",
            {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "60"},
            {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"},
            id="x-ratelimit",
        ),
        pytest.param(
            "draft-11",
            {"RateLimit-Policy": '"default";q=2;w=60', "RateLimit": '"default";r=1;t=60'},
            {"RateLimit-Policy": '"default";q=2;w=60', "RateLimit": '"default";r=0;t=60'},
            id="draft-11",
        ),
        pytest.param(
            "draft-07",
            {"RateLimit": "limit=2, remaining=1, reset=60"},
            {"RateLimit": "limit=2, remaining=0, reset=60"},
            id="draft-07",
        ),
        pytest.param(
            "draft-03",
            {"RateLimit-Limit": "2", "RateLimit-Remaining": "1", "RateLimit-Reset": "60"},
            {"RateLimit-Limit": "2", "RateLimit-Remaining": "0", "RateLimit-Reset": "60"},
            id="draft-03",
        ),
        pytest.param(
            "apig",
            {"X-Apig-RateLimit-user": "remain:1,limit:2,time:1 minute"},
            {"X-Apig-RateLimit-user": "remain:0,limit:2,time:1 minute"},
            id="apig",
        ),
        pytest.param(
            "retry-after+draft-07",
            {"RateLimit": "limit=2, remaining=1, reset=60"},
            {"RateLimit": "limit=2, remaining=0, reset=60", "Retry-After": "60"},
            id="two forms",
        ),
    ],
)
async def test_forms_of_telling(form, first, refused):
    """A form's headers are on the success and on the 429, and no others; only text has numbers."""
    clock = FakeClock()

    async with serving(clock, limits=[f"2/min,tell={form}"]) as asker:
        replies = []
        for _ in range(3):
            replies.append(await asker.reply("GET", X_Apig_Mode="debug"))
            clock.advance(0.3)

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert told(replies[0]) == first
    assert told(replies[2]) == refused
    body = replies[2].json
    assert body["error_code"] == "APIG.0308"
    assert ("limit:2,time:1 minute" in body["error_msg"]) == (form == "text")
    assert any(sign.isdigit() for sign in body["error_msg"]) == (form == "text")


async def test_retry_after_as_a_date_is_never_too_early():
    """An IMF-fixdate on the sandbox's clock, rounded up to a second in which there is room."""
    clock = FakeClock()

    async with serving(clock, limits=["1/s,tell=retry-after-date"], clock_offset_s=7200.0) as asker:
        server_now = clock.utc_now() + timedelta(hours=2)
        clock.advance(0.25)
        date = {"X_Date": server_now.strftime("%Y%m%dT%H%M%SZ")}
        (first,) = await asker.statuses(1, **date)
        reply = await asker.reply("GET", **date)

    assert (first, reply.status) == (200, 429)
    assert parsedate_to_datetime(reply.headers["Retry-After"]) == server_now + timedelta(seconds=2)
    assert reply.headers["Retry-After"].endswith(" GMT")


async def test_seconds_to_wait_are_rounded_up():
    """0.75 s of a window left are told as 1: at that moment there is room."""
    clock = FakeClock()

    async with serving(clock, limits=["1/s,tell=retry-after+x-ratelimit"]) as asker:
        await asker.statuses(1)
        clock.advance(0.25)
        reply = await asker.reply("GET")
        clock.advance(float(reply.headers["Retry-After"]))
        then = await asker.statuses(1)

    assert (reply.headers["Retry-After"], reply.headers["X-RateLimit-Reset"]) == ("1", "1")
    assert then == [200]


async def test_apig_tells_only_who_asks_for_it():
    """As on the real gateway, the header comes only with X-Apig-Mode: debug."""
    async with serving(limits=["2/day,tell=apig"]) as asker:
        plain = [told(await asker.reply("GET")) for _ in range(3)]
        asked = told(await asker.reply("GET", X_Apig_Mode="debug"))

    assert plain == [{}, {}, {}]
    assert asked == {"X-Apig-RateLimit-user": "remain:0,limit:2,time:1 day"}


async def test_the_limit_with_least_left_speaks():
    """As requests come, first the one and then the other is nearer its end; a refusal speaks."""
    clock = FakeClock()

    async with serving(clock, limits=["5/min,tell=x-ratelimit", "3/s,tell=x-ratelimit"]) as asker:
        speakers = []
        for _ in range(2):
            for _ in range(4):
                reply = await asker.reply("GET")
                speakers.append([reply.headers[f"X-RateLimit-{x}"] for x in ("Limit", "Remaining")])
            clock.advance(1)

    assert speakers == [
        ["3", "2"], ["3", "1"], ["3", "0"], ["3", "0"],
        ["5", "1"], ["5", "0"], ["5", "0"], ["5", "0"],
    ]  # fmt: skip


async def test_a_limit_that_tells_in_headers_speaks_on_every_answer():
    """Also on refusals and faults, and where another limit is nearer its end but mute."""
    async with serving(
        limits=["9/day,tell=draft-07", "8/day"], faults=["500=1,count=1", "502=1,count=1"]
    ) as asker:
        replies = [
            await asker.reply("POST", PATH, BODY),
            await asker.reply("POST", PATH, BODY),
            await asker.reply("POST", PATH, {}),
        ]

    assert [reply.status for reply in replies] == [500, 502, 400]
    assert [reply.headers["RateLimit"].split(", ")[1] for reply in replies] == [
        "remaining=8",
        "remaining=7",
        "remaining=6",
    ]


async def test_no_more_is_told_to_be_left_than_the_limit():
    """A bucket larger than its count does not make a client think of another limit."""
    async with serving(limits=["bucket:2/day,burst=5,tell=x-ratelimit"]) as asker:
        left = [(await asker.reply("GET")).headers["X-RateLimit-Remaining"] for _ in range(6)]

    assert left == ["2", "2", "2", "1", "0", "0"]


async def test_inflight_tells_no_rate():
    """The draft has a unit for it; nobody is told a window that does not exist."""
    async with serving(limits=["inflight:3,tell=draft-11"]) as asker:
        reply = await asker.reply("GET")

    assert told(reply) == {
        "RateLimit-Policy": '"default";q=3;qu="concurrent-requests"',
        "RateLimit": '"default";r=2',
    }

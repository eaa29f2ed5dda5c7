"""How the sandbox's answers announce limits, over a real socket."""

from __future__ import annotations

from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.sandbox_client import BODY, PATH, serving

RATE_FIELDS = ("retry", "limit")


def limit_headers(reply) -> dict[str, str]:
    """Return the headers of an answer that announce a limit."""
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
        pytest.param("x-retry-after", {}, {"X-Retry-After": "1795435260"}, id="x-retry-after"),
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
async def test_forms_of_limit_headers(form, first, refused):
    """A form's headers are on the success and on the 429, and no others; only text has numbers."""
    clock = FakeClock()

    async with serving(clock, limits=[f"2/min,tell={form}"]) as asker:
        replies = []
        for _ in range(3):
            replies.append(await asker.reply("GET", X_Apig_Mode="debug"))
            clock.advance(0.3)

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert limit_headers(replies[0]) == first
    assert limit_headers(replies[2]) == refused
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
    """0.75 s of a window left become 1: at that moment there is room."""
    clock = FakeClock()

    async with serving(clock, limits=["1/s,tell=retry-after+x-ratelimit"]) as asker:
        await asker.statuses(1)
        clock.advance(0.25)
        reply = await asker.reply("GET")
        clock.advance(float(reply.headers["Retry-After"]))
        then = await asker.statuses(1)

    assert (reply.headers["Retry-After"], reply.headers["X-RateLimit-Reset"]) == ("1", "1")
    assert then == [200]


async def test_apig_comes_only_on_request():
    """As on the real gateway, the header comes only with X-Apig-Mode: debug."""
    async with serving(limits=["2/day,tell=apig"]) as asker:
        plain = [limit_headers(await asker.reply("GET")) for _ in range(3)]
        asked = limit_headers(await asker.reply("GET", X_Apig_Mode="debug"))

    assert plain == [{}, {}, {}]
    assert asked == {"X-Apig-RateLimit-user": "remain:0,limit:2,time:1 day"}


async def test_the_limit_with_least_left_is_announced():
    """As requests come, first the one and then the other has less left; a refusal shows its own."""
    clock = FakeClock()

    async with serving(clock, limits=["5/min,tell=x-ratelimit", "3/s,tell=x-ratelimit"]) as asker:
        shown = []
        for _ in range(2):
            for _ in range(4):
                reply = await asker.reply("GET")
                shown.append([reply.headers[f"X-RateLimit-{x}"] for x in ("Limit", "Remaining")])
            clock.advance(1)

    assert shown == [
        ["3", "2"], ["3", "1"], ["3", "0"], ["3", "0"],
        ["5", "1"], ["5", "0"], ["5", "0"], ["5", "0"],
    ]  # fmt: skip


async def test_a_limit_with_headers_is_on_every_answer():
    """Also on refusals and faults, and where another limit, without headers, has less left."""
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


async def test_no_more_is_announced_as_left_than_the_limit():
    """A bucket larger than its count does not make a client think of another limit."""
    async with serving(limits=["bucket:2/day,burst=5,tell=x-ratelimit"]) as asker:
        left = [(await asker.reply("GET")).headers["X-RateLimit-Remaining"] for _ in range(6)]

    assert left == ["2", "2", "2", "1", "0", "0"]


async def test_inflight_announces_no_rate():
    """The draft has a unit for it; no window is made up."""
    async with serving(limits=["inflight:3,tell=draft-11"]) as asker:
        reply = await asker.reply("GET")

    assert limit_headers(reply) == {
        "RateLimit-Policy": '"default";q=3;qu="concurrent-requests"',
        "RateLimit": '"default";r=2',
    }

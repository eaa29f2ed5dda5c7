"""What headers tell of limits, in every form, and what they cannot mean."""

from __future__ import annotations

import inspect
import time

import pytest
from hypothesis import given, strategies as st
from multidict import CIMultiDict

from bulkbind.koodrive import limit_headers
from bulkbind.koodrive.limit_headers import stated_limits
from bulkbind.koodrive.wire import Answer, request_id_of, retry_after, words_of
from bulkbind.model import ServerLimit

DATE = "Tue, 24 Nov 2026 02:00:00 GMT"
EPOCH = 1795485600  # the same moment: date -u -d '2026-11-24 02:00' +%s


def told(date=DATE, **headers):
    """Return what headers tell; underscores stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return stated_limits(CIMultiDict(named), date)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {"RateLimit_Policy": '"burst";q=100;w=60', "RateLimit": '"burst";r=50;t=30'},
            [ServerLimit(100, 60, 50, 30, "RateLimit")],
            id="draft -11",
        ),
        pytest.param(
            {
                "RateLimit_Policy": '"s";q=10;w=1, "d";q=5000;w=86400;pk=:YQ==:',
                "RateLimit": '"d";r=4000;t=3000, "s";r=9;t=1',
            },
            [
                ServerLimit(10, 1, 9, 1, "RateLimit"),
                ServerLimit(5000, 86400, 4000, 3000, "RateLimit"),
            ],
            id="draft -11, two policies",
        ),
        pytest.param(
            {"RateLimit_Policy": '"a";q=16;qu="concurrent-requests", "b";q=5;qu="requests";w=1'},
            [ServerLimit(5, 1, None, None, "RateLimit")],
            id="draft -11, other units",
        ),
        pytest.param(
            {"RateLimit": '"x";r=0;t=7'},
            [ServerLimit(None, None, 0, 7, "RateLimit")],
            id="draft -11 without policy",
        ),
        pytest.param(
            {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit_Policy": "100;w=60"},
            [ServerLimit(100, 60, 50, 5, "RateLimit")],
            id="draft -07",
        ),
        pytest.param(
            {"RateLimit": "limit=100, remaining=50, reset=5"},
            [ServerLimit(100, None, 50, 5, "RateLimit")],
            id="draft -07 without policy",
        ),
        pytest.param(
            {
                "RateLimit_Limit": "100, 100;w=60, 5000;w=3600",
                "RateLimit_Remaining": "50",
                "RateLimit_Reset": "30",
            },
            [ServerLimit(100, 60, 50, 30, "RateLimit-Limit")],
            id="draft -03",
        ),
        pytest.param(
            {
                "X_RateLimit_Limit": "60",
                "X_RateLimit_Remaining": "59",
                "X_RateLimit_Reset": "1",
            },
            [ServerLimit(60, None, 59, 1, "X-RateLimit")],
            id="X-RateLimit, seconds",
        ),
        pytest.param(
            {"X_RateLimit_Limit": "60", "X_RateLimit_Reset": str(EPOCH + 30)},
            [ServerLimit(60, None, None, 30, "X-RateLimit")],
            id="X-RateLimit, epoch",
        ),
        pytest.param(
            {"X_RateLimit_Limit": "60", "X_RateLimit_Reset": str((EPOCH + 30) * 1000)},
            [ServerLimit(60, None, None, 30, "X-RateLimit")],
            id="X-RateLimit, milliseconds",
        ),
        pytest.param(
            {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "Tue, 24 Nov 2026 02:00:30 GMT"},
            [ServerLimit(None, None, 0, 30, "X-RateLimit")],
            id="X-RateLimit, date",
        ),
        pytest.param(
            {"X_RateLimit_Limit": "60", "X_RateLimit_Reset": str(EPOCH - 30)},
            [ServerLimit(60, None, None, 0, "X-RateLimit")],
            id="X-RateLimit, the past",
        ),
        pytest.param(
            {"X_Apig_RateLimit_user": "remain:9,limit:10,time:10 second"},
            [ServerLimit(10, 10, 9, None, "X-Apig-RateLimit-user")],
            id="the gateway's own",
        ),
        pytest.param(
            {
                "X_Apig_RateLimit_api": "remain:99,limit:100,time:1 minute",
                "X_Apig_RateLimit_ip": "remain:5,limit:6,time:1 day",
            },
            [
                ServerLimit(100, 60, 99, None, "X-Apig-RateLimit-api"),
                ServerLimit(6, 86400, 5, None, "X-Apig-RateLimit-ip"),
            ],
            id="the gateway's own, two scopes",
        ),
    ],
)
def test_every_form_is_read(headers, expected):
    """Limit, window, what is left, and the time until it is whole again."""
    assert told(**headers) == tuple(expected)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X_RateLimit_Limit": "0"},
        {"X_RateLimit_Limit": "-5"},
        {"X_RateLimit_Limit": "many"},
        {"X_RateLimit_Limit": "1e9"},
        {"X_RateLimit_Limit": "10000000000"},
        {"X_RateLimit_Reset": "5"},
        {"RateLimit": ""},
        {"RateLimit": '"x";r=-1;t=7'},
        {"RateLimit_Policy": '"x";q=0;w=1'},
        {"RateLimit_Policy": '"x";q=5;w=99999999'},
        {"X_Apig_RateLimit_user": "remain:9,limit:0,time:10 second"},
        {"X_Apig_RateLimit_user": "remain:9,limit:10,time:10 fortnight"},
        {"X_Apig_RateLimit_user": "remain:9,limit:10,time:0 day"},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_ignored(headers):
    """Nothing, zero, negative numbers, a year and more, words."""
    assert told(**headers) == ()


def test_every_reader_is_asked():
    """Each function of the module that reads a kind of header is asked of every answer."""
    readers = {
        function
        for _, function in inspect.getmembers(limit_headers, inspect.isfunction)
        if inspect.signature(function).return_annotation == "Iterator[ServerLimit]"
    }

    assert readers == set(limit_headers._READERS)
    assert len(readers) >= 5


NAMES = [
    "RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
    "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Apig-RateLimit-api",
]  # fmt: skip
TEXTS = st.text(alphabet='0123456789";,=qwrt -lmimt:aefbn.\\', max_size=60)


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS), st.none() | st.just(DATE))
def test_anything_is_read_or_ignored(headers, date):
    """Whatever stands in a header, what is told is a limit that a server could mean."""
    for item in stated_limits(CIMultiDict(headers), date):
        assert item.limit is None or 0 < item.limit <= 1e9
        assert item.window_s is None or 0 < item.window_s <= 366 * 86400
        assert item.remaining is None or item.remaining >= 0
        assert item.reset_s is None or 0 <= item.reset_s <= 366 * 86400


PIECES = [
    '"', "\\", '"\\"', " ", ";", ",", "a;", ";a=", '";', "a ;", "1", "=", "limit ", "limit=",
    "remain:", "remain: 1 ", "remain:1,limit:", "RateLimit;q", "100;w=", "\t", "<",
]  # fmt: skip


def cost(text):
    """Return the least CPU time of a few looks at headers that all are this text."""
    headers = CIMultiDict(dict.fromkeys([*NAMES, "X-Apig-RateLimit-user"], text))
    least = 1e9
    for _ in range(3):
        began = time.thread_time()
        stated_limits(headers, text)
        retry_after(text, text)
        request_id_of(Answer(429, b"", request_id=text))
        words_of(Answer(429, text.encode()), None)
        least = min(least, time.thread_time() - began)
    return least


@pytest.mark.parametrize("piece", PIECES, ids=repr)
@pytest.mark.parametrize("before", ["", '"', "limit=", "remain:"], ids=repr)
def test_the_time_for_a_header_grows_with_its_length_alone(piece, before):
    """Four times the text takes about four times as long, not sixteen, whatever it repeats."""
    short, long = (before + piece * (size // len(piece)) for size in (2_000, 8_000))

    assert cost(long) < 9 * cost(short) + 1e-3

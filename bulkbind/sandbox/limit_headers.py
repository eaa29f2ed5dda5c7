"""How a limit is told: the headers and texts of gateways."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.sandbox.limiters import Standing
    from bulkbind.sandbox.spec_parser import Limit

THROTTLED_CODE = "APIG.0308"


class When(Enum):
    """Which answers a form goes on."""

    #: 429s
    REFUSED = auto()
    #: every answer
    ALWAYS = auto()
    #: every answer to a request that carries `X-Apig-Mode: debug`
    DEBUG = auto()


class Word(NamedTuple):
    """What one limit has to say after a request."""

    limit: Limit
    standing: Standing


class Form(NamedTuple):
    """A way of telling."""

    help: str
    when: When
    write: Callable[[Word, datetime], dict[str, str]]
    """Returns headers; the moment is the sandbox's UTC."""
    field: str
    """The header that it alone may write; forms with the same one exclude each other."""

    @property
    def is_header(self) -> bool:
        """Whether it goes on successes as well."""
        return self.when is not When.REFUSED


def http_date(moment: datetime) -> str:
    """Return an IMF-fixdate, the second begun. Source: RFC 9110, section 5.6.7."""
    return format_datetime(moment, usegmt=True)


def later_date(now: datetime, seconds: float) -> str:
    """Return the IMF-fixdate *seconds* after *now*, rounded up, so that it is never too early."""
    moment = now + timedelta(seconds=seconds)
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    return http_date(moment)


def headers_of(word: Word, now: datetime, *, is_refused: bool, is_debug: bool) -> dict[str, str]:
    """Return the headers in which a limit speaks.

    Args:
        word: What it has to say.
        now: The sandbox's UTC.
        is_refused: Whether the answer is a 429.
        is_debug: Whether the request carries `X-Apig-Mode: debug`.
    """
    told: dict[str, str] = {}
    for name in word.limit.tell:
        form = FORMS[name]
        if {When.REFUSED: is_refused, When.ALWAYS: True, When.DEBUG: is_debug}[form.when]:
            told |= form.write(word, now)
    return told


def refusal_of(limit: Limit) -> dict[str, object]:
    """Return the body of a 429."""
    text = "The throttling threshold has been reached"
    if "text" in limit.tell:
        window = f",time:1 {limit.unit}" if limit.unit else ""
        policy = "user over ratelimit" if limit.unit else "user over concurrency"
        text += f": policy {policy},limit:{limit.count}{window}"
    return {"error_code": THROTTLED_CODE, "error_msg": text, "request_id": "sandbox"}


def _whole(seconds: float) -> int:
    return max(0, math.ceil(seconds - 1e-9))


def _left(word: Word) -> int:
    # A bucket's burst may be larger than its count: nobody tells more left than the limit.
    return min(word.standing.left, word.limit.count)


def _nothing(_word: Word, _now: datetime) -> dict[str, str]:
    return {}


def _retry_after(word: Word, _now: datetime) -> dict[str, str]:
    return {"Retry-After": str(max(1, _whole(word.standing.reset_s)))}


def _retry_after_date(word: Word, now: datetime) -> dict[str, str]:
    return {"Retry-After": later_date(now, word.standing.reset_s)}


def _three_fields(prefix: str) -> Callable[[Word, datetime], dict[str, str]]:
    def write(word: Word, _now: datetime) -> dict[str, str]:
        return {
            f"{prefix}-Limit": str(word.limit.count),
            f"{prefix}-Remaining": str(_left(word)),
            f"{prefix}-Reset": str(_whole(word.standing.reset_s)),
        }

    return write


def _draft_07(word: Word, _now: datetime) -> dict[str, str]:
    reset = _whole(word.standing.reset_s)
    return {"RateLimit": f"limit={word.limit.count}, remaining={_left(word)}, reset={reset}"}


def _draft_11(word: Word, _now: datetime) -> dict[str, str]:
    if word.limit.unit:
        policy = f"q={word.limit.count};w={word.limit.window_s:.0f}"
        left = f"r={_left(word)};t={_whole(word.standing.reset_s)}"
    else:
        policy, left = f'q={word.limit.count};qu="concurrent-requests"', f"r={_left(word)}"
    return {"RateLimit-Policy": f'"default";{policy}', "RateLimit": f'"default";{left}'}


def _apig(word: Word, _now: datetime) -> dict[str, str]:
    window = f",time:1 {word.limit.unit}" if word.limit.unit else ""
    return {"X-Apig-RateLimit-user": f"remain:{_left(word)},limit:{word.limit.count}{window}"}


FORMS = {
    "text": Form(
        "429's body in the gateway's words, with limit and window", When.REFUSED, _nothing, ""
    ),
    "retry-after": Form(
        "Retry-After in seconds, on 429s", When.REFUSED, _retry_after, "Retry-After"
    ),
    "retry-after-date": Form(
        "Retry-After as a date, on 429s", When.REFUSED, _retry_after_date, "Retry-After"
    ),
    "x-ratelimit": Form(
        "X-RateLimit-Limit, -Remaining and -Reset (seconds), on every answer",
        When.ALWAYS,
        _three_fields("X-RateLimit"),
        "X-RateLimit",
    ),
    "draft-11": Form(
        'RateLimit: "default";r=50;t=1 with RateLimit-Policy, on every answer',
        When.ALWAYS,
        _draft_11,
        "RateLimit",
    ),
    "draft-07": Form(
        "RateLimit: limit=60, remaining=50, reset=1, on every answer",
        When.ALWAYS,
        _draft_07,
        "RateLimit",
    ),
    "draft-03": Form(
        "RateLimit-Limit, -Remaining and -Reset, on every answer",
        When.ALWAYS,
        _three_fields("RateLimit"),
        "RateLimit",
    ),
    "apig": Form(
        "X-Apig-RateLimit-user, on answers to requests with X-Apig-Mode: debug",
        When.DEBUG,
        _apig,
        "X-Apig-RateLimit-user",
    ),
    "nothing": Form("429 without numbers and without headers", When.REFUSED, _nothing, ""),
}
"""Source of drafts 03, 07 and 11: draft-ietf-httpapi-ratelimit-headers; of `apig`: Huawei Cloud
APIG, request throttling."""

"""Announce limits in answers, with the headers and texts of gateways."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from email.utils import format_datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.sandbox.device_api import Refusal, gateway_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.sandbox.limiters import Admission, LimitState
    from bulkbind.sandbox.specs import LimitSpec


class When(Enum):
    """Which answers a form is used on."""

    #: 429s
    REFUSED = auto()
    #: every answer
    ALWAYS = auto()
    #: every answer to a request that carries `X-Apig-Mode: debug`
    DEBUG = auto()


class Form(NamedTuple):
    """A way to announce a limit."""

    help: str
    when: When
    write: Callable[[LimitState, datetime], dict[str, str]]
    """Returns headers; its second argument is the sandbox's UTC."""
    field: str
    """The header that it writes; forms with the same one exclude each other."""


def http_date(moment: datetime) -> str:
    """Return an IMF-fixdate, rounded down. Source: RFC 9110, section 5.6.7."""
    return format_datetime(moment, usegmt=True)


def later_date(now: datetime, seconds: float) -> str:
    """Return the IMF-fixdate *seconds* after *now*, rounded up."""
    moment = now + timedelta(seconds=seconds)
    if moment.microsecond:
        moment = moment.replace(microsecond=0) + timedelta(seconds=1)
    return http_date(moment)


def headers_of(admission: Admission, now: datetime, *, is_debug: bool) -> dict[str, str]:
    """Return the headers of one limit: the one that refused, or that has the least left.

    *now*: the sandbox's UTC; *is_debug*: whether the request has `X-Apig-Mode: debug`.
    """
    state = announced(admission)
    if state is None:
        return {}
    is_on = {
        When.REFUSED: admission.refused_by is not None,
        When.ALWAYS: True,
        When.DEBUG: is_debug,
    }
    headers: dict[str, str] = {}
    for form in (FORMS[name] for name in state.limit.tell):
        if is_on[form.when]:
            headers |= form.write(state, now)
    return headers


def announced(admission: Admission) -> LimitState | None:
    """Return the limit to announce in an answer, or None."""
    if admission.refused_by is not None:
        return admission.refused_by
    with_headers = (
        state
        for state in admission.charged_to
        if any(FORMS[name].when is not When.REFUSED for name in state.limit.tell)
    )
    return min(with_headers, key=lambda state: state.standing.left, default=None)


def throttled(limit: LimitSpec) -> Refusal:
    """Return the 429 of a limit."""
    text = "The throttling threshold has been reached"
    if "text" in limit.tell:
        policy = "user over ratelimit" if limit.unit else "user over concurrency"
        text += f": policy {policy},limit:{_amount(limit)}"
    return gateway_refusal(429, "APIG.0308", text)


def _amount(limit: LimitSpec) -> str:
    return f"{limit.count},time:1 {limit.unit}" if limit.unit else str(limit.count)


def _whole(seconds: float) -> int:
    return max(0, math.ceil(seconds - 1e-9))


def _left(state: LimitState) -> int:
    # A bucket's burst may exceed its count, but no gateway announces more than the limit.
    return min(state.standing.left, state.limit.count)


def _nothing(_state: LimitState, _now: datetime) -> dict[str, str]:
    return {}


def _retry_after(state: LimitState, _now: datetime) -> dict[str, str]:
    return {"Retry-After": str(max(1, _whole(state.standing.reset_s)))}


def _retry_after_date(state: LimitState, now: datetime) -> dict[str, str]:
    return {"Retry-After": later_date(now, state.standing.reset_s)}


def _x_retry_after(state: LimitState, now: datetime) -> dict[str, str]:
    return {"X-Retry-After": str(math.ceil(now.timestamp() + state.standing.reset_s))}


def _three_fields(prefix: str) -> Callable[[LimitState, datetime], dict[str, str]]:
    def write(state: LimitState, _now: datetime) -> dict[str, str]:
        return {
            f"{prefix}-Limit": str(state.limit.count),
            f"{prefix}-Remaining": str(_left(state)),
            f"{prefix}-Reset": str(_whole(state.standing.reset_s)),
        }

    return write


def _draft_07(state: LimitState, _now: datetime) -> dict[str, str]:
    reset = _whole(state.standing.reset_s)
    return {"RateLimit": f"limit={state.limit.count}, remaining={_left(state)}, reset={reset}"}


def _draft_11(state: LimitState, _now: datetime) -> dict[str, str]:
    if state.limit.unit:
        policy = f"q={state.limit.count};w={state.limit.window_s:.0f}"
        left = f"r={_left(state)};t={_whole(state.standing.reset_s)}"
    else:
        policy, left = f'q={state.limit.count};qu="concurrent-requests"', f"r={_left(state)}"
    return {"RateLimit-Policy": f'"default";{policy}', "RateLimit": f'"default";{left}'}


def _apig(state: LimitState, _now: datetime) -> dict[str, str]:
    return {"X-Apig-RateLimit-user": f"remain:{_left(state)},limit:{_amount(state.limit)}"}


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
    "x-retry-after": Form(
        "X-Retry-After in seconds since 1970, on 429s",
        When.REFUSED,
        _x_retry_after,
        "X-Retry-After",
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

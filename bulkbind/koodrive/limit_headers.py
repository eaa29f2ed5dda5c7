"""Parse the limits that headers state. Pure; implausible values are ignored.

Sources: dependencies.md, traps 9 and 10: the IETF draft "RateLimit header fields for HTTP" in its
current form (-11) and earlier ones (-07, -03 to -06), the X-RateLimit-* convention, and the
gateway's X-Apig-RateLimit-*.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bulkbind.clock import DAY_S, UNITS_S
from bulkbind.koodrive.wire import number, seconds_until
from bulkbind.model import ServerLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MOST_REQUESTS = 1e9
LONGEST_WINDOW_S = 366 * DAY_S
"""Larger numbers are ignored."""

_APIG = re.compile(
    rf"remain:\s*(\d+)\s*,\s*limit:\s*(\d+)\s*,\s*time:\s*(\d+)\s*({'|'.join(UNITS_S)})",
    re.ASCII | re.IGNORECASE,
)


def stated_limits(headers: Mapping[str, str], date: str | None) -> tuple[ServerLimit, ...]:
    """Return the limits that the headers of an answer state; empty if none.

    *date*: the answer's Date, against which moments are measured.
    """
    found = (stated for read in _READERS for stated in read(headers, date))
    return tuple(stated for stated in found if _is_plausible(stated))


def _is_plausible(stated: ServerLimit) -> bool:
    limit, window, left, reset = stated.limit, stated.window_s, stated.remaining, stated.reset_s
    return (
        (limit is not None or left is not None)
        and (limit is None or 0 < limit <= MOST_REQUESTS)
        and (window is None or 0 < window <= LONGEST_WINDOW_S)
        and (left is None or 0 <= left <= MOST_REQUESTS)
        and (reset is None or 0 <= reset <= LONGEST_WINDOW_S)
    )


def _items(text: str | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the items of a structured list with their parameters: `"burst";q=100;w=60, …`."""
    for item in _split(text or "", ","):
        name, *parameters = map(str.strip, _split(item, ";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield _unquoted(name), {key: _unquoted(value) for key, equals, value in pairs if equals}


def _split(text: str, mark: str) -> Iterator[str]:
    """Yield what stands between marks that are not quoted, in one pass."""
    begin, is_quoted, is_escaped = 0, False, False
    for at, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif character == '"':
            is_quoted = not is_quoted
        elif is_quoted:
            is_escaped = character == "\\"
        elif character == mark:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _draft(headers: Mapping[str, str], _date: str | None) -> Iterator[ServerLimit]:
    """-08 to -11: `RateLimit-Policy: "p";q=100;w=60` with `RateLimit: "p";r=50;t=30`."""
    remaining = {n: p for n, p in _items(headers.get("RateLimit")) if "r" in p}
    policies = {n: p for n, p in _items(headers.get("RateLimit-Policy")) if "q" in p}
    for name in [*policies, *(name for name in remaining if name not in policies)]:
        policy, now = policies.get(name, {}), remaining.get(name, {})
        if "qu" in policy and policy["qu"] != "requests":
            continue  # a limit of bytes, or of requests in flight
        yield ServerLimit(
            limit=number(policy.get("q")),
            window_s=number(policy.get("w")),
            remaining=number(now.get("r")),
            reset_s=number(now.get("t")),
            source="RateLimit",
        )


def _draft_07(headers: Mapping[str, str], _date: str | None) -> Iterator[ServerLimit]:
    """-07: `RateLimit: limit=100, remaining=50, reset=5`, `RateLimit-Policy: 100;w=60`."""
    values = dict(
        re.findall(r"\b(limit|remaining|reset)\s*=\s*(\d+)", headers.get("RateLimit", ""))
    )
    if values:
        limit = number(values.get("limit"))
        yield ServerLimit(
            limit=limit,
            window_s=_window(headers.get("RateLimit-Policy"), limit),
            remaining=number(values.get("remaining")),
            reset_s=number(values.get("reset")),
            source="RateLimit",
        )


def _draft_03(headers: Mapping[str, str], _date: str | None) -> Iterator[ServerLimit]:
    """-03 to -06: three fields; the limit may carry policies, `100, 100;w=60`."""
    text = headers.get("RateLimit-Limit")
    left = number(headers.get("RateLimit-Remaining"))
    if text is not None or left is not None:
        limit = number((text or "").partition(",")[0].partition(";")[0])
        policies = headers.get("RateLimit-Policy") or (text or "").partition(",")[2]
        reset = number(headers.get("RateLimit-Reset"))
        yield ServerLimit(limit, _window(policies, limit), left, reset, "RateLimit-Limit")


def _window(policies: str | None, limit: float | None) -> float | None:
    """Return the window of the policy with this limit: `100;w=60`."""
    for name, parameters in _items(policies):
        if number(name) == limit and "w" in parameters:
            return number(parameters["w"])
    return None


def _x_ratelimit(headers: Mapping[str, str], date: str | None) -> Iterator[ServerLimit]:
    limit = number(headers.get("X-RateLimit-Limit"))
    left = number(headers.get("X-RateLimit-Remaining"))
    if limit is not None or left is not None:
        reset = seconds_until(headers.get("X-RateLimit-Reset"), date)
        reset = None if reset is None else max(0.0, reset)
        yield ServerLimit(limit, None, left, reset, "X-RateLimit")


def _apig(headers: Mapping[str, str], _date: str | None) -> Iterator[ServerLimit]:
    """`X-Apig-RateLimit-user: remain:9,limit:10,time:10 second`, for api, user, app and ip."""
    for scope in ("api", "user", "app", "ip"):
        match = _APIG.search(headers.get(f"X-Apig-RateLimit-{scope}", ""))
        if match is not None:
            yield ServerLimit(
                limit=number(match[2]),
                window_s=float(match[3]) * UNITS_S[match[4].lower()],
                remaining=number(match[1]),
                reset_s=None,
                source=f"X-Apig-RateLimit-{scope}",
            )


_READERS: tuple[Callable[[Mapping[str, str], str | None], Iterator[ServerLimit]], ...] = (
    _draft,
    _draft_07,
    _draft_03,
    _x_ratelimit,
    _apig,
)

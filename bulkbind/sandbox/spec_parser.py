"""What a sandbox can be told to be, and how limits and faults are written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from bulkbind.sandbox.credentials import Credentials
from bulkbind.sandbox.faults import COMMON_KEYS, KINDS
from bulkbind.sandbox.limit_headers import FORMS
from bulkbind.sandbox.specs import (
    Call,
    Period,
    check_keys,
    parse_call,
    parse_period,
    parse_span,
    parse_time,
    parse_whole,
    pick,
    split_spec,
)

if TYPE_CHECKING:
    from pathlib import Path

_SECOND, _MINUTE, _HOUR, _DAY = (
    ("second", 1.0),
    ("minute", 60.0),
    ("hour", 3600.0),
    ("day", 86400.0),
)
_UNITS = {
    **dict.fromkeys(("s", "second"), _SECOND),
    **dict.fromkeys(("m", "min", "minute"), _MINUTE),
    **dict.fromkeys(("h", "hour"), _HOUR),
    **dict.fromkeys(("d", "day"), _DAY),
}
_RATE = re.compile(r"(\d{1,9})/([a-z]+)", re.ASCII)
_HOW_RATES_ARE_WRITTEN = "write 60/s, 600/min, 1000/hour or 5000/day"


class LimitKind(StrEnum):
    """How a limit counts."""

    #: windows of fixed length, each begun by its first request
    WINDOW = "window"
    #: never more than N in any stretch of that length
    SLIDING = "sliding"
    #: tokens that trickle in
    BUCKET = "bucket"
    #: requests at the same time
    IN_FLIGHT = "inflight"


LIMIT_HELP = {
    LimitKind.WINDOW: "window:60/s, or 60/s   fixed windows, each begun by its first request",
    LimitKind.SLIDING: "sliding:600/min        never more than 600 in any 60 seconds",
    LimitKind.BUCKET: "bucket:100/s,burst=20  token bucket; burst=1 is strict spacing  [burst: N]",
    LimitKind.IN_FLIGHT: "inflight:16            at most 16 requests at the same time",
}
"""A line for each kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit; `parse_limit` makes one."""

    kind: LimitKind
    count: int
    """Requests per window, tokens per window, or requests at the same time."""
    unit: str
    """`second`, `minute`, `hour` or `day`; empty: requests at the same time."""
    window_s: float
    """The unit's length; 0: requests at the same time."""
    burst: int
    """Size of a bucket; other kinds do not look at it."""
    tell: tuple[str, ...]
    """Names of `FORMS`."""
    period: Period
    on: Call
    is_per_user: bool
    """Whether every X-User-Id has a count of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault; `parse_fault` makes one."""

    name: str
    """A name of `KINDS`."""
    probability: float
    count: int | None
    """Strikes at most so often; None: without end."""
    period: Period
    on: Call
    for_s: float
    """What it means depends on the kind; 0 where a kind has no such thing."""
    code: str | None
    """Business code to answer with; None: the kind's own."""


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The defaults are a gateway without limits or faults."""

    limits: tuple[Limit, ...] = ()
    """All that are in force apply to a request."""
    faults: tuple[Fault, ...] = ()
    """Of those that strike, the first decides."""
    second_bind: Literal["same", "error"] = "same"
    """What a second bind of a device answers: the same record, or code 13000310."""
    token: str | None = None
    """The only token that is accepted; None: any, or what `credentials` has."""
    credentials: Credentials = field(default_factory=Credentials)
    """Tokens, sessions, accounts and apps; empty: any token."""
    tls: bool = False
    """Serve https, with a certificate of a throwaway authority."""
    state: Path | None = None
    """Bindings are kept in this file; None: in memory."""
    journal: Path | None = None
    """One JSON line per request; None: none."""
    seed: int | None = None
    """Repeats the same faults; None: others every time."""
    clock_offset_s: float = 0.0
    """How far the sandbox's clock is ahead of the machine's; negative: behind."""


def parse_limit(text: str) -> Limit:
    """Return a limit written `[KIND:]N/UNIT[,KEY=VALUE...]`, e.g. `bucket:100/s,burst=20`.

    Keys: `tell`, `from`, `until`, `on`, `per`, and `burst` for a bucket.

    Raises: ValueError for anything else; it names the text, what is wrong and what is allowed.
    """
    try:
        return _limit(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no limit: {error}") from None


def parse_fault(text: str) -> Fault:
    """Return a fault written `NAME=PROBABILITY[,KEY=VALUE...]`, e.g. `reset-after=0.03,count=2`.

    Keys: `count`, `from`, `until`, `on`, and `for` or `code` where the fault has one (see `KINDS`).

    Raises: ValueError for anything else; it names the text, what is wrong and what is allowed.
    """
    try:
        return _fault(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no fault: {error}") from None


def _limit(text: str) -> Limit:
    head, keys = split_spec(text)
    name, colon, amount = head.rpartition(":")
    kind = LimitKind(pick(name, LimitKind, "kind of limit")) if colon else LimitKind.WINDOW
    if kind is LimitKind.IN_FLIGHT:
        count, unit, window_s = parse_whole("inflight", amount), "", 0.0
    else:
        count, unit, window_s = _rate(amount)
    burst = ("burst",) if kind is LimitKind.BUCKET else ()
    check_keys(keys, ("tell", "from", "until", "on", "per", *burst), f"{kind} limits")
    if "per" in keys:
        pick(keys["per"], ("user",), "way to count")
    return Limit(
        kind=kind,
        count=count,
        unit=unit,
        window_s=window_s,
        burst=parse_whole("burst", keys["burst"]) if "burst" in keys else count,
        tell=_forms(keys.get("tell", "text")),
        period=parse_period(keys),
        on=parse_call(keys, Call.ALL),
        is_per_user="per" in keys,
    )


def _rate(text: str) -> tuple[int, str, float]:
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) == 0 or match[2] not in _UNITS:
        raise ValueError(_HOW_RATES_ARE_WRITTEN)
    return (int(match[1]), *_UNITS[match[2]])


def _forms(text: str) -> tuple[str, ...]:
    names = tuple(pick(part.strip(), FORMS, "form of telling") for part in text.split("+"))
    if "nothing" in names and len(names) > 1:
        raise ValueError("`nothing` stands alone in `tell`")
    fields = [FORMS[name].field for name in names if FORMS[name].field]
    for name in names:
        if fields.count(FORMS[name].field) > 1:
            raise ValueError(f"only one form in `tell` can write {FORMS[name].field}")
    return names


def _fault(text: str) -> Fault:
    head, keys = split_spec(text)
    name, equals, share = (part.strip() for part in head.partition("="))
    kind = KINDS[pick(name, KINDS, "name of a fault")]
    if not equals:
        raise ValueError(f"write it with its probability, from 0 to 1: {name}=0.05")
    check_keys(keys, COMMON_KEYS + kind.keys, name)
    on = parse_call(keys, Call.BIND)
    if kind.is_for_binds and on is not Call.BIND:
        raise ValueError(f"{name} strikes binds only, so `on` cannot be {on}")
    for_s = kind.for_s or 0.0
    if "for" in keys:
        read = parse_time(keys["for"]) if kind.takes_negative else parse_span("for", keys["for"])
        for_s = read
    return Fault(
        name=name,
        probability=_probability(share),
        count=parse_whole("count", keys["count"]) if "count" in keys else None,
        period=parse_period(keys),
        on=on,
        for_s=for_s,
        code=keys.get("code"),
    )


def _probability(text: str) -> float:
    try:
        probability = float(text)
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"its probability must be a number from 0 to 1, but is {text!r}")
    return probability

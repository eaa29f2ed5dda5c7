"""Parse limits and faults as written on the command line: `HEAD,KEY=VALUE,…`."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

from bulkbind.clock import DAY_S, UNIT_NAMES, UNITS_S
from bulkbind.sandbox.faults import COMMON_KEYS, KINDS
from bulkbind.sandbox.limit_announcements import FORMS
from bulkbind.sandbox.specs import Call, FaultSpec, LimitKind, LimitSpec, Period
from bulkbind.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_S = 36_500 * DAY_S
"""A hundred years, so that dates stay in the range of `datetime`."""

_RATE = re.compile(r"(\d{1,9})/([a-z]+)", re.ASCII)


def parse_limit(text: str) -> LimitSpec:
    """Parse a limit, `[KIND:]N/UNIT[,KEY=VALUE...]`, e.g. `bucket:100/s,burst=20`.

    Keys: `tell`, `from`, `until`, `on`, `per`, and `burst` for a bucket.

    Raises: ValueError for anything else, with the text, what is wrong and what is allowed.
    """
    try:
        return _limit(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no limit: {error}") from None


def parse_fault(text: str) -> FaultSpec:
    """Parse a fault, `NAME=PROBABILITY[,KEY=VALUE...]`, e.g. `reset-after=0.03,count=2`.

    Keys: `count`, `from`, `until`, `on`, and `for` or `code` if the fault has it (see `KINDS`).

    Raises: as `parse_limit`.
    """
    try:
        return _fault(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no fault: {error}") from None


def parse_time(text: str) -> float:
    """Parse `90s`, `5m`, `2h`, `250ms` or a number, optionally negative; return seconds.

    Raises: ValueError for anything else, and for more than a hundred years.
    """
    bare = text.strip()
    try:
        seconds = parse_duration(bare.removeprefix("-"))
    except ValueError:
        seconds = math.inf
    if seconds > LONGEST_S:
        raise ValueError(f"{text!r} is no time: write 90s, 5m, 2h, 250ms or a number of seconds")
    return -seconds if bare.startswith("-") else seconds


def _limit(text: str) -> LimitSpec:
    head, keys = _split(text)
    name, colon, amount = head.rpartition(":")
    kind = LimitKind(_pick(name, LimitKind, "kind of limit")) if colon else LimitKind.WINDOW
    if kind is LimitKind.IN_FLIGHT:
        count, unit, window_s = _whole("inflight", amount), "", 0.0
    else:
        count, unit, window_s = _rate(amount)
    burst = ("burst",) if kind is LimitKind.BUCKET else ()
    _check_keys(keys, ("tell", "from", "until", "on", "per", *burst), f"{kind} limits")
    if "per" in keys:
        _pick(keys["per"], ("user",), "way to count")
    return LimitSpec(
        kind=kind,
        count=count,
        unit=unit,
        window_s=window_s,
        burst=_whole("burst", keys["burst"]) if "burst" in keys else count,
        tell=_forms(keys.get("tell", "text")),
        period=_period(keys),
        on=_call(keys, Call.ALL),
        is_per_user="per" in keys,
    )


def _rate(text: str) -> tuple[int, str, float]:
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) == 0 or match[2] not in UNIT_NAMES:
        raise ValueError("write 60/s, 600/min, 1000/hour or 5000/day")
    unit = UNIT_NAMES[match[2]]
    return int(match[1]), unit, UNITS_S[unit]


def _forms(text: str) -> tuple[str, ...]:
    names = tuple(_pick(part.strip(), FORMS, "form of telling") for part in text.split("+"))
    if "nothing" in names and len(names) > 1:
        raise ValueError("`nothing` stands alone in `tell`")
    fields = [FORMS[name].field for name in names if FORMS[name].field]
    for field in fields:
        if fields.count(field) > 1:
            raise ValueError(f"only one form in `tell` can write {field}")
    return names


def _fault(text: str) -> FaultSpec:
    head, keys = _split(text)
    name, equals, share = (part.strip() for part in head.partition("="))
    kind = KINDS[_pick(name, KINDS, "name of a fault")]
    if not equals:
        raise ValueError(f"write it with its probability, from 0 to 1: {name}=0.05")
    _check_keys(keys, COMMON_KEYS + kind.keys, name)
    on = _call(keys, Call.LIST if kind.is_for_lists else Call.BIND)
    if kind.is_for_binds and on is not Call.BIND:
        raise ValueError(f"{name} strikes binds only, so `on` cannot be {on}")
    if kind.is_for_lists and on is not Call.LIST:
        raise ValueError(f"{name} strikes lists only, so `on` cannot be {on}")
    for_s = kind.for_s or 0.0
    if "for" in keys:
        for_s = parse_time(keys["for"]) if kind.takes_negative else _span("for", keys["for"])
    return FaultSpec(
        name=name,
        probability=_probability(share),
        count=_whole("count", keys["count"]) if "count" in keys else None,
        period=_period(keys),
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


# --- what limits and faults have in common --------------------------------------------------------


def _split(text: str) -> tuple[str, dict[str, str]]:
    head, *pairs = (part.strip() for part in text.split(","))
    keys: dict[str, str] = {}
    for pair in pairs:
        key, _, value = (part.strip() for part in pair.partition("="))
        if not key or not value:
            raise ValueError(f"`{pair}` must be KEY=VALUE")
        if key in keys:
            raise ValueError(f"`{key}` is given twice")
        keys[key] = value
    return head, keys


def _check_keys(keys: Iterable[str], allowed: tuple[str, ...], owner: str) -> None:
    for key in keys:
        if key not in allowed:
            listed = ", ".join(allowed)
            raise ValueError(f"`{key}` is no key of {owner}{_guess(key, allowed)}; it has {listed}")


def _pick(name: str, allowed: Iterable[str], what: str) -> str:
    names = tuple(allowed)
    if name not in names:
        listed = ", ".join(names)
        raise ValueError(f"`{name}` is no {what}{_guess(name, names)}; there are {listed}")
    return name


def _guess(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _span(key: str, text: str) -> float:
    seconds = parse_time(text)
    if seconds < 0:
        raise ValueError(f"`{key}` must not be negative, but is {text}")
    return seconds


def _whole(key: str, text: str) -> int:
    number = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    if number == 0:
        raise ValueError(f"`{key}` must be a whole number from 1 to 999999999, but is {text}")
    return number


def _period(keys: Mapping[str, str]) -> Period:
    from_s = _span("from", keys.get("from", "0"))
    until_s = _span("until", keys["until"]) if "until" in keys else math.inf
    if until_s <= from_s:
        raise ValueError(f"`until` ({until_s:g}s) must be later than `from` ({from_s:g}s)")
    return Period(from_s, until_s)


def _call(keys: Mapping[str, str], default: Call) -> Call:
    return Call(_pick(keys.get("on", default), Call, "call for `on`"))

"""What limits and faults have in common: calls, periods, and `HEAD,KEY=VALUE,…` as their form."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from bulkbind.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_S = 36_500 * 86_400.0
"""A hundred years; dates stay within what a `datetime` can hold."""


class Call(StrEnum):
    """What a limit or a fault is about."""

    #: POST
    BIND = "bind"
    #: GET
    LIST = "list"
    #: DELETE
    UNBIND = "unbind"
    #: any of them
    ALL = "all"

    def covers(self, call: Call) -> bool:
        """Return whether *call* is meant by this."""
        return self in (Call.ALL, call)


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of the sandbox's life, in seconds since it started."""

    from_s: float
    until_s: float
    """The first moment that is out of it; infinite: it never ends."""

    def holds(self, elapsed_s: float) -> bool:
        """Return whether a moment lies in it."""
        return self.from_s <= elapsed_s < self.until_s


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """Return the head and the keys of `HEAD,KEY=VALUE,…`. Raises: ValueError."""
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


def check_keys(keys: Iterable[str], allowed: tuple[str, ...], owner: str) -> None:
    """Raise ValueError for a key that does not belong to *owner*."""
    for key in keys:
        if key not in allowed:
            listed = ", ".join(allowed)
            raise ValueError(f"`{key}` is no key of {owner}{_guess(key, allowed)}; it has {listed}")


def pick(name: str, allowed: Iterable[str], what: str) -> str:
    """Return *name*. Raises: ValueError if it is not among the *allowed* names of *what*."""
    names = tuple(allowed)
    if name not in names:
        listed = ", ".join(names)
        raise ValueError(f"`{name}` is no {what}{_guess(name, names)}; there are {listed}")
    return name


def parse_time(text: str) -> float:
    """Return the seconds of `90s`, `5m`, `2h`, `250ms`, a bare number, or any of them after `-`.

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


def parse_span(key: str, text: str) -> float:
    """Return the seconds of a time that must not be negative. Raises: ValueError."""
    seconds = parse_time(text)
    if seconds < 0:
        raise ValueError(f"`{key}` must not be negative, but is {text}")
    return seconds


def parse_whole(key: str, text: str) -> int:
    """Return a whole number from 1 to 999,999,999. Raises: ValueError."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0  # noqa: PLR2004  # as the docstring says
    if number == 0:
        raise ValueError(f"`{key}` must be a whole number from 1 to 999999999, but is {text}")
    return number


def parse_period(keys: Mapping[str, str]) -> Period:
    """Return the period of the keys `from` and `until`. Raises: ValueError."""
    from_s = parse_span("from", keys.get("from", "0"))
    until_s = parse_span("until", keys["until"]) if "until" in keys else math.inf
    if until_s <= from_s:
        raise ValueError(f"`until` ({until_s:g}s) must be later than `from` ({from_s:g}s)")
    return Period(from_s, until_s)


def parse_call(keys: Mapping[str, str], default: Call) -> Call:
    """Return the call of the key `on`. Raises: ValueError."""
    return Call(pick(keys.get("on", default), Call, "call for `on`"))


def _guess(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, tuple(names), n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""

"""The units of time, and the only module that reads the operating system's clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

UNITS_S = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
"""The units of time by name, in seconds, the smallest first."""
UNIT_NAMES = {unit: unit for unit in UNITS_S}
UNIT_NAMES |= {"s": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day"}
"""The same by all names that people type."""
MINUTE_S, HOUR_S, DAY_S = UNITS_S["minute"], UNITS_S["hour"], UNITS_S["day"]


class Clock(Protocol):
    """A source of time; tests use one that they advance themselves."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary fixed time; never decreases."""

    def utc_now(self) -> datetime:
        """Return the local machine's UTC time, timezone-aware."""

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*; 0 or less only yields to the event loop."""


class SystemClock:
    """The operating system's clock."""

    monotonic = staticmethod(time.monotonic)

    def utc_now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)  # noqa: TID251  # this module is where time comes from

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(max(0.0, seconds))  # noqa: TID251  # as above


def iso(moment: datetime) -> str:
    """Return *moment* as `2026-11-23T20:44:03.123Z` (UTC, milliseconds)."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@lru_cache(maxsize=64)  # what is bound within a second mostly has the same
def epoch_of(text: str) -> float | None:
    """Return the seconds since 1970 of an ISO 8601 time with a zone, or None if it is not one.

    Letters may be small (RFC 3339, section 5.6).
    """
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None

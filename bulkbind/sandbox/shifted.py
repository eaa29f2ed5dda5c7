"""The sandbox's clock, which may be wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from bulkbind.clock import Clock


class ShiftedClock:
    """Another clock, its UTC off by a fixed time."""

    def __init__(self, clock: Clock, offset_s: float) -> None:
        self._clock = clock
        self._offset = timedelta(seconds=offset_s)

    def monotonic(self) -> float:
        """Return the other clock's monotonic seconds."""
        return self._clock.monotonic()

    def utc_now(self) -> datetime:
        """Return the other clock's UTC and the offset."""
        return self._clock.utc_now() + self._offset

    async def sleep(self, seconds: float) -> None:
        """Sleep as the other clock does."""
        await self._clock.sleep(seconds)

"""The breaker: stops a run in which too many devices fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.engine.stop import StopReason, StopSignal
from bulkbind.model import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import Settlement

COUNTED_FROM = 100
"""Devices that must have ended before a share of them says something."""


class Breaker:
    """Counts outcomes of one sending. Hears of them when they are durable."""

    def __init__(self, stop: StopSignal, limit: str | None) -> None:
        """*limit*: `50` failed devices, or `5%` of those that have ended; None: never."""
        self._stop = stop
        self._limit = limit
        self._ended = 0
        self._failed = 0

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Hear of outcomes, and stop the run once too many are failures."""
        if self._limit is None:
            return
        self._ended += len(settlements)
        self._failed += sum(item.outcome.status is Status.FAILED for item in settlements)
        if self._failed >= self._most(self._limit):
            self._stop.set(
                StopReason(
                    f"{self._failed:,} of {self._ended:,} devices have failed, which is as many "
                    f"as --max-failures {self._limit} allows",
                    hint="failed.csv tells why; what has not been sent stays pending",
                )
            )

    def _most(self, limit: str) -> float:
        if not limit.endswith("%"):
            return float(limit)
        if self._ended < COUNTED_FROM:
            return float("inf")
        return self._ended * float(limit.removesuffix("%")) / 100

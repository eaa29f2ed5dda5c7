"""What a person wants to know while sending: the pace, and why it waits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.pacing import Pacer

WORTH_SHOWING_S = 1.0
"""Shorter waits are part of the pace."""


class Gauge:
    """Reads the pacer for display."""

    def __init__(self, pacer: Pacer, clock: Clock, what: str = "binding") -> None:
        self._pacer = pacer
        self._clock = clock
        self.what = what
        """`binding` or `unbinding`."""

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None without a limit."""
        return self._pacer.per_s()

    def source(self) -> str:
        """Return the origin of that limit."""
        return self._pacer.source()

    def throttled(self) -> int:
        """Return how many requests were throttled."""
        return self._pacer.throttled

    def waits(self) -> str:
        """Return briefly why nothing is sent now; empty if sending is allowed."""
        closed_s = self._pacer.closed_for_s()
        if closed_s > WORTH_SHOWING_S:
            until = (self._clock.utc_now() + timedelta(seconds=closed_s)).astimezone()
            if self._pacer.state.is_away:
                return f"the endpoint is away, tried again at {until:%H:%M:%S}"
            why = "cooling down" if self._pacer.state.is_closed else "paced"
            return f"{why} until {until:%H:%M:%S}"
        if self._pacer.state.is_closed:
            return "one request tries whether the gateway is open again"
        return ""

"""Limiters: pure calculators that are handed the moment; they count, and admit or not.

All of them are asked with `look` and charged with `take`, so that a request which another limit
refuses is charged to none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.sandbox.spec_parser import LimitKind

if TYPE_CHECKING:
    from bulkbind.sandbox.spec_parser import Limit

IN_FLIGHT_RETRY_S = 1.0
"""Nobody knows when a request in flight ends; this is what the caller is told."""

_SLACK = 1e-9
"""Of a token: refilling in many small steps must not lose one to rounding."""


class Standing(NamedTuple):
    """Where a limiter stands at a moment."""

    left: int
    """Requests that would be admitted now, one after the other."""
    reset_s: float
    """Until all of it is free again; with nothing left, until one request is admitted."""


class Limiter(ABC):
    """Counts the requests of one limit; moments are monotonic seconds and never go back."""

    @abstractmethod
    def look(self, now: float) -> Standing:
        """Return where it stands, counting nothing."""

    @abstractmethod
    def take(self, now: float) -> None:
        """Count a request that was admitted, i.e. after a `look` with something left."""

    def leave(self) -> None:  # noqa: B027  # most kinds need not hear of it
        """Hear that a request which was counted has ended."""


class Window(Limiter):
    """A fixed window: *count* requests in each; it begins with the first request after the last."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._began = -math.inf
        self._used = 0

    def look(self, now: float) -> Standing:
        """Return what is left of the window, or of a new one."""
        if now - self._began >= self._window_s:
            return Standing(self._count, self._window_s)
        return Standing(self._count - self._used, self._began + self._window_s - now)

    def take(self, now: float) -> None:
        """Count a request, in a new window if the last is over."""
        if now - self._began >= self._window_s:
            self._began, self._used = now, 0
        self._used += 1


class Sliding(Limiter):
    """A sliding log: never more than *count* requests in any stretch of *window_s*."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._log: deque[float] = deque()

    def look(self, now: float) -> Standing:
        """Return how many more fit into the window that ends now."""
        log = self._log
        while log and now - log[0] >= self._window_s:
            log.popleft()
        if not log:
            return Standing(self._count, self._window_s)
        left = self._count - len(log)
        return Standing(left, (log[-1] if left else log[0]) + self._window_s - now)

    def take(self, now: float) -> None:
        """Write a request into the log."""
        self._log.append(now)


class Bucket(Limiter):
    """A token bucket: *count* tokens trickle in per *window_s*, up to *burst*; it starts full."""

    def __init__(self, count: int, window_s: float, burst: int) -> None:
        self._per_s = count / window_s
        self._burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def look(self, now: float) -> Standing:
        """Return the whole tokens in the bucket."""
        tokens = self._tokens_at(now)
        left = math.floor(tokens + _SLACK)
        wanted = self._burst if left else 1
        return Standing(left, max(0.0, wanted - tokens) / self._per_s)

    def take(self, now: float) -> None:
        """Take a token out."""
        self._tokens, self._at = self._tokens_at(now) - 1, now

    def _tokens_at(self, now: float) -> float:
        return min(float(self._burst), self._tokens + (now - self._at) * self._per_s)


class InFlight(Limiter):
    """At most *count* requests at the same time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._used = 0

    def look(self, now: float) -> Standing:  # noqa: ARG002  # time does not matter to it
        """Return how many more may come in."""
        return Standing(self._count - self._used, IN_FLIGHT_RETRY_S)

    def take(self, now: float) -> None:  # noqa: ARG002  # as above
        """Count a request that comes in."""
        self._used += 1

    def leave(self) -> None:
        """Count a request that has ended."""
        self._used -= 1


def limiter_for(limit: Limit) -> Limiter:
    """Return a new limiter for a limit."""
    match limit.kind:
        case LimitKind.WINDOW:
            return Window(limit.count, limit.window_s)
        case LimitKind.SLIDING:
            return Sliding(limit.count, limit.window_s)
        case LimitKind.BUCKET:
            return Bucket(limit.count, limit.window_s, limit.burst)
        case LimitKind.IN_FLIGHT:
            return InFlight(limit.count)

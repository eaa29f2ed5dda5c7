"""Count requests against limits, and admit or refuse them.

Limiters are pure: the time is an argument. `peek` only looks and `take` counts, so that a request
refused by one limit is counted by none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

from bulkbind.sandbox.specs import Call, LimitKind, LimitSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

IN_FLIGHT_RETRY_S = 1.0
"""The reset time to announce: when a request in flight ends is not known."""

_SLACK = 1e-9
"""Part of a token: rounding in many small refills must not lose a whole one."""


class Standing(NamedTuple):
    """What a limiter has left at a moment."""

    left: int
    """Requests that would be admitted now, one after the other."""
    reset_s: float
    """Seconds until all is free again; with nothing left, until one request is admitted."""


class Limiter(ABC):
    """Counts the requests of one limit; times are monotonic seconds and never decrease."""

    @abstractmethod
    def peek(self, now: float) -> Standing:
        """Return what is left, counting nothing."""

    @abstractmethod
    def take(self, now: float) -> None:
        """Count an admitted request, i.e. after a `peek` with something left."""

    def release(self) -> None:  # noqa: B027  # most kinds do not need it
        """Note that a counted request has ended."""


class Window(Limiter):
    """Fixed windows of *count* requests; each starts with the first request after the last one."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._began = -math.inf
        self._used = 0

    def peek(self, now: float) -> Standing:
        """Return what is left in the window, or in a new one."""
        if now - self._began >= self._window_s:
            return Standing(self._count, self._window_s)
        return Standing(self._count - self._used, self._began + self._window_s - now)

    def take(self, now: float) -> None:
        """Count a request, in a new window if the last one is over."""
        if now - self._began >= self._window_s:
            self._began, self._used = now, 0
        self._used += 1


class Sliding(Limiter):
    """A sliding log: at most *count* requests in any period of *window_s*."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count = count
        self._window_s = window_s
        self._log: deque[float] = deque()

    def peek(self, now: float) -> Standing:
        """Return what is left in the window that ends now."""
        log = self._log
        while log and now - log[0] >= self._window_s:
            log.popleft()
        if not log:
            return Standing(self._count, self._window_s)
        left = self._count - len(log)
        return Standing(left, (log[-1] if left else log[0]) + self._window_s - now)

    def take(self, now: float) -> None:
        """Add a request to the log."""
        self._log.append(now)


class Bucket(Limiter):
    """A token bucket: *count* tokens are added per *window_s*, up to *burst*; it starts full."""

    def __init__(self, count: int, window_s: float, burst: int) -> None:
        self._per_s = count / window_s
        self._burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def peek(self, now: float) -> Standing:
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

    def peek(self, now: float) -> Standing:  # noqa: ARG002  # independent of time
        """Return how many more are admitted."""
        return Standing(self._count - self._used, IN_FLIGHT_RETRY_S)

    def take(self, now: float) -> None:  # noqa: ARG002  # as above
        """Count a request."""
        self._used += 1

    def release(self) -> None:
        """Note that a counted request has ended."""
        self._used -= 1


def _limiter_for(limit: LimitSpec) -> Limiter:
    match limit.kind:
        case LimitKind.WINDOW:
            return Window(limit.count, limit.window_s)
        case LimitKind.SLIDING:
            return Sliding(limit.count, limit.window_s)
        case LimitKind.BUCKET:
            return Bucket(limit.count, limit.window_s, limit.burst)
        case LimitKind.IN_FLIGHT:
            return InFlight(limit.count)


# --- all limits of a sandbox ----------------------------------------------------------------------


class LimitState(NamedTuple):
    """A limit and what it has left."""

    limit: LimitSpec
    standing: Standing


class Admission:
    """Whether a request was admitted; leaving the block ends the request.

    Attributes:
        refused_by: The limit that refused it, as it was then; None: it was admitted.
        charged_to: The limits that count it, with what they have left afterwards.
    """

    def __init__(
        self,
        *,
        refused_by: LimitState | None,
        charged_to: Sequence[LimitState] = (),
        limiters: Sequence[Limiter] = (),
    ) -> None:
        self.refused_by = refused_by
        self.charged_to = charged_to
        self._limiters = limiters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for limiter in self._limiters:
            limiter.release()


class Limits:
    """Counts requests by limit, and by user for limits per user."""

    def __init__(self, limits: Sequence[LimitSpec]) -> None:
        self._limits = limits
        self._limiters: list[dict[str, Limiter]] = [{} for _ in limits]

    def admit(self, call: Call, user_id: str, *, now: float, elapsed_s: float) -> Admission:
        """Count a request against every limit in force or, if one refuses, against none.

        *now*: monotonic seconds; *elapsed_s*: since the sandbox's start.
        """
        met = [
            (limit, self._limiter(number, user_id))
            for number, limit in enumerate(self._limits)
            if limit.on.covers(call) and limit.period.holds(elapsed_s)
        ]
        refusing = [
            LimitState(limit, standing)
            for limit, limiter in met
            if (standing := limiter.peek(now)).left < 1
        ]
        if refusing:
            # The longest: after waiting for another limit, the client would be refused again.
            return Admission(refused_by=max(refusing, key=lambda state: state.standing.reset_s))
        for _, limiter in met:
            limiter.take(now)
        return Admission(
            refused_by=None,
            charged_to=[LimitState(limit, limiter.peek(now)) for limit, limiter in met],
            limiters=[limiter for _, limiter in met],
        )

    def _limiter(self, number: int, user_id: str) -> Limiter:
        limit = self._limits[number]
        limiters = self._limiters[number]
        key = user_id if limit.is_per_user else ""
        if key not in limiters:
            limiters[key] = _limiter_for(limit)
        return limiters[key]

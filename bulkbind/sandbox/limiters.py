"""Counts requests against limits, and admits or refuses them.

Limiters are pure: the moment is handed in. `look` asks and `take` charges, so that a request which
one limit refuses is charged to none.
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
"""Nobody knows when a request in flight ends; this is the reset time that answers name."""

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

    def leave(self) -> None:  # noqa: B027  # most kinds do not care
        """Note that a request which was counted has ended."""


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
        """Add a request to the log."""
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
    """A limit and where it stands."""

    limit: LimitSpec
    standing: Standing


class Admission:
    """Whether a request was admitted; leaving the block ends the request.

    Attributes:
        refused_by: The limit that refused it, as it stood then; None: it was admitted.
        charged_to: The limits that count it, as they stood after that.
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
            limiter.leave()


class Limits:
    """Counts requests by limit, and by user where a limit is per user."""

    def __init__(self, limits: Sequence[LimitSpec]) -> None:
        self._limits = limits
        self._limiters: list[dict[str, Limiter]] = [{} for _ in limits]

    def admit(self, call: Call, user_id: str, *, now: float, elapsed_s: float) -> Admission:
        """Charge a request to every limit in force, or, if one refuses, to none.

        *now* is in monotonic seconds; *elapsed_s* counts from the sandbox's start.
        """
        met = [
            (limit, self._limiter(number, user_id))
            for number, limit in enumerate(self._limits)
            if limit.on.covers(call) and limit.period.holds(elapsed_s)
        ]
        refusing = [
            LimitState(limit, standing)
            for limit, limiter in met
            if (standing := limiter.look(now)).left < 1
        ]
        if refusing:
            # A client that waited for any other limit would only be refused again.
            return Admission(refused_by=max(refusing, key=lambda state: state.standing.reset_s))
        for _, limiter in met:
            limiter.take(now)
        return Admission(
            refused_by=None,
            charged_to=[LimitState(limit, limiter.look(now)) for limit, limiter in met],
            limiters=[limiter for _, limiter in met],
        )

    def _limiter(self, number: int, user_id: str) -> Limiter:
        limit = self._limits[number]
        limiters = self._limiters[number]
        key = user_id if limit.is_per_user else ""
        if key not in limiters:
            limiters[key] = _limiter_for(limit)
        return limiters[key]

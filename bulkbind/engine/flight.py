"""How many requests may be in flight, as a calculator: handed every event, it does nothing else.

The model. More requests in flight than the server works on at once only wait there: they lengthen
every answer, up to a time-out, and all of them are refused when a limit is met. So it begins with
`START`, and doubles while answers stay about as quick as the quickest; a paced run has as many as
its pace needs (rate times latency, Little's law) and a margin. A 429 that met more requests in
flight than any that got through speaks of a limit on requests in flight: then that is the most,
and one more is tried now and then.
"""

from __future__ import annotations

import math

START = 4
DOUBLING_S = 0.25
"""At the start: the most doubles in this time, or in the time of an answer if that is longer."""
MARGIN = 4
USEFUL = 2.0
"""A paced run has at most USEFUL * rate * latency + MARGIN in flight."""
QUICK_S = 0.1
SLOWER = 4.0
"""An answer that took longer than QUICK_S and SLOWER times the quickest has waited in the server:
no reason to send more at once."""
FORGET_S = 20.0
"""The quickest answer is that of the last 20 to 40 s."""
ANOTHER_S = 5.0
LONGEST_ANOTHER_S = 300.0
"""After a limit in flight was met: one more is tried after 5 s, then after twice as long, …"""


class Flight:
    """What is known of the server's width; moments are monotonic seconds."""

    __slots__ = (
        "_another_at", "_another_s", "_grow_at", "_most", "_older", "_proven", "_quickest",
        "_renew_at", "is_limited", "wide",
    )  # fmt: skip

    def __init__(self, now: float, most: int) -> None:
        """*most*: never more than this, the operator's `--concurrency`."""
        self._most = most
        self.wide = min(START, most)
        """As many may be in flight."""
        self.is_limited = False
        """Whether the gateway has shown a limit on requests in flight."""
        self._proven = 0
        self._grow_at = now + DOUBLING_S
        self._another_s = ANOTHER_S
        self._another_at = 0.0
        self._quickest = self._older = math.inf
        self._renew_at = now + FORGET_S

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace."""
        if per_s == math.inf:
            return self.wide
        return int(min(self.wide, USEFUL * per_s * self._fastest() + MARGIN))

    def accepted(self, now: float, in_flight: int, took_s: float) -> None:
        """A request got through that was one of *in_flight* when it left."""
        self._proven = max(self._proven, in_flight)
        self._quickest = min(self._quickest, took_s)
        if now >= self._renew_at:
            self._older, self._quickest = self._quickest, took_s
            self._renew_at = now + FORGET_S
        if self.is_limited:
            if now >= self._another_at and in_flight >= self.wide < self._most:
                self.wide += 1
                self._another_at = now + self._another_s
        elif now >= self._grow_at and self.wide < self._most:
            self._grow_at = now + max(DOUBLING_S, took_s)
            if in_flight >= self.wide and took_s <= max(QUICK_S, SLOWER * self._fastest()):
                self.wide = min(self._most, 2 * self.wide)

    def throttled(self, now: float, in_flight: int) -> bool:
        """A 429 came; return whether a limit on requests in flight explains it."""
        if in_flight <= max(self._proven, 1):
            return in_flight > self.wide  # one of those that left before the limit was known
        self._another_s = min(LONGEST_ANOTHER_S, 2 * self._another_s if self.is_limited else ANOTHER_S)
        self._another_at = now + self._another_s
        self.wide = max(1, self._proven)
        self.is_limited = True
        return True

    def unanswered(self) -> None:
        """A request was waited for in vain: fewer at once."""
        self.wide = max(1, self.wide // 2)
        self.is_limited = False

    def _fastest(self) -> float:
        return min(self._quickest, self._older)

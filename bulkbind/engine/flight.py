"""How many requests may be in flight, as a calculator: handed every event, it does nothing else.

The model. More requests than the server works on at once only wait there: they lengthen every
answer, up to a time-out, and all of them are refused when a limit is met. So it begins with
`START` and doubles while that brings more answers a second (requests in flight over the time that
each takes, Little's law) or answers are quick all the same; where it brings none, it goes back. A
paced run has as many as its pace needs (rate times latency), and a margin. A limit that the gateway
sets on requests in flight is kept to as `places` believes it to be.
"""

from __future__ import annotations

import math

from bulkbind.engine.places import Places

START = 4
DOUBLING_S = 0.1
"""The most doubles in this time, or in the time of an answer if that is longer."""
USEFUL, MARGIN = 2.0, 4
"""A paced run has at most USEFUL * rate * latency + MARGIN in flight."""
QUICK_S = 0.1
"""Answers that take less do not wait in the server for long, whatever it gains."""
GAIN = 1.25
"""Twice as many in flight are worth it if they bring a quarter more answers a second."""
HELD_S = 60.0
"""Where they did not, it is tried again after this long."""
FORGET_S = 20.0
"""The quickest answer is that of the last 20 to 40 s."""


class Flight:
    """What is known of the server's width; moments are monotonic seconds."""

    __slots__ = (
        "_before_per_s", "_grow_at", "_has_places", "_most", "_older", "_proven", "_quickest",
        "_renew_at", "_took_s", "_wide", "is_spacing", "places",
    )  # fmt: skip

    def __init__(self, now: float, most: int) -> None:
        """*most*: never more than this, the operator's `--concurrency`."""
        self._most = most
        self._wide = min(START, most)
        self.places: Places | None = None
        """The limit on requests in flight that the gateway has shown, if it has."""
        self.is_spacing = False
        """Whether it looked like one, but for requests that came too close together."""
        self._has_places = True
        """Whether it may have such a limit: refuted once, never believed again."""
        self._proven = 0
        """As many were in flight when one got through."""
        self._grow_at = now + DOUBLING_S
        self._quickest = self._older = math.inf
        self._took_s = 0.0
        """A smoothed answer's time."""
        self._before_per_s = 0.0
        """Answers per second before the last doubling."""
        self._renew_at = now + FORGET_S

    @property
    def wide(self) -> int:
        """As many may be in flight."""
        return self.places.wide if self.places else self._wide

    @property
    def next_at(self) -> float:
        """No request leaves before that moment."""
        return self.places.next_at if self.places else -math.inf

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace, at least 1."""
        if per_s == math.inf:
            return self.wide
        return int(min(self.wide, USEFUL * per_s * min(self._quickest, self._older) + MARGIN))

    def sent(self, now: float) -> None:
        """A request leaves."""
        if self.places:
            self.places.sent(now, self._took_s)

    def accepted(self, now: float, in_flight: int, took_s: float) -> None:
        """A request got through; it was one of *in_flight* when it left, and took so long."""
        self._quickest = min(self._quickest, took_s)
        if now >= self._renew_at:
            self._older, self._quickest = self._quickest, took_s
            self._renew_at = now + FORGET_S
        self._took_s += (took_s - self._took_s) * (0.25 if self._took_s else 1.0)
        if self.places:
            self.places.accepted(now, in_flight)
            self._mind_refuted()
            return
        self._proven = max(self._proven, in_flight)
        if in_flight >= self._wide and now >= self._grow_at:
            self._weigh(now)

    def _weigh(self, now: float) -> None:
        """Double what is in flight, or take the last doubling back if it brought nothing."""
        per_s = self._wide / self._took_s
        is_worth_it = self._took_s <= QUICK_S or per_s >= GAIN * self._before_per_s
        self._grow_at = now + max(DOUBLING_S, 2 * self._took_s)
        if is_worth_it:
            self._before_per_s = per_s if self._wide < self._most else 0.0
            self._wide = min(self._most, 2 * self._wide)
        else:
            self._before_per_s = 0.0
            self._grow_at = now + HELD_S
            self._wide = max(1, self._wide // 2)

    def throttled(self, now: float, in_flight: int) -> bool:
        """A 429 came; return whether a limit on requests in flight explains it."""
        if self.places is None:
            is_new = self._has_places and in_flight > max(self._proven, 1)
            if is_new:
                self.places = Places(now, self._proven, self._most)
            return is_new
        is_explained = self.places.throttled(now, in_flight)
        self._mind_refuted()
        return is_explained

    def _mind_refuted(self) -> None:
        if self.places and self.places.is_refuted:
            self._wide = min(max(START, self.places.wide), self._most)
            self._before_per_s = 0.0
            self.is_spacing = self.places.is_spacing
            self.places, self._has_places = None, False

    def unanswered(self, now: float) -> None:
        """A request was waited for in vain: fewer at once, and more again after a while."""
        if self.places:
            self.places.unanswered()
        self._wide = max(1, self._wide // 2)
        self._before_per_s = 0.0
        self._grow_at = now + DOUBLING_S

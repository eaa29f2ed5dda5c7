"""How many requests may be in flight, as a calculator: handed every event, it does nothing else.

The model. More requests than the server works on at once only wait there: they lengthen every
answer, up to a time-out, and all of them are refused when a limit is met. So it begins with
`START` and doubles while that brings more answers a second (requests in flight over the time that
each takes, Little's law) or answers are quick all the same; where it brings none, it goes back. A
paced run has as many as its pace needs (rate times latency), and a margin. A 429 that met more
requests in flight than any that got through speaks of a limit on requests in flight: then that
many are the most, and more are tried now and then. Where so many are refused all the same, it
was no such limit, and is never again taken for one. At such a limit requests that leave in a bunch
come back in one, and wait for each other at both ends, so they are spread over an answer's time.
"""

from __future__ import annotations

import math

from bulkbind.engine.turn import COARSE_S

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
ANOTHER_S, LONGEST_ANOTHER_S = 1.0, 320.0
"""One more than a limit in flight is tried after 1 s, 2 s, 4 s, … while it is refused; where it is
not, two more, four more, …"""
ROUNDS = 2
"""… each once every place of those before was used so many times."""
MIXED = 3
"""Where so many were let through with more in flight than the limit before one was refused, it is
no limit in flight: that would refuse every one."""
SPREAD = 0.8
"""Share of the even distance between requests (an answer's time over those in flight) that is kept
at a limit in flight; all of it would leave places empty."""
REFUTED_BY = 2
PROVEN_BY = 8
"""So many 429s speak against a limit in flight, if they come while each of its places is used so
many times."""


class Flight:
    """What is known of the server's width; moments are monotonic seconds."""

    __slots__ = (
        "_above", "_against", "_another_at", "_another_s", "_before_per_s", "_grow_at",
        "_has_grown", "_is_spread", "_most", "_older", "_proven", "_quickest", "_renew_at", "_since",
        "_step", "_took_s", "is_limited", "next_at", "wide",
    )  # fmt: skip

    def __init__(self, now: float, most: int) -> None:
        """*most*: never more than this, the operator's `--concurrency`."""
        self._most = most
        self.wide = min(START, most)
        """As many may be in flight."""
        self.is_limited = False
        """Whether the gateway has shown a limit on requests in flight."""
        self.next_at = now
        """No request leaves before that."""
        self._proven = 0
        """As many were in flight when one got through."""
        self._since = self._against = self._above = 0
        """Requests through, and refused, since the limit in flight was met or more were tried; and
        of those through, how many were more in flight than the limit."""
        self._grow_at = now + DOUBLING_S
        self._another_s, self._another_at, self._step = ANOTHER_S, now, 1
        self._has_grown = self._is_spread = False
        """Whether a try went well; and whether requests are spread: not before the limit has proven
        itself, since a bunch tells it from one that wants requests spaced."""
        self._quickest = self._older = math.inf
        self._took_s = 0.0
        """A smoothed answer's time."""
        self._before_per_s = 0.0
        """Answers per second before the last doubling."""
        self._renew_at = now + FORGET_S

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace, at least 1."""
        if per_s == math.inf:
            return self.wide
        return int(min(self.wide, USEFUL * per_s * min(self._quickest, self._older) + MARGIN))

    def sent(self, now: float) -> None:
        """A request leaves."""
        if self._is_spread:
            distance_s = SPREAD * self._took_s / self.wide
            self.next_at = max(self.next_at, now - COARSE_S) + distance_s

    def accepted(self, now: float, in_flight: int, took_s: float) -> None:
        """A request got through; it was one of *in_flight* when it left, and took so long."""
        self._quickest = min(self._quickest, took_s)
        if now >= self._renew_at:
            self._older, self._quickest = self._quickest, took_s
            self._renew_at = now + FORGET_S
        self._took_s += (took_s - self._took_s) * (0.25 if self._took_s else 1.0)
        if self.is_limited:
            self._since += 1
            self._above += in_flight > self._proven
            if self._since % (PROVEN_BY * self.wide) == 0:
                self._against = 0
                self._is_spread = True
            if in_flight >= self.wide and self._since >= ROUNDS * self.wide:
                self._try_more(now)
            return
        self._proven = max(self._proven, in_flight)
        if in_flight >= self.wide and now >= self._grow_at:
            self._weigh(now)

    def _try_more(self, now: float) -> None:
        """Let more than the limit in flight go: one, or if that went well, twice as many more."""
        if self.wide > self._proven:
            self._proven = self.wide
            self._has_grown = True
            self._another_s, self._another_at = ANOTHER_S, now
            self._step *= 2
        if now >= self._another_at:
            self.wide = min(self._most, self.wide + self._step)
            self._since = self._above = 0

    def _weigh(self, now: float) -> None:
        """Double what is in flight, or take the last doubling back if it brought nothing."""
        per_s = self.wide / self._took_s
        is_worth_it = self._took_s <= QUICK_S or per_s >= GAIN * self._before_per_s
        self._grow_at = now + max(DOUBLING_S, 2 * self._took_s)
        if is_worth_it:
            self._before_per_s = per_s if self.wide < self._most else 0.0
            self.wide = min(self._most, 2 * self.wide)
        else:
            self._before_per_s = 0.0
            self._grow_at = now + HELD_S
            self.wide = max(1, self.wide // 2)

    def throttled(self, now: float, in_flight: int) -> bool:
        """A 429 came; return whether a limit on requests in flight explains it."""
        if in_flight <= max(self._proven, 1):
            is_full = in_flight == self._proven
            # The server may count one that has just been answered.
            return not self._is_refuted() and is_full
        if self.is_limited and in_flight > self.wide:
            return True  # one of those that left before the limit was met
        if self.is_limited:
            if self._above >= MIXED:
                return not self._refute()
            self._another_s = min(LONGEST_ANOTHER_S, 2 * self._another_s)
        else:
            self._against = 0
        self._another_at, self._step = now + self._another_s, 1
        self._since = self._above = 0
        self.wide = max(1, self._proven)
        self.is_limited = True
        return True

    def _is_refuted(self) -> bool:
        """A 429 came at no more in flight than have got through; return what that says.

        Several of them speak against a limit in flight that was met a moment ago, or that has let
        itself be raised: it was none. One that has proven itself may be one lower than it looked.
        """
        if not self.is_limited:
            return True
        self._against += 1
        if self._against < REFUTED_BY:
            return False
        self._against = 0
        self._step = 1
        is_proven = self._since >= PROVEN_BY * self.wide and not self._has_grown
        if is_proven and self.wide > 1:
            self._proven = self.wide = self.wide - 1
            self._since = 0
            return False
        return self._refute()

    def _refute(self) -> bool:
        """It is no limit in flight, and never again taken for one."""
        self.is_limited = self._is_spread = False
        self.wide = min(max(START, self.wide), self._most)
        self._proven = self._most
        return True

    def unanswered(self, now: float) -> None:
        """A request was waited for in vain: fewer at once, and more again after a while."""
        self.wide = max(1, self.wide // 2)
        self._before_per_s = 0.0
        self._grow_at = now + DOUBLING_S

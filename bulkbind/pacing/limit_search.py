"""The search for a limit that nobody told, as a calculator: what a cycle showed -> the next leg.

The model. A gateway lets through some number of requests per second, L. It may count them in
windows, fill a bucket, or want each one spaced from the one before. A cycle lasts from one moment
at which it began to let requests through again (after 429s) to the next. Two things hold:

- what got through in a cycle, over its length (the *goodput*), is never more than L, give or take
  one request; and it is L itself where the gateway was kept busy, so that nothing it would have
  let through was left unsent. Windows and buckets alike. Cycles in a row that were busy count as
  one long cycle, which is known the better the longer it is.
- a gateway that wants requests spaced refuses every one that comes too early, by a millisecond of
  jitter, too. Its goodput says little; the pace at which it refuses now and then is its limit.
  It never refuses for longer than a slot: one that does, counts.

A gateway may count twice, by the second and by the minute. Where it stays closed for much longer
than at the cycles before, a longer window is used up, and the cycle that speaks of it began when
it opened last after as long a time: those before belong to it.

A moment of opening is known only as lying between the last try that was refused and the one that
got through, so a goodput is known as lying between a least and a most. The search keeps the
narrowest such bounds, until a cycle contradicts them: then the limit has changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

SPACED_AT_MOST = 6
"""So few requests before the first 429 are no burst: the gateway wants them spaced."""
EARLY, SPACED_EARLY = 20, 4
"""A cycle of no more requests says that the pace was much too high."""
MANY = 3
"""One refused for so many that got through says the same where requests have to be spaced."""
FALLS = (0.98, 0.95, 0.9, 0.8, 0.65, 0.5)
SPACED_FALLS = (0.99, 0.95, 0.9, 0.8)
"""The next pace, as a share of the one refused, within the bounds: after a full cycle, after one
early one, after two in a row, … Jitter alone makes a spacing gateway refuse now and then."""
PASSED, NUDGE = 1.03, 1.02
"""Where the pace passed the upper bound by more than 3 % before it was refused, that bound was too
low: it is lifted by 2 %."""
COUNTED_TRIES = 2
"""Closed for more tries than this at first: the gateway counts, and the middle of the bounds is
where to look; otherwise a bucket's burst is in them, and the limit is not in sight."""
LONG_S, MUCH_LONGER = 1.0, 4.0
"""Closed for longer than 1 s, and four times as long as at the cycles before: a longer window."""
SLACK, REFUTED_BY = 1.2, 2
"""Refused for more than 1.2 slots, two cycles in a row: it does not want requests spaced."""
MOST_SCALES = 16
"""Windows of different lengths that are told apart."""
COSTLY = 0.1
"""Share of a cycle that a Retry-After took: from there on the next pace is the geometric middle of
the bounds, since each 429 costs more than a pace that is a little low."""
SHORTEST_S = 1e-6


class Opening(NamedTuple):
    """When the gate opened: after the one moment, by the other (monotonic seconds)."""

    after: float
    by: float


class Leg(NamedTuple):
    """Where a cycle begins and where the limit is believed to be, in requests per second."""

    per_s: float
    top: float
    """Infinite: the limit is not in sight."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """What happened from one opening of the gate to the next."""

    accepted: int
    refused: int
    """So many more were, of those that left before it began."""
    began: Opening
    ended: Opening
    base_per_s: float
    """The pace at its beginning."""
    refused_per_s: float
    """The pace at which the 429 came; infinite while nobody had set one."""
    closed_s: float
    tries: int
    """Until one got through; 1: the first did."""
    was_asked: bool
    """Whether the gateway said how long to wait, so that it may have been idle meanwhile."""


@dataclass(frozen=True, slots=True)
class _Busy:
    """Cycles in a row that kept the gateway busy, as one."""

    accepted: int
    began: Opening

    def plus(self, accepted: int) -> _Busy:
        return _Busy(self.accepted + accepted, self.began)

    def least(self, ended: Opening) -> float:
        return (self.accepted - 1) / max(ended.by - self.began.after, SHORTEST_S)

    def most(self, ended: Opening) -> float:
        return (self.accepted + 1) / max(ended.after - self.began.by, SHORTEST_S)

    def goodput(self, ended: Opening) -> float:
        return self.accepted / max(ended.by - self.began.by, SHORTEST_S)


class _Scale(NamedTuple):
    """Cycles in a row, the last of which was closed for longest."""

    closed_s: float
    accepted: int
    began: Opening


class Search:
    """The bounds, and what led to them."""

    def __init__(self, now: float, *, is_spaced: bool = False) -> None:
        self.is_spaced = is_spaced
        """Whether the gateway refuses requests that come close together."""
        self.spaced_at_most = SPACED_AT_MOST
        """See there; 0: it never does."""
        self._low, self._high = 0.0, math.inf
        self._early = self._against = 0
        self._scales: list[_Scale] = []
        """Each was closed for less long than the one before it."""
        self._busy = _Busy(0, Opening(now, now))

    def mind_spacing(self) -> None:
        """Requests that were refused in a bunch got through once they were spread.

        It says so at the first 429 alone; later, cycles know better.
        """
        if self._high == math.inf and self.spaced_at_most:
            self.is_spaced = True

    def anew(self, now: float) -> Search:
        """Return a search that begins now and knows of the kind of gateway alone."""
        search = Search(now, is_spaced=self.is_spaced)
        search.spaced_at_most = self.spaced_at_most
        return search

    def turn_to(self, began: Opening) -> None:
        """The next cycle is of another stream, or after a pause: no earlier one belongs to it."""
        self._busy = _Busy(0, began)
        self._scales.clear()

    def after(self, cycle: Cycle) -> Leg:
        """Return the next leg."""
        whole = self._whole(cycle)
        if cycle.refused_per_s == math.inf:
            return self._first(cycle)
        if whole.accepted > cycle.accepted and not self.is_spaced:
            return self._longer(whole, cycle)
        self.is_spaced = self.is_spaced and not self._counts(cycle)
        early = max(SPACED_EARLY, MANY * cycle.refused) if self.is_spaced else EARLY
        is_early = cycle.accepted <= early
        self._early = self._early + 1 if is_early else 0
        accepted = cycle.accepted
        if self.is_spaced and is_early:
            # Of those that left in it, as many are still to be refused.
            accepted -= min(cycle.refused, accepted // 2)
        own = _Busy(accepted, cycle.began)
        has_fallen = not is_early and own.most(cycle.ended) < self._busy.least(cycle.ended)
        busy = own if self._early == 1 or has_fallen else self._busy.plus(accepted)
        least, most = busy.least(cycle.ended), busy.most(cycle.ended)
        was_idle = self.is_spaced or cycle.was_asked or cycle.base_per_s < busy.goodput(cycle.ended)
        if was_idle and (cycle.was_asked or not is_early):
            busy, most = _Busy(0, cycle.ended), math.inf
        self._busy = busy
        refused = cycle.refused_per_s
        most = min(most, refused)
        falls = SPACED_FALLS if self.is_spaced else FALLS
        per_s = falls[min(self._early, len(falls) - 1)] * refused
        if self.is_spaced:
            return Leg(min(max(per_s, least), most), refused)
        self._narrow(least, most, refused)
        if cycle.was_asked and cycle.closed_s > COSTLY * (cycle.ended.by - cycle.began.by):
            return Leg(math.sqrt(self._low * self._high), self._high)
        return Leg(min(max(per_s, self._low), self._high), self._high)

    def _first(self, cycle: Cycle) -> Leg:
        """The first 429: a burst may have gone before it, so the limit is lower than it looks."""
        self.is_spaced = self.is_spaced or cycle.accepted <= self.spaced_at_most
        self._busy = _Busy(0, cycle.ended)
        own = _Busy(cycle.accepted, cycle.began)
        self._high = own.most(cycle.ended)
        # At least one request has got through in the time that the gate was closed.
        per_s = max(own.goodput(cycle.ended), 1.0 / max(cycle.closed_s, SHORTEST_S))
        counts = cycle.tries > COUNTED_TRIES and not self.is_spaced
        return Leg(per_s, max(per_s, (per_s + self._high) / 2) if counts else math.inf)

    def _whole(self, cycle: Cycle) -> _Busy:
        """Return the cycle, with those before it that belong to the same long window."""
        accepted, began, closed_s = cycle.accepted, cycle.began, cycle.closed_s
        is_long = closed_s > LONG_S and not cycle.was_asked
        whole = _Busy(accepted, began)
        for scale in reversed(self._scales):
            if not is_long or MUCH_LONGER * scale.closed_s > closed_s:
                break
            whole = _Busy(whole.accepted + scale.accepted, scale.began)
        while self._scales and self._scales[-1].closed_s <= closed_s:
            last = self._scales.pop()
            accepted, began = accepted + last.accepted, last.began
        self._scales.append(_Scale(closed_s, accepted, began))
        del self._scales[:-MOST_SCALES]
        return whole

    def _longer(self, whole: _Busy, cycle: Cycle) -> Leg:
        """A longer window is used up: its limit is the one that counts now."""
        self._early, self._busy = 0, whole
        least = whole.least(cycle.ended)
        self._narrow(least, min(whole.most(cycle.ended), cycle.refused_per_s), cycle.refused_per_s)
        return Leg((self._low + self._high) / 2, self._high)

    def _counts(self, cycle: Cycle) -> bool:
        """Return whether a gateway taken for a spacing one refuses for longer than such a one."""
        longest_s = SLACK / max(_Busy(cycle.accepted, cycle.began).least(cycle.ended), SHORTEST_S)
        refused_s = cycle.closed_s - (cycle.ended.by - cycle.ended.after)
        is_against = cycle.accepted > COUNTED_TRIES and not cycle.was_asked
        is_against = is_against and refused_s + 1.0 / cycle.refused_per_s > longest_s
        self._against = self._against + 1 if is_against else 0
        return self._against >= REFUTED_BY

    def _narrow(self, least: float, most: float, refused: float) -> None:
        """Take over new bounds; an older one that they contradict is forgotten."""
        self._low = max(least, self._low if self._low < most else 0.0)
        if refused > PASSED * self._high:
            self._high *= NUDGE
        self._high = min(most, self._high if self._high > self._low else math.inf)

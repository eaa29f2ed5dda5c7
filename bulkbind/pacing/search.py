"""What the 429s of a gateway that states no limit say of it, as a calculator: where to go next.

It is asked after each event: a 429, or several in a row, and the moment at which requests get
through again. How the model works is told at the top of the package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bulkbind.pacing.gate import Sent

REFUSED = 0.003
"""Share of the requests that looking for the limit may have refused."""
CLOSED = 0.01
"""Share of the time that a gateway may be closed whose 429s are penalties."""
CUT = 0.01
"""A leg begins so much below the limit as it is believed, where requests are spaced; else half."""
EARLY, EARLY_S, SPACED_EARLY = 12, 0.25, 4
"""A leg of no more requests, and of two and a quarter of a second's, was much too fast."""
FALLS = (0.95, 0.95, 0.9, 0.8, 0.65, 0.5)
SPACED_FALLS = (0.97, 0.97, 0.95, 0.95, 0.9, 0.8)
"""The next pace, as a share of the one refused, after one early leg, after two in a row, …"""
SHORT, LEAST, SHORT_S, LONGEST_S = 40, 6, 2.0, 15.0
"""Requests in the first leg: 2 s of them, at least 6; each one that confirms the last is four
times as long, but not longer than 15 s."""
CHANGE, CHANGED_S, CHANGING_S = 1.4, 60.0, 5.0
"""A limit that has changed by so much may do so again: for a minute legs are no longer than 5 s."""
SPACED_SPAN = 110
"""Requests in a leg where they have to be spaced."""
SPAN_S = 1.0
"""A leg lasts so long, or a window's end would not show, and as long as the gate was closed."""
BEYOND = 4.0
"""So many times that after its span, a leg is at twice its pace (it grows with the cube)."""
PERIODS_S, HITS = (60.0, 30.0, 10.0, 5.0, 2.0, 1.0), 2
"""Windows as gateways have them; one that was right twice is believed in."""
SPACED_AT_MOST = 2
"""So few requests before the first 429 are no burst: the gateway wants them spaced."""
SHUT_SLOTS = 4.0
"""Closed for more slots of the pace than this is no jitter."""
PENALTY_S = 0.5
"""A penalty is as long at least."""
NEAR = 0.4
"""A leg that got so far into its span began where the limit is."""
CHANCE, DENSE = 30, 0.3
"""Requests between 429s that come by chance, at least; after so small a share of those that usually
come between them, one counts all the same: a limit on the rate refuses more, the faster it is."""
SLOWEST_PER_S = 0.01
SHORTEST_S = 1e-6


class Leg(NamedTuple):
    """From *base* to *top* (requests per second) within *span* requests, then ever faster."""

    base: float
    top: float
    """Where the limit is believed to be; infinite: it is not in sight."""
    span: float
    beyond: float
    """Requests after the span in which the pace doubles."""

    def per_s(self, along: int) -> float:
        """Return the pace after so many requests."""
        rise = (self.top - self.base) * min(along / self.span, 1.0)
        return self.base + rise + self.top * max(0.0, (along - self.span) / self.beyond) ** 3


class Event(NamedTuple):
    """One 429 or several in a row, to where requests get through again; monotonic seconds."""

    refused: Sent
    """The first one refused."""
    through: int
    """So many had got through in the leg."""
    tried_at: float
    """When the last one refused left."""
    at: float
    number: int
    """When the first one that got through left, and the number of the one before it."""
    cost: int
    """Requests refused since the last event."""
    closed_s: float
    """0: the gate stayed open."""
    was_asked: bool
    """Whether the gateway said how long to wait, so that it may have been idle meanwhile."""


class _Mark:
    """A request of which is known how many got through since."""

    __slots__ = ("at", "number", "per_s", "refused")

    def __init__(self, at: float, number: int, per_s: float) -> None:
        self.at, self.number, self.per_s, self.refused = at, number, per_s, 0

    def through(self, number: int) -> int:
        return number - self.number - self.refused

    def goodput(self, at: float, number: int, more: float = 0.0) -> float:
        return max(self.through(number) + more, 1.0) / max(at - self.at, SHORTEST_S)


class _Shut(NamedTuple):
    """A long time closed, and what had got through in the time that belongs to it."""

    closed_s: float
    through: int
    open_s: float

    def windowful(self, elapsed_s: float) -> float:
        """Return the most that a window as long would let through in *elapsed_s*."""
        return self.through + self.through / (self.open_s + self.closed_s) * elapsed_s


class _Period:
    """The period of windows: the openings of the gate lie whole periods apart."""

    def __init__(self) -> None:
        self._s = 0.0
        self._hits = 0
        self._opened: tuple[float, float] | None = None
        """The last opening lies between the two."""

    def next_at(self, now: float) -> float:
        """Return when a window ends that is about to; infinite: none is known to."""
        if self._hits < HITS or self._opened is None:
            return math.inf
        left_s = self._s - (now - self._opened[1]) % self._s
        return now + left_s + 0.004 if left_s < max(0.12 * self._s, 0.05) else math.inf

    def opened(self, after: float, by: float) -> None:
        """The gate opened."""
        if self._opened is not None:
            was_after, was_by = self._opened
            vague_s = by - after + was_by - was_after
            fits = [
                period_s
                for period_s in PERIODS_S
                if by - was_by > 0.9 * period_s
                and vague_s < 0.2 * period_s
                and (by - was_after + 0.002) // period_s * period_s >= after - was_by - 0.002
            ]
            if self._s in fits:
                self._hits += 1
            else:
                self._s, self._hits = (fits[0], 1) if fits else (0.0, 0)
        self._opened = (max(after, by - 0.02) if self._hits > 1 else after, by)


class Search:
    """What is believed of the limit."""

    def __init__(self, now: float, *, is_spaced: bool = False) -> None:
        self.is_spaced = is_spaced
        """Whether the gateway refuses requests that come close together."""
        self.is_per_user = False
        """Whether each user is counted apart: few requests may be all that one is allowed."""
        self.is_found = False
        """Whether a limit was met, or is known from before."""
        self.leg = Leg(math.inf, math.inf, math.inf, math.inf)
        self.quiet_s = 0.0
        """How long the gateway has to be left alone after a 429; 0: its 429s are no penalties."""
        self.turn_to(now, 0)
        self._cost = 1.5
        """429s that an event costs, smoothed."""
        self._trust = 0.5
        """How near to the pace refused the limit is, rather than to what got through: a bucket's
        burst is in the one, and the time in which nothing was tried in the other."""
        self._confirmed = self._early = self._strikes = 0
        self._proven = self._chance = self._settled = 0.0
        self._changed_at = -math.inf
        self._scale_s = SPAN_S
        self._shut: _Shut | None = None

    def turn_to(self, at: float, number: int) -> None:
        """What comes next is of another stream, or after a pause: nothing earlier belongs to it."""
        self._begun = self._chain = _Mark(at, number, 0.0)
        self._marks = [self._begun]
        self._longer: list[tuple[float, _Mark]] = []
        self._period = _Period()
        self._refused_number = number

    def begin_at(self, per_s: float, top: float) -> Leg:
        """Begin with a limit that is known from before."""
        self.is_found, self._confirmed = True, 1
        self.leg = Leg(per_s, top, max(SHORT, SPAN_S * top), max(SHORT, BEYOND * top))
        return self.leg

    def sent(self, now: float, number: int, per_s: float) -> None:
        """A request leaves."""
        if per_s > 1.1 * self._marks[-1].per_s:
            self._marks.append(_Mark(now, number - 1, per_s))

    def lost(self, number: int) -> None:
        """A request was refused."""
        for mark in {self._chain, *self._marks, *(mark for _, mark in self._longer)}:
            mark.refused += number > mark.number

    @property
    def is_early(self) -> bool:
        """Whether the last leg was over at once."""
        return self._early > 0

    @property
    def is_sure(self) -> bool:
        """Whether the last leg has confirmed the limit, or it is known from before."""
        return self._confirmed > 0

    def opens_at(self, now: float) -> float:
        """Return when a window ends, where that explains a 429; else infinite."""
        return self._period.next_at(now)

    def tries_late(self) -> None:
        """A try after the quiet time was refused: it has to be longer."""
        self.quiet_s *= 1.2

    def through(self, number: int) -> int:
        """Return how many got through in this leg before a request."""
        return self._begun.through(number)

    def after(self, event: Event) -> Leg:
        """Return the next leg, or the same one if it goes on."""
        per_s, is_first = event.refused.per_s, not self.is_found
        self.is_found = True
        if is_first and event.through <= SPACED_AT_MOST and not self.is_per_user:
            self.is_spaced = True
        is_early = not is_first and event.through <= self._early_at_most(per_s, event.cost)
        self._early = self._early + 1 if is_early else 0
        self._cost += 0.25 * (event.cost - self._cost)
        span = self._gone(event)
        is_shut = event.closed_s > SHUT_SLOTS / per_s and not self.is_spaced
        if is_shut:
            self._period.opened(event.tried_at, event.at)
        if is_shut and event.closed_s > PENALTY_S:
            self._mind_penalty(event, span)
        else:
            self._shut = None  # a penalty follows every 429
        goodput = self._goodput(event, span, is_first=is_first)
        if self._is_by_chance(event, goodput, is_first=is_first):
            return self.leg
        if is_first:
            base = max(goodput, 1 / max(event.closed_s, SHORTEST_S)) if self.is_spaced else goodput
            # The gate opened after the last try that was refused: perhaps long before the next one.
            most = span.goodput(max(event.tried_at, event.refused.at), event.number)
            is_vague = event.closed_s <= 2 * SPAN_S and not self.is_per_user
            most = most if is_vague else base
            top = math.inf if self.is_spaced else min(max(base, (base + most) / 2), 1.5 * base)
        else:
            base, top = self._next(event, goodput)
        return self._begin(event, max(base, SLOWEST_PER_S), top, is_first=is_first)

    def _next(self, event: Event, goodput: float) -> tuple[float, float]:
        """Return base and top of the next leg, after any but the first event."""
        per_s = event.refused.per_s
        if not (self.is_spaced or self.quiet_s):
            is_near = event.through > NEAR * self.leg.span
            self._trust = self._trust + 0.2 * (1 - self._trust) if is_near else 0.7 * self._trust
        if self.quiet_s or event.was_asked:
            base = self._after_penalty(event)
            return base, base
        if self.is_spaced:
            fall = SPACED_FALLS[min(self._early, len(SPACED_FALLS) - 1)]
            return (fall if self._early else 1 - CUT) * per_s, per_s
        if self._early and event.closed_s <= SPAN_S:
            return self._after_early(event, goodput)
        low = min(goodput, per_s)
        high = max(low, per_s * (1 - min(1.0, event.closed_s / self._scale_s)))
        top = low + self._trust * (high - low)
        return (1 - CUT / 2) * top, top

    def _early_at_most(self, per_s: float, cost: int) -> float:
        if self.is_spaced:  # refused for each third that got through says the same
            return max(SPACED_EARLY, 3 * (cost - 1))
        return min(EARLY, 2 + EARLY_S * per_s)

    def _gone(self, event: Event) -> _Mark:
        """Return since when the limit has been used: a longer window has begun with earlier legs.

        The last legs that were early count with the one before them.
        """
        begun = self._chain
        if event.closed_s > SPAN_S and not event.was_asked:
            begun = self._begun
            for closed_s, mark in reversed(self._longer):
                if 4 * closed_s > event.closed_s:
                    break
                begun = mark
        kept = [item for item in self._longer if item[0] > event.closed_s]
        self._longer = [*kept[-8:], (event.closed_s, self._begun)]
        return begun

    def _goodput(self, event: Event, span: _Mark, *, is_first: bool) -> float:
        """Return the requests per second that got through; penalties are no part of it."""
        if self.quiet_s:
            return self._begun.goodput(event.refused.at, event.number)
        # The one refused would have been the next.
        goodput = span.goodput(event.at, event.number, 0.0 if event.closed_s else 0.5)
        if event.closed_s > SPAN_S:
            return goodput
        least_s = 0.2 if is_first else 0.9
        late = [mark for mark in self._marks[1:] if event.at - mark.at > least_s]
        return max([goodput, *(mark.goodput(event.at, event.number) for mark in late)])

    def _mind_penalty(self, event: Event, span: _Mark) -> None:
        """Closed as long as the last time, though more got through than a window allows?"""
        quiet_s, open_s = event.at - event.tried_at, event.refused.at - span.at
        if self._shut and not self.quiet_s and not event.was_asked:
            closed = sorted((self._shut.closed_s, event.closed_s))
            last, shut = event.number, self._shut
            is_more = any(
                mark.through(last) > 0.9 * shut.windowful(event.refused.at - mark.at) + EARLY / 2
                for mark in self._marks
            )
            if closed[1] < 1.9 * closed[0] and is_more and quiet_s > 0.25 * event.closed_s:
                self.quiet_s = quiet_s
        through = span.through(event.number)
        self._shut = _Shut(event.closed_s, through, max(open_s, SHORTEST_S))

    def _after_penalty(self, event: Event) -> float:
        refused = event.refused
        least_s = max(self.quiet_s, SPAN_S)
        back = [mark for mark in self._marks if refused.at - mark.at >= least_s]
        mark = (back or [self._begun])[-1]
        open_s = refused.at - self._begun.at
        through = mark.through(event.number) + 1
        high = min(refused.per_s, through / max(least_s, refused.at - mark.at))
        return (
            0.97 * high if open_s > 4 * event.closed_s else min(0.97 * high, 0.85 * refused.per_s)
        )

    def _after_early(self, event: Event, goodput: float) -> tuple[float, float]:
        per_s, total = event.refused.per_s, self._chain.through(event.number)
        fall = FALLS[min(self._early, len(FALLS) - 1)] * per_s if total <= EARLY else 0.0
        base = min(max(fall, goodput if total > EARLY // 2 else 0.0), 0.95 * per_s)
        return base, max(base, 0.97 * per_s if total <= EARLY else base)

    def _is_by_chance(self, event: Event, goodput: float, *, is_first: bool) -> bool:
        """Return whether the pace has nothing to do with it, so that the leg goes on."""
        per_s = event.refused.per_s
        apart = (event.refused.number - self._refused_number) / max(1, event.cost)
        self._refused_number = event.refused.number
        was_full = event.closed_s > SHUT_SLOTS / per_s and not self.quiet_s
        if was_full or (self._early and per_s <= self._proven):
            self._strikes += 1
        elif not self._early:
            self._strikes = 0
        if self._strikes > 1:
            self._proven = 0.0
        if event.closed_s or self._early or self.is_spaced or is_first:
            return False
        if self._confirmed:
            self._proven = max(self._proven, goodput)
        if not self._chance:
            if apart <= CHANCE or per_s >= 0.97 * self._proven:
                return False
            self._chance = max(apart, 2 * CHANCE)
        self._chance += 0.2 * (apart - self._chance)
        if self._chance < CHANCE:
            self._proven = self._chance = 0.0
        return apart > DENSE * self._chance > 0

    def _longest_s(self, now: float, top: float) -> float:
        if self._confirmed:
            if self._settled and not 1 / CHANGE < top / self._settled < CHANGE:
                self._changed_at = now
            self._settled = top
        return LONGEST_S if now > self._changed_at + CHANGED_S else CHANGING_S

    def _begin(self, event: Event, base: float, top: float, *, is_first: bool) -> Leg:
        top = max(top, base)
        is_same = abs(top - self.leg.top) < 0.05 * self.leg.top < math.inf
        self._confirmed = self._confirmed + 1 if is_same and not self._early else 0
        longest_s = self._longest_s(event.at, top)
        self._scale_s = max(SPAN_S, 0.7 * self._scale_s, event.closed_s)
        target = self._cost / (REFUSED + (2 / self._chance if self._chance else 0.0))
        if self.quiet_s or event.was_asked:
            target = max(target, event.closed_s * top / CLOSED)
        short = SHORT if self.is_per_user else max(LEAST, min(SHORT, SHORT_S * top))
        span = min(target, short * 4.0 ** min(self._confirmed, 16), longest_s * top)
        if not self.is_spaced:
            span = max(span, self._scale_s * top)
        if top == math.inf:
            span = SHORT
        elif event.closed_s > SHUT_SLOTS / top:
            span = max(span, min(event.through, target))
        beyond_s = max(BEYOND, self._scale_s) if is_first else BEYOND * self._scale_s
        beyond = beyond_s * top
        if self.is_spaced:
            span, beyond = SPACED_SPAN, 1.7 * SPACED_SPAN
        elif self.quiet_s:
            beyond = span
        self._begun = _Mark(event.at, event.number, base)
        self._marks = [self._begun]
        if not self._early or event.closed_s > SPAN_S:
            self._chain = self._begun
        self.leg = Leg(base, top, span, max(short, beyond))
        return self.leg

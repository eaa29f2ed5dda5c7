"""The pace of a stream, as a calculator: set by the operator, told by the gateway, or learned.

Where a gateway states no limit its 429s say what it is. They are looked at event by event: a 429,
or several in a row, and the moment at which requests get through again. How that works is told at
the top of the package.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkbind.model import ServerLimit

STATED_SHARE = 0.995
"""Share of a stated limit that is used: the server's windows and ours are never in step."""
LEARNED_SHARE = 0.98
"""Share of an earlier run's limit at which a run begins; it rises to it as after any 429."""
LONGEST_PACED_S = 120.0
"""The longest stated window over which requests are spread; a limit per hour is used up instead."""
HELD_S = 60.0
"""Where something is left to others, the limit itself is looked for once in so long."""
LEAST_USED = 0.2
"""Share of a learned limit that is used, whatever is to be left."""
LATE_S, SPACED_LATE_S = 0.04, 0.002
"""Timers come late, and so does whoever waits for a busy event loop (30 ms were seen): up to this
much is made up for by requests that follow at once. Where requests have to be spaced, they hardly
may: timers are at least about 1 ms coarse."""
START_PER_S = 250.0
"""The pace before any limit is known, which doubles …"""
DOUBLING_S, ANSWERS, DOUBLING = 0.2, 80.0, 10.0
"""… in this time, or in that of so many answers one after the other where that is shorter (few are
in flight then, to be refused at once), and in this many requests."""
REFUSED = 0.003
"""Share of the requests that looking for the limit may have refused."""
CLOSED = 0.01
"""Share of the time that a gateway may be closed whose 429s are penalties."""
CUT = 0.01
"""A leg begins so much below the limit as it is believed where requests are spaced (after each
early one, twice as much); else half."""
EARLY, EARLY_S, SPACED_EARLY = 12, 0.25, 4
"""A leg of no more requests, and of two and a quarter of a second's, was much too fast."""
FALL, LEAST_FALL = 0.025, 0.8
"""After it the pace falls by twice as much, by four after two in a row, …, a fifth at most."""
SHORT, LEAST, SHORT_S, LONGEST_S = 40, 6, 2.0, 15.0
"""Requests in the first leg: 2 s of them, at least 6; each one that confirms the last is four
times as long, but not longer than 15 s."""
SLOW = 110
"""A leg may last for so many requests however slow they are; where they have to be spaced, it
does."""
CHANGE, CHANGED_S, CHANGING_S = 1.4, 60.0, 5.0
"""A limit that has changed by so much may do so again: for a minute legs are no longer than 5 s."""
SPAN_S = 1.0
"""A leg lasts so long, or a window's end would not show, and as long as the gate was closed."""
BEYOND = 4.0
"""So many times that after its span, a leg is at twice its pace (it grows with the cube)."""
HITS, NEARLY_S, VAGUE_S = 2, 0.12, 0.2
"""Windows open whole seconds apart: believed when that was right twice (where it is known to so
much when they opened), of one that ends so soon."""
TWINS, TWIN_AT = 5, 8
"""So many requests with a twin show that requests have to be spaced: the first ones, and then so
many after a 429, as others may have used the limit."""
SHUT_SLOTS = 4.0
"""Closed for more slots of the pace than this is no jitter."""
PENALTY_S = 0.5
"""A penalty is as long at least."""
NEAR = 0.4
"""A leg that got so far into its span began where the limit is."""
CHANCE, DENSE = 25, 0.3
"""Requests between 429s that come by chance, at least; after so small a share of those that usually
come between them, one counts all the same: a limit on the rate refuses more, the faster it is."""
SLOWEST_PER_S = 0.01
SHORTEST_S = 1e-6


class Left(NamedTuple):
    """What of a limit is left to others."""

    share: float
    """So much of it is used, above 0, at most 1."""
    per_s: float
    """And so many requests per second fewer."""

    def of(self, limit_per_s: float) -> float:
        """Return what may be used of a limit."""
        return max(SLOWEST_PER_S, self.share * limit_per_s - self.per_s)


NOTHING = Left(1.0, 0.0)


class Sent(NamedTuple):
    """A request as it left through a gate."""

    epoch: int
    """How often the gate had closed."""
    number: int
    """It was the so manieth."""
    at: float
    per_s: float
    """The pace at which it left."""
    is_binding: bool
    """Whether the pace, and not its sender, decided when it left."""


class Mark(NamedTuple):
    """A moment, and how many requests had got through by then."""

    at: float
    through: int

    def goodput(self, end: Mark, more: float = 0.0) -> float:
        """Return the requests per second that got through from here on."""
        return max(end.through - self.through + more, 1.0) / max(end.at - self.at, SHORTEST_S)


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
    """So many had got through before it."""
    tried_at: float
    """When the last one refused left."""
    at: Mark
    """When the first one that got through left, not counted."""
    cost: int
    """Requests refused since the last event."""
    closed_s: float
    """0: the gate stayed open."""
    was_asked: bool
    """Whether the gateway said how long to wait, so that it may have been idle meanwhile."""


class Pace:
    """The pace of a stream, and what is believed of its limit; moments are monotonic seconds.

    What the gateway states comes first, and falls only where even that is refused.

    Attributes:
        per_s: Requests per second allowed now.
        is_found: Whether a limit was met, or is known from before.
        is_stated: Whether the pace is the gateway's own word.
        stated_by: The header that states it; empty: a 429's text does, or nothing.
        told: The limit as the gateway states it, and its window in seconds; None before.
        marked_per_s: At a higher pace, a request is to be marked.
        has_learned: Whether the gateway has shown or stated its limit in this run.
        is_spaced: Whether the gateway refuses requests that come close together.
    """

    def __init__(
        self,
        now: float,
        cap_per_s: float | None = None,
        learned_per_s: float | None = None,
        *,
        is_spaced: bool = False,
        is_per_user: bool = False,
        left: Left = NOTHING,
    ) -> None:
        """Begin with the operator's cap, and with what an earlier run learned of the gateway.

        *is_per_user*: Whether each user is counted apart: few requests may be all that one is
        allowed; *left*: what of the limit is for others.
        """
        self._cap = self._ceiling = cap_per_s or math.inf
        self._stated = math.inf
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it stated."""
        self.stated_by = ""
        self.told: tuple[float, float] | None = None
        self._left = left
        self._is_per_user = is_per_user
        self._start_per_s = math.inf if is_per_user else START_PER_S
        self.per_s = cap_per_s or self._start_per_s
        self.is_spaced = is_spaced
        self.is_found = self.is_stated = self.has_learned = False
        self._along, self._twins = 0, 0 if is_spaced or is_per_user else TWINS
        """Requests since the leg began; and how many may yet leave with a twin."""
        self._leg = self._used = Leg(math.inf, math.inf, math.inf, math.inf)
        """What is believed of the limit, and the pace for it: less where some is left to others."""
        self._quiet_s = 0.0
        """How long the gateway has to be left alone after a 429; 0: its 429s are no penalties."""
        self.turn_to(Mark(now, 0))
        self._cost = 1.5
        """429s that an event costs, smoothed."""
        self._trust = 0.5
        """How near to the pace refused the limit is, rather than to what got through: a bucket's
        burst is in the one, and the time in which nothing was tried in the other."""
        self._confirmed = self._early = 0
        self._proven = self._chance = 0.0
        self._changed_at = -math.inf
        self._scale_s = SPAN_S
        self._shut: tuple[float, int, float] | None = None
        """A long time closed, what had got through before, and that a second of both."""
        if learned_per_s is not None and learned_per_s < self._cap:
            self._begin_at(LEARNED_SHARE * learned_per_s, learned_per_s)

    @property
    def wants_twin(self) -> bool:
        """Whether the next request shall leave with a twin, to see whether they may."""
        if not self._twins:
            return False
        return (self.is_spaced and self._along == TWIN_AT) or self.known_per_s == math.inf

    def pair_ended(self, through: list[bool]) -> None:
        """Of two requests that left together one has ended, or both: which got through?

        One refused: requests have to be spaced; both: the limit is used up, which says nothing.
        """
        was_spaced, refused = self.is_spaced, through.count(False)
        if through == [True, True]:
            self.is_spaced, self._twins = False, 0
            if was_spaced:
                self._begin_at(self.per_s, self.per_s)
        elif refused:
            self.is_spaced = refused == 1 or self.is_found
            self._twins -= refused != len(through)

    @property
    def known_per_s(self) -> float:
        """The pace where a limit sets it; infinite where none has been met or set."""
        is_free = not (self.is_found or self.is_stated) and self._ceiling == math.inf
        return math.inf if is_free else self.per_s

    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""
        if not self.is_spaced:
            return LATE_S
        return SPACED_LATE_S if self.is_stated else max(0.0, SPACED_LATE_S - 1.0 / self.per_s)

    @property
    def left(self) -> Left | None:
        """What of the limit is left to others; None while nothing is."""
        return None if self._used is self._leg else self._left

    def limit_per_s(self) -> float | None:
        """Return the limit as the gateway has shown or stated it in this run; None: it has not."""
        if not self.has_learned:
            return None
        if self.told is not None:
            return max(STATED_SHARE * self.told[0] / self.told[1], SLOWEST_PER_S)
        return self._leg.top if self._leg.top < math.inf else self.per_s

    def cap(self, cap_per_s: float | None) -> None:
        """Go on with another cap of the operator; None: with none."""
        was_held, self._cap = self.per_s >= self._ceiling, cap_per_s or math.inf
        self._ceiling = min(self._cap, self._stated)
        if self.is_stated:
            self._begin_at(self._stated, self._stated)
        elif was_held:
            # Nothing but the cap has held the pace back.
            self.per_s = max(self.per_s, self._used.base if self.is_found else self._start_per_s)
        self.per_s = min(self._ceiling, self.per_s)

    def stated(self, limits: Iterable[ServerLimit]) -> None:
        """The gateway stated limits: the tightest counts.

        Where no window is stated, it is the longest time to a reset so far.
        """
        told = []
        for item in limits:
            window_s = item.window_s
            if window_s is None and item.reset_s:
                window_s = max(item.reset_s, self._windows.get(item.source, 0.0))
                self._windows[item.source] = window_s
            if item.limit is not None and window_s and window_s <= LONGEST_PACED_S:
                told.append((item.limit / window_s, item.limit, window_s, item.source))
        if told:
            per_s, limit, window_s, source = min(told)
            self.stated_by = source or self.stated_by
            stated = self._left.of(STATED_SHARE * per_s)
            if stated != self._stated:
                self.told, self._stated = (limit, window_s), stated
                self._ceiling = min(self._cap, stated)
                self.is_stated = self.has_learned = True
                self._begin_at(stated, stated)

    def rise(self, answer_s: float = math.inf) -> None:
        """A request got through that left when the pace allowed it."""
        if self.per_s >= self._ceiling:
            return
        if self._leg.top == math.inf:
            doubling_s = min(DOUBLING_S, ANSWERS * answer_s)
            per_s = self.per_s * 2.0 ** (1.0 / max(DOUBLING, doubling_s * self.per_s))
        else:
            self._along += 1
            most = self.per_s * 2.0 ** (1.0 / max(2 * DOUBLING, self.per_s))
            per_s = min(most, self._used.per_s(self._along))
        self.per_s = min(self._ceiling, max(self.per_s, per_s))

    # --- what the 429s say ------------------------------------------------------------------------

    def turn_to(self, at: Mark) -> None:
        """What comes next is of another stream, or after a pause: nothing earlier belongs to it."""
        self._before = self._begun = self._chain = at
        self._marks = [at]
        self.marked_per_s = 0.0
        self._longer: list[tuple[float, Mark]] = []
        self._opened, self._hits = (-math.inf, -math.inf), 0
        """The gate opened last between the two, so often whole seconds after the time before."""
        self._refused_at = at.through

    def mark(self, at: Mark) -> None:
        """A request leaves, at a pace that is higher than that of the last one marked."""
        self._marks.append(at)
        self.marked_per_s = 1.1 * self.per_s

    def through(self, at: Mark) -> int:
        """Return how many got through in this leg."""
        return at.through - self._begun.through

    @property
    def may_be_lone(self) -> bool:
        """Whether a 429 may be one that closes nothing."""
        return self.is_found and not self._quiet_s

    def opens_at(self, now: float) -> float:
        """Return when a window ends, where that explains a 429; else infinite."""
        left_s = 1.0 - (now - self._opened[1]) % 1.0 if self._hits >= HITS else math.inf
        return now + left_s + 0.004 if left_s < NEARLY_S else math.inf

    def _note_window(self, after: float, by: float) -> None:
        was_after, was_by = self._opened
        is_exact = by - was_by > 1.0 - NEARLY_S and by - after + was_by - was_after < VAGUE_S
        is_whole = is_exact and (by - was_after + 0.002) // 1.0 >= after - was_by - 0.002
        self._hits = self._hits + 1 if is_whole else 0
        self._opened = (max(after, by - 0.02) if self._hits >= HITS else after, by)

    def quiet_s(self, tries: int) -> float:
        """Return how long nothing may leave after so many tries in a row; 0: that is not known."""
        if tries == 1:  # that one came too soon
            self._quiet_s *= 1.2
        return self._quiet_s if tries <= 1 else 0.0

    def learn(self, event: Event) -> None:
        """Go on after an event: with the next leg, or with the same one."""
        self.has_learned = True
        if (leg := self._after(event)) is None:
            return
        if self.is_stated and not self._early:
            self._begin_at(self._stated, self._stated)
        else:
            self._begin(leg)

    def _begin_at(self, per_s: float, top: float) -> None:
        """Begin with a limit that is known from before."""
        self.is_found, self._confirmed = True, 1
        self._begin(Leg(per_s, top, max(SHORT, SPAN_S * top), max(SHORT, BEYOND * top)))

    def _begin(self, leg: Leg) -> None:
        self._leg = self._used = leg
        if self._left != NOTHING and self._confirmed and not self.is_stated:
            # What others take of the limit as it is found may be what is left to them.
            base = max(self._left.of(leg.top), LEAST_USED * leg.top)
            self._used = leg._replace(base=base, top=base, span=max(leg.span, HELD_S * base))
        self.per_s = min(self._ceiling, max(self._used.base, SLOWEST_PER_S))
        self._along = 0

    def _after(self, event: Event) -> Leg | None:
        """Return the next leg; None: the same one goes on."""
        per_s, is_first = event.refused.per_s, not self.is_found
        self.is_found = True
        through = event.through - self._begun.through
        # Where they have to be spaced, one refused for each third that got through says the same.
        spaced_most = max(SPACED_EARLY, 3 * (event.cost - 1))
        most = spaced_most if self.is_spaced else min(EARLY, 2 + EARLY_S * per_s)
        is_early = not is_first and through <= most
        self._early = self._early + 1 if is_early else 0
        self._cost += 0.25 * (event.cost - self._cost)
        span = self._gone(event)
        is_shut = event.closed_s > SHUT_SLOTS / per_s and not self.is_spaced
        if is_shut:
            self._note_window(event.tried_at, event.at.at)
        if is_shut and event.closed_s > PENALTY_S:
            self._mind_penalty(event, span)
        else:
            self._shut = None  # a penalty follows every 429
        goodput = self._goodput(event, span, is_first=is_first)
        if self._is_by_chance(event, is_first=is_first):
            return None
        if is_first:
            base = max(goodput, 1 / max(event.closed_s, SHORTEST_S)) if self.is_spaced else goodput
            # The gate opened after the last try that was refused: perhaps long before the next one.
            last = Mark(max(event.tried_at, event.refused.at), event.at.through)
            is_vague = event.closed_s <= 2 * SPAN_S and not self._is_per_user
            most = span.goodput(last) if is_vague else base
            top = math.inf if self.is_spaced else min(max(base, (base + most) / 2), 1.5 * base)
        else:
            base, top = self._next(event, goodput, through)
        return self._next_leg(event, max(base, SLOWEST_PER_S), top, through)

    def _next(self, event: Event, goodput: float, through: int) -> tuple[float, float]:
        """Return base and top of the next leg, after any but the first event."""
        per_s = event.refused.per_s
        if not (self.is_spaced or self._quiet_s):
            is_near = through > NEAR * self._leg.span
            self._trust = self._trust + 0.2 * (1 - self._trust) if is_near else 0.7 * self._trust
        if self._quiet_s or event.was_asked:
            base = self._after_penalty(event)
            return base, base
        if self.is_spaced:
            return max(LEAST_FALL, 1 - CUT * 2**self._early) * per_s, per_s
        if self._early and event.closed_s <= SPAN_S:
            is_little = event.at.through - self._chain.through <= EARLY
            fall = max(LEAST_FALL, 1 - FALL * 2**self._early) if is_little else 0.0
            base = min(max(fall * per_s, goodput), (1 - 2 * FALL) * per_s)
            return base, (1 - FALL) * per_s if is_little else base
        low = min(goodput, per_s)
        high = max(low, per_s * (1 - min(1.0, event.closed_s / self._scale_s)))
        top = low + self._trust * (high - low)
        return (1 - CUT / 2) * top, top

    def _gone(self, event: Event) -> Mark:
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

    def _goodput(self, event: Event, span: Mark, *, is_first: bool) -> float:
        """Return the requests per second that got through; penalties are no part of it."""
        if self._quiet_s:
            return self._begun.goodput(Mark(event.refused.at, event.at.through))
        # The one refused would have been the next.
        goodput = span.goodput(event.at, 0.0 if event.closed_s else 0.5)
        if event.closed_s > SPAN_S:
            return goodput
        least_s = 0.2 if is_first else 0.9
        late = [mark for mark in self._marks[1:] if event.at.at - mark.at > least_s]
        return max([goodput, *(mark.goodput(event.at) for mark in late)])

    def _mind_penalty(self, event: Event, span: Mark) -> None:
        """Closed as long as the last time, though more got through than a window allows?"""
        quiet_s, closed_s, end = event.at.at - event.tried_at, event.closed_s, event.at.through
        if self._shut and not self._quiet_s and not event.was_asked:
            was_s, through, per_s = self._shut
            is_more = any(
                end - mark.through > 0.9 * (through + per_s * (event.refused.at - mark.at)) + 6
                for mark in self._marks
            )
            is_as_long = max(was_s, closed_s) < 1.9 * min(was_s, closed_s)
            if is_as_long and is_more and quiet_s > 0.25 * closed_s:
                self._quiet_s = quiet_s
        whole_s = max(event.refused.at - span.at, SHORTEST_S) + closed_s
        self._shut = (closed_s, end - span.through, (end - span.through) / whole_s)

    def _after_penalty(self, event: Event) -> float:
        refused = event.refused
        least_s = max(self._quiet_s, SPAN_S)
        back = [mark for mark in self._marks if refused.at - mark.at >= least_s]
        mark = (back or [self._begun])[-1]
        through = event.at.through - mark.through + 1
        high = min(refused.per_s, through / max(least_s, refused.at - mark.at))
        is_short = refused.at - self._begun.at <= 4 * event.closed_s
        return min(0.97 * high, (0.85 if is_short else 1.0) * refused.per_s)

    def _is_by_chance(self, event: Event, *, is_first: bool) -> bool:
        """Return whether the pace has nothing to do with it, so that the leg goes on."""
        per_s = event.refused.per_s
        apart = (event.through - self._refused_at) / max(1, event.cost)
        self._refused_at = event.through
        if event.closed_s > SPAN_S:
            self._proven = self._chance = 0.0
        if event.closed_s or self._early or self.is_spaced or is_first:
            return False
        if self._confirmed and event.at.at - self._before.at > SPAN_S:
            self._proven = max(self._proven, self._before.goodput(event.at))
        if not self._chance:
            if apart <= CHANCE or per_s >= 0.97 * self._proven:
                return False
            self._chance = max(apart, 2 * CHANCE)
        self._chance += 0.2 * (apart - self._chance)
        if self._chance < CHANCE:
            self._proven = self._chance = 0.0
        return apart > DENSE * self._chance > 0

    def _next_leg(self, event: Event, base: float, top: float, through: int) -> Leg:
        top = max(top, base)
        is_same = abs(top - self._leg.top) < 0.05 * self._leg.top < math.inf
        self._confirmed = self._confirmed + 1 if is_same and not self._early else 0
        if not self._leg.top / CHANGE < top < self._leg.top * CHANGE:
            self._changed_at = event.at.at
        is_steady = self._quiet_s or event.at.at > self._changed_at + CHANGED_S
        longest = max(LONGEST_S * top, SLOW) if is_steady else max(CHANGING_S * top, SHORT)
        self._scale_s = max(SPAN_S, 0.7 * self._scale_s, event.closed_s)
        target = self._cost / (REFUSED + (2 / self._chance if self._chance else 0.0))
        if self._quiet_s or event.was_asked:
            target = max(target, event.closed_s * top / CLOSED)
        short = SHORT if self._is_per_user else max(LEAST, min(SHORT, SHORT_S * top))
        span = min(target, short * 4.0 ** min(self._confirmed, 16), longest)
        span = max(span, self._scale_s * top)
        if event.closed_s > SHUT_SLOTS / top:
            span = max(span, min(through, target))
        is_first = self._leg.top == math.inf
        beyond = (max(BEYOND, self._scale_s) if is_first else BEYOND * self._scale_s) * top
        if self.is_spaced:
            span, beyond = SLOW, min(beyond, 1.7 * SLOW)
        elif self._quiet_s:
            beyond = span
        self._before, self._begun = self._begun, event.at
        self._marks, self.marked_per_s = [self._begun], 1.1 * base
        if not self._early or event.closed_s > SPAN_S:
            self._chain = self._begun
        return Leg(base, top, span, max(short, beyond))

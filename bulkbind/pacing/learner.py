"""The pace of a stream, as a calculator that learns from every event and its moment.

`Pace` knows one stream's gate and the limits that the gateway states; `Search`, where it states
none, what each cycle showed, from one opening of the gate to the next. Who waits, how many requests
are in flight, and what other streams do they do not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.pacing.gate import COARSE_S, LATE_S, LONGEST_TRY_S, Opening, StreamGate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bulkbind.model import ServerLimit

STATED_SHARE = 0.995
"""Share of a stated limit that is used: the server's windows and ours are never in step."""
LEARNED_SHARE = 0.98
"""Share of an earlier run's limit at which a run begins; it rises to it as after any 429."""
SPAN = 100
"""Requests in a leg, until the pace is where the limit is believed to be; and at least …"""
SPAN_S = 1.0
"""… this many seconds where the gateway counts, so that a window's end shows, and …"""
SPAN_TRIES = 20.0
"""… this many times as long as it took to know that a try got through, and …"""
SPAN_ASKED = 20.0
"""… this many times the last Retry-After, so that waiting for it costs little of the time."""
BEYOND = 0.2
"""How much the pace is beyond the limit as it was known, as a share, two legs after the last 429;
from there it grows with the cube."""
DOUBLING_S = 0.25
DOUBLING = 10.0
"""A limit that is not in sight yet: the pace doubles in this time, and this many requests."""
AWAY_FIRST_S = 0.5
"""A server that is away is tried after 0.5 s, 1 s, 2 s, … and every LONGEST_TRY_S in the end."""
SILENT_IN_A_ROW = 5
"""Unanswered requests in a row after which the server is taken to be away."""
LONE_IN_A_ROW = 3
"""429s in a row, none of an earlier pace and none got through in between, of which the last closes
the gate where requests have to be spaced, too."""
SLOWEST_PER_S = 0.01
LONGEST_PACED_S = 120.0
"""The longest stated window over which requests are spread; a limit per hour is used up instead."""
SURE, SURE_S = 2.0, 0.01
"""A try got through if it is not refused within twice the time that a 429 takes, or 10 ms more."""
FORGET = 0.9
"""How much of the longest time that a 429 took is left with each further one."""


class Pace(StreamGate):
    """The gate of a stream whose limit is learned.

    Requests leave evenly, at a pace that rises until a 429 comes. That closes the gate for all: one
    request alone tries, again and again with growing waits, until one gets through. Then the pace
    continues where `search` says: a leg that begins a little below the limit as it is known, rises
    to it, and a little beyond; from there ever faster, since a limit that lets that pass has been
    lifted. A leg is so long that a 429 is met about once in `SPAN` requests, which costs a percent,
    and longer where each 429 costs long. A gateway that wants requests spaced refuses the one that
    comes too early, and no other: there a 429 lowers the pace alone, unless several come in a row.

    What the gateway states comes first: Retry-After is how long the gate stays closed, and a stated
    limit is the pace, which falls only where even that is refused. Answers to requests that left
    before the gate closed (an older epoch) neither open nor close it. A server that cannot be
    reached, or does not answer several requests in a row, closes the gate and leaves the pace.

    Attributes:
        is_away: It is closed because the server does not answer.
        is_stated: Whether the pace is the gateway's own word.
        stated_by: The header that states it; empty: a 429's text does, or nothing.
        has_learned: Whether the gateway has shown or stated its limit in this run.
        search: What is known of a limit that is not stated.
    """

    per_s: float
    __slots__ = (
        "_base", "_cap", "_ceiling", "_has_opened", "_lone", "_missed", "_refusal_s", "_silent",
        "_since", "_span", "_stale", "_stated", "_top", "_try_took_s", "_windows", "has_learned",
        "is_away", "is_stated", "per_s", "search", "stated_by",
    )  # fmt: skip

    def __init__(
        self,
        now: float,
        cap_per_s: float | None = None,
        learned_per_s: float | None = None,
        *,
        is_spaced: bool = False,
    ) -> None:
        """Begin with the operator's cap, and with what an earlier run learned of the gateway."""
        super().__init__(now)
        self._cap = cap_per_s or math.inf
        self._stated = math.inf
        self._ceiling = self._cap
        """The lower of both."""
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it stated."""
        self.stated_by = ""
        self.per_s = self._base = self._top = self._cap
        self.is_away = self.is_stated = self.has_learned = False
        self.search = Search(now, is_spaced=is_spaced)
        self._since = self._silent = 0
        self._missed = 0
        """Tries of a server that is away, after the first."""
        self._lone: list[Cycle] = []
        """What each 429 in a row has ended while the gate stayed open."""
        self._stale = 0
        """429s since the cycle began for what left before."""
        self._span = float(SPAN)
        self._try_took_s = self._refusal_s = 0.0
        self._has_opened = False
        """Whether the gate has opened in this run."""
        if learned_per_s is not None and learned_per_s < self._cap:
            self._begin(Leg(LEARNED_SHARE * learned_per_s, learned_per_s))

    def cap(self, cap_per_s: float | None, now: float) -> None:
        """Go on with another cap of the operator; None: with none."""
        before, self._cap = self._cap, cap_per_s or math.inf
        self._ceiling = min(self._cap, self._stated)
        if self.is_stated:
            self._begin(Leg(self._stated, self._stated))
        elif self.per_s > self._cap or (self.per_s == before and self._top <= before):
            # Nothing but the cap has held the pace back, or it is too high for the new one.
            self._top = self._cap if self._top <= before else max(self._cap, self._top)
            self.per_s = self._base = self._cap
        if not self.is_closed and self.per_s:
            self.next_at = min(self.next_at, now + 1.0 / self.per_s)

    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""
        if not self.search.is_spaced:
            return LATE_S
        return COARSE_S if self.is_stated else max(0.0, COARSE_S - 1.0 / self.per_s)

    def accepted(self, now: float, epoch: int) -> None:
        """An answer came that was no 429."""
        self._lone.clear()
        if epoch != self.epoch:
            return
        self._silent = 0
        if self.is_closed:
            self._open(now)
        elif self.per_s < self._ceiling and self._is_binding:
            # A sender that was not ready in time says nothing of the pace.
            self._rise()

    def throttled(
        self,
        now: float,
        epoch: int,
        *,
        limit: float | None = None,
        window_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """A 429 came, with what its text and headers state."""
        self.not_through(epoch)
        if epoch != self.epoch:
            self._stale += 1
            return
        if limit and window_s:
            self.stated([(limit, window_s)])
        # What refuses is there.
        self.is_away, self._silent = False, 0
        is_stated = self.is_stated or retry_after_s is not None
        is_searched = self.per_s == math.inf or self.is_closed
        if self.search.is_spaced and not is_stated and not is_searched:
            self._fall(now)
        else:
            self._refuse(now, limit, window_s, retry_after_s)

    def refusal_took(self, took_s: float) -> None:
        """A 429 took so long to come."""
        self._refusal_s = max(took_s, FORGET * self._refusal_s)

    def sure_at(self) -> float:
        """Return when the request that tries is known to have got through if no answer has come.

        A server that works on what it lets through refuses sooner than it answers; one that does
        not answer at all shows nothing by that: infinite.
        """
        if self.is_away:
            return math.inf
        return self.sent_at + max(SURE * self._refusal_s, self._refusal_s + SURE_S)

    def sure(self, now: float) -> None:
        """The request that tries has got through: it would have been refused by now."""
        self._open(now)

    def unanswered(self, now: float, epoch: int, *, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection."""
        self.not_through(epoch)
        if epoch != self.epoch:
            return
        self._silent += 1
        if is_away or self.is_away or self._silent >= SILENT_IN_A_ROW:
            self._silent = 0
            self._missed = self._missed + 1 if self.is_away else 0
            wait_s = min(LONGEST_TRY_S, AWAY_FIRST_S * 2.0 ** min(self._missed, 16))
            # What does not answer shows no limit.
            self.is_away = True
            self._close(now, wait_s)
        elif self.is_closed:
            # One that breaks off shows neither that the server is away nor that the limit is over.
            self._close(now, self._try_s(now))

    def stated(self, limits: Iterable[tuple[float, float]]) -> None:
        """The gateway stated limits, as requests per window and seconds: the tightest counts."""
        rates = [limit / window_s for limit, window_s in limits if window_s <= LONGEST_PACED_S]
        stated = STATED_SHARE * min(rates, default=math.inf)
        if rates and stated != self._stated:
            self._stated = max(stated, SLOWEST_PER_S)
            self._ceiling = min(self._cap, self._stated)
            self.is_stated = self.has_learned = True
            self._begin(Leg(self._stated, self._stated))

    def stated_in_headers(self, limits: Sequence[ServerLimit]) -> None:
        """As `stated`; where no window is stated, it is the longest time to a reset so far."""
        known = []
        for item in limits:
            window_s = item.window_s
            if window_s is None and item.reset_s:
                window_s = max(item.reset_s, self._windows.get(item.source, 0.0))
                self._windows[item.source] = window_s
            if item.limit is not None and window_s and window_s <= LONGEST_PACED_S:
                known.append((item.limit, window_s, item.source))
        if known:
            self.stated((limit, window_s) for limit, window_s, _ in known)
            self.stated_by = min(known, key=lambda limit: limit[0] / limit[1])[2]

    def follow(self, gate: StreamGate) -> None:
        """Learn from another stream from now on, from where its *gate* is."""
        self.continue_from(gate)
        self._is_binding = False
        self.search.turn_to(self.began)

    def limit_per_s(self) -> float | None:
        """Return the limit as the gateway has shown or stated it in this run; None: it has not."""
        if not self.has_learned:
            return None
        if self.is_stated:
            return self._stated
        return self._top if self._top < math.inf else self.per_s

    def _fall(self, now: float) -> None:
        """A 429 speaks of its own request: the gate stays open, unless it is one of a row."""
        if len(self._lone) == LONE_IN_A_ROW - 1:
            first = self._lone[0]
            self._lone.clear()
            self.began, self.through = first.began, first.accepted
            self._base, self.per_s = first.base_per_s, first.refused_per_s
            self._refuse(now, None, None, None)
            self.closed_at = first.ended.by
            return
        self._asked_s = 0.0
        cycle = self._cycle(Opening(now, now), closed_s=0.0, tries=1)
        self._lone.append(cycle)
        self.epoch += 1
        self._begin_at(cycle.ended)
        self.has_learned = True
        self._begin(self.search.after(cycle))

    def _open(self, now: float) -> None:
        """A try got through: the cycle is over."""
        self.is_closed = False
        self._try_took_s = now - self.sent_at
        opening = self._opening(now)
        was_shut = not self._has_opened and self.through <= 1
        if self.is_away or was_shut:
            # Neither a server that was away shows a limit, nor a gate that was shut from the start.
            self._has_opened = self._has_opened or not self.is_away
            self.is_away = False
            self._begin_at(opening)
            self.search = self.search.anew(now)
            return
        self._has_opened = True
        cycle = self._cycle(opening, closed_s=now - self.closed_at, tries=self._tries)
        if self.is_stated and (cycle.accepted > EARLY or cycle.refused_per_s == math.inf):
            leg = Leg(self._stated, self._stated)
        else:
            leg = self.search.after(cycle)
        self._begin_at(opening)
        self.has_learned = True
        self._begin(leg)
        self._space(now)

    def _cycle(self, ended: Opening, *, closed_s: float, tries: int) -> Cycle:
        return Cycle(
            accepted=self.through,
            refused=self._stale,
            began=self.began,
            ended=ended,
            base_per_s=self._base,
            refused_per_s=self.per_s,
            closed_s=closed_s,
            tries=tries,
            was_asked=self._asked_s > 0.0,
        )

    def _begin(self, leg: Leg) -> None:
        self.per_s = self._base = min(self._ceiling, max(leg.per_s, SLOWEST_PER_S))
        self._top = max(leg.top, self.per_s)
        self._since = self._stale = 0
        span_s = 0.0 if self.search.is_spaced else max(SPAN_S, SPAN_TRIES * self._try_took_s)
        self._span = max(SPAN, self.per_s * max(span_s, SPAN_ASKED * self._asked_s))

    def _rise(self) -> None:
        if self._top == math.inf:
            per_s = self.per_s * 2.0 ** (1.0 / max(DOUBLING, DOUBLING_S * self.per_s))
        else:
            self._since += 1
            along = self._since / self._span
            steps = along if self.search.is_spaced else min(along, 1.0)
            beyond = BEYOND * max(0.0, along - 1.0) ** 3
            per_s = self._base + (self._top - self._base) * steps + self._top * beyond
        self.per_s = min(self._ceiling, max(self.per_s, per_s))


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
"""Windows of different lengths that are distinguished."""
COSTLY = 0.1
"""Share of a cycle that a Retry-After took: from there on the next pace is the geometric middle of
the bounds, since each 429 costs more than a pace that is a little low."""
SHORTEST_S = 1e-6


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
    """The bounds of the limit, L requests per second, and what led to them.

    What got through in a cycle, over its length (the *goodput*), is never more than L, give or take
    one request. It is L itself where the gateway was kept busy, so that nothing it would have let
    through was left unsent: windows and buckets alike. Busy cycles in a row count as one long one.

    A gateway that wants requests spaced refuses each one that comes too early, be it by a
    millisecond of jitter. Its goodput says little; the pace at which it refuses now and then is its
    limit. It never refuses for longer than a slot: one that does counts requests.
    One that stays closed for much longer than in the cycles before counts twice, and has used up a
    longer window. That began with the first cycle after the gate was last closed for as long.

    An opening lies between the last try that was refused and the one that got through, so a goodput
    lies between a least and a most. The narrowest such bounds are kept until a cycle contradicts
    them: then the limit has changed.
    """

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

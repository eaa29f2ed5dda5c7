"""The pace of a stream, as a calculator that learns from every event and its moment.

`Pace` knows one stream's gate and the limits that the gateway states; `Search`, where it states
none, what each leg showed, from one 429 to the next. Who waits, how many requests are in flight,
and what other streams do they do not know.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.pacing.gate import (
    COARSE_S,
    FIRST_TRY_S,
    KNOWN_LATE_S,
    LATE_S,
    LONGEST_TRY_S,
    Sent,
    StreamGate,
)
from bulkbind.pacing.search import SLOWEST_PER_S, Event, Leg, Search

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bulkbind.model import ServerLimit

STATED_SHARE = 0.995
"""Share of a stated limit that is used: the server's windows and ours are never in step."""
LEARNED_SHARE = 0.98
"""Share of an earlier run's limit at which a run begins; it rises to it as after any 429."""
START_PER_S = 250.0
"""The pace before any limit is known, which doubles …"""
DOUBLING_S, ANSWERS, DOUBLING = 0.2, 80.0, 10.0
"""… in this time, or in that of so many answers one after the other where that is shorter (few are
in flight then, to be refused at once), and in this many requests. Once there was a 429, it does so
in a second at most."""
TOGETHER = 2
"""So many leave at once in the beginning, to see whether they may."""
AWAY_FIRST_S = 0.5
"""A server that is away is tried after 0.5 s, 1 s, 2 s, … and every LONGEST_TRY_S in the end."""
SILENT_IN_A_ROW = 5
"""Unanswered requests in a row after which the server is taken to be away."""
LONGEST_PACED_S = 120.0
"""The longest stated window over which requests are spread; a limit per hour is used up instead."""
SURE, SURE_S = 2.0, 0.01
"""A try got through if it is not refused within twice the time that a 429 takes, or 10 ms more."""


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
HELD_S = 60.0
"""Where something is left to others, the limit itself is looked for once in so long."""


class Pace(StreamGate):
    """The gate of a stream whose limit is learned.

    Requests leave evenly, at a pace that rises until a 429 comes. If the next one gets through,
    that one was too early, and that is all. Otherwise the gate closes for all: one request alone
    tries, again and again with growing waits, until one gets through. Then the pace continues where
    `search` says.

    What the gateway states comes first: Retry-After is how long the gate stays closed, and a stated
    limit is the pace, which falls only where even that is refused. Answers to requests that left
    before a 429 (an older epoch) neither open nor close the gate. A server that cannot be reached,
    or does not answer several requests in a row, closes the gate and leaves the pace.

    Attributes:
        answer_s: How long an answer usually takes; infinite before the first.
        is_away: It is closed because the server does not answer.
        is_stated: Whether the pace is the gateway's own word.
        stated_by: The header that states it; empty: a 429's text does, or nothing.
        told: The limit as the gateway states it, and its window in seconds; None before.
        has_learned: Whether the gateway has shown or stated its limit in this run.
        search: What is known of a limit that is not stated.
    """

    per_s: float
    __slots__ = (
        "_along", "_cap", "_ceiling", "_cost", "_first", "_held", "_is_asked", "_left", "_missed",
        "_refusal_s", "_silent", "_start_per_s", "_stated", "_through", "_tried_at", "_windows",
        "answer_s", "has_learned", "is_away", "is_stated", "per_s", "search", "stated_by", "told",
    )  # fmt: skip

    def __init__(
        self,
        now: float,
        cap_per_s: float | None = None,
        learned_per_s: float | None = None,
        *,
        is_spaced: bool = False,
        start_per_s: float = START_PER_S,
        left: Left = NOTHING,
    ) -> None:
        """Begin with the operator's cap, and with what an earlier run learned of the gateway.

        *left*: what of the limit is for others.
        """
        super().__init__(now)
        self._cap = self._ceiling = cap_per_s or math.inf
        self._stated = math.inf
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it stated."""
        self.stated_by = ""
        self.told: tuple[float, float] | None = None
        self._left = left
        self._start_per_s = start_per_s
        self.per_s = cap_per_s or start_per_s
        self.is_away = self.is_stated = self.has_learned = self._is_asked = False
        self.search = Search(now, is_spaced=is_spaced)
        self._along = self._silent = self._cost = 0
        self.answer_s = math.inf
        self._missed = 0
        """Tries of a server that is away, after the first."""
        self._held: Leg | None = None
        """The leg instead, where something is left to others."""
        self._first: Sent | None = None
        """The first 429 since which no request that left later was answered."""
        self._through = 0
        """Requests that had got through in the leg before it."""
        self._refusal_s = 0.0
        self._tried_at = now
        if learned_per_s is not None and learned_per_s < self._cap:
            self._begin(self.search.begin_at(LEARNED_SHARE * learned_per_s, learned_per_s))

    @property
    def known_per_s(self) -> float:
        """The pace where a limit sets it; infinite where none has been met or set."""
        is_free = not (self.search.is_found or self.is_stated) and self._ceiling == math.inf
        return math.inf if is_free else self.per_s

    def cap(self, cap_per_s: float | None, now: float) -> None:
        """Go on with another cap of the operator; None: with none."""
        was_held, self._cap = self.per_s >= self._ceiling, cap_per_s or math.inf
        self._ceiling = min(self._cap, self._stated)
        if self.is_stated:
            self._begin(self.search.begin_at(self._stated, self._stated))
        elif was_held:
            # Nothing but the cap has held the pace back.
            leg = self._held or self.search.leg
            self.per_s = max(self.per_s, leg.base if self.search.is_found else self._start_per_s)
        self.per_s = min(self._ceiling, self.per_s)
        if not self.is_closed and self.per_s:
            self.next_at = min(self.next_at, now + 1.0 / self.per_s)

    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""
        if not self.search.is_spaced:
            return KNOWN_LATE_S if self.per_s >= self._ceiling else LATE_S
        return COARSE_S if self.is_stated else max(0.0, COARSE_S - 1.0 / self.per_s)

    def sent(self, now: float) -> Sent:
        """A request leaves at *now*.

        The first ones leave together, unless a limit is known that forbids it.
        """
        sent = super().sent(now)
        if self.number < TOGETHER and self.known_per_s == math.inf:
            self.next_at = now
        if not self.is_closed:
            self.search.sent(now, self.number, self.per_s)
        return sent

    def accepted(self, sent: Sent) -> None:
        """An answer came that was no 429."""
        if sent.epoch != self.epoch:
            return
        self._silent = 0
        if self.is_closed:
            self._open()
        elif self._first is not None:
            self._end(self._first, self._first.at, self._first.number, closed_s=0.0)
        elif sent.is_binding and self.per_s < self._ceiling:
            # A sender that was not ready in time says nothing of the pace.
            self._rise()

    def throttled(
        self,
        now: float,
        sent: Sent,
        *,
        limit: float | None = None,
        window_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """A 429 came, with what its text and headers state."""
        self.lost(sent)
        self._cost += 1
        if sent.epoch != self.epoch:
            return
        if limit and window_s:
            self.stated([(limit, window_s)])
        self.is_away, self._silent = False, 0  # what refuses is there
        self._tried_at = sent.at
        opens_at = self.search.opens_at(now)
        is_told = self.is_stated or retry_after_s is not None
        may_be_lone = self.search.is_found and not self.search.quiet_s and opens_at == math.inf
        is_first = self._first is None
        if is_first:
            self._first, self._through = sent, self.search.through(sent.number)
        if may_be_lone and is_first and not (self.is_closed or is_told):
            self.epoch += 1
            self.next_at = max(self.next_at, now, sent.at + 1.0 / sent.per_s)
            return
        was_open = not self.is_closed
        self._is_asked = retry_after_s is not None
        self._refuse(now, limit, window_s, retry_after_s)
        if was_open and self._first is not None:
            self.closed_at = self._first.at
            if opens_at < math.inf and not is_told:
                self.next_at = max(opens_at, now + min(1.0 / self.per_s, FIRST_TRY_S))

    def lost(self, sent: Sent) -> None:
        """A request was refused, whatever for, or did not arrive."""
        super().lost(sent)
        self.search.lost(sent.number)
        if self._first is not None and sent.number < self._first.number:
            self._through -= 1

    def refusal_took(self, took_s: float) -> None:
        """A 429 took so long to come."""
        self._refusal_s = took_s

    def sure_at(self) -> float:
        """Return when the request that tries is known to have got through if no answer has come.

        A server that works on what it lets through refuses sooner than it answers.
        """
        return self.sent_at + max(SURE * self._refusal_s, self._refusal_s + SURE_S)

    def sure(self) -> None:
        """The request that tries has got through: it would have been refused by now."""
        self._open()

    def unanswered(self, now: float, sent: Sent, *, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection; else it was let through."""
        if is_away:
            self.lost(sent)
        is_past = self.is_away and sent.number < self.number  # another one tries
        if sent.epoch != self.epoch or is_past:
            return
        self._silent += 1
        if is_away or self.is_away or self._silent >= SILENT_IN_A_ROW:
            self._silent = 0
            wait_s = self._away_s()
            # What does not answer shows no limit.
            self.is_away, self._first = True, None
            self._close(now, wait_s)
        elif self.is_closed:
            # One that breaks off shows neither that the server is away nor that the limit is over.
            self._close(now, self._try_s(now))

    def silent(self, now: float) -> None:
        """The request that tries a server that is away has no answer yet: another one may."""
        self.next_at = now + self._away_s()

    def _away_s(self) -> float:
        """Return how long to wait for the next try."""
        self._missed = self._missed + 1 if self.is_away else 0
        return min(LONGEST_TRY_S, AWAY_FIRST_S * 2.0 ** min(self._missed, 16))

    def stated(self, limits: Iterable[tuple[float, float]]) -> None:
        """The gateway stated limits, as requests per window and seconds: the tightest counts."""
        told = [limit for limit in limits if limit[1] <= LONGEST_PACED_S]
        tightest = min(told, key=lambda limit: limit[0] / limit[1], default=(math.inf, 1.0))
        stated = STATED_SHARE * tightest[0] / tightest[1]
        if told and stated != self._stated:
            self.told = tightest
            self._stated = max(stated, SLOWEST_PER_S)
            self._ceiling = min(self._cap, self._stated)
            self.is_stated = self.has_learned = True
            self._begin(self.search.begin_at(self._stated, self._stated))

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
        self._first = None
        self.search.turn_to(self.began_at, self.number - self.through)

    def limit_per_s(self) -> float | None:
        """Return the limit as the gateway has shown or stated it in this run; None: it has not."""
        if not self.has_learned:
            return None
        if self.is_stated:
            return self._stated
        return self.search.leg.top if self.search.leg.top < math.inf else self.per_s

    def _try_s(self, now: float) -> float:
        """As for any gate; but after a penalty nothing may leave before it is over."""
        if self.search.quiet_s and (not self.is_closed or self._tries == 1):
            if self.is_closed:
                self.search.tries_late()
            return self.search.quiet_s
        return super()._try_s(now)

    def _open(self) -> None:
        """A try got through: what closed the gate is over."""
        at, number, first = self.sent_at, self.number - 1, self._first
        was_away, self.is_away = self.is_away, False
        self._reopen()
        was_shut = not self.has_learned and self.search.through(number) < 1
        if was_away or first is None or was_shut:
            # Neither a server that was away shows a limit, nor a gate that was shut from the start.
            self.search.turn_to(at, number)
            self._first, self._cost = None, 0
        else:
            self._end(first, at, number, closed_s=max(at - self.closed_at, 0.0))
            self._space()

    def _end(self, first: Sent, at: float, number: int, *, closed_s: float) -> None:
        """Requests get through again after 429s, the *first* of which was lone if it took 0 s."""
        tried_at = self._tried_at if closed_s else first.at
        event = Event(
            refused=first,
            through=max(0, self._through),
            tried_at=tried_at,
            at=at,
            number=number,
            cost=self._cost,
            closed_s=closed_s,
            was_asked=self._is_asked,
        )
        before, leg = self.search.leg, self.search.after(event)
        self.has_learned, self._first, self._cost = True, None, 0
        if leg is before:
            return
        if self.is_stated and not self.search.is_early:
            leg = self.search.begin_at(self._stated, self._stated)
        self._begin(leg)

    def _begin(self, leg: Leg) -> None:
        self._held = None
        if self._left != NOTHING and (self.search.is_sure or self.is_stated):
            base = self._left.of(leg.top)
            span = math.inf if self.is_stated else max(leg.span, HELD_S * base)
            leg = self._held = leg._replace(base=base, top=base, span=span)
        self.per_s = min(self._ceiling, max(leg.base, SLOWEST_PER_S))
        self._along = self._cost = 0
        self._is_asked = False

    def _rise(self) -> None:
        leg = self._held or self.search.leg
        if leg.top == math.inf:
            doubling_s = min(DOUBLING_S, ANSWERS * self.answer_s)
            per_s = self.per_s * 2.0 ** (1.0 / max(DOUBLING, doubling_s * self.per_s))
        else:
            self._along += 1
            most = self.per_s * 2.0 ** (1.0 / max(2 * DOUBLING, self.per_s))
            per_s = min(most, leg.per_s(self._along))
        self.per_s = min(self._ceiling, max(self.per_s, per_s))

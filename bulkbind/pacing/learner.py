"""The pace, as a calculator: it is handed every event with its moment, and says when to send next.

The model. Requests leave evenly, at a pace that rises until a 429 comes. That closes the gate for
all: one request alone tries, again and again with growing waits, until one gets through. It has
when it is answered, or not refused in the time that a 429 takes, since a server that works on what
it lets through refuses sooner than it answers. Then the gate is open, and the pace goes on from
where `search` says: a leg that begins a little below the limit as it is known, rises to it, and a
little beyond. Where nothing happens there, the limit has been lifted, and the pace rises ever
faster until the next 429. How long a leg is: so long that a 429 is met about once in `SPAN`
requests, which costs a percent, and longer where each 429 costs long.

A gateway that wants requests spaced refuses the one that comes too early, and no other: there the
gate stays open after a 429, and only the pace falls, unless several 429s come in a row.

What the gateway tells comes first: Retry-After is how long the gate stays closed, and a told limit
is the pace, which then falls only where the gateway refuses even that. Answers to requests that
left before the gate closed (an older epoch) neither open nor close it. A server that cannot be
reached, or leaves several requests in a row unanswered, closes the gate in the same way, and the
pace is the same afterwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bulkbind.pacing.gate import COARSE_S, LATE_S, LONGEST_TRY_S, Turn
from bulkbind.pacing.limit_search import EARLY, Cycle, Leg, Opening, Search

if TYPE_CHECKING:
    from collections.abc import Iterable

TOLD_SHARE = 0.995
"""Share of a told limit that is used: the server's windows and ours are never in step."""
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
"""The longest told window over which requests are spread; a limit per hour is used up instead."""


class Pace(Turn):
    """The turn of a stream whose limit is learned.

    Attributes:
        is_away: It is closed because the server does not answer.
        is_told: Whether the pace is the gateway's own word.
        has_learned: Whether the gateway has shown or told its limit in this run.
        search: What is known of an untold limit.
    """

    __slots__ = (
        "_base", "_cap", "_has_opened", "_is_binding", "_lone", "_silent", "_since", "_span",
        "_stale", "_told", "_top", "_try_took_s", "has_learned", "is_away", "is_told", "per_s",
        "search",
    )  # fmt: skip

    def __init__(
        self,
        now: float,
        cap_per_s: float | None = None,
        learned_per_s: float | None = None,
        *,
        is_spaced: bool = False,
    ) -> None:
        """Begin; nothing is closed.

        Args:
            now: The moment.
            cap_per_s: The operator's; None: no cap.
            learned_per_s: The limit that an earlier run met; None: nothing is known.
            is_spaced: Whether the gateway was seen to want requests spaced.
        """
        super().__init__(now)
        self._cap = cap_per_s or math.inf
        self._told = math.inf
        self.per_s = self._base = self._top = self._cap
        self.is_away = self.is_told = self.has_learned = False
        self.search = Search(now, is_spaced=is_spaced)
        self._since = self._silent = 0
        self._lone: list[Cycle] = []
        """What each 429 in a row has ended while the gate stayed open."""
        self._stale = 0
        """429s since the cycle began for what left before."""
        self._span = float(SPAN)
        self._try_took_s = 0.0
        self._is_binding = False
        self._has_opened = False
        """Whether the gate has opened in this run."""
        if learned_per_s is not None and learned_per_s < self._cap:
            self._begin(Leg(LEARNED_SHARE * learned_per_s, learned_per_s))

    # --- what happens ----------------------------------------------------------------------------

    def sent(self, now: float) -> None:
        """A request leaves at *now*."""
        # A sender that was not ready in time says nothing of the pace.
        self._is_binding = now - self.next_at < max(COARSE_S, self.late_s()) + 2 / self.per_s
        super().sent(now)

    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""
        if not self.search.is_spaced:
            return LATE_S
        return COARSE_S if self.is_told else max(0.0, COARSE_S - 1.0 / self.per_s)

    def accepted(self, now: float, epoch: int) -> None:
        """An answer came that was no 429."""
        self._lone.clear()
        if epoch != self.epoch:
            return
        self._silent = 0
        if self.is_closed:
            self._open(now)
        elif self.per_s < min(self._cap, self._told) and self._is_binding:
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
        """A 429 came, with what its text and headers tell."""
        self.not_through(epoch)
        if epoch != self.epoch:
            self._stale += 1
            return
        if limit and window_s:
            self.told([(limit, window_s)])
        # What refuses is there.
        self.is_away = False
        is_told = self.is_told or retry_after_s is not None
        is_searched = self.per_s == math.inf or self.is_closed
        if self.search.is_spaced and not is_told and not is_searched:
            self._fall(now)
        else:
            self._refuse(now, limit, window_s, retry_after_s)

    def sure_at(self) -> float:
        """As of any turn; a server that does not answer at all is no such."""
        return math.inf if self.is_away else super().sure_at()

    def sure(self, now: float) -> None:
        """The request that tries has got through: it would have been refused by now."""
        self._open(now)

    def unanswered(self, now: float, epoch: int, *, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection."""
        self.not_through(epoch)
        if epoch != self.epoch:
            return
        self._silent += 1
        if is_away or self.is_closed or self._silent >= SILENT_IN_A_ROW:
            self._silent = 0
            tries = self._tries if self.is_closed else 0
            wait_s = min(LONGEST_TRY_S, AWAY_FIRST_S * 2.0 ** min(tries, 16))
            # What does not answer shows no limit.
            self.is_away = True
            self._close(now, wait_s)

    def told(self, limits: Iterable[tuple[float, float]]) -> None:
        """The gateway told limits, as requests per window and seconds: the tightest counts."""
        rates = [limit / window_s for limit, window_s in limits if window_s <= LONGEST_PACED_S]
        told = TOLD_SHARE * min(rates, default=math.inf)
        if rates and told != self._told:
            self._told = max(told, SLOWEST_PER_S)
            self.is_told = self.has_learned = True
            self._begin(Leg(self._told, self._told))

    def take_over(self, turn: Turn) -> None:
        """Learn from another stream from now on, which is where *turn* says."""
        self.copy(turn)
        self._is_binding = False
        self.search.turn_to(self.began)

    def mind_pause(self, now: float) -> None:
        """As of any turn; the cycle is not added up with those before."""
        began = self.began
        super().mind_pause(now)
        if began is not self.began:
            self.search.turn_to(self.began)

    def limit_per_s(self) -> float | None:
        """Return the limit as the gateway has shown or told it in this run; None: it has not."""
        if not self.has_learned:
            return None
        if self.is_told:
            return self._told
        return self._top if self._top < math.inf else self.per_s

    # --- what follows ----------------------------------------------------------------------------

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
        self._try_took_s = now - self.last_sent_at()
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
        if self.is_told and (cycle.accepted > EARLY or cycle.refused_per_s == math.inf):
            leg = Leg(self._told, self._told)
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
        ceiling = min(self._cap, self._told)
        self.per_s = self._base = min(ceiling, max(leg.per_s, SLOWEST_PER_S))
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
        self.per_s = min(self._cap, self._told, max(self.per_s, per_s))

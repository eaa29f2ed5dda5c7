"""The pace, as a calculator: it is handed every event with its moment, and says when to send next.

The model. Requests leave evenly, at a pace that rises until a 429 comes. That closes the gate for
all: one request alone tries, again and again with growing waits, until one gets through. Then the
gate is open, and the pace goes on from where `search` says: a leg that begins a little below the
limit as it is known, rises to it, and a little beyond. Where nothing happens there, the limit has
been lifted, and the pace rises ever faster until the next 429. How long a leg is: so long that a
429 is met about once in `SPAN` requests, which costs a percent, and longer where each 429 costs
long.

What the gateway tells comes first: Retry-After is how long the gate stays closed, and a told limit
is the pace, which then falls only where the gateway refuses even that. Answers to requests that
left before the gate closed (an older epoch) neither open nor close it. A server that cannot be
reached, or leaves several requests in a row unanswered, closes the gate in the same way, and the
pace is the same afterwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bulkbind.engine.search import EARLY, Cycle, Leg, Opening, Search

if TYPE_CHECKING:
    from collections.abc import Iterable

TOLD_SHARE = 0.995
"""Share of a told limit that is used: the server's windows and ours are never in step."""
LEARNED_SHARE = 0.98
"""Share of an earlier run's limit at which a run begins; it rises to it as after any 429."""
COARSE_S = 0.002
"""Timers are about 1 ms coarse: what they make late is made up for within this time. Where the
gateway wants requests spaced, only at intervals shorter than that."""
SPAN = 80
"""Requests in a leg, until the pace is where the limit is believed to be; and at least …"""
SPAN_S = 1.0
"""… this many seconds where the gateway counts, so that a window's end shows, and …"""
SPAN_ASKED = 20.0
"""… this many times the last Retry-After, so that waiting for it costs little of the time."""
BEYOND = 0.06
"""How much the pace is beyond the limit as it was known, as a share, two legs after the last 429;
from there it grows with the cube."""
DOUBLING_S = 0.25
DOUBLING = 10.0
"""A limit that is not in sight yet: the pace doubles in this time, and this many requests."""
FIRST_TRY_S = 0.01
"""The first try after the very first 429; later ones come after a slot of the pace, or after …"""
TRY_S = 0.25
"""… this time, where slots are longer."""
TRY_GROWTH = 0.75
"""The wait for the next try, as a share of how long the gate has been closed, or is overdue."""
COMMON_WINDOWS_S = (1.0, 10.0, 60.0)
"""Windows as most gateways have them: a try is made when one of them would just be over."""
LONGEST_TRY_S = 60.0
AWAY_FIRST_S = 0.5
"""A server that is away is tried after 0.5 s, 1 s, 2 s, … and every LONGEST_TRY_S in the end."""
SILENT_IN_A_ROW = 5
"""Unanswered requests in a row after which the server is taken to be away."""
SLOWEST_PER_S = 0.01
LONGEST_PACED_S = 120.0
"""The longest told window over which requests are spread; a limit per hour is used up instead."""
USED_UP = 0.9
"""So much of a told limit got through since the gate opened: the window began about then."""


class Pace:
    """What is allowed now; all moments are monotonic seconds.

    Attributes:
        per_s: Requests per second allowed now; infinite while nobody has set a limit.
        next_at: Nobody sends before.
        epoch: How often the gate has closed.
        is_closed: One request alone tries, nobody else sends.
        is_away: It is closed because the server does not answer.
        closed_at: When it closed.
        is_told: Whether the pace is the gateway's own word.
        has_learned: Whether the gateway has shown or told its limit in this run.
        search: What is known of an untold limit.
    """

    __slots__ = (
        "_accepted", "_asked_s", "_base", "_began", "_cap", "_due_at", "_is_binding", "_refused_at",
        "_sent_at", "_silent", "_since", "_span", "_told", "_top", "_tries", "closed_at", "epoch",
        "has_learned", "is_away", "is_closed", "is_told", "next_at", "per_s", "search",
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
        self._cap = cap_per_s or math.inf
        self._told = math.inf
        self.per_s = self._base = self._top = self._cap
        self.next_at = now
        self.epoch = 0
        self.is_closed = self.is_away = self.is_told = self.has_learned = False
        self.closed_at = self._due_at = self._refused_at = now
        self._sent_at: float | None = None
        self.search = Search(now, is_spaced=is_spaced)
        self._accepted = self._since = self._tries = self._silent = 0
        self._began = Opening(now, now)
        self._asked_s = 0.0
        self._span = float(SPAN)
        self._is_binding = False
        if learned_per_s is not None and learned_per_s < self._cap:
            self._begin(Leg(LEARNED_SHARE * learned_per_s, learned_per_s))

    # --- what happens ----------------------------------------------------------------------------

    def sent(self, now: float) -> None:
        """A request leaves at *now*."""
        if self._sent_at is None:
            self._began = Opening(now, now)
        self._sent_at = now
        if self.per_s == math.inf:
            return
        interval = 1.0 / self.per_s
        late_s = COARSE_S - interval if self.search.is_spaced and not self.is_told else COARSE_S
        # A sender that was not ready in time says nothing of the pace.
        self._is_binding = now - self.next_at < COARSE_S + 2 * interval
        self.next_at = max(self.next_at, now - max(late_s, 0.0)) + interval

    def accepted(self, now: float, epoch: int) -> None:
        """An answer came that was no 429."""
        self._accepted += 1
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
        if epoch != self.epoch:
            return
        wait_s = retry_after_s
        if limit and window_s:
            self.told([(limit, window_s)])
            if wait_s is None and not self.is_closed and self._accepted >= USED_UP * limit:
                wait_s = self._began.by + window_s - now
        self._asked_s = retry_after_s or 0.0
        self._refused_at = now
        is_known = wait_s is not None and wait_s > 0
        self._close(now, wait_s if wait_s and is_known else self._try_s(now), is_away=False)
        if is_known:
            self._due_at = self.next_at

    def unanswered(self, now: float, epoch: int, *, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection."""
        if epoch != self.epoch:
            return
        self._silent += 1
        if is_away or self.is_closed or self._silent >= SILENT_IN_A_ROW:
            self._silent = 0
            tries = self._tries if self.is_closed else 0
            wait_s = min(LONGEST_TRY_S, AWAY_FIRST_S * 2.0 ** min(tries, 16))
            self._close(now, wait_s, is_away=True)

    def told(self, limits: Iterable[tuple[float, float]]) -> None:
        """The gateway told limits, as requests per window and seconds: the tightest counts."""
        rates = [limit / window_s for limit, window_s in limits if window_s <= LONGEST_PACED_S]
        told = TOLD_SHARE * min(rates, default=math.inf)
        if rates and told != self._told:
            self._told = max(told, SLOWEST_PER_S)
            self.is_told = self.has_learned = True
            self._begin(Leg(self._told, self._told))

    def limit_per_s(self) -> float | None:
        """Return the limit as the gateway has shown or told it in this run; None: it has not."""
        if not self.has_learned:
            return None
        if self.is_told:
            return self._told
        return self._top if self._top < math.inf else self.per_s

    # --- what follows ----------------------------------------------------------------------------

    def _try_s(self, now: float) -> float:
        """Return how long to wait for the next try."""
        slot_s = FIRST_TRY_S if self.per_s == math.inf else min(TRY_S, 1.0 / self.per_s)
        elapsed_s = max(0.0, now - self._due_at) if self.is_closed else 0.0
        wait_s = min(LONGEST_TRY_S, max(slot_s, TRY_GROWTH * elapsed_s))
        for window_s in COMMON_WINDOWS_S:
            left_s = self._began.by + window_s + FIRST_TRY_S - now
            if FIRST_TRY_S < left_s < wait_s:
                return left_s
        return wait_s

    def _close(self, now: float, wait_s: float, *, is_away: bool) -> None:
        if not self.is_closed:
            self.closed_at = self._due_at = now
            self._tries = 0
        # What refuses is there, and what does not answer shows no limit.
        self.is_away = is_away
        self._tries += 1
        self.is_closed = True
        self.epoch += 1
        self.next_at = now + wait_s

    def _open(self, now: float) -> None:
        """A try got through: the cycle is over."""
        self.is_closed = False
        # When the gateway would have let one through earlier than it said, nobody knows.
        opening = Opening(now if self._asked_s else self._refused_at, now)
        if self.is_away:
            self.is_away = False
            self._began, self._accepted = opening, 0
            self.search = Search(now, is_spaced=self.search.is_spaced)
            return
        cycle = Cycle(
            accepted=self._accepted,
            began=self._began,
            ended=opening,
            base_per_s=self._base,
            refused_per_s=self.per_s,
            closed_s=now - self.closed_at,
            tries=self._tries,
            was_asked=self._asked_s > 0.0,
        )
        if self.is_told and (cycle.accepted > EARLY or cycle.refused_per_s == math.inf):
            leg = Leg(self._told, self._told)
        else:
            leg = self.search.after(cycle)
        self._began, self._accepted = opening, 0
        self.has_learned = True
        self._begin(leg)
        self.next_at = max(self.next_at, (self._sent_at or now) + 1.0 / self.per_s)

    def _begin(self, leg: Leg) -> None:
        ceiling = min(self._cap, self._told)
        self.per_s = self._base = min(ceiling, max(leg.per_s, SLOWEST_PER_S))
        self._top = max(leg.top, self.per_s)
        self._since = 0
        span_s = 0.0 if self.search.is_spaced else SPAN_S
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

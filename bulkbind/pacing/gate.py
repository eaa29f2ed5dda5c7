"""The gate of a stream, as a calculator: when the next request may leave, and what a 429 changes.

A stream is everything that a limit counts as one: all requests of a run, or those of one user. The
pace is `Pace`'s; of other streams, and of what is in flight, a gate knows nothing.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from bulkbind.model import ServerLimit, Throttled
from bulkbind.pacing.search import Event, Mark, Sent

if TYPE_CHECKING:
    from bulkbind.pacing.search import Pace

COARSE_S = 0.002
"""Timers are at least about 1 ms coarse."""
FIRST_TRY_S = 0.01
"""The first try after the very first 429; later ones come after a slot of the pace."""
TRY_GROWTH = 0.9
"""The wait for the next try, as a share of how long the gate has been closed, or is overdue."""
COMMON_WINDOWS_S = (1.0, 10.0, 60.0)
"""Windows as most gateways have them: a try is made when one of them would just be over."""
LONGEST_TRY_S = 60.0
USED_UP = 0.9
"""So much of a stated limit got through since the gate opened: the window began about then."""
PAUSE_S = 0.25
"""Whoever is late by this, and by two slots of the pace, was not kept busy: what got through before
says nothing of the limit."""


class Gate:
    """What is allowed to a stream now; all moments are monotonic seconds.

    Requests leave evenly, at the pace. After a 429 the next one leaves in its slot: if it gets
    through, the 429 was a lone one. Otherwise the gate closes for all: one request alone tries,
    with growing waits, until one gets through. Answers to requests that left before a 429 (an older
    epoch) neither open nor close the gate.

    Attributes:
        leads: Whether the limit is learned from this stream.
        next_at: Nobody sends before.
        epoch: Rises with each 429 that counts: what left before it says nothing more.
        began: When it opened last.
        closed_at: When what closed it left.
        sent_at: When the last request left; infinite before the first.
        number: How many have left.
        trying: The permit of the one request that tries.
        waiting, out: Requests that wait for a permit, and that are in flight.
        door: The pacer's: one request at a time waits for the gate, the others for that one.
    """

    __slots__ = (
        "_asked", "_cost", "_due_at", "_first", "_pair", "_refused", "_through", "_tried_at",
        "_tries", "_twin", "began", "closed_at", "door", "epoch", "is_closed", "leads", "name",
        "next_at", "number", "out", "pace", "sent_at", "trying", "waiting",
    )  # fmt: skip

    def __init__(self, now: float, pace: Pace, name: str = "", *, leads: bool = True) -> None:
        self.pace, self.name, self.leads = pace, name, leads
        self.door = asyncio.Lock()
        self.next_at = self.closed_at = self._due_at = self._tried_at = now
        self.epoch = self.number = self.waiting = self.out = 0
        self._refused = self._tries = self._cost = self._through = 0
        self.is_closed = self._asked = False
        self.trying: int | None = None
        self.sent_at = math.inf
        self.began = Mark(now, 0)
        self._first: Sent | None = None
        """The first 429 since which no request that left later was answered."""
        self._twin: int | None = None
        """The number of the request that leaves together with the one before it."""
        self._pair: list[bool] = []
        """Which of the two got through, as far as is known."""

    @property
    def through(self) -> int:
        """Requests that left since the gate opened, but for those known to have been refused."""
        return self.number - self._refused - self.began.through

    def sent(self, now: float) -> Sent:
        """A request leaves at *now*."""
        pace, late_s = self.pace, self.pace.late_s()
        slot_s, per_s = 1.0 / pace.per_s, pace.per_s
        is_pause = now - max(self.next_at, self.sent_at) > max(PAUSE_S, 2 * slot_s)
        if self.sent_at == math.inf or (is_pause and not self.is_closed):
            self._count_from(Mark(now, self.number - self._refused))
        if self.number + 1 == self._twin and now > self.sent_at + COARSE_S:
            self._twin = None  # they have not left together
        is_binding = now - self.next_at < max(COARSE_S, late_s) + 2 * slot_s
        self.sent_at = now
        self.number += 1
        if slot_s:
            self.next_at = max(self.next_at, now - late_s) + slot_s
        if pace.wants_twin and self.leads and self._twin is None and not self.is_closed:
            self._twin, self.next_at = self.number + 1, now
        if per_s > pace.marked_per_s and self.leads and not self.is_closed:
            pace.mark(Mark(now, self.number - 1 - self._refused))
        return Sent(self.epoch, self.number, now, per_s, is_binding)

    def sent_along(self, number: int) -> None:
        """So many more requests leave with the last one, and as that did."""
        self.number += number
        self.out += number
        self.next_at += number / self.pace.per_s

    def is_paired(self, sent: Sent) -> bool:
        """Return whether a request left together with another, to see whether that may be."""
        return self._twin is not None and self._twin - 1 <= sent.number <= self._twin

    def lost(self) -> None:
        """A request was refused, whatever for, or did not arrive."""
        self._refused += 1

    def accepted(self, sent: Sent, answer_s: float = math.inf) -> None:
        """An answer came that was no 429; *answer_s*: how long one usually takes."""
        if self._twin is not None:
            self._pair_ended(sent, is_through=True)
        if sent.epoch != self.epoch:
            return
        if self.is_closed:
            self.open()
        elif self._first is not None:
            self._end(Mark(self._first.at, self._first.number - self._refused), closed_s=0.0)
        elif self.leads and sent.is_binding:
            # A sender that was not ready in time says nothing of the pace.
            self.pace.rise(answer_s)

    def throttled(self, now: float, sent: Sent, told: Throttled) -> None:
        """A 429 came, with what its text and headers state."""
        pace, limit, window_s = self.pace, told.limit, told.window_s
        self.lost()
        self._cost += 1
        if limit and window_s:
            pace.stated([ServerLimit(limit, window_s, None, None, "")])
        is_twin = sent.number == self._twin
        if limit is told.retry_after_s is None:
            self._pair_ended(sent, is_through=False)
        if sent.epoch != self.epoch or (is_twin and pace.is_found):
            return
        opens_at, is_lone = pace.opens_at(now), self._first is None and not self.is_closed
        if self._first is None:
            self._first = sent
            self._through = sent.number - self._refused
        is_told = pace.is_stated or told.retry_after_s is not None
        if is_lone and not is_told and opens_at == math.inf and pace.may_be_lone:
            self.epoch += 1
            self.next_at = max(self.next_at, now, sent.at + 1.0 / sent.per_s)
            return
        self._tried_at, self._asked = sent.at, told.retry_after_s is not None
        told_s = told.retry_after_s or 0.0
        if limit and window_s and is_lone and not told_s and self.through >= USED_UP * limit:
            told_s = max(0.0, self.began.at + window_s - now)
        if is_lone and opens_at < math.inf and not is_told:
            self._close(now, max(opens_at - now, min(1.0 / pace.per_s, FIRST_TRY_S)))
        else:
            self._close(now, told_s or self._try_s(now))
        if told_s:
            self._due_at = self.next_at

    def broke_off(self, now: float, sent: Sent) -> None:
        """A request was not answered: that shows neither that a limit is over nor what it is."""
        if self.is_closed and sent.epoch == self.epoch:
            self._close(now, self._try_s(now))

    def forget(self) -> None:
        """What was refused shows no limit: the server has gone away since."""
        self._first = None

    def open(self) -> None:
        """The try, which left last, has got through: what closed the gate is over."""
        at = Mark(self.sent_at, self.number - 1 - self._refused)
        self.is_closed, self.trying = False, None
        self.epoch += 1
        self.began = at
        if self._first is None or not (self.pace.has_learned or self.pace.through(at)):
            # Neither a server that was away shows a limit, nor a gate that was shut from the start.
            self._first, self._cost = None, 0
            self._count_from(at)
        else:
            self._end(at, closed_s=max(at.at - self.closed_at, 0.0))

    def _count_from(self, at: Mark) -> None:
        self.began = at
        if self.leads:
            self.pace.turn_to(at)

    def lead(self) -> None:
        """Let the limit be learned from this stream from now on."""
        self.leads, self._first = True, None
        self.pace.turn_to(self.began)

    def _pair_ended(self, sent: Sent, *, is_through: bool) -> None:
        if self.is_paired(sent):
            self._pair.append(is_through)
            self.pace.pair_ended(self._pair)
            if len(self._pair) > 1:
                self._twin, self._pair = None, []

    def _end(self, at: Mark, *, closed_s: float) -> None:
        """Requests get through again after 429s, of which the first was lone if it took 0 s."""
        first, self._first = self._first, None
        if self.leads and first is not None:
            self.pace.learn(
                Event(
                    refused=first,
                    through=self._through,
                    tried_at=self._tried_at if closed_s else first.at,
                    at=at,
                    cost=self._cost,
                    closed_s=closed_s,
                    was_asked=self._asked,
                )
            )
        self._cost, self._asked = 0, False
        self.next_at = max(self.next_at, self.sent_at + 1.0 / self.pace.per_s)

    def _try_s(self, now: float) -> float:
        """Return how long to wait for the next try."""
        if quiet_s := self.pace.quiet_s(self._tries if self.is_closed else 0):
            return quiet_s
        slot_s = 1.0 / self.pace.known_per_s or FIRST_TRY_S
        elapsed_s = max(0.0, now - self._due_at) if self.is_closed else 0.0
        wait_s = min(LONGEST_TRY_S, max(slot_s, TRY_GROWTH * elapsed_s))
        for window_s in COMMON_WINDOWS_S:
            left_s = self.began.at + window_s + FIRST_TRY_S - now
            if FIRST_TRY_S < left_s < wait_s:
                return left_s
        return wait_s

    def _close(self, now: float, wait_s: float) -> None:
        if not self.is_closed:
            self.closed_at = self._first.at if self._first else now
            self._due_at, self._tries = now, 0
        self._tries += 1
        self.is_closed = True
        self.epoch += 1
        self.next_at = now + wait_s

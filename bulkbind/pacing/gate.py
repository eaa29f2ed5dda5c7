"""A turn, as a calculator: when the next request of a stream may go, and what a 429 does to it.

A stream is everything that a limit counts as one: all requests of a run, or those of one user.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from bulkbind.pacing.limit_search import Opening

LATE_S = 0.02
"""Timers come late, and so does whoever waits for a busy event loop: up to this much is made up for
by requests that follow at once, or a pace would be missed by as much as each timer is late."""
COARSE_S = 0.002
"""The same where requests have to be spaced: timers are at least about 1 ms coarse."""
FIRST_TRY_S = 0.01
"""The first try after the very first 429; later ones come after a slot of the pace, or after …"""
TRY_S = 0.25
"""… this time, where slots are longer."""
TRY_GROWTH = 0.75
"""The wait for the next try, as a share of how long the gate has been closed, or is overdue."""
COMMON_WINDOWS_S = (1.0, 10.0, 60.0)
"""Windows as most gateways have them: a try is made when one of them would just be over."""
LONGEST_TRY_S = 60.0
USED_UP = 0.9
"""So much of a told limit got through since the gate opened: the window began about then."""

SURE, SURE_S = 2.0, 0.01
"""A try got through if it is not refused within twice the time that a 429 takes, or 10 ms more."""
FORGET = 0.9
"""How much of the longest time that a 429 took is left with each further one."""

PAUSE_S = 0.25
"""Whoever is late by this, and by two slots of the pace, was not kept busy: what got through before
says nothing of the limit."""


class Turn(ABC):
    """What is allowed to a stream now; all moments are monotonic seconds.

    Attributes:
        per_s: Requests per second allowed now; infinite while nobody has set a limit.
        next_at: Nobody sends before.
        epoch: How often the gate has closed.
        is_closed: One request alone tries, nobody else sends until it has got through.
        closed_at: When it closed.
        began: When the gate opened last.
        through: Requests that left since, but for those that are known not to have got through.
    """

    __slots__ = (
        "_asked_s", "_due_at", "_first_epoch", "_refusal_s", "_refused_at", "_sent_at", "_tries",
        "began", "closed_at", "epoch", "is_closed", "next_at", "through",
    )  # fmt: skip
    per_s: float

    def __init__(self, now: float) -> None:
        self.next_at = now
        self.epoch = 0
        self.is_closed = False
        self.closed_at = self._due_at = self._refused_at = now
        self._sent_at: float | None = None
        self.through = self._tries = self._first_epoch = 0
        self.began = Opening(now, now)
        self._asked_s = self._refusal_s = 0.0

    @abstractmethod
    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""

    @abstractmethod
    def accepted(self, now: float, epoch: int) -> None:
        """An answer came that was no 429."""

    @abstractmethod
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

    def refusal_took(self, took_s: float) -> None:
        """A 429 took so long to come."""
        self._refusal_s = max(took_s, FORGET * self._refusal_s)

    def sure_at(self) -> float:
        """Return when the request that tries is known to have got through if no answer has come.

        A server that works on what it lets through refuses sooner than it answers.
        """
        sent_at = self.last_sent_at()
        return sent_at + max(SURE * self._refusal_s, self._refusal_s + SURE_S)

    def sent(self, now: float) -> None:
        """A request leaves at *now*."""
        if self._sent_at is None:
            self.began = Opening(now, now)
        self._sent_at = now
        self.through += 1
        if self.per_s < math.inf:
            self.next_at = max(self.next_at, now - self.late_s()) + 1.0 / self.per_s

    def not_through(self, epoch: int) -> None:
        """A request that left in an epoch has not got through."""
        if epoch >= self._first_epoch:
            self.through = max(0, self.through - 1)

    def mind_pause(self, now: float) -> None:
        """Count anew from *now*, where a request leaves, if none was ready for long."""
        if now - max(self.next_at, self.last_sent_at()) > max(PAUSE_S, 2.0 / self.per_s):
            self._begin_at(Opening(now, now))

    def last_sent_at(self) -> float:
        """Return when the last request left; infinite before the first."""
        return math.inf if self._sent_at is None else self._sent_at

    def copy(self, other: Turn) -> None:
        """Go on where *other* stands."""
        for name in Turn.__slots__:
            setattr(self, name, getattr(other, name))

    def _refuse(
        self,
        now: float,
        limit: float | None,
        window_s: float | None,
        retry_after_s: float | None,
    ) -> None:
        """Close the gate after a 429: for as long as it tells, or until the next try."""
        wait_s = retry_after_s
        is_first = wait_s is None and not self.is_closed
        if limit and window_s and is_first and self.through >= USED_UP * limit:
            wait_s = self.began.by + window_s - now
        self._asked_s = retry_after_s or 0.0
        self._refused_at = now
        is_known = wait_s is not None and wait_s > 0
        self._close(now, wait_s if wait_s and is_known else self._try_s(now))
        if is_known:
            self._due_at = self.next_at

    def _try_s(self, now: float) -> float:
        """Return how long to wait for the next try."""
        slot_s = FIRST_TRY_S if self.per_s == math.inf else min(TRY_S, 1.0 / self.per_s)
        elapsed_s = max(0.0, now - self._due_at) if self.is_closed else 0.0
        wait_s = min(LONGEST_TRY_S, max(slot_s, TRY_GROWTH * elapsed_s))
        for window_s in COMMON_WINDOWS_S:
            left_s = self.began.by + window_s + FIRST_TRY_S - now
            if FIRST_TRY_S < left_s < wait_s:
                return left_s
        return wait_s

    def _close(self, now: float, wait_s: float) -> None:
        if not self.is_closed:
            self.closed_at = self._due_at = now
            self._tries = 0
        self._tries += 1
        self.is_closed = True
        self.epoch += 1
        self.next_at = now + wait_s

    def _opening(self, now: float) -> Opening:
        # When the gateway would have let one through earlier than it said, nobody knows.
        return Opening(now if self._asked_s else self._refused_at, now)

    def _begin_at(self, opening: Opening) -> None:
        self.began, self.through, self._first_epoch = opening, 0, self.epoch

    def _space(self, now: float) -> None:
        """What got through last has had its slot."""
        self.next_at = max(self.next_at, (self._sent_at or now) + 1.0 / self.per_s)

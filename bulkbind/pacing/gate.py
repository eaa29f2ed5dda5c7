"""The gate of a stream, as a calculator: when the next request may leave, and what a 429 changes.

A stream is everything that a limit counts as one: all requests of a run, or those of one user.
Where the pace comes from the gate does not know, nor what other streams and the server do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

LATE_S = 0.04
"""Timers come late, and so does whoever waits for a busy event loop: up to this much is made up for
by requests that follow at once, or a pace would be missed by as much as each timer is late. Timers
of a busy machine were seen 30 ms late."""
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
"""So much of a stated limit got through since the gate opened: the window began about then."""
PAUSE_S = 0.25
"""Whoever is late by this, and by two slots of the pace, was not kept busy: what got through before
says nothing of the limit."""


class Opening(NamedTuple):
    """When the gate opened: after the one moment, by the other (monotonic seconds)."""

    after: float
    by: float


class StreamGate(ABC):
    """What is allowed to a stream now; all moments are monotonic seconds.

    Attributes:
        next_at: Nobody sends before.
        epoch: How often the gate has closed.
        is_closed: One request alone tries, nobody else sends until it has got through.
        closed_at: When it closed.
        sent_at: When the last request left; infinite before the first.
        trying: The permit of the one request that tries.
        began: When the gate opened last.
        through: Requests that left since, but for those that are known not to have got through.
    """

    __slots__ = (
        "_asked_s", "_due_at", "_first_epoch", "_is_binding", "_refused_at", "_tries", "began",
        "closed_at", "epoch", "is_closed", "next_at", "sent_at", "through", "trying",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.next_at = now
        self.epoch = 0
        self.is_closed = False
        self.closed_at = self._due_at = self._refused_at = now
        self.trying: int | None = None
        self.sent_at = math.inf
        self.through = self._tries = self._first_epoch = 0
        self.began = Opening(now, now)
        self._asked_s = 0.0
        self._is_binding = False
        """Whether the pace, and not its sender, decided when the last request left."""

    @property
    @abstractmethod
    def per_s(self) -> float:
        """Requests per second allowed now; infinite while nobody has set a limit."""

    @abstractmethod
    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""

    def sent(self, now: float) -> None:
        """A request leaves at *now*."""
        if self.sent_at == math.inf:
            self.began = Opening(now, now)
        self.sent_at = now
        self.through += 1
        late_s, slot_s = self.late_s(), 1.0 / self.per_s
        self._is_binding = now - self.next_at < max(COARSE_S, late_s) + 2 * slot_s
        if slot_s:
            self.next_at = max(self.next_at, now - late_s) + slot_s

    def not_through(self, epoch: int) -> None:
        """A request that left in an epoch has not got through."""
        if epoch >= self._first_epoch:
            self.through = max(0, self.through - 1)

    def restart_after_pause(self, now: float) -> bool:
        """Count anew from *now*, where a request leaves, if none was ready for long."""
        if now - max(self.next_at, self.sent_at) <= max(PAUSE_S, 2.0 / self.per_s):
            return False
        self._begin_at(Opening(now, now))
        return True

    def continue_from(self, other: StreamGate) -> None:
        """Take the place of another gate of the same stream."""
        for name in StreamGate.__slots__:
            setattr(self, name, getattr(other, name))

    def _refuse(
        self,
        now: float,
        limit: float | None,
        window_s: float | None,
        retry_after_s: float | None,
    ) -> None:
        """Close the gate after a 429: for as long as it says, or until the next try."""
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
        self.next_at = max(self.next_at, min(self.sent_at, now) + 1.0 / self.per_s)

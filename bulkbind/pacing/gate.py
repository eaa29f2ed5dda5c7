"""The gate of a stream, as a calculator: when the next request may leave, and what a 429 changes.

A stream is everything that a limit counts as one: all requests of a run, or those of one user.
Where the pace comes from the gate does not know, nor what other streams and the server do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

LATE_S = 0.02
"""Timers come late, and so does whoever waits for a busy event loop: up to this much is made up for
by requests that follow at once, or a pace would be missed by as much as each timer is late. More
would let too many leave together at a limit that is still searched for."""
KNOWN_LATE_S = 0.04
"""The same where the pace is set or told: timers of a busy machine were seen 30 ms late."""
COARSE_S = 0.002
"""The same where requests have to be spaced: timers are at least about 1 ms coarse."""
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


class StreamGate(ABC):
    """What is allowed to a stream now; all moments are monotonic seconds.

    Attributes:
        next_at: Nobody sends before.
        epoch: Rises with each 429 that counts: what left before it says nothing more.
        is_closed: One request alone tries, nobody else sends until it has got through.
        closed_at: When what closed it left.
        sent_at: When the last request left; infinite before the first.
        number: How many have left.
        trying: The permit of the one request that tries.
        began_at: When the gate opened last.
        through: Requests that left since, but for those that are known not to have got through.
    """

    __slots__ = (
        "_began_number", "_due_at", "_tries", "began_at", "closed_at", "epoch", "is_closed",
        "next_at", "number", "sent_at", "through", "trying",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.next_at = self.closed_at = self._due_at = self.began_at = now
        self.epoch = self.number = self.through = self._tries = self._began_number = 0
        self.is_closed = False
        self.trying: int | None = None
        self.sent_at = math.inf

    @property
    @abstractmethod
    def per_s(self) -> float:
        """Requests per second allowed now; infinite while nobody has set a limit."""

    @property
    def known_per_s(self) -> float:
        """The pace where a limit sets it; infinite where none has been met or set."""
        return self.per_s

    @abstractmethod
    def late_s(self) -> float:
        """Return how late a request may leave so that the next one makes up for it."""

    def sent(self, now: float) -> Sent:
        """A request leaves at *now*."""
        if self.sent_at == math.inf:
            self.began_at = now
        late_s, slot_s = self.late_s(), 1.0 / self.per_s
        is_binding = now - self.next_at < max(COARSE_S, late_s) + 2 * slot_s
        self.sent_at = now
        self.number += 1
        self.through += 1
        if slot_s:
            self.next_at = max(self.next_at, now - late_s) + slot_s
        return Sent(self.epoch, self.number, now, self.per_s, is_binding)

    def due(self, now: float) -> float:
        """Return how many requests may leave at once."""
        return (now - self.next_at) * self.per_s

    def sent_along(self, number: int = 1) -> None:
        """So many more requests leave with the last one, and as that did."""
        self.number += number
        self.through += number
        self.next_at += number / self.per_s

    def lost(self, sent: Sent) -> None:
        """A request has not got through."""
        self.through -= sent.number > self._began_number

    def restart_after_pause(self, now: float) -> bool:
        """Count anew from *now*, where a request leaves, if none was ready for long."""
        if now - max(self.next_at, self.sent_at) <= max(PAUSE_S, 2.0 / self.per_s):
            return False
        self._count_from(now, self.number)
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
            wait_s = self.began_at + window_s - now
        is_known = wait_s is not None and wait_s > 0
        self._close(now, wait_s if wait_s and is_known else self._try_s(now))
        if is_known:
            self._due_at = self.next_at

    def _try_s(self, now: float) -> float:
        """Return how long to wait for the next try."""
        slot_s = 1.0 / self.known_per_s or FIRST_TRY_S
        elapsed_s = max(0.0, now - self._due_at) if self.is_closed else 0.0
        wait_s = min(LONGEST_TRY_S, max(slot_s, TRY_GROWTH * elapsed_s))
        for window_s in COMMON_WINDOWS_S:
            left_s = self.began_at + window_s + FIRST_TRY_S - now
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

    def _reopen(self) -> None:
        """The try, which left last, has got through and takes its slot."""
        self.is_closed = False
        self.epoch += 1
        self._count_from(self.sent_at, self.number - 1)

    def _space(self) -> None:
        """What got through last has had its slot."""
        self.next_at = max(self.next_at, self.sent_at + 1.0 / self.per_s)

    def _count_from(self, at: float, number: int) -> None:
        self.began_at, self._began_number, self.through = at, number, self.number - number

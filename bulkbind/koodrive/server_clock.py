"""Estimate the server's clock from its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.koodrive.wire import http_date

if TYPE_CHECKING:
    from bulkbind.clock import Clock

SAFETY_S = 1.0
"""X-Date must never be in the server's future: we send this much less than our estimate."""
STEP_S = 5.0
"""An answer that moves the estimate by more has set it anew; less, and it is the more exact."""


class ServerClock:
    """An estimate of the server's clock that is never ahead of it.

    Each `Date` header states that the server's clock was in [Date, Date + 1 s) at some moment
    between sending and receiving. The estimate is the latest that is certain by all answers. An
    answer that contradicts them (the server's clock was set, or another server answered) counts
    once the next one confirms it, since one wrong Date could change whose bindings are ours. The
    estimate is based on the monotonic clock, so a step of the local wall clock does not move it.
    """

    def __init__(self, clock: Clock, skew_s: float | None = None) -> None:
        """*skew_s*: server minus local, remembered from an earlier run; None: never measured."""
        self._clock = clock
        local = clock.utc_now().timestamp() - clock.monotonic()
        self._offset = local + (skew_s or 0.0)
        """Server minus monotonic: the least possible."""
        self._most = self._offset
        """The most possible."""
        self._latest = ""
        self._doubted: tuple[float, float] | None = None
        """Least and most by an answer that contradicts earlier ones."""
        self.measured = False
        """Whether this process has received a Date."""
        self.known = skew_s is not None
        """Whether this process or an earlier one has received a Date."""

    @property
    def is_doubted(self) -> bool:
        """Whether the last answer contradicts those before it, and the next one decides."""
        return self._doubted is not None

    def at(self, monotonic_s: float) -> float:
        """Return the server's time, seconds since 1970, at a monotonic moment."""
        return monotonic_s + self._offset

    def now(self) -> float:
        """Return the server's time, seconds since 1970."""
        return self.at(self._clock.monotonic())

    def skew_s(self) -> float:
        """Return server minus local wall clock, in seconds."""
        return self.now() - self._clock.utc_now().timestamp()

    def observe(self, date: str | None, sent_s: float, received_s: float) -> None:
        """Learn from the Date header of an answer.

        Args:
            date: The header's text; ignored if it is not a date.
            sent_s: When the request was sent (monotonic).
            received_s: When the answer was received (monotonic).
        """
        if not date or (date == self._latest and self._doubted is None):
            return
        self._latest = date
        self.observe_moment(http_date(date), sent_s, received_s)

    def observe_moment(self, epoch: float | None, sent_s: float, received_s: float) -> None:
        """Learn from such a date in seconds since 1970; None: it is none."""
        if epoch is None:
            return
        least, most = epoch - received_s, epoch + 1.0 - sent_s
        if not self.measured:
            self._offset, self._most = least, most
        elif least <= self._most and most >= self._offset:
            self._offset, self._most = max(self._offset, least), min(self._most, most)
            self._doubted = None
        elif self._doubted and least <= self._doubted[1] and most >= self._doubted[0]:
            self._offset, self._most = max(self._doubted[0], least), min(self._doubted[1], most)
            self._doubted = None
        else:
            self._doubted = (least, most)
        self.measured = True
        self.known = True

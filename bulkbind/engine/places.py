"""A gateway's limit on requests in flight, as a calculator: how many places it has, if it has any.

The model. A 429 that met more requests in flight than any that got through speaks of such a limit:
each request in flight takes a place, and whatever finds none is refused, at whatever pace it comes.
So as many are in flight as got through, and more are tried now and then. What is refused with no
more in flight, or lets many through with more, counts a rate instead: it was no such limit. A
bunch of requests tells the two apart, so they are spread only once the limit has proven itself;
then they are, since what leaves in a bunch comes back in one, and waits for itself at both ends.
"""

from __future__ import annotations

from bulkbind.engine.turn import COARSE_S

TRY_S, LONGEST_TRY_S = 1.0, 320.0
"""One more is tried after 1 s, 2 s, 4 s, … while it is refused; where it is not, two more, then
four more, …"""
ROUNDS = 2
"""… each once every place of those before was used so many times."""
MIXED = 3
"""So many were let through with more in flight before one was refused: a limit in flight would
have refused every one."""
AGAINST = 2
PROVEN_BY = 8
"""So many 429s speak against the limit, if they come while each place is used so many times."""
SPREAD = 0.8
"""Share of the even distance between requests (an answer's time over the places) that is kept; all
of it would leave places empty."""


class Places:
    """What is believed of the limit; moments are monotonic seconds.

    Attributes:
        wide: As many may be in flight.
        next_at: No request leaves before that.
        is_refuted: It was no limit in flight.
        is_spacing: What was refused in a bunch got through once it was spread.
    """

    __slots__ = (
        "_above", "_against", "_is_alone", "_is_spread", "_may_be_lower", "_most", "_proven",
        "_since", "_step", "_try_at", "_try_s", "is_refuted", "is_spacing", "next_at", "wide",
    )  # fmt: skip

    def __init__(self, now: float, proven: int, most: int) -> None:
        """*proven*: as many were in flight when one got through; *most*: never more than this."""
        self.wide = self._proven = max(1, proven)
        self.next_at = now
        self.is_refuted = self.is_spacing = False
        self._most = most
        self._since = self._against = self._above = 0
        """Requests through, and refused, since as many are in flight; and of those through, how
        many were more in flight than the limit."""
        # Where only one got through, they are more likely to have come too close together: two are
        # tried at once, and spread. A limit in flight refuses them all the same.
        self._is_alone = self._is_spread = proven <= 1
        self._may_be_lower = not self._is_alone
        self._try_s, self._step = TRY_S, 1
        self._try_at = now if self._is_alone else now + TRY_S

    def sent(self, now: float, took_s: float) -> None:
        """A request leaves; an answer takes *took_s*."""
        if self._is_spread:
            places = self._proven if self._step == 1 else self.wide
            self.next_at = max(self.next_at, now - COARSE_S) + SPREAD * took_s / places

    def accepted(self, now: float, in_flight: int) -> None:
        """A request got through, one of *in_flight* when it left."""
        self._since += 1
        self._above += in_flight > self._proven
        if self._since % (PROVEN_BY * self.wide) == 0:
            self._against = 0
            self._is_spread = True
        if in_flight >= self.wide and self._since >= ROUNDS * self.wide:
            self._try_more(now)

    def _try_more(self, now: float) -> None:
        if self.wide > self._proven:
            if self._is_alone:
                self.is_refuted = self.is_spacing = True
                return
            self._proven = self.wide
            self._may_be_lower = False
            self._try_s, self._try_at = TRY_S, now
            self._step *= 2
        if now >= self._try_at:
            self.wide = min(self._most, self.wide + self._step)
            self._since = self._above = 0

    def throttled(self, now: float, in_flight: int) -> bool:
        """A 429 came for one of *in_flight*; return whether the limit explains it."""
        if in_flight > self.wide:
            return True  # it left before as few were known
        if in_flight > self._proven:
            self._end_try(now)
            return not self.is_refuted
        is_full = in_flight == self._proven
        self._doubt()
        # The server may count one that has just been answered.
        return is_full and not self.is_refuted

    def _end_try(self, now: float) -> None:
        """More than the limit were in flight, and one of them was refused."""
        self.is_refuted = self._above >= MIXED
        self._try_s = min(LONGEST_TRY_S, 2 * self._try_s)
        self._try_at, self._step = now + self._try_s, 1
        self._since = self._above = 0
        self.wide = self._proven

    def _doubt(self) -> None:
        """No more than the limit were in flight, and one of them was refused.

        Several of those speak against a limit that was met a moment ago, or that has let itself be
        raised. One that has proven itself may be one lower than it looked.
        """
        self._against += 1
        if self._against < AGAINST:
            return
        self._against, self._step = 0, 1
        is_proven = self._since >= PROVEN_BY * self.wide
        if is_proven and self._may_be_lower and self.wide > 1:
            self._proven = self.wide = self.wide - 1
            self._since = 0
        else:
            self.is_refuted = True

    def unanswered(self) -> None:
        """A request was waited for in vain: fewer at once."""
        self.wide = max(1, self.wide // 2)

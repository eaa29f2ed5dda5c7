"""How many requests may be in flight, and which ones are, as calculators.

`Flight` knows how long answers take, and how many were in flight; `Places`, a limit on that which
the gateway has shown; `Traffic`, what is on its way, what of it has fallen silent, and whether the
server is there. Whose requests those are they do not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.pacing.gate import COARSE_S

if TYPE_CHECKING:
    from bulkbind.pacing.learner import Pace

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
    """What is believed of a limit on requests in flight; moments are monotonic seconds.

    Each request takes a place, and is refused where it finds none, at whatever pace it comes. So as
    many are in flight as got through, and more are tried now and then. A gateway that refuses with
    no more in flight, or lets many through with more, counts a rate instead. A bunch of requests
    shows which it is, so they are spread only once the limit has proven itself: what leaves in a
    bunch comes back in one, and waits for itself at both ends.

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


START = 4
DOUBLING_S = 0.1
"""The most doubles in this time, or in the time of an answer if that is longer."""
USEFUL, MARGIN = 2.0, 4
"""A paced run has at most USEFUL * rate * latency + MARGIN in flight."""
QUICK_S = 0.1
"""Answers that take less do not wait in the server for long, whatever it gains."""
GAIN = 1.25
"""Twice as many in flight are worth it if they bring a quarter more answers a second."""
HELD_S = 60.0
"""Where they did not, it is tried again after this long."""
FORGET_S = 20.0
"""The quickest answer is that of the last 20 to 40 s."""
LAST, OVERLOADED = 50, 10
"""So many of the last 50 unanswered are a sign of overload, or …"""
IN_A_ROW = 3
"""… so many one after the other."""
SILENT_S, SILENT = 1.0, 4.0
"""A request is silent after four times as long as answers usually take, and at least 1 s."""
UNKNOWN_S = 2.0
"""Before the first answer, what has been under way for longer counts as time of silence. It keeps
its place: nothing shows yet that the server answers others."""
LATELY_S = 1.0
"""It takes no place while most requests since a second before it left were answered in time."""
FREED = 4
"""At most a quarter of the width is silent without a place."""


class Flight:
    """What is known of the server's width; moments are monotonic seconds.

    More requests than the server works on at once only wait there: they lengthen every answer, up
    to a time-out, and are all refused when a limit is met. So the width begins with `START`, and
    doubles while that brings more answers a second (those in flight over an answer's time, Little's
    law) or answers are quick all the same; else it falls again. A paced run has as many as its pace
    needs (rate times latency), and a margin. A 429 that met more requests in flight than any that
    got through speaks of a limit on them: see `Places`.
    """

    __slots__ = (
        "_balance", "_before_per_s", "_earlier", "_grow_at", "_has_places", "_is_narrowed",
        "_older", "_proven", "_quickest", "_renew_at", "_took_s", "_turns_at", "_unanswered",
        "_wide", "is_spacing", "most", "places", "silent_s",
    )  # fmt: skip

    def __init__(self, now: float, most: int) -> None:
        """*most*: never more than this are in flight, the operator's `--concurrency`."""
        self.most = most
        self._wide = min(START, most)
        self.places: Places | None = None
        """The limit on requests in flight that the gateway has shown, if it has."""
        self.is_spacing = False
        """Whether it looked like one, but for requests that came too close together."""
        self._has_places = True
        """Whether it may have such a limit: refuted once, never believed again."""
        self._proven = 0
        """As many were in flight when one got through."""
        self._grow_at = now + DOUBLING_S
        self._quickest = self._older = math.inf
        self._took_s = 0.0
        """A smoothed answer's time."""
        self.silent_s = math.inf
        """After so many seconds a request is silent; infinite before the first answer."""
        self._before_per_s = 0.0
        """Answers per second before the last doubling."""
        self._renew_at = now + FORGET_S
        self._is_narrowed = False
        """Whether more than are wide were too many when they were tried last."""
        self._unanswered = 0
        """The last requests, a bit each, the latest the lowest: whether it stayed unanswered."""
        self._balance = self._earlier = 0
        """Requests answered in time less silent ones: lately, and as long before."""
        self._turns_at = now

    def limit(self, most: int) -> None:
        """Go on with another `--concurrency`."""
        is_all = self._wide == self.most
        self.most = most
        self._wide = min(self._wide, most) if not is_all else min(max(self._wide, START), most)

    @property
    def wide(self) -> int:
        """As many may be in flight."""
        return self.places.wide if self.places else self._wide

    @property
    def overdue_s(self) -> float:
        """After so many seconds without an answer a request is only waited for."""
        return self.silent_s if self._took_s else UNKNOWN_S

    @property
    def next_at(self) -> float:
        """No request leaves before that moment."""
        return self.places.next_at if self.places else -math.inf

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace, at least 1."""
        if per_s == math.inf:
            return self.wide
        return int(min(self.wide, USEFUL * per_s * min(self._quickest, self._older) + MARGIN))

    def has_place(self, now: float, per_s: float, in_flight: int, silent: int) -> bool:
        """Return whether one more may leave at this pace where *silent* of *in_flight* are."""
        if in_flight >= self.most:
            return False
        freed = self._freed(now, silent) if silent else 0
        return in_flight - freed < self.useful(per_s)

    def _freed(self, now: float, silent: int) -> int:
        """Return how many silent requests take no place."""
        if self.places or not self.is_served(now):
            return 0
        return min(silent, (self._wide if self._is_narrowed else self.most) // FREED)

    def is_served(self, now: float) -> bool:
        """Return whether most requests were answered in time of late."""
        self._count(now, 0)
        return self._balance + self._earlier > 0

    def _count(self, now: float, answered: int) -> None:
        if now >= self._turns_at:
            long_s = LATELY_S + (self.silent_s if self._took_s else SILENT_S)
            self._earlier = self._balance if now < self._turns_at + long_s else 0
            self._balance, self._turns_at = 0, now + long_s
        self._balance += answered

    def fell_silent(self, now: float) -> None:
        """A request in flight has become a silent one."""
        self._count(now, -1)

    def sent(self, now: float) -> None:
        """A request leaves."""
        if self.places:
            self.places.sent(now, self._took_s)

    def accepted(self, now: float, in_flight: int, took_s: float) -> None:
        """A request got through; it was one of *in_flight* when it left, and took so long."""
        if took_s < self.silent_s:
            self._count(now, 1)
        if self._unanswered:
            self._note(0)
        self._quickest = min(self._quickest, took_s)
        if now >= self._renew_at:
            self._older, self._quickest = self._quickest, took_s
            self._renew_at = now + FORGET_S
        self._took_s += (took_s - self._took_s) * (0.25 if self._took_s else 1.0)
        self.silent_s = max(SILENT_S, SILENT * self._took_s)
        if self.places:
            self.places.accepted(now, in_flight)
            self._mind_refuted()
            return
        self._proven = max(self._proven, in_flight)
        if in_flight >= self._wide and now >= self._grow_at:
            self._weigh(now)

    def _weigh(self, now: float) -> None:
        """Double what is in flight, or take the last doubling back if it brought nothing."""
        per_s = self._wide / self._took_s
        is_worth_it = self._took_s <= QUICK_S or per_s >= GAIN * self._before_per_s
        self._grow_at = now + max(DOUBLING_S, 2 * self._took_s)
        self._is_narrowed = not is_worth_it
        if is_worth_it:
            self._before_per_s = per_s if self._wide < self.most else 0.0
            self._wide = min(self.most, 2 * self._wide)
        else:
            self._before_per_s = 0.0
            self._grow_at = now + HELD_S
            self._wide = max(1, self._wide // 2)

    def throttled(self, now: float, in_flight: int) -> bool:
        """A 429 came; return whether a limit on requests in flight explains it."""
        if self.places is None:
            is_new = self._has_places and in_flight > max(self._proven, 1)
            if is_new:
                self.places = Places(now, self._proven, self.most)
            return is_new
        is_explained = self.places.throttled(now, in_flight)
        self._mind_refuted()
        return is_explained

    def _mind_refuted(self) -> None:
        if self.places and self.places.is_refuted:
            self._wide = min(max(START, self.places.wide), self.most)
            self._before_per_s = 0.0
            self.is_spacing = self.places.is_spacing
            self.places, self._has_places = None, False

    def unanswered(self, now: float, *, was_silent: bool = False) -> None:
        """A request was waited for in vain: several make fewer go at once, for a while.

        *was_silent*: it left long ago, and those that left since were answered in time.
        """
        self._note(1)
        in_a_row = (1 << IN_A_ROW) - 1
        is_row = self._unanswered & in_a_row == in_a_row and not was_silent
        if not is_row and self._unanswered.bit_count() < OVERLOADED:
            return
        if self.places:
            self.places.unanswered()
        self._wide = max(1, self._wide // 2)
        self._is_narrowed = True
        self._before_per_s = 0.0
        self._grow_at = now + DOUBLING_S

    def _note(self, unanswered: int) -> None:
        self._unanswered = (self._unanswered << 1 | unanswered) & ((1 << LAST) - 1)


@dataclass(slots=True)
class Out:
    """A request on its way: the gate's epoch, how many were in flight with it, and since when."""

    epoch: int
    in_flight: int
    sent_at: float


class Traffic:
    """What is on its way to the server: through the gate of all, and so many as `Flight` allows."""

    def __init__(self, gate: Pace, flight: Flight) -> None:
        self.gate = gate
        self.flight = flight
        self._permits = 0
        self._out: dict[int, Out] = {}
        """What is in flight by its permit, the earliest first, but for …"""
        self._silent: dict[int, Out] = {}
        """… what has been for much longer than answers take."""

    def in_flight(self) -> int:
        """Return how many requests are, the silent ones too."""
        return len(self._out) + len(self._silent)

    def is_clear(self, now: float) -> bool:
        """Return whether a request may leave now that is not the one that tries."""
        gate = self.gate
        is_due = not gate.is_closed and now >= gate.next_at and now >= self.flight.next_at
        return is_due and self.has_place(now)

    def has_place(self, now: float) -> bool:
        """Return whether one more may be in flight."""
        self._find_silent(now)
        silent = len(self._silent)
        return self.flight.has_place(now, self.gate.per_s, len(self._out) + silent, silent)

    def place_at(self) -> float:
        """Return when another place may be had though no answer comes; infinite: never."""
        if self.in_flight() >= self.flight.most:
            return math.inf
        out = next(iter(self._out.values()), None)
        return math.inf if out is None else out.sent_at + self.flight.silent_s

    def _find_silent(self, now: float) -> None:
        while self._out:
            permit, out = next(iter(self._out.items()))
            if out.sent_at + self.flight.silent_s > now:
                return
            self._silent[permit] = self._out.pop(permit)
            self.flight.fell_silent(now)

    def sent(self, now: float) -> int:
        """A request leaves; return its permit."""
        self.gate.sent(now)
        self.flight.sent(now)
        self._permits = permit = self._permits + 1
        self._out[permit] = Out(self.gate.epoch, self.in_flight() + 1, now)
        if self.gate.is_closed:
            self.gate.trying = permit
        return permit

    def sure(self, now: float, sure_at: float) -> None:
        """Open the gate if the request that tries has surely got through, answered or not."""
        if self.gate.is_closed and self.gate.trying is not None and now >= sure_at:
            self.gate.trying = None
            self.gate.sure(now)

    def ended(self, permit: int, now: float) -> tuple[Out, bool]:
        """Take out a request that has ended; return it, and whether it was silent."""
        self._find_silent(now)
        is_trying = permit == self.gate.trying
        if is_trying:
            self.gate.trying = None
        out = self._out.pop(permit, None)
        return (self._silent.pop(permit), not is_trying) if out is None else (out, False)

    def forget(self, permit: int) -> None:
        """Take out a request that was broken off."""
        if permit == self.gate.trying:
            self.gate.trying = None
        self._out.pop(permit, None)
        self._silent.pop(permit, None)

    def accepted(self, out: Out, now: float) -> None:
        """An answer came that was no 429."""
        self.gate.accepted(now, out.epoch)
        self.flight.accepted(now, out.in_flight, now - out.sent_at)

    def unanswered(self, out: Out, now: float, *, was_silent: bool, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection."""
        # What left long before others that were answered does not say that the server is away.
        is_past = was_silent and self.flight.is_served(now)
        if is_past:
            self.gate.not_through(out.epoch)
        else:
            self.gate.unanswered(now, out.epoch, is_away=is_away)
        if not is_away:
            self.flight.unanswered(now, was_silent=is_past)

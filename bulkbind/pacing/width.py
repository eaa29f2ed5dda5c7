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
from bulkbind.pacing.learner import TOGETHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.pacing.gate import Sent, StreamGate
    from bulkbind.pacing.learner import Pace

LEVEL, MOSTLY = 1 / 16, 0.9
"""What becomes of requests at a level is averaged over the last sixteen; a level at which fewer
than nine in ten get through is beyond a limit."""
UNSURE = 0.95
"""The share that gets through at a limit that has just been set: the next 429 there lowers it."""
AGAINST, FORGIVEN = 3, 0.01
"""So many 429s within the limit, of which a hundred requests that got through take one back, speak
against it …"""
REFUTED_S = 60.0
"""… and none is believed for so long."""
BETTER, LEAST_OFTEN = 3, 600
"""A higher limit is believed once so many got through beyond it; refused, it is tried after twice
as many requests as the last time, and after so many in the end."""


class Places:
    """What is believed of a limit on requests in flight.

    Such a limit refuses whatever finds no place, at whatever pace it comes: requests at a level
    (so many in flight, itself included) get through, or nearly all are refused. So the limit is the
    highest level at which most get through, and a level beyond it is tried now and then: one, then
    two, then four more, while that succeeds. A limit on the rate refuses at every level alike: what
    is refused within the limit, again and again, speaks against it.

    Attributes:
        limit: As many may be in flight; infinite: no such limit is believed in.
    """

    __slots__ = (
        "_against", "_beyond", "_highest", "_is_trying", "_let", "_refuted_until", "_seen", "_step",
        "_used", "_wait", "limit",
    )  # fmt: skip

    def __init__(self) -> None:
        self.limit = math.inf
        self._let: dict[int, float] = {}
        """Level -> the share that gets through."""
        self._highest = 1
        """The highest level at which one got through."""
        self._seen = 0
        """What left up to this number says nothing of the limit as it is now."""
        self._against = 0.0
        self._refuted_until = -math.inf
        self._used = self._wait = self._beyond = 0
        """Requests at the limit since a level beyond it was tried; how many to wait for; and how
        many got through beyond it."""
        self._step, self._is_trying = 1, False

    @property
    def wide(self) -> float:
        """As many may leave, with what is tried beyond the limit."""
        return self.limit + self._step if self._is_trying else self.limit

    def accepted(self, in_flight: int) -> None:
        """A request got through, one of *in_flight* when it left."""
        self._highest = max(self._highest, in_flight)
        self._note(in_flight, 1.0)
        if self.limit == math.inf:
            return
        self._against = max(0.0, self._against - FORGIVEN)
        if self._is_trying:
            self._beyond += in_flight > self.limit
            if self._beyond >= BETTER:
                self._set(self.limit + self._step, int(self.limit), 2 * self._step)
        elif in_flight >= self.limit:
            self._used += 1
            if self._used >= self._wait:
                self._is_trying, self._beyond = True, 0

    def throttled(self, now: float, in_flight: int, sent: Sent, last: int) -> bool:
        """A 429 came for one of *in_flight*, *last* left since; return whether this explains it."""
        if sent.number <= self._seen:
            return self.limit < math.inf
        self._note(in_flight, 0.0)
        is_within, is_known = in_flight <= self.limit, self.limit < math.inf
        if is_within and is_known:
            self._against += 1
            if self._against >= AGAINST:
                self._refuted_until = now + REFUTED_S
                self.forget()
                return False
        if in_flight == 1 or now < self._refuted_until:
            return False
        is_usual = is_known or in_flight < self._highest
        if is_within and is_usual and self._let[in_flight] >= MOSTLY:
            return False
        self._seen = last
        if is_within:
            self._set(in_flight - 1, 2 * in_flight, 1)
            self._let[in_flight - 1] = UNSURE  # it may be one lower than it looks
        else:
            wait = min(LEAST_OFTEN, 2 * self._wait) if self._is_trying else self._wait
            self._set(self.limit, wait, 1)
        return True

    def forget(self) -> None:
        """Believe in no limit, and know nothing of any level."""
        self._let.clear()
        self._set(math.inf, 0, 1)

    def unanswered(self) -> None:
        """A request was waited for in vain: fewer at once."""
        if self.limit < math.inf:
            self._set(max(1, self.limit // 2), int(self.limit), 1)

    def _note(self, level: int, share: float) -> None:
        known = self._let.get(level, 1.0 if level <= self._highest else share)
        self._let[level] = known + LEVEL * (share - known)

    def _set(self, limit: float, wait: int, step: int) -> None:
        self.limit, self._wait, self._step = limit, wait, step
        self._used, self._is_trying = 0, False
        if limit == math.inf:
            self._against = 0.0


START = 4
DOUBLING_S = 0.1
"""The most doubles in this time, or in the time of an answer if that is longer."""
USEFUL, MARGIN = 2.0, 4
"""A paced run has at most USEFUL * rate * latency + MARGIN in flight, and what is being carried."""
SPREAD = 0.5
"""Share of the even distance between requests (an answer's time over the places) that is kept; all
of it would leave places empty."""
SPREAD_BEYOND = 0.85
"""The same while more are tried: sent closer together they would be refused where requests have to
be spaced, which looks like the limit in flight that is then not there."""
QUICK_S = 0.1
"""Answers that take less do not wait in the server for long, whatever it gains."""
GAIN = 1.25
"""Twice as many in flight are worth it if they bring a quarter more answers a second."""
HELD_S = 60.0
"""Where they did not, it is tried again after this long."""
LAST, OVERLOADED = 50, 10
"""So many of the last 50 unanswered are a sign of overload, or …"""
IN_A_ROW = 3
"""… so many one after the other."""
LEAST_S = 1e-6
"""An answer takes so long at least: what is handed over ahead may leave just before it is due."""
SILENT_S, SILENT = 0.3, 4.0
"""A request is silent after four times as long as answers usually take, and at least 0.3 s: while
it takes one of few places, a 429 looks like a limit on those in flight."""
OVERDUE_S = 1.0
"""It is shown as silent, and where all are another one leaves, after this at least."""
UNKNOWN_S = 2.0
"""Before the first answer, what has been under way for longer counts as time of silence. It keeps
its place: nothing shows yet that the server answers others."""
SERVED, UNSERVED = 1 / 2, 7 / 8
"""It takes no place while most requests are answered: each answer in time halves what is missing of
a whole, each silence leaves seven eighths, and a half says so. Where it does not, one more leaves
after each such time, to see."""


class Flight:
    """What is known of the server's width; moments are monotonic seconds.

    More requests than the server works on at once only wait there: they lengthen every answer, up
    to a time-out, and are all refused when a limit is met. So the width begins with `START`, and
    doubles while that brings more answers a second (those in flight over an answer's mean time,
    Little's law) or answers are quick all the same; else it falls again. A paced run has as many as
    its pace needs (rate times latency), and a margin.
    """

    __slots__ = (
        "_answers", "_before_per_s", "_carried_s", "_grow_at", "_sent_at", "_served", "_set_at",
        "_sum_s", "_unanswered", "_undone_per_s", "_wide", "most", "next_at", "places", "silent_s",
        "took_s",
    )  # fmt: skip

    def __init__(self, now: float, most: int) -> None:
        """*most*: never more than this are in flight, the operator's `--concurrency`."""
        self.most = most
        self._wide = min(START, most)
        self.places = Places()
        self.next_at = now
        """No request leaves before that moment."""
        self._grow_at, self._set_at = now + DOUBLING_S, -math.inf
        self._answers, self._sum_s = 0, 0.0
        """Answers since the width has changed, and the time that they took together."""
        self.took_s = 0.0
        """A smoothed answer's time; 0 before the first."""
        self.silent_s = math.inf
        """After so many seconds a request is silent; infinite before the first answer."""
        self._before_per_s = 0.0
        """Answers per second before the last doubling."""
        self._undone_per_s = 0.0
        """The same, once that was taken back and until it has been seen again."""
        self._unanswered = 0
        """The last requests, a bit each, the latest the lowest: whether it stayed unanswered."""
        self._served = 0.0
        """How far requests are answered in time, from 0 to 1."""
        self._sent_at = -math.inf
        self._carried_s = 0.0

    def limit(self, most: int) -> None:
        """Go on with another `--concurrency`."""
        is_all = self._wide == self.most
        self.most = most
        self._wide = min(self._wide, most) if not is_all else min(max(self._wide, START), most)

    @property
    def wide(self) -> int:
        """As many may be in flight."""
        return int(min(self._wide, self.places.wide))

    @property
    def again_s(self) -> float:
        """After so many seconds of silence one more leaves, to see; infinite as `silent_s`."""
        return max(OVERDUE_S, self.silent_s)

    @property
    def overdue_s(self) -> float:
        """After so many seconds without an answer a request is only waited for."""
        return self.again_s if self.took_s else UNKNOWN_S

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace, at least 1."""
        if per_s == math.inf or not self.took_s:
            return self._wide
        answered_s = USEFUL * self.took_s
        return int(min(self._wide, per_s * (answered_s + self._carried_s) + MARGIN))

    def carried(self, seconds: float) -> None:
        """Requests now take so long to whoever sends them and back, besides their answers' time.

        What a doubling brought before knew nothing of that.
        """
        if not self._carried_s:
            self._before_per_s = 0.0
        self._carried_s = seconds
        if self.is_carried:
            self.places.forget()

    @property
    def is_carried(self) -> bool:
        """Whether requests are on the way to workers and back for longer than with the server."""
        return 2 * self._carried_s > self.took_s

    def has_place(self, now: float, per_s: float, in_flight: int, silent: int) -> bool:
        """Return whether one more may leave at this pace where *silent* of *in_flight* are."""
        if in_flight >= self.most:
            return False
        heard = in_flight - silent
        if heard >= self.places.wide:
            return False
        is_free = self.is_served or now >= self._sent_at + self.again_s
        return (heard if is_free else in_flight) < self.useful(per_s)

    @property
    def is_served(self) -> bool:
        """Whether most requests were answered in time of late."""
        return self._served >= SERVED

    def fell_silent(self) -> None:
        """A request in flight has become a silent one."""
        self._served *= UNSERVED

    def sent(self, now: float) -> None:
        """A request leaves: at a limit, what comes back in a bunch does not leave in one."""
        self._sent_at = now
        if self.places.limit < math.inf:
            spread = SPREAD_BEYOND if self.places.wide > self.places.limit else SPREAD
            self.next_at = max(self.next_at, now - COARSE_S) + spread * self.took_s / self.wide

    def accepted(self, now: float, in_flight: int, took_s: float, heard: int = 1) -> None:
        """A request got through; it was one of *in_flight* when it left, and took so long.

        *heard*: that many did, the last of them so.
        """
        if took_s < self.silent_s:
            self._served += SERVED * (1.0 - self._served)
        if self._unanswered:
            self._note(0, heard)
        usual_s = min(took_s, self.silent_s)
        self.took_s += (usual_s - self.took_s) * (0.25 if self.took_s else 1.0)
        self.silent_s = max(SILENT_S, SILENT * self.took_s)
        self.places.accepted(in_flight)
        if now - took_s > self._set_at:
            self._answers += heard
            self._sum_s += heard * took_s
        if in_flight >= self._wide <= self._answers and now >= self._grow_at:
            self._weigh(now, self._sum_s / self._answers)

    def _weigh(self, now: float, mean_s: float) -> None:
        """Double what is in flight, or take the last doubling back if it brought nothing.

        If what was there before is not there any more, the answers are others (quick lists came
        before slow binds), and nothing has been shown.
        """
        per_s = self._wide / mean_s
        undone_per_s, self._undone_per_s = self._undone_per_s, 0.0
        if undone_per_s and GAIN * per_s >= undone_per_s:
            self._set(now, self._wide, HELD_S)
            return
        is_worth_it = mean_s <= QUICK_S or per_s >= GAIN * self._before_per_s
        if is_worth_it:
            self._before_per_s = per_s if self._wide < self.most else 0.0
            self._set(now, min(self.most, 2 * self._wide), max(DOUBLING_S, 2 * mean_s))
        else:
            self._undone_per_s, self._before_per_s = self._before_per_s, 0.0
            self._set(now, self._wide // 2, max(DOUBLING_S, 2 * mean_s))

    def _set(self, now: float, wide: int, held_s: float) -> None:
        self._wide, self._set_at, self._grow_at = max(1, wide), now, now + held_s
        self._answers, self._sum_s = 0, 0.0

    def unanswered(self, now: float, *, was_silent: bool = False) -> None:
        """A request was waited for in vain: several make fewer go at once, for a while.

        *was_silent*: it left long ago, and those that left since were answered in time.
        """
        self._note(1)
        in_a_row = (1 << IN_A_ROW) - 1
        is_row = self._unanswered & in_a_row == in_a_row and not was_silent
        if not is_row and self._unanswered.bit_count() < OVERLOADED:
            return
        self._unanswered = 0
        self.places.unanswered()
        self._before_per_s = self._undone_per_s = 0.0
        self._set(now, self._wide // 2, DOUBLING_S)

    def _note(self, unanswered: int, requests: int = 1) -> None:
        self._unanswered = (self._unanswered << requests | unanswered) & ((1 << LAST) - 1)


MANY = 64
"""Requests may leave along with another where the pace allows so many at once."""


@dataclass(slots=True)
class Out:
    """A request on its way: as it left the gate of all, and how many were in flight with it."""

    sent: Sent
    in_flight: int
    along: int = 0
    """How many left along with it, which share this."""
    heard: int = 0
    """How many of all these were accepted and have not been learned from."""

    @property
    def sent_at(self) -> float:
        """When it left."""
        return self.sent.at


class Traffic:
    """What is on its way to the server: through the gate of all, and so many as `Flight` allows."""

    def __init__(self, gate: Pace, flight: Flight, learner: Pace | None = None) -> None:
        """*learner*: whose limit is searched for, if that is not the gate of all."""
        self.gate = gate
        self.flight = flight
        self.learner = learner or gate
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
        is_due = not gate.is_closed and now >= max(gate.next_at, self.flight.next_at)
        return is_due and self.has_place(now)

    def has_place(self, now: float) -> bool:
        """Return whether one more may be in flight."""
        self._find_silent(now)
        silent = len(self._silent)
        return self.flight.has_place(now, self.gate.known_per_s, len(self._out) + silent, silent)

    def place_at(self) -> float:
        """Return when another place may be had though no answer comes; infinite: never."""
        if self.in_flight() >= self.flight.most:
            return math.inf
        out = next(iter(self._out.values()), None)
        if out is None:
            return self.gate.sent_at + self.flight.again_s
        return out.sent_at + self.flight.silent_s

    def _find_silent(self, now: float) -> None:
        while self._out:
            permit, out = next(iter(self._out.items()))
            if out.sent_at + self.flight.silent_s > now:
                return
            self._silent[permit] = self._out.pop(permit)
            self.flight.fell_silent()

    def sent(self, now: float) -> int:
        """A request leaves; return its permit."""
        sent = self.gate.sent(now)
        self.flight.sent(now)
        self._permits = permit = self._permits + 1
        self._out[permit] = self._last = Out(sent, len(self._out) + 1)
        if self.gate.is_closed:
            self.gate.trying = permit
        return permit

    def room(self, now: float) -> int:
        """Return how many may leave along with the last one: none but far from any limit."""
        gate, places = self.gate, self.flight.places
        is_free = gate.known_per_s == places.limit == math.inf and not gate.is_closed
        if not is_free or (due := gate.due(now)) < MANY:
            return 0
        return max(0, int(min(due, self.flight.wide - self.in_flight())))

    def sent_along(self) -> int:
        """A request leaves along with the last one; return its permit."""
        self.gate.sent_along()
        out = self._last
        self._permits = permit = self._permits + 1
        self._out[permit] = out
        out.along += 1
        out.in_flight = len(self._out)
        return permit

    def sent_all_along(self, number: int) -> range:
        """So many leave along with the last one; return their permits."""
        self.gate.sent_along(number)
        first = self._permits + 1
        self._permits += number
        permits = range(first, first + number)
        self._out.update(dict.fromkeys(permits, self._last))
        self._last.along += number
        self._last.in_flight = len(self._out)
        return permits

    def accepted_all_along(self, permits: Sequence[int]) -> list[int]:
        """Take out of what was accepted what `accepted_along` would; return the others."""
        return [permit for permit in permits if not self.accepted_along(permit)]

    def accepted_along(self, permit: int) -> bool:
        """Take out what was accepted if others of those that left along with it are still out.

        All are learned from at once when the last is heard. Returns: Whether it was taken out.
        """
        out = self._out.get(permit)
        if out is None or out.heard >= out.along or self.gate.is_closed:
            return False
        del self._out[permit]
        out.heard += 1
        return True

    def tried_until(self) -> float:
        """Return until when the request that tries is waited for; infinite: until it is answered.

        A server that is away shows nothing by not answering, but that one may be lost.
        """
        gate = self.gate
        return gate.sent_at + self.flight.again_s if gate.is_away else gate.sure_at()

    def waited(self, now: float, until: float) -> None:
        """The request that tries has got through if it was waited for; else another one tries."""
        gate = self.gate
        if not gate.is_closed or gate.trying is None or now < until:
            return
        gate.trying = None
        if gate.is_away:
            gate.silent(now)
        else:
            gate.sure()

    def ended(self, permit: int, now: float) -> tuple[Out, bool]:
        """Take out a request that has ended; return it, and whether it was silent."""
        self._find_silent(now)
        is_trying = permit == self.gate.trying
        if is_trying:
            self.gate.trying = None
        was_silent = permit not in self._out
        out = (self._silent if was_silent else self._out).pop(permit)
        out.along = 0  # the others are told apart from here on
        return out, was_silent and not is_trying

    def forget(self, permit: int) -> None:
        """Take out a request that was not sent, or broken off."""
        if permit == self.gate.trying:
            self.gate.trying = None
        out = self._out.pop(permit, None) or self._silent.pop(permit, None)
        if out is not None:
            self.gate.lost(out.sent)

    def explained(
        self, out: Out, now: float, gate: StreamGate, sent: Sent, *, is_told: bool
    ) -> bool:
        """Return whether a limit on requests in flight explains a 429.

        *gate*, *sent*: the gate of its stream, and as it left there; *is_told*: the 429 says what
        it is about.
        """
        learner = self.learner
        is_about_rate = gate.is_closed or sent.epoch != gate.epoch or is_told
        # The first ones leave together on purpose.
        is_search = learner.search.is_found or out.sent.number > TOGETHER
        if is_about_rate or learner.search.is_spaced or not is_search or self.flight.is_carried:
            return False
        if not self.flight.places.throttled(now, out.in_flight, out.sent, self.gate.number):
            return False
        gate.lost(sent)
        return True

    def accepted(self, out: Out, now: float) -> None:
        """An answer came that was no 429."""
        self.gate.answer_s = self.flight.took_s or math.inf
        self.gate.accepted(out.sent)
        heard, out.heard = 1 + out.heard, 0
        self.flight.accepted(now, out.in_flight, max(LEAST_S, now - out.sent_at), heard)

    def unanswered(self, out: Out, now: float, *, was_silent: bool, is_away: bool) -> None:
        """No answer came; *is_away*: not even a connection."""
        # What left long before others that were answered does not say that the server is away.
        is_past = was_silent and self.flight.is_served
        if not is_past:
            self.gate.unanswered(now, out.sent, is_away=is_away)
        if not is_away:
            self.flight.unanswered(now, was_silent=is_past)

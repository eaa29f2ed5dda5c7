"""How many requests may be in flight, as a calculator: what the server works on, and its limit."""

from __future__ import annotations

import math

from bulkbind.pacing.gate import COARSE_S

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

    def throttled(self, now: float, in_flight: int, number: int, last: int) -> bool:
        """The *number*-th got a 429, one of *in_flight*, *last* left last: does this explain it?"""
        if number <= self._seen:
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
IN_A_ROW, ANSWERED = 3.0, 0.9
"""So many unanswered requests are a sign of overload; each one answered takes a tenth away."""
SILENT_S, SILENT = 0.3, 4.0
"""A request is silent after four times as long as answers usually take, and at least 0.3 s: while
it takes one of few places, a 429 looks like a limit on those in flight."""
OVERDUE_S = 1.0
"""It is shown as silent, and where all are another one leaves, after this at least."""
UNKNOWN_S = 2.0
"""Before the first answer, what has been under way for longer counts as time of silence. It keeps
its place: nothing shows yet that the server answers others."""
MUTE = 6
"""It takes no place while fewer than so many have fallen silent, of which each answer in time takes
back half, or more. Where more have, one more leaves after each such time, to see."""


class Flight:
    """What is known of the server's width; moments are monotonic seconds.

    More requests than the server works on at once only wait there: they lengthen every answer, up
    to a time-out, and are all refused when a limit is met. So the width begins with `START`, and
    doubles while that brings more answers a second (those in flight over an answer's mean time,
    Little's law) or answers are quick all the same; else it falls again. A paced run has as many as
    its pace needs (rate times latency), and a margin.

    Attributes:
        most: Never more than this are in flight, the operator's `--concurrency`.
        next_at: No request leaves before that moment.
        took_s: A smoothed answer's time; 0 before the first.
        silent_s: After so many seconds a request is silent; infinite before the first answer.
    """

    def __init__(self, now: float, most: int) -> None:
        self.most = most
        self._wide = min(START, most)
        self.places = Places()
        self.next_at = now
        self._grow_at, self._set_at = now + DOUBLING_S, -math.inf
        self._answers, self._sum_s = 0, 0.0
        """Answers since the width has changed, and the time that they took together."""
        self.took_s = 0.0
        self.silent_s = math.inf
        self._before_per_s = 0.0
        """Answers per second before the last doubling."""
        self._undone_per_s = 0.0
        """The same, once that was taken back and until it has been seen again."""
        self._unanswered = 0.0
        self._mute = MUTE
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

    @property
    def is_served(self) -> bool:
        """Whether most requests were answered in time of late."""
        return self._mute < MUTE

    def useful(self, per_s: float) -> int:
        """Return how many may be in flight at this pace, at least 1."""
        if per_s == math.inf or not self.took_s:
            return self._wide
        useful = per_s * (USEFUL * self.took_s + self._carried_s) + MARGIN
        return int(min(self._wide, useful))

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

    def fell_silent(self) -> None:
        """A request in flight has become a silent one."""
        self._mute += 1

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
            self._mute = min(self._mute, 2 * MUTE - 1) // 2
        self._unanswered *= ANSWERED**heard
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
        if mean_s <= QUICK_S or per_s >= GAIN * self._before_per_s:
            self._before_per_s = per_s if self._wide < self.most else 0.0
            self._set(now, min(self.most, 2 * self._wide), max(DOUBLING_S, 2 * mean_s))
        else:
            self._undone_per_s, self._before_per_s = self._before_per_s, 0.0
            self._set(now, self._wide // 2, max(DOUBLING_S, 2 * mean_s))

    def _set(self, now: float, wide: int, held_s: float) -> None:
        self._wide, self._set_at, self._grow_at = max(1, wide), now, now + held_s
        self._answers, self._sum_s = 0, 0.0

    def unanswered(self, now: float) -> None:
        """A request was waited for in vain: several make fewer go at once, for a while."""
        self._unanswered += 1.0
        if self._unanswered < IN_A_ROW:
            return
        self._unanswered = 0.0
        self.places.unanswered()
        self._before_per_s = self._undone_per_s = 0.0
        self._set(now, self._wide // 2, DOUBLING_S)

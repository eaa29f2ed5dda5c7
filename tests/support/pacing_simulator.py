"""The pacer's calculators against model limiters on a virtual clock: an hour takes seconds.

What is simulated: requests that leave as the calculators allow, a network with latency and jitter,
timers that fire late, a limiter.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from bulkbind.pacing.learner import Pace
from bulkbind.pacing.width import Flight

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulkbind.sandbox.limiters import Limiter

LATE_S = 0.001
"""Timers of an idle event loop fire up to this late."""
LATENCY_S = 0.002
JITTER_S = 0.0001
SPIKE, SPIKE_S = 0.01, 0.005
"""One request in a hundred is late by up to 5 ms."""


class Admits(Protocol):
    """A limiter: what it admits is taken."""

    def admit(self, now: float) -> bool:
        """Admit a request, or refuse it."""
        ...

    def leave(self) -> None:
        """Hear that an admitted request has ended."""
        ...


class Of:
    """A limiter of the sandbox."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def admit(self, now: float) -> bool:
        if self._limiter.peek(now).left < 1:
            return False
        self._limiter.take(now)
        return True

    def leave(self) -> None:
        self._limiter.release()


class Nginx:
    """`limit_req` with `nodelay`: a leaky bucket on a clock of whole milliseconds.

    Source: ngx_http_limit_req_module, as its documentation describes it.
    """

    def __init__(self, per_s: int, burst: int) -> None:
        self._per_s, self._burst = per_s, burst * 1000
        self._excess, self._last_ms = 0, -(10**9)

    def admit(self, now: float) -> bool:
        now_ms = int(now * 1000)
        excess = max(0, self._excess - self._per_s * (now_ms - self._last_ms) + 1000)
        if excess > self._burst:
            return False
        self._excess, self._last_ms = excess, now_ms
        return True

    def leave(self) -> None:
        pass


class Changing:
    """One limiter after the other."""

    def __init__(self, *parts: tuple[float, Admits]) -> None:
        """*parts*: until when, and which."""
        self._parts = parts

    def admit(self, now: float) -> bool:
        return next(limiter for until, limiter in self._parts if now < until).admit(now)

    def leave(self) -> None:
        pass


@dataclass(slots=True)
class Ran:
    """How a simulated run went."""

    took_s: float
    refused: int
    most_in_flight: int
    fastest_per_s: float


@dataclass(slots=True)
class Simulation:
    """One run of *requests* requests; deterministic for a seed."""

    limiter: Admits
    requests: int
    seed: int = 1
    latency_s: float = LATENCY_S
    service_s: float = 0.0
    """How long the server works on a request that was admitted."""
    concurrency: int = 32
    late_s: float = LATE_S
    """Timers fire up to this late."""
    told: Mapping[str, float] = field(default_factory=dict)
    """What a 429 tells: `limit` and `window_s`, `retry_after_s`."""
    limits: Sequence[tuple[float, float]] = ()
    """What the headers of every answer tell."""
    cap_per_s: float | None = None
    learned_per_s: float | None = None

    def run(self) -> Ran:
        """Send until every request has got through."""
        return _Run(self).run()


class _Run:
    def __init__(self, what: Simulation) -> None:
        self._what = what
        self._random = random.Random(what.seed)
        self._now = 0.0
        self._events: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self._number = count()
        self._pace = Pace(0.0, what.cap_per_s, what.learned_per_s)
        self._flight = Flight(0.0, what.concurrency)
        self._waiting, self._out, self._through = what.requests, 0, 0
        self._wakes_at = -1.0
        self._tries = False
        self._ran = Ran(0.0, 0, 0, 0.0)

    def run(self) -> Ran:
        self._send()
        while self._through < self._what.requests:
            self._now, _, kind, rest = heapq.heappop(self._events)
            if kind == "arrives":
                self._arrives(*rest)
            elif kind == "done":
                self._what.limiter.leave()
            elif kind == "answered":
                self._answered(*rest)
            elif kind == "sure" and self._tries and rest == (self._pace.epoch,):
                self._tries = False
                self._pace.sure(self._now)
            self._send()
        self._ran.took_s = self._now
        return self._ran

    def _at(self, moment: float, kind: str, *rest: object) -> None:
        heapq.heappush(self._events, (moment, next(self._number), kind, rest))

    def _network_s(self) -> float:
        spike_s = self._random.uniform(0, SPIKE_S) if self._random.random() < SPIKE else 0.0
        return self._what.latency_s / 2 + self._random.expovariate(1 / JITTER_S) + spike_s

    def _send(self) -> None:
        pace, late_s = self._pace, self._what.late_s
        while self._waiting and self._out < self._flight.useful(pace.per_s):
            if pace.is_closed and self._tries:
                return
            due_at = max(pace.next_at, self._flight.next_at)
            if self._now < due_at:
                if not due_at <= self._wakes_at <= due_at + late_s:
                    self._wakes_at = due_at + self._random.uniform(0, late_s)
                    self._at(self._wakes_at, "wakes")
                return
            self._tries = pace.is_closed
            pace.sent(self._now)
            self._flight.sent(self._now)
            self._waiting -= 1
            self._out += 1
            ran = self._ran
            ran.most_in_flight = max(ran.most_in_flight, self._out)
            ran.fastest_per_s = max(ran.fastest_per_s, pace.per_s)
            self._at(self._now + self._network_s(), "arrives", pace.epoch, self._out, self._now)
            if self._tries:
                self._at(pace.sure_at() + self._random.uniform(0, late_s), "sure", pace.epoch)

    def _arrives(self, epoch: int, in_flight: int, sent_at: float) -> None:
        is_through = self._what.limiter.admit(self._now)
        done_at = self._now + (self._what.service_s if is_through else 0.0)
        if is_through:
            self._at(done_at, "done")
        back_at = done_at + self._network_s()
        self._at(back_at, "answered", epoch, in_flight, sent_at, is_through)

    def _answered(self, epoch: int, in_flight: int, sent_at: float, is_through: bool) -> None:  # noqa: FBT001  # an event's value
        pace = self._pace
        self._out -= 1
        if self._what.limits:
            pace.stated(self._what.limits)
        if epoch == pace.epoch:
            self._tries = False
        if is_through:
            self._through += 1
            pace.accepted(self._now, epoch)
            self._flight.accepted(self._now, in_flight, self._now - sent_at)
            return
        self._ran.refused += 1
        pace.refusal_took(self._now - sent_at)
        self._waiting += 1
        is_paced = pace.is_closed or epoch != pace.epoch or self._what.told
        if not is_paced and self._flight.throttled(self._now, in_flight):
            pace.not_through(epoch)
            return
        if self._flight.is_spacing:
            pace.search.mind_spacing()
        pace.throttled(self._now, epoch, **self._what.told)

"""The pacer's calculators against model limiters on a virtual clock: an hour takes seconds.

What is simulated: requests that leave as the calculators allow, a network with latency and jitter
that loses some, timers that fire late, a server that works on them, its limiter, other clients.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from bulkbind.koodrive.patience import Patience
from bulkbind.model import ServerLimit, Throttled
from bulkbind.pacing.flight import Flight
from bulkbind.pacing.search import NOTHING, Left, Pace
from bulkbind.pacing.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulkbind.sandbox.limiters import Limiter

LATE_S = 0.001
"""Timers of an idle event loop fire up to this late."""
LATENCY_S = 0.002
JITTER_S = 0.0001
SPIKE, SPIKE_S = 0.01, 0.005
"""One request in a hundred is late by up to 5 ms."""
PATIENCE_S = 15.0
"""The default of `timeout`."""


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


class Ban:
    """A limit whose every 429 closes for a while."""

    def __init__(self, limiter: Admits, closed_s: float) -> None:
        self._limiter, self._closed_s, self._until = limiter, closed_s, 0.0

    def admit(self, now: float) -> bool:
        if now < self._until:
            return False
        is_through = self._limiter.admit(now)
        if not is_through:
            self._until = now + self._closed_s
        return is_through

    def leave(self) -> None:
        self._limiter.leave()


class Nodes:
    """Several nodes that take turns, each with a limit of its own."""

    def __init__(self, *limiters: Admits) -> None:
        self._limiters, self._turn = limiters, 0

    def admit(self, now: float) -> bool:
        self._turn += 1
        return self._limiters[self._turn % len(self._limiters)].admit(now)

    def leave(self) -> None:
        pass


class Shed:
    """A limit behind something that refuses by chance."""

    def __init__(self, limiter: Admits, share: float, seed: int) -> None:
        self._limiter, self._share, self._random = limiter, share, random.Random(seed)

    def admit(self, now: float) -> bool:
        return self._random.random() >= self._share and self._limiter.admit(now)

    def leave(self) -> None:
        self._limiter.leave()


@dataclass(slots=True)
class Ran:
    """How a simulated run went."""

    took_s: float = 0.0
    refused: int = 0
    most_in_flight: int = 0
    fastest_per_s: float = 0.0
    timed_out: int = 0
    """Requests whose answer was no longer waited for."""
    answers: list[tuple[float, bool]] = field(default_factory=list)
    """When the server admitted or refused each, and which."""

    def through_by(self, moment: float) -> int:
        """Return how many had got through at a moment."""
        return sum(is_through for at, is_through in self.answers if at <= moment)

    def refused_by(self, moment: float) -> int:
        """Return how many had been refused at a moment."""
        return sum(not is_through for at, is_through in self.answers if at <= moment)

    def standstill_s(self) -> float:
        """Return the longest time in which nothing arrived."""
        moments = [0.0, *(at for at, _ in self.answers), self.took_s]
        return max(after - before for before, after in pairwise(moments))


@dataclass(slots=True)
class Simulation:
    """One run of *requests* requests; deterministic for a seed."""

    limiter: Admits
    requests: int
    seed: int = 1
    latency_s: float = LATENCY_S
    service_s: float = 0.0
    """How long the server works on a request that was admitted; as long as …"""
    workers: float = float("inf")
    """… it works on no more at once than this; of more, each takes longer: so many times as many
    to the power of …"""
    slowing: float = 1.0
    concurrency: int = 32
    late_s: float = LATE_S
    """Timers fire up to this late."""
    told: Mapping[str, float] = field(default_factory=dict)
    """What a 429 tells: `limit` and `window_s`, `retry_after_s`."""
    limits: Sequence[tuple[float, float]] = ()
    """What the headers of every answer tell."""
    cap_per_s: float | None = None
    learned_per_s: float | None = None
    left: Left = NOTHING
    for_s: float = float("inf")
    """No longer than this."""
    silent: float = 0.0
    """Share of what is admitted that is never answered …"""
    silent_at: tuple[float, float] = (0.0, float("inf"))
    """… between these moments; and …"""
    reset: float = 0.0
    """… share whose connection breaks instead."""
    starts_at: float = 0.0

    def run(self) -> Ran:
        """Send until every request has got through."""
        return together(self)[0]


def together(*runs: Simulation) -> list[Ran]:
    """Run several clients of one server, which know nothing of each other.

    The limiter, and how it works, are those of the first.
    """
    return _World(runs).run()


class _World:
    """The server, the network, and the time."""

    def __init__(self, runs: Sequence[Simulation]) -> None:
        self.what = runs[0]
        self.random = random.Random(self.what.seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()
        self._worked_on = 0
        self.clients = [_Client(self, run) for run in runs]

    def run(self) -> list[Ran]:
        for client in self.clients:
            self.at(client.what.starts_at, client.send)
        while not all(client.is_done for client in self.clients):
            if self._events[0][0] > self.what.for_s:
                break
            self.now, _, happens, rest = heapq.heappop(self._events)
            happens(*rest)
        for client in self.clients:
            client.ran.took_s = client.ran.took_s or self.now
        return [client.ran for client in self.clients]

    def at(self, moment: float, happens: Callable[..., None], *rest: object) -> None:
        heapq.heappush(self._events, (moment, next(self._number), happens, rest))

    def network_s(self) -> float:
        spike_s = self.random.uniform(0, SPIKE_S) if self.random.random() < SPIKE else 0.0
        return self.what.latency_s / 2 + self.random.expovariate(1 / JITTER_S) + spike_s

    def arrives(self, client: _Client, permit: int) -> None:
        """A request arrives: it is refused at once, or worked on and answered, or not."""
        what, is_through = self.what, self.what.limiter.admit(self.now)
        client.ran.answers.append((self.now, is_through))
        if not is_through:
            self.at(self.now + self.network_s(), client.refused, permit)
            return
        self._worked_on += 1
        service_s = what.service_s * max(1.0, self._worked_on / what.workers) ** what.slowing
        done_at = self.now + service_s
        self.at(done_at, self._done)
        silent = what.silent if what.silent_at[0] <= self.now < what.silent_at[1] else 0.0
        fate = self.random.random() if silent or what.reset else 1.0
        is_silent, is_broken = fate < silent, fate < silent + what.reset
        back_at = done_at + self.network_s()
        late_at = self.now + client.patience.seconds()
        if is_silent or back_at > late_at:
            self.at(late_at, client.timed_out, permit)
        else:
            self.at(back_at, client.answered, permit, is_broken)

    def _done(self) -> None:
        self._worked_on -= 1
        self.what.limiter.leave()


class _Client:
    """One run: what the pacer and the engine do, with the same calculators."""

    def __init__(self, world: _World, what: Simulation) -> None:
        self._world, self.what = world, what
        begin = what.starts_at
        self._pace = Pace(begin, what.cap_per_s, what.learned_per_s, left=what.left)
        self._traffic = Traffic(begin, self._pace, Flight(begin, what.concurrency))
        self._gate = self._traffic.gate("", begin)
        self.patience = Patience(PATIENCE_S)
        self._waiting, self._through = what.requests, 0
        self._wakes_at = math.inf
        self.ran = Ran()

    @property
    def is_done(self) -> bool:
        return self._through >= self.what.requests

    def send(self) -> None:
        """Send all that may leave now; else wake when the next one may."""
        traffic, ran, world = self._traffic, self.ran, self._world
        while self._waiting:
            now = world.now
            due_at = traffic.due_at(self._gate, now)
            if due_at <= now:
                due_at = traffic.clear_at(now)
            if due_at > now:
                return self._wake(due_at)
            permit = traffic.sent(self._gate, now)
            self._waiting -= 1
            ran.most_in_flight = max(ran.most_in_flight, traffic.in_flight())
            ran.fastest_per_s = max(ran.fastest_per_s, self._pace.per_s)
            world.at(now + world.network_s(), world.arrives, self, permit)
        return None

    def _wake(self, at: float) -> None:
        if at == math.inf:
            return
        late_s = self.what.late_s
        if not at <= self._wakes_at <= at + late_s:
            self._wakes_at = max(at, self._world.now) + self._world.random.uniform(0, late_s)
            self._world.at(self._wakes_at, self._woken, self._wakes_at)

    def _woken(self, at: float) -> None:
        if at == self._wakes_at:
            self._wakes_at = math.inf
            self.send()

    def answered(self, permit: int, is_broken: bool) -> None:  # noqa: FBT001  # an event's value
        traffic, now = self._traffic, self._world.now
        out, was_silent = traffic.ended(permit, now)
        if self.what.limits:
            self._pace.stated(ServerLimit(*limit, None, None, "") for limit in self.what.limits)
        if is_broken:
            traffic.unanswered(permit, out, now, was_silent=was_silent, is_away=False)
        else:
            self.patience.answered(now, now - out.sent.at)
            traffic.accepted(permit, out, now)
        self._ended()

    def timed_out(self, permit: int) -> None:
        self.ran.timed_out += 1
        traffic, now = self._traffic, self._world.now
        out, was_silent = traffic.ended(permit, now)
        self.patience.timed_out(out.sent.at)
        traffic.unanswered(permit, out, now, was_silent=was_silent, is_away=False)
        self._ended()

    def _ended(self) -> None:
        self._through += 1
        if self.is_done:
            self.ran.took_s = self._world.now - self.what.starts_at
        self.send()

    def refused(self, permit: int) -> None:
        self.ran.refused += 1
        self._waiting += 1
        out, _ = self._traffic.ended(permit, self._world.now)
        told = Throttled(**self.what.told)
        self._traffic.throttled(permit, out, self._world.now, told)
        self.send()

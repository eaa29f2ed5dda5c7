"""Limiters that gateways have and the sandbox has not, for the simulator of the pace."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.pacing_simulator import Admits


class _Free:
    """Forgets who leaves."""

    def leave(self) -> None:
        pass


class ClockWindow(_Free):
    """Windows by the server's clock, wherever in them the client begins."""

    def __init__(self, count: int, window_s: float, phase: float) -> None:
        """*phase*: part of a window that is over at the beginning."""
        self._count, self._window_s, self._phase = count, window_s, phase
        self._window, self._used = -1, 0

    def admit(self, now: float) -> bool:
        window = int(now / self._window_s + self._phase)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used >= self._count:
            return False
        self._used += 1
        return True


class Counter(_Free):
    """A sliding counter: this window's, and of the last one the part that is not over.

    Source: "How we built rate limiting capable of scaling to millions of domains", Cloudflare 2017.
    """

    def __init__(self, count: int, window_s: float, phase: float) -> None:
        """*phase*: as of `ClockWindow`."""
        self._count, self._window_s, self._phase = count, window_s, phase
        self._window, self._used, self._before = 0, 0, 0

    def admit(self, now: float) -> bool:
        at = now / self._window_s + self._phase
        window = int(at)
        if window != self._window:
            self._before = self._used if window == self._window + 1 else 0
            self._window, self._used = window, 0
        if self._before * (1 - (at - window)) + self._used + 1 > self._count:
            return False
        self._used += 1
        return True


class StrictLog(_Free):
    """A sliding log in which refused requests count as well."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count, self._window_s = count, window_s
        self._log: deque[float] = deque()

    def admit(self, now: float) -> bool:
        while self._log and now - self._log[0] >= self._window_s:
            self._log.popleft()
        is_through = len(self._log) < self._count
        self._log.append(now)
        return is_through


class RestartedWindow(_Free):
    """A window that begins anew with each refused request."""

    def __init__(self, count: int, window_s: float) -> None:
        self._count, self._window_s = count, window_s
        self._began, self._used = -window_s, 0

    def admit(self, now: float) -> bool:
        if now - self._began >= self._window_s:
            self._began, self._used = now, 0
        if self._used >= self._count:
            self._began = now
            return False
        self._used += 1
        return True


class Layers:
    """Two limiters, one behind the other: what the second one refuses has counted for the first."""

    def __init__(self, *limiters: Admits) -> None:
        self._limiters = limiters

    def admit(self, now: float) -> bool:
        return all(limiter.admit(now) for limiter in self._limiters)

    def leave(self) -> None:
        for limiter in self._limiters:
            limiter.leave()


class PlacesAndRate:
    """A limit on requests in flight, and one on their rate, which counts only what has a place."""

    def __init__(self, places: int, rate: Admits) -> None:
        self._places, self._rate, self._taken = places, rate, 0

    def admit(self, now: float) -> bool:
        if self._taken >= self._places or not self._rate.admit(now):
            return False
        self._taken += 1
        return True

    def leave(self) -> None:
        self._taken -= 1
        self._rate.leave()

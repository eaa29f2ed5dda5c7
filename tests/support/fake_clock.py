"""Clocks of the `Clock` protocol that take no real time: one runs by itself, one by hand."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """Time that passes only when everybody sleeps: the earliest sleeper is woken then."""

    def __init__(self, now: datetime = START) -> None:
        self._began = now
        self._seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._ticking: asyncio.Task[None] | None = None
        self.waits_for: set[asyncio.Future[Any]] = set()
        """Work of real threads: no time passes before it is done."""

    def monotonic(self) -> float:
        return self._seconds

    def utc_now(self) -> datetime:
        return self._began + timedelta(seconds=self._seconds)

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._seconds + max(0.0, seconds), next(self._order), future)
        heapq.heappush(self._sleepers, entry)
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._tick())
        await future

    async def _tick(self) -> None:
        """Wake the sleepers one by one, giving everybody else some turns in between."""
        while self._sleepers:
            for _ in range(100):
                await asyncio.sleep(0)  # noqa: TID251  # yields to the loop, no time passes
            if self.waits_for:
                await asyncio.sleep(0.0005)  # noqa: TID251  # real time, for real threads
                continue
            if not self._sleepers:
                return
            due, _, future = heapq.heappop(self._sleepers)
            if not future.done():  # a cancelled sleeper takes no time
                self._seconds = max(self._seconds, due)
                future.set_result(None)


class HandClock(FakeClock):
    """Time that passes only by `advance`, which wakes whoever is due."""

    def __init__(self) -> None:
        super().__init__()
        self._due: list[tuple[float, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._due.append((self.monotonic() + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        for due, future in self._due:
            if due <= self.monotonic() and not future.done():
                future.set_result(None)

    @property
    def sleeps_s(self) -> list[float]:
        """How long everybody who sleeps still has to."""
        return [due - self.monotonic() for due, future in self._due if not future.done()]

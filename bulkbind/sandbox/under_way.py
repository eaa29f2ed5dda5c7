"""Requests while they are served."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bulkbind.clock import Clock, iso
from bulkbind.sandbox.journal import Journal, Line

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

STOP_S = 0.5
"""How long stopping may take, twice: for answers on their way, and for what is then cut off."""


class UnderWay:
    """The requests that are being served; its length is their number.

    Attributes:
        most: The most there were at once.
    """

    def __init__(self, clock: Clock, journal: Journal, counts: Counter[str]) -> None:
        self._clock = clock
        self._journal = journal
        self._counts = counts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False
        self.most = 0

    def __len__(self) -> int:
        return len(self._tasks)

    @contextmanager
    def enter(self, request: web.Request) -> Iterator[Line]:
        """Count a request while it is served, and write its line at the end, however it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.most = max(self.most, len(self._tasks))
        self._counts["requests"] += 1
        began = self._clock.monotonic()
        line = Line(
            at=iso(self._clock.utc_now()),
            method=request.method,
            user_id=request.headers.get("X-User-Id"),
            trace_id=request.headers.get("X-Traceid"),
        )
        try:
            yield line
        except web.HTTPException as error:  # aiohttp's own, e.g. a body too large
            line.outcome, line.status = "refused", error.status
            raise
        finally:
            self._tasks.discard(task)
            line.took_s = self._clock.monotonic() - began
            self._journal.write(line)

    async def wait_out(self, seconds: float) -> None:
        """Sleep, also on behalf of a client that has hung up: a busy server does not notice."""
        nap = asyncio.create_task(self._clock.sleep(seconds), name="sandbox delay")
        while not nap.done():
            try:
                await asyncio.shield(nap)
            except asyncio.CancelledError:
                if self._is_over:
                    nap.cancel()
                    await asyncio.wait({nap})
                    raise

    def end(self) -> None:
        """Say that the sandbox stops: from now on a delay ends with its request."""
        self._is_over = True

    async def cut_off(self) -> None:
        """End all of them, but wait no longer than `STOP_S`."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)

"""Claims: rows come from the ledger in small batches, fetched ahead by one task for all workers."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkbind.engine.ports import Parts
    from bulkbind.model import Claim

BATCHES = 4
"""A claim takes at most this many times the concurrency, and about a second of the pace: so few
rows are in question after a crash. The next one is fetched while half of it is left."""


class Claims:
    """Hands out the staged rows of a run, in manifest order, each once; at most *first* rows."""

    def __init__(self, parts: Parts, run: int, *, concurrency: int, first: int | None) -> None:
        self._ledger = parts.ledger
        self._api = parts.api
        self._gate = parts.gate
        self._run = run
        self._concurrency = concurrency
        self._waiting: deque[Claim] = deque()
        self._fetching: asyncio.Task[None] | None = None
        self._last = 0
        self._others: set[int] = set()
        self._low = 0
        """The next batch is fetched when no more than this many wait."""
        self._left = first
        self._is_exhausted = False

    def ready(self) -> Claim | None:
        """Return the next row, if it is durably claimed already."""
        if not self._waiting:
            return None
        claim = self._waiting.popleft()
        if len(self._waiting) <= self._low and not self._is_exhausted and self._is_idle():
            self._fetch(self._batch()).add_done_callback(_retrieve)
        return claim

    async def next(self, *, ahead: bool = True) -> Claim | None:
        """Return the next row, durably claimed, or None if there is no more.

        *ahead*: fetch before the last one is handed out; a canary takes one row at a time.
        """
        while not self._waiting:
            if self._is_exhausted:
                return None
            await asyncio.shield(self._fetch(self._batch() if ahead else 1))
        return self.ready() if ahead else self._waiting.popleft()

    def _batch(self) -> int:
        most = BATCHES * self._concurrency
        per_s = self._gate.per_s()
        return most if per_s is None else max(1, min(most, int(per_s)))

    def _is_idle(self) -> bool:
        return self._fetching is None or self._fetching.done()

    def _fetch(self, most: int) -> asyncio.Task[None]:
        if self._fetching is None or self._is_idle():
            self._low = most // 2
            self._fetching = asyncio.create_task(self._take(most), name="claims")
        return self._fetching

    async def _take(self, most: int) -> None:
        most = most if self._left is None else min(most, self._left)
        batch = (
            await self._ledger.claim(
                self._run,
                self._last,
                most,
                self._api.server_time(),
                but=self._others_behind(),
            )
            if most
            else []
        )
        self._is_exhausted = not batch
        if batch:
            self._last = batch[-1].row
            self._waiting.extend(batch)
        if self._left is not None:
            self._left -= len(batch)

    def leave_out(self, row: int) -> None:
        """Never hand out a row that somebody else sends, though it be staged between attempts."""
        self._others.add(row)

    def _others_behind(self) -> list[int]:
        return [row for row in self._others if row > self._last]

    @property
    def is_pilot_over(self) -> bool:
        """Whether as many rows were handed out as were wanted."""
        return self._left == 0

    async def give_back(self) -> None:
        """Release what was claimed and never handed out."""
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
        left = list(self._waiting)
        self._waiting.clear()
        self._is_exhausted = True
        if left:
            await self._ledger.release(left)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Whoever asks for the next row hears of a failure; nobody need await this task."""
    if not task.cancelled():
        task.exception()

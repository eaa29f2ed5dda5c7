"""Outcomes and attempts are collected for a moment, and written as one group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bulkbind.ledger import transitions
from bulkbind.ledger.writer import timed_verb
from bulkbind.model import Settlement

if TYPE_CHECKING:
    from bulkbind.ledger.writer import Writer
    from bulkbind.model import Attempt

BATCH_S = 0.025
"""How long outcomes are collected before they are written as one group: a commit for each handful
would take a third of the time that sending takes."""
_SETTLE = timed_verb(transitions.settle)

Listener = Callable[[Sequence[Settlement]], None]


class Batching:
    """Takes what is handed in, at once; writes it soon, in one transaction with its neighbours."""

    def __init__(self, writer: Writer, batch_s: float, on_settled: Listener) -> None:
        """*on_settled* is called with outcomes once they are durable."""
        self._writer = writer
        self._batch_s = batch_s
        self._on_settled = on_settled
        self._settlements: list[Settlement] = []
        self._attempts: list[tuple[int, Attempt]] = []
        self._flush: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def settle(self, settlement: Settlement) -> None:
        """Take an outcome. A failure to write it shows in the writer's next answer."""
        self._settlements.append(settlement)
        self._flush_soon()

    def record(self, row: int, attempt: Attempt) -> None:
        """Take an attempt."""
        self._attempts.append((row, attempt))
        self._flush_soon()

    def take_attempts(self) -> list[tuple[int, Attempt]]:
        """Return the attempts that are not being written yet: whoever takes them writes them."""
        attempts, self._attempts = self._attempts, []
        return attempts

    async def flushed(self) -> None:
        """Return once every outcome handed in is durable. Raises: LedgerError."""
        if self._flush is not None:
            self._hurry.set()
            await asyncio.shield(self._flush)

    async def end(self) -> None:
        """Return once what was handed in is written, or has failed to be."""
        if self._flush is not None:
            self._hurry.set()
            await asyncio.wait([self._flush])

    def _flush_soon(self) -> None:
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._write_all(), name="flush")
            self._flush.add_done_callback(_retrieve)

    async def _write_all(self) -> None:
        """Write what was handed in, and what is handed in meanwhile, group by group."""
        while self._settlements or self._attempts:
            if self._batch_s and not self._hurry.is_set():
                timer = asyncio.get_running_loop().call_later(self._batch_s, self._hurry.set)
                await self._hurry.wait()
                timer.cancel()
            self._hurry.clear()
            settlements, self._settlements = self._settlements, []
            await self._writer.submit(_SETTLE, settlements, self.take_attempts())
            if settlements:
                self._on_settled(settlements)


def _retrieve(task: asyncio.Task[None]) -> None:
    """A failure shows in the next call of the ledger; nobody need await this task."""
    if not task.cancelled():
        task.exception()

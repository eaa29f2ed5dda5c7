"""Outcomes and attempts, gathered and written as groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bulkbind.clock import Clock, iso
from bulkbind.ledger import transitions
from bulkbind.model import Settlement

if TYPE_CHECKING:
    import sqlite3

    from bulkbind.ledger.writer import Writer
    from bulkbind.model import Attempt

GATHER_S = 0.025
"""How long outcomes are gathered before they are written as one group: a commit for each handful
would take a third of the time that sending takes."""

Listener = Callable[[Sequence[Settlement]], None]


class Gathering:
    """Takes what is handed in, at once; writes it soon, in one transaction with its neighbours."""

    def __init__(self, writer: Writer, clock: Clock, gather_s: float, on_settled: Listener) -> None:
        """*on_settled* hears of outcomes once they are durable."""
        self._writer = writer
        self._clock = clock
        self._gather_s = gather_s
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
        """Return the attempts that are not being written yet; who takes them writes them."""
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
            if self._gather_s and not self._hurry.is_set():
                timer = asyncio.get_running_loop().call_later(self._gather_s, self._hurry.set)
                await self._hurry.wait()
                timer.cancel()
            self._hurry.clear()
            settlements, self._settlements = self._settlements, []
            attempts = self.take_attempts()
            await self._writer.submit(_writing(settlements, attempts, iso(self._clock.utc_now())))
            if settlements:
                self._on_settled(settlements)


def _writing(
    settlements: Sequence[Settlement], attempts: Sequence[tuple[int, Attempt]], moment: str
) -> Callable[[sqlite3.Connection], None]:
    def write(db: sqlite3.Connection) -> None:
        transitions.record_attempts(db, attempts)  # among them are repeats
        transitions.settle(db, settlements, moment)

    return write


def _retrieve(task: asyncio.Task[None]) -> None:
    """Whoever awaits the ledger next hears of a failure; nobody need await this task."""
    if not task.cancelled():
        task.exception()

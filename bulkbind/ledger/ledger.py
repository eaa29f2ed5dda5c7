"""The ledger as the engine and the use cases see it: its verbs, and what surrounds them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.ledger import duplicates, runs, staging, transitions, unbinding
from bulkbind.ledger.store import LedgerLock, get_meta, reading, span
from bulkbind.ledger.writer import Verbs, Writer, timed_verb, verb
from bulkbind.model import Claim, Ended, Outcome

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from bulkbind.clock import Clock
    from bulkbind.model import Attempt, Claim

BATCH_S = 0.025
"""How long outcomes are collected before they are written as one group: a commit for each handful
would take a third of the time that sending takes."""
_SETTLE = timed_verb(transitions.settle)

T = TypeVar("T")
Listener = Callable[[Sequence[Ended]], None]


class Ledger(Verbs):
    """A ledger held for sending. Once an awaited method returns, its change survives a crash."""

    # Which run there is, and how it begins.
    unfinished = verb(runs.unfinished)
    finished = verb(runs.finished)
    recall = verb(get_meta)
    begin = verb(staging.begin, alone=True)
    stage = verb(staging.stage_manifest, alone=True)
    judge = verb(duplicates.judge, alone=True)
    ready = verb(staging.ready, alone=True)
    vanish = timed_verb(staging.vanish, alone=True)
    confirm = timed_verb(staging.confirm, alone=True)
    discard = verb(staging.discard, alone=True)
    _discard_unconfirmed = verb(staging.discard_unconfirmed, alone=True)

    # The sending.
    start = verb(runs.start)
    counts = verb(runs.counts)
    unsettled = verb(runs.unsettled)
    claim = verb(transitions.claim)
    claim_in_turns = verb(transitions.claim_in_turns)
    reclaim = verb(transitions.reclaim)
    release = verb(transitions.release)
    doubts = verb(transitions.doubts)
    missed = timed_verb(transitions.missed)
    note_doubt = verb(transitions.note_doubt)
    known = verb(transitions.known)
    finish = timed_verb(runs.finish, last=True)
    _recover = timed_verb(transitions.recover)
    _doubt = timed_verb(transitions.doubt)

    def __init__(
        self, path: Path, endpoint: str | None, clock: Clock, *, batch_s: float = BATCH_S
    ) -> None:
        self._path = path.resolve()  # a link to a ledger is that ledger, and has its lock
        self._lock = LedgerLock(self._path)
        writer = Writer(self._path, endpoint, clock)
        self._batching = Batching(writer, batch_s, self._report)
        super().__init__(writer, self._batching.flushed)
        self.unbindings = Unbindings(writer, self._batching.flushed)
        self.on_settled: Listener = lambda _settled: None
        """Called with outcomes once they are durable."""

    async def open(self, holder: dict[str, Any]) -> int:
        """Take the lock, open the file, and take stock of what a crash left.

        Returns: The number of rows found claimed, which are in doubt now.
        Raises: LedgerBusyError, LedgerError.
        """
        self._lock.acquire(holder)
        try:
            await self._writer.open()
            await self._discard_unconfirmed()
            return await self._recover()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write what was handed in, close the file and give the lock back."""
        try:
            await self._batching.end()
            await self._writer.close()
        finally:
            self._lock.release()

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *look* sees, beside the writer, whose sorting would be done in memory."""

        def seen() -> T:
            with reading(self._path) as db:
                return look(db)

        return await asyncio.to_thread(seen)

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""
        first, last = span(run)
        return first <= row <= last

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Hand in an outcome; it is written with its neighbours soon, then given to `on_settled`.

        A failure to write shows in the next awaited call.
        """
        self._batching.settle(claim, outcome)

    def record(self, row: int, attempt: Attempt) -> None:
        """Hand in an attempt that was not simply accepted."""
        self._batching.record(row, attempt)

    async def doubt(self, claim: Claim) -> None:
        """See `transitions.doubt`; the attempts that led to it are durable as well then."""
        await self._doubt(claim, self._batching.take_attempts())

    async def flushed(self) -> None:
        """Return once every outcome handed in is durable. Raises: LedgerError."""
        await self._batching.flushed()

    def _report(self, settled: Sequence[Ended]) -> None:
        self.on_settled(settled)


class Unbindings(Verbs):
    """Bindings to be taken back: those of a run (its undo), or those that its moves replace."""

    begin_undo = timed_verb(unbinding.begin_undo)
    stage_undo = verb(unbinding.stage_undo)
    to_undo = verb(unbinding.to_undo)
    start_undo = verb(unbinding.start_undo)
    finish_undo = timed_verb(unbinding.finish_undo, last=True)
    left = verb(unbinding.left)
    next_rows = verb(unbinding.next_rows)
    users = verb(unbinding.users)
    known = verb(transitions.known)
    open_of = verb(unbinding.open_of)
    claim = verb(unbinding.claim)
    release = verb(unbinding.release)
    settle = timed_verb(unbinding.settle)


class Batching:
    """Takes what is handed in, at once; writes it soon, in one transaction with its neighbours."""

    def __init__(self, writer: Writer, batch_s: float, on_settled: Listener) -> None:
        """*on_settled* is called with outcomes once they are durable."""
        self._writer = writer
        self._batch_s = batch_s
        self._on_settled = on_settled
        self._ended: list[Ended] = []
        self._attempts: list[tuple[int, Attempt]] = []
        self._flush: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Take an outcome. A failure to write it shows in the writer's next answer."""
        self._ended.append((claim, outcome))
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
        while self._ended or self._attempts:
            if self._batch_s and not self._hurry.is_set():
                timer = asyncio.get_running_loop().call_later(self._batch_s, self._hurry.set)
                await self._hurry.wait()
                timer.cancel()
            self._hurry.clear()
            ended, self._ended = self._ended, []
            await self._writer.submit(_SETTLE, ended, self.take_attempts())
            if ended:
                self._on_settled(ended)


def _retrieve(task: asyncio.Task[None]) -> None:
    """A failure shows in the next call of the ledger; nobody need await this task."""
    if not task.cancelled():
        task.exception()

"""The ledger as the engine and the use cases see it: its verbs, and what surrounds them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.ledger import duplicates, runs, staging, transitions, unbinding
from bulkbind.ledger.batching import BATCH_S, Batching, Listener
from bulkbind.ledger.store import LedgerLock, get_meta, reading, span
from bulkbind.ledger.writer import Verbs, Writer, timed_verb, verb

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bulkbind.clock import Clock
    from bulkbind.model import Attempt, Claim, Settlement

T = TypeVar("T")


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

    def settle(self, settlement: Settlement) -> None:
        """Hand in an outcome; it is written with its neighbours soon, then given to `on_settled`.

        A failure to write shows in the next awaited call.
        """
        self._batching.settle(settlement)

    def record(self, row: int, attempt: Attempt) -> None:
        """Hand in an attempt that was not simply accepted."""
        self._batching.record(row, attempt)

    async def doubt(self, claim: Claim) -> None:
        """See `transitions.doubt`; the attempts that led to it are durable as well then."""
        await self._doubt(claim, self._batching.take_attempts())

    async def flushed(self) -> None:
        """Return once every outcome handed in is durable. Raises: LedgerError."""
        await self._batching.flushed()

    def _report(self, settled: Sequence[Settlement]) -> None:
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
    open_of = verb(unbinding.open_of)
    claim = verb(unbinding.claim)
    release = verb(unbinding.release)
    settle = timed_verb(unbinding.settle)

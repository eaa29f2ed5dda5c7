"""The ledger as used by the engine and the use cases: its verbs, opening and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.ledger import (
    adopting,
    duplicates,
    leaving,
    repeating,
    runs,
    scopes,
    staging,
    steering,
    transitions,
    unbinding,
)
from bulkbind.ledger.lock import LedgerLock
from bulkbind.ledger.opening import reading
from bulkbind.ledger.store import get_meta, put_meta, span
from bulkbind.ledger.writer import Verbs, Writer, timed_verb, verb
from bulkbind.model import Claim, Ended, Outcome, TimeUse, Unbinding
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from bulkbind.clock import Clock
    from bulkbind.model import Attempt, Claim, Status, TimeSpent

BATCH_S = 0.025
"""How long outcomes are collected into one commit; smaller commits would cost a third of the time
that sending takes."""
_SETTLE = timed_verb(transitions.settle)
_SETTLE_UNBINDINGS = timed_verb(unbinding.settle)

T = TypeVar("T")
Listener = Callable[[Sequence[Ended]], None]
Leave = Callable[[Sequence[Unbinding]], None]


class Ledger(Verbs):
    """A ledger locked for sending. Once an awaited method returns, its change survives a crash."""

    # Finding or preparing a run.
    unfinished = verb(runs.unfinished)
    finished = verb(runs.finished)
    get_meta = verb(get_meta, aside=True)
    kind_of = verb(leaving.kind_of)
    adopt = timed_verb(leaving.adopt)
    begin = verb(staging.begin, alone=True)
    stage = verb(staging.stage_manifest, alone=True)
    note = verb(staging.note, alone=True)
    repeat = verb(repeating.repeat, alone=True)
    mark_repeats = verb(duplicates.mark_repeats, alone=True)
    stage_leavers = verb(scopes.stage_leavers, alone=True)
    ready = verb(staging.ready, alone=True)
    add_facts = verb(runs.add_facts)
    mark_vanished = timed_verb(staging.mark_vanished, alone=True)
    confirm = timed_verb(staging.confirm, alone=True)
    discard = verb(staging.discard, alone=True)
    _discard_unconfirmed = verb(staging.discard_unconfirmed, alone=True)

    # Taking over what lists show.
    begin_adoption = verb(adopting.begin)
    take_over = timed_verb(adopting.take_over)
    end_adoption = timed_verb(adopting.end)

    # Sending.
    start = verb(runs.start)
    counts = verb(runs.counts, aside=True)
    unsettled = verb(runs.unsettled)
    claim = verb(transitions.claim)
    claim_in_turns = verb(transitions.claim_in_turns)
    reclaim = verb(transitions.reclaim)
    has_bound = verb(transitions.has_bound, last=True)
    release = verb(transitions.release)
    doubts = verb(transitions.doubts)
    missed = timed_verb(transitions.missed)
    note_doubt = verb(transitions.note_doubt)
    known = verb(transitions.known)
    stranger = verb(transitions.stranger)
    finish = timed_verb(runs.finish, last=True, aside=True)
    _recover = timed_verb(transitions.recover)
    _doubt = timed_verb(transitions.doubt)
    _doubt_again = timed_verb(transitions.doubt_again, last=True)
    put_meta = verb(put_meta, aside=True)
    asked = verb(steering.asked, aside=True)

    def __init__(
        self, path: Path, endpoint: str | None, clock: Clock, *, batch_s: float = BATCH_S
    ) -> None:
        self._path = path.resolve()  # a link shares the lock of the ledger it points to
        self._lock = LedgerLock(self._path)
        writer = Writer(self._path, endpoint, clock)
        self._batching = Batching(writer, batch_s, self._report)
        super().__init__(writer, self._batching.flushed)
        self.unbindings = Unbindings(writer, self._batching)
        self.on_settled: Listener = lambda _settled: None
        """Called with outcomes once they are durable."""
        self.on_doubted: Callable[[Sequence[Status]], None] = lambda _before: None
        """Called with what rows were that had ended and are in doubt again."""

    async def open(self, holder: dict[str, Any]) -> int:
        """Acquire the lock, open the file, and recover from a crash.

        Returns: The number of rows found claimed, which are now in doubt.
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

    @property
    def changes(self) -> int:
        """A number that is another one once a row may have changed, and what is batched is flushed.

        Rows that are still claimed change at the end of a run without it.
        """
        return self._writer.changes

    async def close(self) -> None:
        """Write what was submitted, close the file and release the lock."""
        await self._batching.end()
        await self._writer.close(self._lock.release)

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Return *query*'s result on a read-only connection, which sorts on disk, in a thread."""

        def run_query() -> T:
            with reading(self._path) as db:
                return query(db)

        return await in_thread(run_query)

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""
        first, last = span(run)
        return first <= row <= last

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Submit an outcome; it is written with the next batch, then passed to `on_settled`.

        The next awaited call raises a failure to write.
        """
        self._batching.settle(claim, outcome)

    def settle_all(self, ended: Iterable[Ended]) -> None:
        """Submit outcomes as `settle`."""
        self._batching.settle_all(ended)

    def record(self, row: int, attempt: Attempt) -> None:
        """Submit an attempt that was not accepted outright."""
        self._batching.record(row, attempt)

    async def doubt(self, claim: Claim) -> None:
        """Call `transitions.doubt`; the attempts that led to it are written with it."""
        await self._doubt(claim, self._batching.take_attempts())

    async def doubt_again(self, rows: Sequence[int]) -> list[Claim]:
        """Put settled rows back in doubt; return those that had ended by an answer."""
        claims, before = await self._doubt_again(rows)
        self.on_doubted(before)
        return claims

    async def flushed(self) -> None:
        """Return once every submitted outcome is durable. Raises: LedgerError."""
        with self.time.waiting(TimeUse.LEDGER):
            await self._batching.flushed()

    def count_time(self, time: TimeSpent) -> None:
        """Have it counted from now on how long the ledger is waited for."""
        self.time = self.unbindings.time = time

    def _report(self, settled: Sequence[Ended]) -> None:
        self.on_settled(settled)


class Unbindings(Verbs):
    """Bindings to unbind: those of a run (its undo), that its moves replace, or that leave."""

    begin_undo = timed_verb(unbinding.begin_undo)
    stage_undo = verb(unbinding.stage_undo)
    undo_progress = verb(unbinding.undo_progress)
    start_undo = verb(unbinding.start_undo)
    finish_undo = timed_verb(unbinding.finish_undo, last=True)
    count_left = verb(unbinding.count_left, aside=True)
    next_rows = verb(unbinding.next_rows, aside=True)
    users = verb(unbinding.users)
    known_of = verb(transitions.known_of)
    stranger = verb(transitions.stranger)
    open_of = verb(unbinding.open_of)
    claim = verb(unbinding.claim)
    release = verb(unbinding.release)
    mark_staged = verb(leaving.mark_staged)
    last_of = verb(leaving.last_of)
    unlisted = verb(leaving.unlisted)
    take = timed_verb(leaving.take)
    left_in_doubt = verb(leaving.left_in_doubt)

    def __init__(self, writer: Writer, batching: Batching) -> None:
        super().__init__(writer, batching.flushed)
        self._batching = batching

    def settle(self, items: Sequence[Unbinding], then: Leave) -> None:
        """Submit how unbindings ended; *then* is called with them once they are written.

        The next awaited call raises a failure to write.
        """
        self._batching.settle_unbindings(items, then)

    async def flushed(self) -> None:
        """Return once every submitted end is durable. Raises: LedgerError."""
        with self.time.waiting(TimeUse.LEDGER):
            await self._batching.flushed()


class Batching:
    """Collects outcomes and attempts for up to *batch_s* seconds, then writes them as one group."""

    def __init__(self, writer: Writer, batch_s: float, on_settled: Listener) -> None:
        """*on_settled* is called with outcomes once they are durable."""
        self._writer = writer
        self._batch_s = batch_s
        self._on_settled = on_settled
        self._ended: list[Ended] = []
        self._attempts: list[tuple[int, Attempt]] = []
        self._unbindings: dict[Leave, list[Unbinding]] = {}
        """By whom to call once they are durable."""
        self._flush: asyncio.Task[None] | None = None
        self._write_now = asyncio.Event()

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Add an outcome. The writer's next call raises a failure to write it."""
        self.settle_all([(claim, outcome)])

    def settle_all(self, ended: Iterable[Ended]) -> None:
        """Add outcomes."""
        self._ended.extend(ended)
        self._flush_soon()

    def settle_unbindings(self, items: Sequence[Unbinding], then: Leave) -> None:
        """Add how unbindings ended; *then* is called with them once that is durable."""
        self._unbindings.setdefault(then, []).extend(items)
        self._flush_soon()

    def record(self, row: int, attempt: Attempt) -> None:
        """Add an attempt."""
        self._attempts.append((row, attempt))
        self._flush_soon()

    def take_attempts(self) -> list[tuple[int, Attempt]]:
        """Return the attempts not yet being written, and leave writing them to the caller."""
        attempts, self._attempts = self._attempts, []
        return attempts

    async def flushed(self) -> None:
        """Return once every added outcome is durable. Raises: LedgerError."""
        if self._flush is not None:
            self._write_now.set()
            await asyncio.shield(self._flush)

    async def end(self) -> None:
        """Return once everything added is written or has failed."""
        if self._flush is not None:
            self._write_now.set()
            await asyncio.wait([self._flush])

    def _flush_soon(self) -> None:
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._write_all(), name="flush")
            self._flush.add_done_callback(_retrieve)

    async def _write_all(self) -> None:
        """Write group by group until nothing is left, including what is added meanwhile."""
        while self._ended or self._attempts or self._unbindings:
            if self._batch_s and not self._write_now.is_set():
                timer = asyncio.get_running_loop().call_later(self._batch_s, self._write_now.set)
                await self._write_now.wait()
                timer.cancel()
            self._write_now.clear()
            ended, self._ended = self._ended, []
            unbindings, self._unbindings = self._unbindings, {}
            settled = self._writer.submit(_SETTLE, ended, self.take_attempts())
            if unbindings:
                await self._writer.submit(_SETTLE_UNBINDINGS, [*chain(*unbindings.values())])
            await settled
            if ended:
                self._on_settled(ended)
            for then, items in unbindings.items():
                then(items)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Mark the exception as retrieved; the ledger's next call raises it."""
    if not task.cancelled():
        task.exception()

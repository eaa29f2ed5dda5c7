"""The ledger as the engine and the use cases see it."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.clock import Clock, iso
from bulkbind.ledger import duplicates, runs, staging, transitions
from bulkbind.ledger.batching import GATHER_S, Gathering, Listener
from bulkbind.ledger.lock import LedgerLock
from bulkbind.ledger.store import get_meta, reading, relaxed, span
from bulkbind.ledger.unbinding import Unbindings
from bulkbind.ledger.writer import Writer
from bulkbind.model import (
    Attempt,
    CheckedRow,
    Claim,
    RunState,
    Settlement,
    Source,
    Status,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bulkbind.ledger.duplicates import Policy

T = TypeVar("T")


class Ledger:
    """A ledger held for sending. Once an awaited method returns, its change survives a crash."""

    def __init__(
        self, path: Path, endpoint: str | None, clock: Clock, *, gather_s: float = GATHER_S
    ) -> None:
        self._clock = clock
        real = path.resolve()  # a link to a ledger is that ledger, and has its lock
        self._path = real
        self._lock = LedgerLock(real)
        self._writer = Writer(real, endpoint)
        self._gathering = Gathering(self._writer, clock, gather_s, self._tell)
        self.unbindings = Unbindings(self._writer, clock, self.flushed)
        self.on_settled: Listener = lambda _settlements: None
        """Called with outcomes once they are durable."""

    async def open(self, holder: dict[str, Any]) -> int:
        """Take the lock, open the file, and take stock of what a crash left.

        Returns: The number of rows found claimed, which are in doubt now.
        Raises: LedgerBusyError, LedgerError.
        """
        self._lock.acquire(holder)
        try:
            await self._writer.open()
            await self._writer.submit(staging.discard_unconfirmed, alone=True)
            return await self._writer.submit(lambda db: transitions.recover(db, self._now_s()))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write what was handed in, close the file and give the lock back."""
        try:
            await self._gathering.end()
            await self._writer.close()
        finally:
            self._lock.release()

    # --- staging ---------------------------------------------------------------------------------

    async def unfinished(self, digest: str | None = None) -> tuple[int, str] | None:
        """Return number and id of the run that can go on: of these manifests, or any if None."""

        def find(db: sqlite3.Connection) -> tuple[int, str] | None:
            found: tuple[int, str] | None = db.execute(
                "SELECT run, run_id FROM runs WHERE state IN ('confirmed', 'sending', 'stopped') "
                "AND superseded_by IS NULL AND coalesce(?1, digest) = digest "
                "ORDER BY run DESC LIMIT 1",
                (digest,),
            ).fetchone()
            return found

        return await self._writer.submit(find)

    async def finished(self, digest: str, name: str, since: str) -> str | None:
        """Return the id of a finished run of one manifest, begun after *since*, or None.

        *name* is the manifest's, *since* a moment as `iso` writes it. A run with rows in doubt is
        not finished in this sense.
        """

        def find(db: sqlite3.Connection) -> str | None:
            found = db.execute(
                "SELECT r.run_id FROM runs r JOIN sources s ON s.run = r.run AND s.source = 0 "
                "WHERE r.state = 'done' AND r.digest = ? AND s.form ->> 'name' = ? "
                "AND r.created_at > ? AND NOT EXISTS (SELECT 1 FROM rows d INDEXED BY rows_open "
                "WHERE d.status IN ('claimed', 'in_doubt') AND d.run = r.run) "
                "ORDER BY r.run DESC LIMIT 1",
                (digest, name, since),
            ).fetchone()
            return str(found[0]) if found else None

        return await self._writer.submit(find)

    async def begin(self, run: dict[str, object]) -> int:
        """Record a new run in state `staging` and return its number."""
        return await self._writer.submit(lambda db: staging.begin(db, run), alone=True)

    async def stage(  # one value each, all needed
        self,
        run: int,
        source: int,
        form: Source,
        position: int,
        rows: Iterable[CheckedRow],
        *,
        rebind: bool,
        keep_duplicates: bool = False,
        move: bool = False,
        on_batch: Callable[[int], None],
    ) -> int:
        """Write a whole manifest, batch by batch, and return the position after its last row.

        *rows* is read in the writer's thread, and *on_batch* is called there with the position
        reached; what it raises ends the staging.
        """

        def write(db: sqlite3.Connection) -> int:
            staging.add_source(db, run, source, form)
            reached = position
            with relaxed(db):
                for batch in _batches(rows, staging.BATCH):
                    reached = staging.stage(
                        db, run, source, reached, batch,
                        rebind=rebind, keep_duplicates=keep_duplicates, move=move,
                    )  # fmt: skip
                    on_batch(reached)
            return reached

        return await self._writer.submit(write, alone=True)

    async def counts(self, run: int) -> dict[str, int]:
        """Return a run's rows by status."""
        return await self._writer.submit(lambda db: runs.counts(db, run))

    async def unsettled(self, run: int) -> tuple[int, int]:
        """Return how many rows of a run are staged, and how many are in doubt."""
        counts = await self.counts(run)
        return counts.get(Status.STAGED, 0), counts.get(Status.IN_DOUBT, 0)

    async def ready(self, run: int) -> None:
        """Say that the whole manifest is staged."""
        await self._writer.submit(lambda db: staging.ready(db, run), alone=True)

    async def judge(self, run: int, policy: Policy) -> list[str]:
        """See `repeats.judge`."""
        return await self._writer.submit(
            lambda db: duplicates.judge(db, self._path, run, policy), alone=True
        )

    async def vanish(self, run: int, rows: Sequence[int], *, users: int, bind_again: bool) -> None:
        """See `staging.vanish`."""
        moment = iso(self._clock.utc_now())
        await self._writer.submit(
            lambda db: staging.vanish(db, run, rows, moment, users=users, bind_again=bind_again),
            alone=True,
        )

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *look* sees, beside the writer, whose sorting would be done in memory."""

        def seen() -> T:
            with reading(self._path) as db:
                return look(db)

        return await asyncio.to_thread(seen)

    async def confirm(self, run: int) -> int:
        """Say that the run is wanted; returns how many rows of older runs were withdrawn."""
        moment = iso(self._clock.utc_now())
        return await self._writer.submit(lambda db: staging.confirm(db, run, moment), alone=True)

    async def discard(self, run: int) -> None:
        """Throw away a run that was never confirmed."""
        await self._writer.submit(lambda db: staging.discard(db, run), alone=True)

    # --- sending ---------------------------------------------------------------------------------

    async def start(self, run: int) -> None:
        """Say that the run is sending."""
        await self._writer.submit(lambda db: runs.start(db, run))

    async def claim(
        self, run: int, after: int, most: int, sent_at: float | None, *, but: Sequence[int]
    ) -> list[Claim]:
        """See `claiming.claim`."""
        return await self._writer.submit(
            lambda db: transitions.claim(db, run, after, most, sent_at, but=but)
        )

    async def claim_in_turns(
        self, run: int, most: int, sent_at: float | None, *, but: Sequence[int]
    ) -> list[Claim]:
        """See `claiming.claim_in_turns`."""
        return await self._writer.submit(
            lambda db: transitions.claim_in_turns(db, run, most, sent_at, but=but)
        )

    async def reclaim(self, claim: Claim, sent_at: float | None) -> None:
        """See `claiming.reclaim`."""
        await self._writer.submit(lambda db: transitions.reclaim(db, claim, sent_at))

    async def release(self, claims: Sequence[Claim]) -> None:
        """See `claiming.release`."""
        await self._writer.submit(lambda db: transitions.release(db, claims))

    async def doubt(self, claim: Claim) -> None:
        """See `doubting.doubt`; the attempts that led to it are durable as well then."""
        attempts = self._gathering.take_attempts()

        def write(db: sqlite3.Connection) -> None:
            transitions.record_attempts(db, attempts)
            transitions.doubt(db, claim, self._now_s())

        await self._writer.submit(write)

    async def doubts(self) -> list[Claim]:
        """See `doubting.doubts`."""
        return await self._writer.submit(transitions.doubts)

    async def missed(self, rows: Sequence[int]) -> None:
        """See `doubting.missed`."""
        await self._writer.submit(lambda db: transitions.missed(db, rows, self._now_s()))

    async def note_doubt(self, rows: Sequence[int], why: str) -> None:
        """See `doubting.note_doubt`."""
        await self._writer.submit(lambda db: transitions.note_doubt(db, rows, why))

    async def known(self, user_id: str) -> set[str]:
        """See `doubting.known`."""
        return await self._writer.submit(lambda db: transitions.known(db, user_id))

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""
        first, last = span(run)
        return first <= row <= last

    def settle(self, settlement: Settlement) -> None:
        """Hand in an outcome; it is written with its neighbours soon, then `on_settled` hears it.

        A failure to write shows in the next awaited call.
        """
        self._gathering.settle(settlement)

    def record(self, row: int, attempt: Attempt) -> None:
        """Hand in an attempt that was not simply accepted."""
        self._gathering.record(row, attempt)

    async def flushed(self) -> None:
        """Return once every outcome handed in is durable. Raises: LedgerError."""
        await self._gathering.flushed()

    async def finish(
        self, run: int, stop_reason: str | None, facts: Mapping[str, object]
    ) -> RunState:
        """End the sending; see `sending.finish`."""
        await self.flushed()
        moment = iso(self._clock.utc_now())
        return await self._writer.submit(
            lambda db: runs.finish(db, run, moment, stop_reason, facts, now_s=self._now_s())
        )

    def _tell(self, settlements: Sequence[Settlement]) -> None:
        self.on_settled(settlements)

    def _now_s(self) -> float:
        return self._clock.utc_now().timestamp()

    async def recall(self, key: str) -> object:
        """Return a value remembered from an earlier run, or None."""
        return await self._writer.submit(lambda db: get_meta(db, key))


def _batches(rows: Iterable[CheckedRow], size: int) -> Iterator[list[CheckedRow]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch

"""Bindings that are taken back, as the engine and the use cases see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.clock import Clock, iso
from bulkbind.ledger import doubting, unbinding

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bulkbind.ledger.writer import Writer
    from bulkbind.model import RunState, Unbinding, UnbindKind


class Unbindings:
    """What a ledger knows of bindings to be taken back; what is awaited survives a crash."""

    def __init__(
        self, writer: Writer, clock: Clock, flushed: Callable[[], Awaitable[None]]
    ) -> None:
        """*flushed*: returns once every outcome that was handed in is durable."""
        self._writer = writer
        self._clock = clock
        self._flushed = flushed

    async def begin_undo(self, run: int, who: Mapping[str, object]) -> None:
        """Say that a run is to be undone; see `unbinding.begin_undo`."""

        def begin(db: sqlite3.Connection) -> None:
            unbinding.begin_undo(db, run, who)
            unbinding.stage_undo(db, run)

        await self._writer.submit(begin)

    async def stage_undo(self, run: int) -> int:
        """See `unbinding.stage_undo`."""
        return await self._writer.submit(lambda db: unbinding.stage_undo(db, run))

    async def to_undo(self, run: int) -> tuple[str, int, int, int, int]:
        """See `unbinding.to_undo`."""
        return await self._writer.submit(lambda db: unbinding.to_undo(db, run))

    async def left(self, run: int, kind: UnbindKind) -> int:
        """Return how many bindings a run has left to take back."""
        return await self._writer.submit(lambda db: unbinding.left(db, run, kind))

    async def start_undo(self, run: int) -> None:
        """Say that the undo is sending."""
        await self._writer.submit(lambda db: unbinding.start_undo(db, run))

    async def finish_undo(
        self, run: int, stop_reason: str | None, facts: Mapping[str, object]
    ) -> RunState:
        """End the undo; see `unbinding.finish_undo`."""
        await self._flushed()
        moment = iso(self._clock.utc_now())
        return await self._writer.submit(
            lambda db: unbinding.finish_undo(db, run, moment, stop_reason, facts)
        )

    async def next_rows(self, run: int, kind: UnbindKind, most: int) -> int | None:
        """See `unbinding.next_rows`."""
        return await self._writer.submit(lambda db: unbinding.next_rows(db, run, kind, most))

    async def users(self, run: int, kind: UnbindKind, last: int) -> list[str]:
        """See `unbinding.users`."""
        return await self._writer.submit(lambda db: unbinding.users(db, run, kind, last))

    async def open_of(self, run: int, kind: UnbindKind, user_id: str, last: int) -> list[Unbinding]:
        """See `unbinding.open_of`."""
        return await self._writer.submit(lambda db: unbinding.open_of(db, run, kind, user_id, last))

    async def known(self, user_id: str) -> set[str]:
        """See `doubting.known`."""
        return await self._writer.submit(lambda db: doubting.known(db, user_id))

    async def claim(self, items: Sequence[Unbinding]) -> None:
        """See `unbinding.claim`."""
        await self._writer.submit(lambda db: unbinding.claim(db, items))

    async def release(self, items: Sequence[Unbinding]) -> None:
        """See `unbinding.release`."""
        await self._writer.submit(lambda db: unbinding.release(db, items))

    async def settle(self, items: Sequence[Unbinding]) -> None:
        """See `unbinding.settle`."""
        moment = iso(self._clock.utc_now())
        await self._writer.submit(lambda db: unbinding.settle(db, items, moment))

"""Send a run that unbinds: settle doubt, find out what there is to unbind, unbind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bulkbind.app.session.session import retries_of
from bulkbind.engine import Taker, Unbinder, draining
from bulkbind.engine.readback import Readback
from bulkbind.engine.stop import PILOT_OVER, DrainedError
from bulkbind.model import UnbindKind, ended_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.app.session.session import Session
    from bulkbind.engine import Parts
    from bulkbind.engine.retry import Retries
    from bulkbind.ledger import Ledger
    from bulkbind.model import Claim, Ended, Unbinding

NO_RUN = 0
"""A run without rows, so that rows cleared of doubt are not sent again."""


class Leaving:
    """Sends a run that unbinds."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        parts: Parts,
        run: int,
        on_settled: Callable[[Sequence[Ended]], None],
    ) -> None:
        """*on_settled*: called with rows once they are durable."""
        self._session = session
        self._ledger = ledger
        self._parts = parts
        self._run = run
        self._retries = retries_of(session, parts.gate)
        self._on_settled = on_settled
        self._doubt_lists = 0
        self._sent = 0
        self.again = 0
        settings = session.settings
        self._unbinder = Unbinder(
            parts,
            ledger.unbindings,
            self._retries,
            settings.send,
            settings.doubt,
            on_settled=self._settled,
        )

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._doubt_lists + self._unbinder.lists

    @property
    def backed_off_s(self) -> float:
        """Total seconds of backoff over all devices."""
        return self._retries.backed_off_s

    def _settled(self, items: Sequence[Unbinding]) -> None:
        mine = [item for item in items if item.is_listed]
        self._sent += sum(1 for item in mine if item.attempts or item.was_sent)
        self._on_settled([ended_of(item) for item in mine])

    def widen(self, concurrency: int) -> None:
        """Nothing to do: what is in flight is bounded by users and by the pace."""

    async def send(self, first: int | None) -> None:
        """Unbind what is left, or the *first* rows of it for which a request is sent."""
        stop, clock = self._session.stop, self._session.clock
        grace_s = self._session.settings.send.grace
        await draining(self._send(first), clock, stop, grace_s=grace_s)

    async def _send(self, first: int | None) -> None:
        unbindings = self._ledger.unbindings
        self._doubt_lists += await settle_doubt(
            self._session, self._ledger, self._parts, self._retries, await self._ledger.doubts()
        )
        await self._unbinder.find_out(self._run)
        if self._session.stop.is_set:
            return
        await unbindings.mark_staged(self._run)
        if first is None:
            await self._send_to(await unbindings.last_of(self._run, None))
            return
        before = None
        while self._sent < first and not self._session.stop.is_set:
            last = await unbindings.last_of(self._run, first - self._sent)
            if last == before:
                break  # nothing is left
            before = last
            await self._send_to(last)
        self._session.stop.set(PILOT_OVER)

    async def _send_to(self, last: int) -> None:
        unbindings = self._ledger.unbindings
        try:
            await Taker(self._unbinder, unbindings, self._ledger.settle).run(self._run, last)
        except DrainedError:
            return
        finally:
            await self._ledger.flushed()
        await self._unbinder.run(self._run, UnbindKind.LEAVE, last)


async def settle_doubt(
    session: Session, ledger: Ledger, parts: Parts, retries: Retries, claims: Sequence[Claim]
) -> int:
    """Find in the lists whether rows in doubt are bound; send none again. Return the list calls."""
    if not claims:
        return 0
    settings = session.settings
    async with asyncio.TaskGroup() as tasks:
        readback = Readback(
            parts,
            retries,
            tasks,
            NO_RUN,
            _send_nothing,
            send=settings.send,
            doubt=settings.doubt,
        )
        readback.take_up(claims)
        readback.start()
    await ledger.flushed()
    return readback.lists


async def _send_nothing(claim: Claim) -> None:
    raise AssertionError(f"row {claim.row} belongs to no run that sends")

"""Do what operators ask of the run while it is sending, as the ledger has it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from bulkbind.app.session.time_limits import set_deadline
from bulkbind.engine import StopReason
from bulkbind.errors import LedgerError
from bulkbind.ledger import DONE
from bulkbind.logs import logger
from bulkbind.model import adjustment_words
from bulkbind.redaction import line
from bulkbind.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from bulkbind.app.session.session import Session
    from bulkbind.engine import Breaker
    from bulkbind.ledger import Ledger
    from bulkbind.model import Adjustment
    from bulkbind.pacing import Pacer

LOOK_S = 0.4
"""How often the ledger is asked for something new."""


class Widens(Protocol):
    """Sends with more or fewer requests in flight."""

    def widen(self, concurrency: int) -> None:
        """Have workers for so many from now on."""
        ...


class Steering:
    """Looks for what is asked of a run, does it, and remembers it.

    Attributes:
        done: What was done, in order.
    """

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        run: int,
        *,
        pacer: Pacer,
        breaker: Breaker,
        sender: Widens,
        tell: Callable[[], Awaitable[None]],
    ) -> None:
        """*tell*: keeps in the ledger how the run is doing."""
        self._session = session
        self._ledger = ledger
        self._run = run
        self._pacer = pacer
        self._breaker = breaker
        self._sender = sender
        self._tell = tell
        self.done: list[Adjustment] = []
        self._last = self._kept = 0

    async def begin(self) -> None:
        """Begin before the run is known to be sending: what was asked until now is not for it."""
        self._last, _ = await self._ledger.asked()
        self._kept = self._last

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Do what is asked for while the block runs."""
        task = asyncio.create_task(self._follow(), name="steering")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(LedgerError):  # the next verb meets it, too
                await self._keep_done()

    async def _follow(self) -> None:
        while True:
            await self._session.clock.sleep(LOOK_S)
            newest, items = await self._ledger.asked()
            if newest == self._last:
                continue
            for run, item in items:
                if item["number"] > self._last and run == self._run:
                    self._do(item)
            self._last = newest
            await self._tell()
            await self._keep_done()

    async def _keep_done(self) -> None:
        """Let those who asked know; also at the end, which what they asked for may have brought."""
        if self._kept != self._last:
            await self._ledger.put_meta(DONE, self._last)
            self._kept = self._last

    def _do(self, item: Adjustment) -> None:
        item["why"] = str(line(item["why"]))  # who asked may not know the secrets of this process
        said = adjustment_words(item)
        logger().info("run.adjusted", who=item["who"], why=item["why"], what=item["what"])
        self._session.listener.notice(f"adjusted: {said}")
        self.done.append(item)
        what: dict[str, Any] = item["what"]
        if "rate" in what:
            self._pacer.cap(what["rate"])
        if "concurrency" in what:
            self._pacer.widen(what["concurrency"])
            self._sender.widen(what["concurrency"])
        if "max_failures" in what:
            self._breaker.limit(what["max_failures"])
        if "deadline" in what:
            allowed = what["deadline"]
            seconds = None if allowed is None else parse_duration(allowed)
            session = self._session
            set_deadline(seconds, session.clock, session.stop, session.pulse)
        if "pause" in what or "go" in what:
            self._pacer.is_paused = "pause" in what
        if "drain" in what:
            why = f" ({item['why']})" if item["why"] else ""
            self._session.stop.set(StopReason(f"{item['who']} ended it by adjust --drain{why}"))

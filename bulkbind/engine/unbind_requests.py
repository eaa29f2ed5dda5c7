"""Send unbinds, many at once and only some of which need a task, and judge their answers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Self, assert_never

from bulkbind.engine import proof
from bulkbind.engine.decide import Again
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    NoAnswer,
    QuotaUsedUp,
    Refused,
    Throttled,
    Transient,
    UnbindStatus,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from bulkbind.engine.ports import Came, Parts
    from bulkbind.engine.retry import Retries
    from bulkbind.model import Unbinding
    from bulkbind.settings import SendSettings


class UnbindRequests:
    """Sends until a binding is gone, which is settled at once, or only the list can say so."""

    def __init__(
        self,
        parts: Parts,
        retries: Retries,
        send: SendSettings,
        *,
        halt: Callable[[Attempt], None],
        settle: Callable[[list[Unbinding]], None],
    ) -> None:
        """*halt*: stops the run if an attempt shows that others would fail, too.

        *settle*: called with what is unbound.
        """
        self._api = parts.api
        self._gate = parts.gate
        self._retries = retries
        self._max_attempts = send.max_attempts
        self._is_per_user = send.is_per_user
        self._halt = halt
        self._settle = settle

    async def send_all(self, items: Iterable[Unbinding]) -> list[BaseException]:
        """Send as `send` does, without a task for what its first answer settles.

        Returns: What failed; the stop of the run, too.
        """
        with _Out() as out:
            for item in items:
                out.leave()
                if self._is_per_user and self._gate.is_far(item.user_id):
                    out.beside(self.send(item))  # the others need not wait for its turn
                    continue
                try:
                    is_posted = await self._api.post_unbind(item, partial(self._landed, out, item))
                except Exception as error:  # noqa: BLE001  # what has left comes back first
                    out.back(error)
                    break
                if not is_posted:
                    out.beside(self.send(item))
            await out.all_back()
        return out.faults

    async def send(self, item: Unbinding) -> None:
        """Send one. Raises: DrainedError when the run stops."""
        await self._go_on(item, await self._once(item))

    def _landed(self, out: _Out, item: Unbinding, came: Came) -> None:
        """Judge what came of a first request."""
        if out.is_cut:
            return
        if not isinstance(came, Attempt):
            out.beside(self.send(item) if came is None else self._late(item, came))
            return
        try:
            again = self._judge(item, came)
        except Exception as error:  # noqa: BLE001  # a connection calls: `send_all` returns it
            out.back(error)
            return
        if again is None:
            out.back()
        else:
            out.beside(self._go_on(item, again))

    async def _late(self, item: Unbinding, came: Callable[[], Awaitable[Attempt | None]]) -> None:
        attempt = await came()
        if attempt is None:
            await self.send(item)
        else:
            await self._go_on(item, self._judge(item, attempt))

    async def _once(self, item: Unbinding) -> Again | None:
        return self._judge(item, await self._api.unbind(item))

    async def _go_on(self, item: Unbinding, again: Again | None) -> None:
        if again is not None:
            once = partial(self._once, item)
            await self._retries.until_done(again, lambda: item.attempts, once)

    def _judge(self, item: Unbinding, attempt: Attempt) -> Again | None:
        """Settle what an answer proves to be gone; return that it is sent again, if it is."""
        item.last = attempt
        self._halt(attempt)
        match attempt.verdict:
            case Accepted():
                item.attempts += 1
                if proof.unbound(item, attempt):
                    self._settle([item.end(UnbindStatus.UNBOUND)])
                else:
                    item.was_sent = True
                return None
            case NoAnswer(names_another=True):
                item.attempts += 1
                item.was_sent = True
                return None
            case Refused() | AlreadyBound() | AuthExpired(is_users_own=True):
                item.attempts += 1
                return None
            case Transient() | NoAnswer():
                # It may have been carried out; sending it again does no harm.
                item.attempts += 1
                item.was_sent = True
                again = Again(backoff=True, why=attempt.said)
                return again if item.attempts < self._max_attempts else None
            case Throttled() | ClockRefused() | Unreachable() | AuthExpired() | QuotaUsedUp():
                return Again(backoff=False)
            case _ as never:
                assert_never(never)


class _Out:
    """Counts requests out and back; a context manager that ends the tasks of those that have one.

    Attributes:
        faults: What failed.
        is_cut: Whether nobody waits for what comes any more.
    """

    def __init__(self) -> None:
        self.faults: list[BaseException] = []
        self.is_cut = False
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._are_back = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_cut = True
        for task in self._tasks:
            task.cancel()

    def leave(self) -> None:
        """Count one that leaves."""
        self._count += 1

    def back(self, fault: BaseException | None = None) -> None:
        """Count one that is back. *fault*: what failed with it."""
        self._count -= 1
        if fault is not None:
            self.faults.append(fault)
        if not self._count:
            self._are_back.set()

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a task bring one back."""
        task = asyncio.create_task(work, name="unbind")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.back(asyncio.CancelledError() if task.cancelled() else task.exception())

    async def all_back(self) -> None:
        """Wait until all are back."""
        while self._count:
            self._are_back.clear()
            await self._are_back.wait()

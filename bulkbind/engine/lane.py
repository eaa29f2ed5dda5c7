"""First attempts by the dozen: no task a row, where its answer comes at once and settles it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from bulkbind.engine.stop import DrainedError, NoRoomError
from bulkbind.engine.user_states import HeldError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from bulkbind.engine.binder import Binder
    from bulkbind.engine.ports import Came, Parts
    from bulkbind.engine.stop import Breaker
    from bulkbind.engine.user_states import Users
    from bulkbind.model import Attempt, Claim

    Work = Coroutine[Any, Any, None]


class Rows(Protocol):
    """Where the rows come from, each once."""

    def ready(self) -> Claim | None:
        """Return the next row if it is durably claimed already."""

    async def next(self) -> Claim | None:
        """Return the next row, durably claimed, or None if there are no more."""


class Lane:
    """Posts rows and lets their answers come; what is not simply accepted, the binder takes on.

    A row has all that it has on the binder's own way: a credential, a permit, its place in breaker
    and users before it leaves; and the binder judges its answer.
    """

    def __init__(
        self,
        parts: Parts,
        binder: Binder,
        tasks: asyncio.TaskGroup,
        *,
        users: Users,
        breaker: Breaker,
        concurrency: int,
    ) -> None:
        """*concurrency*: of rows that are under way."""
        self._api = parts.api
        self._ledger = parts.ledger
        self._stop = parts.stop
        self._binder = binder
        self._tasks = tasks
        self._users = users
        self._breaker = breaker
        self._concurrency = concurrency
        self._out = 0
        """Rows that are posted and have not come back."""
        self._left = 0
        """Rows that the binder has not yet taken on."""
        self._has_moved = asyncio.Event()
        self._is_cut = False
        """Whether nobody waits for answers any more: their rows are in doubt."""

    def widen(self, concurrency: int) -> None:
        """Have so many rows under way from now on."""
        self._concurrency = concurrency
        self._has_moved.set()

    async def run(self, rows: Rows) -> None:
        """Post rows until none is left, the run stops, or nobody takes them; await their answers.

        Raises: LedgerError.
        """
        try:
            await self._run(rows)
        except BaseException:
            self._is_cut = True
            raise

    async def _run(self, rows: Rows) -> None:
        while not self._stop.is_set:
            if self._out + self._left >= self._concurrency:
                await self._moved()
                continue
            claim = rows.ready() or await rows.next()
            if claim is None:
                break
            try:
                is_posted = await self._post(claim)
            except DrainedError:
                await self._ledger.release([claim])
                break
            if not is_posted:
                self._leave_to_binder(self._binder.bind(claim))
        while self._out:
            await self._moved()

    async def _moved(self) -> None:
        self._has_moved.clear()
        await self._has_moved.wait()

    async def _post(self, claim: Claim) -> bool:
        """Post a row; return whether it could be. Raises: DrainedError, if it was not."""

        def before() -> None:
            self._breaker.leave(claim.row)
            self._users.leave(claim.device.user_id)
            self._out += 1

        def landed(came: Came) -> None:
            if callable(came):
                self._beside(self._late(claim, came))
            else:
                self._back(claim)
                try:
                    self._judge(claim, came)
                except Exception as error:  # noqa: BLE001  # a connection calls: it ends the run
                    self._beside(_failing(error))

        try:
            while True:
                if not self._breaker.has_room():
                    await self._breaker.room()
                try:
                    return await self._api.post(claim.device, before, landed)
                except NoRoomError:
                    continue
        except HeldError:  # it is its user's turn first
            return False
        except BaseException:
            self._breaker.let_go(claim.row)
            raise

    async def _late(self, claim: Claim, came: Callable[[], Awaitable[Attempt | None]]) -> None:
        try:
            attempt = await came()
        except DrainedError:  # while it was found out what a refusal is about
            self._breaker.let_go(claim.row)
            await self._ledger.release([claim])
            return
        finally:
            self._back(claim)
        self._judge(claim, attempt)

    def _back(self, claim: Claim) -> None:
        self._users.land(claim.device.user_id)
        self._out -= 1
        self._has_moved.set()

    def _judge(self, claim: Claim, attempt: Attempt | None) -> None:
        if self._is_cut:
            return
        if attempt is None:
            self._leave_to_binder(self._binder.bind(claim))
        elif (rest := self._binder.landed(claim, attempt)) is not None:
            self._leave_to_binder(rest)

    def _leave_to_binder(self, work: Work) -> None:
        if self._beside(self._alone(work)):
            self._left += 1
        else:
            work.close()

    def _beside(self, work: Work) -> bool:
        """Have a task do something; return whether it will: else the run has failed."""
        try:
            self._tasks.create_task(work, name="beside the lane")
        except RuntimeError:
            work.close()
            return False
        return True

    async def _alone(self, work: Work) -> None:
        try:
            await work
        except DrainedError:
            pass  # the row is staged
        finally:
            self._left -= 1
            self._has_moved.set()


async def _failing(error: Exception) -> None:
    raise error

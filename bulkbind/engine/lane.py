"""First attempts by the dozen: no task a row, where its answer comes at once and settles it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from bulkbind.engine.stop import DrainedError, NoRoomError
from bulkbind.engine.user_states import HeldError
from bulkbind.model import TimeUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

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

    def take(self, most: int) -> list[Claim]:
        """Return up to *most* rows, the next ones, that are durably claimed already."""

    def put_back(self, claims: Sequence[Claim]) -> None:
        """Hand these out next."""


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
        self._clock = parts.clock
        self._time = parts.gate.time
        self._out: dict[int, float] = {}
        """Rows that are posted and have not come back: when each left, monotonic seconds."""
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
        """Post rows until none is left, or the run stops; their answers may yet come.

        Then there is a task for each row, so that it can be given up. Raises: LedgerError.
        """
        try:
            await self._run(rows)
        except BaseException:
            self._is_cut = True
            raise

    async def _run(self, rows: Rows) -> None:
        while not self._stop.is_set:
            takes = self._api.takes(self._concurrency)
            is_full = len(self._out) + self._left >= self._concurrency
            if is_full or (takes == 0 and self._out):
                await self._moved()
                continue
            if takes and await self._post_all(rows, takes):
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
        self._api.hand_over()

    async def _post_all(self, rows: Rows, most: int) -> int:
        """Hand up to *most* rows to others who send; return how many, if any.

        Where one row after the other has to be looked at, there are none. Those that may leave a
        little later go along, and more are not looked for until then.
        """
        if self._breaker.is_failing() or self._users.has_suspects():
            return 0
        claims = rows.take(min(most, self._concurrency - len(self._out) - self._left))
        if not claims:
            return 0
        group = _Group(self, claims)
        posted = self._api.post_all([claim.device for claim in claims], group)
        rows.put_back(claims[posted:])
        left = [claim.row for claim in claims[:posted]]
        self._breaker.leave_all(left)
        for claim in claims[:posted]:
            self._users.leave(claim.device.user_id)
        self._out.update(dict.fromkeys(left, self._clock.monotonic()))
        if 0 < posted < len(claims) and (ahead_s := self._api.ahead_s()):
            with self._time.waiting(TimeUse.PACED):
                await self._clock.sleep(ahead_s)
        return posted

    async def _moved(self) -> None:
        self._has_moved.clear()
        await self._has_moved.wait()

    async def _post(self, claim: Claim) -> bool:
        """Post a row; return whether it could be. Raises: DrainedError, if it was not."""

        def before() -> None:
            self._breaker.leave(claim.row)
            self._users.leave(claim.device.user_id)
            self._out[claim.row] = self._clock.monotonic()

        landed = partial(self.landed, claim)
        try:
            while True:
                if not self._breaker.has_room():
                    await self._breaker.room()
                try:
                    return await self._api.post(claim.device, before, landed)
                except NoRoomError:
                    continue
        except HeldError:  # it is its user's turn first
            self._breaker.let_go(claim.row)
            return False
        except BaseException:
            self._breaker.let_go(claim.row)
            raise

    def landed(self, claim: Claim, came: Came) -> None:
        """Judge what came of a row."""
        if callable(came):
            self._beside(self._late(claim, came))
            return
        self._back([claim])
        try:
            self._judge(claim, came)
        except Exception as error:  # noqa: BLE001  # a connection calls: it ends the run
            self._beside(_failing(error))

    def passed(
        self, claims: Sequence[Claim], attempts: Sequence[Attempt], *, is_ours: bool
    ) -> None:
        """Settle rows that were accepted."""
        self._back(claims)
        if self._is_cut:
            return
        try:
            left = self._binder.passed(claims, attempts, is_ours=is_ours)
        except Exception as error:  # noqa: BLE001  # as above
            self._beside(_failing(error))
            return
        for work in left:
            self._leave_to_binder(work)

    async def _late(self, claim: Claim, came: Callable[[], Awaitable[Attempt | None]]) -> None:
        try:
            attempt = await self._binder.awaited(claim, came(), self._out[claim.row])
        except DrainedError:  # while it was found out what a refusal is about
            self._breaker.let_go(claim.row)
            await self._ledger.release([claim])
            return
        finally:
            self._back([claim])
        self._judge(claim, attempt)

    def _back(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._users.land(claim.device.user_id)
            del self._out[claim.row]
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


class _Group:
    """Rows that were handed over together."""

    __slots__ = ("_claims", "_lane")

    def __init__(self, lane: Lane, claims: Sequence[Claim]) -> None:
        self._lane, self._claims = lane, claims

    def passed(self, places: Sequence[int], attempts: Sequence[Attempt], *, is_ours: bool) -> None:
        """As `Landing` says."""
        claims = [self._claims[place] for place in places]
        self._lane.passed(claims, attempts, is_ours=is_ours)

    def landed(self, place: int, came: Came) -> None:
        """As `Landing` says."""
        self._lane.landed(self._claims[place], came)


async def _failing(error: Exception) -> None:
    raise error

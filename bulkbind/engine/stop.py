"""Stop a run: the signal ends waits, the breaker sets it, the drain lets requests finish."""

from __future__ import annotations

import asyncio
import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.logs import logger
from bulkbind.model import Status
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from bulkbind.clock import Clock
    from bulkbind.model import Ended


class DrainedError(Exception):
    """A wait was cut short because the run is stopping; what waited was not sent."""


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run stops early, for a person, and the exit code of its command."""

    text: str
    exit_code: ExitCode = ExitCode.STOPPED
    hint: str = ""
    is_endpoint_wrong: bool = False
    """Whether the same endpoint again would probably end in the same way."""


PILOT_OVER = StopReason("as many rows were sent as --first asked for")

_OUTLASTS: ContextVar[bool] = ContextVar("outlasts", default=False)


class StopSignal:
    """Set at most once: the first reason counts."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.gives_up_at = math.inf
        """Until when, monotonic, what drains may go on; infinite: nothing drains."""
        self._event = asyncio.Event()
        self._waiting: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()

    @property
    def is_set(self) -> bool:
        """Whether the run is stopping."""
        return self.reason is not None

    @property
    def cuts(self) -> bool:
        """Whether the run is stopping and the block is to end, as it is not in `outlasting`."""
        return self.is_set and not _OUTLASTS.get()

    def set(self, reason: StopReason) -> None:
        """Stop: nothing new is sent, and every wait in `cutting_short` ends at once."""
        if self.reason is not None:
            return
        self.reason = reason
        logger().info("run.stopping", reason=reason.text)
        self._event.set()
        for task in self._waiting - self._cut:
            if task is asyncio.current_task():
                # It waits for nothing now: cancelled at once, it would be so wherever it waits
                # next, though that may be behind the block.
                asyncio.get_running_loop().call_soon(self._cut_short, task)
            else:
                self._cut_short(task)

    def _cut_short(self, task: asyncio.Task[object]) -> None:
        if task in self._waiting:
            self._cut.add(task)
            task.cancel()

    async def wait(self) -> None:
        """Wait until the run is stopping."""
        await self._event.wait()

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Cancel what the block awaits once the run stops. Raises: DrainedError, also if it has.

        Blocks may stand within each other: the outermost one of a task raises. None does in
        `outlasting`.
        """
        if _OUTLASTS.get():
            yield
            return
        if self.is_set:
            raise DrainedError
        task = asyncio.current_task()
        assert task is not None
        if task in self._waiting:
            yield
            return
        cancelling = task.cancelling()
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if task in self._cut and task.uncancel() <= cancelling:
                raise DrainedError from error
            raise
        finally:
            self._waiting.discard(task)
            if task in self._cut:
                self._cut.discard(task)
                if task.cancelling() > cancelling:  # the stop came after the block's last await
                    task.uncancel()

    @contextmanager
    def outlasting(self) -> Iterator[None]:
        """Let the block go on while the run drains: it settles what was sent, and sends no bind.

        Only the end of the grace, which cancels everything, ends it.
        """
        before = _OUTLASTS.set(True)
        try:
            yield
        finally:
            _OUTLASTS.reset(before)

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Sleep on *clock*. Raises: DrainedError when the run stops."""
        with self.cutting_short():
            await clock.sleep(seconds)


COUNTED_FROM = 100
"""Devices that must have ended before a percentage of them counts."""


class NoRoomError(Exception):
    """A request must not leave now: too many are out that may fail."""


class Breaker:
    """Counts durable outcomes, and stops the run when too many are failures.

    While failures follow one another, no more requests are out than may still fail: what is out
    when the last of these has failed has left already.
    """

    def __init__(self, stop: StopSignal, limit: str | None, *, is_resumed: bool = False) -> None:
        """*limit*: `50` failed devices, or `5%` of those that have ended; None: never.

        *is_resumed*: whether what an earlier process sent is not counted.
        """
        self._stop = stop
        self._is_resumed = is_resumed
        self._limit = limit
        self._ended = 0
        self._failed = 0
        self._out: set[int] = set()
        """Rows whose requests are out, or have failed and are not counted yet."""
        self._is_failing = False
        """Whether the last row that an answer ended has failed."""
        self._changed = asyncio.Event()

    def limit(self, limit: str | None) -> None:
        """Go on with another limit, written as `Breaker` takes it; what has failed counts."""
        self._limit = limit
        self._changed.set()
        self._trip()

    def has_room(self) -> bool:
        """Return whether a request may leave."""
        is_bound = self._limit is not None and self._is_failing
        return not is_bound or len(self._out) < self._most_out()

    def _most_out(self) -> float:
        """Return how many failures in succession would stop the run, at least 1."""
        assert self._limit is not None  # else there is room
        if not self._limit.endswith("%"):
            return max(1.0, float(self._limit) - self._failed)
        share = float(self._limit.removesuffix("%")) / 100
        missing = (self._ended * share - self._failed) / (1 - share)
        return max(1.0, COUNTED_FROM - self._ended, math.ceil(missing))

    async def room(self) -> None:
        """Wait until a request may leave. Raises: DrainedError when the run stops."""
        while not self.has_room():
            self._changed.clear()
            with self._stop.cutting_short():
                await self._changed.wait()

    def leave(self, row: int) -> None:
        """A row's request leaves. Raises: NoRoomError if it must not, after all."""
        if self._limit is None:
            return
        if row not in self._out and not self.has_room():
            raise NoRoomError
        self._out.add(row)

    def is_failing(self) -> bool:
        """Return whether each row that leaves has to be looked at, as the last one has failed."""
        return self._limit is not None and self._is_failing

    def leave_all(self, rows: Iterable[int]) -> None:
        """Requests of rows leave; only while it `is_failing` for none."""
        if self._limit is not None:
            self._out.update(rows)

    def passed(self, rows: Iterable[int]) -> None:
        """Rows have been accepted."""
        if self._limit is not None:
            self._is_failing = False
            self._out.difference_update(rows)
            self._changed.set()

    def land(self, row: int, *, has_failed: bool | None) -> None:
        """An answer has come.

        *has_failed*: whether its row has, unless a list says otherwise; None: that is open.
        """
        if self._limit is None:
            return
        if has_failed is not None:
            self._is_failing = has_failed
        if not has_failed:
            self.let_go(row)

    def let_go(self, row: int) -> None:
        """A row will not fail for now."""
        self._out.discard(row)
        self._changed.set()

    def settled(self, ended: Sequence[Ended]) -> None:
        """Count outcomes; stop the run if too many are failures."""
        self._out.difference_update(claim.row for claim, _ in ended)
        self._changed.set()
        sent = [outcome for _, outcome in ended if not outcome.is_unsent]
        self._ended += len(sent)
        self._failed += sum(outcome.status is Status.FAILED for outcome in sent)
        self._trip()

    def _trip(self) -> None:
        if self._limit is not None and self._failed >= self._most(self._limit):
            hint = "the failed file tells why; what has not been sent stays pending"
            self._stop.set(StopReason(self._why(self._limit), hint=hint))

    def _why(self, limit: str) -> str:
        since = "since it was resumed, " if self._is_resumed else ""
        failed = f"{counted(self._failed, 'devices')} {verb(self._failed, 'has', 'have')} failed"
        if limit.endswith("%"):
            failed = (
                f"of {counted(self._ended, 'devices')} that have ended, {self._failed:,} failed"
            )
        how = "as many as" if self._failed == self._most(limit) else "more than"
        return f"{since}{failed}, {how} --max-failures {limit} allows"

    def doubted(self, before: Sequence[Status]) -> None:
        """Take back outcomes that are in doubt again; *before*: what they were."""
        self._ended -= len(before)
        self._failed -= sum(status is Status.FAILED for status in before)

    def _most(self, limit: str) -> float:
        if not limit.endswith("%"):
            return float(limit)
        if self._ended < COUNTED_FROM:
            return float("inf")
        return self._ended * float(limit.removesuffix("%")) / 100


async def draining(
    work: Coroutine[None, None, None],
    clock: Clock,
    stop: StopSignal,
    *,
    grace_s: float,
) -> None:
    """Await *work*; once the run stops, requests in flight get *grace_s* seconds to finish.

    Raises: what *work* raises; of a group, our first error.
    """
    watch = asyncio.create_task(_watch(clock, stop, grace_s), name="watch")
    task = asyncio.create_task(work, name="work")
    try:
        await asyncio.wait([watch, task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (watch, task):
            each.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise first_of(error)


async def _watch(clock: Clock, stop: StopSignal, grace_s: float) -> None:
    await stop.wait()
    stop.gives_up_at = clock.monotonic() + grace_s
    await clock.sleep(grace_s)


def first_of(error: BaseException) -> BaseException:
    """Return our first error in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(BulkbindError)
        inner: BaseException = ours if ours is not None else error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        return inner
    return error

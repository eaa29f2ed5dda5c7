"""Send a run: settle old doubt, send one canary, then everything, then drain.

Rows come from the ledger in small batches, prefetched by one task for all workers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.engine.binder import Binder
from bulkbind.engine.decide import Park, Step, Suspect, is_endpoint_wrong, setting_to_check
from bulkbind.engine.lane import Lane
from bulkbind.engine.readback import Readback
from bulkbind.engine.retry import Retries
from bulkbind.engine.stop import PILOT_OVER, Breaker, DrainedError, StopReason, draining
from bulkbind.engine.user_states import Users
from bulkbind.model import TimeUse

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
    from contextvars import Context

    from bulkbind.engine.ports import Parts
    from bulkbind.model import Claim
    from bulkbind.settings import ReadbackSettings, SendSettings

T = TypeVar("T")
BATCHES, MOST_BATCHES = 4, 16
"""A batch is at most this many times the concurrency, and about a second of the pace, so that few
rows are in question after a crash. The next one is fetched when half of it is left; at once where
no pace is known, as half of it may be sent before the ledger comes to it."""
QUICK_S = 0.1
"""The next batch is twice as large if it is wanted so soon after the last one, else half."""


class Claims:
    """Hands out the staged rows of a run, each once; at most *first* rows.

    In manifest order or in turns: one row of each user, then the next of each, and so on.
    """

    def __init__(
        self,
        parts: Parts,
        run: int,
        *,
        concurrency: int,
        first: int | None,
        is_in_turns: bool,
        on_over: Callable[[], None],
    ) -> None:
        """*on_over*: called when somebody has asked for a row, and none is left."""
        self._on_over = on_over
        self._ledger = parts.ledger
        self._api = parts.api
        self._gate = parts.gate
        self._run = run
        self._concurrency = concurrency
        self._is_in_turns = is_in_turns
        self._waiting: deque[Claim] = deque()
        self._fetching: asyncio.Task[None] | None = None
        self._last = 0
        self._left_out: set[int] = set()
        self._clock = parts.clock
        self._size = BATCHES * concurrency
        self._fetched_at = -QUICK_S
        self._low = 0
        """The next batch is fetched when at most this many wait."""
        self._left = first
        self._is_exhausted = False

    def widen(self, concurrency: int) -> None:
        """Claim batches for another concurrency from now on."""
        self._concurrency = concurrency

    def ready(self) -> Claim | None:
        """Return the next row if it is durably claimed already."""
        if not self._waiting:
            return None
        claim = self._waiting.popleft()
        self._prefetch()
        return claim

    def take(self, most: int) -> list[Claim]:
        """Return up to *most* rows, the next ones, that are durably claimed already."""
        waiting = self._waiting
        if not waiting:
            return []
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._prefetch()
        return taken

    def _prefetch(self) -> None:
        if len(self._waiting) <= self._low and not self._is_exhausted and self._is_idle():
            self._fetch(self._batch()).add_done_callback(_retrieve)

    def put_back(self, claims: Sequence[Claim]) -> None:
        """Hand these out next."""
        self._waiting.extendleft(reversed(claims))

    async def next(self, *, ahead: bool = True) -> Claim | None:
        """Return the next row, durably claimed, or None if there are no more.

        *ahead*: prefetch a batch; a canary takes one row at a time.
        """
        while not self._waiting:
            if self._is_exhausted:
                self._on_over()
                return None
            await asyncio.shield(self._fetch(self._batch() if ahead else 1))
        return self.ready() if ahead else self._waiting.popleft()

    def _batch(self) -> int:
        now, per_s = self._clock.monotonic(), self._gate.per_s()
        size = self._size * 2 if now - self._fetched_at < QUICK_S else self._size // 2
        least, most = BATCHES * self._concurrency, MOST_BATCHES * self._concurrency
        self._size, self._fetched_at = max(least, min(most, size)), now
        return self._size if per_s is None else max(1, min(self._size, int(per_s)))

    def _is_idle(self) -> bool:
        return self._fetching is None or self._fetching.done()

    def _fetch(self, most: int) -> asyncio.Task[None]:
        if self._fetching is None or self._is_idle():
            self._low = most if self._gate.per_s() is None else most // 2
            self._fetching = asyncio.create_task(self._take(most), name="claims")
        return self._fetching

    async def _take(self, most: int) -> None:
        most = most if self._left is None else min(most, self._left)
        batch = await self._batch_of(most) if most else []
        self._is_exhausted = not batch
        if batch:
            self._last = batch[-1].row
            self._waiting.extend(batch)
        if self._left is not None:
            self._left -= len(batch)

    async def _batch_of(self, most: int) -> list[Claim]:
        now = self._api.server_time()
        if self._is_in_turns:
            return await self._ledger.claim_in_turns(
                self._run, most, now, excluding=list(self._left_out)
            )
        later = [row for row in self._left_out if row > self._last]
        return await self._ledger.claim(self._run, self._last, most, now, excluding=later)

    def leave_out(self, row: int) -> None:
        """Never hand out a row that another task sends, though it is staged between attempts."""
        self._left_out.add(row)

    @property
    def is_pilot_over(self) -> bool:
        """Whether *first* rows have been handed out."""
        return self._left == 0

    async def give_back(self) -> None:
        """Release rows that were claimed and never handed out."""
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
        left = list(self._waiting)
        self._waiting.clear()
        self._is_exhausted = True
        if left:
            await self._ledger.release(left)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Keep asyncio from logging a failure of a prefetch that nobody awaits; `next` meets it."""
    if not task.cancelled():
        task.exception()


CANARIES = 5
"""First rows in succession that fail as with a wrong set-up before the run stops."""


class Tasks(asyncio.TaskGroup):
    """A group that knows which of its tasks are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.left: set[asyncio.Task[Any]] = set()

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task, as in any group."""
        task = super().create_task(coro, name=name, context=context)
        self.left.add(task)
        task.add_done_callback(self.left.discard)
        return task


NO_ANSWER_S = 1.5
"""A first request that has no answer after so long does not keep the next one back."""


async def _answered(
    parts: Parts,
    tasks: asyncio.TaskGroup,
    out: Iterable[asyncio.Task[T]],
    within_s: float | None,
) -> set[asyncio.Task[T]]:
    """Return those that have got their last answer; none if there is none, and others may go.

    *within_s*: none may go before; None: none may go.
    """
    while True:
        sleeps = [] if within_s is None else [parts.clock.sleep(within_s)]
        timers = [tasks.create_task(sleep, name="wait for an answer") for sleep in sleeps]
        try:
            await asyncio.wait([*out, *timers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for timer in timers:
                timer.cancel()
        done = {task for task in out if task.done()}
        # What waits for the gateway, or for another attempt, has had its answer.
        if done or parts.gate.time.now() in (TimeUse.SENDING, TimeUse.SILENT):
            return done


class _Canaries:
    """The first rows, each sent alone unless those before it get no answer."""

    def __init__(
        self, parts: Parts, claims: Claims, binder: Binder, tasks: asyncio.TaskGroup
    ) -> None:
        self._parts = parts
        self._claims = claims
        self._binder = binder
        self._tasks = tasks
        self._out: dict[asyncio.Task[Step | None], Claim] = {}

    async def next(self, most: int) -> tuple[Claim | None, Step | None]:
        """Return the next row that has got its last answer, and the step that follows from it.

        Neither if no row is left. *most*: no more go at once.

        Raises: DrainedError when the run stops.
        """
        ready: set[asyncio.Task[Step | None]] = set()
        is_last = len(self._out) >= most
        while not ready:
            if not is_last:
                claim = await self._claims.next(ahead=False)
                if claim is not None:
                    self._out[self._tasks.create_task(self._to_end(claim), name="canary")] = claim
                elif not self._out:
                    return None, None
                is_last = claim is None or len(self._out) >= most
            within_s = None if is_last else NO_ANSWER_S
            ready = await _answered(self._parts, self._tasks, self._out, within_s)
        task = next(task for task in self._out if task in ready)
        claim, step = self._out.pop(task), task.result()
        if step is None:
            raise DrainedError
        return claim, step

    async def _to_end(self, claim: Claim) -> Step | None:
        try:
            return await self._binder.to_end(claim)
        except DrainedError:
            return None  # the row is staged

    def let_go(self) -> None:
        """Let those that are still out end beside the others."""
        for task, claim in self._out.items():
            work = self._act(claim, task)
            try:
                self._tasks.create_task(work, name="late canary")
            except RuntimeError:  # the run has failed
                work.close()

    async def _act(self, claim: Claim, task: asyncio.Task[Step | None]) -> None:
        step = await task
        if step is not None:
            await self._binder.act(claim, step)


class Pipeline:
    """Sends the staged rows of a run, once."""

    def __init__(
        self,
        parts: Parts,
        run: int,
        send: SendSettings,
        doubt: ReadbackSettings,
        first: int | None = None,
        *,
        breaker: Breaker | None = None,
        on_quiet: Callable[[], None] = lambda: None,
    ) -> None:
        """*first*: a pilot that sends only this many rows; None: all rows.

        *on_quiet*: called whenever all rows have ended, and connections are only listened to.
        """
        self._on_quiet = on_quiet
        self._breaker = breaker = breaker or Breaker(parts.stop, None)
        self._parts = parts
        self._run = run
        self._send = send
        self._tasks = Tasks()
        self._width = send.concurrency
        self._workers: list[asyncio.Task[None]] = []
        self._room_lock = asyncio.Lock()
        self._retries = Retries(parts.clock, parts.stop, parts.gate, send)
        self._claims = Claims(
            parts,
            run,
            concurrency=send.concurrency,
            first=first,
            is_in_turns=send.is_per_user and first is None,  # a pilot takes the first rows
            on_over=self._hurry,
        )
        self._readback = Readback(
            parts,
            self._retries,
            self._tasks,
            run,
            self._resend,
            send=send,
            doubt=doubt,
            let_go=breaker.let_go,
        )
        users = Users(parts, run, self._readback.look if doubt.readback else None)
        self._binder = Binder(
            parts, self._readback, self._retries, self._tasks, send, users=users, breaker=breaker
        )
        self._lane = Lane(
            parts,
            self._binder,
            self._tasks,
            users=users,
            breaker=breaker,
            concurrency=send.concurrency,
        )
        parts.api.on_unasked(self._binder.on_unasked)

    def widen(self, concurrency: int) -> None:
        """Have at least so many workers from now on; how many send at once, the gate says."""
        self._claims.widen(concurrency)
        self._lane.widen(concurrency)
        self._width = max(self._width, concurrency)
        if self._at_work():
            self._hire()

    def _hire(self) -> None:
        self._workers += [
            self._tasks.create_task(self._worker(), name=f"worker {number}")
            for number in range(len(self._workers), self._width)
        ]

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._readback.lists

    @property
    def again(self) -> int:
        """Binds sent again after a time-out."""
        return self._readback.again

    @property
    def backed_off_s(self) -> float:
        """Total seconds of backoff over all devices."""
        return self._retries.backed_off_s

    async def run(self) -> None:
        """Send until every row has ended, or the run is stopped and drained.

        Raises: LedgerError; the run can be resumed from the ledger.
        """
        try:
            await draining(
                self._work(),
                self._parts.clock,
                self._parts.stop,
                grace_s=self._send.grace,
            )
        except asyncio.CancelledError:
            await self._claims.give_back()
            raise
        await self._claims.give_back()

    async def _work(self) -> None:
        await self._send_all()
        if self._claims.is_pilot_over:
            self._parts.stop.set(PILOT_OVER)

    async def _send_all(self) -> None:
        async with self._tasks:
            await self._readback.load()
            try:
                is_proven = await self._first_contact()
            except DrainedError:
                return
            if self._parts.stop.is_set:
                return
            self._readback.start()
            if is_proven:
                await self._send_claims()
            else:
                self._hurry()
            await self._all_said()

    async def _send_claims(self) -> None:
        """Send what is staged: by workers where a row may wait for its user while others go.

        The last rows may be under way when it returns.
        """
        self._parts.gate.time.is_more_to_send = True
        if not self._send.is_per_user:
            await self._lane.run(self._claims)
            return
        self._hire()
        while self._parts.gate.time.is_more_to_send and (left := self._at_work()):
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)

    def _at_work(self) -> list[asyncio.Task[None]]:
        return [worker for worker in self._workers if not worker.done()]

    def _hurry(self) -> None:
        """Settle what is left as soon as can be: no more rows are to be sent."""
        self._parts.gate.time.is_more_to_send = False
        self._readback.hurry()

    async def _all_said(self) -> None:
        """Return once all tasks have ended, and the connections have had the time to say more."""
        clock = self._parts.clock
        while self._tasks.left or (wait_s := self._binder.quiet_at - clock.monotonic()) > 0:
            if self._tasks.left:
                ended = asyncio.ensure_future(asyncio.wait(self._tasks.left))
                timer = asyncio.ensure_future(clock.sleep(self._binder.look_up_overdue()))
                try:
                    await asyncio.wait((ended, timer), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    ended.cancel()
                    timer.cancel()
            else:
                self._on_quiet()
                with self._parts.gate.time.waiting(TimeUse.LISTENING, wait_s):
                    await clock.sleep(wait_s)

    async def _first_contact(self) -> bool:
        """Prove endpoint, TLS, credentials and clock with one request alone.

        With rows in doubt, a list call comes first; then a bind: rights and parameters of the one
        prove nothing about the other.

        Returns: Whether more rows can be sent; False if none is left.
        Raises: DrainedError when the run stops.
        """
        reading = self._tasks.create_task(self._first_list(), name="first list")
        await _answered(self._parts, self._tasks, [reading], NO_ANSWER_S)
        suspects: list[tuple[Claim, Suspect]] = []
        claim: Claim | None = None
        tried: set[str | int] = set()
        canaries = _Canaries(self._parts, self._claims, self._binder, self._tasks)
        try:
            while not self._parts.stop.is_set:
                claim, step = await canaries.next(CANARIES - len(tried))
                if claim is None or step is None:
                    break
                # Another row of this user proves nothing more about the user's credentials.
                is_about_user = isinstance(step, Suspect) and step.is_about_user
                tried.add(claim.device.user_id if is_about_user else claim.row)
                if isinstance(step, Suspect):
                    suspects.append((claim, step))
                    self._breaker.let_go(claim.row)  # it does not fail before another succeeds
                else:
                    await self._binder.act(claim, step)
                    if not (isinstance(step, Park) and step.is_unanswered):
                        break
                if len(tried) == CANARIES:
                    reason = _set_up_is_wrong(claim, has_served=self._parts.has_served)
                    self._parts.stop.set(reason)
            if self._parts.stop.is_set:
                return False
            for earlier, step in suspects:
                await self._binder.act(earlier, step)
            suspects.clear()
            return claim is not None
        finally:
            canaries.let_go()
            # These were refused because of the set-up, so no attempt counts; but a request that may
            # have been carried out counts as one, so that its row does not look unsent.
            for earlier, held_back in suspects:
                earlier.attempts = int(isinstance(held_back.step, Park))
            await self._parts.ledger.release([earlier for earlier, _ in suspects])

    async def _first_list(self) -> None:
        with suppress(DrainedError):
            await self._readback.first_contact()

    async def _resend(self, claim: Claim) -> None:
        self._claims.leave_out(claim.row)
        await self._binder.resend(claim)

    async def _worker(self) -> None:
        stop = self._parts.stop
        while not stop.is_set:
            try:
                claim = self._claims.ready() if self._parts.gate.has_room() else None
                if claim is None:
                    # One worker at a time, so that each sees the rows of the others waiting.
                    async with self._room_lock:
                        await self._parts.gate.room()
                        claim = await self._claims.next()
                if claim is None:
                    return
                await self._binder.bind(claim)
            except DrainedError:
                return


def _set_up_is_wrong(claim: Claim, *, has_served: bool) -> StopReason:
    last = claim.last
    assert last is not None  # a suspect has been sent
    parts = (f"HTTP {last.http_status}" if last.http_status else "", last.code, last.message)
    words = " ".join(part for part in parts if part)
    return StopReason(
        f"none of the first {CANARIES} devices could be bound, so the settings, or the service, "
        f"are at fault: {words}",
        hint=f"{setting_to_check(last, has_served=has_served)}; no device has failed for it",
        is_endpoint_wrong=is_endpoint_wrong(last) and not has_served,
    )

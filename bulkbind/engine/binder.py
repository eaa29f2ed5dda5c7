"""Take a claimed row through its attempts to an outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

from bulkbind.engine.decide import (
    COSTS,
    Again,
    Halt,
    Park,
    Settle,
    Step,
    Suspect,
    decide,
    is_of_settings,
)
from bulkbind.engine.proof import Connections
from bulkbind.engine.stop import DrainedError, NoRoomError
from bulkbind.engine.user_states import HeldError
from bulkbind.logs import logger
from bulkbind.model import (
    TIMED_OUT,
    Accepted,
    Attempt,
    Claim,
    ClockRefused,
    NoAnswer,
    Outcome,
    Status,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from bulkbind.engine.ports import Parts
    from bulkbind.engine.readback import Readback
    from bulkbind.engine.retry import Retries
    from bulkbind.engine.stop import Breaker
    from bulkbind.engine.user_states import SuspectUser, Users
    from bulkbind.model import Ended
    from bulkbind.settings import SendSettings

T = TypeVar("T")
LINGER_S = 0.5
"""At the end of a run, the answer that another was taken for may come so much later than any."""
OVERDUE_S, OVERDUE = 0.3, 2.0
"""Where nothing else is to be sent, an answer is overdue after twice the time of the slowest one so
far, and at least 0.3 s; never later than a request counts as silent."""
LONGEST_LOOK_S = 5.0
"""What is overdue is looked for at least so often."""
RETRIES_PER_SLOT, PUT_OFF_PER_SLOT = 4, 64
"""Rows per slot of concurrency that may wait for another attempt; for their user's turn."""


class DisprovedError(Exception):
    """A row was not sent again: the answer that asked for it may be that to another request."""


class Binder:
    """Binds the rows of one run; only a row that its first attempt does not settle gets a task."""

    def __init__(
        self,
        parts: Parts,
        readback: Readback,
        retries: Retries,
        tasks: asyncio.TaskGroup,
        send: SendSettings,
        *,
        users: Users,
        breaker: Breaker,
    ) -> None:
        self._breaker = breaker
        self._send = send
        self._api = parts.api
        self._ledger = parts.ledger
        self._gate = parts.gate
        self._stop = parts.stop
        self._clock = parts.clock
        self._readback = readback
        self._users = users
        self._retries = retries
        self._tasks = tasks
        self._is_per_user = send.is_per_user
        per_slot = PUT_OFF_PER_SLOT if send.is_per_user else RETRIES_PER_SLOT
        self._room = asyncio.Semaphore(per_slot * send.concurrency)
        self._turn_room = asyncio.Semaphore(PUT_OFF_PER_SLOT * send.concurrency)
        self._out: dict[int, tuple[asyncio.Task[Any] | None, float]] = {}
        """Rows whose requests are out: who waits for the answer, and since when (monotonic). Only
        those that have had all their answers so far: a second time, the time-out is waited for."""
        self._looked_up: set[int] = set()
        """Those whose answers nobody waits for any more."""
        self._has_served = parts.has_served
        self._unreachable: int | None = 0
        self._connections = Connections()
        self._disproved: dict[int, float] = {}
        """Rows with an answer that may be another's, not yet acted upon; when each was sent."""
        self._slowest_s = 0.0
        """Of the answers so far."""
        self.quiet_at = 0.0
        """When, monotonic, the connections have been quiet for long enough to be believed."""
        self._log = logger()

    async def bind(self, claim: Claim) -> None:
        """Make the first attempt; settle the row, or give it a task of its own.

        Raises: DrainedError when the run stops, after releasing the row.
        """
        user_id = claim.device.user_id
        is_suspect = self._users.is_suspect(user_id)
        if is_suspect and (unsent := self._users.refusal(claim)) is not None:
            self._ledger.settle(claim, unsent)
            return
        # A row whose turn is far off must not hold up the rows of other users.
        is_far = is_suspect or (self._is_per_user and self._gate.is_far(user_id))
        await self._go_on(claim, Again(backoff=False) if is_far else await self._send_once(claim))

    def landed(self, claim: Claim, attempt: Attempt) -> Coroutine[Any, Any, None] | None:
        """Judge a first attempt that another part has made; return what is left to do, if anything.

        That is awaited by whoever keeps the lane, as there is not room for all rows at once.
        """
        step = self._judge(claim, attempt)
        self._breaker.land(claim.row, has_failed=_has_failed(step))
        if isinstance(step, Settle):
            self._settle(claim, step.outcome)
            return None
        return self._go_on(claim, step)

    def passed(
        self, claims: Sequence[Claim], attempts: Sequence[Attempt], *, is_ours: bool
    ) -> list[Coroutine[Any, Any, None]]:
        """Settle rows whose attempts were accepted, the first ones as who sent them has judged.

        *is_ours*: whether such a row is bound, or was before.

        Returns: What is left to do for those of which more is known here, as `landed` does.
        """
        status = Status.BOUND if is_ours else Status.ALREADY_BOUND
        left: list[Coroutine[Any, Any, None]] = []
        ended: list[Ended] = []
        connections = self._connections
        is_known = bool(self._disproved) or self._users.has_suspects()
        is_clear = attempts[-1].is_named and connections.are_clear()
        self._unreachable = None
        for claim, attempt in zip(claims, attempts, strict=True):
            verdict = attempt.verdict
            is_first = not (claim.attempts or claim.doubts or is_known)
            is_proven = is_clear or connections.proves(attempt)
            if is_first and is_proven and isinstance(verdict, Accepted):
                if not is_clear:
                    connections.heard(claim.row, attempt)
                claim.attempts, claim.clock_refusals = 1, 0
                claim.sent_at, claim.last = attempt.sent_at, attempt
                outcome = Outcome(status, verdict.device_id, verdict.create_time)
                ended.append((claim, outcome))
            elif (rest := self.landed(claim, attempt)) is not None:
                left.append(rest)
        self._slowest_s = max(self._slowest_s, *[attempt.took_s for attempt in attempts])
        if not attempts[-1].is_named:
            self._linger()
        self._breaker.passed([claim.row for claim, _ in ended])
        self._ledger.settle_all(ended)
        return left

    async def _go_on(self, claim: Claim, step: Step) -> None:
        """Take the step that follows from a first attempt, or give the row a task of its own."""
        if isinstance(step, Again):
            user_id = claim.device.user_id
            room = self._turn_room if self._users.is_suspect(user_id) else self._room
            await room.acquire()
            self._tasks.create_task(self._persist(claim, step, room), name=f"retry {claim.row}")
        else:
            await self.act(claim, step)

    async def resend(self, claim: Claim) -> None:
        """Send a row again that a list has cleared of doubt."""
        await self._ledger.release([claim])
        await self._room.acquire()
        self._tasks.create_task(
            self._persist(claim, Again(backoff=False), self._room, is_released=True),
            name=f"resend {claim.row}",
        )

    async def to_end(self, claim: Claim) -> Step:
        """Make attempts until none must follow; return the next step without taking it.

        Raises: DrainedError as `bind`.
        """
        step = await self._send_once(claim)
        return await self._again(claim, step) if isinstance(step, Again) else step

    async def act(self, claim: Claim, step: Step) -> None:
        """Take the step that follows from the last attempt."""
        match step:
            case Suspect(step=held_back):
                await self.act(claim, held_back)
            case Settle(outcome=outcome):
                self._settle(claim, outcome)
            case Park():
                # In the ledger first, so that a crash from here on keeps the answer.
                await self._doubt(claim, is_new=step.if_absent is None)
                self._readback.park(claim, step)
                if (sent_at := self._disproved.pop(claim.row, None)) is not None:
                    self._readback.disprove(claim.row, sent_at)
            case Halt(reason=reason):
                await self._ledger.release([claim])
                self._stop.set(reason)
            case Again():
                raise AssertionError(step)
            case _ as never:
                assert_never(never)

    def look_up_overdue(self) -> float:
        """Wait no longer for answers that are overdue: their rows are in doubt.

        A list that lacks them counts no sooner than it would have after the time-out. Returns the
        seconds until the next answer may be overdue.
        """
        if self._stop.is_set or self._api.server_time() is None:
            return LONGEST_LOOK_S
        overdue_s = max(OVERDUE_S, OVERDUE * self._slowest_s)
        overdue_s = min(overdue_s, self._gate.time.silent_after_s())
        now, next_s = self._clock.monotonic(), overdue_s
        for row, (task, left_at) in self._out.items():
            if task is None or row in self._looked_up:
                continue
            if left_at + overdue_s <= now:
                self._looked_up.add(row)
                task.cancel()
            else:
                next_s = min(next_s, left_at + overdue_s - now)
        return min(next_s, LONGEST_LOOK_S)

    async def awaited(
        self, claim: Claim, came: Awaitable[Attempt | None], left_at: float
    ) -> Attempt | None:
        """Return what comes of a first attempt that another part has made, or that it is overdue.

        *left_at*: when its request left, monotonic. Raises: what *came* raises.
        """
        self._leave(claim, left_at)
        return await self._come(claim, came)

    async def _come(self, claim: Claim, came: Awaitable[T]) -> T | Attempt:
        """Return what comes of an attempt, or that its answer is overdue."""
        try:
            return await came
        except asyncio.CancelledError as error:
            if (overdue := self._overdue(claim)) is None:
                raise
            overdue.trace_id = str(error.args[0]) if error.args else ""
            return overdue
        finally:
            self._out.pop(claim.row, None)

    def _overdue(self, claim: Claim) -> Attempt | None:
        """Return the attempt whose wait was cancelled to look it up; None: by somebody else."""
        task = asyncio.current_task()
        if claim.row not in self._looked_up or task is None or task.uncancel():
            return None
        self._looked_up.discard(claim.row)
        age_s = self._clock.monotonic() - self._out[claim.row][1]
        rest_s = max(0.0, self._api.patience_s() - age_s)
        sent_at = (self._api.server_time() or 0.0) - age_s
        said = f"no answer for {age_s:.3g} s, and nothing else to be sent"
        return Attempt(NoAnswer(under_way_s=rest_s), TIMED_OUT, said, sent_at=sent_at, took_s=age_s)

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        self._ledger.settle(claim, outcome)
        if claim.row in self._disproved:
            self._doubt_rows([claim.row])
        elif claim.last is not None and not claim.last.is_named and claim.last.connection:
            self._linger()

    def _linger(self) -> None:
        """Let the connections say more for as long as an answer may take."""
        self.quiet_at = self._clock.monotonic() + self._slowest_s + LINGER_S

    def on_unasked(self, connection: int) -> None:
        """Doubt what a connection has said of rows and users: it said more, or broke."""
        self._users.doubt(connection)
        if rows := self._connections.doubt(connection):
            for row, sent_at in rows.items():
                if not self._readback.disprove(row, sent_at):
                    self._disproved[row] = min(sent_at, self._disproved.get(row, sent_at))
            self._doubt_rows(rows)

    def _doubt_rows(self, rows: Iterable[int]) -> None:
        work = self._doubt_again(rows)
        try:
            self._tasks.create_task(work, name="doubt again")
        except RuntimeError:  # the run has failed, or is over
            work.close()

    async def _doubt_again(self, rows: Iterable[int]) -> None:
        claims = await self._ledger.doubt_again(sorted(rows))
        if claims:
            why = "unexpected data on a connection, or it broke"
            self._log.warning("doubt.again", rows=len(claims), why=why)
        for claim in claims:
            self._note_disproved(claim)
            self._readback.park(claim, Park())

    def _note_disproved(self, claim: Claim) -> bool:
        """Return whether an earlier answer for a row may be another's, so that it may be bound."""
        sent_at = self._disproved.pop(claim.row, None)
        if sent_at is None:
            return False
        claim.sent_at = min(sent_at, claim.sent_at or sent_at)
        return True

    async def _doubt(self, claim: Claim, *, is_new: bool) -> None:
        claim.doubts += is_new
        await self._ledger.doubt(claim)
        self._log.debug(
            "doubt.parked",
            user_id=claim.device.user_id,
            machine_code=claim.device.machine_code,
            why=claim.last.message if claim.last else "",
            trace_id=claim.last.trace_id if claim.last else "",
        )

    async def _send_once(self, claim: Claim) -> Step:
        try:
            return await self._attempt(claim)
        except HeldError:
            return Again(backoff=False)
        except DrainedError:
            await self._ledger.release([claim])
            raise

    async def _attempt(
        self,
        claim: Claim,
        prepare: Callable[[], Awaitable[None]] | None = None,
        turn: SuspectUser | None = None,
    ) -> Step:
        """Make one attempt.

        *prepare*: awaited after each permit, and at the end. *turn*: held by the row, if any.

        Raises: DrainedError as `bind`, HeldError if its user's turn must come first,
            DisprovedError if what it is sent again for turns out to be said of another.
        """
        user_id = claim.device.user_id
        has_left = False

        def before() -> Awaitable[None] | None:
            nonlocal has_left
            self._breaker.leave(claim.row)
            if not has_left:
                self._users.leave(user_id, turn)
                has_left = True
            return self._begun(claim, prepare)

        while True:
            if not self._breaker.has_room():
                await self._breaker.room()
            try:
                attempt = await self._come(claim, self._api.bind(claim.device, before))
                if prepare is not None:
                    await prepare()  # if nothing was sent, it is still staged
                break
            except NoRoomError:
                continue
            except BaseException:
                self._breaker.let_go(claim.row)
                raise
            finally:
                if has_left:
                    self._users.land(user_id)
                    has_left = False
        step = self._judge(claim, attempt)
        self._breaker.land(claim.row, has_failed=_has_failed(step))
        return step

    def _begun(
        self, claim: Claim, prepare: Callable[[], Awaitable[None]] | None
    ) -> Awaitable[None] | None:
        if prepare or self._disproved:
            return self._prepared(claim, prepare)
        self._leave(claim, self._clock.monotonic())
        return None

    async def _prepared(self, claim: Claim, prepare: Callable[[], Awaitable[None]] | None) -> None:
        if prepare is not None:
            await prepare()
        if self._note_disproved(claim):
            raise DisprovedError
        self._leave(claim, self._clock.monotonic())

    def _leave(self, claim: Claim, left_at: float) -> None:
        if not claim.doubts:
            self._out[claim.row] = (asyncio.current_task(), left_at)

    async def _in_turn(self, claim: Claim, prepare: Callable[[], Awaitable[None]]) -> Step:
        """Make one attempt; if the user is suspect, in the user's turn, and only if need be."""
        while True:
            try:
                return await self._attempt(claim, prepare)
            except HeldError:
                async with self._users.turn(claim.device.user_id) as turn:
                    if turn.is_cleared:
                        continue
                    if (unsent := self._users.refusal(claim)) is not None:
                        return Settle(unsent)
                    return await self._attempt(claim, prepare, turn)

    def _judge(self, claim: Claim, attempt: Attempt) -> Step:
        if not self._connections.proves(attempt):
            attempt.verdict = NoAnswer(was_read=True)
        elif not isinstance(attempt.verdict, NoAnswer):
            self._connections.heard(claim.row, attempt)
        if self._disproved:
            claim.doubts += self._note_disproved(claim)
        if claim.attempts == claim.doubts == 0:
            claim.sent_at = attempt.sent_at
        claim.attempts += isinstance(attempt.verdict, COSTS)
        is_refused_clock = isinstance(attempt.verdict, ClockRefused)
        claim.clock_refusals = claim.clock_refusals + 1 if is_refused_clock else 0
        if not isinstance(attempt.verdict, Unreachable):
            self._unreachable = None
        elif self._unreachable is not None:
            self._unreachable += is_of_settings(attempt, has_served=self._has_served)
        claim.last = attempt
        if attempt.took_s > self._slowest_s and attempt.http_status is not None:
            self._slowest_s = attempt.took_s
        self._users.note(claim, attempt)
        if not isinstance(attempt.verdict, Accepted):
            self._ledger.record(claim.row, attempt)
        return decide(
            claim,
            attempt,
            max_attempts=self._send.max_attempts,
            unreachable=self._unreachable,
            max_wait_s=self._send.max_wait,
            refused_for_s=self._gate.refused_for_s,
        )

    async def _again(self, claim: Claim, step: Again, *, is_released: bool = False) -> Step:
        released = is_released

        async def release() -> None:
            nonlocal released
            if not released:
                await self._ledger.release([claim])
            released = True

        async def reclaim() -> None:
            nonlocal released
            if released:
                await self._ledger.reclaim(claim, self._api.server_time())
            released = False

        async def once() -> Step:
            # The row is staged while it waits at the gate: a crash then leaves no doubt.
            try:
                return await self._in_turn(claim, reclaim)
            except DisprovedError:
                claim.last = None  # perhaps another's answer: it must not decide after a crash
                return Park()

        return await self._retries.until_done(step, lambda: claim.attempts, once, release)

    async def _persist(
        self, claim: Claim, step: Again, room: asyncio.Semaphore, *, is_released: bool = False
    ) -> None:
        """Own a row until it has ended, then release the room that the caller acquired."""
        try:
            await self.act(claim, await self._again(claim, step, is_released=is_released))
        except DrainedError:
            pass  # the row is staged
        finally:
            room.release()


def _has_failed(step: Step) -> bool | None:
    """Return whether a row has failed, unless its list shows it; None: that is open."""
    match step:
        case Settle(outcome=outcome) | Park(if_absent=Outcome() as outcome):
            return outcome.status is Status.FAILED
        case Suspect(step=held_back):
            return _has_failed(held_back)
        case _:
            return None

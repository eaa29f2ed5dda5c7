"""Read doubt back: look for unanswered rows in their user's list, then send them again."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkbind.engine.decide import (
    UNREACHABLE_AT_START,
    Again,
    Park,
    credentials_lost,
    inherited,
    is_of_settings,
    too_long,
)
from bulkbind.engine.proof import READS, absent, found, look
from bulkbind.engine.retry import Retries, jitter
from bulkbind.engine.stop import DrainedError
from bulkbind.logs import logger
from bulkbind.model import (
    TIMED_OUT,
    AuthExpired,
    Claim,
    ClockRefused,
    Listing,
    NoAnswer,
    Outcome,
    Refused,
    Status,
    Throttled,
    TimeUse,
    Transient,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from bulkbind.engine.ports import Api, Parts
    from bulkbind.engine.proof import Look
    from bulkbind.engine.stop import StopSignal
    from bulkbind.model import Attempt, Record
    from bulkbind.settings import ReadbackSettings, SendSettings


class Lists:
    """Reads lists and counts the calls."""

    def __init__(
        self,
        api: Api,
        stop: StopSignal,
        retries: Retries,
        send: SendSettings,
        *,
        has_served: bool = False,
    ) -> None:
        """*has_served*: as in `Parts`."""
        self._has_served = has_served
        self._api = api
        self._stop = stop
        self._retries = retries
        self._send = send
        self.calls = 0
        """List calls made."""
        self.are_lost = False
        """Whether no list can be had any more: no credentials, nobody there, too long a wait."""

    async def read(self, user_id: str, patience: int | None = None) -> Listing:
        """Return a user's list, or the last attempt if it cannot be read.

        *patience*: failed connections after which to give up, of those that may be due to the
        settings; None: wait until the endpoint is back. Too long a wait stops the run, and so do
        lost credentials. Once the run stops, one request that fails is enough.

        Raises: DrainedError when the run stops.
        """
        attempts = 0
        unreachable = 0

        async def once() -> Listing | Again:
            nonlocal attempts, unreachable
            self.calls += 1
            listing = await self._api.list_devices(user_id)
            attempt = listing.attempt
            reason = too_long(attempt, self._send.max_wait, self._retries.refused_for_s())
            if reason := reason or credentials_lost(attempt):
                self.are_lost = True
                self._stop.set(reason)
                return listing
            match attempt.verdict:
                case Throttled() | ClockRefused() | AuthExpired(is_renewable=True):
                    return Again(backoff=False)
                case Unreachable() | Transient() | NoAnswer() if self._stop.is_set:
                    self.are_lost = self.are_lost or isinstance(attempt.verdict, Unreachable)
                    return listing
                case Unreachable():
                    unreachable += is_of_settings(attempt, has_served=self._has_served)
                    return listing if unreachable == patience else Again(backoff=False)
                case Transient() | NoAnswer():
                    attempts += 1
                    again = Again(backoff=True, why=attempt.said)
                    return listing if attempts >= self._send.max_attempts else again
                case _:
                    return listing

        first = await once()
        if isinstance(first, Listing):
            return first
        return await self._retries.until_done(first, lambda: attempts, once)


SHORTEST_ROUND_S = 0.05
LOOK_S = 1.0
"""Where nothing else is to be sent, a list is read at once: it may show a row long before a list
counts that lacks it; and again after this time, and twice as long, while its request may be under
way."""
MOST_UNDER_WAY_S = 150.0
"""More than lease and longest time-out of a lost worker's request."""


@dataclass(slots=True)
class _Parked:
    claim: Claim
    park: Park
    due_at: float
    """Monotonic moment from which a list that lacks it counts."""
    parked_at: float
    misses: int = 0
    untrusted: int = 0
    look_at: float = -math.inf
    """From when on a look for it is worth a request that nothing else waits for. What is parked for
    an answer has none: its connection has the time to say that the answer was another's."""
    look_s: float = LOOK_S
    """From that look to the next."""


@dataclass(slots=True)
class _ParkedUser:
    parked: list[_Parked] = field(default_factory=list)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the next list may be due sooner than it was."""
    is_served: bool = False
    """Whether a task reads this user's lists."""
    is_last_round: bool = False
    """Whether they have been read since the run began to stop."""
    last_read_at: float = -math.inf


class Readback:
    """Parks rows per user; one list call settles all rows of a user."""

    def __init__(
        self,
        parts: Parts,
        retries: Retries,
        tasks: asyncio.TaskGroup,
        run: int,
        resend: Callable[[Claim], Awaitable[None]],
        *,
        send: SendSettings,
        doubt: ReadbackSettings,
        let_go: Callable[[int], None] = lambda _row: None,
    ) -> None:
        """*resend*: sends a row again that the lists have cleared of doubt.

        *let_go*: called with a row that stays in doubt, or is sent again.
        """
        self._api = parts.api
        self._ledger = parts.ledger
        self._clock = parts.clock
        self._stop = parts.stop
        self._time = parts.gate.time
        self._tasks = tasks
        self._run = run
        self._settle_s = doubt.readback_settle
        self._is_enabled = doubt.readback
        self._max_attempts = send.max_attempts
        self._grace_s = send.grace
        self._gate = parts.gate
        self._lists = Lists(parts.api, parts.stop, retries, send, has_served=parts.has_served)
        self._users: dict[str, _ParkedUser] = {}
        self._items: dict[int, _Parked] = {}
        """All that is parked, by row."""
        self._last_lists = asyncio.Semaphore(send.concurrency)
        """For lists that are read after the stop, which may find that none can be."""
        self._is_started = False
        self._is_hurried = False
        self._resend = resend
        self._let_go = let_go
        self.again = 0
        """Rows sent again that had timed out."""
        self._log = logger()

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._lists.calls

    async def look(
        self, user_id: str, asked: Collection[str], patience: int | None = None
    ) -> Look | Attempt:
        """Look for devices in a user's list; return the attempt if it cannot be read.

        *patience*, and what is raised: see `Lists.read`.
        """
        known = await self._ledger.known(user_id)
        asked_at = self._clock.monotonic()
        listing = await self._lists.read(user_id, patience)
        if listing.records is None:
            return listing.attempt
        stranger = await self._ledger.stranger(user_id, listing.records, known)
        return look(listing, known, asked, stranger, at=asked_at)

    def park(self, claim: Claim, park: Park) -> None:
        """Take charge of a row that only the list can settle."""
        now = self._clock.monotonic()
        item = _Parked(claim, park, now + park.under_way_s + self._settle_s, now)
        if not park.is_unanswered:
            item.look_at = math.inf
        self._park(item)

    def _park(self, item: _Parked) -> None:
        if not self._is_enabled:
            if item.park.if_disabled is not None:
                self._settle(item, item.park.if_disabled)
            else:
                self._let_go(item.claim.row)
            return
        self._items[item.claim.row] = item
        name = item.claim.device.user_id
        user = self._users.setdefault(name, _ParkedUser())
        user.parked.append(item)
        if self._is_hurried:
            user.woken.set()
        if self._is_started:
            self._serve(name, user)

    def disprove(self, row: int, sent_at: float) -> bool:
        """Note that an answer for a row may be another's; return whether it is parked here.

        *sent_at*: when the request was sent.
        """
        item = self._items.get(row)
        if item is None:
            return False
        if item.park != Park():
            item.park = Park()
            item.claim.doubts += 1
        item.claim.sent_at = min(sent_at, item.claim.sent_at or sent_at)
        return True

    async def load(self) -> int:
        """Park what earlier runs or a crash left in doubt. Returns the number of rows."""
        claims = await self._ledger.doubts()
        self.take_up(claims)
        return len(claims)

    def take_up(self, claims: Iterable[Claim]) -> None:
        """Park rows that an earlier process or run left in doubt."""
        now = self._clock.monotonic()
        for claim in claims:
            self._park(_Parked(claim, inherited(claim), self._due_at(claim), now, claim.misses))

    def _due_at(self, claim: Claim) -> float:
        """Return the monotonic moment from which a list that lacks a row in doubt counts.

        An earlier process may have waited already, by the local clock. If that clock is now further
        behind the recorded moment than a lost worker's request may be under way, it was set back,
        and the wait starts again.
        """
        now = self._clock.monotonic()
        since_s = claim.missed_at if claim.missed_at is not None else claim.silent_at
        if since_s is None:
            return now + self._settle_s
        waited_s = self._clock.utc_now().timestamp() - since_s
        if waited_s < -MOST_UNDER_WAY_S:
            waited_s = 0.0
        return now + self._settle_s - waited_s

    async def first_contact(self) -> None:
        """Read one user's list before all others, if anything is parked."""
        for name, user in self._users.items():
            await self._read(name, user, patience=UNREACHABLE_AT_START)
            return

    def start(self) -> None:
        """Start reading the lists of all users."""
        self._is_started = True
        for name, user in self._users.items():
            self._serve(name, user)

    def hurry(self) -> None:
        """Look for rows at once, and again now and then: nothing else is to be sent."""
        self._is_hurried = True
        for user in self._users.values():
            user.woken.set()

    def _serve(self, name: str, user: _ParkedUser) -> None:
        if not user.is_served:
            user.is_served = True
            self._tasks.create_task(self._settle_user(name, user), name="readback")

    async def _settle_user(self, name: str, user: _ParkedUser) -> None:
        """Read a user's lists until nothing is parked; once the run stops, within its grace.

        What is not settled then is in doubt in the ledger, and the next run settles it.
        """
        try:
            while user.parked:
                if await self._is_due(user):
                    self._plan_looks(user)
                    await self._read(name, user)
        except DrainedError:
            pass  # no list is to be had any more
        finally:
            user.is_served = False

    def _next_at(self, user: _ParkedUser) -> float:
        """Return when a user's next list is due."""
        due_at = min(item.due_at for item in user.parked)
        if self._is_hurried:
            look_at = min(item.look_at for item in user.parked)
            return max(min(due_at, look_at), user.last_read_at + SHORTEST_ROUND_S)
        return max(due_at, user.last_read_at + max(self._settle_s, SHORTEST_ROUND_S))

    def _plan_looks(self, user: _ParkedUser) -> None:
        """Plan the next looks for rows that the list may lack that is to be read now."""
        if not self._is_hurried:
            return
        now = self._clock.monotonic()
        for item in user.parked:
            is_under_way = now < item.due_at - self._settle_s
            item.look_at = now + item.look_s if is_under_way else math.inf
            item.look_s *= 2

    def _ends_at(self, user: _ParkedUser, next_at: float) -> float:
        """Return when a user's rows have ended: by the next list, or if lists lack them."""
        if not self._is_hurried or any(item.look_at == -math.inf for item in user.parked):
            return next_at
        more_s = self._settle_s
        return max(item.due_at + (READS - 1 - item.misses) * more_s for item in user.parked)

    async def _is_due(self, user: _ParkedUser) -> bool:
        """Wait for a user's next list; return False where it may be due sooner than it was.

        The first one after a stop is read at once: it may show all.
        """
        now, next_at = self._clock.monotonic(), self._next_at(user)
        seconds, for_s = jitter(next_at - now), self._ends_at(user, next_at) - now
        with self._time.waiting(TimeUse.SETTLING, for_s, len(user.parked)):
            if not self._stop.is_set:
                with suppress(DrainedError), self._stop.cutting_short():
                    return await self._slept(seconds, user)
            if user.is_last_round:
                await self._clock.sleep(seconds)
            user.is_last_round = True
            return True

    async def _slept(self, seconds: float, user: _ParkedUser) -> bool:
        """Sleep; return False as soon as the user's next list may be due sooner."""
        user.woken.clear()
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        woken = asyncio.ensure_future(user.woken.wait())
        try:
            await asyncio.wait((timer, woken), return_when=asyncio.FIRST_COMPLETED)
            return timer.done()
        finally:
            timer.cancel()
            woken.cancel()

    async def _list(self, name: str, patience: int | None) -> Listing:
        """Read a list; if the run stops before it is requested, read it all the same.

        Raises: DrainedError if it cannot be read then, or if none can.
        """
        if not self._stop.is_set:
            with suppress(DrainedError):
                return await self._lists.read(name, patience)
        async with self._last_lists:
            if self._lists.are_lost or self._gate.closed_for_s() > self._grace_s:
                raise DrainedError
            with self._stop.outlasting():
                listing = await self._lists.read(name, patience)
        if listing.records is None:
            raise DrainedError
        return listing

    async def _read(self, name: str, user: _ParkedUser, patience: int | None = None) -> None:
        """Read the list once and settle what it proves. *patience*: see `Lists.read`."""
        known = await self._ledger.known(name)
        user.last_read_at = asked_at = self._clock.monotonic()
        listing = await self._list(name, patience)
        if listing.records is None:
            items, user.parked = user.parked, []
            # It may be the answer to another request, unless it speaks of the set-up.
            verdict = listing.attempt.verdict
            is_sure = not isinstance(verdict, Refused) or verdict.set_up
            items = [item for item in items if self._is_over(item, user, is_sure=is_sure)]
            why = f"the user's list cannot be read: {listing.attempt.message}"
            await self._give_up(items, why)
            return
        stranger = await self._ledger.stranger(name, listing.records, known)
        items, user.parked = user.parked, []
        asked = {item.claim.device.machine_code for item in items}
        seen = look(listing, known, asked, stranger, at=asked_at)
        given_up: dict[str, list[_Parked]] = {}
        missed: list[int] = []
        for item in items:
            code = item.claim.device.machine_code
            record = seen.record(code)
            if record is not None:
                self._shown(item, record, seen.answer)
            elif asked_at < item.due_at:
                user.parked.append(item)
            elif seen.proves_absent(code, asked):
                self._missed(item, asked_at)
                if item.misses < READS:
                    user.parked.append(item)
                    missed.append(item.claim.row)
                else:
                    await self._cleared(item)
            elif self._is_over(item, user):
                given_up.setdefault(seen.why_not_absent(code, asked), []).append(item)
        if missed:
            await self._ledger.missed(missed)
        self._log.debug(
            "doubt.read",
            user_id=name,
            devices=len(listing.records),
            parked=len(items),
            found=sum(seen.record(code) is not None for code in asked),
            to_read_again=len(user.parked),
        )
        for why, rows in given_up.items():
            await self._give_up(rows, f"the user's list cannot be trusted: {why}")

    def _shown(self, item: _Parked, record: Record, answer: Attempt) -> None:
        """Settle a row that a list shows."""
        if not item.misses:
            self._time.looked_up(0.0)
        was_said = item.park.if_unreadable is not None
        self._settle(item, found(item.claim, record, answer, was_said=was_said))

    def _missed(self, item: _Parked, asked_at: float) -> None:
        """Count a list that lacks a row."""
        if not item.misses:
            self._time.looked_up(asked_at - item.parked_at + self._settle_s)
        item.misses += 1
        item.due_at = asked_at + self._settle_s

    def _is_over(self, item: _Parked, user: _ParkedUser, *, is_sure: bool = False) -> bool:
        """Return whether lists that prove nothing are enough; else park the row again."""
        item.untrusted += 1
        is_over = is_sure or item.untrusted >= READS
        if not is_over:
            user.parked.append(item)
        return is_over

    async def _cleared(self, item: _Parked) -> None:
        """End or resend a row that two lists did not show."""
        claim = item.claim
        self._items.pop(claim.row, None)
        outcome = absent(
            claim,
            item.park.if_absent,
            is_own=self._ledger.is_of(self._run, claim.row),
            max_attempts=self._max_attempts,
        )
        if outcome is not None:
            self._settle(item, outcome)
            return
        self.again += claim.last is not None and claim.last.code == TIMED_OUT
        self._log.debug("doubt.cleared", machine_code=claim.device.machine_code)
        self._let_go(claim.row)
        await self._resend(claim)

    def _settle(self, item: _Parked, outcome: Outcome) -> None:
        claim = item.claim
        self._items.pop(claim.row, None)
        # It was sent at least once, even if a crash kept us from counting.
        if outcome.status is Status.BOUND:
            claim.attempts = max(claim.attempts, 1)
        self._ledger.settle(claim, outcome)
        self._log.debug(
            "doubt.settled",
            user_id=claim.device.user_id,
            machine_code=claim.device.machine_code,
            outcome=outcome.status.value,
        )

    async def _give_up(self, items: list[_Parked], why: str) -> None:
        for item in items:
            if item.park.if_unreadable is not None:
                self._settle(item, item.park.if_unreadable)
        doubtful = [item.claim for item in items if item.park.if_unreadable is None]
        for claim in doubtful:
            self._let_go(claim.row)
        if doubtful:
            await self._ledger.note_doubt([claim.row for claim in doubtful], why)
            self._log.warning("doubt.kept", rows=len(doubtful), why=why)

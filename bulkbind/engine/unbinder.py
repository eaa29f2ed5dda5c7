"""Unbind exactly the staged bindings, whatever happens in between.

The user's list is read first. What it shows under the same device id is unbound. What it lacks is
looked up again a settling time later, since a list may come from a lagging replica. Where that
proves nothing, an unbind is sent anyway: it names the device id, so it does no harm. What got no
answer is sent again. What proves how a binding ended is decided in `engine.proof`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import chain, count, islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeVar

from bulkbind.engine import proof
from bulkbind.engine.decide import (
    UNREACHABLE_AT_START,
    Again,
    credentials_lost,
    endpoint_away,
    is_endpoint_wrong,
    quota_used_up,
    too_long,
)
from bulkbind.engine.readback import Lists
from bulkbind.engine.retry import jitter
from bulkbind.engine.stop import DrainedError, StopReason
from bulkbind.engine.unbind_requests import UnbindRequests
from bulkbind.logs import logger
from bulkbind.model import (
    Attempt,
    AuthExpired,
    Listing,
    QuotaUsedUp,
    Record,
    Refused,
    Throttled,
    TimeUse,
    Transient,
    Unbinding,
    UnbindKind,
    UnbindStatus,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from bulkbind.engine.ports import Parts
    from bulkbind.engine.proof import Look
    from bulkbind.engine.retry import Retries
    from bulkbind.settings import ReadbackSettings, SendSettings

LOCKED_S = 660.0
"""How long a device under a backup lock is tried again. Source: koodrive-api.md, 10 minutes."""
CHUNK = 96
"""Bindings claimed at once; with all groups about a second of the pace at most, so that few are in
question after a crash."""
GROUPS_AT_ONCE = 12
USERS_AT_ONCE = 16
"""Groups of users, and users by themselves, that are served at the same time."""
_REPLACED = "still bound; another run took its run's place before it was unbound"
T = TypeVar("T")
_NOTHING: Mapping[str, str] = MappingProxyType({})


class UnbindingLedger(Protocol):
    """Source and sink of unbindings. Coroutines return once their change is durable."""

    async def users(self, run: int, kind: UnbindKind, last: int) -> dict[str, int]:
        """Return how much there is to unbind in rows up to *last*, by user."""

    async def open_of(
        self, run: int, kind: UnbindKind, user_ids: Sequence[str], last: int
    ) -> list[Unbinding]:
        """Return what to unbind from users in rows up to *last*."""

    async def known_of(self, user_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the device ids of users' known bindings, by user and machine code."""

    async def stranger(
        self, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> str | None:
        """Return a device on a user's list that is known as another user's, if there is one."""

    async def claim(self, items: Sequence[Unbinding]) -> None:
        """Record that requests may leave from now on."""

    async def release(self, items: Sequence[Unbinding]) -> None:
        """Record that no request was sent that may have been carried out."""

    def settle(
        self, items: Sequence[Unbinding], then: Callable[[Sequence[Unbinding]], None]
    ) -> None:
        """Submit how unbindings ended; *then* is called with them once that is durable."""

    async def flushed(self) -> None:
        """Return once every submitted end is durable."""

    async def left_in_doubt(self, run: int) -> dict[str, list[Unbinding]]:
        """Return what other runs may have unbound, which were cut off and replaced, by user."""


class Unbinder:
    """Unbinds what a run has staged."""

    def __init__(
        self,
        parts: Parts,
        unbindings: UnbindingLedger,
        retries: Retries,
        send: SendSettings,
        doubt: ReadbackSettings,
        *,
        on_settled: Callable[[Sequence[Unbinding]], None],
    ) -> None:
        """*on_settled*: called with unbindings once durable."""
        self._unbindings = unbindings
        self._stop = parts.stop
        self._gate = parts.gate
        self._wait = parts.wait
        self._retries = retries
        self._clock = parts.clock
        self._settle_s = doubt.readback_settle
        self._max_attempts = send.max_attempts
        self._max_wait_s = send.max_wait
        self._grace_s = send.grace
        self._on_settled = on_settled
        self._has_served = parts.has_served
        self._lists = Lists(parts.api, parts.stop, retries, send, has_served=parts.has_served)
        self._requests = UnbindRequests(parts, retries, send, halt=self._halt, settle=self._settle)
        self._is_proven = False
        self._locked: list[Unbinding] = []
        """What is under a backup lock, to be tried again."""
        self._locked_since: dict[str, float] = {}
        """Since when, by device id."""
        self._log = logger()

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._lists.calls

    async def run(self, run: int, kind: UnbindKind, last: int) -> None:
        """Unbind all that rows up to *last* require, or until the run stops; durable on return."""
        lacking: list[tuple[str, Look]] = []

        async def first_look(user_ids: Sequence[str]) -> None:
            users = _by_user(await self._unbindings.open_of(run, kind, user_ids, last))
            known = await self._unbindings.known_of(list(users))
            looks = await _all(
                self._look(user_id, items, known[user_id]) for user_id, items in users.items()
            )
            shown: list[Unbinding] = []
            for (user_id, items), look in zip(users.items(), looks, strict=True):
                if isinstance(look, str):
                    self._settle([item.end(UnbindStatus.FAILED, look) for item in items])
                elif all(look.shows(item.machine_code, item.device_id) for item in items):
                    shown += items
                else:
                    lacking.append((user_id, look))
            await self._unbind(shown)

        async def second_look(user: tuple[str, Look]) -> None:
            user_id, first = user
            items = await self._unbindings.open_of(run, kind, [user_id], last)
            await self._unbind(await self._still_bound(user_id, items, first))

        with suppress(DrainedError):
            users = await self._unbindings.users(run, kind, last)
            groups = _grouped(users, self._chunk, is_first_alone=not self._is_proven)
            await self._for_each(first_look, groups, GROUPS_AT_ONCE)
            # Last, so that no user waits for one whose list must be read again.
            await self.for_each_user(second_look, lacking)
            await self._wait_for_locks()
        await self._unbindings.flushed()

    async def find_out(self, run: int) -> None:
        """Look up what runs other than *run* may have unbound that were cut off; send nothing."""
        with suppress(DrainedError):
            left = await self._unbindings.left_in_doubt(run)
            await self.for_each_user(self._find_out, left.items())
        await self._unbindings.flushed()

    async def _find_out(self, user: tuple[str, list[Unbinding]]) -> None:
        user_id, items = user
        left, looks = await self._settle_by_lists(user_id, items)
        if isinstance(looks, str):
            return  # it stays in doubt
        there = [item for item in left if looks[-1].shows(item.machine_code, item.device_id)]
        self._settle([item.end(UnbindStatus.FAILED, _REPLACED) for item in there])

    async def _wait_for_locks(self) -> None:
        """Try what is under a backup lock again, until it is unbound or has been for too long."""
        for rounds in count(1):
            if not self._locked:
                return
            wait_s = self._retries.wait_s(Again(backoff=True, retry_after_s=1.0), rounds)
            await self._wait(TimeUse.LOCKED, wait_s, len(self._locked))
            locked, self._locked = self._locked, []
            await self.for_each_user(self._unbind, _by_user(locked).values())

    def _is_put_off(self, item: Unbinding) -> bool:
        """Return whether a device is under a backup lock, and not for too long."""
        verdict = item.last.verdict if item.last else None
        if not isinstance(verdict, Refused) or not verdict.is_locked:
            return False
        now = self._clock.monotonic()
        return now - self._locked_since.setdefault(item.device_id, now) < LOCKED_S

    async def for_each_user(
        self, serve: Callable[[T], Awaitable[None]], users: Iterable[T]
    ) -> None:
        """Serve all users, some concurrently; the first alone, until the set-up is proven.

        Raises: DrainedError when the run stops.
        """
        await self._for_each(serve, users, USERS_AT_ONCE)

    async def _for_each(
        self, serve: Callable[[T], Awaitable[None]], served: Iterable[T], at_once: int
    ) -> None:
        left = iter(served)
        # The first one alone proves endpoint, TLS and credentials.
        if not self._is_proven and (first := next(left, None)) is not None:
            await serve(first)

        async def worker() -> None:
            for each in left:
                try:
                    await serve(each)
                except DrainedError:
                    return
                if self._stop.is_set:
                    return

        async with asyncio.TaskGroup() as tasks:
            for number in range(at_once):
                tasks.create_task(worker(), name=f"unbind {number}")
        if self._stop.is_set:
            raise DrainedError

    async def _still_bound(
        self, user_id: str, items: list[Unbinding], first: Look
    ) -> list[Unbinding]:
        """Settle what a second list also proves gone; return what to send."""
        await self.settled_since(first)
        second = await self._look(user_id, items)
        for item in items:
            if first.shows(item.machine_code, item.device_id):
                continue
            if isinstance(second, str):
                item.end(UnbindStatus.FAILED, second)
            elif end := proof.unsent(item, (first, second)):
                item.end(*end)
        return self._settle_ended(items)

    async def _unbind(self, items: list[Unbinding]) -> None:
        """Unbind; where no answer says how an unbinding ended, the lists decide."""
        while items:
            left: list[Unbinding] = []
            waiting = iter(items)
            while chunk := list(islice(waiting, self._chunk())):
                for item in await self._unbind_chunk(chunk):
                    (self._locked if self._is_put_off(item) else left).append(item)
            again = await _all(self._look_up(*user) for user in _by_user(left).items())
            items = list(chain.from_iterable(again))

    def _chunk(self) -> int:
        """Return how many bindings are claimed at once."""
        per_s = self._gate.per_s()
        return CHUNK if per_s is None else max(1, min(CHUNK, int(per_s / GROUPS_AT_ONCE)))

    async def settled_since(self, look: Look) -> None:
        """Wait until the settling time has passed since another list."""
        due_at = look.at + self._settle_s
        await self._wait(TimeUse.SETTLING, jitter(max(0.0, due_at - self._clock.monotonic())))

    async def _look(
        self,
        user_id: str,
        items: Sequence[Unbinding],
        known: Mapping[str, str] | None = None,
    ) -> Look | str:
        """Read a user's list; return what it shows, or why it cannot be read."""
        wanted = {item.machine_code: item.device_id for item in items}
        look, _ = await self.look_for(user_id, wanted.keys(), wanted, known)
        return look

    async def look_for(
        self,
        user_id: str,
        codes: Collection[str],
        wanted: Mapping[str, str] = _NOTHING,
        known: Mapping[str, str] | None = None,
    ) -> tuple[Look | str, Mapping[str, str]]:
        """Read a user's list; return what it shows of *codes*, or why not, and what is known.

        *wanted*: device ids that should be there as well, by machine code; *known*: None: is read.

        Raises: DrainedError when the run stops.
        """
        if known is None:
            known = (await self._unbindings.known_of([user_id]))[user_id]
        asked_at = self._clock.monotonic()
        listing = await self._read(user_id)
        if self._stop.cuts or (self._stop.is_set and listing.records is None):
            raise DrainedError
        if listing.records is None:
            return f"the user's list cannot be read: {listing.attempt.message}", known
        stranger = None
        if not listing.records.keys() <= known.keys():
            stranger = await self._unbindings.stranger(user_id, listing.records, known)
        return proof.look(listing, {**known, **wanted}, codes, stranger, at=asked_at), known

    async def _read(self, user_id: str) -> Listing:
        """Read a list. Trouble with the set-up or the credentials stops the run."""
        patience = None if self._is_proven else UNREACHABLE_AT_START
        listing = await self._lists.read(user_id, patience)
        self._halt(listing.attempt)
        if listing.records is not None:
            self._is_proven = True
        return listing

    def _halt(self, attempt: Attempt) -> None:
        """Stop the run if an attempt shows that others would fail too."""
        match attempt.verdict:
            case AuthExpired():
                if reason := credentials_lost(attempt):
                    self._stop.set(reason)
            case QuotaUsedUp():
                self._stop.set(quota_used_up(attempt, attempt.verdict))
            case Unreachable() if not self._is_proven:
                self._stop.set(endpoint_away(attempt))
            case Refused(set_up=True) if not self._is_proven:
                self._stop.set(_set_up_is_wrong(attempt, has_served=self._has_served))
            case Throttled() | Transient():
                if reason := too_long(attempt, self._max_wait_s, self._retries.refused_for_s()):
                    self._stop.set(reason)
            case _:
                pass

    async def _unbind_chunk(self, items: Sequence[Unbinding]) -> list[Unbinding]:
        """Send for a chunk of bindings; return those that only the list can settle."""
        await self._unbindings.claim(items)
        faults = await self._requests.send_all(items)
        left = _staged(items)
        drained = any(isinstance(fault, DrainedError) for fault in faults) or self._stop.is_set
        if drained or not faults:
            if undone := [item for item in left if not item.was_sent]:
                await self._unbindings.release(undone)
            if drained:
                await self._settle_sent([item for item in left if item.was_sent])
                raise DrainedError
        for fault in faults:
            raise fault
        return left

    async def _settle_sent(self, items: list[Unbinding]) -> None:
        """Settle what was sent though the run drains; what stays open is in doubt."""
        if self._lists.are_lost or self._gate.closed_for_s() > self._grace_s:
            return
        with self._stop.outlasting():
            await _all(self._settle_last(*user) for user in _by_user(items).items())

    async def _settle_last(self, user_id: str, items: list[Unbinding]) -> None:
        """Settle by lists; where these show something no more and prove nothing, ask once more."""
        items, looks = await self._settle_by_lists(user_id, items)
        if isinstance(looks, str):
            return
        asked = [
            item
            for item in items
            if item.attempts < self._max_attempts
            and not looks[-1].shows(item.machine_code, item.device_id)
        ]
        await _all(map(self._requests.send, asked))
        await self._settle_by_lists(user_id, _staged(asked))

    async def _look_up(self, user_id: str, items: list[Unbinding]) -> list[Unbinding]:
        """Settle by lists what no answer settled; return what to send again."""
        with self._stop.outlasting():
            items, looks = await self._settle_by_lists(user_id, items)
        if isinstance(looks, str):
            self._settle([item.end(UnbindStatus.FAILED, looks) for item in items])
            return []
        for item in items:
            if not self._may_resend(item, looks[-1]):
                item.end(*proof.unproven(item, looks))
        return self._settle_ended(items)

    async def _settle_by_lists(
        self, user_id: str, items: list[Unbinding]
    ) -> tuple[list[Unbinding], list[Look] | str]:
        """Settle what a user's lists prove; return the rest, and the lists or why there is none."""
        codes = {item.machine_code for item in items}
        looks: list[Look] = []
        while items and len(looks) < proof.READS:
            if looks:
                await self.settled_since(looks[-1])
            await self._unbindings.flushed()  # else what is gone would be known, and be missed
            look = await self._look(user_id, items)
            if isinstance(look, str):
                return items, look
            looks.append(look)
            for item in items:
                if end := proof.by_lists(item, looks, codes):
                    item.end(*end)
            items = self._settle_ended(items)
        return items, looks

    def _may_resend(self, item: Unbinding, last: Look) -> bool:
        """Return whether another answer may say what these lists do not.

        The last one named another device; or it was the first, and the device is listed no more.
        """
        is_listed = last.shows(item.machine_code, item.device_id)
        may_tell = proof.names_another(item) or (item.attempts == 1 and not is_listed)
        return may_tell and item.attempts < self._max_attempts

    def _settle_ended(self, items: list[Unbinding]) -> list[Unbinding]:
        """Settle the items that have ended; return the others."""
        self._settle([item for item in items if item.status is not UnbindStatus.STAGED])
        return _staged(items)

    def _settle(self, items: list[Unbinding]) -> None:
        if items:
            self._unbindings.settle(items, self._settled)

    def _settled(self, items: Sequence[Unbinding]) -> None:
        log = self._log.bind()
        for item in items:
            log.debug(
                "device.unbound",
                user_id=item.user_id,
                machine_code=item.machine_code,
                outcome=item.status.value,
                attempts=item.attempts,
            )
        self._on_settled(items)


def _staged(items: Iterable[Unbinding]) -> list[Unbinding]:
    return [item for item in items if item.status is UnbindStatus.STAGED]


def _by_user(items: Iterable[Unbinding]) -> dict[str, list[Unbinding]]:
    users: dict[str, list[Unbinding]] = {}
    for item in items:
        users.setdefault(item.user_id, []).append(item)
    return users


def _grouped(
    users: Mapping[str, int], most: Callable[[], int], *, is_first_alone: bool
) -> Iterator[list[str]]:
    """Yield users in groups that have up to *most* bindings together, or one user each.

    *users*: how many each has.
    """
    group: list[str] = []
    size = 0
    for user_id, many in users.items():
        if group and (is_first_alone or size + many > most()):
            yield group
            group, size, is_first_alone = [], 0, False
        group.append(user_id)
        size += many
    if group:
        yield group


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """Return what all of them return. Raises: the first one's error, once all have ended."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    found: list[T] = []
    for end in ended:
        if isinstance(end, BaseException):
            raise end
        found.append(end)
    return found


def _set_up_is_wrong(attempt: Attempt, *, has_served: bool) -> StopReason:
    others = "" if has_served else "endpoint, "
    return StopReason(
        f"the first list was refused, so it is the set-up: HTTP {attempt.http_status} "
        f"{attempt.code} {attempt.message}",
        hint=f"check {others}path, credentials and rights; nothing was unbound",
        is_endpoint_wrong=is_endpoint_wrong(attempt) and not has_served,
    )

"""The unbinder: takes bindings back, those and no others, whatever comes between.

The user's list is read first: only a binding whose device id is still the same is unbound. An
unbind may be sent again without harm, since it names that id; so what got no answer is sent again,
and where the server then knows the binding no more, the list says what that means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, assert_never

from bulkbind.engine.decide import UNREACHABLE_AT_START, Again
from bulkbind.engine.lists import ListApi, Lists
from bulkbind.engine.reasons import credentials_lost, endpoint_away, quota_used_up, too_long
from bulkbind.engine.stop import DrainedError, StopReason
from bulkbind.logs import logger
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Record,
    Refused,
    Throttled,
    Transient,
    Unbinding,
    UnbindKind,
    UnbindStatus,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.engine.retry import Retries
    from bulkbind.engine.stop import StopSignal

CHUNK = 64
"""Bindings of a user that are in hand at once: few are in question after a crash."""
USERS_AT_ONCE = 16


class UnbindApi(ListApi, Protocol):
    """The part of the destination that bindings are taken back from."""

    async def unbind(self, user_id: str, device_id: str) -> Attempt:
        """Send one unbind. Raises: DrainedError if it was not sent because the run stops."""
        ...


class Unbindings(Protocol):
    """Where unbindings come from and go. What is awaited is durable once it returns."""

    async def users(self, run: int, kind: UnbindKind, last: int) -> list[str]:
        """Return the users who have something to be taken back by rows up to *last*."""
        ...

    async def open_of(self, run: int, kind: UnbindKind, user_id: str, last: int) -> list[Unbinding]:
        """Return what is to be taken back from a user by rows up to *last*."""
        ...

    async def claim(self, items: Sequence[Unbinding]) -> None:
        """Say that requests may leave from now on."""
        ...

    async def release(self, items: Sequence[Unbinding]) -> None:
        """Say that no request has left."""
        ...

    async def settle(self, items: Sequence[Unbinding]) -> None:
        """Write down how unbindings ended."""
        ...


class Unbinder:
    """Takes back what a run has staged for it."""

    def __init__(
        self,
        api: UnbindApi,
        unbindings: Unbindings,
        stop: StopSignal,
        retries: Retries,
        *,
        max_attempts: int,
        max_wait_s: float,
        on_settled: Callable[[Sequence[Unbinding]], None],
    ) -> None:
        """*on_settled* hears of unbindings once they are durable."""
        self._api = api
        self._unbindings = unbindings
        self._stop = stop
        self._retries = retries
        self._max_attempts = max_attempts
        self._max_wait_s = max_wait_s
        self._on_settled = on_settled
        self._lists = Lists(api, stop, retries, max_attempts=max_attempts, max_wait_s=max_wait_s)
        self._is_proven = False
        self._log = logger()

    @property
    def lists(self) -> int:
        """List calls made."""
        return self._lists.calls

    async def run(self, run: int, kind: UnbindKind, last: int) -> None:
        """Take back all that rows up to *last* want taken back, or until the run stops."""
        users = iter(await self._unbindings.users(run, kind, last))

        async def worker() -> None:
            for user_id in users:
                if self._stop.is_set:
                    return
                try:
                    await self._serve(user_id, run, kind, last)
                except DrainedError:
                    return

        # The first user alone proves endpoint, TLS and credentials.
        if not self._is_proven and (first := next(users, None)) is not None:
            try:
                await self._serve(first, run, kind, last)
            except DrainedError:
                return
        async with asyncio.TaskGroup() as tasks:
            for number in range(USERS_AT_ONCE):
                tasks.create_task(worker(), name=f"unbind {number}")

    async def _serve(self, user_id: str, run: int, kind: UnbindKind, last: int) -> None:
        items = await self._unbindings.open_of(run, kind, user_id, last)
        listing = await self._read(user_id)
        if self._stop.is_set:
            raise DrainedError
        if listing.records is None:
            why = f"the user's list cannot be read: {listing.attempt.message}"
            await self._settle([_ended(item, UnbindStatus.FAILED, why) for item in items])
            return
        there = [item for item in items if not _settled_by(item, listing.records)]
        await self._settle([item for item in items if item.status is not UnbindStatus.STAGED])
        for start in range(0, len(there), CHUNK):
            await self._unbind(user_id, there[start : start + CHUNK])

    async def _read(self, user_id: str) -> Listing:
        """Read a list. What speaks of the set-up, or of the credentials, stops the run."""
        patience = None if self._is_proven else UNREACHABLE_AT_START
        listing = await self._lists.read(user_id, patience)
        self._halt(listing.attempt)
        if listing.records is not None:
            self._is_proven = True
        return listing

    def _halt(self, attempt: Attempt) -> None:
        """Stop the run where an attempt says that no other would fare better."""
        match attempt.verdict:
            case AuthExpired():
                if reason := credentials_lost(attempt):
                    self._stop.set(reason)
            case QuotaUsedUp():
                self._stop.set(quota_used_up(attempt, attempt.verdict))
            case Unreachable() if not self._is_proven:
                self._stop.set(endpoint_away(attempt))
            case Refused(set_up=True) if not self._is_proven:
                self._stop.set(_set_up_is_wrong(attempt))
            case Throttled() | Transient():
                if reason := too_long(attempt, self._max_wait_s, self._retries.refused_for_s()):
                    self._stop.set(reason)
            case _:
                pass

    async def _unbind(self, user_id: str, items: list[Unbinding]) -> None:
        """Take a chunk of a user's bindings back, and settle each."""
        await self._unbindings.claim(items)
        ended = await asyncio.gather(*(self._send(item) for item in items), return_exceptions=True)
        faults = [end for end in ended if isinstance(end, BaseException)]
        done = [item for item, end in zip(items, ended, strict=True) if end is True]
        await self._settle(done)
        if any(isinstance(fault, DrainedError) for fault in faults) or self._stop.is_set:
            left = [item for item in items if item.status is UnbindStatus.STAGED]
            await self._unbindings.release([i for i in left if not i.was_sent])
            raise DrainedError
        for fault in faults:
            raise fault
        await self._look_up(user_id, [i for i in items if i.status is UnbindStatus.STAGED])

    async def _look_up(self, user_id: str, items: list[Unbinding]) -> None:
        """Let the list tell how those ended that the server did not take back."""
        if not items:
            return
        listing = await self._read(user_id)
        if self._stop.is_set:
            raise DrainedError
        for item in items:
            if listing.records is None or not _settled_by(item, listing.records):
                _ended(item, UnbindStatus.FAILED, "the server did not unbind it")
        await self._settle(items)

    async def _send(self, item: Unbinding) -> bool:
        """Send until the binding is gone (True) or only the list can tell (False)."""

        async def once() -> bool | Again:
            attempt = await self._api.unbind(item.user_id, item.device_id)
            item.last = attempt
            self._halt(attempt)
            return self._judge(item, attempt)

        async def nothing() -> None:
            return

        first = await once()
        if isinstance(first, bool):
            return first
        return await self._retries.until_done(
            first, item.user_id, lambda: item.attempts, nothing, once
        )

    def _judge(self, item: Unbinding, attempt: Attempt) -> bool | Again:
        match attempt.verdict:
            case Accepted():
                item.attempts += 1
                _ended(item, UnbindStatus.UNBOUND, "")
                return True
            case Refused() | AlreadyBound() | AuthExpired(is_users_own=True):
                item.attempts += 1
                return False
            case Transient() | NoAnswer():
                # It may have been carried out, and has no harm in being asked for again.
                item.attempts += 1
                item.was_sent = True
                return item.attempts < self._max_attempts and Again(backoff=True)
            case Throttled() | ClockRefused() | Unreachable() | AuthExpired() | QuotaUsedUp():
                return Again(backoff=False)
            case _ as never:
                assert_never(never)

    async def _settle(self, items: list[Unbinding]) -> None:
        if not items:
            return
        await self._unbindings.settle(items)
        for item in items:
            self._log.debug(
                "device.unbound",
                user_id=item.user_id,
                machine_code=item.machine_code,
                outcome=item.status.value,
                attempts=item.attempts,
            )
        self._on_settled(items)


def _set_up_is_wrong(attempt: Attempt) -> StopReason:
    return StopReason(
        f"the first list was refused, so it is the set-up: HTTP {attempt.http_status} "
        f"{attempt.code} {attempt.message}",
        hint="check endpoint, path, credentials and rights; nothing was unbound",
    )


def _settled_by(item: Unbinding, records: dict[str, Record]) -> bool:
    """Settle what a list shows to be no longer there; return whether it did."""
    record = records.get(item.machine_code)
    if record is None:
        if item.was_sent:
            _ended(item, UnbindStatus.UNBOUND, "no answer came; the list shows it no more")
        else:
            _ended(item, UnbindStatus.ALREADY_GONE, "not on the server's list")
        return True
    if record.device_id != item.device_id:
        why = f"the list shows device id {record.device_id}, bound {record.create_time or '?'}"
        _ended(item, UnbindStatus.CHANGED, why)
        return True
    return False


def _ended(item: Unbinding, status: UnbindStatus, detail: str) -> Unbinding:
    item.status, item.detail = status, detail
    return item

"""Users' lists: read again and again where that may help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bulkbind.engine.decide import Again
from bulkbind.engine.reasons import credentials_lost, too_long
from bulkbind.model import (
    AuthExpired,
    ClockRefused,
    Listing,
    NoAnswer,
    Throttled,
    Transient,
    Unreachable,
)

if TYPE_CHECKING:
    from bulkbind.engine.retry import Retries
    from bulkbind.engine.stop import StopSignal


class ListApi(Protocol):
    """The part of the destination that lists come from."""

    async def list_devices(self, user_id: str) -> Listing:
        """Read a user's list. Raises: DrainedError if it was not asked for as the run stops."""
        ...


class Lists:
    """Reads lists; counts the calls."""

    def __init__(
        self,
        api: ListApi,
        stop: StopSignal,
        retries: Retries,
        *,
        max_attempts: int,
        max_wait_s: float,
    ) -> None:
        self._api = api
        self._stop = stop
        self._retries = retries
        self._max_attempts = max_attempts
        self._max_wait_s = max_wait_s
        self.calls = 0
        """List calls made."""

    async def read(self, user_id: str, patience: int | None = None) -> Listing:
        """Return a user's list, or the last attempt where it cannot be read.

        *patience*: how many failed connections to bear; None: until the endpoint is back. A wait
        that is too long stops the run, and so do credentials that are lost.

        Raises: DrainedError when the run stops.
        """
        attempts = 0
        unreachable = 0

        async def once() -> Listing | Again:
            nonlocal attempts, unreachable
            self.calls += 1
            listing = await self._api.list_devices(user_id)
            attempt = listing.attempt
            reason = too_long(attempt, self._max_wait_s, self._retries.refused_for_s())
            if reason := reason or credentials_lost(attempt):
                self._stop.set(reason)
                return listing
            match attempt.verdict:
                case Throttled() | ClockRefused() | AuthExpired(is_renewable=True):
                    return Again(backoff=False)
                case Unreachable():
                    unreachable += 1
                    return listing if unreachable == patience else Again(backoff=False)
                case Transient() | NoAnswer():
                    attempts += 1
                    return listing if attempts >= self._max_attempts else Again(backoff=True)
                case _:
                    return listing

        async def nothing() -> None:
            return

        first = await once()
        if isinstance(first, Listing):
            return first
        return await self._retries.until_done(first, user_id, lambda: attempts, nothing, once)

"""What the engine needs of the other stages; `app` hands in the real ones, tests their fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal
    from bulkbind.model import Attempt, Claim, Device, Listing, Settlement


class Api(Protocol):
    """The destination."""

    async def bind(self, device: Device) -> Attempt:
        """Send one bind. Raises: DrainedError if it was not sent because the run stops."""
        ...

    async def list_devices(self, user_id: str) -> Listing:
        """Read a user's list. Raises: DrainedError as above."""
        ...

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970, or None while it is not known."""
        ...


class Ledger(Protocol):
    """Where rows come from and outcomes go. What is awaited is durable once it returns."""

    async def claim(
        self, run: int, after: int, most: int, sent_at: float | None, *, but: Sequence[int]
    ) -> list[Claim]:
        """Take up to *most* staged rows behind row *after*, none of *but*."""
        ...

    async def reclaim(self, claim: Claim, sent_at: float | None) -> None:
        """Take a released row again."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Put rows back to staged."""
        ...

    async def doubt(self, claim: Claim) -> None:
        """Say that a row got no answer that settles it."""
        ...

    async def doubts(self) -> list[Claim]:
        """Return every row in doubt, whoever left it."""
        ...

    async def missed(self, rows: Sequence[int]) -> None:
        """Say that a list that could be trusted did not show rows in doubt."""
        ...

    async def note_doubt(self, rows: Sequence[int], why: str) -> None:
        """Write down why rows stay in doubt."""
        ...

    async def known(self, user_id: str) -> set[str]:
        """Return the machine codes known as bound to a user."""
        ...

    def settle(self, settlement: Settlement) -> None:
        """Hand in an outcome; it becomes durable soon."""
        ...

    def record(self, row: int, attempt: Attempt) -> None:
        """Hand in an attempt that was not simply accepted."""
        ...

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""
        ...


class Gate(Protocol):
    """The part of the pacer that the engine asks."""

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send."""
        ...

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything; 0 while it does not."""
        ...

    def per_s(self) -> float | None:
        """Return the requests per second allowed now, None without a limit."""
        ...

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits to be sent."""
        ...

    async def room(self) -> None:
        """Return once less than a second of the pace waits to be sent. Raises: DrainedError."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with, handed in by `app`."""

    api: Api
    ledger: Ledger
    gate: Gate
    stop: StopSignal
    clock: Clock

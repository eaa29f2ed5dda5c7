"""What the engine needs of the other stages; `app` hands in the real ones, tests their fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call, SessionCall
    from bulkbind.model import (
        Attempt,
        AuthExpired,
        Claim,
        Device,
        Listing,
        Outcome,
        ServerLimit,
        Verdict,
    )


class Client(Protocol):
    """The destination, a request at a time; each call returns what came, whatever it is."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    def now(self) -> float:
        """Return the server's time as far as it is known, seconds since 1970."""
        ...

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970, or None while it is not known."""
        ...

    async def bind(self, device: Device, credential: Credential) -> Attempt:
        """Send one bind."""
        ...

    async def list_devices(self, user_id: str, credential: Credential) -> Listing:
        """Read a user's list."""
        ...

    async def unbind(
        self, user_id: str, device_id: str, machine_code: str, credential: Credential
    ) -> Attempt:
        """Take one binding back; an answer that names another device is none."""
        ...

    async def call(self, call: SessionCall) -> Attempt:
        """Make a call that renews a session."""
        ...


class Authorizer(Protocol):
    """Gives what authorises requests, and learns whether the server took it."""

    def current(self, user_id: str) -> Credential | None:
        """Return what a request for a user is sent with now; None: `renew` comes first."""
        ...

    async def renew(self, user_id: str, call: Call) -> Attempt | None:
        """Renew, once for all who ask meanwhile; return why there is nothing to send with.

        *call* sends a session call.
        """
        ...

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Note that the server took it."""
        ...

    def witness(self, credential: Credential, user_id: str) -> str | None:
        """Return a user whose request can tell whether a refusal is about *user_id* alone.

        None: that is not in question.
        """
        ...

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Note that the server refused it; return what that means.

        *is_users_own*: whether the witness was served with it afterwards.
        """
        ...

    async def close(self) -> None:
        """Let what is under way end."""
        ...


class Api(Protocol):
    """The destination at the gateway's pace: what `Paced` makes of a client."""

    async def bind(
        self, device: Device, before: Callable[[], Awaitable[None]] | None = None
    ) -> Attempt:
        """Send one bind; *before* is awaited when it may leave.

        Raises: DrainedError if it was not sent because the run stops.
        """
        ...

    async def list_devices(self, user_id: str) -> Listing:
        """Read a user's list. Raises: DrainedError as above."""
        ...

    async def unbind(self, user_id: str, device_id: str, machine_code: str) -> Attempt:
        """Take one binding back. Raises: DrainedError as above."""
        ...

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970, or None while it is not known."""
        ...


class RowLedger(Protocol):
    """Where rows come from and outcomes go. What is awaited is durable once it returns."""

    async def claim(
        self, run: int, after: int, most: int, sent_at: float | None, *, excluding: Sequence[int]
    ) -> list[Claim]:
        """Claim up to *most* staged rows after row *after*, except *excluding*."""
        ...

    async def claim_in_turns(
        self, run: int, most: int, sent_at: float | None, *, excluding: Sequence[int]
    ) -> list[Claim]:
        """Take up to *most* staged rows: one of each user, then another one of each, and so on."""
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

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Hand in how a row ended; it becomes durable soon."""
        ...

    def record(self, row: int, attempt: Attempt) -> None:
        """Hand in an attempt that was not simply accepted."""
        ...

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""
        ...


class Gate(Protocol):
    """Says when a request may leave, and learns from what came of it."""

    async def permit(self, user_id: str | None = None) -> int:
        """Return, once a request may be sent, a number to hand back to `report`.

        *user_id*: the user that it acts for; None: it acts for none.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        ...

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        """Take the verdict on a permitted request, and the limits that its answer stated."""
        ...

    def forget(self, permit: int) -> None:
        """Take back the permit of a request that was not sent, or that we broke off."""
        ...

    def is_far(self, user_id: str) -> bool:
        """Return whether a row of a user would keep others waiting if it asked for a permit now."""
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
    ledger: RowLedger
    gate: Gate
    stop: StopSignal
    clock: Clock

"""What the engine needs from the other stages; `app` passes the real ones, tests pass fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call, SessionCall
    from bulkbind.model import (
        Attempt,
        AuthExpired,
        Claim,
        Device,
        Ended,
        Listing,
        Outcome,
        Record,
        ServerLimit,
        TimeSpent,
        TimeUse,
        Unbinding,
        Verdict,
    )


Came: TypeAlias = "Attempt | Callable[[], Awaitable[Attempt | None]] | None"
"""What came of a request, or what is to be called and awaited for that; None: nothing was sent."""
Landed: TypeAlias = "Callable[[Came], None]"


class Landing(Protocol):
    """Is told what became of binds that were sent together, by their places among them."""

    def passed(self, places: Sequence[int], attempts: Sequence[Attempt], *, is_ours: bool) -> None:
        """Take answers that accept; *is_ours*: whether what had not been sent before is bound."""

    def landed(self, place: int, came: Came) -> None:
        """Take what came of any other."""


class Pool(Protocol):
    """Others who send, many binds at a time."""

    def takes(self, width: int) -> int:
        """Return how many binds may be handed over where *width* may be under way in all.

        0: some must have come back before.
        """

    def ahead_s(self) -> float:
        """Return how long before it is due each may be handed over, spread over that time."""

    def post_all(self, devices: Sequence[Device], credential: Credential, landing: Landing) -> None:
        """Have binds sent, no more than it takes."""


class Client(Protocol):
    """The destination: at most one request a call; every result is returned, none is raised.

    Cancelled, a call whose trace id is known tells it as the argument of its CancelledError.
    """

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    def now(self) -> float:
        """Return the best estimate of the server's time, seconds since 1970."""

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970, or None while it is not known."""

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now."""

    async def bind(self, device: Device, credential: Credential) -> Attempt | None:
        """Send one bind; return None if nothing was sent, and another permit is needed."""

    def post(self, device: Device, credential: Credential, landed: Landed) -> None:
        """Send one bind, and have *landed* told what `bind` would return."""

    def hand_over(self) -> None:
        """Tell each *landed* that has been told nothing what is to be called and awaited."""

    def pool(self) -> Pool | None:
        """Return who takes many binds at a time now; None: nobody does."""

    async def list_devices(self, user_id: str, credential: Credential) -> Listing:
        """Read a user's list."""

    async def unbind(self, item: Unbinding, credential: Credential) -> Attempt:
        """Send one unbind; an answer that names another device counts as no answer."""

    def post_unbind(self, item: Unbinding, credential: Credential, landed: Landed) -> None:
        """Send one unbind, and have *landed* told what `unbind` would return."""

    async def call(self, call: SessionCall) -> Attempt:
        """Send one call that renews a session."""

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""


class Authorizer(Protocol):
    """Provides credentials, and learns whether the server accepted them."""

    def current(self, user_id: str) -> Credential | None:
        """Return the credential for a user's requests; None: call `renew` first."""

    async def renew(self, user_id: str, call: Call) -> Attempt | None:
        """Renew, once for all concurrent callers; return why there is still no credential, or None.

        *call* sends a session call.
        """

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Note that the server accepted it."""

    def witness(self, credential: Credential, user_id: str) -> str | None:
        """Return a user whose request shows whether a refusal is about *user_id* alone.

        None: that is not in question.
        """

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Note that the server refused it; return what that means.

        *is_users_own*: whether it then worked for the witness.
        """

    async def close(self) -> None:
        """Wait for renewals that are under way."""


class Api(Protocol):
    """The destination at the gateway's pace, as `Paced` provides it."""

    async def bind(
        self, device: Device, before: Callable[[], Awaitable[None] | None] | None = None
    ) -> Attempt:
        """Send one bind; *before* is called once there is a permit, what it returns is awaited.

        Raises: DrainedError if it was not sent because the run stops.
        """

    async def post(self, device: Device, before: Callable[[], None], landed: Landed) -> bool:
        """Send one bind without waiting for its answer; see `Paced.post`."""

    def hand_over(self) -> None:
        """Tell each *landed* that has been told nothing what is to be called and awaited.

        Where that is cancelled, nobody waits for the answer any more, and it is not heard.
        """

    def takes(self, width: int) -> int | None:
        """Return how many binds others take now, see `Pool`; None: nobody does."""

    def ahead_s(self) -> float:
        """Return for how long nobody needs others to take more, once they took what they may."""

    def post_all(self, devices: Sequence[Device], landing: Landing) -> int:
        """Have the first of some binds sent by others; return how many may leave."""

    async def list_devices(self, user_id: str) -> Listing:
        """Read a user's list. Raises: DrainedError as above."""

    async def unbind(self, item: Unbinding) -> Attempt:
        """Send one unbind. Raises: DrainedError as above."""

    async def post_unbind(self, item: Unbinding, landed: Landed) -> bool:
        """Send one unbind without waiting for its answer; see `Paced.post_unbind`."""

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970, or None while it is not known."""

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now."""


class RowLedger(Protocol):
    """Source of rows, sink of outcomes. Coroutines return once their change is durable."""

    async def claim(
        self, run: int, after: int, most: int, sent_at: float | None, *, excluding: Sequence[int]
    ) -> list[Claim]:
        """Claim up to *most* staged rows after row *after*, except *excluding*."""

    async def claim_in_turns(
        self, run: int, most: int, sent_at: float | None, *, excluding: Sequence[int]
    ) -> list[Claim]:
        """Claim up to *most* staged rows: one of each user, then the next of each, and so on."""

    async def reclaim(self, claim: Claim, sent_at: float | None) -> None:
        """Claim a released row again."""

    async def release(self, claims: Sequence[Claim]) -> None:
        """Put rows back to staged."""

    async def doubt(self, claim: Claim) -> None:
        """Put a row in doubt: no answer settles it."""

    async def doubt_again(self, rows: Sequence[int]) -> list[Claim]:
        """Put settled rows back in doubt; return those that had ended by an answer."""

    async def doubts(self) -> list[Claim]:
        """Return every row in doubt, whoever left it."""

    async def missed(self, rows: Sequence[int]) -> None:
        """Record that a trustworthy list did not show rows in doubt."""

    async def note_doubt(self, rows: Sequence[int], why: str) -> None:
        """Record why rows stay in doubt."""

    async def known(self, user_id: str) -> dict[str, str]:
        """Return the device ids of a user's known bindings, by machine code."""

    async def stranger(
        self, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> str | None:
        """Return a device on a user's list that is known as another user's, if there is one."""

    async def has_bound(self, run: int, user_id: str) -> bool:
        """Return whether any of a user's rows in a run was accepted, those just settled too."""

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        """Queue the outcome of a row; it becomes durable soon."""

    def settle_all(self, ended: Iterable[Ended]) -> None:
        """Queue the outcomes of rows, as `settle`."""

    def record(self, row: int, attempt: Attempt) -> None:
        """Queue an attempt that was not accepted."""

    def is_of(self, run: int, row: int) -> bool:
        """Return whether a row belongs to a run."""


class Gate(Protocol):
    """Decides when a request may leave, and learns from its verdict.

    Attributes:
        time: What the time of sending goes to.
    """

    time: TimeSpent

    async def permit(self, user_id: str | None = None) -> int:
        """Wait until a request may be sent; return a number for `report` or `forget`.

        *user_id*: the user it acts for; None: no user.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """

    def try_permit(self, user_id: str | None = None) -> int | None:
        """Return a permit if one may be had at once; None: it may not."""

    def try_permits(self, most: int, ahead_s: float = 0.0) -> list[int]:
        """Return up to *most* permits that may be had at once, for requests of all users.

        *ahead_s*: and those that will be due so soon, for requests that are spread over that time.
        """

    def passed(self, permits: Sequence[int]) -> None:
        """Learn that permitted requests were accepted."""

    def report(self, permit: int, verdict: Verdict, limits: tuple[ServerLimit, ...] = ()) -> None:
        """Learn from the verdict on a permitted request and the limits stated in its answer."""

    def forget(self, permit: int) -> None:
        """Return the permit of a request that was not sent, or that we cancelled."""

    def cutting_short(self) -> AbstractContextManager[None]:
        """Cancel what the block awaits once the run stops. Raises: DrainedError."""

    def is_far(self, user_id: str) -> bool:
        """Return whether a row of a user would hold up others if it asked for a permit now."""

    def refused_for_s(self) -> float:
        """Return for how many seconds the gateway has refused everything; 0 if it does not."""

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send who has something to send."""

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None without a limit."""

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits to be sent."""

    async def room(self) -> None:
        """Wait until less than a second of the pace waits to be sent. Raises: DrainedError."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine works with."""

    api: Api
    ledger: RowLedger
    gate: Gate
    stop: StopSignal
    clock: Clock
    has_served: bool = False
    """Whether this endpoint is known to have bound devices: where it is away, it comes back."""

    async def wait(self, cause: TimeUse, seconds: float, rows: int = 0) -> None:
        """Wait, and say why. *rows*: those that wait. Raises: DrainedError when the run stops."""
        with self.gate.time.waiting(cause, seconds, rows):
            await self.stop.sleep(self.clock, seconds)

"""One credential for all users, renewed once for all who need it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from bulkbind.logs import logger
from bulkbind.model import Attempt, AuthExpired

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Credential, Token
    from bulkbind.koodrive.wire import Answer

T = TypeVar("T")

LANDING_S = 15.0
"""How long the end of a command waits for an answer with a one-time refresh token: a time-out."""


class SingleFlight(Generic[T]):
    """Shares one run of the work among all callers that arrive while it is under way."""

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def join(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Return what the work under way returns, or start it.

        Cancellation ends the wait, not the work: its result cannot be obtained twice.
        """
        if self._task is None:
            self._task = asyncio.create_task(work(), name="renewal")
            self._task.add_done_callback(self._landed)
        return await asyncio.shield(self._task)

    async def landed(self, within_s: float) -> None:
        """Wait for the work under way, and cancel it if it takes longer."""
        if (task := self._task) is not None:
            _, late = await asyncio.wait([task], timeout=within_s)
            if late:
                task.cancel()
                await asyncio.wait([task])

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # if nobody waits any more, asyncio must not log it


FRUITLESS = 3
"""New credentials in succession, none of them accepted, after which no more are made."""
LATER_S = 30.0
"""After an early renewal failed: how long the old credential is used before the next try."""


@dataclass(frozen=True, slots=True)
class SessionCall:
    """A request that renews a session."""

    path: str
    headers: dict[str, str]
    body: bytes
    judge: Callable[[Answer], Attempt]

    def __repr__(self) -> str:
        return f"SessionCall({self.path})"


Call: TypeAlias = Callable[[SessionCall], Awaitable[Attempt]]
"""Sends a session call at the gateway's pace; returns what its *judge* makes of the answer."""


class Made(NamedTuple):
    """A new credential."""

    credential: Token
    valid_s: float = math.inf
    """How long it is valid, as far as is known."""


class CredentialSource(Protocol):
    """Makes credentials."""

    advice: str
    """What a person can do once it makes no more."""
    is_spent: bool
    """Whether it is known to make no more."""
    is_kept: bool
    """Whether what it makes is stored for the next run, and cannot be had twice."""

    async def make(self, call: Call) -> Made | Attempt:
        """Return a credential, or why there is none: for good if `AuthExpired`, else for now."""


class Renewing:
    """The credential of all users, and the source of the next one."""

    def __init__(
        self, source: CredentialSource, clock: Clock, first: Credential | None = None
    ) -> None:
        """*first*: the first credential; None: the source makes it."""
        self._source = source
        self._clock = clock
        self._flight: SingleFlight[Attempt | None] = SingleFlight()
        self._credential = first
        self._is_taken = False
        """Whether the server has accepted the current credential."""
        self._due_at = math.inf
        self._fruitless = 0
        self._witness: str | None = None
        """The user who was served last."""
        self._suspects: set[str] = set()
        """Users who were refused and not served since."""
        self._not_served: set[str] = set()
        """Users who were refused while others were served."""

    def current(self, user_id: str) -> Credential | None:  # noqa: ARG002  # the protocol's
        """Return the current credential; None: call `renew` first."""
        credential = self._credential
        if credential is None or credential.is_dead or self._clock.monotonic() >= self._due_at:
            return None
        return credential

    async def renew(self, user_id: str, call: Call) -> Attempt | None:  # noqa: ARG002  # as above
        """Make a new credential, or join a renewal under way; return why there is none."""
        return await self._flight.join(lambda: self._renew(call))

    async def _renew(self, call: Call) -> Attempt | None:
        old = self._credential
        if self._fruitless >= FRUITLESS:
            return self._lost()
        made = await self._source.make(call)
        if isinstance(made, Attempt):
            if old is not None and not old.is_dead:
                self._due_at = self._clock.monotonic() + LATER_S
                return None
            return made
        self._credential, self._is_taken = made.credential, False
        self._due_at = self._clock.monotonic() + _ahead_s(made.valid_s)
        if old is not None:
            logger().info("session.renewed", why="refused" if old.is_dead else "ahead of its end")
        return None

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Note that the server accepted a credential."""
        if credential is self._credential:
            self._is_taken = True
            self._fruitless = 0
            self._witness = user_id
        if self._suspects:
            self._suspects.discard(user_id)

    def witness(self, credential: Credential, user_id: str) -> str | None:
        """Return whose request shows whether a refusal is about *user_id* alone; None: no need.

        An expired token is likelier, and renewing it costs no more than a witness. So a user is
        suspected only after a refusal under an earlier token, or if the token cannot be renewed.
        """
        if credential.is_dead or user_id in self._not_served:
            return None
        is_suspect = self._source.is_spent or user_id in self._suspects
        return self._witness if is_suspect and self._witness != user_id else None

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Note that the server refused a credential; return what that means.

        *is_users_own*: whether the witness was served with it.
        """
        if is_users_own or (user_id in self._not_served and not credential.is_dead):
            self._not_served.add(user_id)
            return AuthExpired(is_users_own=True, advice=credential.users_advice)
        self._suspects.add(user_id)
        if credential is self._credential and not credential.is_dead:
            credential.is_dead = True
            self._fruitless += not self._is_taken
        may_help = not self._source.is_spent and self._fruitless < FRUITLESS
        return AuthExpired(is_renewable=may_help, advice=self._source.advice)

    async def close(self) -> None:
        """End a renewal under way; where its result is kept for the next run, wait for it."""
        await self._flight.landed(LANDING_S if self._source.is_kept else 0)

    def _lost(self) -> Attempt:
        words = f"{FRUITLESS} credentials in a row were refused, each of them new"
        return Attempt(AuthExpired(advice=self._source.advice), "", words)


def _ahead_s(valid_s: float) -> float:
    """Return when to renew: a fifth of the validity before its end, at most two minutes."""
    return valid_s - min(valid_s / 5, 120.0)

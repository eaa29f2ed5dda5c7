"""Users whose own state refuses every bind: proven, before their other rows fail unsent.

The proof: `ANSWERS` answers with a code that speaks of the user, on connections that said nothing
unasked, nor broke; none of the user's rows accepted in this run; and the user's list, read once
after that, proves all rows so answered absent, or is refused with the same code.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkbind.logs import logger
from bulkbind.model import Accepted, AlreadyBound, Attempt, Outcome, Refused, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from bulkbind.engine.ports import Parts
    from bulkbind.engine.proof import Look
    from bulkbind.model import Claim

ANSWERS = 3
_UNSENT = Outcome(
    Status.FAILED,
    detail=f"not sent: the user's state refuses binds ({ANSWERS} answers and the list say so)",
    is_unsent=True,
)


class HeldError(Exception):
    """A row was not sent, since its user is suspect: it must wait for its turn."""


@dataclass(slots=True)
class SuspectUser:
    """A user of whom an answer spoke, and none was accepted since; rows are sent one at a time."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the row that may be sent."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no row is in flight."""
    answers: dict[str, Attempt] = field(default_factory=dict)
    """By machine code: those that speak of the user."""
    proof: Attempt | None = None
    """The last of the answers, once it is proven."""
    is_denied: bool = False
    """Whether the list showed a row so answered: the answers prove nothing."""
    is_cleared: bool = False
    """Whether a row has been accepted: then all may be sent at once."""


class Users:
    """Counts requests in flight by user, and decides whose rows need not be sent."""

    def __init__(
        self,
        parts: Parts,
        run: int,
        look: Callable[[str, Collection[str]], Awaitable[Look | Attempt]] | None,
    ) -> None:
        """*look*: looks for devices in a user's list; None: there are no lists, and so no proof."""
        self._ledger = parts.ledger
        self._stop = parts.stop
        self._run = run
        self._look = look
        self._in_flight: dict[str, int] = {}
        self._suspects: dict[str, SuspectUser] = {}
        self._served: set[str] = set()
        """Users of whom an answer spoke, though another row was accepted."""

    def has_suspects(self) -> bool:
        """Return whether any user's rows are sent one at a time."""
        return bool(self._suspects)

    def is_suspect(self, user_id: str) -> bool:
        """Return whether a user's rows are sent one at a time."""
        return user_id in self._suspects

    def refusal(self, claim: Claim) -> Outcome | None:
        """Return how a row ends unsent, if that is proven of its user; its claim then tells why."""
        suspect = self._suspects.get(claim.device.user_id)
        if suspect is None or suspect.proof is None or claim.attempts or claim.doubts:
            return None
        claim.last = Attempt(suspect.proof.verdict, suspect.proof.code, suspect.proof.message)
        return _UNSENT

    def leave(self, user_id: str, turn: SuspectUser | None = None) -> None:
        """Note that a request leaves. *turn*: what `turn` gave.

        Raises: HeldError if the user is suspect, and it is not this row's turn.
        """
        if self._suspects and turn is None and user_id in self._suspects:
            raise HeldError
        self._in_flight[user_id] = self._in_flight.get(user_id, 0) + 1

    def land(self, user_id: str) -> None:
        """Note that a request has ended."""
        left = self._in_flight[user_id] - 1
        if left:
            self._in_flight[user_id] = left
            return
        del self._in_flight[user_id]
        if self._suspects and (suspect := self._suspects.get(user_id)):
            suspect.idle.set()

    def note(self, claim: Claim, attempt: Attempt) -> None:
        """Learn from an answer."""
        user_id = claim.device.user_id
        match attempt.verdict:
            case Accepted() | AlreadyBound():
                if self._suspects:
                    self._clear(user_id)
            case Refused(is_about_user=True) if user_id not in self._served:
                suspect = self._suspects.setdefault(user_id, SuspectUser())
                if user_id not in self._in_flight:
                    suspect.idle.set()
                suspect.answers[claim.device.machine_code] = attempt
            case _:
                pass

    def doubt(self, connection: int) -> None:
        """Forget what a connection said that has said something unasked, or broke."""
        for suspect in self._suspects.values():
            for code, attempt in list(suspect.answers.items()):
                if attempt.connection == connection:
                    del suspect.answers[code]
                    suspect.proof = None

    @asynccontextmanager
    async def turn(self, user_id: str) -> AsyncIterator[SuspectUser]:
        """Hold a suspect user's turn for the block, in which one row may be sent.

        Raises: DrainedError when the run stops.
        """
        suspect = self._suspects.get(user_id) or SuspectUser(is_cleared=True)
        with self._stop.cutting_short():
            await suspect.turn.acquire()
        try:
            if not suspect.is_cleared:
                with self._stop.cutting_short():
                    await suspect.idle.wait()
                if suspect.proof is None and len(suspect.answers) >= ANSWERS:
                    await self._weigh(user_id, suspect)
            suspect.idle.clear()
            yield suspect
        finally:
            if user_id not in self._in_flight:
                suspect.idle.set()
            suspect.turn.release()

    async def _weigh(self, user_id: str, suspect: SuspectUser) -> None:
        """Complete the proof, or begin anew."""
        if self._look is None or suspect.is_denied:
            return
        if await self._ledger.has_bound(self._run, user_id):
            self._clear(user_id)
            return
        asked = set(suspect.answers)
        seen = await self._look(user_id, asked)
        if suspect.is_cleared or len(suspect.answers) < ANSWERS:
            return
        if isinstance(seen, Attempt):
            verdict = seen.verdict
            is_proof = isinstance(verdict, Refused) and verdict.is_about_user
            codes = {attempt.code for attempt in suspect.answers.values()}
            is_proof = is_proof and seen.code in codes
        else:
            is_proof = all(seen.proves_absent(code, asked) for code in asked)
            suspect.is_denied = bool(seen.shown or seen.unclear)
        if not is_proof:
            suspect.answers.clear()
            return
        suspect.proof = list(suspect.answers.values())[-1]
        logger().warning(
            "user.refused",
            user_id=user_id,
            code=suspect.proof.code,
            message=suspect.proof.message,
            trace_ids=[attempt.trace_id for attempt in suspect.answers.values()],
        )

    def _clear(self, user_id: str) -> None:
        suspect = self._suspects.pop(user_id, None)
        if suspect is not None:
            self._served.add(user_id)
            suspect.is_cleared = True
            suspect.idle.set()

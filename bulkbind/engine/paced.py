"""Send requests at the gateway's pace: first the permit, then the credentials, then the request.

It wraps every single request, session calls and witness calls included; nothing waits elsewhere.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Self

from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    Listing,
    Refused,
    TimeUse,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence

    from bulkbind.engine.ports import Authorizer, Came, Client, Gate, Landed, Landing
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.model import Device, Unbinding

WITNESS_TRIES = 5
"""Inconclusive requests after which a witness counts as not served."""


class Paced:
    """The destination as the engine uses it. Enter it before use."""

    def __init__(self, client: Client, auth: Authorizer, gate: Gate) -> None:
        self._client = client
        self._auth = auth
        self._gate = gate
        self._witness_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._auth.close()
        await self._client.__aexit__()

    def server_time(self) -> float | None:
        """Return the server's time, seconds since 1970; None while it is not known."""
        return self._client.server_time()

    def patience_s(self) -> float:
        """Return how long the answer to a bind is waited for now."""
        return self._client.patience_s()

    def on_unasked(self, report: Callable[[int], None]) -> None:
        """Have *report* called with the number of a connection that says more, or breaks."""
        self._client.on_unasked(report)

    def bind(
        self, device: Device, before: Callable[[], Awaitable[None] | None] | None = None
    ) -> Coroutine[Any, Any, Attempt]:
        """Bind a device to its user: one request, or none without credentials.

        *before*: called after each permit, of which there may be several before the request leaves;
        what it returns is awaited.

        Raises: what the gate and *before* raise (nothing was sent then), cancellation, and
            LedgerError or UsageError if a session cannot be stored.
        """
        return self._exchange(device.user_id, partial(self._client.bind, device), before)

    def post(
        self, device: Device, before: Callable[[], None], landed: Landed
    ) -> Coroutine[Any, Any, bool]:
        """Send a bind without waiting for its answer; return whether that could be.

        It cannot where its user's credential has to be renewed first.

        Args:
            device: The device and its user.
            before: Called after the permit, at once before the request leaves.
            landed: Told what came, or what is to be called and awaited for it; None: nothing was
                sent, and another permit is needed.

        Raises: as `bind`, and then *landed* is told nothing.
        """
        return self._post(device.user_id, partial(self._client.post, device), landed, before)

    async def _post(
        self,
        user_id: str,
        post: Callable[[Credential, Landed], None],
        landed: Landed,
        before: Callable[[], None] = lambda: None,
    ) -> bool:
        credential = self._auth.current(user_id)
        if credential is None:
            return False
        permit = self._gate.try_permit(user_id)
        if permit is None:
            permit = await self._gate.permit(user_id)
            credential = self._auth.current(user_id)
            if credential is None:  # it expired while this request waited
                self._gate.forget(permit)
                return False
        try:
            before()
        except BaseException:
            self._gate.forget(permit)
            raise

        post(credential, partial(self.note_landed, permit, credential, user_id, landed))
        return True

    def hand_over(self) -> None:
        """Have the answers to all that is posted and out awaited by who is told of them."""
        self._client.hand_over()

    def note_landed(
        self, permit: int, credential: Credential, user_id: str, landed: Landed, attempt: Came
    ) -> None:
        """Tell what came of a request, once the gate knows it."""
        if isinstance(attempt, Attempt) and not isinstance(attempt.verdict, AuthExpired):
            self._tell_gate(permit, attempt)
            self._note(attempt, credential, user_id)
            landed(attempt)
        elif attempt is None:
            self._gate.forget(permit)
            landed(None)
        else:
            landed(partial(self._landed, permit, attempt, credential, user_id))

    def takes(self, width: int) -> int | None:
        """Return how many binds others take now, where *width* may be under way; None: none."""
        pool = self._client.pool()
        return None if pool is None else pool.takes(width)

    def ahead_s(self) -> float:
        """Return for how long nobody needs others to take more, once they took what they may."""
        pool = self._client.pool()
        return 0.0 if pool is None else pool.ahead_s()

    def post_all(self, devices: Sequence[Device], landing: Landing) -> int:
        """Have the first of some binds sent by others, and *landing* told what became of them.

        Returns: How many; none where nobody takes them, or the first one's credential has to be
            renewed, or must wait for its permit.
        """
        pool = self._client.pool()
        credential = self._auth.current(devices[0].user_id)
        if pool is None or credential is None:
            return 0
        current = self._auth.current
        others = {
            user_id
            for user_id in {device.user_id for device in devices}
            if current(user_id) is not credential
        }
        if others:
            devices = [*takewhile(lambda device: device.user_id not in others, devices)]
        if permits := self._gate.try_permits(len(devices), pool.ahead_s()):
            sent = devices[: len(permits)]
            pool.post_all(sent, credential, _Posted(self, sent, credential, permits, landing))
        return len(permits)

    def note_passed(
        self, permits: Sequence[int], credential: Credential, users: Iterable[str]
    ) -> None:
        """Let gate and credentials know of binds that were accepted."""
        self._gate.passed(permits)
        for user_id in users:
            self._auth.accepted(credential, user_id)

    async def _landed(
        self,
        permit: int,
        came: Attempt | Callable[[], Awaitable[Attempt | None]],
        credential: Credential,
        user_id: str,
    ) -> Attempt | None:
        """Return what comes of a request that has its permit, once the gate knows it."""
        try:
            attempt = came if isinstance(came, Attempt) else await came()
        except BaseException:
            self._gate.forget(permit)
            raise
        if attempt is None:
            self._gate.forget(permit)
            return None
        self._tell_gate(permit, attempt)
        if isinstance(attempt.verdict, AuthExpired):
            await self._weigh(attempt, credential, user_id)
        else:
            self._note(attempt, credential, user_id)
        return attempt

    async def list_devices(self, user_id: str) -> Listing:
        """Read a user's list. Raises: as `bind`."""
        listing: Listing | None = None

        async def send(credential: Credential) -> Attempt:
            nonlocal listing
            listing = await self._client.list_devices(user_id, credential)
            return listing.attempt

        attempt = await self._exchange(user_id, send, is_list=True)
        return listing or Listing(attempt, None)

    def unbind(self, item: Unbinding) -> Coroutine[Any, Any, Attempt]:
        """Unbind a device from its user. Raises: as `bind`."""
        return self._exchange(item.user_id, partial(self._client.unbind, item))

    def post_unbind(self, item: Unbinding, landed: Landed) -> Coroutine[Any, Any, bool]:
        """Send an unbind without waiting for its answer; otherwise as `post`."""
        return self._post(item.user_id, partial(self._client.post_unbind, item), landed)

    async def _exchange(
        self,
        user_id: str,
        send: Callable[[Credential], Awaitable[Attempt | None]],
        before: Callable[[], Awaitable[None] | None] | None = None,
        *,
        is_list: bool = False,
    ) -> Attempt:
        """Make one request, with a permit and a credential, and report what came of it."""
        while True:
            if self._auth.current(user_id) is None:
                trouble = await self._renewed(user_id)
                if trouble is not None:
                    return trouble
            permit = await self._gate.permit(user_id)
            try:
                if before is not None and (work := before()) is not None:
                    await work
                credential = self._auth.current(user_id)
            except BaseException:
                self._gate.forget(permit)
                raise
            if credential is None:  # it expired while this request waited
                self._gate.forget(permit)
                continue
            if is_list:
                self._gate.time.asks_list(permit)
            attempt = await self._landed(permit, partial(send, credential), credential, user_id)
            if attempt is not None:  # else a worker could not send it
                return attempt

    def _note(self, attempt: Attempt, credential: Credential, user_id: str) -> None:
        """Let the credentials know that one was accepted, if the answer says so."""
        match attempt.verdict:
            case Accepted() | AlreadyBound() | Refused(set_up=False):
                self._auth.accepted(credential, user_id)
            case _:
                pass  # says nothing about the credential

    async def _weigh(self, attempt: Attempt, credential: Credential, user_id: str) -> None:
        """Complete a refusal of the credential by what it is about."""
        attempt.verdict = await self._refused(credential, user_id)

    async def _renewed(self, user_id: str) -> Attempt | None:
        """Renew the credential; return why there is none, or None."""
        # The renewal itself goes on, as its result may have to be stored: see __aexit__.
        with self._gate.time.waiting(TimeUse.CREDENTIALS), self._gate.cutting_short():
            trouble = await self._auth.renew(user_id, self._call)
        if trouble is None:
            return None
        now = self._client.now()
        return Attempt(trouble.verdict, trouble.code, trouble.message, sent_at=now)

    async def _reported(self, permit: int, request: Awaitable[Attempt]) -> Attempt:
        """Make a permitted request and report its verdict to the gate."""
        try:
            attempt = await request
        except BaseException:
            self._gate.forget(permit)
            raise
        self._tell_gate(permit, attempt)
        return attempt

    def _tell_gate(self, permit: int, attempt: Attempt) -> None:
        if attempt.under_way_s is None:
            self._gate.report(permit, attempt.verdict, attempt.limits)
        else:
            self._gate.forget(permit)  # that a worker is lost says nothing of the server

    async def _call(self, call: SessionCall) -> Attempt:
        return await self._reported(await self._gate.permit(), self._client.call(call))

    async def _refused(self, credential: Credential, user_id: str) -> AuthExpired:
        """Find out what a refusal is about; one at a time, since the result may answer the next."""
        async with self._witness_lock:
            witness = self._auth.witness(credential, user_id)
            is_users_own = witness is not None and await self._is_served(credential, witness)
            return self._auth.refused(credential, user_id, is_users_own=is_users_own)

    async def _is_served(self, credential: Credential, witness: str) -> bool:
        """Return whether a user's list can be read with a credential."""

        async def read() -> Attempt:
            return (await self._client.list_devices(witness, credential)).attempt

        for _ in range(WITNESS_TRIES):
            permit = await self._gate.permit(witness)
            self._gate.time.asks_list(permit)
            attempt = await self._reported(permit, read())
            if isinstance(attempt.verdict, Accepted | AuthExpired):
                return isinstance(attempt.verdict, Accepted)
        return False


class _Posted:
    """Binds that others send: gate and credentials learn what came of them first."""

    __slots__ = ("_credential", "_devices", "_landing", "_paced", "_permits")

    def __init__(
        self,
        paced: Paced,
        devices: Sequence[Device],
        credential: Credential,
        permits: Sequence[int],
        landing: Landing,
    ) -> None:
        self._paced, self._landing = paced, landing
        self._devices, self._credential, self._permits = devices, credential, permits

    def passed(self, places: Sequence[int], attempts: Sequence[Attempt], *, is_ours: bool) -> None:
        """As `Landing` says."""
        self._paced.note_passed(
            [self._permits[place] for place in places],
            self._credential,
            {self._devices[place].user_id for place in places},
        )
        self._landing.passed(places, attempts, is_ours=is_ours)

    def landed(self, place: int, came: Came) -> None:
        """As `Landing` says."""
        self._paced.note_landed(
            self._permits[place],
            self._credential,
            self._devices[place].user_id,
            partial(self._landing.landed, place),
            came,
        )

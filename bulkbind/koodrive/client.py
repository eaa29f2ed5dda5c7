"""The one place that talks to KooDrive: one session, one semaphore, one pacer for all it sends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from multidict import istr

from bulkbind.koodrive.auth.credential import Outgoing
from bulkbind.koodrive.http import HttpSession
from bulkbind.koodrive.server_clock import SAFETY_S, ServerClock
from bulkbind.koodrive.verdicts import (
    Codes,
    Reading,
    classify,
    classify_list,
    classify_unbind,
    names_device,
)
from bulkbind.koodrive.wire import TraceIds, XDates, bind_body
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    Device,
    Listing,
    NoAnswer,
    Record,
    Refused,
    Unreachable,
)

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.koodrive.http import Judge, Sent
    from bulkbind.koodrive.ports import Authorizer, Gate
    from bulkbind.koodrive.wire import Answer
    from bulkbind.settings import ApiSettings

ANSWER_CAP_BYTES = 1 << 20
LIST_CAP_BYTES = 64 << 20
"""100,000 devices of some 250 bytes, and room."""
WITNESS_TRIES = 5
"""Requests that get no say, after which a witness counts as not served."""
# Names that need not be lowered at every comparison.
_X_USER_ID, _X_DATE, _X_TRACE_ID = istr("X-User-Id"), istr("X-Date"), istr("X-Traceid")


class KooDrive:
    """The API. Enter it before use; every request waits for a slot and for the pacer."""

    def __init__(  # each is a part that app hands in
        self,
        settings: ApiSettings,
        endpoint: str,
        auth: Authorizer,
        gate: Gate,
        clock: Clock,
        *,
        concurrency: int,
        skew_s: float | None = None,
    ) -> None:
        self._settings = settings
        self._auth = auth
        self._gate = gate
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._asking = asyncio.Lock()
        self._trace_ids = TraceIds()
        self._x_dates = XDates()
        self._codes = Codes(
            already_bound=frozenset(settings.already_bound_codes),
            not_bound=frozenset(settings.not_bound_codes),
            retryable=frozenset(settings.retryable_codes),
        )
        self._names = False
        """Whether any success so far has repeated its machine code: then each of them must."""
        self.server_clock = ServerClock(clock, skew_s)
        self._http = HttpSession(settings, endpoint, clock, self.server_clock)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._auth.close()
        await self._http.__aexit__()

    @property
    def requests(self) -> int:
        """Requests sent."""
        return self._http.requests

    def server_time(self) -> float | None:
        """Return the server's time now, seconds since 1970; None while nothing is known of it."""
        return self.server_clock.now() if self.server_clock.known else None

    async def bind(self, device: Device) -> Attempt:
        """Bind a device to its user: one request, whatever comes of it.

        None is sent where there are no credentials to send with; the verdict says why.

        Raises: only what the gate raises (nothing was bound then), cancellation, and LedgerError or
            UsageError where a session cannot be kept.
        """

        def judge(answer: Answer) -> Reading:
            reading = classify(answer, self._codes, device.machine_code, is_named=self._names)
            self._names = self._names or names_device(answer, reading)
            return reading

        body = bind_body(device)
        return await self._exchange(
            "POST",
            device.user_id,
            body=body,
            judge=judge,
            cap=ANSWER_CAP_BYTES,
            timeout_s=self._settings.timeout,
        )

    async def list_devices(self, user_id: str) -> Listing:
        """Read the list of a user's devices: one request, whatever comes of it."""
        records: list[dict[str, Record] | None] = []

        def judge(answer: Answer) -> Reading:
            reading, found = classify_list(answer, self._codes)
            records.append(found)
            return reading

        attempt = await self._exchange(
            "GET",
            user_id,
            body=None,
            judge=judge,
            cap=LIST_CAP_BYTES,
            timeout_s=self._settings.list_timeout,
        )
        return Listing(attempt, records[-1] if records else None)

    async def knock(self) -> Attempt:
        """Send a request without credentials: whatever comes tells the server's clock."""
        permit = await self._gate.permit()
        headers: dict[str, str] = {_X_TRACE_ID: self._trace_ids.next()}
        request = Outgoing("GET", self._settings.path, self._http.host, headers, None)
        sent = await self._send(permit, request, _take_any, timeout_s=self._settings.timeout)
        self._gate.report(permit, sent.reading.verdict, sent.told)
        return self._attempt(sent, sent.reading, headers[_X_TRACE_ID])

    async def unbind(self, user_id: str, device_id: str, machine_code: str) -> Attempt:
        """Take a user's binding back: one request, whatever comes of it.

        *machine_code*: its device's; an answer that names another one is none.
        """

        def judge(answer: Answer) -> Reading:
            return classify_unbind(answer, self._codes, device_id, machine_code)

        return await self._exchange(
            "DELETE",
            user_id,
            part=f"/{quote(device_id, safe='')}",
            body=None,
            judge=judge,
            cap=ANSWER_CAP_BYTES,
            timeout_s=self._settings.timeout,
        )

    async def _exchange(  # what differs between calls
        self,
        method: str,
        user_id: str,
        *,
        part: str = "",
        body: bytes | None,
        judge: Judge,
        cap: int,
        timeout_s: float,
    ) -> Attempt:
        async with self._slots:
            admitted = await self._admitted(user_id)
            if isinstance(admitted, Reading):
                return self._unsent(admitted)
            permit, credential = admitted
            request, signed_s = self._signed(method, user_id, body, part)
            credential.authorize(request)
            sent = await self._send(
                permit, request, judge, cap=cap, timeout_s=timeout_s, signed_s=signed_s
            )
            self._gate.report(permit, sent.reading.verdict, sent.told)
            reading = sent.reading
            if isinstance(reading.verdict, Accepted):
                self._auth.accepted(credential, user_id)
            else:
                reading = await self._heard(reading, credential, user_id)
                sent = sent._replace(request_id=credential.scrubbed(sent.request_id))
        return self._attempt(sent, reading, request.headers[_X_TRACE_ID])

    def _attempt(self, sent: Sent, reading: Reading, trace_id: str) -> Attempt:
        return Attempt(
            verdict=reading.verdict,
            trace_id=trace_id,
            sent_at=self.server_clock.at(sent.sent_s),
            took_s=self._clock.monotonic() - sent.sent_s,
            http_status=sent.status,
            code=reading.code,
            message=reading.message,
            request_id=sent.request_id,
        )

    async def _admitted(self, user_id: str) -> tuple[int, Credential] | Reading:
        """Return a permit and what to send with, or why there is nothing to send with."""
        while True:
            if self._auth.current(user_id) is None:
                trouble = await self._auth.renew(user_id, self._call)
                if trouble is not None:
                    return trouble
            permit = await self._gate.permit(user_id)
            credential = self._auth.current(user_id)
            if credential is not None:
                return permit, credential
            self._gate.forget(permit)  # it ended while this request waited

    def _unsent(self, why: Reading) -> Attempt:
        return Attempt(
            verdict=why.verdict,
            trace_id="",
            sent_at=self.server_clock.now(),
            took_s=0.0,
            code=why.code,
            message=why.message,
        )

    async def _heard(self, reading: Reading, credential: Credential, user_id: str) -> Reading:
        """Hear what a request that was not accepted says of what authorised it, and hide that."""
        verdict = reading.verdict
        match verdict:
            case AlreadyBound() | Refused(set_up=False):
                self._auth.accepted(credential, user_id)
            case AuthExpired():
                verdict = await self._refused(credential, user_id)
            case _:
                pass  # it says nothing of them
        return Reading(verdict, reading.code, credential.scrubbed(reading.message))

    async def _refused(self, credential: Credential, user_id: str) -> AuthExpired:
        """Find out what a refusal is about, one at a time: it may spare the next one asking."""
        async with self._asking:
            witness = self._auth.witness(credential, user_id)
            is_users_own = witness is not None and await self._is_served(credential, witness)
            return self._auth.refused(credential, user_id, is_users_own=is_users_own)

    async def _is_served(self, credential: Credential, witness: str) -> bool:
        """Return whether a user's list can be read with a credential."""
        for _ in range(WITNESS_TRIES):
            permit = await self._gate.permit(witness)
            request, signed_s = self._signed("GET", witness, None)
            credential.authorize(request)
            reading = (
                await self._send(
                    permit,
                    request,
                    lambda answer: classify_list(answer, self._codes)[0],
                    cap=LIST_CAP_BYTES,
                    timeout_s=self._settings.list_timeout,
                    signed_s=signed_s,
                )
            ).reading
            self._gate.report(permit, reading.verdict)
            if isinstance(reading.verdict, Accepted | AuthExpired):
                return isinstance(reading.verdict, Accepted)
        return False

    def _signed(
        self, method: str, user_id: str, body: bytes | None, part: str = ""
    ) -> tuple[Outgoing, float]:
        """Return a request of this moment, not yet authorised, and its X-Date.

        *part*: what stands behind the path.
        """
        signed_s = self.server_clock.now() - SAFETY_S
        headers: dict[str, str] = {
            _X_USER_ID: user_id,
            _X_DATE: self._x_dates.at(signed_s),
            _X_TRACE_ID: self._trace_ids.next(),
        }
        path = self._settings.path + part
        return Outgoing(method, path, self._http.host, headers, body), signed_s

    async def _call(self, call: SessionCall) -> Reading:
        """Send a session call, when the gate lets it. It takes no slot: who waits for it has one.

        What is not known to have come to something is `Unreachable`: no row was sent for it.
        """
        permit = await self._gate.permit()
        headers = call.headers | {_X_TRACE_ID: self._trace_ids.next()}
        request = Outgoing("POST", call.path, self._http.host, headers, call.body)
        sent = await self._send(permit, request, call.judge, timeout_s=self._settings.timeout)
        reading = sent.reading
        if isinstance(reading.verdict, NoAnswer):
            words = f"the session cannot be renewed: {reading.message}"
            reading = Reading(Unreachable(), "session", words)
        self._gate.report(permit, reading.verdict, sent.told)
        return reading

    async def _send(
        self,
        permit: int,
        request: Outgoing,
        judge: Judge,
        *,
        cap: int = ANSWER_CAP_BYTES,
        timeout_s: float,
        signed_s: float = 0.0,
    ) -> Sent:
        """Send a permitted request; return what came, whatever it is."""
        try:
            return await self._http.send(
                request, judge, cap=cap, timeout_s=timeout_s, signed_s=signed_s
            )
        except BaseException:
            self._gate.forget(permit)
            raise


def _take_any(answer: Answer) -> Reading:
    return Reading(Accepted("", ""), "", f"HTTP {answer.status}")

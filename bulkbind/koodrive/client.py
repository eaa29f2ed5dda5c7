"""The one place that talks to KooDrive: one session, one semaphore, one pacer for all it sends."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from bulkbind.koodrive import transport
from bulkbind.koodrive.auth.credential import Outgoing
from bulkbind.koodrive.connector import QuietConnector
from bulkbind.koodrive.limits import told_by
from bulkbind.koodrive.server_clock import SAFETY_S, ServerClock
from bulkbind.koodrive.silence import silence
from bulkbind.koodrive.verdict import (
    Answer,
    Codes,
    Reading,
    classify,
    classify_list,
    classify_unbind,
    names_device,
    request_id_of,
)
from bulkbind.koodrive.watchdog import Watchdog
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
    Told,
    Unreachable,
)

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import SessionCall
    from bulkbind.koodrive.ports import Authorizer, Gate
    from bulkbind.settings import ApiSettings

ANSWER_CAP_BYTES = 1 << 20
LIST_CAP_BYTES = 64 << 20
"""100,000 devices of some 250 bytes, and room."""
IDLE_S = 4.0
"""An idle connection is closed by us before a server does it under our feet, which would leave
the next request in doubt; 5 s is the shortest keep-alive that common servers have by default."""
_PARSE_IN_THREAD_BYTES = 1 << 18
WITNESS_TRIES = 5
"""Requests that get no say, after which a witness counts as not served."""
LISTENED_TO = 10
"""First requests whose answers are looked at for headers that tell limits."""
THROTTLED = 429
BEYOND_SUCCESS = 300
_JSON = "application/json"
# Names that need not be lowered at every comparison.
_X_USER_ID, _X_DATE, _X_TRACE_ID = istr("X-User-Id"), istr("X-Date"), istr("X-Traceid")
_X_REQUEST_ID = istr("X-Request-Id")


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
        self._endpoint = endpoint
        self._host = URL(endpoint).host_port_subcomponent or ""
        """As aiohttp writes it into the Host header."""
        self._auth = auth
        self._gate = gate
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._asking = asyncio.Lock()
        self._trace_ids = TraceIds()
        self._x_dates = XDates()
        self._codes = Codes(
            frozenset(settings.already_bound_codes), frozenset(settings.retryable_codes)
        )
        self._agent = f"bulkbind/{version('bulkbind')}"
        self._session: aiohttp.ClientSession | None = None
        self._watchdog: Watchdog | None = None
        self._names = False
        """Whether the server has ever repeated the machine code of what it bound."""
        self._tells = False
        """Whether the last answer that was looked at told of limits."""
        self.server_clock = ServerClock(clock, skew_s)
        self.requests = 0
        """Requests sent."""

    async def __aenter__(self) -> Self:
        is_https = self._endpoint.startswith("https:")
        self._connector = QuietConnector(
            limit=0,  # the slots bound what is in flight; the connector need not
            keepalive_timeout=IDLE_S,
            ssl=transport.tls_context(self._settings.ca_file) if is_https else True,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            proxy=transport.proxy_for(self._endpoint, self._settings),
            # Requests of one session act for many users: a cookie of one is none of the next's.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout),
            headers={"User-Agent": self._agent},
        )
        # aiohttp has no public switch: it sends a GET or DELETE again by itself when a kept
        # connection breaks, past the pacer and with the same trace id.
        self._session._retry_connection = False  # noqa: SLF001  # as above; a test watches it
        self._watchdog = Watchdog()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._auth.close()
        if self._session is not None:
            await self._session.close()
        if self._watchdog is not None:
            self._watchdog.close()

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
            if not self._names and self.requests <= LISTENED_TO:
                self._names = names_device(answer, reading)
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
        request = Outgoing("GET", self._settings.path, self._host, headers, None)
        sent = await self._send(permit, request, _take_any, timeout_s=self._settings.timeout)
        self._gate.report(permit, sent.reading.verdict, sent.told)
        return self._attempt(sent, sent.reading, headers[_X_TRACE_ID])

    async def unbind(self, user_id: str, device_id: str) -> Attempt:
        """Take a user's binding back: one request, whatever comes of it."""

        def judge(answer: Answer) -> Reading:
            return classify_unbind(answer, self._codes)

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
        judge: _Judge,
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

    def _attempt(self, sent: _Sent, reading: Reading, trace_id: str) -> Attempt:
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
        return Outgoing(method, self._settings.path + part, self._host, headers, body), signed_s

    async def _call(self, call: SessionCall) -> Reading:
        """Send a session call, when the gate lets it. It takes no slot: who waits for it has one.

        What is not known to have come to something is `Unreachable`: no row was sent for it.
        """
        permit = await self._gate.permit()
        headers = call.headers | {_X_TRACE_ID: self._trace_ids.next()}
        request = Outgoing("POST", call.path, self._host, headers, call.body)
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
        judge: _Judge,
        *,
        cap: int = ANSWER_CAP_BYTES,
        timeout_s: float,
        signed_s: float = 0.0,
    ) -> _Sent:
        """Send a permitted request; return what came, whatever it is."""
        watchdog = self._watchdog
        assert watchdog is not None, "enter KooDrive first"  # a programmer's error
        sent_s = self._clock.monotonic()
        status: int | None = None
        told: tuple[Told, ...] = ()
        request_id = ""
        try:
            self.requests += 1
            with watchdog.timeout(timeout_s):
                answer = await self._request(request, cap, signed_s)
            status, told = answer.status, answer.told
            self.server_clock.observe(answer.date, sent_s, self._clock.monotonic())
            reading = await self._judged(judge, answer)
            if not isinstance(reading.verdict, Accepted):
                request_id = request_id_of(answer)
            if isinstance(reading.verdict, NoAnswer) and status < BEYOND_SUCCESS:
                # Perhaps the answer to another request: the next one on its connection would be as
                # well.
                self._connector.drop_idle()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reading = silence(error, timeout_s)
        except BaseException:
            self._gate.forget(permit)
            raise
        return _Sent(reading, sent_s, status, told, request_id)

    async def _judged(self, judge: _Judge, answer: Answer) -> Reading:
        if len(answer.body) > _PARSE_IN_THREAD_BYTES:
            return await asyncio.to_thread(judge, answer)
        return judge(answer)

    async def _request(self, request: Outgoing, cap: int, signed_s: float) -> Answer:
        assert self._session is not None, "enter KooDrive first"  # a programmer's error
        body = request.body
        data = None if body is None else aiohttp.BytesPayload(body, content_type=_JSON)
        async with self._session.request(
            request.method,
            URL(self._endpoint + request.path, encoded=True),
            data=data,
            headers=request.headers,
            allow_redirects=False,
        ) as response:
            text, whole = await _read(response, cap)
            return Answer(
                status=response.status,
                body=text,
                date=response.headers.get(hdrs.DATE),
                retry_after=response.headers.get(hdrs.RETRY_AFTER),
                x_date_s=float(int(signed_s)),
                whole=whole,
                told=self._told(response),
                request_id=response.headers.get(_X_REQUEST_ID),
            )

    def _told(self, response: aiohttp.ClientResponse) -> tuple[Told, ...]:
        """Return what an answer tells of limits: a server that never does is not always asked."""
        if not (self._tells or self.requests <= LISTENED_TO or response.status == THROTTLED):
            return ()
        told = told_by(response.headers, response.headers.get(hdrs.DATE))
        self._tells = bool(told)
        return told


def _take_any(answer: Answer) -> Reading:
    return Reading(Accepted("", ""), "", f"HTTP {answer.status}")


class _Judge(Protocol):
    def __call__(self, answer: Answer, /) -> Reading: ...


class _Sent(NamedTuple):
    """A request that was sent, and what came."""

    reading: Reading
    sent_s: float
    """Monotonic."""
    status: int | None
    told: tuple[Told, ...]
    request_id: str


async def _read(response: aiohttp.ClientResponse, cap: int) -> tuple[bytes, bool]:
    """Return the body up to *cap* bytes, and whether that is all; what is longer is left."""
    content = response.content
    first = await content.readany()
    if content.at_eof() and len(first) <= cap:
        return first, True
    parts, size = [first], len(first)
    while size <= cap and not content.at_eof():
        parts.append(await content.readany())
        size += len(parts[-1])
    if size > cap:
        response.close()
        return b"".join(parts)[:cap], False
    return b"".join(parts), True

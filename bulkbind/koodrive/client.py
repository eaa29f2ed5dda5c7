"""The one place that talks to KooDrive: one session, one semaphore, one pacer for all it sends."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol, Self

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from bulkbind.koodrive.connector import QuietConnector
from bulkbind.koodrive.limits import told_by
from bulkbind.koodrive.server_clock import SAFETY_S, ServerClock
from bulkbind.koodrive.verdict import (
    Answer,
    Codes,
    Reading,
    classify,
    classify_list,
    names_device,
    request_id_of,
)
from bulkbind.koodrive.watchdog import Watchdog
from bulkbind.koodrive.wire import TraceIds, XDates, bind_body
from bulkbind.model import (
    Accepted,
    Attempt,
    Device,
    Listing,
    NoAnswer,
    Record,
    Told,
    Unreachable,
    Verdict,
)

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.settings import ApiSettings

ANSWER_CAP_BYTES = 1 << 20
LIST_CAP_BYTES = 64 << 20
"""100,000 devices of some 250 bytes, and room."""
IDLE_S = 4.0
"""An idle connection is closed by us before a server does it under our feet, which would leave
the next request in doubt; 5 s is the shortest keep-alive that common servers have by default."""
_PARSE_IN_THREAD_BYTES = 1 << 18
LISTENED_TO = 10
"""First requests whose answers are looked at for headers that tell limits."""
THROTTLED = 429
BEYOND_SUCCESS = 300
_JSON = "application/json"
# Names that need not be lowered at every comparison.
_X_USER_ID, _X_DATE, _X_TRACE_ID = istr("X-User-Id"), istr("X-Date"), istr("X-Traceid")
_X_REQUEST_ID = istr("X-Request-Id")


class Gate(Protocol):
    """Says when the next request may go, and hears what came of it."""

    async def permit(self) -> int:
        """Return, once a request may be sent, a number to hand back to `report`."""
        ...

    def report(self, permit: int, verdict: Verdict, told: tuple[Told, ...] = ()) -> None:
        """Hear the verdict on a permitted request, and what the answer told of limits."""
        ...

    def forget(self, permit: int) -> None:
        """Hear that a permitted request was broken off by us."""
        ...


class Authorizer(Protocol):
    """Gives the Authorization header."""

    def authorization(self) -> str:
        """Return its value."""
        ...


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
        self._url = URL(endpoint + settings.path, encoded=True)
        self._auth = auth
        self._gate = gate
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
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
        # The slots bound what is in flight; the connector need not.
        self._connector = QuietConnector(limit=0, keepalive_timeout=IDLE_S)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
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
        if self._session is not None:
            await self._session.close()
        if self._watchdog is not None:
            self._watchdog.close()

    def server_time(self) -> float | None:
        """Return the server's time now, seconds since 1970; None while nothing is known of it."""
        return self.server_clock.now() if self.server_clock.known else None

    async def bind(self, device: Device) -> Attempt:
        """Bind a device to its user: one request, whatever comes of it.

        Raises: only what the gate raises (nothing was sent then), and cancellation.
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

    async def _exchange(  # what differs between calls
        self,
        method: str,
        user_id: str,
        *,
        body: bytes | None,
        judge: _Judge,
        cap: int,
        timeout_s: float,
    ) -> Attempt:
        async with self._slots:
            permit = await self._gate.permit()
            watchdog = self._watchdog
            assert watchdog is not None, "enter KooDrive first"  # a programmer's error
            sent_s = self._clock.monotonic()
            signed_s = self.server_clock.at(sent_s) - SAFETY_S
            trace_id = self._trace_ids.next()
            status: int | None = None
            told: tuple[Told, ...] = ()
            request_id = ""
            try:
                headers = self._headers(user_id, signed_s, trace_id)
                self.requests += 1
                with watchdog.timeout(timeout_s):
                    answer = await self._request(method, headers, body, cap, signed_s)
                status, told = answer.status, answer.told
                self.server_clock.observe(answer.date, sent_s, self._clock.monotonic())
                reading = await self._judged(judge, answer)
                if not isinstance(reading.verdict, Accepted):
                    request_id = request_id_of(answer)
                if isinstance(reading.verdict, NoAnswer) and status < BEYOND_SUCCESS:
                    # Perhaps the answer to another request: the next one on its connection would
                    # be as well.
                    self._connector.drop_idle()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                reading = silence(error, timeout_s)
            except BaseException:
                self._gate.forget(permit)
                raise
            self._gate.report(permit, reading.verdict, told)
        return Attempt(
            verdict=reading.verdict,
            trace_id=trace_id,
            sent_at=self.server_clock.at(sent_s),
            took_s=self._clock.monotonic() - sent_s,
            http_status=status,
            code=reading.code,
            message=reading.message,
            request_id=request_id,
        )

    async def _judged(self, judge: _Judge, answer: Answer) -> Reading:
        if len(answer.body) > _PARSE_IN_THREAD_BYTES:
            return await asyncio.to_thread(judge, answer)
        return judge(answer)

    def _headers(self, user_id: str, signed_s: float, trace_id: str) -> dict[str, str]:
        return {
            hdrs.AUTHORIZATION: self._auth.authorization(),
            _X_USER_ID: user_id,
            _X_DATE: self._x_dates.at(signed_s),
            _X_TRACE_ID: trace_id,
        }

    async def _request(
        self, method: str, headers: dict[str, str], body: bytes | None, cap: int, signed_s: float
    ) -> Answer:
        assert self._session is not None, "enter KooDrive first"  # a programmer's error
        data = None if body is None else aiohttp.BytesPayload(body, content_type=_JSON)
        async with self._session.request(
            method, self._url, data=data, headers=headers, allow_redirects=False
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


class _Judge(Protocol):
    def __call__(self, answer: Answer) -> Reading: ...


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


def silence(error: Exception, timeout_s: float) -> Reading:  # noqa: PLR0911  # a table
    """Return what it means that no answer came. Source: dependencies.md, trap 3.

    Only where no connection was made is it known that nothing was sent.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return Reading(Unreachable(), "tls", f"TLS failed: {error}")
        case aiohttp.ClientConnectorDNSError():
            return Reading(Unreachable(), "dns", f"the host name is not known: {error}")
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            return Reading(Unreachable(), "connect", f"no connection: {error}")
        case TimeoutError():
            return Reading(NoAnswer(), "timeout", f"no answer within {timeout_s:g} s")
        case aiohttp.ServerDisconnectedError():
            return Reading(NoAnswer(), "closed", "the server closed the connection unanswered")
        case aiohttp.ClientPayloadError():
            return Reading(NoAnswer(), "cut", f"the answer was cut off: {error}")
        case aiohttp.ClientOSError() | OSError():
            return Reading(NoAnswer(), "reset", f"the connection broke: {error}")
        case _:
            kind = type(error).__name__
            return Reading(NoAnswer(), "garbage", f"the answer is no HTTP: {kind}: {error}"[:300])

"""HTTP: one session with the endpoint, which sends a request and returns what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from bulkbind.koodrive import transport
from bulkbind.koodrive.limit_headers import told_by
from bulkbind.koodrive.verdicts import Reading
from bulkbind.koodrive.wire import Answer, request_id_of
from bulkbind.model import Accepted, NoAnswer, Told, Unreachable

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from bulkbind.clock import Clock
    from bulkbind.koodrive.auth.credential import Outgoing
    from bulkbind.koodrive.server_clock import ServerClock
    from bulkbind.settings import ApiSettings

TICK_S = 0.05
"""How often it looks, and so how late a time-out may come."""


class Watchdog:
    """Ends what takes too long. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[_Timeout, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout(self, seconds: float) -> _Timeout:
        """Return a block that ends what it awaits after *seconds*, as `asyncio.timeout` does.

        Raises: TimeoutError.
        """
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._look)
        return _Timeout(self._watched, self._loop.time() + seconds)

    def _look(self) -> None:
        now = self._loop.time()
        for watched in self._watched:
            if now >= watched.due_at:
                watched.cut()
        waits = bool(self._watched)
        self._timer = self._loop.call_later(TICK_S, self._look) if waits else None


class _Timeout:
    """One block. Its task is cancelled once, and the cancellation told apart from any other."""

    __slots__ = ("_cancelling", "_is_cut", "_task", "_watched", "due_at")

    def __init__(self, watched: dict[_Timeout, None], due_at: float) -> None:
        self._watched = watched
        self._is_cut = False
        self.due_at = due_at

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # it is awaited
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._watched[self] = None

    def cut(self) -> None:
        """Cancel the task, if that has not been done."""
        if not self._is_cut:
            self._is_cut = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        del self._watched[self]
        if not self._is_cut:
            return
        is_last = self._task.uncancel() <= self._cancelling
        if is_last and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error


class QuietConnector(aiohttp.TCPConnector):
    """Drops a kept connection over which something came while nothing was asked.

    aiohttp looks at a connection when it is given back, not when it is taken again: what came in
    between, it would take for the answer to the next request.
    """

    # aiohttp has no public place for this; tests watch that it is called.
    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not protocol.should_close:
                return connection
            connection.close()
        return None

    def drop_idle(self) -> None:
        """Close every connection that is not in use."""
        for kept in self._conns.values():
            for protocol, _ in kept:
                protocol.close()  # whoever looks at it next sees that it is closed


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    why = getattr(found, "verify_message", "") or str(found)
    return f"the certificate of {error.host}:{error.port} is not accepted: {why}"


def silence(error: Exception, timeout_s: float) -> Reading:  # noqa: C901, PLR0911  # a table
    """Return what it means that no answer came. Source: dependencies.md, trap 3.

    Only where no connection was made is it known that nothing was sent.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Reading(Unreachable(), "tls", _certificate(error))
        case aiohttp.ClientConnectorSSLError():
            return Reading(Unreachable(), "tls", f"TLS failed: {error}")
        case aiohttp.ClientHttpProxyError():
            # Nothing went through.
            return Reading(Unreachable(), "proxy", f"the proxy answered HTTP {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return Reading(Unreachable(), "proxy", f"no connection to the proxy: {error.strerror}")
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


IDLE_S = 4.0
"""An idle connection is closed by us before a server does it under our feet, which would leave
the next request in doubt; 5 s is the shortest keep-alive that common servers have by default."""
_PARSE_IN_THREAD_BYTES = 1 << 18
LISTENED_TO = 10
"""First requests whose answers are looked at for headers that tell limits."""
THROTTLED = 429
BEYOND_SUCCESS = 300
_JSON = "application/json"
_X_REQUEST_ID = istr("X-Request-Id")

Judge: TypeAlias = Callable[[Answer], Reading]
"""Says what an answer means."""


class Sent(NamedTuple):
    """A request that was sent, and what came."""

    reading: Reading
    sent_s: float
    """Monotonic."""
    status: int | None
    told: tuple[Told, ...]
    request_id: str


class HttpSession:
    """Sends requests, none of them twice, and follows no redirect. Enter it before use."""

    def __init__(
        self, settings: ApiSettings, endpoint: str, clock: Clock, server_clock: ServerClock
    ) -> None:
        """*server_clock* hears of every answer's Date."""
        self._settings = settings
        self._endpoint = endpoint
        self._clock = clock
        self._server_clock = server_clock
        self._agent = f"bulkbind/{version('bulkbind')}"
        self._session: aiohttp.ClientSession | None = None
        self._watchdog: Watchdog | None = None
        self._tells = False
        """Whether the last answer that was looked at told of limits."""
        self.host = URL(endpoint).host_port_subcomponent or ""
        """As aiohttp writes it into the Host header."""
        self.requests = 0
        """Requests sent."""

    async def __aenter__(self) -> Self:
        is_https = self._endpoint.startswith("https:")
        self._proxy = transport.proxy_for(self._endpoint, self._settings)
        self._connector = QuietConnector(
            limit=0,  # the slots bound what is in flight; the connector need not
            keepalive_timeout=IDLE_S,
            ssl=transport.tls_context(self._settings.ca_file) if is_https else True,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            proxy=self._proxy.url if self._proxy else None,
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

    async def send(
        self,
        request: Outgoing,
        judge: Judge,
        *,
        cap: int,
        timeout_s: float,
        signed_s: float = 0.0,
    ) -> Sent:
        """Send a request; return what came, whatever it is.

        Args:
            request: The request, authorised.
            judge: Says what an answer means; of a large one in a thread of its own.
            cap: The most bytes of an answer's body that are read.
            timeout_s: How long the answer may take.
            signed_s: The X-Date that was sent, seconds since 1970.
        """
        watchdog = self._watchdog
        assert watchdog is not None, "enter the session first"  # a programmer's error
        sent_s = self._clock.monotonic()
        status: int | None = None
        told: tuple[Told, ...] = ()
        request_id = ""
        try:
            self.requests += 1
            with watchdog.timeout(timeout_s):
                answer = await self._request(request, cap, signed_s)
            status, told = answer.status, answer.told
            self._server_clock.observe(answer.date, sent_s, self._clock.monotonic())
            reading = await self._judged(judge, answer)
            if not isinstance(reading.verdict, Accepted):
                request_id = request_id_of(answer)
            if isinstance(reading.verdict, NoAnswer) and status < BEYOND_SUCCESS:
                # Perhaps the answer to another request: the next one on its connection would be as
                # well.
                self._connector.drop_idle()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reading = silence(error, timeout_s)
        return Sent(reading, sent_s, status, told, request_id)

    async def _judged(self, judge: Judge, answer: Answer) -> Reading:
        if len(answer.body) > _PARSE_IN_THREAD_BYTES:
            return await asyncio.to_thread(judge, answer)
        return judge(answer)

    async def _request(self, request: Outgoing, cap: int, signed_s: float) -> Answer:
        assert self._session is not None, "enter the session first"  # a programmer's error
        body = request.body
        data = None if body is None else aiohttp.BytesPayload(body, content_type=_JSON)
        async with self._session.request(
            request.method,
            URL(self._endpoint + request.path, encoded=True),
            data=data,
            headers=request.headers,
            proxy_headers=self._proxy.headers if self._proxy else None,
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

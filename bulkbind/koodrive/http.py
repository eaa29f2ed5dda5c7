"""HTTP: one session with the endpoint that sends requests and returns their answers."""

from __future__ import annotations

import errno
import os
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self, TypeAlias

import aiohttp
from aiohttp import hdrs
from multidict import istr
from yarl import URL

from bulkbind.koodrive import transport
from bulkbind.koodrive.connections import (
    CONNECTION,
    FastPath,
    QuietConnector,
    Reply,
    read_body,
    send_once,
)
from bulkbind.koodrive.limit_headers import stated_limits
from bulkbind.koodrive.watchdog import Watchdog
from bulkbind.koodrive.wire import Answer, retry_after
from bulkbind.model import TIMED_OUT, Attempt, NoAnswer, ServerLimit, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from ssl import SSLContext

    from bulkbind.koodrive.auth.credential import Outgoing
    from bulkbind.settings import ApiSettings


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    found = error.certificate_error
    why = getattr(found, "verify_message", "") or str(found)
    return f"the certificate of {error.host}:{error.port} is not accepted: {why}"


NO_CONNECTION = "no connection: "


def _why(error: OSError) -> str:
    """Return why there is no connection: `connection refused`."""
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


def silence(error: Exception, timeout_s: float) -> Attempt:  # noqa: C901, PLR0911  # a table
    """Return what the lack of an answer means. Source: dependencies.md, trap 3.

    Only without a connection is it certain that nothing was sent.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Attempt(Unreachable(), "tls", _certificate(error))
        case aiohttp.ClientConnectorSSLError():
            return Attempt(Unreachable(), "tls", f"TLS failed: {error.strerror or error}")
        case aiohttp.ClientHttpProxyError():
            return Attempt(Unreachable(), "proxy", f"the proxy answered HTTP {error.status}")
        case aiohttp.ClientProxyConnectionError():
            return Attempt(Unreachable(), "proxy", f"no connection to the proxy: {error.strerror}")
        case aiohttp.ClientConnectorDNSError():
            name = f"{error.host} ({_why(error.os_error)})"
            return Attempt(Unreachable(), "dns", f"the host name is not known: {name}")
        case aiohttp.ClientConnectorError():
            return Attempt(Unreachable(), "connect", NO_CONNECTION + _why(error.os_error))
        case aiohttp.ConnectionTimeoutError():
            return Attempt(Unreachable(), "connect", f"{NO_CONNECTION}it took too long")
        case TimeoutError():
            return Attempt(NoAnswer(), TIMED_OUT, f"no answer within {timeout_s:.3g} s")
        case aiohttp.ServerDisconnectedError():
            return Attempt(NoAnswer(), "closed", "the server closed the connection unanswered")
        case aiohttp.ClientPayloadError():
            return Attempt(NoAnswer(), "cut", f"the answer was cut off: {error}")
        case aiohttp.ClientOSError() | OSError():
            return Attempt(NoAnswer(), "reset", f"the connection broke: {_why(error)}")
        case _:
            kind = type(error).__name__
            return Attempt(NoAnswer(), "garbage", f"the answer is no HTTP: {kind}: {error}"[:300])


IDLE_S = 4.0
"""We close an idle connection before the server does, which might leave the next request in doubt;
the shortest default keep-alive of common servers is 5 s."""
ALWAYS_PARSED = 10
"""First requests whose answers are always searched for headers that state limits."""
THROTTLED = 429
_JSON = "application/json"
_X_REQUEST_ID = istr("X-Request-Id")
X_RETRY_AFTER = istr("X-Retry-After")
"""What some gateways send in place of Retry-After, often with a moment since 1970."""


Came: TypeAlias = "Callable[[Answer | Callable[[], Awaitable[Answer]]], None]"
"""Takes an answer, or what is called and awaited for it: that raises as `HttpSession.send`."""


class HttpSession:
    """Sends each request once, without redirects; an async context manager."""

    def __init__(
        self,
        settings: ApiSettings,
        endpoint: str,
        tls: SSLContext | None = None,
    ) -> None:
        """*tls*: of `tls_of`, for https."""
        self._settings = settings
        self._endpoint = endpoint
        self._tls = tls
        self._agent = f"bulkbind/{version('bulkbind')}"
        self._session: aiohttp.ClientSession | None = None
        self._fast: FastPath | None = None
        self._watchdog: Watchdog | None = None
        self._headers: Mapping[str, str] = {}
        """Of the last answer, and …"""
        self._read: tuple[str | None, str | None, str | None] = (None, None, None)
        """… what they say: Date, Retry-After and X-Request-Id."""
        self._states_limits = False
        """Whether the last answer that was searched stated any."""
        self.host = URL(endpoint).host_port_subcomponent or ""
        """As aiohttp writes it into the Host header."""
        self.requests = 0
        """Requests that got a connection."""
        self.may_send: Callable[[], None] = lambda: None
        """Called just before a request leaves on the fast path; if it raises, nothing does."""
        self.on_unasked: Callable[[int], None] = lambda _number: None
        """Called with the number of a connection that said something unasked, or broke."""

    async def __aenter__(self) -> Self:
        self._proxy = transport.proxy_for(self._endpoint, self._settings)
        self._connector = QuietConnector(
            lambda number: self.on_unasked(number),  # noqa: PLW0108  # may be set later
            limit=0,  # the workers limit the requests in flight
            keepalive_timeout=IDLE_S,
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            proxy=self._proxy.url if self._proxy else None,
            # Requests act for many users: no cookie may pass from one to another.
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.connect_timeout),
            headers={"User-Agent": self._agent},
        )
        send_once(self._session)
        self._watchdog = Watchdog()
        if FastPath.serves():
            self._fast = FastPath(
                self._session,
                self._endpoint,
                self._proxy,
                watchdog=self._watchdog,
                content_type=_JSON,
                idle_s=IDLE_S,
                may_send=self.may_send,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._fast is not None:
            self.requests += self._fast.close()
        if self._session is not None:
            await self._session.close()
        if self._watchdog is not None:
            self._watchdog.close()

    async def send(self, request: Outgoing, *, cap: int, timeout_s: float) -> Answer:
        """Send a request and return its answer.

        Args:
            request: The request, authorised.
            cap: The most bytes of the body to read.
            timeout_s: How long the answer may take.

        Raises: aiohttp.ClientError, OSError or TimeoutError without an answer: see `silence`.
        """
        by = self._plain if self._fast is None else self._fast.send
        return await self._awaited(partial(by, request, cap, timeout_s), request)

    def post(self, request: Outgoing, *, cap: int, timeout_s: float, came: Came) -> None:
        """Send a request, and have *came* told of its answer; for the others see `send`."""

        def told(reply: Reply | Callable[[], Awaitable[Reply]]) -> None:
            if isinstance(reply, Reply):
                came(self._answer(reply, request))
            else:
                came(partial(self._awaited, reply, request))

        if self._fast is None:
            told(partial(self._plain, request, cap, timeout_s))
        else:
            self._fast.post(request, cap, timeout_s, told)

    def hand_over(self) -> None:
        """Have all answers that are out awaited by who is told of them, as some always are."""
        if self._fast is not None:
            self._fast.hand_over()

    async def _awaited(self, sending: Callable[[], Awaitable[Reply]], request: Outgoing) -> Answer:
        try:
            reply = await sending()
        except BaseException:
            self.requests += CONNECTION.get() != 0  # else nothing has left this machine
            raise
        return self._answer(reply, request)

    def connection(self) -> int:
        """Return the number of the current task's last connection; 0 if it got none."""
        return CONNECTION.get()

    def distrust(self, number: int) -> None:
        """Report a connection whose answers may be to other requests, and use it for no other."""
        if number:  # else the request got none
            self._connector.distrust(number)

    async def _plain(self, request: Outgoing, cap: int, timeout_s: float) -> Reply:
        """Send a request where the fast path does not serve."""
        assert self._session is not None, "enter the session first"  # a programmer's error
        assert self._watchdog is not None  # as above
        CONNECTION.set(0)
        body = request.body
        data = None if body is None else aiohttp.BytesPayload(body, content_type=_JSON)
        sent = self._session.request(
            request.method,
            URL(self._endpoint + request.path, encoded=True),
            data=data,
            headers=request.headers,
            proxy_headers=self._proxy.headers if self._proxy else None,
            allow_redirects=False,
        )
        with self._watchdog.timeout(timeout_s):
            async with sent as response:
                text, whole = await read_body(response.content, cap)
                if not whole:
                    response.close()
                return Reply(response.status, response.headers, text, whole, CONNECTION.get())

    def _answer(self, reply: Reply, request: Outgoing) -> Answer:
        self.requests += 1
        headers = reply.headers
        if headers is not self._headers:  # the same head is read once: see `Heads`
            self._headers, date = headers, headers.get(hdrs.DATE)
            self._read = date, _retry_after(headers, date), headers.get(_X_REQUEST_ID)
        date, retry_after, request_id = self._read
        return Answer(
            status=reply.status,
            body=reply.body,
            date=date,
            retry_after=retry_after,
            x_date_s=float(int(request.signed_s)),
            whole=reply.whole,
            limits=self._limits(reply, date),
            request_id=request_id,
            connection=reply.connection,
        )

    def _limits(self, reply: Reply, date: str | None) -> tuple[ServerLimit, ...]:
        """Return the limits that an answer states; skip the search if the server states none."""
        may_state_limits = self._states_limits or self.requests <= ALWAYS_PARSED
        if not may_state_limits and reply.status != THROTTLED:
            return ()
        limits = stated_limits(reply.headers, date)
        self._states_limits = bool(limits)
        return limits


def _retry_after(headers: Mapping[str, str], date: str | None) -> str | None:
    """Return the first that can be used of the header and its unofficial twin; None: neither."""
    for name in (hdrs.RETRY_AFTER, X_RETRY_AFTER):
        text = headers.get(name)
        if text is not None and retry_after(text, date) is not None:
            return text
    return None

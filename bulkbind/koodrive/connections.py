"""Connections with the endpoint: what is done with the inside of aiohttp, and nothing else does.

Connections notice what is said unasked. On the fast path a request is written to one of them as
bytes, and its answer read: `ClientSession.request` takes two thirds of the time that a request
costs. Pool, DNS, TLS, proxies and limits are those of the session's connector; what goes over the
wire is the same, byte for byte, and so is what is raised where no answer comes.

aiohttp does not promise what this relies on: `RELIES_ON` names it all, `test_fast_path.py` fails
where it has changed, and with other releases than those of `SERVES` the plain path is taken.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import aiohttp
import msgspec
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_writer import _serialize_headers
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.tracing import Trace

    from bulkbind.koodrive.auth.credential import Outgoing
    from bulkbind.koodrive.transport import Proxy

SERVES = "3.14."
"""How the releases of aiohttp begin whose inside is known; pyproject.toml has the same bound."""
RELIES_ON = {
    aiohttp.ClientSession: "_retry_connection",
    ClientRequest: "connection_key headers",
    BaseConnector: "connect _get _release _conns _factory",
    Connection: "protocol release close",
    ResponseHandler: "transport should_close set_response_params read data_received resume_reading "
    "force_close _buffer _tail _reading_paused",
}
"""Methods and attributes. Besides: `HttpProcessingError`, `code` and `headers` of the message that
`read` returns with the body, and `serialized`, which raises a ValueError for what no header may
hold."""
serialized = cast("Callable[[str, Mapping[str, str]], bytes]", _serialize_headers)
BUFFER_BYTES = 1 << 16
"""Where more of a body waits to be read, no more is received; as of a session."""
_INFORMATIONAL = frozenset(range(100, 200)) - {101}
"""Statuses that another answer follows."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    """False if the body was truncated at the cap."""


async def read_body(content: aiohttp.StreamReader, cap: int) -> tuple[bytes, bool]:
    """Return a body up to *cap* bytes, and whether that is all."""
    first = content.read_nowait() if content.is_eof() else await content.readany()
    if content.at_eof() and len(first) <= cap:
        return first, True
    parts, size = [first], len(first)
    while size <= cap and not content.at_eof():
        parts.append(await content.readany())
        size += len(parts[-1])
    return (b"".join(parts)[:cap], False) if size > cap else (b"".join(parts), True)


CONNECTION = ContextVar("connection", default=0)
"""The number of the connection that the current task's request goes over."""


class QuietProtocol(ResponseHandler):
    """A connection that notices what it is sent without a request.

    Attributes:
        number: The connection's, from 1.
        is_idle: Whether it waits for a request.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connector: QuietConnector) -> None:
        super().__init__(loop)
        self._connector = connector
        self.is_idle = False
        self.number = connector.new(self)

    def data_received(self, data: bytes) -> None:
        """Pass data on, and report it if nothing was asked."""
        if self.is_idle and data:  # aiohttp passes none on when it resumes reading
            self._connector.on_unasked(self.number)
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  # aiohttp's
        """Resume where reading was paused; aiohttp asks for it twice an answer."""
        if self._reading_paused:
            super().resume_reading(resume_parser)


class QuietConnector(aiohttp.TCPConnector):
    """Drops a connection that has received data without a request, and reports it.

    aiohttp checks a connection when it is released, not when it is acquired: it would take such
    data for the answer to the next request.
    """

    # aiohttp has no public hooks for this; tests check that they are called.
    def __init__(self, on_unasked: Callable[[int], None], **options: Any) -> None:
        """*on_unasked*: called with the number of a connection, perhaps more than once."""
        super().__init__(**options)
        self.on_unasked = on_unasked
        self._numbers = itertools.count(1)
        self._protocols: WeakValueDictionary[int, QuietProtocol] = WeakValueDictionary()
        self._factory = cast("partial[ResponseHandler]", partial(QuietProtocol, self._loop, self))

    def new(self, protocol: QuietProtocol) -> int:
        """Return the number of a new connection, made for the request of the current task."""
        number = next(self._numbers)
        self._protocols[number] = protocol
        CONNECTION.set(number)
        return number

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if isinstance(protocol, QuietProtocol) and not protocol.should_close:
                protocol.is_idle = False
                CONNECTION.set(protocol.number)
                return connection
            connection.close()
        return None

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        assert isinstance(protocol, QuietProtocol)  # as `_factory` makes them
        protocol.is_idle = True
        if not should_close and (protocol._buffer or protocol._tail):  # noqa: SLF001  # as above
            self.on_unasked(protocol.number)
        super()._release(key, protocol, should_close=should_close)

    def distrust(self, number: int) -> None:
        """Report a connection, and give it to no other request."""
        self.on_unasked(number)
        if (protocol := self._protocols.get(number)) is not None:
            protocol.force_close()


def send_once(session: aiohttp.ClientSession) -> None:
    """Let a session send each request once.

    aiohttp has no public switch: by default it sends a GET or DELETE again when an idle connection
    breaks, bypassing the pacer and with the same trace id.
    """
    session._retry_connection = False  # noqa: SLF001  # see RELIES_ON


class FastPath:
    """Sends requests to one endpoint over the connections of a session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        proxy: Proxy | None,
        content_type: str,
        *,
        may_send: Callable[[], None] = lambda: None,
    ) -> None:
        """*content_type*: of every body; *may_send*: see `HttpSession`."""
        self._may_send = may_send
        assert session.connector is not None  # until it is closed
        self._connector = session.connector
        self._endpoint = endpoint
        self._timeout = session.timeout
        url = URL(endpoint)
        for_proxy = None
        if proxy is not None:
            # The connector adds Host, and its pool tells connections apart by these headers.
            host = url.host_port_subcomponent or ""
            for_proxy = CIMultiDict({**(proxy.headers or {}), hdrs.HOST: host})
        self._like = ClientRequest(
            hdrs.METH_GET,
            url,
            headers=session.headers,
            loop=asyncio.get_running_loop(),
            session=session,
            proxy=URL(proxy.url) if proxy else None,
            proxy_headers=for_proxy,
        )
        """A request to the endpoint: what the connector needs to know of those to come."""
        self._key = self._like.connection_key
        first = {hdrs.HOST: "", **session.headers}
        headers = self._like.headers
        self._first = {name: headers[name] for name in first}
        self._last = {name: text for name, text in headers.items() if name not in first}
        self._content_type = content_type

    @staticmethod
    def serves() -> bool:
        """Return whether the inside of the installed aiohttp is known."""
        return aiohttp.__version__.startswith(SERVES)

    async def send(
        self, request: Outgoing, cap: int, in_time: AbstractContextManager[None]
    ) -> Reply:
        """Send a request and return its answer.

        Args:
            request: The request, authorised.
            cap: The most bytes of the body to read.
            in_time: Raises a TimeoutError in its block when the time is over.

        Raises: ValueError for what no header may hold; without an answer as
            `ClientSession.request`, and if nothing was sent, then always what it raises without a
            connection.
        """
        data = self.written(request)
        connection: Connection | None = None
        try:
            with in_time:
                connection = await self._connected()
                return await self._exchanged(connection, data, cap)
        except TimeoutError as error:
            if connection is not None:
                raise
            raise aiohttp.ConnectionTimeoutError(f"{self._endpoint} took too long") from error

    def written(self, request: Outgoing) -> bytes:
        """Return a request as bytes. Raises: ValueError for what no header may hold."""
        headers: dict[str, str] = {**self._first, **request.headers, **self._last}
        body = request.body
        if body is not None:
            headers[hdrs.CONTENT_LENGTH] = str(len(body))
            headers[hdrs.CONTENT_TYPE] = self._content_type
        elif request.method != hdrs.METH_GET:
            headers[hdrs.CONTENT_LENGTH] = "0"
        target = _target(self._endpoint + request.path)
        head = serialized(f"{request.method} {target} HTTP/1.1", headers)
        return head + body if body else head

    async def _connected(self) -> Connection:
        """Return a connection that can be written to and has said nothing yet."""
        connection = await self._connector._get(self._key, [])  # noqa: SLF001  # see RELIES_ON
        if connection is not None:
            return connection
        connection = await self._connector.connect(self._like, [], self._timeout)
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.should_close:
            connection.close()
            lost = ConnectionResetError(errno.ECONNRESET, "it broke before anything was sent")
            raise aiohttp.ClientConnectorError(self._key, lost)
        return connection

    async def _exchanged(self, connection: Connection, data: bytes, cap: int) -> Reply:
        protocol = connection.protocol
        assert protocol is not None  # as `_connected` has seen
        assert protocol.transport is not None  # as above
        try:
            protocol.set_response_params(read_until_eof=True, read_bufsize=BUFFER_BYTES)
            self._may_send()
            protocol.transport.write(data)
            message, content = await protocol.read()
            while message.code in _INFORMATIONAL:
                message, content = await protocol.read()
            body, whole = await read_body(content, cap)
        except HttpProcessingError as error:
            connection.close()
            raise aiohttp.ClientResponseError(
                self._like.request_info,
                (),
                status=error.code,
                message=error.message,
                headers=error.headers,
            ) from error
        except BaseException:
            connection.close()
            raise
        if whole:
            connection.release()
        else:
            connection.close()
        return Reply(message.code, message.headers, body, whole)


@lru_cache(maxsize=64)  # nearly every request has the same
def _target(url: str) -> str:
    """Return path and query of a URL as aiohttp writes them: without a fragment."""
    return URL(url, encoded=True).raw_path_qs

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
import re
from collections import deque
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast
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
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.http import RawResponseMessage
    from aiohttp.tracing import Trace

    from bulkbind.koodrive.auth.credential import Outgoing
    from bulkbind.koodrive.transport import Proxy
    from bulkbind.koodrive.watchdog import Watchdog

SERVES = "3.14."
"""How the releases of aiohttp begin whose inside is known; pyproject.toml has the same bound."""
RELIES_ON = {
    aiohttp.ClientSession: "_retry_connection",
    ClientRequest: "connection_key headers",
    BaseConnector: "connect _get _release _conns _factory",
    Connection: "protocol release close",
    ResponseHandler: "transport should_close set_response_params read data_received resume_reading "
    "feed_data set_exception force_close is_connected _buffer _tail _reading_paused _should_close "
    "_on_read_timeout",
}
"""Methods and attributes. Besides: `HttpProcessingError`, what is `READ` of an answer, and
`serialized`, which raises a ValueError for what no header may hold."""
READ = "code headers should_close chunked compression"
"""Attributes of the message that `read` returns with the body."""
serialized = cast("Callable[[str, Mapping[str, str]], bytes]", _serialize_headers)
BUFFER_BYTES = 1 << 16
"""Where more of a body waits to be read, no more is received; as of a session."""
TOGETHER = 16
"""So many requests at most are written one after the other: more would wait for a millisecond."""
MOST_KEPT = 256
"""Bodies of so many lengths, or requests of so many kinds, are written quickly."""
_FINAL = 200
"""The first of the statuses that no other answer follows."""
_INFORMATIONAL = frozenset(range(100, _FINAL)) - {101}
"""Statuses that another answer follows."""
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._~%-]*")
"""Paths that aiohttp writes as they are, which it finds out at length."""
_END = b"\r\n\r\n"
"""The end of a head."""


_Read: TypeAlias = "tuple[RawResponseMessage, aiohttp.StreamReader | bytes]"
"""An answer as a connection hands it over: its body comes, or is there."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    """False if the body was truncated at the cap."""
    connection: int
    """The number of its connection."""


Came: TypeAlias = "Callable[[Reply | Callable[[], Awaitable[Reply]]], None]"
"""Takes an answer, or what is called and awaited for it: that raises as `FastPath.send`."""


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


MOST_HEADS = 256


class Heads:
    """Heads of answers as aiohttp has read them: it need not read the same bytes again.

    Answers of one second mostly begin alike; a gateway that gives each an id of its own gains
    nothing. Only heads are kept that a body of known length follows, on a connection that goes on.
    """

    def __init__(self) -> None:
        self._read: dict[bytes, tuple[RawResponseMessage, int]] = {}
        """As read, and the length of the whole answer."""

    def reply(self, data: bytes) -> tuple[RawResponseMessage, bytes] | None:
        """Return what is read of an answer, and its body, if all of it is there and no more."""
        end = data.find(_END) + len(_END)
        known = self._read.get(data[:end])
        return None if known is None or known[1] != len(data) else (known[0], data[end:])

    def learn(self, first: bytes, message: RawResponseMessage, body: bytes) -> int | None:
        """Remember how an answer began, if that can be read again.

        *first*: what was received at once. Returns: The length of it all; None: not known.
        """
        end = first.find(_END) + len(_END)
        is_plain = not (message.should_close or message.chunked or message.compression)
        has_length = message.headers.getall(hdrs.CONTENT_LENGTH, ()) == [str(len(body))]
        if not (is_plain and has_length and end >= len(_END) and message.code >= _FINAL):
            return None
        if len(self._read) >= MOST_HEADS:
            self._read.clear()
        self._read[first[:end]] = message, end + len(body)
        return end + len(body)


CONNECTION = ContextVar("connection", default=0)
"""The number of the connection that the current task's request goes over."""


class QuietProtocol(ResponseHandler):
    """A connection that notices what it is sent without a request.

    Attributes:
        number: The connection's, from 1.
        is_idle: Whether it waits for a request.
        request: What is still to be written, by the fast path; empty: nothing.
        first: What the fast path received first of the answer; empty: nothing yet; None: it does
            not ask.
        received: Of the answer so far, in bytes.
        is_clean: Whether the parser has seen whole answers, and no byte more.
        idle_since: Since when, by the clock of the event loop.
        due_at: By when its request has to be answered, by the same clock.
        path: The fast path, if that sends over it.
        connection: The connector's own, if that does.
        posted: Who is told of the answer, unless somebody awaits it, and the cap of its body.
    """

    path: FastPath
    connection: Connection | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, connector: QuietConnector) -> None:
        super().__init__(loop)
        self._connector = connector
        self.is_idle = False
        self.request = b""
        self.first: bytes | None = None
        self.received = 0
        self.is_clean = True
        self.idle_since = self.due_at = 0.0
        self.posted: tuple[Came, int] | None = None
        self.number = connector.new(self)

    def data_received(self, data: bytes) -> None:
        """Pass data on; if nothing was asked, report it, and let it be the last."""
        if data and (self.is_idle or self.request):  # aiohttp passes none when it resumes reading
            self.force_close()
            self._connector.on_unasked(self.number)
            if self.request:
                self.set_exception(ConnectionResetError(errno.ECONNRESET, "it spoke unasked"))
                return
        elif self.first == b"":
            reply = self._connector.heads.reply(data) if self.is_clean else None
            if reply is not None:
                self.first, self.is_idle = None, True  # what follows was not asked
                if self.posted is None:
                    self.feed_data(reply)  # type: ignore[arg-type]  # `FastPath` takes both
                else:
                    self._land(*reply)
                return
            self.first = data
        self.received += len(data)
        super().data_received(data)
        if self.posted is not None:
            self._read_posted()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Let the request end without an answer."""
        super().set_exception(exc, *cause)
        if self.posted is not None:
            self.let_await()

    def _read_posted(self) -> None:
        """Tell of an answer that has come at once; let any other be awaited."""
        if len(self._buffer) == 1 and not self._reading_paused:
            message, content = self._buffer[0][0]
            if message.code >= _FINAL and content.is_eof() and content.exception() is None:
                self._buffer.clear()
                body = content.read_nowait()
                self.path.learn(self, message, body)
                self._land(message, body)
                return
        self.let_await()

    def _land(self, message: RawResponseMessage, body: bytes) -> None:
        assert self.posted is not None  # as those who call it have seen
        (came, cap), self.posted = self.posted, None
        came(self.path.landed(self, message, body[:cap], whole=len(body) <= cap))

    def let_await(self) -> None:
        """Have the answer to what is posted awaited by whoever is told of it."""
        assert self.posted is not None  # as those who call it have seen
        (came, cap), self.posted = self.posted, None
        came(partial(self.path.answer, self, cap))

    def close_connection(self) -> None:
        """Have the connector close it, if the fast path had it."""
        if self.connection is not None:
            self.connection.close()

    def cut(self) -> None:
        """Have whoever waits for the answer receive a TimeoutError, as aiohttp does."""
        self._on_read_timeout()

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
        self.heads = Heads()
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

    def protocols(self) -> list[QuietProtocol]:
        """Return all connections."""
        return list(self._protocols.values())

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
    """Sends requests to one endpoint over connections that the connector of a session makes.

    What has been used waits here for the next request, and not in the connector's pool.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: str,
        proxy: Proxy | None,
        *,
        watchdog: Watchdog,
        content_type: str,
        idle_s: float,
        may_send: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with no connection.

        *content_type*: of every body; *idle_s*: for how long a connection may be idle; *may_send*:
        see `HttpSession`.
        """
        assert isinstance(session.connector, QuietConnector)  # as made for it
        self._may_send = may_send
        self._connector = session.connector
        self._endpoint = endpoint
        self._timeout = session.timeout
        self._watchdog = watchdog
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._asking: list[QuietProtocol] = []
        """Connections with requests to be written."""
        self._kept: deque[QuietProtocol] = deque()
        """Idle connections, the one that has been so for longest first."""
        self._like = like_all(session, endpoint, proxy)
        first = {hdrs.HOST: "", **session.headers}
        headers = self._like.headers
        self._first = {name: headers[name] for name in first}
        self._last = {name: text for name, text in headers.items() if name not in first}
        self._content_type = content_type
        self._starts: dict[str, bytes] = {}
        """The first lines of requests, as written, by the very first of them."""
        self._ends: dict[int, bytes] = {}
        """The last lines, as written, by the length of the body."""
        self._usual: set[tuple[str, ...]] = set()
        """Names of headers of requests, none of which the first and the last lines have."""

    @staticmethod
    def serves() -> bool:
        """Return whether the inside of the installed aiohttp is known."""
        return aiohttp.__version__.startswith(SERVES)

    def close(self) -> int:
        """Close all connections; return how many posted requests were out that nobody awaited."""
        protocols = self._connector.protocols()
        out = sum(each.posted is not None and not each.request for each in protocols)
        for protocol in protocols:
            protocol.posted = None
            protocol.close_connection()
        return out

    def post(self, request: Outgoing, cap: int, timeout_s: float, came: Came) -> None:
        """Send a request as `send` does, and have *came* told of its answer.

        Raises: ValueError for what no header may hold.
        """
        data = self.written(request)
        protocol = self._idle()
        if protocol is None:
            came(partial(self._send, data, cap, timeout_s))
        else:
            protocol.posted = came, cap
            self._ask(protocol, data, self._loop.time() + timeout_s)

    def hand_over(self) -> None:
        """Have the answers to all posted requests that are out awaited by who is told of them."""
        for protocol in self._connector.protocols():
            if protocol.posted is not None:
                protocol.let_await()

    def send(self, request: Outgoing, cap: int, timeout_s: float) -> Coroutine[Any, Any, Reply]:
        """Send a request and return its answer.

        Args:
            request: The request, authorised.
            cap: The most bytes of the body to read.
            timeout_s: How long all of it may take.

        Raises: ValueError for what no header may hold; without an answer as
            `ClientSession.request`, and if nothing was sent, then always what it raises without a
            connection.
        """
        return self._send(self.written(request), cap, timeout_s)

    async def _send(self, data: bytes, cap: int, timeout_s: float) -> Reply:
        due_at = self._loop.time() + timeout_s
        protocol = self._idle()
        if protocol is None:
            protocol = await self._new(timeout_s)
        self._ask(protocol, data, due_at)
        return await self.answer(protocol, cap)

    def _ask(self, protocol: QuietProtocol, data: bytes, due_at: float) -> None:
        protocol.due_at, protocol.request, protocol.first, protocol.received = due_at, data, b"", 0
        self._watchdog.watch(protocol)
        self._write_soon(protocol)

    async def answer(self, protocol: QuietProtocol, cap: int) -> Reply:
        """Return the answer to the request that is out on a connection. Raises: as `send`."""
        try:
            message, content = cast("_Read", await protocol.read())
            while message.code in _INFORMATIONAL:
                protocol.first = None  # it is not the answer's
                message, content = cast("_Read", await protocol.read())
            if isinstance(content, bytes):
                body, whole = content[:cap], len(content) <= cap
            else:
                body, whole = await read_body(content, cap)
                self.learn(protocol, message, body)
        except BaseException as error:
            self._watchdog.let_go(protocol)
            protocol.close_connection()
            told = self._failure(protocol, error)
            if told is error:
                raise
            raise told from error
        return self.landed(protocol, message, body, whole=whole)

    def landed(
        self, protocol: QuietProtocol, message: RawResponseMessage, body: bytes, *, whole: bool
    ) -> Reply:
        """Let a connection go whose answer has come, and return that."""
        self._watchdog.let_go(protocol)
        if whole:
            self._keep(protocol)
        else:
            protocol.close_connection()
        return Reply(message.code, message.headers, body, whole, protocol.number)

    def _write_soon(self, protocol: QuietProtocol) -> None:
        """Write a request, with others that are made in this round of the event loop.

        Each system call leaves what runs after it cold: one by one costs up to a fifth more.
        """
        self._asking.append(protocol)
        if len(self._asking) == 1:
            self._loop.call_soon(self._write_all)
        elif len(self._asking) >= TOGETHER:
            self._write_all()

    def _write_all(self) -> None:
        asking, self._asking = self._asking, []
        for protocol in asking:
            transport = protocol.transport
            if transport is None or transport.is_closing() or protocol.should_close:
                continue  # whoever waits for the answer learns it
            try:
                self._may_send()
            except Exception as error:  # noqa: BLE001  # raised where the answer is waited for
                protocol.set_exception(error)
                continue
            data, protocol.request = protocol.request, b""
            transport.write(data)

    def _failure(self, protocol: QuietProtocol, error: BaseException) -> BaseException:
        """Return what is raised for what ended a request, once its connection is closed."""
        if protocol.request:
            protocol.request = b""
            CONNECTION.set(0)
            is_lost = isinstance(error, (aiohttp.ClientError, OSError))
            return self._lost() if is_lost else error
        CONNECTION.set(protocol.number)
        if isinstance(error, HttpProcessingError):
            return aiohttp.ClientResponseError(
                self._like.request_info,
                (),
                status=error.code,
                message=error.message,
                headers=error.headers,
            )
        return error

    def _lost(self) -> aiohttp.ClientConnectorError:
        """Return what is raised for a connection that broke before anything was sent."""
        lost = ConnectionResetError(errno.ECONNRESET, "it broke before anything was sent")
        return aiohttp.ClientConnectorError(self._like.connection_key, lost)

    def learn(self, protocol: QuietProtocol, message: RawResponseMessage, body: bytes) -> None:
        """Remember how an answer began; report what came too much, if that can be told."""
        first, protocol.first = protocol.first, None
        length = self._connector.heads.learn(first, message, body) if first else None
        protocol.is_clean = protocol.received == length
        if length is not None and protocol.received > length:
            protocol.force_close()
            self._connector.on_unasked(protocol.number)

    def _idle(self) -> QuietProtocol | None:
        """Return the connection that was used last; close what has been idle for too long."""
        kept, idle_since = self._kept, self._loop.time() - self._idle_s
        while kept and kept[0].idle_since < idle_since:
            kept.popleft().close_connection()
        while kept:
            protocol = kept.pop()
            # Nothing else can have changed since it was kept: whatever came has set this.
            if protocol.is_connected() and not protocol._should_close:  # noqa: SLF001  # as above
                protocol.is_idle = False
                return protocol
            protocol.close_connection()
        return None

    def _keep(self, protocol: QuietProtocol) -> None:
        """Let a connection wait for the next request, unless something speaks against it."""
        if protocol.should_close and protocol.connection is not None:
            protocol.connection.release()  # which reports what was said too much
            return
        protocol.is_idle = True
        protocol.idle_since = self._loop.time()
        self._kept.append(protocol)

    async def _new(self, timeout_s: float) -> QuietProtocol:
        """Return a new connection that can be written to and has said nothing yet."""
        CONNECTION.set(0)
        try:
            with self._watchdog.timeout(timeout_s):
                connection = await self._connector.connect(self._like, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"{self._endpoint} took too long") from error
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.should_close:
            connection.close()
            raise self._lost()
        assert isinstance(protocol, QuietProtocol)  # as the connector makes them
        protocol.set_response_params(read_until_eof=True, read_bufsize=BUFFER_BYTES)
        protocol.path, protocol.connection = self, connection
        return protocol

    def written(self, request: Outgoing) -> bytes:
        """Return a request as bytes. Raises: ValueError for what no header may hold."""
        line = _request_line(request.method, self._endpoint, request.path)
        body = request.body
        if body is None or tuple(request.headers) not in self._usual:
            return self._written_first(line, request)
        # aiohttp looks at each character: of what nearly all requests have, that was done.
        start, end = self._starts.get(line), self._ends.get(len(body))
        if start is None or end is None:
            return self._written_first(line, request)
        return b"".join((start, serialized("", request.headers)[2:-2], end, body))

    def _written_first(self, line: str, request: Outgoing) -> bytes:
        """Return a request as bytes, and keep what the next ones may have as well."""
        body, last = request.body, dict(self._last)
        if body is not None:
            last[hdrs.CONTENT_LENGTH] = str(len(body))
            last[hdrs.CONTENT_TYPE] = self._content_type
        elif request.method != hdrs.METH_GET:
            last[hdrs.CONTENT_LENGTH] = "0"
        if body is not None and request.headers.keys().isdisjoint({**self._first, **last}):
            for kept in (self._starts, self._ends, self._usual):
                if len(kept) >= MOST_KEPT:
                    kept.clear()
            self._usual.add(tuple(request.headers))
            self._starts[line] = serialized(line, self._first)[:-2]
            self._ends[len(body)] = serialized("", last)[2:]
        head = serialized(line, {**self._first, **request.headers, **last})
        return head + body if body else head


def like_all(session: aiohttp.ClientSession, endpoint: str, proxy: Proxy | None) -> ClientRequest:
    """Return a request to the endpoint: what the connector needs to know of those to come."""
    url = URL(endpoint)
    for_proxy = None
    if proxy is not None:
        # The connector adds Host, and tells connections apart by these headers.
        host = url.host_port_subcomponent or ""
        for_proxy = CIMultiDict({**(proxy.headers or {}), hdrs.HOST: host})
    return ClientRequest(
        hdrs.METH_GET,
        url,
        headers=session.headers,
        loop=asyncio.get_running_loop(),
        session=session,
        proxy=URL(proxy.url) if proxy else None,
        proxy_headers=for_proxy,
    )


@lru_cache(maxsize=64)  # nearly every request has the same
def _request_line(method: str, endpoint: str, path: str) -> str:
    """Return the first line of a request as aiohttp writes it: without a fragment."""
    is_plain = _PLAIN_PATH.fullmatch(path)
    target = path if is_plain else URL(endpoint + path, encoded=True).raw_path_qs
    return f"{method} {target} HTTP/1.1"

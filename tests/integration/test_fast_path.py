"""The fast path sends what the plain one sends, knows what was sent, and keeps what is clean.

What faults and strange answers come to on both is in `test_client.py` and `test_connector.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import BaseConnector, Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from multidict import istr

from bulkbind.clock import SystemClock
from bulkbind.koodrive import connections
from bulkbind.koodrive.auth.credential import App, Outgoing, Token
from bulkbind.koodrive.connections import READ, RELIES_ON, SERVES, FastPath
from bulkbind.koodrive.http import HttpSession
from bulkbind.model import Accepted, Attempt, Device, NoAnswer, Unreachable
from bulkbind.sandbox import Sandbox, SandboxOptions
from bulkbind.settings import ApiSettings
from tests.acceptance.test_doctor import Proxy
from tests.integration.test_client import DEVICE, PATH, drive
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.engine.ports import Came

CLOCK = SystemClock()
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"code":0,"data":null}'


class Raw:
    """A server that answers each request with bytes, and keeps what it was sent."""

    def __init__(self, answer=ANSWER, *, greeting=b"", closes=False):
        """*answer*: None: it hangs up. *greeting*: said first. *closes*: hangs up after it."""
        self._answer = answer
        self._greeting = greeting
        self._closes = closes
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._talk(reader, writer), name="raw"))

    async def _talk(self, reader, writer):
        try:
            writer.write(self._greeting)
            while not self._closes:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.requests.append(head + body)
                if self._answer is None:
                    break
                writer.write(self._answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def http(url, **api):
    """Return a session with an endpoint."""
    return HttpSession(ApiSettings(**api), url)


# --- what it relies on ----------------------------------------------------------------------------


def sets(kind, name):
    """Return whether the methods of a class set an attribute."""
    return kind.__module__.startswith("aiohttp") and f"self.{name}" in inspect.getsource(kind)


def test_what_it_relies_on_is_as_it_was():
    """Another release of aiohttp must be read before it is let in."""
    calls: dict[Callable[..., object], str] = {
        BaseConnector.connect: "self req traces timeout",
        BaseConnector._get: "self key traces",
        BaseConnector._release: "self key protocol should_close",
        ResponseHandler.read: "self",
        ResponseHandler.data_received: "self data",
        ResponseHandler.resume_reading: "self resume_parser",
        Connection.release: "self",
        Connection.close: "self",
    }

    found = [" ".join(inspect.signature(call).parameters) for call in calls]
    lacking = [
        f"{kind.__name__}.{name}"
        for kind, names in RELIES_ON.items()
        for name in names.split()
        if not (hasattr(kind, name) or any(sets(base, name) for base in kind.__mro__[:-1]))
    ]
    asked = set(inspect.signature(ClientRequest).parameters)
    answered = set(inspect.signature(ResponseHandler.set_response_params).parameters)
    error = HttpProcessingError(code=400, message="no", headers=None)

    assert lacking == []
    assert found == list(calls.values())
    assert asked >= {"method", "url", "headers", "loop", "session", "proxy", "proxy_headers"}
    assert answered >= {"read_until_eof", "read_bufsize"}
    assert all(hasattr(RawResponseMessage, name) for name in READ.split())
    assert (error.code, error.message, error.headers) == (400, "no", None)
    assert connections.serialized("GET / HTTP/1.1", {"A": "b"}) == b"GET / HTTP/1.1\r\nA: b\r\n\r\n"


def test_the_bound_of_the_dependency_is_that_of_the_path():
    """No release whose inside nobody has read can be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bound,) = [text for text in project["dependencies"] if text.startswith("aiohttp")]

    major, minor, _ = SERVES.split(".")
    assert bound.endswith(f",<{major}.{int(minor) + 1}")
    assert FastPath.serves()


@pytest.mark.parametrize(("version", "calls"), [("3.14.99", 0), ("3.15.0", 1), ("4.0.0", 1)])
async def test_other_releases_take_the_plain_path(monkeypatch, version, calls):
    """What is not known is not used: the request goes out all the same."""
    asked = []
    request = aiohttp.ClientSession._request

    async def counted(*args, **options):
        asked.append(args)
        return await request(*args, **options)

    monkeypatch.setattr(aiohttp, "__version__", version)
    monkeypatch.setattr(aiohttp.ClientSession, "_request", counted)
    async with Raw().serving() as server, drive(server.url) as client:
        await client.bind(DEVICE)

    assert (len(server.requests), len(asked)) == (1, calls)


# --- what is sent ---------------------------------------------------------------------------------


def outgoing(method, path=PATH, body=None, **headers):
    """Return a request, without Host."""
    told: dict[str, str] = {istr(name.replace("_", "-")): text for name, text in headers.items()}
    return Outgoing(method, path, "", told, body)


REQUESTS = {
    "bind": lambda: outgoing("POST", body=b'{"machineCode":"SN"}', X_User_Id="u", X_Traceid="t"),
    "empty body": lambda: outgoing("POST", body=b""),
    "list": lambda: outgoing("GET", X_User_Id="u", Authorization="Bearer \u00e4\u20ac"),
    "unbind": lambda: outgoing("DELETE", f"{PATH}/18%2F4", X_User_Id="u"),
    "query": lambda: outgoing("GET", "/a/../b?x=%41&y=+#part"),
    "dots": lambda: outgoing("DELETE", "/a/./../%2e/%41~-_.", X_User_Id="u"),
    "two slashes": lambda: outgoing("POST", "//a", b"{}"),
    "tab": lambda: outgoing("GET", X_User_Id="a\tb"),
    "app": lambda: signed(App("app1", "s3cret")),
    "token": lambda: signed(Token("AT hush")),
    "own agent": lambda: outgoing("POST", body=b"[]", X_User_Id="u", User_Agent="another"),
}


def signed(credential):
    """Return an authorised request."""
    request = outgoing("POST", body=b"{}", X_User_Id="u", X_Date="20251103T070140Z")
    request.host = "127.0.0.1:1"
    credential.authorize(request)
    return request


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_paths_write_the_same_bytes(request, name):
    """Whatever is asked for: method, target, every header in its order, and body."""
    async with Raw().serving() as server:
        async with http(server.url) as fast:
            await fast.send(REQUESTS[name](), cap=99, timeout_s=5)
        request.getfixturevalue("plain_path")
        async with http(server.url) as plain:
            await plain.send(REQUESTS[name](), cap=99, timeout_s=5)

    assert server.requests[0] == server.requests[1]
    assert server.requests[0].count(b"Host: ") == 1


async def test_whatever_was_written_before_a_request_is_written_the_same():
    """What many have in common is kept, as bytes: never where one of them has something else."""
    async with Raw().serving() as server, http(server.url) as session:
        for _ in range(3):
            for make in REQUESTS.values():
                await session.send(make(), cap=99, timeout_s=5)
        for make in REQUESTS.values():
            async with http(server.url) as anew:
                await anew.send(make(), cap=99, timeout_s=5)

    some = len(REQUESTS)
    assert server.requests == server.requests[-some:] * 4


async def test_what_is_kept_of_requests_is_bounded(monkeypatch):
    """Of a great many kinds, what is kept is thrown away now and then."""
    monkeypatch.setattr(connections, "MOST_KEPT", 3)
    async with Raw().serving() as server, http(server.url) as session:
        for number in range(20):
            request = outgoing("POST", f"/{number}", b"{}" * number, **{f"X_{number}": "x"})
            await session.send(request, cap=99, timeout_s=5)
        kept = [session._fast._starts, session._fast._ends, session._fast._usual]

    assert all(1 <= len(each) <= 3 for each in kept)
    assert len(server.requests) == 20


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\nX-Evil: 1", "\x7f", "\x1b"])
@pytest.mark.parametrize("name", ["X-User-Id", "Authorization", "X-{}"])
async def test_nothing_is_written_that_could_end_a_header(bad, name):
    """CR, LF, NUL and their like are an error of the program, before anything is sent."""
    requests = [outgoing("GET"), outgoing("POST", body=b"{}"), outgoing("POST", body=b"{}")]
    async with Raw().serving() as server, http(server.url) as session:
        for number, request in enumerate(requests):
            request.headers[name.format(bad)] = f"a{bad}b"
            with pytest.raises(ValueError, match="control character"):
                await session.send(request, cap=99, timeout_s=5)
            if number == 1:  # the last one is like others that were written
                usual = outgoing("POST", body=b"{}")
                usual.headers[name.format("")] = "ab"
                await session.send(usual, cap=99, timeout_s=5)

    assert len(server.requests) == 1


# --- what was sent --------------------------------------------------------------------------------


def let_it_speak_first(monkeypatch, wait_s=0.05):
    """Let what a server says on a new connection arrive before the request is written."""
    connect = BaseConnector.connect

    async def slow(*args, **options):
        connection = await connect(*args, **options)
        await CLOCK.sleep(wait_s)
        return connection

    monkeypatch.setattr(BaseConnector, "connect", slow)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"greeting": ANSWER}, id="an answer before the request"),
        pytest.param({"greeting": b"HTTP/1"}, id="a part of one"),
        pytest.param({"closes": True}, id="closed"),
    ],
)
async def test_a_connection_that_is_of_no_use_is_not_written_to(monkeypatch, said):
    """It is known that nothing was sent: the endpoint counts as away, the row is in no doubt."""
    let_it_speak_first(monkeypatch)
    async with Raw(**said).serving() as server, drive(server.url) as client:
        attempt = await client.bind(DEVICE)

    assert (attempt.verdict, attempt.code) == (Unreachable(), "connect")
    assert attempt.message.startswith("no connection: ")
    assert (server.connections, server.requests) == (1, [])


async def test_time_over_before_a_connection_is_nothing_sent():
    """A server that accepts and never shakes hands holds up the connection, not the request."""
    async with (
        Raw().serving() as server,
        drive(server.url.replace("http", "https"), timeout="150ms") as client,
    ):
        attempt = await client.bind(DEVICE)

    assert (attempt.verdict, attempt.code) == (Unreachable(), "connect")
    assert server.requests == []


async def test_time_over_after_the_request_is_doubt():
    """What was written may have been carried out."""
    async with Raw(b"").serving() as server, drive(server.url, timeout="150ms") as client:
        attempt = await client.bind(DEVICE)

    assert (attempt.verdict, attempt.code) == (NoAnswer(), "timeout")
    assert len(server.requests) == 1


@pytest.mark.parametrize("way", ["bind", "post"])
@pytest.mark.parametrize("how", ["it broke", "it spoke"])
async def test_what_happens_before_it_is_written_to_leaves_nothing_sent(how, way):
    """Requests are written at the end of a round of the loop: a connection may be gone by then."""
    reported: list[int] = []
    async with Raw(answer()).serving() as server, drive(server.url) as client:
        client.on_unasked(reported.append)
        await client.bind(DEVICE)
        fast = client.client._http._fast
        assert fast is not None
        (protocol,) = fast._kept
        assert protocol.transport is not None
        asked = asyncio.ensure_future(client.bind(DEVICE) if way == "bind" else posted(client))
        broken = (protocol.transport.abort,)
        spoken = (protocol.data_received, answer())
        asyncio.get_running_loop().call_soon(*(broken if how == "it broke" else spoken))
        attempt = await asked
        sent = client.client.requests

    assert (attempt.verdict, attempt.code, attempt.connection) == (Unreachable(), "connect", 0)
    assert attempt.message == "no connection: connection reset by peer"
    assert reported == ([] if how == "it broke" else [1])
    assert len(server.requests) == sent == 1


async def test_what_is_cancelled_at_once_is_counted_as_it_was_sent():
    """Whether it was written by then or not, the server and the count agree."""
    async with Raw(answer()).serving() as server, drive(server.url) as client:
        await client.bind(DEVICE)
        asked = asyncio.ensure_future(client.bind(DEVICE))
        asyncio.get_running_loop().call_soon(asked.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asked
        await client.bind(DEVICE)
        sent = client.client.requests

    assert len(server.requests) == sent
    assert server.connections == 2


# --- what is remembered of answers --------------------------------------------------------------

ODD = {
    "close": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "old": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "100": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "encoded": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: deflate\r\n\r\n\x03\0",
    "empty": b"HTTP/1.1 204 No\r\n\r\n",
    "twice": 2 * b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "spaced": b"HTTP/1.1 200 OK\r\nContent-Length:   02\r\n\r\n{}",
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\n{}",
}


@pytest.mark.parametrize("name", ODD)
async def test_an_answer_read_from_memory_is_the_one_that_was_read(name):
    """Again and again the same, however it begins; only what is plain is remembered."""
    async with Raw(ODD[name]).serving() as server, http(server.url) as session:
        replies = [await session._fast.send(outgoing("GET"), 99, 5) for _ in range(4)]
        known = session._connector.heads._read

    told = {(each.status, tuple(each.headers.items()), each.body, each.whole) for each in replies}
    assert len(told) == 1
    head = ODD[name].partition(b"{}")[0]
    assert list(known) == ([head] if name in ("plain", "twice") else [])


async def test_what_is_remembered_decides_no_length():
    """The same head with less or more behind it is read anew; what is too much is no answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    server = Raw()
    told: list[object] = []
    async with server.serving(), http(server.url) as session:
        for said in (b"{}", b"[]", b"{", b"()", b"<>HTTP/1.1 2", b"{}", b"{}"):
            server._answer = head + said
            asked = asyncio.ensure_future(session.send(outgoing("GET"), cap=99, timeout_s=0.3))
            await asyncio.wait([asked])
            told.append(type(error) if (error := asked.exception()) else asked.result().body)

    assert told == [b"{}", b"[]", aiohttp.SocketTimeoutError, b"()", b"<>", b"{}", b"{}"]
    assert server.connections == 3


async def test_memory_is_bounded(monkeypatch):
    """A gateway that gives each answer an id of its own does not fill it."""
    monkeypatch.setattr(connections, "MOST_HEADS", 3)
    server = Raw()
    async with server.serving(), http(server.url) as session:
        for number in range(10):
            server._answer = answer(f"X-Request-Id: {number}")
            assert (await session.send(outgoing("GET"), cap=99, timeout_s=5)).request_id == str(
                number
            )
            assert len(session._connector.heads._read) <= 3


# --- what becomes of the connection ---------------------------------------------------------------

BODY = b'{"code":13,"msg":"no"}'


def answer(*headers, body=BODY, length=None, version="1.1", status="200 OK"):
    """Return an answer as bytes."""
    told = len(body) if length is None else length
    lines = [f"HTTP/{version} {status}", f"Content-Length: {told}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("said", "connections"),
    [
        pytest.param(answer(), 1, id="clean"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), 1, id="after a 100"),
        pytest.param(answer("Connection: close"), 2, id="Connection: close"),
        pytest.param(answer(version="1.0"), 2, id="HTTP/1.0"),
        pytest.param(answer() + answer(), 2, id="an answer too many"),
        pytest.param(answer(body=b"x" * (2 << 20)), 2, id="longer than the cap"),
        pytest.param(answer("Content-Encoding: gzip"), 2, id="no gzip"),
        pytest.param(answer("Connection: Upgrade", "Upgrade: x", status="101 S"), 2, id="101"),
        pytest.param(b"garbage\r\n\r\n", 2, id="garbage"),
    ],
)
async def test_only_a_clean_connection_is_used_again(said, connections):
    """Two requests, one after the other: what is not clean is closed after the first."""
    async with Raw(said).serving() as server, drive(server.url, timeout="5s") as client:
        first, second = await client.bind(DEVICE), await client.bind(DEVICE)

    assert (server.connections, len(server.requests)) == (connections, 2)
    assert type(first.verdict) is type(second.verdict)


@pytest.mark.usefixtures("path")
async def test_a_cut_body_closes_the_connection():
    """The rest of a body that came too late must not be taken for the next answer."""
    late = answer(length=len(BODY) + 40)
    async with Raw(late).serving() as server, drive(server.url, timeout="150ms") as client:
        attempts = [await client.bind(DEVICE) for _ in range(2)]

    assert [attempt.verdict for attempt in attempts] == [NoAnswer(), NoAnswer()]
    assert server.connections == 2


# --- what nobody awaits ---------------------------------------------------------------------------


async def posted(client, came=None):
    """Post a bind; return what it comes to. *came*: is filled with what was told of it."""
    told: asyncio.Future[Came] = asyncio.get_running_loop().create_future()
    assert await client.post(DEVICE, lambda: None, told.set_result)
    what = await told
    if came is not None:
        came.append(what)
    assert what is not None  # no lease ends here
    return what if isinstance(what, Attempt) else await what()


SAID = {
    "known": (answer(), True),
    "new": (answer("A: b"), True),
    "refused": (answer(status="429 Too Many", body=b"{}"), True),
    "close": (answer("Connection: close"), True),
    "chunked": (ODD["chunked"], True),
    "empty": (ODD["empty"], True),
    "after a 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(), False),
    "too much": (answer() + b"HTTP/1.1 2", True),
    "twice": (answer() + answer(), False),
    "no gzip": (answer("Content-Encoding: gzip"), False),
    "cut": (answer(length=len(BODY) + 1), False),
    "garbage": (b"garbage\r\n\r\n", False),
    "long": (answer(body=b"x" * (2 << 20)), False),
    "nothing": (b"", False),
    "hangs up": (None, False),
}


@pytest.mark.parametrize("name", SAID)
async def test_what_is_posted_comes_to_the_same_as_what_is_awaited(name):
    """Whatever is answered, or not: attempt, count, connection, and what is reported of it."""
    said, is_told_at_once = SAID[name]
    told = []
    came: list[Came] = []
    for way in (lambda client: client.bind(DEVICE), lambda client: posted(client, came)):
        server = Raw(answer())
        reported: list[int] = []
        async with server.serving(), drive(server.url, timeout="200ms") as client:
            client.on_unasked(reported.append)
            await client.bind(DEVICE)
            server._answer = said
            attempt = await way(client)
            server._answer = answer()
            after = await client.bind(DEVICE)
            requests = client.client.requests
        attempt.trace_id, attempt.took_s, attempt.sent_at = "", 0.0, 0.0
        attempt.message = attempt.message.replace(server.url, "")
        told.append((attempt, after.connection, requests, reported, len(server.requests)))

    assert told[0] == told[1]
    assert [isinstance(each, Attempt) for each in came] == [is_told_at_once]


async def test_what_is_out_at_the_end_is_told_to_nobody_but_counted():
    """Its row stays claimed: the next run puts it in doubt."""
    came: list[Came] = []
    async with Raw(answer()).serving() as server:
        async with drive(server.url) as client:
            await client.bind(DEVICE)
            server._answer = b""
            assert await client.post(DEVICE, lambda: None, came.append)
            while len(server.requests) < 2:
                await CLOCK.sleep(0.01)
        await CLOCK.sleep(0.01)

    assert came == []
    assert client.client.requests == 2


async def test_what_is_handed_over_can_be_given_up():
    """Its connection is closed and reported, and what it says later is not heard."""
    came: list[Any] = []
    reported: list[int] = []
    async with Raw(answer()).serving() as server, drive(server.url) as client:
        client.on_unasked(reported.append)
        await client.bind(DEVICE)
        server._answer = b""
        assert await client.post(DEVICE, lambda: None, came.append)
        client.hand_over()
        client.hand_over()
        (come,) = came
        waiting = asyncio.ensure_future(come())
        while len(server.requests) < 2:
            await CLOCK.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        server._answer = answer()
        after = await client.bind(DEVICE)

    assert waiting.cancelled()
    assert reported == [1]
    assert (after.connection, client.client.requests) == (2, 3)


# --- through a proxy ------------------------------------------------------------------------------


@pytest.fixture
def proxied(monkeypatch):
    """Let requests go through a proxy, and return it."""
    proxy = Proxy()
    with proxy.serving() as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hush@{address}")
        yield proxy


async def test_tunnels_are_used_again(path, proxied):
    """The proxy alone hears the password, once a tunnel, and each tunnel is kept."""
    async with (
        Sandbox(SandboxOptions(tls=True)) as sandbox,
        drive(sandbox.url, ca_file=sandbox.ca_file) as client,
    ):
        attempts = await asyncio.gather(*(client.bind(Device("u", f"A{n}")) for n in range(3)))
        attempts += await asyncio.gather(*(client.bind(Device("u", f"B{n}")) for n in range(3)))
        session = client.client._http
        kept = session._fast._kept if session._fast else ()
        keys = {
            *session._connector._conns,
            *(each.connection._key for each in kept if each.connection),
        }

    assert {type(attempt.verdict) for attempt in attempts} == {Accepted}, path
    assert len(proxied.asked) == 3
    assert len(set(proxied.asked)) == len(keys) == 1
    assert proxied.asked[0].count(b"Proxy-Authorization: Basic ") == 1

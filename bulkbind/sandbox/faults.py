"""Faults: the answers of each kind, the table of kinds, and the choice for a request."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from bulkbind.clock import HOUR_S, iso
from bulkbind.sandbox.limit_announcements import later_date

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from bulkbind.clock import Clock
    from bulkbind.sandbox.device_api import Bindings, CallResult
    from bulkbind.sandbox.specs import Call, FaultSpec

ELSEWHERE = "/sandbox/elsewhere"
DATE_OFF_S = web.RequestKey("date_off_s", float)
"""Set on a request: seconds by which the Date of its answer is off."""
COMMON_KEYS = ("count", "from", "until", "on")

_SPACE_CODE = "13000301"
_INTERNAL_CODE = 13000001
"""Our choice: the reference names no code for a 500."""
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that a fault has struck."""

    request: web.Request
    fault: FaultSpec
    clock: Clock
    bindings: Bindings
    body: dict[str, Any]
    """The right answer; empty if the kind does not do the work."""
    status: int = 200
    """Its HTTP status."""

    @property
    def user_id(self) -> str:
        """The user whom it is about."""
        return self.request.headers.get("X-User-Id", "")

    def listed(self, records: Iterable[dict[str, Any]]) -> web.Response:
        """Return the right answer with another list."""
        return web.json_response({**self.body, "data": list(records)}, status=self.status)


# --- no answer ------------------------------------------------------------------------------------


async def _reset(exchange: Exchange) -> None:
    transport = exchange.request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    # With a linger time of 0, closing sends RST instead of FIN.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _silence(_exchange: Exchange) -> None:
    await asyncio.get_running_loop().create_future()  # until cancelled


async def _garbage(exchange: Exchange) -> None:
    if (transport := exchange.request.transport) is not None:
        transport.write(b"\x00\xff\x13garbage, not HTTP\r\n\r\n")
        transport.close()


# --- the right answer, changed --------------------------------------------------------------------


async def _late(exchange: Exchange) -> web.Response:
    await exchange.clock.sleep(exchange.fault.for_s)
    return web.json_response(exchange.body, status=exchange.status)


async def _drip(exchange: Exchange) -> web.StreamResponse:
    body = json.dumps(exchange.body).encode()
    response = await _started(exchange, body)
    for number, byte in enumerate(body):
        if number:
            await exchange.clock.sleep(exchange.fault.for_s)
        await response.write(bytes((byte,)))
    return response


async def _truncated(exchange: Exchange) -> web.StreamResponse:
    body = json.dumps(exchange.body).encode()
    response = await _started(exchange, body)
    response.force_close()
    await response.write(body[: len(body) // 2])
    if exchange.request.transport is not None:
        exchange.request.transport.close()
    return response


async def _started(exchange: Exchange, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=exchange.status, headers=_JSON)
    response.content_length = len(body)
    await response.prepare(exchange.request)
    return response


async def _empty(_exchange: Exchange) -> web.Response:
    return web.Response(headers=_JSON)


async def _wrong_type(exchange: Exchange) -> web.Response:
    return web.json_response(exchange.body, status=exchange.status, content_type="text/html")


async def _wrong_date(exchange: Exchange) -> web.Response:
    exchange.request[DATE_OFF_S] = exchange.fault.for_s
    return web.json_response(exchange.body, status=exchange.status)


async def _other_code(exchange: Exchange) -> web.Response:
    body = exchange.body
    if "data" in body:
        body = {**body, "data": {**body["data"], "machineCode": "OTHER_1"}}
    return web.json_response(body, status=exchange.status)


async def _local_time(exchange: Exchange) -> web.Response:
    data = exchange.body.get("data")
    ahead = timedelta(seconds=exchange.fault.for_s)

    def shifted(record: dict[str, Any]) -> dict[str, Any]:
        created = datetime.fromisoformat(record["createTime"])
        return {**record, "createTime": iso(created + ahead)}

    if isinstance(data, list):
        return exchange.listed(map(shifted, data))
    body = exchange.body if data is None else {**exchange.body, "data": shifted(data)}
    return web.json_response(body, status=exchange.status)


async def _unasked(exchange: Exchange) -> web.StreamResponse:
    body = json.dumps({"code": int(_SPACE_CODE), "msg": "space missing"})
    more = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    transport = exchange.request.transport
    response = web.json_response(exchange.body, status=exchange.status)
    if transport is None:
        return response
    if exchange.fault.for_s:
        asyncio.get_running_loop().call_later(exchange.fault.for_s, transport.write, more)
        return response
    # In one segment, so that the client sees both at once.
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
    await response.prepare(exchange.request)
    await response.write_eof()
    transport.write(more)
    sock.setsockopt(socket.IPPROTO_TCP, _CORK, 0)
    return response


_CORK = getattr(socket, "TCP_CORK", getattr(socket, "TCP_NOPUSH", 0))


# --- another list ---------------------------------------------------------------------------------


async def _stale(exchange: Exchange) -> web.Response:
    return exchange.listed(exchange.bindings.before(exchange.user_id, exchange.fault.for_s))


async def _doubled(exchange: Exchange) -> web.Response:
    records = exchange.body["data"]
    copies = [{**record, "deviceId": f"9{record['deviceId'][1:]}"} for record in records]
    return exchange.listed([*records, *copies])


async def _other_case(exchange: Exchange) -> web.Response:
    records = exchange.body["data"]
    return exchange.listed(
        {**record, "machineCode": record["machineCode"].swapcase()} for record in records
    )


async def _paged(exchange: Exchange) -> web.Response:
    records = exchange.body["data"]
    return exchange.listed(records[: len(records) // 2])


async def _foreign(exchange: Exchange) -> web.Response:
    everything = exchange.bindings.everything()
    return exchange.listed(record for user, record in everything if user != exchange.user_id)


# --- another answer -------------------------------------------------------------------------------


async def _error_500(_exchange: Exchange) -> web.Response:
    body = {"code": _INTERNAL_CODE, "msg": "internal error"}
    return web.json_response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)


async def _error_502(_exchange: Exchange) -> web.Response:
    title = "502 Bad Gateway"
    page = f"<html><head><title>{title}</title></head><body>{title}</body></html>"
    return web.Response(text=page, content_type="text/html", status=HTTPStatus.BAD_GATEWAY)


async def _error_503(exchange: Exchange) -> web.Response:
    retry_at = later_date(exchange.clock.utc_now(), exchange.fault.for_s)
    # No APIG code: backend errors leave open whether anything was done.
    body = {"code": _INTERNAL_CODE, "msg": "service unavailable"}
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return web.json_response(body, status=status, headers={"Retry-After": retry_at})


async def _business(exchange: Exchange) -> web.Response:
    code = exchange.fault.code or _SPACE_CODE
    is_number = code.isascii() and code.isdecimal()
    return web.json_response({"code": int(code) if is_number else code, "msg": "space missing"})


async def _redirect(_exchange: Exchange) -> web.Response:
    return web.Response(status=HTTPStatus.FOUND, headers={"Location": ELSEWHERE})


_HUGE_HEAD = b'{"code": 0, "msg": "success", "data": {"padding": "'
_HUGE_CHUNK = b"0" * 1_000_000
_HUGE_CHUNKS = 100
_HUGE_TAIL = b'"}}'


async def _huge(exchange: Exchange) -> web.StreamResponse:
    response = web.StreamResponse(headers=_JSON)
    await response.prepare(exchange.request)
    await response.write(_HUGE_HEAD)
    for _ in range(_HUGE_CHUNKS):
        await response.write(_HUGE_CHUNK)
    await response.write(_HUGE_TAIL)
    return response


async def _bomb(_exchange: Exchange) -> web.Response:
    return web.Response(body=_huge_as_gzip(), headers={**_JSON, "Content-Encoding": "gzip"})


@cache
def _huge_as_gzip() -> bytes:
    """Return the huge answer, compressed to about a thousandth of its size.

    A fully flushed block does not refer to earlier ones, so one is compressed and repeated.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = packer.compress(_HUGE_HEAD) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = packer.compress(_HUGE_CHUNK) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = packer.compress(_HUGE_TAIL) + packer.flush()
    check = zlib.crc32(_HUGE_HEAD)
    for _ in range(_HUGE_CHUNKS):
        check = zlib.crc32(_HUGE_CHUNK, check)
    check = zlib.crc32(_HUGE_TAIL, check)
    length = len(_HUGE_HEAD) + _HUGE_CHUNKS * len(_HUGE_CHUNK) + len(_HUGE_TAIL)
    # Source: RFC 1952, sections 2.3 and 2.3.1; 255 is an unknown operating system.
    header = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 2, 255)
    return header + head + chunk * _HUGE_CHUNKS + tail + struct.pack("<II", check, length)


# --- the kinds ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FaultKind:
    """The properties of a kind of fault."""

    help: str
    answer: Callable[[Exchange], Awaitable[web.StreamResponse | None]] | None
    """Returns None if it sent nothing and the connection is gone. None instead of a function: the
    fault only delays what comes next, the work or another fault."""
    does_work: bool = True
    """Whether the call is executed before the answer."""
    for_s: float | None = None
    """Default of the key `for`; None: it has no such key."""
    takes_negative: bool = False
    """Whether `for` may be negative."""
    takes_code: bool = False
    is_for_binds: bool = False
    """Whether it makes no sense for other calls."""
    is_for_lists: bool = False
    """As above; it then strikes lists unless told otherwise."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Its keys besides the common ones."""
        return ("for",) * (self.for_s is not None) + ("code",) * self.takes_code


KINDS = {
    "reset-before": FaultKind("connection reset; nothing is done", _reset, does_work=False),
    "reset-after": FaultKind("connection reset after the work is done", _reset),
    "silence-before": FaultKind("never answers; nothing is done", _silence, does_work=False),
    "silence-after": FaultKind("never answers; the work is done", _silence),
    "delay-before": FaultKind(
        "the work is done late, even if the client has hung up  [for: 1s]", None, for_s=1.0
    ),
    "delay-after": FaultKind(
        "the work is done at once, the answer comes late  [for: 1s]", _late, for_s=1.0
    ),
    "drip": FaultKind(
        "done; the answer comes byte by byte, one every `for`  [for: 200ms]", _drip, for_s=0.2
    ),
    "500": FaultKind("answers 500; nothing is done", _error_500, does_work=False),
    "500-after": FaultKind("answers 500 after the work is done", _error_500),
    "502": FaultKind("answers 502 with an HTML page; nothing is done", _error_502, does_work=False),
    "502-after": FaultKind("answers 502 with an HTML page after the work is done", _error_502),
    "503": FaultKind(
        "answers 503, Retry-After a date `for` ahead; nothing is done  [for: 2s]",
        _error_503,
        for_s=2.0,
        does_work=False,
    ),
    "truncated": FaultKind("done; half of the answer, then closed", _truncated),
    "empty": FaultKind("done; 200 with an empty body", _empty),
    "garbage": FaultKind("done; bytes that are no HTTP, then closed", _garbage),
    "huge": FaultKind("done; 200 with a body of 100 MB", _huge),
    "bomb": FaultKind("done; 200 with a small gzip that unpacks to 100 MB", _bomb),
    "wrong-type": FaultKind("done; the right JSON, called text/html", _wrong_type),
    "business": FaultKind(
        "answers 200 with a business code; nothing is done  [code: 13000301]",
        _business,
        takes_code=True,
        does_work=False,
    ),
    "redirect": FaultKind(
        f"answers 302 to {ELSEWHERE}; nothing is done", _redirect, does_work=False
    ),
    "wrong-date": FaultKind(
        "done; the right answer, its Date off by `for`, e.g. -1h  [for: 1h]",
        _wrong_date,
        for_s=HOUR_S,
        takes_negative=True,
    ),
    "other-code": FaultKind(
        "done; the answer names another machine code (binds only)", _other_code, is_for_binds=True
    ),
    "local-time": FaultKind(
        "done; every createTime is `for` ahead, as local time called Z  [for: 8h]",
        _local_time,
        for_s=8 * HOUR_S,
        takes_negative=True,
    ),
    "unasked": FaultKind(
        "done; the right answer, and `for` later a refusal nobody asked for  [for: 0s]",
        _unasked,
        for_s=0.0,
    ),
    "stale": FaultKind(
        "done; the list as it was `for` ago (lists only)  [for: 3s]",
        _stale,
        for_s=3.0,
        is_for_lists=True,
    ),
    "doubled": FaultKind(
        "done; every device twice, also under another id (lists only)", _doubled, is_for_lists=True
    ),
    "other-case": FaultKind(
        "done; machine codes in the other letter case (lists only)", _other_case, is_for_lists=True
    ),
    "paged": FaultKind("done; the first half of the list (lists only)", _paged, is_for_lists=True),
    "foreign": FaultKind(
        "done; the devices of all other users (lists only)", _foreign, is_for_lists=True
    ),
}
"""A new fault needs an entry here and, if it answers in a new way, a function above."""


# --- which of them strike -------------------------------------------------------------------------


class Strikes(NamedTuple):
    """The faults that strike one request."""

    delays: tuple[FaultSpec, ...]
    """Delays before anything else, added up."""
    decider: FaultSpec | None
    """The fault that decides the answer; None: the answer is right."""

    @property
    def names(self) -> list[str]:
        """The names of all of them."""
        deciders = () if self.decider is None else (self.decider,)
        return [fault.name for fault in (*self.delays, *deciders)]


class Faults:
    """Chooses the faults of each request, and counts them to limit each to its `count`."""

    def __init__(self, faults: Sequence[FaultSpec], dice: random.Random) -> None:
        self._faults = faults
        self._dice = dice
        self._struck = [0] * len(faults)

    def strike(self, call: Call, elapsed_s: float) -> Strikes:
        """Return the faults that strike a request, *elapsed_s* after the sandbox's start.

        The dice roll once for every fault configured for the call, whether it may strike now or
        not, so that the effect of a seed does not depend on the time.
        """
        delays: list[FaultSpec] = []
        decider: FaultSpec | None = None
        for number, fault in enumerate(self._faults):
            if not fault.on.covers(call):
                continue
            hits = self._dice.random() < fault.probability
            if not hits or not self._may(number, elapsed_s):
                continue
            if KINDS[fault.name].answer is None:
                delays.append(fault)
            elif decider is None:
                decider = fault
            else:
                continue
            self._struck[number] += 1
        return Strikes(tuple(delays), decider)

    def _may(self, number: int, elapsed_s: float) -> bool:
        fault = self._faults[number]
        is_used_up = fault.count is not None and self._struck[number] >= fault.count
        return fault.period.holds(elapsed_s) and not is_used_up


async def respond(
    fault: FaultSpec | None,
    request: web.Request,
    clock: Clock,
    work: Callable[[], CallResult],
    bindings: Bindings,
) -> web.StreamResponse | None:
    """Answer a request as a fault requires, or correctly; None: the connection is gone.

    *work*: executes the call, and returns the right answer.
    """
    if fault is None:
        result = work()
        return web.json_response(result.body, status=result.status)
    kind = KINDS[fault.name]
    assert kind.answer is not None, "a delay decides nothing"
    exchange = Exchange(request=request, fault=fault, clock=clock, bindings=bindings, body={})
    if kind.does_work:
        result = work()
        exchange = replace(exchange, body=result.body, status=result.status)
    try:
        return await kind.answer(exchange)
    except ConnectionError:  # the client closed the connection early
        return None

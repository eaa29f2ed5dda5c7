"""How faults spoil an answer: one small function for each kind, named after it.

A function does the work, if its kind does, and returns the response; None: none was sent, and the
connection is gone.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

from bulkbind.sandbox.limit_headers import later_date

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.clock import Clock
    from bulkbind.sandbox.calls import Answer
    from bulkbind.sandbox.spec_parser import Fault

ELSEWHERE = "/sandbox/elsewhere"
SPACE_CODE = "13000301"
INTERNAL_CODE = 13000001
"""The sandbox's own: the reference names no code for a 500."""
DATE_OFF_S = web.RequestKey("date_off_s", float)
"""Set on a request: its answer's Date is off by so much."""

_JSON = {"Content-Type": "application/json"}
_CHUNK = b"0" * 1_000_000
_CHUNKS = 100
_BAD_GATEWAY = (
    "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request that a fault has struck."""

    request: web.Request
    fault: Fault
    clock: Clock
    """The sandbox's."""
    work: Callable[[], Answer]
    """Does what was asked for, at once; called at most once."""


def plain(answer: Answer) -> web.Response:
    """Return the answer as it should be."""
    return web.json_response(answer.body)


# --- no answer ------------------------------------------------------------------------------------


async def reset_before(exchange: Exchange) -> None:
    """Reset the connection."""
    _reset(exchange.request)


async def reset_after(exchange: Exchange) -> None:
    """Do the work and reset the connection."""
    exchange.work()
    _reset(exchange.request)


async def silence_before(_exchange: Exchange) -> None:
    """Never answer; being cancelled ends it."""
    await asyncio.get_running_loop().create_future()


async def silence_after(exchange: Exchange) -> None:
    """Do the work and never answer."""
    exchange.work()
    await asyncio.get_running_loop().create_future()


async def garbage(exchange: Exchange) -> None:
    """Do the work and send what is no HTTP."""
    exchange.work()
    if (transport := exchange.request.transport) is not None:
        transport.write(b"\x00\xff\x13garbage, not HTTP\r\n\r\n")
        transport.close()


def _reset(request: web.Request) -> None:
    if request.transport is None:
        return
    sock = request.transport.get_extra_info("socket")
    # With no time to linger, closing sends RST instead of FIN.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


# --- a right answer, spoilt -----------------------------------------------------------------------


async def delay_after(exchange: Exchange) -> web.Response:
    """Do the work at once and answer late."""
    answer = exchange.work()
    await exchange.clock.sleep(exchange.fault.for_s)
    return plain(answer)


async def drip(exchange: Exchange) -> web.StreamResponse:
    """Send the body byte by byte."""
    body = json.dumps(exchange.work().body).encode()
    response = await _begun(exchange.request, body)
    for number, byte in enumerate(body):
        if number:
            await exchange.clock.sleep(exchange.fault.for_s)
        await response.write(bytes((byte,)))
    return response


async def truncated(exchange: Exchange) -> web.StreamResponse:
    """Promise the whole body, send half of it and close."""
    body = json.dumps(exchange.work().body).encode()
    response = await _begun(exchange.request, body)
    response.force_close()
    await response.write(body[: len(body) // 2])
    if exchange.request.transport is not None:
        exchange.request.transport.close()
    return response


async def empty(exchange: Exchange) -> web.Response:
    """Answer without a body."""
    exchange.work()
    return web.Response(headers=_JSON)


async def wrong_type(exchange: Exchange) -> web.Response:
    """Call the JSON HTML."""
    return web.json_response(exchange.work().body, content_type="text/html")


async def wrong_date(exchange: Exchange) -> web.Response:
    """Answer under another Date."""
    exchange.request[DATE_OFF_S] = exchange.fault.for_s
    return plain(exchange.work())


async def other_code(exchange: Exchange) -> web.Response:
    """Name another machine code."""
    body = exchange.work().body
    if "data" in body:
        body = {**body, "data": {**body["data"], "machineCode": "OTHER_1"}}
    return web.json_response(body)


async def _begun(request: web.Request, body: bytes) -> web.StreamResponse:
    """Send the head of an answer with a body."""
    response = web.StreamResponse(headers=_JSON)
    response.content_length = len(body)
    await response.prepare(request)
    return response


# --- another answer -------------------------------------------------------------------------------


async def error_500(_exchange: Exchange) -> web.Response:
    """Answer 500."""
    body = {"code": INTERNAL_CODE, "msg": "internal error"}
    return web.json_response(body, status=HTTPStatus.INTERNAL_SERVER_ERROR)


async def error_500_after(exchange: Exchange) -> web.Response:
    """Do the work and answer 500."""
    exchange.work()
    return await error_500(exchange)


async def error_502(_exchange: Exchange) -> web.Response:
    """Answer 502 with a page for people."""
    status = HTTPStatus.BAD_GATEWAY
    return web.Response(text=_BAD_GATEWAY, content_type="text/html", status=status)


async def error_502_after(exchange: Exchange) -> web.Response:
    """Do the work and answer 502."""
    exchange.work()
    return await error_502(exchange)


async def error_503(exchange: Exchange) -> web.Response:
    """Answer 503 with a date to come again."""
    come_again = later_date(exchange.clock.utc_now(), exchange.fault.for_s)
    # No APIG code: those of the backend leave open whether anything was done.
    body = {"code": INTERNAL_CODE, "msg": "service unavailable"}
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return web.json_response(body, status=status, headers={"Retry-After": come_again})


async def business(exchange: Exchange) -> web.Response:
    """Refuse with a code of the API's own."""
    code = exchange.fault.code or SPACE_CODE
    is_number = code.isascii() and code.isdecimal()
    return web.json_response({"code": int(code) if is_number else code, "msg": "space missing"})


async def redirect(_exchange: Exchange) -> web.Response:
    """Send the client elsewhere."""
    return web.Response(status=HTTPStatus.FOUND, headers={"Location": ELSEWHERE})


async def huge(exchange: Exchange) -> web.StreamResponse:
    """Send 100 MB."""
    exchange.work()
    response = web.StreamResponse(headers=_JSON)
    await response.prepare(exchange.request)
    await response.write(_BEFORE)
    for _ in range(_CHUNKS):
        await response.write(_CHUNK)
    await response.write(_BEHIND)
    return response


async def bomb(exchange: Exchange) -> web.Response:
    """Send little that unpacks to 100 MB."""
    exchange.work()
    return web.Response(body=packed(), headers={**_JSON, "Content-Encoding": "gzip"})


_BEFORE = b'{"code": 0, "msg": "success", "data": {"padding": "'
_BEHIND = b'"}}'


@cache
def packed() -> bytes:
    """Return the huge answer as gzip, about a thousandth of its size.

    A flushed block refers to nothing before it, so one is packed and repeated.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    before = packer.compress(_BEFORE) + packer.flush(zlib.Z_FULL_FLUSH)
    chunk = packer.compress(_CHUNK) + packer.flush(zlib.Z_FULL_FLUSH)
    behind = packer.compress(_BEHIND) + packer.flush()
    check = zlib.crc32(_BEFORE)
    for _ in range(_CHUNKS):
        check = zlib.crc32(_CHUNK, check)
    check = zlib.crc32(_BEHIND, check)
    length = len(_BEFORE) + _CHUNKS * len(_CHUNK) + len(_BEHIND)
    # Source: RFC 1952, sections 2.3 and 2.3.1; 255 is an unknown operating system.
    head = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, 0, 0, 2, 255)
    return head + before + chunk * _CHUNKS + behind + struct.pack("<II", check, length)

"""A TCP proxy on loopback that breaks connections in every way seen in the wild.

Source: dependencies.md, traps 2 and 3.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from enum import StrEnum
from typing import Self

from yarl import URL

from bulkbind.clock import SystemClock

DRIP_S = 0.02
"""Between two bytes of a slow answer."""


class Fault(StrEnum):
    """What happens to every request."""

    NONE = "passed on, both ways"
    REFUSE = "nobody listens"
    RESET_BEFORE = "reset before the server heard of it"
    RESET_AFTER = "reset after the server answered"
    HALF_A_BODY = "the answer ends in the middle of its body"
    GARBAGE = "the answer is no HTTP"
    BLACK_HOLE = "silence"
    SLOW_DRIP = "one byte at a time"
    CLOSE = "closed without an answer"


class FaultProxy:
    """Serves from entering to leaving the block; *fault* may be changed at any time but REFUSE."""

    def __init__(self, upstream: str, fault: Fault = Fault.NONE) -> None:
        self._upstream = URL(upstream)
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.fault = fault
        self.url = ""
        self.requests = 0
        """Requests that came in whole."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        if self.fault is Fault.REFUSE:
            self._server.close()  # the port was ours a moment ago: nobody else listens there
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        if self._server is not None:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="fault proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request, and close."""
        try:
            head, body = await _message(reader)
            self.requests += 1
            await self._break(head + body, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other side has gone
        finally:
            writer.close()

    async def _break(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        match self.fault:
            case Fault.RESET_BEFORE:
                return _reset(writer)
            case Fault.BLACK_HOLE:
                await self._over.wait()
                return None
            case _:
                pass
        head, body = await self._forward(request)
        match self.fault:
            case Fault.RESET_AFTER:
                return _reset(writer)
            case Fault.CLOSE:
                return None
            case Fault.HALF_A_BODY:
                writer.write(head + body[: len(body) // 2])
            case Fault.GARBAGE:
                writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n" + body)
            case Fault.SLOW_DRIP:
                await self._drip(head + body, writer)
            case _:
                writer.write(head + body)
        await writer.drain()
        return None

    async def _drip(self, answer: bytes, writer: asyncio.StreamWriter) -> None:
        clock = SystemClock()
        for byte in answer:
            if self._over.is_set():
                return
            writer.write(bytes([byte]))
            await writer.drain()
            await clock.sleep(DRIP_S)

    async def _forward(self, request: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(self._upstream.host, self._upstream.port)
        try:
            writer.write(request)
            head, body = await _message(reader)
        finally:
            writer.close()
        return head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), body


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the head and the body of a request or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head, await reader.readexactly(int(length[1]) if length else 0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

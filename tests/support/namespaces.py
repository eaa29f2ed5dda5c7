"""Machines on one machine: network namespaces, a switch with bad links, and a way to a server.

Each machine is a namespace with an address of its own on one switch, which is a thread of this
process: it can cut a machine off without a word, delay frames and lose some of them, whether or not
the kernel has netem. Port *port* of each machine's loopback leads to the same port here, past the
switch; what goes that way is noted with its machine. Linux, as root. All ends with this process.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import re
import socket
import struct
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bulkbind.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME_BYTES = 1 << 16
_LINK = "cluster"
_TRACE_ID = re.compile(rb"^x-traceid: (\S{40})", re.IGNORECASE | re.MULTILINE)
"""Its first characters tell processes apart."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request on its way to the server."""

    at: float
    """Seconds since 1970."""
    machine: str
    process: str


@contextmanager
def _inside(pid: int) -> Iterator[None]:
    """Let this thread be in the namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as own:
        with Path(f"/proc/{pid}/ns/net").open("rb") as other:
            if libc.setns(other.fileno(), 0):
                raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(own.fileno(), 0)


def _tap() -> int:
    """Make the machine's end of its link, in this thread's namespace; return the switch's."""
    link = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = struct.pack("16sH14x", _LINK.encode(), _IFF_TAP | _IFF_NO_PI)
    fcntl.ioctl(link, _TUNSETIFF, flags)
    return link


class Machines:
    """Namespaces by name, and what joins them; a context manager."""

    def __init__(self, names: Sequence[str], port: int, seed: int = 5) -> None:
        """*port*: of the server, on loopback here and on every machine."""
        self.cut: set[str] = set()
        """Machines whose frames go nowhere."""
        self.delay_s = 0.0
        """Of each frame."""
        self.loss = 0.0
        """The share of frames that is lost."""
        self.sent_bytes = dict.fromkeys(names, 0)
        """What each machine sent to others, all headers included."""
        self.came: list[Arrival] = []
        """What went to the server, in order."""
        self._addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._port = port
        self._pick = random.Random(seed)
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._links: dict[str, int] = {}
        self._where: dict[bytes, str] = {}
        """Machines by their hardware addresses."""
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, address in self._addresses.items():
                self._make(stack, name, address)
            thread = threading.Thread(target=self._loop.run_forever, name="switch")
            thread.start()
            stack.callback(self._loop.close)
            stack.callback(thread.join)
            stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self, stack: ExitStack, name: str, address: str) -> None:
        command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(holder.communicate)  # it ends with its input
        self._holders[name] = holder
        assert holder.stdout is not None
        holder.stdout.readline()
        with _inside(holder.pid):
            link = self._links[name] = _tap()
            stack.callback(os.close, link)
            given = f"addr add {address}/24 dev {_LINK}"
            for words in (given, f"link set {_LINK} up", "link set lo up"):
                command = ["ip", *words.split()]
                subprocess.run(command, check=True)
            way = socket.create_server(("127.0.0.1", self._port))
        self._loop.add_reader(link, self._forward, name)
        self._loop.run_until_complete(
            asyncio.start_server(lambda *ends: self._lead(name, *ends), sock=way)
        )

    def address(self, name: str) -> str:
        """Return a machine's address on the switch."""
        return self._addresses[name]

    def command(self, name: str, *words: str) -> list[str]:
        """Return what runs a command on a machine, as the process that is started."""
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", "--", *words]

    # --- the switch -------------------------------------------------------------------------------

    def _forward(self, name: str) -> None:
        """Pass a frame on to whom it is for; to all, where that is not known."""
        with suppress(BlockingIOError):
            frame = os.read(self._links[name], _FRAME_BYTES)
            self._where[frame[6:12]] = name
            self.sent_bytes[name] += len(frame)
            if name in self.cut or (self.loss and self._pick.random() < self.loss):
                return
            known = self._where.get(frame[:6])
            others = [known] if known else [each for each in self._links if each != name]
            for other in others:
                if self.delay_s:
                    self._loop.call_later(self.delay_s, self._deliver, other, frame)
                else:
                    self._deliver(other, frame)

    def _deliver(self, name: str, frame: bytes) -> None:
        if name not in self.cut:
            with suppress(OSError):  # full, or not up yet: it is lost
                os.write(self._links[name], frame)

    # --- the way to the server --------------------------------------------------------------------

    async def _lead(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass a connection of a machine on to the server."""
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        back = asyncio.ensure_future(self._pass_on(answers, writer))
        await self._pass_on(reader, server, name)
        await back

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = ""
    ) -> None:
        """Pass on what comes until nothing more does; *name*: note it as of this machine."""
        clock = SystemClock()
        with suppress(OSError):
            while data := await reader.read(_FRAME_BYTES):
                if name:
                    at = clock.utc_now().timestamp()
                    found = _TRACE_ID.findall(data)
                    self.came += [Arrival(at, name, process.decode()) for process in found]
                writer.write(data)
        writer.close()

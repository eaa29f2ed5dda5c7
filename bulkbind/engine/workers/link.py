"""The way between the driver and one worker: a process on this machine, and a pair of sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

KEPT = ("HOME", "LANG", "LANGUAGE", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ")
KEPT_PREFIXES = ("COVERAGE_", "DYLD_", "LC_", "LD_", "PYTHON", "VIRTUAL_ENV")
"""What a worker gets of the environment: all else may be a secret."""
END_S = 2.0
"""How long a worker that is told to end may take."""
ENDING_S = 0.05
"""How long a process takes at most from closing its sockets to its end."""


class Link(Protocol):
    """The way to one worker, as the hub uses it."""

    pid: int
    """Of the worker; 0 where it has none."""
    host: str
    """The name of its machine; empty: this one."""
    gather_s: float
    """What may wait should do so for so long, as each time that something is said has its price."""

    def send(self, data: bytes) -> None:
        """Send bytes, in order; once the worker is gone, they are dropped."""

    def kill(self) -> None:
        """End the worker at once, and hear nothing more."""

    async def close(self) -> None:
        """Let the worker end, and wait for it."""


class Pipe(asyncio.Protocol):
    """One end of the pair of sockets."""

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """*heard*: called with what comes; *lost*: once, when the other end is gone."""
        self._heard, self._lost = heard, lost
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(
        cls, end: socket.socket, heard: Callable[[bytes], None], lost: Callable[[], None]
    ) -> Pipe:
        """Return the protocol on one end of a pair of sockets."""
        loop = asyncio.get_running_loop()
        end.setblocking(False)  # noqa: FBT003  # the library's
        _, pipe = await loop.create_unix_connection(lambda: cls(heard, lost), sock=end)
        return pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what comes."""
        self._heard(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell once."""
        self._transport = None
        self._lost()

    def send(self, data: bytes) -> None:
        """Send bytes, or drop them where nobody listens."""
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Close this end."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close this end, and drop what has come or was to go."""
        self._heard, self._lost = _hear_nothing, _nothing
        if self._transport is not None:
            self._transport.abort()


def _hear_nothing(_data: bytes) -> None:
    pass


def _nothing() -> None:
    pass


class PipeLink:
    """A worker process on this machine."""

    host, gather_s = "", 0.0

    def __init__(self, process: subprocess.Popen[bytes], pipe: Pipe) -> None:
        self._process = process
        self._pipe = pipe
        self.pid = process.pid

    @classmethod
    async def start(
        cls, module: str, heard: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> PipeLink:
        """Start `python -m MODULE FD` with one of the sockets, and return the link to it.

        Neither arguments nor environment hold a secret.

        Args:
            module: What to run.
            heard: Called with what the worker says.
            lost: Called with how it ended, once, if it does so by itself.

        Raises: OSError if it cannot be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno())]
            starting = asyncio.ensure_future(in_thread(_started, command, theirs.fileno()))
            try:
                process = await asyncio.shield(starting)
            except BaseException:
                ours.close()
                await _ended(await starting)
                raise
        try:
            pipe = await Pipe.over(ours, heard, lambda: lost(_how(process)))
        except BaseException:
            ours.close()
            await _ended(process)
            raise
        return cls(process, pipe)

    def send(self, data: bytes) -> None:
        """Send bytes, in order."""
        self._pipe.send(data)

    def kill(self) -> None:
        """End the worker at once, also a stopped one, and hear nothing more."""
        self._pipe.abort()
        with contextlib.suppress(OSError):
            self._process.kill()

    async def close(self) -> None:
        """Close the socket, at whose end the worker ends; kill it if that takes too long."""
        self._pipe.close()
        try:
            await in_thread(self._process.wait, END_S)
        except subprocess.TimeoutExpired:
            await _ended(self._process)


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, and wait for it: nobody else would."""
    process.kill()
    await in_thread(process.wait)


def _how(process: subprocess.Popen[bytes]) -> str:
    """Return how a process ended that has closed its socket, and so is about to."""
    try:
        code = process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        return "it closed its link"
    if code >= 0:
        return f"it ended with {code}"
    with contextlib.suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def _started(command: Sequence[str], fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  # our own interpreter
        command,
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(fd,),
        process_group=0,  # a terminal's Ctrl-C is the driver's: it drains
    )


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's environment: what Python and TLS need, and where bulkbind is."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in KEPT or name.startswith(KEPT_PREFIXES)
    }
    here = str(Path(__file__).parents[3])
    paths = [here, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}

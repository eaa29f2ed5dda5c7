"""Workers on the machines of a Dask cluster: behind each of its workers, a process that sends.

Dask places them and encrypts the way there; nothing is a task or an actor, so nothing is retried,
moved or computed again. At each place the driver opens a stream of its own, whose other end starts
the same process as `--workers` does on one machine and passes bytes on, so that a worker's lease is
measured by the worker itself, whatever becomes of Dask: a scheduler that dies, a driver that is cut
off or stopped.

A message costs both sides some 50 us, whatever it carries, so messages are gathered, at the ends.
What is gathered for a worker is told with the time between, and done in that time: a gateway that
counts requests close together sees those that the pacer let leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from itertools import count
from platform import python_version
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from bulkbind.engine.workers.link import PipeLink
from bulkbind.engine.workers.messages import After, frame
from bulkbind.errors import UsageError
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable


OPERATION = "bulkbind"
"""What the driver asks a worker of Dask for."""
GATHER_S = 0.01
"""Messages to a worker follow each other no sooner …"""
MANY_BYTES = 500
"""… unless so much waits."""
ANSWERS_S = 0.06
"""Accepted binds wait for others for so long, while any are to come."""
CONNECT_S = 10.0
"""How long the scheduler, or a place, may take to answer."""
REACH_S = 5.0
"""How long a connection to the endpoint may take when it is tried."""
LOCAL = "local:"
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}
"""Nothing is a task, so that there is nothing for Dask to measure."""


# --- at a place -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Examined:
    """What a worker at a place would be."""

    version: str
    """Of bulkbind."""
    python: str
    trouble: str
    """Why it does not reach the endpoint; empty if it does."""


async def examine(host: str, port: int) -> Examined:
    """Return what a worker here would be, and whether it reaches a port."""
    trouble = ""
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        trouble = str(error) or f"no connection within {REACH_S:g} s"
    else:
        writer.close()
    return Examined(version("bulkbind"), python_version(), trouble)


async def prepare(dask_worker: Any = None) -> None:  # noqa: ANN401  # Dask's, by this name
    """Let drivers ask this worker of Dask for a worker of ours."""
    dask_worker.handlers[OPERATION] = serve


async def serve(comm: Any, module: str) -> None:  # noqa: ANN401  # Dask's, by this name
    """Hold a worker's process for the driver at the other end, until either is gone.

    The driver is told the machine's name and the process' number, then what the worker says; at
    last, as text, how it ended.
    """
    stream = _Stream(comm, has_begun=False)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        link = await PipeLink.start(module, stream.send, ended.set_result)
    except OSError as error:
        await comm.write(str(error))
        return
    passing = asyncio.create_task(_pass_on(comm, link), name="pass on")
    try:
        await stream.begin([socket.gethostname(), link.pid])
        await asyncio.wait((passing, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await stream.end(ended.result())
    finally:
        passing.cancel()
        link.kill()
        await link.close()


async def _pass_on(comm: Any, link: PipeLink) -> None:  # noqa: ANN401  # as above
    """Hand what comes to the worker."""
    with contextlib.suppress(OSError):
        while True:
            link.send(await comm.read())


# --- the way there --------------------------------------------------------------------------------


class _Stream:
    """What one end of a stream sends."""

    def __init__(self, comm: Any, *, has_begun: bool = True) -> None:  # noqa: ANN401  # as above
        """*has_begun*: else nothing is sent before `begin`."""
        self._comm = comm
        self._has_begun = has_begun
        self._out: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None

    async def begin(self, word: object) -> None:
        """Send the first word, before all else. Raises: OSError."""
        await self._comm.write(word)
        self._has_begun = True
        if self._out:
            self.send(b"")

    def send(self, data: bytes) -> None:
        """Send bytes, in order; they are dropped where nobody listens."""
        self._out.append(data)
        if self._has_begun and self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="write")

    async def _write(self) -> None:
        try:
            while out := b"".join(self._out):
                self._out.clear()
                await self._comm.write(out)
        except OSError:
            pass  # whoever reads learns of it
        finally:
            self._writing = None

    async def end(self, how: str) -> None:
        """Send the last word, after all else. Raises: OSError."""
        if self._writing is not None:
            await self._writing
        await self._comm.write(how)


class ClusterLink:
    """The way to a worker at a place of the cluster."""

    gather_s = ANSWERS_S

    def __init__(
        self,
        comm: Any,  # noqa: ANN401  # as above
        began: tuple[str, int],
        heard: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        """*began*: what `serve` tells first."""
        self._comm = comm
        self.host, self.pid = began
        self._heard, self._lost = heard, lost
        self._stream = _Stream(comm)
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._began_at = self._flushed_at = float("-inf")
        """When what is in `out` began to be gathered, and when messages were sent last."""
        self._timer: asyncio.TimerHandle | None = None
        self._hearing = asyncio.create_task(self._hear(), name=f"hear {self.host}")

    def send(self, data: bytes) -> None:
        """Send bytes soon, in order; they are dropped where nobody listens."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._out:
            self._began_at = now
        self._out += (frame([After(now - self._began_at)]), data)
        self._out_bytes += len(data)
        if self._out_bytes >= MANY_BYTES or now >= self._flushed_at + GATHER_S:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_at(self._flushed_at + GATHER_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flushed_at = asyncio.get_running_loop().time()
        self._stream.send(b"".join(self._out))
        self._out, self._out_bytes, self._timer = [], 0, None

    async def _hear(self) -> None:
        try:
            while isinstance(said := await self._comm.read(), bytes):
                self._heard(said)
        except OSError:
            said = "the connection to it broke"
        self._lost(said if isinstance(said, str) else "it says what cannot be read")

    def kill(self) -> None:
        """Hear nothing more, and let the worker end."""
        if self._timer is not None:
            self._timer.cancel()
        self._heard, self._lost = _hear_nothing, _lose_nothing
        self._hearing.cancel()
        self._comm.abort()

    async def close(self) -> None:
        """Let the worker end."""
        self.kill()
        await asyncio.gather(self._hearing, return_exceptions=True)


def _hear_nothing(_data: bytes) -> None:
    pass


def _lose_nothing(_how: str) -> None:
    pass


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


@dataclass(frozen=True, slots=True)
class Place:
    """A worker of Dask."""

    address: str
    host: str


class Cluster:
    """A connection to a cluster; where the address is `local:N`, to one that ends with it."""

    def __init__(self, client: Any, own: Any, module: str) -> None:  # noqa: ANN401  # Dask's
        self._client = client
        self._own = own
        self._module = module
        self._numbers = count()
        self.places: list[Place] = []
        """Where workers can be, in order of their addresses."""

    @classmethod
    async def open(cls, address: str, module: str) -> Cluster:
        """Connect.

        Args:
            address: `tls://host:port` of the scheduler, `tcp://` if all is on this machine, or
                `local:N`: N processes of this machine, which end with the run.
            module: What the workers run.

        Raises: UsageError if there is no such cluster, or others could read what it is told;
            ImportError without Dask.
        """
        own: Any = None
        if not address.startswith(LOCAL):
            _check_is_private(address, "the scheduler")
        distributed = import_module("distributed")  # an extra; it takes a third of a second
        try:
            if address.startswith(LOCAL):
                own = await _started(int(address.removeprefix(LOCAL)))
            client = await distributed.Client(own or address, asynchronous=True, timeout=CONNECT_S)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"the cluster at {address} cannot be reached: {error}",
                hint="`dask scheduler` prints its address; `bulkbind doctor --cluster ADDRESS` "
                "checks it",
            ) from error
        cluster = cls(client, own, module)
        try:
            await cluster.look()
        except UsageError:
            await cluster.close()
            raise
        return cluster

    async def look(self) -> None:
        """See where workers can be.

        Raises: UsageError if nowhere, or where others could read what they are told.
        """
        known = (await self._client.scheduler.identity(n_workers=-1))["workers"]
        self.places = [Place(each, str(known[each]["host"])) for each in sorted(known)]
        if not self.places:
            raise UsageError(
                "the cluster has no worker",
                hint="`dask worker SCHEDULER_ADDRESS` on each machine starts one",
            )
        for place in self.places:
            _check_is_private(place.address, "a worker")

    async def start(
        self, heard: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> ClusterLink:
        """Start a worker at the next place, and return the link to it. Raises: OSError."""
        place = self.places[next(self._numbers) % len(self.places)]
        try:
            async with asyncio.timeout(CONNECT_S):
                comm, began = await self._begun(place)
        except Exception as error:
            raise OSError(f"{place.address}: {_words(error)}") from error
        match began:
            case [str(), int()]:
                return ClusterLink(comm, began, heard, lost)
            case _:
                comm.abort()
                raise OSError(f"{place.address}: {began}")

    async def _begun(self, place: Place) -> tuple[Any, Any]:
        """Open a stream; return it and what came first. Raises: OSError, and whatever Dask does."""
        await self._client.run(prepare, workers=[place.address])
        connect = import_module("distributed.comm").connect
        comm = await connect(place.address, **self._client.connection_args)
        try:
            await comm.write({"op": OPERATION, "module": self._module, "reply": False})
            return comm, await comm.read()
        except BaseException:
            comm.abort()
            raise

    async def examine(self, place: Place, host: str, port: int) -> Examined:
        """Return what a worker at a place would be, and whether it reaches a port.

        Raises: OSError if none can be there.
        """
        try:
            found = await self._client.run(examine, host, port, workers=[place.address])
        except Exception as error:
            raise OSError(_words(error)) from error
        return cast("Examined", found[place.address])

    async def close(self) -> None:
        """Close the connection, and end the cluster if it is our own."""
        with contextlib.suppress(Exception):
            await self._client.close()
        if self._own is not None:
            with contextlib.suppress(Exception):
                await self._own.close()


async def _started(processes: int) -> Any:  # noqa: ANN401  # as above
    """Start a cluster of this machine that nobody else can reach."""
    folder = await in_thread(tempfile.mkdtemp, prefix="bulkbind-")
    with import_module("dask").config.set(QUIET):
        return await import_module("distributed").LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            host="127.0.0.1",
            # With an address of None alone, its web server still wants the port 8787, and warns.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            local_directory=folder,
            asynchronous=True,
            silence_logs=50,
        )


def _check_is_private(address: str, what: str) -> None:
    parts = urlsplit(address)
    if parts.scheme == "tls" or _is_loopback(parts.hostname or ""):
        return
    raise UsageError(
        f"{what} listens at {address}, where others can read what it is told, secrets too",
        hint="start scheduler and workers with --protocol tls (see `bulkbind help scale`)",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

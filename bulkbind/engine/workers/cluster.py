"""Workers on the machines of a Dask cluster: one actor each, which holds a worker's process.

An actor is no task: nothing is retried, moved or computed again. It starts the same process as
`--workers` does on one machine and passes bytes on, so that a worker's lease is measured by the
worker itself, whatever becomes of Dask: a scheduler that dies, a driver that is cut off or stopped.

A call costs each side some half a millisecond, whatever it carries, so messages are gathered. What
is gathered is told with the time between, and handed to the worker in that time: a gateway that
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
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

from bulkbind.clock import SystemClock
from bulkbind.engine.workers.link import PipeLink
from bulkbind.errors import UsageError
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


GATHER_S = 0.025
"""Messages wait for others for so long, each way."""
POLL_S = 5.0
"""An actor that has heard nothing says so after this time."""
FORGOTTEN_S = 30.0
"""An actor that nobody has asked for so long ends its worker, whose lease ended long before."""
CONNECT_S = 10.0
"""How long the scheduler may take to answer."""
REACH_S = 5.0
"""How long a connection to the endpoint may take when it is tried."""
APART_S = 1e-6
"""Between two messages that are handed on in order."""
LOCAL = "local:"
CLOCK = SystemClock()
"""An actor has nobody who hands it one."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a worker at a place would be."""

    version: str
    """Of bulkbind."""
    python: str
    trouble: str
    """Why it does not reach the endpoint; empty if it does."""


class Seat:
    """What runs on a machine of the cluster: it holds one worker's process."""

    def __init__(self) -> None:
        self._link: PipeLink | None = None
        self._said = bytearray()
        self._how = ""
        """How the worker ended."""
        self._news = asyncio.Event()
        self._last_at = self._asked_at = 0.0
        self._guard: asyncio.Task[None] | None = None

    async def begin(self, module: str) -> tuple[str, int]:
        """Start the worker; return the machine's name and the process' number. Raises: OSError."""
        self._asked_at = asyncio.get_running_loop().time()
        self._link = await PipeLink.start(module, self._hear, self._lost)
        self._guard = asyncio.create_task(self._end_forgotten(), name="forgotten")
        return socket.gethostname(), self._link.pid

    def _hear(self, data: bytes) -> None:
        self._said += data
        self._news.set()

    def _lost(self, how: str) -> None:
        self._how = how
        self._news.set()

    async def examine(self, host: str, port: int) -> Examined:
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

    async def push(self, parts: list[tuple[float, bytes]]) -> None:
        """Hand messages to the worker, each so many seconds after the first."""
        loop = asyncio.get_running_loop()
        now = self._asked_at = loop.time()
        for after_s, data in parts:
            self._last_at = max(self._last_at + APART_S, now + after_s)
            if self._last_at <= now:
                self._pass_on(data)
            else:
                loop.call_at(self._last_at, self._pass_on, data)

    def _pass_on(self, data: bytes) -> None:
        if self._link is not None:
            self._link.send(data)

    async def poll(self) -> tuple[bytes, str]:
        """Return what the worker has said since, soon after it has, and how it ended, if it has."""
        self._asked_at = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), POLL_S)
            if not self._how:
                await CLOCK.sleep(GATHER_S)
        said, self._said = bytes(self._said), bytearray()
        self._news.clear()
        return said, self._how

    async def end(self) -> None:
        """End the worker at once."""
        if self._guard is not None:
            self._guard.cancel()
        await self._end()

    async def _end(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.kill()
            await link.close()

    async def _end_forgotten(self) -> None:
        loop = asyncio.get_running_loop()
        while (left_s := self._asked_at + FORGOTTEN_S - loop.time()) > 0:
            await CLOCK.sleep(left_s)
        await self._end()


class _Actor(Protocol):
    """A seat, as the driver sees it."""

    def examine(self, host: str, port: int) -> Awaitable[Examined]: ...

    def begin(self, module: str) -> Awaitable[tuple[str, int]]: ...

    def push(self, parts: list[tuple[float, bytes]]) -> Awaitable[None]: ...

    def poll(self) -> Awaitable[tuple[bytes, str]]: ...

    def end(self) -> Awaitable[None]: ...


class ClusterLink:
    """The way to a worker on a machine of the cluster."""

    def __init__(
        self,
        future: Any,  # noqa: ANN401  # Dask's
        seat: _Actor,
        place: tuple[str, int],
        heard: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        """*place*: what `Seat.begin` returned."""
        self._future = future
        """Released, it ends the actor."""
        self._seat = seat
        self.host, self.pid = place
        self._heard, self._lost = heard, lost
        self._out: list[tuple[float, bytes]] = []
        self._pushing: asyncio.Task[None] | None = None
        self._polling = asyncio.create_task(self._poll(), name=f"hear {self.host}")
        self._ending: asyncio.Task[None] | None = None

    def send(self, data: bytes) -> None:
        """Send bytes, in order."""
        self._out.append((asyncio.get_running_loop().time(), data))
        if self._pushing is None:
            self._pushing = asyncio.create_task(self._push(), name=f"tell {self.host}")

    async def _push(self) -> None:
        try:
            while self._out:
                await CLOCK.sleep(GATHER_S)
                out, self._out = self._out, []
                began_at = out[0][0]
                await self._seat.push([(at - began_at, data) for at, data in out])
        except Exception as error:  # noqa: BLE001  # whatever Dask says: it is gone
            self._end(_why(error))
        finally:
            self._pushing = None

    async def _poll(self) -> None:
        how = ""
        try:
            while not how:
                said, how = await self._seat.poll()
                if said:
                    self._heard(said)
        except Exception as error:  # noqa: BLE001  # as above
            how = _why(error)
        self._end(how)

    def _end(self, how: str) -> None:
        lost, self._lost = self._lost, _lose_nothing
        self._heard = _hear_nothing
        lost(how)

    def kill(self) -> None:
        """Hear nothing more, and let the worker end."""
        self._heard, self._lost = _hear_nothing, _lose_nothing
        self._polling.cancel()
        if self._pushing is not None:
            self._pushing.cancel()
        if self._ending is None:
            self._ending = asyncio.create_task(self._let_go(), name=f"end {self.host}")

    async def _let_go(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CONNECT_S):
                await self._seat.end()
        self._future.release()

    async def close(self) -> None:
        """End the worker, and wait for it."""
        self.kill()
        assert self._ending is not None
        await self._ending


def _hear_nothing(_data: bytes) -> None:
    pass


def _lose_nothing(_how: str) -> None:
    pass


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _why(error: BaseException) -> str:
    return f"the cluster lost it: {_words(error)}"


@dataclass(frozen=True, slots=True)
class Place:
    """A worker of Dask: a process that an actor may be put in."""

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
        distributed = import_module("distributed")  # an extra; it takes a third of a second
        own: Any = None
        if not address.startswith(LOCAL):
            _check_is_private(address, "the scheduler")
        try:
            if address.startswith(LOCAL):
                own = await _started(int(address.removeprefix(LOCAL)))
            client = await distributed.Client(
                own or address, asynchronous=True, direct_to_workers=True, timeout=CONNECT_S
            )
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
        future, seat = await self._seated(place)
        try:
            began = await seat.begin(self._module)
        except Exception as error:
            future.release()
            raise OSError(f"{place.address}: {_words(error)}") from error
        return ClusterLink(future, seat, began, heard, lost)

    async def examine(self, place: Place, host: str, port: int) -> Examined:
        """Return what a worker at a place would be, and whether it reaches a port.

        Raises: OSError if none can be there.
        """
        future, seat = await self._seated(place)
        try:
            return await seat.examine(host, port)
        except Exception as error:
            raise OSError(_words(error)) from error
        finally:
            future.release()

    async def _seated(self, place: Place) -> tuple[Any, _Actor]:
        """Put an actor at a place. Raises: OSError."""
        future = self._client.submit(
            Seat, actor=True, workers=[place.address], allow_other_workers=False, pure=False
        )
        try:
            return future, cast("_Actor", await future)
        except Exception as error:
            future.release()
            raise OSError(f"{place.address}: {_words(error)}") from error

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
    return await import_module("distributed").LocalCluster(
        n_workers=processes,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
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

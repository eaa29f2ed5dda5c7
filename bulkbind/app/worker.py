"""A worker's process, `python -m bulkbind.app.worker FD`, and how the driver sets it up.

FD is the number of the inherited socket. All else, secrets too, comes over it; the end of the
driver is the end of the worker.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import msgspec

from bulkbind.app.loop import MOST_UNCOLLECTED, loop_factory
from bulkbind.clock import SystemClock
from bulkbind.engine.workers.link import Pipe
from bulkbind.engine.workers.worker import Worker
from bulkbind.errors import ExitCode
from bulkbind.koodrive.auth.credential import of_parts
from bulkbind.koodrive.client import KooDrive
from bulkbind.koodrive.transport import context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext

    from bulkbind.settings import ApiSettings


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs of the settings, under the same names."""

    path: str
    already_bound_codes: tuple[str, ...]
    not_bound_codes: tuple[str, ...]
    retryable_codes: tuple[str, ...]
    locked_codes: tuple[str, ...]
    user_codes: tuple[str, ...]
    timeout: float
    list_timeout: float
    connect_timeout: float
    proxy: str | None


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the server, and what is known of it."""

    api: Api
    endpoint: str
    skew_s: float | None
    """Seconds that the server's clock is ahead of this machine's."""
    names_codes: bool
    """Whether each success must name its device."""
    authorities: list[bytes] | None
    """Certificates (DER) that are trusted instead of the system's; None: the system's."""
    proxies: dict[str, str]
    """The variables of the environment that name proxies, with their passwords."""

    def __repr__(self) -> str:
        return f"Setup({self.endpoint})"


def setup_of(
    settings: ApiSettings,
    endpoint: str,
    client: KooDrive,
    tls: SSLContext | None,
    environ: Mapping[str, str] = os.environ,
) -> bytes:
    """Return the setup for a worker of a run that has reached the server."""
    has_own = tls is not None and settings.ca_file is not None
    setup = Setup(
        api=Api(**{name: getattr(settings, name) for name in Api.__struct_fields__}),
        endpoint=endpoint,
        skew_s=client.server_clock.skew_s() if client.server_clock.known else None,
        names_codes=client.names_codes,
        authorities=tls.get_ca_certs(binary_form=True) if tls and has_own else None,
        proxies={k: v for k, v in environ.items() if k.lower().endswith("_proxy")},
    )
    return msgspec.msgpack.encode(setup)


async def opened(data: bytes, may_send: Callable[[], None]) -> KooDrive:
    """Return the client that a setup describes. Raises: UsageError, ValueError."""
    setup = msgspec.msgpack.decode(data, type=Setup)
    os.environ.update(setup.proxies)  # as the client looks for them; never seen from outside
    is_tls = setup.endpoint.startswith("https:")
    client = KooDrive(
        cast("ApiSettings", setup.api),  # all that a client asks it for
        setup.endpoint,
        SystemClock(),
        skew_s=setup.skew_s,
        names_codes=setup.names_codes,
        tls=context_of(setup.authorities) if is_tls else None,
    )
    client.before_sending(may_send)
    await client.__aenter__()  # it ends with the process
    gc.freeze()
    return client


async def work(end: socket.socket, driver: int) -> None:
    """Do what the driver says until it is gone, or this worker cannot go on.

    *driver*: its process id.
    """
    heard: list[bytes] = []
    worker: Worker | None = None

    def hear(data: bytes) -> None:
        if worker is None:
            heard.append(data)
        else:
            worker.heard(data)

    pipe = await Pipe.over(end, hear, lambda: os._exit(ExitCode.DONE))
    worker = Worker(
        SystemClock(),
        pipe.send,
        version=version("bulkbind"),
        open_client=opened,
        credential_of=of_parts,
        has_driver=lambda: os.getppid() == driver,
    )
    for data in heard:
        worker.heard(data)
    await worker.failure
    pipe.close()
    await asyncio.get_running_loop().create_future()  # until what was said has gone, and it closes


def main() -> None:
    """Run a worker; it ends with the driver's socket."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are the driver's: it drains
    driver = os.getppid()
    gc.set_threshold(MOST_UNCOLLECTED)
    end = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work(end, driver))


if __name__ == "__main__":
    main()

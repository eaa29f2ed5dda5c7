"""How many processes send, and where they are started."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bulkbind.app.worker import setup_of
from bulkbind.engine import StopReason
from bulkbind.engine.workers.cluster import Cluster
from bulkbind.engine.workers.hub import Hub
from bulkbind.engine.workers.link import PipeLink
from bulkbind.errors import UsageError
from bulkbind.report.extras import install

if TYPE_CHECKING:
    from bulkbind.app.session.session import Session
    from bulkbind.koodrive import KooDrive
    from bulkbind.pacing import Pacer
    from bulkbind.settings import SendSettings

MODULE = "bulkbind.app.worker"
SLOW_PER_S, FEW_ROWS, MOST_AUTO = 5000.0, 20_000, 4
"""Below these one process is enough; more workers than that only wait for the driver."""


def workers_of(
    send: SendSettings, rows: int, pace_per_s: float | None, cores: int | None = None
) -> int:
    """Return the number of workers on this machine; 1: the run's own process sends.

    *pace_per_s*: what is known of it beforehand; None: nothing. *cores*: None: this machine's.
    """
    if send.workers != "auto":
        return send.workers or 1
    if rows < FEW_ROWS or (pace_per_s is not None and pace_per_s < SLOW_PER_S):
        return 1
    return max(1, min((cores or _cores()) - 1, MOST_AUTO))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def hub_of(session: Session, client: KooDrive, rows: int, pacer: Pacer) -> Hub | None:
    """Return the client of a run with workers, a context manager; None: it has none.

    *rows*: that are to be sent.

    Raises: UsageError if there is no such cluster, or what it is told would not be private.
    """
    send = session.settings.send
    number = workers_of(send, rows, pacer.pace())
    if not rows or (number == 1 and send.cluster is None):
        return None
    if not client.can_check():
        session.listener.notice(
            "one process sends: with this release of aiohttp, workers cannot be kept to their lease"
        )
        return None
    if send.cluster is None:
        return _hub(session, client, pacer, number, start=partial(PipeLink.start, MODULE))
    cluster = await cluster_of(send.cluster)
    there = len(cluster.places)

    def alone(why: str) -> None:
        hint = f"`bulkbind doctor --cluster {send.cluster}` checks the cluster"
        session.stop.set(StopReason(f"no worker of the cluster is left: {why}", hint=hint))

    if isinstance(send.workers, int):
        there = min(there, send.workers)
    return _hub(
        session, client, pacer, there, start=cluster.start, close=cluster.close, alone=alone
    )


async def cluster_of(address: str) -> Cluster:
    """Return the cluster at an address. Raises: UsageError, as `Cluster.open`, or without Dask."""
    if find_spec("distributed") is None:
        hint = f"`{install('cluster')}`"
        raise UsageError(f"--cluster {address} needs Dask, which is not installed", hint=hint)
    return await Cluster.open(address, MODULE)


def _hub(session: Session, client: KooDrive, pacer: Pacer, number: int, **where: Any) -> Hub:
    """Return the hub of so many workers; *where*: how they start and end."""
    settings, tls = session.settings, session.tls
    return Hub(
        client,
        session.clock,
        number,
        version=version("bulkbind"),
        setup=lambda: setup_of(settings.api, settings.endpoint(), client, tls),
        is_free=lambda: pacer.pace() is None and pacer.in_flight() is None,
        carried=pacer.carried,
        **where,
    )

"""How many processes send, and where they are started."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bulkbind.app.worker import setup_of
from bulkbind.engine import StopReason
from bulkbind.engine.workers.cluster import Cluster
from bulkbind.engine.workers.hub import Hub
from bulkbind.engine.workers.link import PipeLink
from bulkbind.errors import UsageError
from bulkbind.report.extras import install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bulkbind.app.session.session import Session
    from bulkbind.engine.workers.hub import Places
    from bulkbind.koodrive import KooDrive
    from bulkbind.pacing import Pacer
    from bulkbind.settings import SendSettings

MODULE = "bulkbind.app.worker"
SLOW_PER_S, FEW_ROWS, MOST_AUTO = 5000.0, 20_000, 4
"""Below these one process is enough; more workers than that only wait for the driver."""
FEW_PLACES = 64
"""So many in flight one process keeps under way by itself."""


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


class Here:
    """Workers of this machine. Where none is left, the driver goes on by itself."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.at_once = max(1, _cores() - 1)
        self.start = partial(PipeLink.start, MODULE)

    def alone(self, _why: str) -> None:
        """Let it go on."""


class There:
    """Workers at the places of a cluster. Where none is left, the run stops."""

    def __init__(self, cluster: Cluster, session: Session) -> None:
        most = session.settings.send.workers
        there = len(cluster.places)
        self.number = self.at_once = min(there, most) if isinstance(most, int) else there
        self.start = cluster.start
        self._session = session

    def alone(self, why: str) -> None:
        """Stop the run."""
        hint = f"`bulkbind doctor --cluster {self._session.settings.send.cluster}` checks it"
        why = f"no worker of the cluster is left: {why}"
        self._session.stop.set(StopReason(why, hint=hint))


@asynccontextmanager
async def hub_of(
    session: Session, client: KooDrive, rows: int, pacer: Pacer
) -> AsyncIterator[Hub | None]:
    """Yield the client of a run with workers that has *rows* to bind, to be entered; or None.

    Raises: UsageError if there is no such cluster, or what it is told would not be private.
    """
    send = session.settings.send
    number = workers_of(send, rows, pacer.pace())
    if not rows or (number == 1 and send.cluster is None):
        yield None
    elif not client.can_check():
        session.listener.notice(
            "one process sends: with this release of aiohttp, workers cannot be kept to their lease"
        )
        yield None
    elif send.cluster is None:
        alone = partial(why_alone, pacer, send)
        yield _hub(session, client, pacer, Here(number), why_alone=alone)
    else:
        cluster = await cluster_of(send.cluster)
        try:
            yield _hub(
                session, client, pacer, There(cluster, session), is_even=partial(is_even, pacer)
            )
        finally:
            await cluster.close()


async def cluster_of(address: str) -> Cluster:
    """Return the cluster at an address. Raises: UsageError, as `Cluster.open`, or without Dask."""
    if find_spec("distributed") is None:
        hint = f"`{install('cluster')}`"
        raise UsageError(f"--cluster {address} needs Dask, which is not installed", hint=hint)
    return await Cluster.open(address, MODULE)


def why_alone(pacer: Pacer, send: SendSettings) -> str:
    """Return why the run's own process sends by itself though there are workers; empty: it doesn't.

    It does where the gateway has shown a limit that one process can use up, or is about to: on the
    way to a worker requests come closer together or farther apart, and places are empty meanwhile.
    """
    if send.is_per_user:
        return ""
    if pacer.is_closed:
        return "nothing gets through for now"
    if (places := pacer.in_flight()) is not None:
        return f"the gateway takes {places:,} at a time" if places <= FEW_PLACES else ""
    learner = pacer.learner
    is_slow = (learner.is_found or learner.is_stated) and learner.per_s < SLOW_PER_S
    return f"the limit is under {SLOW_PER_S:,.0f}/s" if is_slow else ""


def is_even(pacer: Pacer) -> bool:
    """Return whether binds may leave a few together: no 429 has shown otherwise."""
    return not pacer.is_closed and not pacer.learner.is_spaced and pacer.in_flight() is None


def _hub(
    session: Session,
    client: KooDrive,
    pacer: Pacer,
    places: Places,
    *,
    why_alone: Callable[[], str] = str,
    is_even: Callable[[], bool] = lambda: False,
) -> Hub:
    settings, tls = session.settings, session.tls
    return Hub(
        client,
        session.clock,
        places,
        version=version("bulkbind"),
        setup=lambda: setup_of(settings.api, settings.endpoint(), client, tls),
        is_free=lambda: pacer.pace() is None and pacer.in_flight() is None,
        why_alone=why_alone,
        is_even=is_even,
        carried=pacer.carried,
    )

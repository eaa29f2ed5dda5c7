"""How many processes send, and how they are started."""

from __future__ import annotations

import os
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from bulkbind.app.worker import setup_of
from bulkbind.engine.workers.hub import Hub
from bulkbind.engine.workers.link import PipeLink

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
    """Return the number of workers; 1: the run's own process sends.

    *pace_per_s*: what is known of it beforehand; None: nothing. *cores*: None: this machine's.
    """
    if send.workers != "auto":
        return send.workers
    if rows < FEW_ROWS or (pace_per_s is not None and pace_per_s < SLOW_PER_S):
        return 1
    return max(1, min((cores or _cores()) - 1, MOST_AUTO))


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hub_of(session: Session, client: KooDrive, rows: int, pacer: Pacer) -> Hub | None:
    """Return the client of a run with workers, a context manager; None: it has none.

    *rows*: that are to be sent.
    """
    settings, tls = session.settings, session.tls
    number = workers_of(settings.send, rows, pacer.pace())
    if number == 1 or not rows:
        return None
    if not client.can_check():
        session.listener.notice(
            "one process sends: with this release of aiohttp, workers cannot be kept to their lease"
        )
        return None
    return Hub(
        client,
        session.clock,
        number,
        version=version("bulkbind"),
        setup=lambda: setup_of(settings.api, settings.endpoint(), client, tls),
        is_free=lambda: pacer.pace() is None and pacer.in_flight() is None,
        start=partial(PipeLink.start, MODULE),
    )

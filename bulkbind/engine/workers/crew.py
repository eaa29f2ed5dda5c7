"""What the driver knows of one worker, and what it tells it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkbind.engine.workers.messages import frame
from bulkbind.engine.workers.worker import BEAT_S
from bulkbind.model import WorkerState

if TYPE_CHECKING:
    from bulkbind.engine.ports import Landing
    from bulkbind.engine.workers.link import Link
    from bulkbind.engine.workers.messages import ToWorker
    from bulkbind.model import Attempt

NUMBER_BITS = 32
"""A connection's number is the worker's, and in these bits its own."""
RATE_S = 1.0
"""The rate of a worker is that of the last second; at its end, that of all its time."""
FADING = 0.75
"""What is left of `carried_s` after a beat."""


@dataclass(slots=True)
class Ordered:
    """Binds that a worker was told to send together."""

    number: int
    """Of the first of them, the others follow."""
    landing: Landing
    at: float
    timeout_s: float


@dataclass(slots=True, eq=False)
class Crew:
    """One worker; moments are monotonic seconds."""

    number: int
    link: Link | None = None
    is_starting: bool = False
    is_told: bool = False
    """Whether it has been told how to reach the server."""
    orders: dict[int, Ordered] = field(default_factory=dict)
    """What it has in hand."""
    keys: set[int] = field(default_factory=set)
    """Credentials that it has got."""
    nameless: set[int] = field(default_factory=set)
    """Connections whose last answer named no device: where they break, it may be another's."""
    ready_at: float = float("inf")
    leased_at: float = float("-inf")
    missing: int = 0
    """Beats in a row."""
    settled: int = 0
    counted: tuple[float, int] = (0.0, 0)
    """Of the last look: when, and how many were settled."""
    per_s: float = 0.0
    carried_s: float = 0.0
    """How long orders of late took to the worker and back at most, besides their answers' time."""
    lost: str = ""
    """Why it is gone; empty while it is not."""
    timeout_s: float = 0.0
    """For how long the answers to the orders in `out` are waited; 0 while there are none."""
    out: list[ToWorker] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        return self.link.pid if self.link else 0

    @property
    def host(self) -> str:
        """The name of its machine; empty: this one."""
        return self.link.host if self.link else ""

    def state(self, *, is_over: bool, waits: str) -> WorkerState:
        """Return how it is doing.

        *is_over*: whether the run is; *waits*: why it would have nothing to send.
        """
        return WorkerState(
            number=self.number,
            pid=self.pid,
            host=self.host,
            is_alive=self.link is not None and not (self.lost or is_over),
            settled=self.settled,
            in_hand=len(self.orders),
            per_s=self.per_s,
            lost=self.lost,
            waits="" if self.lost else waits,
        )

    def put(self, message: ToWorker) -> None:
        """Send a message, with all others of this turn of the event loop."""
        if not self.out:
            asyncio.get_running_loop().call_soon(self.flush)
        self.out.append(message)

    def flush(self) -> None:
        """Send what waits, once there is a link."""
        if self.link is not None and self.out:
            out, self.out, self.timeout_s = self.out, [], 0.0
            if not self.lost:
                self.link.send(frame(out))

    def carry(self, now: float, order: Ordered, attempt: Attempt) -> None:
        """Note how long an order took to the worker and back, besides its answer's time."""
        self.carried_s = max(self.carried_s, now - order.at - attempt.took_s)

    def look(self, now: float) -> None:
        """Note how fast it is, once a beat."""
        self.carried_s *= FADING
        since, settled = self.counted
        if now >= since + RATE_S:
            self.per_s = (self.settled - settled) / (now - since) if since else 0.0
            self.counted = now, self.settled

    def sum_up(self, now: float) -> None:
        """Let its rate be that of all the time that it was sending."""
        self.per_s = self.settled / max(BEAT_S, now - self.ready_at)

    @property
    def mark_bits(self) -> int:
        """What tells its connections' numbers from those of others, and of the driver."""
        return self.number << NUMBER_BITS

    def mark(self, connection: int) -> int:
        """Return a connection's number as the driver knows it; 0 stays 0."""
        return connection and self.mark_bits | connection

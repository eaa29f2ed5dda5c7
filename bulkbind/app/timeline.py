"""How a sending went over time, in few numbers: the ledger keeps them for the report."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from bulkbind.clock import iso

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.gauge import Gauge
    from bulkbind.clock import Clock
    from bulkbind.model import Settlement

MOST_POINTS = 120
"""When there are more, every two become one, and the next ones are twice as far apart."""
LATENCY_EDGES_MS = tuple(round(10 * 2 ** (n / 2)) for n in range(24))
"""Upper edges of the classes of latency, 10 ms to half a minute; one more class lies above."""


class Timeline:
    """Samples what is settled and what is allowed, once a second at most.

    Taken when outcomes come, so that a run that waits takes no samples and no time.
    """

    def __init__(self, gauge: Gauge, clock: Clock) -> None:
        self._gauge = gauge
        self._clock = clock
        self._began = clock.monotonic()
        self._began_at = iso(clock.utc_now())
        self._step_s = 1.0
        self._settled: list[int] = [0]
        self._pace: list[float | None] = [gauge.per_s()]
        self._throttled: list[int] = [0]
        self._throttled_before = 0
        self._latency = [0] * (len(LATENCY_EDGES_MS) + 1)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Hear of outcomes once they are durable."""
        self._reach(int((self._clock.monotonic() - self._began) / self._step_s))
        self._settled[-1] += len(settlements)
        self._pace[-1] = self._gauge.per_s()
        throttled = self._gauge.throttled()
        self._throttled[-1] += throttled - self._throttled_before
        self._throttled_before = throttled
        for item in settlements:
            if item.attempt is not None and item.attempt.http_status is not None:
                self._latency[bisect_left(LATENCY_EDGES_MS, item.attempt.took_s * 1000)] += 1

    def _reach(self, position: int) -> None:
        """Bring the series to *position*; a gap holds nothing settled, and the last pace."""
        while position >= MOST_POINTS:
            self._thin()
            position //= 2
        while len(self._settled) <= position:
            self._settled.append(0)
            self._pace.append(self._pace[-1])
            self._throttled.append(0)

    def _thin(self) -> None:
        self._step_s *= 2
        self._settled = [sum(self._settled[at : at + 2]) for at in range(0, len(self._settled), 2)]
        self._throttled = [
            sum(self._throttled[at : at + 2]) for at in range(0, len(self._throttled), 2)
        ]
        self._pace = self._pace[1::2] + self._pace[-1:] * (len(self._pace) % 2)

    def part(self) -> dict[str, object]:
        """Return it as the ledger keeps it: one part of a run, from a start to a stop."""
        return {
            "began_at": self._began_at,
            "step_s": self._step_s,
            "settled": list(self._settled),
            "pace_per_s": [None if pace is None else round(pace, 2) for pace in self._pace],
            "throttled": list(self._throttled),
            "latency_edges_ms": list(LATENCY_EDGES_MS),
            "latency": list(self._latency),
        }

"""The progress of sending: log lines, and a timeline for the report."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger.store import RUN_SHIFT
from bulkbind.logs import logger
from bulkbind.model import TimelinePart
from bulkbind.model.wording import Needing
from bulkbind.report.measures import left_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bulkbind.app.session.eta import Gauge
    from bulkbind.app.session.listener import Listener
    from bulkbind.clock import Clock
    from bulkbind.model import Claim, Ended, Outcome, Status, Unbinding

MOST_POINTS = 120
"""Beyond this, every two points are merged and the step doubles."""
LATENCY_EDGES_MS = tuple(round(10 * 2 ** (n / 2)) for n in range(24))
"""Upper edges of the latency histogram, 10 ms to half a minute; one more class is above."""


class Timeline:
    """Samples settled rows and the pace, at most once a second, when outcomes arrive."""

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

    def settled(self, ended: Sequence[Ended]) -> None:
        """Sample durable outcomes."""
        self._extend_to(int((self._clock.monotonic() - self._began) / self._step_s))
        self._settled[-1] += len(ended)
        self._pace[-1] = self._gauge.per_s()
        throttled = self._gauge.throttled()
        self._throttled[-1] += throttled - self._throttled_before
        self._throttled_before = throttled
        for claim, _ in ended:
            if claim.last is not None and claim.last.http_status is not None:
                self._latency[bisect_left(LATENCY_EDGES_MS, claim.last.took_s * 1000)] += 1

    def _extend_to(self, position: int) -> None:
        """Extend the series to *position*; a gap has nothing settled, and the last pace."""
        while position >= MOST_POINTS:
            self._double_step()
            position //= 2
        while len(self._settled) <= position:
            self._settled.append(0)
            self._pace.append(self._pace[-1])
            self._throttled.append(0)

    def _double_step(self) -> None:
        self._step_s *= 2
        self._settled = [sum(self._settled[at : at + 2]) for at in range(0, len(self._settled), 2)]
        self._throttled = [
            sum(self._throttled[at : at + 2]) for at in range(0, len(self._throttled), 2)
        ]
        self._pace = self._pace[1::2] + self._pace[-1:] * (len(self._pace) % 2)

    def part(self) -> TimelinePart:
        """Return it as stored in the ledger: one part of a run, from a start to a stop."""
        return TimelinePart(
            began_at=self._began_at,
            step_s=self._step_s,
            settled=list(self._settled),
            pace_per_s=[None if pace is None else round(pace, 4) for pace in self._pace],
            throttled=list(self._throttled),
            latency_edges_ms=list(LATENCY_EDGES_MS),
            latency=list(self._latency),
        )


LOG_EVERY_S = 30.0
"""The longest time between progress lines; there is one at every tenth of the rows, too."""
LOG_AT_MOST_EVERY_S = 1.0
"""The shortest time between progress lines."""

LOOK_EVERY_S = 1.0
"""Where the next look comes much later, this machine was busy or asleep."""

SHORTEST_S = 1e-3

_POSITION = (1 << RUN_SHIFT) - 1
"""The part of a row's id that is its position in the run."""

MOST_PROBLEMS = 3
"""The newest problems of a group of outcomes, which the listener receives."""


def _needing(claim: Claim, outcome: Outcome) -> Needing:
    said = (claim.last.code, claim.last.message) if claim.last else ("", "")
    return Needing(claim.device.machine_code, outcome.status, *said, outcome.detail)


class Progress:
    """Counts durable outcomes, and logs each device or, now and then, the progress."""

    def __init__(
        self,
        rows: int,
        listener: Listener,
        clock: Clock,
        pace: Callable[[], float | None],
        *,
        log_devices: bool,
    ) -> None:
        self._rows = rows
        self._listener = listener
        self._clock = clock
        self._pace = pace
        self._log_devices = log_devices
        self._log = logger()
        self._counts: Counter[str] = Counter()
        self._fresh: list[tuple[int, Needing]] = []
        """The newest rows that need a person; nobody has seen them yet."""
        self._done = 0
        self._is_blocked: Callable[[], bool] = lambda: False
        """Whether nobody knows when it goes on."""
        self._began_at = self._logged_at = clock.monotonic()
        self._logged = 0

    @property
    def to_do(self) -> int:
        """Rows that have still to be settled."""
        return self._rows - self._done

    @contextlib.contextmanager
    def shown(self, gauge: Gauge) -> Iterator[None]:
        """Show the progress of the block to the listener, and in log lines, until it ends.

        *gauge*: shows the listener the pace, and is told when this machine was busy or asleep.
        """
        self._is_blocked = gauge.is_blocked
        works = (self.run(), self._look(gauge))
        tasks = [asyncio.create_task(work, name="progress") for work in works]
        try:
            self._listener.sending(self._rows, gauge)
            yield
        finally:
            for task in tasks:
                task.cancel()
            self._listener.sent()

    async def _look(self, gauge: Gauge) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            gauge.look(LOOK_EVERY_S)

    def settled(self, ended: Sequence[Ended]) -> None:
        """Count durable outcomes."""
        counts = Counter([outcome.status for _, outcome in ended])
        self._counts.update({status.value: count for status, count in counts.items()})
        if any(status.about.needs_person for status in counts):
            self._fresh += [
                (claim.row, _needing(claim, outcome))
                for claim, outcome in ended
                if outcome.status.about.needs_person
            ][-MOST_PROBLEMS:]
            del self._fresh[:-MOST_PROBLEMS]
        self._count(len(ended), [])
        if self._log_devices:
            for claim, outcome in ended:
                self._log_device(claim, outcome)

    def fresh(self) -> dict[int, Needing]:
        """Return the newest rows that need a person by their ids, each once."""
        fresh, self._fresh = dict(self._fresh), []
        return fresh

    def show(self, problems: Sequence[str]) -> None:
        """Show the newest rows that need a person."""
        self._listener.settled(self._counts, problems)

    def doubted(self, before: Sequence[Status]) -> None:
        """Take back outcomes that are in doubt again; *before*: what they were."""
        self._counts.subtract(status.value for status in before)
        self._count(-len(before), [])

    def unbound(self, items: Sequence[Unbinding]) -> None:
        """Count durable unbindings."""
        self._counts.update(item.status.value for item in items)
        problems = [
            Needing(item.machine_code, item.status, "", "", item.detail).text("")
            for item in items
            if item.status.about.needs_person
        ]
        self._count(len(items), problems[-MOST_PROBLEMS:])

    def _count(self, done: int, problems: list[str]) -> None:
        self._done += done
        self._listener.settled(self._counts, problems)
        if not self._log_devices and self._is_new_tenth():
            self._log_progress()

    async def run(self) -> None:
        """Log at least every `LOG_EVERY_S`, until cancelled."""
        while not self._log_devices:
            wait_s = self._logged_at + LOG_EVERY_S - self._clock.monotonic()
            if wait_s <= 0:
                self._log_progress()
            else:
                await self._clock.sleep(wait_s)

    def _is_new_tenth(self) -> bool:
        is_later = self._clock.monotonic() >= self._logged_at + LOG_AT_MOST_EVERY_S
        rows = max(self._rows, 1)
        return is_later and self._logged * 10 // rows < self._done * 10 // rows

    def _log_progress(self) -> None:
        now = self._clock.monotonic()
        recent_per_s = (self._done - self._logged) / max(now - self._logged_at, SHORTEST_S)
        left = None
        if not self._is_blocked():
            left = left_s(self.to_do, recent_per_s, self._pace())
        self._logged_at, self._logged = now, self._done
        self._log.info(
            "run.progress",
            settled=self._done,
            rows=self._rows,
            **self._counts,
            per_s=round(self._done / max(now - self._began_at, LOG_AT_MOST_EVERY_S), 1),
            pace_per_s=None if (pace := self._pace()) is None else round(pace, 4),
            left_s=None if left is None else round(left, 1),
        )

    def _log_device(self, claim: Claim, outcome: Outcome) -> None:
        attempt = claim.last
        self._log.info(
            "device.settled",
            row=(claim.row & _POSITION) + 1,
            machine_code=claim.device.machine_code,
            user_id=claim.device.user_id,
            outcome=outcome.status.value,
            device_id=outcome.device_id,
            attempts=claim.attempts,
            took_s=round(attempt.took_s, 3) if attempt else None,
            http_status=attempt.http_status if attempt else None,
            code=attempt.code if attempt else "",
            message=attempt.message if attempt else "",
            trace_id=attempt.trace_id if attempt else "",
            detail=outcome.detail,
        )

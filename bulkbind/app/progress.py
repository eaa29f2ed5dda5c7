"""What is told of a run while it is sending: to the listener, and in log lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from operator import attrgetter
from typing import TYPE_CHECKING

from bulkbind.ledger.store import RUN_SHIFT
from bulkbind.logs import logger
from bulkbind.model import NEEDS_PERSON, UnbindStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bulkbind.app.gauge import Gauge
    from bulkbind.app.listener import Listener
    from bulkbind.clock import Clock
    from bulkbind.model import Settlement, Unbinding

TOLD_EVERY_S = 30.0
"""A progress line at least this often, and at every tenth of the rows."""
TOLD_AT_MOST_S = 1.0
"""A progress line at most this often."""

SHORTEST_S = 1e-3

_POSITION = (1 << RUN_SHIFT) - 1
"""The part of a row's id that counts within its run."""

_status = attrgetter("outcome.status.value")

MOST_PROBLEMS = 3
"""Problems of one group of outcomes that are told to the listener: the newest."""


def _problem(item: Settlement) -> str:
    words = item.attempt.message if item.attempt else ""
    said = f"{item.attempt.code if item.attempt else ''} {words}".strip()
    return f"{item.device.machine_code}: {item.outcome.status}: {item.outcome.detail or said}"


class Progress:
    """Counts what is durable; one line per settled device, or a line now and then for all."""

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
        self._done = 0
        self._began_at = self._told_at = clock.monotonic()
        self._told = 0

    @contextlib.contextmanager
    def shown(self, gauge: Gauge) -> Iterator[None]:
        """Show the block's sending to the listener, and in lines; it ends however the block does.

        *gauge*: tells the listener of the pace.
        """
        telling = asyncio.create_task(self.run(), name="progress")
        try:
            self._listener.sending(self._rows, gauge)
            yield
        finally:
            telling.cancel()
            self._listener.sent()

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Hear of outcomes once they are durable."""
        self._counts.update(map(_status, settlements))
        problems = [item for item in settlements if item.outcome.status in NEEDS_PERSON]
        self._count(len(settlements), [_problem(item) for item in problems[-MOST_PROBLEMS:]])
        if self._log_devices:
            for item in settlements:
                self._tell_device(item)

    def unbound(self, items: Sequence[Unbinding]) -> None:
        """Hear of bindings taken back, once that is durable."""
        self._counts.update(item.status.value for item in items)
        problems = [
            f"{item.machine_code}: {item.status}: {item.detail}"
            for item in items
            if item.status in (UnbindStatus.CHANGED, UnbindStatus.FAILED)
        ]
        self._count(len(items), problems[-MOST_PROBLEMS:])

    def _count(self, done: int, problems: list[str]) -> None:
        self._done += done
        self._listener.settled(self._counts, problems)
        if not self._log_devices and self._is_new_tenth():
            self._tell()

    async def run(self) -> None:
        """Tell at least every `TOLD_EVERY_S`, until cancelled."""
        while not self._log_devices:
            wait_s = self._told_at + TOLD_EVERY_S - self._clock.monotonic()
            if wait_s <= 0:
                self._tell()
            else:
                await self._clock.sleep(wait_s)

    def _is_new_tenth(self) -> bool:
        is_later = self._clock.monotonic() >= self._told_at + TOLD_AT_MOST_S
        rows = max(self._rows, 1)
        return is_later and self._told * 10 // rows < self._done * 10 // rows

    def _tell(self) -> None:
        now = self._clock.monotonic()
        recent_per_s = (self._done - self._told) / max(now - self._told_at, SHORTEST_S)
        left_s = (self._rows - self._done) / recent_per_s if recent_per_s else None
        self._told_at, self._told = now, self._done
        self._log.info(
            "run.progress",
            settled=self._done,
            rows=self._rows,
            **self._counts,
            per_s=round(self._done / max(now - self._began_at, TOLD_AT_MOST_S), 1),
            pace_per_s=None if (pace := self._pace()) is None else round(pace, 2),
            left_s=None if left_s is None else round(left_s, 1),
        )

    def _tell_device(self, item: Settlement) -> None:
        attempt = item.attempt
        self._log.info(
            "device.settled",
            row=(item.row & _POSITION) + 1,
            machine_code=item.device.machine_code,
            user_id=item.device.user_id,
            outcome=item.outcome.status.value,
            device_id=item.outcome.device_id,
            attempts=item.attempts,
            took_s=round(attempt.took_s, 3) if attempt else None,
            http_status=attempt.http_status if attempt else None,
            code=attempt.code if attempt else "",
            message=attempt.message if attempt else "",
            trace_id=attempt.trace_id if attempt else "",
            detail=item.outcome.detail,
        )

"""The pacer: carries out what the calculator says, for everybody who sends."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from bulkbind.engine import pace
from bulkbind.logs import logger
from bulkbind.model import Accepted, NoAnswer, Throttled, Told, Unreachable, Verdict

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal


class Pacer:
    """Gives permits in order of asking; one waiter at a time sleeps, the others wait for it."""

    def __init__(self, clock: Clock, stop: StopSignal, cap_per_s: float | None = None) -> None:
        self._clock = clock
        self._stop = stop
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._taken = asyncio.Event()
        self._answered = asyncio.Event()
        self._probe_is_out = False
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it told."""
        self._told_by = ""
        self._answers = 0
        """Answers since the gate last opened."""
        self._log = logger()
        self.state = pace.begin(clock.monotonic(), cap_per_s)
        self.throttled = 0
        """429s seen."""

    async def permit(self) -> int:
        """Return once a request may be sent: a number to hand back to `report`.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        if not self._turn.locked() and not self.state.probing:
            now = self._clock.monotonic()
            if now >= self.state.next_at and not self._stop.is_set:
                return self._take(now)
        self._waiting += 1
        try:
            with self._stop.cutting_short():
                async with self._turn:
                    return await self._wait()
        finally:
            self._waiting -= 1
            self._taken.set()

    def has_room(self) -> bool:
        """Return whether less than a second of the pace waits for a permit."""
        return self._waiting < max(1.0, self.state.per_s)

    async def room(self) -> None:
        """Return once less than a second of the pace waits for a permit.

        Whoever takes rows in hand only then has few in question when the run is cut off.

        Raises: DrainedError when the run stops.
        """
        while not self.has_room():
            self._taken.clear()
            with self._stop.cutting_short():
                await self._taken.wait()

    async def _wait(self) -> int:
        while True:
            now = self._clock.monotonic()
            if self.state.probing and self._probe_is_out:
                self._answered.clear()
                await self._answered.wait()
            elif now < self.state.next_at:
                await self._clock.sleep(self.state.next_at - now)
            else:
                self._probe_is_out = self.state.probing
                return self._take(now)

    def _take(self, now: float) -> int:
        self.state = pace.permitted(self.state, now)
        return self.state.epoch

    def report(self, permit: int, verdict: Verdict, told: tuple[Told, ...] = ()) -> None:
        """Learn from the verdict on a permitted request, and from what its answer told."""
        if told:
            self._learn(told)
        before = self.state
        if isinstance(verdict, Accepted) and permit == before.epoch and not before.probing:
            self._answers += 1
            self.state = pace.answered(before, permit)
            return
        now = self._clock.monotonic()
        match verdict:
            case Throttled():
                self.throttled += 1
                self.state = pace.throttled(before, now, permit, verdict, self._answers)
            case NoAnswer() | Unreachable():
                is_away = isinstance(verdict, Unreachable)
                self.state = pace.unanswered(before, now, permit, is_away=is_away)
            case _:
                self.state = pace.answered(before, permit)
                self._answers += permit == before.epoch
        if self.state.epoch != before.epoch:
            self._answers = 0
            self._log.info(
                "pace.changed",
                why=type(verdict).__name__,
                per_s=round(self.state.per_s, 2) if math.isfinite(self.state.per_s) else None,
                told=self.state.is_told,
                closed_s=round(self.state.next_at - now, 2),
            )
        if permit == before.epoch:
            self._probe_back()

    def _learn(self, told: tuple[Told, ...]) -> None:
        """Follow limits; where no window is told, it is the longest time to a reset seen."""
        limits = []
        for item in told:
            window_s = item.window_s
            if window_s is None and item.reset_s:
                window_s = max(item.reset_s, self._windows.get(item.source, 0.0))
                self._windows[item.source] = window_s
            if item.limit is not None and window_s:
                limits.append((item.limit, window_s))
        before = self.state
        self.state = pace.told(before, limits)
        if self.state is not before:
            self._told_by = told[0].source
            self._log.info(
                "pace.changed", why=self._told_by, per_s=round(self.state.per_s, 2), told=True
            )

    def forget(self, permit: int) -> None:
        """A permitted request was broken off: if it was the probe, another may go."""
        if permit == self.state.epoch:
            self._probe_back()

    def _probe_back(self) -> None:
        self._probe_is_out = False
        self._answered.set()

    def closed_for_s(self) -> float:
        """Return for how many seconds nobody may send."""
        return max(0.0, self.state.next_at - self._clock.monotonic())

    def source(self) -> str:
        """Return where the pace comes from."""
        if self.state.is_told:
            return f"told by {self._told_by}" if self._told_by else "told by the gateway"
        if math.isinf(self.state.per_s):
            return "no limit met"
        return "set by --rate" if self.state.per_s == self.state.cap_per_s else "learned"

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None while nobody has set a limit."""
        return self.state.per_s if math.isfinite(self.state.per_s) else None

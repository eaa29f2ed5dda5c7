"""The pacer: carries out what the calculators say, for everybody who sends."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from bulkbind.engine.flight import Flight
from bulkbind.engine.pace import Pace
from bulkbind.logs import logger
from bulkbind.model import Accepted, NoAnswer, Throttled, Told, Unreachable, Verdict

if TYPE_CHECKING:
    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal

MOST = 1000
"""In flight, where nobody says otherwise."""


class Pacer:
    """Gives permits in order of asking; one waiter at a time sleeps, the others wait for it."""

    def __init__(
        self,
        clock: Clock,
        stop: StopSignal,
        cap_per_s: float | None = None,
        *,
        concurrency: int = MOST,
        learned_per_s: float | None = None,
    ) -> None:
        self._clock = clock
        self._stop = stop
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._taken = asyncio.Event()
        self._answered = asyncio.Event()
        self._probe: int | None = None
        self._out: dict[int, tuple[int, int, float]] = {}
        """Permit -> epoch, how many were in flight with it, when it left."""
        self._permits = 0
        self._windows: dict[str, float] = {}
        """Header -> the longest time to a reset that it told."""
        self._told_by = ""
        self._log = logger()
        now = clock.monotonic()
        self.state = Pace(now, cap_per_s, learned_per_s)
        self.flight = Flight(now, concurrency)
        self.throttled = 0
        """429s seen."""

    async def permit(self) -> int:
        """Return once a request may be sent: a number to hand back to `report`.

        Raises: DrainedError when the run stops; nothing may be sent then.
        """
        state = self.state
        if not self._turn.locked() and not state.probing and not self._stop.is_set:
            if len(self._out) < self.flight.useful(state.per_s):
                now = self._clock.monotonic()
                if now >= state.next_at:
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
        state = self.state
        while True:
            now = self._clock.monotonic()
            is_full = len(self._out) >= self.flight.useful(state.per_s)
            if is_full or (state.probing and self._probe is not None):
                self._answered.clear()
                await self._answered.wait()
            elif now < state.next_at:
                await self._clock.sleep(state.next_at - now)
            else:
                permit = self._take(now)
                if state.probing:
                    self._probe = permit
                return permit

    def _take(self, now: float) -> int:
        self.state.sent(now)
        self._permits += 1
        self._out[self._permits] = (self.state.epoch, len(self._out) + 1, now)
        return self._permits

    def report(self, permit: int, verdict: Verdict, told: tuple[Told, ...] = ()) -> None:
        """Learn from the verdict on a permitted request, and from what its answer told."""
        now = self._clock.monotonic()
        state = self.state
        epoch, in_flight, sent_at = self._out.pop(permit, (-1, 0, now))
        if told:
            self._learn(told)
        before = state.epoch, state.probing
        match verdict:
            case Throttled():
                self.throttled += 1
                self._log.info("rej", in_flight=in_flight, wide=self.flight.wide, prov=self.flight._proven)
                if not (epoch == state.epoch and not state.probing and self.flight.throttled(now, in_flight)):
                    state.throttled(
                        now,
                        epoch,
                        limit=verdict.limit,
                        window_s=verdict.window_s,
                        retry_after_s=verdict.retry_after_s,
                    )
            case NoAnswer() | Unreachable():
                is_away = isinstance(verdict, Unreachable)
                state.unanswered(now, epoch, is_away=is_away)
                if not is_away:
                    self.flight.unanswered()
            case _:
                state.accepted(now, epoch)
                wide = self.flight.wide
                self.flight.accepted(now, in_flight, now - sent_at)
                if wide != self.flight.wide: self._log.info("flight", wide=self.flight.wide, took=now-sent_at)
        if before != (state.epoch, state.probing):
            self._tell(type(verdict).__name__, now)
        self._back(permit)

    def _tell(self, why: str, now: float) -> None:
        self._log.info(
            "pace.changed",
            why=why,
            per_s=round(self.state.per_s, 2) if math.isfinite(self.state.per_s) else None,
            told=self.state.is_told,
            closed_s=round(self.state.next_at - now, 2),
        )

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
        before = self.state.per_s
        self.state.told(limits)
        if self.state.per_s != before:
            self._told_by = told[0].source
            self._log.info(
                "pace.changed", why=self._told_by, per_s=round(self.state.per_s, 2), told=True
            )

    def forget(self, permit: int) -> None:
        """A permitted request was broken off: if it was the probe, another may go."""
        self._out.pop(permit, None)
        self._back(permit)

    def _back(self, permit: int) -> None:
        if permit == self._probe:
            self._probe = None
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
        return "set by --rate" if self.state.per_s == self.state._cap else "learned"

    def per_s(self) -> float | None:
        """Return the requests per second allowed now; None while nobody has set a limit."""
        return self.state.per_s if math.isfinite(self.state.per_s) else None

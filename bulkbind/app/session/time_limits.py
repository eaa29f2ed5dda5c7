"""Stop a command that takes too long: at its deadline, or when it stalls."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bulkbind.engine import StopReason
from bulkbind.settings import duration_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings

CHECKS = 20
"""Checks within the time that a stall may take."""


class Pulse:
    """Shows whether a command makes progress, or waits deliberately."""

    def __init__(self) -> None:
        self._batches = 0
        self._count: Callable[[], int] = lambda: 0
        self._is_paused: Callable[[], bool] = lambda: False
        self.deadline: asyncio.Task[None] | None = None
        """Stops the command when its time is up."""
        self.went: Callable[[], str] = lambda: ""
        """Returns what the time went to, as a clause; empty before anything is sent."""
        self.asks = False
        """Whether the server is asked, which may take its time."""

    def beat(self) -> None:
        """Record progress; may be called from any thread."""
        self._batches += 1

    def follow(
        self,
        count: Callable[[], int],
        is_paused: Callable[[], bool],
        went: Callable[[], str] = lambda: "",
    ) -> None:
        """Count each change of *count* as a beat; expect none while *is_paused*.

        *went*: as the attribute.
        """
        self._count = count
        self._is_paused = is_paused
        self.went = went

    def taken(self) -> tuple[int, int]:
        """Return a value that changes with every beat."""
        return self._batches, self._count()

    def is_paused(self) -> bool:
        """Return whether the run waits deliberately."""
        return self._is_paused()


@asynccontextmanager
async def time_box(
    settings: Settings, clock: Clock, stop: StopSignal, pulse: Pulse
) -> AsyncIterator[None]:
    """Stop the block's work at the deadline, counted from now, or when it stalls."""
    stall = asyncio.create_task(_stall(settings, clock, stop, pulse), name="stall")
    set_deadline(settings.send.deadline, clock, stop, pulse)
    try:
        yield
    finally:
        watches = [stall, *([pulse.deadline] if pulse.deadline else [])]
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def set_deadline(seconds: float | None, clock: Clock, stop: StopSignal, pulse: Pulse) -> None:
    """Stop the command after so many seconds from now, and not when it was said before.

    None: never.
    """
    if pulse.deadline is not None:
        pulse.deadline.cancel()
    pulse.deadline = None
    if seconds is not None:
        work = _deadline(seconds, clock, stop, pulse)
        pulse.deadline = asyncio.create_task(work, name="deadline")


async def _deadline(seconds: float, clock: Clock, stop: StopSignal, pulse: Pulse) -> None:
    await clock.sleep(seconds)
    went = pulse.went()
    text = f"the deadline of {duration_words(seconds)} has come"
    stop.set(StopReason(f"{text}; {went}" if went else text))


async def _stall(settings: Settings, clock: Clock, stop: StopSignal, pulse: Pulse) -> None:
    seen, since = pulse.taken(), clock.monotonic()
    while not stop.is_set:
        allowed_s = _allowed_s(settings) if pulse.asks else settings.send.stall
        await clock.sleep(allowed_s / CHECKS)
        now = clock.monotonic()
        if pulse.taken() != seen or pulse.is_paused():
            seen, since = pulse.taken(), now
        elif now - since >= allowed_s:
            went = pulse.went()
            text = f"nothing was read, sent or settled for {duration_words(allowed_s)}"
            least = f", and the settings that a request may take {duration_words(allowed_s)}"
            hint = "look at the disk of ledger and manifest, and at name resolution; " + (
                "--stall says how long a run may stand still"
                + (least if allowed_s > settings.send.stall else "")
            )
            stop.set(StopReason(f"{text}; {went}" if went else text, hint=hint))


def _allowed_s(settings: Settings) -> float:
    """Return the longest time without progress: at least as long as one request may take."""
    api, send = settings.api, settings.send
    return max(
        send.stall,
        api.timeout + api.connect_timeout,
        api.list_timeout + api.connect_timeout,
        2 * send.backoff_cap,
        2 * settings.doubt.readback_settle,
    )

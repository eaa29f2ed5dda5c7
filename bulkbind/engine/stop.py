"""Stopping: one small object says that nothing new is sent, and cuts waits short."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.logs import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.clock import Clock


class DrainedError(Exception):
    """A wait was cut short: the run is stopping, and what waited was not sent."""


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why a run stops early, for a person, and how its command ends."""

    text: str
    exit_code: int = 3
    hint: str = ""


class StopSignal:
    """Set once, by whoever has a reason; the first reason counts."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._event = asyncio.Event()
        self._waiting: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()

    @property
    def is_set(self) -> bool:
        """Whether the run is stopping."""
        return self.reason is not None

    def set(self, reason: StopReason) -> None:
        """Stop: nothing new is sent, and every wait in `cutting_short` ends at once."""
        if self.reason is not None:
            return
        self.reason = reason
        logger().info("run.stopping", reason=reason.text)
        self._event.set()
        for task in self._waiting - self._cut:
            self._cut.add(task)
            task.cancel()

    async def wait(self) -> None:
        """Return once the run is stopping."""
        await self._event.wait()

    @contextmanager
    def cutting_short(self) -> Iterator[None]:
        """Let a stop end what the block awaits. Raises: DrainedError, also if it is set already."""
        if self.is_set:
            raise DrainedError
        task = asyncio.current_task()
        assert task is not None  # it is awaited
        cancelling = task.cancelling()
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if task in self._cut and task.uncancel() <= cancelling:
                raise DrainedError from error
            raise
        finally:
            self._waiting.discard(task)
            if task in self._cut:
                self._cut.discard(task)
                if task.cancelling() > cancelling:  # it came after the last await of the block
                    task.uncancel()

    async def sleep(self, clock: Clock, seconds: float) -> None:
        """Sleep on *clock*. Raises: DrainedError when the run stops."""
        with self.cutting_short():
            await clock.sleep(seconds)

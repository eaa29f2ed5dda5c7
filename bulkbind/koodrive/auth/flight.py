"""Single flight: one piece of work for all who need it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

LANDING_S = 5.0


class Flight(Generic[T]):
    """Whoever comes while the work is under way waits for its end, and shares what came of it."""

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def join(self, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Return what the work under way returns, or begin it.

        Being cancelled ends the waiting, not the work: what it brings is not to be had twice.
        """
        if self._task is None:
            self._task = asyncio.create_task(work(), name="renewal")
            self._task.add_done_callback(self._landed)
        return await asyncio.shield(self._task)

    async def landed(self) -> None:
        """Let the work under way end, but for no longer than `LANDING_S`."""
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=LANDING_S)
            for task in late:
                task.cancel()

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more: that is no error of its own

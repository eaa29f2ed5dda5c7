"""Requests that are out together, and only some of which need a task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Volley:
    """Counts requests out and back; a context manager that ends the tasks of those that have one.

    Attributes:
        faults: What failed.
        is_cut: Whether nobody waits for what comes any more.
    """

    def __init__(self) -> None:
        self.faults: list[BaseException] = []
        self.is_cut = False
        self._out = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_cut = True
        for task in self._tasks:
            task.cancel()

    def leave(self) -> None:
        """Count one that leaves."""
        self._out += 1

    def back(self, fault: BaseException | None = None) -> None:
        """Count one that is back. *fault*: what failed with it."""
        self._out -= 1
        if fault is not None:
            self.faults.append(fault)
        if not self._out:
            self._moved.set()

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have a task bring one back."""
        task = asyncio.create_task(work, name="unbind")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.back(asyncio.CancelledError() if task.cancelled() else task.exception())

    async def all_back(self) -> None:
        """Wait until all are back."""
        while self._out:
            self._moved.clear()
            await self._moved.wait()

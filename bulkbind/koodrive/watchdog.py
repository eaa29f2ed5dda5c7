"""Time-outs by one timer for all: one for each request would cost more than a tenth of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from types import TracebackType

TICK_S = 0.05
"""Interval of the checks, and so how late a time-out may be."""


class Watched(Protocol):
    """What may take too long."""

    due_at: float
    """When it has, by the clock of the event loop."""

    def cut(self) -> None:
        """End it; may be called again."""


class Watchdog:
    """Ends what takes too long; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Stop the checks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout(self, seconds: float) -> _Timeout:
        """Return a context manager like `asyncio.timeout`. Raises: TimeoutError."""
        return _Timeout(self, self._loop.time() + seconds)

    def watch(self, item: Watched) -> None:
        """Cut an item when it is due, unless it is let go before."""
        self._watched[item] = None
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._check)

    def let_go(self, item: Watched) -> None:
        """Watch an item no longer."""
        del self._watched[item]

    def _check(self) -> None:
        now = self._loop.time()
        for watched in self._watched:
            if now >= watched.due_at:
                watched.cut()
        waits = bool(self._watched)
        self._timer = self._loop.call_later(TICK_S, self._check) if waits else None


class _Timeout:
    """One block. Its task is cancelled at most once; other cancellations pass through."""

    __slots__ = ("_cancelling", "_is_cut", "_task", "_watchdog", "due_at")

    def __init__(self, watchdog: Watchdog, due_at: float) -> None:
        self._watchdog = watchdog
        self._is_cut = False
        self.due_at = due_at

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._watchdog.watch(self)

    def cut(self) -> None:
        """Cancel the task, once."""
        if not self._is_cut:
            self._is_cut = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._watchdog.let_go(self)
        if not self._is_cut:
            return
        is_last = self._task.uncancel() <= self._cancelling
        if is_last and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

"""Time-outs by one timer for all requests: a timer for each costs a tenth of a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

TICK_S = 0.05
"""How often it looks, and so how late a time-out may come."""


class Watchdog:
    """Ends what takes too long. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: dict[_Timeout, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def timeout(self, seconds: float) -> _Timeout:
        """Return a block that ends what it awaits after *seconds*, as `asyncio.timeout` does.

        Raises: TimeoutError.
        """
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_S, self._look)
        return _Timeout(self._watched, self._loop.time() + seconds)

    def _look(self) -> None:
        now = self._loop.time()
        for watched in self._watched:
            if now >= watched.due_at:
                watched.cut()
        waits = bool(self._watched)
        self._timer = self._loop.call_later(TICK_S, self._look) if waits else None


class _Timeout:
    """One block. Its task is cancelled once, and the cancellation told apart from any other."""

    __slots__ = ("_cancelling", "_is_cut", "_task", "_watched", "due_at")

    def __init__(self, watched: dict[_Timeout, None], due_at: float) -> None:
        self._watched = watched
        self._is_cut = False
        self.due_at = due_at

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # it is awaited
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self._watched[self] = None

    def cut(self) -> None:
        """Cancel the task, if that has not been done."""
        if not self._is_cut:
            self._is_cut = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        del self._watched[self]
        if not self._is_cut:
            return
        is_last = self._task.uncancel() <= self._cancelling
        if is_last and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError from error

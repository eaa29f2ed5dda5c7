"""Carrying work out until it is done, or stopped and drained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bulkbind.errors import BulkbindError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bulkbind.clock import Clock
    from bulkbind.engine.stop import StopSignal


async def draining(
    work: Coroutine[None, None, None],
    clock: Clock,
    stop: StopSignal,
    *,
    grace_s: float,
) -> None:
    """Carry *work* out; once the run stops, what is in flight has *grace_s* to end.

    Raises: what *work* raises, of several errors the first of ours.
    """
    watch = asyncio.create_task(_watch(clock, stop, grace_s), name="watch")
    task = asyncio.create_task(work, name="work")
    try:
        await asyncio.wait([watch, task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (watch, task):
            each.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise first_of(error)


async def _watch(clock: Clock, stop: StopSignal, grace_s: float) -> None:
    """Return when what is in flight has had its grace."""
    await stop.wait()
    await clock.sleep(grace_s)


def first_of(error: BaseException) -> BaseException:
    """Return the first error of ours in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(BulkbindError)
        inner: BaseException = ours if ours is not None else error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        return inner
    return error

"""Carrying work out until it is done, or stopped and drained."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bulkbind.engine.stop import DrainedError, StopReason, StopSignal
from bulkbind.errors import BulkbindError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from bulkbind.clock import Clock


async def draining(
    work: Coroutine[None, None, None],
    clock: Clock,
    stop: StopSignal,
    *,
    deadline_s: float | None,
    grace_s: float,
) -> None:
    """Carry *work* out; once the run stops, what is in flight has *grace_s* to end.

    *deadline_s*: a reason to stop; None: none.

    Raises: what *work* raises, of several errors the first of ours.
    """
    watch = asyncio.create_task(_watch(clock, stop, deadline_s, grace_s), name="watch")
    task = asyncio.create_task(work, name="work")
    try:
        await asyncio.wait([watch, task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (watch, task):
            each.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise first_of(error)


async def _watch(clock: Clock, stop: StopSignal, deadline_s: float | None, grace_s: float) -> None:
    """Return when what is in flight has had its grace; the deadline is a reason to stop."""
    if deadline_s is not None:
        try:
            await stop.sleep(clock, deadline_s)
        except DrainedError:
            pass
        else:
            stop.set(StopReason(f"the deadline of {deadline_s:g} s has come"))
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

from __future__ import annotations

import asyncio

import pytest

from bulkbind.engine.stop import DrainedError, StopReason, StopSignal
from bulkbind.errors import ExitCode
from tests.support.fake_clock import FakeClock


async def test_a_stop_cuts_a_sleep_short():
    """A wait inside the block ends at once, with an error of its own."""
    stop, clock = StopSignal(), FakeClock()

    async def stopping():
        await clock.sleep(1.0)
        stop.set(StopReason("enough"))

    task = asyncio.create_task(stopping())
    with pytest.raises(DrainedError):
        await stop.sleep(clock, 100.0)
    await task

    assert clock.monotonic() == 1.0


async def test_a_stop_that_came_before_ends_the_wait_before_it_begins():
    """Once set, nobody begins to wait."""
    stop, clock = StopSignal(), FakeClock()
    stop.set(StopReason("enough"))

    with pytest.raises(DrainedError):
        await stop.sleep(clock, 100.0)

    assert clock.monotonic() == 0.0


async def test_the_first_reason_counts():
    """A later stop does not overwrite why the run stops."""
    stop = StopSignal()
    stop.set(StopReason("first"))
    stop.set(StopReason("second", ExitCode.LEDGER))

    assert stop.reason == StopReason("first")


async def test_a_cancellation_from_outside_stays_one():
    """Being cancelled by somebody else is not mistaken for a stop."""
    stop, clock = StopSignal(), FakeClock()
    gate = asyncio.Event()

    async def wait():
        with stop.cutting_short():
            await gate.wait()

    task = asyncio.create_task(wait())
    await clock.sleep(1.0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_was_cut_short_can_go_on_working():
    """After the wait, the task is as uncancelled as before."""
    stop, clock = StopSignal(), FakeClock()

    async def wait():
        try:
            await stop.sleep(clock, 1e9)
        except DrainedError:
            await clock.sleep(1.0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    task = asyncio.create_task(wait())
    await clock.sleep(0.5)
    stop.set(StopReason("enough"))

    assert await task == 0


async def test_who_stops_the_run_within_a_block_goes_on_behind_it():
    """What it awaits there is not cut short, as by somebody else's cancellation."""
    stop, clock = StopSignal(), FakeClock()

    async def work():
        with stop.cutting_short():
            stop.set(StopReason("enough"))
        await clock.sleep(1.0)
        return clock.monotonic()

    assert await asyncio.create_task(work()) == 1.0


async def test_who_stops_the_run_within_a_block_waits_there_no_longer():
    """What it awaits in the block itself is cut short."""
    stop, clock = StopSignal(), FakeClock()

    async def work():
        with stop.cutting_short():
            stop.set(StopReason("enough"))
            await clock.sleep(100.0)

    with pytest.raises(DrainedError):
        await asyncio.create_task(work())
    assert clock.monotonic() == 0.0

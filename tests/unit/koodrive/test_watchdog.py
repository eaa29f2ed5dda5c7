"""Time-outs by one timer: they end what hangs, and never what was cancelled by others."""

from __future__ import annotations

import asyncio

import pytest

from bulkbind.clock import SystemClock
from bulkbind.koodrive.watchdog import TICK_S, Watchdog

CLOCK = SystemClock()


@pytest.fixture
async def watchdog():
    """Return a watchdog that is closed afterwards."""
    made = Watchdog()
    yield made
    made.close()


async def test_what_hangs_is_ended_in_time(watchdog):
    """A block that takes too long raises TimeoutError, at most a few ticks late."""
    began = CLOCK.monotonic()
    with pytest.raises(TimeoutError), watchdog.timeout(0.1):
        await CLOCK.sleep(30)

    assert 0.1 <= CLOCK.monotonic() - began < 0.1 + 10 * TICK_S
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_ends_in_time_is_left_alone(watchdog):
    """A block that ends in time is not touched later, nor is what its task does next."""
    with watchdog.timeout(0.05):
        await CLOCK.sleep(0)
    await CLOCK.sleep(0.05 + 3 * TICK_S)

    with watchdog.timeout(5):
        await CLOCK.sleep(0.01)


async def test_each_task_has_its_own_time(watchdog):
    """Among many only those that are late are ended."""

    async def work(limit_s: float) -> str:
        try:
            with watchdog.timeout(limit_s):
                await CLOCK.sleep(0.3)
        except TimeoutError:
            return "late"
        return "done"

    limits = [0.05, 5.0] * 20
    assert await asyncio.gather(*map(work, limits)) == ["late", "done"] * 20


async def test_a_cancellation_from_outside_stays_one(watchdog):
    """Whoever cancels a task gets a cancelled task, not a time-out."""

    async def work() -> None:
        with watchdog.timeout(5):
            await CLOCK.sleep(30)

    task = asyncio.create_task(work(), name="to be cancelled")
    await CLOCK.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_and_late_at_once_is_cancelled(watchdog):
    """Where both come together, the cancellation is not swallowed."""

    async def work() -> None:
        with watchdog.timeout(0.01):
            await CLOCK.sleep(30)

    task = asyncio.create_task(work(), name="to be cancelled")
    while not (late := [item for item in watchdog._watched if CLOCK.monotonic() >= item.due_at]):
        await CLOCK.sleep(0.005)
    late[0].cut()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_its_own(watchdog):
    """What the block raises comes through."""
    with pytest.raises(KeyError), watchdog.timeout(5):
        raise KeyError("own")

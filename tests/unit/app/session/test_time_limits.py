"""The deadline and the watch for a stall, on a clock that is turned by hand."""

from __future__ import annotations

import pytest

from bulkbind.app.session.time_limits import Pulse, time_box
from bulkbind.engine import StopSignal
from bulkbind.settings import ApiSettings, SendSettings, Settings
from tests.support.fake_clock import FakeClock


def settings(**send):
    """Return settings whose longest single step takes half a minute."""
    api = ApiSettings(timeout=10.0, list_timeout=20.0, connect_timeout=5.0)
    return Settings(api=api, send=SendSettings(backoff_cap=10.0, **send))


async def boxed(clock, pulse, work, **send):
    """Do *work* in a time box; return why it was stopped, or None."""
    stop = StopSignal()
    async with time_box(settings(**send), clock, stop, pulse):
        await work(stop)
    return stop.reason.text if stop.reason else None


def until_stopped(clock, pulse=None, *, beats_until=0.0, seconds=7200.0):
    """Return work that lasts until it is stopped, and shows life for some time."""

    async def work(stop):
        while not stop.is_set and clock.monotonic() < seconds:
            if pulse is not None and clock.monotonic() < beats_until:
                pulse.beat()
            await clock.sleep(10.0)

    return work


async def test_the_deadline_is_counted_from_the_beginning_and_told_as_written():
    """After 50 minutes the run stops, with 3, and says 50m."""
    clock, pulse = FakeClock(), Pulse()

    work = until_stopped(clock, pulse, beats_until=9000.0)
    reason = await boxed(clock, pulse, work, deadline=3000.0)

    assert reason == "the deadline of 50m has come"
    assert 3000.0 <= clock.monotonic() <= 3010.0


async def test_a_run_that_stands_still_is_stopped():
    """Nothing happens after ten minutes: ten more later it is stopped, and not before."""
    clock, pulse = FakeClock(), Pulse()

    reason = await boxed(clock, pulse, until_stopped(clock, pulse, beats_until=600.0))

    assert reason == "nothing was read, sent or settled for 10m"
    assert 1190.0 <= clock.monotonic() <= 1200.0 + 600.0 / 20 + 10.0


async def test_a_count_that_changes_is_life():
    """Requests sent, which somebody else counts, are beats."""
    clock, pulse = FakeClock(), Pulse()
    pulse.follow(lambda: int(min(clock.monotonic(), 3000.0)), lambda: False)

    await boxed(clock, pulse, until_stopped(clock))

    assert 3600.0 - 40 <= clock.monotonic() <= 3600.0 + 60.0


async def test_an_announced_pause_is_no_stall():
    """While the run says that nothing is sent for a limit, its clock does not run."""
    clock, pulse = FakeClock(), Pulse()
    pulse.follow(lambda: 0, lambda: clock.monotonic() < 5000.0)

    reason = await boxed(clock, pulse, until_stopped(clock, seconds=5500.0))

    assert reason is None


@pytest.mark.parametrize(("asks", "stall_s"), [(False, 10), (True, 25)])
async def test_no_request_that_the_settings_allow_is_a_stall(asks, stall_s):
    """--stall 10s does not end a run whose list may take 20 s to come; before, it does."""
    clock, pulse = FakeClock(), Pulse()
    pulse.asks = asks

    reason = await boxed(clock, pulse, until_stopped(clock), stall=10.0)

    assert reason == f"nothing was read, sent or settled for {stall_s}s"
    assert clock.monotonic() < stall_s + 11.0


async def test_a_stall_says_what_the_time_went_to():
    """As the deadline does, once something is sent."""
    clock, pulse = FakeClock(), Pulse()
    pulse.follow(lambda: 1, lambda: False, lambda: "all of it spent in vain")

    reason = await boxed(clock, pulse, until_stopped(clock))

    assert reason == "nothing was read, sent or settled for 10m; all of it spent in vain"


async def test_a_command_that_ends_leaves_no_watch_behind():
    """What ends in time is not stopped afterwards."""
    clock, pulse, stop = FakeClock(), Pulse(), StopSignal()

    async with time_box(settings(deadline=10.0), clock, stop, pulse):
        pass
    await clock.sleep(100.0)

    assert not stop.is_set

from __future__ import annotations

import pytest

from bulkbind.engine.decide import Again
from bulkbind.engine.retry import Retries
from bulkbind.engine.stop import DrainedError, StopReason, StopSignal
from bulkbind.settings import SendSettings
from tests.support.fake_clock import FakeClock
from tests.support.fakes import OpenGate


def retries(clock, stop=None):
    """Return retries with a base of 0.5 s and a cap of 30 s."""
    return Retries(clock, stop or StopSignal(), OpenGate(), SendSettings())


@pytest.mark.parametrize(
    ("attempts", "most"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (60, 30.0)],
    ids=["0.5*2**0", "0.5*2**1", "0.5*2**2", "0.5*2**6=32, capped", "capped"],
)
def test_backoff_is_full_jitter(attempts, most):
    """The wait lies between 0 and min(cap, base * 2**(attempts - 1)), and is spread over it."""
    waits = [retries(FakeClock()).wait_s(Again(backoff=True), attempts) for _ in range(300)]

    assert 0 <= min(waits) < most * 0.1
    assert most * 0.9 < max(waits) <= most


def test_retry_after_beats_the_formula():
    """The server's own wait is the least."""
    assert retries(FakeClock()).wait_s(Again(backoff=True, retry_after_s=77.0), 1) == 77.0


def test_throttled_rows_wait_for_the_gate():
    """What is everybody's trouble is waited for once, at the gate, and not here as well."""
    assert retries(FakeClock()).wait_s(Again(backoff=False), 1) == 0.0


async def test_until_done_releases_before_every_wait():
    """The row goes back before each wait, the first included, and the last result is returned."""
    clock, told, results = FakeClock(), [], [Again(backoff=True), Again(backoff=False), "done"]

    async def once():
        told.append("once")
        return results.pop(0)

    async def before_wait():
        told.append("release")

    result = await retries(clock).until_done(Again(backoff=True), lambda: 1, once, before_wait)

    assert result == "done"
    assert told == ["release", "once", "release", "once", "release", "once"]


async def test_a_stop_ends_the_wait():
    """A wait between attempts ends with the run."""
    clock, stop = FakeClock(), StopSignal()

    async def before_wait():
        stop.set(StopReason("enough"))

    async def once():
        raise AssertionError("nothing is sent any more")

    with pytest.raises(DrainedError):
        await retries(clock, stop).until_done(Again(backoff=True), lambda: 1, once, before_wait)

"""The breaker: how many failures stop a run."""

from __future__ import annotations

import asyncio

import pytest

from bulkbind.engine import Breaker, StopReason, StopSignal
from bulkbind.engine.stop import DrainedError, NoRoomError
from bulkbind.errors import UsageError
from bulkbind.model import Claim, Device, Outcome, Status
from bulkbind.settings import load_settings


def ended(bound, failed):
    """Return outcomes."""
    statuses = [Status.BOUND] * bound + [Status.FAILED] * failed
    return [(Claim(n, Device("u", f"S{n}"), 1), Outcome(s)) for n, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("limit", "groups", "stops"),
    [
        (None, [(0, 1000)], False),
        ("3", [(0, 2), (1000, 0)], False),
        ("3", [(500, 2), (0, 1)], True),
        ("10%", [(0, 99)], False),
        ("10%", [(0, 99), (0, 1)], True),
        ("10%", [(90, 9), (0, 1)], True),
        ("10%", [(91, 9)], False),
        ("0.5%", [(398, 1)], False),
        ("0.5%", [(398, 2)], True),
    ],
    ids=str,
)
async def test_so_many_failures_stop_a_run(limit, groups, stops):
    """A number counts at once, a share once a hundred devices have ended."""
    stop = StopSignal()
    breaker = Breaker(stop, limit)
    for bound, failed in groups:
        breaker.settled(ended(bound, failed))

    assert stop.is_set is stops
    if stop.reason is not None:
        assert stop.reason.exit_code == 3
        assert f"--max-failures {limit}" in stop.reason.text


@pytest.mark.parametrize(
    ("limit", "bound", "failed", "words"),
    [
        ("20", 64, 21, "21 devices have failed, more than --max-failures 20 allows"),
        ("1", 0, 1, "1 device has failed, as many as --max-failures 1 allows"),
        ("5%", 90, 10, "of 100 devices that have ended, 10 failed, more than --max-failures 5% "),
        ("5%", 190, 10, "of 200 devices that have ended, 10 failed, as many as --max-failures 5%"),
    ],
)
async def test_the_reason_is_a_true_sentence(limit, bound, failed, words):
    """Whether it is as many, or more; after a resume, since when it is counted."""
    for is_resumed, since in ((False, ""), (True, "since it was resumed, ")):
        stop = StopSignal()
        Breaker(stop, limit, is_resumed=is_resumed).settled(ended(bound, failed))
        assert stop.reason is not None
        assert stop.reason.text.startswith(since + words)


async def left(breaker, rows):
    """Return which of these rows' requests may leave now, each once the one before has left."""
    gone = []
    for row in rows:
        try:
            async with asyncio.timeout(0):
                await breaker.room()
            breaker.leave(row)
        except (TimeoutError, NoRoomError):
            continue
        gone.append(row)
    return gone


@pytest.mark.parametrize(
    ("limit", "before", "expected"),
    [
        ("5", (0, 1), 4),
        ("5", (0, 4), 1),
        ("5", (1000, 1), 4),
        ("50", (0, 1), 40),
        ("10%", (0, 1), 40),
        ("10%", (70, 1), 29),
        ("10%", (190, 10), 12),
        (None, (0, 100), 40),
    ],
    ids=str,
)
async def test_while_failures_follow_one_another_no_more_are_out_than_may_fail(
    limit, before, expected
):
    """Of forty that want to leave, so many do as would stop the run by failing."""
    breaker = Breaker(StopSignal(), limit)
    breaker.leave(99)
    breaker.settled(ended(*before))
    breaker.land(99, has_failed=True)
    breaker.settled([(Claim(99, Device("u", "S"), 1), Outcome(Status.BOUND, is_unsent=True))])
    breaker.land(98, has_failed=True)

    assert len(await left(breaker, range(40))) == expected


async def test_a_success_lets_all_go_again():
    """A failure that was none, as a list has shown, is no longer out."""
    stop = StopSignal()
    breaker = Breaker(stop, "3")
    assert await left(breaker, [1, 2, 3, 4]) == [1, 2, 3, 4]
    breaker.land(1, has_failed=True)
    breaker.settled([(Claim(1, Device("u", "S1"), 1), Outcome(Status.FAILED))])
    assert await left(breaker, [5]) == []

    breaker.land(2, has_failed=None)
    assert await left(breaker, [5]) == []
    breaker.land(3, has_failed=False)
    assert await left(breaker, [5, 6, 7]) == [5, 6, 7]
    breaker.land(5, has_failed=True)
    breaker.settled([(Claim(5, Device("u", "S5"), 1), Outcome(Status.BOUND))])
    assert await left(breaker, [8, 9]) == []
    breaker.land(6, has_failed=False)
    breaker.land(7, has_failed=False)
    assert await left(breaker, [8, 9]) == [8, 9]
    assert not stop.is_set


async def test_whoever_waits_for_room_leaves_with_the_run():
    """The wait ends when the run stops, and once a row stays in doubt instead of failing."""
    stop = StopSignal()
    breaker = Breaker(stop, "2")
    assert await left(breaker, [1]) == [1]
    breaker.land(1, has_failed=True)
    assert await left(breaker, [2, 3]) == [2]
    waiting = asyncio.create_task(breaker.room())
    await asyncio.sleep(0)  # noqa: TID251  # yields to the loop
    breaker.let_go(1)
    await waiting
    breaker.leave(3)
    waiting = asyncio.create_task(breaker.room())
    await asyncio.sleep(0)  # noqa: TID251  # yields to the loop
    stop.set(StopReason("enough"))

    with pytest.raises(DrainedError):
        await waiting


@pytest.mark.parametrize("text", ["0", "0%", "100%", "-1", "1.5", "many", "5 of 10", "", "%"])
def test_what_is_no_number_of_failures_is_refused(text):
    """The error shows how both forms are written."""
    with pytest.raises(UsageError, match=r"50, or 5% of the devices|less than 100%"):
        load_settings(None, {"max_failures": text})


@pytest.mark.parametrize(("text", "value"), [("50", "50"), (" 5 % ", "5%"), ("2.5%", "2.5%")])
def test_a_number_of_failures_is_written_one_way(text, value):
    """Blanks do not matter."""
    assert load_settings(None, {"max_failures": text}).send.max_failures == value

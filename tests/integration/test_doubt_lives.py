"""Doubt that outlives the processes that had it: verdicts, misses and waits are durable."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bulkbind.ledger import RunReader, reading
from bulkbind.model import (
    AlreadyBound,
    Attempt,
    Claim,
    NoAnswer,
    Outcome,
    Refused,
    RunState,
    Status,
    Throttled,
    Transient,
    Unreachable,
)
from tests.integration.test_engine import bench as bench, devices  # noqa: PLC0414  # a fixture
from tests.integration.test_engine_properties import sent_and_killed


async def lives(bench, wanted, *, each_s, at_most=60):
    """Begin or go on with a run in lives of *each_s* each; return how many it took to its end."""
    for number in range(1, at_most + 1):
        await sent_and_killed(bench, wanted, kill_after=each_s)
        bench.clock.advance(0.2)
        if not {"pending", "in_doubt"} & bench.counts().keys():
            return number
    return None


@pytest.mark.parametrize("each_s", [0.5, 2.0, 4.9, 5.1, 9.0])
async def test_lives_shorter_than_the_settling_time_clear_doubt(bench, each_s):
    """What one life waited for need not be waited for by the next: a silent row is sent again.

    It lies ahead of what the short lives have come to: one of the two sends it, not both.
    """
    bench.server.planned.extend([None, NoAnswer()])

    took = await lives(bench, devices(4), each_s=each_s)

    assert took is not None
    assert took <= 12 / each_s + 4
    assert bench.counts() == {"bound": 4}
    assert bench.server.posted_again == 0


async def test_two_lists_of_two_lives_are_a_settling_time_apart(bench):
    """A second life does not read at once what the first one has just missed."""
    bench.server.planned.extend([None, NoAnswer()])
    moments = []
    listing = bench.server.list_devices

    async def noted(user_id):
        moments.append(bench.clock.monotonic())
        return await listing(user_id)

    bench.server.list_devices = noted
    await lives(bench, devices(4), each_s=1.0)

    first, *_, last = moments
    assert last - first >= 10.0
    assert bench.counts() == {"bound": 4}


async def test_a_local_clock_that_was_set_back_settles_nothing_early(bench):
    """What was written down in a future that is none yet is no proof of a wait."""
    bench.server.planned.extend([None, NoAnswer()])
    await sent_and_killed(bench, devices(4), kill_after=1.0)
    began = bench.clock.monotonic()
    bench.clock._began -= timedelta(hours=1)

    assert await lives(bench, devices(4), each_s=60.0) == 1

    assert bench.clock.monotonic() - began >= 10.0
    assert bench.counts().keys() <= {"bound", "already_bound"}
    assert bench.server.posted_again == 0


async def test_already_bound_survives_a_kill_before_the_list_is_read(bench):
    """The next life knows what the server said: one request in all, and the list confirms it."""
    bench.server.put("user_0", "SN1", age_s=0.5)  # in the second in which it is sent
    bench.server.planned.extend([None, AlreadyBound()])
    await sent_and_killed(bench, devices(4), kill_after=1.0)
    before = by_code(bench)["SN1"]

    assert await lives(bench, devices(4), each_s=60.0) == 1

    row = by_code(bench)["SN1"]
    assert (before.status, before.code) == ("in_doubt", "AlreadyBound")
    assert (row.status, row.code) == ("already_bound", "AlreadyBound")
    assert row.detail == "confirmed by the server's list"
    assert bench.server.binds["user_0", "SN1"] == 0


LATE_S, AGAIN_S = -8.0, -4.0
"""When a late server did the first request, and when the second one was sent: before now."""


async def left(bench, *heard, made_s=LATE_S):
    """Leave a row in doubt whose requests were answered so, 4 s after the other; SN1 of four.

    *made_s*: when the server bound it, relative to now; None: never.
    """
    now = bench.clock.utc_now().timestamp()
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(4))
        await ledger.start(run)
        for claim in await ledger.claim(run, 0, 4, now - 20.0, excluding=()):
            if claim.device.machine_code != "SN1":
                bench.server.put("user_0", claim.device.machine_code)
                ledger.settle(Claim(claim.row, claim.device, 1), Outcome(Status.BOUND))
                continue
            claim.attempts, claim.doubts = 1 + len(heard), 1
            for number, verdict in enumerate([NoAnswer(), *heard]):
                sent_at = now - 20.0 if number == 0 else now + AGAIN_S
                claim.last = Attempt(
                    verdict,
                    message="as planned",
                    trace_id=f"t{number}",
                    sent_at=sent_at,
                    took_s=0.1,
                )
                ledger.record(claim.row, claim.last)
            await ledger.doubt(claim)
        await ledger.flushed()
    if made_s is not None:
        bench.server.put("user_0", "SN1", age_s=-made_s)
    bench.renew()
    async with bench.ledger() as ledger:
        return await bench.sent(ledger, run)


@pytest.mark.parametrize(
    ("heard", "made_s", "status", "repeats"),
    [
        ([AlreadyBound()], LATE_S, "already_bound", 1),
        ([Refused()], LATE_S, "bound", 1),
        ([Transient()], LATE_S, "bound", 1),
        ([NoAnswer()], LATE_S, "bound", 1),
        ([NoAnswer()], AGAIN_S - 0.1, "bound", 1),
        ([NoAnswer()], AGAIN_S + 0.1, "bound", 0),
        ([Transient(), NoAnswer(), Refused()], LATE_S, "bound", 3),
        ([Throttled(), Unreachable(), NoAnswer()], LATE_S, "bound", 1),
        ([], LATE_S, "bound", 0),
        ([AlreadyBound()], -100.0, "already_bound", 0),
        ([AlreadyBound()], None, "failed", 0),
        ([Refused()], None, "failed", 0),
    ],
    ids=str,
)
async def test_what_was_heard_before_a_kill_is_known_after_it(
    bench, heard, made_s, status, repeats
):
    """A late server, told by its answers to the repeats: how the row ends, and what is counted."""
    state = await left(bench, *heard, made_s=made_s)

    row = by_code(bench)["SN1"]
    assert state is RunState.DONE
    assert row.status == status
    assert summary(bench).posted_again_after_bound == repeats
    assert bench.server.binds["user_0", "SN1"] == 0


@pytest.mark.parametrize(
    ("verdict", "crashes", "repeats"),
    [
        (Refused(), 0, 0),
        (AlreadyBound(), 0, 0),
        (NoAnswer(), 0, 0),
        (Refused(), 1, 1),
        (AlreadyBound(), 1, 1),
        (NoAnswer(), 1, 1),
    ],
    ids=str,
)
async def test_the_first_request_of_a_row_is_no_repeat(bench, verdict, crashes, repeats):
    """Whatever answer was taken for its own, and whatever the clocks say; one after a crash is."""
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(1))
        await ledger.start(run)
        [claim] = await ledger.claim(run, 0, 1, 100.0, excluding=())
        claim.last = Attempt(verdict, trace_id="t1", sent_at=110.0, took_s=0.1)
        claim.attempts, claim.doubts = 1, crashes + isinstance(verdict, NoAnswer)
        ledger.record(claim.row, claim.last)
        await ledger.doubt(claim)
        ledger.settle(claim, Outcome(Status.BOUND, "id", "now", made_at=105.0))
        await ledger.flushed()

    assert summary(bench).posted_again_after_bound == repeats


async def test_a_repeat_that_is_simply_accepted_is_counted(bench):
    """The record that comes back is older than the request that brought it, by however little."""
    wanted = devices(4)
    bench.server.planned.extend([None, NoAnswer()])
    await sent_and_killed(bench, wanted, kill_after=9.0)
    bench.server.latency_s = 0.5
    bind = bench.server.bind

    async def just_before(device, before=None):
        if device.machine_code == "SN1":
            bench.server.put("user_0", "SN1", age_s=0.002)
        return await bind(device, before)

    bench.server.bind = just_before
    assert await lives(bench, wanted, each_s=60.0) == 1

    assert bench.counts() == {"bound": 4}
    assert bench.server.posted_again == 1
    assert summary(bench).posted_again_after_bound == 1


def by_code(bench):
    """Return the rows of the run by machine code."""
    return {row.machine_code: row for row in bench.rows()}


def summary(bench):
    """Return what the summary of the run tells."""
    with reading(bench.path) as db:
        return RunReader(db, 1).summary()

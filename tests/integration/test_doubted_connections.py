"""Rows whose answers turn out to be those to other requests: what follows, and when."""

from __future__ import annotations

import asyncio

import pytest

from bulkbind.model import (
    AlreadyBound,
    AuthExpired,
    NoAnswer,
    Outcome,
    Refused,
    RunState,
    Status,
    Throttled,
    Transient,
    Verdict,
)
from tests.integration.test_doubt_lives import by_code, lives, summary
from tests.integration.test_engine import bench as bench, devices  # noqa: PLC0414  # a fixture
from tests.integration.test_engine_properties import sent_and_killed

REFUSALS: list[Verdict] = [Refused(), Refused(set_up=True), Refused(is_about_user=True)]


class Shifted:
    """Binds a device, but answers it with another's refusal; says so a while later.

    Attributes:
        says_after_s: How long after that answer.
        before: What it was answered before that, without being bound.
    """

    def __init__(self, bench, refusal, *, says_after_s, before=(), code="SN0"):
        self._bench = bench
        self._refusal = refusal
        self._before = list(before)
        self._code = code
        self._answer_to = bench.server.answer_to
        self._telling: asyncio.Task[None] | None = None
        self.says_after_s = says_after_s
        bench.server.answer_to = self.answer_to

    async def answer_to(self, permit, device):
        """Stand in for the server's."""
        if device.machine_code == self._code and self._before:
            await self._bench.clock.sleep(0.2)
            self._bench.server.pacer.forget(permit)
            return self._bench.server._attempt(self._before.pop(), self._bench.server._now())
        attempt = await self._answer_to(permit, device)
        attempt.connection, attempt.is_named = 2, True
        if device.machine_code == self._code and self._telling is None:
            attempt.connection, attempt.is_named = 1, False
            attempt.verdict = self._refusal
            self._telling = asyncio.create_task(self.tell(), name="tell")
        return attempt

    async def tell(self):
        """Report the connection."""
        await self._bench.clock.sleep(self.says_after_s)
        self._bench.server.say_unasked(1)


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
@pytest.mark.parametrize("says_after_s", [0.0, 0.015, 0.4])
@pytest.mark.parametrize("others", [0, 1, 9])
async def test_a_row_refused_by_anothers_answer_is_read_back(bench, refusal, says_after_s, others):
    """Whether it is found before the row is settled, while it is held back, or at the end."""
    Shifted(bench, refusal, says_after_s=says_after_s)

    state = await bench.ran(devices(1 + others))

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 1 + others}
    assert bench.server.posted_again == 0
    assert summary(bench).posted_again_after_bound == 0


@pytest.mark.parametrize("verdict", [Refused(), AlreadyBound(), Transient()], ids=str)
@pytest.mark.parametrize("says_after_s", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_row_that_waits_for_a_list_waits_for_one_that_decides(
    bench, verdict, says_after_s, is_listed
):
    """It was sent before, in vain; then it was bound, but answered with another's refusal."""
    bench.send = bench.send.model_copy(update={"max_attempts": 2})
    Shifted(bench, verdict, says_after_s=says_after_s, before=[NoAnswer()], code="SN1")
    if not is_listed:
        lacking = {"SN1"}
        bench.server.list_lacks.extend([lacking] * 5)  # the first of them does not count

    await bench.ran(devices(4))

    row = by_code(bench)["SN1"]
    assert row.status == ("bound" if is_listed else "failed")
    assert is_listed or "no answer to 2 attempts" in row.detail
    assert summary(bench).posted_again_after_bound == bench.server.posted_again == 0


@pytest.mark.parametrize("says_after_s", [0.02, 0.7, 1.5])
@pytest.mark.parametrize(
    "verdict",
    [Throttled(retry_after_s=1.0), Transient(retry_after_s=1.0), AuthExpired(is_renewable=True)],
    ids=lambda verdict: type(verdict).__name__,
)
async def test_a_row_put_off_by_anothers_answer_is_read_back(bench, verdict, says_after_s):
    """It is not sent again if that is found before, and is ours even if it was."""
    Shifted(bench, verdict, says_after_s=says_after_s, code="SN1")

    await bench.ran(devices(4))

    is_in_time = isinstance(verdict, Transient) and says_after_s < 1.0
    assert bench.counts() == {"bound": 4}
    assert bench.server.posted_again == (not is_in_time)


async def test_a_binding_is_ours_from_our_sending_not_from_our_taking_the_row(bench):
    """A row that waited for the gate is not ours if another bound it meanwhile."""
    wanted = devices(3)
    post = bench.server.post

    async def after_a_wait(device, before, landed):
        if device.machine_code == "SN1":
            await bench.clock.sleep(60.0)
            bench.server.put("user_0", "SN1", age_s=20.0)
            bench.server.planned.append(NoAnswer())
        return await post(device, before, landed)

    bench.server.post = after_a_wait
    await bench.ran(wanted)

    assert by_code(bench)["SN1"].status == "already_bound"


async def test_a_row_that_ends_last_of_all_is_listened_to_as_well(bench):
    """It waited for another attempt when all workers had ended."""
    Shifted(bench, Refused(), says_after_s=0.4, before=[Throttled()] * 2, code="SN2")

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}
    assert bench.server.posted_again == 0


async def test_an_answer_may_come_as_late_as_the_slowest_before_it(bench):
    """A slow server takes that long to say what belongs to the request after all."""
    bench.server.latency_s = 4.0
    Shifted(bench, Refused(), says_after_s=4.0, code="SN2")

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}


@pytest.mark.parametrize("status", [Status.BOUND, Status.ALREADY_BOUND, Status.FAILED])
async def test_our_binding_is_ours_after_a_kill_between_doubt_and_list(bench, status):
    """When it was sent is in the ledger, also where the server's clock was not known before."""
    wanted = devices(2)
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, wanted)
        await ledger.start(run)
        for claim in await ledger.claim(run, 0, 2, None, excluding=()):
            claim.attempts = 1
            claim.sent_at = bench.clock.utc_now().timestamp()
            bench.server.put("user_0", claim.device.machine_code)
            ledger.settle(claim, Outcome(status))
            await ledger.doubt_again([claim.row])

    assert await lives(bench, wanted, each_s=60.0) == 1
    assert {row.status for row in by_code(bench).values()} == {"bound"}


async def test_an_answer_that_may_be_anothers_decides_nothing_after_a_crash(bench):
    """The row was put off by it and not bound: it is sent again, as often as the settings allow."""
    put_off = Transient(retry_after_s=1.0)
    bench.server.planned.extend([None, put_off])
    Shifted(bench, put_off, says_after_s=0.02, code="SN1")
    wanted = devices(4)

    await sent_and_killed(bench, wanted, kill_after=2.0)
    assert bench.counts() == {"bound": 3, "in_doubt": 1}
    assert await lives(bench, wanted, each_s=60.0) == 1

    assert bench.counts() == {"bound": 4}

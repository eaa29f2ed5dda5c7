"""The engine over a real ledger and a server in memory, on a clock that is turned by hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from bulkbind.engine import Breaker, Parts, Pipeline, StopReason, StopSignal
from bulkbind.engine.binder import Binder
from bulkbind.engine.stop import DrainedError
from bulkbind.errors import ExitCode
from bulkbind.ledger import Ledger, RunReader, reading
from bulkbind.model import (
    AuthExpired,
    CheckedRow,
    ClockRefused,
    Device,
    Listing,
    NoAnswer,
    QuotaUsedUp,
    Refused,
    RunFacts,
    RunState,
    Source,
    Throttled,
    TimeUse,
    Transient,
    Unreachable,
)
from bulkbind.pacing import Pacer
from bulkbind.settings import ReadbackSettings, SendSettings
from tests.support.fake_clock import FakeClock
from tests.support.fakes import ERRED, LOST, MUTE, SILENT, FakeServer
from tests.support.rows import values as row_values

ENDPOINT = "https://example.test"
HOLDER = {"pid": 1, "host": "here", "started_at": "now"}
SETTLED = {"bound", "already_bound", "failed", "skipped", "duplicate", "invalid", "withdrawn"}


class Bench:
    """One ledger file, one server, and runs against them."""

    file: str | None = None
    """The manifest's name; None: that of the run."""

    def __init__(self, path):
        self.path = path
        self.clock = FakeClock()
        self.stop = StopSignal()
        self.pacer = Pacer(self.clock, self.stop)
        self.server = FakeServer(self.clock, self.pacer, self.stop)
        self.send = SendSettings(concurrency=4, backoff_base=0.5, backoff_cap=5.0)
        self.readback = ReadbackSettings(readback_settle=5.0)
        self.stopping = None
        self.begun: Counter[str] = Counter()

    @asynccontextmanager
    async def ledger(self):
        ledger = Ledger(self.path, ENDPOINT, self.clock, batch_s=0)
        await ledger.open(HOLDER)
        submit = ledger._writer.submit

        def watched(*args, **kwargs):
            future = submit(*args, **kwargs)
            self.clock.waits_for.add(future)
            future.add_done_callback(self.clock.waits_for.discard)
            return future

        ledger._writer.submit = watched  # type: ignore[method-assign]  # only watched
        try:
            yield ledger
        finally:
            await ledger.close()

    async def staged(self, ledger, devices, name="run", *, rebind=False, move=False):
        """Stage and confirm a run of these devices; return its number."""
        self.begun[name] += 1
        run_id = f"{name} {self.begun[name]}" if self.begun[name] > 1 else name
        values = {"run_id": run_id, "digest": name, "created_at": "now", "operator": "me"}
        values |= {"host": "here", "pid": 1, "version": "0", "settings": "{}"}
        run = await ledger.begin(values)
        rows = [
            CheckedRow(line, [d.machine_code], row_values(d.user_id, d.machine_code))
            for line, d in enumerate(devices, start=2)
        ]
        form = Source(self.file or name, "csv", "utf-8", bom=False, header=("machine_code",))
        how = {"rebind": rebind, "move": move, "on_batch": lambda _: None}
        await ledger.stage(run, 0, form, 0, rows, **how)
        await ledger.ready(run)
        await ledger.confirm(run)
        return run

    def renew(self):
        """Begin as a new process would: nothing but ledger and server is left."""
        self.stop = StopSignal()
        self.pacer = self.server.pacer = Pacer(self.clock, self.stop)
        self.server.stop = self.stop

    async def sent(self, ledger, run):
        """Send a run and end it; return its last state."""
        await ledger.start(run)
        parts = Parts(self.server, ledger, self.pacer, self.stop, self.clock)
        breaker = Breaker(self.stop, self.send.max_failures)
        if self.send.max_failures:
            ledger.on_settled = breaker.settled
        try:
            await Pipeline(parts, run, self.send, self.readback, breaker=breaker).run()
        finally:
            self.server.close()
        reason = self.stop.reason.text if self.stop.reason else None
        return await ledger.finish(run, reason, RunFacts())

    async def ran(self, devices, name="run", **options):
        """Do the whole of a run; return its last state."""
        async with self.ledger() as ledger:
            return await self.sent(ledger, await self.staged(ledger, devices, name, **options))

    def stop_in(self, seconds):
        """Stop the run that goes on after that time; the first call counts."""

        async def stop():
            await self.clock.sleep(seconds)
            self.stop.set(StopReason("enough", ExitCode.INTERRUPTED))

        if self.stopping is None:
            self.stopping = asyncio.create_task(stop())

    def rows(self, run=1):
        with reading(self.path) as db:
            return list(RunReader(db, run).rows())

    def counts(self, run=1):
        with reading(self.path) as db:
            return RunReader(db, run).counts()


@pytest.fixture
def bench(tmp_path):
    """Return a bench with a ledger file of its own."""
    return Bench(tmp_path / "ledger.db")


def devices(count, users=1):
    """Return *count* devices for *users* users."""
    return [Device(f"user_{number % users}", f"SN{number}") for number in range(count)]


@pytest.mark.parametrize("is_pool", [False, True], ids=["one by one", "many at a time"])
async def test_every_device_is_bound_once(bench, is_pool):
    """Without trouble, each device takes one request, and no list is read."""
    bench.server.is_pool = is_pool
    state = await bench.ran(devices(50))

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 50}
    assert set(bench.server.binds.values()) == {1}
    assert not bench.server.lists


async def test_what_is_handed_over_ahead_keeps_to_the_pace(bench):
    """Others are asked to take more only once what they took is due; all that is time paced."""
    bench.server.is_pool, bench.server.pool_ahead_s = True, 0.05
    bench.send = SendSettings(concurrency=32)
    bench.pacer.cap(100.0)
    bench.pacer.carried(0.05)
    began = bench.clock.monotonic()
    await bench.ran(devices(300))

    assert bench.counts() == {"bound": 300}
    assert 2.9 <= bench.clock.monotonic() - began <= 3.5
    assert bench.pacer.time.seconds(TimeUse.PACED) > 2.5


async def test_never_more_in_flight_than_the_concurrency(bench):
    """The workers are as many as the concurrency says."""
    await bench.ran(devices(60))

    assert bench.server.most_in_flight == bench.send.concurrency


async def test_the_first_request_goes_alone(bench):
    """Until the canary is answered, nothing else is sent."""
    seen = []
    answer = bench.server._handle

    def watch(device, plan):
        seen.append(bench.server.in_flight)
        return answer(device, plan)

    bench.server._handle = watch
    await bench.ran(devices(20))

    assert seen[0] == 1
    assert max(seen[1:]) > 1


async def test_a_refused_row_waits_once_at_the_gate(bench):
    """Refused for half a minute, the very first row waits there, staged; the wait is counted."""
    bench.server.planned.append(Throttled(retry_after_s=30.0))
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(3))
        sending = asyncio.create_task(bench.sent(ledger, run))
        looks = []
        for _ in range(5):
            await bench.clock.sleep(5.0)
            looks.append(await ledger.counts(run))
        await sending

    assert looks[-1] == {"staged": 3}
    assert bench.pacer.time.seconds(TimeUse.CLOSED) == pytest.approx(30.0, abs=0.5)
    assert bench.counts() == {"bound": 3}


async def test_lost_answers_are_read_back_and_not_sent_again(bench):
    """A device that the server bound without answering is found in the list."""
    bench.server.planned.extend([None, LOST, LOST, LOST])

    await bench.ran(devices(20))

    assert bench.counts() == {"bound": 20}
    assert bench.server.posted_again == 0
    assert bench.server.lists == {"user_0": 1}


async def test_one_list_answers_for_all_rows_of_a_user(bench):
    """Doubt is parked per user: many rows in doubt take one call per user."""
    bench.server.planned.extend([None, *[LOST] * 4])

    await bench.ran(devices(21, users=2))

    assert bench.counts() == {"bound": 21}
    assert bench.server.lists == {"user_0": 1, "user_1": 1}


async def test_what_two_reads_do_not_show_is_sent_again(bench):
    """A request that never arrived is sent again, after two lists that count lacked it."""
    bench.server.planned.extend([None, NoAnswer()])

    await bench.ran(devices(5))

    assert bench.counts() == {"bound": 5}
    assert bench.server.lists == {"user_0": 3}  # the first was a look that did not count
    assert bench.server.posted_again == 0
    assert [row.attempts for row in bench.rows()].count(2) == 1


async def test_what_the_list_shows_at_the_end_waits_for_nothing(bench):
    """Once nothing else is to be sent, a list is read at once; only its lack takes time."""
    bench.server.planned.extend([None, LOST, LOST])

    await bench.ran(devices(5))

    assert bench.counts() == {"bound": 5}
    assert bench.clock.monotonic() < 1.0


@pytest.mark.parametrize("is_bound", [True, False])
async def test_a_last_silent_request_is_looked_up_before_its_time_out(bench, is_bound):
    """A list that shows its row ends it; one that lacks it counts as late as it would have."""
    bench.server.latency_s = 0.1
    bench.server.planned.extend([None, SILENT if is_bound else MUTE])

    await bench.ran(devices(5))

    assert bench.counts() == {"bound": 5}
    assert bench.server.posted_again == 0
    took_s, settle_s = bench.clock.monotonic(), bench.readback.readback_settle
    earliest_s = 0.0 if is_bound else bench.server.time_out_s + 2 * settle_s
    assert earliest_s <= took_s < earliest_s + 4.0


async def test_a_list_that_lacks_what_is_known_is_not_trusted(bench):
    """A list without the devices that the ledger knows clears nobody of doubt."""
    bench.server.planned.extend([None, NoAnswer()])

    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(5))
        listing = bench.server.list_devices

        async def empty(user_id):
            bench.server.bindings[user_id], kept = {}, bench.server.bindings[user_id]
            answer = await listing(user_id)
            bench.server.bindings[user_id] = kept
            return answer

        bench.server.list_devices = empty
        await bench.sent(ledger, run)
    doubtful = [row for row in bench.rows() if row.status == "in_doubt"]

    assert bench.counts() == {"bound": 4, "in_doubt": 1}
    assert "lacks other devices known as bound, such as" in doubtful[0].detail
    assert doubtful[0].detail.endswith(" and 3 more")


async def test_an_unreadable_list_keeps_the_doubt(bench):
    """Where the list cannot be read, the row stays in doubt and is reported."""
    bench.server.planned.extend([None, LOST])
    bench.server.list_planned.extend([Refused(set_up=True)] * 3)

    state = await bench.ran(devices(3))

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 2, "in_doubt": 1}


@pytest.mark.parametrize("refused", [Refused(), Refused(is_about_user=True)])
async def test_a_list_refused_for_a_reason_of_its_own_is_read_again(bench, refused):
    """It may be the answer to another request; one that speaks of the user may be as well."""
    bench.server.planned.extend([None, LOST])
    bench.server.list_planned.append(refused)

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}
    assert bench.server.lists == {"user_0": 2}
    assert bench.server.posted_again == 0


async def test_doubt_of_an_ended_run_is_settled_by_the_next(bench):
    """A row left in doubt is read back first by whatever runs next."""
    bench.server.planned.extend([None, LOST])
    bench.server.list_planned.extend([Refused(set_up=True)])
    await bench.ran(devices(3), "first")
    bench.renew()

    await bench.ran([Device("user_9", "OTHER")], "second")

    assert bench.counts(1) == {"bound": 3}
    assert bench.counts(2) == {"bound": 1}
    assert bench.server.posted_again == 0


async def test_a_device_in_doubt_waits_for_the_list_in_the_next_run_too(bench):
    """The same device in a new manifest is not sent before the older doubt is settled."""
    bench.server.planned.extend([None, LOST])
    bench.server.list_planned.extend([Refused(set_up=True)])
    await bench.ran(devices(3), "first")
    bench.renew()

    await bench.ran(devices(4), "second")

    assert bench.counts(1) == {"bound": 3}
    assert bench.counts(2) == {"bound": 1, "skipped": 3}
    assert bench.server.posted_again == 0


async def test_a_device_cleared_of_an_older_doubt_is_sent_by_the_new_run(bench):
    """What the older run never got through is withdrawn there and sent here."""
    bench.server.planned.extend([None, NoAnswer()])
    bench.server.list_planned.extend([Refused(set_up=True)])
    await bench.ran(devices(3), "first")
    bench.renew()

    await bench.ran(devices(3), "second")

    assert bench.counts(1) == {"bound": 2, "withdrawn": 1}
    assert bench.counts(2) == {"bound": 1, "skipped": 2}


async def test_readback_off_leaves_doubt(bench):
    """For servers without a list, no list is read and the row stays in doubt."""
    bench.readback = ReadbackSettings(readback=False)
    bench.server.planned.extend([None, LOST])

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 2, "in_doubt": 1}
    assert not bench.server.lists


async def test_trouble_is_sent_again_and_costs_attempts(bench):
    """A 500 is sent again after backoff, and counted."""
    bench.server.planned.extend([None, Transient(), Transient(), Transient()])

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}
    assert sum(row.attempts for row in bench.rows()) == 6


async def test_attempts_run_out(bench):
    """A device whose attempts are used up has failed; the others have not."""
    bench.send = SendSettings(concurrency=1, max_attempts=2, backoff_base=0.1, backoff_cap=0.1)
    bench.server.planned.extend([None, None, Transient(), Transient()])

    await bench.ran(devices(3))
    failed = bench.rows()[2]

    assert (failed.status, failed.attempts) == ("failed", 2)
    assert bench.counts() == {"bound": 2, "failed": 1}


async def test_throttling_costs_no_device_an_attempt(bench):
    """However often the gateway throttles, nothing fails, and every row takes one attempt."""
    bench.server.planned.append(None)
    bench.server.planned.extend([Throttled()] * 15)

    await bench.ran(devices(10))

    assert bench.counts() == {"bound": 10}
    assert {row.attempts for row in bench.rows()} == {1}


async def test_a_gateway_that_refuses_everything_for_long_stops_the_run(bench):
    """A limit per hour that nobody tells shows as refusals beyond `max_wait`: the run stops."""
    bench.server.planned.append(None)
    bench.server.planned.extend([Throttled()] * 200)

    await bench.ran(devices(10))

    assert bench.counts() == {"bound": 1, "pending": 9}
    assert bench.stop.reason is not None
    assert bench.stop.reason.exit_code == 3
    assert "has refused every request" in bench.stop.reason.text


async def test_a_final_no_is_failed(bench):
    """A refusal of the business ends the row, with the server's words."""
    bench.server.planned.extend([None, Refused()])

    await bench.ran(devices(3))
    failed = next(row for row in bench.rows() if row.status == "failed")

    assert (failed.code, failed.message) == ("Refused", "as planned")


async def test_a_refusal_after_doubt_waits_for_the_list(bench):
    """A row that was in doubt is not failed before the list was read: it may be bound."""
    bench.send = SendSettings(concurrency=1)
    bench.server.planned.extend([None, NoAnswer(), None, Refused()])
    # While the row is sent again, the server finishes its first request.
    answer = bench.server._handle

    def late(device, plan):
        if isinstance(plan, Refused):
            bench.server.put(device.user_id, device.machine_code)
        return answer(device, plan)

    bench.server._handle = late
    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}


async def test_already_bound_is_confirmed_by_the_list(bench):
    """A code that means "already bound" is believed once the list shows the device."""
    bench.server.second_bind_is_error = True
    bench.server.put("user_0", "SN1", age_s=3600)

    await bench.ran(devices(3))
    row = bench.rows()[1]

    assert (row.status, row.device_id) == ("already_bound", "id1")
    assert bench.counts() == {"bound": 2, "already_bound": 1}


async def test_already_bound_to_somebody_else_has_failed(bench):
    """The code without the device in the user's list means that another user has it."""
    from bulkbind.model import AlreadyBound  # noqa: PLC0415  # used here alone

    bench.server.planned.extend([None, AlreadyBound()])

    await bench.ran(devices(3))
    failed = next(row for row in bench.rows() if row.status == "failed")

    assert "another user" in failed.detail


async def test_an_older_binding_is_already_bound(bench):
    """A record older than our sending is not called bound by us."""
    bench.server.put("user_0", "SN1", age_s=60)

    await bench.ran(devices(3))

    assert [row.status for row in bench.rows()] == ["bound", "already_bound", "bound"]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (AuthExpired(), "credentials"),
        (QuotaUsedUp(), "quota"),
    ],
    ids=["credentials", "quota"],
)
async def test_what_no_device_can_help_stops_the_run(bench, verdict, words):
    """The run stops, the row goes back, and what is left can be sent later."""
    bench.server.planned.extend([None, None, verdict])

    state = await bench.ran(devices(20))
    counts = bench.counts()

    assert state is RunState.STOPPED
    assert bench.stop.reason is not None
    assert words in bench.stop.reason.text
    assert bench.stop.reason.exit_code == 3
    assert set(counts) == {"bound", "pending"}
    assert counts["bound"] + counts["pending"] == 20


async def test_a_stopped_run_goes_on(bench):
    """What a stopped run left is sent by the next sending of the same run, nothing twice."""
    bench.server.planned.extend([None] * 5 + [AuthExpired()])
    await bench.ran(devices(20))
    bench.renew()

    async with bench.ledger() as ledger:
        known = await ledger.unfinished("run")
        assert known is not None
        state = await bench.sent(ledger, known[0])

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 20}
    assert set(bench.server.binds.values()) == {1}


async def test_refused_canaries_stop_the_run_and_fail_nobody(bench):
    """Five refusals of the set-up's kind at the start: it is the set-up, all rows stay pending."""
    bench.server.planned.extend([Refused(set_up=True)] * 50)

    state = await bench.ran(devices(30))

    assert state is RunState.STOPPED
    assert bench.counts() == {"pending": 30}
    assert len(bench.server.planned) == 45
    assert {row.attempts for row in bench.rows()} == {0}


async def test_a_few_refused_canaries_are_refusals_once_one_succeeds(bench):
    """When a later canary proves the set-up, the held back ones have failed on their own."""
    bench.server.planned.extend([Refused(set_up=True)] * 2)

    await bench.ran(devices(10))

    assert bench.counts() == {"failed": 2, "bound": 8}


async def test_an_unreachable_endpoint_stops_a_run_that_never_got_through(bench):
    """Five failed connections at the start stop the run; no attempt is counted."""
    bench.server.planned.extend([Unreachable()] * 50)

    state = await bench.ran(devices(10))

    assert state is RunState.STOPPED
    assert bench.counts() == {"pending": 10}
    assert len(bench.server.planned) == 45


async def test_an_endpoint_that_goes_away_is_waited_for(bench):
    """Once it has answered, failed connections cost nothing: the run goes on when it returns."""
    bench.server.planned.extend([None] * 3 + [Unreachable()] * 12)

    state = await bench.ran(devices(20))

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 20}
    assert {row.attempts for row in bench.rows()} == {1}


async def test_a_refused_clock_is_tried_again_without_an_attempt(bench):
    """The first exchange measures the clock; the row is sent again."""
    bench.server.planned.append(ClockRefused())

    await bench.ran(devices(3))

    assert bench.counts() == {"bound": 3}
    assert {row.attempts for row in bench.rows()} == {1}


async def test_a_clock_refused_for_ever_stops_the_run(bench):
    """Two refusals in a row, although the server's own Date was followed, stop the run."""
    bench.server.planned.extend([ClockRefused()] * 10)

    state = await bench.ran(devices(3))

    assert state is RunState.STOPPED
    assert bench.counts() == {"pending": 3}


async def test_a_drain_sends_nothing_new_and_loses_nothing(bench):
    """After a stop, rows in hand go back and the rest stays: done plus pending is all."""
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(200))
        ledger.on_settled = lambda _: bench.stop.set(StopReason("enough", ExitCode.INTERRUPTED))
        state = await bench.sent(ledger, run)
    counts = bench.counts()
    bound = counts["bound"]

    assert state is RunState.STOPPED
    assert 0 < bound < 200
    assert counts == {"bound": bound, "pending": 200 - bound}
    assert sum(bench.server.binds.values()) == bound


async def test_a_drain_cuts_backoff_short(bench):
    """A row that waits for another attempt is staged again at once."""
    bench.send = SendSettings(concurrency=2)
    bench.server.planned.extend([None, Transient(retry_after_s=3000.0)])
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(2))
        ledger.on_settled = lambda _: bench.stop_in(1.0)
        await bench.sent(ledger, run)

    assert bench.counts() == {"bound": 1, "pending": 1}
    assert bench.clock.monotonic() < 10


async def test_the_grace_ends_what_hangs(bench):
    """A request that outlives the grace is broken off; its row is in doubt."""
    bench.send = SendSettings(concurrency=2, grace=20.0)

    def hang(_settled):
        bench.server.latency_s = 1e6
        bench.stop_in(5.0)

    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(300))
        ledger.on_settled = hang
        state = await bench.sent(ledger, run)
    counts = bench.counts()

    assert state is RunState.STOPPED
    assert 1 <= counts["in_doubt"] <= 2
    assert sum(counts.values()) == 300
    assert 24 < bench.clock.monotonic() < 40


async def stopped_in_doubt(bench, plan, *, lists=()):
    """Stop a run six of whose rows got no answer, before its last five rows; return its end."""
    bench.server.planned.extend([None, *[plan] * 6])
    bench.pacer.cap(2.0)

    def stop(_settled):
        bench.server.list_planned.extend(lists)
        bench.stop_in(3.2)

    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(12, users=2))
        ledger.on_settled = stop
        await bench.sent(ledger, run)
    return bench.clock.monotonic()


async def test_a_drain_reads_back_what_is_in_doubt(bench):
    """At once, not after the time that only an absence takes; nothing is sent again."""
    took_s = await stopped_in_doubt(bench, LOST)

    assert bench.counts() == {"bound": 7, "pending": 5}
    assert took_s < bench.readback.readback_settle
    assert bench.server.posted_again == 0


async def test_a_drain_proves_absence_where_the_grace_is_long_enough(bench):
    """By two lists, as ever; the rows are pending then, and nothing is sent again."""
    took_s = await stopped_in_doubt(bench, NoAnswer())

    assert bench.counts() == {"bound": 1, "pending": 11}
    assert took_s < bench.send.grace
    assert sum(bench.server.binds.values()) == 1


async def test_a_drain_ends_where_no_list_can_be_had(bench):
    """One request a user shows that; nobody waits for the end of the grace."""
    took_s = await stopped_in_doubt(bench, LOST, lists=[Transient()] * 9)

    assert bench.counts() == {"bound": 1, "in_doubt": 6, "pending": 5}
    assert took_s < bench.readback.readback_settle
    assert sum(bench.server.lists.values()) == 2


async def test_a_drain_asks_nobody_who_is_away(bench):
    """One failed connection is enough for all users."""
    bench.send = SendSettings(concurrency=1)
    await stopped_in_doubt(bench, LOST, lists=[Unreachable()] * 9)

    assert bench.counts()["in_doubt"] > 1
    assert sum(bench.server.lists.values()) == 1


async def test_a_drain_does_not_wait_for_a_gateway_that_is_closed_for_longer(bench):
    """Where it says so long a wait that the run stops, no list can be had within the grace."""
    bench.server.planned.extend([None, *[LOST] * 3, Throttled(retry_after_s=7200.0)])
    async with bench.ledger() as ledger:
        await bench.sent(ledger, await bench.staged(ledger, devices(9)))

    assert bench.counts()["in_doubt"] == 3
    assert bench.clock.monotonic() < bench.readback.readback_settle
    assert not bench.server.lists


async def test_another_run_withdraws_what_an_older_one_left(bench):
    """Rows that only an older, unfinished run wanted are never sent by surprise."""
    bench.server.planned.extend([None, None, AuthExpired()])
    await bench.ran(devices(10), "first")
    bench.renew()

    await bench.ran([Device("user_1", "NEW")], "second")
    counts = bench.counts(1)

    assert set(counts) == {"bound", "withdrawn"}
    assert sum(bench.server.binds.values()) == counts["bound"] + 1


async def test_known_bindings_are_skipped_and_rebind_sends_them(bench):
    """The same manifest again costs no request, unless it is asked for."""
    await bench.ran(devices(5), "first")
    bench.renew()
    await bench.ran(devices(5), "second")
    quiet = sum(bench.server.binds.values())
    bench.renew()
    bench.clock.advance(60)
    await bench.ran(devices(5), "third", rebind=True)

    assert quiet == 5
    assert bench.counts(2) == {"skipped": 5}
    assert bench.counts(3) == {"already_bound": 5}


@pytest.mark.slow
async def test_silent_requests_hold_no_other_rows_up(bench):
    """600 rows at 60/s take ten seconds, and what is broken off or answered 500 a few more.

    A silent row stays claimed until its time-out; the run ends once that has settled.
    """
    bench.send = SendSettings(concurrency=32, backoff_base=0.5, backoff_cap=5.0)
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, 60.0, concurrency=32)
    plans = [{1: LOST, 11: Transient()}.get(number % 20) for number in range(600)]
    plans[200:204] = [SILENT] * 4
    plans[100:600:150] = [SILENT] * 4
    bench.server.planned.extend(plans)
    state = await bench.ran(devices(600))
    settled = [datetime.fromisoformat(row.settled_at) for row in bench.rows()]
    late = [moment for moment in settled if (moment - min(settled)).total_seconds() > 10 + 2 * 5.0]

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 600}
    assert len(late) <= plans.count(SILENT)
    assert bench.clock.monotonic() < 10 + bench.server.time_out_s + 2 * 5.0
    assert bench.server.most_in_flight <= 32


@pytest.mark.parametrize(
    ("plans", "most"),
    [
        pytest.param([Refused()] * 40, 5, id="all refused"),
        pytest.param([None] * 10 + [Refused()] * 40, 5 + 8, id="refused from the tenth on"),
        pytest.param([None] + [Transient()] * 400, 5 + 8, id="all in trouble"),
        pytest.param([ERRED, *[Refused()] * 40], 8, id="refused after trouble"),
    ],
)
async def test_a_failing_run_stops_when_it_was_told_to(bench, plans, most):
    """At five failures, and those that were in flight when the first of them came."""
    bench.send = SendSettings(
        concurrency=32, max_failures="5", max_attempts=2, backoff_base=0.5, backoff_cap=5.0
    )
    bench.server.planned.extend(plans)

    state = await bench.ran(devices(60))

    assert state is RunState.STOPPED
    assert "--max-failures 5" in bench.stop.reason.text
    assert 5 <= bench.counts()["failed"] <= most


async def test_canaries_that_may_fail_hold_no_other_up(bench):
    """Refused as with a wrong set-up, they fail once another row has succeeded: no sooner."""
    bench.send = SendSettings(concurrency=4, max_failures="2")
    bench.server.planned.extend([Refused(set_up=True)] * 3)

    state = await bench.ran(devices(60))

    assert state is RunState.STOPPED
    assert bench.counts()["failed"] == 3
    assert bench.counts()["bound"] >= 1


@pytest.mark.parametrize("silent", [1, 3])
async def test_a_first_request_without_an_answer_holds_nobody_up(bench, silent):
    """The next row goes first then; what is silent is settled beside the others."""
    bench.server.planned.extend([SILENT] * silent)

    state = await bench.ran(devices(40))
    settled = sorted(datetime.fromisoformat(row.settled_at) for row in bench.rows())

    assert state is RunState.DONE
    assert bench.counts() == {"bound": 40}
    assert (settled[39 - silent] - settled[0]).total_seconds() < 2.0
    assert bench.clock.monotonic() < bench.server.time_out_s + 2 * silent + 10.0


async def test_canaries_that_nobody_answers_stop_the_run(bench):
    """Five rows in doubt at most, and no other one sent."""
    bench.server.planned.extend([SILENT] * 60)

    state = await bench.ran(devices(60))

    assert state is RunState.STOPPED
    assert "none of the first 5 devices" in bench.stop.reason.text
    assert sum(bench.server.binds.values()) == 5
    assert bench.server.posted_again == 0


async def test_a_first_list_without_an_answer_holds_nobody_up(bench):
    """Rows that an earlier run left in doubt wait for it; the others are sent meanwhile."""
    bench.readback = ReadbackSettings(readback=False)
    bench.server.planned.extend([None, LOST])
    await bench.ran(devices(2))
    bench.renew()
    bench.readback = ReadbackSettings(readback_settle=5.0)
    listed, silences = bench.server.list_devices, [60.0]

    async def list_devices(user_id):
        if silences:
            permit = await bench.pacer.permit(user_id)
            await bench.clock.sleep(silences.pop())
            bench.pacer.report(permit, NoAnswer())
            return Listing(bench.server._attempt(NoAnswer(), 0.0), None)
        return await listed(user_id)

    bench.server.list_devices = list_devices
    began = bench.clock.monotonic()
    state = await bench.ran(devices(40), "another")
    settled = sorted(row.settled_at for row in bench.rows(2) if row.settled_at)

    assert state is RunState.DONE
    assert bench.counts(2)["bound"] >= 38
    assert bench.counts(1) == {"bound": 2}
    took = datetime.fromisoformat(settled[37]) - datetime.fromisoformat(settled[0])
    assert took.total_seconds() < 5.0
    assert bench.clock.monotonic() - began > 60.0


# --- lost workers ---------------------------------------------------------------------------------

UNDER_WAY_S = 17.0


async def test_what_a_lost_worker_had_in_hand_is_sent_again_once_that_is_safe(bench):
    """No list counts as absence before its request may not be carried out any more."""
    bench.server.planned.extend([None, NoAnswer(under_way_s=UNDER_WAY_S)])

    assert await bench.ran(devices(5)) is RunState.DONE

    assert bench.counts() == {"bound": 5}
    assert bench.server.posted_again == 0
    assert bench.clock.monotonic() >= UNDER_WAY_S + 2 * bench.readback.readback_settle


async def test_another_process_waits_for_it_as_long(bench):
    """When the request may still be under way is in the ledger, with the doubt."""
    bench.server.planned.extend([None, NoAnswer(under_way_s=UNDER_WAY_S)])
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(5))
        ledger.on_settled = lambda _ended: bench.stop_in(0.5)
        await bench.sent(ledger, run)
    assert bench.counts() == {"bound": 4, "in_doubt": 1}
    bench.renew()

    async with bench.ledger() as ledger:
        assert await bench.sent(ledger, run) is RunState.DONE

    assert bench.counts() == {"bound": 5}
    assert bench.clock.monotonic() >= UNDER_WAY_S + 2 * bench.readback.readback_settle


async def test_an_error_of_ours_in_judging_an_answer_ends_the_run(bench, monkeypatch):
    """It is raised where a connection calls, and nobody awaits it: the run must not wait on."""

    def landed(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Binder, "landed", landed)

    with pytest.raises(ZeroDivisionError):
        await bench.ran(devices(9))


async def test_a_refusal_that_a_stop_keeps_from_being_weighed_leaves_its_row_staged(bench):
    """Nothing was done for it, so it is in no doubt."""
    post = bench.server.post

    async def weighing():
        bench.stop.set(StopReason("enough", ExitCode.INTERRUPTED))
        raise DrainedError

    async def post_refused(device, before, landed):
        if device.machine_code != "SN2":
            return await post(device, before, landed)
        before()
        landed(weighing)
        return True

    bench.server.post = post_refused
    state = await bench.ran(devices(3))

    assert state is RunState.STOPPED
    assert bench.counts() == {"bound": 2, "pending": 1}

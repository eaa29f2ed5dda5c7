"""A worker sends what it is told to, within its lease."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

import pytest

from bulkbind.clock import SystemClock
from bulkbind.engine.workers.messages import (
    TO_DRIVER,
    After,
    Beat,
    Failed,
    Frames,
    Hello,
    Kept,
    Key,
    Lease,
    Named,
    Order,
    Passed,
    Ready,
    Revoke,
    Said,
    Start,
    ToDriver,
    Unasked,
    frame,
)
from bulkbind.engine.workers.worker import BEAT_S, CLUMP_S, GATHER_S, LEASE_S, Worker
from bulkbind.koodrive.auth.credential import of_parts
from bulkbind.model import Accepted, Attempt, Device, Throttled
from tests.support.fake_clock import HandClock

DEVICE = Device("user", "SN_1")
OTHERS = Attempt(Accepted("id", ""), connection=1)
BOUND = Attempt(
    Accepted("id", "1970-01-01T00:16:40Z"), "0", "success", sent_at=1000.0, connection=1,
    is_named=True,
    http_status=200,
)  # fmt: skip


class Client:
    """A client that answers when it is told to, and looks at the lease just before it sends."""

    def __init__(self, may_send):
        self.names_codes = False
        self.may_send = may_send
        self.sent = []
        self.answer = OTHERS
        self.connected = asyncio.Event()
        self.connected.set()

    def on_unasked(self, report):
        self.report = report

    def post(self, device, credential, landed, timeout_s=None):
        async def answer():
            await self.connected.wait()
            self.may_send()
            self.sent.append((device, credential.header, timeout_s))
            return self.answer

        landed(answer)


class Bench:
    """A worker, and its driver's end of the link."""

    def __init__(self):
        self.clock = HandClock()
        self.frames = Frames(TO_DRIVER)
        self.heard: list[ToDriver] = []
        self.client = None
        self.has_driver = True
        self.worker = Worker(
            self.clock,
            lambda data: self.heard.extend(self.frames.feed(data)),
            version="1.0",
            open_client=self.open,
            credential_of=of_parts,
            has_driver=lambda: self.has_driver,
        )

    async def open(self, setup, may_send):
        assert setup == b"how"
        self.client = Client(may_send)
        return self.client

    async def tell(self, *messages):
        self.worker.heard(frame(messages))
        await self.turn()

    async def turn(self):
        for _ in range(10):
            await SystemClock().sleep(0)

    async def started(self):
        """Let it start; return the numbers of its beats so far."""
        await self.tell(Start(b"how"), Key(1, ("Bearer x",)))
        return [each.number for each in self.heard if isinstance(each, Beat)]

    def kinds(self):
        return [type(each) for each in self.heard]


@pytest.fixture
async def bench():
    """Return a worker that has said hello."""
    made = Bench()
    await made.turn()
    yield made
    for task in made.worker._tasks:
        task.cancel()
    await asyncio.gather(*made.worker._tasks, return_exceptions=True)


async def test_it_says_hello_then_that_it_is_ready_and_asks_for_a_lease(bench):
    """Nothing else is said before the driver has told how to reach the server."""
    assert bench.heard == [Hello("1.0")]

    beats = await bench.started()

    assert bench.kinds() == [Hello, Ready, Beat]
    assert len(beats) == 1


async def test_it_sends_what_it_is_told_to_with_the_credential_and_time_out_it_is_told(bench):
    """An order is one request, and what came of it is said under its number."""
    (beat,) = await bench.started()

    await bench.tell(Lease(beat), Order(7, 1, 3.0, [DEVICE]))

    assert bench.client.sent == [(DEVICE, "Bearer x", 3.0)]
    (said,) = [each for each in bench.heard if isinstance(each, Said)]
    assert said.number == 7
    assert said.attempt() == Attempt(Accepted("id", ""), connection=1)


@pytest.mark.parametrize("age_s", [LEASE_S - 0.01, LEASE_S, LEASE_S + 5], ids=lambda s: f"{s:g}")
async def test_a_lease_counts_from_when_it_was_asked_for(bench, age_s):
    """However late it comes, nothing leaves later than `LEASE_S` after the worker asked."""
    (beat,) = await bench.started()
    bench.clock._seconds += age_s  # its answer took so long, and nobody else was awake

    await bench.tell(Lease(beat), Order(7, 1, 3.0, [DEVICE]))

    is_late = age_s >= LEASE_S
    assert bench.client.sent == ([] if is_late else [(DEVICE, "Bearer x", 3.0)])
    assert bench.kinds().count(Kept) == is_late


async def test_nothing_is_sent_without_a_lease(bench):
    """An order before the first lease is kept."""
    await bench.started()

    await bench.tell(Order(7, 1, 3.0, [DEVICE]))

    assert bench.client.sent == []
    assert bench.heard[-1] == Kept(7)


async def test_a_lease_that_ends_while_a_connection_is_made_ends_the_order(bench):
    """It is looked at just before the bytes leave, not when the order came."""
    (beat,) = await bench.started()
    bench.client.connected.clear()
    await bench.tell(Lease(beat), Order(7, 1, 3.0, [DEVICE]))

    bench.clock._seconds += LEASE_S
    bench.client.connected.set()
    await bench.turn()

    assert bench.client.sent == []
    assert bench.heard[-1] == Kept(7)


async def test_nothing_is_sent_once_the_driver_is_gone(bench):
    """Though the lease goes on: the next driver may read lists already."""
    (beat,) = await bench.started()
    await bench.tell(Lease(beat))
    bench.has_driver = False

    await bench.tell(Order(7, 1, 3.0, [DEVICE]))

    assert bench.client.sent == []
    assert bench.heard[-1] == Kept(7)


async def test_an_older_lease_does_not_shorten_a_newer_one(bench):
    """Two beats are answered in the wrong order: the later end counts."""
    (first,) = await bench.started()
    bench.clock.advance(BEAT_S)
    await bench.turn()
    second = bench.heard[-1].number

    await bench.tell(Lease(second), Lease(first))
    bench.clock._seconds = LEASE_S + BEAT_S / 2
    await bench.tell(Order(7, 1, 3.0, [DEVICE]))

    assert len(bench.client.sent) == 1


async def test_a_lease_is_worth_nothing_twice(bench):
    """A lease that nobody asked for, or that has been given, changes nothing."""
    (beat,) = await bench.started()
    await bench.tell(Lease(beat))
    bench.clock._seconds += LEASE_S

    await bench.tell(Lease(beat), Lease(99), Order(7, 1, 3.0, [DEVICE]))

    assert bench.client.sent == []


async def test_it_passes_on_that_a_connection_said_more(bench):
    """The number is the worker's own; the driver tells workers apart."""
    await bench.started()

    bench.client.report(4)
    await bench.turn()

    assert bench.heard[-1] == Unasked(4)


@pytest.mark.parametrize("is_early", [True, False], ids=["before it is ready", "after"])
async def test_it_asks_for_names_once_the_driver_says_so(bench, is_early):
    """Also where the driver says so while the client is being opened."""
    if is_early:
        await bench.tell(Start(b"how"), Named())
    else:
        await bench.started()
        await bench.tell(Named())

    assert bench.client.names_codes


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", frame([Order(7, 5, 1.0, [DEVICE])])])
async def test_it_says_why_it_cannot_go_on(bench, data):
    """Bytes that no driver sends, and a credential that it was never given, end it with words."""
    (beat,) = await bench.started()
    await bench.tell(Lease(beat))

    bench.worker.heard(data)
    await bench.turn()

    assert isinstance(bench.heard[-1], Failed)
    assert bench.worker.failure.result() == bench.heard[-1].why


@pytest.mark.parametrize("is_free", [True, False], ids=["no limit", "a limit"])
@pytest.mark.parametrize(("answer", "kind"), [(BOUND, Passed), (OTHERS, Said)])
async def test_accepted_binds_wait_for_others_where_no_limit_is_known(bench, is_free, answer, kind):
    """Each group costs a turn of both event loops; a pace needs to know of each at once."""
    (beat,) = await bench.started()
    places = asyncio.Semaphore(0)
    bench.client.connected.wait = places.acquire
    bench.client.answer = answer
    await bench.tell(Lease(beat, is_free), Order(0, 1, 3.0, [DEVICE] * 6))
    groups: list[bytes] = []
    bench.worker._send = groups.append

    for _ in range(6):
        places.release()
        await bench.turn()
    await SystemClock().sleep(2 * GATHER_S)

    said: list[Any] = [each for group in groups for each in Frames(TO_DRIVER).feed(group)]
    numbers = [each.numbers if kind is Passed else [each.number] for each in said]
    assert [*chain(*numbers)] == [*range(6)]
    assert {type(each) for each in said} == {kind}
    assert len(groups) < 6 if is_free else len(groups) == 6


async def test_it_waits_for_others_as_long_as_it_is_told_where_a_limit_is_known(bench):
    """What is no acceptance goes at once, and what was waiting with it."""
    await bench.tell(Start(b"how", 10.0), Key(1, ("Bearer x",)))
    (beat,) = [each.number for each in bench.heard if isinstance(each, Beat)]
    bench.client.answer, answered = BOUND, bench.client.connected
    bench.client.connected = asyncio.Event()
    await bench.tell(Lease(beat), Order(9, 1, 3.0, [DEVICE]))
    bench.client.connected = answered
    await bench.tell(Order(0, 1, 3.0, [DEVICE] * 2))
    before = bench.kinds()
    bench.client.answer = Attempt(Throttled(), connection=1, http_status=429)
    await bench.tell(Order(2, 1, 3.0, [DEVICE]))

    assert before[-1] is Beat
    assert bench.kinds()[-2:] == [Passed, Said]


async def test_it_waits_for_no_others_where_none_are_to_come(bench):
    """Nor does its beat, which else goes along with them."""
    await bench.tell(Start(b"how", 10.0), Key(1, ("Bearer x",)))
    (beat,) = [each.number for each in bench.heard if isinstance(each, Beat)]
    bench.client.answer = BOUND
    await bench.tell(Lease(beat), Order(0, 1, 3.0, [DEVICE] * 2, CLUMP_S))

    assert bench.kinds() == [Hello, Ready, Beat, Passed]


async def test_what_is_to_leave_over_a_time_does_so_evenly_and_can_be_taken_back(bench):
    """A few at a time; what is taken back is said not to have been sent, and nothing else is."""
    (beat,) = await bench.started()
    spread = Order(0, 1, 3.0, [DEVICE] * 8, 4 * CLUMP_S)
    sent = []

    await bench.tell(Lease(beat), spread)
    sent.append(len(bench.client.sent))
    await SystemClock().sleep(6 * CLUMP_S)
    sent.append(len(bench.client.sent))
    await bench.tell(Order(8, 1, 3.0, [DEVICE] * 8, 400 * CLUMP_S), Named())
    await bench.tell(Revoke())
    sent.append(len(bench.client.sent))
    kept = [each.number for each in bench.heard if isinstance(each, Kept)]

    assert sent == [2, 8, 9]
    assert kept == [*range(9, 16)]
    assert len([each for each in bench.heard if isinstance(each, Said)]) == 9


async def test_what_was_gathered_for_it_is_done_with_the_time_between(bench):
    """A gateway that counts requests close together sees those that were let leave, in order.

    A group that comes before the last one is done waits for it.
    """
    (beat,) = await bench.started()
    sent_at = {}
    posted, clock = bench.client.post, SystemClock()

    def post(device, *rest):
        sent_at[device.machine_code] = clock.monotonic()
        posted(device, *rest)

    bench.client.post = post

    def order(name):
        return Order(len(name), 1, 3.0, [Device("user", name)])

    began = clock.monotonic()
    bench.worker.heard(
        frame([After(0.0), Lease(beat), order("A"), After(0.03), order("B"), order("C")])
    )
    at_once = [*sent_at]
    bench.worker.heard(frame([After(0.0), order("D"), After(0.01), order("E")]))
    await clock.sleep(0.1)
    await bench.tell(After(0.0), order("F"))

    assert at_once == ["A"]
    assert "".join(sent_at) == "ABCDEF"
    assert sent_at["B"] - began > 0.028


async def test_it_ends_if_it_cannot_do_what_waits(bench):
    """A credential that it was never given, later."""
    (beat,) = await bench.started()

    await bench.tell(After(0.0), Lease(beat), After(0.01), Order(1, 7, 3.0, [DEVICE]))
    await asyncio.wait_for(bench.worker.failure, 5)

    assert isinstance(bench.heard[-1], Failed)


async def test_it_ends_if_it_cannot_tell_what_came(bench, monkeypatch):
    """The driver would wait for that bind for ever."""
    (beat,) = await bench.started()
    bench.client.post = lambda _device, _key, landed, _timeout_s: landed(BOUND)
    monkeypatch.setattr(Passed, "takes", lambda _: 1 / 0)

    await bench.tell(Lease(beat), Order(7, 1, 3.0, [DEVICE]))

    assert bench.heard[-1] == Failed(
        "it cannot tell what came: ZeroDivisionError: division by zero"
    )
    assert bench.worker.failure.done()

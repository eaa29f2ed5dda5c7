"""The driver's side: who is given what, and what becomes of a worker that is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from bulkbind.clock import SystemClock
from bulkbind.engine.workers import hub
from bulkbind.engine.workers.crew import FADING, NUMBER_BITS
from bulkbind.engine.workers.hub import AHEAD_S, FIRST_S, LOST, SILENT_BEATS, Hub
from bulkbind.engine.workers.messages import (
    TO_WORKER,
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
    Unasked,
    frame,
)
from bulkbind.engine.workers.worker import BEAT_S, LEASE_S
from bulkbind.koodrive.auth.credential import App, Token
from bulkbind.model import Accepted, Attempt, Device, NoAnswer, Refused, Throttled, Unreachable
from bulkbind.redaction import learn
from tests.support.fake_clock import HandClock

DEVICE = Device("user", "SN_1")
TOKEN = Token("Bearer x")
TIME_OUT_S = 15.0
BOUND = Attempt(Accepted("id", ""), "0", "success", connection=1, is_named=True, http_status=200)
NAMELESS = Attempt(Accepted("id", ""), connection=1, http_status=200)


class Local:
    """The driver's own client."""

    def __init__(self):
        self.names_codes = False
        self.sent = []
        self.learned = []
        self.answer = BOUND
        self.is_open = False

    async def __aenter__(self):
        self.is_open = True

    async def __aexit__(self, *_):
        self.is_open = False

    def now(self):
        return 1000.0

    def server_time(self):
        return 1000.0

    def patience_s(self):
        return TIME_OUT_S

    def learn(self, attempt):
        self.learned.append(attempt)
        self.names_codes = self.names_codes or attempt.is_named

    def learn_passed(self, attempts):
        self.learned += attempts

    def pool(self):
        return None

    def on_unasked(self, report):
        self.report = report

    async def bind(self, device, credential):
        self.sent.append((device, credential))
        return self.answer

    def post(self, device, credential, landed):
        self.sent.append((device, credential))
        landed(self.answer)

    def hand_over(self):
        self.is_handed_over = True

    async def list_devices(self, user_id, credential):
        raise NotImplementedError

    async def unbind(self, item, credential):
        raise NotImplementedError

    def post_unbind(self, item, credential, landed):
        raise NotImplementedError

    async def call(self, call):
        raise NotImplementedError


class Wire:
    """A link whose worker is the test."""

    def __init__(self, number, heard, lost):
        self.pid, self.host, self.gather_s = 100 + number, "", 0.0
        self.heard, self.lost = heard, lost
        self.frames = Frames(TO_WORKER)
        self.told = []
        self.is_killed = self.is_closed = False

    def send(self, data):
        self.told += list(self.frames.feed(data))

    def kill(self):
        self.is_killed = True

    async def close(self):
        self.is_closed = True

    def say(self, *messages):
        self.heard(frame(messages))

    def orders(self):
        return [each for each in self.told if isinstance(each, Order)]


class Bench:
    """A hub, its driver's client, and its workers."""

    def __init__(self, number=2, at_once=9):
        self.number, self.at_once = number, at_once
        self.why_alone = ""
        self.trouble: OSError | None = None
        self.clock = HandClock()
        self.local = Local()
        self.wires: list[Wire] = []
        self.unasked: list[int] = []
        self.tasks = []
        self.is_free = self.is_even = False
        self.slow = ""
        self.carried: list[float] = []
        self.hub = Hub(
            self.local,
            self.clock,
            self,
            version="1.0",
            setup=lambda: b"how",
            is_free=lambda: self.is_free,
            why_alone=lambda: self.slow,
            is_even=lambda: self.is_even,
            carried=self.carried.append,
        )
        self.hub.on_unasked(self.unasked.append)

    async def start(self, heard, lost):
        if self.trouble is not None:
            raise self.trouble
        self.wires.append(Wire(len(self.wires) + 1, heard, lost))
        return self.wires[-1]

    def alone(self, why):
        self.why_alone = why

    async def turn(self):
        for _ in range(10):
            await SystemClock().sleep(0)

    async def bind(self, device=DEVICE, credential=TOKEN):
        """Begin a bind; return its task."""
        task = asyncio.create_task(self.hub.bind(device, credential))
        self.tasks.append(task)
        await self.turn()
        return task

    async def proven(self):
        """Prove the set-up, and let workers be started."""
        await self.bind()
        self.clock.advance(FIRST_S)
        await self.turn()

    async def ready(self):
        """Prove the set-up, and let all workers get ready and have a lease."""
        await self.proven()
        for wire in self.wires:
            wire.say(Hello("1.0"))
        await self.turn()
        for wire in self.wires:
            wire.say(Ready(), Beat(1))
        await self.turn()

    async def beats(self, seconds, *wires):
        """Let time pass, in which some workers beat."""
        for number in range(round(seconds / BEAT_S)):
            self.clock.advance(BEAT_S)
            for wire in wires:
                wire.say(Beat(number + 2))
            await self.turn()


@pytest.fixture
async def bench():
    """Return a hub that is entered."""
    made = Bench()
    async with made.hub:
        await made.turn()
        yield made
        for task in made.tasks:
            task.cancel()
        await asyncio.gather(*made.tasks, return_exceptions=True)
    assert not made.local.is_open


async def test_the_driver_sends_until_one_bind_has_shown_that_the_set_up_is_right(bench):
    """Until then, and some first answers more, no worker is started, let alone told a secret."""
    bench.local.answer = Attempt(Refused(set_up=True), http_status=403)
    await bench.proven()
    bench.local.answer = BOUND
    await bench.bind()
    bench.clock.advance(0.9 * FIRST_S)
    await bench.turn()
    assert bench.wires == []

    bench.clock.advance(0.1 * FIRST_S)
    await bench.turn()
    for wire in bench.wires:
        wire.say(Hello("1.0"))
    await bench.turn()

    assert [wire.told for wire in bench.wires] == [[Start(b"how")]] * 2
    assert len(bench.local.sent) == bench.hub.own_settled == 2


async def test_no_more_are_starting_at_a_time_than_the_driver_can_do_with():
    """The next one is started when one can send, or cannot be, and none while none is of use."""
    made = Bench(number=3, at_once=1)
    made.slow = "slow"
    async with made.hub:
        await made.turn()
        await made.proven()
        numbers = [len(made.wires)]
        made.slow = ""
        await made.beats(BEAT_S)
        for said in ([Hello("0.9")], [Hello("1.0")], [Ready(), Beat(1)]):
            numbers.append(len(made.wires))
            made.wires[-1].say(*said)
            await made.turn()
        numbers.append(len(made.wires))

    assert numbers == [0, 1, 2, 2, 3]


async def test_who_never_gets_ready_keeps_no_other_from_starting(monkeypatch):
    """A process that hangs as it starts says nothing, not even that it failed."""
    monkeypatch.setattr(hub, "STARTING_S", 0.5)  # of real time
    made = Bench(number=2, at_once=1)
    async with made.hub:
        await made.turn()
        await made.proven()
        before = len(made.wires)
        async with asyncio.timeout(20):
            while len(made.wires) < 2:
                await SystemClock().sleep(0.05)

    assert before == 1


async def test_binds_go_to_whoever_has_least_in_hand(bench):
    """Each worker gets a credential once, before the first order that needs it."""
    await bench.ready()

    for _ in range(4):
        await bench.bind()

    for wire in bench.wires:
        assert len(wire.orders()) == 2
        kinds = [type(each) for each in wire.told if not isinstance(each, Lease)]
        assert kinds == [Start, Key, Order, Order]
        assert wire.orders()[0].timeout_s == TIME_OUT_S
    assert len(bench.local.sent) == 1


async def test_another_credential_is_told_as_it_is_made(bench):
    """A renewed token, and an app that signs, each have a number of their own."""
    await bench.ready()

    for credential in (TOKEN, Token("Bearer y"), App("id", "app-secret"), TOKEN):
        for _ in bench.wires:
            await bench.bind(credential=credential)

    for wire in bench.wires:
        keys = [each for each in wire.told if isinstance(each, Key)]
        parts = [("Bearer x",), ("Bearer y",), ("id", "app-secret")]
        assert keys == [Key(number, each) for number, each in enumerate(parts, 1)]
        assert [order.key for order in wire.orders()] == [1, 2, 3, 1]


async def test_what_a_worker_says_is_the_attempt(bench):
    """It is learned from as from an own one, and its connection is told apart from all others."""
    await bench.ready()
    tasks = [await bench.bind() for _ in bench.wires]

    for wire in bench.wires:
        wire.say(Said.of(wire.orders()[0].number, NAMELESS))
    first, second = [await task for task in tasks]

    assert first.verdict == second.verdict == BOUND.verdict
    assert len({first.connection, second.connection, 1}) == 3
    assert bench.local.learned == [first, second]


async def test_a_secret_that_an_answer_repeats_is_masked(bench):
    """A worker does not know all secrets of the run; the driver does."""
    learn("open-sesame-42")
    await bench.ready()
    task = await bench.bind()
    answer = Attempt(Refused(), message="no, open-sesame-42 is no device", http_status=400)

    bench.wires[0].say(Said.of(bench.wires[0].orders()[0].number, answer))

    assert (await task).message == "no, *** is no device"


async def test_what_was_not_sent_needs_another_permit(bench):
    """A worker whose lease has ended keeps an order; nothing is in doubt for it."""
    await bench.ready()
    task = await bench.bind()

    bench.wires[0].say(Kept(bench.wires[0].orders()[0].number))

    assert await task is None
    assert bench.hub.workers()[0]["in_hand"] == 0


async def test_a_worker_that_ends_leaves_its_orders_without_an_answer(bench):
    """They may yet be carried out until lease and time-out are over; others are not concerned."""
    await bench.ready()
    lost, kept = await bench.bind(), await bench.bind()
    bench.clock.advance(0.1)

    bench.wires[0].lost("it was ended by SIGKILL")

    attempt = await lost
    assert isinstance(attempt.verdict, NoAnswer)
    assert attempt.under_way_s == pytest.approx(LEASE_S + TIME_OUT_S - 0.1)
    assert attempt.code == LOST
    assert attempt.message == "worker 1 was lost: it was ended by SIGKILL"
    assert attempt.sent_at == pytest.approx(999.9)
    assert not kept.done()
    states = bench.hub.workers()
    assert [(state["is_alive"], state["lost"]) for state in states] == [
        (False, "it was ended by SIGKILL"),
        (True, ""),
    ]


async def test_who_is_silent_beyond_the_lease_is_buried_and_not_heard_any_more(bench):
    """What it says later changes nothing, and it is given nothing."""
    await bench.ready()
    lost, other = await bench.bind(), await bench.bind()
    order = bench.wires[0].orders()[0].number

    await bench.beats(LEASE_S, bench.wires[1])
    assert not lost.done()
    await bench.beats((SILENT_BEATS + 1) * BEAT_S - LEASE_S, bench.wires[1])
    bench.wires[0].say(Said.of(order, BOUND), Unasked(1), Beat(50))
    await bench.bind()

    assert isinstance((await lost).verdict, NoAnswer)
    assert (await lost).under_way_s == pytest.approx(TIME_OUT_S + LEASE_S - 2.75)
    assert bench.wires[0].is_killed
    assert bench.unasked == []
    assert bench.local.learned == []
    assert [len(wire.orders()) for wire in bench.wires] == [1, 2]
    assert not other.done()
    assert bench.hub.workers()[0]["lost"] == "it said nothing for 2.8 s"
    assert bench.hub.unsure == 1


async def test_a_driver_that_was_stopped_buries_nobody(bench):
    """Beats are missed one a turn: what was said meanwhile is heard first."""
    await bench.ready()
    task = await bench.bind()

    for _ in range(SILENT_BEATS):
        bench.clock.advance(60.0)
        await bench.turn()
    for wire in bench.wires:
        wire.say(Beat(2))
    await bench.beats(LEASE_S, *bench.wires)

    assert not task.done()
    assert all(state["is_alive"] for state in bench.hub.workers())


async def test_every_beat_is_answered_by_a_lease(bench):
    """It has the number of the beat that asked, and says whether a limit is known."""
    await bench.ready()

    bench.wires[0].say(Beat(7), Beat(8))
    await bench.turn()

    bench.is_free = True
    bench.wires[0].say(Beat(9))
    await bench.turn()

    told = [Lease(7, is_free=False), Lease(8, is_free=False), Lease(9, is_free=True)]
    assert bench.wires[0].told[-3:] == told


async def test_what_a_lost_worker_settled_without_a_name_is_doubted(bench):
    """Its connections broke with it: the answers that would show a mix-up may be lost."""
    await bench.ready()
    bench.wires[1].lost("it had nothing")
    connections = []
    for connection, is_named in ((1, False), (2, False), (2, True)):
        task = await bench.bind()
        wire = bench.wires[0]
        answer = Attempt(
            Accepted("id", ""), connection=connection, is_named=is_named, http_status=200
        )
        wire.say(Said.of(wire.orders()[-1].number, answer))
        connections.append((await task).connection)

    bench.wires[0].lost("gone")

    assert bench.unasked == connections[:1]


async def test_a_connection_that_says_more_is_reported_under_its_number(bench):
    """As the attempts that came over it have it."""
    await bench.ready()
    task = await bench.bind()
    bench.wires[0].say(Said.of(bench.wires[0].orders()[0].number, NAMELESS))

    bench.wires[0].say(Unasked(1))

    assert bench.unasked == [(await task).connection]


async def test_all_workers_demand_names_once_one_answer_had_one(bench):
    """Also those that are still being opened; those told later know it from the beginning."""
    bench.local.answer = NAMELESS
    await bench.proven()
    for wire in bench.wires:
        wire.say(Hello("1.0"))
    bench.wires[0].say(Ready(), Beat(1))
    await bench.turn()
    task = await bench.bind()

    bench.wires[0].say(Said.of(bench.wires[0].orders()[0].number, BOUND))
    await task
    await bench.turn()

    assert [wire.told.count(Named()) for wire in bench.wires] == [1, 1]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (Hello("0.9"), "it is of version 0.9, this run of 1.0"),
        (Failed("UsageError: no such file"), "UsageError: no such file"),
    ],
)
async def test_a_worker_that_is_of_no_use_is_let_go(bench, said, why):
    """The others, or the driver, send what it would have."""
    await bench.proven()

    bench.wires[0].say(said)

    assert bench.wires[0].is_killed
    assert bench.hub.workers()[0]["lost"] == why


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x01\xff",
        frame([structs.replace(Said.of(1, BOUND), kind="Guessed")]),
        frame([structs.replace(Said.of(1, BOUND), values=(1, 2, 3, 4))]),
    ],
    ids=["no message", "a verdict of its own", "a verdict of another form"],
)
async def test_what_no_worker_says_ends_it(bench, data):
    """Whatever wrote it cannot be trusted with rows."""
    await bench.ready()

    bench.wires[0].heard(data)

    assert bench.wires[0].is_killed
    assert bench.hub.workers()[0]["lost"].startswith("it says what cannot be read")


async def test_the_driver_goes_on_alone_where_all_are_lost(bench):
    """No worker is left: it sends itself."""
    await bench.ready()
    for wire in bench.wires:
        wire.lost("gone")

    task = await bench.bind()

    assert await task == BOUND
    assert len(bench.local.sent) == bench.hub.own_settled == 2


async def test_a_worker_that_cannot_be_started_is_lost():
    """The run goes on without it, and whoever has the places learns that none is left."""
    made = Bench(1)
    made.trouble = OSError("no process left")
    async with made.hub:
        await made.turn()
        await made.proven()
        attempt = await made.hub.bind(DEVICE, TOKEN)

    assert attempt == BOUND
    lost = made.hub.workers()[0]["lost"]
    assert lost == made.why_alone == "it could not be started: no process left"


async def test_the_pace_learns_how_long_orders_are_carried(bench):
    """That is their time but for the answer's; the longest of late counts, less with each beat."""
    await bench.ready()
    await bench.bind()
    bench.clock.advance(0.5)
    order = bench.wires[0].orders()[0].number
    bench.wires[0].say(Said.of(order, Attempt(Accepted("1", ""), took_s=0.1)))

    await bench.beats(2 * BEAT_S, *bench.wires)

    assert bench.carried[-2:] == pytest.approx([0.4, 0.4 * FADING])


async def test_a_cancelled_bind_is_forgotten(bench):
    """What comes of it later is learned from, and settles nothing."""
    await bench.ready()
    task = await bench.bind()
    order = bench.wires[0].orders()[0].number

    task.cancel()
    await bench.turn()
    bench.wires[0].say(Said.of(order, Attempt(Unreachable())))

    assert task.cancelled()
    assert bench.hub.workers()[0]["in_hand"] == 0


async def test_a_posted_bind_lands_without_a_task_of_its_own(bench):
    """What comes is handed on at once; where the worker is lost or kept it, that is."""
    await bench.ready()
    landed: list[Attempt | None] = []
    for _ in range(3):
        bench.hub.post(DEVICE, TOKEN, landed.append)
    await bench.turn()
    (first, third), (second,) = (wire.orders() for wire in bench.wires)

    bench.wires[0].say(Said.of(first.number, NAMELESS), Kept(third.number))
    bench.wires[1].lost("gone")

    assert second.devices == [DEVICE]
    assert [type(each and each.verdict) for each in landed] == [Accepted, type(None), NoAnswer]
    bench.wires[0].lost("gone too")
    bench.hub.post(DEVICE, TOKEN, landed.append)
    assert landed[-1] is bench.local.answer


async def test_what_workers_have_in_hand_is_handed_over_once_and_can_be_given_up(bench):
    """Each is awaited then; who gives one up doubts what the worker's connections said last."""
    await bench.ready()
    landed: list[Any] = []
    for _ in range(3):
        bench.hub.post(DEVICE, TOKEN, landed.append)
    await bench.turn()
    wire, other = bench.wires
    first, _ = wire.orders()
    wire.say(Said.of(first.number, NAMELESS))

    for _ in range(2):
        bench.hub.hand_over()
    told, *comes = landed
    tasks = [asyncio.create_task(come()) for come in comes]
    await bench.turn()
    other.say(Said.of(other.orders()[0].number, BOUND))
    await bench.turn()
    done, given_up = sorted(tasks, key=lambda task: not task.done())
    given_up.cancel()
    await bench.turn()

    assert bench.local.is_handed_over
    assert told.verdict == done.result().verdict == BOUND.verdict
    assert given_up.cancelled()
    assert bench.unasked == [told.connection]
    assert [state["in_hand"] for state in bench.hub.workers()] == [0, 0]


class Group:
    """Notes what it is told of binds that were sent together."""

    def __init__(self):
        self.heard = []

    def passed(self, places, attempts, *, is_ours):
        assert not is_ours
        self.heard += zip(places, attempts, strict=True)

    def landed(self, place, came):
        self.heard.append((place, came))


async def test_binds_are_handed_over_together_as_long_as_no_limit_is_known(bench):
    """Each worker gets no more than its share of the width."""
    await bench.ready()
    assert bench.hub.pool() is None
    bench.is_free = True
    devices = [Device("user", f"SN_{number}") for number in range(4)]
    groups = [Group(), Group(), Group()]
    takes = []
    for group in groups[:2]:
        takes.append(bench.hub.pool().takes(8))
        bench.hub.post_all(devices, TOKEN, group)
    takes.append(bench.hub.pool().takes(8))
    await bench.turn()
    (first,), (second,) = (wire.orders() for wire in bench.wires)
    bound = [(first.number + place, BOUND) for place in (3, 0)]
    bench.wires[0].say(Passed.of(bound[:1], is_ours=False), Kept(first.number + 1))
    bench.hub.post_all(devices[:1], TOKEN, groups[2])
    await bench.turn()
    (_, third) = bench.wires[0].orders()

    bench.wires[0].say(Passed.of([*bound[1:], (third.number, BOUND)], is_ours=False))
    bench.wires[1].lost("gone")

    assert takes == [4, 4, 0]
    assert first.devices == second.devices == devices
    mine = replace(BOUND, connection=1 << NUMBER_BITS | 1)
    assert groups[0].heard == [(3, mine), (1, None), (0, mine)]
    assert [(place, came.code) for place, came in groups[1].heard] == [(n, LOST) for n in range(4)]
    assert groups[2].heard == [(0, mine)]
    assert bench.local.learned[-2:] == [mine] * 2
    assert [state["in_hand"] for state in bench.hub.workers()] == [1, 0]


async def test_at_a_known_pace_those_that_are_due_soon_go_together(bench):
    """They leave over that time, and are taken back where the gate has closed meanwhile."""
    await bench.ready()
    bench.is_even = True
    devices = [Device("user", f"SN_{number}") for number in range(4)]
    assert bench.hub.pool().ahead_s() == AHEAD_S

    bench.hub.post_all(devices, TOKEN, Group())
    await bench.turn()
    (order,) = bench.wires[0].orders()
    throttled = Said.of(order.number, Attempt(Throttled(), http_status=429))
    bench.wires[0].say(throttled)
    before = [Revoke() in wire.told for wire in bench.wires]
    bench.is_even = False
    bench.wires[0].say(structs.replace(throttled, number=order.number + 1))
    after = [wire.told.count(Revoke()) for wire in bench.wires]
    bench.wires[0].say(structs.replace(throttled, number=order.number + 2))

    assert order.over_s == AHEAD_S
    assert (before, after) == ([False, False], [1, 1])
    assert [wire.told.count(Revoke()) for wire in bench.wires] == after
    assert bench.hub.pool() is None


async def test_what_comes_one_by_one_goes_to_each_in_turn(bench):
    """Also where what came before has ended: at a low pace each worker has its part."""
    await bench.ready()
    for _ in range(4):
        task = await bench.bind()
        wire = max(bench.wires, key=lambda each: each.orders()[-1].number if each.orders() else 0)
        wire.say(Said.of(wire.orders()[-1].number, BOUND))
        await task

    assert [len(wire.orders()) for wire in bench.wires] == [2, 2]


async def test_the_driver_sends_what_the_way_to_a_worker_would_spoil(bench):
    """As long as that is so; the workers stay, and send again after it."""
    await bench.ready()
    bench.slow = "slow"
    bench.hub.post(DEVICE, TOKEN, lambda _: None)
    attempt = await (await bench.bind())
    alone = [wire.orders() for wire in bench.wires]
    waits = [state["waits"] for state in bench.hub.workers()]
    bench.slow = ""
    await bench.bind()

    assert attempt == BOUND
    assert alone == [[], []]
    assert waits == ["slow", "slow"]
    assert len(bench.local.sent) == bench.hub.own_settled == 3
    assert sum(len(wire.orders()) for wire in bench.wires) == 1


async def test_the_rate_of_a_worker_is_that_of_the_last_second_and_at_its_end_of_all(bench):
    """What was throttled has not ended, and is no row of it."""
    bench.clock.advance(1.0)
    await bench.ready()
    wire = bench.wires[0]
    for verdict in (Accepted("id", ""), Refused(), Throttled(), Accepted("id", "")):
        bench.hub.post(DEVICE, TOKEN, lambda _: None)
        bench.hub.post(DEVICE, TOKEN, lambda _: None)
        await bench.turn()
        wire.say(Said.of(wire.orders()[-1].number, Attempt(verdict, http_status=200)))
    await bench.beats(1.25, *bench.wires)
    await bench.beats(1.0, *bench.wires)

    idle = bench.hub.workers()[0]
    wire.lost("gone")
    ended = bench.hub.workers()[0]

    assert (idle["settled"], idle["per_s"]) == (3, 0.0)
    assert (ended["settled"], ended["per_s"]) == (3, pytest.approx(3 / 2.25))


async def test_at_the_end_a_worker_that_has_not_begun_is_not_waited_for():
    """It is killed; one that can send ends by itself, and its rate is that of all its time."""
    made = Bench()
    async with made.hub:
        await made.turn()
        await made.proven()
        made.wires[0].say(Hello("1.0"))
        await made.turn()
        made.wires[0].say(Ready(), Beat(1))
        await made.turn()
        for number in range(6):
            await made.bind()
            made.wires[0].say(Said.of(made.wires[0].orders()[number].number, BOUND))
        await made.beats(4.0, made.wires[0])

    assert [wire.is_killed for wire in made.wires] == [False, True]
    assert all(wire.is_closed for wire in made.wires)
    assert [state["per_s"] for state in made.hub.workers()] == [1.5, 0.0]
    assert [state["settled"] for state in made.hub.workers()] == [6, 0]


class BrokenError(Exception):
    """An error of our own."""


def breaks(*_: object) -> None:
    """Raise it."""
    raise BrokenError


async def broken(made, where):
    """Run a hub in which an error of our own is met."""
    async with made.hub:
        await made.turn()
        if where == "told":
            made.hub._setup = breaks
        await made.ready()
        if where == "watched":
            made.hub._carried = breaks
            made.clock.advance(BEAT_S)
        made.hub.post(DEVICE, TOKEN, breaks)
        wire = made.wires[0]
        if where == "heard":
            wire.say(Said.of(wire.orders()[0].number, BOUND), Beat(2))
        elif where == "lost":
            wire.lost("gone")
        elif where == "learned":
            made.local.learn = lambda _: int("ours")
            wire.say(Said.of(wire.orders()[0].number, BOUND))
        await asyncio.wait_for(asyncio.Event().wait(), 5)


@pytest.mark.parametrize("where", ["heard", "lost", "watched", "told"])
async def test_an_error_of_our_own_ends_the_run(where):
    """What was being heard or told is not known to be, so whoever sends must not go on."""
    made = Bench()

    with pytest.raises(BrokenError):
        await broken(made, where)

    assert all(wire.is_closed for wire in made.wires)
    assert not made.local.is_open


async def test_an_error_of_our_own_is_not_the_workers():
    """Whatever its kind, no worker is lost for it; what is said later changes nothing more."""
    made = Bench()

    with pytest.raises(ValueError, match="ours"):
        await broken(made, "learned")
    made.wires[1].say(Said.of(1, BOUND))

    assert [state["lost"] for state in made.hub.workers()] == ["", ""]

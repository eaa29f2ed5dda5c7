"""What the time of a run went to: over the engine, a ledger, and a clock turned by hand."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta

import pytest

from bulkbind.app.run import new_session
from bulkbind.app.session.eta import Gauge, where_time_went
from bulkbind.app.session.listener import Listener
from bulkbind.app.session.session import new_pacer
from bulkbind.clock import iso
from bulkbind.engine import Parts, Pipeline, StopReason
from bulkbind.ledger import RunReader, reading
from bulkbind.model import (
    LiveFacts,
    NoAnswer,
    Refused,
    RunFacts,
    RunState,
    Throttled,
    Transient,
    Unreachable,
)
from bulkbind.pacing import Pacer
from bulkbind.report import as_text
from bulkbind.report.summary import time_text
from bulkbind.settings import ReadbackSettings, SendSettings, Settings
from tests.integration.test_engine import Bench, devices
from tests.support.fake_clock import FakeClock
from tests.support.fakes import LOST, MUTE, SILENT

ALL = "nearly all of it spent waiting"


@pytest.fixture
def bench(tmp_path):
    """Return a bench with a ledger file of its own."""
    return Bench(tmp_path / "ledger.db")


@pytest.mark.parametrize(
    ("plans", "cap", "spent"),
    [
        pytest.param([], None, {}, id="a good day"),
        pytest.param([], 5.0, {"paced_s": (5.5, 8.5)}, id="a pace"),
        pytest.param(
            [Throttled(retry_after_s=20.0)], None, {"cooled_s": (19.9, 21.0)}, id="refused at first"
        ),
        pytest.param(
            [None] * 9 + [Throttled(limit=5, window_s=60.0)] * 3, None,
            {"cooled_s": (1.0, 400.0), "paced_s": (100.0, 900.0)}, id="5/min",
        ),
        pytest.param(
            [None, *[Unreachable()] * 8], None, {"away_s": (3.0, 120.0)}, id="the endpoint away"
        ),
        pytest.param(
            [None] * 9 + [MUTE], None,
            {"settling_s": (38.0, 41.0)}, id="silence",
        ),
        pytest.param([None, *[NoAnswer()] * 3], None, {"settling_s": (9.0, 11.5)}, id="doubt"),
        pytest.param(
            [None] * 36 + [Transient(retry_after_s=9.0)] * 4, None,
            {"backing_off_s": (8.5, 9.5)}, id="trouble at the end",
        ),
    ],
)  # fmt: skip
async def test_every_second_of_a_run_has_its_cause(bench, plans, cap, spent):
    """The causes add up to the time that has passed, and the one that was ordered has its part."""
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, cap)
    bench.server.planned.extend(plans)

    state = await bench.ran(devices(40))
    facts = bench.pacer.spent()
    seconds = {fact.name: item for fact, wait, item in facts.waits() if wait.uses}

    assert state is RunState.DONE
    assert sum(seconds.values()) == pytest.approx(facts.sending_s)
    assert facts.sending_s == pytest.approx(bench.clock.monotonic(), abs=0.01)
    for name, (least_s, most_s) in spent.items():
        assert least_s <= seconds[name] <= most_s, seconds
    others = sum(item for name, item in seconds.items() if name not in {*spent, "in_flight_s"})
    assert others <= 0.02 * facts.sending_s + 0.1, seconds
    if facts.cooled_s:
        assert "no limit met" not in bench.pacer.source()
        assert "cooled_s 0" not in time_text(facts)


@pytest.mark.parametrize(
    ("plans", "words"),
    [
        ([Throttled(limit=5, window_s=60.0)] * 3, ALL + ": the gateway allows 5/min"),
        (
            [Throttled(retry_after_s=40.0)] * 2,
            ALL + ": the gateway refused 2 requests, and shows no limit",
        ),
        ([Unreachable()] * 4, ALL + ": https://x was away: connection refused"),
        (
            [Transient(retry_after_s=9.0)] * 4,
            "nearly all of it spent pausing before retries: the server answers HTTP 200 (Transient",
        ),
        ([None] * 9 + [SILENT], ALL + " for answers that were long overdue"),
        ([None, *[NoAnswer()] * 3], ALL + " until lists can settle doubt"),
    ],
    ids=["told", "not told", "away", "errors", "silence", "doubt"],
)  # fmt: skip
async def test_a_stop_says_what_most_of_the_time_went_to(bench, plans, words):
    """In one clause, with the limit where it is known."""
    if SILENT in plans:  # without the server's time nothing is looked up sooner
        bench.server.server_time = lambda: None
    bench.readback = ReadbackSettings(readback_settle=20.0)
    bench.server.planned.extend(plans)

    await bench.ran(devices(12))

    went = where_time_went(bench.pacer, "https://x", "connection refused", has_answered=True)
    assert words in went


async def test_a_row_without_an_answer_at_the_end_says_why_the_run_ended(bench):
    """It was not cut off: the deadline had come, and the grace after it had run out."""
    bench.server.server_time = lambda: None  # so that nothing is looked up before its time-out
    bench.send = SendSettings(concurrency=4, grace=1.0)
    bench.server.planned.extend([None, MUTE])

    async def deadline():
        while not bench.server.binds:
            await bench.clock.sleep(0.1)
        await bench.clock.sleep(2.0)
        bench.stop.set(StopReason("the deadline of 2s has come; most of it spent sending"))

    stopping = asyncio.create_task(deadline())
    await bench.ran(devices(2))
    await stopping

    (row,) = [row for row in bench.rows() if row.status == "in_doubt"]
    assert row.detail == "no answer had come when the run ended: the deadline of 2s has come"


async def test_a_run_that_is_ending_says_why_and_for_what_it_waits(bench):
    """With the end of the grace, and without a time left that a rate would tell."""
    bench.server.server_time = lambda: None
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, 10.0)
    bench.send = SendSettings(concurrency=4, grace=8.0)
    bench.server.planned.extend([None, MUTE, MUTE, LOST, Refused()])
    gauge = Gauge(bench.pacer, bench.clock, stop=bench.stop)
    seen: list[tuple[str, bool]] = [(gauge.stopping(), gauge.is_blocked())]

    async def deadline():
        while len(bench.server.binds) < 6:
            await bench.clock.sleep(0.1)
        bench.stop.set(StopReason("the deadline of 2s has come; most of it spent sending"))
        await bench.clock.sleep(1.0)
        seen.append((gauge.stopping(), gauge.is_blocked()))
        seen.append((f"{bench.clock.utc_now().astimezone() + timedelta(seconds=7):%H:%M}", True))

    stopping = asyncio.create_task(deadline())
    await bench.ran(devices(50))
    await stopping

    (before, said, (until, _)) = seen
    assert before == ("", False)
    words = "the deadline of 2s has come; waits for 2 answers, until "
    assert said[0].startswith(words + until), said
    assert said[1]


async def test_a_list_is_waited_for_as_long_as_lists_are(bench):
    """It may take longer than a bind: what is told is not over before."""
    gauge = Gauge(bench.pacer, bench.clock, patience_s=lambda: 15.0, list_patience_s=lambda: 60.0)
    permit = await bench.pacer.permit("u")
    bench.pacer.time.asks_list(permit)
    gives_up_at = bench.clock.utc_now().astimezone() + timedelta(seconds=60)
    await bench.clock.sleep(20.0)

    assert gauge.waits().endswith(f"given up from {gives_up_at:%H:%M:%S} on")
    bench.pacer.forget(permit)
    assert bench.pacer.time.lists_under_way == 0


async def test_a_silence_in_mid_run_is_silence_whatever_is_sent_to_see(bench):
    """One request a second goes out all the while, and none brings an answer; nor do time-outs."""
    bench.pacer = bench.server.pacer = Pacer(bench.clock, bench.stop, 30.0)
    bench.server.server_time = lambda: None
    bench.server.planned.extend([None] * 90 + [MUTE] * 60)
    bench.send = SendSettings(concurrency=32, grace=1.0)
    gauge = Gauge(bench.pacer, bench.clock, patience_s=lambda: 15.0)
    said: list[str] = []

    async def watch():
        while not bench.server.binds:
            await bench.clock.sleep(0.1)
        for _ in range(12):
            await bench.clock.sleep(1.0)
            said.append(gauge.waits())
        bench.stop.set(StopReason("enough"))

    watching = asyncio.create_task(watch())
    await bench.ran(devices(400, users=400))
    await watching

    facts = bench.pacer.spent()
    assert all("without an answer for" in words for words in said[5:]), said
    assert facts.in_flight_s + facts.paced_s <= 3.0 + 1.5
    assert facts.silent_s >= 7.0


async def test_the_display_says_what_the_server_answers_instead(bench):
    """And when it is tried again; the limit is not called unknown for an outage that is over."""
    answer = bench.server._attempt

    def attempt(verdict, sent_at):
        made = answer(verdict, sent_at)
        if isinstance(verdict, Transient):
            made.http_status, made.code, made.message = 500, "13000001", "internal error"
        return made

    bench.server._attempt = attempt
    bench.server.planned.extend([Unreachable()] + [Transient(retry_after_s=9.0)] * 2)
    gauge = Gauge(bench.pacer, bench.clock)
    seen: dict[str, str] = {}

    async def watch():
        while True:
            seen.setdefault(gauge.waits(), gauge.source())
            await bench.clock.sleep(0.5)

    watching = asyncio.create_task(watch())
    await bench.ran(devices(8))
    watching.cancel()

    words = "the server answers HTTP 500 (13000001 internal error); 1 device tried again at "
    sources = [source for waits, source in seen.items() if waits.startswith(words)]
    assert sources
    assert set(sources) == {"no limit met"}


async def test_answers_too_many_are_listened_for_and_no_list_is(bench):
    """A run whose devices are all refused reads none: nothing of its time is called doubt."""
    bench.server.planned.extend([Refused()] * 3)
    answer = bench.server._attempt

    def attempt(verdict, sent_at):
        made = answer(verdict, sent_at)
        made.connection = 1
        return made

    bench.server._attempt = attempt
    await bench.ran(devices(3))

    facts = bench.pacer.spent()
    assert not bench.server.lists
    assert facts.settling_s == 0.0
    assert facts.listening_s == pytest.approx(0.5, abs=0.1)


async def test_what_was_never_reached_is_named(bench):
    """Whatever was waited for, an endpoint without any answer is the reason."""
    went = where_time_went(bench.pacer, "https://x", "connection refused", has_answered=False)

    assert went == "https://x was never reached: connection refused"


async def test_a_server_that_never_answers_is_named_and_its_silence_is_no_sending(bench):
    """From the first request on, though no answer has told yet how long one takes."""
    bench.server.planned.extend([SILENT] * 3)
    told: list[tuple[str, str, str]] = []
    gauge = Gauge(bench.pacer, bench.clock, patience_s=lambda: 30.0)

    async def watch():
        while not told:
            await bench.clock.sleep(1.0)
            if bench.pacer.spent().silent_s >= 10.0:
                went = where_time_went(bench.pacer, "https://x", "", has_answered=False)
                told.append((went, bench.pacer.source(), gauge.waits()))

    watching = asyncio.create_task(watch())
    await bench.ran(devices(3))
    await watching

    ((went, source, waits),) = told
    assert went == "https://x never answered"
    assert source == "no limit shown, as no answer came"
    assert re.match(r"[123] requests? without an answer for 1\d s, given up from ", waits)


async def test_it_ends_no_sooner_than_the_user_who_has_most_left(bench):
    """Where each user has a limit of its own; without a known pace nobody can say."""
    gauge = Gauge(bench.pacer, bench.clock, most_left=lambda: 30)
    assert gauge.waiting().left_s == 0.0
    bench.pacer.cap(5.0)

    assert gauge.waiting().left_s == pytest.approx(6.0)


async def test_no_end_is_known_before_a_limit_is(bench):
    """While the operator pauses it, the endpoint is away, or a gateway refuses that shows none."""
    gauge = Gauge(bench.pacer, bench.clock)
    seen = [gauge.is_blocked()]
    bench.pacer.is_paused = True
    seen.append(gauge.is_blocked())
    bench.pacer.is_paused = False
    for verdict in (Unreachable(), Refused()):
        bench.pacer.report(await bench.pacer.permit(), verdict)
        seen.append(gauge.is_blocked())
    bench.pacer.report(await bench.pacer.permit(), Throttled())
    seen.append(gauge.is_blocked())
    assert (gauge.per_s(), gauge.known_at) == (None, "")
    bench.pacer.report(await bench.pacer.permit(), Throttled(limit=5, window_s=60.0))
    seen.append(gauge.is_blocked())
    assert gauge.per_s() == pytest.approx(5 / 60, rel=0.02)

    assert seen == [False, True, True, False, True, False]
    since = gauge.known_at
    opens_at = bench.clock.utc_now() + timedelta(seconds=bench.pacer.closed_for_s())
    assert since == iso(opens_at)
    for limit, is_another in ((4.5, False), (2, True)):
        await bench.clock.sleep(30.0)
        bench.pacer.cap(limit / 60)
        assert gauge.per_s()
        assert (gauge.known_at != since) is is_another


async def test_the_display_says_what_is_waited_for(bench):
    """Silence with its age, doubt and trouble with the moment at which they go on."""
    seen: dict[str, float] = {}
    gauge = Gauge(bench.pacer, bench.clock, patience_s=lambda: 30.0)
    bench.server.server_time = lambda: None  # so that nothing is looked up before its time-out
    bench.send = SendSettings(concurrency=4, backoff_base=20.0, backoff_cap=20.0)
    bench.server.planned.extend([None, MUTE, LOST, Transient(retry_after_s=14.0)])

    async def watch():
        while True:
            seen.setdefault(gauge.waits(), gauge.waiting().left_s)
            await bench.clock.sleep(0.5)

    watching = asyncio.create_task(watch())
    await bench.ran(devices(8))
    watching.cancel()

    moment = r"\d\d:\d\d:\d\d"
    first, *_, last = [words for words in seen if words]
    assert re.fullmatch(f"1 request without an answer for 1 s, given up from {moment} on", first)
    assert seen[first] <= 20.0  # that of trouble: any list may show what is silent
    assert re.fullmatch(f"lists are read for 1 device, by {moment}", last)
    most_s = max(left_s for words, left_s in seen.items() if words.startswith("lists"))
    assert 9.0 <= most_s <= 10.5  # two lists have to lack it


async def test_the_display_says_until_when_a_silent_request_is_waited_for(bench):
    """While others are sent: the run may last that much longer than its pace alone says."""
    gauge = Gauge(bench.pacer, bench.clock, patience_s=lambda: 30.0)
    bench.pacer.cap(1.0)
    bench.server.planned.extend([None, MUTE])
    seen: dict[str, datetime] = {}

    async def watch():
        while True:
            seen.setdefault(gauge.trouble(), bench.clock.utc_now().astimezone())
            await bench.clock.sleep(0.5)

    watching = asyncio.create_task(watch())
    await bench.ran(devices(12))
    watching.cancel()

    silent = "1 request without an answer for up to 5 s, waited for until "
    words, at = next((words, at) for words, at in seen.items() if words.startswith(silent))
    later = [at + timedelta(seconds=30 - 5 + about) for about in (-1, 0, 1)]
    assert words.removeprefix(silent) in {f"{moment:%H:%M:%S}" for moment in later}


async def test_what_a_killed_process_spent_is_kept(bench):
    """It is shown until the run is resumed, and added to what the next process spends."""
    live = LiveFacts({"run": 1, "began_at": "2026-11-23T12:00:00.000Z"})
    live.spent = RunFacts({"requests": 4, "sending_s": 3.0, "away_s": 3.0})
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(3))
        await ledger.start(run)
        await ledger.put_meta(LiveFacts.key, live.as_json())
    with reading(bench.path) as db:
        told = RunReader(db, run).summary()
    async with bench.ledger() as ledger:
        await ledger.start(run)
        await ledger.finish(run, "enough", RunFacts({"requests": 1, "away_s": 1.0}))
    with reading(bench.path) as db:
        after = RunReader(db, run).summary().facts
        assert not RunReader(db, run).live()

    assert told.facts.requests == 4
    assert "3.0 s waiting for the endpoint, which was away" in as_text(told)
    assert (after.requests, after.away_s, after.sending_s) == (5, 4.0, 3.0)


async def test_what_is_sent_again_after_a_time_out_is_counted(bench):
    """Only what two lists have cleared, and no reset: for those a longer wait would not help."""
    answer = bench.server._attempt

    def attempt(verdict, sent_at):
        made = answer(verdict, sent_at)
        if isinstance(verdict, NoAnswer):
            made.code = "timeout" if bench.server.binds["user_0", "SN1"] == 0 else "reset"
        return made

    bench.server._attempt = attempt
    bench.server.planned.extend([None, NoAnswer(), LOST, None, NoAnswer()])
    async with bench.ledger() as ledger:
        run = await bench.staged(ledger, devices(6))
        await ledger.start(run)
        parts = Parts(bench.server, ledger, bench.pacer, bench.stop, bench.clock)
        pipeline = Pipeline(parts, run, bench.send, bench.readback)
        await pipeline.run()

    assert pipeline.again >= 1
    assert pipeline.again <= sum(bench.server.binds.values())


def test_the_time_of_a_question_is_nobodys(tmp_path):
    """What is asked about credentials is asked before the time of the requests begins."""
    clock = FakeClock()

    class Slow(Listener):
        def before_credentials(self):
            clock.advance(78.0)

    session = new_session(Settings(ledger=tmp_path / "l.db"), Slow(), None, clock)

    assert new_pacer(session).time.total_s() == 0.0
    assert clock.monotonic() == 78.0
    new_pacer(session, is_idle=True)
    assert clock.monotonic() == 78.0

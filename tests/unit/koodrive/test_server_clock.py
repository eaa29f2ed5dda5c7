from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, strategies as st

from bulkbind.koodrive.server_clock import SAFETY_S, ServerClock
from tests.support.fake_clock import START, FakeClock

MINUTE, DAY = 60.0, 86_400.0
EPSILON_S = 1e-5
"""Seconds since 1970 as a float are 0.24 µs apart."""
OFFSETS = {
    "20 min behind": -20 * MINUTE,
    "1 s behind": -1.0,
    "right": 0.0,
    "1 s ahead": 1.0,
    "20 min ahead": 20 * MINUTE,
    "3 days ahead": 3 * DAY,
}


class Server:
    """A server whose clock runs true, beside a local clock that is *local_off_s* ahead of it."""

    def __init__(self, local_off_s: float) -> None:
        self.local = FakeClock(START + timedelta(seconds=local_off_s))
        self.began = START

    def now(self) -> float:
        return self.began.timestamp() + self.local.monotonic()

    def date(self) -> str:
        """Return its Date header: whole seconds, rounded down."""
        whole = datetime.fromtimestamp(int(self.now()), UTC)
        return format_datetime(whole, usegmt=True)

    def set_clock(self, by_s: float) -> None:
        self.began += timedelta(seconds=by_s)

    def exchange(self, estimate: ServerClock, there_s: float = 0.05, back_s: float = 0.05) -> None:
        """One request and its answer."""
        sent_s = self.local.monotonic()
        self.local.advance(there_s)
        date = self.date()
        self.local.advance(back_s)
        estimate.observe(date, sent_s, self.local.monotonic())


@pytest.mark.parametrize("off_s", OFFSETS.values(), ids=OFFSETS.keys())
def test_after_one_answer_the_estimate_is_close_and_not_ahead(off_s):
    """However wrong the local clock is, one answer brings us to [server - 1.1 s, server]."""
    server = Server(off_s)
    estimate = ServerClock(server.local)

    server.exchange(estimate, there_s=0.05, back_s=0.05)

    assert estimate.measured
    assert server.now() - 1.1 <= estimate.now() <= server.now() + EPSILON_S
    assert estimate.skew_s() == pytest.approx(-off_s, abs=1.11)


LATENCIES = st.floats(0, 5, allow_nan=False)


@given(
    st.floats(-3 * DAY, 3 * DAY),
    st.floats(0, 1, exclude_max=True),
    st.lists(st.tuples(LATENCIES, LATENCIES, LATENCIES), min_size=1, max_size=20),
)
def test_never_ahead_of_the_server(off_s, fraction_s, exchanges):
    """Any offset and latencies: never ahead, nor behind by over 1 s and the quickest way back."""
    server = Server(off_s)
    server.set_clock(fraction_s)
    estimate = ServerClock(server.local)

    for pause_s, there_s, back_s in exchanges:
        server.local.advance(pause_s)
        server.exchange(estimate, there_s, back_s)

        assert estimate.now() <= server.now() + EPSILON_S
    shortest_s = min(back_s for _, _, back_s in exchanges)
    assert estimate.now() >= server.now() - 1 - shortest_s - EPSILON_S


def test_answers_sharpen_the_estimate():
    """Answers in different parts of a second bring the estimate closer than one second."""
    server = Server(20 * MINUTE)
    server.set_clock(0.5)
    estimate = ServerClock(server.local)

    for _ in range(30):
        server.exchange(estimate, there_s=0.01, back_s=0.01)
        server.local.advance(0.11)

    assert server.now() - 0.15 <= estimate.now() <= server.now() + EPSILON_S


@pytest.mark.parametrize(
    "by_s", [-3 * DAY, -20 * MINUTE, -5.0, 20 * MINUTE], ids=["-3 d", "-20 min", "-5 s", "+20 min"]
)
def test_a_server_clock_that_is_set_is_followed(by_s):
    """The second answer after the server's clock was set puts the estimate right, not the first."""
    server = Server(-1.0)
    estimate = ServerClock(server.local)
    server.exchange(estimate)
    server.local.advance(10)
    before = estimate.skew_s()

    server.set_clock(by_s)
    server.exchange(estimate)
    after_one = estimate.skew_s()
    server.exchange(estimate)

    assert after_one == before
    assert server.now() - 1.1 <= estimate.now() <= server.now() + EPSILON_S


HOUR = 3600.0
LIES = {
    "one": ([0, HOUR, 0, 0], 0),
    "one, at the end": ([0, 0, -HOUR], 0),
    "two apart": ([0, HOUR, 0, HOUR, 0], 0),
    "two that differ": ([0, HOUR, -HOUR, 0], 0),
    "three that differ": ([0, HOUR, -HOUR, 2 * HOUR, 0], 0),
    "two alike are the truth": ([0, HOUR, HOUR], HOUR),
    "two alike after one that differs": ([0, -HOUR, HOUR, HOUR], HOUR),
    "there and back": ([0, HOUR, HOUR, 0, 0], 0),
    "a lie alone in the second of a truth": ([0, 0, HOUR, 0, 0, HOUR, 0], 0),
    "the first of all counts": ([HOUR], HOUR),
    "the first of all is given up": ([HOUR, 0, 0], 0),
}


@pytest.mark.parametrize("pause_s", [0.01, 3.0], ids=["one second", "seconds"])
@pytest.mark.parametrize(("told", "believed"), LIES.values(), ids=LIES.keys())
def test_a_date_that_contradicts_is_believed_once_the_next_one_confirms_it(told, believed, pause_s):
    """*told*: how far the Date of each answer lies from the truth; *believed*: the estimate."""
    server = Server(0.0)
    estimate = ServerClock(server.local)

    for off_s in told:
        server.local.advance(pause_s)
        server.set_clock(off_s)
        server.exchange(estimate, 0.01, 0.01)
        server.set_clock(-off_s)

    assert estimate.now() - server.now() == pytest.approx(believed, abs=1.1)


def test_a_node_whose_clock_is_off_moves_nothing():
    """Every third answer comes from a node that is an hour ahead: the estimate stays."""
    server = Server(0.0)
    estimate = ServerClock(server.local)

    for number in range(60):
        off_s = HOUR if number % 3 == 2 else 0.0
        server.local.advance(0.1)
        server.set_clock(off_s)
        server.exchange(estimate)
        server.set_clock(-off_s)

        assert server.now() - 1.1 <= estimate.now() <= server.now() + EPSILON_S


def test_a_small_step_back_stays_within_the_safety_margin():
    """A step back too small to be seen keeps what we send (1 s less) out of the future."""
    server = Server(0.0)
    server.set_clock(0.99)
    estimate = ServerClock(server.local)
    server.exchange(estimate)

    server.set_clock(-0.9)
    server.exchange(estimate)

    assert estimate.now() - SAFETY_S <= server.now() + EPSILON_S


@pytest.mark.parametrize("date", [None, "", "garbage", "2026-11-23T12:00:00Z", "\x00", "Mon"])
def test_garbage_dates_are_ignored(date):
    """What is no date neither moves the estimate nor counts as a measurement."""
    server = Server(20 * MINUTE)
    estimate = ServerClock(server.local)
    before = estimate.now()

    estimate.observe(date, 0.0, 0.0)

    assert estimate.now() == before
    assert not estimate.measured
    assert not estimate.known


def test_garbage_after_a_measurement_changes_nothing():
    """A measurement outlives an answer with a broken Date."""
    server = Server(20 * MINUTE)
    estimate = ServerClock(server.local)
    server.exchange(estimate)
    before = estimate.now()

    estimate.observe("garbage", server.local.monotonic(), server.local.monotonic())

    assert estimate.now() == before
    assert estimate.measured


def test_before_any_answer_the_local_clock_stands_in():
    """Without an answer or a memory, nothing is known, and the local clock is taken."""
    clock = FakeClock()

    estimate = ServerClock(clock)

    assert estimate.now() == START.timestamp()
    assert (estimate.known, estimate.measured) == (False, False)


def test_a_remembered_skew_is_used_until_an_answer_tells():
    """A skew from an earlier run counts as known; the first answer replaces it, up or down."""
    server = Server(20 * MINUTE)
    estimate = ServerClock(server.local, skew_s=-20 * MINUTE + 30)

    before = estimate.now() - server.now()
    server.exchange(estimate)

    assert estimate.known
    assert before == pytest.approx(30)
    assert server.now() - 1.1 <= estimate.now() <= server.now() + EPSILON_S


def test_a_step_of_the_local_wall_clock_moves_nothing():
    """The estimate hangs on the monotonic clock."""
    server = Server(0.0)
    estimate = ServerClock(server.local)
    server.exchange(estimate)

    server.local._began += timedelta(hours=5)

    assert server.now() - 1.1 <= estimate.now() <= server.now() + EPSILON_S

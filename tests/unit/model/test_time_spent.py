"""What the time goes to: each moment to one cause, and none to nobody."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bulkbind.model import RunFacts, TimeSpent, TimeUse, Waits
from bulkbind.model.time_spent import last_wait_s


class Watch:
    """A clock that is turned by hand, and the account of its time."""

    def __init__(self):
        self.now = 0.0
        self.time = TimeSpent(lambda: self.now)
        self.time.silent_after_s = lambda: 4.0

    def spent(self):
        """Return the seconds of each cause that has any."""
        seconds = {use.name: self.time.seconds(use) for use in TimeUse}
        return {name: pytest.approx(s) for name, s in seconds.items() if s}


@pytest.fixture
def watch():
    """Return a clock and its account."""
    return Watch()


def test_of_all_that_is_waited_for_the_first_cause_counts(watch):
    """Who may not send waits for the gateway, whatever else is waited for meanwhile."""
    with watch.time.waiting(TimeUse.SETTLING):
        watch.now = 2.0
        with watch.time.waiting(TimeUse.PACED), watch.time.waiting(TimeUse.LEDGER):
            watch.now = 5.0
        watch.now = 6.0
    watch.now = 6.5

    assert watch.spent() == {"SETTLING": 3.0, "PACED": 3.0, "AT_WORK": 0.5}


def test_only_silent_requests_are_silence(watch):
    """Once no answer has come for long, until one comes, whatever is sent meanwhile to see."""
    watch.time.sent(0)
    watch.time.ended(0)
    watch.time.sent(1)
    watch.now = 3.0
    watch.time.sent(2)
    watch.now = 10.0
    assert watch.time.now() is TimeUse.SILENT
    assert watch.time.silent() == (2, 10.0, 7.0)
    watch.time.sent(3)
    watch.now = 11.0
    assert watch.time.now() is TimeUse.SILENT
    watch.time.ended(3)
    watch.now = 12.0
    watch.time.sent(4)
    assert watch.time.now() is TimeUse.SENDING
    watch.now = 13.0
    watch.time.ended(4)
    watch.now = 14.0
    for request in (1, 2):
        watch.time.ended(request, is_answered=False)
    watch.now = 14.5

    assert watch.spent() == {"SENDING": 4.0 + 1.0, "SILENT": 7.0 + 1.0 + 1.0, "AT_WORK": 0.5}


@pytest.mark.parametrize(("late_s", "jump_s"), [(1.5, 0.0), (18.0, 18.0)])
def test_a_jump_is_no_time_of_what_was_waited_for(watch, late_s, jump_s):
    """Whoever looks each second looks much too late: this machine was asleep, not the pace slow."""
    with watch.time.waiting(TimeUse.PACED):
        watch.now = 1.0
        watch.time.look(1.0)
        watch.now += 1.0 + late_s
    watch.time.look(1.0)

    assert watch.time.total_s() == pytest.approx(2.0 + late_s)
    assert watch.time.seconds(TimeUse.PACED) == pytest.approx(2.0 + late_s - jump_s)
    assert watch.time.seconds(TimeUse.AT_WORK) == pytest.approx(jump_s)


def test_what_is_given_up_does_not_end_a_silence(watch):
    """Requests sent one a second to see, and time-outs, are no answers; a quick reset says much."""
    for request in range(20):
        watch.time.sent(request)
        watch.now += 1.0
        if request >= 8:
            watch.time.ended(request - 8, is_answered=False)
    assert watch.spent() == {"SENDING": 4.0, "SILENT": 16.0}
    watch.time.sent(20)
    watch.now += 1.0
    watch.time.ended(20, is_answered=False)
    watch.time.sent(21)
    watch.now += 1.0

    assert watch.spent() == {"SENDING": 4.0 + 1.0, "SILENT": 16.0 + 1.0}


def test_a_server_that_has_never_answered_is_silent_whatever_else_is_sent(watch):
    """From the first request on; once one has been answered, the next that leaves counts."""
    watch.time.silent_after_s = lambda: 2.0
    for request in range(5):
        watch.time.sent(request)
        watch.now += 1.5
    assert watch.time.seconds(TimeUse.SENDING) == 2.0
    watch.time.ended(0)
    watch.time.sent(9)
    watch.now += 1.0
    assert watch.time.seconds(TimeUse.SENDING) == 3.0
    assert watch.time.seconds(TimeUse.SILENT) == 5.5


def test_what_silence_is_is_not_asked_for_each_request(watch):
    """Where answers come quickly, it costs a request nothing; later it is asked."""
    asked = 0

    def silent_after_s():
        nonlocal asked
        asked += 1
        return 4.0

    watch.time.silent_after_s = silent_after_s
    for request in range(1_000):
        watch.time.sent(request)
        watch.now += 0.001
        if request >= 10:
            watch.time.ended(request - 10)
    assert asked < 20
    watch.now += 1.0
    watch.time.sent(2_000)
    watch.time.ended(995)

    assert asked >= 1
    assert watch.spent() == {"SENDING": 2.0}


def test_silence_is_found_without_anybody_looking(watch):
    """Nothing happens between sending and the time-out, and both parts are told apart."""
    watch.time.sent(1)
    watch.now = 15.0
    watch.time.ended(1)

    assert watch.spent() == {"SENDING": 4.0, "SILENT": 11.0}


def test_a_wait_may_turn_out_to_be_another_one(watch):
    """What waits for its slot when a 429 closes the gate waits for the gateway from then on."""
    with watch.time.waiting(TimeUse.PACED, 12.0) as hold:
        watch.now = 4.0
        assert watch.time.waits(TimeUse.PACED) == Waits(1, 8.0)
        hold.turn(TimeUse.CLOSED)
        watch.now = 12.0
    hold.turn(TimeUse.AWAY)
    hold.end()
    watch.now = 13.0

    assert watch.spent() == {"PACED": 4.0, "CLOSED": 8.0, "AT_WORK": 1.0}
    assert watch.time.waits(TimeUse.CLOSED) == Waits()


EVENTS = st.lists(
    st.tuples(
        st.floats(0.0, 10.0),
        st.one_of(
            st.tuples(st.just("wait"), st.sampled_from(TimeUse)),
            st.tuples(st.sampled_from(["end", "sent", "ended", "look"]), st.integers(0, 5)),
        ),
    ),
    max_size=60,
)


def after(events, *, is_looked_at=False):
    """Return what has become of the time; *is_looked_at*: somebody asks after each event."""
    watch, holds = Watch(), []
    for passed, (event, what) in events:
        watch.now += passed
        match event:
            case "wait":
                holds.append(watch.time.waiting(what).__enter__())
            case "end" if holds:
                holds.pop(what % len(holds)).end()
            case "sent":
                watch.time.sent(what)
            case "ended":
                watch.time.ended(what)
            case _:
                watch.time.now()
        if is_looked_at:
            watch.time.total_s()
    return watch


@given(EVENTS)
def test_the_causes_add_up_to_the_time(events):
    """Whatever is waited for in whatever order, no moment counts twice, and none is lost."""
    watch = after(events)
    facts = RunFacts()
    facts.spend(watch.time)

    assert watch.time.total_s() == pytest.approx(watch.now)
    assert facts.sending_s == pytest.approx(watch.now, abs=0.01)
    assert sum(seconds for _, seconds in facts.account()) == pytest.approx(
        facts.sending_s, abs=0.02
    )
    assert {use for _, wait, _ in facts.waits() for use in wait.uses} == set(TimeUse)


@given(EVENTS)
def test_each_moment_has_its_cause_whoever_looks(events):
    """What goes on is attributed later, and as it would have been at once."""
    assert after(events).spent() == after(events, is_looked_at=True).spent()


@pytest.mark.parametrize(
    ("kinds", "last_s"),
    [
        pytest.param([], 0.0, id="nothing waits"),
        pytest.param([(0.0, [10.0])], 0.0, id="none has"),
        pytest.param([(3.0, [])], 0.0, id="nobody knows how long"),
        pytest.param([(0.1, [10.0])], 3.7, id="one in its time"),
        pytest.param([(0.2, [10.0])], 5.7, id="two"),
        pytest.param([(1.0, [10.0])], 9.0, id="ten"),
        pytest.param([(100.0, [10.0])], 9.99, id="a thousand"),
        pytest.param([(0.1, [10.0, 10.0])], 3.7, id="a sample"),
        pytest.param([(0.2, [10.0, 0.0])], 3.7, id="every other takes no time"),
        pytest.param([(0.05, [10.0]), (0.05, [10.0])], 3.7, id="two kinds"),
        pytest.param([(100.0, [10.0]), (1.0, [0.1])], 9.99, id="the longer one counts"),
    ],
)
def test_the_more_rows_wait_the_longer_does_the_last(kinds, last_s):
    """One in ten seconds may have been the last one; of a thousand, the last waits its ten."""
    assert last_wait_s(*kinds) == pytest.approx(last_s, abs=0.3)


def test_the_last_wait_is_expected_to_be_like_those_before_it(watch):
    """Waits that are over count as well, doubt that lists lacked, and requests that fell silent."""
    with watch.time.waiting(TimeUse.PACED, 50.0), watch.time.waiting(TimeUse.SETTLING):
        watch.now = 10.0
    assert watch.time.last_wait_s(30.0) == 0.0
    with watch.time.waiting(TimeUse.BACKING_OFF, 10.0):
        watch.now = 20.0
    assert watch.time.last_wait_s(30.0) == pytest.approx(last_wait_s((0.05, [10.0])))
    watch.time.sent(1)
    watch.now = 40.0
    watch.time.silenced += 1
    for took_s in (0.0, 10.0):
        watch.time.looked_up(took_s)
    expected = last_wait_s((0.025, [10.0]), (0.05, [0.0, 10.0]), (0.05, [30.0]))
    assert watch.time.last_wait_s(30.0) == pytest.approx(expected)

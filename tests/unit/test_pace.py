from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from bulkbind.engine import pace
from bulkbind.model import Throttled


def test_without_a_limit_nobody_waits():
    """Before the first 429 and without a cap, requests leave at once."""
    state = pace.permitted(pace.begin(10.0, None), 10.0)

    assert state.next_at <= 10.0


def test_a_cap_spaces_requests():
    """At 10/s, a steady sender is spaced a tenth of a second."""
    state = pace.begin(0.0, 10.0)
    moments = []
    for _ in range(5):
        moments.append(state.next_at)
        state = pace.permitted(state, state.next_at)

    assert moments == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_a_late_timer_catches_up_two_slots_at_most():
    """After a long pause no burst follows: two slots are made up for."""
    state = pace.permitted(pace.begin(0.0, 10.0), 0.0)
    at_once = 0
    while state.next_at <= 60.0:
        state = pace.permitted(state, 60.0)
        at_once += 1

    assert at_once == 3


@pytest.mark.parametrize(
    ("told", "per_s"),
    [
        (Throttled(limit=60, window_s=1), 0.98 * 60),
        (Throttled(limit=600, window_s=60), 0.98 * 10),
        (Throttled(limit=1, window_s=3600), pace.SLOWEST_PER_S),
    ],
    ids=["60/s", "600/min", "slower than the slowest"],
)
def test_a_told_limit_is_the_pace(told, per_s):
    """Limit and window of the 429 text are followed, a little below."""
    state = pace.throttled(pace.begin(0.0, None), 1.0, 0, told, 0)

    assert state.per_s == pytest.approx(per_s)
    assert state.is_told


def test_a_told_pace_does_not_climb():
    """What the gateway told holds until it tells otherwise."""
    state = pace.throttled(pace.begin(0.0, None), 1.0, 0, Throttled(limit=60, window_s=1), 0)
    for _ in range(1000):
        state = pace.answered(state, state.epoch)

    assert state.per_s == pytest.approx(58.8)


def test_an_untold_limit_falls_at_once_and_climbs_slowly():
    """Without a word from the gateway, the pace falls below what got through, then climbs."""
    state = pace.begin(0.0, None)
    low = pace.throttled(state, 2.0, 0, Throttled(), 200)
    high = low
    for _ in range(100):
        high = pace.answered(high, high.epoch)

    assert low.per_s == pytest.approx(80.0)
    assert high.per_s == pytest.approx(85.0)


def test_retry_after_says_how_long_the_gate_is_closed():
    """The server's own word beats every formula."""
    state = pace.throttled(pace.begin(0.0, None), 5.0, 0, Throttled(retry_after_s=17.0), 0)

    assert state.next_at == 22.0


def test_closings_grow_and_are_capped():
    """A gate that nobody gave a time for stays closed longer each time, a minute at most."""
    state, waits = pace.begin(0.0, None), []
    now = 0.0
    for _ in range(12):
        state = pace.throttled(state, now, state.epoch, Throttled(), 0)
        waits.append(state.next_at - now)
        now = state.next_at

    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == 60.0


def test_late_429s_of_the_same_burst_are_ignored():
    """Answers to requests that left before the gate closed change nothing."""
    closed = pace.throttled(pace.begin(0.0, None), 1.0, 0, Throttled(), 0)

    assert pace.throttled(closed, 1.1, 0, Throttled(), 0) == closed
    assert pace.answered(closed, 0) == closed
    assert pace.unanswered(closed, 1.1, 0, is_away=True) == closed


def test_several_silences_in_a_row_close_the_gate():
    """One silent request is a device's doubt; five in a row are a server that is away."""
    state = pace.begin(0.0, None)
    for _ in range(pace.SILENT_IN_A_ROW - 1):
        state = pace.unanswered(state, 1.0, 0, is_away=False)
    closed = pace.unanswered(state, 1.0, 0, is_away=False)

    assert not state.probing
    assert closed.probing
    assert closed.next_at == 1.5
    assert closed.per_s == math.inf


@given(
    cap=st.one_of(st.none(), st.floats(0.2, 5000)),
    events=st.lists(
        st.tuples(
            st.sampled_from(["permit", "answer", "429", "told", "silent", "away"]),
            st.floats(0, 100),
        ),
        max_size=60,
    ),
)
def test_never_above_the_cap_and_never_stuck(cap, events):
    """Whatever happens, the pace stays in (0, cap], and the gate opens within its longest time."""
    state, now = pace.begin(0.0, cap), 0.0
    for kind, seconds in events:
        now += seconds
        match kind:
            case "permit":
                now = max(now, state.next_at)
                state = pace.permitted(state, now)
            case "answer":
                state = pace.answered(state, state.epoch)
            case "429":
                state = pace.throttled(state, now, state.epoch, Throttled(), 0)
            case "told":
                told = Throttled(limit=1 + seconds, window_s=1.0)
                state = pace.throttled(state, now, state.epoch, told, 0)
            case _:
                state = pace.unanswered(state, now, state.epoch, is_away=kind == "away")
        longest = pace.LONGEST_CLOSING_S + 3 / min(state.per_s, pace.SLOWEST_PER_S)
        assert 0 < state.per_s <= (cap or math.inf)
        assert state.next_at - now <= longest

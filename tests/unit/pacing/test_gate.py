from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from bulkbind.model import ServerLimit, Throttled
from bulkbind.pacing import gate, search
from bulkbind.pacing.flight import Flight
from bulkbind.pacing.gate import Gate
from bulkbind.pacing.search import NOTHING, Left, Pace
from bulkbind.pacing.traffic import Traffic


def new(cap_per_s=None, learned_per_s=None, *, is_spaced=False, left=NOTHING):
    """Return a gate whose pace is set, known from before, or learned."""
    return Gate(0.0, Pace(0.0, cap_per_s, learned_per_s, is_spaced=is_spaced, left=left))


def stated(state, per_s):
    """Let the gateway state a limit of which so much is used."""
    state.pace.stated([ServerLimit(per_s / search.STATED_SHARE, 1.0, None, None, "")])


def closed(state, now=1.0, **told):
    """Let a request be refused and return the state."""
    state.throttled(now, state.sent(now), Throttled(**told))
    return state


def opened(state):
    """Let the one that tries get through as soon as it may leave, and return the state."""
    now = state.next_at
    state.accepted(state.sent(now))
    return state


def test_without_a_limit_the_pace_rises_quickly():
    """Before the first 429 and without a cap: two leave at once, thousands in the first second."""
    state = new()
    state.sent(0.0)
    together_at, sent, now = state.next_at, 1, 0.0
    while now < 1.0:
        now = state.next_at
        state.accepted(state.sent(now))
        sent += 1

    assert together_at == 0.0
    assert sent > 2000
    assert state.pace.known_per_s == math.inf


@pytest.mark.parametrize(("answer_s", "within_s"), [(0.0005, 0.3), (0.001, 0.5), (0.1, 0.9)])
def test_the_quicker_answers_come_the_sooner_the_pace_doubles(answer_s, within_s):
    """In eighty times an answer's time, so that few are in flight when a limit is met."""
    state, now = new(), 0.0
    while state.pace.per_s < 4000:
        now = state.next_at
        state.accepted(state.sent(now), answer_s)

    assert within_s / 2 < now < within_s


def test_a_cap_spaces_requests():
    """At 10/s, a steady sender is spaced a tenth of a second."""
    state, moments = new(10.0), []
    for _ in range(5):
        moments.append(state.next_at)
        state.sent(state.next_at)

    assert moments == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def left_at_once(state, now):
    """Send whatever may leave at a moment and return how many did."""
    at_once = 0
    while state.next_at <= now:
        state.sent(now)
        at_once += 1
    return at_once


@pytest.mark.parametrize("cap_per_s", [1000.0, 2000.0], ids=["set", "learned"])
def test_a_late_sender_catches_up_little(cap_per_s):
    """After a long pause no long burst follows: 40 ms are made up for."""
    state = new(cap_per_s, 1000.0 / search.LEARNED_SHARE)
    state.sent(0.0)

    assert state.pace.per_s == 1000.0
    assert left_at_once(state, 60.0) == 1 + 40


@pytest.mark.parametrize(
    ("is_told", "slots"), [(False, 1), (True, 2)], ids=["untold", "told the limit"]
)
def test_where_requests_are_spaced_a_late_sender_catches_up_less(is_told, slots):
    """Two milliseconds at most at 1000/s, and what a slot takes only where the limit is told."""
    state = new(1000.0, 2000.0, is_spaced=True)
    if is_told:
        stated(state, 1000)
    state.sent(0.0)

    assert left_at_once(state, 60.0) == 1 + slots


def test_late_timers_do_not_slow_the_rise():
    """Where each wake-up is 15 ms late, the requests it sends at once raise the pace as any."""

    def risen(late_s):
        state, sent, now = new(None, 1000.0), 0, 0.0
        while sent < 500:
            now = state.next_at + late_s
            while state.next_at <= now and sent < 500:
                state.accepted(state.sent(now))
                sent += 1
        return state.pace.per_s

    assert risen(0.015) == pytest.approx(risen(0.0))


@pytest.mark.parametrize(
    ("limit", "window_s", "per_s"),
    [(60, 1.0, 0.995 * 60), (600, 60.0, 0.995 * 10), (3, 120.0, 0.995 * 3 / 120)],
    ids=["60/s", "600/min", "the longest window that is spread"],
)
def test_a_told_limit_is_the_pace(limit, window_s, per_s):
    """Limit and window of the 429 text are followed, a little below."""
    state = closed(new(), limit=limit, window_s=window_s)

    assert state.pace.per_s == pytest.approx(per_s)
    assert state.pace.is_stated


def test_a_limit_per_hour_is_not_spread():
    """What an hour allows may be used up at once; when it is, the run does not wait for it."""
    state = closed(new(), limit=1000, window_s=3600.0)

    assert state.pace.known_per_s == math.inf
    assert not state.pace.is_stated


def test_a_told_pace_does_not_climb():
    """What the gateway told holds until it tells otherwise."""
    state = opened(closed(new(), limit=60, window_s=1.0))
    for _ in range(1000):
        state.accepted(state.sent(state.next_at))

    assert state.pace.per_s == pytest.approx(0.995 * 60)


def test_a_told_pace_falls_where_even_that_is_refused():
    """A gateway that refuses what it allows is believed when it refuses."""
    state = opened(closed(new(), limit=100, window_s=1.0))
    for _ in range(12):
        opened(closed(state, state.next_at))

    assert state.pace.per_s < 80


def test_a_told_window_that_is_used_up_is_waited_for():
    """60 of 60 got through since the gate opened: the next try is when that second is over."""
    state = new()
    for _ in range(60):
        state.accepted(state.sent(0.0))
    state.throttled(0.02, state.sent(0.0), Throttled(60, 1.0))

    assert state.next_at == pytest.approx(1.0)


def test_retry_after_says_how_long_the_gate_is_closed():
    """The server's own word beats every formula."""
    state = closed(new(), 5.0, retry_after_s=17.0)

    assert state.next_at == 22.0


def test_tries_come_at_once_at_first_then_ever_later():
    """What opens soon is met soon, and what stays closed is asked less and less often."""
    state, waits, now = new(), [], 0.0
    for _ in range(30):
        state.throttled(now, state.sent(now), Throttled())
        waits.append(state.next_at - now)
        now = state.next_at

    assert waits[0] == gate.FIRST_TRY_S
    assert sum(waits[:4]) < 0.1
    assert max(waits) == waits[-1] == gate.LONGEST_TRY_S


@pytest.mark.parametrize(("at", "is_waited_for"), [(0.95, True), (0.5, False)])
def test_a_window_that_is_about_to_end_is_waited_for(at, is_waited_for):
    """The gate has opened at whole seconds: a 429 right before one is no lone one."""
    state = new(None, 50.0)
    for second in range(1, 5):
        for number in range(20):
            state.accepted(state.sent(second - 0.9 + number / 40))
        for number in range(20):
            now = second - 0.39 + number / 50
            state.throttled(now, state.sent(now), Throttled())
        state.accepted(state.sent(float(second)))
    for tenth in range(1, int(10 * at)):
        state.accepted(state.sent(second + tenth / 10))
    state.throttled(second + at, state.sent(second + at), Throttled())

    assert state.is_closed is is_waited_for
    assert (state.next_at == pytest.approx(5.004)) is is_waited_for


@pytest.mark.parametrize("window_s", gate.COMMON_WINDOWS_S)
def test_a_try_is_made_when_a_common_window_is_over(window_s):
    """A gateway that counts by the second, ten seconds or minute is met where its window ends."""
    state, tries, now = new(), [], 0.0
    while now < 2 * window_s:
        state.throttled(now, state.sent(now), Throttled())
        now = state.next_at
        tries.append(now)

    assert any(window_s < at < window_s + 0.02 for at in tries)


def test_late_429s_of_the_same_burst_are_ignored():
    """Answers to requests that left before the gate closed neither open nor close it."""
    state = new()
    late = [state.sent(0.99) for _ in range(3)]
    closed(state)
    before = state.next_at, state.epoch
    state.throttled(1.001, late[0], Throttled())
    state.accepted(late[1])
    state.broke_off(1.001, late[2])

    assert (state.next_at, state.epoch) == before
    assert state.is_closed


def paired(state, now, through):
    """Let two requests leave together, of which those marked `+` get through; return the state."""
    sent = [state.sent(now) for _ in through]
    for one, mark in zip(sent, through, strict=True):
        if mark == "+":
            state.accepted(one)
        else:
            state.throttled(now, one, Throttled())
    return state


@pytest.mark.parametrize(
    ("through", "is_spaced"),
    [("+-", True), ("-+", True), ("++", False), ("--", False)],
    ids=["the second refused", "the first refused", "both through", "both refused"],
)
def test_of_the_first_two_one_refused_shows_that_requests_have_to_be_spaced(through, is_spaced):
    """Both refused: others have used up the limit, and nothing is shown."""
    assert paired(new(), 0.0, through).pace.is_spaced is is_spaced


@pytest.mark.parametrize("is_through", [True, False])
def test_spacing_is_looked_at_again(is_through):
    """Another pair leaves some requests after a 429: it shows what the first one only seemed to."""
    state = opened(paired(new(), 0.0, "+-"))
    state.throttled(1.0, state.sent(1.0), Throttled())
    together, now = 0, 1.0
    while not together:
        now = max(now, state.next_at)
        sent = state.sent(now)
        if together := state.next_at <= now:
            state.accepted(sent)
            twin = state.sent(now)
            if is_through:
                state.accepted(twin)
            else:
                state.throttled(now, twin, Throttled())
        else:
            state.accepted(sent)

    assert state.pace.is_spaced is not is_through
    assert not state.is_closed


def test_after_so_many_pairs_requests_are_known_to_have_to_be_spaced():
    """Each costs a request refused, so that they do not go on for ever."""
    state, refused, now = opened(paired(new(), 0.0, "+-")), 1, 1.0
    for _ in range(20):
        for number in range(2 * search.TWIN_AT):
            now = max(now, state.next_at)
            is_last = number == 0
            sent = state.sent(now)
            is_twin = state.is_paired(sent) and state.next_at > now
            if is_last or is_twin:
                refused += is_twin and not is_last
                state.throttled(now, sent, Throttled())
            else:
                state.accepted(sent)

    assert state.pace.is_spaced
    assert refused == search.TWINS


def spaced(per_s):
    """Return a pace that an earlier run has learned of a gateway that wants requests spaced."""
    return new(None, per_s, is_spaced=True)


def sent_evenly(state, count):
    """Send so many requests when they may leave, each answered at once; return the moment."""
    now = 0.0
    for _ in range(count):
        now = max(now, state.next_at)
        state.accepted(state.sent(now))
    return now


@pytest.mark.parametrize("is_spaced", [False, True], ids=["any", "spaced"])
def test_a_lone_429_closes_nothing(is_spaced):
    """The next one gets through: the pace falls a little, and no slot is lost."""
    state = new(None, 100.0, is_spaced=is_spaced)
    sent_evenly(state, 50)
    before, now = state.pace.per_s, state.next_at
    state.throttled(now, state.sent(now), Throttled())
    again_at = state.next_at
    opened(state)

    assert not state.is_closed
    assert 0.95 * before < state.pace.per_s < before
    assert again_at == pytest.approx(now + 1 / before, rel=0.02)


def test_a_second_429_closes_the_gate():
    """None got through in between: it is more than one that came too early."""
    state = spaced(100.0)
    sent_evenly(state, 50)
    shut = []
    for _ in range(2):
        closed(state, state.next_at)
        shut.append(state.is_closed)

    assert shut == [False, True]


def test_where_requests_are_spaced_many_429s_at_once_leave_a_pace():
    """A distant gateway refuses what was on its way: the pace falls, and never to nothing."""
    state = spaced(100.0)
    sent_evenly(state, 200)
    for _ in range(5):
        sent = [state.sent(state.next_at) for _ in range(10)]
        for one in sent:
            state.throttled(one.at + 0.1, one, Throttled())
        opened(state)

    assert 20.0 < state.pace.per_s < 95.0


def test_a_try_that_breaks_off_behind_429s_is_followed_by_another():
    """The next try follows soon, however many were refused before."""
    state = new()
    now = 0.0
    for _ in range(12):
        state.throttled(now, state.sent(now), Throttled())
        now = state.next_at
    refused_s = now - state.closed_at
    state.broke_off(now, state.sent(now))

    assert state.is_closed
    assert 0.0 < state.next_at - now <= refused_s


def test_a_run_begins_at_the_limit_that_was_learned():
    """What an earlier run met is where the next one begins, a little below."""
    state = new(learned_per_s=100.0)

    assert state.pace.per_s == pytest.approx(98.0)
    assert state.pace.limit_per_s() is None


def test_a_lifted_limit_is_found():
    """Where no 429 comes any more, the pace rises ever faster."""
    state = new(learned_per_s=100.0)
    while state.pace.per_s < 300:
        state.accepted(state.sent(state.next_at))

    assert state.next_at < 10.0


@pytest.mark.parametrize(
    ("left", "per_s", "learned_per_s"),
    [
        (Left(0.8, 0.0), 80.0, 80.0), (Left(1.0, 5.0), 95.0, 95.0), (Left(0.5, 60.0), 0.01, 20.0),
    ],
)  # fmt: skip
def test_what_is_left_to_others_is_not_used(left, per_s, learned_per_s):
    """80 % of a limit of 100/s, or all but 5/s of it; and something, where nothing would be.

    Of a limit that is learned a fifth, since others may have taken the rest while it was.
    """
    learned = new(learned_per_s=100.0, left=left)
    told = new(left=left)
    stated(told, 100)

    assert told.pace.per_s == pytest.approx(per_s)
    assert learned.pace.per_s == pytest.approx(learned_per_s)


def test_where_a_share_is_left_the_limit_is_looked_for_once_a_minute():
    """The pace is held for a minute; then it rises until the limit is met again."""
    state, now = new(learned_per_s=100.0, left=Left(0.8, 0.0)), 0.0
    while now < 59.0:
        now = state.next_at
        state.accepted(state.sent(now))
    held = state.pace.per_s
    while state.pace.per_s < 100.0:
        now = state.next_at
        state.accepted(state.sent(now))

    assert held == 80.0
    assert 60.0 < now < 70.0


def test_a_sender_that_has_little_to_send_does_not_raise_the_pace():
    """A pace that nobody used shows nothing."""
    state = new(learned_per_s=100.0)
    for second in range(1000):
        state.accepted(state.sent(float(second)))

    assert state.pace.per_s < 98.1


@pytest.mark.parametrize(
    ("limit", "window_s"),
    [(0.0, 1.0), (1e9, 1.0), (1.0, 1e9), (1e-9, 100.0), (5.0, 0.0)],
    ids=["nothing", "a billion", "in 30 years", "next to nothing", "in no time"],
)
def test_hostile_limits_leave_a_pace(limit, window_s):
    """Whatever a gateway tells, something can be sent, some time."""
    state = opened(closed(new(), limit=limit, window_s=window_s))

    assert state.pace.per_s >= search.SLOWEST_PER_S
    assert state.next_at < 500.0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["permit", "answer", "429", "told", "asked", "silent", "away"]),
        st.floats(0, 100),
    ),
    max_size=80,
)


@given(cap=st.one_of(st.none(), st.floats(0.2, 5000)), events=EVENTS)
def test_never_above_the_cap_and_never_stuck(cap, events):
    """Whatever happens, the pace stays in (0, cap], and the gate opens within its longest time."""
    pace, now = Pace(0.0, cap), 0.0
    traffic = Traffic(0.0, pace, Flight(0.0, 1000))
    state = traffic.gate("", 0.0)
    out: list[int] = []
    for kind, seconds in events:
        now += seconds
        asked_s = 0.0
        if kind == "permit" or not out:
            now = max(now, state.next_at)
            out.append(traffic.sent(state, now))
            continue
        permit = out.pop(0)
        request, was_silent = traffic.ended(permit, now)
        match kind:
            case "answer":
                traffic.accepted(permit, request, now)
            case "429":
                traffic.throttled(permit, request, now, Throttled())
            case "told":
                traffic.throttled(permit, request, now, Throttled(1 + seconds, 1.0))
            case "asked":
                asked_s = seconds
                traffic.throttled(permit, request, now, Throttled(retry_after_s=seconds))
            case _:
                is_away = kind == "away"
                traffic.unanswered(permit, request, now, was_silent=was_silent, is_away=is_away)
        longest = max(asked_s, gate.LONGEST_TRY_S) + 3 / min(pace.per_s, search.SLOWEST_PER_S)
        assert 0 < pace.per_s <= (cap or math.inf)
        assert state.next_at - now <= longest
        assert traffic.server.next_at - now <= longest

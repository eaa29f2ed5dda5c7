from __future__ import annotations

import math

import pytest

from bulkbind.pacing import flight
from bulkbind.pacing.flight import Flight, Places
from bulkbind.pacing.gate import COARSE_S


def filled(state, seconds, took_s, *, begin=0.0):
    """Answer full flights for a while; return the moment at which that ends."""
    now = begin
    while now < begin + seconds:
        now += took_s
        for in_flight in range(1, state.wide + 1):
            state.accepted(now, in_flight, took_s)
    return now


def grown_to(state, wide, took_s=0.05):
    """Answer full flights until so many may be in flight; return the moment."""
    now = 0.0
    while state.wide < wide:
        now = filled(state, took_s, took_s, begin=now)
    return now


def test_it_grows_while_answers_stay_quick():
    """From few to as many as the operator allows, within about a second."""
    state = Flight(0.0, 64)
    filled(state, 1.0, 0.05)

    assert state.wide == 64


def test_it_grows_where_more_at_once_gain_nothing_but_cost_little():
    """Answers within a tenth of a second do not wait for long: many at once save work here."""
    state, now = Flight(0.0, 64), 0.0
    while now < 2.0:
        took_s = 0.001 * state.wide
        now = filled(state, took_s, took_s, begin=now)

    assert state.wide == 64


def test_it_never_passes_what_the_operator_allows():
    """`--concurrency` is the most, also when it is less than the start."""
    state = Flight(0.0, 3)
    filled(state, 5.0, 0.01)

    assert state.wide == 3


def test_a_slow_server_is_not_driven_into_time_outs():
    """A server that works on one request at a time gets no more than keeps it busy."""
    state, now, widest = Flight(0.0, 64), 0.0, 0
    for _ in range(2000):
        took_s = 0.5 * state.wide
        now += took_s / state.wide
        state.accepted(now, state.wide, took_s)
        widest = max(widest, state.wide)

    assert widest <= 16


def test_quick_answers_of_another_kind_hold_nothing_back():
    """A run that goes on reads lists first, in milliseconds; its binds take longer."""
    state = Flight(0.0, 64)
    now = filled(state, 0.11, 0.005)
    filled(state, 5.0, 0.3, begin=now)

    assert state.wide == 64


def test_a_paced_run_has_as_many_as_its_pace_needs():
    """Ten a second of a tenth of a second each are one at a time, and a margin."""
    state = Flight(0.0, 64)
    filled(state, 5.0, 0.1)

    assert state.useful(10.0) == 2 * 1 + flight.MARGIN
    assert state.useful(math.inf) == 64


def test_what_is_on_its_way_to_a_worker_is_under_way_as_well():
    """Ten a second that take half a second to the worker and back are five more."""
    state = Flight(0.0, 64)
    filled(state, 5.0, 0.1)

    state.carried(0.5)

    assert state.useful(10.0) == 2 * 1 + 5 + flight.MARGIN


def met(places, limit):
    """Let requests at every level up to a limit through, and refuse one beyond it."""
    for level in range(1, limit + 1):
        places.accepted(level)
    assert places.throttled(0.0, limit + 1, limit + 1, limit + 1)
    return places


def test_a_limit_in_flight_is_met_by_fewer():
    """16 got through, the 17th and what left with it did not: 16 at once from now on."""
    places = met(Places(), 16)
    explained = [places.throttled(0.0, level, 17, 32) for level in range(18, 33)]

    assert all(explained)
    assert places.limit == places.wide == 16


def test_more_than_the_limit_in_flight_are_tried():
    """After twice as many as the limit: one more, then two, four, while several get through."""
    places, limits = met(Places(), 16), set()
    for _ in range(200):
        places.accepted(int(places.wide))
        limits.add(places.limit)

    assert {16, 17, 19, 23, 31} <= limits


def test_a_limit_that_stays_is_tried_less_and_less_often():
    """Each refusal beyond it doubles the wait, up to a quarter of a per cent of the requests."""
    places, waits = met(Places(), 16), []
    for number in range(100, 110):
        waits.append(0)
        while places.wide == places.limit:
            places.accepted(16)
            waits[-1] += 1
        assert places.throttled(0.0, 17, number, number)

    assert waits[:3] == [34, 68, 136]
    assert waits[-1] == flight.LEAST_OFTEN


def test_a_limit_in_flight_may_be_one_lower():
    """One that was in flight had just been answered: refused at 16, too, it is 15."""
    places = met(Places(), 16)

    assert places.throttled(0.0, 16, 20, 20)
    assert places.limit == 15


def test_a_limit_of_rate_is_not_taken_for_one_in_flight():
    """429s that meet fewer in flight than have got through say nothing of the flight."""
    places = Places()
    for level in range(1, 17):
        places.accepted(level)

    assert not places.throttled(0.0, 15, 20, 20)
    assert places.limit == math.inf


def test_a_limit_in_flight_that_explains_nothing_is_dropped():
    """Where requests are refused at ever lower levels, it is another kind of limit, for a while."""
    places, number, refused = met(Places(), 16), 100, 0
    while places.limit < math.inf:
        refused, number = refused + 1, number + 1
        places.throttled(1.0, int(places.limit), number, number)

    assert refused < 10
    assert not places.throttled(2.0, 20, 200, 200)


def test_a_few_429s_of_a_rate_leave_a_limit_in_flight():
    """Now and then one is refused at a level at which nearly all get through."""
    places = met(Places(), 16)
    for number in range(100, 1000):
        places.accepted(8)
        if number % 100 == 0:
            assert not places.throttled(0.0, 8, number, number)

    assert places.limit == 16


def limited_to(state, places):
    """Let a flight meet a limit of so many places; return the moment."""
    now = grown_to(state, 2 * places)
    met(state.places, places)
    return now


def test_what_leaves_at_a_limit_in_flight_is_spread():
    """Four a tenth of a second: one each 12 ms, so that they are seldom answered in a bunch."""
    state = Flight(0.0, 64)
    state.accepted(0.1, 4, 0.1)
    state.sent(0.2)
    before = state.next_at
    met(state.places, 4)
    state.sent(0.4)

    assert before == 0.0
    assert state.next_at == pytest.approx(0.4 - COARSE_S + flight.SPREAD * 0.1 / 4)


def test_silence_makes_fewer_go_at_once():
    """Requests in a row that were waited for in vain halve the flight."""
    state = Flight(0.0, 64)
    now = grown_to(state, 64)
    for _ in range(int(flight.IN_A_ROW)):
        state.unanswered(now)

    assert state.wide == 32


@pytest.mark.parametrize(
    ("every", "is_narrowed"), [(6, False), (4, True)], ids=["a sixth", "a quarter"]
)
def test_silence_among_answers_is_a_sign_only_where_there_is_much(every, is_narrowed):
    """Less than a fifth unanswered say nothing of the server; more do, though none are in a row."""
    state = Flight(0.0, 64)
    now = grown_to(state, 64)
    for number in range(100):
        if number % every:
            state.accepted(now, 1, 0.05)
        else:
            state.unanswered(now)

    assert (state.wide < 64) is is_narrowed


def test_silence_among_answers_leaves_a_limit_in_flight():
    """16 at once stay 16 at once where one of them breaks off, and become 8 where several do."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16)
    state.unanswered(now)
    after_one = state.wide
    for _ in range(int(flight.IN_A_ROW) - 1):
        state.unanswered(now)

    assert (after_one, state.wide) == (16, 8)


def served(most=32, took_s=0.05):
    """Return a flight of which a few at once were answered for two seconds, and the moment."""
    state, now = Flight(0.0, most), 0.0
    while now < 2.0:
        now += took_s
        state.accepted(now, 1, took_s)
    return state, now


def test_a_silent_request_takes_no_place():
    """Four may be in flight, and four are: with a silent one among them, one more may leave."""
    state, now = served()
    full = state.has_place(now, 60.0, flight.START, 0)
    state.fell_silent()

    assert not full
    assert state.has_place(now, 60.0, flight.START, 1)


def test_however_many_are_silent_no_more_are_in_flight_than_allowed():
    """Eighteen silent ones take no place, but the operator's `--concurrency` counts them."""
    state, now = served()

    assert state.has_place(now, 60.0, 18 + flight.START - 1, 18)
    assert not state.has_place(now, 60.0, 18 + flight.START, 18)
    assert not served(6)[0].has_place(now, 60.0, 6, 6)


def test_where_most_are_silent_each_keeps_its_place():
    """A server that answers few of them in time gets no more than may be in flight."""
    state, now = served()
    for _ in range(50):
        state.accepted(now, 1, 0.05)
        for _ in range(7):
            state.fell_silent()
    state.sent(now)

    assert not state.has_place(now, 60.0, flight.START, 1)


def test_where_most_are_silent_one_more_leaves_now_and_then():
    """It shows whether the server answers again: all wait for a time-out else."""
    state, now = served()
    for _ in range(20):
        state.fell_silent()
    state.sent(now)
    waits = [state.has_place(now + after_s, 60.0, 20, 20) for after_s in (0.9, 1.1)]
    state.sent(now + 1.1)

    assert waits == [False, True]
    assert not state.has_place(now + 1.2, 60.0, 21, 20)
    state.accepted(now + 1.3, 1, 0.05)
    assert state.has_place(now + 1.3, 60.0, 20, 20)


def test_a_limit_in_flight_does_not_count_silent_requests():
    """Nobody knows whether the server still holds their places; all waited for them else."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16)

    assert state.has_place(now, math.inf, 19, 4)
    assert not state.has_place(now, math.inf, 20, 4)


@pytest.mark.parametrize(("took_s", "silent_s"), [(0.01, 0.3), (0.5, 2.0)])
def test_a_request_is_silent_after_several_times_the_usual(took_s, silent_s):
    """And never in less than a second."""
    assert served(took_s=took_s)[0].silent_s == pytest.approx(silent_s)
    assert Flight(0.0, 32).silent_s == math.inf

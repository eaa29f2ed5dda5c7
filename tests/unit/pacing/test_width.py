from __future__ import annotations

import math

import pytest

from bulkbind.pacing import width
from bulkbind.pacing.gate import COARSE_S
from bulkbind.pacing.width import Flight


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


def test_a_paced_run_has_as_many_as_its_pace_needs():
    """Ten a second of a tenth of a second each are one at a time, and a margin."""
    state = Flight(0.0, 64)
    filled(state, 5.0, 0.1)

    assert state.useful(10.0) == 2 * 1 + width.MARGIN
    assert state.useful(math.inf) == 64


def limited_to(state, width, *, filled_s=0.7):
    """Let a flight meet a limit of *width*, and use it for a while; return the moment."""
    now = grown_to(state, 2 * width)
    state._proven = width
    state.throttled(now, width + 1)
    return filled(state, filled_s, 0.05, begin=now)


def test_a_limit_in_flight_is_met_by_fewer():
    """16 got through, the 17th did not: 16 at once from now on."""
    state = Flight(0.0, 64)
    now = grown_to(state, 32)
    state._proven = 16
    explained = [state.throttled(now, in_flight) for in_flight in range(17, 33)]
    filled(state, width.TRY_S / 2, 0.05, begin=now)

    assert all(explained)
    assert state.places
    assert state.wide == 16


def test_more_than_the_limit_in_flight_are_tried():
    """One more after a while; refused, after a longer while; else two more, then four."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16, filled_s=0.0)
    now = filled(state, width.TRY_S + 0.01, 0.05, begin=now)
    tried = state.wide
    is_explained = state.throttled(now, 17)
    now = filled(state, width.TRY_S + 0.01, 0.05, begin=now)
    waited = state.wide
    widths = set()
    for _ in range(40):
        now = filled(state, 0.05, 0.05, begin=now)
        widths.add(state.wide)

    assert (tried, is_explained, waited) == (17, True, 16)
    assert {17, 19, 23, 31} <= widths


def test_what_lets_many_more_through_counts_a_rate():
    """Refused after many got through with more in flight than the limit: it was no such limit."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16, filled_s=0.0)
    now = filled(state, width.TRY_S + 0.01, 0.05, begin=now)
    for _ in range(width.MIXED):
        state.accepted(now, 17, 0.05)

    assert not state.throttled(now, 17)
    assert not state.places


def test_what_gets_through_once_it_is_spread_came_too_close_together():
    """One of a bunch got through; two at once do, with a part of an answer's time between them."""
    state = Flight(0.0, 64)
    state.accepted(0.1, 1, 0.1)
    explained = [state.throttled(0.1, in_flight) for in_flight in (2, 3, 4)]
    alone = state.wide
    state.sent(0.2)
    apart_s = state.next_at - 0.2
    for _ in range(width.ROUNDS):
        state.accepted(0.3, 1, 0.1)
    tried = state.wide
    for _ in range(2 * width.ROUNDS):
        state.accepted(0.5, 2, 0.1)

    assert all(explained)
    assert (alone, tried) == (1, 2)
    assert apart_s == pytest.approx(width.SPREAD * 0.1, abs=2 * COARSE_S)
    assert (state.places, state.is_spacing) == (None, True)
    assert not state.throttled(0.5, 5)


def test_one_place_stays_one_place():
    """Where the second of two at once is refused however they are spread, there is one place."""
    state = Flight(0.0, 64)
    state.accepted(0.1, 1, 0.1)
    state.throttled(0.1, 2)
    for _ in range(width.ROUNDS):
        state.accepted(0.3, 1, 0.1)

    assert state.throttled(0.4, 2)
    assert (state.wide, state.is_spacing) == (1, False)


def test_what_leaves_at_a_limit_in_flight_is_spread():
    """Four a tenth of a second: one each 20 ms, so that they are seldom answered in a bunch."""
    state = Flight(0.0, 64)
    state.accepted(0.1, 4, 0.1)
    state.throttled(0.1, 5)
    state.sent(0.2)
    before = state.next_at
    for _ in range(4 * width.PROVEN_BY):
        state.accepted(0.3, 4, 0.1)
    state.sent(0.3)
    state.sent(0.4)

    assert before == 0.1
    assert state.wide == 4
    assert state.next_at == pytest.approx(0.4 - COARSE_S + width.SPREAD * 0.1 / 4)


def test_a_limit_of_rate_is_not_taken_for_one_in_flight():
    """429s that meet fewer in flight than have got through say nothing of the flight."""
    state = Flight(0.0, 64)
    now = grown_to(state, 16)
    filled(state, 0.05, 0.05, begin=now)

    assert not state.throttled(now, state.wide)
    assert not state.places


def test_a_limit_in_flight_that_explains_nothing_is_dropped():
    """Where requests are refused although few are in flight, it was another kind of limit."""
    state = Flight(0.0, 64)
    state.accepted(0.1, 1, 0.01)
    state.throttled(0.1, 2)
    was_limited = state.places
    for _ in range(width.AGAINST):
        state.throttled(0.2, 1)

    assert was_limited
    assert not state.places
    assert state.wide == width.START
    assert not state.throttled(0.3, 4)


def test_silence_makes_fewer_go_at_once():
    """Requests in a row that were waited for in vain halve the flight."""
    state = Flight(0.0, 64)
    now = grown_to(state, 64)
    for _ in range(width.IN_A_ROW):
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
    for _ in range(width.IN_A_ROW - 1):
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
    full = state.has_place(now, 60.0, width.START, 0)
    state.fell_silent(now)

    assert not full
    assert state.has_place(now, 60.0, width.START, 1)


def test_at_most_a_quarter_of_the_width_is_silent_without_a_place():
    """Of 32, eight; and however many are silent, never more in flight than the operator allows."""
    state, now = served()

    assert state.has_place(now, 60.0, 8 + width.START - 1, 11)
    assert not state.has_place(now, 60.0, 8 + width.START, 12)
    assert not served(6)[0].has_place(now, 60.0, 6, 6)


def test_a_server_found_narrow_is_left_no_more_silent_ones_than_a_quarter_of_that():
    """Eight at once were too many for it: of four that may be in flight, one takes no place."""
    state = Flight(0.0, 64)
    now = grown_to(state, 8)
    for _ in range(width.IN_A_ROW):
        state.unanswered(now)

    assert state.wide == 4
    assert state.has_place(now, math.inf, 4, 2)
    assert not state.has_place(now, math.inf, 5, 2)


def test_where_most_are_silent_each_keeps_its_place():
    """A server that answers few of them in time gets no more than may be in flight."""
    state, now = served()
    for _ in range(200):
        state.fell_silent(now)
    for _ in range(100):
        state.accepted(now, 1, 0.05)

    assert not state.has_place(now, 60.0, width.START, 1)


def test_where_nothing_was_answered_of_late_each_keeps_its_place():
    """What was so ten seconds ago does not count."""
    state, now = served()

    assert state.has_place(now, 60.0, width.START, 1)
    assert not state.has_place(now + 10.0, 60.0, width.START, 1)


def test_a_limit_in_flight_counts_silent_requests():
    """A gateway that counts what is in flight counts those, too."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16)

    assert state.has_place(now, math.inf, 15, 4)
    assert not state.has_place(now, math.inf, 16, 4)


@pytest.mark.parametrize(("took_s", "silent_s"), [(0.01, 1.0), (0.5, 2.0)])
def test_a_request_is_silent_after_several_times_the_usual(took_s, silent_s):
    """And never in less than a second."""
    assert served(took_s=took_s)[0].silent_s == pytest.approx(silent_s)
    assert Flight(0.0, 32).silent_s == math.inf


def test_a_proven_limit_in_flight_may_be_one_lower():
    """Refused again and again with as many in flight as were proven: one fewer from now on."""
    state = Flight(0.0, 64)
    now = limited_to(state, 16)
    explained = [state.throttled(now, 16) for _ in range(width.AGAINST)]

    assert all(explained)
    assert state.places
    assert state.wide == 15


def test_a_limit_of_rate_that_looked_like_one_in_flight_is_found_out():
    """What seemed to be a limit of one at a time, and refuses that one as well, counts a rate."""
    state = Flight(0.0, 64)
    now = limited_to(state, 1, filled_s=0.0)
    explained = [state.throttled(now, 1) for _ in range(width.AGAINST)]

    assert explained == [True] * (width.AGAINST - 1) + [False]
    assert not state.places

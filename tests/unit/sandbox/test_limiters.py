"""The sandbox's limiters: what each admits, where it stands, and what it never does."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bulkbind.sandbox import parse_limit
from bulkbind.sandbox.limit_announcements import announced
from bulkbind.sandbox.limiters import (
    Bucket,
    InFlight,
    Limiter,
    Limits,
    Sliding,
    Standing,
    Window,
)
from bulkbind.sandbox.specs import Call

STEPS_S = st.lists(st.floats(0, 2) | st.sampled_from([0.0, 0.125, 0.5, 1.0]), max_size=200)
COUNTS = st.integers(1, 8)
WINDOWS_S = st.sampled_from([0.5, 1.0, 3.0])


def admitted(limiter: Limiter, steps_s: list[float]) -> list[float]:
    """Return the moments of those requests that were let in, one request after every step."""
    now = 1_000.0
    moments = []
    for step_s in steps_s:
        now += step_s
        if limiter.peek(now).left > 0:
            limiter.take(now)
            moments.append(now)
    return moments


def found(limiter: Limiter, moments: list[float]) -> list[bool]:
    """Return which of the requests at some moments were let in."""
    answers = []
    for now in moments:
        answers.append(limiter.peek(now).left > 0)
        if answers[-1]:
            limiter.take(now)
    return answers


@pytest.mark.parametrize(
    ("limiter", "moments", "expected"),
    [
        pytest.param(Window(2, 1), [5, 5.5, 5.9, 6, 6.9, 6.9, 7], [1, 1, 0, 1, 1, 0, 1], id="2/s"),
        pytest.param(Window(1, 1), [5, 9.5, 10.4, 10.5], [1, 1, 0, 1], id="begins with a request"),
        pytest.param(Sliding(2, 1), [5, 5.5, 5.9, 6, 6.4, 6.5], [1, 1, 0, 1, 0, 1], id="sliding"),
        pytest.param(Bucket(2, 1, 2), [5, 5, 5, 5.25, 5.5, 6], [1, 1, 0, 0, 1, 1], id="bucket"),
        pytest.param(Bucket(2, 1, 1), [5, 5.25, 5.5, 9, 9], [1, 0, 1, 1, 0], id="strict spacing"),
        pytest.param(Bucket(1, 60, 3), [5, 5, 5, 5, 65], [1, 1, 1, 0, 1], id="burst over N"),
        pytest.param(InFlight(2), [5, 5, 99], [1, 1, 0], id="nobody leaves"),
    ],
)
def test_what_limiters_admit(limiter, moments, expected):
    """Each kind counts in its own way; an end is open, so the next window begins on it."""
    assert found(limiter, moments) == [bool(admits) for admits in expected]


@pytest.mark.parametrize(
    ("limiter", "taken", "now", "standing"),
    [
        pytest.param(Window(3, 10), [], 5, Standing(3, 10), id="window, untouched"),
        pytest.param(Window(3, 10), [5, 7], 8, Standing(1, 7), id="window: 5 + 10 - 8"),
        pytest.param(Window(1, 10), [5], 15, Standing(1, 10), id="window, over"),
        pytest.param(Sliding(3, 10), [], 5, Standing(3, 10), id="sliding, untouched"),
        pytest.param(Sliding(3, 10), [5, 7], 8, Standing(1, 9), id="sliding, all free: 7 + 10 - 8"),
        pytest.param(Sliding(2, 10), [5, 7], 8, Standing(0, 7), id="sliding, one free: 5 + 10 - 8"),
        pytest.param(Bucket(2, 1, 4), [], 5, Standing(4, 0), id="bucket, full"),
        pytest.param(Bucket(2, 1, 4), [5, 5], 5, Standing(2, 1), id="bucket: (4 - 2) / 2"),
        pytest.param(Bucket(2, 1, 1), [5], 5.25, Standing(0, 0.25), id="bucket: (1 - 0.5) / 2"),
        pytest.param(InFlight(3), [5, 6], 7, Standing(1, 1), id="in flight"),
    ],
)
def test_where_limiters_stand(limiter, taken, now, standing):
    """How many are left, and how long until all, or with none left until one, is free again."""
    for moment in taken:
        limiter.take(moment)

    assert limiter.peek(now) == standing
    assert limiter.peek(now) == standing


def test_who_leaves_makes_room():
    """A limiter of requests in flight gives back what ends."""
    limiter = InFlight(1)
    limiter.take(0)
    full = limiter.peek(0).left

    limiter.release()

    assert (full, limiter.peek(0).left) == (0, 1)


@given(COUNTS, WINDOWS_S, STEPS_S)
def test_a_sliding_window_never_admits_more_in_any_window(count, window_s, steps_s):
    """Between a request and the N-th after it there is at least a window, wherever one looks."""
    moments = admitted(Sliding(count, window_s), steps_s)

    assert all(b - a >= window_s for a, b in zip(moments, moments[count:], strict=False))


@given(COUNTS, WINDOWS_S, st.integers(1, 12), STEPS_S)
def test_a_bucket_never_admits_more_than_burst_and_rate(count, window_s, burst, steps_s):
    """In every stretch of t seconds at most burst + rate * t."""
    moments = admitted(Bucket(count, window_s, burst), steps_s)

    rate_per_s = count / window_s
    for first, start in enumerate(moments):
        for number, end in enumerate(moments[first:], start=1):
            assert number <= burst + rate_per_s * (end - start) + 1e-6


@given(COUNTS, WINDOWS_S, STEPS_S)
def test_a_fixed_window_admits_twice_its_count_at_most(count, window_s, steps_s):
    """In any window's length no more than two windows' counts, as two of them can touch."""
    moments = admitted(Window(count, window_s), steps_s)

    later = moments[2 * count :]
    assert all(b - a >= window_s for a, b in zip(moments, later, strict=False))


@given(st.sampled_from(["window:3/s", "sliding:3/s", "bucket:3/s", "bucket:3/s,burst=1"]), STEPS_S)
def test_whoever_waits_until_the_reset_is_admitted(text, steps_s):
    """After a refusal, `reset_s` later there is room; limits are no trap."""
    limits = Limits([parse_limit(text)])
    now = 0.0
    for step_s in steps_s:
        now += step_s
        admission = limits.admit(Call.BIND, "u", now=now, elapsed_s=now)
        if admission.refused_by is not None:
            now += admission.refused_by.standing.reset_s + 1e-6
            assert limits.admit(Call.BIND, "u", now=now, elapsed_s=now).refused_by is None


# --- several limits ------------------------------------------------------------------------------


def limits_of(*limits: str) -> Limits:
    """Return limits that are written as on the command line."""
    return Limits([parse_limit(limit) for limit in limits])


def test_a_refused_request_is_charged_to_no_limit():
    """Three refusals by the bucket leave the day's count where it was."""
    limits = limits_of("3/day", "bucket:1/s,burst=1")
    early = [limits.admit(Call.BIND, "u", now=5, elapsed_s=0).refused_by for _ in range(4)]

    late = [limits.admit(Call.BIND, "u", now=now, elapsed_s=0).refused_by for now in (6, 7, 8)]

    assert [refused_by is None for refused_by in early] == [True, False, False, False]
    assert [refused_by is None for refused_by in late] == [True, True, False]


def test_of_several_that_refuse_the_longest_is_announced():
    """Whoever comes again when the first of them opens would only be refused by the other."""
    limits = limits_of("1/s", "1/min", "1/s")
    limits.admit(Call.BIND, "u", now=5, elapsed_s=0)

    admission = limits.admit(Call.BIND, "u", now=5.5, elapsed_s=0)

    assert admission.refused_by is not None
    assert (admission.refused_by.limit.unit, admission.refused_by.standing) == (
        "minute",
        Standing(0, 59.5),
    )
    assert announced(admission) is admission.refused_by

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.sandbox.limiters import Bucket, InFlight, Sliding, Window
from tests.support.pacing_simulator import Changing, Nginx, Of, Simulation

MINUTE_S = 60.0


def bucket(per_s, burst):
    """Return a token bucket."""
    return Of(Bucket(per_s, 1.0, burst))


@pytest.mark.parametrize(
    ("limiter", "per_s", "efficiency", "refused", "told"),
    [
        (Of(Window(60, 1.0)), 60, 0.98, 0.005, {"limit": 60, "window_s": 1.0}),
        (Of(Sliding(100, 10.0)), 10, 0.98, 0.01, {"limit": 100, "window_s": 10.0}),
        (bucket(100, 100), 100, 0.95, 0.02, {}),
        (bucket(100, 10), 100, 0.95, 0.02, {}),
        (bucket(1000, 100), 1000, 0.95, 0.02, {}),
        (Of(Window(60, 1.0)), 60, 0.95, 0.02, {}),
        (Of(Window(600, 10.0)), 60, 0.95, 0.03, {}),
        (Of(Sliding(60, 1.0)), 60, 0.95, 0.02, {}),
        (Of(Sliding(200, 1.0)), 200, 0.95, 0.02, {}),
        (Nginx(200, 20), 200, 0.95, 0.02, {}),
        (Nginx(50, 20), 50, 0.95, 0.02, {}),
        (Nginx(200, 0), 200, 0.87, 0.03, {}),
        (Nginx(50, 0), 50, 0.88, 0.03, {}),
        (Of(Window(60, 1.0)), 60, 0.85, 0.02, {"retry_after_s": 1.0}),
        (bucket(1, 1), 1, 0.85, 0.6, {}),
    ],
    ids=[
        "60/s, told", "100 in 10 s sliding, told", "100/s burst 100", "100/s burst 10",
        "1000/s burst 100", "60/s windows", "600 in windows of 10 s", "60/s sliding",
        "200/s sliding", "nginx 200/s burst 20", "nginx 50/s burst 20", "nginx 200/s",
        "nginx 50/s", "60/s, only Retry-After told", "1/s",
    ],
)  # fmt: skip
def test_a_limit_is_found_and_used(limiter, per_s, efficiency, refused, told):
    """In a minute of ideal time, little is lost and little refused, whatever the limit's kind."""
    requests = int(per_s * MINUTE_S)
    ran = Simulation(limiter, requests, told=told).run()

    assert MINUTE_S / ran.took_s >= efficiency
    assert ran.refused / requests <= refused


@pytest.mark.parametrize(
    ("make", "per_s", "efficiency", "refused"),
    [
        (lambda: bucket(300, 30), 300, 0.98, 0.02),
        (lambda: bucket(100, 10), 100, 0.98, 0.02),
        (lambda: Nginx(140, 12), 140, 0.98, 0.02),
        (lambda: Of(Window(70, 1.0)), 70, 0.97, 0.03),
        (lambda: Of(Sliding(200, 1.0)), 200, 0.95, 0.02),
        (lambda: Of(Window(2000, 1.0)), 2000, 0.97, 0.02),
        (lambda: Nginx(50, 0), 50, 0.70, 0.03),
    ],
    ids=[
        "300/s burst 30", "100/s burst 10", "nginx 140/s burst 12", "70/s windows",
        "200/s sliding", "2000/s windows", "nginx 50/s, spaced",
    ],
)  # fmt: skip
def test_late_timers_do_not_starve_the_pace(make, per_s, efficiency, refused):
    """Timers up to 15 ms late, as on a busy machine: what they make late is made up for."""
    requests = int(per_s * MINUTE_S)
    ran = Simulation(make(), requests, late_s=0.015).run()

    assert MINUTE_S / ran.took_s >= efficiency
    assert ran.refused / requests <= refused


class Free:
    """Lets everything through."""

    def admit(self, _now):
        return True

    def leave(self):
        pass


def test_a_quick_server_without_a_limit_is_soon_used():
    """Answers that come in half a millisecond: thousands a second well within the first one."""
    ran = Simulation(Free(), 5000, latency_s=0.0005, concurrency=64).run()

    assert ran.took_s <= 0.6


@pytest.mark.parametrize("burst", [20, 100, 600])
def test_a_quick_rise_has_few_refused_at_once(burst):
    """As quick, up to a limit: few are in flight when it is met, and refused."""
    ran = Simulation(bucket(200, burst), 10**9, latency_s=0.0005, for_s=3.0).run()

    assert ran.through_by(3.0) >= 0.9 * (200 * 3.0 + burst)
    assert ran.refused <= 15 + 0.05 * burst


class Both:
    """Two limiters at once; what the second one refuses counts for the first all the same."""

    def __init__(self, *limiters):
        self._limiters = limiters

    def admit(self, now):
        return all(limiter.admit(now) for limiter in self._limiters)

    def leave(self):
        pass


@pytest.mark.parametrize(
    ("limiter", "per_s"),
    [
        (Both(bucket(50, 50), Of(Window(1000, 60.0))), 1000 / 60),
        (Both(Of(Window(20, 1.0)), Of(Sliding(600, 60.0))), 10.0),
    ],
    ids=["50/s and 1,000 a minute", "20/s and 600 in 60 s sliding"],
)
def test_of_two_limits_the_tighter_one_is_found(limiter, per_s):
    """A gateway that counts by the second and by the minute: in ten minutes, little is lost."""
    requests = int(per_s * 10 * MINUTE_S)
    ran = Simulation(limiter, requests, latency_s=0.005).run()

    assert 10 * MINUTE_S / ran.took_s >= 0.93
    assert ran.refused / requests <= 0.05


@pytest.mark.parametrize(("places", "service_s"), [(16, 0.05), (8, 0.1), (32, 0.02), (1, 0.05)])
def test_a_limit_in_flight_is_found_and_used(places, service_s):
    """So many at once, for half a minute: nearly every place is used, and few are refused."""
    requests = int(30 * places / service_s)
    ran = Simulation(
        Of(InFlight(places)), requests, service_s=service_s, latency_s=0.001, concurrency=64
    ).run()

    assert 30 / ran.took_s >= 0.93
    assert ran.refused <= max(25, 0.02 * requests)


@pytest.mark.parametrize(("latency_s", "service_s"), [(0.002, 0.05), (0.002, 0.2), (0.03, 0.05)])
@pytest.mark.parametrize(
    ("make", "per_s", "efficiency"),
    [
        (lambda: bucket(100, 10), 100, 0.94),
        (lambda: bucket(100, 1), 100, 0.85),
        (lambda: Of(Window(60, 1.0)), 60, 0.95),
        (lambda: Of(Sliding(200, 1.0)), 200, 0.90),
        (lambda: Nginx(50, 0), 50, 0.90),
        (lambda: Nginx(200, 0), 200, 0.83),
        (lambda: Nginx(200, 20), 200, 0.93),
    ],
    ids=[
        "100/s burst 10", "100/s burst 1", "60/s windows", "200/s sliding", "nginx 50/s",
        "nginx 200/s", "nginx 200/s burst 20",
    ],
)  # fmt: skip
def test_a_slow_server_is_used_as_well(make, per_s, efficiency, latency_s, service_s):
    """429s come quickly, answers slowly: many are in flight, and no answer is waited for."""
    ran = Simulation(
        make(), per_s * 60, latency_s=latency_s, service_s=service_s, concurrency=256
    ).run()

    assert MINUTE_S / ran.took_s >= efficiency
    assert ran.refused / (per_s * 60) <= 0.04


@pytest.mark.parametrize(
    ("make", "per_s", "efficiency"),
    [
        (lambda: bucket(100, 20), 100, 0.93),
        (lambda: bucket(100, 1), 100, 0.72),
        (lambda: Nginx(50, 0), 50, 0.82),
        (lambda: Nginx(200, 0), 200, 0.80),
    ],
    ids=["100/s burst 20", "100/s burst 1", "nginx 50/s", "nginx 200/s"],
)
def test_a_distant_server_is_used_as_well(make, per_s, efficiency):
    """With 100 ms between us and it, a 429 is old news: the limit is found all the same."""
    ran = Simulation(make(), per_s * 60, latency_s=0.1, concurrency=64).run()

    assert MINUTE_S / ran.took_s >= efficiency
    assert ran.refused / (per_s * 60) <= 0.06


class Shut:
    """Lets nothing through."""

    def admit(self, _now):
        return False

    def leave(self):
        pass


@pytest.mark.parametrize("told", [{}, {"retry_after_s": 30.0}], ids=["untold", "told"])
@pytest.mark.parametrize("learned_per_s", [None, 100.0])
def test_a_gate_that_is_shut_at_the_start_says_nothing_of_the_limit(told, learned_per_s):
    """Another run has used up the window: once it is over, this one begins as any other."""
    limiter = Changing((30.0, Shut()), (float("inf"), bucket(100, 1000)))
    ran = Simulation(limiter, 1000, told=told, learned_per_s=learned_per_s).run()

    assert ran.took_s <= 30.0 + 20.0


def test_a_slow_limit_is_not_met_every_few_seconds():
    """2/s: once a leg may be long, it is so however slow its requests are."""
    ran = Simulation(bucket(2, 2), 10**9, for_s=300.0).run()
    late, refused = (ran.through_by(300.0) - ran.through_by(60.0)), ran.refused_by(60.0)

    assert late >= 0.97 * 2 * 240
    assert ran.refused - refused <= 0.04 * late


def test_few_requests_a_window_are_not_taken_for_spacing():
    """5 in each second: the first cycles look as if requests had to be spaced, the next do not."""
    ran = Simulation(Of(Window(5, 1.0)), 5 * 60).run()

    assert MINUTE_S / ran.took_s >= 0.95
    assert ran.refused / (5 * 60) <= 0.10


@pytest.mark.parametrize(
    "make", [lambda n: bucket(n, n), lambda n: Of(Window(n, 1.0))], ids=["bucket", "windows"]
)
def test_a_limit_that_changes_is_followed(make):
    """100/s, then 30/s, then 100/s again: both changes are noticed by themselves."""
    limiter = Changing((20.0, make(100)), (40.0, make(30)), (float("inf"), make(100)))
    requests = 20 * (100 + 30 + 100)
    ran = Simulation(limiter, requests).run()

    assert MINUTE_S / ran.took_s >= 0.90
    assert ran.refused / requests <= 0.03


def test_headers_spare_the_first_refusal():
    """A limit that every answer tells is kept to from the second request on."""
    ran = Simulation(Of(Window(60, 1.0)), 60 * 30, limits=[(60, 1.0)]).run()

    assert ran.refused <= 3
    assert 30 / ran.took_s >= 0.98


def test_the_second_night_begins_where_the_first_one_ended():
    """A run that knows the limit of an earlier one meets far fewer refusals at its beginning."""
    first = Simulation(bucket(100, 10), 2000).run()
    second = Simulation(bucket(100, 10), 2000, learned_per_s=100.0).run()

    assert second.refused < first.refused
    assert 20 / second.took_s >= 0.95


@pytest.mark.parametrize(
    ("per_s", "burst", "seed"), [(3.18, 91, 381), (4.57, 47, 503)], ids=["3.18/s", "4.57/s"]
)
def test_a_large_burst_hides_a_low_limit_for_a_while_only(per_s, burst, seed):
    """Many early 429s in a row count once each: the limit is not taken for a tenth of itself."""
    ran = Simulation(bucket(per_s, burst), int(per_s * MINUTE_S), seed=seed).run()

    assert ran.took_s <= 0.85 * MINUTE_S


KINDS = {
    "bucket": lambda per_s, burst: Of(Bucket(per_s, 1.0, burst)),
    "window": lambda per_s, _: Of(Window(max(1, round(per_s)), max(1, round(per_s)) / per_s)),
    "sliding": lambda per_s, _: Of(Sliding(max(1, round(per_s)), max(1, round(per_s)) / per_s)),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    magnitude=st.floats(-1.0, 12.2877),
    burst=st.integers(8, 100),  # fewer are spacing, which depends on timers: see above
    cap=st.sampled_from([None, 0.5]),
    seed=st.integers(0, 1000),
)
def test_any_limit_is_found_within_a_minute(kind, magnitude, burst, cap, seed):
    """0.5/s to 5,000/s, of any kind: most of it is used, and the cap is never passed."""
    per_s = 2.0**magnitude
    cap_per_s = None if cap is None else cap * per_s
    ideal_s = max(MINUTE_S, 40 / per_s)
    requests = max(1, int((cap_per_s or per_s) * ideal_s))
    ran = Simulation(KINDS[kind](per_s, burst), requests, seed=seed, cap_per_s=cap_per_s).run()

    slots_s = 4 / per_s  # the first limit has to be met before it is known
    # A first minute in which the pace was far beyond the limit, or of which few requests are all.
    assert (ideal_s + slots_s) / ran.took_s >= 0.80
    if cap_per_s is not None:
        assert ran.fastest_per_s <= cap_per_s

"""The pace where answers stay away, connections break, and a server becomes slower under load."""

from __future__ import annotations

import pytest

from bulkbind.sandbox.limiters import Bucket, InFlight, Sliding, Window
from tests.support.pacing_simulator import Nginx, Of, Simulation

MINUTE_S = 60.0
ENDLESS = 10**9
LONGEST_STANDSTILL_S = 2.0


class Free:
    """Lets everything through."""

    def admit(self, _now):
        return True

    def leave(self):
        pass


@pytest.mark.parametrize(
    ("make", "per_s", "service_s"),
    [
        (lambda: Of(Window(60, 1.0)), 60, 0.004),
        (lambda: Of(Window(80, 1.0)), 80, 0.004),
        (lambda: Of(Bucket(60, 1.0, 20)), 60, 0.004),
        (lambda: Of(Sliding(100, 1.0)), 100, 0.004),
        (lambda: Nginx(50, 0), 50, 0.004),
        (lambda: Of(InFlight(8)), 160, 0.05),
    ],
    ids=[
        "60/s windows",
        "80/s windows",
        "60/s burst 20",
        "100/s sliding",
        "nginx 50/s",
        "8 places",
    ],
)
@pytest.mark.parametrize(
    ("silent", "efficiency"), [(0.004, 0.90), (0.02, 0.85)], ids=["0.4 % silent", "2 % silent"]
)
def test_silence_and_resets_do_not_stop_the_pace(make, per_s, service_s, silent, efficiency):
    """Who never answers is waited for, but not by the others; 4 % of connections break."""
    ran = Simulation(
        make(), ENDLESS, service_s=service_s, for_s=MINUTE_S, concurrency=256, silent=silent,
        reset=0.04,
    ).run()  # fmt: skip

    assert ran.standstill_s() <= LONGEST_STANDSTILL_S
    assert ran.through_by(MINUTE_S) >= efficiency * per_s * MINUTE_S
    assert ran.refused <= 0.03 * len(ran.answers)


def test_a_server_that_was_silent_for_a_while_is_found_again():
    """Nothing is answered for three seconds: one request a second tries, then all go on."""
    limiter = Of(Bucket(100, 1.0, 20))
    ran = Simulation(
        limiter, ENDLESS, for_s=30.0, concurrency=256, silent=1.0, silent_at=(10.0, 13.0)
    ).run()
    while_silent = sum(10.0 < at <= 13.0 for at, _ in ran.answers)

    assert ran.standstill_s() <= LONGEST_STANDSTILL_S
    assert while_silent <= 20
    assert ran.through_by(30.0) >= 0.95 * 27 * 100


@pytest.mark.parametrize(("workers", "service_s"), [(8, 0.3), (4, 0.05), (32, 0.2)])
@pytest.mark.parametrize("power", [1.0, 2.0], ids=["in proportion", "worse than that"])
def test_no_more_are_in_flight_than_bring_more_answers(workers, service_s, power):
    """Beyond what a server works on at once, each request only makes all of them slower."""
    ran = Simulation(
        Free(), ENDLESS, service_s=service_s, workers=workers, slowing=power, concurrency=256,
        for_s=MINUTE_S,
    ).run()  # fmt: skip

    assert ran.through_by(MINUTE_S) >= 0.90 * workers / service_s * MINUTE_S
    assert ran.most_in_flight <= 4 * workers
    assert not ran.timed_out

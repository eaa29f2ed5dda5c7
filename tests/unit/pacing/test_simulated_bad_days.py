"""The pace where answers stay away, connections break, and a server becomes slower under load."""

from __future__ import annotations

from typing import Any

import pytest

from bulkbind.pacing import Left
from bulkbind.sandbox.limiters import Bucket, InFlight, Sliding, Window
from tests.support.pacing_simulator import Nginx, Of, Simulation, together

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
    ("make", "per_s", "service_s", "efficiency"),
    [
        (lambda: Of(Window(60, 1.0)), 60, 0.004, 0.97),
        (lambda: Of(Window(80, 1.0)), 80, 0.004, 0.97),
        (lambda: Of(Bucket(60, 1.0, 20)), 60, 0.004, 0.97),
        (lambda: Of(Sliding(100, 1.0)), 100, 0.004, 0.97),
        (lambda: Nginx(50, 0), 50, 0.004, 0.92),
        (lambda: Of(InFlight(8)), 160, 0.05, 0.90),
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
@pytest.mark.parametrize("silent", [0.004, 0.02], ids=["0.4 % silent", "2 % silent"])
def test_silence_and_resets_do_not_stop_the_pace(make, per_s, service_s, efficiency, silent):
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


@pytest.mark.parametrize(
    ("clients", "efficiency", "refused"), [(2, 0.85, 0.03), (4, 0.80, 0.05), (10, 0.65, 0.09)]
)
def test_clients_that_do_not_know_each_other_share_a_limit(clients, efficiency, refused):
    """Each with its share of 30 s of work; until the last one ends, over several limits."""
    means = [0.0, 0.0]
    makes: dict[int, Any] = {
        200: lambda: Of(Bucket(200, 1.0, 50)),
        120: lambda: Of(Window(120, 1.0)),
        150: lambda: Of(Sliding(150, 1.0)),
        199: lambda: Nginx(199, 20),
    }
    for per_s, make in makes.items():
        limiter, requests = make(), round(30 * per_s / clients)
        rans = together(
            *(
                Simulation(limiter, requests, service_s=0.005, starts_at=0.3 * number)
                for number in range(clients)
            )
        )
        last_s = max(ran.took_s + 0.3 * number for number, ran in enumerate(rans))
        answers = sum(len(ran.answers) for ran in rans)
        means[0] += 30.0 / last_s / len(makes)
        means[1] += sum(ran.refused for ran in rans) / answers / len(makes)

    assert means[0] >= efficiency, means
    assert means[1] <= refused, means


@pytest.mark.parametrize(
    ("told", "least"),
    [({}, 0.2), ({"limit": 60.0, "window_s": 1.0}, 0.8)],
    ids=["learned", "told in 429s"],
)
@pytest.mark.parametrize(
    ("left", "cap_per_s"), [(Left(0.5, 0.0), 0.0), (Left(1.0, 30.0), 0.0), (Left(0.5, 0.0), 40.0)]
)
def test_what_is_left_to_others_is_left_once(told, least, left, cap_per_s):
    """Beside a run that leaves as much, or keeps to `--rate`: what that one takes is no limit."""
    for seed in range(1, 6):
        limiter = Of(Window(60, 1.0))
        other = Simulation(limiter, 3000, seed=seed, told=told, left=left)
        if cap_per_s:
            other = Simulation(limiter, 3000, seed=seed, cap_per_s=cap_per_s)
        first, second = together(
            other,
            Simulation(limiter, 600, told=told, left=left, starts_at=0.6 + 0.1 * seed),
        )

        assert 600 / second.took_s >= least * 30, (seed, second.took_s)
        assert 3000 / first.took_s >= 2 * least * (cap_per_s or 30) / 2, (seed, first.took_s)


def test_another_program_that_takes_half_for_a_while_is_made_room_for():
    """100/s, 50/s for twenty seconds, and 100/s again: followed both ways, in the mean."""
    rates, seeds = (20.0, 40.0), range(4)

    class Shared:
        """A bucket of which another client takes half for a while."""

        def __init__(self):
            self._limiter, self._next_at = Of(Bucket(100, 1.0, 20)), rates[0]

        def admit(self, now):
            while self._next_at <= min(now, rates[1]):
                self._limiter.admit(self._next_at)
                self._next_at += 1 / 50
            return self._limiter.admit(now)

        def leave(self):
            self._limiter.leave()

    def run(seed):
        ran = Simulation(Shared(), ENDLESS, service_s=0.005, for_s=MINUTE_S, seed=seed).run()
        through = ran.through_by(MINUTE_S)
        return through, through - ran.through_by(rates[1] + 5.0), ran.refused / len(ran.answers)

    through, after, refused = (
        sum(figures) / len(seeds) for figures in zip(*map(run, seeds), strict=True)
    )

    assert through >= 0.93 * (40 * 100 + 20 * 50)
    assert after >= 0.9 * 15 * 100
    assert refused <= 0.02

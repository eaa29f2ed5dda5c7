"""The pace against limiters whose parameters are drawn, by kind; bounds for each kind's mean."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from bulkbind.sandbox.limiters import Bucket, InFlight, Sliding, Window
from tests.support.other_limiters import (
    ClockWindow,
    Counter,
    Layers,
    PlacesAndRate,
    RestartedWindow,
    StrictLog,
)
from tests.support.pacing_simulator import Admits, Ban, Changing, Nodes, Of, Shed, Simulation

DRAWS = 3
FIRST_S, ALL_S = 60.0, 180.0
STEP_S = 20.0
"""A limit that changes does so at multiples of this."""


class Drawn(NamedTuple):
    """A limiter, what it lets through per second, and the way to it."""

    per_s: float
    limiter: Admits
    service_s: float = 0.02
    latency_s: float = 0.002
    steps: tuple[float, ...] = ()
    """What it lets through in each `STEP_S`, if that changes."""

    def through(self, begin: float, end: float) -> float:
        """Return how many requests it lets through between two moments."""
        if not self.steps:
            return self.per_s * (end - begin)
        return STEP_S * sum(self.steps[int(begin / STEP_S) : int(end / STEP_S)])


def per_s(draw):
    """Return a rate of 20/s to 140/s."""
    return draw.randrange(20, 141)


def bucket(draw):
    """Return a token bucket with a burst."""
    rate = per_s(draw)
    return Drawn(rate, Of(Bucket(rate, 1.0, draw.randrange(10, 100))))


def window(draw):
    """Return windows of a second."""
    rate = per_s(draw)
    return Drawn(rate, Of(Window(rate, 1.0)))


def clock_window(draw):
    """Return windows of a second or ten by the server's clock."""
    rate, window_s = per_s(draw), draw.choice([1.0, 10.0])
    return Drawn(rate, ClockWindow(int(rate * window_s), window_s, draw.random()))


def sliding(draw):
    """Return a sliding second."""
    rate = per_s(draw)
    return Drawn(rate, Of(Sliding(rate, 1.0)))


def counter(draw):
    """Return a sliding counter."""
    rate = per_s(draw)
    return Drawn(rate, Counter(rate, 1.0, draw.random()))


def spaced(draw):
    """Return a gateway that wants requests spaced."""
    rate = per_s(draw)
    return Drawn(rate, Of(Bucket(rate, 1.0, 1)))


def ban(draw):
    """Return a limit whose every 429 closes for a second or two."""
    rate, limiter, *_ = draw.choice([bucket, window])(draw)
    return Drawn(rate, Ban(limiter, draw.uniform(1.0, 2.0)))


def penalty(draw):
    """Return a limit at which refused requests count, or begin the window anew."""
    rate = per_s(draw)
    return Drawn(rate, draw.choice([StrictLog, RestartedWindow])(rate, 1.0))


def places(draw):
    """Return a limit on requests in flight, at 50 ms each."""
    count = draw.randrange(2, 20)
    return Drawn(count / 0.05, Of(InFlight(count)), service_s=0.05)


def few_places(draw):
    """Return two to five places."""
    count, service_s = draw.randrange(2, 6), draw.uniform(0.05, 0.2)
    return Drawn(count / service_s, Of(InFlight(count)), service_s=service_s)


def slow_places(draw):
    """Return places at a server that takes 400 ms for each request."""
    count = draw.randrange(10, 24)
    return Drawn(count / 0.4, Of(InFlight(count)), service_s=0.4)


def places_and_rate(draw):
    """Return a limit on requests in flight, which are more than the rate beside it needs."""
    rate = per_s(draw)
    count = max(3, round(1.6 * rate * 0.05))
    return Drawn(rate, PlacesAndRate(count, Of(Window(rate, 1.0))), service_s=0.05)


def layers(draw):
    """Return a bucket behind windows of a minute, which are tighter."""
    rate = draw.randrange(20, 60)
    wide = Of(Bucket(2 * rate, 1.0, 2 * rate))
    return Drawn(rate, Layers(wide, ClockWindow(10 * rate, 10.0, draw.random())))


def distant(draw):
    """Return a bucket or windows 50 to 200 ms away."""
    rate, limiter, *_ = draw.choice([bucket, window])(draw)
    return Drawn(rate, limiter, latency_s=draw.uniform(0.05, 0.2))


def changing(draw):
    """Return a limit that is another one every forty seconds."""
    make = draw.choice([lambda n: Of(Bucket(n, 1.0, 20)), lambda n: Of(Window(n, 1.0))])
    rates = [draw.choice([35, 100, 140]) for _ in range(5)]
    parts = [(40.0 * (n + 1), make(rate)) for n, rate in enumerate(rates)]
    return Drawn(0.0, Changing(*parts), steps=tuple(rate for rate in rates for _ in range(2)))


def nodes(draw):
    """Return three nodes, each with a limit of its own, in turn."""
    rate = per_s(draw)
    return Drawn(3 * rate, Nodes(*(Of(Window(rate, 1.0)) for _ in range(3))))


def shed(draw):
    """Return a bucket behind something that refuses one in a hundred by chance."""
    rate, limiter, *_ = bucket(draw)
    return Drawn(rate, Shed(limiter, 0.01, draw.randrange(1000)))


def shed_windows(draw):
    """Return windows of a second behind the same, two in a hundred."""
    rate, limiter, *_ = window(draw)
    return Drawn(rate, Shed(limiter, 0.02, draw.randrange(1000)))


BOUNDS = {
    bucket: (0.97, 0.02, 0.98, 0.01),
    window: (0.97, 0.02, 0.98, 0.0075),
    clock_window: (0.97, 0.02, 0.96, 0.015),
    sliding: (0.97, 0.015, 0.98, 0.0075),
    counter: (0.92, 0.025, 0.97, 0.01),
    spaced: (0.88, 0.03, 0.90, 0.025),
    ban: (0.50, 0.03, 0.74, 0.005),
    penalty: (0.68, 0.025, 0.87, 0.01),
    places: (0.93, 0.01, 0.94, 0.005),
    few_places: (0.95, 0.01, 0.95, 0.005),
    slow_places: (0.95, 0.01, 0.96, 0.005),
    places_and_rate: (0.95, 0.02, 0.95, 0.02),
    layers: (0.88, 0.04, 0.92, 0.015),
    distant: (0.94, 0.04, 0.96, 0.01),
    changing: (0.90, 0.02, 0.91, 0.02),
    nodes: (0.85, 0.03, 0.85, 0.03),
    shed: (0.95, 0.045, 0.96, 0.03),
    shed_windows: (0.85, 0.045, 0.85, 0.04),
}
"""Of a kind's mean: efficiency and refused share in the first minute, and from then on."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOUNDS, ids=lambda kind: kind.__name__)
def test_a_drawn_limit_is_found_and_used(kind):
    """Three minutes against each: most of the limit is used, and few requests are refused."""
    draw, means = random.Random(22), [0.0] * 4
    for seed in range(DRAWS):
        drawn = kind(draw)
        ran = Simulation(
            drawn.limiter, 10**9, seed=seed, service_s=drawn.service_s, latency_s=drawn.latency_s,
            concurrency=64, for_s=ALL_S,
        ).run()  # fmt: skip
        early, late = ran.through_by(FIRST_S), ran.through_by(ALL_S) - ran.through_by(FIRST_S)
        early_no, late_no = ran.refused_by(FIRST_S), ran.refused - ran.refused_by(FIRST_S)
        figures = (
            early / drawn.through(0.0, FIRST_S), early_no / (early + early_no),
            late / drawn.through(FIRST_S, ALL_S), late_no / (late + late_no),
        )  # fmt: skip
        means = [mean + figure / DRAWS for mean, figure in zip(means, figures, strict=True)]
    bounds = BOUNDS[kind]

    assert means[0] >= bounds[0], means
    assert means[1] <= bounds[1], means
    assert means[2] >= bounds[2], means
    assert means[3] <= bounds[3], means

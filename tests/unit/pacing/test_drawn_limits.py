"""The pace against limiters whose parameters are drawn, by kind; bounds for each kind's mean."""

from __future__ import annotations

import random

import pytest

from bulkbind.sandbox.limiters import Bucket, InFlight, Sliding, Window
from tests.support.pacing_simulator import Ban, Nodes, Of, Shed, Simulation

DRAWS = 3


def per_s(draw):
    """Return a rate of 20/s to 140/s."""
    return draw.randrange(20, 141)


def bucket(draw):
    """Return a token bucket with a burst."""
    rate = per_s(draw)
    return rate, Of(Bucket(rate, 1.0, draw.randrange(10, 100)))


def window(draw):
    """Return windows of a second."""
    rate = per_s(draw)
    return rate, Of(Window(rate, 1.0))


def sliding(draw):
    """Return a sliding second."""
    rate = per_s(draw)
    return rate, Of(Sliding(rate, 1.0))


def spaced(draw):
    """Return a gateway that wants requests spaced."""
    rate = per_s(draw)
    return rate, Of(Bucket(rate, 1.0, 1))


def ban(draw):
    """Return a limit whose every 429 closes for a second or two."""
    rate, limiter = draw.choice([bucket, window])(draw)
    return rate, Ban(limiter, draw.uniform(1.0, 2.0))


def places(draw):
    """Return a limit on requests in flight, at 50 ms each."""
    count = draw.randrange(2, 20)
    return count / SERVICE_S, Of(InFlight(count))


def nodes(draw):
    """Return three nodes, each with a limit of its own, in turn."""
    rate = per_s(draw)
    return 3 * rate, Nodes(*(Of(Window(rate, 1.0)) for _ in range(3)))


def shed(draw):
    """Return a bucket behind something that refuses one in a hundred by chance."""
    rate, limiter = bucket(draw)
    return rate, Shed(limiter, 0.01, draw.randrange(1000))


def shed_windows(draw):
    """Return windows of a second behind the same, two in a hundred."""
    rate, limiter = window(draw)
    return rate, Shed(limiter, 0.02, draw.randrange(1000))


SERVICE_S = 0.05
BOUNDS = {
    bucket: (0.97, 0.02, 0.98, 0.01),
    window: (0.97, 0.02, 0.98, 0.0075),
    sliding: (0.97, 0.015, 0.98, 0.0075),
    spaced: (0.88, 0.03, 0.90, 0.025),
    ban: (0.50, 0.03, 0.74, 0.005),
    places: (0.93, 0.01, 0.94, 0.005),
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
        rate, limiter = kind(draw)
        service_s = SERVICE_S if kind is places else 0.02
        simulation = Simulation(
            limiter, 10**9, seed=seed, service_s=service_s, concurrency=64, for_s=180.0
        )
        ran = simulation.run()
        early, late = ran.through_by(60.0), ran.through_by(180.0) - ran.through_by(60.0)
        early_no, late_no = ran.refused_by(60.0), ran.refused - ran.refused_by(60.0)
        figures = (
            early / (60 * rate), early_no / (early + early_no),
            late / (120 * rate), late_no / (late + late_no),
        )  # fmt: skip
        means = [mean + figure / DRAWS for mean, figure in zip(means, figures, strict=True)]
    bounds = BOUNDS[kind]

    assert means[0] >= bounds[0], means
    assert means[1] <= bounds[1], means
    assert means[2] >= bounds[2], means
    assert means[3] <= bounds[3], means

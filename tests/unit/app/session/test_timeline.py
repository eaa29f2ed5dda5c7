"""The timeline of a sending: few numbers, whatever its length, and none lost."""

from __future__ import annotations

import pytest

from bulkbind.app.session.progress import LATENCY_EDGES_MS, MOST_POINTS, Timeline
from bulkbind.model import Accepted, Attempt, Claim, Device, Outcome, Status
from tests.support.fake_clock import FakeClock


class FakeGauge:
    """A pace turned by hand."""

    def __init__(self) -> None:
        self.pace: float | None = None
        self.refused = 0

    def per_s(self):
        return self.pace

    def throttled(self):
        return self.refused


def settlements(count, took_s=0.05):
    """Return as many outcomes."""
    attempt = Attempt(
        Accepted("d", "t"),
        "0",
        "success",
        trace_id="trace",
        sent_at=0.0,
        took_s=took_s,
        http_status=200,
    )
    outcome = Outcome(Status.BOUND)
    return [(Claim(n, Device("u", f"SN{n}"), 1, last=attempt), outcome) for n in range(count)]


@pytest.fixture
def made():
    """Return a timeline, its gauge and its clock."""
    clock, gauge = FakeClock(), FakeGauge()
    return Timeline(gauge, clock), gauge, clock  # type: ignore[arg-type]  # what is asked of it


def test_each_second_has_its_number(made):
    """What is settled counts for its second; a gap holds nothing settled, and the last pace."""
    timeline, gauge, clock = made
    timeline.settled(settlements(3))
    gauge.pace, gauge.refused = 40.0, 2
    clock.advance(0.5)
    timeline.settled(settlements(1))
    clock.advance(3)
    gauge.pace = 20.0
    timeline.settled(settlements(5))

    part = timeline.part()
    assert part["settled"] == [4, 0, 0, 5]
    assert part["pace_per_s"] == [40.0, 40.0, 40.0, 20.0]
    assert part["throttled"] == [2, 0, 0, 0]
    assert part["step_s"] == 1.0


@pytest.mark.parametrize("seconds", [MOST_POINTS - 1, MOST_POINTS, 1_000, 100_000])
def test_a_long_run_has_as_few_points(made, seconds):
    """However long it takes, there are 120 points at most, all as long, and nothing is lost."""
    timeline, gauge, clock = made
    for at in range(0, seconds, max(1, seconds // 500)):
        clock.advance(at - clock.monotonic())
        gauge.refused += 1
        timeline.settled(settlements(2))
    clock.advance(seconds - clock.monotonic())
    timeline.settled(settlements(1))

    part = timeline.part()
    told = len(range(0, seconds, max(1, seconds // 500)))
    assert sum(part["settled"]) == 2 * told + 1
    assert sum(part["throttled"]) == told
    assert len(part["settled"]) == len(part["pace_per_s"]) == len(part["throttled"]) <= MOST_POINTS
    assert (
        (len(part["settled"]) - 1) * part["step_s"]
        <= seconds
        < len(part["settled"]) * part["step_s"]
    )


def test_latency_goes_into_classes(made):
    """10 ms belong to the first class, two minutes to the last, and silence to none."""
    timeline, _, _ = made
    silent = Attempt(
        Accepted("d", "t"),
        "timeout",
        "no answer",
        trace_id="trace",
        sent_at=0.0,
        took_s=30.0,
        http_status=None,
    )
    timeline.settled(settlements(2, took_s=0.010))
    timeline.settled(settlements(3, took_s=120.0))
    timeline.settled([(Claim(9, Device("u", "SN"), 1, last=silent), Outcome(Status.FAILED))])
    timeline.settled([(Claim(9, Device("u", "SN"), 1), Outcome(Status.FAILED))])

    latency = timeline.part()["latency"]
    assert (latency[0], latency[-1], sum(latency)) == (2, 3, 5)
    assert len(latency) == len(LATENCY_EDGES_MS) + 1

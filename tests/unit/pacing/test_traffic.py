from __future__ import annotations

import pytest

from bulkbind.model import Throttled
from bulkbind.pacing.flight import Flight
from bulkbind.pacing.search import Pace
from bulkbind.pacing.traffic import SILENT_IN_A_ROW, Traffic


def new(cap_per_s=None):
    """Return the traffic of a run, and its gate."""
    traffic = Traffic(0.0, Pace(0.0, cap_per_s), Flight(0.0, 64))
    return traffic, traffic.gate("", 0.0)


def unanswered(traffic, permit, now, *, is_away=False):
    """Let a request end without an answer."""
    out, was_silent = traffic.ended(permit, now)
    traffic.unanswered(permit, out, now, was_silent=was_silent, is_away=is_away)


def accepted(traffic, permit, now):
    """Let a request be accepted."""
    out, _ = traffic.ended(permit, now)
    traffic.accepted(permit, out, now)


def test_several_silences_in_a_row_are_a_server_that_is_away():
    """One silent request is a device's doubt; five in a row are more."""
    traffic, gate = new()
    permits = [traffic.sent(gate, 0.5) for _ in range(SILENT_IN_A_ROW)]
    for permit in permits[1:]:
        unanswered(traffic, permit, 1.0)
    was_away = traffic.server.is_away
    unanswered(traffic, permits[0], 1.0)

    assert not was_away
    assert traffic.server.is_away
    assert traffic.clear_at(1.0) == 1.5


@pytest.mark.parametrize(("is_away", "through"), [(False, 2), (True, 1)], ids=["cut", "away"])
def test_what_breaks_off_was_let_through(is_away, through):
    """Only what met nobody did not count at a limit."""
    traffic, gate = new()
    accepted(traffic, traffic.sent(gate, 0.0), 0.0)
    unanswered(traffic, traffic.sent(gate, 0.1), 0.2, is_away=is_away)

    assert gate.through == through


def test_a_server_that_goes_away_behind_429s_is_tried_soon_at_first():
    """The waits grow with the tries that met nobody, and with no other."""
    traffic, gate = new()
    for _ in range(12):
        permit = traffic.sent(gate, 1.0)
        out, _ = traffic.ended(permit, 1.0)
        traffic.throttled(permit, out, 1.0, Throttled())
    waits = []
    for _ in range(4):
        unanswered(traffic, traffic.sent(gate, 1.0), 1.0, is_away=True)
        waits.append(traffic.clear_at(1.0) - 1.0)

    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_a_server_that_was_away_shows_no_limit():
    """When it is back, the pace is what it was."""
    traffic, gate = new(50.0)
    unanswered(traffic, traffic.sent(gate, 0.5), 1.0, is_away=True)
    accepted(traffic, traffic.sent(gate, 1.5), 1.6)

    assert not traffic.is_closed
    assert traffic.pace.per_s == 50.0
    assert traffic.pace.limit_per_s() is None


def test_429s_before_a_server_goes_away_show_no_limit_either():
    """What closed the gate is forgotten while nobody is there."""
    traffic, gate = new()
    permit = traffic.sent(gate, 1.0)
    out, _ = traffic.ended(permit, 1.0)
    traffic.throttled(permit, out, 1.0, Throttled())
    unanswered(traffic, traffic.sent(gate, 1.1), 1.1, is_away=True)
    accepted(traffic, traffic.sent(gate, 90.0), 90.1)

    assert not traffic.is_closed
    assert traffic.pace.limit_per_s() is None

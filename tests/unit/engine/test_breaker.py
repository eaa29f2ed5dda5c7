"""The breaker: how many failures stop a run."""

from __future__ import annotations

import pytest

from bulkbind.engine import Breaker, StopSignal
from bulkbind.errors import UsageError
from bulkbind.model import Claim, Device, Outcome, Status
from bulkbind.settings import load_settings


def ended(bound, failed):
    """Return outcomes."""
    statuses = [Status.BOUND] * bound + [Status.FAILED] * failed
    return [(Claim(n, Device("u", f"S{n}"), 1), Outcome(s)) for n, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("limit", "groups", "stops"),
    [
        (None, [(0, 1000)], False),
        ("3", [(0, 2), (1000, 0)], False),
        ("3", [(500, 2), (0, 1)], True),
        ("10%", [(0, 99)], False),
        ("10%", [(0, 99), (0, 1)], True),
        ("10%", [(90, 9), (0, 1)], True),
        ("10%", [(91, 9)], False),
        ("0.5%", [(398, 1)], False),
        ("0.5%", [(398, 2)], True),
    ],
    ids=str,
)
async def test_so_many_failures_stop_a_run(limit, groups, stops):
    """A number counts at once, a share once a hundred devices have ended."""
    stop = StopSignal()
    breaker = Breaker(stop, limit)
    for bound, failed in groups:
        breaker.settled(ended(bound, failed))

    assert stop.is_set is stops
    if stop.reason is not None:
        assert stop.reason.exit_code == 3
        assert f"--max-failures {limit}" in stop.reason.text


@pytest.mark.parametrize("text", ["0", "0%", "100%", "-1", "1.5", "many", "5 of 10", "", "%"])
def test_what_is_no_number_of_failures_is_refused(text):
    """The error shows how both forms are written."""
    with pytest.raises(UsageError, match=r"50, or 5% of the devices|less than 100%"):
        load_settings(None, {"max_failures": text})


@pytest.mark.parametrize(("text", "value"), [("50", "50"), (" 5 % ", "5%"), ("2.5%", "2.5%")])
def test_a_number_of_failures_is_written_one_way(text, value):
    """Blanks do not matter."""
    assert load_settings(None, {"max_failures": text}).send.max_failures == value

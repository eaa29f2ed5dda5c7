"""How many processes send."""

from __future__ import annotations

import pytest

from bulkbind.app.session.workers import FEW_ROWS, MOST_AUTO, SLOW_PER_S, workers_of
from bulkbind.settings import SendSettings

MANY = 1_000_000


@pytest.mark.parametrize(
    ("rows", "pace_per_s", "cores", "number"),
    [
        (MANY, None, 4, 3),
        (MANY, None, 64, MOST_AUTO),
        (MANY, None, 2, 1),
        (MANY, None, 1, 1),
        (MANY, SLOW_PER_S, 4, 3),
        (MANY, SLOW_PER_S - 1, 4, 1),
        (FEW_ROWS, None, 4, 3),
        (FEW_ROWS - 1, None, 4, 1),
    ],
)
def test_auto_is_one_unless_more_are_worth_it(rows, pace_per_s, cores, number):
    """One for few rows or a slow pace; else one a core, but for the driver's, up to a most."""
    send = SendSettings(workers="auto")

    assert workers_of(send, rows, pace_per_s, cores) == number


def test_a_number_is_meant():
    """Whoever names one gets it, however few rows there are."""
    assert workers_of(SendSettings(workers=3), 1, 1.0, 1) == 3


def test_auto_counts_the_cores_of_this_machine():
    """At least the one that runs this."""
    assert 1 <= workers_of(SendSettings(workers="auto"), MANY, None) <= MOST_AUTO

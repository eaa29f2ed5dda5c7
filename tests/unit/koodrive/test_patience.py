"""How long an answer is waited for: at least the floor, and longer where answers are slow."""

from __future__ import annotations

import pytest

from bulkbind.koodrive.patience import IN_A_ROW, LONGEST_S, Patience


def heard(floor_s, *answers):
    """Return what is waited after answers that took so long."""
    patience = Patience(floor_s)
    for number, took_s in enumerate(answers):
        patience.answered(float(number), took_s)
    return patience


@pytest.mark.parametrize(
    ("floor_s", "answers", "least_s", "most_s"),
    [
        pytest.param(15.0, [], 15.0, 15.0, id="before any answer"),
        pytest.param(15.0, [0.05] * 50, 15.0, 15.0, id="quick answers"),
        pytest.param(15.0, [2.0] * 50, 15.0, 15.0, id="four times as long as answers is less"),
        pytest.param(15.0, [10.0] * 50, 40.0, 45.0, id="slow answers"),
        pytest.param(15.0, [1.0, 9.0] * 50, 60.0, 100.0, id="answers that differ much"),
        pytest.param(15.0, [100.0] * 50, LONGEST_S, LONGEST_S, id="no more than that"),
        pytest.param(1.0, [3.0] * 50, 1.0, 1.0, id="a short setting is meant"),
        pytest.param(1.0, [10.0] * 50, 40.0, 45.0, id="but not where answers take very long"),
        pytest.param(300.0, [100.0] * 50, 300.0, 300.0, id="a setting above that"),
        pytest.param(15.0, [10.0] * 50 + [0.05] * 100, 15.0, 15.0, id="quick again"),
        pytest.param(15.0, [0.05] * 250 + [20.0] + [0.05] * 40, 15.0, 15.0, id="one slow answer"),
    ],
)
def test_the_wait_follows_the_answers(floor_s, answers, least_s, most_s):
    """Several times as long as they take, and their spread counts."""
    assert least_s <= heard(floor_s, *answers).seconds() <= most_s


def test_a_server_slower_than_the_wait_is_heard_at_last():
    """No answer comes in time, so none can be learned from; the wait is doubled, twice."""
    patience = Patience(15.0)
    waits = []
    for number in range(4 * IN_A_ROW):
        waits.append(patience.seconds())
        patience.timed_out(float(number))
    assert waits == [15.0] * IN_A_ROW + [30.0] * IN_A_ROW + [60.0] * 2 * IN_A_ROW

    patience.answered(100.0, 0.1)
    patience.timed_out(99.0)

    assert patience.seconds() == 15.0


def test_silent_requests_among_answered_ones_change_nothing():
    """They say nothing of how long answers take."""
    patience = heard(15.0, *[0.1] * 20)
    for number in range(100):
        patience.timed_out(10.0)
        patience.answered(100.0 + number, 0.1)

    assert patience.seconds() == 15.0

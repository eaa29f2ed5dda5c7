"""Rates and times left, as a person reads them."""

from __future__ import annotations

import pytest

from bulkbind.model import Told, Waits, WorkerState
from bulkbind.model.wording import counted
from bulkbind.report.measures import (
    left_s,
    pace_text,
    rate_over_s,
    rate_text,
    workers_at_end,
    workers_now,
)


@pytest.mark.parametrize(
    ("per_s", "text"),
    [
        (0.083, "5/min"),
        (5 / 60, "5/min"),
        (57.9, "57.9/s"),
        (40.0, "40/s"),
        (99.96, "100/s"),
        (1234.5, "1,234/s"),
        (1.0, "1/s"),
        (0.96, "1/s"),
        (0.9, "54/min"),
        (1 / 60, "1/min"),
        (0.0083, "29.9/h"),
        (0.0, "0/s"),
    ],
)
def test_a_rate_is_told_in_a_unit_in_which_it_is_something(per_s, text):
    """Nobody divides one by 0.083 to know how long a row takes."""
    assert rate_text(per_s) == text


@pytest.mark.parametrize(
    ("per_s", "told_over_s", "text"),
    [(5.0, 60.0, "300/min"), (5.0, 10.0, "5/s"), (1.0, 3600.0, "3,600/h"), (0.01, 60.0, "36/h")],
)
def test_a_limit_is_told_as_the_gateway_told_it(per_s, told_over_s, text):
    """A limit per minute stays one, however high it is; and so is the rate beside it."""
    told = Told(per_s * told_over_s, told_over_s)
    shown = pace_text(per_s, 0.995 * per_s, "told", 1.0, None, told=told)
    assert shown.startswith(f"{text} of {text} (told)")


@pytest.mark.parametrize(
    ("rows", "per_s", "allowed", "waits", "expected"),
    [
        pytest.param(600, 60.0, None, Waits(), 10.0, id="no limit"),
        pytest.param(600, 100.0, 60.0, Waits(), 10.0, id="a burst does not last"),
        pytest.param(600, 30.0, 60.0, Waits(), 20.0, id="slower than allowed"),
        pytest.param(3, 60.0, 60.0, Waits(3, 12.0, 15.0), 12.0, id="the last ones wait"),
        pytest.param(610, 60.0, 60.0, Waits(10, 3.0, 5.0), 15.0, id="the last will wait, too"),
        pytest.param(610, 60.0, 60.0, Waits(10, 30.0, 50.0), 60.0, id="longer than all takes"),
        pytest.param(600, 0.0, 60.0, Waits(1, 5.0, 5.0), None, id="nothing moves"),
        pytest.param(0, 60.0, 60.0, Waits(), None, id="nothing is left"),
        pytest.param(600, 0.0, 60.0, Waits(closed_s=5.0), 15.0, id="closed for a known time"),
        pytest.param(600, 9.0, 60.0, Waits(closed_s=5.0), 15.0, id="a burst that was refused"),
        pytest.param(600, 30.0, 60.0, Waits(closed_s=0.5), 20.5, id="closed for a moment"),
    ],
)
def test_the_time_left_is_that_of_the_slower(rows, per_s, allowed, waits, expected):
    """Of what is done and what is allowed; and it ends no sooner than what waits."""
    assert left_s(rows, per_s, allowed, waits) == expected


@pytest.mark.parametrize(
    ("rows", "since_s", "expected"),
    [
        pytest.param(4, 0.0, 2.0, id="one has just ended"),
        pytest.param(4, 0.4, 1.6, id="the next is nearly due"),
        pytest.param(4, 9.0, 1.5, id="the next is overdue, and no more than that"),
        pytest.param(1, 0.5, 0.0, id="the last one is due"),
    ],
)
def test_what_has_passed_since_the_last_row_is_part_of_the_next(rows, since_s, expected):
    """At 2/s it makes half a second, which is all of the last seconds that are left."""
    assert left_s(rows, 3.0, 2.0, since_s=since_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("per_s", "over_s", "expected"),
    [
        pytest.param(0.75, 4.0, 10.0, id="the fourth row is about to end"),
        pytest.param(0.5, 4.0, 10 / 0.75, id="slower all the same"),
        pytest.param(0.75, 400.0, 10 / 0.7525, id="measured for long"),
        pytest.param(0.0, 0.5, 10.0, id="none has had the time to end"),
        pytest.param(0.0, 4.0, None, id="none has ended"),
    ],
)
def test_a_rate_of_few_rows_is_not_known_to_a_row(per_s, over_s, expected):
    """Three rows in four seconds are what 1/s allows, too."""
    assert left_s(10, per_s, 1.0, over_s=over_s) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("per_s", "over_s"), [(100.0, 5.0), (4.0, 5.0), (3.0, 10.0), (1.0, 60.0), (0.0, 60.0)]
)
def test_a_rate_is_measured_over_the_shortest_time_with_enough_rows(per_s, over_s):
    """A quick run is followed quickly, and a slow one is not 0/s between two rows."""
    assert rate_over_s(lambda seconds: int(per_s * seconds)) == over_s


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 list calls"), (1, "1 list call"), (2000, "2,000 list calls")]
)
def test_one_thing_is_told_in_the_singular(count, text):
    """However many there are, as a person would say it."""
    assert counted(count, "list calls") == text


@pytest.mark.parametrize(
    ("per_s", "allowed", "text"),
    [
        (57.9, 60.0, "57.9/s of 60/s (told)  ·  8 s so far  ·  about 2 min left"),
        (0.05, 5 / 60, "3/min of 5/min (told)  ·  8 s so far  ·  about 2 min left"),
        (1.2, 5 / 60, "72/min of 5/min (told)  ·  8 s so far  ·  about 2 min left"),
        (5 / 60, 40.0, "5/min of 40/s (told)  ·  8 s so far  ·  about 2 min left"),
        (0.0, 40.0, "0/s of 40/s (told)  ·  8 s so far  ·  about 2 min left"),
        (57.9, None, "57.9/s; told  ·  8 s so far  ·  about 2 min left"),
    ],
)
def test_a_pace_is_told_in_the_unit_of_its_limit(per_s, allowed, text):
    """Unless there it would be nearly nothing."""
    assert pace_text(per_s, allowed, "told", 8.0, 130.0) == text


def worker(number, per_s=1000.0, lost=""):
    """Return how a worker is doing."""
    in_hand = 0 if lost else 64
    return WorkerState(
        number=number, pid=4000 + number, is_alive=not lost, settled=1000 * number,
        in_hand=in_hand, per_s=per_s, lost=lost,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "now", "at_end"),
    [
        pytest.param(
            [worker(1, 2310.4), worker(2, 2290.0)],
            "2 sending at 2,310/s and 2,290/s; 128 rows in hand",
            "2 workers with 1,000 and 2,000 rows", id="two",
        ),
        pytest.param(
            [worker(1, lost="gone") | {"host": "node7"}],
            "0 of 1 sending; 0 rows in hand; worker 1 on node7 lost: gone",
            "1 worker with 1,000 rows; worker 1 on node7 lost: gone", id="elsewhere",
        ),
        pytest.param(
            [worker(1)], "1 sending at 1,000/s; 64 rows in hand", "1 worker with 1,000 rows",
            id="one",
        ),
        pytest.param(
            [worker(1), worker(2, lost="killed"), worker(3)],
            "2 of 3 sending at 1,000/s and 1,000/s; 128 rows in hand; worker 2 lost: killed",
            "3 workers with 1,000, 2,000 and 3,000 rows; worker 2 lost: killed", id="one lost",
        ),
        pytest.param(
            [
                *(worker(n) | {"in_hand": 0, "waits": "it is slow"} for n in (1, 2)),
                worker(3, lost="gone"),
            ],
            "the run's own process sends alone, as it is slow; 2 waiting; worker 3 lost: gone",
            "3 workers with 1,000, 2,000 and 3,000 rows; worker 3 lost: gone", id="waiting",
        ),
        pytest.param(
            [worker(1) | {"waits": "the limit is 9/s"}],
            "1 sending at 1,000/s; 64 rows in hand", "1 worker with 1,000 rows", id="not yet",
        ),
        pytest.param(
            [worker(n, lost="gone") for n in range(1, 5)],
            "0 of 4 sending; 0 rows in hand; 2 more lost; worker 3 lost: gone; worker 4 lost: gone",
            "4 workers with 1,000, 2,000, 3,000 and 4,000 rows; 2 more lost; worker 3 lost: gone; "
            "worker 4 lost: gone", id="all lost",
        ),
        pytest.param(
            [worker(n, 35.0 + n) for n in range(1, 65)],
            "64 sending at 36/s to 99/s each; 4,096 rows in hand",
            "64 workers with 1,000 to 64,000 rows each", id="many",
        ),
    ],
)  # fmt: skip
def test_workers_are_told_in_a_line(workers, now, at_end):
    """How many, how fast, what they have, and who was lost and why; many by their extremes."""
    assert workers_now(workers) == now
    assert workers_at_end(workers) == at_end

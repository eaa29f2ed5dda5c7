"""Run ids: file names and folders that begin with them sort by time."""

from __future__ import annotations

from bulkbind.app.run import new_id
from tests.support.fake_clock import FakeClock


def test_ids_of_one_second_sort_by_their_time():
    """Fifty runs, 20 ms apart: in the order of their ids."""
    clock = FakeClock()
    made = []
    for _ in range(50):
        made.append(new_id(clock))
        clock.advance(0.02)

    assert made == sorted(made)
    assert {name[:16] for name in made} == {"20261123-120000-"}

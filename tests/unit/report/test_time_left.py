"""The time left as `status` told it, beside what came of it: recorded once of each kind of day."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bulkbind.model import Waits
from bulkbind.report.measures import left_s

RECORDED = json.loads(Path(__file__).with_name("time_left.json").read_text())
"""Kind -> samples by `bad_days status`: what was left indeed, and the arguments of `left_s`."""
MOST_OFF, FLOOR_S = 0.15, 3.0
"""As there: to the second is exact enough."""


@pytest.mark.parametrize("kind", RECORDED)
def test_what_is_told_to_be_left_is_left(kind):
    """Of each sample after the first five seconds."""
    off = []
    for true_s, rows, per_s, allowed_per_s, waits, over_s, since_s in RECORDED[kind]:
        told_s = left_s(rows, per_s, allowed_per_s, Waits(*waits), over_s=over_s, since_s=since_s)
        assert told_s is not None
        off.append(abs(told_s - true_s) / max(true_s, FLOOR_S))

    assert len(off) > 2
    assert max(off) <= MOST_OFF

"""Ten nights of an inbox that grows, as processes, each with a fault of its own.

The longer form is a command: `python -m tests.campaigns.months`.
"""

from __future__ import annotations

import pytest

from tests.campaigns.ten_nights import KILLED, Nights


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_nights_leave_every_row_of_every_file_accounted_for(tmp_path):
    """Whatever strikes: all is archived and reported, and bound by one request each."""
    nights = Nights(tmp_path.resolve(), rows=12)

    nights.live()

    codes = {night.what: night.code for night in nights.told}
    assert codes == {
        "all well": 1,  # but for the bad row in each file
        "a limit": 1,
        "no network": 3,
        "a limit that changes": 1,
        "a kill": KILLED,
        "the night after the kill": 1,
        "connections that break": 1,
        "a full disk": 4,
        "an expired token": 3,
        "a new token": 1,
        "all well again": 1,
    }
    assert nights.troubles() == []
    assert nights.bind_requests()["bound"] == 12 * len(nights.dropped)
    for fault in ("throttled", "reset-after", "refused"):
        assert nights.struck[fault], fault
    assert any(night.left for night in nights.told)
    assert nights.told[-1].left == 0

"""Which of the sandbox's limits an answer announces."""

from __future__ import annotations

import pytest

from bulkbind.sandbox import parse_limit
from bulkbind.sandbox.limit_announcements import announced
from bulkbind.sandbox.limiters import Limits
from bulkbind.sandbox.specs import Call


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        pytest.param(["9/s"], None, id="text says nothing on a success"),
        pytest.param(["9/s,tell=draft-11"], 9, id="one"),
        pytest.param(["9/s,tell=draft-11", "5/s,tell=apig", "2/s"], 5, id="least left of two"),
        pytest.param(["9/s,tell=apig", "2/s,tell=draft-07,on=list"], 9, id="another call's"),
        pytest.param(["9/s,tell=apig", "2/s,tell=draft-07,from=1h"], 9, id="not in force"),
    ],
)
def test_which_limit_a_success_announces(limits, count):
    """Of the limits in force that have headers, the one with the least left."""
    admission = Limits([parse_limit(limit) for limit in limits]).admit(
        Call.BIND, "u", now=5, elapsed_s=0
    )

    found = announced(admission)

    assert (found.limit.count if found else None) == count

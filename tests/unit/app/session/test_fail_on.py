"""`fail_on`: which rows, and which devices that left, make a finished run end with 1."""

from __future__ import annotations

import pytest

from bulkbind.app.session.sending import _needs_person
from bulkbind.model import Changes, RunFacts, RunState, RunSummary


@pytest.mark.parametrize(
    ("failed", "newly_failed", "left", "fails"),
    [
        (0, 0, 0, {"any": False, "new": False, "none": False}),
        (2, 0, 0, {"any": True, "new": False, "none": False}),
        (2, 1, 0, {"any": True, "new": True, "none": False}),
        (0, 0, 1, {"any": True, "new": True, "none": False}),
        (2, 0, 1, {"any": True, "new": True, "none": False}),
    ],
    ids=["none", "the same as before", "new", "left", "the same as before, and left"],
)
def test_what_ends_a_run_with_1(failed, newly_failed, left, fails):
    """Whatever else needs a person, a device that left and stayed bound is always news."""
    facts = RunFacts()
    facts.changes = Changes({"since": "r0", "newly_failed": newly_failed})
    summary = RunSummary(
        "r1", RunState.DONE, ("a.csv",), {"failed": failed}, (), facts, leavers={"failed": left}
    )

    assert {word: _needs_person(summary, word) for word in fails} == fails


def test_what_is_not_found_is_always_news():
    """No earlier run tells of a known device that the lists lack."""
    facts = RunFacts()
    facts.changes = Changes({"since": "r0", "newly_failed": 0})
    facts.refreshed = {"users": 1, "vanished": 0, "bound_again": False, "not_proven": 1}
    summary = RunSummary("r1", RunState.DONE, ("a.csv",), {"skipped": 1}, (), facts)

    assert [_needs_person(summary, word) for word in ("any", "new", "none")] == [True, True, False]

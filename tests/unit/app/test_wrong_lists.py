"""What a list that is a part, or another user's, makes `plan --refresh` and `verify` say."""

from __future__ import annotations

import pytest

from bulkbind.app.plan import _word
from bulkbind.app.verify import _difference
from bulkbind.ledger.outlook import Wanted
from bulkbind.model import PlanWord, Record
from bulkbind.model.fields import ABSENT
from tests.unit.engine.test_proof import OTHERS, seen

ANEW = (("A", "9"), *OTHERS)


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (seen(*ANEW), "changed"),
        (seen(*ANEW, is_part=True), "not_proven"),
        (seen(*ANEW, stranger="X"), "not_proven"),
        (seen(("A", "1"), *ANEW, is_part=True), None),
        (seen(("A", "1"), *OTHERS), None),
    ],
    ids=["whole", "part", "strangers", "part with ours", "ours"],
)
def test_verify_calls_nothing_changed_by_a_list_that_is_not_whole(last, kind):
    """Ours may stand on its other part, or in the user's own list."""
    found = _difference("u", Record("A", "1", ""), (last, last))

    assert (found and found.kind) == kind


@pytest.mark.parametrize(
    ("word", "last", "expected"),
    [
        (PlanWord.BIND, seen(*ANEW), PlanWord.ALREADY_BOUND),
        (PlanWord.BIND, seen(*ANEW, stranger="X"), None),
        (PlanWord.BIND, seen(stranger="X"), None),
        (PlanWord.BIND, seen(*OTHERS, is_part=True), PlanWord.BIND),
        (PlanWord.MOVED, seen(*ANEW, stranger="X"), PlanWord.MOVED),
    ],
)
def test_a_plan_believes_no_list_of_other_users(word, last, expected):
    """None: it is read again, and what it shows is not proven."""
    assert _word(Wanted("A", ABSENT, word), (last,)) is expected

"""Findings of the doctor."""

from __future__ import annotations

import pytest

from bulkbind.app.doctor import _shown, limit_text
from bulkbind.koodrive.limit_headers import stated_limits


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"RateLimit": '"x";r=3;t=7'}, "RateLimit says 3 requests left for 7 s"),
        ({"RateLimit": '"x";r=3'}, "RateLimit says 3 requests left"),
        (
            {"RateLimit": '"x";r=3;t=7', "RateLimit-Policy": '"x";q=60;w=1'},
            "RateLimit says 60 requests in 1 s",
        ),
    ],
)
def test_a_limit_is_shown_as_far_as_it_is_stated(headers, text):
    """A header may state what is left of a limit, and not the limit."""
    [limit] = stated_limits(headers, None)

    assert limit_text(limit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "not set"),
        ([], "none"),
        (["13000301", "x"], "13000301, x"),
        ({"user_id": "Owner"}, "user_id=Owner"),
        ({}, "none"),
        ("15s", "15s"),
        ("***", "***"),
    ],
    ids=repr,
)
def test_a_setting_is_shown_as_people_write_it(value, text):
    """Not as Python would."""
    assert _shown(value) == text

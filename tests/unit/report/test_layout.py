"""Text on a screen: broken at words, below its column, and commands left whole."""

from __future__ import annotations

import pytest

from bulkbind.report.layout import columns, cut, fitted, wrapped

PATH = "/a/path/without/any/blank/that/is/longer/than/the/screen/report.html"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        pytest.param("12 need you.", 20, "12 need you.", id="it fits"),
        pytest.param("117 of 130 are bound", 12, "117 of 130\nare bound", id="a sentence"),
        pytest.param(
            "  bound    1  by this very run", 29, "  bound    1  by this very\n              run",
            id="below its column",
        ),
        pytest.param("    e.g. abc b c", 12, "    e.g. abc\n         b c", id="an example"),
        pytest.param("  -> fix the cell", 14, "  -> fix the\n     cell", id="an advice"),
        pytest.param("! a.csv:2 SN1: failed", 15, "! a.csv:2 SN1:\n  failed", id="a problem"),
        pytest.param("time: 3 s for a", 11, "time: 3 s\n  for a", id="below a label"),
        pytest.param(f"report: {PATH}", 40, f"report:\n  {PATH}", id="no path is broken"),
        pytest.param(
            "resume with: bulkbind run b.csv --yes", 20, "resume with: bulkbind run b.csv --yes",
            id="no command is broken",
        ),
        pytest.param(
            "at once; `bulkbind resume --yes` goes on", 20,
            "at once;\n`bulkbind resume --yes`\ngoes on", id="nor one in a text",
        ),
        pytest.param("a b\nc d", 2, "a\nb\nc\nd", id="line by line"),
    ],
)  # fmt: skip
def test_what_is_too_wide_is_broken_at_words(text, width, shown):
    """What follows stands below the line's last column, or its text."""
    assert fitted(text, width) == shown


@pytest.mark.parametrize("width", [20, 60, 80, 120])
def test_no_word_is_lost(width):
    """All words in their order, and no line wider than the screen."""
    text = "8 invalid: machine_code 'SN 1': a blank at 3; \u673a\u5668\u7801 is wide, " * 5

    lines = wrapped(text, width)

    assert " ".join(lines).split() == text.split()
    assert max(map(columns, lines)) <= width


def test_a_wide_character_takes_two_columns():
    """As a terminal shows it."""
    assert columns("a\u673a") == 3
    assert cut("a\u673a\u5668", 4) == "a\u673a\u2026"


@pytest.mark.parametrize("width", [0, -1, -50])
def test_where_there_is_no_room_nothing_but_the_mark_is_left(width):
    """What stands before it on its line may be as wide as the screen."""
    assert cut("abc", width) == "\u2026"


def test_a_command_is_not_broken():
    """In backticks, behind words, or on a line of its own: what is pasted must be one line."""
    command = "bulkbind resume 20261126-1 --endpoint https://a.example --ledger l.db"
    for text in (f"the ledger is there; `{command}` resumes", f"resume with: {command}", command):
        shown = fitted(text, 40)
        assert command in shown, shown

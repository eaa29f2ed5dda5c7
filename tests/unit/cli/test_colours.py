"""Colours of statuses and sentences: where they are wanted, and nowhere else."""

from __future__ import annotations

import io

import pytest

from bulkbind.cli.colours import painted
from bulkbind.cli.console import for_stream
from bulkbind.logs import has_colours
from bulkbind.redaction import lines

GREEN, RED, OFF = "\x1b[32m", "\x1b[31m", "\x1b[0m"
SUMMARY = lines(["1 of 2 is bound.", "  bound      1  by this run", "  failed     1  no"])


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


def test_a_status_has_its_colour_where_a_line_begins_with_it():
    """And so has what the doctor found; a word within a text has none."""
    assert painted(SUMMARY).split("\n")[1:] == [
        f"  {GREEN}bound{OFF}      1  by this run",
        f"  {RED}failed{OFF}     1  no",
    ]
    assert (
        painted("fail  TLS  it is bound  to fail") == f"{RED}fail{OFF}  TLS  it is bound  to fail"
    )


@pytest.mark.parametrize(("tone", "code"), [("ok", "32"), ("bad", "31"), ("wait", "33")])
def test_the_first_sentence_has_the_colour_of_the_outcome(tone, code):
    """The line itself, and no other."""
    first, *more = painted(SUMMARY, tone).split("\n")

    assert first == f"\x1b[{code}m\x1b[1m1 of 2 is bound.{OFF}"
    assert more == painted(SUMMARY).split("\n")[1:]


@pytest.mark.parametrize(
    ("stream", "environ", "are_wanted"),
    [
        (Screen(), {"TERM": "xterm"}, True),
        (Screen(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Screen(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Screen(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (None, {"TERM": "xterm"}, False),
    ],
    ids=["terminal", "NO_COLOR", "NO_COLOR is empty", "dumb", "pipe", "closed"],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, stream, environ, are_wanted):
    """Source: no-color.org. In a pipe, lines are not broken either."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert has_colours(stream) is are_wanted
    assert ("\x1b[" in for_stream(SUMMARY, stream)) is are_wanted
    if stream is None or not stream.isatty():
        assert for_stream("word " * 50, stream) == "word " * 50

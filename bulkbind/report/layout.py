"""Fit text into the columns of a screen: cut it, or break it at words."""

from __future__ import annotations

import re
import unicodedata

WIDTH = 80
"""Columns of a screen whose width is not known."""
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)")
"""What separates the columns of a line."""
_MARK = re.compile(r" *(?:! |e\.g\. |-> )?")
_LABEL = re.compile(r"[a-z][a-z ,]*: ")
_COMMAND = re.compile(r"(?: *|[^`]*: )(?:cd |(?:\S*/)?bulkbind )")
"""How a line begins that is there to be pasted into a shell, which would break it at its end."""
_WORD = re.compile(r"((?:`[^`]*`|\S)+)( *)")
"""A word and the gap behind it; a command in backticks is one."""
_MORE = 2
"""Columns by which the lines below one with a label are indented."""


def columns(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def cut(text: str, width: int) -> str:
    """Return a text with at most *width* columns, its end replaced by `…` if it needs more."""
    if columns(text) <= width:
        return text
    while text and columns(text) >= width:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text as lines of at most *width* columns, but for longer words.

    *indent*: what the lines below the first begin with.
    """
    lines: list[str] = []
    line, gap = text[: len(text) - len(text.lstrip(" "))], ""
    for word, after in _WORD.findall(text):
        if line.strip() and columns(f"{line}{gap}{word}") > width:
            lines.append(line)
            line, gap = indent, ""
        line += f"{gap}{word}"
        gap = after
    return [*lines, line]


def fitted(text: str, width: int) -> str:
    """Return lines of which each that is too wide is broken at words, but for commands.

    What follows stands below the line's last column, or its text.
    """
    return "\n".join(
        part
        for line in text.split("\n")
        for part in (
            [line]
            if columns(line) <= width or _COMMAND.match(line)
            else wrapped(line, width, " " * _hanging(line, width))
        )
    )


def _hanging(line: str, width: int) -> int:
    """Return how far the lines below a line are indented."""
    gaps = [gap.end() for gap in _GAP.finditer(line) if gap.end() <= width // 2]
    if gaps:
        return columns(line[: gaps[-1]])
    mark = _MARK.match(line)
    return (mark.end() if mark else 0) + (_MORE if _LABEL.match(line) else 0)

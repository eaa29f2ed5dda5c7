"""The manual as a man page: every command with its options, and every topic, in roff."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from bulkbind.cli import COMMANDS
from bulkbind.errors import meanings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from importlib.resources.abc import Traversable

    from markdown_it.token import Token

_OPEN = {"paragraph_open": ".PP", "bullet_list_open": ".RS 2", "bullet_list_close": ".RE"}
_FONTS = {"strong_open": r"\fB", "em_open": r"\fI", "strong_close": r"\fR", "em_close": r"\fR"}


def man_page(topics: Mapping[str, Traversable], help_of: Callable[[str], str]) -> str:
    """Return the man page in roff's man macros. Source: man(7), groff_man(7).

    *help_of*: returns the whole help of a command.
    """
    parts = [
        '.TH BULKBIND 1 "" "bulkbind" "User Commands"',
        ".SH NAME",
        r"bulkbind \- bind a manifest of devices to KooDrive users, at the server's pace",
        ".SH SYNOPSIS",
        r"\fBbulkbind\fR \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH COMMANDS",
        *_commands(help_of),
        ".SH EXIT STATUS",
        escaped(f"{meanings()}."),
    ]
    for file in topics.values():
        parts += rendered(file.read_text("utf-8"))
    return "\n".join(parts)


def _commands(help_of: Callable[[str], str]) -> Iterator[str]:
    for name in COMMANDS:
        yield f".SS {escaped(name)}"
        yield ".nf"
        yield from (escaped(line) for line in help_of(name).splitlines())
        yield ".fi"


def escaped(text: str) -> str:
    """Return text that roff prints as it stands."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def rendered(markdown: str) -> list[str]:
    """Return the lines of a topic, whose heading becomes a section."""
    page = _Page()
    for token in MarkdownIt().enable("table").parse(markdown):
        getattr(page, token.type, page.other)(token)
    return page.lines


class _Page:
    """What was rendered so far; a method for each type of token that makes lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._heading = ""
        self._cells: list[str] | None = None
        """Of the table's row that is being read."""
        self._is_item = False
        """Whether a list's item has just begun, whose first paragraph needs no break."""

    def other(self, token: Token) -> None:
        """Add what a type stands for, if anything."""
        self.lines += filter(None, [_OPEN.get(token.type)])

    def heading_open(self, token: Token) -> None:
        self._heading = ".SH" if token.tag == "h1" else ".SS"

    def heading_close(self, _token: Token) -> None:
        self._heading = ""

    def inline(self, token: Token) -> None:
        text = _inline(token)
        if self._heading:
            self.lines.append(f"{self._heading} {text.upper() if self._heading == '.SH' else text}")
        elif self._cells is not None:
            self._cells.append(text)
        else:
            self.lines += text.splitlines()

    def tr_open(self, _token: Token) -> None:
        self._cells = []

    def tr_close(self, _token: Token) -> None:
        first, *others = self._cells or [""]
        self.lines += (".TP", first or r"\&", "; ".join(filter(None, others)))
        self._cells = None

    def list_item_open(self, _token: Token) -> None:
        self._is_item = True
        self.lines.append(r".IP \(bu 2")

    def paragraph_open(self, token: Token) -> None:
        if not self._is_item:
            self.other(token)
        self._is_item = False

    def fence(self, token: Token) -> None:
        self.lines += (".PP", ".nf", *map(escaped, token.content.splitlines()), ".fi")


def _inline(token: Token) -> str:
    shown: list[str] = []
    for child in token.children or ():
        if child.type in _FONTS:
            shown.append(_FONTS[child.type])
        elif child.type == "code_inline":
            shown.append(rf"\fB{escaped(child.content)}\fR")
        elif child.type == "softbreak":
            shown.append("\n")
        else:
            shown.append(escaped(child.content))
    # A line that begins with a dot or an apostrophe would be a request.
    return re.sub(r"^(?=[.'])", r"\\&", "".join(shown), flags=re.MULTILINE)

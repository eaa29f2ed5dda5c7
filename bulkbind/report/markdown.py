"""Markdown: tables and texts in which nothing from outside becomes markup."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from bulkbind.redaction import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table. A number is told with separators, a text is escaped."""
    yield f"| {' | '.join(header)} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else plain(str(cell)) for cell in row)
        yield f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Return text escaped for Markdown, on one line."""
    shown = html.escape(line(re.sub(r"\s+", " ", text).strip()), quote=False)
    return re.sub(r"([\\`*_{}\[\]#|!~@])", r"\\\1", shown)


def code(text: str) -> str:
    """Return text for between backquotes, on one line."""
    return line(re.sub(r"[`\s]+", " ", text))

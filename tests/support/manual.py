"""README and the topics of the manual: their texts, sections and blocks of code."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TOPICS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "bulkbind" / "docs").glob("*.md"))
}
PAGES = {"README": README, **TOPICS}
MANUAL = "\n".join(PAGES.values())
NOT_RUN = "no-run"
"""Stands behind the language of a block that cannot be run here."""


class Block(NamedTuple):
    """A block of code."""

    page: str
    language: str
    mark: str
    text: str


BLOCKS = [
    Block(page, language, mark, text)
    for page, shown in PAGES.items()
    for language, mark, text in re.findall(
        r"^```(\w+) ?(\S*)\n(.*?)^```$", shown, re.DOTALL | re.MULTILINE
    )
]


def blocks(language: str) -> list[str]:
    """Return the manual's code blocks of a language."""
    return [block.text for block in BLOCKS if block.language == language]


def section(title: str) -> str:
    """Return the text of a section of the manual."""
    [found] = re.findall(
        rf"^## {re.escape(title)}\n(.*?)(?=^##? |\Z)",
        MANUAL.removeprefix(README),
        re.DOTALL | re.MULTILINE,
    )
    return str(found)

"""Colours on a terminal, for what a status or a finding means."""

from __future__ import annotations

import re

import click

from bulkbind.model import Status, UnbindStatus

TONES = {"ok": "green", "ok2": "green", "info": "green", "mute": "", "wait": "yellow"} | {
    "warn": "yellow",
    "warn2": "yellow",
}
"""The terminal's colours for the page's; else red."""
STYLES = {
    str(status): TONES.get(status.about.tone) or "red" for status in (*UnbindStatus, *Status)
} | {status.shown: "yellow" for status in Status if status.about.is_pending}
_FINDINGS = {"ok": "green", "warn": "yellow", "fail": "red"}
_WORDS = STYLES | _FINDINGS
_WORD = re.compile(rf"^( *)({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?=  )", re.MULTILINE)
"""A status or finding where a line begins, as the first of its columns."""


def painted(text: str, tone: str = "") -> str:
    """Return lines with the colours of the statuses and findings that they begin with.

    *tone*: of the first paragraph; empty: none.
    """
    shown = _WORD.sub(lambda found: found[1] + click.style(found[2], fg=_WORDS[found[2]]), text)
    colour = TONES.get(tone, "red") if tone else ""
    if not colour:
        return shown
    first, *more = shown.split("\n", 1)
    return "\n".join([click.style(first, fg=colour, bold=True), *more])

"""Checking the values of a row: rules, optional cleaning, and likely causes.

Cleaning makes names fit the rules; it never changes machine codes or users.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.manifest.likely_causes import Suspicions, cause_of_value, fault_of
from bulkbind.manifest.rules import RULES, Rule, check, keeps, printable
from bulkbind.model import CLEANING, Change, CheckedRow, Problem
from bulkbind.model.fields import CLEANED, FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkbind.model.fields import Values
    from bulkbind.settings import ManifestSettings

_RULE = {rule.field: rule for rule in RULES}

_LETTERS = str.maketrans(
    {
        "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O",
        "đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "ł": "l", "Ł": "L", "þ": "th", "Þ": "Th",
        "ı": "i", "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T", "ĸ": "k", "ŋ": "n", "Ŋ": "N",
    }
)  # fmt: skip
"""Latin letters that Unicode does not decompose."""
_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_DROPPED = re.compile("[\"'`´‘-‟«»‹›′″™®©℠]")
"""Quotes and marks that are not part of a name."""
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Undecodable bytes and lone surrogates: the original is lost, so cleaning would be a guess."""
_BRACKETS = re.compile(r"[()\[\]{}<>]")
_OTHERS = re.compile(r"[^\x00-\x7f]+")
_UNDERSCORES = re.compile(r"_{2,}")
_LEAST_KEPT = 0.5
"""Truncation at the end of a word keeps at least this share of the maximum length."""


def clean(field: str, value: str) -> str | None:
    """Return a name changed to fit the rule of its field; None if that is impossible.

    Removes accents, quotes and trademark signs, converts wide and styled forms to plain ones,
    brackets to blanks and other characters to `_`, collapses blanks, and truncates, if possible at
    the end of a word. A valid name is returned unchanged.
    """
    rule = _RULE[field]
    if rule.pattern.fullmatch(value):
        return value
    if _NO_TEXT.search(value) or fault_of(value):
        return None
    text = _DASHES.sub("-", _DROPPED.sub("", value))
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).translate(_LETTERS))
    text = "".join(kept for character in text if (kept := _plain(character)))
    # Normalization may have produced quotes and brackets.
    text = _BRACKETS.sub(" ", _DROPPED.sub("", text))
    text = _OTHERS.sub("_", text)
    text = "".join(character if rule.allowed.fullmatch(character) else "_" for character in text)
    text = " ".join(_UNDERSCORES.sub("_", text).split())
    text = _cut(text, rule.longest)
    return text if any(character.isalnum() for character in text) else None


def _plain(character: str) -> str:
    """Return the character, a blank for any white space, or "" for accents and invisible ones."""
    category = unicodedata.category(character)
    if character.isspace() or category == "Zs":
        return " "
    return "" if category in ("Mn", "Me", "Cf", "Cc") else character


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    cut = text[:longest]
    if text[longest] != " ":
        word_end = cut.rfind(" ")
        cut = cut[:word_end] if word_end >= longest * _LEAST_KEPT else cut
    return cut.rstrip(" _-")


FEW = 8
"""Up to so many rows are checked one by one; larger batches are halved first."""
Names = tuple[str, ...]
"""The operator's name of the column of each of `FIELDS`."""
_CLEANED_AT = tuple(FIELDS.index(field) for field in CLEANED)


class Checker:
    """Checks rows one by one, and collects suspicious values for notices."""

    def __init__(self, *, cleans: bool) -> None:
        self._cleans = cleans
        self.suspicions = Suspicions()

    def row(
        self,
        line: int,
        cells: list[str] | dict[str, Any],
        values: Values,
        names: Names,
        more: Sequence[Problem] = (),
    ) -> CheckedRow:
        """Return a row with every rule checked. *more*: problems already known."""
        broken = check(values, names)
        changes: tuple[Change, ...] = ()
        if broken and self._cleans:
            values, changes = _cleaned(values, names)
            if changes:
                broken = check(values, names)
        known = {problem.field for problem in more}
        problems = (*(_explained(p, values) for p in broken if p.field not in known), *more)
        if problems:
            shown = tuple([printable(value) if value else None for value in values])
            return CheckedRow(line, cells, shown, problems, changes)
        self.suspicions.add(values[1:2], (line,))  # type: ignore[arg-type]  # it is required
        return CheckedRow(line, cells, values, (), changes)

    def notices(self, name: str) -> Iterator[str]:
        """Yield the notices once all rows were checked."""
        yield from self.suspicions.notices(name)


def _cleaned(values: Values, names: Names) -> tuple[Values, tuple[Change, ...]]:
    changed: list[str | None] = list(values)
    changes = []
    for at in _CLEANED_AT:
        before = values[at]
        after = clean(FIELDS[at], before) if before else None
        if before and after and after != before:
            changed[at] = after
            changes.append(Change(names[at], printable(before), after))
    return tuple(changed), tuple(changes)


def _explained(problem: Problem, values: Values) -> Problem:
    """Add the likely cause and the result of cleaning, unless there is a hint already."""
    if problem.hint:
        return problem
    value = values[FIELDS.index(problem.field)]  # as read: the problem's own value may be truncated
    hints = [cause_of_value(value)] if value else []
    if value and problem.field in CLEANED and (after := clean(problem.field, value)):
        return replace(
            problem,
            hint="; ".join(filter(None, [*hints, f"{CLEANING}{after!r}"])),
            cure="--clean names",
        )
    hint = "; ".join(filter(None, hints))
    return replace(problem, hint=hint) if hint else problem


class Column(NamedTuple):
    """Where the values of one field come from."""

    rule: Rule
    at: int | None
    """Position of the column; None if there is none."""
    fill: str | None
    """Default for rows whose cell is empty or missing."""


def columns_of(used: Sequence[int | None], settings: ManifestSettings) -> tuple[Column, ...]:
    """Return the column of each of `FIELDS`; a constant takes precedence over a column."""
    fills = {"user_id": settings.user_id} | settings.constants
    return tuple(
        Column(rule, None if rule.field in settings.constants else at, fills.get(rule.field))
        for rule, at in zip(RULES, used, strict=True)
    )


def good_values(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], count: int
) -> list[Sequence[str | None]] | None:
    """Return the values of *count* rows, field by field, if all are valid; otherwise None.

    Ten times faster than checking row by row. *columns* are in the order of `FIELDS`, *cells* are
    given column by column.
    """
    values: list[Sequence[str | None]] = []
    for rule, at, fill in columns:
        if at is None:
            if fill is None and rule.required:
                return None
            values.append([fill] * count)
            continue
        found = _good_column(rule, cells[at], fill)
        if found is None:
            return None
        values.append(found)
    return values


def _good_column(rule: Rule, cells: Sequence[str], fill: str | None) -> Sequence[str | None] | None:
    if keeps(rule, cells):
        return cells
    column = [cell.strip() or fill or "" for cell in cells]
    present = column if rule.required else list(filter(None, column))
    if not all(present) or (present and not keeps(rule, present)):
        return None
    return [cell or None for cell in column]

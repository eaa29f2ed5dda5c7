"""Checking the values of a row: rules, optional cleaning, and likely causes.

Cleaning makes names fit the rules; it never changes machine codes or users.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.manifest.columns import seen
from bulkbind.manifest.likely_causes import (
    PLACEHOLDER,
    Fault,
    Repeats,
    Suspicions,
    cause_of_character,
    cause_of_value,
    fault_of,
)
from bulkbind.manifest.placeholders import NO_PLACEHOLDERS, placeholders
from bulkbind.manifest.rules import (
    RULES,
    Rule,
    check,
    keeps,
    name_character,
    no_value,
    printable,
)
from bulkbind.manifest.table_words import BY_FIELD, fault_of_word
from bulkbind.model import CLEANING, Change, CheckedRow, Problem
from bulkbind.model.fields import CLEANED, CODE, FIELDS, NAME
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


class Column(NamedTuple):
    """Where the values of one field come from."""

    rule: Rule
    at: int | None
    """Position of the column; None if there is none."""
    fill: str | None
    """Default for rows whose cell is empty or missing."""
    covered: int | None = None
    """Position of a column whose values a constant replaces."""


def columns_of(used: Sequence[int | None], settings: ManifestSettings) -> tuple[Column, ...]:
    """Return the column of each of `FIELDS`; a constant takes precedence over a column."""
    return tuple(
        Column(rule, None, settings.constants[rule.field], at)
        if rule.field in settings.constants
        else Column(rule, at, settings.user_id if rule.field == "user_id" else None)
        for rule, at in zip(RULES, used, strict=True)
    )


def covered_problem(field: str, name: str, cell: str, fault: Fault) -> Problem:
    """Return the problem of a damaged cell that a constant would replace."""
    hint = f"{fault.hint}; --ignore-column {quote(name)} leaves the column out, whatever it says"
    return no_value(field, name, cell.strip(), fault._replace(hint=hint))


def asked_cell(name: str, cell: str) -> str | Problem:
    """Return a cell that the operator asks for as `seen`, or why it is not sure what it holds."""
    if fault := fault_of(cell.strip()):
        return asked_problem(name, cell, fault)
    if not cell.isascii() and (lost := _NO_TEXT.search(cell)):
        rule = "row: text in the file's encoding"
        hint = cause_of_character(lost[0])
        return Problem("row", name, printable(cell), rule, name_character(lost[0]), hint)
    return seen(cell)


def asked_problem(name: str, cell: str, fault: Fault) -> Problem:
    """Return the problem of a cell by which a row would be left out, or its user found."""
    return no_value("row", name, cell.strip(), fault)


class Good(NamedTuple):
    """The values of some rows that are all valid, field by field."""

    values: list[Sequence[str | None]]
    left_out: tuple[int, ...]
    """Positions among `FIELDS` of columns with placeholders, for which there is None."""


class Checker:
    """Checks rows, and collects what is suspicious or left out for notices."""

    def __init__(self, settings: ManifestSettings) -> None:
        self._cleans = settings.clean == "names"
        self._placeholders = placeholders(settings.placeholders)
        self._has_words = self._placeholders is not NO_PLACEHOLDERS
        self._no_values = {
            rule.field: self._placeholders.with_others(BY_FIELD.get(rule.field, frozenset()))
            if self._has_words
            else NO_PLACEHOLDERS
            for rule in RULES
        }
        self._fallback = settings.user_id
        self._has_codes = CODE.name not in settings.constants
        self._codes = Suspicions("machine codes", has_numbers=True)
        self._users = Suspicions("user ids", besides=settings.user_id)
        self._repeats = Repeats()
        self._left_out: dict[str, tuple[int, int, str]] = {}

    def good(
        self, columns: Sequence[Column], cells: Sequence[Sequence[str]], count: int
    ) -> Good | None:
        """Return the values of *count* rows if all are valid; otherwise None.

        Ten times faster than checking row by row. *columns* are in the order of `FIELDS`, *cells*
        are given column by column. Call `accept` with what is taken.
        """
        values: list[Sequence[str | None]] = []
        left_out: list[int] = []
        for number, column in enumerate(columns):
            rule, at, fill, covered = column
            if covered is not None and any(self.fault_behind(rule, c) for c in cells[covered]):
                return None
            if at is None:
                if fill is None and rule.required:
                    return None
                values.append([fill] * count)
                continue
            if keeps(rule, cells[at], self._no_values[rule.field]):
                values.append(cells[at])
                continue
            found = [cell.strip() or fill or "" for cell in cells[at]]
            if not self._keep(rule, found):
                found = self._without_placeholders(rule, found)
                left_out.append(number)
                if not found or not self._keep(rule, found):
                    return None
            values.append([cell or None for cell in found])
        return Good(values, tuple(left_out))

    def _keep(self, rule: Rule, found: Sequence[str]) -> bool:
        """Return whether trimmed values are valid, or empty where the field is optional."""
        present = found if rule.required else list(filter(None, found))
        return not present or keeps(rule, present, self._no_values[rule.field])

    def _without_placeholders(self, rule: Rule, found: list[str]) -> list[str]:
        """Return values with "" for placeholders; none if there are none, or the field must be."""
        kept = ["" if value in self._placeholders else value for value in found]
        return [] if rule.required or kept == found else kept

    def accept(
        self,
        good: Good,
        columns: Sequence[Column],
        cells: Sequence[Sequence[str]],
        lines: Sequence[int],
        names: Names,
    ) -> None:
        """Examine valid rows that are taken: *good*, as returned for *columns* and *cells*."""
        self._examine(good.values, lines, has_users=columns[0].at is not None)
        for number in good.left_out:
            at = columns[number].at
            assert at is not None  # only a column can have a placeholder
            for cell, value, line in zip(cells[at], good.values[number], lines, strict=True):
                if value is None and cell.strip():
                    self._leave_out(names[number], line, cell.strip())

    def _examine(
        self, values: Sequence[Sequence[Any]], lines: Sequence[int], *, has_users: bool
    ) -> None:
        users, codes, *optional = values
        if has_users:
            self._users.add(users, lines)
        if self._has_codes:
            self._codes.add(codes, lines)
            self._repeats.add(codes, optional[NAME], users, lines)

    def _leave_out(self, name: str, line: int, value: str) -> None:
        count, first, example = self._left_out.get(name, (0, line, printable(value)))
        self._left_out[name] = (count + 1, first, example)

    def fault_behind(self, rule: Rule, cell: str) -> Fault | None:
        """Return why a cell cannot give way to a constant: it is damaged, and nobody saw that."""
        value = cell.strip()
        if not value:
            return None
        fault = fault_of(value)
        if fault is None and rule.required and value in self._placeholders:
            fault = PLACEHOLDER
        return fault

    def row(
        self,
        line: int,
        cells: list[str] | dict[str, Any],
        values: Values,
        names: Names,
        more: Sequence[Problem] = (),
    ) -> CheckedRow:
        """Return a row with every rule checked. *more*: problems already known."""
        values, broken = self._checked(line, values, names)
        changes: tuple[Change, ...] = ()
        if broken and self._cleans:
            values, changes = self._cleaned(values, names)
            if changes:
                values, broken = self._checked(line, values, names)
        known = {problem.field for problem in more}
        problems = (*(self._explained(p, values) for p in broken if p.field not in known), *more)
        if problems:
            shown = tuple([printable(value) if value else None for value in values])
            return CheckedRow(line, cells, shown, problems, changes)
        self._examine([(value,) for value in values], (line,), has_users=True)
        return CheckedRow(line, cells, values, (), changes)

    def notices(self, name: str) -> Iterator[str]:
        """Yield the notices once all rows were checked."""
        for column, (count, line, value) in self._left_out.items():
            yield (
                f"{name}: {counted(count, 'placeholders')} like `{value}` (line {line}) in "
                f"{column} {verb(count, 'is', 'are')} left out; --placeholders none takes "
                f"{verb(count, 'it as it stands', 'them as they stand')}"
            )
        yield from self._codes.notices(name)
        yield from self._users.notices(name)
        yield from self._repeats.notices(name)

    def _checked(
        self, line: int, values: Values, names: Names
    ) -> tuple[Values, tuple[Problem, ...]]:
        """Return the values without optional placeholders, and the broken rules."""
        broken = list(check(values, names))
        words = self._words(values, names)
        if not (broken or words or any(v and v in self._placeholders for v in values)):
            return values, ()
        kept = list(values)
        failed = words | {problem.field: problem for problem in broken}
        for at, (rule, value) in enumerate(zip(RULES, values, strict=True)):
            if not value or fault_of(value) or not self._is_placeholder(value, rule, failed):
                continue
            if rule.required:
                failed[rule.field] = no_value(rule.field, names[at], value, PLACEHOLDER)
            else:
                failed.pop(rule.field, None)
                kept[at] = None
                self._leave_out(names[at], line, value)
        ordered = (failed[rule.field] for rule in RULES if rule.field in failed)
        return tuple(kept), tuple(ordered)

    def _words(self, values: Values, names: Names) -> dict[str, Problem]:
        """Return the problems of values that are words about the table, by their fields."""
        if not self._has_words:
            return {}
        return {
            rule.field: no_value(rule.field, name, value, fault)
            for rule, name, value in zip(RULES, names, values, strict=True)
            if value and value != self._fallback and (fault := fault_of_word(rule.field, value))
        }

    def _is_placeholder(self, value: str, rule: Rule, failed: Mapping[str, Problem]) -> bool:
        return value in self._placeholders or (
            rule.field in failed and self._placeholders.is_disguised(value)
        )

    def _clean(self, field: str, value: str) -> str | None:
        """Return a cleaned name, unless it would be a placeholder."""
        after = clean(field, value)
        return None if after and after in self._placeholders else after

    def _cleaned(self, values: Values, names: Names) -> tuple[Values, tuple[Change, ...]]:
        changed: list[str | None] = list(values)
        changes = []
        for at in _CLEANED_AT:
            before = values[at]
            after = self._clean(FIELDS[at], before) if before else None
            if before and after and after != before:
                changed[at] = after
                changes.append(Change(names[at], printable(before), after))
        return tuple(changed), tuple(changes)

    def _explained(self, problem: Problem, values: Values) -> Problem:
        """Add the likely cause and the result of cleaning, unless there is a hint already."""
        if problem.hint:
            return problem
        # As read: the problem's own value may be truncated.
        value = values[FIELDS.index(problem.field)]
        hints = [cause_of_value(value)] if value else []
        if value and problem.field in CLEANED and (after := self._clean(problem.field, value)):
            hint = "; ".join(filter(None, [*hints, f"{CLEANING}{after!r}"]))
            return replace(problem, hint=hint, cure="--clean names")
        hint = "; ".join(filter(None, hints))
        return replace(problem, hint=hint) if hint else problem

"""What a spreadsheet shows of a stored number or text, as its number format says; pure.

Only what is shown alike everywhere is a value: digits, with zeros and literal characters. What
depends on the country of whoever looks at it (dates, separators) is not certain.
"""

from __future__ import annotations

import datetime as dt
import re
from itertools import chain
from typing import NamedTuple

from bulkbind.manifest.likely_causes import DIGITS_LOST, MOST_DIGITS

_LONGEST_FRACTION = 11
"""Characters of a fraction that the format General shows. Source: Excel's specifications."""
_DATES = frozenset(chain(range(14, 23), range(27, 37), range(45, 48), range(50, 59)))
"""Built-in formats of dates and times. Source: ECMA-376 part 1, 18.8.30."""
_BUILT_IN = {
    0: "General", 1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%",
    11: "0.00E+00", 12: "# ?/?", 13: "# ??/??", 37: "#,##0 ;(#,##0)", 38: "#,##0 ;[Red](#,##0)",
    39: "#,##0.00;(#,##0.00)", 40: "#,##0.00;[Red](#,##0.00)", 48: "##0.0E+0", 49: "@",
}  # fmt: skip
_ODD = frozenset(chain(range(5, 9), range(41, 45), range(59, 63), range(67, 82)))
"""Built-in formats of currencies, accounts and Thai numbers, which differ by country."""
_TOKEN = re.compile(r'"[^"]*"?|\\.?|[_*].?|\[[^\]]*\]?|General|[Ee][+-]|AM/PM|A/P|.', re.DOTALL)
_SIMPLE = re.compile(r"(#,##)?[0#]+(?:\.(0+))?(%?)|0(?:\.(0+))?E\+0+", re.IGNORECASE)
_PLAIN = frozenset(("general", "0", "@", ""))
_DATE_LETTERS = frozenset("dmyhsbge")
_LITERALS = frozenset("-+():!^&'~{}<>= /")
_IGNORED = re.compile(
    r"\[(?:black|blue|cyan|green|magenta|red|white|yellow|color ?\d+|\$-[0-9a-f]+)\]", re.IGNORECASE
)
_MOST_LETTERS = 255
"""The longest format code. Source: Excel's specifications."""
_MOST_PLACES = 64
_EPOCHS = (dt.datetime(1899, 12, 30), dt.datetime(1904, 1, 1))  # noqa: DTZ001  # a sheet has no zone


class ShownCell(NamedTuple):
    """What is shown of a cell."""

    text: str
    doubt: str = ""
    """Why the text is not certainly a value, as in `likely_causes.fault_of`; empty if it is."""


class NumberFormat:
    """The format of cells.

    Attributes:
        is_plain: Whether texts and whole numbers up to 15 digits are shown as they are stored.
    """

    def __init__(self, code: str, *, is_date: bool = False, from_1904: bool = False) -> None:
        self._code = code[:_MOST_LETTERS]
        self._sections = [_tokens(section) for section in _split(self._code)]
        self._is_date = is_date or any(map(_shows_dates, self._sections[:3]))
        self._epoch = _EPOCHS[from_1904]
        self.is_plain = self._code.strip().lower() in _PLAIN and not is_date

    def of_text(self, text: str) -> ShownCell:
        """Return what is shown of a text."""
        sections = self._sections
        has_text = len(sections) > 3 or "@" in sections[-1]  # noqa: PLR2004  # the fourth is text's
        if self.is_plain or not has_text or not text:
            return ShownCell(text)
        parts = [text if mark == "@" else _literal(mark) for mark in sections[-1]]
        if None in parts:
            return ShownCell(text, self._in_format())
        shown = "".join(filter(None, parts))
        return (
            ShownCell(shown) if text in shown else ShownCell(shown, f"the cell holds {bare(text)}")
        )

    def of_number(self, stored: str) -> ShownCell:
        """Return what is shown of a number. Raises: ValueError if *stored* is none."""
        number = float(stored)
        plain = _plain(number, stored)
        if self._is_date:
            return ShownCell(self._date(number) or plain.text, f"a date, stored as {plain.text}")
        if plain.doubt == DIGITS_LOST:
            return plain
        if self._code.strip().lower() in ("general", "@", ""):
            return plain
        shown = self._whole(int(number)) if number.is_integer() else None
        if shown is not None:
            return ShownCell(shown) if shown else ShownCell("", f"the cell holds {plain.text}")
        about = _about(self._code, number)
        if about is not None:
            return ShownCell(about, f"the cell holds {plain.text}")
        return ShownCell(plain.text, self._in_format())

    def _in_format(self) -> str:
        return f"in the format {bare(self._code)}"

    def _whole(self, number: int) -> str | None:
        """Return a whole number as shown, trimmed; None if that is not certain."""
        sections = self._sections
        if number < 0:
            return str(number) if self._code == "0" else None
        at = 2 if number == 0 and len(sections) > 2 else 0  # noqa: PLR2004  # the third is zero's
        if len(sections) > 1 and any(map(_has_condition, sections)):
            return None
        if sections[at] == ["General"]:
            return str(number)
        return _placed(sections[at], str(number) if number else "")

    def _date(self, number: float) -> str | None:
        """Return a date and time in ISO form; None if the number is out of range."""
        try:
            moment = self._epoch + dt.timedelta(days=number)
        except (OverflowError, ValueError):
            return None
        if 0 <= number < 1:
            return str(moment.time().replace(microsecond=0))
        if moment.time() == dt.time.min:
            return str(moment.date())
        return str(moment.replace(microsecond=0))


def built_in(number: int, *, from_1904: bool = False) -> NumberFormat:
    """Return the format that a file names by a number only; unknown ones are General."""
    if number in _DATES:
        return NumberFormat("General", is_date=True, from_1904=from_1904)
    if number in _ODD:
        return NumberFormat(f"[built-in {number}]")
    return NumberFormat(_BUILT_IN.get(number, "General"))


def _plain(number: float, stored: str) -> ShownCell:
    """Return a number in the format General."""
    if number.is_integer():
        if abs(number) < 10**MOST_DIGITS:
            return ShownCell(str(int(number)))
        return ShownCell(stored, DIGITS_LOST)
    if number - number != 0:
        raise ValueError(f"{stored!r} is no number")
    shown = repr(number)
    if len(shown) <= _LONGEST_FRACTION and "e" not in shown:
        return ShownCell(shown)
    return ShownCell(f"{number:.6G}", f"the cell holds {shown}")


def _split(code: str) -> list[str]:
    """Return the sections of a format code, which semicolons separate."""
    sections = [""]
    for mark in _TOKEN.findall(code):
        if mark == ";":
            sections.append("")
        else:
            sections[-1] += mark
    return sections


def _tokens(section: str) -> list[str]:
    return [mark for mark in _TOKEN.findall(section) if not _IGNORED.fullmatch(mark)]


def _shows_dates(tokens: list[str]) -> bool:
    return any(
        mark.lower() in _DATE_LETTERS or re.fullmatch(r"\[[hms]+\]|A[M/].*", mark, re.IGNORECASE)
        for mark in tokens
    )


def _has_condition(tokens: list[str]) -> bool:
    return any(mark.startswith("[") for mark in tokens)


def _literal(mark: str) -> str | None:
    """Return the text that a mark shows; None if it is no literal."""
    if mark.startswith('"'):
        return mark.strip('"')
    if mark.startswith("\\"):
        return mark[1:]
    if mark.startswith("_"):
        return " "
    return mark if mark in _LITERALS else None


def _placed(tokens: list[str], digits: str) -> str | None:
    """Return digits in their places (`0`, `#`) among literals; None for anything else."""
    if "/" in tokens and any(mark in ("0", "#") for mark in tokens):
        return None  # a fraction
    places = [mark for mark in tokens if mark in ("0", "#")]
    if tokens and not places:
        return None  # the number itself is not shown
    if len(tokens) > _MOST_PLACES:
        return None  # longer than any value
    spare = len(digits) - len(places)
    taken = max(0, spare)
    parts: list[str] = []
    is_first = True
    for mark in tokens:
        if mark in ("0", "#"):
            if is_first:
                parts.append(digits[:taken])
                is_first = False
            if spare < 0:
                parts.append("0" if mark == "0" else "")
                spare += 1
            else:
                parts.append(digits[taken])
                taken += 1
            continue
        literal = _literal(mark)
        if literal is None:
            return None
        parts.append(literal)
    return "".join(parts).strip()


def _about(code: str, number: float) -> str | None:
    """Return a number with separators, percent or exponent as shown in English; None if unknown."""
    found = _SIMPLE.fullmatch(code)
    if not found:
        return None
    if "E" in code.upper():
        return f"{number:.{len(found[4] or '')}E}"
    value = number * 100 if found[3] else number
    return f"{value:{',' if found[1] else ''}.{len(found[2] or '')}f}{found[3]}"


def bare(text: str) -> str:
    """Return a text without parentheses, so that it can stand in some; `?` if nothing is left."""
    return text.translate({ord("("): None, ord(")"): None}).strip() or "?"

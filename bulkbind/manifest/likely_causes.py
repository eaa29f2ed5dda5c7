"""Likely causes of broken values; pure.

Most were valid once: a spreadsheet turned a number into `3.56E+14`, a word processor replaced a
hyphen by a dash, someone typed a Cyrillic letter that looks like a Latin one.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_DIGITS = 15
"""Digits of an integer that a spreadsheet keeps. Source: IEEE 754, binary64."""
BOOLEANS = frozenset(("TRUE", "FALSE", "True", "False", "true", "false"))
_ENDS = ("total", "totals", "sum", "count", "end", "eof")
_ODD = BOOLEANS | {written for end in _ENDS for written in (end, end.upper(), end.capitalize())}
"""Valid machine codes that are probably not meant as such."""
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]?\d+", re.ASCII)
_WHOLE_AS_FLOAT = re.compile(r"\d+[.,]0+", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(?:[T ].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}-[A-Za-z]{3}(?:-\d+)?"
    r"|[A-Za-z]{3}-\d{2}",
    re.ASCII,
)
FAULT_STARTS = (
    "#",
    "Err:",
    "ERR:",
    "err:",
    "Loading",
    "LOADING",
    "loading",
    "'#",
    '"#',
    "=NA(",
    "=na(",
)
"""The beginnings of everything that `fault_of` recognizes."""
_ERROR = re.compile(
    r"#(?:N/?A(?: .*)?|N/D(?:ISP)?|NV|NAME\??|DIV/0!?|GETTING_DATA(?:\.\.\.)?"
    r"|(?:REF|VALUE|NUM|NULL|SPILL|CALC|BUSY|BLOCKED|FIELD|UNKNOWN|CONNECT|EXTERNAL|PYTHON|TIMEOUT"
    r"|ERROR|BEZUG|WERT|ZAHL)!?)|#REF!.*|Err:\d{3}|Loading\.\.\.|=NA\(\)",
    re.IGNORECASE,
)
"""Formula errors of Excel, LibreOffice (`Err:502`) and Google (`Loading...`), in whatever case, and
those that lost their final mark."""
_ERROR_ELSEWHERE = re.compile(
    r"#(?:[¡¿]?[^\W\d]{2,}(?:/0)?[!?]|[^\W\d_]/[^\W\d_]!?|NV|YOK|HIÁNYZIK|NENÍ_K_DISPOZICI"
    r"|REF|VALUE|NUM|NULL|NAME|DIV/0)"
)
"""Formula errors that are newer or in other languages (`#SPILL!`, `#BEZUG!`, `#¿NOMBRE?`),
translations of `#N/A`, and errors that lost their final mark."""
_NARROW = re.compile(r"#{3,}")
LOST = " (digits lost)"
"""Suffix of a number whose last digits a spreadsheet lost; it makes the value break every rule."""
_AS_TEXT = "set the column to text, enter the value again and export once more"
_UNQUOTE = "export the sheet once more as CSV or .xlsx, or delete them"
_QUOTES = "‘’‚‛“”„‟«»‹›′″`´"
_DASHES = "‐‑‒–—―−﹣－"
_BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LOOKS_LIKE = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХаеорсухіѕјԁһΑΒΕΖΗΙΚΜΝΟΡΤΥΧονι",
        "ABESIJKMHOPCTYXaeopcyxisjdhABEZHIKMNOPTYXovi",
        strict=True,
    )
)
"""Cyrillic and Greek letters that look exactly like Latin ones."""


class Fault(NamedTuple):
    """Why the text of a cell is not a value."""

    found: str
    hint: str
    """How to fix it."""


def formula_error(text: str) -> Fault:
    """Return the fault of a cell with a formula error; *text*: as shown in the cell."""
    shown = f" ({text})" if text else ""
    return Fault(f"an error of a formula{shown}", "mend the formula, or enter the value itself")


def fault_of(value: str) -> Fault | None:
    """Return why a text is what a spreadsheet shows instead of a value; None if it is a value."""
    if not value.startswith(FAULT_STARTS):
        return None
    bare = value.strip("'\"")  # as a spreadsheet keeps text, or an export left it
    if _NARROW.fullmatch(bare):
        return Fault(
            "a column that is too narrow to show its value", "widen it and export the sheet again"
        )
    if _ERROR.fullmatch(bare) or (bare.isupper() and _ERROR_ELSEWHERE.fullmatch(bare)):
        return formula_error(value)
    return None


def _is_kept_as_text(value: str) -> bool:
    """Whether a value begins as `'00123` or `="00123`, and with a quote in general."""
    bare = value.removeprefix("=")
    return len(bare) > 1 and bare[0] in "'\""


def cause_of_value(value: str) -> str:
    """Return the likely cause of a broken value, and what to do; empty if unknown."""
    if _is_kept_as_text(value):
        return f"the quotes by which a spreadsheet keeps text: {_UNQUOTE}"
    if _SCIENTIFIC.fullmatch(value.removesuffix(LOST)):
        return f"a spreadsheet wrote a long number in short, and its digits are gone: {_AS_TEXT}"
    if _WHOLE_AS_FLOAT.fullmatch(value):
        return f"a program took a whole number for a fraction: {_AS_TEXT}"
    if _DATE.fullmatch(value):
        return f"it reads like a date, into which spreadsheets turn what looks like one: {_AS_TEXT}"
    wrong = next((character for character in value if not _is_plain(character)), None)
    return cause_of_character(wrong) if wrong else ""


def _is_plain(character: str) -> bool:
    return " " <= character <= "~"


def cause_of_character(character: str) -> str:
    """Return the likely origin of a character other than printable ASCII; empty if unknown."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004  # how Python escapes a byte it cannot decode
        return "the file is not UTF-8: --encoding names another one, e.g. cp1252"
    if character in _LOOKS_LIKE:
        return f"it looks like the Latin {_LOOKS_LIKE[character]}: type it again"
    for characters, cause in (
        ("\xa0\u202f\u2007", "a blank from a web page or a document: type a plain one"),
        ("\u200b\u200c\u200d\u2060\ufeff\xad", "invisible, copied from a web page: delete it"),
        (_BIDI, "an invisible mark of the direction of writing: delete it"),
        (_QUOTES, "a quote that a word processor made: type a plain one, or none"),
        (_DASHES, "a dash that a word processor made of a hyphen"),
        ("\ufffd", "the text was read in a wrong encoding before it came here: export it again"),
    ):
        if character in characters:
            return cause
    category = unicodedata.category(character)
    if category == "Cc":
        return "a control character, as scanners and terminals leave it: delete it"
    if unicodedata.normalize("NFKC", character).isascii():
        return "a wide or styled form of a plain character: type the plain one"
    return ""


def suspicious(code: str) -> str:
    """Return why a valid machine code is probably not the original one; empty if it is not odd."""
    if _SCIENTIFIC.fullmatch(code):
        return "reads like a number that a spreadsheet wrote in short"
    if code in BOOLEANS:
        return "reads like a spreadsheet's yes or no"
    if code in _ODD:
        return "reads like what stands below a table"
    return ""


class Suspicions:
    """Suspicious patterns among the valid machine codes of a whole file."""

    def __init__(self) -> None:
        self._odd: dict[str, tuple[int, int, str]] = {}
        self._padded: dict[int, tuple[int, str]] = {}
        self._bare: dict[int, tuple[int, int, str]] = {}

    def add(self, codes: Sequence[str], lines: Iterable[int]) -> None:
        """Examine the machine codes of valid rows. *lines*: where they are."""
        if min(codes) >= ":" and _ODD.isdisjoint(codes):
            return  # none begins with a digit, so none is a number
        for code, line in zip(codes, lines, strict=True):
            if code.isdecimal():
                self._number(code, line)
            elif (code[0] < ":" or code in _ODD) and (why := suspicious(code)):
                count, first, example = self._odd.get(why, (0, line, code))
                self._odd[why] = (count + 1, first, example)

    def _number(self, code: str, line: int) -> None:
        length = len(code)
        if code[0] == "0":
            self._padded.setdefault(length, (line, code))
        else:
            count, first, example = self._bare.get(length, (0, line, code))
            self._bare[length] = (count + 1, first, example)

    def notices(self, name: str) -> Iterator[str]:
        """Yield what the operator should check."""
        for why, (count, line, code) in self._odd.items():
            yield f"{name}: {count:,} machine codes like `{code}` (line {line}): each {why}"
        for length, (padded_line, padded) in self._padded.items():
            shorter = [bare for size, bare in self._bare.items() if size < length]
            if shorter:
                count = sum(bare[0] for bare in shorter)
                _, line, code = min(shorter, key=lambda bare: bare[1])
                yield (
                    f"{name}: {count:,} machine codes like `{code}` (line {line}) may have lost "
                    f"leading zeros: others have {length} digits with them, like `{padded}` "
                    f"(line {padded_line})"
                )
                return

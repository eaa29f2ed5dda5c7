"""Likely causes of broken values; pure.

Most were valid once: a spreadsheet turned a number into `3.56E+14`, a word processor replaced a
hyphen by a dash, someone typed a Cyrillic letter that looks like a Latin one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_DIGITS = 15
"""Digits of an integer that a spreadsheet keeps. Source: IEEE 754, binary64."""
BOOLEANS = frozenset(
    (
        *("TRUE", "FALSE", "True", "False", "true", "false"),
        *("WAHR", "FALSCH", "VRAI", "FAUX", "VERDADERO", "FALSO", "VERO", "VERDADEIRO", "WAAR"),
        *("ONWAAR", "PRAWDA", "PRAVDA", "NEPRAVDA", "SANT", "FALSKT", "SAND", "FALSK", "SANN"),
        *("USANN", "TOSI", "IGAZ", "HAMIS", "DOGRU", "YANLIS"),
    )
)
"""What spreadsheets show for yes and no, in whatever language."""
_MORE_THAN_CHANCE = 4
"""How many times as often as by chance numbers end in zeros before they are suspected."""
_SCIENTIFIC = re.compile(r"[+-]?\d+(?:[.,]\d+)?[eE][+-]?\d+", re.ASCII)
_WHOLE_AS_FLOAT = re.compile(r"[+-]?\d+[.,]0+", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(?:[T ].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{1,2}-[A-Za-z]{3}(?:-\d+)?"
    r"|[A-Za-z]{3}-\d{2}|\d{1,2}[-./](?:jan|feb|fev|mar|mrz|maa|apr|abr|avr|mai|may|maj|mei|mag|jun"
    r"|jui|giu|jul|lug|aug|ago|aou|sep|set|okt|oct|ott|out|nov|dez|dec|dic)[a-z]{0,6}\.?"
    r"(?:[-./]\d{2,4})?",
    re.ASCII | re.IGNORECASE,
)
_TIME = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?(?: ?[AP]M)?", re.ASCII | re.IGNORECASE)
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
"""The beginnings of all errors that `error_of` recognizes."""
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
_IN_SHORT = re.compile(r"[+-]?(?:\d+[.,]\d+[eE][+-]?|\d+[eE][+-])\d+", re.ASCII)
"""A number in short that no machine code can be; `12E3` may be an id."""
_GROUPED = re.compile(
    r"[+-]?\d{1,3}(?:(?:,\d{3})+(?:\.\d+)?|(?:'\d{3})+(?:[.,]\d+)?|(?:\.\d{3})+,\d+)", re.ASCII
)
_DOTTED = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+", re.ASCII)
_ENDS_IN_QUOTE = re.compile(r'[\w.@+-]*\w"', re.ASCII)
_FRACTION = re.compile(r"[+-]?\d+,\d+|[+-]?\d+\.(?:\d{1,2}|\d{4,})", re.ASCII)
_PERCENT = re.compile(r"[+-]?\d+(?:[.,]\d+)? ?%", re.ASCII)
_CHANGED_NUMBERS = (
    (_IN_SHORT, "a spreadsheet wrote a long number in short, and its digits are gone"),
    (_WHOLE_AS_FLOAT, "a program took a whole number for a fraction"),
    (_GROUPED, "a number with marks at the thousands"),
    (_PERCENT, "a number that a spreadsheet wrote in percent"),
)
_MARKS = "#.,+-'\"=:%"
"""All that `damage_of` recognizes has one of these characters."""
_SUSPECT = (
    rf"(?:{'|'.join(map(re.escape, FAULT_STARTS))}|=?['\"]"
    r"|[+-]?\d+(?:[.,]0|[.,]\d+[eE][+-]?\d|[eE][+-]\d|[,']\d{3}|(?:\.\d{3})+,|(?:[.,]\d+)? ?%))"
)
"""How all that `damage_of` recognizes begins."""
_SUSPECT_VALUE = re.compile(_SUSPECT, re.ASCII)
_SUSPECT_AMONG = re.compile(f'\0{_SUSPECT}|"\0', re.ASCII)
_AS_TEXT = "set the column to text, enter the value again and export once more"
_AS_WRITTEN = "a value, not what a spreadsheet made of it"
_UNQUOTE = "export the sheet once more as CSV or .xlsx, or delete them"
QUOTES = "‘’‚‛“”„‟«»‹›′″`´"
DASHES = "‐‑‒–—―−﹣－"
_BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
LOOKS_LIKE = dict(
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
    rule: str = "a value, not the error of a spreadsheet"
    """What is allowed, without the name of the field."""


_MEND = "fix the formula, or enter the value itself"
PLACEHOLDER = Fault(
    "a placeholder, not a value",
    "enter the value itself; --placeholders none takes it as it stands",
    "a value, not a placeholder",
)


DIGITS_LOST = "digits lost"
NEVER_CALCULATED = "never calculated"
EMPTY_FORMULA = "empty formula"
FORMULA_ERROR = "error of a formula"
"""Doubts about a cell of a spreadsheet, as they stand in parentheses behind what it shows."""
_SHOWN = "a value that is stored as it is shown"
_DOUBTS = tuple(
    (re.compile(doubt, re.DOTALL), Fault(found, hint, rule))
    for doubt, found, hint, rule in (
        (DIGITS_LOST, "a number of more than 15 digits ({shown})",
         f"a spreadsheet keeps 15 of them, the other digits are gone: {_AS_TEXT}", _SHOWN),
        (NEVER_CALCULATED, "a formula that was never calculated ({shown})",
         "open and save the file, or enter the value itself", "a value, not a formula without one"),
        (EMPTY_FORMULA, "a formula that shows nothing",
         "enter the value itself, or clear the cell", "a value, not a formula without one"),
        (FORMULA_ERROR, "an error of a formula ({shown})", _MEND, Fault._field_defaults["rule"]),
        ("merged ([A-Z]+[0-9]+:[A-Z]+[0-9]+)", "a part of the merged cells {held}",
         "unmerge them, and give each row its own value", "a cell of its own row and column"),
        ("the cell holds (.+)", "a cell that is shown as {shown!r} and stored as {held!r}",
         "set the column to text, and enter the value as it should be", _SHOWN),
        ("a date, stored as (.+)", "a date ({shown}, stored as {held})",
         f"spreadsheets turn into dates what looks like one: {_AS_TEXT}", _SHOWN),
        ("in the format (.+)", "a cell stored as {shown!r} and shown in the format {held!r}",
         "set the column to text, and enter the value as it should be", _SHOWN),
    )
)  # fmt: skip


def doubted(shown: str, doubt: str) -> str:
    """Return what a cell shows with a doubt behind it, as `fault_of` recognizes it."""
    return f"{shown} ({doubt})".lstrip()


def _doubt_of(value: str) -> Fault | None:
    """Return the fault of a text made by `doubted`."""
    shown, _, doubt = value[:-1].rpartition("(")
    for pattern, fault in _DOUBTS:
        if found := pattern.fullmatch(doubt):
            held = found[1] if pattern.groups else ""
            told = fault.found.format(shown=shown.rstrip(), held=held)
            return fault._replace(found=told.replace(" ()", ""))
    return None


def formula_error(text: str) -> Fault:
    """Return the fault of a cell with a formula error; *text*: as shown in the cell."""
    shown = f" ({text})" if text else ""
    return Fault(f"an error of a formula{shown}", _MEND)


def fault_of(value: str) -> Fault | None:
    """Return why a text is what a spreadsheet shows instead of a value; None if it is a value."""
    if value.endswith(")") and (fault := _doubt_of(value)):
        return fault
    return error_of(value)


def error_of(value: str) -> Fault | None:
    """Return the fault of a text that is an error of a spreadsheet; None if it is none."""
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


def damage_of(value: str) -> Fault | None:
    """Return why a text is a damaged id, or none, though visible ASCII; None if it may be one."""
    if not _SUSPECT_VALUE.match(value) and not value.endswith((")", '"')):
        return None
    if fault := fault_of(value):
        return fault
    if _is_kept_as_text(value):
        return Fault("the quotes by which a spreadsheet keeps text", _UNQUOTE, _AS_WRITTEN)
    if _ENDS_IN_QUOTE.fullmatch(value):
        return Fault("a quote at its end that opens nowhere", "delete it, or open it", _AS_WRITTEN)
    for pattern, found in _CHANGED_NUMBERS:
        if pattern.fullmatch(value):
            return Fault(found, _AS_TEXT, _AS_WRITTEN)
    return None


def may_have_damage(joined: str) -> bool:
    """Return whether any of many values may be damaged; *joined*: with NUL before each."""
    return any(mark in joined for mark in _MARKS) and _SUSPECT_AMONG.search(joined) is not None


def _is_kept_as_text(value: str) -> bool:
    """Whether a value begins as `'00123` or `="00123"`, and with a quote in general."""
    bare = value.removeprefix("=")
    return len(bare) > 1 and bare[0] in "'\""


def cause_of_value(value: str) -> str:
    """Return the likely cause of a broken value, and what to do; empty if unknown."""
    if damage := damage_of(value):
        return f"{damage.found}: {damage.hint}"
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
    if character in LOOKS_LIKE:
        return f"it looks like the Latin {LOOKS_LIKE[character]}: type it again"
    for characters, cause in (
        ("\xa0\u202f\u2007", "a blank from a web page or a document: type a plain one"),
        ("\u200b\u200c\u200d\u2060\ufeff\xad", "invisible, copied from a web page: delete it"),
        (_BIDI, "an invisible mark of the direction of writing: delete it"),
        (QUOTES, "a quote that a word processor made: type a plain one, or none"),
        (DASHES, "a dash that a word processor made of a hyphen"),
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


_ODD = (
    (_SCIENTIFIC, "a number that a spreadsheet wrote in short"),
    (_TIME, "a time, into which spreadsheets turn what looks like one"),
    (_FRACTION, "a fraction"),
    (_DOTTED, "a number with marks at the thousands"),
    (_DATE, "a date, into which spreadsheets turn what looks like one"),
)
"""Ids that begin with a digit and are probably not the original ones."""


def suspicious(value: str) -> str:
    """Return why a valid id is probably not the original one; empty if it is not odd."""
    if value in BOOLEANS:
        return "reads like a spreadsheet's yes or no"
    found = (what for pattern, what in _ODD if pattern.fullmatch(value))
    what = next(found, "")
    return what and f"reads like {what}"


_NUL = "\0"
_DIGIT = re.compile("[0-9]")
_NO_DIGITS = bytes(number for number in range(1, 256) if chr(number) not in "0123456789")
_FEW_WORDS = 5
_SHARE_OF_WORDS = 0.02
"""So many ids without a digit may be no ids, where all others have one."""


class _Numbers(NamedTuple):
    """Some ids of one kind, such as numbers of one length."""

    number: int
    line: int
    example: str

    def plus(self, more: int) -> _Numbers:
        return self._replace(number=self.number + more)


class Suspicions:
    """Suspicious patterns among the valid ids of one field in a whole file."""

    def __init__(self, noun: str, besides: str | None = None, *, has_numbers: bool = False) -> None:
        """*noun*: what the ids are, in the plural. *besides*: one that is never suspected.

        *has_numbers*: whether one without a digit is odd among others.
        """
        self._noun = noun
        self._has_numbers = has_numbers
        self._besides = besides
        self._odd: dict[str, tuple[int, int, str]] = {}
        self._padded: dict[int, tuple[int, str]] = {}
        self._bare: dict[int, _Numbers] = {}
        self._cut: dict[int, _Numbers] = {}
        """Those with nothing but zeros where a spreadsheet loses digits."""
        self._count_of_all = 0
        self._words: _Numbers | None = None
        """Those without a digit."""

    def add(self, values: Sequence[str], lines: Sequence[int]) -> None:
        """Examine ids of valid rows. *lines*: where they are."""
        least = min(values)
        self._count_of_all += len(values)
        has_words = _has_words(values) if self._has_numbers else not BOOLEANS.isdisjoint(values)
        if least >= ":" and not has_words:
            return  # none begins with a digit, so none is a number
        length = len(values[0])
        is_padded = least < "1" > max(values)
        if (
            (is_padded or (least >= "1" and length <= MOST_DIGITS))
            and _are_numbers(values, length)
            and self._besides not in values
        ):
            if is_padded:
                self._padded.setdefault(length, (lines[0], values[0]))
            else:
                self._count(self._bare, length, len(values), lines[0], values[0])
            return
        for value, line in zip(values, lines, strict=True):
            if value == self._besides:
                continue
            if value.isdecimal():
                self._number(value, line)
            elif (value[0] < ":" or value in BOOLEANS) and (why := suspicious(value)):
                count, first, example = self._odd.get(why, (0, line, value))
                self._odd[why] = (count + 1, first, example)
            elif has_words and not _DIGIT.search(value):
                self._words = (self._words or _Numbers(0, line, value)).plus(1)

    def _number(self, value: str, line: int) -> None:
        length = len(value)
        if value[0] == "0":
            self._padded.setdefault(length, (line, value))
            return
        self._count(self._bare, length, 1, line, value)
        if length > MOST_DIGITS and not value[MOST_DIGITS:].strip("0"):
            self._count(self._cut, length, 1, line, value)

    @staticmethod
    def _count(counts: dict[int, _Numbers], length: int, more: int, line: int, value: str) -> None:
        known = counts.get(length) or _Numbers(0, line, value)
        counts[length] = known.plus(more)

    def notices(self, name: str) -> Iterator[str]:
        """Yield what the operator should check."""
        for why, (count, line, value) in self._odd.items():
            each = verb(count, "it", "each")
            yield f"{name}: {self._told(count, line, value)}: {each} {why}"
        if self._has_numbers:
            yield from self._lone_words(name)
        yield from self._lost_ends(name)
        for length, (padded_line, padded) in self._padded.items():
            shorter = [bare for size, bare in self._bare.items() if size < length]
            if shorter:
                count = sum(bare.number for bare in shorter)
                _, line, value = min(shorter, key=lambda bare: bare.line)
                yield (
                    f"{name}: {self._told(count, line, value)} may have lost "
                    f"leading zeros: others have {length} digits with them, like `{padded}` "
                    f"(line {padded_line})"
                )
                return

    def _told(self, count: int, line: int, value: str) -> str:
        return f"{counted(count, self._noun)} like `{value}` (line {line})"

    def _lone_words(self, name: str) -> Iterator[str]:
        if self._words is None:
            return
        count, line, value = self._words
        others = self._count_of_all - count
        if count <= others > 1 and count <= max(_FEW_WORDS, others * _SHARE_OF_WORDS):
            yield (
                f"{name}: {self._told(count, line, value)} {verb(count, 'has', 'have')} no digit, "
                f"all {others:,} others have: {verb(count, 'is it a title', 'are they titles')} or "
                f"{verb(count, 'a note', 'notes')} between the rows?"
            )

    def _lost_ends(self, name: str) -> Iterator[str]:
        for length, (count, line, value) in self._cut.items():
            # By chance, one number in 10, 100, … ends in one, two, … zeros.
            if count * 10 ** (length - MOST_DIGITS) > _MORE_THAN_CHANCE * self._bare[length].number:
                yield (
                    f"{name}: {self._told(count, line, value)} may have lost "
                    f"{verb(count, 'its', 'their')} last digits: a spreadsheet keeps "
                    f"{MOST_DIGITS} and writes zeros for the others"
                )


def _has_words(values: Sequence[str]) -> bool:
    """Whether some have no digit."""
    return b"\0\0" in f"\0{_NUL.join(values)}\0".encode().translate(None, _NO_DIGITS)


def _are_numbers(values: Sequence[str], length: int) -> bool:
    """Whether all are digits, and *length* of them; values are not empty."""
    return set(map(len, values)) == {length} and "".join(values).isdecimal()


_MANY_NAMES = 3
"""Names from which on a code is no device's own."""
_MOST_CODES = 5_000
_MOST_REPEATED = 1_000
_MOST_TOLD = 3


class Repeats:
    """Machine codes that rows with different names share, such as a vendor's default.

    Remembers a number of codes only, so that memory stays flat: one that comes again after many
    others may be missed.
    """

    def __init__(self) -> None:
        self._first: dict[str, _Rows] = {}
        """The rows among which each of the last codes was first seen."""
        self._repeated: dict[str, _Repeated] = {}
        self._is_exact = True

    def add(
        self,
        codes: Sequence[str],
        names: Sequence[str | None],
        users: Sequence[str],
        lines: Sequence[int],
    ) -> None:
        """Examine valid rows; a device without a name is told apart by its user."""
        if len(self._first) > _MOST_CODES:
            self._is_exact = False
            self._first = {code: self._first[code] for code in self._repeated}
        rows = _Rows(codes, names, users)
        known = len(self._first)
        deque(map(self._first.setdefault, codes, repeat(rows)), maxlen=0)
        if len(self._first) == known + len(codes):
            return
        for at, (code, line) in enumerate(zip(codes, lines, strict=True)):
            if self._first[code] is not rows or rows.at[code] < at:
                self._again(code, rows.name(at), line)

    def _again(self, code: str, name: str, line: int) -> None:
        found = self._repeated.get(code)
        if found is None:
            if len(self._repeated) >= _MOST_REPEATED:
                self._repeated = {
                    known: each for known, each in self._repeated.items() if each.is_shared
                }
            if len(self._repeated) >= _MOST_REPEATED:
                return
            first = self._first[code]
            found = self._repeated[code] = _Repeated(line, [first.name(first.at[code])])
        found.count += 1
        if not found.is_shared and name not in found.names:
            found.names.append(name)

    def notices(self, name: str) -> Iterator[str]:
        """Yield what the operator should check."""
        shared = [(code, each) for code, each in self._repeated.items() if each.is_shared]
        shared.sort(key=lambda item: -item[1].count)
        least = "" if self._is_exact else "at least "
        for code, each in shared[:_MOST_TOLD]:
            first, other = each.names[:2]
            yield (
                f"{name}: {least}{counted(each.count, 'rows')} with different names, like "
                f"{first!r} and {other!r} (line {each.line}), share the machine code "
                f"`{code}`: is it a device's own?"
            )
        if len(shared) > _MOST_TOLD:
            more = len(shared) - _MOST_TOLD
            are = verb(more, "is", "are")
            yield f"{name}: {counted(more, 'more machine codes')} {are} shared like that"


@dataclass
class _Rows:
    """Some rows, column by column."""

    codes: Sequence[str]
    names: Sequence[str | None]
    users: Sequence[str]

    @cached_property
    def at(self) -> dict[str, int]:
        """The first row of each code; made when it is asked for, as few rows repeat."""
        return dict(zip(reversed(self.codes), reversed(range(len(self.codes))), strict=True))

    def name(self, at: int) -> str:
        return self.names[at] or self.users[at]


@dataclass(slots=True)
class _Repeated:
    """A code that stands in several rows."""

    line: int
    """Where it stood for the second time."""
    names: list[str]
    """The first different ones."""
    count: int = 1

    @property
    def is_shared(self) -> bool:
        return len(self.names) >= _MANY_NAMES

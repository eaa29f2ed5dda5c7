"""The rules of a row, pure. Source of every pattern: koodrive-api.md, body fields and X-User-Id."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.manifest.likely_causes import FAULT_STARTS, Fault, fault_of
from bulkbind.model import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_SHOWN = 200
"""The most characters of a broken value shown in messages and reports; `failed.csv` has all."""
_VALUE = "a value, not the error of a spreadsheet"
_NUL = "\0"
_ALLOWED = b"a"
Values = tuple[str | None, str | None, str | None, str | None]
"""user_id, machine_code, device_name, device_os: trimmed, None if missing."""


class Rule(NamedTuple):
    """What one field may contain (ASCII only)."""

    field: str
    required: bool
    pattern: re.Pattern[str]
    allowed: re.Pattern[str]
    """Matches one allowed character; used to find the first one that is not."""
    classes: bytes
    """For `bytes.translate`: `a` for allowed characters, NUL for NUL, `!` for all others."""
    has_blanks: bool
    longest: int
    text: str


def _rule(field: str, characters: str, longest: int, words: str, *, required: bool) -> Rule:
    text = f"{field}: {words}, 1 to {longest} characters"
    whole = re.compile(f"{characters}{{1,{longest}}}", re.ASCII)
    one = re.compile(characters, re.ASCII)
    allowed = [n >= ord(" ") and one.fullmatch(chr(n)) is not None for n in range(256)]
    classes = bytes([0, *(ord(_ALLOWED if is_allowed else b"!") for is_allowed in allowed[1:])])
    return Rule(field, required, whole, one, classes, allowed[ord(" ")], longest, text)


RULES = (
    _rule("user_id", r"[!-~]", 128, "only visible ASCII without blanks", required=True),
    _rule("machine_code", r"[a-zA-Z0-9_]", 64, "only letters, digits and `_`", required=True),
    _rule(
        "device_name",
        r"[a-zA-Z0-9\-_\s]",
        32,
        "only letters, digits, `-`, `_` and blanks",
        required=False,
    ),
    _rule(
        "device_os",
        r"[a-zA-Z0-9_\s]",
        32,
        "only letters, digits, `_` and blanks (no hyphen)",
        required=False,
    ),
)
"""In the order of `Values`."""

_USER, _CODE, _NAME, _OS = (rule.pattern.fullmatch for rule in RULES)


def trim(cell: str | None) -> str | None:
    """Return *cell* without surrounding white space (see `str.strip`), None if empty."""
    return (cell.strip() or None) if cell else None


def keeps(rule: Rule, values: Sequence[str]) -> bool:
    """Return whether all values are trimmed, not empty and valid.

    Many times faster than one by one, and conservative: False for blanks other than spaces, which
    `check` then decides.
    """
    joined = f"\0{_NUL.join(values)}\0"
    if not joined.isascii() or not all(values):
        return False
    classes = joined.encode().translate(rule.classes)
    return (
        classes.translate(None, _ALLOWED) == b"\0" * (len(values) + 1)
        and _ALLOWED * (rule.longest + 1) not in classes
        and not (rule.has_blanks and ("\0 " in joined or " \0" in joined))
        and not (
            any(f"\0{start}" in joined for start in FAULT_STARTS) and any(map(fault_of, values))
        )
    )


def check(values: Values, columns: tuple[str, ...]) -> tuple[Problem, ...]:
    """Return a problem for every rule that *values* break.

    *columns*: the operator's names of the four columns, for messages.
    """
    user, code, name, system = values
    if (
        user is not None
        and code is not None
        and _USER(user)
        and not fault_of(user)
        and _CODE(code)
        and (name is None or _NAME(name))
        and (system is None or _OS(system))
    ):
        return ()
    return tuple(_problems(values, columns))


def breaks(field: str, value: str) -> str | None:
    """Return what is wrong with a value given as an option; None if it is valid."""
    rule = next(rule for rule in RULES if rule.field == field)
    return None if rule.pattern.fullmatch(value) else f"{rule.text}; {_found(value, rule)}"


def _problems(values: Values, columns: tuple[str, ...]) -> list[Problem]:
    problems = []
    for rule, value, column in zip(RULES, values, columns, strict=True):
        if value is None:
            if rule.required:
                problems.append(Problem(rule.field, column, "", rule.text, "it is missing"))
        elif fault := fault_of(value):
            problems.append(no_value(rule.field, column, value, fault))
        elif not rule.pattern.fullmatch(value):
            shown = printable(value)
            problems.append(Problem(rule.field, column, shown, rule.text, _found(value, rule)))
    return problems


def no_value(field: str, column: str, cell: str, fault: Fault) -> Problem:
    """Return the problem of a cell whose text is not a value."""
    return Problem(field, column, printable(cell), f"{field}: {_VALUE}", fault.found, fault.hint)


def _found(value: str, rule: Rule) -> str:
    """Describe the violation: the first forbidden character, and the length if too long."""
    if not value:
        return "it is empty"
    wrong = (at for at, character in enumerate(value) if not rule.allowed.fullmatch(character))
    first = next(wrong, None)
    parts = [] if first is None else [f"{name_character(value[first])} at {first + 1}"]
    if len(value) > rule.longest:
        parts.append(f"it has {len(value)} characters")
    return ", ".join(parts)


def name_character(character: str) -> str:
    """Return a character with its code point and name: `'-' (U+002D HYPHEN-MINUS)`."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # noqa: PLR2004  # how Python escapes a byte it cannot decode
        return f"byte 0x{number - 0xDC00:02X}, which the file's encoding does not know,"
    label = unicodedata.name(character, "control character")
    shown = f"'{character}' " if character.isprintable() else ""
    return f"{shown}(U+{number:04X} {label})"


def printable(value: str, longest: int = LONGEST_SHOWN) -> str:
    """Return *value* truncated to *longest* characters, with undecodable bytes as escapes."""
    text = value if len(value) <= longest else f"{value[:longest]}…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

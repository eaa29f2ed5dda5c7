"""The rules of a row, which follow from the table of fields; pure."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.manifest.likely_causes import Fault, damage_of, fault_of, may_have_damage
from bulkbind.manifest.placeholders import NO_PLACEHOLDERS, Placeholders
from bulkbind.model import Problem
from bulkbind.model.fields import ROW_FIELDS, USER, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model.fields import Values

LONGEST_SHOWN = 200
"""The most characters of a broken value shown in messages and reports; `failed.csv` has all."""
_NUL = "\0"
_ALLOWED = b"a"


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


def _rule(field: Field) -> Rule:
    text = f"{field.name}: only {field.words}, 1 to {field.longest} characters"
    whole = re.compile(f"{field.characters}{{1,{field.longest}}}", re.ASCII)
    one = re.compile(field.characters, re.ASCII)
    allowed = [n >= ord(" ") and one.fullmatch(chr(n)) is not None for n in range(256)]
    classes = bytes([0, *(ord(_ALLOWED if is_allowed else b"!") for is_allowed in allowed[1:])])
    has_blanks = allowed[ord(" ")]
    required = field.is_required
    return Rule(field.name, required, whole, one, classes, has_blanks, field.longest, text)


RULES = tuple(map(_rule, ROW_FIELDS))
"""In the order of `ROW_FIELDS`."""


_GOOD = re.compile(
    _NUL.join(f"(?:{rule.pattern.pattern}){'' if rule.required else '?'}" for rule in RULES),
    re.ASCII,
).fullmatch
"""Matches the values of a whole row, joined: one match is faster than one for each value."""


def trim(cell: str | None) -> str | None:
    """Return *cell* without surrounding white space (see `str.strip`), None if empty."""
    return (cell.strip() or None) if cell else None


def keeps(rule: Rule, values: Sequence[str], placeholders: Placeholders = NO_PLACEHOLDERS) -> bool:
    """Return whether all values are trimmed, not empty and valid, and none is a placeholder.

    Many times faster than one by one, and conservative: False for blanks other than spaces, which
    `check` then decides.
    """
    joined = f"\0{_NUL.join(values)}\0"
    if not joined.isascii() or not all(values):
        return False
    encoded = joined.encode()
    classes = encoded.translate(rule.classes)
    return (
        classes.translate(None, _ALLOWED) == b"\0" * (len(values) + 1)
        and _ALLOWED * (rule.longest + 1) not in classes
        and not (rule.has_blanks and ("\0 " in joined or " \0" in joined))
        and not (_may_hide_damage(rule) and may_have_damage(joined) and any(map(damage_of, values)))
        and not placeholders.among(encoded)
    )


def _may_hide_damage(rule: Rule) -> bool:
    """Whether a rule allows the marks of damaged values; elsewhere they break it anyway."""
    return rule.classes[ord("#")] == ord(_ALLOWED)


def check(values: Values, columns: tuple[str, ...]) -> tuple[Problem, ...]:
    """Return a problem for every rule that *values* break.

    *values* are trimmed. *columns*: the operator's names of the columns, for messages.
    """
    joined = _NUL.join([value or "" for value in values])
    if "" not in values and _GOOD(joined) and not may_have_damage(_NUL + joined):
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
                cure = "--user-id ID" if rule.field == USER.name else ""
                found = "it is missing"
                problems.append(Problem(rule.field, column, "", rule.text, found, cure=cure))
        elif fault := damage_of(value) if _may_hide_damage(rule) else fault_of(value):
            problems.append(no_value(rule.field, column, value, fault))
        elif not rule.pattern.fullmatch(value):
            shown = printable(value)
            problems.append(Problem(rule.field, column, shown, rule.text, _found(value, rule)))
    return problems


def no_value(field: str, column: str, cell: str, fault: Fault) -> Problem:
    """Return the problem of a cell whose text is not a value."""
    rule = f"{field}: {fault.rule}"
    return Problem(field, column, printable(cell), rule, fault.found, fault.hint)


def _found(value: str, rule: Rule) -> str:
    """Describe the violation: the first forbidden character, and the length if too long."""
    if not value:
        return "it is empty"
    wrong = (at for at, character in enumerate(value) if not rule.allowed.fullmatch(character))
    first = next(wrong, None)
    parts = [] if first is None else [f"{name_character(value[first])} at position {first + 1}"]
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


_UNDECODED = re.compile("[\udc80-\udcff]")


def printable(value: str, longest: int = LONGEST_SHOWN) -> str:
    r"""Return *value* truncated to *longest* characters, with undecodable bytes as `\xfc`."""
    text = value if len(value) <= longest else f"{value[:longest]}…"
    text = _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")

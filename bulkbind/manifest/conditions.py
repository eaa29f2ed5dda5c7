"""Conditions on the operator's own columns, which say what rows are meant; pure but for the lists.

A cell is compared as a person sees it: without blanks around it, any run of blanks as one, without
what shows nothing, and with composed characters. Capitals count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.columns import seen
from bulkbind.manifest.opened import ManifestFile
from bulkbind.manifest.text import blocks, encoding_of, lines_of, open_text, read_head
from bulkbind.model import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bulkbind.settings.model import Reading

_WRITTEN = re.compile(
    r"(?P<column>.*?)(?:\s*(?P<sign>[=~])|\s+(?P<word>in)\s)(?P<right>.*)", re.DOTALL
)
"""The first sign or `in` divides: a column whose name holds one is named by its position."""
_FORMS = "COLUMN=VALUE, COLUMN~REGEX, or COLUMN in FILE"
MOST_VALUES = 5_000_000
"""Lines of a list."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What the cell of one column must be, or must not be, so that a row is meant."""

    text: str
    """With its option, as one types it."""
    column: str
    """As written: a header, `#3`, or the path of a key."""
    is_not: bool
    """Whether rows for which it holds are left out; else those for which it does not."""
    holds: Callable[[str], bool]
    """Of a cell as `seen` returns it."""
    meaning: tuple[str, ...]
    """What determines which rows are meant."""
    values: frozenset[str] = frozenset()
    """Those of a list."""


def asked_columns(settings: Reading) -> tuple[str, ...]:
    """Return the columns that conditions name, in order, and last the one that names the user.

    Raises: UsageError.
    """
    flags = {"--where": settings.where, "--where-not": settings.where_not}
    named = [_divided(flag, text)[0] for flag, texts in flags.items() for text in texts]
    return (*named, *([user_keys(settings)[0]] if settings.user_key else []))


def user_keys(settings: Reading) -> tuple[str, str]:
    """Return the column that names the user in the manifest, and in the table of users."""
    ours, sign, theirs = (settings.user_key or "").partition("=")
    return ours.strip(), theirs.strip() if sign and theirs.strip() else ours.strip()


def conditions_of(settings: Reading) -> tuple[Condition, ...]:
    """Return the conditions; lists are read. Raises: UsageError, ManifestError."""
    wanted = [_condition("--where", text, is_not=False) for text in settings.where]
    return (*wanted, *(_condition("--where-not", text, is_not=True) for text in settings.where_not))


def _divided(flag: str, text: str) -> tuple[str, str, str]:
    """Return column, sign and what follows. Raises: UsageError."""
    found = _WRITTEN.fullmatch(text.strip() + " ")
    column = found["column"].strip() if found else ""
    if found is None or not column:
        raise UsageError(
            f"{flag} {text!r} is no condition",
            hint=f"write {_FORMS}, for instance {flag} 'Site=Berlin'; #3 names the third column",
        )
    return column, found["sign"] or found["word"], found["right"].strip()


def _condition(flag: str, text: str, *, is_not: bool) -> Condition:
    column, sign, right = _divided(flag, text)
    shown = f"{flag} {quote(text)}"
    value = seen(right)
    if sign == "=":
        return Condition(shown, column, is_not, value.__eq__, (flag, column, sign, value))
    if not right:
        raise UsageError(f"{flag} {text!r}: nothing follows {sign!r}", hint=f"write {_FORMS}")
    if sign == "~":
        return Condition(shown, column, is_not, _matcher(flag, right), (flag, column, sign, right))
    try:
        values = read_list(Path(right).expanduser(), right)
    except ManifestError as error:
        raise ManifestError(f"{shown}: {error}", hint=error.hint) from error
    return Condition(
        shown, column, is_not, values.__contains__, (flag, column, sign, *sorted(values)), values
    )


def _matcher(flag: str, pattern: str) -> Callable[[str], bool]:
    """Return whether a pattern is found anywhere in a text, in time linear in its length.

    Source: Rust's regex, which pydantic has; it knows no look-around and no back-references, which
    alone can take exponential time.

    Raises: UsageError.
    """
    try:
        kind: TypeAdapter[str] = TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])
    except SchemaError as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"{flag} with the regular expression {pattern!r}: {why.removeprefix('error: ')}",
            hint="look-around (?=…) and back-references \\1 are not known, as they may take for "
            "ever; .* ^ $ [a-z] \\d a|b (?i) are",
        ) from error
    return kind.validator.isinstance_python


def read_list(path: Path, name: str) -> frozenset[str]:
    """Return the values of a list, one a line, as `seen`; blank lines are none.

    Quotes around a whole line are taken off, as spreadsheets write them.

    Raises: ManifestError if it cannot be read, or holds nothing.
    """
    file = ManifestFile.of(path, name)
    head = read_head(file)
    encoding, bom = encoding_of(head, name) if head else ("utf-8", False)
    values = {seen(_unquoted(line)) for line in _lines(file, Source(name, "list", encoding, bom))}
    values.discard("")
    if not values:
        raise ManifestError(f"{name} holds no values", hint="it should have one a line")
    return frozenset(values)


def _lines(file: ManifestFile, source: Source) -> Iterator[str]:
    count = 0
    with open_text(file, source, "strict") as text:
        for block in blocks(text, source.name):
            for line in lines_of(block, keepends=False):
                count += 1
                if count > MOST_VALUES:
                    raise ManifestError(f"{source.name} has more than {MOST_VALUES:,} lines")
                yield line


def _unquoted(line: str) -> str:
    """Return a line without the quotes around it, doubled ones inside as one."""
    text = line.strip().strip("\ufeff")
    inner = text[1:-1]
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return text

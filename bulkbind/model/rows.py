"""Rows of a manifest: the result of the rules, and how claimed rows end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from bulkbind.model.fields import ABSENT, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bulkbind.model.attempts import Attempt, Verdict
    from bulkbind.model.statuses import Status

OWN_COLUMNS = ("bulkbind_status", "bulkbind_reason")
"""Columns added to rows returned to the operator, and ignored on input."""
CLEANING = "cleaning (--clean names) would make it "
"""How the hint begins that says what cleaning makes of a value; it ends the hint."""


class Device(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One valid device and its user; in JSON an array."""

    user_id: str
    machine_code: str
    optional: Values = ABSENT
    """The values of the optional fields."""


def in_one_line(text: str) -> str:
    """Return a text as it is, with what would break the line or steer a terminal as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of one row."""

    field: str
    """The field of the manifest (`machine_code`, …), or `row`."""
    column: str
    """The operator's name of the column; the field's name if there is no column."""
    value: str
    """The cell as read, trimmed."""
    rule: str
    """What is allowed: one clause, the same for every row that breaks it."""
    found: str
    """What is wrong with this value, e.g. `'-' (U+002D HYPHEN-MINUS) at position 4`."""
    hint: str = ""
    """The likely cause and a fix; empty if unknown."""
    cure: str = ""
    """The option that fixes it, e.g. `--clean names`; empty if none does."""

    @property
    def cell(self) -> str:
        """The column, and the value as it stands in the file."""
        column = in_one_line(self.column)
        return f"{column} '{in_one_line(self.value)}'" if self.value else column

    @property
    def what(self) -> str:
        """The value and what is wrong with it."""
        return f"{self.cell}: {self.found}"

    @property
    def text(self) -> str:
        """The problem as displayed everywhere."""
        return f"{self.what} ({self.rule})" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Change:
    """A value that cleaning changed so that it fits its rule."""

    column: str
    """The operator's name of the column."""
    before: str
    after: str

    @property
    def text(self) -> str:
        """The change as displayed."""
        return f"{self.column} cleaned: {self.before!r} -> {self.after!r}"


class CheckedRow(msgspec.Struct, frozen=True, gc=False):
    """A checked row: its values and their problems."""

    line: int
    """The line on which the row begins, 1-based."""
    cells: list[str] | dict[str, Any]
    """The operator's cells, unchanged: a list (tables) or a mapping (YAML, JSON)."""
    values: Values
    """Of all fields, after cleaning, even if invalid."""
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()
    """What cleaning changed."""
    text: str = ""
    """The operator's own text of the row, kept in place of `cells`: of CSV with or without its line
    end, of a device in YAML or JSON with its defaults. Empty if the cells say it all."""
    left_out: str = ""
    """The condition by which the operator leaves the row out; empty if the row is meant."""

    @property
    def device(self) -> Device | None:
        """The device; None if a rule is broken. Created on demand, as few callers need it."""
        values = self.values
        user, code = values[0], values[1]
        if self.problems or user is None or code is None:
            return None
        return Device(user, code, values[2:])


class GoodRows(msgspec.Struct, frozen=True, gc=False):
    """Rows that keep every rule, column by column; as checked rows, they are made on demand."""

    lines: Sequence[int]
    values: Sequence[Sequence[str | None]]
    """Of each of `FIELDS`."""
    cells: Callable[[], Iterator[list[str]]]
    """Gives the operator's cells of each row, unchanged."""
    texts: Sequence[str] | None = None
    """As `CheckedRow.text`, where there is any."""
    tell_cells: bool = False
    """Whether the values are the cells, in the columns that `Source.fields` says."""

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[CheckedRow]:
        values = zip(*self.values, strict=True)
        if self.texts is None:
            return map(CheckedRow, self.lines, self.cells(), values)
        none: repeat[tuple[()]] = repeat(())
        return map(CheckedRow, self.lines, self.cells(), values, none, none, self.texts)


class Repeat(NamedTuple):
    """A row whose device another row names as well, and which does not count."""

    position: int
    """Of the row among all rows, 0-based."""
    source: int
    line: int
    problem: Problem
    is_invalid: bool
    """Whether it breaks a rule; otherwise it is a duplicate of the row that counts."""
    counts: int
    """The position of the row that counts; if none does, of the first row of its user."""


@dataclass(frozen=True, slots=True)
class Source:
    """The form of a manifest file: what is needed to write rows back in the same form."""

    name: str
    """The path as the operator gave it; `-` for standard input."""
    format: str
    """Its name in the table of formats."""
    encoding: str
    bom: bool
    delimiter: str = ","
    header: tuple[str, ...] = ()
    """The operator's header cells, unchanged (tables)."""
    has_header: bool = True
    """False if the file has no header and `header` was given as a setting."""
    preamble: str = ""
    """The lines before the header, unchanged (CSV)."""
    quote: str = '"'
    escape: str = ""
    """The escape character before a quote inside quotes; empty if quotes are doubled."""
    header_text: str = ""
    """The header as written, without its line end (CSV); empty if unknown."""
    line_end: str = "\r\n"
    """Of the rows (CSV)."""
    fields: tuple[str, ...] = ()
    """The field of each column, if every column has one (tables): then most rows are no more than
    their values."""


class Claim(msgspec.Struct, gc=False):
    """A row being worked on, owned by one task at a time, which updates its counters."""

    row: int
    """The row's id in the ledger."""
    device: Device
    attempts: int = 0
    """Attempts that count: Transient, NoAnswer, and the one that ended the row."""
    doubts: int = 0
    """Requests for this row that got no answer."""
    sent_at: float | None = None
    """Earliest time it may have been sent, server's clock; None if never, or clock unknown."""
    clock_refusals: int = 0
    last: Attempt | None = None
    """The last attempt of this process, if any."""
    earlier_verdict: Verdict | None = None
    """In doubt: the verdict on an earlier process's last request; None if it got no answer."""
    silent_at: float | None = None
    """In doubt: since when no request is in flight, seconds since 1970, local clock."""
    misses: int = 0
    """In doubt: the number of trustworthy lists that did not show the device."""
    missed_at: float | None = None
    """When the last of them was read, local clock."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a row ended."""

    status: Status
    device_id: str = ""
    create_time: str = ""
    detail: str = ""
    """For display: anything to add to the server's message."""
    made_at: float | None = None
    """If there were several requests: the latest time at which the binding may have been made,
    seconds since 1970, server's clock. Requests sent later were repeats."""
    repeated: bool = False
    """Whether the accepted attempt was such a repeat."""
    is_unsent: bool = False
    """Whether it ended without a request, since its user's state refuses binds."""


Ended: TypeAlias = tuple[Claim, Outcome]
"""A row and how it ended; the claim holds the number of attempts and the last one."""

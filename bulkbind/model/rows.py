"""Rows of a manifest, and what the rules say of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

OWN_COLUMNS = ("bulkbind_status", "bulkbind_reason")
"""Columns that we add to rows that come back to the operator, and ignore on input."""


class Device(msgspec.Struct, frozen=True, gc=False):
    """One device and the user who gets it; every rule has been passed."""

    user_id: str
    machine_code: str
    device_name: str | None = None
    device_os: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of one row."""

    field: str
    """The field of the manifest (`machine_code`, …), or `row`."""
    column: str
    """The operator's own name of the column, or the field's where there is none."""
    value: str
    """The cell as it was found, trimmed."""
    rule: str
    """What is allowed: one clause, the same for every row that breaks it."""
    found: str
    """What breaks it in this value, e.g. `'-' (U+002D HYPHEN-MINUS) at 4`."""
    hint: str = ""
    """The likely cause, and what would mend it; empty where nothing is known."""

    @property
    def what(self) -> str:
        """The value and what is wrong with it."""
        shown = f"{self.column} {self.value!r}" if self.value else self.column
        return f"{shown}: {self.found}"

    @property
    def text(self) -> str:
        """The problem as a person reads it, the same wherever it is shown."""
        return f"{self.what} ({self.rule})" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Change:
    """A value that cleaning made fit its rule."""

    column: str
    """The operator's own name of the column."""
    before: str
    after: str

    @property
    def text(self) -> str:
        """The change as a person reads it."""
        return f"{self.column} cleaned: {self.before!r} -> {self.after!r}"


class CheckedRow(msgspec.Struct, frozen=True, gc=False):
    """A row of a manifest after the rules: its values, and what is wrong with them."""

    line: int
    """The line on which the row begins, 1-based."""
    cells: list[str] | dict[str, Any]
    """The operator's own cells, untouched: a list (a table) or a mapping (YAML, JSON)."""
    values: tuple[str | None, str | None, str | None, str | None]
    """user_id, machine_code, device_name, device_os as found, also where they break a rule."""
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()
    """What cleaning did; `values` hold what came of it."""

    @property
    def device(self) -> Device | None:
        """The device, or None where a rule is broken. Made anew: most never need it."""
        user, code, name, system = self.values
        if self.problems or user is None or code is None:
            return None
        return Device(user, code, name, system)


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest file as it was found: all that is needed to write rows back in its own form."""

    name: str
    """The path as the operator gave it; `-` for standard input."""
    format: str
    """`csv`, `xlsx`, `yaml`, `json` or `jsonl`."""
    encoding: str
    bom: bool
    delimiter: str = ","
    header: tuple[str, ...] = ()
    """The operator's header cells, untouched (tables)."""
    has_header: bool = True
    """False where `header` was given because the file has none."""
    preamble: str = ""
    """The lines before the header, untouched (CSV)."""
    quote: str = '"'
    escape: str = ""
    """What stands before a quote inside quotes; empty: the quote is doubled."""

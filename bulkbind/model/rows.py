"""Rows of a manifest: what the rules say of them, and how they end once they are claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from bulkbind.model.attempts import value

if TYPE_CHECKING:
    from bulkbind.model.attempts import Attempt, Verdict
    from bulkbind.model.statuses import Status

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


@dataclass(slots=True)
class Claim:
    """A row in a worker's hands. Owned by one task at a time, which counts in it."""

    row: int
    """The row's id in the ledger."""
    device: Device
    attempts: int = 0
    """Attempts that cost: Transient and NoAnswer, and the one that ended it."""
    doubts: int = 0
    """How often a request for this row got no answer."""
    sent_at: float | None = None
    """The first moment it may have been sent, server's clock; None: never, or clock unknown."""
    clock_refusals: int = 0
    last: Attempt | None = None
    """The last attempt of this process, if any."""
    left: Verdict | None = None
    """In doubt: the verdict on the last request of an earlier process, None where it heard none."""
    silent_at: float | None = None
    """In doubt: since when nothing of ours is on its way, seconds since 1970, local clock."""
    misses: int = 0
    """In doubt: how many lists that could be trusted did not show it."""
    missed_at: float | None = None
    """When the last of them was read, local clock."""


@value
class Outcome:
    """How a row ended."""

    status: Status
    device_id: str = ""
    create_time: str = ""
    detail: str = ""
    """For a person: what is worth knowing beyond the server's message."""
    made_at: float | None = None
    """Where one of several requests made the binding: the latest moment when that may have been,
    seconds since 1970, server's clock. What was sent later was posted again although it was
    bound."""
    repeated: bool = False
    """Whether the attempt that was accepted is one of those."""


Ended: TypeAlias = tuple[Claim, Outcome]
"""A row and how it ended; the claim bears its attempts, and the last of them."""

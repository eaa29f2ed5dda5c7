"""`--filter`: which rows of a run a report shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.errors import UsageError
from bulkbind.model import MEANINGS
from bulkbind.report.tables import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkbind.model import ResultRow
    from bulkbind.report import RunRows

KEYS = ("status", "reason", "user_id", "machine_code", "code")
_NEXT = re.compile(rf",(?=(?:{'|'.join(KEYS)})=)")


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Conditions that all have to hold; each names values of which one has to."""

    conditions: tuple[tuple[str, tuple[str, ...]], ...]

    def rows(self, run: RunRows) -> Iterator[ResultRow]:
        """Yield the rows of a run that match, in manifest order."""
        statuses: set[str] | None = None
        for key, values in self.conditions:
            if key == "status":
                statuses = set(values) if statuses is None else statuses & set(values)
        if statuses == set():
            return
        wanted = tuple(status for status in MEANINGS if statuses and status in statuses)
        yield from (row for row in run.rows(wanted) if self._matches(row))

    def _matches(self, row: ResultRow) -> bool:
        return all(_holds(row, key, values) for key, values in self.conditions)


def _holds(row: ResultRow, key: str, values: Sequence[str]) -> bool:
    if key == "reason":
        reason = reason_of(row).casefold()
        return any(value.casefold() in reason for value in values)
    return str(getattr(row, key)) in values


def parse_filter(texts: Sequence[str]) -> RowFilter | None:
    """Return the filter of `status=failed|invalid,reason=space`; several texts hold together.

    `status`, `user_id`, `machine_code` and `code` are compared whole, `reason` is looked for in
    code, message and detail, whatever its case. None without a text.

    Raises: UsageError.
    """
    conditions = []
    for text in texts:
        for part in _NEXT.split(text):
            key, separator, value = part.partition("=")
            values = tuple(item.strip() for item in value.split("|") if item.strip())
            if not separator or key.strip() not in KEYS or not values:
                raise UsageError(
                    f"--filter {text!r}: `{part}` is no condition",
                    hint=f"write KEY=VALUE|VALUE,KEY=…; keys are {', '.join(KEYS)}",
                )
            _refuse_unknown(key.strip(), values)
            conditions.append((key.strip(), values))
    return RowFilter(tuple(conditions)) if conditions else None


def _refuse_unknown(key: str, values: Sequence[str]) -> None:
    wrong = [value for value in values if value not in MEANINGS] if key == "status" else []
    if wrong:
        raise UsageError(
            f"--filter: there is no status `{wrong[0]}`", hint=f"statuses are {', '.join(MEANINGS)}"
        )

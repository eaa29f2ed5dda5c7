"""`results.csv`, failed rows in the manifest's own form, and `--filter`."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from operator import attrgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from bulkbind.errors import UsageError, did_you_mean
from bulkbind.files import KEPT_BYTES, fitting_name, replacing
from bulkbind.manifest import FORMATS, PACKED
from bulkbind.manifest.formulas import is_harmless, is_plain, safe, safe_call, safe_value
from bulkbind.model import (
    MEANINGS,
    OWN_COLUMNS,
    AttemptRow,
    LeaverRow,
    Problem,
    ResultRow,
    Source,
    UndoneRow,
)
from bulkbind.model.fields import FIELDS, OPTIONAL
from bulkbind.model.results import NO_COLUMN
from bulkbind.model.wording import reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from bulkbind.model import Record
    from bulkbind.report import RunRows


Rows: TypeAlias = ResultRow | AttemptRow | UndoneRow | LeaverRow


class Columns:
    """The columns of a table of rows, which follow from the attributes of their class.

    The rows' `source`, an index, is shown as the name of the manifest.
    """

    def __init__(self, kind: type[Rows]) -> None:
        shown = [each for each in fields(kind) if each.metadata != NO_COLUMN]
        attributes = [each.name for each in shown]
        self._has_source = attributes[0] == "source"
        self._values = attrgetter(*attributes)
        self._spread = attributes.index("optional") if "optional" in attributes else None
        names: list[str] = []
        for name in attributes:
            names += OPTIONAL if name == "optional" else (name,)
        self.names = tuple(names)
        self._fields = tuple(name for name in FIELDS if name in names)
        texts = [each.name for each in shown if each.type in ("str", str)]
        self._free = tuple(name for name in texts if name not in FIELDS)
        if self._has_source:
            self._free = ("source", *self._free)

    def values(self, row: Rows) -> list[Any]:
        """Return a row's unguarded values, the source as an index."""
        values = list(self._values(row))
        if (at := self._spread) is not None:
            values[at : at + 1] = values[at]
        return values

    def plain(self, row: Rows, sources: Sequence[Source]) -> Cells:
        """Return the same by column, for forms in which no cell becomes a formula."""
        values = self.values(row)
        if self._has_source:
            values[0] = sources[values[0]].name
        return dict(zip(self.names, values, strict=True))

    def guarded(self, row: Rows, sources: Sequence[Source] = ()) -> Iterable[object]:
        """Return a row's cells for CSV."""
        return self.guard(self.plain(row, sources))

    def guard(self, cells: Cells, broken: Collection[str] = ()) -> Iterable[object]:
        """Return cells for CSV.

        Texts and the values of *broken* fields are guarded by `safe`, other values by `safe_value`.
        """
        for name in self._free:
            cells[name] = safe(cells[name])
        for name in self._fields:
            cells[name] = safe(cells[name]) if name in broken else safe_value(cells[name])
        return cells.values()


Cells = dict[str, Any]
"""The values of a row by column, in their order."""
RESULTS, ATTEMPTS, UNDONE = Columns(ResultRow), Columns(AttemptRow), Columns(UndoneRow)
LEAVERS = Columns(LeaverRow)
PROBLEM_COLUMNS = ("source", "line", *(each.name for each in fields(Problem)))


AT_ONCE = 200
"""Rows of results that are looked at together."""
_MARKS = len(RESULTS.names) + 1
"""The commas of a line, and its end."""


def _as_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]], errors: str = "strict"
) -> None:
    """Write a header and rows as CSV. Raises: LedgerError."""
    with replacing(path, errors=errors) as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(columns)
        table.writerows(rows)


def write_lines(path: Path, run: RunRows, sources: Sequence[Source]) -> None:
    """Write one line per row of the manifests. Raises: LedgerError.

    A table that needs no quotes and no guard, as nearly all do, is its lines: five times faster.
    """
    names = [source.name for source in sources]
    # Closed here, as a ledger is read by one thread only.
    with closing(run.lines()) as parts, replacing(path) as file:
        file.write(_as_csv([RESULTS.names]))
        for first, last, rows, lines in parts:
            text = f"{lines}\r\n"
            if not is_plain(text, rows * _MARKS):
                text = _written([row[1:] for row in run.cells(first, last)], names)
            file.write(text)


def write_results(path: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> None:
    """Write the same of some rows. Raises: LedgerError."""
    names = [source.name for source in sources]
    left = map(_cells_of, rows)
    with replacing(path) as file:
        file.write(_as_csv([RESULTS.names]))
        while some := list(islice(left, AT_ONCE)):
            file.write(_written(some, names))


def _cells_of(row: ResultRow) -> tuple[Any, ...]:
    values = ("" if value is None else value for value in RESULTS.values(row))
    return (*values, " ".join(row.broken))


def _written(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> str:
    """Return rows as CSV; nearly always nothing is to be guarded, and one look at many tells."""
    values = [(names[source], *cells) for source, *cells, _ in rows]
    text = _as_csv(values)
    if is_harmless(text):
        return text
    return _as_csv(
        RESULTS.guard(dict(zip(RESULTS.names, cells, strict=True)), row[-1].split())
        for cells, row in zip(values, rows, strict=True)
    )


def write_problems(path: Path, problems: Iterable[tuple[str, int, Problem]]) -> None:
    """Write one row per problem with its source and line, atomically. Raises: LedgerError."""
    rows = (
        (
            safe(source),
            line,
            *(safe(getattr(problem, name)) for name in PROBLEM_COLUMNS[2:]),
        )
        for source, line, problem in problems
    )
    write_table(path, PROBLEM_COLUMNS, rows, KEPT_BYTES)


def write_failed(folder: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> list[Path]:
    """Write the rows of `COMES_BACK`, in manifest order, as manifests to fix and run again.

    One CSV manifest: `failed.csv`. Several, or another format: `failed/<name>` each. A file is
    written even without rows, to replace an older one.

    Returns: The files. Raises: LedgerError.
    """
    names = _names(sources)
    iterator = iter(rows)
    row = next(iterator, None)

    def rows_of(number: int) -> Iterator[tuple[Any, dict[str, str]]]:
        nonlocal row
        while row is not None and row.source == number:
            if row.cells is not None:
                own = dict(zip(OWN_COLUMNS, (row.status, reason_of(row)), strict=True))
                yield json.loads(row.cells), own
            row = next(iterator, None)

    paths = [folder / name for name in names]
    for number, (source, path) in enumerate(zip(sources, paths, strict=True)):
        with replacing(path, source.encoding, KEPT_BYTES) as file:
            if source.bom:
                file.write("\ufeff")
            FORMATS[source.format].writes(file, source, rows_of(number))
    return paths


def _names(sources: Sequence[Source]) -> list[str]:
    if len(sources) == 1 and sources[0].format == "csv":
        return ["failed.csv"]
    names: list[str] = []
    for number, source in enumerate(sources, start=1):
        form = FORMATS[source.format]
        name = PurePath(source.name).name.removesuffix(PACKED)
        name = f"stdin{form.suffixes[0]}" if name in ("", "-") else name
        if form.writes_as:
            name = PurePath(name).with_suffix(FORMATS[form.writes_as].suffixes[0]).name
        name = fitting_name(name)
        while f"failed/{name}" in names:
            name = fitting_name(f"{number}-{name}")
        names.append(f"failed/{name}")
    return names


def reason_of(row: ResultRow | LeaverRow) -> str:
    """Return why it ended as it did; broken rules in the same words as `validate`."""
    if isinstance(row, ResultRow) and row.problems:
        return "; ".join(problem.text for problem in row.problems)
    words = [reason(row.code, row.message), row.detail]
    return "; ".join(word for word in words if word)


EXPORT_COLUMNS = ("machine_code", "user_id", *OPTIONAL, "device_id", "create_time")
_HARMLESS = re.compile(r"[A-Za-z0-9 _-]*", re.ASCII)


class ExportWriter:
    """Writes a CSV manifest, record by record."""

    def __init__(self, file: TextIO) -> None:
        self._table = csv.writer(file, lineterminator="\r\n")

    def begin(self) -> None:
        """Write the header."""
        self._table.writerow(EXPORT_COLUMNS)

    def write(self, user_id: str, records: Iterable[Record]) -> None:
        """Write a user's records; values that are valid in a manifest stay unchanged."""
        self._table.writerows(
            [
                _cell(record.machine_code),
                safe_call(user_id),
                *(_cell(value or "") for value in record.optional),
                safe(record.device_id),
                safe(record.create_time),
            ]
            for record in records
        )


def _cell(text: str) -> str:
    return text if _HARMLESS.fullmatch(text) else safe(text)


KEYS = ("status", "reason", "user_id", "machine_code", "code")
_NEXT = re.compile(rf",(?=(?:{'|'.join(KEYS)})=)")


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Conditions that must all hold; each holds for any of its values."""

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
    """Parse filters like `status=failed|invalid,reason=space`; all must match. None without one.

    `status`, `user_id`, `machine_code` and `code` must be equal; `reason` is a case-insensitive
    substring of code, message or detail.

    Raises: UsageError.
    """
    conditions = []
    for text in texts:
        for part in _NEXT.split(text):
            key, separator, value = part.partition("=")
            values = tuple(item.strip() for item in value.split("|") if item.strip())
            if not separator or key.strip() not in KEYS or not values:
                guess = did_you_mean(key.strip(), KEYS) if key.strip() not in KEYS else ""
                raise UsageError(
                    f"--filter {text!r}: `{part}` is no condition{guess}",
                    hint=f"write KEY=VALUE|VALUE,KEY=…; keys are {', '.join(KEYS)}",
                )
            _refuse_unknown(key.strip(), values)
            conditions.append((key.strip(), values))
    return RowFilter(tuple(conditions)) if conditions else None


def _refuse_unknown(key: str, values: Sequence[str]) -> None:
    wrong = [value for value in values if value not in MEANINGS] if key == "status" else []
    if wrong:
        raise UsageError(
            f"--filter: there is no status `{wrong[0]}`{did_you_mean(wrong[0], MEANINGS)}",
            hint=f"statuses are {', '.join(MEANINGS)}",
        )

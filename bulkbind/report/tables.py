"""`results.csv`, failed rows in the manifest's own form, and `--filter`.

Cells are guarded against formulas in spreadsheets. Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import yaml

from bulkbind.errors import UsageError
from bulkbind.files import KEPT_BYTES, replacing
from bulkbind.manifest import json_reader, yaml_reader
from bulkbind.model import MEANINGS, OWN_COLUMNS, AttemptRow, Problem, ResultRow, Source, UndoneRow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from bulkbind.model import Record
    from bulkbind.report import RunRows

_SIGNS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters that begin a formula; the wide forms do so in Japanese locales."""
_BEGINS = (*_SIGNS, "\t", "\r", "\n")
_SIGN = f"[{re.escape(''.join(_SIGNS))}]"
_WITHIN = re.compile(rf"""([,;|\t\r\n]"*)(?={_SIGN}(?!\Z))""")
"""Where a formula could begin within text: after a character that a spreadsheet with another
delimiter takes as the end of a cell, despite quotes."""
_CALL = re.compile(rf"""(?:^|[,;]"*){_SIGN}[^,;]*(?:[A-Za-z.]\(|\||!)""")


def safe(text: str) -> str:
    """Return *text* with an apostrophe wherever a formula could begin (`-` alone is none)."""
    if _WITHIN.search(text):  # ten times faster than a substitution that finds nothing
        text = _WITHIN.sub(r"\1'", text)
    return f"'{text}" if text.startswith(_BEGINS) and text != "-" else text


def safe_value(value: str) -> str:
    """Return a valid value unchanged, unless it is a formula with a function call.

    Only a user id can contain the characters for a call. Values like `+49` and `@me` may be
    displayed differently, but run nothing.
    """
    return safe(value) if _CALL.search(value) else value


COLUMNS = (
    "source",
    "line",
    "user_id",
    "machine_code",
    "device_name",
    "device_os",
    "status",
    "device_id",
    "create_time",
    "http_status",
    "code",
    "message",
    "attempts",
    "trace_id",
    "settled_at",
    "detail",
)
ATTEMPT_COLUMNS = (
    "source",
    "line",
    "user_id",
    "machine_code",
    "sent_at",
    "took_s",
    "verdict",
    "http_status",
    "code",
    "message",
    "trace_id",
)
PROBLEM_COLUMNS = ("source", "line", "field", "column", "value", "rule", "found", "hint")

_VALUES = ("user_id", "machine_code", "device_name", "device_os")
_FREE_TEXT = ("source", "device_id", "create_time", "code", "message", "trace_id", "detail")


def write_table(
    path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]], errors: str = "strict"
) -> None:
    """Write a header and rows as CSV. Raises: LedgerError."""
    with replacing(path, errors=errors) as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(columns)
        table.writerows(rows)


def plain_cells(
    row: ResultRow | AttemptRow | UndoneRow,
    sources: Sequence[Source],
    columns: Sequence[str] = COLUMNS,
) -> dict[str, Any]:
    """Return a row's unguarded values by column, for forms in which no cell becomes a formula."""
    cells = {name: getattr(row, name) for name in columns}
    cells["source"] = sources[row.source].name
    return cells


def guarded_cells(
    row: ResultRow | AttemptRow | UndoneRow,
    sources: Sequence[Source],
    columns: Sequence[str],
    broken: Collection[str] = (),
) -> Iterable[object]:
    """Return a row's cells for CSV, in the order of *columns*.

    Free text and the values of *broken* fields are guarded by `safe`, others by `safe_value`.
    """
    cells = plain_cells(row, sources, columns)
    for name in _FREE_TEXT:
        if name in cells:
            cells[name] = safe(str(cells[name]))
    for name in _VALUES:
        if name in cells:
            guard = safe if name in broken else safe_value
            cells[name] = guard(str(cells[name]))
    return cells.values()


def write_results(path: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> None:
    """Write one line per row of the manifests. Raises: LedgerError."""
    cells = (guarded_cells(row, sources, COLUMNS, row.broken) for row in rows)
    write_table(path, COLUMNS, cells)


def write_problems(path: Path, problems: Iterable[tuple[str, int, Problem]]) -> None:
    """Write one row per problem with its source and line, atomically. Raises: LedgerError."""
    rows = (
        (safe(source), line, *(safe(getattr(problem, name)) for name in PROBLEM_COLUMNS[2:]))
        for source, line, problem in problems
    )
    write_table(path, PROBLEM_COLUMNS, rows, KEPT_BYTES)


def write_attempt_rows(
    path: Path, attempts: Iterable[AttemptRow], sources: Sequence[Source]
) -> None:
    """Write one line per attempt. Raises: LedgerError."""
    cells = (guarded_cells(item, sources, ATTEMPT_COLUMNS) for item in attempts)
    write_table(path, ATTEMPT_COLUMNS, cells)


def write_failed(folder: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> list[Path]:
    """Write the rows of `COMES_BACK`, in manifest order, as manifests to fix and run again.

    One CSV manifest: `failed.csv`. Several, or another format: `failed/<name>` each. A file is
    written even without rows, to replace an older one.

    Returns: The files. Raises: LedgerError.
    """
    names = _names(sources)
    if "failed.csv" not in names:
        (folder / "failed.csv").unlink(missing_ok=True)  # of an earlier run with one manifest
    iterator = iter(rows)
    row = next(iterator, None)
    paths: list[Path] = []
    for source, name in zip(sources, names, strict=True):
        number = len(paths)
        path = folder / name
        with replacing(path, source.encoding, KEPT_BYTES) as file:
            if source.bom:
                file.write("\ufeff")
            writer = _WRITERS[source.format](file, source)
            while row is not None and row.source == number:
                if row.cells is not None:
                    writer.write(json.loads(row.cells), row)
                row = next(iterator, None)
            writer.end()
        paths.append(path)
    return paths


def _names(sources: Sequence[Source]) -> list[str]:
    if len(sources) == 1 and sources[0].format == "csv":
        return ["failed.csv"]
    names: list[str] = []
    for number, source in enumerate(sources, start=1):
        name = PurePath(source.name).name.removesuffix(".gz")
        name = f"stdin.{source.format}" if name in ("", "-") else name
        name = PurePath(name).with_suffix(".csv").name if source.format == "xlsx" else name
        while f"failed/{name}" in names:
            name = f"{number}-{name}"
        names.append(f"failed/{name}")
    return names


def reason_of(row: ResultRow) -> str:
    """Return why a row ended as it did; broken rules in the same words as `validate`."""
    if row.problems:
        return "; ".join(problem.text for problem in row.problems)
    words = [f"{row.code} {row.message}".strip(), row.detail]
    return "; ".join(word for word in words if word)


class _Writer(Protocol):
    """Writes rows in the form of their source."""

    def write(self, cells: Any, row: ResultRow) -> None:  # noqa: ANN401  # depends on the format
        """Write a row with its status and reason."""
        ...

    def end(self) -> None:
        """Write the end of the file."""
        ...


class _CsvRows:
    """CSV: the preamble, the operator's header and cells, status and reason."""

    def __init__(self, file: TextIO, source: Source) -> None:
        file.write(source.preamble)
        self._table = csv.writer(
            file,
            delimiter=source.delimiter,
            quotechar=source.quote,
            escapechar=source.escape or None,
            doublequote=not source.escape,
            lineterminator="\r\n",
        )
        self._is_workbook = source.format == "xlsx"
        self._width = len(source.header)
        self._kept = [
            at for at, name in enumerate(source.header) if name.strip() not in OWN_COLUMNS
        ]
        if source.has_header:
            names = [source.header[at] for at in self._kept]
            if self._is_workbook:
                names = list(map(safe_value, names))
            self._table.writerow([*names, *OWN_COLUMNS])

    def write(self, cells: list[str], row: ResultRow) -> None:
        if self._is_workbook:
            cells = [self._as_text(cell, row) for cell in cells]
        padded = cells + [""] * (self._width - len(cells))
        kept = [padded[at] for at in self._kept]
        # Cells beyond the header stay beyond it.
        self._table.writerow([*kept, row.status, safe(reason_of(row)), *padded[self._width :]])

    def _as_text(self, cell: str, row: ResultRow) -> str:
        """Guard a workbook's text, which ran nothing there; valid user ids stay unchanged."""
        is_user = cell.strip() == row.user_id and "user_id" not in row.broken
        return cell if is_user else safe_value(cell)

    def end(self) -> None:
        """Do nothing."""


def _own(row: ResultRow) -> dict[str, str]:
    return dict(zip(OWN_COLUMNS, (row.status, reason_of(row)), strict=True))


def _with_own(cells: dict[str, Any], row: ResultRow) -> dict[str, Any]:
    return {key: value for key, value in cells.items() if key not in OWN_COLUMNS} | _own(row)


Kept = str | dict[str, Any]
"""The operator's own text of a device; of ledgers of earlier versions, its mapping."""


class _YamlRows:
    """YAML: a list of mappings, every scalar with its original text."""

    def __init__(self, file: TextIO, source: Source) -> None:  # noqa: ARG002  # as all writers
        self._file = file
        self._is_empty = True

    def write(self, cells: Kept, row: ResultRow) -> None:
        if isinstance(cells, str):
            text = yaml_reader.with_own(cells, _own(row)) or self._dumped(_own(row)) + cells
        else:
            text = self._dumped(_with_own(cells, row))
        self._file.write(text)
        self._is_empty = False

    @staticmethod
    def _dumped(cells: dict[str, Any]) -> str:
        text: str = yaml.dump(
            [cells], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=10_000
        )
        return text

    def end(self) -> None:
        if self._is_empty:
            self._file.write("[]\n")


class _JsonLinesRows:
    def __init__(self, file: TextIO, source: Source) -> None:  # noqa: ARG002  # as all writers
        self._file = file

    def write(self, cells: Kept, row: ResultRow) -> None:
        self._file.writelines(f"{text}\n" for text in _objects(cells, row))

    def end(self) -> None:
        """Do nothing."""


class _JsonRows:
    """JSON: an array."""

    def __init__(self, file: TextIO, source: Source) -> None:  # noqa: ARG002  # as all writers
        self._file = file
        self._before = "["

    def write(self, cells: Kept, row: ResultRow) -> None:
        for text in _objects(cells, row):
            self._file.write(f"{self._before}\n{text}")
            self._before = ","

    def end(self) -> None:
        self._file.write("[]\n" if self._before == "[" else "\n]\n")


def _objects(cells: Kept, row: ResultRow) -> list[str]:
    """Return a row as JSON: a text that has no place for status and reason stands behind them."""
    if isinstance(cells, str):
        whole = json_reader.with_own(cells, _own(row))
        return [whole] if whole else [_json(_own(row)), cells]
    return [_json(_with_own(cells, row))]


def _json(cells: dict[str, Any]) -> str:
    """Return an object as JSON; lone surrogates become the escapes from which they were read."""
    text = json.dumps(cells, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(cells)


_WRITERS: dict[str, Callable[[TextIO, Source], _Writer]] = {
    "csv": _CsvRows,
    "xlsx": _CsvRows,
    "yaml": _YamlRows,
    "jsonl": _JsonLinesRows,
    "json": _JsonRows,
}
"""Format -> writer of its returned rows."""


EXPORT_COLUMNS = ("machine_code", "user_id", "device_name", "device_os", "device_id", "create_time")
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
                safe_value(user_id),
                _cell(record.device_name or ""),
                _cell(record.device_os or ""),
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

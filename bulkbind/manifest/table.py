"""Rows of cells under a header, from CSV and spreadsheets."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.checking import FEW, Checker, columns_of, good_values
from bulkbind.manifest.likely_causes import Fault, fault_of
from bulkbind.manifest.rules import no_value, printable, trim
from bulkbind.manifest.synonyms import candidates
from bulkbind.manifest.text import MOST_COLUMNS
from bulkbind.model import COMES_BACK, OWN_COLUMNS, CheckedRow, Problem, Source
from bulkbind.model.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkbind.settings import ManifestSettings

BATCH = 128
"""Rows checked at a time; a batch with a broken row is split into smaller ones."""
_SHAPE = "row: as many cells as the header has columns"
_COMMENT = "#"
Faults = Mapping[int, Fault]
"""The cells of a row whose text is not a value, by 0-based position."""
NO_FAULTS: Faults = MappingProxyType({})


class TableRow(NamedTuple):
    """A row as read from the file, including the header."""

    line: int
    cells: list[str]
    faults: Faults = NO_FAULTS


def find_header(rows: Sequence[TableRow], settings: ManifestSettings) -> TableRow | None:
    """Return the header among the first rows: the one that names machine_code and most fields.

    If there is none, or if `skip_rows` is set, the header is the first row that is not blank; None
    if all are blank.
    """
    filled = [row for row in rows if any(map(str.strip, row.cells))]
    if not filled:
        return None
    if settings.skip_rows is not None:
        return filled[0]
    best = max(filled, key=lambda row: columns.named(row.cells, settings.columns))
    if columns.named(best.cells, settings.columns):
        return best
    if "machine_code" in settings.columns or "machine_code" in settings.constants:
        return filled[0]
    return max(filled, key=lambda row: len(candidates(row.cells)))  # for the error's suggestion


class Table:
    """Turns cells into checked rows, and counts the rows that it skips."""

    def __init__(
        self, source: Source, line: int, settings: ManifestSettings, faults: Faults = NO_FAULTS
    ) -> None:
        """*line* and *faults*: of the header."""
        if len(source.header) > MOST_COLUMNS:
            raise ManifestError(
                f"{source.name}:{line}: {len(source.header):,} columns; at most {MOST_COLUMNS:,}"
            )
        self._source = source
        self._header = [cell.strip() for cell in source.header]
        _refuse_errors(source.name, line, self._header, faults)
        mapping = _mapping(settings, source.name)
        self._mapping = mapping
        used = columns.positions(
            source.header,
            mapping,
            source=source.name,
            line=line,
            given={field for field in ("user_id",) if settings.user_id} | set(settings.constants),
        )
        self._columns = columns_of(used, settings)
        self._used = {column.at for column in self._columns} - {None}
        own = {self._header[at] for at in self._used if at is not None}
        self._words = (columns.words(mapping) | own) - {""}
        self._names = tuple(
            printable(self._header[at] or f"column {at + 1}") if at is not None else field
            for field, at in zip(FIELDS, used, strict=True)
        )
        self._checker = Checker(cleans=settings.clean == "names")
        self._has_comments = 0 not in used and self._header[:1] == [_COMMENT]
        self._passed_over = dict.fromkeys(("blank lines", "repeated headers", "comment lines"), 0)
        self._unused = columns.unknown(source.header, [column.at for column in self._columns])

    def rows(
        self,
        cells: list[list[str]],
        lines: Sequence[int],
        faults: Mapping[int, Faults] = MappingProxyType({}),
    ) -> Iterator[CheckedRow]:
        """Yield the checked rows; blank rows, repeated headers and comments are skipped.

        *lines*: the first line of each row. *faults*: by line, for rows that have any.
        """
        is_faulty = any(not self._used.isdisjoint(faults.get(line, ())) for line in lines if faults)
        values = None if is_faulty else self._good_values(cells)
        if values is not None:
            self._checker.suspicions.add(values[1], lines)  # type: ignore[arg-type]  # it is required
            return map(CheckedRow, lines, cells, zip(*values, strict=True))
        parts = self._halves if len(cells) > FEW else self._one_by_one
        return parts(cells, lines, faults)

    def _halves(
        self, cells: list[list[str]], lines: Sequence[int], faults: Mapping[int, Faults]
    ) -> Iterator[CheckedRow]:
        half = len(cells) // 2
        yield from self.rows(cells[:half], lines[:half], faults)
        yield from self.rows(cells[half:], lines[half:], faults)

    def _one_by_one(
        self, cells: list[list[str]], lines: Sequence[int], faults: Mapping[int, Faults]
    ) -> Iterator[CheckedRow]:
        for line, row in zip(lines, cells, strict=True):
            found = faults.get(line, NO_FAULTS)
            kind = self._kind(row, found)
            if kind is None:
                yield self._checked(line, row, found)
            else:
                self._passed_over[kind] += 1

    def notices(self) -> Iterator[str]:
        """Yield the notices once all rows have been read."""
        name = self._source.name
        if self._unused:
            shown = printable(", ".join(self._unused[:20]))
            yield f"{name}: columns kept but not sent: {shown}"
        for kind, count in self._passed_over.items():
            if count:
                yield f"{name}: {count:,} {kind} passed over"
        yield from self._checker.notices(name)

    def _good_values(self, cells: list[list[str]]) -> list[Sequence[str | None]] | None:
        try:
            by_column = list(zip(*cells, strict=True))
        except ValueError:  # ragged
            return None
        if self._has_comments or len(by_column) != len(self._header):
            return None
        values = good_values(self._columns, by_column, len(cells))
        is_header = values is not None and not (
            self._words.isdisjoint(values[0]) and self._words.isdisjoint(values[1])
        )
        return None if is_header else values

    def _kind(self, cells: Sequence[str], faults: Faults) -> str | None:
        """Return why a row is skipped; None if it is not.

        Errors in unused columns count as blank, as formulas are often filled down below a table.
        """
        if not any(
            at in self._used if at in faults else cell.strip() for at, cell in enumerate(cells)
        ):
            return "blank lines"
        if cells[0].strip() == self._header[0] and list(map(str.strip, cells)) == self._header:
            return "comment lines" if self._has_comments else "repeated headers"
        first = cells[0].strip()
        if 0 in faults or fault_of(first):
            return None
        if self._has_comments and first.startswith(_COMMENT):
            return "comment lines"
        if first.startswith(_COMMENT) and len(self._header) > 1 and not any(cells[1:]):
            return "comment lines"
        return None

    def _checked(self, line: int, cells: list[str], faults: Faults) -> CheckedRow:
        """Check a row. A short row is padded; extra cells that are not blank are a problem."""
        self._refuse_other_header(line, cells)
        width = len(self._header)
        padded = cells + [""] * (width - len(cells))
        extra = [cell for cell in cells[width:] if cell.strip()]
        more: tuple[Problem, ...] = ()
        if extra and not self._is_our_own(cells):
            shown = printable(self._source.delimiter.join(cells))
            more = (
                Problem("row", "row", shown, _SHAPE, f"it has {len(cells)}, the header {width}"),
            )
        values: list[str | None] = []
        for column, name in zip(self._columns, self._names, strict=True):
            value = trim(padded[column.at]) if column.at is not None else None
            fault = faults.get(column.at) if column.at is not None else None
            if fault:
                more += (no_value(column.rule.field, name, value or "", fault),)
            values.append(value if fault else value or column.fill)
        return self._checker.row(line, cells, tuple(values), self._names, more)

    def _refuse_other_header(self, line: int, cells: Sequence[str]) -> None:
        """Refuse the header of another table, as the rows below it would be misread."""
        if self._words.isdisjoint(map(str.strip, cells)):
            return
        if columns.named(cells, self._mapping) > 1:
            shown = printable(self._source.delimiter.join(cells))
            raise ManifestError(
                f"{self._source.name}:{line}: another table begins here: {shown}",
                hint="put it in a file of its own",
            )

    def _is_our_own(self, cells: Sequence[str]) -> bool:
        """Whether the extra cells, in a file without header, are the two that a report adds."""
        width = len(self._header)
        return (
            not self._source.has_header
            and len(cells) == width + len(OWN_COLUMNS)
            and cells[width] in COMES_BACK
        )


def _refuse_errors(name: str, line: int, header: Sequence[str], faults: Faults) -> None:
    """Refuse a header in which an error replaces a name, which may be that of any field."""
    words = (fault_of(cell) for cell in header if cell.strip(_COMMENT))  # `###` is no error here
    fault = next(chain(faults.values(), filter(None, words)), None)
    if fault:
        raise ManifestError(
            f"{name}:{line}: the header has {fault.found}",
            hint=f"{fault.hint}; or leave the header out with --skip-rows {line} and name the "
            "columns with --columns",
        )


def _mapping(settings: ManifestSettings, name: str) -> Mapping[str, str]:
    """Return the column of each mapped field, without constants."""
    mapping = {k: v for k, v in settings.columns.items() if k not in settings.constants}
    if columns.KEY in mapping.values():
        raise ManifestError(
            f"{name} is a table, whose rows have no key: `{columns.KEY}` is for YAML and JSON",
            hint="name a column, or its position as #1",
        )
    return mapping

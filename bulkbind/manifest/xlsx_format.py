"""XLSX: one sheet of a workbook, row by row, each cell as a person sees it."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bulkbind.errors import ManifestError
from bulkbind.manifest.conditions import asked_columns
from bulkbind.manifest.likely_causes import (
    EMPTY_FORMULA,
    FORMULA_ERROR,
    NEVER_CALCULATED,
    Fault,
    doubted,
    error_of,
    fault_of,
    formula_error,
)
from bulkbind.manifest.sheet_xml import Area, letters
from bulkbind.manifest.table import BATCH, NO_FAULTS, Faults, Table, TableRow, find_header
from bulkbind.manifest.text import HEADER_WITHIN, MOST_COLUMNS, SHEET_BYTES, SHEET_CELLS
from bulkbind.manifest.workbook import (
    ERROR,
    NAMELESS_ERROR,
    Sheet,
    UnreadableError,
    Workbook,
    is_spreadsheet,
)
from bulkbind.model import CheckedRow, Problem, Source
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from bulkbind.manifest.opened import ManifestFile
    from bulkbind.manifest.sheet_xml import SheetRow
    from bulkbind.settings import ManifestSettings

SUFFIXES = (".xlsx", ".xlsm")
_ZIP = b"PK\x03\x04"
_MOST_ALTERNATIVES = 20
"""Sheets that are searched for the columns, where the one that is read lacks them."""
_MOST_NAMED = 10
_MOST_MERGED = 2_000_000
"""Columns of all merged ranges of several rows."""


def is_workbook(manifest: ManifestFile, head: bytes) -> bool:
    """Return whether a file is a spreadsheet in a ZIP archive, judging by its content."""
    if not head.startswith(_ZIP):
        return False
    suffix = PurePath(manifest.name.lower().removesuffix(".gz")).suffix
    return suffix in SUFFIXES or is_spreadsheet(manifest, SHEET_BYTES)


class XlsxManifest:
    """One sheet of a workbook.

    Attributes:
        source: Name and header; rows are written back as CSV.
        notices: For the operator; complete once the rows have been read.
    """

    def __init__(
        self,
        manifest: ManifestFile,
        source: Source,
        head: str,  # noqa: ARG002  # required by Opens
        settings: ManifestSettings,
    ) -> None:
        self._name = source.name
        self._settings = settings
        self._book = Workbook(manifest, SHEET_BYTES)
        weakref.finalize(self, self._book.close)
        self.notices: list[str] = []
        self._sheet = self._chosen(self._book.sheets)
        try:
            opened = _OpenSheet(self._book, self._sheet, source, settings)
        except UnreadableError:
            raise
        except ManifestError as error:
            raise self._with_alternatives(error, source) from error
        self._opened = opened
        self.source = opened.source

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its number in the sheet. Raises: ManifestError."""
        try:
            yield from self._opened.rows()
        except ManifestError as error:
            raise self._in_sheet(error) from error
        told = self._opened.notices()
        if len(self._book.sheets) > 1:
            about = f"{self._name}: sheet `{self._sheet.name}`: "
            told = (f"{about}{text.removeprefix(f'{self._name}: ')}" for text in told)
        self.notices += told

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a row has in the columns that the operator asks for."""
        return self._opened.asked(row)

    # --- which sheet ---------------------------------------------------------------------------

    def _chosen(self, sheets: Sequence[Sheet]) -> Sheet:
        if not sheets:
            raise ManifestError(f"{self._name} has no sheet")
        wanted = self._settings.sheet
        if wanted is None:
            return self._first(sheets)
        sheet = self._named(wanted, sheets)
        if sheet.kind != "worksheet":
            raise ManifestError(
                f"{self._name}: sheet `{sheet.name}` has no cells, it is a {sheet.kind}",
                hint=f"its sheets: {_list(sheets)}",
            )
        if not sheet.is_visible:
            self.notices.append(f"{self._name}: sheet `{sheet.name}` is read, which is hidden")
        return sheet

    def _first(self, sheets: Sequence[Sheet]) -> Sheet:
        """Return the first worksheet that is visible, and note the others."""
        sheet = next((s for s in sheets if s.kind == "worksheet" and s.is_visible), None)
        if sheet is None:
            raise ManifestError(
                f"{self._name} has no visible worksheet",
                hint=f"--sheet reads a hidden one; its sheets: {_list(sheets)}",
            )
        others = [s for s in sheets if s is not sheet]
        if others:
            self.notices.append(
                f"{self._name}: sheet `{sheet.name}` is read; --sheet takes another of "
                f"{_list(others)}"
            )
        return sheet

    def _named(self, wanted: str, sheets: Sequence[Sheet]) -> Sheet:
        for sheet in sheets:
            if sheet.name == wanted:
                return sheet
        numbered: list[Sheet] = []
        if wanted.isdecimal() and wanted.isascii() and int(wanted[:6]) > 0:
            at = slice(int(wanted[:6]) - 1, int(wanted[:6]))
            numbered = [*sheets[at], *[s for s in sheets if s.is_visible][at]]
        if not numbered:
            raise ManifestError(
                f"{self._name} has no sheet {wanted!r}",
                hint=f"its sheets: {_list(sheets)}, or 1, 2, …",
            )
        if numbered[0] is not numbered[-1]:
            raise ManifestError(
                f"{self._name}: sheet {wanted} is `{numbered[0].name}` with the hidden ones "
                f"counted, `{numbered[-1].name}` without them",
                hint="give its name",
            )
        return numbered[0]

    # --- errors --------------------------------------------------------------------------------

    def _in_sheet(self, error: ManifestError) -> ManifestError:
        told = str(error)
        if f"`{self._sheet.name}`" not in told:
            told = f"{told} (sheet `{self._sheet.name}`)"
        return ManifestError(told, hint=error.hint, names=error.names)

    def _with_alternatives(self, error: ManifestError, source: Source) -> ManifestError:
        """Return an error about the sheet that names those which have the columns."""
        told = self._in_sheet(error)
        worksheets = [s for s in self._book.sheets if s.kind == "worksheet" and s != self._sheet]
        if not worksheets:
            return told
        read = f"sheet `{self._sheet.name}` is read; "
        for sheet in worksheets[:_MOST_ALTERNATIVES]:
            try:
                _OpenSheet(self._book, sheet, source, self._settings)
            except ManifestError:
                continue
            hidden = "" if sheet.is_visible else ", which is hidden,"
            found = f"`{sheet.name}`{hidden} has the columns: --sheet {quote(sheet.name)}"
            return ManifestError(str(told), hint=read + found)
        return ManifestError(
            str(told), hint=f"{read}no other has the columns; {told.hint}", names=told.names
        )


def _list(sheets: Sequence[Sheet]) -> str:
    """Return the names of sheets, and what is not seen of them."""
    shown = []
    for sheet in sheets[:_MOST_NAMED]:
        about = "" if sheet.is_visible else " (hidden)"
        if sheet.kind != "worksheet":
            about = f" (a {sheet.kind})"
        shown.append(f"`{sheet.name}`{about}")
    return ", ".join(shown) + (", …" if len(sheets) > _MOST_NAMED else "")


class _OpenSheet:
    """A sheet whose header is known.

    Attributes:
        source: As of `XlsxManifest`.
    """

    def __init__(
        self, book: Workbook, sheet: Sheet, source: Source, settings: ManifestSettings
    ) -> None:
        self._book = book
        self._sheet = sheet
        self._name = source.name
        self._only_visible = settings.visible_rows
        self._layout = book.layout(sheet)
        header = self._header(settings)
        width = len(header.cells)
        while width and not header.cells[width - 1].strip():
            width -= 1
        self._width = width
        self.source = Source(
            source.name, "xlsx", "utf-8", bom=True, header=tuple(header.cells[:width]),
            has_header=not settings.header,
        )  # fmt: skip
        self._table = Table(self.source, header.line, settings, header.faults)
        self.source = replace(self.source, fields=self._table.fields)
        self.asked = self._table.asked
        self._fills = self._table.judged
        self._first_line = header.line
        if not settings.header:
            mapped = (*settings.columns.values(), *asked_columns(settings))
            self._first_line = self._below_header(header.line, mapped)
        self._blank = self._hidden = 0
        self._hidden_line = 0
        self._merges = _Merges(self._layout.merged, self._fills.keys())

    def _header(self, settings: ManifestSettings) -> TableRow:
        skipped = settings.skip_rows or 0
        if settings.header:
            return TableRow(skipped, list(settings.header))
        merges = _Merges(self._layout.merged)
        above = islice(self._read(merges), skipped + HEADER_WITHIN)
        first = [row for row in above if row.number > skipped]
        header = find_header([TableRow(row.number, row.cells) for row in first], settings)
        if header is None:
            raise ManifestError(
                f"{self._name} is empty: no row of sheet `{self._sheet.name}` has a cell",
                hint="--sheet names another one",
            )
        doubts = next(row.doubts for row in first if row.number == header.line)
        return header._replace(faults=_header_faults(header, doubts))

    def _below_header(self, line: int, mapped: Collection[str]) -> int:
        """Return the last line of the header. Raises: ManifestError if it names several columns."""
        last = line
        for area in self._layout.merged:
            if not area.top <= line <= area.bottom:
                continue
            used = [at for at in self._fills if area.left <= at <= area.right]
            if used and area.left != area.right and f"#{used[0] + 1}" not in mapped:
                name = self.source.header[area.left].strip()
                is_field = used[0] in self._table.used
                meant = f"--map {self._table.field_of(used[0])}=" if is_field else "the column "
                raise ManifestError(
                    f"{self._name}:{line}: the header `{name}` spans the columns of {area}",
                    hint=f"split it, or say which column is meant, e.g. {meant}#{area.left + 1}",
                )
            if used:
                last = max(last, area.bottom)
        return last

    # --- rows ----------------------------------------------------------------------------------

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row. Raises: ManifestError."""
        below = self._below()
        while batch := list(islice(below, BATCH)):
            faults = {row.line: row.faults for row in batch if row.faults}
            lines = [row.line for row in batch]
            for row in self._table.rows([row.cells for row in batch], lines, faults):
                yield self._placed(row, faults.get(row.line, NO_FAULTS)) if row.problems else row

    def _below(self) -> Iterator[TableRow]:
        """Yield the rows below the header, as wide as the header unless they have more cells."""
        before, width, first = self._first_line, self._width, self._first_line
        for row in self._read(self._merges):
            line, is_hidden, cells, doubts = row
            if line <= first:
                continue
            if line > before:
                self._blank += line - before - 1
                before = line
            if is_hidden:
                if self._only_visible:
                    self._hidden += 1
                    self._hidden_line = self._hidden_line or line
                    continue
                if any(cells[:width]):
                    self._hidden += 1
                    self._hidden_line = self._hidden_line or line
            faults = self._faults(cells, doubts) if doubts else NO_FAULTS
            if len(cells) < width:
                cells += [""] * (width - len(cells))
            elif len(cells) > width:
                is_text = cells[-1].strip() and len(cells) - 1 not in doubts  # nearly always
                extra = enumerate(cells[width:], width)
                if not is_text and not any(
                    cell.strip() and doubts.get(at) not in _ERRORS for at, cell in extra
                ):
                    del cells[width:]
            yield TableRow(line, cells, faults)

    def _read(self, merges: _Merges) -> Iterator[SheetRow]:
        """Yield the rows with merged cells filled down."""
        with self._book.reading(self._sheet):
            widest = 0
            for row in self._book.rows(self._sheet):
                widest = max(widest, len(row.cells))
                if row.number * widest > SHEET_CELLS:
                    raise ManifestError(
                        f"{self._name}: sheet `{self._sheet.name}` spans {row.number:,} rows and "
                        f"{widest:,} columns, at most {SHEET_CELLS:,} cells are read",
                        hint="delete what stands far below or right of the table, or save it "
                        "as CSV",
                    )
                if merges:
                    merges.apply(row)
                yield row

    def _faults(self, cells: list[str], doubts: Mapping[int, str]) -> Mapping[int, Fault]:
        """Return the faults of the cells in doubt; those of fields keep the doubt in their text."""
        faults = {}
        has_text = any(map(str.strip, cells))
        for at, doubt in doubts.items():
            if doubt in _ERRORS:
                is_named = doubt == ERROR and at in self._fills
                faults[at] = formula_error(cells[at]) if is_named else _NAMELESS
            elif at in self._fills:
                is_empty = doubt == EMPTY_FORMULA or doubt.startswith(_EMPTY)
                if is_empty and not (self._fills[at] and has_text):
                    continue
                cells[at] = doubted(cells[at], doubt.removeprefix(_EMPTY))
                faults[at] = fault_of(cells[at]) or _NAMELESS
        return faults

    def _placed(self, row: CheckedRow, faults: Faults) -> CheckedRow:
        """Return a row whose problems name their cells, and whose cells still tell them in CSV."""
        places = self._table.positions
        problems = tuple(
            problem
            if places.get(problem.field) is None
            else replace(
                problem, found=f"{problem.found} in {letters(places[problem.field])}{row.line}"
            )
            for problem in row.problems
        )
        cells = [*row.cells]
        for at in faults.keys() & places.values():
            if fault_of(cells[at].strip()) is None:
                cells[at] = doubted(cells[at], FORMULA_ERROR)
        return msgspec.structs.replace(row, cells=cells, problems=problems)

    # --- notices -------------------------------------------------------------------------------

    def notices(self) -> Iterator[str]:
        """Yield the notices once all rows have been read."""
        name = self._name
        if self._hidden:
            rows = counted(self._hidden, "hidden or filtered rows")
            place = verb(self._hidden, "in", "the first in")
            what = f"{rows}, {place} line {self._hidden_line}, {verb(self._hidden, 'is', 'are')}"
            them = verb(self._hidden, "it", "them")
            if self._only_visible:
                yield f"{name}: {what} left out"
            else:
                yield f"{name}: {what} read like the others; --visible-rows leaves {them} out"
        for at in sorted(self._fills):
            if any(first <= at <= last for first, last in self._layout.hidden):
                column = self.source.header[at].strip() or f"column {at + 1}"
                yield f"{name}: the column `{column}` ({letters(at)}) is used, which is hidden"
            if filled := self._merges.filled.get(at):
                column = self.source.header[at].strip() or f"column {at + 1}"
                yield (
                    f"{name}: merged cells of `{column}` are filled down into "
                    f"{counted(filled.count, 'rows')}, e.g. {letters(at)}{filled.line} "
                    f"from {filled.area}"
                )
        if self._blank:
            self._table.pass_over_blank_lines(self._blank)
        yield from self._table.notices()


_ERRORS = (ERROR, NAMELESS_ERROR)
_NAMELESS = formula_error("")
_EMPTY = "? "
"""Prefix of a doubt that matters only where an empty cell would be filled by a default."""


def _header_faults(header: TableRow, doubts: Mapping[int, str]) -> dict[int, Fault]:
    """Return the faults of header cells whose name is not known."""
    faults = {}
    for at, cell in enumerate(header.cells):
        fault = error_of(cell.strip()) if cell.strip("#") else None
        doubt = doubts.get(at)
        if doubt in _ERRORS:
            fault = formula_error(cell if doubt == ERROR else "")
        elif doubt == NEVER_CALCULATED:
            fault = fault_of(doubted(cell, NEVER_CALCULATED))
        if fault:
            faults[at] = fault._replace(found=f"{fault.found} in {letters(at)}{header.line}")
    return faults


@dataclass(slots=True)
class _Filled:
    """Cells of a column that were filled down."""

    line: int
    area: Area
    count: int = 0


class _Held(NamedTuple):
    """What a column shows while a merged range lasts that covers some of its rows."""

    area: Area
    text: str
    doubt: str


class _Merges:
    """Merged cells, applied to one row after the other, at a cost that few of them can raise.

    Attributes:
        filled: What was filled down, by 0-based column.
    """

    def __init__(self, areas: Iterable[Area], wanted: Collection[int] | None = None) -> None:
        """*wanted*: the columns that matter, 0-based; None for all."""
        self._areas = sorted(area for area in areas if area[:2] != area[2:])
        self._tops = [area.top for area in self._areas]
        self._wanted = wanted
        self._begun = 0
        self._line = 0
        self._held: dict[int, _Held] = {}
        self._last = 0
        self._cells = 0
        self.filled: dict[int, _Filled] = {}

    def __bool__(self) -> bool:
        return bool(self._areas)

    def apply(self, row: SheetRow) -> None:
        """Fill merged cells of one column down, and put doubts on all other merged cells.

        A row without a cell of its own stays blank. Raises: ValueError.
        """
        number, _, cells, doubts = row
        if number < self._line:
            raise ValueError(f"row {number} comes after row {self._line}")
        self._line = number
        end = bisect_left(self._tops, number + 1, self._begun)
        begun = [area for area in self._areas[self._begun : end] if area.bottom >= number]
        self._begun = end
        if not begun and number > self._last:
            return
        for area in begun:
            self._hold(area, number, cells, doubts)
        if not self._has_own_cell(number, cells):
            cells[:] = [""]
            doubts.clear()
            return
        for area in begun:
            if area.top == area.bottom:
                for at in self._wanted_in(area):
                    self._doubt(area, at, number, cells, doubts)
        self._show_held(number, cells, doubts)

    def _show_held(self, number: int, cells: list[str], doubts: dict[int, str]) -> None:
        for at in list(self._held) if self._wanted is None else self._wanted:
            held = self._held.get(at)
            if held is None or held.area.bottom < number:
                continue
            if held.area.left == held.area.right:
                self._fill(held, number, cells, doubts)
            else:
                self._doubt(held.area, at, number, cells, doubts)

    def _wanted_in(self, area: Area) -> Iterable[int]:
        columns = range(area.left, min(area.right + 1, MOST_COLUMNS))
        return columns if self._wanted is None else [at for at in self._wanted if at in columns]

    def _hold(
        self, area: Area, number: int, cells: Sequence[str], doubts: Mapping[int, str]
    ) -> None:
        """Take in a range that has begun, if it goes on below."""
        if area.top == area.bottom:
            return
        columns = range(area.left, min(area.right + 1, MOST_COLUMNS))
        self._cells += len(columns)
        if self._cells > _MOST_MERGED:
            raise ValueError(f"cells are merged in more than {_MOST_MERGED:,} columns")
        is_here = area.top == number and area.left < len(cells)
        held = _Held(area, cells[area.left], doubts.get(area.left, "")) if is_here else None
        self._held.update(dict.fromkeys(columns, held or _Held(area, "", "")))
        self._last = max(self._last, area.bottom)

    def _has_own_cell(self, number: int, cells: Sequence[str]) -> bool:
        held = (self._held.get(at) for at, cell in enumerate(cells) if cell.strip())
        return any(one is None or not one.area.top < number <= one.area.bottom for one in held)

    def _fill(self, held: _Held, number: int, cells: list[str], doubts: dict[int, str]) -> None:
        area, text, doubt = held
        at = area.left
        _put(cells, at, text)
        doubts.pop(at, None)
        if doubt:
            doubts[at] = doubt
        elif not text.strip():
            doubts[at] = f"{_EMPTY}merged {area}"
        if number > area.top and text.strip():
            filled = self.filled.setdefault(at, _Filled(number, area))
            filled.count += 1

    def _doubt(
        self, area: Area, at: int, number: int, cells: list[str], doubts: dict[int, str]
    ) -> None:
        is_first = number == area.top and at == area.left
        _put(cells, at, cells[at] if is_first and at < len(cells) else "")
        if doubts.get(at) not in _ERRORS:
            doubts[at] = f"merged {area}"


def _put(cells: list[str], at: int, text: str) -> None:
    """Put a text into a row, made longer where that is necessary."""
    cells += [""] * (at + 1 - len(cells))
    cells[at] = text

"""XLSX, read with the extra python-calamine; one sheet at a time is in memory."""

from __future__ import annotations

import datetime as dt
import re
import tempfile
import weakref
import zipfile
import zlib
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any

from bulkbind.errors import ManifestError
from bulkbind.manifest.error_cells import BLOCK, IS_ERROR, MARK, copy_marked, is_media
from bulkbind.manifest.likely_causes import FAULT_STARTS, LOST, MOST_DIGITS, fault_of, formula_error
from bulkbind.manifest.table import BATCH, Table, TableRow, find_header
from bulkbind.manifest.text import HEADER_WITHIN, LONGEST_CELL, SHEET_BYTES, SHEET_CELLS
from bulkbind.model import CheckedRow, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.settings import ManifestSettings

_REFERENCE = re.compile(rb'<(?:\w+:)?(?:c|row|dimension)\b[^>]{0,200}?\br(?:ef)?="([^"]{1,40})"')
_CELL = re.compile(rb"([A-Z]{0,3})(\d{1,7})$")
_ENTITY = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_LETTERS = 26
_SUSPECT = (MARK, *FAULT_STARTS)
SUFFIXES = (".xlsx", ".xlsm")


def is_workbook(path: Path, head: bytes) -> bool:
    """Return whether a file that begins with *head* is XLSX, judging by its content."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/workbook") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        return PurePath(path).suffix.lower() in SUFFIXES


class XlsxManifest:
    """One sheet of a workbook.

    Attributes:
        source: Name and header; rows are written back as CSV.
        notices: For the operator; complete once the rows have been read.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        head: str,  # noqa: ARG002  # required by Opens
        settings: ManifestSettings,
    ) -> None:
        self._path = path
        self._name = source.name
        self._sheet = settings.sheet
        self.notices: list[str] = []
        self._with_errors = _examined(path, source.name)
        self._copy: IO[bytes] | None = None
        first = [
            row
            for row in islice(self._cells(), (settings.skip_rows or 0) + HEADER_WITHIN)
            if row.line > (settings.skip_rows or 0)
        ]
        if settings.header:
            header: TableRow | None = TableRow(settings.skip_rows or 0, list(settings.header))
        else:
            header = find_header(first, settings)
        if header is None:
            raise ManifestError(
                f"{source.name} is empty: no row of sheet {self._sheet!r} has a cell",
                hint="--sheet names another one",
            )
        self._first_line = header.line
        width = len(header.cells)
        while width and not header.cells[width - 1].strip():
            width -= 1
        self._width = width
        self.source = Source(
            source.name, "xlsx", "utf-8", bom=True, header=tuple(header.cells[:width]),
            has_header=not settings.header,
        )  # fmt: skip
        self._table = Table(self.source, header.line, settings, header.faults)

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its number in the sheet. Raises: ManifestError."""
        below = (row for row in self._cells() if row.line > self._first_line)
        while batch := list(islice(below, BATCH)):
            faults = {row.line: row.faults for row in batch if row.faults}
            yield from self._table.rows(
                [self._fitted(row) for row in batch], [row.line for row in batch], faults
            )
        self.notices += self._table.notices()

    def _fitted(self, row: TableRow) -> list[str]:
        """Return the cells without those beyond the header, unless one of these has a value."""
        width, cells = self._width, row.cells
        beyond = enumerate(cells[width:], width)
        extra = any(cells[width:]) and any(cell and at not in row.faults for at, cell in beyond)
        return cells if extra else cells[:width]

    def _cells(self) -> Iterator[TableRow]:
        try:
            import python_calamine as calamine  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise ManifestError(
                f"{self._name} is an Excel workbook, and python-calamine is not installed",
                hint="pip install 'bulkbind[xlsx]', or save the sheet as CSV",
            ) from error
        try:
            with self._opened() as file:
                book = calamine.CalamineWorkbook.from_filelike(file)
                sheet = book.get_sheet_by_name(self._chosen(book.sheet_names))
                _, left = sheet.start or (0, 0)  # rows begin in the first row, not column
                for line, row in enumerate(sheet.iter_rows(), start=1):
                    yield _row(line, [_text(cell) for cell in row], left)
        except (calamine.CalamineError, OSError, ValueError) as error:
            raise self._unreadable(error) from error
        except BaseException as error:
            if type(error).__name__ == "PanicException":  # a panic in its Rust code
                raise self._unreadable(error) from error
            raise

    def _opened(self) -> AbstractContextManager[IO[bytes]]:
        """Return the workbook, or a copy with its error cells marked, which is created once."""
        if not self._with_errors:
            return self._path.open("rb")
        if self._copy is None:
            copy = tempfile.TemporaryFile(prefix="bulkbind-sheet-")  # noqa: SIM115  # closed with self
            weakref.finalize(self, copy.close)
            copy_marked(self._path, self._with_errors, copy)
            self._copy = copy
        self._copy.seek(0)
        return nullcontext(self._copy)

    def _unreadable(self, error: BaseException) -> ManifestError:
        return ManifestError(
            f"{self._name}: the workbook cannot be read: {error}",
            hint="save it again as .xlsx, without a password, or as CSV",
        )

    def _chosen(self, names: list[str]) -> str:
        if not names:
            raise ManifestError(f"{self._name} has no sheet")
        if self._sheet is None:
            if len(names) > 1:
                others = ", ".join(f"`{name}`" for name in names[1:10])
                self._note(
                    f"{self._name}: sheet `{names[0]}` is read; --sheet takes another of {others}"
                )
            return names[0]
        if self._sheet in names:
            return self._sheet
        if self._sheet.isdecimal() and 0 < int(self._sheet[:6]) <= len(names):
            return names[int(self._sheet) - 1]
        shown = ", ".join(f"`{name}`" for name in names[:20])
        raise ManifestError(
            f"{self._name} has no sheet {self._sheet!r}", hint=f"its sheets: {shown}, or 1, 2, …"
        )

    def _note(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)


def _row(line: int, cells: list[str], left: int) -> TableRow:
    """Return a row with its faults. *left*: the sheet's 0-based column of the row's first cell."""
    if not any(cell.lstrip().startswith(_SUSPECT) for cell in cells):
        return TableRow(line, cells)
    faults = {}
    for at, cell in enumerate(cells):
        text = cell.removeprefix(MARK)
        fault = fault_of(text.strip()) if text == cell else formula_error(text)
        if fault:
            cells[at] = text
            place = f"{_letters(left + at)}{line}"
            faults[at] = fault._replace(found=f"{fault.found} in {place}")
    return TableRow(line, cells, faults)


def _text(cell: Any) -> str:  # noqa: ANN401  # any type of calamine's
    """Return a cell as displayed; a number that lost digits in a form that breaks every rule."""
    if isinstance(cell, str):
        return cell[: LONGEST_CELL + 1]
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return _number(cell)
    if isinstance(cell, dt.datetime) and cell.time() == dt.time.min:
        return str(cell.date())
    return str(cell)


def _number(cell: float) -> str:
    if not cell.is_integer():
        return repr(cell)
    return str(int(cell)) if abs(cell) < 10**MOST_DIGITS else f"{cell:.14E}{LOST}"


def _examined(path: Path, name: str) -> set[str]:
    """Return the parts with error cells. Raises: ManifestError if damaged or too large to read."""
    with_errors = set()
    try:
        with zipfile.ZipFile(path) as book:
            parts = book.infolist()
            if "xl/workbook.bin" in map(str.lower, book.namelist()):
                raise ManifestError(
                    f"{name} is a binary workbook (.xlsb), whose errors of formulas cannot be read",
                    hint="save it as .xlsx or CSV",
                )
            total = sum(part.file_size for part in parts)
            if total > SHEET_BYTES:
                raise ManifestError(
                    f"{name}: the workbook unpacks to {total:,} bytes; at most {SHEET_BYTES:,}",
                    hint="save the sheet as CSV",
                )
            for part in parts:
                if is_media(part.filename):
                    continue
                with book.open(part) as file:
                    if _scan(file, name, part.filename.lower()):
                        with_errors.add(part.filename)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError,
            RuntimeError, ValueError) as error:  # fmt: skip
        raise ManifestError(
            f"{name}: the workbook is damaged or encrypted: {error}",
            hint="save it again as .xlsx without a password, or as CSV",
        ) from error
    return with_errors


def _scan(file: IO[bytes], name: str, part: str) -> bool:
    """Return whether a part has error cells; refuse XML entities and sheets that are too large."""
    is_sheet, is_xml = "/worksheets/" in part, part.endswith((".xml", ".rels"))
    rest = b""
    has_errors = False
    width = height = read = 0
    while block := file.read(BLOCK):
        read += len(block)
        if read > SHEET_BYTES:
            raise ManifestError(f"{name}: a part of the workbook is larger than it says")
        data = rest + block
        if is_xml and _ENTITY.search(data):
            raise ManifestError(
                f"{name}: the workbook defines XML entities, as no spreadsheet program does",
                hint="save it again as .xlsx, or as CSV",
            )
        has_errors = has_errors or IS_ERROR.search(data) is not None
        if is_sheet:
            for reference in _REFERENCE.findall(data):
                corner = _CELL.search(reference)
                if corner:
                    width = max(width, _column(corner[1]))
                    height = max(height, int(corner[2]))
            if width * height > SHEET_CELLS:
                raise ManifestError(
                    f"{name}: a sheet spans {height:,} rows and {width:,} columns, at most "
                    f"{SHEET_CELLS:,} cells are read",
                    hint="delete what stands far below or right of the table, or save it as CSV",
                )
        rest = data[-256:]
    return has_errors


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * _LETTERS + letter - ord("A") + 1
    return number


def _letters(column: int) -> str:
    """Return the name of a 0-based column: `A`, `B`, … `AA`."""
    letters = ""
    while column >= 0:
        letters = chr(ord("A") + column % _LETTERS) + letters
        column = column // _LETTERS - 1
    return letters

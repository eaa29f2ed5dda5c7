"""CSV, row by row: the delimiter is found, line breaks in cells are kept, lines are counted."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.rules import Values, check, printable, trim
from bulkbind.model import CheckedRow, Problem, Source
from bulkbind.settings import FIELDS

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DELIMITERS = ",;\t|"
_SHAPE = "row: as many cells as the header has columns"
_QUOTING = "row: quotes are closed, and doubled inside a quoted cell"


class CsvManifest:
    """One CSV file, open for reading once.

    Attributes:
        source: Name, encoding, delimiter and header, so that rows can be written back.
        notices: What the operator should know; complete once the rows have been read.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        head: str,
        mapping: Mapping[str, str],
        user_id: str | None,
    ) -> None:
        self._path = path
        self._user_id = user_id
        self._encoding = source.encoding
        self.notices: list[str] = []
        delimiter = find_delimiter(head, mapping)
        try:
            with self._open(source) as file:
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                header = self._header(reader, source.name)
                self._first_line = reader.line_num
        except UnicodeDecodeError as error:
            raise ManifestError(f"{source.name} is not {source.encoding}: {error}") from error
        self._used = columns.positions(
            header,
            mapping,
            source=source.name,
            line=self._first_line,
            has_user=user_id is not None,
        )
        self._names = tuple(
            printable(header[at].strip()) if at is not None else field
            for field, at in zip(FIELDS, self._used, strict=True)
        )
        self.source = Source(
            source.name, "csv", source.encoding, source.bom, delimiter, tuple(header)
        )
        others = columns.unknown(header, self._used)
        if others:
            self.notices.append(
                f"{source.name}: columns kept but not sent: {printable(', '.join(others[:20]))}"
            )

    def _open(self, source: Source) -> io.TextIOWrapper:
        # An undecodable byte makes its cell invalid and is written back as it was.
        errors = "surrogateescape" if source.encoding == "utf-8" else "strict"
        file = self._path.open("r", encoding=source.encoding, errors=errors, newline="")
        if source.bom:
            try:
                file.read(1)
            except UnicodeDecodeError:
                file.close()
                raise
        return file

    @staticmethod
    def _header(reader: Iterator[list[str]], name: str) -> list[str]:
        try:
            header = next((row for row in reader if any(map(str.strip, row))), None)
        except csv.Error as error:
            raise ManifestError(f"{name}: the header cannot be read: {error}") from error
        if header is None:
            raise ManifestError(
                f"{name} is empty", hint="the first line names the columns, e.g. machine_code"
            )
        return header

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its line; blank rows are passed over and counted in a notice.

        Raises: ManifestError where the rest of the file cannot be told apart (a quote that is
            never closed, a broken encoding).
        """
        try:
            with self._open(self.source) as file:
                yield from self._rows(file)
        except UnicodeDecodeError as error:
            raise ManifestError(f"{self.source.name} is not {self._encoding}: {error}") from error

    def _rows(self, file: io.TextIOWrapper) -> Iterator[CheckedRow]:
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for text in file:
                taken.append(text)
                yield text

        reader = csv.reader(lines(), delimiter=self.source.delimiter, strict=True)
        width = len(self.source.header)
        blank = 0
        while True:
            line = reader.line_num + 1
            taken.clear()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield self._unreadable(error, line, "".join(taken))
                continue
            if cells is None:
                break
            if line <= self._first_line:
                continue
            right = len(cells) == width
            row = self._checked(cells, line) if right else self._ragged(cells, line, width)
            if row.problems and not any(map(str.strip, cells)):
                blank += 1
            else:
                yield row
        if blank:
            self.notices.append(f"{self.source.name}: {blank} blank lines passed over")

    def _values(self, cells: list[str]) -> Values:
        user_at, code_at, name_at, os_at = self._used
        return (
            (trim(cells[user_at]) if user_at is not None else None) or self._user_id,
            trim(cells[code_at]) if code_at is not None else None,
            trim(cells[name_at]) if name_at is not None else None,
            trim(cells[os_at]) if os_at is not None else None,
        )

    def _checked(self, cells: list[str], line: int, *more: Problem) -> CheckedRow:
        values = self._values(cells)
        device, problems = check(values, self._names)
        problems += more
        if problems:
            user, code, name, system = (printable(v) if v else None for v in values)
            return CheckedRow(line, cells, None, (user, code, name, system), problems)
        return CheckedRow(line, cells, device, values)

    def _ragged(self, cells: list[str], line: int, width: int) -> CheckedRow:
        """A short row lacks its last cells; a longer one is shifted somewhere, unless by blanks."""
        padded = cells + [""] * (width - len(cells))
        extra = [cell for cell in cells[width:] if cell.strip()]
        if not extra:
            row = self._checked(padded, line)
            return CheckedRow(line, cells, row.device, row.values, row.problems)
        shown = printable(self.source.delimiter.join(cells))
        found = f"it has {len(cells)}, the header {width}"
        return self._checked(cells, line, Problem("row", "row", shown, _SHAPE, found))

    def _unreadable(self, error: csv.Error, first: int, text: str) -> CheckedRow:
        message = str(error)
        last = first + len(text.splitlines()) - 1
        if "unexpected end of data" in message or ("field larger" in message and last > first):
            raise ManifestError(
                f"{self.source.name}:{first}: a quote opened here is never closed; the lines up to "
                f"{last} cannot be told apart",
                hint="close the quote, or double it if it belongs to the cell",
            )
        raw = text.rstrip("\r\n")
        problem = Problem("row", "row", printable(raw), _QUOTING, message)
        return CheckedRow(first, [raw], None, (None, None, None, None), (problem,))


def find_delimiter(head: str, mapping: Mapping[str, str]) -> str:
    """Return the delimiter under which the first lines make most sense.

    Best is the one under which most header cells name a field; then the one with the most
    columns whose first rows have that width, too. A file of one column has a comma.
    """
    lines = [line for line in head.splitlines(keepends=True) if line.strip()][:20]

    def score(delimiter: str) -> tuple[int, int]:
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            return (0, 0)
        header = rows[0] if rows else []
        named = sum(columns.field_of(name, mapping) is not None for name in header)
        alike = sum(len(row) == len(header) for row in rows)
        return (named, alike * (len(header) - 1))

    return max(DELIMITERS, key=score)

"""CSV and its variants: detects the dialect, keeps line breaks in cells, counts lines.

Rows are written back in the same dialect.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple, TextIO

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.formulas import safe
from bulkbind.manifest.rules import printable
from bulkbind.manifest.table import BATCH, Table, TableRow, find_header
from bulkbind.manifest.text import (
    HEADER_WITHIN,
    LONGEST_CELL,
    LONGEST_LINE,
    blocks,
    lines_of,
    open_text,
)
from bulkbind.model import OWN_COLUMNS, CheckedRow, Problem, Source

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bulkbind.settings import ManifestSettings

DELIMITERS = ",;\t|"
_QUOTING = "row: quotes are closed, and doubled inside a quoted cell"
_SEP = re.compile(r"sep=([^\s\w\"'])\s*$", re.ASCII | re.IGNORECASE | re.MULTILINE)
"""A first line that states the delimiter for Excel."""
_INCOMPLETE = "unexpected end of data"
"""Message of Python's reader for a row that continues after the last line."""
_BREAK = re.compile(r"\r\n|\r|\n")
_SINGLE_QUOTED = re.compile(rf"(?:^|[{DELIMITERS}])'[^'\n]*'(?=[{DELIMITERS}]|\s*$)", re.MULTILINE)


class Dialect(NamedTuple):
    """How a line is split into cells."""

    delimiter: str
    quote: str = '"'
    escape: str = ""
    """The escape character before a quote inside quotes; empty if quotes are doubled."""
    is_spaced: bool = False
    """Whether blanks may precede a quote."""


def reader(lines: Iterable[str], dialect: Dialect, *, is_strict: bool = True) -> Reader:
    """Return Python's reader for a dialect."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        escapechar=dialect.escape or None,
        doublequote=not dialect.escape,
        skipinitialspace=dialect.is_spaced,
        strict=is_strict,
    )


class CsvManifest:
    """One CSV file, open for reading once.

    Attributes:
        source: Name, encoding, dialect and header, so that rows can be written back.
        notices: For the operator; complete once the rows have been read.
    """

    def __init__(self, path: Path, source: Source, head: str, settings: ManifestSettings) -> None:
        self._path = path
        self.notices: list[str] = []
        dialect = find_dialect(head, settings.columns, settings.skip_rows or 0)
        self._dialect = dialect
        self.source = source  # preliminary, for _start
        lines, header = self._start(settings)
        self._first_line = _line_numbers([header.cells], header.line)[1]
        self.source = Source(
            source.name,
            "csv",
            source.encoding,
            source.bom,
            dialect.delimiter,
            tuple(header.cells),
            has_header=not settings.header,
            preamble="".join(lines),
            quote=dialect.quote,
            escape=dialect.escape,
        )
        if lines and settings.skip_rows is None and any(map(str.strip, lines)):
            self.notices.append(
                f"{source.name}: {len(lines):,} lines before the header passed over"
            )
        self._table = Table(self.source, header.line, settings)

    def _start(self, settings: ManifestSettings) -> tuple[list[str], TableRow]:
        """Return the lines before the header, and the header."""
        name = self.source.name
        with open_text(self._path, self.source) as file:
            lines = chain.from_iterable(map(lines_of, blocks(file, name)))
            skipped = list(islice(lines, settings.skip_rows or 0))
            if settings.header:
                return skipped, TableRow(len(skipped), list(settings.header))
            seen: list[str] = []
            rows, error = _first_rows(_recording(lines, seen), self._dialect, len(skipped))
        header = find_header(rows, settings)
        if header is None:
            if error is not None:
                raise ManifestError(f"{name}: the header cannot be read: {error}") from error
            raise ManifestError(
                f"{name} is empty", hint="the first line names the columns, e.g. machine_code"
            )
        return (skipped + seen)[: header.line - 1], header

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its line; blank rows are skipped and counted in a notice.

        Raises: ManifestError where the rest of the file cannot be parsed (a quote that is never
            closed, a broken encoding).
        """
        return chain.from_iterable(self._batches())  # avoids a generator frame per row

    def _batches(self) -> Iterator[Iterable[CheckedRow]]:
        with open_text(self._path, self.source) as file:
            line = self._first_line
            rest = ""
            for text in _skip_lines(blocks(file, self.source.name), line - 1):
                block = rest + text
                rest = ""
                if self._is_plain(block):
                    for texts in _batched(lines_of(block, keepends=False)):
                        cells = [text.split(self._dialect.delimiter) for text in texts]
                        yield self._table.rows(cells, range(line, line + len(cells)))
                        line += len(cells)
                else:
                    rest, line = yield from self._read(block, line)
                    self._check_length(rest, line)
            if rest:
                raise self._unclosed(line, line + _count_breaks(rest))
        self.notices += self._table.notices()

    def _is_plain(self, block: str) -> bool:
        """Whether each line is a row that can be split at delimiters, three times faster."""
        return (
            self._dialect.quote not in block
            and not (self._dialect.escape and self._dialect.escape in block)
            and len(block) <= LONGEST_CELL
        )

    def _read(
        self, block: str, first: int
    ) -> Generator[Iterable[CheckedRow], None, tuple[str, int]]:
        """Yield the rows of a block; return the incomplete row at its end, and its line."""
        texts = lines_of(block)
        cells = reader(texts, self._dialect)
        line = first
        while True:
            batch, stop = _read_batch(cells)
            if not batch and stop is None:
                return "", line
            after = first + cells.line_num
            if stop is None and after - line == len(batch):
                lines: Sequence[int] = range(line, after)
                line = after
            else:
                lines, line = _line_numbers(batch, line)
            yield self._table.rows(batch, lines)
            if stop is not None:
                text = "".join(texts[line - first : after - first])
                if _INCOMPLETE in str(stop):
                    return text, line
                yield (self._unreadable(stop, line, text),)
                line = after

    def _check_length(self, rest: str, line: int) -> None:
        if len(rest) > LONGEST_LINE:
            raise ManifestError(
                f"{self.source.name}:{line}: from here on, a row of more than "
                f"{LONGEST_LINE:,} characters",
                hint="is a quote never closed?",
            )

    def _unreadable(self, error: csv.Error, first: int, text: str) -> CheckedRow:
        raw = text.rstrip("\r\n")
        last = first + _count_breaks(text)
        if "field larger" in str(error) and last > first:
            raise self._unclosed(first, last)
        problem = Problem("row", "row", printable(raw), _QUOTING, str(error))
        return CheckedRow(first, [raw], (None, None, None, None), (problem,))

    def _unclosed(self, first: int, last: int) -> ManifestError:
        return ManifestError(
            f"{self.source.name}:{first}: a quote opened here is never closed; the lines up to "
            f"{last} cannot be told apart",
            hint="close the quote, or double it if it belongs to the cell",
        )


def _count_breaks(row: str) -> int:
    return len(_BREAK.findall(row.rstrip("\r\n")))


def _skip_lines(texts: Iterable[str], lines: int) -> Iterator[str]:
    for text in texts:
        if lines:
            found = lines_of(text)
            kept = "".join(found[lines:])
            lines = max(0, lines - len(found))
        else:
            kept = text
        if kept:
            yield kept


def _batched(lines: list[str]) -> Iterator[list[str]]:
    return (lines[at : at + BATCH] for at in range(0, len(lines), BATCH))


def _read_batch(cells: Reader) -> tuple[list[list[str]], csv.Error | None]:
    """Read up to `BATCH` rows; return them, and the error that ended the reading, if any."""
    batch: list[list[str]] = []
    try:
        batch.extend(islice(cells, BATCH))  # keeps the rows before an error
    except csv.Error as error:
        return batch, error
    return batch, None


def _line_numbers(batch: list[list[str]], line: int) -> tuple[Sequence[int], int]:
    """Return each row's first line, counting line breaks in cells, and the line after the batch."""
    lines = []
    for cells in batch:
        lines.append(line)
        line += 1 + sum(len(_BREAK.findall(cell)) for cell in cells if "\n" in cell or "\r" in cell)
    return lines, line


def _recording(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    for text in lines:
        seen.append(text)
        yield text


def _first_rows(
    lines: Iterator[str], dialect: Dialect, skipped: int
) -> tuple[list[TableRow], csv.Error | None]:
    """Return the first rows, and the last error in reading them, if any."""
    cells = reader(lines, dialect)
    rows: list[TableRow] = []
    failed = None
    for _ in range(HEADER_WITHIN):
        line = skipped + cells.line_num + 1
        try:
            row = next(cells, None)
        except csv.Error as error:
            failed = error
            continue
        if row is None:
            break
        rows.append(TableRow(line, row))
    return rows, failed


def find_dialect(head: str, mapping: Mapping[str, str], skipped: int = 0) -> Dialect:
    """Return the dialect of a file that begins with *head*, ignoring its first *skipped* lines.

    Single quotes count as quotes only if the lines parse better that way.
    """
    text = islice(io.StringIO(head, newline=""), skipped, None)
    lines = [line for line in text if line.strip()][:HEADER_WITHIN]
    stated = _SEP.match(head)
    delimiters = stated[1] if stated else DELIMITERS
    dialects = [Dialect(delimiter) for delimiter in delimiters]
    if '\\"' in head:
        dialects += [Dialect(delimiter, '"', "\\") for delimiter in delimiters]
    if '"' not in head and _SINGLE_QUOTED.search(head):
        dialects += [Dialect(delimiter, "'") for delimiter in delimiters]
    best = max(dialects, key=lambda dialect: _score(lines, dialect, mapping))
    spaced = rf"{re.escape(best.delimiter)} +{best.quote}[^{best.quote}\n]*{best.quote}\s*"
    is_spaced = re.search(rf"{spaced}(?:{re.escape(best.delimiter)}|$)", head, re.MULTILINE)
    return best._replace(is_spaced=is_spaced is not None)


def _score(
    lines: Sequence[str], dialect: Dialect, mapping: Mapping[str, str]
) -> tuple[int, int, int]:
    """Return how well lines parse in a dialect.

    Best has the most cells of a row that name a field, then the fewest unreadable rows, then the
    most columns in rows of equal width. A file with one column gets a comma.
    """
    rows, _ = _all_rows(reader(lines, dialect, is_strict=False))
    _, broken = _all_rows(reader(lines, dialect))
    # A name that still has quotes of the other kind is half a name.
    bare = ([cell for cell in row if not cell.startswith(("'", '"'))] for row in rows)
    named = max((columns.named(row, mapping) for row in bare), default=0)
    [(width, alike)] = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    return (named, -broken, alike * (width - 1))


def _all_rows(cells: Reader) -> tuple[list[list[str]], int]:
    """Return the readable rows, and the number of unreadable ones."""
    rows: list[list[str]] = []
    broken = 0
    while True:
        try:
            rows.extend(cells)
        except csv.Error:
            broken += 1
        else:
            return rows, broken


def write_csv(
    file: TextIO, source: Source, rows: Iterable[tuple[list[str], dict[str, str]]]
) -> None:
    """Write the preamble, the operator's header and cells, and `OWN_COLUMNS`, guarded."""
    file.write(source.preamble)
    table = csv.writer(
        file,
        delimiter=source.delimiter,
        quotechar=source.quote,
        escapechar=source.escape or None,
        doublequote=not source.escape,
        lineterminator="\r\n",
    )
    width = len(source.header)
    kept = [at for at, name in enumerate(source.header) if name.strip() not in OWN_COLUMNS]
    if source.has_header:
        table.writerow([*(source.header[at] for at in kept), *OWN_COLUMNS])
    for cells, own in rows:
        padded = cells + [""] * (width - len(cells))
        # Cells beyond the header stay beyond it.
        table.writerow([*(padded[at] for at in kept), *map(safe, own.values()), *padded[width:]])

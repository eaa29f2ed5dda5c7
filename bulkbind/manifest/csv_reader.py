"""CSV and its relatives: the dialect is found, line breaks in cells are kept, lines are counted."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, deque
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.bounds import HEADER_WITHIN, LONGEST_LINE
from bulkbind.manifest.lines import BLOCK, blocks, open_text
from bulkbind.manifest.rules import printable
from bulkbind.manifest.table import BATCH, HeaderRow, Table, find_header
from bulkbind.model import CheckedRow, Problem, Source

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bulkbind.settings import ManifestSettings

DELIMITERS = ",;\t|"
_QUOTING = "row: quotes are closed, and doubled inside a quoted cell"
_SEP = re.compile(r"sep=([^\s\w\"'])\s*$", re.ASCII | re.IGNORECASE | re.MULTILINE)
"""A first line by which Excel is told the delimiter."""
_MOST_BLOCKS = 2 * LONGEST_LINE // BLOCK
_BREAK = re.compile(r"\r\n|\r|\n")
_SINGLE_QUOTED = re.compile(rf"(?:^|[{DELIMITERS}])'[^'\n]*'(?=[{DELIMITERS}]|\s*$)", re.MULTILINE)


class Dialect(NamedTuple):
    """How the cells of a line are told apart."""

    delimiter: str
    quote: str = '"'
    escape: str = ""
    """What stands before a quote inside quotes; empty: the quote is doubled."""


def reader(lines: Iterable[str], dialect: Dialect, *, is_strict: bool = True) -> Reader:
    """Return Python's reader for a dialect."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        escapechar=dialect.escape or None,
        doublequote=not dialect.escape,
        strict=is_strict,
    )


class CsvManifest:
    """One CSV file, open for reading once.

    Attributes:
        source: Name, encoding, dialect and header, so that rows can be written back.
        notices: What the operator should know; complete once the rows have been read.
    """

    def __init__(self, path: Path, source: Source, head: str, settings: ManifestSettings) -> None:
        self._path = path
        self.notices: list[str] = []
        dialect = find_dialect(head, settings.columns, settings.skip_rows or 0)
        self._dialect = dialect
        self.source = source  # what is known of it so far
        lines, header = self._start(settings)
        self._first_line = header.line
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

    def _start(self, settings: ManifestSettings) -> tuple[list[str], HeaderRow]:
        """Return the lines before the header, and the header."""
        name = self.source.name
        with open_text(self._path, self.source) as file:
            lines = chain.from_iterable(blocks(file, self.source))
            skipped = list(islice(lines, settings.skip_rows or 0))
            if settings.header:
                return skipped, HeaderRow(len(skipped), list(settings.header))
            seen: list[str] = []
            rows, error = _first_rows(_remembered(lines, seen), self._dialect, len(skipped))
        header = find_header(rows, settings)
        if header is None:
            if error is not None:
                raise ManifestError(f"{name}: the header cannot be read: {error}") from error
            raise ManifestError(
                f"{name} is empty", hint="the first line names the columns, e.g. machine_code"
            )
        return (skipped + seen)[: header.line - 1], header

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its line; blank rows are passed over and counted in a notice.

        Raises: ManifestError where the rest of the file cannot be told apart (a quote that is
            never closed, a broken encoding).
        """
        with open_text(self._path, self.source) as file:
            before = self._first_line - 1 if self.source.has_header else self._first_line
            feed = _Feed(blocks(file, self.source), self.source.name)
            cells = reader(feed.lines(before), self._dialect)
            if self.source.has_header:
                next(cells)
            line = before + cells.line_num + 1
            while True:
                batch: list[list[str]] = []
                feed.next_batch(batch, line)
                stop = _read(cells, batch)
                after = before + cells.line_num + 1
                if stop is None and after - line == len(batch):
                    lines: Sequence[int] = range(line, after)
                    line = after
                else:
                    lines, line = _lines_of(batch, line)
                if batch:
                    yield from self._table.rows(batch, lines)
                if isinstance(stop, csv.Error):
                    yield self._unreadable(stop, line, feed.text(line, after))
                    line = after
                elif stop is not None:
                    raise stop
                elif not batch:
                    break
        self.notices += self._table.notices()

    def _unreadable(self, error: csv.Error, first: int, text: str) -> CheckedRow:
        message = str(error)
        last = first + len(_BREAK.findall(text.rstrip("\r\n")))
        if "unexpected end of data" in message or ("field larger" in message and last > first):
            raise ManifestError(
                f"{self.source.name}:{first}: a quote opened here is never closed; the lines up to "
                f"{last} cannot be told apart",
                hint="close the quote, or double it if it belongs to the cell",
            )
        raw = text.rstrip("\r\n")
        problem = Problem("row", "row", printable(raw), _QUOTING, message)
        return CheckedRow(first, [raw], None, (None, None, None, None), (problem,))


class _Feed:
    """The lines of a file for `csv.reader`, of which the last ones are remembered."""

    def __init__(self, source: Iterator[list[str]], name: str) -> None:
        self._blocks = source
        self._name = name
        self._kept: list[tuple[int, list[str]]] = []
        self._batch: list[list[str]] = []
        self._batch_line = 0
        self._reading = (0, 0)
        """Rows there were when a block was last asked for, and blocks read since."""

    def lines(self, skipped: int) -> Iterator[str]:
        """Return the lines behind those that are skipped."""
        lines = chain.from_iterable(self._remembered())
        deque(islice(lines, skipped), maxlen=0)
        return lines

    def next_batch(self, batch: list[list[str]], line: int) -> None:
        """Forget the lines before *line*; rows go into *batch* from now on."""
        self._batch = batch
        self._batch_line = line
        self._reading = (0, 0)
        while len(self._kept) > 1 and self._kept[1][0] <= line:
            del self._kept[0]

    def text(self, first: int, end: int) -> str:
        """Return the lines from *first* up to *end*, as far as they are remembered."""
        return "".join(
            text
            for start, lines in self._kept
            for text in lines[max(0, first - start) : max(0, end - start)]
        )

    def _remembered(self) -> Iterator[list[str]]:
        line = 1
        for lines in self._blocks:
            self._bound()
            self._kept.append((line, lines))
            line += len(lines)
            yield lines

    def _bound(self) -> None:
        """Refuse a row that grows without end over many lines."""
        rows, read = self._reading
        read = read + 1 if rows == len(self._batch) else 1
        self._reading = (len(self._batch), read)
        if read > _MOST_BLOCKS:
            raise ManifestError(
                f"{self._name}:{self._batch_line}: from here on, a row of more than "
                f"{LONGEST_LINE:,} characters",
                hint="is a quote never closed?",
            )


def _read(cells: Reader, batch: list[list[str]]) -> csv.Error | ManifestError | None:
    """Read some rows into *batch*; return what broke the reading off, if anything did."""
    try:
        batch.extend(islice(cells, BATCH))  # what came before an error is kept
    except (csv.Error, ManifestError) as error:
        return error
    return None


def _lines_of(batch: list[list[str]], line: int) -> tuple[Sequence[int], int]:
    """Return where each row begins, counting line breaks in cells, and the line behind them."""
    lines = []
    for cells in batch:
        lines.append(line)
        line += 1 + sum(len(_BREAK.findall(cell)) for cell in cells if "\n" in cell or "\r" in cell)
    return lines, line


def _remembered(lines: Iterable[str], seen: list[str]) -> Iterator[str]:
    for text in lines:
        seen.append(text)
        yield text


def _first_rows(
    lines: Iterator[str], dialect: Dialect, skipped: int
) -> tuple[list[HeaderRow], csv.Error | None]:
    """Return the first rows, and why one of them could not be read."""
    cells = reader(lines, dialect)
    rows: list[HeaderRow] = []
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
        rows.append(HeaderRow(line, row))
    return rows, failed


def find_dialect(head: str, mapping: Mapping[str, str], skipped: int = 0) -> Dialect:
    """Return delimiter, quote and escape of a file that begins with *head*.

    The first *skipped* lines say nothing of them. Single quotes are quotes only where lines make
    more sense that way.
    """
    text = islice(io.StringIO(head, newline=""), skipped, None)
    lines = [line for line in text if line.strip()][:HEADER_WITHIN]
    told = _SEP.match(head)
    delimiters = told[1] if told else DELIMITERS
    dialects = [Dialect(delimiter) for delimiter in delimiters]
    if '\\"' in head and '""' not in head:
        dialects = [Dialect(delimiter, '"', "\\") for delimiter in delimiters]
    if '"' not in head and _SINGLE_QUOTED.search(head):
        dialects += [Dialect(delimiter, "'") for delimiter in delimiters]
    return max(dialects, key=lambda dialect: _sense(lines, dialect, mapping))


def _sense(lines: Sequence[str], dialect: Dialect, mapping: Mapping[str, str]) -> tuple[int, int]:
    """Return how much sense lines make under a dialect.

    Best is the one under which most cells of a row name a field; then the one with the most
    columns in rows of the same width. A file of one column has a comma.
    """
    try:
        rows = list(reader(lines, dialect, is_strict=False))
    except csv.Error:
        return (0, 0)
    named = max((columns.named(row, mapping) for row in rows), default=0)
    [(width, alike)] = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    return (named, alike * (width - 1))

"""CSV and its variants: finds the header, keeps line breaks in cells, counts lines.

Rows are written back as they were written.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from contextlib import suppress
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, NamedTuple, TextIO

from msgspec.structs import replace

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.csv_dialect import DELIMITERS, Dialect, all_rows, find_dialect, reader
from bulkbind.manifest.formulas import safe
from bulkbind.manifest.late_quotes import row_within
from bulkbind.manifest.row_widths import ShortRows, fitted
from bulkbind.manifest.rules import printable
from bulkbind.manifest.table import (
    BATCH,
    Table,
    TableRow,
    find_header,
    has_own,
    is_blamed,
    is_outside,
    own_at,
)
from bulkbind.manifest.text import (
    HEAD_BYTES,
    HEADER_WITHIN,
    LONGEST_CELL,
    LONGEST_LINE,
    blocks,
    lines_of,
    open_text,
)
from bulkbind.model import COMES_BACK, OWN_COLUMNS, CheckedRow, GoodRows, Problem, Source
from bulkbind.model.wording import counted

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from bulkbind.manifest.opened import ManifestFile
    from bulkbind.settings import ManifestSettings

_QUOTING = "row: quotes are closed, and doubled inside a quoted cell"
_INCOMPLETE = "unexpected end of data"
"""Message of Python's reader for a row that continues after the last line."""
_OTHER_BREAK = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")
"""What ends a line for some programs, and none of a CSV file."""
_BREAK = re.compile(r"\r\n|\r|\n")
_MOST_BLANK = 10_000
"""Lines without a word that may precede the header."""
_BY_BLANKS = re.compile(r"\s*([-=~\u2500\u2550])\1+(?:[ \t]+\1{2,})+\s*")
"""The line below the header of a table whose columns are divided by blanks."""
_UNDECODED = re.compile("[\udc80-\udcff]")
_EXPANDED = re.compile(r"-\[ RECORD 1 \][-+]*\s*|\*{5,} 1\. row \*{5,}\s*")
"""The first line of records printed one below the other, by psql and mysql."""


class _Beginning(NamedTuple):
    """The lines up to the header."""

    lines: list[str]
    """Before the header."""
    header: TableRow
    text: str
    """The header as written; empty if the file has none."""


class _File:
    """The text of a file, up to where it cannot be read."""

    def __init__(self, manifest: ManifestFile, source: Source) -> None:
        self._manifest = manifest
        self._source = source

    def texts(self) -> Iterator[str]:
        with suppress(ManifestError), open_text(self._manifest, self._source) as file:
            yield from iter(file.read, "")

    def blocks(self) -> Iterator[str]:
        with suppress(ManifestError), open_text(self._manifest, self._source) as file:
            yield from blocks(file, self._source.name)


class CsvManifest:
    """One CSV file, open for reading once.

    Attributes:
        source: Name, encoding, dialect and header, so that rows can be written back.
        notices: For the operator; complete once the rows have been read.
    """

    def __init__(
        self, manifest: ManifestFile, source: Source, head: str, settings: ManifestSettings
    ) -> None:
        self._manifest = manifest
        self.notices: list[str] = []
        self.source = source  # preliminary, for _start
        is_long = len(head) >= HEAD_BYTES // 4  # a character has four bytes at most
        dialect = find_dialect(
            head,
            settings.columns,
            settings.skip_rows or 0,
            len(settings.header),
            _File(manifest, source) if is_long else None,
        )
        self._dialect = dialect
        lines, header, text = self._start(settings)
        self._first_line = _line_numbers([header.cells], header.line)[1]
        first = lines_of(head)[self._first_line - 1 : -1 if is_long else None]
        rows, _ = all_rows(reader(first, dialect))
        cells, short = _columns(header.cells, rows, settings, dialect.delimiter)
        broken = _BREAK.search(text or head)
        self.source = Source(
            source.name,
            "csv",
            source.encoding,
            source.bom,
            dialect.delimiter,
            tuple(cells),
            has_header=not settings.header,
            preamble="".join(lines),
            quote=dialect.quote,
            escape=dialect.escape,
            header_text=_refitted(text.rstrip("\r\n"), len(cells) - len(header.cells), dialect),
            line_end=broken[0] if broken else "\r\n",
        )
        if lines and settings.skip_rows is None and any(map(str.strip, lines)):
            self.notices.append(
                f"{source.name}: {counted(len(lines), 'lines')} before the header passed over"
            )
        if len(cells) > len(header.cells):
            self.notices.append(
                f"{source.name}: every row ends with {len(cells) - len(header.cells)} empty cells "
                "more than the header"
            )
        self._table = Table(self.source, header.line, settings, short=short)
        self.source = dataclasses.replace(self.source, fields=self._table.fields)
        self._uniform = _Uniform(dialect.delimiter, len(cells))
        self._is_good = True

    def _start(self, settings: ManifestSettings) -> _Beginning:
        """Return the lines up to the header."""
        name = self.source.name
        with open_text(self._manifest, self.source) as file:
            lines = chain.from_iterable(map(lines_of, blocks(file, name)))
            skipped = list(islice(lines, settings.skip_rows or 0))
            if settings.header:
                return _Beginning(skipped, TableRow(len(skipped), list(settings.header)), "")
            seen: list[str] = []
            rows, faults = _first_rows(_recording(lines, seen), self._dialect, len(skipped))
        header = find_header(rows, settings)
        seen = skipped + seen
        _refuse_misread(self.source, header, faults, seen, settings)
        if header is None:
            if len(seen) > len(skipped) + HEADER_WITHIN:
                raise ManifestError(
                    f"{name}: no header in the first {counted(len(seen), 'lines')}",
                    hint="--skip-rows N says where it is, --columns that there is none",
                )
            raise ManifestError(
                f"{name} is empty", hint="the first line names the columns, e.g. machine_code"
            )
        after = _line_numbers([header.cells], header.line)[1]
        text = "".join(seen[header.line - 1 : after - 1])
        return _Beginning(seen[: header.line - 1], header, text)

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row with its line; blank rows are skipped and counted in a notice.

        Raises: ManifestError where the rest of the file cannot be parsed (a quote that is never
            closed, a broken encoding).
        """
        return chain.from_iterable(self.batches())  # avoids a generator frame per row

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a row has in the columns that the operator asks for."""
        return self._table.asked(row)

    def batches(self) -> Iterator[Iterable[CheckedRow]]:
        """Yield the same in parts, many of which are `GoodRows`. Raises: ManifestError."""
        with open_text(self._manifest, self.source) as file:
            line = self._first_line
            rest = ""
            for text in _skip_lines(blocks(file, self.source.name), line - 1):
                block = rest + text
                rest = ""
                names = self._table.may_name(block)
                if self._is_plain(block):
                    line = yield from self._split(block, line, has_names=names)
                else:
                    rest, line = yield from self._read(block, line, has_names=names)
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

    def _split(
        self, block: str, line: int, *, has_names: bool
    ) -> Generator[Iterable[CheckedRow], None, int]:
        """Yield the rows of a plain block; return the line after it."""
        delimiter = self._dialect.delimiter
        # Where the block before had a broken row, this one may as well.
        if self._is_good and (by_column := self._uniform.by_column(block)):
            after = line + len(by_column[0])
            good = self._table.good(by_column, range(line, after), has_names=has_names)
            if good is not None:
                yield good
                return after
        self._is_good = True
        for texts in _batched(lines_of(block, keepends=False)):
            cells = [text.split(delimiter) for text in texts]
            rows = self._table.rows(cells, range(line, line + len(cells)), has_names=has_names)
            self._is_good &= isinstance(rows, GoodRows)
            yield rows
            line += len(cells)
        return line

    def _read(
        self, block: str, first: int, *, has_names: bool
    ) -> Generator[Iterable[CheckedRow], None, tuple[str, int]]:
        """Yield the rows of a block; return the incomplete row at its end, and its line."""
        texts = lines_of(block)
        cells = reader(texts, self._dialect)
        line = first
        has_others = _OTHER_BREAK.search(block) is not None
        while True:
            batch, stop = _read_batch(cells)
            if not batch and stop is None:
                return "", line
            after = first + cells.line_num
            may_hold_rows = has_others
            if stop is None and after - line == len(batch):
                lines: Sequence[int] = range(line, after)
                written = texts[line - first : after - first]
                line = after
            else:
                lines, line = _line_numbers(batch, line)
                ends = pairwise((*lines, line))
                written = ["".join(texts[begin - first : end - first]) for begin, end in ends]
                may_hold_rows = True
            within = self._rows_within(batch, lines, written) if may_hold_rows else {}
            rows = self._table.rows(batch, lines, texts=written, has_names=has_names)
            yield [_holding(row, within.get(row.line)) for row in rows] if within else rows
            if stop is not None:
                text = "".join(texts[line - first : after - first])
                if _INCOMPLETE in str(stop):
                    return text, line
                yield (self._unreadable(stop, line, text),)
                line = after

    def _rows_within(
        self, batch: list[list[str]], lines: Sequence[int], written: Sequence[str]
    ) -> dict[int, str]:
        """Return by line which records have taken in a row, and that row's line."""
        return {
            line: inner
            for line, cells, text in zip(lines, batch, written, strict=True)
            if len(text.splitlines()) > 1
            and (inner := row_within(text, cells, self._table.keys, self._dialect))
        }

    def _check_length(self, rest: str, line: int) -> None:
        if len(rest) > LONGEST_LINE:
            raise ManifestError(
                f"{self.source.name}:{line}: from here on, a row of more than "
                f"{LONGEST_LINE:,} characters",
                hint="is a quote never closed?",
            )

    def _unreadable(self, error: csv.Error, first: int, text: str) -> CheckedRow:
        kept = text.rstrip("\r\n")
        raw = _own_tail(self.source).sub("", kept)
        last = first + _count_breaks(text)
        if "field larger" in str(error) and last > first:
            raise self._unclosed(first, last)
        problem = Problem("row", "row", printable(raw), _QUOTING, str(error))
        return CheckedRow(first, [raw], (None, None, None, None), (problem,), text=kept)

    def _unclosed(self, first: int, last: int) -> ManifestError:
        return ManifestError(
            f"{self.source.name}:{first}: a quote opened here is never closed; the lines up to "
            f"{last} cannot be told apart",
            hint="close the quote, or double it if it belongs to the cell",
        )


def _holding(row: CheckedRow, inner: str | None) -> CheckedRow:
    """Return a row as broken if a cell of it holds another row."""
    if inner is None:
        return row
    why = f"a cell holds what reads as a row: {printable(inner)}"
    problem = Problem("row", "row", printable(row.text.rstrip("\r\n")), _QUOTING, why)
    return replace(row, problems=(problem,))


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


class _Uniform:
    """Splits plain blocks whose lines all have the same number of cells, twice as fast as others.

    What is left of a block without everything but delimiters and line ends shows their number.
    """

    def __init__(self, delimiter: str, width: int) -> None:
        """*width*: how many cells each line must have."""
        self._delimiter = delimiter
        self._width = width
        self._line = (delimiter * (width - 1)).encode() + b"\n"
        kept = f"{delimiter}\r\n".encode()
        self._others = bytes(byte for byte in range(256) if byte not in kept)
        self._is_possible = delimiter.isascii()  # others share bytes with other characters

    def by_column(self, block: str) -> list[list[str]]:
        """Return the cells by column; none if a line has more or fewer than it must."""
        if not self._is_possible:
            return []
        lines = lines_of(block, keepends=False)
        shape = block.encode(errors="surrogatepass").translate(None, self._others)
        shape = shape.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if shape.removesuffix(b"\n") != (self._line * len(lines))[:-1]:
            return []
        cells = self._delimiter.join(lines).split(self._delimiter)
        return [cells[at :: self._width] for at in range(self._width)]


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
) -> tuple[list[TableRow], dict[int, csv.Error]]:
    """Return the first rows that are not blank, and the errors in reading others, by line."""
    cells = reader(lines, dialect)
    rows: list[TableRow] = []
    faults: dict[int, csv.Error] = {}
    while len(rows) + len(faults) < HEADER_WITHIN and cells.line_num < _MOST_BLANK:
        line = skipped + cells.line_num + 1
        try:
            row = next(cells, None)
        except csv.Error as error:
            faults[line] = error
            continue
        if row is None:
            break
        if any(map(str.strip, row)):
            rows.append(TableRow(line, row))
    return rows, faults


def _refuse_misread(
    source: Source,
    header: TableRow | None,
    faults: dict[int, csv.Error],
    seen: Sequence[str],
    settings: ManifestSettings,
) -> None:
    """Refuse a file whose header would be taken from a wrong line, or names nothing for a reason.

    *seen*: the first lines of the file.
    """
    name, mapping = source.name, settings.columns
    if any(map(_EXPANDED.fullmatch, seen)):
        raise _printed(name)
    if header is not None and columns.named(header.cells, mapping):
        return
    is_known = columns.position_of(mapping.get("machine_code", "")) is not None
    if not is_known and "machine_code" not in settings.constants:
        _refuse_undecoded(name, source.encoding, seen)
    for line, error in faults.items():
        parts = re.split(f"[{re.escape(DELIMITERS)}]", seen[line - 1])
        names = columns.named([part.strip(" \t\r\n\"'") for part in parts], mapping)
        if names or header is None or line < header.line:
            raise ManifestError(
                f"{name}:{line}: the header cannot be read: {error}",
                hint="close every quote, and double one that belongs to a cell",
            ) from error
    if header is None:
        return
    if len(header.cells) == 1 and seen[header.line - 1].lstrip().startswith(('"', "'")):
        parts = re.split(f"[{re.escape(DELIMITERS)}]", header.cells[0])
        if columns.named([part.strip("\"' ") for part in parts], mapping) or len(parts) > 1:
            raise ManifestError(
                f"{name}:{header.line}: each line stands in quotes as a whole",
                hint="take off the first and the last quote of every line, and write doubled ones "
                "once",
            )
    if any(_BY_BLANKS.fullmatch(line) or "\u2502" in line for line in seen):
        raise _printed(name)


def _printed(name: str) -> ManifestError:
    return ManifestError(
        f"{name}: this is a table printed for a screen, its columns divided by blanks or lines",
        hint="export it as CSV (psql: --csv; mysql: --batch; sqlplus: set markup csv on; "
        "sqlcmd: -s,)",
    )


def _refuse_undecoded(name: str, encoding: str, lines: Sequence[str]) -> None:
    """Refuse lines without a header that have bytes which the encoding does not know."""
    line = next((n for n, line in enumerate(lines, 1) if _UNDECODED.search(line)), None)
    if line is not None:
        raise ManifestError(
            f"{name}:{line}: no header is found, and the text is not {encoding}",
            hint="say which encoding it has with --encoding, for instance cp1252, gb18030 or "
            "shift_jis, or save it as UTF-8",
        )


def _columns(
    header: list[str], rows: Sequence[list[str]], settings: ManifestSettings, delimiter: str
) -> tuple[list[str], ShortRows]:
    """Return the cells of the header, as many as rows have, and what to make of short rows.

    *rows*: the first ones. Where a report has added its columns, it has settled both.
    """
    rows = [row for row in rows if any(map(str.strip, row)) and not is_outside(row, delimiter)]
    width = len(header)
    if has_own(header):
        return header, ShortRows(width, (), is_settled=True)
    if ours := [row for row in rows if own_at(row, width, has_header=False)]:
        good = [row[: -len(OWN_COLUMNS)] for row in ours if not is_blamed(row[-1])]
        width = max(width, fitted(header, good))
        return header + [""] * (width - len(header)), ShortRows(width, (), is_settled=True)
    by_position = map(columns.position_of, settings.columns.values())
    least = max((at + 1 for at in by_position if at is not None), default=0)
    width = max(fitted(header, rows), min(least, len(header)))
    # A name between names may have lost its column, and the cells of short rows stand elsewhere.
    names = [name.strip() for name in header]
    inner = " ".join(name or "\0" for name in names).strip(" \0")
    shorts = ShortRows(width, rows, is_settled="\0" in inner)
    return (header + [""] * (width - len(header)))[:width], shorts


def _refitted(text: str, more: int, dialect: Dialect) -> str:
    """Return the text of a header with empty cells more at its end, or fewer if negative."""
    if not text or more >= 0:
        return text + dialect.delimiter * more * bool(text)
    cell = rf"{re.escape(dialect.delimiter)}\s*(?:{dialect.quote}\s*{dialect.quote})?\s*"
    return re.sub(rf"(?:{cell}){{{-more}}}$", "", text)


def _own_tail(source: Source) -> re.Pattern[str]:
    """Return a pattern for the cells that a report added to a row, at the end of its text."""
    delimiter, quote = re.escape(source.delimiter), source.quote
    within = rf"[^{quote}\\]|\\.|{quote}{quote}" if source.escape else f"[^{quote}]|{quote}{quote}"
    return re.compile(
        rf"{delimiter} *{quote}?(?:{'|'.join((*COMES_BACK, OWN_COLUMNS[0]))}){quote}? *"
        rf"{delimiter} *(?:{quote}(?>(?:{within})*){quote}|[^{quote}{delimiter}\r\n]*) *\Z",
        re.DOTALL,
    )


def write_csv(
    file: TextIO, source: Source, rows: Iterable[tuple[list[str] | str, dict[str, str]]]
) -> None:
    """Write the preamble, header and rows as they were written, and `OWN_COLUMNS`, guarded.

    Rows given as cells are written anew, those given as text are not touched.
    """
    writer = _Writer(file, source)
    file.write(source.preamble)
    if source.has_header:
        writer.write(source.header_text or list(source.header), dict(zip(OWN_COLUMNS, OWN_COLUMNS)))  # noqa: B905  # the same
    for cells, own in rows:
        writer.write(cells, {name: safe(text) for name, text in own.items()})


class _Writer:
    """Writes the rows of one file with what `OWN_COLUMNS` say of them."""

    def __init__(self, file: TextIO, source: Source) -> None:
        self._file = file
        self._source = source
        self._kept = [n for n, name in enumerate(source.header) if name.strip() not in OWN_COLUMNS]
        self._own_tail = _own_tail(source)
        self._has_own = len(self._kept) < len(source.header)
        self._dialect = Dialect(source.delimiter, source.quote, source.escape)

    def write(self, cells: list[str] | str, own: dict[str, str]) -> None:
        """Write one row, without what an earlier report said of it."""
        width = len(self._source.header)
        if isinstance(cells, list) and len(cells) <= width and not self._has_own:
            cells = self._joined(cells + [""] * (width - len(cells)))
        if isinstance(cells, str):
            whole = cells.rstrip("\r\n")
            text = self._own_tail.sub("", whole)
            if not self._has_own or text != whole:
                # Single quotes are recognized by those of our own cells.
                is_single = self._source.quote == "'"
                added = self._joined(list(own.values()), quotes_all=is_single)
                self._file.write(text + self._source.delimiter + added + self._source.line_end)
                return
            cells = next(reader(lines_of(cells), self._dialect, is_strict=False))
        padded = cells + [""] * (width - len(cells))
        # Cells beyond the header stay beyond it.
        kept = [*(padded[at] for at in self._kept), *own.values(), *padded[width:]]
        self._file.write(self._joined(kept) + self._source.line_end)

    def _joined(self, cells: list[str], *, quotes_all: bool = False) -> str:
        text = io.StringIO()
        csv.writer(
            text,
            delimiter=self._source.delimiter,
            quotechar=self._source.quote,
            escapechar=self._source.escape or None,
            doublequote=not self._source.escape,
            quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL,
        ).writerow(cells)
        return text.getvalue().removesuffix("\r\n")

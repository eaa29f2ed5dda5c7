"""How the lines of a CSV file are split into cells: delimiter, quotes, escapes, blanks.

The delimiter is found in the beginning of a file. Quotes are decided over all of it, where anything
in it speaks for others than RFC 4180: a file that is valid as such is read as such.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from itertools import chain, dropwhile, islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulkbind.manifest import columns
from bulkbind.manifest.text import HEADER_WITHIN, lines_of
from bulkbind.model import COMES_BACK, OWN_COLUMNS

if TYPE_CHECKING:
    from _csv import Reader
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

DELIMITERS = ",;\t|"
_SEP = re.compile(r"sep=([^\s\w\"'])[ \t]*(?:[\r\n]|\Z)", re.ASCII | re.IGNORECASE)
"""A first line that states the delimiter for Excel."""
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?", re.ASCII)
_NEARLY_ALL = 0.75
_OWN = "|".join((OWN_COLUMNS[0], *COMES_BACK))
"""What a report adds to rows, in single quotes where those are the file's; a reason follows."""


class Dialect(NamedTuple):
    """How a line is split into cells."""

    delimiter: str
    quote: str = '"'
    escape: str = ""
    """The escape character before a quote inside quotes; empty if quotes are only doubled."""
    is_spaced: bool = False
    """Whether blanks may precede a quote."""


class Whole(Protocol):
    """A file that can be read again, up to where it cannot be decoded."""

    def texts(self) -> Iterable[str]:
        """Yield its text in parts that may end anywhere."""
        ...

    def blocks(self) -> Iterable[str]:
        """Yield its text in parts of whole lines."""
        ...


def reader(lines: Iterable[str], dialect: Dialect, *, is_strict: bool = True) -> Reader:
    """Return Python's reader for a dialect.

    An escape character stays text where it stands before anything but a quote or itself.
    """
    if dialect.escape:
        lines = (_ESCAPED.sub(_only_before_quotes, line) for line in lines)
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        escapechar=dialect.escape or None,
        skipinitialspace=dialect.is_spaced,
        strict=is_strict,
    )


def _only_before_quotes(found: re.Match[str]) -> str:
    return found[0] if found[1] and found[1] in "\\\"'" else f"\\\\{found[1]}"


def find_dialect(
    head: str,
    mapping: Mapping[str, str],
    skipped: int = 0,
    width: int = 0,
    whole: Whole | None = None,
) -> Dialect:
    """Return the dialect of a file that begins with *head*, ignoring its first *skipped* lines.

    *width*: the number of columns, if it is given; else 0. *whole*: the file, if it is longer than
    *head*; it is parsed only if it contains what another dialect would make a quote.

    Escapes and single quotes are believed only where doubled quotes fail: where fewer rows are
    unreadable, or of another width than most, without them. Single quotes also count where they
    enclose everything but numbers.
    """
    text = islice(io.StringIO(head, newline=""), skipped, None)
    lines = [line for line in text if line.strip()][:HEADER_WITHIN]
    stated = _SEP.match(head)
    delimiters = stated[1] if stated else DELIMITERS
    quotes = "\"'" if "'" in head else '"'
    dialects = [
        Dialect(delimiter, quote, is_spaced=True) for quote in quotes for delimiter in delimiters
    ]
    scores = {dialect: _score(lines, dialect, mapping, width) for dialect in dialects}
    best = max(scores, key=lambda dialect: scores[dialect])
    plain, single = best._replace(quote='"'), best._replace(quote="'")
    blocks = whole.blocks if whole else (lambda: (head,))
    found = _Found(best.delimiter)
    found.look(head, is_head=True)
    for block in whole.texts() if whole else ():
        found.look(block, is_head=False)
    at = -1 if width else _header_at(lines, best, mapping)
    below = lines[at + 1 :]
    delimiter = re.escape(best.delimiter)
    ours = re.search(rf"{delimiter} *(['\"]?)(?:{_OWN})\1 *{delimiter}", head)
    if ours:
        is_single = ours[1] == "'"
        found.has_single = False
    else:
        is_single = single in scores and (
            scores[single][0] > scores[plain][0] or _encloses_all(below, single)
        )

    def table() -> Iterator[str]:
        rows = islice(chain.from_iterable(map(lines_of, blocks())), skipped, None)
        return rows if width else dropwhile(lambda line: line not in lines[at : at + 1], rows)

    return _quoted(found, table, width, is_single=is_single)


def _header_at(lines: Sequence[str], dialect: Dialect, mapping: Mapping[str, str]) -> int:
    """Return the index of the line that names most fields; of the first one if none does."""
    rows = (next(reader([line], dialect, is_strict=False), []) for line in lines)
    named = [columns.named(row, mapping) for row in rows]
    return named.index(max(named)) if named else 0


class _Found:
    """What a text contains that may speak for another dialect than RFC 4180."""

    def __init__(self, delimiter: str) -> None:
        start = rf"(?:\A|[\r\n]|{re.escape(delimiter)})"
        end = rf"\s*(?:{re.escape(delimiter)}|[\r\n]|\Z)"
        cell = "(?>{0}(?:[^{0}]|{0}{0})*){0}"
        # What stands in a cell without blanks is passed over, as it may look like another one.
        self._spaced = {
            quote: re.compile(f"{start}(?:{inner}(?={end})|( +{inner}){end})")
            for quote, inner in ((quote, cell.format(quote)) for quote in "\"'")
        }
        self._single = re.compile(f"{start} *{cell.format(chr(39))}{end}")
        self._marks = [f"{before}'" for before in (delimiter, " ", "\n", "\r")]
        self.delimiter = delimiter
        self.has_escape = self.has_single = False
        self.is_spaced = dict.fromkeys(self._spaced, False)

    def look(self, block: str, *, is_head: bool) -> None:
        """Note what a block of text contains; blanks before quotes in the head alone."""
        if is_head:
            for quote, spaced in self._spaced.items():
                self.is_spaced[quote] = any(found[1] for found in spaced.finditer(block))
        if not self.has_escape and "\\" in block:  # finds one character much faster than two
            self.has_escape = '\\"' in block or block.endswith("\\")
        if (
            not self.has_single
            and "'" in block
            and (block[0] == "'" or any(mark in block for mark in self._marks))
        ):
            self.has_single = self._single.search(block) is not None


def _quoted(
    found: _Found, lines: Callable[[], Iterator[str]], width: int, *, is_single: bool
) -> Dialect:
    """Return the dialect with the quotes of the whole file.

    *lines*: of its table; *width*: its number of columns, 0 if unknown; *is_single*: whether single
    quotes are certain.
    """
    plain = Dialect(found.delimiter, is_spaced=found.is_spaced['"'])
    single = Dialect(found.delimiter, "'", is_spaced=found.is_spaced["'"])
    if is_single:
        return single
    others = [plain._replace(escape="\\")] if found.has_escape else []
    if found.has_single:
        others.append(single)
    if not others:
        return plain
    parsed = {dialect: _parsed(lines(), dialect, width) for dialect in (plain, *others)}
    if not parsed[plain].spoilt:
        return plain
    return min(parsed, key=lambda dialect: parsed[dialect].defects)  # the first one of equals


class _Parsed(NamedTuple):
    """What came of a text in one dialect."""

    spoilt: int
    """Lines of rows that are unreadable, or not as wide as most."""
    alike: int
    """The other rows. Fewer of them are worse, as a wrong quote makes one row of many."""
    unreadable: int
    doubtful: int
    """Rows with a cell that only a writer of the other quotes leaves: `'O''Neil'`, and lines in
    cells with delimiters, into which a wrong quote turns whole rows."""

    @property
    def defects(self) -> tuple[int, int]:
        """Compared with another dialect's: more is worse."""
        return self.spoilt + self.doubtful - self.alike, self.unreadable


def _parsed(texts: Iterable[str], dialect: Dialect, width: int) -> _Parsed:
    """Return how well a text parses in a dialect. *width*: of its rows, 0 if unknown."""
    rows: Counter[tuple[int, bool]] = Counter()  # by cells, and whether the last one is empty
    lines_of_rows: Counter[tuple[int, bool]] = Counter()
    cells = reader(texts, dialect)
    other = '"' if dialect.quote == "'" else "'"
    spoilt = unreadable = doubtful = before = 0
    while True:
        try:
            for row in filter(None, cells):
                shape = (len(row), not row[-1].strip())
                rows[shape] += 1
                lines = cells.line_num - before
                lines_of_rows[shape] += lines
                before = cells.line_num
                if lines > 1:
                    within = (cell for cell in row if dialect.delimiter in cell)
                    doubtful += sum(cell.count("\n") or cell.count("\r") for cell in within)
                doubtful += any(_is_quoted(cell, other) for cell in row if other in cell)
        except csv.Error:
            unreadable += 1
            spoilt += cells.line_num - before
            before = cells.line_num
        else:
            break
    if not width:
        widths: Counter[int] = Counter()
        for (count, _), number in rows.items():
            widths[count] += number
        width = widths.most_common(1)[0][0] if widths else 0
    alike = {(width, True), (width, False), (width + 1, True)}  # or with a delimiter at the end
    spoilt += sum(number for shape, number in lines_of_rows.items() if shape not in alike)
    return _Parsed(spoilt, sum(rows[shape] for shape in alike), unreadable, doubtful)


def _is_quoted(cell: str, quote: str) -> bool:
    """Return whether a cell is in quotes, with some doubled inside."""
    text = cell.strip()
    inner = text[1:-1]
    doubled = inner.strip(quote) if quote == "'" else inner  # only quotes may be a mark
    return (
        text.startswith(quote)
        and text.endswith(quote)
        and quote * 2 in doubled
        and quote not in inner.replace(quote * 2, "")
    )


def _encloses_all(lines: Sequence[str], single: Dialect) -> bool:
    """Return whether single quotes enclose all cells but numbers, in nearly all rows.

    So do the programs that put quotes around every text. Lines of a single cell are no rows.
    """
    text = "".join(lines)
    end = re.escape(single.delimiter)
    cell = re.compile(rf"[ \t]*((?>'(?:[^']|'')*')|[^'{end}\r\n]*?)[ \t]*({end}|[\r\n]+|\Z)")
    line = re.compile(r"[^\r\n]*[\r\n]*")
    enclosed = others = at = 0
    row: list[str] = []
    while at < len(text):
        found = cell.match(text, at) or line.match(text, at)
        if found is None or found.end() == at:
            break
        at = found.end()
        is_cell = found.re is cell
        row.append(found[1] if is_cell else "")
        if is_cell and found[2] == single.delimiter:
            continue
        parts = [part for part in row if part]
        is_text = all(part[0] == "'" or _NUMBER.fullmatch(part) for part in parts)
        if is_cell and is_text and any(len(part) > len("''") and part[0] == "'" for part in parts):
            enclosed += len(row) > 1
        elif len(row) > 1 or not is_cell:
            others += at < len(text)  # the last one may be cut off
        row = []
    return enclosed > 0 and enclosed >= _NEARLY_ALL * (enclosed + others)


def _score(
    lines: Sequence[str], dialect: Dialect, mapping: Mapping[str, str], width: int
) -> tuple[int, int, int, int]:
    """Return how well lines parse in a dialect.

    Best has the most cells of a row that name a field, then the most rows of the given width, then
    the fewest unreadable rows, then the most columns in rows of equal width. A file with one column
    gets a comma.
    """
    rows, _ = all_rows(reader(lines, dialect, is_strict=False))
    _, broken = all_rows(reader(lines, dialect))
    # A name that still has quotes of the other kind is half a name.
    bare = ([cell for cell in row if not cell.startswith(("'", '"'))] for row in rows)
    named = max((columns.named(row, mapping) for row in bare), default=0)
    fitting = sum(len(row) in (width, width + len(OWN_COLUMNS)) for row in rows) if width else 0
    [(common, alike)] = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    return (named, fitting, -broken, alike * (common - 1))


def all_rows(cells: Reader) -> tuple[list[list[str]], int]:
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

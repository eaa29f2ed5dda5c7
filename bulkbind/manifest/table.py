"""Rows of cells under a header, from CSV and spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.checking import (
    FEW,
    Checker,
    Column,
    asked_cell,
    asked_problem,
    columns_of,
    covered_problem,
)
from bulkbind.manifest.conditions import asked_columns
from bulkbind.manifest.likely_causes import Fault, error_of, fault_of
from bulkbind.manifest.rules import no_value, printable, trim
from bulkbind.manifest.synonyms import candidates, meant
from bulkbind.manifest.table_words import NAME, fault_of_word
from bulkbind.manifest.text import MOST_COLUMNS
from bulkbind.model import COMES_BACK, OWN_COLUMNS, CheckedRow, GoodRows, Problem, Source
from bulkbind.model.fields import FIELDS
from bulkbind.model.wording import counted, verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bulkbind.manifest.row_widths import ShortRows
    from bulkbind.settings import ManifestSettings

BATCH = 128
"""Rows checked at a time; a batch with a broken row is split into smaller ones."""
_SHAPE = "row: as many cells as the header has columns"
_COMMENT = "#"
_RULE = re.compile(r"[-=+:|\u2500-\u257f\s]+")
"""A line below a header, as databases and Markdown draw it; three dashes of it stand together."""
_FOOTER = re.compile(
    r"\(\d[\d,.]* \w+(?: \w+)?\)"
    r"|\d[\d,.]* (?:rows?|records?|(?:row|record)\(s\)) "
    r"(?:selected|affected|in set|returned|fetched|produced|retrieved)\.?(?:,? .*)?"
    r"|no rows selected\.?|Completion time: .*|Time(?: taken|): [\d.,]+ ?\w+.*|Elapsed: [\d:.]+"
    r"|\x1a+|\\\.",
    re.IGNORECASE,
)
"""What programs print below a table: `(2 rows)`, the end marks of DOS and of COPY."""
Faults = Mapping[int, Fault]
"""The cells of a row whose text is not a value, by 0-based position."""
_SAID = re.compile(r"it has (\d+), the header (\d+)(?:, but most rows \d+)?")
"""What a report says of a row that has more or fewer cells than it should."""
_STATUSES = frozenset(COMES_BACK)
NO_FAULTS: Faults = MappingProxyType({})
_PASSED_OVER = (
    *("blank lines", "repeated headers", "reworded headers", "comment lines"),
    "footer or rule lines",
)
"""What is counted and no row."""


class TableRow(NamedTuple):
    """A row as read from the file, including the header."""

    line: int
    cells: list[str]
    faults: Faults = NO_FAULTS


def find_header(rows: Sequence[TableRow], settings: ManifestSettings) -> TableRow | None:
    """Return the header among the first rows: the one that names machine_code and most fields.

    A name as given by `--map` comes before one that only resembles it, and a header that has rows
    below it before another one, which would be another table's. If there is none, or if `skip_rows`
    is set, the header is the first row that is not blank; None if all are blank.
    """
    filled = [row for row in rows if any(map(str.strip, row.cells))]
    if not filled:
        return None
    if settings.skip_rows is not None:
        return filled[0]
    best = max(filled, key=lambda row: columns.likeness(row.cells, settings.columns))
    if columns.named(best.cells, settings.columns):
        above = filled[: filled.index(best)]
        return next(_tables(above, settings.columns), best)
    if "machine_code" in settings.columns or "machine_code" in settings.constants:
        return filled[0]
    return max(filled, key=lambda row: len(candidates(row.cells)))  # for the error's suggestion


def _tables(above: Sequence[TableRow], mapping: Mapping[str, str]) -> Iterator[TableRow]:
    """Yield the rows above the likeliest header that are headers with rows of their own."""
    rows = [[cell for cell in map(str.strip, row.cells) if cell] for row in above]
    found = map(columns.position_of, mapping.values())
    places = [place for place in found if place is not None]
    has_places = columns.position_of(mapping.get("machine_code", "")) is not None
    for number, (row, names) in enumerate(zip(above, rows, strict=True)):
        if has_places:
            filled = (place < len(row.cells) and row.cells[place].strip() for place in places)
            is_header = len(names) > 1 and all(filled)
        else:
            fields = columns.named(names, mapping)
            is_header = fields > 1 or 0 < fields == len(names)
        if is_header and any(len(below) >= min(2, len(names)) for below in rows[number + 1 :]):
            yield row


def is_outside(cells: Sequence[str], delimiter: str) -> bool:
    """Return whether a row is no row of a table, but a line or a count that a program prints."""
    filled = [cell for cell in map(str.strip, cells) if cell]
    if all(map(_RULE.fullmatch, filled)):
        return any("---" in cell or "===" in cell or "\u2500" * 3 in cell for cell in filled)
    return _FOOTER.fullmatch(delimiter.join(cells).strip()) is not None


def has_own(header: Sequence[str]) -> bool:
    """Return whether the last columns of a header are those that a report adds."""
    return tuple(map(str.strip, header[-len(OWN_COLUMNS) :])) == OWN_COLUMNS


def is_blamed(reason: str) -> bool:
    """Return whether a report's reason for a row is the number of its cells."""
    return _SHAPE in reason


def own_at(cells: Sequence[str], width: int, *, has_header: bool) -> int:
    """Return how many cells at the end of a row are those that a report adds.

    *width*: columns of the header, which has those, or of a file without header, which has not. In
    the latter, a row may have that width because it lacks others: the report said so.
    """
    count = len(OWN_COLUMNS)
    if has_header and len(cells) == width:
        return count
    if len(cells) <= count or cells[-count] not in _STATUSES:
        return 0
    return count if len(cells) != width or _SHAPE in cells[-1] else 0


class Table:
    """Turns cells into checked rows, and counts the rows that it skips."""

    def __init__(
        self,
        source: Source,
        line: int,
        settings: ManifestSettings,
        faults: Faults = NO_FAULTS,
        short: ShortRows | None = None,
    ) -> None:
        """*line* and *faults*: of the header; *short*: what short rows mean, if that matters."""
        if len(source.header) > MOST_COLUMNS:
            raise ManifestError(
                f"{source.name}:{line}: {len(source.header):,} columns; at most {MOST_COLUMNS:,}"
            )
        self._source = source
        self._header = [cell.strip() for cell in source.header]
        self._delimiter = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(
            source.delimiter, f"`{source.delimiter}`"
        )
        self._own = len(OWN_COLUMNS) if has_own(source.header) else 0
        self._width = len(self._header) - self._own
        self._short = short
        self._may_be_ours = bool(self._own) or not source.has_header
        _refuse_errors(source.name, line, self._header, faults)
        self._mapping = _mapping(settings, source.name)
        places = self._place(line, settings)
        self._name(places, settings)
        self._checker = Checker(settings)
        self._first = next((at for at, name in enumerate(self._header) if name), 0)
        self._has_comments = self._first not in places and self._header[:1] == [_COMMENT]
        self._passed_over = dict.fromkeys(_PASSED_OVER, 0)
        self._begins = self._cut = self._first_cut = 0

    def _place(self, line: int, settings: ManifestSettings) -> tuple[int | None, ...]:
        """Find the columns that are used; return those of the fields. *line*: of the header."""
        source = self._source
        places = columns.positions(
            source.header,
            self._mapping,
            source=source.name,
            line=line,
            given={field for field in ("user_id",) if settings.user_id} | set(settings.constants),
            without=columns.ignored(source.header, settings),
        )
        self._columns = columns_of(places, settings)
        self._refuse_lookalikes(line, settings)
        self._used = {at for column in self._columns for at in (column.at, column.covered)} - {None}
        self._asked = [
            columns.position_in(
                source.header, column, self.positions, source=source.name, line=line
            )
            for column in asked_columns(settings)
        ]
        self._judged = self._used.union(self._asked)
        self._filled_at = [
            at
            for column in self._columns
            for at in (column.at, column.covered)
            if column.fill and at is not None
        ]
        self._must_at = [
            column.at for column in self._columns if column.rule.required and column.at is not None
        ]
        self._unused = columns.unknown(source.header, [column.at for column in self._columns])
        return places

    def _name(self, places: Sequence[int | None], settings: ManifestSettings) -> None:
        """Note the names of the columns, and which words name one. *places*: of the fields."""
        own = {self._header[at] for at in self._used if at is not None}
        self._words = (columns.words(self._mapping) | own) - {""}
        code = places[FIELDS.index("machine_code")]
        self._code_at = None if "machine_code" in settings.constants else code
        self._code_name = self._header[code] if code is not None else ""
        self._needles = columns.needles(self._mapping, self._code_name)
        self._names = tuple(
            self._name_at(at) if at is not None else field
            for field, at in zip(FIELDS, places, strict=True)
        )
        self._read_as = [
            columns.read_as(self._header[at], field, self._mapping)
            for field, at in zip(FIELDS, places, strict=True)
            if at is not None
        ]

    @property
    def used(self) -> dict[int, Column]:
        """The columns of the fields, by 0-based position."""
        return {column.at: column for column in self._columns if column.at is not None}

    @property
    def fields(self) -> tuple[str, ...]:
        """The field of each column, if every column has one; else empty."""
        used = self.used
        every = len(used) == len(self._header)
        return tuple(used[at].rule.field for at in range(len(used))) if every else ()

    @property
    def positions(self) -> dict[str, int]:
        """The 0-based position of each field that has a column, also where a constant counts."""
        found = {c.rule.field: c.covered if c.at is None else c.at for c in self._columns}
        return {field: at for field, at in found.items() if at is not None}

    @property
    def keys(self) -> set[int]:
        """The positions by which a row is told from others: code and user, or what is asked for."""
        return {*self._must_at, *(self._asked if self._code_at is None else ())}

    @property
    def judged(self) -> dict[int, bool]:
        """Which columns decide on a row, by position, and whether it matters that one is empty."""
        fills = {at: column.fill is not None for at, column in self.used.items()}
        return fills | dict.fromkeys(self._asked, True)

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a row has in the columns that the operator asks for."""
        cells: Any = row.cells
        return [
            asked_cell(self._name_at(at), cells[at])
            if at < len(cells) - self._own_in(cells)
            else ""
            for at in self._asked
        ]

    def _own_in(self, cells: Sequence[str]) -> int:
        return own_at(cells, len(self._header), has_header=bool(self._own)) * (
            self._may_be_ours and not self._own
        )

    def _name_at(self, at: int) -> str:
        return printable(self._header[at] or f"column {at + 1}")

    def field_of(self, at: int) -> str:
        """Return the field of a column that is used."""
        return self.used[at].rule.field

    def pass_over_blank_lines(self, count: int) -> None:
        """Count lines that are blank in the file and were not given to `rows`."""
        self._passed_over["blank lines"] += count

    def may_name(self, text: str) -> bool:
        """Return whether a text may contain the name of the column of machine codes."""
        lower = text.lower()
        return any(needle in lower for needle in self._needles)

    def rows(
        self,
        cells: list[list[str]],
        lines: Sequence[int],
        faults: Mapping[int, Faults] = MappingProxyType({}),
        texts: Sequence[str] | None = None,
        *,
        has_names: bool = True,
    ) -> Iterable[CheckedRow]:
        """Return the checked rows; blank rows, repeated headers and comments are skipped.

        *lines*: the first line of each row. *faults*: by line, for rows that have any. *texts*: the
        rows as written, where cells do not say it. *has_names*: whether there may be a header.
        """
        self._begins = self._begins or next(iter(lines), 0)
        good = self._good_rows(cells, lines, faults, texts, has_names=has_names)
        if good is None:
            return self._parted(cells, lines, faults, texts, self._is_cut_usual(cells))
        self._saw_whole()
        return good

    def good(
        self, by_column: Sequence[Sequence[str]], lines: Sequence[int], *, has_names: bool
    ) -> GoodRows | None:
        """Return rows as wide as the header, given by column, if all of them keep every rule.

        If not, nothing is remembered of them. For the arguments see `rows`.
        """
        good = self._good_columns(
            by_column, lambda: map(list, zip(*by_column, strict=True)), lines, has_names=has_names
        )
        if good is not None:
            self._begins = self._begins or lines[0]
            self._saw_whole()
        return good

    def _saw_whole(self) -> None:
        if self._short is not None:
            self._short.run = 0
            self._short.saw_whole()

    def _is_cut_usual(self, cells: Sequence[Sequence[str]]) -> bool:
        if self._short is None or min(map(len, cells), default=0) >= self._width:
            return False
        filled = [row for row in cells if any(map(str.strip, row))]
        return self._short.are_usual(filled, self._must_at)

    def _parted(
        self,
        cells: list[list[str]],
        lines: Sequence[int],
        faults: Mapping[int, Faults],
        texts: Sequence[str] | None,
        is_cut: bool,  # noqa: FBT001  # recursive
    ) -> Iterator[CheckedRow]:
        """Yield the checked rows of a batch with a broken one, halved while that is faster.

        *is_cut*: short rows lack nothing but empty cells.
        """
        if len(cells) <= FEW:
            yield from self._one_by_one(cells, lines, faults, texts, is_cut=is_cut)
            return
        half = len(cells) // 2
        for part in (slice(half), slice(half, None)):
            written = None if texts is None else texts[part]
            good = self._good_rows(cells[part], lines[part], faults, written)
            if good is None:
                yield from self._parted(cells[part], lines[part], faults, written, is_cut)
            else:
                if self._short:
                    self._short.saw_whole()
                yield from good

    def _one_by_one(
        self,
        cells: list[list[str]],
        lines: Sequence[int],
        faults: Mapping[int, Faults],
        texts: Sequence[str] | None,
        *,
        is_cut: bool,
    ) -> Iterator[CheckedRow]:
        for line, row, text in zip(lines, cells, texts or repeat(""), strict=False):
            found = faults.get(line, NO_FAULTS)
            kind = self._kind(row, found)
            if kind is None:
                yield self._checked(line, row, found, text, is_cut=is_cut)
            else:
                self._passed_over[kind] += 1
                if self._short and kind == "blank lines":
                    self._short.saw_gap()

    def notices(self) -> Iterator[str]:
        """Yield the notices once all rows have been read."""
        name = self._source.name
        yield from (f"{name}: column {how}" for how in self._read_as if how)
        if self._unused:
            shown = printable(", ".join(self._unused[:20]))
            yield f"{name}: columns kept but not sent: {shown}"
        for kind, count in self._passed_over.items():
            if count:
                yield f"{name}: {counted(count, kind)} passed over"
        if self._cut:
            are = verb(self._cut, "is", "are")
            yield (
                f"{name}: {counted(self._cut, 'rows')} {are} shorter than the header, e.g. line "
                f"{self._first_cut}: read as if empty cells had been cut off at their ends"
            )
        yield from self._checker.notices(name)

    def _good_rows(
        self,
        cells: list[list[str]],
        lines: Sequence[int],
        faults: Mapping[int, Faults],
        texts: Sequence[str] | None,
        *,
        has_names: bool = True,
    ) -> GoodRows | None:
        if faults and any(not self._judged.isdisjoint(faults.get(line, ())) for line in lines):
            return None
        try:
            by_column = list(zip(*cells, strict=True))
        except ValueError:  # ragged
            return None
        if len(by_column) != len(self._header):
            return None
        return self._good_columns(by_column, cells.__iter__, lines, texts, has_names=has_names)

    def _good_columns(
        self,
        by_column: Sequence[Sequence[str]],
        cells: Callable[[], Iterator[list[str]]],
        lines: Sequence[int],
        texts: Sequence[str] | None = None,
        *,
        has_names: bool,
    ) -> GoodRows | None:
        if self._has_comments or self._may_be_judged(by_column[-1]):
            return None
        good = self._checker.good(self._columns, by_column, len(lines))
        if good is None or (has_names and self._has_word(by_column, good.values)):
            return None
        self._checker.accept(good, self._columns, by_column, lines, self._names)
        tell_cells = texts is None and self._tells_cells(by_column, good.values)
        return GoodRows(lines, good.values, cells, texts, tell_cells)

    def _tells_cells(
        self, by_column: Sequence[Sequence[str]], values: Sequence[Sequence[str | None]]
    ) -> bool:
        """Return whether the values are all that the cells say, and as they say it."""
        return len(self.used) == len(by_column) and all(
            by_column[column.at] is found
            for column, found in zip(self._columns, values, strict=True)
            if column.at is not None
        )

    def _has_word(self, *columns_of_cells: Iterable[Sequence[str | None]]) -> bool:
        return not all(map(self._words.isdisjoint, chain(*columns_of_cells)))

    def _may_be_judged(self, last: Sequence[str]) -> bool:
        """Return whether rows of the right width may be problems. *last*: their last cells."""
        if self._short and self._short.usual:
            return True
        return self._may_be_ours and any(_SHAPE in cell for cell in last)

    def _kind(self, cells: Sequence[str], faults: Faults) -> str | None:
        """Return why a row is skipped; None if it is not.

        Errors in unused columns count as blank, as formulas are often filled down below a table.
        """
        if not faults:
            is_blank = not any(map(str.strip, cells))
        else:
            at_faults = (at in self._used for at in faults)
            others = (cell.strip() for at, cell in enumerate(cells) if at not in faults)
            is_blank = not (any(at_faults) or any(others))
        if is_blank:
            return "blank lines"
        is_as_wide = len(cells) == len(self._header)
        if is_as_wide and list(map(_trimmed, cells)) == list(map(_trimmed, self._header)):
            return "comment lines" if self._has_comments else "repeated headers"
        if not faults and self._names_same(cells):
            return "reworded headers"
        margin = cells[: self._first]
        at = next((at for at, cell in enumerate(margin) if cell.strip()), len(margin))
        first = cells[at].strip() if at < len(cells) else ""
        if at in faults or fault_of(first):
            return None
        if first.startswith(_COMMENT) and (
            self._has_comments or (len(self._header) > 1 and not any(cells[at + 1 :]))
        ):
            return "comment lines"
        is_outside_table = not faults and is_outside(cells, self._source.delimiter)
        return "footer or rule lines" if is_outside_table else None

    def _checked(
        self, line: int, cells: list[str], faults: Faults, text: str, *, is_cut: bool
    ) -> CheckedRow:
        """Check a row. A short row is padded where that is usual; else its width is a problem."""
        self._refuse_other_header(line, cells)
        own = (
            own_at(cells, len(self._header), has_header=bool(self._own)) if self._may_be_ours else 0
        )
        theirs = cells[: len(cells) - own]
        padded = theirs + [""] * (len(self._header) - len(theirs))
        more = self._shape(line, theirs, cells[-1] if own else "", is_cut=is_cut)
        missing = self._width - len(theirs)
        if more and self._short:
            text = text or self._source.delimiter.join(cells)
        elif missing > 0 and text and not own:
            text = text.rstrip("\r\n") + self._source.delimiter * missing
        values: list[str | None] = []
        for column, name in zip(self._columns, self._names, strict=True):
            value = trim(padded[column.at]) if column.at is not None else None
            fault = faults.get(column.at) if column.at is not None else None
            if fault:
                more += (no_value(column.rule.field, name, value or "", fault),)
            elif column.covered is not None:
                cell = padded[column.covered]
                found = faults.get(column.covered) or self._checker.fault_behind(column.rule, cell)
                more += (covered_problem(column.rule.field, name, cell, found),) if found else ()
            values.append(value if fault else value or column.fill)
        if faults and (doubted := faults.keys() & (self._judged - self._used)):
            more += tuple(
                asked_problem(self._name_at(at), padded[at], faults[at]) for at in doubted
            )
        row = self._checker.row(line, cells, tuple(values), self._names, more)
        return row if not text else msgspec.structs.replace(row, text=text)

    def _shape(
        self, line: int, cells: list[str], reason: str, *, is_cut: bool
    ) -> tuple[Problem, ...]:
        """Return the problem of a row with more or fewer cells than it should have, if it is one.

        *reason*: what a report said of it.
        """
        width = self._width
        lacks = ""
        found = f"it has {len(cells)}, the header {width}"
        said = _SAID.search(reason) if _SHAPE in reason else None
        is_header_as_then = said and (int(said[2]) == width or not self._source.has_header)
        if said and is_header_as_then and int(said[1]) == len(cells):
            found, width = said[0], int(said[2])
        elif len(cells) == width:
            if self._short:
                self._short.saw_whole()
            if not (self._short and self._short.usual):
                return ()
            found += f", but most rows {self._short.usual}"
        elif len(cells) < width:
            if self._short is None:
                return ()
            is_note = self._short.is_below_gap
            is_cut = is_cut and not is_note and not self._short.is_moved(cells, self._must_at)
            if is_cut and not (lacks := self._cut_off(cells)):
                self._cut += 1
                self._first_cut = self._first_cut or line
                return ()
        shown = printable(self._source.delimiter.join(cells))
        hint = self._missing(len(cells) - width) if self._short else ""
        if len(cells) < width and self._short and self._short.is_below_gap:
            hint = f"is it a note below the table? else {hint}"
        elif lacks:
            hint += f"; a value for all rows fills {lacks} only where the row has the empty cell"
        return (Problem("row", "row", shown, _SHAPE, found, hint),)

    def _cut_off(self, cells: Sequence[str]) -> str:
        """Return the name of a column that a fallback would fill and a short row lacks; or ""."""
        return next((self._name_at(at) for at in self._filled_at if at >= len(cells)), "")

    def _missing(self, more: int) -> str:
        """Return what a row of CSV may lack. *more*: cells than it should have, or fewer."""
        if more > 0:
            return (
                f"a cell that contains {self._delimiter} must stand in quotes, or the header lacks "
                "a name"
            )
        return f"{self._delimiter} or a quote is missing" + (
            "" if more else ", or the header lacks a name"
        )

    def _refuse_lookalikes(self, line: int, settings: ManifestSettings) -> None:
        """Refuse a header with a column that a fallback would replace, and that may be meant."""
        taken = {column.at for column in self._columns}
        header = self._source.header
        without = columns.ignored(header, settings)
        names = ["" if at in taken or name in without else name for at, name in enumerate(header)]
        given = "--user-id" if settings.user_key is None else "--user-table"
        for column in self._columns:
            field = column.rule.field
            if column.at is not None or not column.fill or field in settings.constants:
                continue
            if found := columns.resembling(
                field, names, self._mapping, by_synonym=settings.user_key is None
            ):
                shown = ", ".join(f"`{printable(names[at].strip())}`" for at in found)
                raise ManifestError(
                    f"{self._source.name}:{line}: {verb(len(found), 'column', 'columns')} {shown} "
                    f"may be meant for {field}, and {given} would take "
                    f"{verb(len(found), 'its', 'their')} place",
                    hint=columns.ways_on(field, found, header, has_positions=True),
                )

    def _refuse_other_header(self, line: int, cells: Sequence[str]) -> None:
        """Refuse the header of another table, as the rows below it would be misread."""
        shown = printable(self._source.delimiter.join(cells))
        code = self._code_in(cells)
        if self._words.isdisjoint(map(str.strip, cells)):
            is_name = fault_of_word("machine_code", code) == NAME
            named = len(candidates(cells)) if is_name else 0
            is_other = named > 1 or (is_name and line > self._begins and self._are_words(cells))
        else:
            named = columns.named(cells, self._mapping)
            is_other = named > 1 or bool(named and self._names_code(cells))
        if is_other:
            raise ManifestError(
                f"{self._source.name}:{line}: another table begins here: {shown}",
                hint="put it in a file of its own",
            )
        if code and not named and columns.field_of(code, self._mapping):
            raise ManifestError(
                f"{self._source.name}:{line}: `{code}` stands where a machine code should: the "
                f"rows and columns of the table are exchanged, or another table begins here",
                hint="a row is one device: transpose the table, or put the other one in a file of "
                "its own",
            )

    def _are_words(self, cells: Sequence[str]) -> bool:
        """Return whether several of our columns have cells, and all of them words about a table."""
        filled = [
            cell for at, cell in enumerate(map(str.strip, cells)) if cell and at in self._used
        ]
        return len(filled) > 1 and all(fault_of_word("machine_code", cell) for cell in filled)

    def _code_in(self, cells: Sequence[str]) -> str:
        at = self._code_at
        return cells[at].strip() if at is not None and at < len(cells) else ""

    def _names_same(self, cells: Sequence[str]) -> bool:
        """Return whether a row calls our columns by other names, as a translation does."""
        if not meant(self._code_in(cells)):
            return False
        named = {
            column.rule.field: cells[column.at].strip()
            for column in self._columns
            if column.at is not None and column.at < len(cells) and cells[column.at].strip()
        }
        is_table = len(named) > 1 or len(self._used) == 1
        return is_table and all(meant(name) == field for field, name in named.items())

    def _names_code(self, cells: Sequence[str]) -> bool:
        """Return whether a row is a header that names machine_code alone, and no device.

        It is where the name stands under one of our columns, or no cell has a digit.
        """
        at = {
            at
            for at, cell in enumerate(map(str.strip, cells))
            if cell and (cell == self._code_name or columns.is_code(cell, self._mapping))
        }
        has_digit = any(character.isdigit() for cell in cells for character in cell)
        return bool(at) and (not at.isdisjoint(self._used) or not has_digit)


def _trimmed(cell: str) -> str:
    """Return a cell of a header without the byte order mark of a file that was glued to another."""
    return cell.strip().lstrip("\ufeff")


def _refuse_errors(name: str, line: int, header: Sequence[str], faults: Faults) -> None:
    """Refuse a header in which an error replaces a name, which may be that of any field."""
    words = (error_of(cell) for cell in header if cell.strip(_COMMENT))  # `###` is no error here
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

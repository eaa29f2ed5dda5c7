"""The XML of workbooks in one pass, whoever wrote it, at a cost that no content can raise.

Tags are recognized by patterns that never go back (possessive), so the time grows with the size
alone. A form that is not known ends the reading with ValueError: no cell is passed over.
"""

from __future__ import annotations

import codecs
import html
import re
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulkbind.manifest.likely_causes import MOST_DIGITS
from bulkbind.manifest.text import LONGEST_CELL, LONGEST_LINE, MOST_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Container, Generator, Iterable, Iterator, Sequence

BLOCK = 1 << 18
"""Bytes processed at a time."""
LONGEST_ROW = 8 << 20
"""Bytes of the XML of one row."""
LONGEST_TEXT = 2 << 20
"""Bytes of the XML of one shared string, and of what stands before the rows."""
MOST_ROWS = 1 << 20
MOST_CELLS = 1 << 14
"""Rows of a sheet, and cells of a row. Source: Excel's specifications."""
MOST_MERGES = 100_000
MOST_REMARKS = 10_000
"""Comments and processing instructions in one part."""

_ATTRIBUTES = rb"""(?>(?:\s(?:[^<>"'/]++|"[^"<]*+"|'[^'<]*+')*)?)"""
_ATTRIBUTE = re.compile(rb"""([\w.:-]+)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""")
_PREFIX = rb"(?:[\w.-]++:)?"
_REMARK = re.compile(rb"<!--|<!\[CDATA\[|<\?|<!")
_ENDS = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}
_LONGEST_OPENING = 9
_ENCODING = re.compile(rb"""\A<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)["']""")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ENTITY = re.compile(r"&(#\d{1,7}|#x[0-9A-Fa-f]{1,6}|lt|gt|amp|quot|apos);|&")
_NAMED = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
"""The named entities; `&amp;` is resolved last."""
_RANGE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})(?::\$?([A-Z]{1,3})\$?(\d{1,7}))?", re.IGNORECASE)
_LETTERS = 26
_STRINGS = re.compile(rb"<%ssst%s(/?)>" % (_PREFIX, _ATTRIBUTES))
_STRING = re.compile(
    rb"<%ssi%s(?:/>|>(?:<%st(?=[\s>])[^<>/]*+>([^<]*+)</%st\s*+></%ssi\s*+>"
    rb"|((?>(?:[^<]++|<(?!/?%ssi[\s/>]))*))</%ssi\s*+>))"
    % (_PREFIX, _ATTRIBUTES, _PREFIX, _PREFIX, _PREFIX, _PREFIX, _PREFIX)
)
"""Groups: a text alone, and any other content."""
_BETWEEN = b"</t></si><si><t>"
"""What stands between two shared strings in the form that most programs write."""
_STRINGS_END = re.compile(rb"\s*+</%ssst\s*>" % _PREFIX)


class EntitiesError(ValueError):
    """A part of a workbook defines entities."""


class Area(NamedTuple):
    """A range of cells: 1-based rows and 0-based columns, both inclusive."""

    top: int
    left: int
    bottom: int
    right: int

    def __str__(self) -> str:
        return f"{letters(self.left)}{self.top}:{letters(self.right)}{self.bottom}"


class Layout(NamedTuple):
    """What surrounds the rows of a sheet."""

    hidden: list[tuple[int, int]]
    """Hidden columns: first and last, 0-based."""
    merged: list[Area]


class SheetRow(NamedTuple):
    """A row of a sheet, as a person sees it, from column A to its last cell that is not blank."""

    number: int
    is_hidden: bool
    cells: list[str]
    doubts: dict[int, str]
    """Why a cell is not certainly a value, by 0-based column."""


class Readable(Protocol):
    """What the XML of a part is read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* more bytes; none at the end. Raises: ValueError."""
        ...


class ShownBy(Protocol):
    """Returns what is shown of a cell, and why that is not certainly a value.

    Given its type, its style, the content of its element `v`, and all its content instead where
    that is not a mere value.
    """

    def __call__(self, kind: str, style: int, value: bytes, other: bytes) -> tuple[str, str]:
        """Raises: ValueError if the cell is damaged."""
        ...


def letters(column: int) -> str:
    """Return the name of a 0-based column: `A`, `B`, … `AA`."""
    name = ""
    while column >= 0:
        name = chr(ord("A") + column % _LETTERS) + name
        column = column // _LETTERS - 1
    return name


@lru_cache(MOST_CELLS)
def column_of(name: bytes) -> int:
    """Return the 0-based column of a name in whatever case."""
    number = 0
    for letter in name.upper():
        number = number * _LETTERS + letter - ord("A") + 1
    if number > MOST_CELLS:
        raise ValueError(f"column {name.decode()} is beyond the last one, XFD")
    return number - 1


# --- blocks --------------------------------------------------------------------------------------


def blocks(file: Readable) -> Iterator[bytes]:
    """Yield the XML of a part as UTF-8 without comments and CDATA; no block ends within a tag.

    Raises: EntitiesError, ValueError.
    """
    rest = b""
    remarks = 0
    for block in chain(_as_utf8(file), [None]):
        data = rest + (block or b"")
        parts, rest, found = _without_remarks(data, is_last=block is None)
        remarks += found
        if remarks > MOST_REMARKS:
            raise ValueError(f"more than {MOST_REMARKS:,} comments")
        if len(rest) > LONGEST_LINE:
            raise ValueError(f"a tag or comment takes more than {LONGEST_LINE:,} bytes")
        yield parts
    if rest:
        raise ValueError("its XML breaks off")


def _as_utf8(file: Readable) -> Iterator[bytes]:
    block = file.read(BLOCK)
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"<\0", b"\0<")):
        name = "utf-16-be" if block[:1] in (b"\xfe", b"\0") else "utf-16-le"
        decoder = codecs.getincrementaldecoder(name)()
        while block:
            yield decoder.decode(block).removeprefix("\ufeff").encode()
            block = file.read(BLOCK)
        decoder.decode(b"", final=True)
        return
    block = block.removeprefix(codecs.BOM_UTF8)
    declared = _ENCODING.match(block)
    if declared and declared[1].lower() not in (b"utf-8", b"utf8", b"us-ascii", b"ascii"):
        raise ValueError(f"its XML is in {declared[1].decode()}, not UTF-8")
    while block:
        yield block
        block = file.read(BLOCK)


def _without_remarks(data: bytes, *, is_last: bool) -> tuple[bytes, bytes, int]:
    """Return the bytes up to the last whole tag, those after it, and the number of comments."""
    parts: list[bytes] = []
    remarks = at = 0
    while found := _REMARK.search(data, at):
        begin = found.start()
        if found[0] == b"<!" and (len(data) - begin >= _LONGEST_OPENING or is_last):
            raise EntitiesError
        end = data.find(_ENDS[found[0]], found.end()) if found[0] in _ENDS else -1
        if end < 0:
            return b"".join((*parts, data[at:begin])), data[begin:], remarks
        parts.append(data[at:begin])
        if found[0] == b"<![CDATA[":
            parts.append(html.escape(data[found.end() : end].decode(), quote=False).encode())
        else:
            remarks += 1
        at = end + len(_ENDS[found[0]])
    opened = data.rfind(b"<", at)
    if opened < 0 or data.find(b">", opened) >= 0:
        opened = len(data)
    parts.append(data[at:opened])
    return b"".join(parts), data[opened:], remarks


# --- parts that are small, or of one kind of element ---------------------------------------------


def tags(part: Iterable[bytes], *names: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the start tags with some local names, and their attributes. Raises: ValueError."""
    wanted = b"|".join(name.encode() for name in names)
    pattern = re.compile(
        rb"<" + _PREFIX + rb"(" + wanted + rb")(?=[\s/>])(" + _ATTRIBUTES + rb")/?>"
    )
    for block in part:
        for found in pattern.finditer(block):
            yield found[1].decode(), attributes(found[2])


def attributes(text: bytes) -> dict[str, str]:
    """Return the attributes in the text of a tag."""
    return {
        name.decode(): decoded(double or single)
        for name, double, single in _ATTRIBUTE.findall(text)
    }


def texts(part: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the shared strings in order, some at a time, as UTF-8. Raises: ValueError."""
    rest = b""
    for block in _after(part, _STRINGS):
        first, usual, last = _usual_texts(rest + block)
        rest = yield from _any_texts(first)
        if usual:
            _expect_blanks(rest)
            yield usual
            rest = yield from _any_texts(last)
        if len(rest) > LONGEST_TEXT:
            raise ValueError(f"a text takes more than {LONGEST_TEXT:,} bytes")
    if not _STRINGS_END.match(rest):
        raise ValueError("its list of texts breaks off")


def _usual_texts(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Return what comes before plain texts in the usual form, these texts, and what follows."""
    first, *usual = data.split(_BETWEEN)
    last = usual.pop() if usual else b""
    joined = b"".join(usual)
    if not usual or any(special in joined for special in (b"<", b"&", b"\r", b"_x")):
        return data, [], b""
    begin, _, end = _BETWEEN.partition(b"<si>")
    return first + begin, usual, b"<si>" + end + last


def _any_texts(data: bytes) -> Generator[list[bytes], None, bytes]:
    """Yield the texts in *data* in whatever form; return what is not whole."""
    at = 0
    whole = []
    for found in _STRING.finditer(data):
        if found.start() > at:
            _expect_blanks(data[at : found.start()])
        text, runs = found.groups()
        if runs:
            text = text_of(runs).encode("utf-8", "surrogatepass")
        elif text and (b"&" in text or b"_x" in text or b"\r" in text):
            text = unescaped(decoded(text)).encode("utf-8", "surrogatepass")
        whole.append(text or b"")
        at = found.end()
    if whole:
        yield whole
    return data[at:]


def _after(part: Iterable[bytes], tag: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield the XML that follows the first of some tags; nothing if that has no content."""
    begun = False
    for block in part:
        if begun:
            yield block
        elif found := tag.search(block):
            begun = not found[1]
            yield block[found.end() :] if begun else b"</sst>"


def _expect_blanks(between: bytes) -> None:
    if between.strip():
        raise ValueError(f"{between[:40].decode(errors='replace')!r} is not expected in it")


_RUN = re.compile(rb"<(/?)%s(rPh|t)(?=[\s/>])%s\s*+(/?)>([^<]*+)" % (_PREFIX, _ATTRIBUTES))
_TEXTS = re.compile(rb"<%st(?=[\s>])%s>([^<]*+)" % (_PREFIX, _ATTRIBUTES))


def text_of(inner: bytes) -> str:
    """Return the text of a string's inner XML, with that of its runs, without their readings."""
    if inner.startswith(b"<t>") and inner.endswith(b"</t>") and inner.count(b"<") == 2:  # noqa: PLR2004
        return unescaped(decoded(inner[3:-4]))
    if b"rPh" not in inner:  # three times as fast
        return unescaped(decoded(b"".join(_TEXTS.findall(inner))))
    parts = []
    is_reading = False
    for end, name, empty, text in _RUN.findall(inner):
        if name == b"rPh":
            is_reading = not end and not empty
        elif not end and not empty and not is_reading:
            parts.append(text)
    return unescaped(decoded(b"".join(parts)))


_FORMULA = re.compile(
    rb"\s*+(?>(?:<%sf%s(/>|>([^<]*+)</%sf\s*>))?)\s*+(?>(?:<%sv%s(/>|>([^<]*+)</%sv\s*>))?)"
    % (_PREFIX, _ATTRIBUTES, _PREFIX, _PREFIX, _ATTRIBUTES, _PREFIX)
)


_HAS_TEXT = re.compile(rb"<%sis[\s/>]" % _PREFIX)
_MORE = re.compile(rb"<%s(?:extLst|is)[\s/>]" % _PREFIX)


def formula_of(inner: bytes) -> tuple[str | None, bytes | None]:
    """Return the formula and the value in a cell's inner XML, each None if there is none.

    A formula is empty if it is that of another cell. Raises: ValueError.
    """
    found = _FORMULA.match(inner)
    assert found  # it matches an empty text
    rest = inner[found.end() :].strip()
    if rest and not _MORE.match(rest):
        raise ValueError("a cell has content that is not known")
    formula = decoded(found[2] or b"") if found[1] else None
    return formula, (found[4] or b"") if found[3] else None


def has_text(inner: bytes) -> bool:
    """Return whether a cell's inner XML has a text of its own."""
    return _HAS_TEXT.search(inner) is not None


def decoded(text: bytes) -> str:
    """Return XML text with its entities resolved. Raises: ValueError."""
    if b"&" in text or b"\r" in text:
        lines = text.decode().replace("\r\n", "\n").replace("\r", "\n")
        if lines.count("&") == sum(map(lines.count, _NAMED)):
            for name, character in _NAMED.items():
                lines = lines.replace(name, character)
            return lines
        return _ENTITY.sub(_character, lines)
    return text.decode()


def _character(entity: re.Match[str]) -> str:
    name = entity[1]
    if name is None:
        raise ValueError("it has an `&` that begins no known entity")
    if name.startswith("#x"):
        return chr(int(f"0{name[1:]}", base=0))
    if name.startswith("#"):
        return chr(int(name[1:]))
    return html.unescape(entity[0])


def unescaped(text: str) -> str:
    """Return a text with `_x000D_` and the like resolved. Source: ECMA-376 part 1, 22.9.2.19."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def area_of(text: str) -> Area:
    """Return the range that is written as `A1:B2`, `A1`. Raises: ValueError."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:40]!r} is no range of cells")
    left, top = column_of(found[1].encode()), int(found[2])
    right, bottom = (column_of(found[3].encode()), int(found[4])) if found[3] else (left, top)
    return Area(min(top, bottom), min(left, right), max(top, bottom), max(left, right))


# --- sheets --------------------------------------------------------------------------------------

_ROOT = re.compile(rb"<(?:([\w.-]+):)?worksheet(?=[\s/>])")
_NUMBER = re.compile(rb' r="(\d{1,7})"')
_REFERENCE = re.compile(r"([A-Za-z]{1,3})(\d{1,7})")


class _Patterns(NamedTuple):
    """How the tags of a sheet are recognized, for the namespace prefix that it uses."""

    begin: re.Pattern[bytes]
    end: re.Pattern[bytes]
    row: re.Pattern[bytes]
    row_end: bytes
    """How the end tag of a row begins."""
    cells: re.Pattern[bytes]
    """Groups: letters and digits of the place, other attributes, the value, all content if it is
    not a mere value, and everything from where no cell follows."""
    blank_rows: re.Pattern[bytes]


@lru_cache(8)
def _patterns(prefix: bytes) -> _Patterns:
    p = re.escape(prefix)
    cell = (
        rb'<%sc(?>(?: r="([A-Za-z]{1,3})([0-9]{1,7})")?)([^<>/]*+)(?:/>|>(?:(?:<%sv>|<%sis><%st'
        rb'(?>(?: xml:space="preserve")?)>)([^<]*+)(?:</%sv>|</%st></%sis>)'
        rb"|((?>(?:[^<]++|<(?!/%sc\s*>))*)))</%sc\s*+>)\s*+|(.++)"
    ) % (p, p, p, p, p, p, p, p, p)
    return _Patterns(
        re.compile(rb"<%ssheetData%s(/?)>" % (p, _ATTRIBUTES)),
        re.compile(rb"</%ssheetData\s*>" % p),
        re.compile(rb"\s*+<%srow(%s)(/?)>\s*+" % (p, _ATTRIBUTES)),
        b"</%srow" % prefix,
        re.compile(cell, re.DOTALL),
        re.compile(
            rb"(?>(?:\s*+<%srow(?=[\s/>])[^<>/]*+(?:/>|>\s*+(?>(?:<%sc(?=[\s/>])[^<>/]*+/>\s*+)*)"
            rb"</%srow\s*+>))+)" % (p, p, p)
        ),
    )


def _begun(part: Iterator[bytes]) -> tuple[bytes, _Patterns, bytes | None]:
    """Return the XML before the rows, the patterns, and what follows; None if there are no rows."""
    data = b""
    for block in part:
        data += block
        root = _ROOT.search(data)
        if root:
            patterns = _patterns(root[1] + b":" if root[1] else b"")
            begin = patterns.begin.search(data, root.end())
            if begin:
                return data[: begin.start()], patterns, None if begin[1] else data[begin.end() :]
        if len(data) > LONGEST_TEXT:
            raise ValueError(f"no row begins in the first {LONGEST_TEXT:,} bytes of the sheet")
    if not _ROOT.search(data):
        raise ValueError("its sheet is no worksheet")
    raise ValueError("its sheet has no rows")


def layout(part: Iterator[bytes]) -> Layout:
    """Return what surrounds the rows of a sheet. Raises: ValueError."""
    head, patterns, rest = _begun(part)
    hidden = [
        (int(given["min"]) - 1, int(given["max"]) - 1)
        for _, given in tags([head], "col")
        if is_true(given.get("hidden", "")) or given.get("width") in ("0", "0.0")
    ]
    merged: list[Area] = []
    is_over = rest is None
    for block in chain([rest or b""], part):
        begin = 0
        if not is_over and b"sheetData" in block:
            end = patterns.end.search(block)
            is_over, begin = end is not None, end.end() if end else 0
        if is_over:
            found = tags([block[begin:]], "mergeCell")
            merged += (area_of(given.get("ref", "")) for _, given in found)
            if len(merged) > MOST_MERGES:
                raise ValueError(f"more than {MOST_MERGES:,} merged ranges")
    return Layout(hidden, merged)


def is_true(value: str) -> bool:
    """Return whether an attribute is true."""
    return value in ("1", "true", "on")


def rows(part: Iterator[bytes], seen: ShownBy, plain: Plain) -> Iterator[SheetRow]:
    """Yield the rows of a sheet as they stand, without blank ones.

    Raises: ValueError for what is not known, for a row or a cell that stands twice, and for a cell
        that is too long.
    """
    _, patterns, rest = _begun(part)
    if rest is None:
        return
    reader = _Rows(patterns, seen, plain)
    first, rest = rest, b""
    for block in chain([first], part):
        data = rest + block
        at = yield from reader.read(data, len(rest))
        if at is None:
            return
        rest = data[at:]
        if len(rest) > LONGEST_ROW:
            raise ValueError(f"row {reader.number + 1} takes more than {LONGEST_ROW:,} bytes")
    if (yield from reader.read(rest, 0)) is not None:
        raise ValueError(f"its XML is not as expected after row {reader.number}")


class Plain(NamedTuple):
    """The cells whose stored form is what is shown, for which nobody need be asked."""

    styles: Container[int]
    """Those in which whole numbers and texts are shown as they are stored."""
    first_texts: Sequence[str]
    """The first shared strings."""
    has_long_texts: bool = False
    """Whether a shared string is longer than a cell may be."""


class _Metas(dict[bytes, tuple[int, str, int, str]]):
    """Short cut, type, style and place of a cell, by the text of its attributes."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self._plain = plain

    def __missing__(self, given: bytes) -> tuple[int, str, int, str]:
        """Raises: ValueError if the text is not that of a tag of a cell."""
        if not _IN_TAG.fullmatch(given):
            raise ValueError("its XML has a cell that is not written as usual")
        named = attributes(given)
        kind, style = named.get("t", "n"), int(named.get("s", "0"))
        short = _SHORT.get(kind, 0) if style in self._plain.styles else 0
        found = (short, kind, style, named.get("r", ""))
        if len(self) < _MOST_METAS and "r" not in named:
            self[given] = found
        return found


class _Columns(dict[bytes, int]):
    """0-based columns by name."""

    def __missing__(self, name: bytes) -> int:
        self[name] = at = column_of(name)
        return at


_IN_TAG = re.compile(_ATTRIBUTES)
_NUMBER_KIND, _SHARED, _TEXT = 1, 2, 3
_SHORT = {"n": _NUMBER_KIND, "s": _SHARED, "inlineStr": _TEXT, "str": _TEXT}
_EXTENSION = re.compile(rb"<%sextLst[\s/>]" % _PREFIX)
_MOST_METAS = 10_000
_SMALL = 100
_BLANKS = re.compile(rb"\s*+")
_ZERO = ord("0")
_AFTER_NAME = (b" ", b"/", b">", b"\n", b"\r", b"\t", b"\v", b"\f")
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_TAG_END = re.compile(rb"\s*+>")


class _Rows:
    """Reads rows one after the other.

    Attributes:
        number: The last row.
    """

    def __init__(self, patterns: _Patterns, seen: ShownBy, plain: Plain) -> None:
        self._patterns = patterns
        self._seen = seen
        self._known: dict[tuple[bytes, bytes, bytes], tuple[str, str]] = {}
        self._texts = plain.first_texts
        self._may_be_long = plain.has_long_texts
        self._metas = _Metas(plain)
        self._columns = _Columns()
        self._is_hidden: dict[bytes, bool] = {}
        self._done = bytearray(MOST_ROWS + 1)
        self.number = 0

    def read(self, data: bytes, searched: int) -> Generator[SheetRow, None, int | None]:
        """Yield the whole rows in *data*; return where the rest begins, None if all rows are over.

        *searched*: bytes in which the first row does not end.
        """
        _, end, row, row_end, _, _ = self._patterns
        at = 0
        while found := row.match(data, at):
            body = found.end()
            if found[2]:
                at = self._next_blank(data, at, body)
                continue
            closed = data.find(row_end, max(body, searched - len(row_end)))
            last = _TAG_END.match(data, closed + len(row_end)) if closed >= 0 else None
            if not last:
                return at
            is_hidden = self._next(found[1])
            cells, doubts = self._cells(data[body:closed])
            if cells:
                yield SheetRow(self.number, is_hidden, cells, doubts)
            at = last.end()
            at = self._next_blank(data, at, at)
        blanks = _BLANKS.match(data, at)
        assert blanks  # it always matches
        at = blanks.end()
        return None if end.match(data, at) else at

    def _next_blank(self, data: bytes, at: int, otherwise: int) -> int:
        """Go to the last of the blank rows that begin at *at*; return where they end.

        *otherwise*: what is returned where none begins that is surely blank.
        """
        found = self._patterns.blank_rows.match(data, at)
        if not found or b'"e"' in found[0] or b"'e'" in found[0]:
            if otherwise > at:
                row = self._patterns.row.match(data, at)
                assert row  # the caller found it
                self._next(row[1])
            return otherwise
        blank = found[0]
        tag = self._patterns.row_end.replace(b"/", b"", 1)
        named = blank.rfind(b" r=")
        if named < 0:
            self.number += blank.count(tag)
            return self._checked_end(found)
        begin = blank.rfind(tag, 0, named)
        given = attributes(blank[begin : blank.find(b">", begin)]).get("r")
        if given is None:  # the place of a cell
            given = blank[named : named + 20].strip(_NO_DIGITS).decode()
        self.number = int(given) + blank.count(tag, begin + 1)
        return self._checked_end(found)

    def _checked_end(self, found: re.Match[bytes]) -> int:
        if not 0 < self.number <= MOST_ROWS:
            raise ValueError(f"row {self.number} is beyond the last one")
        return found.end()

    def _next(self, given: bytes) -> bool:
        """Go to the row of a tag; return whether it is hidden."""
        found = _NUMBER.match(given)
        if found:
            self.number, rest = int(found[1]), given[found.end() :]
        else:
            named = attributes(given).get("r")
            self.number, rest = int(named) if named else self.number + 1, given
        number = self.number
        if not 0 < number <= MOST_ROWS:
            raise ValueError(f"row {number} is beyond the last one")
        if self._done[number]:
            raise ValueError(f"row {number} stands twice")
        self._done[number] = 1
        if rest not in self._is_hidden and len(self._is_hidden) < _MOST_METAS:
            self._is_hidden[rest] = _is_hidden(rest)
        return self._is_hidden[rest] if rest in self._is_hidden else _is_hidden(rest)

    def _cells(self, body: bytes) -> tuple[list[str], dict[int, str]]:
        """Return the cells up to the last one that is not blank, and their doubts."""
        cells: list[str] = []
        doubts: dict[int, str] = {}
        columns, metas, texts, number = self._columns, self._metas, self._texts, b"%d" % self.number
        known = len(texts)
        is_literal = not (b"&" in body or b"_x" in body or b"\r" in body)
        at = -1
        for name, line, given, value, other, _ in self._found(body):
            short, kind, style, place = metas[given]
            at = columns[name] if line == number else self._at(place, name + line, at)
            doubt = ""
            if short == _SHARED and value.isdigit() and (index := int(value)) < known:
                text = texts[index]
            elif (short == _TEXT and value and is_literal) or (
                short == _NUMBER_KIND
                and value.isdigit()
                and len(value) <= MOST_DIGITS
                and value[0] != _ZERO
            ):
                text = value.decode()
            elif value or other or kind == "e":
                text, doubt = self._asked(given, kind, style, value, other)
            else:
                continue
            if at == len(cells):
                cells.append(text)
            else:
                self._put(cells, at, text)
            if doubt:
                doubts[at] = doubt
        if len(cells) > MOST_COLUMNS or len(body) > LONGEST_CELL or self._may_be_long:
            self._check_size(cells)
        return cells, doubts

    def _found(self, body: bytes) -> list[tuple[bytes, ...]]:
        """Return the cells of a row, each as the groups of its pattern."""
        if len(body) > MOST_CELLS and self._count(body) > MOST_CELLS:
            raise ValueError(f"row {self.number} has more than {MOST_CELLS:,} cells")
        found = self._patterns.cells.findall(body)
        if found and found[-1][5] and not _EXTENSION.match(found.pop()[5]):
            raise ValueError(f"its XML is not as expected in row {self.number}")
        return found

    def _asked(
        self, given: bytes, kind: str, style: int, value: bytes, other: bytes
    ) -> tuple[str, str]:
        """Return what is shown of a cell, and the doubt; the same cells are asked for once."""
        key = given, value, other
        if key in self._known:
            return self._known[key]
        shown = self._seen(kind, style, value, other)
        if len(value) + len(other) < _SMALL and len(self._known) < _MOST_METAS:
            self._known[key] = shown
        return shown

    def _check_size(self, cells: list[str]) -> None:
        if sum(map(bool, cells)) > MOST_COLUMNS:
            raise ValueError(f"row {self.number} has more than {MOST_COLUMNS:,} cells with text")
        if max(map(len, cells), default=0) > LONGEST_CELL:
            raise ValueError(
                f"a cell takes more than {LONGEST_CELL:,} characters, in row {self.number}"
            )

    def _count(self, body: bytes) -> int:
        """Return how many cells a row has at most."""
        tag = self._patterns.row_end.replace(b"/", b"", 1)[:-3] + b"c"
        return sum(body.count(tag + mark) for mark in _AFTER_NAME)

    def _put(self, cells: list[str], at: int, text: str) -> None:
        """Put a text into its column, which is not the next one."""
        if at < len(cells):
            if cells[at]:
                raise ValueError(f"cell {letters(at)}{self.number} stands twice")
            cells[at] = text
            return
        cells += [""] * (at - len(cells))
        cells.append(text)

    def _at(self, place: str, usual: bytes, before: int) -> int:
        """Return the column of a cell whose place is not in the usual form, or left out."""
        place = place or usual.decode()
        if not place:
            if before + 1 >= MOST_CELLS:
                raise ValueError(f"row {self.number} has more than {MOST_CELLS:,} cells")
            return before + 1
        found = _REFERENCE.fullmatch(place)
        if not found or int(found[2]) != self.number:
            raise ValueError(f"cell {place[:20]} stands in row {self.number}")
        return column_of(found[1].encode())


def _is_hidden(given: bytes) -> bool:
    named = attributes(given)
    return is_true(named.get("hidden", "")) or named.get("ht") in ("0", "0.0")

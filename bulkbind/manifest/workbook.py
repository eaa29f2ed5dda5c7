"""A workbook (XLSX) as a ZIP archive: its sheets, formats and texts, and what it may be instead."""

from __future__ import annotations

import posixpath
import re
import struct
import tempfile
import zipfile
import zlib
from array import array
from contextlib import ExitStack, contextmanager
from itertools import accumulate, islice
from typing import IO, TYPE_CHECKING, NamedTuple

from bulkbind.errors import ManifestError
from bulkbind.manifest import sheet_xml
from bulkbind.manifest.likely_causes import EMPTY_FORMULA, NEVER_CALCULATED
from bulkbind.manifest.number_formats import NumberFormat, bare, built_in
from bulkbind.manifest.text import INFLATED_BYTES, LONGEST_CELL, MOST_RATIO, open_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.manifest.opened import ManifestFile

MOST_PARTS_BYTES = 4 << 20
"""Bytes of the list of parts, enough for some 40,000 parts."""
SMALL_PART_BYTES = 16 << 20
"""Uncompressed size of a part that is no sheet and not the list of texts."""
TEXT_BYTES = 48 << 20
"""Memory for the shared strings of a workbook."""
_FAST_BYTES = 4 << 20
_FAST_TEXTS = 400_000
"""Text that is kept twice, since it is then looked up faster."""
MOST_SHEETS = 1_000
MOST_FORMATS = 5_000
MOST_STYLES = 100_000
MOST_TARGETS = 10_000
_BLOCK = 1 << 18
_TAIL_BYTES = 65557
"""The longest end of a ZIP archive: its last record with the longest comment."""
_LONGEST_STREAM = 64
_OLE_BYTES = 256 << 20
"""Bytes of an old file that are searched for what it is."""
OLD = b"\xd0\xcf\x11\xe0"
"""The beginning of files of old programs (OLE), also of newer ones that are protected."""
_END = b"PK\5\6"
_END64 = b"PK\6\6"
_NUMBERS = frozenset(("index/document.iwa", "index/calculationengine.iwa", "index.zip"))
"""Parts of a file of Apple's Numbers, one of which it has."""
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError,
    RuntimeError, ValueError, OverflowError, KeyError, IndexError,
)  # fmt: skip


class Sheet(NamedTuple):
    """A sheet, in the order of the tabs."""

    name: str
    kind: str
    """`worksheet`, `chartsheet`, `dialogsheet`, …"""
    is_visible: bool
    part: str


class UnreadableError(ManifestError):
    """A workbook is damaged, or larger than any manifest."""


class Texts:
    """The shared strings, most of them in a few bytes more than they have.

    Attributes:
        first: So many of them that are looked up faster.
        longest: Bytes of the longest one.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("I", [0])
        self.first: list[str] = []
        self.longest = 0

    def extend(self, texts: list[bytes]) -> None:
        """Add texts in UTF-8. Raises: ValueError if all take more memory than a manifest may."""
        if len(self._bytes) < _FAST_BYTES and len(self.first) < _FAST_TEXTS:
            self.first += [text.decode("utf-8", "surrogatepass") for text in texts]
        self.longest = max(self.longest, *map(len, texts))
        self._ends.extend(islice(accumulate(map(len, texts), initial=self._ends[-1]), 1, None))
        self._bytes += b"".join(texts)
        if len(self._bytes) + self._ends.itemsize * len(self._ends) > TEXT_BYTES:
            raise ValueError(
                f"the texts of its cells take more than {TEXT_BYTES >> 20} MiB of memory"
            )

    def __getitem__(self, at: int) -> str:
        """Raises: ValueError, IndexError."""
        if at < 0:
            raise ValueError(f"a cell names text {at}")
        ends = self._ends
        return self._bytes[ends[at] : ends[at + 1]].decode("utf-8", "surrogatepass")


class _Part:
    """An open part of exactly the size that the archive says."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        """Raises: ValueError if the part ends too early."""
        block = self._file.read(size)
        self._left -= len(block)
        if not block and self._left:
            raise ValueError("a part is not as long as the archive says")
        return block


class Workbook:
    """An open workbook.

    Attributes:
        sheets: All of them, in the order of the tabs.
        close: Closes the file.
    """

    def __init__(self, manifest: ManifestFile, most_bytes: int) -> None:
        """*most_bytes*: the uncompressed size of all parts, and of a file that is packed again.

        Raises: ManifestError if it is no workbook, damaged, or larger than that.
        """
        self._name = manifest.name
        self._most_bytes = most_bytes
        self._texts: Texts | None = None
        with ExitStack() as opened, self.reading():
            self._file = opened.enter_context(unpacked(manifest, most_bytes))
            _check_size_of_list(self._file)
            self._zip = opened.enter_context(zipfile.ZipFile(self._file))
            self._parts = _parts(self._zip)
            self._refuse_others()
            self._refuse_bombs()
            workbook = self._main()
            self._related = self._targets(workbook)
            self._from_1904 = self._is_from_1904(workbook)
            self.sheets = self._sheets(workbook)
            self._formats = self._styles()
            self.close = opened.pop_all().close

    def layout(self, sheet: Sheet) -> sheet_xml.Layout:
        """Return what surrounds the rows. Raises: ManifestError."""
        with self.reading(sheet), self._open(sheet.part) as part:
            return sheet_xml.layout(sheet_xml.blocks(part))

    def rows(self, sheet: Sheet) -> Iterator[sheet_xml.SheetRow]:
        """Yield the rows that are not blank. Raises: ManifestError."""
        with self.reading(sheet), self._open(sheet.part) as part:
            if self._texts is None:
                self._texts = self._shared()
            styles = {at for at, form in enumerate(self._formats) if form.is_plain}
            has_long = self._texts.longest > LONGEST_CELL
            plain = sheet_xml.Plain(styles, self._texts.first, has_long)
            yield from sheet_xml.rows(sheet_xml.blocks(part), self._seen, plain)

    @contextmanager
    def reading(self, sheet: Sheet | None = None) -> Iterator[None]:
        """Turn errors of damaged files into ManifestError."""
        where = f"{self._name}: sheet `{sheet.name}`" if sheet else f"{self._name}: the workbook"
        try:
            yield
        except sheet_xml.EntitiesError as error:
            raise UnreadableError(
                f"{self._name}: the workbook defines XML entities, as no spreadsheet program does",
                hint="save it again as .xlsx, or as CSV",
            ) from error
        except _DAMAGED as error:
            raise UnreadableError(
                f"{where} cannot be read: {error}", hint="save it again as .xlsx, or as CSV"
            ) from error

    # --- the archive ---------------------------------------------------------------------------

    def _refuse_others(self) -> None:
        kind = _other_kind(self._zip, self._parts)
        if kind:
            raise ManifestError(
                f"{self._name} is not a manifest: it seems to be {kind}",
                hint="save it as .xlsx or CSV",
            )
        if any(part.flag_bits & 1 for part in self._parts.values()):
            raise ManifestError(
                f"{self._name} is protected by a password", hint="save it without one"
            )

    def _refuse_bombs(self) -> None:
        total = sum(part.file_size for part in self._parts.values())
        if total > self._most_bytes:
            raise ManifestError(
                f"{self._name}: the workbook unpacks to {total:,} bytes; at most "
                f"{self._most_bytes:,}",
                hint="save the sheet as CSV",
            )

    @contextmanager
    def _open(self, name: str) -> Iterator[sheet_xml.Readable]:
        part = self._parts.get(name.lower())
        if part is None:
            raise ValueError(f"its part {name!r} is missing")
        if part.file_size > INFLATED_BYTES and part.file_size > MOST_RATIO * part.compress_size:
            raise ValueError(f"more than {MOST_RATIO} bytes come out of each packed byte")
        with self._zip.open(part) as file:
            yield _Part(file, part.file_size)

    def _small(self, name: str) -> list[bytes]:
        """Return the XML of a part that is held in memory as a whole."""
        with self._open(name) as part:
            if self._parts[name.lower()].file_size > SMALL_PART_BYTES:
                raise ValueError(f"its part {name!r} is larger than {SMALL_PART_BYTES:,} bytes")
            return [b"".join(sheet_xml.blocks(part))]

    # --- what the workbook says of itself ------------------------------------------------------

    def _main(self) -> str:
        """Return the name of the part that lists the sheets."""
        if "_rels/.rels" in self._parts:
            for kind, target in self._targets("").values():
                if kind == "officeDocument":
                    return target
        return "xl/workbook.xml"

    def _targets(self, part: str) -> dict[str, tuple[str, str]]:
        """Return what a part refers to: kind and name of each other part, by id."""
        folder, file = posixpath.split(part)
        found = {}
        related = posixpath.join(folder, "_rels", f"{file}.rels")
        for _, given in sheet_xml.tags(self._small(related), "Relationship"):
            target = posixpath.join("/", folder, given.get("Target", "").replace("\\", "/"))
            kind = given.get("Type", "").rpartition("/")[2]
            found[given.get("Id", "")] = kind, posixpath.normpath(target).lstrip("/")
            if len(found) > MOST_TARGETS:
                raise ValueError(f"it refers to more than {MOST_TARGETS:,} parts")
        return found

    def _is_from_1904(self, workbook: str) -> bool:
        return any(
            sheet_xml.is_true(given.get("date1904", ""))
            for _, given in sheet_xml.tags(self._small(workbook), "workbookPr")
        )

    def _sheets(self, workbook: str) -> list[Sheet]:
        sheets: list[Sheet] = []
        for _, given in sheet_xml.tags(self._small(workbook), "sheet"):
            key = next((value for name, value in given.items() if name.endswith(":id")), "")
            kind, part = self._related.get(key, ("", ""))
            is_visible = given.get("state", "visible") == "visible"
            sheets.append(Sheet(given.get("name", ""), kind, is_visible, part))
            if len(sheets) > MOST_SHEETS:
                raise ValueError(f"it has more than {MOST_SHEETS:,} sheets")
        return sheets

    def _part(self, wanted: str) -> str | None:
        """Return the part of some kind, if there is one."""
        found = next((part for kind, part in self._related.values() if kind == wanted), None)
        return found if found and found.lower() in self._parts else None

    def _styles(self) -> list[NumberFormat]:
        """Return the number format of each style."""
        part = self._part("styles")
        if part is None:
            return [built_in(0)]
        xml = self._small(part)
        codes: dict[int, str] = {}
        for _, given in sheet_xml.tags(xml, "numFmt"):
            codes[int(given.get("numFmtId", "-1"))] = given.get("formatCode", "General")
            if len(codes) > MOST_FORMATS:
                raise ValueError(f"it has more than {MOST_FORMATS:,} number formats")
        begin = _CELL_STYLES.search(xml[0])
        end = _CELL_STYLES_END.search(xml[0], begin.end()) if begin else None
        cells = xml[0][begin.end() : end.start()] if begin and end else b""
        known: dict[int, NumberFormat] = {}
        formats = []
        for _, given in sheet_xml.tags([cells], "xf"):
            number = int(given.get("numFmtId", "0"))
            if number not in known:
                known[number] = (
                    NumberFormat(codes[number], from_1904=self._from_1904)
                    if number in codes
                    else built_in(number, from_1904=self._from_1904)
                )
            formats.append(known[number])
            if len(formats) > MOST_STYLES:
                raise ValueError(f"it has more than {MOST_STYLES:,} styles")
        return formats or [built_in(0)]

    def _shared(self) -> Texts:
        texts = Texts()
        name = self._part("sharedStrings")
        if name is not None:
            with self._open(name) as part:
                for some in sheet_xml.texts(sheet_xml.blocks(part)):
                    texts.extend(some)
        return texts

    # --- cells ----------------------------------------------------------------------------------

    def _seen(self, kind: str, style: int, value: bytes, other: bytes) -> tuple[str, str]:
        """Return what is shown of a cell, and why that is not certain; see `sheet_xml.ShownBy`."""
        form = self._formats[style if style < len(self._formats) else 0]
        if other:
            formula, found = sheet_xml.formula_of(other)
            if formula is None and found is None:
                return self._inline(form, kind, other)
            value = found or b""
            if formula is not None and not value.strip() and kind != "e":
                is_empty = kind == "str" and found is not None
                return ("", EMPTY_FORMULA) if is_empty else (f"={formula}", NEVER_CALCULATED)
        text = sheet_xml.decoded(value)
        if kind in ("str", "inlineStr"):
            return form.of_text(sheet_xml.unescaped(text))
        return self._typed(form, kind, text.strip())

    def _inline(self, form: NumberFormat, kind: str, other: bytes) -> tuple[str, str]:
        """Return what is shown of a cell that has neither a formula nor a value."""
        if kind == "inlineStr":
            return form.of_text(sheet_xml.text_of(other))
        if kind != "e" and sheet_xml.has_text(other):
            raise ValueError(f"a cell of the type {kind[:20]!r} has a text")
        return self._typed(form, kind, "")

    def _typed(self, form: NumberFormat, kind: str, text: str) -> tuple[str, str]:
        """Return what is shown of a cell by its type. Raises: ValueError."""
        shown, doubt = text, ""
        if kind == "e":
            shown, doubt = (text, ERROR) if text else ("#ERROR!", NAMELESS_ERROR)
        elif kind == "s" and text:
            assert self._texts is not None  # read before the rows
            shown, doubt = form.of_text(self._texts[int(text)])
        elif kind == "n" and text:
            shown, doubt = form.of_number(text)
        elif kind == "b" and text:
            shown = "TRUE" if sheet_xml.is_true(text) else "FALSE"
        elif kind == "d" and text:
            doubt = f"a date, stored as {bare(text)}"
        elif kind not in ("s", "n", "b", "d", "str"):
            raise ValueError(f"a cell is of the unknown type {kind[:20]!r}")
        return shown, doubt


ERROR = "error"
NAMELESS_ERROR = "error without a name"
"""Doubts about a cell with an error of a formula."""
_CELL_STYLES = re.compile(rb"<(?:[\w.-]++:)?cellXfs(?:\s[^<>]*+)?>")
_CELL_STYLES_END = re.compile(rb"</(?:[\w.-]++:)?cellXfs\s*>")


# --- what a file is ------------------------------------------------------------------------------


def unpacked(manifest: ManifestFile, most_bytes: int) -> IO[bytes]:
    """Return a file that can be read in any order, unpacked to a private one if it is gzip.

    Raises: ManifestError.
    """
    file = manifest.reader()
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    with ExitStack() as opened, open_bytes(manifest) as packed:
        copy = opened.enter_context(tempfile.TemporaryFile(prefix="bulkbind-workbook-"))
        while block := packed.read(_BLOCK):
            copy.write(block)
            if copy.tell() > most_bytes:
                raise ManifestError(
                    f"{manifest.name}: it unpacks to more than {most_bytes:,} bytes",
                    hint="save the sheet as CSV",
                )
        copy.seek(0)
        opened.pop_all()
        return copy


def is_spreadsheet(manifest: ManifestFile, most_bytes: int) -> bool:
    """Return whether a ZIP archive is a workbook, or another spreadsheet that can be named.

    Raises: ManifestError if it cannot be unpacked.
    """
    try:
        with unpacked(manifest, most_bytes) as file:
            _check_size_of_list(file)
            with zipfile.ZipFile(file) as archive:
                parts = _parts(archive)
                return (
                    "xl/workbook.xml" in parts
                    or bool(_other_kind(archive, parts))
                    or any(name.startswith("xl/") for name in parts)
                )
    except _DAMAGED:
        return False


def _check_size_of_list(file: IO[bytes]) -> None:
    """Raises: BadZipFile if the list of parts is larger than that of any workbook."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(_END)
    if at < 0:
        raise zipfile.BadZipFile("its end is missing, as if it had not been copied to the end")
    listed = struct.unpack_from("<L", tail, at + 12)[0]
    if listed == 0xFFFFFFFF:  # noqa: PLR2004  # it stands in the record for large archives
        at = tail.rfind(_END64, 0, at)
        listed = struct.unpack_from("<Q", tail, at + 40)[0] if at >= 0 else size
    if listed > MOST_PARTS_BYTES:
        raise zipfile.BadZipFile("it consists of more parts than any workbook")


def _parts(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the parts by their names in small letters. Raises: BadZipFile if one stands twice."""
    parts: dict[str, zipfile.ZipInfo] = {}
    for part in archive.infolist():
        name = part.filename.replace("\\", "/").lstrip("/").lower()
        if name in parts and not name.endswith("/"):
            raise zipfile.BadZipFile(f"its part {name!r} stands twice")
        parts[name] = part
    return parts


def _other_kind(archive: zipfile.ZipFile, parts: dict[str, zipfile.ZipInfo]) -> str | None:
    """Return what a ZIP archive is if it is a spreadsheet of another kind; otherwise None."""
    if "xl/workbook.bin" in parts:
        return "a binary workbook (.xlsb)"
    if not _NUMBERS.isdisjoint(parts):
        return "a file of Apple's Numbers (.numbers)"
    if "mimetype" in parts and parts["mimetype"].file_size <= 1000:  # noqa: PLR2004  # it is one word
        kind = archive.read(parts["mimetype"]).decode("ascii", "replace")
        if "opendocument.spreadsheet" in kind:
            return "an OpenDocument file (.ods)"
        if "opendocument" in kind:
            return "an OpenDocument file"
    return None


_STREAMS = {
    name: name.encode("utf-16-le")
    for name in ("EncryptedPackage", "EncryptionInfo", "WordDocument", "Workbook", "Book")
}
"""What an old file may hold, by which it is known."""


def refuse_old(manifest: ManifestFile) -> None:
    """Raises: ManifestError that names what an OLE file is: protected, or of an old program."""
    found: set[str] = set()
    rest = b""
    with open_bytes(manifest) as file:
        for _ in range(_OLE_BYTES // _BLOCK):
            if not (block := file.read(_BLOCK)):
                break
            data = rest + block
            found |= {stream for stream, text in _STREAMS.items() if text in data}
            rest = data[-_LONGEST_STREAM:]
    if found & {"EncryptedPackage", "EncryptionInfo"}:
        raise ManifestError(
            f"{manifest.name} is protected by a password",
            hint="save it without one, as .xlsx or CSV",
        )
    kind = "an old Excel or Word file"
    if "WordDocument" in found:
        kind = "an old Word file (.doc)"
    elif found:
        kind = "an old Excel workbook (.xls)"
    raise ManifestError(
        f"{manifest.name} is not a manifest: it seems to be {kind}", hint="save it as .xlsx or CSV"
    )

"""From the bytes of a file to lines of text: decompressed, decoded, and limited in size."""

from __future__ import annotations

import codecs
import gzip
import io
import unicodedata
import zlib
from typing import TYPE_CHECKING, BinaryIO

from bulkbind.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from _typeshed import WriteableBuffer

    from bulkbind.manifest.opened import ManifestFile
    from bulkbind.model import Source

LONGEST_LINE = 1 << 20
"""Characters of one line, and of one row over several lines."""
LONGEST_CELL = 1 << 17
"""Characters of one cell; also the default limit of Python's csv module."""
MOST_COLUMNS = 2_000
"""Cells of one row."""
MOST_NODES = 1_000
"""Values in one device with aliases expanded, to limit nested aliases."""
MOST_ANCHORS = 100
DEEPEST = 20
"""Levels of lists and mappings in one device."""
MOST_SHAPES = 1_000
"""Different sets of keys that are cached."""
HEADER_WITHIN = 50
"""Rows searched for a header."""
INFLATED_BYTES = 64 << 20
"""Below this size, any compression ratio is accepted."""
MOST_RATIO = 250
"""Compression ratio: manifests have 5 to 30, decompression bombs 1,000."""
SHEET_BYTES = 1 << 30
"""Uncompressed size of a workbook's parts."""
SHEET_CELLS = 20_000_000
"""Cells in the rectangle that a sheet spans, which is held in memory."""
HEAD_BYTES = 65536
_GZIP = b"\x1f\x8b"


def open_bytes(manifest: ManifestFile) -> BinaryIO:
    """Return a reader of a manifest, decompressed if it is gzip.

    Raises: ManifestError, also while decompressing.
    """
    file = manifest.reader()
    if file.peek(2)[:2] != _GZIP:
        return file
    return io.BufferedReader(_Inflated(file, manifest.name), 1 << 18)


def read_head(manifest: ManifestFile) -> bytes:
    """Return the first bytes of a manifest, decompressed. Raises: ManifestError."""
    with open_bytes(manifest) as file:
        return file.read(HEAD_BYTES)


def last_bytes(manifest: ManifestFile, count: int) -> bytes:
    """Return the last bytes of a manifest, decompressed. Raises: ManifestError."""
    with open_bytes(manifest) as file:
        if isinstance(file, io.BufferedReader) and file.seekable():
            file.seek(-min(count, file.seek(0, io.SEEK_END)), io.SEEK_CUR)
        tail = b""
        while data := file.read(BLOCK):
            tail = (tail + data)[-count:]
        return tail


class _Inflated(io.RawIOBase):
    """A decompressed gzip file; an implausible compression ratio is refused."""

    def __init__(self, packed: io.BufferedReader, name: str) -> None:
        self._packed = packed
        self._gzip = gzip.GzipFile(fileobj=packed)
        self._name = name
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        try:
            data = self._gzip.read1(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise ManifestError(
                f"{self._name}: the gzip file is damaged: {error}", hint="fetch or pack it again"
            ) from error
        self._out += len(data)
        if self._out > INFLATED_BYTES and self._out > MOST_RATIO * self._packed.tell():
            raise ManifestError(
                f"{self._name}: more than {MOST_RATIO} bytes come out of each packed byte",
                hint="no manifest packs so well; unpack it yourself if it is one",
            )
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._gzip.close()
        self._packed.close()
        super().close()


_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KINDS = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it; of spreadsheets, .xlsx is read"),
    (b"PK\x05\x06", "an empty ZIP archive", "pack it again"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save it as .xlsx or CSV"),
    (b"%PDF-", "a PDF document", "ask for the table as CSV or .xlsx"),
    (b"\x1f\x8b", "gzip packed twice", "unpack it once"),
    (b"BZh", "a bzip2 file", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it with unxz"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it with unzstd"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"PAR1", "a Parquet file", "export it as CSV or JSON Lines"),
    (b"\x89PNG", "a PNG image", ""),
    (b"\xff\xd8\xff", "a JPEG image", ""),
    (b"GIF8", "a GIF image", ""),
    (b"\x7fELF", "a program", ""),
    (b"MZ\x90", "a Windows program", ""),
    (b"{\\rtf", "an RTF document", "save it as CSV"),
)
_MARKUP = (b"<!doctype html", b"<html", b"<?xml")
_PLAIN_CONTROLS = b"\t\n\r\x0b\x0c\x1a\x1b\x08\x00"
_MOST_NULS = 100
"""A text with at most one NUL byte in so many is damaged; UTF-16 has more."""
_NO_TEXT = frozenset(("Cc", "Cn", "Co", "Cs"))
"""Categories of characters that no text has."""
_CONTROLS = bytes(number for number in range(32) if number not in _PLAIN_CONTROLS)


def encoding_of(head: bytes, name: str, declared: str | None = None) -> tuple[str, bool]:
    """Return the encoding, and whether the file begins with a byte order mark.

    A mark takes precedence over *declared*. Without either: NUL bytes at every other position mean
    UTF-16, hardly any UTF-8.

    Raises: ManifestError for UTF-32 and for files that are not text, UsageError for an unknown
        encoding.
    """
    refuse_non_text(head, name)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            if encoding == "utf-32":
                raise ManifestError(f"{name} is UTF-32", hint="save it as UTF-8")
            return encoding, True
    if declared:
        return checked_encoding(declared), False
    if wide := _wide_encoding(head):
        return wide, False
    if head.count(0) <= len(head) // _MOST_NULS:
        if len(head.translate(None, _CONTROLS)) < len(head) * 0.95:
            raise ManifestError(
                f"{name} is not a text file: it is full of control characters",
                hint="export it as CSV, for instance",
            )
        return "utf-8", False
    raise ManifestError(
        f"{name} is not a text file: it holds NUL bytes",
        hint="export it as CSV, for instance",
    )


def _wide_encoding(head: bytes) -> str:
    """Return which UTF-16 a text without a mark is in; empty if in none.

    In Latin text, NUL bytes stand at every other place. In other text, few do, but the blanks, line
    ends and digits show: read as one of the two, it has some of them and nothing that is no text.
    """
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > len(head) / 4 and even < odd / 10:
        return "utf-16-le"
    if even > len(head) / 4 and odd < even / 10:
        return "utf-16-be"
    if not even + odd or _is_utf8(head):
        return ""
    found = [name for name in ("utf-16-le", "utf-16-be") if _is_text(head[: len(head) & ~1], name)]
    return found[0] if len(found) == 1 else ""


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _is_text(head: bytes, encoding: str) -> bool:
    """Whether bytes are text with line ends in an encoding, cut off wherever."""
    text = head.decode(encoding, "replace").removesuffix("\ufffd")
    kinds = {unicodedata.category(character) for character in set(text) - set("\t\n\r")}
    return "\n" in text and "\ufffd" not in text and kinds.isdisjoint(_NO_TEXT)


def checked_encoding(name: str) -> str:
    """Return Python's name of a text encoding. Raises: UsageError if it is unknown."""
    try:
        found = codecs.lookup(name.strip()).name
        io.TextIOWrapper(io.BytesIO(), encoding=found).read()
    except (LookupError, ValueError, UnicodeError) as error:
        raise UsageError(
            f"encoding {name!r} is not known",
            hint="for instance utf-8, utf-16, cp1252, iso-8859-1, gb18030, shift_jis",
        ) from error
    return {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(found, found)


def refuse_non_text(head: bytes, name: str) -> None:
    """Raises: ManifestError that names the apparent type of a file that is not a manifest."""
    for start, kind, hint in _KINDS:
        if head.startswith(start):
            raise ManifestError(
                f"{name} is not a manifest: it seems to be {kind}",
                hint=hint or "name the table itself, for instance a CSV file",
            )
    if _is_tar(head):
        raise ManifestError(
            f"{name} is not a manifest: it seems to be a tar archive",
            hint="unpack it with tar, and name the files in it",
        )
    if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:20].lower().startswith(_MARKUP):
        raise ManifestError(
            f"{name} is not a manifest: it seems to be a web page or XML",
            hint="an export that needs a login saves its login page; open the file to see",
        )


def _is_tar(head: bytes) -> bool:
    """Return whether a file begins with the header of a tar archive, of any kind: its checksum."""
    block = head[:512]
    stated = block[148:156].strip(b" \0")
    if len(block) < 512 or not stated.isdigit():  # noqa: PLR2004  # bytes of the header
        return False
    blanked = block[:148] + b" " * 8 + block[156:]
    return stated.lstrip(b"0") == b"%o" % sum(blanked)


def decoding_errors(encoding: str) -> str:
    """Return the error handler: keep undecodable bytes as escapes where that is reversible."""
    return "strict" if encoding.startswith("utf-16") else "surrogateescape"


BLOCK = 1 << 16
"""Bytes read at a time."""
_MARK = "\ufeff"
_NOT_LINE_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters that end a line for the fast `str.splitlines`, but not in a manifest."""


def open_text(manifest: ManifestFile, source: Source, errors: str | None = None) -> Text:
    """Open a manifest as text, without its byte order mark and with line ends unchanged.

    *errors*: as for `codecs.decode`. None: see `decoding_errors`; an escape makes its cell invalid
    and is written back as the original byte.
    """
    kept = errors or decoding_errors(source.encoding)
    return Text(open_bytes(manifest), source, kept)


class Text:
    """The text of an open file. Unlike `TextIOWrapper`, it yields all text before an error."""

    def __init__(self, file: BinaryIO, source: Source, errors: str) -> None:
        self._file = file
        self._source = source
        self._decoder = codecs.getincrementaldecoder(source.encoding)(errors)
        self._is_marked = source.bom
        self._read = 0
        self._fault: ManifestError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int = BLOCK) -> str:
        """Return the text of up to *size* more bytes; empty at the end.

        Raises: ManifestError where the file is damaged or not in its encoding.
        """
        while self._fault is None:
            data = self._file.read1(size)  # type: ignore[attr-defined]  # it is buffered
            text = self._decoded(data)
            if text and self._is_marked:
                self._is_marked = False
                text = text.removeprefix(_MARK)
            if text or (not data and self._fault is None):
                return text
        raise self._fault

    def _decoded(self, data: bytes) -> str:
        self._read += len(data)
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            self._fault = self._undecodable(error)
            return error.object[: error.start].decode(self._source.encoding, "replace")

    def _undecodable(self, error: UnicodeDecodeError) -> ManifestError:
        at = self._read - len(error.object) + error.start
        fault = ManifestError(
            f"{self._source.name} is not {self._source.encoding}: {error.reason} "
            f"at byte {at + 1:,}",
            hint="say which one with --encoding, or save it as UTF-8",
        )
        fault.__cause__ = error
        return fault


def blocks(text: Text, name: str) -> Iterator[str]:
    """Yield blocks of whole lines with their ends. *name*: the file's name in messages.

    Raises: ManifestError for a line that is too long, or where the text cannot be read.
    """
    rest = ""
    line = 1
    while block := text.read():
        block = rest + block
        # A final CR may be the first half of a CRLF.
        cut = max(block.rfind("\n"), block.rfind("\r", 0, len(block) - 1)) + 1
        rest = block[cut:]
        line += block.count("\n") or block.count("\r")
        if len(rest) > LONGEST_LINE:
            raise ManifestError(
                f"{name}:{line}: a line of more than {LONGEST_LINE:,} characters",
                hint="a manifest has a row in each line; is this one?",
            )
        if cut:
            yield block[:cut]
    if rest:
        yield rest


def lines_of(block: str, *, keepends: bool = True) -> list[str]:
    """Return the lines of a text that end with CR, LF or CRLF."""
    if any(character in block for character in _NOT_LINE_ENDS):
        lines = list(io.StringIO(block, newline=""))
        return lines if keepends else [line.rstrip("\r\n") for line in lines]
    return block.splitlines(keepends)

"""What a file's first bytes say of its encoding, and of what it is where it is no text."""

from __future__ import annotations

import codecs
import io

from bulkbind.errors import ManifestError, UsageError

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
"""A text with one NUL byte in so many is one with a fault; no UTF-16 has so few."""
_CONTROLS = bytes(number for number in range(32) if number not in _PLAIN_CONTROLS)


def encoding_of(head: bytes, name: str, declared: str | None = None) -> tuple[str, bool]:
    """Return the encoding and whether a byte order mark stands in front.

    A mark wins over what is *declared*. Without either: NUL bytes at every other place mean
    UTF-16, none at all UTF-8.

    Raises: ManifestError for UTF-32 and for what is not text, UsageError for an encoding that
        does not exist.
    """
    refuse_other(head, name)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            if encoding == "utf-32":
                raise ManifestError(f"{name} is UTF-32", hint="save it as UTF-8")
            return encoding, True
    if declared:
        return checked_encoding(declared), False
    if head.count(0) <= len(head) // _MOST_NULS:
        if len(head.translate(None, _CONTROLS)) < len(head) * 0.95:
            raise ManifestError(
                f"{name} is not a text file: it is full of control characters",
                hint="export it as CSV, XLSX, YAML or JSON",
            )
        return "utf-8", False
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > len(head) / 4 and even < odd / 10:
        return "utf-16-le", False
    if even > len(head) / 4 and odd < even / 10:
        return "utf-16-be", False
    raise ManifestError(
        f"{name} is not a text file: it holds NUL bytes",
        hint="export it as CSV, XLSX, YAML or JSON",
    )


def checked_encoding(name: str) -> str:
    """Return Python's name of a text encoding. Raises: UsageError if there is none."""
    try:
        found = codecs.lookup(name.strip()).name
        io.TextIOWrapper(io.BytesIO(), encoding=found).read()
    except (LookupError, ValueError, UnicodeError) as error:
        raise UsageError(
            f"encoding {name!r} is not known",
            hint="for instance utf-8, utf-16, cp1252, iso-8859-1, gb18030, shift_jis",
        ) from error
    return {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(found, found)


def refuse_other(head: bytes, name: str) -> None:
    """Say of a file that is no text what it seems to be. Raises: ManifestError."""
    for start, kind, hint in _KINDS:
        if head.startswith(start):
            raise ManifestError(
                f"{name} is not a manifest: it seems to be {kind}",
                hint=hint or "name a CSV, XLSX, YAML or JSON file",
            )
    if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n")[:20].lower().startswith(_MARKUP):
        raise ManifestError(
            f"{name} is not a manifest: it seems to be a web page or XML",
            hint="an export that needs a login saves its login page; open the file to see",
        )


def decoding_errors(encoding: str) -> str:
    """Return how undecodable bytes are treated: kept as escapes wherever that can be undone."""
    return "strict" if encoding.startswith("utf-16") else "surrogateescape"

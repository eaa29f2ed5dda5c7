"""Making cells with formula errors readable.

calamine returns an empty cell for the errors that it knows, and fails on the whole workbook for
others (`#SPILL!`, `#CALC!`). A copy of the workbook holds these cells as text prefixed with a mark.
"""

from __future__ import annotations

import re
import zipfile
from functools import partial
from typing import IO, TYPE_CHECKING

from bulkbind.manifest.text import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

BLOCK = 1 << 20
"""Bytes of a part processed at a time."""
_USUAL = 1 << 14
"""Bytes within which a cell nearly always begins."""
MARK = "\ue000error\ue000"
"""Prefix of an error's text in the copy; private-use characters, which no text contains."""
IS_ERROR = re.compile(rb"""\st\s*=\s*(?:"e"|'e')""")
"""The type attribute of an error cell."""
_PREFIX = rb"(?:[\w.-]+:)?"
_START = re.compile(rb"<(" + _PREFIX + rb")c(?=[\s/>])")
_END = rb"[^<>]*+>(?:(?<=/>)|[^<]*+(?:<(?!/?" + _PREFIX + rb"c[\s/>])[^<]*+)*+</\1c\s*>)"
"""Up to the end of a cell; possessive, so that a hostile file cannot cause backtracking."""
_CELL = re.compile(_START.pattern + _END)
_ERROR_CELL = re.compile(_START.pattern + rb"(?>[^<>]*?" + IS_ERROR.pattern + rb")" + _END)
_VALUE = re.compile(rb"<(?:[\w.-]+:)?v(?:\s[^<>]*)?>([^<]*)<")


def is_media(part: str) -> bool:
    """Return whether a part is media, which contains no cells."""
    return "/media/" in part.lower()


def copy_marked(path: Path, parts: Collection[str], out: IO[bytes]) -> None:
    """Write a copy of a workbook without media and with the error cells of *parts* marked.

    Raises: ValueError for a cell that never ends, OSError.
    """
    with (
        zipfile.ZipFile(path) as book,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy,
    ):
        for name in dict.fromkeys(book.namelist()):
            if is_media(name) or name.endswith("/"):
                continue
            with book.open(name) as source, copy.open(name, "w", force_zip64=True) as target:
                blocks = iter(partial(source.read, BLOCK), b"")
                target.writelines(marked(blocks) if name in parts else blocks)


def marked(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the XML of a sheet with its error cells as marked text, across block boundaries.

    Raises: ValueError for a cell that never ends.
    """
    rest = b""
    for block in blocks:
        data = rest + block
        whole = _whole(data)
        rest = data[whole:]
        if len(rest) > LONGEST_LINE:
            raise ValueError(f"a cell takes more than {LONGEST_LINE:,} bytes")
        yield _ERROR_CELL.sub(_as_text, data[:whole])
    yield _ERROR_CELL.sub(_as_text, rest)


def _whole(data: bytes) -> int:
    """Return the length of the longest prefix that splits no cell or tag."""
    starts = _starts(data, max(0, len(data) - _USUAL)) or _starts(data, 0)
    if starts and not _CELL.match(data, starts[-1]):
        return starts[-1]
    opened = data.rfind(b"<")
    return opened if opened > data.rfind(b">") else len(data)


def _starts(data: bytes, begin: int) -> list[int]:
    return [found.start() for found in _START.finditer(data, begin)]


def _as_text(cell: re.Match[bytes]) -> bytes:
    prefix = cell[1]
    opening, _, content = cell[0].partition(b">")
    found = _VALUE.search(content)
    return b"".join(
        (
            IS_ERROR.sub(b' t="str"', opening.rstrip(b"/")),
            b"><" + prefix + b"v>",
            MARK.encode() + (found[1].strip() if found else b""),
            b"</" + prefix + b"v></" + prefix + b"c>",
        )
    )

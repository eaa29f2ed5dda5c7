"""Text of any length as whole lines of bounded length, a block at a time."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, BinaryIO

from bulkbind.errors import ManifestError
from bulkbind.manifest.bounds import LONGEST_LINE
from bulkbind.manifest.opening import open_bytes
from bulkbind.manifest.text import decoding_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from bulkbind.model import Source

BLOCK = 1 << 16
"""Bytes read at a time."""
_MARK = "\ufeff"
_NO_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""What ends a line for `str.splitlines`, which is fast, but not in a manifest."""


def open_text(path: Path, source: Source, errors: str | None = None) -> Text:
    """Open a manifest as text, behind its byte order mark, line ends untouched.

    Args:
        path: The file.
        source: Its name and encoding.
        errors: What becomes of undecodable bytes, as for `codecs.decode`. None: wherever it can be
            undone, an escape that breaks its cell, and is written back as it was.
    """
    kept = errors or decoding_errors(source.encoding)
    return Text(open_bytes(path, source.name), source, kept)


class Text:
    """The text of an open file. Unlike Python's own it loses nothing that stands before a fault."""

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
        """Return the next part, from about *size* bytes; an empty one at the end.

        Raises: ManifestError where it cannot be read on: damaged, or not in its encoding.
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
    """Yield whole lines with their ends, some at a time, of a file called *name*.

    Raises: ManifestError for a line over the bound, or where the text cannot be read on.
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
    """Return the lines of a text, with their ends unless said otherwise: CR, LF or CRLF."""
    if any(character in block for character in _NO_ENDS):
        lines = list(io.StringIO(block, newline=""))
        return lines if keepends else [line.rstrip("\r\n") for line in lines]
    return block.splitlines(keepends)

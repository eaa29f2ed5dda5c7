"""Text of any length as lines of bounded length, a block at a time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError
from bulkbind.manifest.bounds import LONGEST_LINE
from bulkbind.manifest.opening import open_bytes
from bulkbind.manifest.text import decoding_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.model import Source

BLOCK = 1 << 16
"""Characters read at a time."""


def open_text(path: Path, source: Source) -> io.TextIOWrapper:
    """Open a manifest as text, behind its byte order mark, line ends untouched.

    An undecodable byte becomes an escape that breaks its cell, and is written back as it was.
    """
    file = io.TextIOWrapper(
        open_bytes(path, source.name),
        encoding=source.encoding,
        errors=decoding_errors(source.encoding),
        newline="",
    )
    if source.bom:
        try:
            file.read(1)
        except UnicodeDecodeError as error:
            file.close()
            raise undecodable(source, error) from error
    return file


def undecodable(source: Source, error: UnicodeDecodeError) -> ManifestError:
    """Return the error for a file that is not in its encoding."""
    return ManifestError(
        f"{source.name} is not {source.encoding}: {error.reason} in bytes {error.start} to "
        f"{error.end} of a block",
        hint="say which one with --encoding, or save it as UTF-8",
    )


def blocks(file: io.TextIOWrapper, source: Source) -> Iterator[list[str]]:
    """Yield the lines of a text with their ends, some at a time.

    Raises: ManifestError for a line over the bound, or bytes that are not in the encoding.
    """
    rest = ""
    line = 1
    while True:
        try:
            text = file.read(BLOCK)
        except UnicodeDecodeError as error:
            raise undecodable(source, error) from error
        if not text:
            break
        text = rest + text
        # A final CR may be the first half of a CRLF.
        cut = max(text.rfind("\n"), text.rfind("\r", 0, len(text) - 1)) + 1
        rest = text[cut:]
        if len(rest) > LONGEST_LINE:
            raise ManifestError(
                f"{source.name}:{line + text.count(chr(10))}: a line of more than "
                f"{LONGEST_LINE:,} characters",
                hint="a manifest has a row in each line; is this one?",
            )
        if cut:
            lines = list(io.StringIO(text[:cut], newline=""))
            line += len(lines)
            yield lines
    if rest:
        yield list(io.StringIO(rest, newline=""))

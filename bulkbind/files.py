"""Atomic file replacement, and lock files."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from bulkbind.errors import LedgerError
from bulkbind.redaction import json_text

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, which is not promised
    fcntl = None  # type: ignore[assignment]  # checked in take_lock

if TYPE_CHECKING:
    from collections.abc import Iterator


KEPT_BYTES = "bulkbind.kept-bytes"
"""Codec error handler: surrogate escapes become their original bytes, all else is escaped."""


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(KEPT_BYTES, _keep_bytes)


@contextmanager
def replacing_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a new file, mode 0600, that replaces *path* when the block succeeds.

    A link at *path* is replaced, not followed.

    Raises: OSError if the folder is missing, or the file cannot be written.
    """
    number, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  # a plain name from mkstemp
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


@contextmanager
def replacing(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[TextIO]:
    """Open a new text file as `replacing_bytes` does, for a report; its folder is created.

    Raises: LedgerError if the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_bytes(path) as file:
            text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
            yield text
            text.detach()
    except OSError as error:
        raise LedgerError(
            f"report file {path} cannot be written: {error.strerror or error}",
            hint="free the disk or choose another --out; `bulkbind report` writes it again",
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON. Raises: LedgerError."""
    with replacing(path) as file:
        file.write(f"{json_text(value)}\n")


def take_lock(path: Path) -> int | None:
    """Acquire a lock file, creating it and its folder; None while another process holds it.

    Returns: A descriptor; closing it, or the end of the process, releases the lock.
    Raises: OSError if the file cannot be created, LedgerError on a platform without such locks.
    """
    if fcntl is None:  # pragma: no cover  # as above
        raise LedgerError("this platform has no file locks that bulkbind knows")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file

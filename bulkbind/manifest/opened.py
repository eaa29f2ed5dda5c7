"""A manifest as a file that is opened once: its rows, digest and identity are of one descriptor.

So whoever puts another file under its name meanwhile changes nothing of what is read.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import weakref
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from _typeshed import WriteableBuffer

_AT_ONCE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""Without the last one, a FIFO would be opened only when somebody writes to it."""
_DIGESTED = 1 << 20
"""Bytes read at a time for the digest."""


class Identity(NamedTuple):
    """Which file it is, and which state of it."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """Return that of a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def unreadable(name: str, error: OSError) -> ManifestError:
    """Return the error for a manifest that the operating system does not let us read."""
    return ManifestError(f"manifest {name} cannot be read: {error.strerror or error}")


def open_once(path: Path, name: str, *, follow: bool = True) -> int:
    """Open a file to read, without waiting for anybody, and return its descriptor.

    *follow*: whether *path* may be a link. Raises: ManifestError.
    """
    try:
        return os.open(path, _AT_ONCE | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise unreadable(name, error) from error


class ManifestFile:
    """An open regular file. Each of its readers has a position of its own.

    Attributes:
        name: In messages and reports; its ending says the format.
        on_read: Called before every read; what it raises ends the reading.
        choice: As `choice_of` returns it.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        """Take over a descriptor of a regular file. Raises: ManifestError if it is another kind."""
        self.name = name
        self.on_read: Callable[[], None] = lambda: None
        self.choice: object = None
        self._descriptor = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)
        """Closes the file, at the latest when nobody uses it any more."""
        self.status = os.fstat(descriptor)
        """As it was when it was opened."""
        if not stat.S_ISREG(self.status.st_mode):
            self.close()
            raise ManifestError(
                f"manifest {name} is not a regular file", hint="name the files themselves, or use -"
            )

    @classmethod
    def of(cls, manifest: Path | ManifestFile, name: str | None = None) -> ManifestFile:
        """Return a manifest that may be open already; a path is opened. Raises: ManifestError."""
        if isinstance(manifest, ManifestFile):
            return manifest
        shown = name or str(manifest)
        return cls(open_once(manifest, shown), shown)

    @property
    def identity(self) -> Identity:
        """Which file it is, as it was when it was opened."""
        return Identity.of(self.status)

    def reader(self) -> io.BufferedReader:
        """Return a reader from the beginning of the file; it may seek.

        Its methods raise ManifestError where the file cannot be read, and what `on_read` raises.
        """
        return io.BufferedReader(_Reader(self, self._descriptor))

    def digest(self) -> bytes:
        """Return the SHA-256 of the file as it is now. Raises: ManifestError."""
        total = hashlib.sha256()
        with self.reader() as file:
            while block := file.read(_DIGESTED):
                total.update(block)
        return total.digest()


class _Reader(io.RawIOBase):
    """Reads an open file from a position of its own; closing it leaves the file open."""

    def __init__(self, file: ManifestFile, descriptor: int) -> None:
        self._file = file  # which closes the descriptor when nobody has it any more
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        self._file.on_read()
        view = memoryview(buffer).cast("B")
        try:
            data = os.pread(self._descriptor, len(view), self._at)
        except OSError as error:  # a bad disk
            raise unreadable(self._file.name, error) from error
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        begins = {os.SEEK_CUR: self._at, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._at = max(0, begins.get(whence, 0) + offset)
        return self._at

    def tell(self) -> int:
        return self._at

"""The bytes of a manifest: as they are, or unpacked from gzip within a bound."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import TYPE_CHECKING, BinaryIO

from bulkbind.errors import ManifestError
from bulkbind.manifest.bounds import INFLATED_BYTES, MOST_RATIO

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import WriteableBuffer

HEAD_BYTES = 65536
_GZIP = b"\x1f\x8b"


def open_bytes(path: Path, name: str) -> BinaryIO:
    """Open a manifest for reading, unpacked if it is gzip.

    What cannot be read, then or later, is a ManifestError that calls the file *name*.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(name, error) from error
    if file.peek(2)[:2] != _GZIP:
        return file
    return io.BufferedReader(_Inflated(file, name), 1 << 18)


def read_head(path: Path, name: str) -> bytes:
    """Return the first bytes of a manifest, unpacked. Raises: ManifestError."""
    try:
        with open_bytes(path, name) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> ManifestError:
    return ManifestError(f"manifest {name} cannot be read: {error.strerror or error}")


class _Inflated(io.RawIOBase):
    """A gzip file unpacked; more than a manifest can hold is refused."""

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

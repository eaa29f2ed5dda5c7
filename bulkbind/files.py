"""Create files and folders: for their owner only, whole, under names that fit; and lock files.

Nothing else in the package creates a file or a folder that stays. Small files are read here, too.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, TextIO

from bulkbind.errors import LedgerError
from bulkbind.redaction import json_text

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, which is not promised
    fcntl = None  # type: ignore[assignment]  # checked in take_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


REPORT_HINT = "free the disk or choose another --out; `bulkbind report` writes it again"
KEPT_BYTES = "bulkbind.kept-bytes"
"""Codec error handler: surrogate escapes become their original bytes, all else is escaped."""


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error(KEPT_BYTES, _keep_bytes)


OWN_FILE, OWN_FOLDER, PUBLIC_FILE = 0o600, 0o700, 0o644
"""Modes of what is created, whatever the umask leaves out: reports name users and devices."""
LONGEST_NAME = 255
"""Bytes of a file name on all common file systems. Source: limits.h(0p), NAME_MAX of Linux."""
_LONGEST_ENDING = 32
"""Bytes of the suffixes that a shortened name keeps."""
MOST_READ = 64 << 20
"""Bytes of a file that is read whole: settings, secrets. The tokens of 100,000 users take fewer."""
_SHOWN = 50
"""Characters of a file's name in that of its forerunner: with what is added, any of them fit."""


def fitting_name(name: str) -> str:
    """Return a file name that is short enough: a part of its stem may become a short digest."""
    if len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    ending = "".join(PurePath(name).suffixes[-2:])
    if len(os.fsencode(ending)) > _LONGEST_ENDING:
        ending = ""
    end = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending}"
    stem = name.removesuffix(ending)
    while len(os.fsencode(stem + end)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem + end


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, mode 0700; one that exists is left as it is.

    Raises: OSError, also if there is a file.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    try:
        path.mkdir(mode=OWN_FOLDER)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        _grant(path, OWN_FOLDER)


def _grant(new: Path | int, mode: int) -> None:
    """Give what was just created its mode, from which the umask may have taken something."""
    with contextlib.suppress(OSError):  # a file system without modes
        given = stat.S_IMODE(os.stat(new).st_mode)  # noqa: PTH116  # a descriptor, too
        if given & 0o777 != mode:  # else left alone
            os.chmod(new, given & ~0o777 | mode)  # noqa: PTH101  # as above


def read_whole(path: Path) -> tuple[bytes, os.stat_result]:
    """Return what a small file holds, and its status, from one descriptor; it may be a pipe.

    Raises: OSError, also if it holds more than MOST_READ, as a device does.
    """
    with path.open("rb") as file:
        return read_within(file), os.fstat(file.fileno())


def read_within(file: BinaryIO) -> bytes:
    """Return what an open file holds. Raises: OSError, also if it is more than MOST_READ."""
    content = file.read(MOST_READ + 1)
    if len(content) > MOST_READ:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def create(path: Path, flags: int, mode: int = OWN_FILE) -> int:
    """Open a file by `os.open`, created if need be; return its descriptor. Raises: OSError.

    A file that exists keeps its mode.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC
    try:
        number = os.open(path, flags | os.O_EXCL, mode)
    except FileExistsError:  # also a link whose target is missing
        return os.open(path, flags, mode)
    _grant(number, mode)
    return number


def appending(path: Path) -> TextIO:
    """Open a text file to append lines to. Raises: OSError, also for a FIFO that nobody reads."""
    number = create(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    os.set_blocking(number, True)
    return os.fdopen(number, "a", encoding="utf-8", buffering=1)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file as one for its owner only, in place of an earlier one. Raises: OSError."""
    with source.open("rb") as file, replacing_bytes(target, is_synced=False) as copied:
        shutil.copyfileobj(file, copied)


@contextmanager
def replacing_bytes(
    path: Path, mode: int = OWN_FILE, *, is_synced: bool = True
) -> Iterator[BinaryIO]:
    """Open a new file that replaces *path* when the block succeeds.

    A link at *path* is replaced, not followed. *is_synced*: it is on the disk then.

    Raises: OSError if the folder is missing, or the file cannot be written.
    """
    number, temporary = tempfile.mkstemp(prefix=f".{path.name[:_SHOWN]}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            _grant(file.fileno(), mode)
            if is_synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  # a plain name from mkstemp
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def sync(path: Path) -> None:
    """Return once what was written to a file is on the disk. Raises: OSError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def replacing(
    path: Path,
    encoding: str = "utf-8",
    errors: str = "strict",
    *,
    what: str = "report file",
    hint: str = REPORT_HINT,
) -> Iterator[TextIO]:
    """Open a new text file as `replacing_bytes` does; its folder is created.

    *what*, *hint*: what is written, and what to do where it cannot be.

    Raises: LedgerError if the folder or the file cannot be written.
    """
    try:
        make_folder(path.parent)
        with replacing_bytes(path) as file:
            text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
            yield text
            text.detach()
    except OSError as error:
        raise LedgerError(
            f"{what} {path} cannot be written: {error.strerror or error}", hint=hint
        ) from error


@contextmanager
def drafts(folder: Path) -> Iterator[Path]:
    """Make a folder for files that may take their places in *folder* later; the rest is removed.

    Raises: LedgerError if it cannot be made.
    """
    try:
        make_folder(folder)
        made = tempfile.TemporaryDirectory(prefix=".draft.", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise LedgerError(
            f"report folder {folder} cannot be written: {error.strerror or error}", hint=REPORT_HINT
        ) from error
    with made as name:
        yield Path(name)


def put_in_place(draft: Path, folder: Path, files: Sequence[Path]) -> list[Path]:
    """Move files of a draft to their places in the folder, each at once; return these.

    Raises: LedgerError.
    """
    places = [folder / path.relative_to(draft) for path in files]
    try:
        for path, place in zip(files, places, strict=True):
            make_folder(place.parent)
            path.replace(place)
    except OSError as error:
        raise LedgerError(
            f"report folder {folder} cannot be written: {error.strerror or error}", hint=REPORT_HINT
        ) from error
    return places


def write_json(
    path: Path, value: object, *, what: str = "report file", hint: str = REPORT_HINT
) -> None:
    """Write a value as JSON. *what*, *hint*: as in `replacing`. Raises: LedgerError."""
    with replacing(path, what=what, hint=hint) as file:
        file.write(f"{json_text(value)}\n")


def take_lock(path: Path) -> int | None:
    """Acquire a lock file, creating it and its folder; None while another process holds it.

    Returns: A descriptor; closing it, or the end of the process, releases the lock.
    Raises: OSError if the file cannot be created, LedgerError on a platform without such locks.
    """
    if fcntl is None:  # pragma: no cover  # as above
        raise LedgerError("this platform has no file locks that bulkbind knows")
    make_folder(path.parent)
    file = create(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file

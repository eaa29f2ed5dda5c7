"""The ledger's lock: on the file itself, whatever it is called, and refusal of a shared file."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import socket
import struct
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.errors import LedgerBusyError, LedgerError
from bulkbind.files import create, make_folder, take_lock

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, which is not promised; `take_lock` refuses it
    fcntl = None  # type: ignore[assignment]  # as above

if TYPE_CHECKING:
    from collections.abc import Iterator

ELSEWHERE = "or choose another place with --ledger FILE"
FREE = f"free the disk, {ELSEWHERE}"
READ_ONLY = f"its disk or file is read-only: make it writable, {ELSEWHERE}"
RIGHTS = f"give this user the right to read and write it and its folder, {ELSEWHERE}"
_FOLDER = "it is a folder: name a file, for instance one in it, with --ledger FILE"
_NO_FOLDER = f"a part of its path is a file: {ELSEWHERE[3:]}"
_HINTS = {
    errno.EISDIR: _FOLDER,
    errno.EROFS: READ_ONLY,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.ENOSPC: FREE,
    errno.EDQUOT: FREE,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,  # raised by `mkdir`
}
_EMULATED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs"})
"""File systems that lock all bytes of a file for `flock`, and SQLite's with them."""
_OWN_BYTE = 1 << 62
"""Locked on those instead: far behind the bytes that SQLite locks, at 1 GiB."""
_ONE_LOCK = struct.Struct("@hhqqi0q")
"""`struct flock`: type, whence, start, length, process."""
_MOUNTS = Path("/proc/self/mountinfo")


def refused(what: str, error: OSError, elsewhere: str = ELSEWHERE) -> LedgerError:
    """Return the error for a file that the operating system does not let us use.

    *elsewhere*: what else the operator may choose, if it is not the ledger.
    """
    hint = _HINTS.get(error.errno or 0, ELSEWHERE[3:])
    of_folder = _FOLDER if elsewhere == ELSEWHERE else f"it is a folder: {elsewhere[3:]}"
    hint = hint.replace(ELSEWHERE, elsewhere).replace(ELSEWHERE[3:], elsewhere[3:])
    return LedgerError(f"{what}: {error.strerror}", hint=hint.replace(_FOLDER, of_folder))


@dataclass(slots=True)
class _Kept:
    """A ledger that this process has locked, now or earlier."""

    file: int
    """Its descriptor. Closing it would end SQLite's own locks, which are of process and file."""
    is_held: bool = False


_kept: dict[tuple[int, int], _Kept] = {}
"""By device and inode; a descriptor is closed only once its file is deleted."""
_guard = threading.Lock()


class Holder(NamedTuple):
    """Who has the lock, or had it last."""

    pid: int
    host: str
    started_at: str = ""

    def is_alive(self) -> bool | None:
        """Return whether the process exists; None if that cannot be known here."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's process
            return True
        return True


def _lock_of(ledger: Path) -> Path:
    return ledger.with_name(ledger.name + ".lock")


def holder_of(ledger: Path) -> Holder | None:
    """Return who has a ledger's lock, or had it last; None if nobody has said so."""
    try:
        known = json.loads(_lock_of(ledger).read_bytes())
        return Holder(int(known["pid"]), str(known["host"]), str(known["started_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class LedgerLock:
    """Locks a ledger from `acquire` to `release`, or until the process ends.

    The file is locked, so that its links and mounts share the lock, and its name as well:
    `<ledger>.lock` says who holds it, and keeps out versions that lock nothing else.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._path = _lock_of(ledger)
        self._kept: _Kept | None = None
        self._named: int | None = None

    def acquire(self, holder: dict[str, Any]) -> None:
        """Acquire the lock and write *holder* (`pid`, `host`, `started_at`) into `<ledger>.lock`.

        A missing ledger is created, and so is its folder, for the owner only.

        Raises: LedgerBusyError that names the holder; LedgerError if the file cannot be opened, or
            if others may reach it by another path, where SQLite would not find its log.
        """
        try:
            make_folder(self._ledger.parent)
            with _guard:
                self._kept = _taken(self._ledger)
        except OSError as error:
            raise refused(f"ledger {self._ledger} cannot be opened", error) from error
        try:
            if self._kept is not None:
                _refuse_other_paths(self._ledger, os.fstat(self._kept.file))
                self._named = take_lock(self._path)
            if self._named is not None:
                os.ftruncate(self._named, 0)
                os.pwrite(self._named, json.dumps(holder).encode(), 0)
        except OSError as error:
            self.release()
            raise refused(f"lock {self._path} cannot be made", error) from error
        except BaseException:
            self.release()
            raise
        if self._named is None:
            self.release()
            raise LedgerBusyError(
                f"another run holds the ledger: {self._holder()}",
                hint="--wait 10m waits for it; `bulkbind runs` shows it",
            )

    def release(self) -> None:
        """Release the lock if it is held; the ledger's descriptor stays open."""
        if self._named is not None:
            os.close(self._named)
            self._named = None
        if self._kept is not None:
            with _guard:
                _lock(self._kept.file, fcntl.LOCK_UN)
                self._kept.is_held = False
            self._kept = None

    def _holder(self) -> str:
        if (known := holder_of(self._ledger)) is None:
            return "it has not said who it is"
        return f"pid {known.pid} on {known.host} since {known.started_at}"


def _taken(path: Path) -> _Kept | None:
    """Return the locked file at *path*, created if need be; None while somebody else holds it.

    Raises: OSError if it cannot be opened or locked.
    """
    while True:
        kept = _opened(path)
        if kept.is_held or not _lock(kept.file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return None
        found = _identity(path)
        if found is not None and _kept.get(found) is kept:
            kept.is_held = True
            return kept
        _lock(kept.file, fcntl.LOCK_UN)  # it has been deleted or replaced meanwhile


def _opened(path: Path) -> _Kept:
    """Return the file at *path*, opened at most once by this process. Raises: OSError."""
    for key, old in list(_kept.items()):
        if not old.is_held and not os.fstat(old.file).st_nlink:
            os.close(_kept.pop(key).file)
    found = _identity(path)
    if found in _kept:
        return _kept[found]
    file = create(path, os.O_RDWR)
    status = os.fstat(file)
    return _kept.setdefault((status.st_dev, status.st_ino), _Kept(file))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _lock(file: int, how: int) -> bool:
    """Lock or unlock a file; return False while another process holds it. Raises: OSError.

    On Linux only: elsewhere, as on macOS, `flock` and SQLite's locks exclude each other, and the
    lock of the name has to do.
    """
    if not sys.platform.startswith("linux"):  # pragma: no cover  # as above
        return True
    try:
        if _is_emulated(os.fstat(file).st_dev):
            # Of the open file, as `flock` is: a process's lock ends with any of its descriptors.
            kind = fcntl.F_UNLCK if how == fcntl.LOCK_UN else fcntl.F_WRLCK
            byte = _ONE_LOCK.pack(kind, os.SEEK_SET, _OWN_BYTE, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, byte)
        else:
            fcntl.flock(file, how)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_emulated(device: int) -> bool:
    """Return whether a file system emulates `flock` by locks like SQLite's; Linux only."""
    number = f"{os.major(device)}:{os.minor(device)}"
    return any(found == number and kind in _EMULATED for found, _, kind in _mounts())


def _refuse_other_paths(path: Path, status: os.stat_result) -> None:
    """Raises: LedgerError if a ledger has another path, where its log would not be found."""
    if status.st_nlink > 1:
        name = shlex.quote(str(path))
        raise LedgerError(
            f"ledger {path} has {status.st_nlink} names (hard links), and SQLite keeps its log "
            "beside one of them: by another one, bindings would be lost",
            hint=f"keep one of them, or make it a file of its own: cp {name} OTHER && "
            f"mv OTHER {name}",
        )
    points = {point for _, point, _ in _mounts()}
    # On overlays, a file may have another device number than its folder without being mounted.
    is_mounted = str(path) in points
    if is_mounted or (not points and status.st_dev != path.parent.stat().st_dev):
        raise LedgerError(
            f"ledger {path} is mounted as a single file, and SQLite keeps its log beside it: where "
            "the file comes from, bindings would be lost",
            hint="mount the folder that holds it instead",
        )


def _mounts() -> Iterator[tuple[str, str, str]]:
    """Yield device number, mount point and type of each mount; none where that is not known.

    Source: proc_pid_mountinfo(5).
    """
    try:
        lines = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        parts = fields.split()
        point = re.sub(rb"\\([0-7]{3})", lambda found: bytes((int(found[1], 8),)), parts[4])
        yield parts[2].decode(), os.fsdecode(point), rest.split()[0].decode()

"""One sending run at a time: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from bulkbind.errors import LedgerBusyError, LedgerError
from bulkbind.ledger.store import refused

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows, which is not promised
    fcntl = None  # type: ignore[assignment]  # asked for below


class LedgerLock:
    """Holds `<ledger>.lock` from `acquire` to `release`, or until the process dies."""

    def __init__(self, ledger: Path) -> None:
        self._path = ledger.with_name(ledger.name + ".lock")
        self._file: int | None = None

    def acquire(self, holder: dict[str, Any]) -> None:
        """Take the lock and write *holder* (`pid`, `host`, `started_at`) into it.

        Raises: LedgerBusyError that names the holder, LedgerError if the file cannot be made.
        """
        if fcntl is None:  # pragma: no cover  # as above
            raise LedgerError("this platform has no file locks that bulkbind knows")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refused(f"lock {self._path} cannot be made", error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(file, 4096, 0).decode("utf-8", "replace")
            os.close(file)
            raise LedgerBusyError(
                f"another run holds the ledger: {_describe(text)}",
                hint="--wait 10m waits for it; `bulkbind runs` shows it",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(holder).encode(), 0)
        self._file = file

    def release(self) -> None:
        """Give the lock back; does nothing where it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _describe(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"pid {holder['pid']} on {holder['host']} since {holder['started_at']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said who it is"

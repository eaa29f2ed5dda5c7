"""Store sessions in files next to the ledger, for later runs."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError
from bulkbind.files import replacing_bytes, take_lock
from bulkbind.koodrive.auth.secret_sources import read_private
from bulkbind.logs import logger
from bulkbind.redaction import learn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bulkbind.clock import Clock

LOOK_AGAIN_S = 0.05
PATIENCE_S = 60.0
"""How long to wait for another process that renews."""


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """A session as stored."""

    root: str
    """Identifies the credentials that it descends from; see `root_of`."""
    access_token: str
    refresh_token: str
    expires_at: float
    """Seconds since 1970 by the local clock."""


def root_of(kind: str, text: str) -> str:
    """Return what identifies configured credentials without revealing them."""
    return hashlib.sha256(f"bulkbind session\n{kind}\n{text}".encode()).hexdigest()


def session_file(ledger: Path) -> Path:
    """Return the file of the session for all users."""
    return ledger.with_name(f"{ledger.name}.session")


def session_folder(ledger: Path) -> Path:
    """Return the folder of sessions per user."""
    return ledger.with_name(f"{ledger.name}.sessions")


def session_files(ledger: Path) -> list[Path]:
    """Return the files of all sessions stored next to a ledger."""
    own, folder = session_file(ledger), session_folder(ledger)
    files = [own, *(folder.iterdir() if folder.is_dir() else ())]
    return [path for path in files if path.is_file() and path.suffix != ".lock"]


class SessionStore:
    """One session in a file: mode 0600, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def held(self, clock: Clock) -> AsyncIterator[None]:
        """Hold the session's lock: no other process renews it meanwhile.

        Raises: LedgerError if the folder cannot be written, or another process keeps the lock.
        """
        lock = self._path.with_name(self._path.name + ".lock")
        until = clock.monotonic() + PATIENCE_S
        try:
            while (file := take_lock(lock)) is None:
                if clock.monotonic() >= until:
                    raise LedgerError(
                        f"another process has been renewing the session for {PATIENCE_S:g} s",
                        hint=f"it holds {lock}",
                    )
                await clock.sleep(LOOK_AGAIN_S)
        except OSError as error:
            raise LedgerError(f"lock {lock} cannot be made: {error.strerror}") from error
        try:
            yield
        finally:
            os.close(file)

    def read(self, root: str) -> Stored | None:
        """Return the session if it descends from these credentials.

        Raises: UsageError if others can read it.
        """
        if not self._path.exists():
            return None
        try:
            stored = Stored(**json.loads(read_private(self._path)))
        except (ValueError, TypeError):
            logger().warning("session.unreadable", path=str(self._path))
            return None
        learn(stored.access_token, stored.refresh_token)
        return stored if stored.root == root else None

    def write(self, stored: Stored) -> None:
        """Store a session. One that cannot be stored is logged, and serves this run only."""
        try:
            with replacing_bytes(self._path) as file:
                file.write(json.dumps(asdict(stored)).encode())
            _sync(self._path.parent)
        except OSError as error:
            logger().warning(
                "session.unsaved",
                path=str(self._path),
                why=error.strerror,
                hint="the next run needs a new refresh token, or an account to log in with",
            )


def _sync(folder: Path) -> None:
    """Make a rename in a folder durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)

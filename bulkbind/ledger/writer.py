"""One thread that owns the connection; what waits for it shares a transaction (group commit).

A ledger that was deleted under our hands is written anew: what is open still holds all of it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.errors import BulkbindError, LedgerError
from bulkbind.ledger.store import ELSEWHERE, connect, is_damage, transaction, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Identity = tuple[int, int]
"""Of a file: device and inode."""


def identity(path: Path) -> Identity | None:
    """Return which file stands at a path, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(db: sqlite3.Connection, path: Path) -> LedgerError:
    """Write all that a deleted ledger held to a file again, and close it.

    In the old place where nothing stands there now, else beside it. Returns: the error to end with.
    """
    what = f"ledger {path} was deleted or replaced while it was in use"
    try:
        target = _copied(db, path)
    except (OSError, sqlite3.Error) as error:
        return LedgerError(
            f"{what}, and what it held could not be written again: {error}",
            hint="what was sent is known to the server alone: run the manifest once more, and what "
            f"is bound already is told by its answers and lists; {ELSEWHERE}",
        )
    if target == path:
        return LedgerError(
            f"{what}; all that it held was put back there",
            hint="`bulkbind resume` goes on, and what was in flight is settled by the server's "
            "list; find out who deletes it",
        )
    return LedgerError(
        f"{what}; all that it held is in {target}",
        hint=f"another file stands in its place: `bulkbind resume --ledger {target}` goes on",
    )


def _copied(db: sqlite3.Connection, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(part)) as copy:
            db.backup(copy)
        # Closed before the copy takes its place: SQLite deletes the log that stands beside it.
        db.close()
        return _linked(part, path)
    finally:
        for ending in ("", "-wal", "-shm"):
            part.with_name(part.name + ending).unlink(missing_ok=True)


def _linked(part: Path, path: Path) -> Path:
    """Give the copy a name, never one that is taken."""
    if not path.exists():
        for leftover in ("-wal", "-shm"):  # of the deleted file: they are no part of the copy
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(part, path)
            return path
    beside = path.with_name(f"{path.stem}.rescued-{os.getpid()}{path.suffix}")
    os.link(part, beside)
    return beside


T = TypeVar("T")

LARGEST_GROUP = 256
"""Operations that share one transaction at most."""


@dataclass(slots=True)
class _Operation:
    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    alone: bool
    """Manages its own transactions."""
    result: Any = None


class Writer:
    """Runs functions on the ledger's connection, in the order in which they were handed in.

    After a failure nothing more is written: every later call raises the same error.
    """

    def __init__(self, path: Path, endpoint: str | None) -> None:
        self._path = path
        self._endpoint = endpoint
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._failure: BulkbindError | None = None
        self._file: Identity | None = None
        """The file that was opened."""
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    async def open(self) -> None:
        """Start the thread and open the file. Raises: LedgerError."""
        self._thread.start()
        await self._opened

    async def close(self) -> None:
        """Finish what was handed in, then close the file; safe to be cancelled, and to repeat."""
        if self._thread.ident is None:
            return
        if not self._closed.done():
            self._queue.put(None)
        await asyncio.shield(self._closed)
        self._thread.join()

    def submit(
        self, work: Callable[[sqlite3.Connection], T], *, alone: bool = False
    ) -> asyncio.Future[T]:
        """Hand in *work*; the future is done once it is committed.

        Args:
            work: Called in the thread, inside a transaction shared with its neighbours.
            alone: It manages its own transactions instead.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self._failure is not None:
            # A new one each time: a raised error gathers the traceback of everybody who raises it.
            future.set_exception(LedgerError(str(self._failure), hint=self._failure.hint))
        else:
            self._queue.put(_Operation(work, future, alone))
        return future

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            db = connect(self._path, self._endpoint)
        except BulkbindError as error:
            self._tell(_fail, self._opened, error)
            self._tell(_done, self._closed)
            return
        self._file = identity(self._path)
        self._tell(_done, self._opened)
        try:
            while self._step(db):
                pass
        finally:
            try:
                db.close()
            finally:
                self._tell(_done, self._closed)

    def _step(self, db: sqlite3.Connection) -> bool:
        """Take what waits, as one group; return whether to go on."""
        first = self._queue.get()
        if first is None:
            return False
        group, follower, going = [first], None, True
        while not first.alone and len(group) < LARGEST_GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                going = False
                break
            if item.alone:
                follower = item
                break
            group.append(item)
        self._execute(db, group)
        if follower is not None:
            self._execute(db, [follower])
        return going

    def _execute(self, db: sqlite3.Connection, group: list[_Operation]) -> None:
        error: BulkbindError | None = self._failure
        if error is None:
            error = self._attempt(db, group)
            # What this group wrote is in the file that is gone, and is rescued with the rest.
            if identity(self._path) != self._file:
                error = rescue(db, self._path)
        if error is None:
            for item in group:
                self._tell(_done, item.future, item.result)
            return
        # A manifest that cannot be read on is no trouble of the ledger's.
        if isinstance(error, LedgerError) or not group[0].alone:
            self._failure = error
        for item in group:
            self._tell(_fail, item.future, error)

    def _attempt(self, db: sqlite3.Connection, group: list[_Operation]) -> BulkbindError | None:
        try:
            if group[0].alone:
                group[0].result = group[0].work(db)
            else:
                with transaction(db):
                    for item in group:
                        item.result = item.work(db)
        except BulkbindError as error:
            return error
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return translated(self._path, error, is_untouched=False)
            return LedgerError(
                f"ledger {self._path} could not be written: {error}",
                hint="free the disk or mend its rights; `bulkbind resume` then goes on, and what "
                "was in flight is settled by the server's list",
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, whoever waits must be told
            return LedgerError(f"ledger {self._path}: {type(error).__name__}: {error}")
        return None

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _done(future: asyncio.Future[Any], result: object = None) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # somebody may have stopped waiting: that is no error of its own

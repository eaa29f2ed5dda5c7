"""One thread that owns the connection; what waits for it shares a transaction (group commit)."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bulkbind.errors import BulkbindError, LedgerError
from bulkbind.ledger.rescue import Identity, identity, rescue
from bulkbind.ledger.store import connect, transaction
from bulkbind.ledger.trouble import is_damage, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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

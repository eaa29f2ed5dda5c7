"""Verbs, and the thread that executes them on the connection, in groups that share a commit.

A ledger deleted while in use is rescued: the open file still holds all of it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shlex
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from bulkbind.errors import BulkbindError, LedgerError
from bulkbind.files import make_folder
from bulkbind.ledger.backup import ENDINGS, copy_database
from bulkbind.ledger.lock import ELSEWHERE
from bulkbind.ledger.opening import connect, is_damage, translated
from bulkbind.ledger.store import transaction
from bulkbind.model import TimeSpent, TimeUse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from datetime import datetime
    from pathlib import Path

    from bulkbind.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verb(Generic[P, T]):
    """A function of the connection, exposed as an awaitable method of `Verbs`."""

    work: Callable[..., T]
    """Called in the writer's thread, in a transaction shared with other verbs."""
    is_timed: bool
    """Takes the time of the call, in UTC, as second argument."""
    is_alone: bool
    """Manages its own transactions instead."""
    is_last: bool
    """Waits until every outcome submitted before is durable."""
    is_aside: bool
    """Leaves every row as it was, so that what was read of rows before it still holds."""

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: Verbs, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(
        self, owner: Verbs | None, kind: type
    ) -> Self | Callable[P, Coroutine[Any, Any, T]]:
        """Return the verb itself or a bound method; once awaited, its change survives a crash."""
        return self if owner is None else partial(owner.execute, self)


def verb(
    work: Callable[Concatenate[sqlite3.Connection, P], T],
    *,
    alone: bool = False,
    last: bool = False,
    aside: bool = False,
) -> Verb[P, T]:
    """Make a verb of a function of the connection.

    *alone*: it manages its own transactions. *last*: it waits until every outcome submitted before
    is durable. *aside*: it leaves every row as it was.
    """
    return Verb(work, is_timed=False, is_alone=alone, is_last=last, is_aside=aside)


def timed_verb(
    work: Callable[Concatenate[sqlite3.Connection, datetime, P], T],
    *,
    alone: bool = False,
    last: bool = False,
    aside: bool = False,
) -> Verb[P, T]:
    """Make a verb of a function of the connection and the current time; otherwise as `verb`."""
    return Verb(work, is_timed=True, is_alone=alone, is_last=last, is_aside=aside)


class Verbs:
    """A class whose methods are verbs; `vars` of the class lists them by name."""

    def __init__(self, writer: Writer, flushed: Callable[[], Awaitable[None]]) -> None:
        """*flushed* returns once every submitted outcome is durable."""
        self._writer = writer
        self._flushed = flushed
        self.time = TimeSpent()
        """What the time of sending goes to: also to these."""

    async def execute(self, what: Verb[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Execute a verb and return its result once committed. Raises: LedgerError."""
        with self.time.waiting(TimeUse.LEDGER):
            if what.is_last:
                await self._flushed()
            return await self._writer.submit(what, *args, **kwargs)


LARGEST_GROUP = 256
"""The most operations that share one transaction."""
LEFT_S = 0.5
"""How long to wait at the end for an operation whose caller has left it."""


@dataclass(slots=True)
class _Operation:
    verb: Verb[..., Any]
    call: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    result: Any = None


class Writer:
    """Executes verbs on the ledger's connection in the order submitted.

    After a failure nothing more is written; every later call raises the same error.
    """

    def __init__(self, path: Path, endpoint: str | None, clock: Clock) -> None:
        self._path = path
        self._endpoint = endpoint
        self._clock = clock
        self._queue: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._failure: BulkbindError | None = None
        self._group: list[_Operation] = []
        """What is being executed."""
        self._file: tuple[int, int] | None = None
        """Device and inode of the opened file."""
        self.changes = 0
        """Verbs submitted so far that may change rows."""
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    async def open(self) -> None:
        """Start the thread and open the file. Raises: LedgerError."""
        self._thread.start()
        await self._opened

    async def close(self, closed: Callable[[], None]) -> None:
        """Finish what was submitted, then close the file; may be cancelled and repeated.

        What the thread is at is left to it after `LEFT_S` if whoever wanted it has left: as after a
        crash, it is committed or not. It ends with the thread or the process, whichever is first.

        *closed*: called once the file is closed, which may be after this returns.
        """
        if self._thread.ident is None:
            closed()
            return
        if not self._closed.done():
            self._queue.put(None)
        wanted = [self._opened, *(item.future for item in self._group)]
        is_left = any(future.cancelled() for future in wanted)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEFT_S if is_left else None):
                    await asyncio.shield(self._closed)
        finally:
            if self._closed.done():
                self._thread.join()
                closed()
            else:
                self._closed.add_done_callback(lambda _: closed())

    def submit(self, what: Verb[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Submit a verb; the future is done once it is committed."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._failure is not None:
            # A new error each time: raising the same one again would extend its traceback.
            future.set_exception(LedgerError(str(self._failure), hint=self._failure.hint))
            return future
        self.changes += not what.is_aside
        moment = (self._clock.utc_now(),) if what.is_timed else ()

        def call(db: sqlite3.Connection) -> T:
            return what.work(db, *moment, *args, **kwargs)

        self._queue.put(_Operation(what, call, future))
        return future

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            db = connect(self._path, self._endpoint)
        except BulkbindError as error:
            self._notify(_fail, self._opened, error)
            self._notify(_done, self._closed)
            return
        self._file = file_id(self._path)
        self._notify(_done, self._opened)
        try:
            while self._step(db):
                pass
        finally:
            try:
                db.close()
            finally:
                self._notify(_done, self._closed)

    def _step(self, db: sqlite3.Connection) -> bool:
        """Execute the queued verbs as one group; return False once closed."""
        first = self._queue.get()
        if first is None:
            return False
        group, follower, going = [first], None, True
        while not first.verb.is_alone and len(group) < LARGEST_GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                going = False
                break
            if item.verb.is_alone:
                follower = item
                break
            group.append(item)
        self._execute(db, group)
        if follower is not None:
            self._execute(db, [follower])
        return going

    def _execute(self, db: sqlite3.Connection, group: list[_Operation]) -> None:
        error: BulkbindError | None = self._failure
        self._group = group
        if error is None:
            error = self._attempt(db, group)
            # What this group wrote is in the deleted file, and is rescued with the rest.
            if file_id(self._path) != self._file:
                error = rescue(db, self._path)
        if error is None:
            for item in group:
                self._notify(_done, item.future, item.result)
            return
        # An unreadable manifest, read by a verb of its own, is not a failure of the ledger.
        if isinstance(error, LedgerError) or not group[0].verb.is_alone:
            self._failure = error
        for item in group:
            self._notify(_fail, item.future, error)

    def _attempt(self, db: sqlite3.Connection, group: list[_Operation]) -> BulkbindError | None:
        try:
            if group[0].verb.is_alone:
                group[0].result = group[0].call(db)
            else:
                with transaction(db):
                    for item in group:
                        item.result = item.call(db)
        except BulkbindError as error:
            return error
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return translated(self._path, error, is_untouched=False)
            return LedgerError(
                f"ledger {self._path} could not be written: {error}",
                hint="free the disk or fix its rights; then run the same command to resume. What "
                "was in flight is settled by the server's list",
            )
        except Exception as error:  # noqa: BLE001  # the callers must not wait for ever
            return LedgerError(f"ledger {self._path}: {type(error).__name__}: {error}")
        return None

    def _notify(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: no caller is waiting
            return


def _done(future: asyncio.Future[Any], result: object = None) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved, in case the caller was cancelled


def file_id(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at *path*; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(db: sqlite3.Connection, path: Path) -> LedgerError:
    """Copy a ledger deleted while in use to a new file, and close it.

    The new file is at *path* or, if that exists again, under another name in the same folder.
    Returns: The error that ends the run.
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
            hint="`bulkbind resume` resumes, and what was in flight is settled by the server's "
            "list; find out who deletes it",
        )
    command = f"bulkbind resume --ledger {shlex.quote(str(target))}"
    return LedgerError(
        f"{what}; all that it held is in {target}",
        hint=f"another file stands in its place: `{command}` resumes",
    )


def _copied(db: sqlite3.Connection, path: Path) -> Path:
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        copy_database(db, part)
        # Closed before the copy takes its place, since closing deletes the log at that path.
        db.close()
        return _linked(part, path)
    finally:
        for ending in ENDINGS:
            part.with_name(part.name + ending).unlink(missing_ok=True)


def _linked(part: Path, path: Path) -> Path:
    """Link the copy to an unused name and return it."""
    if not path.exists():
        for leftover in ("-wal", "-shm"):  # of the deleted file, not of the copy
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        with suppress(FileExistsError):
            os.link(part, path)
            return path
    saved = path.with_name(f"{path.stem}.rescued-{os.getpid()}{path.suffix}")
    os.link(part, saved)
    return saved

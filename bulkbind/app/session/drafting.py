"""The report of a run, written while its connections are only listened to."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from bulkbind.app.reports import draft_report
from bulkbind.errors import LedgerError
from bulkbind.model import Status, UnbindKind

if TYPE_CHECKING:
    from bulkbind.app.reports import Report
    from bulkbind.app.session.session import Session
    from bulkbind.ledger import Ledger


class Drafting:
    """Begins with the report once all rows have ended; it counts unless one changes again.

    A context manager around the sending and the end of the run.
    """

    def __init__(self, session: Session, ledger: Ledger, run: int, run_id: str) -> None:
        self._session = session
        self._ledger = ledger
        self._run, self._run_id = run, run_id
        self._task: asyncio.Task[Report | None] | None = None
        self._changes = -1
        """Of the ledger, before what is written was read; -1: nothing was."""
        self._is_last: Future[bool] = Future()

    async def __aenter__(self) -> Self:
        """Begin with nothing."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Throw away what was written, unless the run has ended well."""
        await self._ended(is_last=False)

    def begin(self) -> None:
        """Write, unless that has begun; it is given up if anything is left to be done."""
        is_inbox = self._session.is_inbox  # whose reports go elsewhere
        if not is_inbox and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._draft(), name="draft")

    async def report(self) -> Report | None:
        """Return the report of the run, which has ended; None if it is still to be written."""
        return await self._ended(is_last=self._changes == self._ledger.changes)

    async def _ended(self, *, is_last: bool) -> Report | None:
        if not self._is_last.done():
            self._is_last.set_result(is_last)
        return None if self._task is None else await asyncio.shield(self._task)

    async def _draft(self) -> Report | None:
        try:
            await self._ledger.flushed()
            changes = self._ledger.changes
            if await self._is_left():
                return None
            self._changes = changes
            session = self._session
            return await asyncio.to_thread(
                draft_report,
                session.settings,
                self._run_id,
                self._is_last.result,
                goes_on=session.listener.goes_on,
            )
        except LedgerError:
            return None  # whoever needs the ledger, or writes the report again, is told

    async def _is_left(self) -> bool:
        """Return whether something is to be done with the rows; what was submitted is committed."""
        for kind in (UnbindKind.MOVE, UnbindKind.LEAVE):
            if await self._ledger.unbindings.count_left(self._run, kind):
                return True
        return Status.CLAIMED in await self._ledger.counts(self._run)

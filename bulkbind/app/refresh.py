"""`run --refresh`: find in the server's lists which known bindings have vanished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.app.session.lists import read_lists
from bulkbind.app.session.session import nothing_sent
from bulkbind.engine.stop import DrainedError
from bulkbind.ledger import SkippedReader, reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkbind.app.session.session import Session
    from bulkbind.ledger import Ledger
    from bulkbind.model import Record


async def refresh(session: Session, ledger: Ledger, run: int) -> None:
    """Find which bindings that a staged run would skip have vanished from the server.

    The list of each of their users is read. One that lacks a binding is read again after
    `readback_settle`, so that one wrong answer proves nothing. What has vanished fails, or is
    staged to be bound again with `rebind_missing`.

    Raises: UnreadableListError, InterruptedRunError, UsageError, LedgerError.
    """
    settings = session.settings
    with reading(settings.ledger_path(), settings.endpoint()) as db:
        search = _Search(session, SkippedReader(db, run))
        users = await search.read(search.reader.user_ids())
        if search.vanished:
            await _wait_to_settle(session)
            await search.read(list(search.vanished))
    gone = [row for rows in search.vanished.values() for row in rows]
    is_bound_again = settings.manifest.rebind_missing
    await ledger.mark_vanished(run, gone, users=users, bind_again=is_bound_again)
    if gone:
        what = "to be bound again" if is_bound_again else "--rebind-missing binds them again"
        session.listener.notice(f"{len(gone):,} bindings have vanished from the server; {what}")


async def _wait_to_settle(session: Session) -> None:
    """Wait until even a lagging list is up to date. Raises: InterruptedRunError."""
    try:
        await session.stop.sleep(session.clock, session.settings.doubt.readback_settle)
    except DrainedError:
        assert session.stop.reason is not None, "nothing else cuts a wait short"
        raise nothing_sent(session.stop.reason) from None


class _Search:
    """Collects, by user, the rows that the user's latest list lacks."""

    def __init__(self, session: Session, reader: SkippedReader) -> None:
        self._session = session
        self.reader = reader
        self.vanished: dict[str, list[int]] = {}

    async def read(self, users: Iterable[str]) -> int:
        """Read lists and note what each lacks; return their number. Raises: as `read_lists`."""
        count = 0

        def note(user: str, records: dict[str, Record]) -> None:
            nonlocal count
            count += 1
            self._session.pulse.beat()
            lacking = [row for row, code in self.reader.of(user) if code not in records]
            if lacking:
                self.vanished[user] = lacking
            else:
                self.vanished.pop(user, None)

        await read_lists(self._session, users, note)
        return count

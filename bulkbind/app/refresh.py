"""`run --refresh`: what the ledger knows as bound is looked for in the server's lists."""

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

    A list call for each of their users; who lacks something is read once more after
    `readback_settle`, so that one wrong answer takes nothing for gone. What has vanished fails, or
    with `rebind_missing` is staged to be bound again.

    Raises: UnreadableListError, InterruptedRunError, UsageError, LedgerError.
    """
    settings = session.settings
    with reading(settings.ledger_path(), settings.endpoint()) as db:
        search = _Search(session, SkippedReader(db, run))
        users = await search.look(search.reader.user_ids())
        if search.vanished:
            await _settled(session)
            await search.look(list(search.vanished))
    gone = [row for rows in search.vanished.values() for row in rows]
    is_bound_again = settings.manifest.rebind_missing
    await ledger.mark_vanished(run, gone, users=users, bind_again=is_bound_again)
    if gone:
        what = "to be bound again" if is_bound_again else "--rebind-missing binds them again"
        session.listener.notice(f"{len(gone):,} bindings have vanished from the server; {what}")


async def _settled(session: Session) -> None:
    """Wait until a list would show what it did not show yet. Raises: InterruptedRunError."""
    try:
        await session.stop.sleep(session.clock, session.settings.doubt.readback_settle)
    except DrainedError:
        assert session.stop.reason is not None, "nothing else cuts a wait short"
        raise nothing_sent(session.stop.reason) from None


class _Search:
    """The rows of each user's that the user's newest list lacks."""

    def __init__(self, session: Session, reader: SkippedReader) -> None:
        self._session = session
        self.reader = reader
        self.vanished: dict[str, list[int]] = {}

    async def look(self, users: Iterable[str]) -> int:
        """Read lists, note what each lacks, and return how many. Raises: as `read_lists`."""
        count = 0

        def heard(user: str, records: dict[str, Record]) -> None:
            nonlocal count
            count += 1
            self._session.pulse.beat()
            lacking = [row for row, code in self.reader.of(user) if code not in records]
            if lacking:
                self.vanished[user] = lacking
            else:
                self.vanished.pop(user, None)

        await read_lists(self._session, users, heard)
        return count

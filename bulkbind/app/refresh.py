"""`run --refresh`: find in the server's lists which known bindings have vanished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.app.session.lists import compare_lists
from bulkbind.engine.proof import READS, lacked, vanished
from bulkbind.ledger import SkippedReader, ledger_of, reading
from bulkbind.model.wording import TO_BELIEVE, counted, verb

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bulkbind.app.session.session import Session
    from bulkbind.engine.proof import Look
    from bulkbind.ledger import Ledger
    from bulkbind.model import Record


async def refresh(session: Session, ledger: Ledger, run: int) -> None:
    """Find which bindings that a staged run would skip have vanished from the server.

    The list of each of their users is read; one that lacks a binding, once more. What is proven to
    have vanished fails, or is staged to be bound again with `rebind_missing`. What is not proven
    stays skipped, and needs a person.

    Raises: UnreadableListError, InterruptedRunError, UsageError, LedgerError.
    """
    settings = session.settings
    users = not_proven = believable = 0
    gone: list[int] = []
    with reading(ledger_of(settings), settings.endpoint()) as db:
        reader = SkippedReader(db, run)

        def compare(user: str, _records: dict[str, Record], looks: Sequence[Look]) -> bool:
            nonlocal users, not_proven, believable
            session.pulse.beat()
            lacking = [(row, code) for row, code in reader.of(user) if code not in looks[-1].shown]
            if lacking and len(looks) < READS:
                return False
            users += 1
            proven = [row for row, code in lacking if vanished(code, looks)]
            gone.extend(proven)
            not_proven += len(lacking) - len(proven)
            believable += sum(row not in proven and lacked(code, looks) for row, code in lacking)
            return True

        def asked(user: str, _shown: Collection[str]) -> list[str]:
            return [code for _, code in reader.of(user)]

        user_ids = reader.user_ids()
        await compare_lists(session, reader, user_ids, asked, compare, has_served=True)
    is_bound_again = settings.manifest.rebind_missing
    await ledger.mark_vanished(
        run, gone, users=users, bind_again=is_bound_again, not_proven=not_proven
    )
    if gone:
        what = "to be bound again" if is_bound_again else "--rebind-missing binds them again"
        they = f"{counted(len(gone), 'bindings')} {verb(len(gone), 'has', 'have')} vanished"
        session.listener.notice(f"{they} from the server; {what}")
    if not_proven:
        how = TO_BELIEVE if believable else "`bulkbind run MANIFEST --rebind` sends all known ones"
        are = verb(not_proven, "is", "are")
        session.listener.notice(
            f"{counted(not_proven, 'bindings')} {are} not on the server's lists, but nothing "
            f"proves each of them gone: left as they are; {how}"
        )

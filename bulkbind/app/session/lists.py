"""Read users' lists, concurrently and at the gateway's pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bulkbind.app.session.session import client_of, new_pacer, paced, retries_of
from bulkbind.engine.decide import UNREACHABLE_AT_START
from bulkbind.engine.readback import Lists
from bulkbind.engine.stop import DrainedError, first_of
from bulkbind.errors import InterruptedRunError, UnreadableListError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bulkbind.app.session.session import Session
    from bulkbind.model import Attempt, Listing, Record


async def read_lists(
    session: Session,
    users: Iterable[str],
    on_list: Callable[[str, dict[str, Record]], None],
) -> None:
    """Read users' lists, concurrently and at the gateway's pace.

    The first one is read alone to prove the set-up. *on_list*: called with each, in any order.

    Raises: UnreadableListError at the first that cannot be read, InterruptedRunError, UsageError.
    """
    send = session.settings.send
    pacer = new_pacer(session)
    waiting = iter(users)
    async with paced(session, client_of(session), pacer) as api:
        lists = Lists(api, session.stop, retries_of(session, pacer), send)

        async def worker(most: int | None = None) -> None:
            for done, user in enumerate(waiting, start=1):
                listing = await lists.read(user, UNREACHABLE_AT_START)
                if listing.records is None:
                    raise _unreadable(user, listing, session)
                on_list(user, listing.records)
                if done == most:
                    return

        try:
            await worker(1)
            async with asyncio.TaskGroup() as tasks:
                for number in range(send.concurrency):
                    tasks.create_task(worker(), name=f"lists {number}")
        except BaseExceptionGroup as group:
            error = first_of(group)
            raise _stopped(session) if isinstance(error, DrainedError) else error from None
        except DrainedError:
            raise _stopped(session) from None


def _unreadable(user: str, listing: Listing, session: Session) -> UnreadableListError:
    reason = session.stop.reason
    hint = reason.hint if reason and reason.hint else "nothing was changed; try again later"
    return UnreadableListError(
        f"the list of user {user} cannot be read: {_words(listing.attempt)}", hint=hint
    )


def _stopped(session: Session) -> Exception:
    reason = session.stop.reason
    text = reason.text if reason else "stopped"
    if reason is not None and reason.exit_code != UnreadableListError.exit_code:
        return InterruptedRunError(text, exit_code=reason.exit_code)
    return UnreadableListError(text, hint=reason.hint if reason else "")


def _words(attempt: Attempt) -> str:
    status = f"HTTP {attempt.http_status}" if attempt.http_status else ""
    return " ".join(word for word in (status, attempt.code, attempt.message) if word)

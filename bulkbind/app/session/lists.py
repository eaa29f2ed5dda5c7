"""Read users' lists, concurrently and at the gateway's pace."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol, TypeAlias

from bulkbind.app.session.session import client_of, new_pacer, paced, retries_of
from bulkbind.engine.decide import UNREACHABLE_AT_START
from bulkbind.engine.proof import READS, look
from bulkbind.engine.readback import Lists
from bulkbind.engine.retry import jitter
from bulkbind.engine.stop import DrainedError, first_of
from bulkbind.errors import InterruptedRunError, UnreadableListError
from bulkbind.model import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from bulkbind.app.session.session import Session
    from bulkbind.engine.proof import Look
    from bulkbind.model import Attempt, Listing, Record


class Known(Protocol):
    """What the ledger knows of users."""

    def known(self, user_id: str) -> dict[str, str]:
        """Return the device ids of a user's known bindings, by machine code."""

    def stranger(
        self, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> str | None:
        """Return a device on a user's list that is known as another user's, if there is one."""


MOST_REFUSED_FIRST = 3
"""Refused lists before any could be read that show a wrong set-up."""
OnUnread: TypeAlias = "Callable[[str, str], None]"
"""Receives a user, and in words why the list was refused."""
Compare: TypeAlias = "Callable[[str, dict[str, Record], Sequence[Look]], bool]"
"""Compares a user's list with the ledger, given what its lists so far show, the last one last.

Returns False if another list must confirm a difference; it is then called again with that one.
"""


async def compare_lists(
    session: Session,
    reader: Known,
    users: Iterable[str],
    asked: Callable[[str, Collection[str]], Collection[str]],
    compare: Compare,
    *,
    on_unread: OnUnread | None = None,
    has_served: bool = False,
) -> None:
    """Compare the lists of users, in any order, with what the ledger knows of them.

    A list that differs is read again `readback_settle` later, since one alone proves nothing.
    *asked*: returns the machine codes of a user to compare, given those that its list shows.
    *on_unread*, *has_served*: as in `read_lists`.

    Raises: as `read_lists`.
    """
    differing: dict[str, tuple[Look, ...]] = {}

    def on_list(user: str, listing: Listing, at: float) -> None:
        assert listing.records is not None
        known = reader.known(user)
        stranger = reader.stranger(user, listing.records, known)
        codes = asked(user, listing.records.keys())
        looks = (*differing.get(user, ()), look(listing, known, codes, stranger, at=at))
        if not compare(user, listing.records, looks):
            assert len(looks) < READS, "nobody waits for a third list"
            differing[user] = looks

    await read_lists(session, users, on_list, on_unread=on_unread, has_served=has_served)
    if not differing:
        return
    since = max(looks[0].at for looks in differing.values()) - session.clock.monotonic()
    with contextlib.suppress(DrainedError):
        wait_s = since + session.settings.doubt.readback_settle
        await session.stop.sleep(session.clock, jitter(max(0.0, wait_s)))
    if session.stop.reason is not None:
        raise _stopped(session)
    await read_lists(session, list(differing), on_list, on_unread=on_unread, has_served=has_served)


async def read_lists(
    session: Session,
    users: Iterable[str],
    on_list: Callable[[str, Listing, float], None],
    *,
    on_unread: OnUnread | None = None,
    has_served: bool = False,
) -> None:
    """Read users' lists, concurrently and at the gateway's pace.

    The first one is read alone to prove the set-up.

    Args:
        session: The command's.
        users: Whose lists.
        on_list: Called with each, in any order, and with the monotonic moment of its request.
        on_unread: Called with what was answered where a list was refused, for which the others are
            read all the same, once one could be; None: the first refusal ends it.
        has_served: Whether an endpoint that is away is waited for, as it has served before.

    Raises: UnreadableListError if a list cannot be read, InterruptedRunError, UsageError.
    """
    pacer = new_pacer(session)
    async with paced(session, client_of(session), pacer) as api:
        send = session.settings.send
        retries = retries_of(session, pacer)
        lists = Lists(api, session.stop, retries, send, has_served=has_served)
        reading = _Reading(session, lists, iter(users), on_list, on_unread)
        try:
            await reading.go_on(until_read=True)
            async with asyncio.TaskGroup() as tasks:
                for number in range(send.concurrency):
                    tasks.create_task(reading.go_on(), name=f"lists {number}")
        except BaseExceptionGroup as group:
            error = first_of(group)
            raise _stopped(session) if isinstance(error, DrainedError) else error from None
        except DrainedError:
            raise _stopped(session) from None


class _Reading:
    """The users whose lists are left to read, shared by all who read them."""

    def __init__(
        self,
        session: Session,
        lists: Lists,
        users: Iterator[str],
        on_list: Callable[[str, Listing, float], None],
        on_unread: OnUnread | None,
    ) -> None:
        self._session = session
        self._lists = lists
        self._users = users
        self._on_list = on_list
        self._on_unread = on_unread
        self._is_proven = False
        self._refused: list[tuple[str, Listing]] = []

    async def go_on(self, *, until_read: bool = False) -> None:
        """Read lists until none is left; *until_read*: until one could be."""
        for user in self._users:
            asked_at = self._session.clock.monotonic()
            with self._session.stop.cutting_short():  # a list that is only read is not waited for
                listing = await self._lists.read(user, UNREACHABLE_AT_START)
            if listing.records is None:
                self._unread(user, listing)
                continue
            self._is_proven = True
            self._on_list(user, listing, asked_at)
            if until_read:
                return
        if self._refused and not self._is_proven:
            raise _unreadable(*self._refused[0], self._session)

    def _unread(self, user: str, listing: Listing) -> None:
        """Note a list that could not be read. Raises: UnreadableListError if that ends it."""
        if self._on_unread is None or not isinstance(listing.attempt.verdict, Refused):
            raise _unreadable(user, listing, self._session)
        self._on_unread(user, _words(listing.attempt))
        self._refused.append((user, listing))
        if not self._is_proven and len(self._refused) == MOST_REFUSED_FIRST:
            raise _unreadable(*self._refused[0], self._session)


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
        return InterruptedRunError(text, exit_code=reason.exit_code, hint=reason.hint)
    return UnreadableListError(text, hint=reason.hint if reason else "")


def _words(attempt: Attempt) -> str:
    status = f"HTTP {attempt.http_status}" if attempt.http_status else ""
    return " ".join(word for word in (status, attempt.code, attempt.message) if word)

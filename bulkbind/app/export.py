"""`export`: what is bound to some users on the server, as a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from bulkbind.app.run import new_session
from bulkbind.app.session.lists import read_lists
from bulkbind.app.session.session import authorized
from bulkbind.errors import UsageError
from bulkbind.manifest.rules import breaks
from bulkbind.report.tables import ExportWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulkbind.app.session.listener import Listener
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.model import Listing, Record
    from bulkbind.settings import Settings


async def export(
    users: Iterable[str],
    settings: Settings,
    file: TextIO,
    *,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> int:
    """Write what is bound to *users* to *file* as a CSV manifest; return the number of devices.

    Users are written in the order given, each once; their lists are read concurrently.

    Raises: UsageError (no users, or an invalid id), UnreadableListError.
    """
    session = await authorized(new_session(settings, listener, stop, clock))
    wanted = list(dict.fromkeys(users))
    if not wanted:
        raise UsageError(
            "no user was named", hint="bulkbind export USER... (- reads ids from stdin)"
        )
    for user in wanted:
        if wrong := breaks("user_id", user):
            raise UsageError(f"user id {user!r}: {wrong}")
    writer = ExportWriter(file)
    has_begun = False
    waiting: dict[str, dict[str, Record]] = {}
    order = iter(wanted)
    turn: str | None = next(order)
    devices = 0

    def write_in_order(user: str, listing: Listing, _at: float) -> None:
        nonlocal turn, devices, has_begun
        if not has_begun:
            writer.begin()  # not before the first answer
            has_begun = True
        assert listing.records is not None
        waiting[user] = listing.records
        while turn in waiting:
            ready = waiting.pop(turn)
            writer.write(turn, ready.values())
            devices += len(ready)
            turn = next(order, None)

    await read_lists(session, wanted, write_in_order)
    return devices

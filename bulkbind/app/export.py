"""`export`: what is bound to some users on the server, as a manifest."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from bulkbind.app.run import new_session
from bulkbind.app.session.lists import compare_lists
from bulkbind.app.session.session import authorized
from bulkbind.engine.proof import READS
from bulkbind.errors import NoLedgerError, UnreadableListError, UsageError
from bulkbind.ledger import KnownReader, ledger_of, reading
from bulkbind.manifest import refuse_no_users
from bulkbind.model.wording import counted, verb
from bulkbind.report.tables import ExportWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.lists import Known
    from bulkbind.app.session.session import Session
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.engine.proof import Look
    from bulkbind.model import Record
    from bulkbind.settings import Settings


class NothingKnown:
    """Stands in for a ledger where there is none."""

    def known(self, _user_id: str) -> dict[str, str]:
        """Return nothing."""
        return {}

    def stranger(
        self, _user_id: str, _records: Mapping[str, Record], _known: Mapping[str, str]
    ) -> None:
        """Return nobody."""


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

    Users are written in the order given, each once; their lists are read concurrently. One that is
    not whole, or lacks what the ledger, if there is one, knows as bound, is read again
    `readback_settle` later.

    Raises: UsageError (no users, or an invalid id), UnreadableListError, LedgerError.
    """
    session = await authorized(new_session(settings, listener, stop, clock))
    wanted = list(dict.fromkeys(users))
    if not wanted:
        raise UsageError(
            "no user was named", hint="bulkbind export USER... (- reads ids from stdin)"
        )
    refuse_no_users(wanted, settings.manifest)
    with ExitStack() as stack:
        ledger = ledger_of(settings)
        known: Known = NothingKnown()
        with suppress(NoLedgerError):
            known = KnownReader(stack.enter_context(reading(ledger, settings.endpoint())))
        return await _exported(session, known, wanted, file)


async def _exported(session: Session, ledger: Known, wanted: Sequence[str], file: TextIO) -> int:
    writer = ExportWriter(file)
    waiting: dict[str, Iterable[Record]] = {}
    order = iter(wanted)
    turn: str | None = next(order)
    has_begun = False
    devices = 0

    def write_in_order(user: str, records: Mapping[str, Record], looks: Sequence[Look]) -> bool:
        nonlocal turn, devices, has_begun
        last = looks[-1]
        why = last.why_not_whole()
        if (why or last.lacks) and len(looks) < READS:
            return False
        if why:
            raise UnreadableListError(
                f"the list of user {user} cannot be trusted: {why}",
                hint="try again later",
            )
        if last.lacks:
            lacked, are = counted(len(last.lacks), "devices"), verb(len(last.lacks), "is", "are")
            session.listener.warning(
                f"{lacked} of user {user} that the ledger knows as bound {are} on "
                f"neither of two lists, e.g. {min(last.lacks)}: left out"
            )
        if not has_begun:
            writer.begin()  # not before the first answer
            has_begun = True
        waiting[user] = _as_known(records.values(), ledger.known(user))
        while turn in waiting:
            ready = list(waiting.pop(turn))
            writer.write(turn, ready)
            devices += len(ready)
            turn = next(order, None)
        return True

    await compare_lists(session, ledger, wanted, lambda _, shown: shown, write_in_order)
    return devices


def _as_known(records: Iterable[Record], known: Mapping[str, str]) -> list[Record]:
    """Return records under the machine codes by which the ledger knows them.

    A list may show them in another letter case, which would be other devices in a manifest.
    """
    codes = {device_id: code for code, device_id in known.items()}
    return [
        replace(record, machine_code=codes.get(record.device_id, record.machine_code))
        for record in records
    ]

"""`verify`: compare what a run has bound with the server's lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkbind.app.run import new_session
from bulkbind.app.session.lists import read_lists
from bulkbind.errors import ExitCode
from bulkbind.ledger import BoundReader, RunReader, find_run, reading
from bulkbind.model.fields import LABELS

if TYPE_CHECKING:
    from bulkbind.app.session.listener import Listener
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.model import Record
    from bulkbind.settings import Settings

MOST_SHOWN = 10_000
"""Differences that are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A device on which ledger and server differ."""

    kind: str
    """`missing`, `changed` or `extra`."""
    user_id: str
    machine_code: str
    detail: str


@dataclass(slots=True)
class Verification:
    """What `verify` found."""

    run_id: str
    users: int = 0
    devices: int = 0
    """Devices bound according to the run."""
    counts: dict[str, int] = field(
        default_factory=lambda: {"same": 0, "missing": 0, "changed": 0, "extra": 0}
    )
    differences: list[Difference] = field(default_factory=list)
    """The first ones, sorted by user and machine code."""

    @property
    def exit_code(self) -> ExitCode:
        """`DONE` without differences."""
        differs = any(n for kind, n in self.counts.items() if kind != "same")
        return ExitCode.NEEDS_PERSON if differs else ExitCode.DONE


async def verify(
    settings: Settings,
    run_id: str,
    *,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> Verification:
    """Compare the ledger with the server's lists, for the users and devices of a run.

    *missing*: bound in the ledger, not on the server; *changed*: under another device id,
    or with other optional values; *extra*: the server has it for one of the run's users, the ledger
    does not. Nothing is changed. What was undone is not expected.

    *run_id*: the run, or a unique prefix of its id.

    Raises: UsageError, LedgerError, UnreadableListError.
    """
    session = new_session(settings, listener, stop, clock)
    with reading(settings.ledger_path(), settings.endpoint()) as db:
        run = find_run(db, run_id)
        reader = BoundReader(db, run)
        found = Verification(RunReader(db, run).run_id())

        def compare_user(user: str, records: dict[str, Record]) -> None:
            found.users += 1
            for item in reader.of(user):
                found.devices += 1
                _compare(found, user, item, records.get(item.machine_code))
            for code in sorted(records.keys() - reader.known(user)):
                _differ(found, "extra", user, code, f"device id {records[code].device_id}")

        await read_lists(session, reader.user_ids(), compare_user)
    found.differences.sort(key=lambda item: (item.user_id, item.machine_code))
    return found


def _compare(found: Verification, user: str, known: Record, listed: Record | None) -> None:
    if listed is None:
        _differ(found, "missing", user, known.machine_code, f"device id {known.device_id}")
        return
    names = ("device id", *LABELS)
    now, before = (listed.device_id, *listed.optional), (known.device_id, *known.optional)
    parts = [
        f"{name} is {shown!r}, by the ledger {recorded!r}"
        for name, shown, recorded in zip(names, now, before, strict=True)
        if shown != recorded
    ]
    if parts:
        _differ(found, "changed", user, known.machine_code, "; ".join(parts))
    else:
        found.counts["same"] += 1


def _differ(found: Verification, kind: str, user: str, code: str, detail: str) -> None:
    found.counts[kind] += 1
    if len(found.differences) < MOST_SHOWN:
        found.differences.append(Difference(kind, user, code, detail))

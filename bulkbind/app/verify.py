"""`verify`: compare what a run has bound with the server's lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bulkbind.app.run import new_session
from bulkbind.app.session.lists import compare_lists
from bulkbind.app.session.session import authorized
from bulkbind.engine.proof import READS, vanished, why_unproven
from bulkbind.errors import ExitCode
from bulkbind.ledger import BoundReader, RunReader, find_run, ledger_of, reading
from bulkbind.model.fields import LABELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulkbind.app.session.listener import Listener
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.engine.proof import Look
    from bulkbind.model import Record
    from bulkbind.settings import Settings

MOST_SHOWN = 10_000
"""Differences that are listed; all are counted."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A device on which ledger and server differ."""

    kind: str
    """`missing`, `not_proven`, `changed`, `in_doubt` or `extra`."""
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
    """Of devices, by kind; `not_proven` and `in_doubt` only where there are any."""
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

    *missing*: bound in the ledger, proven not to be on the server; *not_proven*: lists lack it, or
    show more, but prove nothing; *changed*: under another device id, or with other optional values;
    *in_doubt*: on the list, and sent without an answer by a run of this ledger, so the next one
    settles it; *extra*: the server has it for one of the run's users, the ledger does not. A list
    that differs is read twice. Nothing is changed. What was undone is not expected.

    *run_id*: the run, or a unique prefix of its id.

    Raises: UsageError, LedgerError, UnreadableListError.
    """
    session = await authorized(new_session(settings, listener, stop, clock))
    with reading(ledger_of(settings), settings.endpoint()) as db:
        run = find_run(db, run_id)
        reader = BoundReader(db, run)
        found = Verification(RunReader(db, run).run_id())

        def compare(user: str, records: dict[str, Record], looks: Sequence[Look]) -> bool:
            bound = list(reader.of(user))
            differing = [item for record in bound if (item := _difference(user, record, looks))]
            extras = _extras(user, reader, records, looks[-1])
            if (differing or extras) and len(looks) < READS:
                return False
            found.users += 1
            found.devices += len(bound)
            found.counts["same"] += len(bound) - len(differing)
            for item in (*differing, *extras):
                found.counts[item.kind] = found.counts.get(item.kind, 0) + 1
                if len(found.differences) < MOST_SHOWN:
                    found.differences.append(item)
            return True

        await compare_lists(
            session,
            reader,
            reader.user_ids(),
            lambda user, _: [record.machine_code for record in reader.of(user)],
            compare,
        )
    found.differences.sort(key=lambda item: (item.user_id, item.machine_code))
    return found


def _difference(user: str, known: Record, looks: Sequence[Look]) -> Difference | None:
    """Return how a device differs on the lists, and None if it does not."""
    code, last = known.machine_code, looks[-1]
    shown = last.shown.get(code, ())
    listed = next(
        (item for item in shown if item.device_id == known.device_id), shown[0] if shown else None
    )
    if listed is None:
        if vanished(code, looks):
            return Difference("missing", user, code, f"device id {known.device_id}")
        return Difference("not_proven", user, code, why_unproven(code, looks, {code}))
    if listed.device_id != known.device_id and (why := last.why_not_whole()):
        return Difference("not_proven", user, code, f"under another id on the list, but {why}")
    names = ("device id", *LABELS)
    now, before = (listed.device_id, *listed.optional), (known.device_id, *known.optional)
    parts = [
        f"{name} is {shown!r}, by the ledger {recorded!r}"
        for name, shown, recorded in zip(names, now, before, strict=True)
        if shown != recorded
    ]
    return Difference("changed", user, code, "; ".join(parts)) if parts else None


def _extras(
    user: str, reader: BoundReader, records: Mapping[str, Record], last: Look
) -> list[Difference]:
    """Return what a list shows that the ledger does not know as bound."""
    known = reader.known(user)
    ids = set(known.values())
    more = [code for code in sorted(records.keys() - known) if records[code].device_id not in ids]
    if last.flaw:
        why = f"on the list, but {last.flaw}"
        return [Difference("not_proven", user, code, why) for code in more]
    open_ = reader.open_of(user) if more else frozenset[str]()
    return [
        Difference(
            "in_doubt" if code in open_ else "extra",
            user,
            code,
            f"device id {records[code].device_id}",
        )
        for code in more
    ]

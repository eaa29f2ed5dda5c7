"""`adopt`: know as bound what the server's lists show, whoever has bound it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from bulkbind.app.run import new_id, new_session, run_record
from bulkbind.app.session.lists import compare_lists
from bulkbind.app.session.opening import opened, read_heads
from bulkbind.app.session.session import authorized, before_sending, held_ledger, time_boxed
from bulkbind.engine.proof import READS, lacked, why_unproven
from bulkbind.errors import ExitCode, InterruptedRunError, UnreadableListError, UsageError
from bulkbind.ledger import AdoptReader, ledger_of, reading
from bulkbind.logs import bound, logger
from bulkbind.manifest import batches_of, refuse_no_users
from bulkbind.model import ADOPTED, RunFacts
from bulkbind.model.fields import LABELS
from bulkbind.model.wording import counted, verb
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator, Sequence
    from pathlib import Path

    from bulkbind.app.inputs import Named
    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.session import Session
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.engine.proof import Look
    from bulkbind.ledger import KnownBinding, Ledger
    from bulkbind.manifest import Manifest
    from bulkbind.model import Record
    from bulkbind.settings import Settings

MOST_SHOWN = 10_000
"""Differences that are listed; all are counted."""
KEEP_EVERY_S = 1.0
"""How often what was read is written to the ledger."""
_AGREES = ("same", "taken_over")
_AT_ONCE = ("taken_over", "new", "other_user")
"""What the first list is enough for; a second one that does not show it takes it back."""
_TAKEN = (*_AT_ONCE, "changed")


@dataclass(frozen=True, slots=True)
class Found:
    """What the lists say of a device that the ledger knew otherwise."""

    kind: str
    """One of `ADOPTED`."""
    user_id: str
    machine_code: str
    detail: str


@dataclass(slots=True)
class Adoption:
    """What `adopt` did."""

    run_id: str
    users: int = 0
    """Users whose lists were compared."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ADOPTED, 0))
    """Devices by kind."""
    differences: list[Found] = field(default_factory=list)
    """The first of all kinds but the first two, sorted by user and machine code."""
    unread: dict[str, str] = field(default_factory=dict)
    """Why lists could not be read, by user."""
    stopped: str = ""
    """Why it ended early; empty if every list was read."""
    hint: str = ""
    exit_code: ExitCode = ExitCode.DONE
    """1 where something was not proven, or a list was refused."""


async def adopt(
    manifests: Sequence[str | Path | Named],
    settings: Settings,
    *,
    user_ids: Sequence[str] = (),
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> Adoption:
    """Compare the server's lists with the ledger, and know as bound what they show.

    What was taken over is skipped by `run`, left alone by `undo`, and may be unbound by list. Lists
    that differ are read twice, and taken at their word where they show others of the user. Whoever
    has, by the ledger, what another user's list shows is read as well, for that device alone.
    Nothing on the server is changed. What was read is kept when it ends early; called again, it
    compares everything anew.

    *manifests*: whose users are asked for, and so are *user_ids*.

    Raises: UsageError (nobody is named), ManifestError, LedgerBusyError, LedgerError,
        UnreadableListError if no list can be read.
    """
    session = new_session(settings, listener, stop, clock)
    async with time_boxed(session):
        users = await _users(session, manifests, user_ids)
        session = await authorized(session)
        async with held_ledger(session) as ledger:
            run_id = new_id(session.clock)
            run = await ledger.begin_adoption(run_record(session, run_id, ""))
            with bound(run_id=run_id), reading(ledger_of(settings), settings.endpoint()) as db:
                adopting = _Adopting(session, ledger, AdoptReader(db), run, run_id)
                return await adopting.run(users)


async def _users(
    session: Session, manifests: Sequence[str | Path | Named], user_ids: Sequence[str]
) -> list[str]:
    """Return the users to ask for, sorted. Raises: UsageError if there are none."""
    refuse_no_users(user_ids, session.settings.manifest)
    found = set(user_ids)
    if manifests:
        files = await opened(session, manifests)
        readable = await read_heads(session, files)
        with before_sending(session):
            named, without = await in_thread(_named, readable)
        found |= named
        if without:
            name = verb(without, "names", "name")
            session.listener.warning(f"{counted(without, 'rows')} {name} no user that can be asked")
    if not found:
        raise UsageError(
            "nobody is named whose list could be read",
            hint="name a manifest, or a user with --user-id",
        )
    return sorted(found)


def _named(manifests: Sequence[Manifest]) -> tuple[set[str], int]:
    """Return the users whom the rows name, and how many rows name none."""
    users: set[str] = set()
    without = 0
    for row in chain.from_iterable(chain.from_iterable(map(batches_of, manifests))):
        is_broken = any(problem.field in ("user_id", "row") for problem in row.problems)
        if row.left_out:
            continue
        if is_broken or not row.values[0]:
            without += 1
        else:
            users.add(row.values[0])
    return users, without


class _Adopting:
    """One adoption, while lists come in."""

    def __init__(
        self, session: Session, ledger: Ledger, reader: AdoptReader, run: int, run_id: str
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._reader = reader
        self._run = run
        self._found = Adoption(run_id)
        self._former: dict[str, set[str]] = {}
        """Who has, by the ledger, devices that others' lists show."""
        self._only: dict[str, set[str]] = {}
        """Users who are asked for these devices alone."""
        self._shown: list[tuple[str, Record]] = []
        self._gone: list[tuple[str, str]] = []
        self._kept: dict[str, list[Record]] = {}
        """What was taken over by the first list of users, until the second one is read."""

    async def run(self, users: Sequence[str]) -> Adoption:
        """Read the lists, and return what they said."""
        found, stopped = self._found, None
        try:
            async with self._keeping():
                await self._compare(users)
                self._only = {u: codes for u, codes in self._former.items() if u not in set(users)}
                await self._compare(sorted(self._only))
        except (UnreadableListError, InterruptedRunError) as error:
            if not found.users and not self._kept:
                raise
            stopped = error
        finally:
            facts = RunFacts()
            facts.adopted = {"users": found.users, **found.counts}
            why = None if stopped is None and found.users else str(stopped or "broke off")
            await asyncio.shield(self._ledger.end_adoption(self._run, why, facts))
        found.differences.sort(key=lambda item: (item.user_id, item.machine_code))
        if stopped is not None:
            found.stopped = str(stopped)
            found.hint = "what was read is kept; the same command compares everything anew"
            found.exit_code = ExitCode(stopped.exit_code)
        elif found.unread or found.counts["not_proven"]:
            found.exit_code = ExitCode.NEEDS_PERSON
        logger().info(
            "adopt.finished", users=found.users, counts=found.counts, stopped=found.stopped or None
        )
        return found

    async def _compare(self, users: Sequence[str]) -> None:
        if users:
            await compare_lists(
                self._session,
                self._reader,
                users,
                self._asked,
                self._on_list,
                on_unread=self._found.unread.__setitem__,
            )

    @asynccontextmanager
    async def _keeping(self) -> AsyncIterator[None]:
        """Write what the lists say while they come in, so that it survives a crash."""

        async def keep() -> None:
            shown, gone = self._shown, self._gone
            self._shown, self._gone = [], []
            if shown or gone:
                await self._ledger.take_over(self._run, shown, gone)

        async def keep_on() -> None:
            while True:
                await self._session.clock.sleep(KEEP_EVERY_S)
                await asyncio.shield(keep())

        task = asyncio.create_task(keep_on(), name="keeping")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.shield(keep())

    def _asked(self, user: str, shown: Collection[str]) -> Collection[str]:
        return self._only.get(user) or {*self._reader.known(user), *shown}

    def _on_list(self, user: str, _records: dict[str, Record], looks: Sequence[Look]) -> bool:
        """Take over what a list shows; False: it differs, and another one must confirm that."""
        self._session.pulse.beat()
        known, last = self._reader.bindings(user), looks[-1]
        asked = self._asked(user, last.shown)
        others = self._reader.holders(user, [code for code in last.shown if code not in known])
        ids = {held.record.device_id for held in known.values()}
        items = [
            _said(user, code, known, others, looks)
            for code in sorted(asked)
            # Else it is known under another spelling of its code.
            if code in known or last.shown[code][0].device_id not in ids
        ]
        is_first = len(looks) < READS
        kinds = _AT_ONCE if is_first else _TAKEN
        taken = {
            item.machine_code: record
            for item in items
            if item.kind in kinds and (record := last.record(item.machine_code)) is not None
        }
        self._shown += [(user, record) for record in taken.values()]
        if is_first and any(item.kind not in _AGREES for item in items):
            self._kept[user] = list(taken.values())
            return False
        before = [each.machine_code for each in self._kept.pop(user, [])]
        self._gone += [(user, code) for code in before if code not in taken]
        self._gone += [(user, item.machine_code) for item in items if item.kind == "gone"]
        for code, holder in others.items():
            self._former.setdefault(holder, set()).add(code)
        self._count(user, items)
        return True

    def _count(self, user: str, items: Sequence[Found]) -> None:
        found = self._found
        found.users += user not in self._only
        for item in items:
            found.counts[item.kind] += 1
            if item.kind not in _AGREES and len(found.differences) < MOST_SHOWN:
                found.differences.append(item)


def _said(
    user: str,
    code: str,
    known: dict[str, KnownBinding],
    others: dict[str, str],
    looks: Sequence[Look],
) -> Found:
    """Return what the lists say of a device."""
    last, held = looks[-1], known.get(code)

    def found(kind: str, detail: str = "") -> Found:
        return Found(kind, user, code, detail)

    shown = last.shown.get(code, ())
    if not shown:
        assert held is not None, "what is asked for is known or shown"
        return found(*_lacking(code, held.record, looks))
    if held is not None and any(not list(_changes(held.record, each)) for each in shown):
        return found("taken_over" if held.is_found else "same")
    if last.record(code) is None:
        why = last.flaw or "the list shows it under more than one device id"
        return found("not_proven", f"on the list, but {why}")
    if held is not None:
        return found("changed", "; ".join(_changes(held.record, shown[0])))
    if code in others:
        return found("other_user", f"by the ledger user {others[code]}'s")
    return found("new", f"device id {shown[0].device_id}")


def _lacking(code: str, known: Record, looks: Sequence[Look]) -> tuple[str, str]:
    """Return the kind of a known device that the last list lacks, and the detail."""
    if lacked(code, looks):
        return "gone", f"device id {known.device_id}"
    return "not_proven", why_unproven(code, looks, looks[-1].lacks)


def _changes(known: Record, shown: Record) -> Iterator[str]:
    """Yield how a record differs from what is known."""
    names = ("device id", *LABELS)
    before, now = (known.device_id, *known.optional), (shown.device_id, *shown.optional)
    for name, was, is_now in zip(names, before, now, strict=True):
        if was != is_now:
            yield f"{name} is {is_now!r}, by the ledger {was!r}"

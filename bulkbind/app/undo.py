"""`undo`: unbind what a run has bound, and only that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.agreement import refuse_another_number
from bulkbind.app.run import new_session
from bulkbind.app.session.eta import Gauge
from bulkbind.app.session.leaving import settle_doubt
from bulkbind.app.session.progress import Progress
from bulkbind.app.session.sending import TELL_EVERY_S, facts_of, live_facts
from bulkbind.app.session.session import (
    authorized,
    follow,
    held_ledger,
    holder,
    known_client,
    paced,
    pacer_of,
    refuse_without_lists,
    retries_of,
    time_boxed,
)
from bulkbind.app.unbind import bind_again
from bulkbind.clock import iso
from bulkbind.engine import Parts, Unbinder, draining
from bulkbind.errors import ExitCode
from bulkbind.ledger import (
    RunReader,
    UndoReader,
    find_run,
    has_bindings,
    ledger_of,
    reading,
    unbound_by,
)
from bulkbind.logs import bound, logger
from bulkbind.model import (
    CAN_RESUME,
    LiveFacts,
    RunKind,
    RunState,
    UnbindKind,
    UndoPlan,
    UndoSummary,
)
from bulkbind.report.measures import moment
from bulkbind.report.undo_report import MAY_COST, write_undo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bulkbind.app.session.listener import Listener
    from bulkbind.app.session.sending import RunResult
    from bulkbind.app.session.session import Session
    from bulkbind.clock import Clock
    from bulkbind.engine import StopSignal
    from bulkbind.ledger import Ledger
    from bulkbind.pacing import Pacer
    from bulkbind.settings import Settings

_NOTHING = "it unbound nothing either: there is nothing to undo"


@dataclass(frozen=True, slots=True)
class UndoResult:
    """How an undo ended."""

    summary: UndoSummary | None
    """None if it was not started, or the run has bound nothing."""
    files: tuple[Path, ...]
    exit_code: ExitCode
    """As of `run`."""
    hint: str = ""
    again: RunResult | None = None
    """The run that bound again what had left; None: nothing had, or the undo ended before."""


async def undo(
    settings: Settings,
    run_id: str,
    *,
    devices: int | None = None,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> UndoResult:
    """Unbind what a run has bound: the rows `bound` in its report, never `already_bound` ones.

    What a run has unbound, as a list said or its scope, is bound again, in a run of its own.

    Only the device id that the run received is unbound, if the user's list shows it, or if two
    lists, `readback_settle` apart, do not prove that it is gone. The run cannot be resumed: what it
    had not sent is `withdrawn`. Called again, an interrupted undo resumes; a finished one retries
    what could not be unbound and what was not found.

    *run_id*: the run, or a unique prefix of its id. *devices*: how many devices to unbind, another
    number is refused; None: the listener is asked, which refuses by default.

    Raises: UsageError (no such run, no lists, another number), LedgerBusyError, LedgerError.
    """
    refuse_without_lists(settings)
    with reading(ledger_of(settings), settings.endpoint()) as db:
        run = find_run(db, run_id)
        known_id, kind = RunReader(db, run).run_id(), RunReader(db, run).kind()
        has_left = next(unbound_by(db, run), None) is not None
    session = new_session(settings, listener, stop, clock)
    if kind is RunKind.BIND:
        ended = await _undone(session, run, known_id, devices)
    else:
        _refuse_another_number(devices or 0, 0, known_id)
        session.listener.notice(f"run {known_id} bound nothing, so nothing is unbound")
        ended = UndoResult(None, (), ExitCode.DONE, "" if has_left else _NOTHING)
    if not has_left or ended.exit_code not in (ExitCode.DONE, ExitCode.NEEDS_PERSON):
        return ended
    again = await bind_again(settings, known_id, run, listener=listener, stop=stop, clock=clock)
    return replace(ended, again=again, exit_code=max(ended.exit_code, again.exit_code))


async def _undone(session: Session, run: int, known_id: str, devices: int | None) -> UndoResult:
    """Unbind what a run has bound."""
    async with time_boxed(session):
        session = await authorized(session)
        async with held_ledger(session) as ledger:
            if (ended_at := await _undone_at(ledger, run)) is not None:
                session.listener.notice(f"run {known_id} was already undone at {moment(ended_at)}")
                return await asyncio.to_thread(_result, session, run)
            if not await _confirmed(session, ledger, run, known_id, devices):
                return UndoResult(None, (), ExitCode.DECLINED, "declined: nothing was unbound")
            with bound(run_id=known_id):
                await _unbind_all(session, ledger, run)
    return await asyncio.to_thread(_result, session, run)


async def _undone_at(ledger: Ledger, run: int) -> str | None:
    """Return when an undo ended after which nothing is left to unbind or to look for."""
    state, to_unbind, in_doubt, *_ = await ledger.unbindings.undo_progress(run)
    if state != RunState.DONE or to_unbind + in_doubt:
        return None
    summary = await ledger.read(lambda db: UndoReader(db, run).summary())
    return summary.ended_at if summary else None


async def _confirmed(
    session: Session, ledger: Ledger, run: int, run_id: str, devices: int | None
) -> bool:
    """Return whether to unbind *devices* devices; a yes is durable."""
    state, to_unbind, in_doubt, moved, gone = await ledger.unbindings.undo_progress(run)
    if state in CAN_RESUME:
        session.listener.notice(f"resuming the undo of run {run_id}, which was not finished")
        return True
    found = UndoPlan(run_id, to_unbind, in_doubt, moved, gone)
    if found.devices and devices is None and not session.listener.confirm_undo(found):
        return False
    if devices is not None:
        of_them = f"{to_unbind:,} bound, and {in_doubt:,} in doubt" if in_doubt else ""
        _refuse_another_number(devices, found.devices, run_id, of_them)
    if found.devices and devices is not None:
        session.listener.notice(MAY_COST)  # who is asked has read it above the question
    await ledger.unbindings.begin_undo(run, holder(session.clock))
    return True


def _refuse_another_number(meant: int, found: int, run_id: str, of_them: str = "") -> None:
    shows = f"`bulkbind report {run_id}` shows what the run bound"
    refuse_another_number(meant, found, f"run {run_id}", shows, of_them=of_them)


async def _unbind_all(session: Session, ledger: Ledger, run: int) -> None:
    settings, clock, stop = session.settings, session.clock, session.stop
    pacer = await pacer_of(session, ledger)
    client = await known_client(session, ledger)
    ledger.count_time(pacer.time)
    follow(session, client, pacer)
    api = paced(session, client, pacer)
    parts = Parts(api, ledger, pacer, stop, clock, has_served=await ledger.read(has_bindings))
    undoing = _Undoing(session, ledger, parts, pacer, run)
    await ledger.unbindings.start_undo(run, holder(clock))
    try:
        async with api:
            await draining(undoing.run(), clock, stop, grace_s=settings.send.grace)
    finally:
        reason = stop.reason.text if stop.reason else None
        facts = facts_of(
            client,
            pacer,
            settings.send,
            lists=undoing.lists,
            again=0,
            backed_off_s=undoing.backed_off_s,
        )
        state = await asyncio.shield(ledger.unbindings.finish_undo(run, reason, facts))
        logger().info("undo.finished", state=state.value, stopped=reason, **facts.shown())


class _Undoing:
    """The two steps of an undo: settle doubt, then unbind."""

    def __init__(
        self, session: Session, ledger: Ledger, parts: Parts, pacer: Pacer, run: int
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._parts = parts
        self._pacer = pacer
        self._run = run
        self._retries = retries_of(session, pacer)
        self._progress: Progress | None = None
        """None: it still settles doubt."""
        self.lists = 0
        """List calls made."""

    @property
    def backed_off_s(self) -> float:
        """Total seconds of backoff over all devices."""
        return self._retries.backed_off_s

    async def run(self) -> None:
        api = self._session.settings.api
        gauge = Gauge(
            *(self._pacer, self._session.clock, "unbinding"),
            patience_s=self._parts.api.patience_s,
            list_patience_s=lambda: api.list_timeout,
            stop=self._session.stop,
        )
        async with self._told(gauge):
            await self._settle_doubt()
            await self._unbind(gauge)

    @asynccontextmanager
    async def _told(self, gauge: Gauge) -> AsyncIterator[None]:
        """Tell `status` how it is doing while the block runs."""
        clock, began_at = self._session.clock, iso(self._session.clock.utc_now())

        async def keep_telling() -> None:
            while True:
                said = live_facts(self._run, began_at, iso(clock.utc_now()), gauge)
                said.to_do = self._progress.to_do if self._progress else None
                await self._ledger.put_meta(LiveFacts.undo_key, said.as_json())
                await clock.sleep(TELL_EVERY_S)

        task = asyncio.create_task(keep_telling(), name="telling")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # the next verb meets a failure, too

    async def _unbind(self, gauge: Gauge) -> None:
        rows = await self._ledger.unbindings.stage_undo(self._run)
        settings, clock = self._session.settings, self._session.clock
        progress = self._progress = Progress(
            rows, self._session.listener, clock, self._pacer.per_s, log_devices=False
        )
        logger().info("undo.started", rows=rows, endpoint=settings.endpoint())
        unbinder = Unbinder(
            self._parts,
            self._ledger.unbindings,
            self._retries,
            settings.send,
            settings.doubt,
            on_settled=progress.unbound,
        )
        try:
            with progress.shown(gauge):
                last = await self._ledger.unbindings.last_of(self._run, None)
                await unbinder.run(self._run, UnbindKind.UNDO, last)
        finally:
            self.lists += unbinder.lists

    async def _settle_doubt(self) -> None:
        """Find in the lists which of the run's rows in doubt it has bound; send none again."""
        mine = [c for c in await self._ledger.doubts() if self._ledger.is_of(self._run, c.row)]
        self.lists += await settle_doubt(
            self._session, self._ledger, self._parts, self._retries, mine
        )


def _result(session: Session, run: int) -> UndoResult:
    settings = session.settings
    with reading(ledger_of(settings), settings.endpoint()) as db:
        reader = UndoReader(db, run)
        summary = reader.summary()
        assert summary is not None  # it was begun
        folder = settings.out or Path("bulkbind-report") / summary.run_id
        files = write_undo(folder, summary, reader.rows(), RunReader(db, run).sources())
    reason = session.stop.reason
    if summary.state == RunState.STOPPED and reason is not None:
        return UndoResult(summary, tuple(files), reason.exit_code, reason.hint)
    code = ExitCode.NEEDS_PERSON if summary.needs_person else ExitCode.DONE
    return UndoResult(summary, tuple(files), code)

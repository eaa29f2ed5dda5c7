"""Join ledger, client, pacer and engine to send a run."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from bulkbind.app.reports import Report, write_report
from bulkbind.app.session.drafting import Drafting
from bulkbind.app.session.eta import Gauge
from bulkbind.app.session.leaving import Leaving
from bulkbind.app.session.progress import Progress, Timeline
from bulkbind.app.session.session import (
    NAMES_CODES,
    Session,
    follow,
    known_client,
    paced,
    pacer_of,
    retries_of,
)
from bulkbind.app.session.steering import Steering
from bulkbind.app.session.workers import hub_of
from bulkbind.clock import iso
from bulkbind.engine import Breaker, Parts, Pipeline, StopSignal, Unbinder, draining
from bulkbind.errors import ExitCode, LedgerError
from bulkbind.ledger import has_bindings, has_sent, ledger_of, left_by_user, places_of
from bulkbind.logs import bound, logger
from bulkbind.model import (
    IS_BOUND,
    IS_GONE,
    LimitFound,
    LiveFacts,
    RunFacts,
    RunKind,
    RunState,
    Status,
    Told,
    UnbindKind,
    as_shown,
)
from bulkbind.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bulkbind.engine.workers.hub import Hub
    from bulkbind.koodrive import KooDrive
    from bulkbind.ledger import Ledger
    from bulkbind.model import Adjustment, Ended, RunSummary, Unbinding, WorkerState
    from bulkbind.pacing import Pacer
    from bulkbind.settings.model import FailOn, SendSettings

_OF_SENDING = tuple(
    setting.name for setting in SETTINGS.values() if setting.part not in ("manifest", "auth")
)
"""Settings that a run takes anew each time it is gone on with; others say how it was read."""
MOVED_AT_ONCE = 200
"""Moved rows that are unbound together before they are bound again."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    report: Report | None
    """None if nothing was sent and nothing recorded."""
    exit_code: ExitCode
    """As listed in the README."""
    hint: str = ""
    """What to do next, if anything."""
    can_resume: bool = True
    """Whether a stopped run can be resumed: not a rehearsal, whose ledger is gone."""
    is_endpoint_wrong: bool = False
    """Whether it stopped since the endpoint is another server or none."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A run that was sent."""

    run_id: str
    report: Report | None = None
    """What was written of it already; None: nothing."""


async def send(
    session: Session, ledger: Ledger, run: int, run_id: str, first: int | None = None
) -> Sent:
    """Send the staged rows of *run*, or the *first* of them, and record the end of the run.

    Raises: LedgerError, UsageError (no credentials, no cluster).
    """
    settings, stop = session.settings, session.stop
    binds = await ledger.kind_of(run) is RunKind.BIND
    rows = await _left(ledger, run, first, binds=binds)
    pacer = await pacer_of(session, ledger, is_idle=not rows)
    ledger.count_time(pacer.time)
    client = await known_client(session, ledger)
    async with (
        Drafting(session, ledger, run, run_id) as draft,
        hub_of(session, client, rows if binds else 0, pacer) as hub,
    ):
        api = paced(session, hub or client, pacer)
        is_resumed = await ledger.read(partial(has_sent, run=run))
        breaker = Breaker(stop, settings.send.max_failures, is_resumed=is_resumed)
        account = _Account(
            session, ledger, run, rows, pacer=pacer, client=client, hub=hub, breaker=breaker
        )
        ledger.on_settled, ledger.on_doubted = account.settled, account.doubted
        has_served = await ledger.read(has_bindings)
        parts = Parts(api, ledger, pacer, stop, session.clock, has_served=has_served)
        sender: Sender = (
            _Sender(
                *(session, ledger, parts, run, breaker),
                on_left=account.progress.unbound,
                on_quiet=draft.begin,
            )
            if binds
            else Leaving(session, ledger, parts, run, account.settled)
        )
        steering = Steering(
            session, ledger, run, pacer=pacer, breaker=breaker, sender=sender, tell=account.tell
        )
        account.sender, account.adjusted = sender, steering.done
        if settings.send.is_per_user and first is None:
            account.left_of.update(await ledger.read(partial(left_by_user, run=run)))
        follow(session, client, pacer)
        await steering.begin()
        now = settings.public()
        await ledger.start(run, {name: now[name] for name in _OF_SENDING})
        with bound(run_id=run_id):
            logger().info("run.started", rows=rows, endpoint=settings.endpoint())
            try:
                async with api, steering.followed(), account.told():
                    await sender.send(first)
            finally:
                await asyncio.shield(_finish(ledger, run, run_id, stop, account.measured))
        return Sent(run_id, await draft.report())


async def _left(ledger: Ledger, run: int, first: int | None, *, binds: bool) -> int:
    """Return how many rows, and devices that leave, are left to settle. *first*: as in `run`.

    *binds*: whether it is no unbind run, whose rows are the devices that leave.
    """
    staged, doubtful = await ledger.unsettled(run)
    if first is not None:
        return min(first, staged) + doubtful
    kinds = (UnbindKind.MOVE, UnbindKind.LEAVE) if binds else ()
    return staged + doubtful + sum([await ledger.unbindings.count_left(run, k) for k in kinds])


TELL_EVERY_S = 1.0
"""Interval at which `status` learns how a run is doing."""


def live_facts(run: int, began_at: str, at: str, gauge: Gauge) -> LiveFacts:
    """Return what a process that sends says of its pace, and of what it waits for."""
    said = LiveFacts()
    said.run, said.began_at, said.at = run, began_at, at
    said.allowed_per_s, said.source = gauge.per_s(), gauge.source()
    said.waits, said.waiting = gauge.waits(), gauge.waiting()
    said.known_at, said.is_blocked = gauge.known_at, gauge.is_blocked()
    said.trouble, said.stopping = gauge.trouble(), gauge.stopping()
    return said


class _Account:
    """What is told of a sending: to whoever watches, to `status`, and to the report.

    Attributes:
        progress: What whoever watches is shown.
        left_of: Rows that are left, by user; empty unless each has a limit of its own.
        sender: Who sends; None before it is known.
        adjusted: What was changed while it sent.
    """

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        run: int,
        rows: int,
        *,
        pacer: Pacer,
        client: KooDrive,
        hub: Hub | None,
        breaker: Breaker,
    ) -> None:
        """*rows*: that are to be settled."""
        settings, clock = session.settings, session.clock
        self._send = settings.send
        self._pulse = session.pulse
        self._ledger, self._run = ledger, run
        self._pacer, self._client, self._hub = pacer, client, hub
        self._breaker = breaker
        self._clock = clock
        self._gauge = Gauge(
            pacer,
            clock,
            patience_s=client.patience_s,
            trouble=lambda: client.trouble,
            workers=self._workers,
            most_left=lambda: max(self.left_of.values(), default=0),
            list_patience_s=lambda: settings.api.list_timeout,
            stop=session.stop,
        )
        self.progress = Progress(
            rows, session.listener, clock, pacer.per_s, log_devices=settings.log.log_devices
        )
        self._timeline = Timeline(self._gauge, clock)
        self._notes = _Notes(ledger, client)
        self._began_at, self._cpu_before_s = iso(clock.utc_now()), time.process_time()
        self.left_of: Counter[str] = Counter()
        self.sender: Sender | None = None
        self.adjusted: list[Adjustment] = []

    def _workers(self) -> list[WorkerState]:
        return [] if self._hub is None else self._hub.workers()

    def settled(self, ended: Sequence[Ended]) -> None:
        """Take in rows that are durable."""
        self.progress.settled(ended)
        self._timeline.settled(ended)
        self._breaker.settled(ended)
        if self.left_of:
            self.left_of.subtract(claim.device.user_id for claim, _ in ended)
        self._notes.take()
        self._pulse.beat()

    def doubted(self, before: Sequence[Status]) -> None:
        """Take in rows that are in doubt again. *before*: how they had ended."""
        self.progress.doubted(before)
        self._breaker.doubted(before)

    def _spent(self) -> RunFacts:
        sender = self.sender
        assert sender is not None  # set before anything is told
        facts = facts_of(
            self._client,
            self._pacer,
            self._send,
            lists=sender.lists,
            again=sender.again,
            backed_off_s=sender.backed_off_s,
        )
        facts.cpu_s = round(time.process_time() - self._cpu_before_s, 3)
        if self._hub is not None:
            facts.workers, facts.requests_unsure = self._hub.workers(), self._hub.unsure
            facts.own_settled = self._hub.own_settled
        if self.adjusted:
            facts.adjusted = self.adjusted
        return facts

    def measured(self) -> RunFacts:
        """Return what the sending has learned and spent, at its end."""
        facts = self._spent()
        facts.parts = [self._timeline.part()]
        return facts

    async def tell(self) -> None:
        """Keep in the ledger how the sending is doing, for `status` and after a crash."""
        await self._ledger.flushed()  # `status` counts what ends later than this was said
        said = live_facts(self._run, self._began_at, iso(self._clock.utc_now()), self._gauge)
        said.spent, said.to_do = self._spent(), self.progress.to_do
        await self._ledger.put_meta(LiveFacts.key, said.as_json())

    async def _show_problems(self) -> None:
        """Show the newest problems with the places of their rows."""
        if fresh := self.progress.fresh():
            places = await self._ledger.read(partial(places_of, rows=list(fresh)))
            found = zip(fresh.values(), places, strict=True)
            self.progress.show([each.text(place) for each, place in found])

    @asynccontextmanager
    async def told(self) -> AsyncIterator[None]:
        """Tell all of them while the block sends."""

        async def keep_telling() -> None:
            while True:
                await self.tell()
                await self._show_problems()
                await self._clock.sleep(TELL_EVERY_S)

        task = asyncio.create_task(keep_telling(), name="telling")
        try:
            with self.progress.shown(self._gauge):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # the next verb meets a failure, too


class _Notes:
    """Keeps what the server is found to name in the ledger, at once, as the run may be killed."""

    def __init__(self, ledger: Ledger, client: KooDrive) -> None:
        self._ledger = ledger
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._is_kept = client.names_codes

    def take(self) -> None:
        """Keep it if it is new."""
        if self._client.names_codes and not self._is_kept:
            self._is_kept = True
            work = self._ledger.put_meta(NAMES_CODES, value=True)
            self._task = asyncio.create_task(work, name="note")
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())


class Sender(Protocol):
    """Sends the rows of a run."""

    again: int
    """Binds sent again after a time-out."""

    @property
    def lists(self) -> int:
        """List calls made."""

    @property
    def backed_off_s(self) -> float:
        """Total seconds of backoff over all devices."""

    async def send(self, first: int | None) -> None:
        """Send what is left, or *first* rows of it."""

    def widen(self, concurrency: int) -> None:
        """Have workers for so many requests at once from now on."""


class _Sender:
    """Sends a run that binds: the staged rows, then the moved ones, then unbinds what leaves."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        parts: Parts,
        run: int,
        breaker: Breaker,
        *,
        on_left: Callable[[Sequence[Unbinding]], None],
        on_quiet: Callable[[], None],
    ) -> None:
        """*on_left*: called with devices that left, once durable. *on_quiet*: as `Pipeline`."""
        self._on_left = on_left
        self._on_quiet = on_quiet
        self._breaker = breaker
        self._session = session
        self._ledger = ledger
        self._parts = parts
        self._run = run
        self._width = session.settings.send.concurrency
        self._pipeline: Pipeline | None = None
        self.lists = 0
        """List calls made."""
        self.again = 0
        """Binds sent again after a time-out."""
        self.backed_off_s = 0.0
        """Total seconds of backoff over all devices."""

    def widen(self, concurrency: int) -> None:
        """Have workers for so many requests at once from now on."""
        self._width = concurrency
        if self._pipeline is not None:
            self._pipeline.widen(concurrency)

    async def send(self, first: int | None) -> None:
        """*first*: as in `run`; a pilot moves nothing, and nothing leaves."""
        mover = self._unbinder(lambda _items: None)
        await mover.find_out(self._run)
        await self._send_staged(first)
        if first is None:
            await self._move(mover)
            await self._let_leave()
        self.lists += mover.lists

    async def _let_leave(self) -> None:
        """Unbind what leaves once every bind is known to be durable, unless they have stopped."""
        await self._ledger.flushed()
        unbindings, run = self._ledger.unbindings, self._run
        if self._session.stop.is_set or not await unbindings.count_left(run, UnbindKind.LEAVE):
            return
        leaver = self._unbinder(self._on_left)
        await self._unbind(leaver, UnbindKind.LEAVE, await unbindings.last_of(run, None))
        self.lists += leaver.lists

    async def _move(self, mover: Unbinder) -> None:
        unbindings, stop = self._ledger.unbindings, self._session.stop
        while not stop.is_set:
            # In groups, so that no device is long without a user.
            last = await unbindings.next_rows(self._run, UnbindKind.MOVE, MOVED_AT_ONCE)
            if last is None:
                break
            await self._unbind(mover, UnbindKind.MOVE, last)
            if not stop.is_set:
                await self._send_staged(None)

    def _unbinder(self, on_settled: Callable[[Sequence[Unbinding]], None]) -> Unbinder:
        settings = self._session.settings
        return Unbinder(
            self._parts,
            self._ledger.unbindings,
            retries_of(self._session, self._parts.gate),
            settings.send,
            settings.doubt,
            on_settled=on_settled,
        )

    async def _unbind(self, unbinder: Unbinder, kind: UnbindKind, last: int) -> None:
        session = self._session
        await draining(
            unbinder.run(self._run, kind, last),
            session.clock,
            session.stop,
            grace_s=session.settings.send.grace,
        )

    async def _send_staged(self, first: int | None) -> None:
        settings = self._session.settings
        send = settings.send.model_copy(update={"concurrency": self._width})
        self._pipeline = pipeline = Pipeline(
            *(self._parts, self._run, send, settings.doubt, first),
            breaker=self._breaker,
            on_quiet=self._on_quiet,
        )
        try:
            await pipeline.run()
        finally:
            self.lists += pipeline.lists
            self.again += pipeline.again
            self.backed_off_s += pipeline.backed_off_s


def facts_of(
    client: KooDrive,
    pacer: Pacer,
    send: SendSettings,
    *,
    lists: int,
    again: int,
    backed_off_s: float,
) -> RunFacts:
    """Return what to record about sending, apart from the rows."""
    pace = pacer.pace()
    facts = RunFacts()
    facts.requests = client.requests + pacer.time.under_way
    facts.requests_lists = lists
    facts.requests_again = again
    facts.retrying_s = round(backed_off_s, 3)
    facts = facts.merge(pacer.spent())
    facts.rate_scope = send.rate_scope
    facts.pace_per_s = None if pace is None else round(pace, 4)
    facts.pace_from = pacer.source()
    if (told := pacer.told()) is not None:
        facts.pace_told = Told(*told)
    if (limit := pacer.limit()) is not None:
        found = LimitFound(per_s=limit.per_s, is_spaced=limit.is_spaced)
        if send.is_per_user:
            facts.limit_per_user = found
        else:
            facts.limit = found
    if (in_flight := pacer.in_flight()) is not None:
        facts.limit_in_flight = in_flight
    if client.server_clock.measured:
        # Rounded down: the estimate must never be ahead of the server's clock.
        facts.clock_skew_s = math.floor(client.server_clock.skew_s() * 1000) / 1000
    return facts


async def _finish(
    ledger: Ledger,
    run: int,
    run_id: str,
    stop: StopSignal,
    measured: Callable[[], RunFacts],
) -> None:
    reason = stop.reason.text if stop.reason else None
    try:
        await ledger.flushed()  # what is measured includes the last outcomes
        facts = measured()
        state = await ledger.finish(run, reason, facts)
    except LedgerError as error:
        raise LedgerError(f"run {run_id} broke off: {error}", hint=error.hint) from error
    counts = as_shown(await ledger.counts(run))
    logger().info("run.finished", state=state.value, stopped=reason, counts=counts, **facts.shown())


def result(session: Session, sent: Sent) -> RunResult:
    """Write the report of a run that has been sent; return how its command ends."""
    run_id = sent.run_id
    try:
        written = sent.report or write_report(
            session.settings, run_id, goes_on=session.listener.goes_on
        )
    except LedgerError as error:
        hint = f"nothing is lost: `bulkbind report {run_id} --out DIR` writes it elsewhere"
        if not ledger_of(session.settings).is_file():
            hint = "the report is made of the ledger, which is gone: bring it back, or run again"
        raise LedgerError(f"run {run_id} has ended, but {error}", hint=hint) from error
    reason = session.stop.reason
    if written.summary.state is RunState.STOPPED and reason is not None:
        is_wrong = reason.is_endpoint_wrong and not _has_worked(written.summary)
        return RunResult(written, reason.exit_code, reason.hint, is_endpoint_wrong=is_wrong)
    fails = _needs_person(written.summary, session.settings.end.fail_on)
    return RunResult(written, ExitCode.NEEDS_PERSON if fails else ExitCode.DONE)


def _has_worked(summary: RunSummary) -> bool:
    """Return whether anything is known of devices at this endpoint, which is thus the right one."""
    return any(summary.counts.get(status) for status in (*IS_BOUND, *IS_GONE, Status.FAILED))


def _needs_person(summary: RunSummary, fail_on: FailOn) -> bool:
    """Return whether a finished run has rows that *fail_on* makes an error."""
    if fail_on == "none" or not summary.needs_person:
        return False
    facts = summary.facts
    # No earlier run tells of what left the manifest, or is not found: it is always news.
    is_new = facts.changes.newly_failed != 0 or bool(summary.needing_leavers or facts.not_found)
    return fail_on == "any" or is_new

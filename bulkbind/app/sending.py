"""Where the stages meet: ledger, client, pacer and engine, joined for one sending."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import math
import os
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from bulkbind.app.connecting import client_of, retries_of
from bulkbind.app.gauge import Gauge
from bulkbind.app.pacing import pace_facts, pacer_of
from bulkbind.app.progress import Progress
from bulkbind.app.reports import Report, write_report
from bulkbind.app.timeline import Timeline
from bulkbind.app.watch import Pulse, time_box
from bulkbind.clock import Clock, iso
from bulkbind.engine import Breaker, Parts, Pipeline, StopSignal, Unbinder, draining
from bulkbind.engine.stop import DrainedError
from bulkbind.errors import InterruptedRunError, LedgerBusyError, LedgerError
from bulkbind.ledger import Ledger
from bulkbind.logs import bound, logger
from bulkbind.model import RunState, UnbindKind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bulkbind.app.listener import Listener
    from bulkbind.engine import Pacer, StopReason
    from bulkbind.koodrive import Auth, KooDrive
    from bulkbind.model import RunSummary, Settlement
    from bulkbind.settings import Settings
    from bulkbind.settings.model import FailOn, SendSettings

MOVED_AT_ONCE = 200
"""Moved rows whose devices are unbound before they are bound again."""
LOOK_AGAIN_S = 0.5
"""How often a ledger is tried that another run holds."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    report: Report | None
    """None where nothing was sent and nothing recorded."""
    exit_code: int
    """As listed in the README."""
    hint: str = ""
    """What to do next, if anything."""
    can_go_on: bool = True
    """Whether a stopped run can be gone on with: not a rehearsal, whose ledger is gone."""


@dataclass(frozen=True, slots=True)
class Session:
    """What one command works with."""

    settings: Settings
    clock: Clock
    stop: StopSignal
    listener: Listener
    auth: Auth | None
    """None: nothing is asked of the server."""
    pulse: Pulse = field(default_factory=Pulse)
    """Beaten by whatever gets on, so that a run that stands still is seen."""


def nothing_sent(reason: StopReason) -> InterruptedRunError:
    """Return what ends a command that is stopped before it sends."""
    return InterruptedRunError(f"{reason.text}; nothing was sent", exit_code=reason.exit_code)


def holder(clock: Clock) -> dict[str, object]:
    """Return who works here, where, since when, with which version."""
    try:
        operator = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        operator = str(os.getuid())
    return {
        "operator": operator,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": iso(clock.utc_now()),
        "version": version("bulkbind"),
    }


@asynccontextmanager
async def held_ledger(session: Session) -> AsyncIterator[Ledger]:
    """Hold the endpoint's ledger for the block, which the deadline and the watch for a stall end.

    Raises: LedgerBusyError, LedgerError.
    """
    endpoint = session.settings.endpoint()
    async with time_box(session.settings, session.clock, session.stop, session.pulse):
        ledger, left = await _opened(session, endpoint)
        if left:
            session.listener.notice(f"{left} rows were being sent when a run was cut off: in doubt")
        try:
            yield ledger
        finally:
            await asyncio.shield(ledger.close())


async def _opened(session: Session, endpoint: str) -> tuple[Ledger, int]:
    """Return the ledger once nobody else holds it, and how many rows a crash left claimed."""
    until = session.clock.monotonic() + session.settings.wait
    is_told = False
    while True:
        ledger = Ledger(session.settings.ledger_path(), endpoint, session.clock)
        try:
            return ledger, await ledger.open(holder(session.clock))
        except LedgerBusyError as error:
            if session.stop.reason is not None:
                raise nothing_sent(session.stop.reason) from error
            if session.clock.monotonic() >= until:
                raise
            if not is_told:
                session.listener.notice(f"{error}; waiting for it")
                is_told = True
        session.pulse.beat()  # to wait for another run is no stall
        with contextlib.suppress(DrainedError):
            await session.stop.sleep(session.clock, LOOK_AGAIN_S)


async def send(
    session: Session, ledger: Ledger, run: int, run_id: str, first: int | None = None
) -> None:
    """Send what *run* has staged, or the *first* rows of it, and end it in the ledger.

    Raises: LedgerError, UsageError (no credentials).
    """
    settings, clock, stop = session.settings, session.clock, session.stop
    pacer = await pacer_of(session, ledger)
    gauge = Gauge(pacer, clock)
    client = client_of(session, pacer, await ledger.recall("clock_skew_s"))
    staged, doubtful = await ledger.unsettled(run)
    moves = 0 if first else await ledger.unbindings.left(run, UnbindKind.MOVE)
    rows = (staged if first is None else min(first, staged)) + doubtful + moves
    progress = Progress(
        rows,
        session.listener,
        clock,
        pacer.per_s,
        log_devices=settings.log.log_devices,
    )
    timeline = Timeline(gauge, clock)
    breaker = Breaker(stop, settings.send.max_failures)

    def on_settled(settlements: Sequence[Settlement]) -> None:
        progress.settled(settlements)
        timeline.settled(settlements)
        breaker.settled(settlements)
        session.pulse.beat()

    ledger.on_settled = on_settled
    began = clock.monotonic()
    sender = _Sender(session, ledger, Parts(client, ledger, pacer, stop, clock), run)
    session.pulse.follow(lambda: client.requests, lambda: pacer.closed_for_s() > 0)
    await ledger.start(run)
    with bound(run_id=run_id):
        logger().info("run.started", rows=rows, endpoint=settings.endpoint())
        try:
            async with client:
                with progress.shown(gauge):
                    await sender.send(client, pacer, first)
        finally:
            facts = facts_of(
                client,
                pacer,
                settings.send,
                lists=sender.lists,
                sending_s=clock.monotonic() - began,
                backed_off_s=sender.backed_off_s,
            )
            await asyncio.shield(_finish(ledger, run, run_id, stop, facts=facts, timeline=timeline))


class _Sender:
    """Sends a run: first what is staged, then, group by group, what is moved."""

    def __init__(self, session: Session, ledger: Ledger, parts: Parts, run: int) -> None:
        self._session = session
        self._ledger = ledger
        self._parts = parts
        self._run = run
        self.lists = 0
        """List calls made."""
        self.backed_off_s = 0.0
        """Seconds that devices have waited for their own trouble to pass, added up."""

    async def send(self, client: KooDrive, pacer: Pacer, first: int | None) -> None:
        """*first*: as in `run`; a pilot moves nothing."""
        await self._send_staged(first)
        if first is not None:
            return
        settings, stop = self._session.settings, self._session.stop
        send = settings.send
        unbindings = self._ledger.unbindings
        mover = Unbinder(
            client,
            unbindings,
            stop,
            retries_of(self._session, pacer),
            self._session.clock,
            settle_s=settings.doubt.readback_settle,
            max_attempts=send.max_attempts,
            max_wait_s=send.max_wait,
            on_settled=lambda _items: None,
        )
        while not stop.is_set:
            # A group at a time, so that no device is long without a user.
            last = await unbindings.next_rows(self._run, UnbindKind.MOVE, MOVED_AT_ONCE)
            if last is None:
                break
            await draining(
                mover.run(self._run, UnbindKind.MOVE, last),
                self._session.clock,
                stop,
                grace_s=send.grace,
            )
            if not stop.is_set:
                await self._send_staged(None)
        self.lists += mover.lists

    async def _send_staged(self, first: int | None) -> None:
        settings = self._session.settings
        pipeline = Pipeline(self._parts, self._run, settings.send, settings.doubt, first)
        try:
            await pipeline.run()
        finally:
            self.lists += pipeline.lists
            self.backed_off_s += pipeline.backed_off_s


def facts_of(
    client: KooDrive,
    pacer: Pacer,
    send: SendSettings,
    *,
    lists: int,
    sending_s: float,
    backed_off_s: float,
) -> dict[str, object]:
    """Return what the ledger remembers of a sending beside the rows."""
    facts: dict[str, object] = {
        "requests": client.requests,
        "requests_lists": lists,
        "sending_s": round(sending_s, 3),
        "retrying_s": round(backed_off_s, 3),
    }
    facts |= pace_facts(pacer, send)
    if client.server_clock.measured:
        # Rounded down: the server's clock must never be taken for later than it is.
        facts["clock_skew_s"] = math.floor(client.server_clock.skew_s() * 1000) / 1000
    return facts


async def _finish(
    ledger: Ledger,
    run: int,
    run_id: str,
    stop: StopSignal,
    *,
    facts: dict[str, object],
    timeline: Timeline,
) -> None:
    reason = stop.reason.text if stop.reason else None
    try:
        await ledger.flushed()  # the last outcomes belong into the timeline, too
        parts = {"parts": [timeline.part()]}
        state = await ledger.finish(run, reason, facts | parts)
    except LedgerError as error:
        raise LedgerError(f"run {run_id} broke off: {error}", hint=error.hint) from error
    counts = await ledger.counts(run)
    logger().info("run.finished", state=state.value, stopped=reason, counts=counts, **facts)


def result(session: Session, run_id: str) -> RunResult:
    """Write the report of a run that has been sent, and say how its command ends."""
    try:
        written = write_report(session.settings, run_id)
    except LedgerError as error:
        hint = f"nothing is lost: `bulkbind report {run_id} --out DIR` writes it elsewhere"
        if not session.settings.ledger_path().is_file():
            hint = "the report is made of the ledger, which is gone: bring it back, or run again"
        raise LedgerError(f"run {run_id} has ended, but {error}", hint=hint) from error
    reason = session.stop.reason
    if written.summary.state is RunState.STOPPED and reason is not None:
        return RunResult(written, reason.exit_code, reason.hint)
    return RunResult(written, int(_needs_person(written.summary, session.settings.end.fail_on)))


def _needs_person(summary: RunSummary, fail_on: FailOn) -> bool:
    """Return whether a finished run has rows that somebody wants to hear of."""
    if fail_on == "none" or not summary.needs_person:
        return False
    changes = summary.facts.get("changes") or {}
    return fail_on == "any" or changes.get("newly_failed", 1) > 0

"""Run a command that sends: progress, notifications, and how the run ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bulkbind.app.inbox import InboxResult, is_new_trouble, tell_again
from bulkbind.app.notices.notify import follow_up, pinged
from bulkbind.app.notices.run_end import Ending, Here, of_error, of_inbox, of_run
from bulkbind.app.session.sending import RunResult
from bulkbind.cli.console import Console, is_interactive, logs_only, say, say_hint, tell
from bulkbind.cli.here import MANIFEST, again, as_told, command, completed, same_as, verb_of
from bulkbind.cli.options import consent_from
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_failure,
    print_json,
    run_until_done,
)
from bulkbind.clock import SystemClock, iso
from bulkbind.engine import StopSignal
from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.ledger import ledger_of, went_well_at
from bulkbind.model import RunState
from bulkbind.report import as_json, as_text
from bulkbind.report.summary import MOST_REASONS_SHOWN, came_back, files_text, tone
from bulkbind.settings import Settings
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from bulkbind.app.reports import Report
    from bulkbind.cli.consent import Consent
    from bulkbind.model import RunSummary

DRAINING = "nothing new is sent; what is in flight may end (again: at once)"

Result = TypeVar("Result", RunResult, InboxResult)
UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, Result]]


def send(
    given: dict[str, Any], use_case: UseCase[RunResult], *, is_rehearsal: bool = False
) -> ExitCode:
    """Execute a command that sends one run; return its exit code."""
    next_step = "" if is_rehearsal else "`bulkbind resume`"
    return _send(given, use_case, of_run, show, next_step=next_step, is_rehearsal=is_rehearsal)


def send_inbox(given: dict[str, Any], use_case: UseCase[InboxResult]) -> ExitCode:
    """Execute a command that sends the manifests of an inbox; return its exit code."""
    next_step = f"`{again()}`"
    return _send(given, use_case, of_inbox, _show_inbox, next_step=next_step, is_inbox=True)


def _send(
    given: dict[str, Any],
    use_case: UseCase[Result],
    ending_of: Callable[[Result, Here], Ending],
    shown: Callable[..., None],
    *,
    next_step: str,
    is_rehearsal: bool = False,
    is_inbox: bool = False,
) -> ExitCode:
    with explained():
        consent = consent_from(
            given, lambda whole: configure_logs(whole.log, is_quiet=given["quiet"])
        )
        settings = consent.settings
        configure_logs(settings.log, is_quiet=given["quiet"])
        is_once = "-" in given.get("manifests", ()) or is_rehearsal
        asks = is_interactive() and not given.get("yes", True)
        if is_rehearsal:
            console = Console(is_quiet=given["quiet"])
        else:
            consent.require(can_ask=asks)
            console = Console(is_quiet=given["quiet"], asks=asks, consent=consent)

        async def work(stop: StopSignal) -> ExitCode:
            end = _End(consent, console, given, is_inbox=is_inbox, is_once=is_once)
            try:
                result = await use_case(settings, console, stop)
            except BulkbindError as error:
                if await end.failed(error, stop):
                    return error.exit_code
                raise
            is_told = result.exit_code or settings.end.notify_on != "failure"
            here = await end.here(result) if is_told else Here()
            ending = ending_of(result, here)
            end.mail(ending)
            shown(result, settings, is_quiet=given["quiet"], is_json=given["as_json"])
            await end.follow(ending, stop)
            return result.exit_code

        return run_until_done(
            work, first_words=DRAINING, next_step=next_step, grace_s=settings.send.grace
        )


class _End:
    """Tells of the end of a command: in a mail, and to whom the settings name."""

    def __init__(
        self,
        consent: Consent,
        console: Console,
        given: dict[str, Any],
        *,
        is_inbox: bool,
        is_once: bool,
    ) -> None:
        """Begin: the start is told as well. *is_once*: the command cannot be given again."""
        self._consent = consent
        self._console = console
        self._given = given
        self._is_inbox = is_inbox
        self._is_once = is_once
        self._clock = SystemClock()
        self._began, self._began_at = self._clock.monotonic(), iso(self._clock.utc_now())
        start = pinged(consent.settings.end, "start", self._clock)
        self._start = asyncio.create_task(start, name="ping")

    async def here(self, result: RunResult | InboxResult | None = None) -> Here:
        """Return what a mail says of this place."""
        settings, names = self._consent.settings, self._given.get("manifests", ())
        well_at: str | None = ""
        with contextlib.suppress(BulkbindError):
            ledger, endpoint = ledger_of(settings), settings.endpoint()
            before = self._began_at  # what this very command did is no earlier success
            if names:
                well_at = await in_thread(went_well_at, ledger, endpoint, names, before)
        return Here(
            host=socket.gethostname(),
            endpoint=settings.api.endpoint or "",
            again="" if self._is_once else _go_on(result, settings),
            went_well_at=well_at,
            completed=partial(completed, is_absolute=True),
        )

    def mail(self, ending: Ending) -> None:
        """Write what cron mails, if there is anything to tell."""
        if self._given["quiet"] and ending.exit_code and ending.is_news:
            tell(ending.text)

    async def failed(self, error: BulkbindError, stop: StopSignal) -> bool:
        """Tell of a command that an error ended; return whether the error needs no more words."""
        ending = of_error(error, ", ".join(self._given.get("manifests", ())), await self.here())
        if self._is_inbox:
            is_news = await in_thread(is_new_trouble, self._consent.settings, error)
            ending = replace(ending, is_news=is_news)
        await self.follow(ending, stop)
        if not self._given["quiet"] or logs_only():
            return False
        self.mail(ending)
        return True

    async def follow(self, ending: Ending, stop: StopSignal) -> None:
        """Write metrics and send notifications."""
        took_s = self._clock.monotonic() - self._began
        settings = self._consent.settings
        begun = await self._start
        ended = await follow_up(settings, ending, self._clock, took_s, stop)
        for trouble in [*begun, *ended.troubles]:
            say(f"note: {trouble}")
        if self._is_inbox and ended.is_lost:
            await in_thread(tell_again, settings)
        if undone := self._consent.held_text():
            self._console.warning(undone)


def show(
    result: RunResult,
    settings: Settings | None = None,
    *,
    is_quiet: bool,
    is_json: bool,
    most_reasons: int = MOST_REASONS_SHOWN,
    is_brief: bool = False,
) -> None:
    """Print how a run ended: for a person on standard error, as JSON on standard output.

    *settings*: those of this place; None: the command at hand is the one to give again. *is_brief*:
    without what else it did.
    """
    if result.report is None:
        if not is_quiet:
            say(result.hint)
        print_failure(result.hint, "", result.exit_code)
        return
    summary = result.report.summary
    if not is_quiet:
        if not logs_only():  # the log has `run.finished`
            text = as_text(summary, most_reasons=most_reasons, is_brief=is_brief)
            same = same_as(summary, settings) if settings else ""
            say(completed(text, same=same), tone=tone(summary))
        say(files_text(summary, result.report.files))
        say_hint(result.hint)
        if summary.state is RunState.STOPPED and result.can_resume:
            say(_next_step(result, summary))
    if is_json:
        print_json(as_json(summary))


def _go_on(result: RunResult | InboxResult | None, settings: Settings) -> str:
    """Return the command for a mail: without what ended it early, or what was wrong."""
    given = click.get_current_context().params
    is_wrong = isinstance(result, RunResult) and result.is_endpoint_wrong
    mended = ["--endpoint", "URL"] if is_wrong and given.get("endpoint") else []
    if isinstance(result, RunResult) and result.report and "manifests" not in given:
        summary = result.report.summary
        if is_wrong or summary.state is RunState.DONE:  # nothing is left to resume
            words = [verb_of(summary), *_left_by(result.report), *mended]
            return as_told(words, summary, settings, is_absolute=True)
    return again(*mended, without={"--quiet", "--first", *mended}, is_absolute=True)


def _left_by(report: Report) -> list[str]:
    """Return the manifests of a run, or where they are not at hand, what came back of them."""
    names = [Path(name) for name in report.summary.manifests]
    if not all(name.is_file() for name in names):
        names = came_back(report.summary, report.files)
    return [str(name.absolute()) for name in names] or [MANIFEST]


def _next_step(result: RunResult, summary: RunSummary) -> str:
    """Return the command that resumes it; where the endpoint is wrong, once that is fixed."""
    if not result.is_endpoint_wrong:
        return f"resume with: {command(['resume', summary.run_id])}"
    context = click.get_current_context()
    manifests = [MANIFEST] if context.params.get("manifests") else summary.manifests
    mended = ["--endpoint", "URL"] if context.params.get("endpoint") else []
    return f"once it is fixed: {command([verb_of(summary), *manifests, *mended])}"


def _show_inbox(result: InboxResult, _settings: Settings, *, is_quiet: bool, is_json: bool) -> None:
    if not is_quiet:
        for item in result.files:
            counts = ", ".join(f"{count:,} {status}" for status, count in item.counts.items())
            where = f"moved to {item.moved_to}" if item.moved_to else f"stays: {item.problem}"
            say(f"{item.name}: {counts or 'not run'}; {where}")
        say(of_inbox(result).text)
    if is_json:
        print_json(result.as_json())

"""Run a command that sends: progress, notifications, and how the run ended."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bulkbind.app.inbox import InboxResult
from bulkbind.app.notices.notify import follow_up
from bulkbind.app.notices.run_end import Ending, of_error, of_inbox, of_run
from bulkbind.app.session.sending import RunResult
from bulkbind.cli.console import Console, is_interactive, logs_only, say, say_hint
from bulkbind.cli.here import MANIFEST, again, command, completed
from bulkbind.cli.options import consent_from
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_failure,
    print_json,
    run_until_done,
)
from bulkbind.clock import SystemClock
from bulkbind.engine import StopSignal
from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.model import RunState
from bulkbind.report import as_json, as_text
from bulkbind.settings import Settings

if TYPE_CHECKING:
    from bulkbind.model import RunSummary

DRAINING = "nothing new is sent; what is in flight may end (again: at once)"

Result = TypeVar("Result", RunResult, InboxResult)
UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, Result]]


def send(
    given: dict[str, Any], use_case: UseCase[RunResult], *, is_rehearsal: bool = False
) -> ExitCode:
    """Execute a command that sends one run; return its exit code."""
    next_step = "" if is_rehearsal else "`bulkbind resume` goes on"
    return _send(given, use_case, of_run, show, next_step=next_step, is_rehearsal=is_rehearsal)


def send_inbox(given: dict[str, Any], use_case: UseCase[InboxResult]) -> ExitCode:
    """Execute a command that sends the manifests of an inbox; return its exit code."""
    return _send(given, use_case, of_inbox, _show_inbox, next_step=f"go on with: {again()}")


def _send(
    given: dict[str, Any],
    use_case: UseCase[Result],
    ending_of: Callable[[Result], Ending],
    shown: Callable[..., None],
    *,
    next_step: str,
    is_rehearsal: bool = False,
) -> ExitCode:
    with explained():
        consent = consent_from(
            given, lambda whole: configure_logs(whole.log, is_quiet=given["quiet"])
        )
        settings = consent.settings
        configure_logs(settings.log, is_quiet=given["quiet"])
        asks = is_interactive() and not given.get("yes", True)
        if is_rehearsal:
            console = Console(is_quiet=given["quiet"])
        else:
            consent.require(can_ask=asks)
            console = Console(is_quiet=given["quiet"], asks=asks, consent=consent)

        async def work(stop: StopSignal) -> ExitCode:
            clock = SystemClock()
            began = clock.monotonic()

            async def follow(ending: Ending) -> None:
                took_s = clock.monotonic() - began
                told = replace(ending, text=completed(ending.text, is_absolute=True))
                for trouble in await follow_up(consent.settings, told, clock, took_s, stop):
                    say(f"note: {trouble}")
                if undone := consent.held_text():
                    console.warning(undone)

            try:
                result = await use_case(settings, console, stop)
            except BulkbindError as error:
                await follow(of_error(error, _about(given)))
                raise
            ending = ending_of(result)
            if given["quiet"] and result.exit_code:
                say(completed(ending.text, is_absolute=True))
            shown(result, is_quiet=given["quiet"], is_json=given["as_json"])
            await follow(ending)
            return result.exit_code

        return run_until_done(
            work, first_words=DRAINING, next_step=next_step, grace_s=settings.send.grace
        )


def show(result: RunResult, *, is_quiet: bool, is_json: bool, every_status: bool = False) -> None:
    """Print how a run ended: for a person on standard error, as JSON on standard output."""
    if result.report is None:
        if not is_quiet:
            say(result.hint)
        print_failure(result.hint, "", result.exit_code)
        return
    summary = result.report.summary
    if not is_quiet:
        if not logs_only():  # the log has `run.finished`
            say(completed(as_text(summary, every_status=every_status)))
        say("report: " + ", ".join(str(path) for path in result.report.files))
        say_hint(result.hint)
        if summary.state is RunState.STOPPED and result.can_resume:
            say(_next_step(result, summary))
    if is_json:
        print_json(as_json(summary))


def _next_step(result: RunResult, summary: RunSummary) -> str:
    """Return the command that goes on; where the endpoint is wrong, once that is mended."""
    if not result.is_endpoint_wrong:
        return f"go on with: {command(['resume', summary.run_id])}"
    context = click.get_current_context()
    manifests = [MANIFEST] if context.params.get("manifests") else summary.manifests
    mended = ["--endpoint", "URL"] if context.params.get("endpoint") else []
    return f"once it is mended: {command(['run', *manifests, *mended])}"


def _show_inbox(result: InboxResult, *, is_quiet: bool, is_json: bool) -> None:
    if not is_quiet:
        for item in result.files:
            counts = ", ".join(f"{count:,} {status}" for status, count in item.counts.items())
            where = f"moved to {item.moved_to}" if item.moved_to else f"stays: {item.problem}"
            say(f"{item.name}: {counts or 'not run'}; {where}")
        say(of_inbox(result).text)
    if is_json:
        print_json(result.as_json())


def _about(given: dict[str, Any]) -> str:
    return ", ".join(given.get("manifests", ()))

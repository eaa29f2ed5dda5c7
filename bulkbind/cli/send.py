"""Run a command that sends: progress, notifications, and how the run ended."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from bulkbind.app.inbox import InboxResult
from bulkbind.app.notices.notify import follow_up
from bulkbind.app.notices.run_end import Ending, of_error, of_inbox, of_run
from bulkbind.app.session.sending import RunResult
from bulkbind.cli.console import Console, is_interactive, logs_only, say, say_hint
from bulkbind.cli.options import settings_from
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
from bulkbind.report.metrics import need_metrics
from bulkbind.settings import Settings

DRAINING = "nothing new is sent; what is in flight may end (again: at once)"

Result = TypeVar("Result", RunResult, InboxResult)
UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, Result]]


def send(given: dict[str, Any], use_case: UseCase[RunResult]) -> ExitCode:
    """Execute a command that sends one run; return its exit code."""
    return _send(given, use_case, of_run, show)


def send_inbox(given: dict[str, Any], use_case: UseCase[InboxResult]) -> ExitCode:
    """Execute a command that sends the manifests of an inbox; return its exit code."""
    return _send(given, use_case, of_inbox, _show_inbox)


def _send(
    given: dict[str, Any],
    use_case: UseCase[Result],
    ending_of: Callable[[Result], Ending],
    shown: Callable[..., None],
) -> ExitCode:
    with explained():
        settings = settings_from(given)
        configure_logs(settings.log, is_quiet=given["quiet"])
        if settings.end.metrics_file is not None:
            need_metrics()
        asks = is_interactive() and not given.get("yes", True)
        console = Console(is_quiet=given["quiet"], asks=asks)

        async def work(stop: StopSignal) -> ExitCode:
            clock = SystemClock()
            began = clock.monotonic()

            async def follow(ending: Ending) -> None:
                took_s = clock.monotonic() - began
                for trouble in await follow_up(settings, ending, clock, took_s, stop):
                    say(f"note: {trouble}")

            try:
                result = await use_case(settings, console, stop)
            except BulkbindError as error:
                await follow(of_error(error, _about(given)))
                raise
            ending = ending_of(result)
            if given["quiet"] and result.exit_code:
                say(ending.text)
            shown(result, is_quiet=given["quiet"], is_json=given["as_json"])
            await follow(ending)
            return result.exit_code

        return run_until_done(work, first_words=DRAINING, grace_s=settings.send.grace)


def show(result: RunResult, *, is_quiet: bool, is_json: bool, every_status: bool = False) -> None:
    """Print how a run ended: for a person on standard error, as JSON on standard output."""
    if result.report is None:
        say(result.hint)
        print_failure(result.hint, "", result.exit_code)
        return
    summary = result.report.summary
    if not is_quiet:
        if not logs_only():  # the log has `run.finished`
            say(as_text(summary, every_status=every_status))
        say("report: " + ", ".join(str(path) for path in result.report.files))
        say_hint(result.hint)
        if summary.state is RunState.STOPPED and result.can_resume:
            say(f"go on with: bulkbind resume {summary.run_id}{same_place()}")
    if is_json:
        print_json(as_json(summary))


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


def same_place() -> str:
    """Return the given options that select the ledger, the report and the caps."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ""
    given = [
        f" --{name} {shlex.quote(str(context.params[name]))}"
        for name in ("config", "endpoint", "ledger", "out", "rate", "concurrency")
        if context.params.get(name)
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    return "".join(given)

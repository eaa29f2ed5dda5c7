"""Run a command that sends: progress, notifications, and how the run ended."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from bulkbind.app.inbox import InboxResult, is_new_trouble
from bulkbind.app.notices.notify import follow_up, pinged
from bulkbind.app.notices.run_end import Ending, Here, of_error, of_inbox, of_run
from bulkbind.app.session.sending import RunResult
from bulkbind.cli.again import same_place, typed_again
from bulkbind.cli.console import Console, is_interactive, logs_only, say, say_hint, tell
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import configure_logs, explained, print_json, run_until_done
from bulkbind.clock import SystemClock
from bulkbind.engine import StopSignal
from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.ledger import went_well_at
from bulkbind.model import RunState
from bulkbind.report import as_json, as_text
from bulkbind.report.metrics import need_metrics
from bulkbind.report.summary import MOST_REASONS_SHOWN, files_text, tone
from bulkbind.settings import Settings
from bulkbind.threads import in_thread

DRAINING = "nothing new is sent; what is in flight may end (again: at once)"

Result = TypeVar("Result", RunResult, InboxResult)
UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, Result]]


def send(given: dict[str, Any], use_case: UseCase[RunResult]) -> ExitCode:
    """Execute a command that sends one run; return its exit code."""
    return _send(given, use_case, of_run, show)


def send_inbox(given: dict[str, Any], use_case: UseCase[InboxResult]) -> ExitCode:
    """Execute a command that sends the manifests of an inbox; return its exit code."""
    return _send(given, use_case, of_inbox, _show_inbox, is_inbox=True)


def _send(
    given: dict[str, Any],
    use_case: UseCase[Result],
    ending_of: Callable[[Result, Here], Ending],
    shown: Callable[..., None],
    *,
    is_inbox: bool = False,
) -> ExitCode:
    with explained():
        settings = settings_from(given)
        configure_logs(settings.log, is_quiet=given["quiet"])
        if settings.end.metrics_file is not None:
            need_metrics()
        again = "" if "-" in given.get("manifests", ()) else typed_again()
        asks = is_interactive() and not given.get("yes", True)
        console = Console(is_quiet=given["quiet"], asks=asks)

        async def work(stop: StopSignal) -> ExitCode:
            clock = SystemClock()
            began = clock.monotonic()
            start = asyncio.create_task(pinged(settings.end, "start", clock), name="ping")

            async def follow(ending: Ending) -> None:
                took_s = clock.monotonic() - began
                troubles = await start
                troubles += await follow_up(settings, ending, clock, took_s, stop)
                for trouble in troubles:
                    say(f"note: {trouble}")

            try:
                result = await use_case(settings, console, stop)
            except BulkbindError as error:
                here = await in_thread(_here, settings, given, again)
                ending = of_error(error, _about(given), here)
                if is_inbox:
                    is_news = await in_thread(is_new_trouble, settings, error)
                    ending = replace(ending, is_news=is_news)
                await follow(ending)
                if not given["quiet"] or logs_only():
                    raise
                if ending.is_news:
                    say(ending.text)
                return error.exit_code
            here = await in_thread(_here, settings, given, again)
            ending = ending_of(result, here)
            if given["quiet"] and result.exit_code and ending.is_news:
                tell(ending.text)
            shown(result, is_quiet=given["quiet"], is_json=given["as_json"])
            await follow(ending)
            return result.exit_code

        return run_until_done(work, first_words=DRAINING, grace_s=settings.send.grace)


def show(
    result: RunResult,
    *,
    is_quiet: bool,
    is_json: bool,
    most_reasons: int = MOST_REASONS_SHOWN,
    is_brief: bool = False,
) -> None:
    """Print how a run ended: for a person on standard error, as JSON on standard output.

    *is_brief*: without what else it did.
    """
    if result.report is None:
        say(result.hint)
        return
    summary = result.report.summary
    if not is_quiet:
        if not logs_only():  # the log has `run.finished`
            say(as_text(summary, most_reasons=most_reasons, is_brief=is_brief), tone=tone(summary))
        say(files_text(summary, result.report.files))
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


def _here(settings: Settings, given: dict[str, Any], again: str) -> Here:
    """Return what a mail says of this place."""
    names = given.get("manifests", ())
    well_at: str | None = ""
    with contextlib.suppress(BulkbindError):
        well_at = went_well_at(settings.ledger_path(), settings.endpoint(), names) if names else ""
    return Here(
        host=socket.gethostname(),
        endpoint=settings.api.endpoint or "",
        again=again,
        went_well_at=well_at,
    )

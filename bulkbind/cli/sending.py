"""What `run`, `resume` and `demo` share: console, summary, the last line."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Coroutine
from typing import Any

import click

from bulkbind.app.sending import RunResult
from bulkbind.cli.console import Console, is_interactive, say, speaks_in_events
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import configure_logs, explained, print_json, run_until_done
from bulkbind.engine import StopSignal
from bulkbind.model import RunState
from bulkbind.report import as_json, as_text
from bulkbind.settings import Settings

DRAINING = "nothing new is sent; what is in flight may end (again: at once)"

UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, RunResult]]


def send(given: dict[str, Any], use_case: UseCase) -> int:
    """Carry out a command that sends; return its exit code."""
    with explained():
        settings = settings_from(given)
        configure_logs(settings.log, is_quiet=given["quiet"])
        asks = is_interactive() and not given.get("yes", True)
        console = Console(is_quiet=given["quiet"], asks=asks)

        async def work(stop: StopSignal) -> int:
            try:
                result = await use_case(settings, console, stop)
            finally:
                console.close()
            show(result, is_quiet=given["quiet"], is_json=given["as_json"])
            return result.exit_code

        return run_until_done(work, first_words=DRAINING)


def show(result: RunResult, *, is_quiet: bool, is_json: bool, every_status: bool = False) -> None:
    """Print how a run ended: first for a person, then on standard output."""
    if result.report is None:
        say(result.hint)
        return
    summary = result.report.summary
    if not is_quiet or result.exit_code:
        if not speaks_in_events():  # `run.finished` says the same
            say(as_text(summary, every_status=every_status))
        say("report: " + ", ".join(str(path) for path in result.report.files))
        if result.hint:
            say(f"\nhint: {result.hint}")
        if summary.state is RunState.STOPPED and result.can_go_on:
            say(f"go on with: bulkbind resume {summary.run_id}{same_place()}")
    if is_json:
        # Whoever stops reading does not change how the run ended.
        with contextlib.suppress(BrokenPipeError):
            print_json(as_json(summary))


def same_place() -> str:
    """Return the options that lead to the same ledger, as they were given."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ""
    given = [
        f" --{name} {shlex.quote(str(context.params[name]))}"
        for name in ("config", "endpoint", "ledger")
        if context.params.get(name)
        and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    return "".join(given)

"""What `run`, `resume` and `demo` share: console, summary, the last line."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from bulkbind.app import RunResult
from bulkbind.cli.console import Console, is_interactive, say
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import configure_logs, explained, print_json, run_until_done
from bulkbind.engine import StopSignal
from bulkbind.report import as_json, as_text
from bulkbind.settings import Settings

UseCase = Callable[[Settings, Console, StopSignal], Coroutine[Any, Any, RunResult]]


def send(given: dict[str, Any], use_case: UseCase) -> int:
    """Carry out a command that sends; return its exit code."""
    with explained():
        configure_logs(given["log_format"], given["log_level"])
        settings = settings_from(given)
        asks = is_interactive() and not given.get("yes", True)
        console = Console(is_quiet=given["quiet"], asks=asks)

        async def work(stop: StopSignal) -> int:
            try:
                result = await use_case(settings, console, stop)
            finally:
                console.close()
            show(result, is_quiet=given["quiet"], is_json=given["as_json"])
            return result.exit_code

        return run_until_done(work)


def show(result: RunResult, *, is_quiet: bool, is_json: bool, every_status: bool = False) -> None:
    """Print how a run ended."""
    if result.report is None:
        say(result.hint)
        return
    summary = result.report.summary
    if is_json:
        print_json(as_json(summary))
    if is_quiet and result.exit_code == 0:
        return
    say(as_text(summary, every_status=every_status))
    say("report: " + ", ".join(str(path) for path in result.report.files))
    if result.hint:
        say(f"\nhint: {result.hint}")
    if summary.counts.get("pending") or (result.exit_code not in (0, 1)):
        say(f"go on with: bulkbind resume {summary.run_id}")

"""Run a command: its errors explained, its event loop, signals and exit code."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from bulkbind import logs
from bulkbind.app.loop import loop_factory
from bulkbind.cli import console
from bulkbind.cli.console import for_stream, say
from bulkbind.cli.here import completed, fitting
from bulkbind.clock import SystemClock
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import BulkbindError, ExitCode
from bulkbind.logs import logger
from bulkbind.model.wording import counted, verb
from bulkbind.redaction import json_text

if TYPE_CHECKING:
    from bulkbind.settings import LogSettings
    from bulkbind.settings.model import LogLevel

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LAST_RESORT_S = 600.0
"""How long a stopping command may take for its reports, after its grace."""

Work = Callable[[StopSignal], Coroutine[Any, Any, ExitCode]]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn our errors into a message with a hint, and their exit code."""
    try:
        yield
    except BulkbindError as error:
        console.fail(error.message, error.hint, error.exit_code)
        print_failure(error.message, error.hint, error.exit_code)
        sys.exit(error.exit_code)
    except OSError as error:
        # Errors of all other files are handled where they are used.
        leave_stdout()
        told = f"standard output cannot be written: {error.strerror}"
        console.fail(told, exit_code=ExitCode.LEDGER)
        sys.exit(ExitCode.LEDGER)
    finally:
        while _log_files:
            if trouble := _log_files.pop().trouble:
                console.say(f"note: {trouble}")


_log_files: list[logs.LogFile] = []
"""Those of the command at hand."""


def print_failure(message: str, hint: str, exit_code: int) -> None:
    """With `--json`, print why there is no result as a line of JSON on standard output."""
    context = click.get_current_context(silent=True)
    given = context.params if context else {}
    is_json = given.get("as_json") or given.get("as_json_")
    if is_json if context else "--json" in sys.argv:  # a command line that cannot be parsed
        told = {"error": message, "hint": completed(fitting(hint)), "exit_code": int(exit_code)}
        with contextlib.suppress(OSError):
            print_lines([json_text(told, indent=None)])


def leave_stdout() -> None:
    """Keep Python from flushing again, at exit, what could not be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def configure_logs(settings: LogSettings, *, is_quiet: bool) -> None:
    """Configure log lines by the settings. Raises: UsageError if a file cannot be opened."""
    on_terminal = logs.is_terminal(sys.stderr)
    default: LogLevel = "error" if is_quiet else "warning" if on_terminal else "info"
    level = settings.log_level or default
    form = settings.log_format or ("console" if on_terminal else "json")
    words = _IN_WORDS if settings.log_format is None else {}
    sinks = [logs.Sink(cast("TextIO", _Stderr()), form, level, words)]
    if settings.log_file is not None:
        file_level: LogLevel = "debug" if settings.log_level == "debug" else "info"
        _log_files.append(logs.log_file(settings.log_file))
        sinks.append(logs.Sink(_log_files[-1], "json", file_level))
    logs.configure(*sinks)
    warnings.showwarning = _log_warning
    if settings.log_format == "json":
        console.log_only()


def _worker_lost(event: logs.Event) -> str:
    where = f" on {event['host']}" if event["host"] else ""
    rows = counted(event["rows"], "rows")
    return (
        f"note: worker {event['worker']}{where} is lost ({event['why']}); {rows} in its hands "
        f"{verb(event['rows'], 'is', 'are')} looked for in the lists"
    )


_IN_WORDS = {"worker.lost": _worker_lost}
"""What people are told of whose terminal shows how a run goes, where no log was asked for."""


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    *_: object,
    **_more: object,
) -> None:
    """Log what a library warns of, which would lie over the display."""
    text = f"{category.__name__}: {message}".partition("\n")[0]
    logger().info("library.warned", warning=text, where=f"{filename}:{lineno}")


class _Stderr(io.TextIOBase):
    """The current `sys.stderr`, which a live display replaces to write above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text) if sys.stderr is not None else len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def isatty(self) -> bool:
        return logs.is_terminal(sys.stderr)


def run_until_done(
    work: Work, *, first_words: str = "stopping", next_step: str = "", grace_s: float = 0.0
) -> ExitCode:
    """Run *work* with signal handlers; return the exit code.

    The first SIGINT, SIGTERM or SIGHUP drains, the second one cancels, later ones are ignored.

    Args:
        work: Receives the signal to stop.
        first_words: Printed at the first signal.
        next_step: Printed at the second one; empty: there is nothing to resume.
        grace_s: How long *work* may take to finish once it is stopping.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_with_signals(work, first_words, next_step, grace_s))


async def _with_signals(work: Work, first_words: str, next_step: str, grace_s: float) -> ExitCode:
    stop = StopSignal()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work(stop))
    code = ExitCode.INTERRUPTED
    signals_seen = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal code, signals_seen
        signals_seen += 1
        code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        if signals_seen == 1 and not stop.is_set:
            say(f"{number.name}: {first_words}")
            stop.set(StopReason(f"interrupted by {number.name}", code))
        elif not task.cancelling():
            console.end_displays()  # a command to paste stays in one line
            say(completed("Stopping now." + (f" To resume: {next_step}" if next_step else "")))
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    last_resort = asyncio.create_task(_last_resort(stop, grace_s), name="last resort")
    try:
        return await task
    except asyncio.CancelledError:
        return code
    finally:
        last_resort.cancel()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            if signals_seen:
                signal.signal(number, signal.SIG_IGN)  # only the exit is left


async def _last_resort(stop: StopSignal, grace_s: float) -> None:
    """End the process if a stop does not: something hangs that cannot be cancelled.

    As after `kill -9`, the next run settles what was in flight.
    """
    await stop.wait()
    assert stop.reason is not None
    await SystemClock().sleep(grace_s + LAST_RESORT_S)
    say(f"error: {stop.reason.text}, and it does not end: a disk or a library hangs")
    os._exit(stop.reason.exit_code)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print_lines([json_text(value)])


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, or `Lines`, on standard output until its reader has gone: no fault of ours.

    Raises: OSError for any other fault of standard output.
    """
    try:
        for each in lines:
            click.echo(for_stream(each, sys.stdout))
    except BrokenPipeError:
        leave_stdout()

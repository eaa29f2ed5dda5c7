"""Runs a use case under an event loop: signals, errors, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from bulkbind import logs
from bulkbind.cli import console
from bulkbind.cli.console import say
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import BulkbindError, LedgerError

if TYPE_CHECKING:
    from bulkbind.settings import LogSettings
    from bulkbind.settings.model import LogLevel

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Work = Callable[[StopSignal], Coroutine[Any, Any, int]]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors of ours into a text with a hint, and the exit code that belongs to them."""
    try:
        yield
    except BulkbindError as error:
        console.fail(str(error), error.hint)
        sys.exit(error.exit_code)
    except OSError as error:
        # All files but our standard streams are looked after where they are used.
        leave_stdout()
        console.fail(f"standard output cannot be written: {error.strerror}")
        sys.exit(LedgerError.exit_code)


def leave_stdout() -> None:
    """Keep Python from trying to write once more what could not be written."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def configure_logs(settings: LogSettings, *, is_quiet: bool) -> None:
    """Send log lines where the settings say. Raises: UsageError if a file cannot be opened."""
    is_seen = logs.is_terminal(sys.stderr)
    level: LogLevel = settings.log_level or ("warning" if is_seen or is_quiet else "info")
    form = settings.log_format or ("console" if is_seen else "json")
    sinks = [logs.Sink(cast("TextIO", _Stderr()), form, level)]
    if settings.log_file is not None:
        kept: LogLevel = "debug" if settings.log_level == "debug" else "info"
        sinks.append(logs.Sink(logs.log_file(settings.log_file), "json", kept))
    logs.configure(*sinks)
    if settings.log_format == "json":
        console.speak_in_events()


class _Stderr(io.TextIOBase):
    """Standard error of the moment: a live display takes its place, to write above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text) if sys.stderr is not None else len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            sys.stderr.flush()

    def isatty(self) -> bool:
        return logs.is_terminal(sys.stderr)


def run_until_done(work: Work, *, first_words: str = "stopping") -> int:
    """Run *work* with signal handlers; return the exit code.

    The first SIGINT, SIGTERM or SIGHUP drains, the second one cancels, later ones are ignored.

    Args:
        work: Gets the signal that says when to stop.
        first_words: What is said at the first signal.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_with_signals(work, first_words))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _with_signals(work: Work, first_words: str) -> int:
    stop = StopSignal()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work(stop))
    code = 130
    signals_seen = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal code, signals_seen
        signals_seen += 1
        code = 130 if number == signal.SIGINT else 143
        if signals_seen == 1 and not stop.is_set:
            say(f"{number.name}: {first_words}")
            stop.set(StopReason(f"interrupted by {number.name}", code))
        elif not task.cancelling():
            say("stopping at once; `bulkbind resume` goes on")
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        return code
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            if signals_seen:
                signal.signal(number, signal.SIG_IGN)  # the end is near, and takes no time


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))

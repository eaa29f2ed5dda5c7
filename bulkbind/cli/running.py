"""Runs a use case under an event loop: signals, errors, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import click

from bulkbind import logs
from bulkbind.cli.console import say
from bulkbind.engine import StopReason, StopSignal
from bulkbind.errors import BulkbindError

Work = Callable[[StopSignal], Coroutine[Any, Any, int]]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors of ours into a text with a hint, and the exit code that belongs to them."""
    try:
        yield
    except BulkbindError as error:
        say(f"error: {error}")
        if error.hint:
            say(f"\nhint: {error.hint}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told.
        sys.stderr.close()
        sys.exit(1)


def configure_logs(form: str | None, level: str) -> None:
    """Send logs to standard error: pretty on a terminal, else JSON lines, unless told."""
    pretty = sys.stderr.isatty() if form is None else form == "console"
    logs.configure("console" if pretty else "json", level)


def run_until_done(work: Work) -> int:
    """Run *work* with signal handlers; return the exit code.

    The first SIGINT, SIGTERM or SIGHUP drains, the second one cancels.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_with_signals(work))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _with_signals(work: Work) -> int:
    stop = StopSignal()
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work(stop))
    code = 130

    def on_signal(number: signal.Signals) -> None:
        nonlocal code
        code = 130 if number == signal.SIGINT else 143
        if stop.is_set:
            say("stopping at once")
            task.cancel()
        else:
            say(f"{number.name}: nothing new is sent; what is in flight may end (again: at once)")
            stop.set(StopReason(f"interrupted by {number.name}", code))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        return code
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))

"""What a person sees on standard error: notices, progress, the question, the summary."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import click

from bulkbind.clock import SystemClock
from bulkbind.errors import InterruptedRunError
from bulkbind.logs import is_terminal, logger
from bulkbind.model import MEANINGS, CheckedRow, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress, TaskID

READING_EVERY_S = 3.0

_speaks_in_events = False


def speak_in_events() -> None:
    """From now on, what is said is a log line, so that standard error holds nothing else."""
    global _speaks_in_events  # noqa: PLW0603  # as there is one standard error
    _speaks_in_events = True


def speaks_in_events() -> bool:
    """Return whether standard error is for a machine."""
    return _speaks_in_events


def say(text: str) -> None:
    """Write a line to standard error; a closed pipe there is nobody's trouble."""
    if _speaks_in_events:
        logger().info("command.said", text=text)
        return
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def fail(text: str, hint: str = "") -> None:
    """Say why a command ends, and what to do next."""
    if _speaks_in_events:
        logger().error("command.failed", error=text, hint=hint)
        return
    say(f"error: {text}")
    if hint:
        say(f"\nhint: {hint}")


def is_interactive() -> bool:
    """Return whether a person can be asked."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


class Console:
    """Tells a person what a use case does."""

    def __init__(self, *, is_quiet: bool = False, asks: bool = False) -> None:
        self._is_quiet = is_quiet
        self._asks = asks
        self._clock = SystemClock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._told_at = self._clock.monotonic()

    def close(self) -> None:
        """Leave the screen as it should stay."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def notice(self, text: str) -> None:
        """Say something worth knowing."""
        if not self._is_quiet:
            say(f"note: {text}")

    def staged(self, rows: int) -> None:
        """Tell how far the reading has come, every few seconds."""
        now = self._clock.monotonic()
        if not self._is_quiet and now - self._told_at >= READING_EVERY_S:
            self._told_at = now
            say(f"reading: {rows:,} rows")

    def sending(self, rows: int) -> None:
        """Begin to show progress; off a terminal, log lines tell it."""
        if rows and not self._is_quiet and is_terminal(sys.stderr) and not _speaks_in_events:
            self._start_bar(rows)

    def settled(self, counts: dict[str, int]) -> None:
        """Show what is durable."""
        if self._bar is not None and self._task is not None:
            done = sum(counts.values())
            self._bar.update(self._task, completed=done, told=_told(counts))

    def confirm(self, counts: dict[str, int]) -> bool:
        """Show what would be done and ask, if there is somebody to ask."""
        staged = counts.get(Status.STAGED, 0)
        if not self._is_quiet:
            say(f"{sum(counts.values()):,} rows: {staged:,} to bind" + _rest(counts))
        if not self._asks or not (staged or counts.get(Status.IN_DOUBT, 0)):
            return True
        with _interruptible():
            try:
                return click.confirm("Bind them?", default=False, err=True)
            except (click.Abort, KeyboardInterrupt):
                raise InterruptedRunError("nothing was sent") from None

    def problem(self, source: str, row: CheckedRow) -> None:
        """Problems are shown by `validate` itself."""

    def _start_bar(self, rows: int) -> None:
        from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal
        from rich.progress import (  # noqa: PLC0415  # as above
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=Terminal(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("sending", total=rows, told="")
        self._bar.start()


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[s]:,} {s}" for s in MEANINGS if counts.get(s))


def _rest(counts: dict[str, int]) -> str:
    rest = {status: n for status, n in counts.items() if status != Status.STAGED}
    return "".join(f", {n:,} {status}" for status, n in sorted(rest.items()))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals end a question: the loop's handlers could not run while it waits."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

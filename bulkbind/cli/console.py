"""What a person sees on standard error: notices, progress, the question, the summary."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import click

from bulkbind.clock import SystemClock
from bulkbind.errors import InterruptedRunError, UsageError
from bulkbind.logs import is_terminal, logger
from bulkbind.report.plan_text import as_text as plan_text
from bulkbind.report.undo_text import plan_as_text as undo_plan_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkbind.app.session.eta import Gauge
    from bulkbind.cli.live import LiveDisplay
    from bulkbind.model import CheckedRow, Plan, UndoPlan

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
    if sys.stderr is not None:
        # Not by click, which would write past a live display that has taken the stream's place.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


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
        self._live: LiveDisplay | None = None
        self._told_at = self._clock.monotonic()

    def close(self) -> None:
        """Leave the screen as it should stay."""
        if self._live is not None:
            self._live.stop()
            self._live = None

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

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Begin to show progress; off a terminal, log lines tell it."""
        if rows and not self._is_quiet and is_terminal(sys.stderr) and not _speaks_in_events:
            from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal

            from bulkbind.cli.live import LiveDisplay  # noqa: PLC0415  # as above

            self._live = LiveDisplay(rows, gauge, self._clock, Terminal(stderr=True))
            self._live.start()

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Show what is durable."""
        if self._live is not None:
            self._live.settled(counts, problems)

    def confirm(self, plan: Plan) -> bool:
        """Show what would be done and ask, if there is somebody to ask."""
        if not self._is_quiet:
            say(plan_text(plan, is_brief=True))
        if not self._asks or not plan.forecast.calls:
            return True
        with _interruptible():
            try:
                return click.confirm("Bind them?", default=False, err=True)
            except (click.Abort, KeyboardInterrupt):
                raise InterruptedRunError("nothing was sent") from None

    def confirm_undo(self, undo: UndoPlan) -> bool:
        """Show what would be taken back, and let its number be typed."""
        if not self._asks:
            raise UsageError(
                f"undo would unbind {undo.devices:,} devices, and there is nobody to ask",
                hint=f"--yes-unbind {undo.devices} says that so many are meant",
            )
        say(undo_plan_text(undo))
        with _interruptible():
            try:
                typed: str = click.prompt(
                    f"Type {undo.devices} to unbind them", default="", show_default=False, err=True
                )
            except (click.Abort, KeyboardInterrupt):
                raise InterruptedRunError("nothing was unbound") from None
        return typed.strip().replace(",", "") == str(undo.devices)

    def problem(self, source: str, row: CheckedRow) -> None:
        """Problems are shown by `validate` itself."""


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

"""What a person sees on standard error: notices, progress, the question, the summary."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.session.listener import Listener
from bulkbind.clock import SystemClock
from bulkbind.errors import ExitCode, InterruptedRunError, UsageError
from bulkbind.logs import is_terminal, logger
from bulkbind.redaction import Lines, line
from bulkbind.report.plan_text import plan_text
from bulkbind.report.undo_report import MAY_COST, undo_plan_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from bulkbind.app.session.eta import Gauge
    from bulkbind.cli.live import LiveDisplay
    from bulkbind.model import Plan, UndoPlan

READING_EVERY_S = 3.0

_logs_only = False


def log_only() -> None:
    """Turn messages into log lines from now on, so that standard error holds nothing else."""
    global _logs_only  # noqa: PLW0603  # there is one standard error
    _logs_only = True


def logs_only() -> bool:
    """Return whether standard error holds log lines only."""
    return _logs_only


def say(text: str) -> None:
    """Write a line, or `Lines`, to standard error; ignore a closed pipe."""
    if _logs_only:
        logger().info("command.said", text=text)
        return
    # Not with click, which would bypass a live display that has replaced the stream.
    _write(sys.stderr, f"{line(text)}\n")


def say_hint(hint: str) -> None:
    """Write what to do next, if anything, below an empty line."""
    if hint:
        say(Lines(f"\nhint: {line(hint)}"))


def fail(text: str, hint: str = "", exit_code: int = ExitCode.NOT_STARTED) -> None:
    """Print why a command failed, and what to do next."""
    if _logs_only:
        logger().error("command.failed", error=text, hint=hint, exit_code=int(exit_code))
        return
    say(Lines(f"error: {line(text)}"))
    say_hint(hint)


def is_interactive() -> bool:
    """Return whether a person can be asked: standard input is a terminal."""
    return is_terminal(sys.stdin)


def ask(what: str, question: str, unanswered: str) -> str:
    """Ask a person; return the line typed, without blanks around it.

    Args:
        what: What the question is about; may be empty.
        question: One line.
        unanswered: The error's text if there is no answer: at Ctrl-C, or at the end of the input.

    Raises: InterruptedRunError without an answer.
    """
    with _interruptible():
        try:
            _show_question(what, question)
            typed = sys.stdin.readline()
        except UnicodeDecodeError:
            typed = "?\n"  # not an answer
        except (KeyboardInterrupt, OSError):
            typed = ""
    if not typed:
        if is_terminal(sys.stderr):
            say("")  # ends the line of the question and `^C`
        raise InterruptedRunError(unanswered)
    return typed.strip()


def _show_question(what: str, question: str) -> None:
    """Write a question where a person sees it: to standard error, else to the terminal."""
    what, question = line(what), line(question)
    if what:
        say(what)
    if is_terminal(sys.stderr) and not _logs_only:
        _write(sys.stderr, f"{question} ")
        return
    if not _logs_only:
        say(question)  # a whole line, since the reader of a pipe may wait for its end
    if _logs_only or not _may_be_seen(sys.stderr):
        with contextlib.suppress(OSError), Path("/dev/tty").open("w", encoding="utf-8") as terminal:
            _write(terminal, f"{what}\n{question} ")


def _may_be_seen(stream: TextIO | None) -> bool:
    """Return whether a person may see a stream that is not a terminal: a pipe, as to tee."""
    if stream is None:
        return False
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # not a stream of the operating system
        return True
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        return False
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return not poll.poll(0)  # an event here means only that the reader is gone


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush; ignore a closed pipe."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


class Console(Listener):
    """Shows a person what a use case does."""

    def __init__(self, *, is_quiet: bool = False, asks: bool = False) -> None:
        self._is_quiet = is_quiet
        self._asks = asks
        self._clock = SystemClock()
        self._live: LiveDisplay | None = None
        self._reported_at = self._clock.monotonic()

    def notice(self, text: str) -> None:
        """Print a notice."""
        if not self._is_quiet:
            say(f"note: {text}")

    def warning(self, text: str) -> None:
        """Print a warning."""
        say(f"warning: {text}")

    def staged(self, rows: int) -> None:
        """Print the number of rows read, every few seconds."""
        now = self._clock.monotonic()
        if not self._is_quiet and now - self._reported_at >= READING_EVERY_S:
            self._reported_at = now
            say(f"reading: {rows:,} rows")

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Start the live display; without a terminal, log lines show progress."""
        self.sent()  # two displays would overwrite each other
        if rows and not self._is_quiet and is_terminal(sys.stderr) and not _logs_only:
            from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal

            from bulkbind.cli.live import LiveDisplay  # noqa: PLC0415  # as above

            self._live = LiveDisplay(rows, gauge, self._clock, Terminal(stderr=True))
            self._live.start()

    def sent(self) -> None:
        """Remove the live display from the screen."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Update the live display."""
        if self._live is not None:
            self._live.settled(counts, problems)

    def confirm(self, plan: Plan) -> bool:
        """Show the plan, and ask if there is a person to ask."""
        what = "" if self._is_quiet else plan_text(plan, is_brief=True)
        if self._is_quiet and self._asks and plan.forecast.unbinds:
            what = MAY_COST
        if not self._asks or not plan.forecast.calls:
            if what:
                say(what)
            return True
        while True:
            answer = ask(what, "Bind them? [y/N]:", "nothing was sent").lower()
            if answer in ("y", "yes", "n", "no", ""):
                return answer.startswith("y")
            what = "answer y or n"

    def confirm_undo(self, undo: UndoPlan) -> bool:
        """Show what would be unbound, and ask for the number of devices."""
        if not self._asks:
            raise UsageError(
                f"undo would unbind {undo.devices:,} devices, and there is nobody to ask",
                hint=f"--yes-unbind {undo.devices} says that so many are meant",
            )
        question = f"Type {undo.devices} to unbind them:"
        typed = ask(undo_plan_text(undo), question, "nothing was unbound")
        return typed.replace(",", "") == str(undo.devices)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let signals end a question: the event loop's handlers do not run while it waits."""
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

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

from bulkbind.clock import SystemClock
from bulkbind.errors import InterruptedRunError, UsageError
from bulkbind.logs import is_terminal, logger
from bulkbind.report.plan_text import plan_text, undo_plan_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

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
    # Not by click, which would write past a live display that has taken the stream's place.
    _write(sys.stderr, f"{text}\n")


def fail(text: str, hint: str = "") -> None:
    """Say why a command ends, and what to do next."""
    if _speaks_in_events:
        logger().error("command.failed", error=text, hint=hint)
        return
    say(f"error: {text}")
    if hint:
        say(f"\nhint: {hint}")


def is_interactive() -> bool:
    """Return whether a person can be asked: one who types, wherever the output goes."""
    return is_terminal(sys.stdin)


def ask(what: str, question: str, unanswered: str) -> str:
    """Return the line that a person types in answer, without blanks around it.

    Args:
        what: What the question is about; may be empty.
        question: One line.
        unanswered: What it means that no answer comes: at Ctrl-C, or at the end of the input.

    Raises: InterruptedRunError where no answer comes.
    """
    with _interruptible():
        try:
            _put(what, question)
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            line = "?\n"  # whatever it was, it is no answer
        except (KeyboardInterrupt, OSError):
            line = ""
    if not line:
        if is_terminal(sys.stderr):
            say("")  # behind the question and `^C`
        raise InterruptedRunError(unanswered)
    return line.strip()


def _put(what: str, question: str) -> None:
    """Write a question where it is seen: on standard error, or else where the answer is typed."""
    if what:
        say(what)
    if is_terminal(sys.stderr) and not _speaks_in_events:
        _write(sys.stderr, f"{question} ")
        return
    if not _speaks_in_events:
        say(question)  # a whole line: a program that reads a pipe may wait for its end
    if _speaks_in_events or not _may_be_seen(sys.stderr):
        with contextlib.suppress(OSError), Path("/dev/tty").open("w", encoding="utf-8") as terminal:
            _write(terminal, f"{what}\n{question} ")


def _may_be_seen(stream: TextIO | None) -> bool:
    """Return whether a person may see what is no terminal: a pipe that is read, as by tee."""
    if stream is None:
        return False
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # it is none of the operating system's
        return True
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        return False
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return not poll.poll(0)  # it tells only that the reader has gone


def _write(stream: TextIO | None, text: str) -> None:
    """Write at once; a reader who has gone is nobody's trouble."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


class Console:
    """Tells a person what a use case does."""

    def __init__(self, *, is_quiet: bool = False, asks: bool = False) -> None:
        self._is_quiet = is_quiet
        self._asks = asks
        self._clock = SystemClock()
        self._live: LiveDisplay | None = None
        self._told_at = self._clock.monotonic()

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
        self.sent()  # two displays would overwrite each other
        if rows and not self._is_quiet and is_terminal(sys.stderr) and not _speaks_in_events:
            from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal

            from bulkbind.cli.live import LiveDisplay  # noqa: PLC0415  # as above

            self._live = LiveDisplay(rows, gauge, self._clock, Terminal(stderr=True))
            self._live.start()

    def sent(self) -> None:
        """Take the progress off the screen, which stays as if it had not been there."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Show what is durable."""
        if self._live is not None:
            self._live.settled(counts, problems)

    def confirm(self, plan: Plan) -> bool:
        """Show what would be done and ask, if there is somebody to ask."""
        what = "" if self._is_quiet else plan_text(plan, is_brief=True)
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
        """Show what would be taken back, and let its number be typed."""
        if not self._asks:
            raise UsageError(
                f"undo would unbind {undo.devices:,} devices, and there is nobody to ask",
                hint=f"--yes-unbind {undo.devices} says that so many are meant",
            )
        question = f"Type {undo.devices} to unbind them:"
        typed = ask(undo_plan_text(undo), question, "nothing was unbound")
        return typed.replace(",", "") == str(undo.devices)

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

"""What a person sees on standard error: notices, progress, the question, the summary."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulkbind.app.session.listener import Listener
from bulkbind.cli.colours import painted
from bulkbind.cli.consent import target_of
from bulkbind.cli.here import again, command, completed, fitting
from bulkbind.clock import SystemClock
from bulkbind.errors import DeclinedError, ExitCode, InterruptedRunError, UsageError
from bulkbind.logs import has_colours, is_terminal, logger
from bulkbind.model.wording import counted, verb
from bulkbind.redaction import Lines, line
from bulkbind.report.layout import WIDTH, fitted
from bulkbind.report.plan_text import plan_text
from bulkbind.report.undo_report import MAY_COST, undo_plan_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from bulkbind.app.session.eta import Gauge
    from bulkbind.cli.consent import Consent
    from bulkbind.cli.live import LiveDisplay
    from bulkbind.model import Plan, UndoPlan
    from bulkbind.settings import Settings

READING_EVERY_S = 3.0

_displays: list[LiveDisplay] = []


def end_displays() -> None:
    """Remove the live display, if there is one: it breaks the lines that are written above it."""
    while _displays:
        _displays.pop().stop()


_logs_only = False


def log_only() -> None:
    """Turn messages into log lines from now on, so that standard error holds nothing else."""
    global _logs_only  # noqa: PLW0603  # there is one standard error
    _logs_only = True


def logs_only() -> bool:
    """Return whether standard error holds log lines only."""
    return _logs_only


def say(text: str, *, tone: str = "") -> None:
    """Write a line, or `Lines`, to standard error; ignore a closed pipe.

    *tone*: the colour of its first line, as of a status.
    """
    if _logs_only:
        logger().info("command.said", text=text)
        return
    # Not with click, which would bypass a live display that has replaced the stream.
    _write(sys.stderr, f"{for_stream(text, sys.stderr, tone=tone)}\n")


def tell(text: str) -> None:
    """Write what must be read also where nothing else is: of a quiet command, how it failed."""
    if _logs_only:
        logger().error("command.said", text=text)
        return
    say(text)


def for_stream(text: str, stream: TextIO | None, *, tone: str = "") -> str:
    """Return a line, or `Lines`, as a stream shows them: on a terminal fitted, and in colour."""
    shown = str(line(text))
    if not is_terminal(stream):
        return shown
    assert stream is not None
    shown = _fitted(shown, stream)
    return painted(shown, tone) if has_colours(stream) else shown


def _fitted(text: str, terminal: TextIO) -> str:
    """Return lines, broken at words where they are too wide for a terminal."""
    try:
        width = os.get_terminal_size(terminal.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return fitted(text, width or WIDTH)


def say_hint(hint: str) -> None:
    """Write what to do next, if anything, below an empty line."""
    if hint:
        say(Lines(f"\nhint: {completed(fitting(hint))}"))


def fail(text: str, hint: str = "", exit_code: int = ExitCode.NOT_STARTED) -> None:
    """Print why a command failed, and what to do next."""
    if _logs_only:
        hint = completed(fitting(hint))
        logger().error("command.failed", error=text, hint=hint, exit_code=int(exit_code))
        return
    prefix = "" if exit_code == ExitCode.DECLINED else "error: "
    say(Lines(f"{prefix}{line(text)}"))
    say_hint(hint)


def is_interactive() -> bool:
    """Return whether a person can be asked: standard input is a terminal."""
    return is_terminal(sys.stdin)


def ask(what: str, question: str, unanswered: str, *, is_grave: bool = False) -> str:
    """Ask a person; return the line typed, without blanks around it.

    Args:
        what: What the question is about; may be empty.
        question: One line.
        unanswered: The error's text if there is no answer: at Ctrl-C, or at the end of the input.
        is_grave: Whether it stands out, where colours may be used.

    Raises: InterruptedRunError without an answer.
    """
    with _interruptible():
        try:
            _show_question(what, question, is_grave=is_grave)
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


GRAVE = "\x1b[1;33m"
"""Bold and yellow."""


def _show_question(what: str, question: str, *, is_grave: bool) -> None:
    """Write a question to the terminal, and a record of it where standard error is none.

    What reads standard error, as `tee` or `less` does, need not show it at once, nor at all.
    """
    what, question = line(what), line(question)
    stands_out = is_grave and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def shown(terminal: TextIO) -> str:
        text = _fitted(question, terminal)
        return f"{GRAVE}{text}\x1b[0m " if stands_out else f"{text} "

    if what:
        say(what)
    if is_terminal(sys.stderr) and not _logs_only:
        _write(sys.stderr, shown(sys.stderr))
        return
    say(question)
    # Standard input may be a terminal that is not the process's own: then the record is all.
    with contextlib.suppress(OSError), Path("/dev/tty").open("w", encoding="utf-8") as terminal:
        _write(terminal, f"{what}\n{shown(terminal)}" if what else shown(terminal))


def _write(stream: TextIO | None, text: str) -> None:
    """Write and flush; ignore a closed pipe."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()


class Console(Listener):
    """Shows a person what a use case does."""

    def __init__(
        self, *, is_quiet: bool = False, asks: bool = False, consent: Consent | None = None
    ) -> None:
        """*consent*: to the settings, for commands that send."""
        self._is_quiet = is_quiet
        self._asks = asks
        self._consent = consent
        self._clock = SystemClock()
        self._live: LiveDisplay | None = None
        self._context = click.get_current_context(silent=True)
        self._reported_at = self._clock.monotonic()

    def goes_on(self, run_id: str) -> str:
        """Return it for whoever reads the report elsewhere."""
        if self._context is None:
            return ""
        with self._context.scope(cleanup=False):  # which each thread has of its own
            return command(["resume", run_id], is_absolute=True)

    def notice(self, text: str) -> None:
        """Print a notice."""
        if not self._is_quiet:
            say(completed(f"note: {text}"))

    def warning(self, text: str) -> None:
        """Print a warning."""
        say(completed(f"warning: {text}"))

    def staged(self, rows: int) -> None:
        """Print the number of rows read, every few seconds."""
        now = self._clock.monotonic()
        if not self._is_quiet and now - self._reported_at >= READING_EVERY_S:
            self._reported_at = now
            say(f"reading: {counted(rows, 'rows')}")

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Start the live display; without a terminal, log lines show progress."""
        self.sent()  # two displays would overwrite each other
        if rows and not self._is_quiet and is_terminal(sys.stderr) and not _logs_only:
            from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal

            from bulkbind.cli.live import LiveDisplay  # noqa: PLC0415  # as above

            self._live = LiveDisplay(rows, gauge, self._clock, Terminal(stderr=True))
            self._live.start()
            _displays.append(self._live)

    def sent(self) -> None:
        """Remove the live display from the screen."""
        if self._live is not None:
            self._live = None
            end_displays()

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Update the live display."""
        if self._live is not None:
            self._live.settled(counts, problems)

    def confirm(self, plan: Plan) -> bool:
        """Show the plan, and ask if there is a person to ask."""
        asks = self._asks and plan.forecast.calls > 0
        what = self._told(plan)
        if not asks:
            if not self._is_quiet:
                say(what)
            return True
        assert self._consent is not None, "who asks knows the settings"
        settings = self._consent.settings
        target = target_of(settings)
        deeds = _deeds(plan)
        question = f"{deeds[0].upper()}{deeds[1:]} at {target.text} {_caller(settings)}? [y/N]"
        is_agreed = _is_yes(what, question, is_grave=not target.is_sandbox)
        if is_agreed:
            self._consent.give()
        return is_agreed

    def confirm_leavers(self, plan: Plan) -> bool:
        """Show the plan, and ask for the number of devices to be unbound, if anybody can be."""
        if not self._asks or plan.leavers is None:
            return False
        if not self._is_number_typed(self._told(plan), plan.leavers.devices, _deeds(plan), "sent"):
            raise DeclinedError("declined: nothing was sent")
        return True

    def _is_number_typed(self, what: str, number: int, deed: str, done: str) -> bool:
        """Show what would be done, and ask for its number; a yes is one to the settings, too."""
        assert self._consent is not None, "who asks knows the settings"
        settings = self._consent.settings
        target = target_of(settings)
        question = (
            f"Type {number} to {deed[0].lower()}{deed[1:]} at {target.text} {_caller(settings)}:"
        )
        typed = ask(what, question, f"nothing was {done}", is_grave=not target.is_sandbox)
        is_agreed = typed.replace(",", "") == str(number)
        if is_agreed:
            self._consent.give()
        return is_agreed

    def _told(self, plan: Plan) -> Lines:
        """Return what a question about a plan is about."""
        what = completed(plan_text(plan, is_brief=True))
        if not self._is_quiet:
            return Lines(what)
        first = what.partition("\n")[0]
        return Lines(f"{first}\n{MAY_COST}" if plan.forecast.unbinds else first)

    def before_credentials(self) -> None:
        """Ask whether a settings file that nobody named is meant. Raises: DeclinedError."""
        if self._consent is None or not self._consent.is_needed:
            return
        self._consent.require(can_ask=self._asks)
        settings = self._consent.settings
        target = target_of(settings)
        question = (
            f"{self._consent.file} in this folder leads to {target.text} "
            f"{_caller(settings)}: is it meant? [y/N]"
        )
        if not _is_yes("", question, is_grave=not target.is_sandbox):
            raise DeclinedError(
                "declined: nothing was sent",
                hint=f"name the settings that are meant: {again('--config', 'FILE')}",
            )
        self._consent.give()

    def confirm_unbind(self, plan: Plan) -> bool:
        """Show the plan of an unbind, and ask for the number of devices."""
        what, count = self._told(plan), plan.forecast.unbinds
        if self._consent is None:  # nothing real is touched
            if not self._is_quiet:
                say(what)
            return True
        return self._confirm_number("unbind", what, count)

    def confirm_undo(self, undo: UndoPlan) -> bool:
        """Show what would be unbound, and ask for the number of devices."""
        return self._confirm_number("undo", undo_plan_text(undo), undo.devices)

    def _confirm_number(self, command: str, what: Lines, count: int) -> bool:
        """Show what would be unbound, and ask for the number of devices."""
        if not self._asks:
            raise UsageError(
                f"{command} would unbind {counted(count, 'devices')}, and there is nobody to ask",
                hint="say that so many are meant: "
                f"`{again('--yes-unbind', str(count), is_absolute=True)}`",
            )
        return self._is_number_typed(what, count, f"unbind {verb(count, 'it', 'them')}", "unbound")


def _caller(settings: Settings) -> str:
    from bulkbind.koodrive import caller  # noqa: PLC0415  # slow to import; few commands ask

    return caller(settings.auth)


def _deeds(plan: Plan) -> str:
    """Return what a run would do: `bind 3,000 devices of 12 users and unbind 5 that left`."""
    forecast = plan.forecast
    leave = plan.leavers.devices if plan.leavers else 0
    unbind = f"unbind {counted(leave, 'devices')} that left the manifest"
    if not forecast.binds:
        return unbind if leave else "bind what is in doubt, once it is looked up,"
    text = f"bind {counted(forecast.binds, 'devices')} of {counted(forecast.users, 'users')}"
    if moves := forecast.moves:
        text += f", {moves:,} of them unbound from other users first,"
    return f"{text} and {unbind}" if leave else text


def _is_yes(what: str, question: str, *, is_grave: bool) -> bool:
    """Ask until the answer is yes or no. Raises: InterruptedRunError."""
    while True:
        answer = ask(what, question, "nothing was sent", is_grave=is_grave).lower()
        if answer in ("y", "yes", "n", "no", ""):
            return answer.startswith("y")
        what = "answer y or n"


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

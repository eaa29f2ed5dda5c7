"""The command line: one module per command, imported when it is called."""

from __future__ import annotations

import gc
import io
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, cast

import click

from bulkbind.app.loop import MOST_UNCOLLECTED
from bulkbind.cli.process import lean_imports, leave
from bulkbind.errors import ExitCode, did_you_mean, meanings
from bulkbind.redaction import Lines, line

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "demo": "the whole job on an embedded sandbox; needs nothing",
    "init": "make a settings file from a manifest's header",
    "validate": "check manifests against the rules; no network",
    "plan": "show what run would do; nothing is sent",
    "run": "bind every device of the manifests; asks first on a terminal",
    "unbind": "unbind every device of the manifests; asks for their number first",
    "resume": "resume an unfinished run, from the ledger alone",
    "status": "show where a run stands, also while it is sending",
    "adjust": "steer the run that is sending: slower, paused, ended",
    "history": "show what became of a device or of a user's devices, over all runs",
    "report": "write a run's report files again, in any format",
    "runs": "list the runs in the ledger",
    "prune": "delete what is old from the ledger and the report folders",
    "ledger": "copy the ledger, look for damage in it, or tell what it holds",
    "bundle": "pack what one attaches to a ticket about a run",
    "doctor": "check settings, credentials, ledger, connection and clock, line by line",
    "verify": "compare what a run says with the server's lists",
    "undo": "unbind what a run bound, and only that; bind again what it unbound",
    "adopt": "take over what the server has; a new ledger then binds nothing twice",
    "export": "write what is bound on the server as a manifest",
    "completion": "print a script that completes commands, options, values and run ids in a shell",
    "config": "print the settings in force, and where each came from",
    "schema": "print the JSON Schema of manifests, settings, results or log lines",
    "sandbox": "serve a local KooDrive to rehearse on",
    "help": "show a topic of the manual, such as credentials or what-happens-when",
}


class _Commands(click.Group):
    """Imports a command's module only when needed, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with lean_imports():
            if cmd_name == "resume":  # shares the module of `run`
                module = import_module("bulkbind.cli.commands.run")
                return cast("click.Command", module.resume_command)
            module = import_module(f"bulkbind.cli.commands.{cmd_name}")
            return cast("click.Command", module.command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was typed; the error names the nearest one."""
        is_typed = args and not args[0].startswith("-") and not ctx.resilient_parsing
        if is_typed and args[0] not in COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete commands without importing them, which would be slow."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415  # few calls complete

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=text)
            for name, text in COMMANDS.items()
            if name.startswith(incomplete)
        ]


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `bulkbind demo`; `bulkbind help` lists the topics. "
    f"Exit codes: {meanings()}.",
)
@click.version_option(None, "-V", "--version", package_name="bulkbind")
def cli() -> None:
    """Bind a manifest of devices to KooDrive users, at the server's pace.

    Every row is checked before anything is sent, every device gets a result, and a run that was
    cut off can be resumed.
    """


def _fill_standard_streams() -> None:
    """Open /dev/null for closed standard streams, so that no other file gets their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _show(error: click.ClickException) -> None:
    """Print how the command line is wrong; the message quotes what was typed."""
    shown = io.StringIO()
    error.show(shown)
    told = error.format_message()
    text = shown.getvalue().replace(f"Error: {told}", f"error: {line(_in_words(error))}")
    # Few calls come here, and `--help` shall not load it.
    from bulkbind.cli.console import for_stream  # noqa: PLC0415  # as above

    click.echo(for_stream(Lines(text), sys.stderr), err=True, nl=False)


def _in_words(error: click.ClickException) -> str:
    """Return a message as one line, where click lays it out in several itself."""
    told = error.format_message()
    return " ".join(told.split()) if isinstance(error, click.MissingParameter) else told


def main() -> NoReturn:
    """Run the command line, and end the process with its code."""
    try:
        run_command_line()
    except SystemExit as end:
        if isinstance(end.code, int):
            leave(end.code)
        raise


def run_command_line() -> NoReturn:
    """Run the command line. Raises: SystemExit, with its code."""
    _fill_standard_streams()
    gc.set_threshold(MOST_UNCOLLECTED)
    try:
        code = cli.main(prog_name="bulkbind", standalone_mode=False)
    except click.ClickException as error:
        _show(error)
        if "--json" in sys.argv:
            # Few calls come here, and `--help` shall not load it.
            from bulkbind.cli.running import print_failure  # noqa: PLC0415  # as above

            print_failure(_in_words(error), "", error.exit_code)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)

"""`bulkbind undo`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.undo import undo
from bulkbind.cli import options
from bulkbind.cli.console import Console, is_interactive, logs_only, say, say_hint
from bulkbind.cli.here import command as command_here, completed
from bulkbind.cli.options import consent_from, runs_of
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_failure,
    print_json,
    run_until_done,
)
from bulkbind.cli.send import DRAINING, show
from bulkbind.model import RunState
from bulkbind.report.undo_report import undo_json, undo_text
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.app.undo import UndoResult
    from bulkbind.engine import StopSignal
    from bulkbind.errors import ExitCode


@options.command("undo")
@click.argument("run_id", metavar="RUN", shell_complete=runs_of)
@options.config
@options.settings(Group.LEDGER, Group.OUT)
@options.yes_unbind
@options.settings(Group.NETWORK, Group.PACE, Group.SENDING)
@options.output_options
def command(run_id: str, *, yes_unbind: int | None, **given: Any) -> None:
    """Unbind what a run bound, and only that.

    RUN is its id or the beginning of it. Rows that were `already_bound` or `skipped` are left
    alone, and so is a device that somebody has bound anew since: the user's list is read first,
    and once more where it lacks something. On a terminal the number of devices has to be typed.
    The same command resumes what was cut off, even by kill -9. Given again later, it tries
    again what could not be unbound, and what was already gone. What the run had not sent yet is
    withdrawn. What a run has unbound, of `bulkbind unbind`, is bound again in a run of its own;
    `--yes-unbind 0` does so without a question.

    \b
    undo.csv   one line per device: unbound, already_gone, changed, failed or pending
    undo.json  counts, times, requests

    \b
    Examples:
      bulkbind undo 20261126
      bulkbind undo 20261126 --yes-unbind 114 --quiet

    Exit codes: as run; 1 where a device was bound anew since, or could not be unbound.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        consent = consent_from(given)
        settings = consent.settings
        configure_logs(settings.log, is_quiet=given["quiet"])
        asks = is_interactive() and yes_unbind is None
        consent.require(can_ask=asks)
        console = Console(is_quiet=given["quiet"], asks=asks, consent=consent)

        async def work(stop: StopSignal) -> ExitCode:
            result = await undo(settings, run_id, devices=yes_unbind, listener=console, stop=stop)
            _show(result, is_quiet=given["quiet"], is_json=given["as_json"])
            return result.exit_code

        next_step = f"`bulkbind undo {run_id}`"
        sys.exit(
            run_until_done(
                work, first_words=DRAINING, next_step=next_step, grace_s=settings.send.grace
            )
        )


def _show(result: UndoResult, *, is_quiet: bool, is_json: bool) -> None:
    if result.again is not None:
        show(result.again, is_quiet=is_quiet, is_json=is_json and result.summary is None)
    if result.summary is None:
        if result.again is None:
            say(result.hint)
            print_failure(result.hint, "", result.exit_code)
        return
    if not is_quiet or result.exit_code:
        if not logs_only():  # the log has `undo.finished`
            say(completed(undo_text(result.summary)))
        say("report: " + ", ".join(str(path) for path in result.files))
        say_hint(result.hint)
        if result.summary.state == RunState.STOPPED:
            say(f"resume with: {command_here(['undo', result.summary.run_id])}")
    if is_json:
        print_json(undo_json(result.summary))

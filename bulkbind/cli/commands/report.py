"""`bulkbind report`."""

from __future__ import annotations

from typing import Any

from bulkbind.app.reports import write_forms, write_report
from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.here import again, command as command_here, completed, same_as
from bulkbind.cli.options import run_argument, settings_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.errors import UsageError
from bulkbind.model import MEANINGS
from bulkbind.report import FORMS, as_json, as_text
from bulkbind.report.tables import KEYS
from bulkbind.settings import Group

_STATUSES = [f"status={status}" for status in MEANINGS]


def _goes_on(run_id: str) -> str:
    return command_here(["resume", run_id], is_absolute=True)


@options.command("report")
@run_argument
@options.config
@options.settings(Group.LEDGER, Group.OUT)
@options.option(
    "--attempts",
    is_flag=True,
    help="write attempts.csv as well: every attempt that was not simply accepted",
)
@options.option(
    "--format",
    "forms",
    of="report",
    multiple=True,
    type=options.Choice(tuple(FORMS)),
    help="write only this form; repeatable; xlsx keeps ids as text, md fits a ticket",
)
@options.option(
    "--filter",
    "only",
    multiple=True,
    type=options.Listed(),
    metavar="KEY=VALUE|…",
    shell_complete=options.offering(*(f"{key}=" for key in KEYS), *_STATUSES),
    help="with --format: only these rows, e.g. status=failed|invalid,reason=space; keys are "
    "status, reason, user_id, machine_code, code; repeatable",
)
@options.option(
    "--json", "as_json_", is_flag=True, help="print the summary as JSON on standard output"
)
def command(
    run_id: str | None,
    *,
    as_json_: bool,
    attempts: bool,
    forms: tuple[str, ...],
    only: tuple[str, ...],
    **given: Any,
) -> None:
    """Write a run's report files again, from the ledger alone.

    RUN is its id or the beginning of it; without one, the newest run. It can be called while a
    run is sending: rows that have not ended are then `pending`.

    \b
    results.csv   one line per row of the manifest, in its order
    failed.csv    the rows that need a person or another try, in the manifest's own form
    summary.json  counts, reasons, times, settings
    report.html   one page for a person, which needs nothing beside it
    attempts.csv  with --attempts: when each was sent, how long it took, what came, trace id

    \b
    Examples:
      bulkbind report
      bulkbind report 20261126 --format xlsx --filter 'status=failed|invalid'
      bulkbind report --attempts --out again/
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        if only and not forms:
            raise UsageError(
                "--filter chooses rows of one form of the report",
                hint=f"for instance {again('--format', 'csv')}",
            )
        settings = settings_from(given)
        if forms:
            written = write_forms(settings, run_id, forms=forms, only=only, goes_on=_goes_on)
        else:
            written = write_report(settings, run_id, attempts=attempts, goes_on=_goes_on)
        if as_json_:
            print_json(as_json(written.summary))
        else:
            for path in written.files:
                print_lines([str(path)])
        summary = written.summary
        say(completed(as_text(summary), same=same_as(summary, settings)))

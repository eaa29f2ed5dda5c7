"""`bulkbind report`."""

from __future__ import annotations

from typing import Any

import click

from bulkbind.app.reports import write_report
from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.options import settings_from
from bulkbind.cli.run_ids import run_argument
from bulkbind.cli.running import explained, print_json
from bulkbind.report import as_json, as_text


@click.command("report")
@run_argument
@options.config
@options.ledger_options
@options.out
@options.option(
    "--attempts",
    is_flag=True,
    help="write attempts.csv as well: every attempt that was not simply accepted",
)
@options.option(
    "--json", "as_json_", is_flag=True, help="print the summary as JSON on standard output"
)
def command(
    run_id: str | None, *, as_json_: bool, attempts: bool, **given: Any
) -> None:  # click's parameters
    """Write a run's report files again, from the ledger alone.

    RUN is its id or the beginning of it; without one, the newest run. It can be called while a
    run is sending: rows that have not ended are then `pending`.

    \b
    results.csv   one line per row of the manifest, in its order
    failed.csv    the rows that need a person or another try, in the manifest's own form
    summary.json  counts, reasons, times, settings
    attempts.csv  with --attempts: when each was sent, how long it took, what came, trace id
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        written = write_report(settings_from(given), run_id, attempts=attempts)
        if as_json_:
            print_json(as_json(written.summary))
        else:
            for path in written.files:
                click.echo(path)
        say(as_text(written.summary))

"""`bulkbind prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.prune import prune
from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.here import again
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import UsageError
from bulkbind.model.wording import counted
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.ledger import Pruned


@options.command("prune")
@options.option(
    "--older-than",
    type=options.TIME,
    metavar="TIME",
    help="delete the rows of runs that ended so long ago (180d) from the ledger  [default: none]",
)
@options.option(
    "--reports-older-than",
    type=options.TIME,
    metavar="TIME",
    help="delete report folders of runs that began so long ago; the newest one stays  "
    "[default: none]",
)
@options.option(
    "--keep-reports",
    type=click.IntRange(min=1),
    metavar="N",
    help="keep the newest N report folders and delete the others  [default: all]",
)
@options.option("--quiet", is_flag=True, help="say nothing but problems")
@options.option("--dry-run", is_flag=True, help="say what would go, and delete nothing")
@options.config
@options.settings(Group.LEDGER)
@options.path(
    "--out",
    of="prune",
    metavar="DIR",
    help="folder that holds the report folders  [default: bulkbind-report]",
)
def command(
    *,
    older_than: float | None,
    reports_older_than: float | None,
    keep_reports: int | None,
    dry_run: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Delete what is old from the ledger and from the report folders.

    What is needed to know that a device is bound stays, and so do rows in doubt and runs that
    can be resumed: a pruned ledger sends nothing twice. A pruned run can be neither reported nor
    undone any more. The ledger's file is written anew where that frees a quarter of it.

    While a run holds the ledger, it ends with 75 and deletes nothing.

    \b
    Examples:
      bulkbind prune --older-than 180d --keep-reports 60 --config /etc/bulkbind.yaml
      bulkbind prune --older-than 180d --dry-run
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        if older_than is None and reports_older_than is None and keep_reports is None:
            raise UsageError(
                "prune has to know what is old",
                hint=f"for instance {again('--older-than', '180d', '--keep-reports', '60')}",
            )
        done = prune(
            settings_from(given),
            older_than_s=older_than,
            reports_older_than_s=reports_older_than,
            keep_reports=keep_reports,
            is_trial=dry_run,
        )
        if quiet:
            return
        would = "would be deleted" if dry_run else "deleted"
        if done.ledger is not None:
            _show(done.ledger, would)
        if reports_older_than is not None or keep_reports is not None:
            say(f"reports: {counted(len(done.reports), 'folders')} {would}")
        for folder in done.reports:
            print_lines([str(folder)])


def _show(pruned: Pruned, would: str) -> None:
    say(
        f"ledger: {counted(pruned.rows, 'rows')} and {counted(pruned.attempts, 'attempts')} of "
        f"{counted(pruned.runs, 'runs')} {would}"
    )
    if pruned.is_vacuumed:
        say(f"ledger: {pruned.bytes_before / 1e6:,.1f} MB before, now {_mb(pruned)}")
    elif pruned.why_not:
        say(f"ledger: not written anew: {pruned.why_not}")
    else:
        say(f"ledger: {_mb(pruned)}; what is free in it is used again")


def _mb(pruned: Pruned) -> str:
    return f"{pruned.bytes_after / 1e6:,.1f} MB"

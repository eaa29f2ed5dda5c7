"""`bulkbind bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bulkbind.app.bundle import bundle
from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.options import run_argument, settings_from
from bulkbind.cli.running import explained, print_lines
from bulkbind.settings import Group


@options.command("bundle")
@run_argument
@options.option(
    "--to",
    of="bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="the archive  [default: bulkbind-<run id>.tar.gz here]",
)
@options.option(
    "--with-ids", is_flag=True, help="leave user ids and device names as they are, unmasked"
)
@options.path(
    "--log-file",
    help="the log file whose last lines go in  [default: as in the settings file]",
)
@options.config
@options.settings(Group.LEDGER)
def command(run_id: str | None, *, to: Path | None, with_ids: bool, **given: Any) -> None:
    """Pack what one attaches to a ticket about a run, without secrets.

    RUN is its id or the beginning of it; without one, the newest run. The archive holds versions,
    settings, summary, the rows that need a person, trace ids and request ids of their attempts,
    and the last lines of the log. User ids and device names are masked.

    \b
    Examples:
      bulkbind bundle
      bulkbind bundle 20261126 --log-file run.log --to ticket.tar.gz
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        written = bundle(settings_from(given), run_id, to=to, with_ids=with_ids)
        print_lines([str(written)])
        if not with_ids:
            say("user ids and device names are masked; read it before you send it")

"""`bulkbind export`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, TextIO

import click

from bulkbind.app.export import export
from bulkbind.cli import options
from bulkbind.cli.console import Console, is_interactive, say
from bulkbind.cli.options import consent_from
from bulkbind.cli.running import configure_logs, explained, run_until_done
from bulkbind.errors import ExitCode
from bulkbind.files import replacing
from bulkbind.model.fields import CODE, OPTIONAL, USER, enumeration
from bulkbind.model.wording import counted
from bulkbind.settings import Group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.engine import StopSignal


HELP = f"""Write what is bound on the server for some users, as a CSV manifest.

USER is a user's id; - reads ids from standard input, one a line. The manifest holds
{enumeration(CODE.name, USER.name, *OPTIONAL, last="and")}, and for a person device_id and
create_time.

A list that says it is a part, shows other users' devices, or lacks what the ledger knows as bound
is read again `readback_settle` later. What two lists lack is named, and left out.

\b
Examples:
  bulkbind export u42 u43 --to bound.csv
  cut -d, -f1 users.csv | bulkbind export - > bound.csv

Exit codes: 0 written, 2 could not start, 3 a list could not be read or trusted (no file is written
then).
"""


@options.command("export", help=HELP)
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@options.config
@options.settings(Group.LEDGER, Group.NETWORK, Group.PACE)
@options.path(
    "--to",
    of="export",
    help="the manifest to write, mode 0600  [default: standard output]",
)
def command(users: tuple[str, ...], *, to: Path | None, **given: Any) -> None:
    """Write the manifest."""
    with explained():
        consent = consent_from(given)
        settings = consent.settings
        configure_logs(settings.log, is_quiet=True)
        consent.require(can_ask=is_interactive())
        console = Console(asks=is_interactive(), consent=consent)
        wanted = list(_ids(users))  # waits for standard input, where signals still end it

        async def work(stop: StopSignal) -> ExitCode:
            with ExitStack() as stack:
                file = sys.stdout if to is None else stack.enter_context(_opened(to))
                devices = await export(wanted, settings, file, listener=console, stop=stop)
                file.flush()
            say(counted(devices, "devices") + (f": {to}" if to else ""))
            return ExitCode.DONE

        sys.exit(run_until_done(work))


def _opened(to: Path) -> AbstractContextManager[TextIO]:
    hint = "free the disk, or choose another file with --to"
    return replacing(to, what="manifest", hint=hint)


def _ids(users: tuple[str, ...]) -> Iterator[str]:
    for user in users:
        if user == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield user

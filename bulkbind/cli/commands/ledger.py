"""`bulkbind ledger`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import ExitCode, UsageError
from bulkbind.ledger import back_up_file, contents, faults, ledger_of
from bulkbind.settings import Group

ACTIONS = ("backup", "check", "size")


@options.command("ledger")
@click.argument("action", metavar="|".join(ACTIONS))
@click.argument("file", required=False, type=click.Path(path_type=Path))
@options.config
@options.settings(Group.LEDGER)
def command(*, action: str, file: Path | None, **given: Any) -> None:
    """Copy the ledger to FILE, look for damage in it, or tell what it holds.

    Each works beside a running run and sees the ledger as it is at one moment.

    \b
    backup FILE  a copy, mode 0600, whole or not at all; replaces nothing
    check        reads the whole file
    size         bytes, and how many runs, rows, devices and bindings take them

    To restore a copy, put it where the ledger was, and delete what stands beside it under the same
    name with -wal or -shm.

    Exit codes: 0 done and no damage, 2 could not start, 4 damaged, or the disk has no room.

    \b
    Examples:
      bulkbind ledger backup before-the-move.db --config configs/koodrive-intl.yaml
      bulkbind ledger check --config configs/koodrive-intl.yaml
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        if action not in ACTIONS or (file is not None) != (action == "backup"):
            what = "backup wants a file, the others none"
            raise UsageError(
                what if action in ACTIONS else f"a ledger has no {action!r}",
                hint="bulkbind ledger backup FILE, or bulkbind ledger check|size",
            )
        settings = settings_from(given)
        path, endpoint = ledger_of(settings), settings.api.endpoint
        if file is not None:
            written = back_up_file(path, endpoint, file)
            say(f"ledger {path}: {written / 1e6:,.1f} MB copied to {file}")
        elif action == "check":
            found = faults(path, endpoint)
            print_lines(found)
            say(f"ledger {path} is {'damaged' if found else 'whole'}")
            sys.exit(ExitCode.LEDGER if found else ExitCode.DONE)
        else:
            sizes = contents(path, endpoint)
            print_lines([f"{count:>16,}  {name}" for name, count in sizes.items()])

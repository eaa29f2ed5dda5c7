"""`bulkbind unbind`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.rehearse import rehearse as rehearse_run
from bulkbind.app.session.session import Leave
from bulkbind.app.unbind import unbind
from bulkbind.cli import options
from bulkbind.cli.behaviour import behaviour_options
from bulkbind.cli.commands.run import note, rehearsal_from, rehearse
from bulkbind.cli.running import explained
from bulkbind.cli.send import send
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.app.session.sending import RunResult
    from bulkbind.cli.console import Console
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings


@options.command("unbind", is_brief=True)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.config
@options.settings(Group.MANIFEST, Group.REPEAT, Group.LEDGER, Group.OUT)
@options.settings(Group.NETWORK, Group.PACE, Group.SENDING, Group.END)
@options.first
@options.setting("on_invalid")
@options.takes_any
@rehearse
@behaviour_options
@options.yes_unbind
@note
@options.output_options
def command(
    manifests: tuple[str, ...],
    *,
    first: int | None,
    takes_any: bool,
    yes_unbind: int | None,
    note: str,
    **given: Any,
) -> None:
    """Unbind every device of the manifests from its user; every row gets a result.

    MANIFEST is read as by `run`. Only what this ledger has bound or adopted for that user is
    unbound, under the device id that it knows: the user's list is read first, and once more where
    it lacks something. On a terminal the number of devices has to be typed. The same command
    resumes what was cut off, even by kill -9, and so does `bulkbind resume`. What is unbound
    already costs no request. `bulkbind undo` of such a run binds again what it unbound. A rehearsal
    binds the devices in its sandbox first.

    \b
    Examples:
      bulkbind unbind leavers.csv
      bulkbind plan leavers.csv --unbind
      bulkbind unbind leavers.csv --yes-unbind 114 --quiet
      bulkbind unbind returned.xlsx --any --note CHG-4711

    Exit codes: as run; 1 also where a device is not ours, was bound anew, or could not be unbound.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    given["manifests"] = manifests
    with explained():
        sandbox = rehearsal_from(given)
    given["yes"] = yes_unbind is not None or sandbox is not None or "-" in manifests

    async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
        meant: Any = {"takes_any": takes_any, "devices": yes_unbind}
        how: Any = {"first": first, "note": note, "listener": console, "stop": stop}
        if sandbox is None:
            return await unbind(manifests, settings, **meant, **how)
        leave = Leave(**meant)
        return await rehearse_run(manifests, settings, sandbox=sandbox, leave=leave, **how)

    sys.exit(send(given, use_case, is_rehearsal=sandbox is not None))

"""`bulkbind history`."""

from __future__ import annotations

from typing import Any

import click

from bulkbind.app.history import history
from bulkbind.cli import options
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.report.history_text import history_lines
from bulkbind.settings import Group


@options.command("history")
@click.argument("machine_code", required=False, metavar="[MACHINE_CODE]")
@options.option("--user", metavar="ID", help="of this user's devices instead", of="history")
@options.config
@options.settings(Group.LEDGER)
@options.option("--json", "as_json", is_flag=True, help="print it as JSON")
def command(machine_code: str | None, *, user: str | None, as_json: bool, **given: Any) -> None:
    """Show what became of a device, or of a user's devices, over all runs.

    Every run with its operator and note, every row with its file and line, every attempt that was
    not simply accepted, and every binding and unbinding with the trace id by which the server's
    support finds it. It only reads the ledger, so it can be called while a run is sending.

    Of runs whose rows were pruned, only what is still bound is known. With --user, rows without a
    valid machine code are left out: the report of their run has them.

    \b
    Examples:
      bulkbind history SN000001
      bulkbind history --user u42 --json
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        found = history(settings_from(given), machine_code, user_id=user)
        if as_json:
            print_json(found.as_json())
        else:
            print_lines(history_lines(found))

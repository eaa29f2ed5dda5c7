"""`bulkbind resume`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.run import resume
from bulkbind.cli import options
from bulkbind.cli.options import run_argument
from bulkbind.cli.running import send

if TYPE_CHECKING:
    from bulkbind.app.session.sending import RunResult
    from bulkbind.cli.console import Console
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings


@click.command("resume")
@run_argument
@options.config
@options.ledger_options
@options.out
@options.sending_options
@options.end_options
@options.first
@options.output_options
def command(run_id: str | None, *, first: int | None, **given: Any) -> None:  # click's parameters
    """Go on with the unfinished run, from the ledger alone; the manifest is not needed.

    RUN is its id or the beginning of it; without one, the run that can go on. What was being sent
    when it was cut off is looked for in the server's lists first.
    """

    async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
        return await resume(settings, run_id, first=first, listener=console, stop=stop)

    sys.exit(send(given, use_case))

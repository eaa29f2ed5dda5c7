"""`bulkbind demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.demo import demo
from bulkbind.cli import options
from bulkbind.cli.console import Console, say
from bulkbind.cli.running import configure_logs, explained, run_until_done
from bulkbind.cli.send import DRAINING, show
from bulkbind.errors import ExitCode
from bulkbind.settings import LogSettings

if TYPE_CHECKING:
    from bulkbind.engine import StopSignal
    from bulkbind.model import Plan


MOST_REASONS = 4
"""As many as leave room on a screen of 24 lines for all else."""


class _Watching(Console):
    """Shows the progress alone: what is to be bound is known, and nobody is asked."""

    def notice(self, text: str) -> None:
        pass

    def confirm(self, plan: Plan) -> bool:
        del plan
        return True


@options.command("demo")
@options.path(
    "--out",
    of="demo",
    metavar="DIR",
    default=Path("bulkbind-report/demo"),
    show_default=True,
    help="folder of the manifests and the report",
)
def command(out: Path) -> None:
    """Do the whole job on an embedded sandbox; needs no account and no file.

    A small fleet is bound twice against a local KooDrive that throttles, breaks connections and
    refuses some devices. It ends with every status explained and a report to look at.

    \b
    Examples:
      bulkbind demo
      bulkbind demo --out /tmp/demo
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        configure_logs(LogSettings(log_level="error"), is_quiet=False)
        console = _Watching()

        async def work(stop: StopSignal) -> ExitCode:
            result = await demo(out, console, say, stop)
            show(result, is_quiet=False, is_json=False, most_reasons=MOST_REASONS, is_brief=True)
            # Failed rows are part of the demo; only an aborted run is an error.
            is_done = result.exit_code == ExitCode.NEEDS_PERSON
            return ExitCode.DONE if is_done else result.exit_code

        sys.exit(run_until_done(work, first_words=DRAINING))

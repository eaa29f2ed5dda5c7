"""`bulkbind verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.verify import verify
from bulkbind.cli import options
from bulkbind.cli.console import Console, is_interactive, say, say_hint
from bulkbind.cli.options import consent_from, runs_of
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_json,
    print_lines,
    run_until_done,
)
from bulkbind.model import EXTRA, PlanWord
from bulkbind.model.fields import LABELS, enumeration
from bulkbind.model.wording import SUCH_AS, TO_BELIEVE, counted
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.engine import StopSignal
    from bulkbind.errors import ExitCode

MARKS = {str(word): word.about.sign for word in (PlanWord.MISSING, PlanWord.CHANGED)}
MARKS |= {"in_doubt": PlanWord.IN_DOUBT.about.sign}
MARKS |= {"extra": EXTRA[0], "not_proven": "!"}


HELP = f"""Compare what a run says is bound with the server's lists; nothing is changed.

RUN is its id or the beginning of it. Every difference is a line on standard output:

\b
_  missing: bound by the ledger, but on neither of two lists of the user, which show all else
!  not proven: not on the list, which shows no other, lacks others, too, or is of other users
~  changed: under another {enumeration("device id", *LABELS)}
…  in doubt: on the list, and sent by a run that had no answer: the next one settles it
?  extra: on the list of one of the run's users, and not known to the ledger

A list that differs is read again `readback_settle` later.

\b
Examples:
  bulkbind verify 20261126 --config bulkbind.yaml
  bulkbind verify 20261126 --json | jq .counts

Exit codes: 0 no difference, 1 some, 2 could not start, 3 a list could not be read.
"""


@options.command("verify", help=HELP)
@click.argument("run_id", metavar="RUN", shell_complete=runs_of)
@options.config
@options.settings(Group.LEDGER, Group.NETWORK, Group.PACE)
@options.option("--json", "as_json_", is_flag=True, help="print the differences as JSON")
def command(run_id: str, *, as_json_: bool, **given: Any) -> None:
    """Print the differences."""
    with explained():
        consent = consent_from(given)
        settings = consent.settings
        configure_logs(settings.log, is_quiet=True)
        consent.require(can_ask=is_interactive())
        console = Console(asks=is_interactive(), consent=consent)

        async def work(stop: StopSignal) -> ExitCode:
            found = await verify(settings, run_id, listener=console, stop=stop)
            if as_json_:
                print_json(asdict(found))
            else:
                for item in found.differences:
                    mark = MARKS[item.kind]
                    print_lines([f"{mark} {item.user_id} {item.machine_code}: {item.detail}"])
            counts = ", ".join(
                f"{count:,} {kind.replace('_', ' ')}" for kind, count in found.counts.items()
            )
            of_all = f"{counted(found.devices, 'devices')} of {counted(found.users, 'users')}"
            say(f"run {found.run_id}: {of_all}: {counts}")
            if any(SUCH_AS in item.detail for item in found.differences):
                say_hint(TO_BELIEVE)
            return found.exit_code

        sys.exit(run_until_done(work))

"""`bulkbind doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bulkbind.app.doctor import Finding, doctor
from bulkbind.cli import options
from bulkbind.cli.consent import Consent
from bulkbind.cli.here import completed
from bulkbind.cli.options import loaded_from
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_json,
    print_lines,
    run_until_done,
)
from bulkbind.engine.stop import DrainedError
from bulkbind.errors import ExitCode
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.engine import StopSignal

NAME_WIDTH = 11


@options.command("doctor")
@options.config
@options.settings(Group.MANIFEST, Group.LEDGER, Group.NETWORK, Group.WORKERS, Group.OUT, Group.LOG)
@options.option("--json", "as_json", is_flag=True, help="print them as JSON")
def command(*, as_json: bool, **given: Any) -> None:
    """Look at everything a run needs, line by line: ok, warn or fail, with what to do.

    Settings and where each came from, ledger, disk, credentials, name, connection, TLS, clock, and
    one list call of the user that --user-id names; with --cluster, each of its workers. Nothing is
    bound. Ends with 0, or with 2 if something failed.

    \b
    Examples:
      bulkbind doctor --config koodrive-intl --user-id u42
      bulkbind doctor --config koodrive-intl --json
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        loaded = loaded_from(given)
        consent = Consent(loaded)
        configure_logs(consent.settings.log, is_quiet=True)

        async def work(stop: StopSignal) -> ExitCode:
            found: list[Finding] = []
            try:
                with stop.cutting_short():
                    async for finding in doctor(loaded, is_agreed=not consent.is_needed):
                        found.append(finding)
                        if not as_json:
                            _show(finding)
            except DrainedError:
                assert stop.reason is not None
                return stop.reason.exit_code
            if as_json:
                print_json([asdict(finding) for finding in found])
            is_well = all(finding.state != "fail" for finding in found)
            return ExitCode.DONE if is_well else ExitCode.NOT_STARTED

        sys.exit(run_until_done(work))


def _show(finding: Finding) -> None:
    print_lines([f"{finding.state:<4}  {finding.check:<{NAME_WIDTH}}  {finding.text}"])
    if finding.advice:
        print_lines([f"{'':<{NAME_WIDTH + 8}}-> {completed(finding.advice)}"])

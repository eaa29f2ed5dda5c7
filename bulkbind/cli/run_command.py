"""`bulkbind run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.inputs import named
from bulkbind.app.plan import load_plan
from bulkbind.app.rehearse import rehearse as rehearse_run
from bulkbind.app.run import run
from bulkbind.cli import options
from bulkbind.cli.running import explained
from bulkbind.cli.sandbox_options import behaviour_from, behaviour_options
from bulkbind.cli.sending import send
from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from bulkbind.app.sending import RunResult
    from bulkbind.cli.console import Console
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings


@click.command("run")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.manifest_options
@options.repeat_options
@options.ledger_options
@options.out
@options.sending_options
@options.first
@options.staging_options
@options.option(
    "--rehearse",
    is_flag=True,
    help="run against a sandbox in this process, with a ledger that is thrown away: nothing real "
    "is touched",
)
@behaviour_options
@options.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="do what `bulkbind plan --save FILE` planned, or nothing if manifest or ledger moved",
)
@options.option("--yes", is_flag=True, help="do not ask")
@options.output_options
def command(  # click's parameters
    manifests: tuple[str, ...],
    *,
    first: int | None,
    rehearse: bool,
    plan_file: Path | None,
    limits: tuple[str, ...],
    faults: tuple[str, ...],
    seed: int | None,
    **given: Any,
) -> None:
    """Bind every device of the manifests to its user, and write a result for every row.

    MANIFEST is a file (CSV, XLSX, YAML, JSON Lines, JSON, each also as .gz), a folder, a pattern in
    quotes, or - for standard input; several make one run. All of it is checked before anything is
    sent. What the ledger knows as bound is not sent again; what an earlier run of
    the same manifest left is gone on with. On a terminal it asks first.

    Credentials come from the environment (BULKBIND_TOKEN, BULKBIND_REFRESH_TOKEN, or
    BULKBIND_APP_ID with BULKBIND_APP_SECRET) or from files that `auth:` in the settings file names;
    `bulkbind doctor` checks them.

    \b
    Examples:
      bulkbind plan fleet.csv --endpoint https://intl.myhuaweicloud-koodrive.com
      bulkbind run fleet.csv --endpoint https://intl.myhuaweicloud-koodrive.com
      bulkbind run fleet.csv --rehearse --limit 60/s --fault reset-after=0.03
      bulkbind run export.csv --map machine_code=Serial --user-id u42 --on-invalid skip --yes
    """  # noqa: D301  # click's mark for a block that is not wrapped
    if "-" in manifests or rehearse:
        given["yes"] = True  # standard input holds the manifest, so nobody can be asked
    with explained():
        if (limits or faults or seed is not None) and not rehearse:
            raise UsageError(
                "--limit, --fault and --seed say how the sandbox of a rehearsal behaves",
                hint="add --rehearse, or leave them away",
            )
        sandbox = behaviour_from(limits, faults, seed)
        wanted = load_plan(plan_file) if plan_file is not None else None
    with explained(), named(manifests) as inputs:

        async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
            if not rehearse:
                return await run(
                    inputs, settings, first=first, wanted=wanted, listener=console, stop=stop
                )
            return await rehearse_run(
                inputs, settings, sandbox=sandbox, first=first, listener=console, stop=stop
            )

        code = send(given, use_case)
    sys.exit(code)

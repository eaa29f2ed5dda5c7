"""`bulkbind run`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind import app
from bulkbind.app.inputs import named
from bulkbind.cli import options
from bulkbind.cli.running import explained
from bulkbind.cli.sending import send

if TYPE_CHECKING:
    from bulkbind.app import RunResult
    from bulkbind.cli.console import Console
    from bulkbind.engine import StopSignal
    from bulkbind.settings import Settings


@click.command("run")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.manifest_options
@options.ledger_options
@options.out
@options.sending_options
@options.option(
    "--on-invalid",
    metavar="abort|skip",
    help="when rows break a rule: send nothing, or the other rows  [default: abort]",
)
@options.option("--rebind", is_flag=True, help="send again what the ledger knows as bound")
@options.option("--yes", is_flag=True, help="do not ask")
@options.output_options
def command(manifests: tuple[str, ...], **given: Any) -> None:  # click's parameters
    """Bind every device of the manifests to its user, and write a result for every row.

    MANIFEST is a CSV or YAML file; - is standard input. The whole manifest is checked before
    anything is sent. What the ledger knows as bound is not sent again; what an earlier run of
    the same manifest left is gone on with. On a terminal it asks first.

    The token comes from BULKBIND_TOKEN or from `auth: token_file:` in the settings file.

    \b
    Examples:
      bulkbind validate fleet.csv
      bulkbind run fleet.csv --endpoint https://intl.myhuaweicloud-koodrive.com
      bulkbind run export.csv --map machine_code=Serial --user-id u42 --on-invalid skip --yes
    """  # noqa: D301  # click's mark for a block that is not wrapped
    if "-" in manifests:
        given["yes"] = True  # standard input holds the manifest, so nobody can be asked
    with explained(), named(manifests) as inputs:

        async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
            return await app.run(inputs, settings, listener=console, stop=stop)

        code = send(given, use_case)
    sys.exit(code)

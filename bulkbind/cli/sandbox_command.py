"""`bulkbind sandbox`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.running import explained, run_until_done
from bulkbind.errors import UsageError
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_faults, parse_limit

if TYPE_CHECKING:
    from bulkbind.engine import StopSignal


@click.command("sandbox")
@options.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any free one"
)
@options.option(
    "--limit", metavar="N/UNIT", help="requests per s, min, hour or day, e.g. 60/s  [default: none]"
)
@options.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=P",
    help="with probability P (0 to 1): reset-before, reset-after, 500, business; repeatable",
)
@options.option(
    "--second-bind",
    type=click.Choice(["same", "error"]),
    default="same",
    show_default=True,
    help="answer to a second bind: the same record, or code 13000310",
)
@options.option("--accept-token", metavar="TOKEN", help="the only token accepted  [default: any]")
@options.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="keep bindings in a file  [default: memory]",
)
@options.option(
    "--journal", type=click.Path(path_type=Path), metavar="FILE", help="one JSON line per request"
)
@options.option("--seed", type=int, help="makes the faults repeatable")
@options.option("--verbose", is_flag=True, help="say what was seen when it stops")
def command(  # one per option
    *,
    port: int,
    limit: str | None,
    faults: tuple[str, ...],
    second_bind: str,
    accept_token: str | None,
    state: Path | None,
    journal: Path | None,
    seed: int | None,
    verbose: bool,
) -> None:
    """Serve a local KooDrive on 127.0.0.1, with limits and faults to order.

    Prints `ready http://…` on standard output once it serves; any token is accepted. What it has
    seen: GET /sandbox/stats; what is bound: GET /sandbox/bindings (JSON Lines).

    \b
    Example:
      bulkbind sandbox --limit 60/s --fault reset-after=0.03 &
      BULKBIND_TOKEN=any bulkbind run samples/fleet.csv --endpoint http://127.0.0.1:8765
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        try:
            chosen = SandboxOptions(
                limit=parse_limit(limit) if limit else None,
                faults=parse_faults(faults),
                second_bind="error" if second_bind == "error" else "same",
                token=accept_token,
                state=state,
                journal=journal,
                seed=seed,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

        async def work(stop: StopSignal) -> int:
            async with Sandbox(chosen, port=port) as sandbox:
                click.echo(f"ready {sandbox.url}")
                await stop.wait()
                if verbose:
                    say(f"{len(sandbox.bindings)} bindings; {sandbox.counts}")
            return 0

        code = run_until_done(work)
    sys.exit(code)

"""`bulkbind adjust`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.adjust import adjust
from bulkbind.cli import options
from bulkbind.cli.console import say
from bulkbind.cli.options import one_line, run_argument, settings_from
from bulkbind.cli.running import explained, print_json
from bulkbind.errors import ExitCode
from bulkbind.settings import Group, parse_duration
from bulkbind.settings.model import MOST_PER_S, checked_failures, duration_text, parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable

NONE = "none"


class _Limit(click.ParamType[Any]):
    """A value that a run takes, or `none` for no limit."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(
        self,
        value: Any,  # noqa: ANN401  # click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401  # as above
        if value == NONE:
            return NONE
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def _rate(text: str) -> float:
    rate = parse_rate(text)
    if not 0 < rate <= MOST_PER_S:
        raise ValueError(
            f"a rate is requests per second, larger than 0 and at most {MOST_PER_S:,}, or none"
        )
    return rate


def _time(text: str) -> str:
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError("--drain ends the run now")
    return duration_text(seconds)


@options.command("adjust")
@run_argument
@options.option(
    "--rate",
    of="adjust",
    type=_Limit("rate", _rate),
    metavar="N/s|none",
    help="cap on requests from now on, such as 5/s or 40/min; a number alone is per second; none: "
    "as fast as the gateway allows",
)
@options.option(
    "--concurrency",
    of="adjust",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="requests in flight at once from now on, 1 to 1000",
)
@options.option(
    "--max-failures",
    of="adjust",
    type=_Limit("failures", checked_failures),
    metavar="N|N%|none",
    help="stop, exit 3, once so many devices have failed; what has failed already counts",
)
@options.option(
    "--deadline",
    of="adjust",
    type=_Limit("time", _time),
    metavar="TIME|none",
    help="stop, exit 3, after this long from now (90s, 50m, 2h)",
)
@options.option("--pause", of="adjust", is_flag=True, help="send nothing until --go")
@options.option("--go", of="adjust", is_flag=True, help="resume after --pause")
@options.option(
    "--drain",
    of="adjust",
    is_flag=True,
    help="end it as Ctrl-C does: nothing new is sent, what is in flight may end, exit 3",
)
@options.option(
    "--why", of="adjust", default="", callback=one_line, metavar="TEXT", help="kept with it"
)
@options.config
@options.settings(Group.LEDGER)
@options.option("--json", "as_json", is_flag=True, help="print what was done as JSON")
def command(run_id: str | None, *, as_json: bool, why: str, **given: Any) -> None:
    """Steer the run that is sending: slower, faster, paused, ended; within a second.

    RUN is its id or the beginning of it; without one, the run that is sending. What is asked for
    goes through the ledger, so it is typed on the machine, and as the user, of the run. Who asked
    for what, when and why is kept with the run, and shown in status and report. It holds until the
    run ends: resume begins with its own options.

    \b
    Examples:
      bulkbind adjust --rate 5 --why "the help desk sees time-outs"
      bulkbind adjust --pause
      bulkbind adjust --go --rate none
      bulkbind adjust --deadline 30m

    Exit codes: 0 the run has taken it over, 2 no run is sending, 3 it has not said so within 10 s.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    names = ("rate", "concurrency", "max_failures", "deadline", "pause", "go", "drain")
    what = {name: given.pop(name) for name in names}
    asked = {name: None if value == NONE else value for name, value in what.items() if value}
    with explained():
        found = asyncio.run(adjust(settings_from(given), run_id, what=asked, why=why))
    if as_json:
        print_json({"run_id": found.run_id, "what": found.what, "done": found.is_done})
    elif found.is_done:
        say(f"run {found.run_id} has taken this over")
    else:
        said = f"run {found.run_id} has not said that it has taken this over"
        say(f"{said}: `bulkbind status` shows it")
    sys.exit(ExitCode.DONE if found.is_done else ExitCode.STOPPED)

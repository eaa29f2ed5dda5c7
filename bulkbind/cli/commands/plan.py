"""`bulkbind plan`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.plan import plan, save_plan
from bulkbind.app.session.session import Leave
from bulkbind.cli import options
from bulkbind.cli.console import Console, is_interactive, say
from bulkbind.cli.here import MANIFEST, command as command_here, completed
from bulkbind.cli.options import consent_from, typed_of
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_json,
    print_lines,
    run_until_done,
)
from bulkbind.errors import ExitCode, UsageError
from bulkbind.model import PlanWord
from bulkbind.model.fields import DETAILS
from bulkbind.report.plan_text import plan_json, plan_markdown, plan_text
from bulkbind.settings import Group

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.engine import StopSignal


HELP = f"""Show what `run`, or `unbind`, would do with the manifests; nothing is sent or recorded.

Give it the options of the run. It needs no token unless --refresh or --rebind-missing is given,
and can be called while a run is sending.

\b
+  to bind                  =  already bound         ~  bound under another {DETAILS}
>  bound to another user    2  a row twice           !  a rule is broken
_  not on the server        ?  only on the server    …  in doubt
/  left out by --where      -  to unbind             0  not bound any more
#  not ours to unbind

\b
Examples:
  bulkbind plan fleet.csv --config bulkbind.yaml
  bulkbind plan fleet.csv --refresh --extra --save plan.json
  bulkbind plan manifests/ --as md > comment.md
  bulkbind plan leavers.csv --unbind

Exit codes: 0 no problem, 1 some rows could not be bound, or more would be unbound than
--max-unbinds, 2 a manifest could not be read, 3 the server's lists could not be read.
"""


@options.command("plan", help=HELP)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.config
@options.settings(Group.MANIFEST, Group.REPEAT, Group.LEDGER, Group.STAGING)
@options.first
@options.option(
    "--extra",
    is_flag=True,
    help="with --refresh: count also what is on the server but not in the manifests",
)
@options.option("--unbind", is_flag=True, help="show what `unbind` would do, not `run`")
@options.takes_any
@options.path(
    "--save",
    help="keep the plan for `run --plan FILE`, which refuses once manifest or ledger have moved",
)
@options.settings(Group.NETWORK, Group.PACE)
@options.option("--json", "as_json_", is_flag=True, help="print the plan as JSON")
@options.option(
    "--as",
    "form",
    of="plan",
    type=options.Choice(["text", "md"]),
    default="text",
    show_default=True,
    help="md: print it as Markdown, for a comment on a merge request",
)
def command(
    manifests: tuple[str, ...],
    *,
    first: int | None,
    extra: bool,
    unbind: bool,
    takes_any: bool,
    save: Path | None,
    as_json_: bool,
    form: str,
    **given: Any,
) -> None:
    """Print the plan, and save it if asked to."""
    with explained():
        consent = consent_from(given)
        settings = consent.settings
        _refuse_options(unbind=unbind, takes_any=takes_any, saves=save is not None)
        configure_logs(settings.log, is_quiet=True)
        if settings.manifest.reads_lists and not unbind:
            consent.require(can_ask=is_interactive())

        async def work(stop: StopSignal) -> ExitCode:
            reads = settings.manifest
            found = await plan(
                manifests,
                settings,
                refresh=reads.reads_lists and not unbind,
                extra=extra,
                first=first,
                leave=Leave(takes_any=takes_any) if unbind else None,
                listener=Console(asks=is_interactive(), consent=consent),
                stop=stop,
            )
            if as_json_:
                print_json(plan_json(found))
            else:
                text = plan_markdown(found) if form == "md" else completed(plan_text(found))
                print_lines([text])
            if save is not None:
                save_plan(found, save)
                does = command_here(["run", MANIFEST, "--plan", str(save)])
                say(f"saved: {save}; this does it or nothing: {does}")
            solved = {
                PlanWord.MOVED: found.forecast.moves > 0,
                PlanWord.MISSING: reads.rebind_missing,
            }
            problems = [word for word in PlanWord if word.about.is_problem and found.counts[word]]
            is_beyond = found.leavers is not None and found.leavers.is_beyond
            is_well = all(solved.get(word) for word in problems) and not is_beyond
            return ExitCode.DONE if is_well else ExitCode.NEEDS_PERSON

        sys.exit(run_until_done(work))


def _refuse_options(*, unbind: bool, takes_any: bool, saves: bool) -> None:
    """Check that no option is of the command whose plan is not asked for. Raises: UsageError."""
    if (saves and unbind) or (takes_any and not unbind):
        raise UsageError(
            "--save keeps a plan for `run --plan`, and --any is one of `unbind`",
            hint="`unbind` asks for the number of its devices: --yes-unbind N",
        )
    for setting in typed_of(Group.STAGING) if unbind else ():
        if setting.name != "on_invalid":
            raise UsageError(
                f"{setting.flag} is an option of `run`, and --unbind shows what `unbind` would do",
                hint=f"leave {setting.flag} out, or --unbind",
            )

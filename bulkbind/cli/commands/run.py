"""`bulkbind run` and `bulkbind resume`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.inbox import InboxResult, run_inbox
from bulkbind.app.plan import load_plan
from bulkbind.app.rehearse import rehearse as rehearse_run
from bulkbind.app.run import resume, run
from bulkbind.cli import options
from bulkbind.cli.behaviour import behaviour_from, behaviour_options
from bulkbind.cli.here import again
from bulkbind.cli.options import run_argument
from bulkbind.cli.running import explained
from bulkbind.cli.send import send, send_inbox
from bulkbind.errors import UsageError
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.app.session.sending import RunResult
    from bulkbind.cli.console import Console
    from bulkbind.engine import StopSignal
    from bulkbind.errors import ExitCode
    from bulkbind.sandbox import SandboxOptions
    from bulkbind.settings import Settings


note = options.option(
    "--note",
    default="",
    callback=options.one_line,
    metavar="TEXT",
    help="kept with the run; such as the number of a change; runs, history, report and mail show "
    "it",
)


rehearse = options.option(
    "--rehearse",
    is_flag=True,
    help="run against a sandbox in this process; with a ledger that is thrown away: nothing real "
    "is touched",
)


@options.command("run", is_brief=True)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.config
@options.settings(Group.MANIFEST, Group.REPEAT, Group.LEDGER, Group.OUT)
@options.settings(Group.NETWORK, Group.PACE, Group.WORKERS, Group.SENDING, Group.END)
@options.first
@options.settings(Group.STAGING)
@rehearse
@behaviour_options
@options.path(
    "--plan",
    "plan_file",
    help="what `bulkbind plan MANIFEST --save FILE` planned; or nothing if manifest or ledger "
    "moved",
)
@options.option("--yes", is_flag=True, help="do not ask")
@note
@options.path(
    "--archive",
    metavar="DIR",
    help="each file of the folder MANIFEST is its own run; complete ones, oldest first, moved to "
    "DIR once its rows are accounted for, to DIR/with-problems where some need a person",
)
@options.option(
    "--min-age",
    type=options.TIME,
    default="60s",
    show_default=True,
    metavar="TIME",
    help="leave files alone that were touched so lately; with --archive, until the next time",
)
@options.output_options
def command(
    manifests: tuple[str, ...],
    *,
    first: int | None,
    plan_file: Path | None,
    note: str,
    archive: Path | None,
    min_age: float,
    **given: Any,
) -> None:
    """Bind every device of the manifests to its user; every row gets a result.

    MANIFEST is a file (CSV, XLSX, YAML, JSON Lines, JSON, each also as .gz), a folder, a pattern in
    quotes, or - for standard input; several make one run. All is checked before anything is sent.
    What is known as bound is not sent again; what an earlier run left is. Who may:
    `bulkbind help credentials`.

    \b
    Examples:
      bulkbind run fleet.csv --endpoint https://intl.myhuaweicloud-koodrive.com
      bulkbind run export.csv --map machine_code=Serial --user-id u42 --on-invalid skip
      bulkbind run inbox/ --archive done/ --on-invalid skip --deadline 50m --quiet
    """  # noqa: D301  # click's mark for a block that is not wrapped
    given["manifests"] = manifests
    with explained():
        sandbox = rehearsal_from(given)
        wanted = load_plan(plan_file) if plan_file is not None else None
    if "-" in manifests or sandbox is not None:
        given["yes"] = True  # standard input holds the manifest, so nobody can be asked
    if archive is not None:
        is_plain = sandbox is None and not first
        sys.exit(_inbox(manifests, archive, min_age, given, note=note, is_plain=is_plain))

    async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
        how: Any = {"first": first, "note": note, "listener": console, "stop": stop}
        if sandbox is None:
            return await run(manifests, settings, wanted=wanted, **how)
        return await rehearse_run(manifests, settings, sandbox=sandbox, **how)

    sys.exit(send(given, use_case, is_rehearsal=sandbox is not None))


def rehearsal_from(given: dict[str, Any]) -> SandboxOptions | None:
    """Take the sandbox of a rehearsal out of the parameters; None: it is none.

    Raises: UsageError.
    """
    behaviour = [given.pop(name) for name in ("limits", "faults", "seed")]
    if given.pop("rehearse"):
        return behaviour_from(*behaviour)
    if any(each not in ((), None) for each in behaviour):
        raise UsageError(
            "--limit, --fault and --seed say how the sandbox of a rehearsal behaves",
            hint=f"rehearse with them: {again('--rehearse')}",
        )
    return None


def _inbox(
    manifests: tuple[str, ...],
    archive: Path,
    min_age_s: float,
    given: dict[str, Any],
    *,
    note: str,
    is_plain: bool,
) -> ExitCode:
    with explained():
        if len(manifests) != 1 or not is_plain:
            raise UsageError(
                "--archive takes one folder, and neither --first nor --rehearse",
                hint="for instance `bulkbind run inbox/ --archive done/`",
            )
    inbox = Path(manifests[0])
    given["manifests"] = (str(inbox.resolve()),)

    async def use_case(settings: Settings, console: Console, stop: StopSignal) -> InboxResult:
        return await run_inbox(
            inbox, archive, settings, min_age_s=min_age_s, note=note, listener=console, stop=stop
        )

    return send_inbox(given, use_case)


@options.command("resume")
@run_argument
@options.config
@options.settings(Group.LEDGER, Group.OUT)
@options.settings(Group.NETWORK, Group.PACE, Group.WORKERS, Group.SENDING, Group.END)
@options.first
@options.option("--yes", is_flag=True, help="do not ask")
@options.yes_unbind
@options.output_options
def resume_command(
    run_id: str | None, *, first: int | None, yes_unbind: int | None, **given: Any
) -> None:
    """Resume the unfinished run, from the ledger alone; the manifest is not needed.

    RUN is its id or the beginning of it; without one, the run that can be resumed. What was being
    sent when it was cut off is looked for in the server's lists first. Of an unbind of which only a
    pilot was agreed to, the rest is asked for.

    \b
    Examples:
      bulkbind resume
      bulkbind resume 20261126 --config bulkbind.yaml --deadline 50m
    """  # noqa: D301  # click's mark for a block that is not wrapped
    given["yes"] = given["yes"] or yes_unbind is not None

    async def use_case(settings: Settings, console: Console, stop: StopSignal) -> RunResult:
        return await resume(
            settings, run_id, first=first, devices=yes_unbind, listener=console, stop=stop
        )

    sys.exit(send(given, use_case))

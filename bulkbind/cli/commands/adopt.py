"""`bulkbind adopt`."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.adopt import adopt
from bulkbind.cli import options
from bulkbind.cli.console import Console, is_interactive, say, say_hint
from bulkbind.cli.options import consent_from
from bulkbind.cli.running import (
    configure_logs,
    explained,
    print_json,
    print_lines,
    run_until_done,
)
from bulkbind.model import ADOPTED, EXTRA, PlanWord
from bulkbind.model.wording import counted
from bulkbind.settings import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.app.adopt import Adoption
    from bulkbind.engine import StopSignal
    from bulkbind.errors import ExitCode

MOST_LINES = 20
"""Differences of a kind that are printed; `--json` has more."""
MARKS = {
    "new": PlanWord.BIND.about.sign,
    "other_user": PlanWord.MOVED.about.sign,
    "changed": PlanWord.CHANGED.about.sign,
    "gone": PlanWord.MISSING.about.sign,
    "not_proven": PlanWord.INVALID.about.sign,
}


@options.command("adopt")
@click.argument("manifests", nargs=-1, metavar="[MANIFEST...]")
@options.config
@options.settings(Group.MANIFEST, Group.LEDGER, Group.NETWORK, Group.PACE)
@options.setting("deadline")
@options.setting("wait")
@options.output_options
def command(manifests: tuple[str, ...], **given: Any) -> None:
    """Take over what the server has: fill a new or old ledger from the users' lists.

    The list of every user whom the manifests name, or of --user-id alone, is read, and once more
    where it differs from what the ledger knows. What it shows is known as bound from then on, so
    that `run` binds nothing twice; what two lists lack that show others of the user is known no
    more. Nothing on the server is changed. What was taken over, `undo` leaves alone; `unbind` and
    `run --sync` may unbind it.

    \b
    +  new: taken over                      >  by the ledger another user's; taken over
    ~  under another id, name or OS         _  gone: not known as bound any more
    !  not proven: left as it was

    \b
    Examples:
      bulkbind adopt fleet.csv --config bulkbind.yaml
      bulkbind adopt --user-id u42 --json | jq .counts

    Exit codes: 0 all compared, 1 something was not proven or a list was refused, 3 and 130 as run:
    what was read is kept.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        consent = consent_from(given)
        settings = consent.settings
        configure_logs(settings.log, is_quiet=given["quiet"])
        consent.require(can_ask=is_interactive())
        console = Console(is_quiet=given["quiet"], asks=is_interactive(), consent=consent)
        alone = settings.manifest.user_id if not manifests else None
        user_ids = [alone] if alone else []

        async def work(stop: StopSignal) -> ExitCode:
            found = await adopt(manifests, settings, user_ids=user_ids, listener=console, stop=stop)
            _show(found, is_quiet=given["quiet"], is_json=given["as_json"])
            return found.exit_code

        sys.exit(run_until_done(work))


def _show(found: Adoption, *, is_quiet: bool, is_json: bool) -> None:
    if is_json:
        print_json(asdict(found))
    elif not is_quiet or found.exit_code:
        print_lines(_lines(found))
    if found.stopped:
        say(f"stopped: {found.stopped}")
        say_hint(found.hint)


def _lines(found: Adoption) -> Iterator[str]:
    listed: Counter[str] = Counter()
    for item in found.differences:
        listed[item.kind] += 1
        if listed[item.kind] <= MOST_LINES:
            yield f"{MARKS[item.kind]} {item.user_id} {item.machine_code}: {item.detail}"
    for kind in listed:
        if (more := found.counts[kind] - MOST_LINES) > 0:
            yield f"{MARKS[kind]} … and {more:,} more"
    for user, why in found.unread.items():
        yield f"{EXTRA[0]} {user}: the list was refused: {why}"
    yield f"adopted as {found.run_id}: {counted(found.users, 'users')}"
    for kind, meaning in ADOPTED.items():
        if count := found.counts[kind]:
            yield f"  {kind:<11}{count:>10,}  {meaning}"

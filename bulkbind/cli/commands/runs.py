"""`bulkbind runs`."""

from __future__ import annotations

from typing import Any

from bulkbind.app.reports import runs
from bulkbind.cli import options
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.model import RunKind, RunState
from bulkbind.model.results import CUT_OFF
from bulkbind.model.wording import counted
from bulkbind.settings import Group

_UNDONE = {RunState.DONE: "undone", CUT_OFF: "undo cut off"}


def _adopted(found: dict[str, int]) -> tuple[str, str]:
    """Return of how many users what was taken over, and how many devices of what kind."""
    kinds = {kind: count for kind, count in found.items() if kind != "users" and count}
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    return counted(found.get("users", 0), "users"), told or "cut off"


@options.command("runs")
@options.config
@options.settings(Group.LEDGER)
@options.option("--json", "as_json", is_flag=True, help="print them as JSON")
def command(*, as_json: bool, **given: Any) -> None:
    """List the runs in the ledger, newest first: id, state, when, who, rows by status.

    \b
    Examples:
      bulkbind runs --config bulkbind.yaml
      bulkbind runs --json | jq '.[0].counts'
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        found = runs(settings_from(given))
        if as_json:
            print_json(found)
            return
        width = max((len(run["run_id"]) for run in found), default=0)
        for run in found:
            counts = ", ".join(f"{count:,} {status}" for status, count in run["counts"].items())
            if run["leavers"]:
                left = ", ".join(f"{count:,} {status}" for status, count in run["leavers"].items())
                counts += f"; left the manifest: {left}"
            state = "superseded" if run["superseded_by"] else run["state"]
            if run["undo"]:
                state = _UNDONE.get(run["undo"]["state"], "undo not finished")
            does = "" if run["kind"] == RunKind.BIND else f"{run['kind']} "
            of = ", ".join(run["manifests"])
            if run["kind"] == RunKind.ADOPT:
                of, counts = _adopted(run["adopted"] or {})
            line = (
                f"{run['run_id']:<{width}}  {state:<10}  {run['created_at'][:19]}Z  "
                f"{run['operator']}@{run['host']}  {does}{of}: {counts}"
            )
            print_lines([f"{line}  ({run['note']})" if run["note"] else line])

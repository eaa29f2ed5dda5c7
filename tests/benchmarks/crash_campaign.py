"""What kills come to: `python -m tests.benchmarks.crash_campaign [--kills N] [--late S] ...`.

`bulkbind run` against `bulkbind sandbox`, both as processes; the sandbox resets connections,
answers too late or with 500, limits binds and lists, and calls a second bind an error. The run is
killed with SIGKILL at random moments and started again until enough kills have struck and all is
done; then report, ledger, and the sandbox's bindings and journal are compared. Exit code 1 if a
figure that should be 0 is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.bench import say, write_json
from tests.campaign import Plan, run_campaign

if TYPE_CHECKING:
    from tests.reckoning import Figures

ROWS_PER_KILL = 250


def main() -> None:
    """Run a campaign of 200 kills, unless told otherwise."""
    given = _parser().parse_args()
    late_s: float | None = given.late
    plan = Plan(
        rows=given.rows or ROWS_PER_KILL * given.kills,
        kills=given.kills,
        seed=given.seed,
        limit=given.limit,
        timeout_s=given.timeout or (1.0 if late_s is None else min(1.0, late_s / 2)),
        settle_s=given.settle,
        late_s=late_s,
        late_share=given.late_share,
        known_code=given.known_code,
        faults=tuple(given.fault),
    )
    with ExitStack() as stack:
        if given.keep is not None:
            given.keep.mkdir(parents=True)
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = run_campaign(folder.resolve(), plan)
    wrong = figures.wrong(plan)
    _show(figures, plan)
    name = "crash_campaign" if late_s is None else "crash_campaign_late"
    write_json(name, {"plan": asdict(plan), "figures": asdict(figures), "wrong": wrong})
    sys.exit(1 if wrong else 0)


def _parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Kill a run again and again, then compare.")
    add = parser.add_argument
    add("--kills", type=int, default=200, help="kills that must strike  [default: 200]")
    add("--rows", type=int, help=f"rows of the manifest  [default: {ROWS_PER_KILL} a kill]")
    add("--late", type=float, metavar="S", help="the server binds S seconds late, not at once")
    add("--late-share", type=float, default=0.05, help="share of late binds  [default: 0.05]")
    add("--timeout", type=float, metavar="S", help="of a bind  [default: 1; late: S / 2 at most]")
    add("--settle", type=float, default=0.5, metavar="S", help="readback_settle  [default: 0.5]")
    add("--limit", default="700/s", help="of the sandbox, on all calls  [default: 700/s]")
    add(
        "--known-code",
        choices=("with", "without", "mixed"),
        default="with",
        help="whether the settings know the code of a second bind; mixed: it changes with every "
        "life  [default: with]",
    )
    add("--fault", action="append", default=[], help="one more fault of the sandbox; repeatable")
    add("--seed", type=int, default=5, help="of kills and faults  [default: 5]")
    add("--keep", type=Path, metavar="DIR", help="a new folder in which all evidence stays")
    return parser


def _show(figures: Figures, plan: Plan) -> None:
    """Print every figure, and whether it should be 0."""
    wrong = figures.wrong(plan)
    for item in fields(figures):
        should = ""
        if item.metadata.get("zero"):
            should = "  (should be 0)" if item.name in wrong else "  (0 wanted)"
            if plan.may_repeat and item.metadata["may_repeat"]:
                should = "  (expected of so late a server)"
        say(f"{getattr(figures, item.name):>10,}  {item.name.replace('_', ' ')}{should}")


if __name__ == "__main__":
    main()

"""`bulkbind status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.app.reports import status
from bulkbind.cli import options
from bulkbind.cli.here import completed
from bulkbind.cli.options import run_argument, settings_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.model import RunState
from bulkbind.report import as_json, as_text
from bulkbind.report.measures import rate_text, span_text
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.app.reports import RunStatus


@options.command("status")
@run_argument
@options.config
@options.settings(Group.LEDGER)
@options.option("--json", "as_json_", is_flag=True, help="print it as JSON")
def command(run_id: str | None, *, as_json_: bool, **given: Any) -> None:
    """Show where a run stands: rows by status, rate, time left, newest problems.

    RUN is its id or the beginning of it; without one, the newest run. It only reads, so it can be
    called from another shell while the run is sending.

    \b
    Examples:
      bulkbind status
      bulkbind status 20261126 --config bulkbind.yaml --json
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        found = status(settings_from(given), run_id)
        if as_json_:
            progress = {
                "done": found.done,
                "per_s": round(found.per_s, 2),
                "allowed_per_s": found.live.allowed_per_s,
                "waits": found.live.waits,
                "left_s": None if found.left_s is None else round(found.left_s, 1),
                "is_alive": found.is_alive,
                "last_settled_at": found.last_settled_at or None,
                "problems": list(found.problems),
            }
            print_json(as_json(found.summary) | progress)
            return
        print_lines([completed(as_text(found.summary))])
        print_lines(map(completed, _lines(found)))


def _pace(found: RunStatus) -> str:
    """Return rate, allowed rate and time left."""
    live = found.live
    parts = [f"{rate_text(found.per_s)} in the last {span_text(found.measured_s)}"]
    if live.allowed_per_s:
        parts.append(f"{rate_text(live.allowed_per_s)} allowed")
    if found.left_s:
        parts.append(f"about {span_text(found.left_s)} left")
    return ", ".join(parts)


def _lines(found: RunStatus) -> list[str]:
    total = found.summary.total
    lines = [
        f"ended: {found.done:,} of {total:,}"
        + (f", the last at {found.last_settled_at}" if found.last_settled_at else "")
    ]
    if found.summary.state is RunState.SENDING:
        who = f"pid {found.summary.pid} on {found.summary.host}"
        if found.is_alive is False:
            lines.append(f"cut off: its process ({who}) is gone; `bulkbind resume` goes on")
        else:
            lines.append(f"sending: {who}, {_pace(found)}")
            if found.live.waits:
                lines.append(f"waiting: {found.live.waits}")
    lines += [f"! {problem}" for problem in found.problems]
    return lines

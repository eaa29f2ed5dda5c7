"""`bulkbind status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.app.reports import status
from bulkbind.cli import options
from bulkbind.cli.here import command as command_here, completed, resume_of, same_as
from bulkbind.cli.options import run_argument, settings_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.model import RunState
from bulkbind.model.results import CUT_OFF
from bulkbind.model.wording import span_text, verb
from bulkbind.report import as_json, as_text
from bulkbind.report.measures import moment, pace_text, workers_now
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.app.reports import RunStatus


MOST_REASONS = 3
"""As many as leave room on a screen for how the run is doing."""


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
        settings = settings_from(given)
        found = status(settings, run_id)
        if as_json_:
            progress = {
                "done": found.done,
                "per_s": round(found.per_s, 2),
                "allowed_per_s": found.live.allowed_per_s,
                "waits": found.live.waits,
                "trouble": found.live.trouble,
                "stopping": found.live.stopping,
                "took_s": round(found.took_s, 1),
                "left_s": None if found.left_s is None else round(found.left_s, 1),
                "is_alive": found.is_alive,
                "last_settled_at": found.last_settled_at or None,
                "problems": list(found.problems),
                "unbound_since": found.unbound_since,
            }
            print_json(as_json(found.summary) | progress)
            return
        shown = as_text(found.summary, most_reasons=MOST_REASONS)
        same = same_as(found.summary, settings)
        told = [shown, *_lines(found, resume_of(found.summary, settings))]
        print_lines(completed(text, same=same) for text in told)


def _now(found: RunStatus) -> list[str]:
    """Return what its process does, as it said last."""
    live = found.live
    workers = [f"workers: {workers_now(live.spent.workers)}"] if live.spent.workers else []
    if found.is_mute:
        return [f"its process has said nothing for {span_text(found.said_s)}"]
    if live.stopping:
        return [f"stopping: {live.stopping}", *workers]
    pace = pace_text(
        found.per_s,
        live.allowed_per_s,
        live.source or "no limit met",
        found.took_s,
        found.left_s,
        told=live.spent.pace_told,
    )
    waits = [f"waiting: {live.waits}"] if live.waits else []
    return [pace, *workers, *waits, *([live.trouble] if live.trouble else [])]


def _lines(found: RunStatus, goes_on: str) -> list[str]:
    summary = found.summary
    lines = [
        f"ended: {found.done:,} of {summary.total:,}"
        + (f", the last at {moment(found.last_settled_at)}" if found.last_settled_at else "")
    ]
    who = f"pid {found.holder.pid} on {found.holder.host}"
    if summary.superseded_by is not None:
        lines.append(f"run {summary.superseded_by} took its place")
    elif summary.is_cut_off:
        lines.append(f"cut off: its process ({who}) is gone; resume it with:")
        lines.append(f"  {goes_on}")
    elif summary.state is RunState.STOPPED:
        lines += ["resume it with:", f"  {goes_on}"]
    elif found.is_sending:
        lines += [f"sending: {who}", *_now(found)]
    if found.is_undoing:
        lines += [f"undoing: {who}", *_now(found)]
    if (gone := found.unbound_since) and not summary.undo:
        were = verb(gone, "was", "were")
        lines.append(f"since then {gone:,} of those that it counts as bound {were} unbound")
    if summary.undo and summary.undo["state"] == CUT_OFF:
        lines.append("its undo was cut off: its process is gone; resume it with:")
        lines.append(f"  {command_here(['undo', summary.run_id])}")
    lines += [f"! {problem}" for problem in found.problems]
    return lines

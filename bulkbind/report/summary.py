"""How a run ended: as JSON for machines, as a few lines for people."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bulkbind.files import write_json
from bulkbind.model import MEANINGS, RunSummary, adjustment_words
from bulkbind.redaction import Lines, lines
from bulkbind.report.measures import counted, rate_text

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.model import Changes, Refreshed, RunFacts, UndoSummary

MOST_REASONS_SHOWN = 8
SHORTEST_SHOWN_S = 0.1


def as_json(summary: RunSummary) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    return {
        "run_id": summary.run_id,
        "state": summary.state.value,
        "manifests": list(summary.manifests),
        "rows": summary.total,
        "counts": summary.counts,
        "reasons": list(summary.reasons),
        **facts_json(summary),
    }


def facts_json(summary: RunSummary | UndoSummary) -> dict[str, Any]:
    """Return the facts, and the attributes that follow them; `undo` only if there was one."""
    names = [field.name for field in fields(summary)]
    more = {name: getattr(summary, name) for name in names[names.index("facts") + 1 :]}
    if more.get("undo", more) is None:
        del more["undo"]
    return summary.facts.shown() | more


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write `summary.json`. Raises: LedgerError."""
    write_json(path, as_json(summary))


def as_text(summary: RunSummary, *, every_status: bool = False) -> Lines:
    """Return a summary as lines of text. *every_status*: include statuses that no row has."""
    told = [f"run {summary.run_id}: {summary.state.value}, {counted(summary.total, 'rows')}"]
    shown = MEANINGS if every_status else [s for s in MEANINGS if s in summary.counts]
    told += [
        f"  {status:<14}{summary.counts.get(status, 0):>10,}  {MEANINGS[status]}"
        for status in shown
    ]
    if summary.reasons:
        told.append("reasons:")
        told += [_reason(reason) for reason in summary.reasons[:MOST_REASONS_SHOWN]]
        rest = len(summary.reasons) - MOST_REASONS_SHOWN
        if rest > 0:
            told.append(f"  … and {rest} more in summary.json")
    if summary.cleaned:
        told.append(f"cleaned: names of {counted(summary.cleaned, 'rows')}, each in `detail`")
    told += asked_text(summary.facts)
    told += _changes(summary.facts.changes)
    told += _refreshed(summary.facts.refreshed)
    told += _pace(summary)
    if undo := summary.undo:
        ended = ", ".join(f"{count:,} {status}" for status, count in undo["counts"].items())
        told.append(f"undone: {ended or 'nothing was left to unbind'} ({undo['state']})")
    if summary.stop_reason:
        told.append(f"stopped: {summary.stop_reason}")
    return lines(told)


def _reason(reason: dict[str, Any]) -> str:
    words = " ".join(str(reason[key]) for key in ("code", "message") if reason[key])
    detail = f" ({reason['detail']})" if reason["detail"] not in ("", reason["message"]) else ""
    return f"  {reason['count']:>7,}  {reason['status']}: {words}, e.g. {reason['example']}{detail}"


def asked_text(facts: RunFacts) -> list[str]:
    """Return what operators asked for: their note, what was left out, how the run was steered."""
    told = [f"note: {facts.note}"] if facts.note else []
    if left_out := facts.left_out:
        by = ", ".join(f"{count:,} by {condition}" for condition, count in left_out["by"].items())
        told.append(f"left out: {counted(left_out['rows'], 'rows')}: {by}")
    told += [f"adjusted: {adjustment_words(each)}" for each in facts.adjusted]
    return told


def _changes(changes: Changes) -> list[str]:
    parts = [f"{counted(count, 'devices')} {words}" for count, words in changes.counted()]
    return [f"since run {changes.since}: " + ", ".join(parts)] if parts else []


def _refreshed(found: Refreshed | None) -> list[str]:
    if found is None:
        return []
    users = f"the lists of {counted(found['users'], 'users')}"
    parts: list[str] = []
    if found["vanished"]:
        what = "sent again" if found["bound_again"] else "failed; --rebind-missing sends them"
        parts.append(f"lack {found['vanished']:,} known bindings: {what}")
    if not_proven := found.get("not_proven", 0):
        parts.append(f"lack {not_proven:,} that nothing proves gone; --rebind sends them")
    shown = "; they ".join(parts) or "show all that the ledger knows of these devices"
    return [f"refreshed: {users} {shown}"]


def _pace(summary: RunSummary) -> list[str]:
    facts = summary.facts
    if not facts.requests:
        return []
    parts = [f"{counted(facts.requests, 'requests')} in {facts.sending_s:,.1f} s"]
    if facts.requests_throttled:
        parts.append(f"{facts.requests_throttled:,} of them throttled")
    if facts.pace_per_s:
        parts.append(f"pace {rate_text(facts.pace_per_s)} ({facts.pace_from or 'learned'})")
    elif facts.pace_from:
        parts.append(facts.pace_from)
    if facts.requests_lists:
        parts.append(counted(facts.requests_lists, "list calls"))
    if summary.posted_again_after_bound:
        repeats = counted(summary.posted_again_after_bound, "requests")
        parts.append(f"{repeats} for what was bound already")
    if facts.requests_again:
        again = counted(facts.requests_again, "binds")
        parts.append(f"{again} sent again after no answer came in time")
    lines = ["sent: " + ", ".join(parts)]
    if spent := time_text(facts):
        lines.append(f"time: {spent}")
    aside = [
        f"{seconds:,.1f} s {wait.said}"
        for _, wait, seconds in facts.waits()
        if not wait.uses and seconds is not None and seconds >= SHORTEST_SHOWN_S
    ]
    return lines + ([f"waited: {', '.join(aside)}"] if aside else [])


def time_text(facts: RunFacts) -> str:
    """Return what the time of sending went to, most first; empty where nothing was sent."""
    shown = [item for item in facts.account() if item[1] >= SHORTEST_SHOWN_S]
    return ", ".join(f"{seconds:,.1f} s {said}" for said, seconds in shown)

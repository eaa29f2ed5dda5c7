"""How a run ended: as JSON for machines, as a few lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.files import write_json
from bulkbind.model import MEANINGS, RunSummary
from bulkbind.model.fields import DETAILS

if TYPE_CHECKING:
    from pathlib import Path

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
        **{key: value for key, value in summary.facts.items() if key != "parts"},
    }


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write `summary.json`. Raises: LedgerError."""
    write_json(path, as_json(summary))


def as_text(summary: RunSummary, *, every_status: bool = False) -> str:
    """Return a summary as lines of text. *every_status*: include statuses that no row has."""
    lines = [f"run {summary.run_id}: {summary.state.value}, {summary.total:,} rows"]
    shown = MEANINGS if every_status else [s for s in MEANINGS if s in summary.counts]
    lines += [
        f"  {status:<14}{summary.counts.get(status, 0):>10,}  {MEANINGS[status]}"
        for status in shown
    ]
    if summary.reasons:
        lines.append("reasons:")
        lines += [_reason(reason) for reason in summary.reasons[:MOST_REASONS_SHOWN]]
        rest = len(summary.reasons) - MOST_REASONS_SHOWN
        if rest > 0:
            lines.append(f"  … and {rest} more in summary.json")
    if summary.facts.get("cleaned"):
        lines.append(f"cleaned: names of {summary.facts['cleaned']:,} rows, each in `detail`")
    lines += _changes(summary.facts.get("changes"))
    lines += _refreshed(summary.facts.get("refreshed"))
    lines += _pace(summary.facts)
    if undo := summary.facts.get("undo"):
        ended = ", ".join(f"{count:,} {status}" for status, count in undo["counts"].items())
        lines.append(f"undone: {ended or 'nothing was left to unbind'} ({undo['state']})")
    if summary.facts.get("stop_reason"):
        lines.append(f"stopped: {summary.facts['stop_reason']}")
    return "\n".join(lines)


def _reason(reason: dict[str, Any]) -> str:
    words = " ".join(str(reason[key]) for key in ("code", "message") if reason[key])
    detail = f" ({reason['detail']})" if reason["detail"] not in ("", reason["message"]) else ""
    return f"  {reason['count']:>7,}  {reason['status']}: {words}, e.g. {reason['example']}{detail}"


def _changes(changes: dict[str, Any] | None) -> list[str]:
    if not changes:
        return []
    parts = [
        f"{changes[kind]:,} devices {words}"
        for kind, words in (
            ("added", "added"),
            ("removed", "no longer named (they stay bound)"),
            ("renamed", f"bound under another {DETAILS} (--rebind sends the new ones)"),
            ("newly_failed", "newly failed"),
            ("mended", "mended"),
        )
        if changes.get(kind)
    ]
    return [f"since run {changes['since']}: " + ", ".join(parts)] if parts else []


def _refreshed(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    users = f"the lists of {found['users']:,} users"
    if not found["vanished"]:
        return [f"refreshed: {users} show all that the ledger knows of these devices"]
    what = "sent again" if found["bound_again"] else "failed; --rebind-missing sends them"
    return [f"refreshed: {users} lack {found['vanished']:,} known bindings: {what}"]


def _pace(facts: dict[str, Any]) -> list[str]:
    if not facts.get("requests"):
        return []
    seconds = facts.get("sending_s", 0.0)
    parts = [f"{facts['requests']:,} requests in {seconds:,.1f} s"]
    if facts.get("requests_throttled"):
        parts.append(f"{facts['requests_throttled']:,} of them throttled")
    if facts.get("pace_per_s"):
        parts.append(f"pace {facts['pace_per_s']:g}/s ({facts.get('pace_from', 'learned')})")
    if facts.get("requests_lists"):
        parts.append(f"{facts['requests_lists']:,} list calls")
    if facts.get("posted_again_after_bound"):
        parts.append(f"{facts['posted_again_after_bound']:,} requests for what was bound already")
    waits = [
        f"{facts[key]:,.1f} s {words}"
        for key, words in (
            ("paced_s", "kept to the pace"),
            ("cooled_s", "refused by the gateway, or waiting for it"),
            ("retrying_s", "of devices' own trouble, all added up"),
        )
        if facts.get(key, 0.0) >= SHORTEST_SHOWN_S
    ]
    return ["sent: " + ", ".join(parts)] + (["waited: " + ", ".join(waits)] if waits else [])

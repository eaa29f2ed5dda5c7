"""How a run ended: as JSON for machines, as a few lines for people."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from bulkbind.files import write_json
from bulkbind.model import (
    COMES_BACK,
    GONE,
    IS_BOUND,
    IS_GONE,
    IS_PENDING,
    MEANINGS,
    PENDING,
    RunKind,
    RunState,
    RunSummary,
    Status,
    UnbindStatus,
    adjustment_words,
)
from bulkbind.model.wording import (
    TO_BELIEVE,
    counted,
    explained,
    may_be_sent,
    share,
    to_agree,
    to_do,
    verb,
    words,
)
from bulkbind.redaction import Lines, lines
from bulkbind.report.measures import limit_text, workers_at_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bulkbind.model import Refreshed, RunFacts, UndoSummary

MOST_REASONS_SHOWN = 8
IS_UNDOING = (RunState.CONFIRMED, RunState.SENDING)
"""States of an undo whose process works at it."""
OF_EXAMPLE = ("machine_code", "user_id")
"""What texts say of a reason's example besides its place; the JSON has all rows elsewhere."""
SHORTEST_SHOWN_S = 0.1


def as_json(summary: RunSummary) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    return {
        "run_id": summary.run_id,
        "state": summary.shown_state,
        "manifests": list(summary.manifests),
        "rows": summary.total,
        "counts": summary.counts,
        "reasons": without_examples(summary.reasons),
        **facts_json(summary),
    }


def without_examples(reasons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return reasons as JSON has them."""
    return [{key: each[key] for key in each if key not in OF_EXAMPLE} for each in reasons]


def facts_json(summary: RunSummary | UndoSummary) -> dict[str, Any]:
    """Return the facts, and the attributes that follow them.

    `undo` only if there was one, `unanswered` only if there are such rows.
    """
    names = [field.name for field in fields(summary)]
    more = {name: getattr(summary, name) for name in names[names.index("facts") + 1 :]}
    more.pop("is_cut_off", None)  # the state says it
    more.pop("goes_on", None)  # holds only where it was told
    if more.get("undo", more) is None:
        del more["undo"]
    if not more.get("unanswered", True):
        del more["unanswered"]
    if summary.facts.synced is None:
        more.pop("leavers", None)
        more.pop("leaver_reasons", None)
    elif "leaver_reasons" in more:
        more["leaver_reasons"] = without_examples(more["leaver_reasons"])
    return summary.facts.shown() | more


def write_summary(path: Path, summary: RunSummary) -> None:
    """Write `summary.json`. Raises: LedgerError."""
    write_json(path, as_json(summary))


def sentence(summary: RunSummary) -> str:
    """Return how many devices are bound, and what became of the others.

    `117 of 130 devices are bound: 104 now, 2 found on the server, 11 known. 12 need you.`; of a run
    that unbinds, how many are unbound.
    """
    counts = summary.counts
    if undo := summary.undo:
        gone = sum(undo["counts"].get(status, 0) for status in GONE)
        have = verb(gone, "has", "have")
        return f"Undone: {counted(gone, 'devices')} bound by this run {have} been unbound."
    does, wanted = ("bound", IS_BOUND) if summary.kind is RunKind.BIND else ("unbound", IS_GONE)
    lost = summary.facts.not_found
    asked = counts | {Status.SKIPPED: counts.get(Status.SKIPPED, 0) - lost}
    done = {status: asked[status] for status in wanted if asked.get(status, 0) > 0}
    are = share(sum(done.values()), summary.total, "devices", "is", "are")
    how = ", ".join(f"{count:,} {_said(status, count)}" for status, count in done.items())
    told = [f"{are} {does}" + (f": {how}" if how else "")]
    if needing := summary.needing_count:
        why = f": {lost:,} known, but not found on the server" if lost else ""
        told.append(f"{needing:,} {verb(needing, 'needs', 'need')} you{why}")
    known = {*wanted, *IS_PENDING, *summary.needing}
    others = [status for status in Status if status not in known]
    told += [f"{counts[s]:,} {_said(s, counts[s])}" for s in others if counts.get(s)]
    if left := counts.get(PENDING):
        unanswered = f"; {may_be_sent(summary.unanswered)}" if summary.unanswered else ""
        told.append(f"{left:,} {_said(IS_PENDING[0], left)}{unanswered}")
    if summary.leavers:
        told.append(_left(summary.leavers))
    return f"{'. '.join(told)}."


def _left(leavers: dict[str, int]) -> str:
    """Return what became of devices that leave: `50 of 52 that left the manifest are unbound`."""
    total = sum(leavers.values())
    gone = sum(leavers.get(status, 0) for status in GONE)
    of_all = f"{gone:,}" if gone == total else f"{gone:,} of {total:,}"
    return f"{of_all} that left the manifest {verb(gone, 'is', 'are', of=total)} unbound"


def tone(summary: RunSummary) -> str:
    """Return the colour of that sentence, as of a status."""
    if summary.undo:
        return "mute"
    if summary.state is not RunState.DONE:
        return "wait"
    return "bad" if summary.needs_person else "ok"


def _said(status: Status, count: int) -> str:
    return verb(count, *status.about.said)


def as_text(
    summary: RunSummary, *, most_reasons: int = MOST_REASONS_SHOWN, is_brief: bool = False
) -> Lines:
    """Return a summary as lines of text, the sentence first.

    *is_brief*: without the examples' details, and what else it did.
    """
    told = [sentence(summary)]
    if summary.stop_reason:
        told.append(f"stopped: {summary.stop_reason}")
    told.append(f"run {summary.run_id}: {summary.shown_state}, {counted(summary.total, 'rows')}")
    shown = {status: summary.counts[status] for status in MEANINGS if summary.counts.get(status)}
    if is_brief:
        told.append("  " + ", ".join(f"{count:,} {status}" for status, count in shown.items()))
    else:
        told += [f"  {s:<14}{count:>10,}  {MEANINGS[s]}" for s, count in shown.items()]
    told += reason_lines(summary, most_reasons, is_brief=is_brief)
    if is_brief:
        return lines(told)
    if summary.cleaned:
        told.append(f"cleaned: names of {counted(summary.cleaned, 'rows')}, each in `detail`")
    told += asked_text(summary.facts)
    told += scope_text(summary)
    told += _changes(summary.facts)
    told += _refreshed(summary.facts.refreshed)
    told += _pace(summary)
    if undo := summary.undo:
        ended = ", ".join(f"{count:,} {status}" for status, count in undo["counts"].items())
        told.append(f"undone: {ended or 'nothing was left to unbind'} ({undo['state']})")
    return lines(told)


def reason_lines(summary: RunSummary, most: int, *, is_brief: bool = False) -> list[str]:
    """Return what needs a person by status and reason, most first, with what to do.

    Of a stopped run, also what is in doubt. The rows, then the devices that left the manifest.

    *most*: reasons; *is_brief*: without the examples' details.
    """
    told: list[str] = []
    is_told = {*summary.needing, *((Status.IN_DOUBT,) if summary.state.about.is_over else ())}
    reasons = [each for each in summary.reasons if each["status"] in is_told]
    shown = reasons[:most]
    for status in dict.fromkeys(Status(each["status"]) for each in shown):
        of_it = [each for each in shown if each["status"] == status]
        told.append(f"{summary.counts.get(status, 0):,} {words(status)}:")
        cures = dict.fromkeys(cure(summary.kind, each) for each in of_it)
        if status is Status.IN_DOUBT and summary.undo and summary.undo["state"] in IS_UNDOING:
            cures = dict.fromkeys(["its undo asks the server"])
        for each in of_it:
            told += _reason(each, is_brief=is_brief)
        told += [f"      -> {cure}" for cure in cures]
    if summary.facts.not_found:
        what, cure_of_it = not_found(summary)
        told += [what, f"      -> {cure_of_it}"]
    told += leaver_lines(summary, most, is_brief=is_brief)
    rest = max(0, len(reasons) - most) + max(0, len(summary.leaver_reasons) - most)
    if rest:
        told.append(f"… and {counted(rest, 'more reasons')} in summary.json")
    return told


def not_found(summary: RunSummary) -> tuple[str, str]:
    """Return how many known devices the lists read before the run lack, and what to do."""
    lost = counted(summary.facts.not_found, "known devices")
    what = f"{lost} not found on the server, and not proven to be gone:"
    cure_of_it = (
        f"`bulkbind verify {summary.run_id}` names them; {TO_BELIEVE}; `bulkbind run MANIFEST "
        "--rebind` sends all known ones again"
    )
    return what, cure_of_it


_TO_DO = {
    UnbindStatus.CHANGED: Status.CHANGED.about.to_do,
    UnbindStatus.FAILED: "the same command tries again to unbind it",
}
"""What to do about devices that left the manifest, and stayed bound."""


def leaver_lines(summary: RunSummary, most: int, *, is_brief: bool = False) -> list[str]:
    """Return the devices that left the manifest and need a person, as `reason_lines` does rows."""
    told: list[str] = []
    for status, count in summary.needing_leavers.items():
        of_it = [each for each in summary.leaver_reasons[:most] if each["status"] == status]
        told.append(f"left the manifest, {count:,} {words(status)}:")
        for each in of_it:
            told += _reason(each, is_brief=is_brief)
        told += [f"      -> {cure}" for cure in dict.fromkeys(map(_cure_of_leaver, of_it))]
    return told


def _cure_of_leaver(reason: dict[str, Any]) -> str:
    return to_do(reason["code"]) or _TO_DO[UnbindStatus(reason["status"])]


def reasons_shown(summary: RunSummary) -> Iterator[dict[str, Any]]:
    """Yield the reasons of rows, then those of devices that left the manifest, for a table.

    Each also with `shown`, its status in words, with `to_do`, and with an `example`.
    """
    for each in summary.reasons:
        yield each | {"shown": each["status"], "to_do": cure(summary.kind, each)}
    for each in summary.leaver_reasons:
        shown = f"left the manifest, {words(each['status'])}"
        example, to_do = _device_of(each), _cure_of_leaver(each)
        yield each | {"shown": shown, "to_do": to_do, "example": example}


def cure(kind: RunKind, reason: dict[str, Any]) -> str:
    """Return what a person does about rows of a run that binds or unbinds, by their reason."""
    about = Status(reason["status"]).about
    own = about.to_do_unbinding if kind is RunKind.UNBIND else ""
    agreeing = to_agree(reason["message"], reason["detail"])
    return to_do(reason["code"]) or agreeing or own or about.to_do


def came_back(summary: RunSummary, files: Sequence[Path]) -> list[Path]:
    """Return those of a report's files that are manifests to fix and run; none without rows."""
    if not any(summary.counts.get(status) for status in COMES_BACK):
        return []
    return [path for path in files if path.name == "failed.csv" or path.parent.name == "failed"]


def files_text(summary: RunSummary, files: Sequence[Path]) -> Lines:
    """Return where a report's files are: those that matter by name, the others by folder."""
    pages = [path for path in files if path.suffix == ".html"]
    failed = came_back(summary, files)
    left = [path for path in files if summary.leavers and path.name == "unbound.csv"]
    others = [path for path in files if path not in {*pages, *failed, *left}]
    told = [f"report: {path}" for path in pages]
    told += [f"to fix or try again: {path}" for path in failed]
    told += [f"what left the manifest: {path}" for path in left]
    told += [f"all rows, and more: {others[0].parent}"] if others else []
    return lines(told)


def _reason(reason: dict[str, Any], *, is_brief: bool) -> list[str]:
    why = explained(reason["code"], reason["message"])
    detail = reason["detail"] if reason["detail"] not in ("", reason["message"]) else ""
    device = _device_of(reason)
    example = reason.get("example", device)  # what leaves has no line
    detail = detail or ("" if example == device else device)
    if is_brief:
        return [f"{reason['count']:>7,}  {why}, e.g. {example}"]
    shown = f"{example}: {detail}" if detail else example
    return [f"{reason['count']:>7,}  {why}", f"{'':9}e.g. {shown}"]


def _device_of(reason: dict[str, Any]) -> str:
    return " of user ".join(filter(None, (reason.get(key, "") for key in OF_EXAMPLE)))


def asked_text(facts: RunFacts) -> list[str]:
    """Return what operators asked for: their note, what was left out, how the run was steered."""
    told = [f"note: {facts.note}"] if facts.note else []
    if left_out := facts.left_out:
        by = ", ".join(f"{count:,} by {condition}" for condition, count in left_out["by"].items())
        told.append(f"left out: {counted(left_out['rows'], 'rows')}: {by}")
    told += [f"adjusted: {adjustment_words(each)}" for each in facts.adjusted]
    return told


def scope_text(summary: RunSummary) -> list[str]:
    """Return what was found of the scope, and what became of what left it."""
    if (synced := summary.facts.synced) is None:
        return []
    ended = ", ".join(f"{count:,} {status}" for status, count in summary.leavers.items())
    bound = counted(synced["bound"], "devices")
    known = f"{bound} known as bound before this run"
    return [f"scope {synced['scope']}: {known}; left: {ended or 'none'}"]


def _changes(facts: RunFacts) -> list[str]:
    changes = facts.changes
    parts = [f"{counted(count, 'devices')} {words}" for count, words in changes.counted()]
    if not parts:
        return []
    stays = "; what is not named stays bound" if changes.removed and not facts.synced else ""
    return [f"since run {changes.since}: {', '.join(parts)}{stays}"]


def _refreshed(found: Refreshed | None) -> list[str]:
    if found is None:
        return []
    users = f"the lists of {counted(found['users'], 'users')}"
    parts: list[str] = []
    if found["vanished"]:
        what = "sent again" if found["bound_again"] else "failed; --rebind-missing sends them"
        parts.append(f"lack {counted(found['vanished'], 'known bindings')}: {what}")
    if not_proven := found.get("not_proven", 0):
        parts.append(f"lack {not_proven:,} that nothing proves gone; adopt goes by lists")
    shown = "; they ".join(parts) or "show all that the ledger knows of these devices"
    return [f"refreshed: {users} {shown}"]


def exactness(summary: RunSummary) -> str:
    """Return what stands before the number of requests: `at least `, `about ` or nothing.

    While a run sends, its process tells them once a second, and its rows are counted now.
    """
    is_sending = summary.state is RunState.SENDING and not summary.is_cut_off
    return "at least " if summary.facts.is_least else "about " if is_sending else ""


def _pace(summary: RunSummary) -> list[str]:
    facts = summary.facts
    if not facts.requests and not facts.is_least:
        return []
    parts = [
        f"{exactness(summary)}{counted(facts.requests, 'requests')} in {facts.sending_s:,.1f} s"
    ]
    if facts.requests_throttled:
        parts.append(f"{facts.requests_throttled:,} of them throttled")
    if facts.pace_per_s:
        pace = limit_text(facts.pace_per_s, facts.pace_told)
        parts.append(f"pace {pace} ({facts.pace_from or 'learned'})")
    elif facts.pace_from:
        parts.append(facts.pace_from)
    if facts.requests_lists:
        parts.append(counted(facts.requests_lists, "list calls"))
    if summary.posted_again_after_bound:
        repeats = counted(summary.posted_again_after_bound, "requests")
        parts.append(f"{repeats} repeated a bind that had already succeeded")
    if facts.requests_again:
        again = counted(facts.requests_again, "binds")
        parts.append(f"{again} sent again after no answer came in time")
    lines = ["sent: " + ", ".join(parts)]
    if facts.workers:
        least = ", at least" if facts.cut_offs else ""  # of what was killed, a second is not known
        lines.append(f"sent by{least}: {workers_at_end(facts.workers, facts.own_settled)}")
    if spent := time_text(facts):
        lines.append(f"time: {spent}")
    return lines + _retries(facts)


def _retries(facts: RunFacts) -> list[str]:
    is_worth_it = facts.retrying_s >= SHORTEST_SHOWN_S
    return [f"retries: devices waited {facts.retrying_s:,.1f} s in all"] if is_worth_it else []


def time_text(facts: RunFacts) -> str:
    """Return what the time of sending went to, most first; empty where nothing was sent."""
    shown = [item for item in facts.account() if item[1] >= SHORTEST_SHOWN_S]
    return ", ".join(f"{seconds:,.1f} s {said}" for said, seconds in shown)

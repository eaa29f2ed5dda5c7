"""Describe how a command ended: text for a mail, JSON, and whether anything changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.model import NEEDS_PERSON, PENDING, RunFacts, RunState, Status
from bulkbind.redaction import Lines, line, lines
from bulkbind.report import as_json
from bulkbind.report.summary import asked_text, time_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bulkbind.app.inbox import InboxFile, InboxResult
    from bulkbind.app.session.sending import RunResult
    from bulkbind.errors import BulkbindError, ExitCode
    from bulkbind.model import Changes, Example

MOST_FILES = 10
"""Files of an inbox that a mail lists."""
MOST_WHY = 160
"""Characters of a reason; the report has the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a command ended."""

    exit_code: ExitCode
    about: str
    """The manifests, or the inbox."""
    text: Lines
    """For a person who did not watch: what, how many, which, where, what to do."""
    summary: Mapping[str, Any]
    """For a machine."""
    is_change: bool
    """Whether it ended differently from the last time, as far as is known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by status."""
    facts: RunFacts = field(default_factory=RunFacts)
    """As in the run's summary; for several runs their sums, and the newest pace."""


def of_run(result: RunResult) -> Ending:
    """Return how one run ended."""
    if result.report is None:
        return Ending(
            exit_code=result.exit_code,
            about="",
            text=line(f"bulkbind: {result.hint}"),
            summary={"exit_code": result.exit_code},
            is_change=True,
        )
    summary = result.report.summary
    about = ", ".join(summary.manifests)
    counts, changes = summary.counts, summary.facts.changes
    told = [f"bulkbind: {_what(result, about)}"]
    told += asked_text(summary.facts)
    told += _examples(summary.examples, changes)
    if spent := time_text(summary.facts):
        told.append(f"time: {spent}")
    told += [f"report: {path}" for path in result.report.files]
    told += _to_do(counts)
    if result.hint:
        told.append(f"what to do: {result.hint}")
    if summary.state is RunState.STOPPED:
        told.append(
            "what to do: the next run of the same manifest goes on there, and so does "
            f"`bulkbind resume {summary.run_id}` with its options"
        )
    return Ending(
        exit_code=result.exit_code,
        about=about,
        text=lines(told),
        summary=as_json(summary) | {"exit_code": result.exit_code},
        is_change=summary.state is not RunState.DONE or _is_change(changes),
        counts=counts,
        facts=summary.facts,
    )


def of_inbox(result: InboxResult) -> Ending:
    """Return how a pass over an inbox ended."""
    troubled = [item for item in result.files if item.exit_code]
    of_all = f"{len(result.files):,} files of {result.inbox}"
    told = [
        f"bulkbind: {len(troubled):,} of {of_all} need a person"
        if troubled
        else f"bulkbind: {of_all}, none needs a person"
    ]
    for item in troubled[:MOST_FILES]:
        told += _file(item)
    if len(troubled) > MOST_FILES:
        told.append(f"  … and {len(troubled) - MOST_FILES:,} more files")
    if known := sum(item.was_told for item in result.files):
        told.append(f"{known:,} files are still in the inbox, as was told before")
    if result.stopped:
        told.append(f"stopped: {result.stopped}; {result.waiting:,} files wait for the next run")
    if result.hint:
        told.append(f"what to do: {result.hint}")
    facts = RunFacts.total(item.facts for item in result.files)
    if spent := time_text(facts):
        told.append(f"time: {spent}")
    told.append(f"report: {result.summary_file}")
    told += _to_do(result.counts())
    return Ending(
        exit_code=result.exit_code,
        about=str(result.inbox),
        text=lines(told),
        summary=result.as_json(),
        is_change=not all(item.was_told for item in result.files) or bool(result.stopped),
        counts=result.counts(),
        facts=facts,
    )


def of_error(error: BulkbindError, about: str) -> Ending:
    """Return how a failed command ended."""
    first, *more = error.message.split("\n")
    told = [f"bulkbind: {about}: {first}" if about else f"bulkbind: {first}", *more]
    what, *more = error.hint.split("\n")
    told += [f"what to do: {what}", *more] if error.hint else []
    return Ending(
        exit_code=error.exit_code,
        about=about,
        text=lines(told),
        summary={"exit_code": error.exit_code, "error": str(error), "hint": error.hint},
        is_change=True,
    )


def _is_change(changes: Changes) -> bool:
    """Return whether a finished run differs from the last one; the first run does."""
    return not changes or bool(changes.counted())


def _what(result: RunResult, about: str) -> str:
    assert result.report is not None
    summary = result.report.summary
    if summary.state is RunState.STOPPED:
        reason = summary.stop_reason or "for no known reason"
        left = summary.counts.get(PENDING, 0)
        return (
            f"run {summary.run_id} of {about} stopped: {reason}; {left:,} of {summary.total:,} "
            "rows are left"
        )
    if not summary.needs_person:
        return f"run {summary.run_id} of {about}: {summary.total:,} rows, none needs a person"
    needing = sum(summary.counts.get(status, 0) for status in NEEDS_PERSON)
    new = summary.facts.changes.newly_failed
    since = "" if new is None else f", {new:,} of them new since the last run"
    return (
        f"{needing:,} of {summary.total:,} rows of {about} need a person "
        f"({_counted(summary.counts)}){since}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[s]:,} {_words(s)}" for s in NEEDS_PERSON if counts.get(s))


def _words(status: Status) -> str:
    return status.replace("_", " ")


def _examples(examples: Sequence[Example], changes: Changes, indent: str = "  ") -> list[str]:
    """Return the newly failed rows if there are any, else examples."""
    shown = changes.newly_failed_rows or examples
    return [f"{indent}{row['place']}  {row['status']}: {row['why'][:MOST_WHY]}" for row in shown]


def _file(item: InboxFile) -> list[str]:
    if item.moved_to is None:
        return [f"  {item.name} is still in the inbox: {item.problem}"] + (
            [f"    what to do: {item.hint}"] if item.hint else []
        )
    rows = sum(item.counts.values())
    return [
        f"  {item.name}: {_counted(item.counts)} of {rows:,} rows, now {item.moved_to}",
        *_examples(item.examples, item.facts.changes, "    "),
    ]


def _to_do(counts: Mapping[str, int]) -> list[str]:
    return [
        f"what to do: {_words(status)}: {status.about.to_do}"
        for status in NEEDS_PERSON
        if counts.get(status)
    ]

"""Describe how a command ended: text for a mail, JSON, and whether anything changed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.model import NEEDS_PERSON, RunFacts, RunState, Status
from bulkbind.model.wording import counted, meaning, share, to_agree, verb, words
from bulkbind.redaction import Lines, lines
from bulkbind.report import as_json
from bulkbind.report.measures import moment
from bulkbind.report.summary import (
    asked_text,
    files_text,
    reason_lines,
    scope_text,
    sentence,
    time_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bulkbind.app.inbox import InboxFile, InboxResult
    from bulkbind.app.session.sending import RunResult
    from bulkbind.errors import BulkbindError, ExitCode
    from bulkbind.model import Changes, Example, RunSummary

MOST_FILES = 10
"""Files of an inbox that a mail lists."""
MOST_WHY = 160
"""Characters of a reason; the report has the whole."""
MOST_REASONS = 3
"""Reasons that a mail lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Where a command runs, and what a person elsewhere has to know of it."""

    host: str = ""
    endpoint: str = ""
    again: str = ""
    """The whole command, to be pasted into a shell; empty if it cannot be given again."""
    went_well_at: str | None = ""
    """When it last ended with nothing for a person to do; None: never; empty: not known."""
    completed: Callable[[str], str] = str
    """Returns a hint whose commands are whole."""


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
    is_news: bool = True
    """Whether anything in it has not been told before."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by status."""
    facts: RunFacts = field(default_factory=RunFacts)
    """As in the run's summary; for several runs their sums, and the newest pace."""


_NOWHERE = Here()


def of_run(result: RunResult, here: Here = _NOWHERE) -> Ending:
    """Return how one run ended."""
    if result.report is None:
        return Ending(
            exit_code=result.exit_code,
            about="",
            text=lines([_head(here, "", result.hint, result.exit_code)]),
            summary={"exit_code": result.exit_code},
            is_change=True,
        )
    summary = result.report.summary
    about, changes = ", ".join(summary.manifests), summary.facts.changes
    told = [_head(here, about, _what(summary), result.exit_code), sentence(summary)]
    told += asked_text(summary.facts)
    told += scope_text(summary)
    told += _new(changes)
    told += map(here.completed, reason_lines(summary, MOST_REASONS))
    told += _went_well(here)
    told.append(f"run: {summary.run_id}" + (f" at {here.endpoint}" if here.endpoint else ""))
    told += [f"manifest: {Path(name).absolute()}" for name in summary.manifests if name != "-"]
    if spent := time_text(summary.facts):
        told.append(f"time: {spent}")
    told += files_text(summary, [path.absolute() for path in result.report.files]).split("\n")
    told += _to_do(result.hint, _next(result, summary), here)
    return Ending(
        exit_code=result.exit_code,
        about=about,
        text=lines(told),
        summary=as_json(summary) | {"exit_code": result.exit_code},
        is_change=summary.state is not RunState.DONE
        or bool(summary.leavers)
        or _is_change(changes),
        counts=summary.counts,
        facts=summary.facts,
    )


def of_inbox(result: InboxResult, here: Here = _NOWHERE) -> Ending:
    """Return how a pass over an inbox ended."""
    troubled = [item for item in result.files if item.exit_code]
    needs = _needs(len(troubled), len(result.files), "files")
    what = f"stopped: {result.stopped}; {needs}" if result.stopped else needs
    told = [_head(here, str(result.inbox), what, result.exit_code)]
    for item in troubled[:MOST_FILES]:
        told += _file(item, here)
    if (more := len(troubled) - MOST_FILES) > 0:
        told.append(f"  … and {counted(more, 'more files')}")
    if known := sum(item.was_told for item in result.files):
        still = f"{counted(known, 'files')} {verb(known, 'is', 'are')} still in the inbox"
        told.append(f"{still}, as was told before")
    if result.stopped and result.waiting:
        waiting = counted(result.waiting, "files")
        told.append(f"{waiting} {verb(result.waiting, 'waits', 'wait')} for the next run")
    told += _went_well(here)
    if here.endpoint:
        told.append(f"endpoint: {here.endpoint}")
    facts = RunFacts.total(item.facts for item in result.files)
    if spent := time_text(facts):
        told.append(f"time: {spent}")
    if result.summary_file is not None:
        told.append(f"report: {result.summary_file.absolute()}")
    told += _to_do(result.hint, _GO_ON if result.stopped else "", here)
    return Ending(
        exit_code=result.exit_code,
        about=str(result.inbox),
        text=lines(told),
        summary=result.as_json(),
        is_change=not all(item.was_told for item in result.files) or bool(result.stopped),
        is_news=result.is_news,
        counts=result.counts(),
        facts=facts,
    )


def of_error(error: BulkbindError, about: str, here: Here = _NOWHERE) -> Ending:
    """Return how a failed command ended."""
    first, *more = error.message.split("\n")
    told = [_head(here, about, first, error.exit_code), *more]
    told += _went_well(here)
    told += [f"endpoint: {here.endpoint}"] if here.endpoint else []
    told += _to_do(error.hint, _AGAIN, here)
    return Ending(
        exit_code=error.exit_code,
        about=about,
        text=lines(told),
        summary={"exit_code": error.exit_code, "error": str(error), "hint": error.hint},
        is_change=True,
    )


def _head(here: Here, about: str, what: str, exit_code: ExitCode) -> str:
    """Return the first line, which is all that a telephone shows."""
    who = f"bulkbind on {here.host}" if here.host else "bulkbind"
    code = f"exit {exit_code:d}: {exit_code.meaning}"
    return ": ".join(part for part in (who, about, what) if part) + f" ({code})"


def _what(summary: RunSummary) -> str:
    if summary.state is RunState.STOPPED:
        return f"stopped: {summary.stop_reason or 'for no known reason'}"
    total = summary.total + sum(summary.leavers.values())
    return _needs(summary.needing_count, total, "devices")


def _needs(count: int, total: int, what: str) -> str:
    if not count:
        return f"none of {counted(total, what)} needs you"
    return share(count, total, what, "needs you", "need you")


def _is_change(changes: Changes) -> bool:
    """Return whether a finished run differs from the last one; the first run does."""
    return not changes or bool(changes.counted())


def _new(changes: Changes) -> list[str]:
    """Return what needs a person and did not in the last run."""
    if not (new := changes.newly_failed):
        return []
    is_new = verb(new, "is", "are")
    return [f"{new:,} of them {is_new} new since run {changes.since}:"] + [
        f"  {_example(row)}" for row in changes.newly_failed_rows
    ]


def _example(row: Example) -> str:
    why, told = row["why"], meaning(row["why"].partition(" ")[0])
    why = f"{why}: {told}" if told else why
    return f"{row['place']}  {words(row['status'])}: {why[:MOST_WHY]}"


def _file(item: InboxFile, here: Here) -> list[str]:
    if item.moved_to is None:
        return [f"  {item.name} is still in the inbox: {item.problem}"] + (
            [f"    what to do: {here.completed(item.hint)}"] if item.hint else []
        )
    found = [status for status in NEEDS_PERSON if item.counts.get(status)]
    why = [f"{item.counts[status]:,} {words(status)}" for status in found]
    why += (
        [f"{lost:,} known, but not found on the server"] if (lost := item.facts.not_found) else []
    )
    needing = ", ".join(why)
    rows = counted(sum(item.counts.values()), "rows")
    shown = item.facts.changes.newly_failed_rows or item.examples
    cures = [f"    -> {words(status)}: {_cure(status, shown)}" for status in found]
    return [
        f"  {item.name}: {needing or 'none'} of {rows}; it is now",
        f"    {item.moved_to}",
        *(f"    {_example(row)}" for row in shown),
        *cures,
        *(f"    {line}" for line in item.leaver_lines),
    ]


def _cure(status: Status, shown: Sequence[Example]) -> str:
    return to_agree(*(r["why"] for r in shown if r["status"] == status)) or status.about.to_do


def _went_well(here: Here) -> list[str]:
    if here.went_well_at == "":
        return []
    return [f"last went well: {moment(here.went_well_at) or 'never'}"]


_GO_ON = "the next run resumes where it stopped; to resume {when}:"
_MENDED = "once that is fixed, the next run resumes where it stopped; to resume then:"
_AGAIN = "then run it again:"
_HAS_COMMAND = re.compile(r"`([^` ]*/)?bulkbind ")
"""A hint that has the command, which may be called by its path."""


def _next(result: RunResult, summary: RunSummary) -> str:
    if summary.state is RunState.STOPPED:
        return _MENDED if result.is_endpoint_wrong else _GO_ON
    return _AGAIN if summary.needing_count > summary.facts.not_found else ""


def _to_do(hint: str, then: str, here: Here) -> list[str]:
    """Return what to do, and the whole command with which it goes on once that is done."""
    told = [f"what to do: {here.completed(hint)}"] if hint else []
    is_told = then == _AGAIN and _HAS_COMMAND.search(hint)
    if here.again and then and not is_told:
        told += [then.format(when="then" if hint else "now"), f"  {here.again}"]
    return told

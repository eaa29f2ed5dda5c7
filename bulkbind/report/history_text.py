"""The history of a device or a user, as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.model.history import Left
from bulkbind.model.wording import reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.model.history import Appearance, History, Taken, Try


def history_lines(history: History) -> Iterator[str]:
    """Yield what the ledger knows now, then run by run, the oldest first, its rows and leavers."""
    for known in history.bindings:
        yield (
            f"{known.machine_code} has been bound to {known.user_id} since {known.since}, by "
            f"run {known.run_id}; device id {known.device_id or 'not known'}"
        )
    if not history.bindings:
        yield "nothing is bound now, as far as the ledger knows"
    before = ""
    found: list[Appearance | Left] = [*history.rows, *history.left]
    for each in sorted(found, key=lambda each: each.began_at):
        if each.run_id != before:
            note = f"  {each.note}" if each.note else ""
            yield f"run {each.run_id}, {each.state}: {each.began_at}, {each.operator}{note}"
            before = each.run_id
        if isinstance(each, Left):
            yield f"  {each.machine_code} left the manifest: {_taken(each)}"
        else:
            yield from _row(each)


def _row(row: Appearance) -> Iterator[str]:
    ended = f" at {row.settled_at}" if row.settled_at else ""
    yield (
        f"  {row.file}:{row.line}  {row.machine_code} for {row.user_id or 'nobody'}: "
        f"{row.status}{ended}{_answer(row)}"
    )
    if row.detail:
        yield f"    {row.detail}"
    for each in row.tries:
        yield f"    attempt at {each.at}: {each.verdict}{_answer(each)}"
    for taken in row.taken:
        yield f"    {taken.kind} by {taken.operator}: {_taken(taken)}"


def _taken(taken: Taken) -> str:
    ended = f" at {taken.at}" if taken.at else ""
    return f"{taken.status} from {taken.user_id}{ended}{_answer(taken)}"


def _answer(of: Appearance | Try | Taken) -> str:
    """Return what the server said, and the trace id by which its support finds it."""
    parts = [f"HTTP {of.http_status}" if of.http_status else "", reason(of.code, of.message)]
    said = " ".join(part for part in parts if part)
    trace = f"trace {of.trace_id}" if of.trace_id else ""
    return "".join(f", {part}" for part in (said, trace) if part)

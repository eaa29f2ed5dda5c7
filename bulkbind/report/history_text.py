"""The history of a device or a user, as lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.model.history import Appearance, History, Taken, Try


def history_lines(history: History) -> Iterator[str]:
    """Yield what the ledger knows now, then every row, the oldest run first."""
    for known in history.bindings:
        yield (
            f"{known.machine_code} has been bound to {known.user_id} since {known.since}, by "
            f"run {known.run_id}; device id {known.device_id or 'not known'}"
        )
    if not history.bindings:
        yield "nothing is bound now, as far as the ledger knows"
    before = ""
    for row in history.rows:
        if row.run_id != before:
            note = f"  {row.note}" if row.note else ""
            yield f"run {row.run_id}, {row.state}: {row.began_at}, {row.operator}{note}"
            before = row.run_id
        yield from _row(row)


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
        ended = f" at {taken.at}" if taken.at else ""
        yield (
            f"    {taken.kind} by {taken.operator}: {taken.status} from {taken.user_id}{ended}"
            f"{_answer(taken)}"
        )


def _answer(of: Appearance | Try | Taken) -> str:
    """Return what the server said, and the trace id by which its support finds it."""
    parts = [f"HTTP {of.http_status}" if of.http_status else "", of.code, of.message]
    said = " ".join(part for part in parts if part)
    trace = f"trace {of.trace_id}" if of.trace_id else ""
    return "".join(f", {part}" for part in (said, trace) if part)

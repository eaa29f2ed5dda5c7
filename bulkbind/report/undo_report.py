"""An undo: its plan, how it ended, and the files that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.files import write_json
from bulkbind.model import UNBIND_MEANINGS
from bulkbind.model.wording import counted
from bulkbind.redaction import Lines, lines
from bulkbind.report.summary import facts_json, time_text
from bulkbind.report.tables import UNDONE, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bulkbind.model import Source, UndoneRow, UndoPlan, UndoSummary


MAY_COST = (
    "a device may carry backup scopes, settings, records and locks: what an unbind does to them is "
    "not documented, so users may lose backups"
)
"""Source: koodrive-api.md, "More calls of the same service"."""


def undo_plan_text(undo: UndoPlan) -> Lines:
    """Return what an undo would do, as lines of text."""
    told = [f"undo of run {undo.run_id}:", f"  - {undo.bound:>9,}  bound by this run: to unbind"]
    if undo.in_doubt:
        told.append(
            f"  … {undo.in_doubt:>9,}  in doubt: looked up, and unbound if this run bound them"
        )
    if undo.moved:
        told.append(
            f"  > {undo.moved:>9,}  of them were moved from another user: they do not go back there"
        )
    if undo.gone:
        told.append(
            f"  ? {undo.gone:>9,}  of them were not there any more for an earlier undo: looked for "
            "again"
        )
    told.append("what others have bound, before or since, is left alone")
    told.append(MAY_COST)
    return lines(told)


def undo_json(summary: UndoSummary) -> dict[str, Any]:
    """Return the content of `undo.json`."""
    return {
        "run_id": summary.run_id,
        "state": summary.state,
        "counts": summary.counts,
        "in_doubt": summary.in_doubt,
        **facts_json(summary),
    }


def undo_text(summary: UndoSummary) -> Lines:
    """Return how an undo ended, as lines of text."""
    total = sum(summary.counts.values())
    told = [f"undo of run {summary.run_id}: {summary.state}, {counted(total, 'devices')}"]
    told += [
        f"  {status:<14}{count:>10,}  {UNBIND_MEANINGS[status]}"
        for status, count in summary.counts.items()
    ]
    if summary.in_doubt:
        told.append(
            f"  {'in_doubt':<14}{summary.in_doubt:>10,}  no list could tell whether they are bound"
        )
        told.append(f"  -> `bulkbind report {summary.run_id}` tells why, and what to do")
    if spent := time_text(summary.facts):
        told.append(f"time: {spent}")
    if summary.stop_reason:
        told.append(f"stopped: {summary.stop_reason}")
    return lines(told)


def write_undo(
    folder: Path, summary: UndoSummary, rows: Iterable[UndoneRow], sources: Sequence[Source]
) -> list[Path]:
    """Write `undo.csv` and `undo.json`, each atomically. Raises: LedgerError."""
    table_file, summary_file = folder / "undo.csv", folder / "undo.json"
    write_table(table_file, UNDONE.names, (UNDONE.guarded(row, sources) for row in rows))
    write_json(summary_file, undo_json(summary))
    return [table_file, summary_file]

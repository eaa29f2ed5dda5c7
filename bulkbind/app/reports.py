"""`report` and `runs`: what the ledger knows, read-only, beside a running run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind import report
from bulkbind.ledger import RunReader, all_runs, find_run, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import RunSummary
    from bulkbind.settings import Settings


@dataclass(frozen=True, slots=True)
class Report:
    """A written report."""

    summary: RunSummary
    folder: Path
    files: list[Path]


def write_report(
    settings: Settings, run_id: str | None = None, *, attempts: bool = False
) -> Report:
    """Write a run's report files again; the newest run's unless *run_id* is given.

    *attempts*: write `attempts.csv` as well, the attempts that were not simply accepted.

    Raises: UsageError if there is no such run, LedgerError if something cannot be read or written.
    """
    with reading(settings.ledger_path(), settings.api.endpoint) as db:
        reader = RunReader(db, find_run(db, run_id))
        known_id = reader.summary().run_id
        folder = settings.out or Path("bulkbind-report") / known_id
        summary, files = report.write_report(reader, folder)
        if attempts:
            files.append(report.write_attempts(reader, folder))
    return Report(summary, folder, files)


def write_forms(
    settings: Settings,
    run_id: str | None = None,
    *,
    forms: Sequence[str],
    only: Sequence[str] = (),
) -> Report:
    """Write a run's report in other forms: csv, jsonl, html, md, xlsx; in manifest order.

    *only*: conditions such as `status=failed|invalid,reason=space`, which all have to hold.

    Raises: UsageError, LedgerError.
    """
    wanted = report.parse_filter(only)
    with reading(settings.ledger_path(), settings.api.endpoint) as db:
        reader = RunReader(db, find_run(db, run_id))
        summary = reader.summary()
        folder = settings.out or Path("bulkbind-report") / summary.run_id
        files = [report.write_form(reader, summary, folder, form, wanted) for form in forms]
    return Report(summary, folder, files)


def runs(settings: Settings) -> list[dict[str, Any]]:
    """Return the runs in the ledger, newest first. Raises: LedgerError."""
    return all_runs(settings.ledger_path(), settings.api.endpoint)

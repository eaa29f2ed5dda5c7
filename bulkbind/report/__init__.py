"""Reports, made from the ledger only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bulkbind.model import COMES_BACK
from bulkbind.report.summary import as_json, as_text, write_summary
from bulkbind.report.tables import write_attempt_rows, write_failed, write_results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.model import AttemptRow, ResultRow, RunSummary, Source

__all__ = ["RunRows", "as_json", "as_text", "write_attempts", "write_report"]


class RunRows(Protocol):
    """One run, as the ledger holds it."""

    def sources(self) -> list[Source]:
        """Return the manifests' forms."""
        ...

    def rows(self, statuses: tuple[str, ...] = ()) -> Iterator[ResultRow]:
        """Yield the rows in manifest order, all or those with one of *statuses*."""
        ...

    def attempts(self) -> Iterator[AttemptRow]:
        """Yield the attempts that were not simply accepted, in manifest order."""
        ...

    def summary(self) -> RunSummary:
        """Return counts, reasons and facts."""
        ...


def write_report(run: RunRows, folder: Path) -> tuple[RunSummary, list[Path]]:
    """Write `results.csv`, `failed.csv` and `summary.json`, each atomically.

    Returns: The summary, and the files. Raises: LedgerError.
    """
    sources = run.sources()
    summary = run.summary()
    results = folder / "results.csv"
    write_results(results, run.rows(), sources)
    failed = write_failed(folder, run.rows(COMES_BACK), sources)
    summary_file = folder / "summary.json"
    write_summary(summary_file, summary)
    return summary, [results, *failed, summary_file]


def write_attempts(run: RunRows, folder: Path) -> Path:
    """Write `attempts.csv`, atomically, and return its path. Raises: LedgerError."""
    path = folder / "attempts.csv"
    write_attempt_rows(path, run.attempts(), run.sources())
    return path

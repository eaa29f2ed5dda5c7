"""Reports, made from the ledger only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bulkbind.model import COMES_BACK, Status
from bulkbind.report.summary import as_json, as_text, write_summary
from bulkbind.report.tables import (
    write_attempt_rows,
    write_failed,
    write_problem_rows,
    write_results,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bulkbind.model import AttemptRow, Problem, ResultRow, RunSummary, Source

__all__ = ["RunRows", "as_json", "as_text", "write_attempts", "write_problems", "write_report"]


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
    """Write `results.csv`, `failed.csv`, `problems.csv` and `summary.json`, each atomically.

    Returns: The summary, and the files. Raises: LedgerError.
    """
    sources = run.sources()
    summary = run.summary()
    results = folder / "results.csv"
    write_results(results, run.rows(), sources)
    failed = write_failed(folder, run.rows(COMES_BACK), sources)
    problems = folder / "problems.csv"
    write_problem_rows(problems, _problems(run, sources))
    summary_file = folder / "summary.json"
    write_summary(summary_file, summary)
    return summary, [results, *failed, problems, summary_file]


def write_problems(path: Path, problems: Iterable[tuple[str, int, Problem]]) -> None:
    """Write `problems.csv`, atomically: source, line and problem each. Raises: LedgerError."""
    write_problem_rows(path, problems)


def _problems(run: RunRows, sources: list[Source]) -> Iterator[tuple[str, int, Problem]]:
    for row in run.rows((Status.INVALID,)):
        for problem in row.problems:
            yield sources[row.source].name, row.line, problem


def write_attempts(run: RunRows, folder: Path) -> Path:
    """Write `attempts.csv`, atomically, and return its path. Raises: LedgerError."""
    path = folder / "attempts.csv"
    write_attempt_rows(path, run.attempts(), run.sources())
    return path

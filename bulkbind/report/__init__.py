"""Reports, written from the ledger only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bulkbind.errors import UsageError
from bulkbind.model import COMES_BACK, TO_SEE_TO, Status
from bulkbind.report import forms
from bulkbind.report.page import MOST_USERS, load_page, write_html
from bulkbind.report.summary import as_json, as_text, write_summary
from bulkbind.report.tables import (
    ATTEMPTS,
    LEAVERS,
    RowFilter,
    parse_filter,
    write_failed,
    write_lines,
    write_problems,
    write_results,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from bulkbind.model import AttemptRow, LeaverRow, Problem, ResultRow, RunSummary, Source

    Users: TypeAlias = tuple[list[dict[str, Any]], int]
    _Write: TypeAlias = "Callable[[Path, RunRows, RunSummary, RowFilter | None], None]"


class RunRows(Protocol):
    """One run in the ledger."""

    def sources(self) -> list[Source]:
        """Return the manifests' forms."""

    def rows(self, statuses: tuple[str, ...] = ()) -> Iterator[ResultRow]:
        """Yield the rows in manifest order, all or those with one of *statuses*."""

    def lines(self) -> Generator[tuple[int, int, int, str]]:
        """Yield all rows as `results.csv` shows them, unless it quotes or guards cells, in parts.

        The first and the last id, the number of rows, and the cells, joined by commas, of their
        lines, joined by CRLF; empty where `cells` must be asked for them.
        """

    def cells(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows between two ids, inclusive: id, source and values.

        At the end the fields that break a rule, divided by blanks.
        """

    def leavers(self) -> Iterator[LeaverRow]:
        """Yield the devices that leave, as the manifests lack them."""

    def attempts(self) -> Iterator[AttemptRow]:
        """Yield the attempts that were not accepted outright, in manifest order."""

    def summary(self) -> RunSummary:
        """Return counts, reasons and facts."""

    def users(self, most: int) -> Users:
        """Return `user_id`, `rows`, `counts` of users, those with most unbound rows first.

        And how many users there are.
        """

    def verdicts(self) -> list[dict[str, Any]]:
        """Return `verdict`, `code`, `count` of the attempts that were not accepted outright."""


def write_report(
    run: RunRows, folder: Path, goes_on: Callable[[str], str] = lambda _run_id: ""
) -> tuple[RunSummary, list[Path]]:
    """Write `results.csv`, `failed.csv`, `problems.csv`, `summary.json`, `report.html`, atomically.

    With `sync`, `unbound.csv` as well, with one line per device that leaves.

    *goes_on*: returns the command that resumes a run.

    Returns: The summary, and the files. Raises: LedgerError.
    """
    return write_rest(run, folder, write_rows(run, folder), goes_on)


class RowFiles(NamedTuple):
    """What of a report tells of rows alone: that they have ended is enough to write it."""

    files: list[Path]
    users: Users
    """Of the page."""


def write_rows(run: RunRows, folder: Path) -> RowFiles:
    """Write the part of a report that tells of rows alone. Raises: LedgerError."""
    sources = run.sources()
    results = folder / "results.csv"
    write_lines(results, run, sources)
    failed = write_failed(folder, run.rows(COMES_BACK), sources)
    problems = folder / "problems.csv"
    write_problems(problems, _problems(run, sources))
    return RowFiles([results, *failed, problems], run.users(MOST_USERS))


def write_rest(
    run: RunRows, folder: Path, rows: RowFiles, goes_on: Callable[[str], str]
) -> tuple[RunSummary, list[Path]]:
    """Write the other part, of a run that has ended; return what `write_report` does.

    Raises: LedgerError.
    """
    summary = run.summary()
    summary = replace(summary, goes_on=goes_on(summary.run_id))
    if (folder / "failed.csv") not in rows.files:
        (folder / "failed.csv").unlink(missing_ok=True)  # of an earlier run with one manifest
    more = _write_leavers(run, summary, folder)
    summary_file = folder / "summary.json"
    write_summary(summary_file, summary)
    page = folder / "report.html"
    write_html(page, run, summary, users=rows.users)
    return summary, [*rows.files, *more, summary_file, page]


def _write_leavers(run: RunRows, summary: RunSummary, folder: Path) -> list[Path]:
    if summary.facts.synced is None:
        return []
    path = folder / "unbound.csv"
    write_table(path, LEAVERS.names, map(LEAVERS.guarded, run.leavers()))
    return [path]


def _problems(run: RunRows, sources: list[Source]) -> Iterator[tuple[str, int, Problem]]:
    for row in run.rows((Status.INVALID,)):
        for problem in row.problems:
            yield sources[row.source].name, row.line, problem


def _rows_by(write: Callable[[Path, Iterable[ResultRow], Sequence[Source]], None]) -> _Write:
    """Return what writes all rows, or those selected, by *write*."""

    def written(path: Path, run: RunRows, _: RunSummary, only: RowFilter | None) -> None:
        write(path, only.rows(run) if only else run.rows(), run.sources())

    return written


def _write_csv(path: Path, run: RunRows, _: RunSummary, only: RowFilter | None) -> None:
    if only:
        write_results(path, only.rows(run), run.sources())
    else:
        write_lines(path, run, run.sources())


def _write_markdown(path: Path, run: RunRows, summary: RunSummary, only: RowFilter | None) -> None:
    rows = only.rows(run) if only else run.rows(TO_SEE_TO)
    forms.write_markdown(path, summary, rows, run.sources(), run.leavers())


FORMS: dict[str, tuple[str, _Write]] = {
    "csv": ("results", _write_csv),
    "jsonl": ("results", _rows_by(forms.write_jsonl)),
    "html": ("report", write_html),
    "md": ("report", _write_markdown),
    "xlsx": ("results", _rows_by(forms.write_xlsx)),
}
"""The forms of `write_form`: suffix -> the file's name, and what writes it."""


def write_form(
    run: RunRows, summary: RunSummary, folder: Path, form: str, only: RowFilter | None
) -> Path:
    """Write one of `FORMS` into the report folder, atomically, and return its path.

    *only* selects the rows; the file is then named `…-filtered`. None: all rows; in the forms for
    people (html, md) only those that are not bound.

    Raises: LedgerError, UsageError.
    """
    if form not in FORMS:
        raise UsageError(f"there is no form {form!r}", hint=f"forms are {', '.join(FORMS)}")
    stem, write = FORMS[form]
    path = folder / f"{stem}{'-filtered' if only else ''}.{form}"
    write(path, run, summary, only)
    return path


def write_attempts(run: RunRows, folder: Path) -> Path:
    """Write `attempts.csv` atomically and return its path. Raises: LedgerError."""
    path, sources = folder / "attempts.csv", run.sources()
    write_table(path, ATTEMPTS.names, (ATTEMPTS.guarded(each, sources) for each in run.attempts()))
    return path

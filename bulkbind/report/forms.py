"""The rows of a run in other forms: JSON Lines, Markdown for a ticket, a workbook."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from bulkbind.errors import LedgerError, UsageError
from bulkbind.files import make_folder, replacing, replacing_bytes
from bulkbind.model.wording import explained
from bulkbind.redaction import json_text
from bulkbind.report.extras import install
from bulkbind.report.markdown import code, plain, table
from bulkbind.report.page import verdict
from bulkbind.report.summary import reasons_shown
from bulkbind.report.tables import RESULTS, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bulkbind.model import LeaverRow, ResultRow, RunSummary, Source

MOST_MARKDOWN_ROWS = 50
"""As many as fit a ticket; the CSV has all."""
SHEET_ROWS = 1_000_000
"""Rows per sheet, whose limit is 1,048,576; more rows continue on the next one."""
_WIDTHS = {"machine_code": 24, "device_id": 22, "message": 40, "detail": 40, "trace_id": 20}


def write_jsonl(path: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> None:
    """Write one JSON object per line, keyed by column. Raises: LedgerError."""
    with replacing(path) as file:
        for row in rows:
            file.write(f"{json_text(RESULTS.plain(row, sources), indent=None)}\n")


def write_markdown(
    path: Path,
    summary: RunSummary,
    rows: Iterable[ResultRow],
    sources: Sequence[Source],
    leavers: Iterable[LeaverRow] = (),
) -> None:
    """Write an extract for a ticket: the verdict, counts, reasons, the first rows and leavers."""
    with replacing(path) as file:
        file.write(f"# bulkbind run {summary.run_id}\n\n")
        file.write(f"**{plain(verdict(summary)['text'])}**\n\n")
        names = ", ".join(f"`{code(name)}`" for name in summary.manifests)
        file.write(f"{names} · {summary.created_at}\n\n")
        _write(file, table(("status", "rows"), summary.counts.items()))
        if reasons := list(reasons_shown(summary)):
            file.write("\n## Reasons\n\n")
            found = (
                (r["count"], r["shown"], explained(r["code"], r["message"]), r["example"])
                for r in reasons
            )
            _write(file, table(("rows", "status", "reason", "first at"), found))
        iterator = iter(rows)
        first = list(islice(iterator, MOST_MARKDOWN_ROWS))
        if first:
            file.write("\n## Rows\n\n")
            shown = (
                (
                    f"{sources[row.source].name}:{row.line}",
                    row.user_id,
                    row.machine_code,
                    row.status,
                    reason_of(row),
                )
                for row in first
            )
            _write(file, table(("place", "user", "machine code", "status", "reason"), shown))
        if next(iterator, None) is not None:
            file.write(f"\nThese are the first {MOST_MARKDOWN_ROWS}; `results.csv` holds all.\n")
        if summary.leavers:
            file.write("\n## Devices that left the manifest\n\n")
            _write(file, table(("status", "devices"), summary.leavers.items()))
            file.write("\n")
            left = (
                (row.user_id, row.machine_code, row.status, reason_of(row))
                for row in islice(leavers, MOST_MARKDOWN_ROWS)
            )
            _write(file, table(("user", "machine code", "status", "reason"), left))
            file.write("\n`unbound.csv` holds each of them.\n")


def _write(file: TextIO, lines: Iterable[str]) -> None:
    file.writelines(f"{each}\n" for each in lines)


def write_xlsx(path: Path, rows: Iterable[ResultRow], sources: Sequence[Source]) -> None:
    """Write a workbook with ids as text: no digit is lost, and no text becomes a formula.

    Raises: UsageError if the extra is not installed, LedgerError if the file cannot be written.
    """
    try:
        import xlsxwriter  # noqa: PLC0415  # an extra
    except ImportError:
        raise UsageError(
            "the XLSX form needs XlsxWriter, which is not installed",
            hint=f"`{install('xlsx')}`",
        ) from None
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    try:
        make_folder(path.parent)
        with replacing_bytes(path) as file, xlsxwriter.Workbook(file, options) as book:
            _fill(book, rows, sources)
    except (OSError, xlsxwriter.exceptions.XlsxWriterException) as error:
        raise LedgerError(
            f"report file {path} cannot be written: {error}", hint="choose another --out"
        ) from error


def _fill(book: Any, rows: Iterable[ResultRow], sources: Sequence[Source]) -> None:  # noqa: ANN401  # an extra's
    bold = book.add_format({"bold": True})
    text = book.add_format({"num_format": "@"})

    def new_sheet() -> Any:  # noqa: ANN401  # as above
        sheet = book.add_worksheet()
        sheet.freeze_panes(1, 0)
        for column, name in enumerate(RESULTS.names):
            sheet.set_column(column, column, _WIDTHS.get(name, 14))
            sheet.write_string(0, column, name, bold)
        return sheet

    sheet = new_sheet()
    for number, row in enumerate(rows):
        at = number % SHEET_ROWS + 1
        if number and at == 1:
            sheet = new_sheet()
        for column, value in enumerate(RESULTS.plain(row, sources).values()):
            if isinstance(value, int):
                sheet.write_number(at, column, value)
            elif value is not None:
                sheet.write_string(at, column, value, text)

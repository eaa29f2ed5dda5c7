"""Cells of reports that spreadsheets show and do not run."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from bulkbind.manifest import open_manifest
from bulkbind.manifest.formulas import is_harmless, is_plain, safe, safe_call, safe_value
from bulkbind.model import Problem, Record, ResultRow, RunState, RunSummary, Source, Status
from bulkbind.model.fields import ABSENT, FIELDS, OPTIONAL
from bulkbind.report import write_report
from bulkbind.report.forms import write_xlsx
from bulkbind.report.tables import RESULTS, ExportWriter, write_lines, write_results
from bulkbind.settings import ManifestSettings
from tests.support.manifests import write_xlsx as write_workbook
from tests.support.paths import CSV_INJECTIONS
from tests.support.rows import ShownRows

PUBLISHED = CSV_INJECTIONS.read_text("utf-8").splitlines() if CSV_INJECTIONS.exists() else []
OWN = [
    "=1+1", "+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", "=cmd|'/C calc'!A0",
    "\uff1dcmd|'/C calc'!A0", "\uff20SUM(1)",
    "x;=cmd|'/C calc'!A0;y", 'x;"=cmd|\'/C calc\'!A0";y', "x\t=1+1", "x\n=1+1", "x,=1+1,y",
    "x|@SUM(1)",
    '=HYPERLINK("https://example.com/?"&B2,"x")',
]  # fmt: skip
DELIMITERS = ",;\t|"


def runs(cell):
    """Return whether a spreadsheet takes a cell for a formula; a number is none, nor `-` alone."""
    return (
        cell.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
        and re.fullmatch(r"-\d*", cell) is None
    )


def formulas(text):
    """Return all formulas in a CSV file, whatever delimiter a spreadsheet takes it to have."""
    tables = (csv.reader(io.StringIO(text, newline=""), delimiter=d) for d in DELIMITERS)
    return [cell for table in tables for row in table for cell in row if runs(cell)]


def letters(text):
    """Return what of a text no guard and no quoting touches."""
    return re.sub(r"\W", "", text)


def row(payload, cells, **given):
    """Return a row that failed, with the payload wherever somebody else's text may stand."""
    broken = tuple(
        Problem(field, payload, payload, f"{field}: a rule", payload, payload) for field in FIELDS
    )
    values: dict[str, Any] = {
        each.name: payload if each.type == "str" else 0 for each in fields(ResultRow)
    }
    values |= {
        "optional": (payload,) * len(OPTIONAL), "status": str(Status.INVALID), "http_status": None,
        "settled_at": "", "problems": broken, "cells": json.dumps(cells), "changes": "",
    }  # fmt: skip
    return ResultRow(**(values | given))


class FewRows(ShownRows):
    """A run of a few rows."""

    def __init__(self, source, *few) -> None:
        self._source = source
        self._few = few

    def sources(self):
        return [self._source]

    def rows(self, statuses=()):
        return (row for row in self._few if not statuses or row.status in statuses)

    def leavers(self):
        return iter(())

    def attempts(self):
        return iter(())

    def users(self, most):  # noqa: ARG002  # there is one
        (only,) = self._few
        return [{"user_id": only.user_id, "counts": {only.status: 1}, "rows": 1}], 1

    def verdicts(self):
        return []

    def summary(self):
        counts = {self._few[0].status: 1}
        return RunSummary("20261123-120000-abcd", RunState.DONE, (self._source.name,), counts, ())


def source_of(payload, **given):
    """Return a CSV manifest whose name, and a header, are the payload."""
    header = ("machine_code", "user_id", "device_name", "site", payload)
    return Source(**({"name": payload, "format": "csv", "encoding": "utf-8", "bom": False,
                      "header": header} | given))  # fmt: skip


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1+1", "-x y", "@SUM(1)", "\tx", "\rx", "\nx", "=cmd|'/C calc'!A0"],
    ids=repr,
)
def test_text_that_would_be_a_formula_gets_an_apostrophe(text):
    """Each beginning of a formula is guarded by one apostrophe, and by no second one."""
    assert safe(text) == f"'{text}"
    assert safe(safe(text)) == safe(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a=1",
        "1-2",
        "-1",
        "-0.5",
        "'=1",
        " =1",
        "13000301",
        "user@example",
        "-",
        "a; - b",
        "x, y",
        "a;-",
    ],
)
def test_other_text_stands_as_it_is(text):
    """What is no formula is left alone."""
    assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("x;=1", "x;'=1"),
        ("x,-1", "x,'-1"),
        ("x\n=1\t@a", "x\n'=1\t'@a"),
        ('x;"=1"', 'x;"\'=1"'),
        ("\t=1", "'\t'=1"),
    ],
)
def test_formula_behind_another_delimiter_is_guarded(text, guarded):
    """A spreadsheet may cut a text where its own delimiter stands, so no part of it begins one."""
    assert safe(text) == guarded


@pytest.mark.parametrize("value", ["=1+1", "@me", "+49", "+49(30)123", "-1+1", "\uff1d1", "=A(1"])
def test_value_that_begins_a_formula_is_guarded_in_reports_alone(value):
    """A manifest that is read again has the value itself, unless it calls something."""
    assert safe_value(value) == f"'{value}"
    assert safe_call(value) == (f"'{value}" if "A(" in value else value)


@pytest.mark.parametrize("value", ["-Van-", "-", "-1", "-2.5", "a|-b", "u;-x", "a=ATAN2(1)"])
def test_name_or_number_stands_as_it_is(value):
    """A hyphen may begin a name; what a value looks like further on cannot do any harm."""
    assert safe_value(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "=cmd|'/Ccalc'!A0",
        "=ATAN2(1,WEBSERVICE(2))",
        "@SUM(1)",
        '=HYPERLINK("x")',
        "-2+cmd|'x'!A0",
        "+A!A1",
    ],
)
def test_user_that_calls_something_is_guarded(value):
    """A user id may hold all that a call needs; no server gives such ids, so it costs nothing."""
    assert safe_value(value) == f"'{value}"
    assert safe_value(f"u;{value}") == f"u;'{value}"


# --- reports -------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.text("=+-@\uff1d\uff20,;|\t\r\n\"'a", max_size=4), min_size=3, max_size=3))
)
def test_a_table_that_is_called_harmless_holds_nothing_to_guard(rows):
    """Whatever its cells are, alone or beside others: a guard would leave each as it is."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)

    assert not is_harmless(text.getvalue()) or [[safe(x) for x in row] for row in rows] == rows


parts = st.text("=+-@\uff1d\ufffd%s,;|\t\r\n\"' a\u00e9", max_size=4)


@given(st.lists(st.tuples(parts, parts, parts, st.booleans()), max_size=4), parts)
@example([("a", "b, c", "d", False)], "f.csv")
@example([("a", "b", "c", False), ("a", "b", "=c", True)], "100%s.csv")
def test_results_are_written_as_if_each_cell_were_looked_at(given_rows, name):
    """Rows that are joined unread are those that a writer of CSV would leave as they are."""
    rows = [
        row("", [], user_id=user, machine_code=code, detail=detail, status="failed",
            problems=(Problem("user_id", "u", "", "", ""),) * is_broken)
        for user, code, detail, is_broken in given_rows
    ]  # fmt: skip
    source = source_of(name)
    wanted = io.StringIO(newline="")
    table = csv.writer(wanted, lineterminator="\r\n")
    table.writerow(RESULTS.names)
    table.writerows(RESULTS.guard(RESULTS.plain(each, [source]), each.broken) for each in rows)
    with TemporaryDirectory() as folder:
        write_results(Path(folder) / "results.csv", rows, [source])
        written = (Path(folder) / "results.csv").read_bytes()
        write_lines(Path(folder) / "lines.csv", FewRows(source, *rows), [source])
        from_lines = (Path(folder) / "lines.csv").read_bytes()

    assert written.decode() == wanted.getvalue()
    assert from_lines == written


def test_a_table_as_it_is_nearly_always_is_harmless():
    """Times, signs within text and empty cells call for no second look."""
    assert is_harmless('a,2026-11-26T19:43:20+00:00,b@c,x=1,\r\n"a, b",c-d,\r\n')


@pytest.mark.parametrize(
    ("cell", "plain"),
    [
        *(("2026-11-26", True), ("van-1 x=1 b@c e+f", True), ("a;b", True), ("a\uff08", True)),
        *(("-1", False), ("a;-1", False), ("a|=1", False), ("@x", False), ("\uff1dx", False)),
        *(('a"b', False), ("a,b", False), ("a\tb", False), ("a\nb", False)),
    ],
)
def test_a_table_is_plain_whose_cells_stand_in_csv_as_they_are(cell, plain):
    """Wherever in a line the cell is; signs within a text do not count."""
    for cells in ([cell, "x", "y"], ["x", cell, "y"], ["x", "y", cell]):
        table = f"a,b,c\r\n{','.join(cells)}\r\n"
        assert is_plain(table, 2 * 4) is plain
    assert is_plain(f"{cell},b\r\n", 3) is plain


def test_the_published_list_is_all_of_it():
    """Where the list of payloads is at hand, it is not empty."""
    assert len(PUBLISHED) == (6 if CSV_INJECTIONS.exists() else 0)


@pytest.mark.parametrize("payload", [*PUBLISHED, *OWN], ids=repr)
def test_report_holds_no_formula(tmp_path, payload):
    """Somebody else's text stands in every cell it can reach, and none of them is run."""
    source = source_of(payload, header=("machine_code",))
    write_report(FewRows(source, row(payload, ["SN1"])), tmp_path)
    texts = [(tmp_path / f"{n}.csv").read_text() for n in ("results", "failed", "problems")]

    assert [formulas(text) for text in texts] == [[], [], []]
    assert all(letters(payload) in letters(text) for text in texts)


@pytest.mark.parametrize("payload", [*PUBLISHED, *OWN], ids=repr)
def test_workbook_of_results_holds_no_formula(tmp_path, payload):
    """In a workbook the payload is text, as it was, and no cell is a formula or a link."""
    openpyxl = pytest.importorskip("openpyxl", reason="the extra dev is not installed")
    write_xlsx(tmp_path / "r.xlsx", [row(payload, [])], [source_of(payload)])
    sheet = openpyxl.load_workbook(tmp_path / "r.xlsx").active
    [cells] = list(sheet.iter_rows(min_row=2))

    assert {cell.data_type for cell in cells if cell.value is not None} <= {"s", "n"}
    assert not any(cell.hyperlink for cell in cells)
    assert [cell.value for cell in cells].count(payload.replace("\r", "\n")) >= 9 or "\r" in payload


@pytest.mark.parametrize("payload", [*PUBLISHED, *OWN], ids=repr)
@pytest.mark.parametrize("field", ["user_id", "device_name", "site"])
def test_cells_of_the_operators_table_come_back_as_they_were(tmp_path, payload, field):
    """What was in the operator's table stays his own, so that the rows can be run again."""
    header = ("machine_code", "user_id", "device_name", "site")
    cells = ["SN1", "u1", "Van 1", "x"]
    cells[header.index(field)] = payload
    run = FewRows(source_of("fleet.csv", header=header), row(payload, cells))
    write_report(run, tmp_path)
    [back] = open_manifest(tmp_path / "failed.csv", ManifestSettings()).rows()

    assert list(back.cells)[:4] == cells
    assert not runs(list(back.cells)[-1])


@pytest.mark.parametrize("payload", [p for p in [*PUBLISHED, *OWN] if "\r" not in p], ids=repr)
def test_text_of_a_workbook_comes_back_as_it_was(tmp_path, payload):
    """Failed rows are the operator's own text, in whatever format they come back."""
    book = tmp_path / "fleet.xlsx"
    table: list[list[object]] = [["machine_code", "user_id", "note"], ["A-1", "+49", payload]]
    write_workbook(book, ("One", table))
    manifest = open_manifest(book, ManifestSettings())
    [read] = manifest.rows()
    failed = row("x", read.cells, user_id="+49", problems=read.problems)
    write_report(FewRows(manifest.source, failed), tmp_path)
    [back] = open_manifest(tmp_path / "failed" / "fleet.csv", ManifestSettings()).rows()

    assert list(back.cells)[:3] == ["A-1", "+49", payload]


@pytest.mark.parametrize("user", ["+49", "@me", "=1+1"])
def test_export_leaves_users_as_they_are(user):
    """An export is a manifest: its users are bound again under the same ids."""
    file = io.StringIO()
    ExportWriter(file).write(user, [Record("SN1", "=1", "", ("-Van-", *ABSENT[1:]))])

    assert file.getvalue() == f"SN1,{user},-Van-{',' * len(ABSENT)}'=1,\r\n"

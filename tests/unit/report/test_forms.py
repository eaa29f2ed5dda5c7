"""Other forms of the report, and the filter: whole, in manifest order, and harmless."""

from __future__ import annotations

import json
import re

import openpyxl
import pytest

from bulkbind.errors import UsageError
from bulkbind.model import MEANINGS, PENDING, RunState, RunSummary, Status
from bulkbind.report import FORMS, forms, parse_filter, write_form
from tests.unit.report.test_report import COLUMNS, CSV, FakeRun, result

HOSTILE = ("=1+1", "@SUM(A1)", "+1", "-1", "<b>|x|</b>", "http://127.0.0.1/", "a\nb", "`c`")
ROWS = [
    result(),
    result(line=3, status=Status.FAILED, code="1", message="Space missing", user_id="u2"),
    result(line=4, status=Status.INVALID, message="rule", detail="x", http_status=None),
    result(line=5, status=PENDING, http_status=None, code="", message=""),
    *(result(line=6 + n, status=Status.FAILED, message=text) for n, text in enumerate(HOSTILE)),
]


def written(tmp_path, form, *texts, rows=ROWS):
    """Write one form and return its path."""
    run = FakeRun([CSV], rows)
    return write_form(run, run.summary(), tmp_path, form, parse_filter(texts))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_file_for_its_owner(tmp_path, form):
    """Each form has a name of its own and mode 0600; nothing else is left in the folder."""
    path = written(tmp_path, form)

    assert list(tmp_path.iterdir()) == [path]
    assert path.suffix == f".{form}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "filtered" not in path.name


def test_json_lines_hold_every_row_as_it_is(tmp_path):
    """One object a line, keys as the columns of results.csv, values untouched, in order."""
    rows = [json.loads(line) for line in written(tmp_path, "jsonl").read_text().splitlines()]

    assert [list(row) for row in rows] == [COLUMNS] * len(ROWS)
    assert [row["line"] for row in rows] == [row.line for row in ROWS]
    assert [row["message"] for row in rows[4:]] == list(HOSTILE)
    assert rows[3]["http_status"] is None


def test_a_workbook_keeps_ids_as_text_and_runs_nothing(tmp_path):
    """19 digits stay 19 digits; what looks like a formula or an address is plain text."""
    book = openpyxl.load_workbook(written(tmp_path, "xlsx"))

    [sheet] = book.worksheets
    header, *rows = list(sheet.iter_rows())
    assert [cell.value for cell in header] == COLUMNS
    assert rows[0][COLUMNS.index("device_id")].value == "1842812272691451648"
    assert [row[COLUMNS.index("message")].value for row in rows[4:]] == list(HOSTILE)
    assert {cell.data_type for row in rows for cell in row if cell.value is not None} <= {"s", "n"}
    assert all(cell.hyperlink is None for row in rows for cell in row)


def test_a_workbook_goes_on_in_another_sheet(tmp_path, monkeypatch):
    """Rows beyond what a sheet holds stand on the next one, under a header of its own."""
    monkeypatch.setattr(forms, "SHEET_ROWS", 5)
    book = openpyxl.load_workbook(written(tmp_path, "xlsx"))
    empty = openpyxl.load_workbook(written(tmp_path, "xlsx", rows=[]))

    lines = [row[1].value for sheet in book.worksheets for row in list(sheet.iter_rows())[1:]]
    assert [sheet.max_row for sheet in book.worksheets] == [6, 6, 3]
    assert lines == [row.line for row in ROWS]
    assert [cell.value for cell in next(empty.worksheets[0].iter_rows())] == COLUMNS


def test_markdown_fits_a_ticket(tmp_path):
    """Verdict, counts and rows that are not bound; whatever they hold, a table stays a table."""
    text = written(tmp_path, "md").read_text(encoding="utf-8")

    lines = text.splitlines()
    table = lines[lines.index("## Rows") + 2 :]
    assert "**1 of 12 devices is bound: 1 now. 10 need you." in text
    assert len(table) == 2 + len(ROWS) - 1
    bare = [line.replace("\\|", "") for line in table]
    assert {line.count("|") for line in bare} == {6}
    assert "<b>" not in text


def test_markdown_says_where_the_rest_is(tmp_path):
    """Of many rows it holds the first fifty, and names the file that has all."""
    rows = [result(line=n, status=Status.FAILED) for n in range(2, 100)]

    text = written(tmp_path, "md", rows=rows).read_text(encoding="utf-8")

    assert text.count("fleet.csv:") == 50
    assert "`results.csv` holds all" in text


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (("status=failed",), [3, *range(6, 14)]),
        (("status=failed|pending",), [3, 5, *range(6, 14)]),
        (("status=failed,reason=space",), [3]),
        (("status=failed", "user_id=u2"), [3]),
        (("reason=rule; x",), [4]),
        (("reason=SPACE|rule",), [3, 4]),
        (("code=1,machine_code=SN1",), [3]),
        (("status=failed", "status=bound"), []),
        (("user_id=u",), []),
    ],
    ids=str,
)
def test_a_filter_keeps_what_all_its_conditions_hold_for(tmp_path, texts, lines):
    """Conditions hold together, values of one are alternatives; the file says it is filtered."""
    path = written(tmp_path, "jsonl", *texts)

    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["line"] for row in rows] == lines
    assert path.name == "results-filtered.jsonl"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("failed", "KEY=VALUE"),
        ("state=failed", "keys are status, reason"),
        ("status=broken", "statuses are bound"),
        ("status=", "KEY=VALUE"),
    ],
)
def test_a_filter_that_is_none_says_what_is_allowed(text, words):
    """An unknown key, status or form of condition is refused with what there is."""
    with pytest.raises(UsageError) as raised:
        parse_filter([text])

    assert words in f"{raised.value} {raised.value.hint}"


def test_a_filtered_page_shows_those_rows(tmp_path):
    """The page of a filter holds its rows, bound ones too, and says that it is filtered."""
    text = written(tmp_path, "html", "status=bound").read_text(encoding="utf-8")

    assert "Rows that match the filter" in text
    assert text.count('<tr class="tone-ok"') == 1


UNDONE = {"state": "done", "counts": {"unbound": 5}}


@pytest.mark.parametrize(
    ("state", "more", "tone", "words"),
    [
        (RunState.DONE, {}, "bad", "1 of 2 devices is bound: 1 now. 1 needs you."),
        (
            RunState.STOPPED,
            {"stop_reason": "deadline"},
            "wait",
            "can be resumed (deadline): 1 of 2",
        ),
        (RunState.SENDING, {}, "wait", "1 of 2 devices is bound"),
        (
            RunState.DONE,
            {"undo": {"state": "done", "counts": {"unbound": 5}}},
            "mute",
            "5 devices bound by this run",
        ),
    ],
    ids=["done", "stopped", "sending", "undone"],
)
def test_the_verdict_is_one_sentence(state, more, tone, words):
    """It says first what a person has to know of a run in that state."""
    from bulkbind.report.page import verdict  # noqa: PLC0415  # the one test of it

    told = verdict(RunSummary("id", state, (), {"bound": 1, "failed": 1}, (), **more))

    assert told["tone"] == tone
    assert words in told["text"]


@pytest.mark.parametrize("state", [RunState.DONE, RunState.STOPPED])
@pytest.mark.parametrize("each", [0, 1, 7])
def test_the_numbers_of_the_verdict_add_up(state, each):
    """Whatever rows there are, each is in one of its numbers."""
    from bulkbind.report.page import verdict  # noqa: PLC0415  # as above

    counts = dict.fromkeys(MEANINGS, each) | {"bound": 3}
    text = verdict(RunSummary("id", state, (), counts, ()))["text"]

    total = sum(counts.values())
    shown = re.sub(r"bound: [^.]*", "", text.replace(f"of {total:,} ", ""))
    assert sum(map(int, re.findall(r"\d+", shown))) == total

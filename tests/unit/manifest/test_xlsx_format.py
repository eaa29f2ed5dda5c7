"""Workbooks: cells as a person sees them, and what no workbook needs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest, sheet_xml
from bulkbind.model import Device
from bulkbind.settings import ManifestSettings
from tests.support.manifests import outline, write_xlsx
from tests.support.rows import device

HEADER: list[object] = ["machine_code", "user_id", "device_name"]


@pytest.fixture
def read(tmp_path):
    """Return a function that opens a workbook of some rows."""

    def opened(*rows, extra="", **given):
        path = write_xlsx(tmp_path / "fleet.xlsx", ("One", list(rows)), extra=extra)
        return open_manifest(path, ManifestSettings(**given), "fleet.xlsx")

    return opened


def test_rows_have_the_numbers_of_the_sheet(read):
    """Title rows are passed over, and a row's line is its number in the sheet."""
    opened = read(["Fleet"], [], HEADER, ["SN1", "u", "Van 1"], [], ["SN2", "u", None])
    rows = list(opened.rows())

    assert outline(rows) == [(4, "SN1"), (6, "SN2")]
    assert rows[0].device == device("u", "SN1", "Van 1", None)
    assert opened.source.header == tuple(HEADER)
    assert opened.notices == ["fleet.xlsx: 1 blank line passed over"]


def test_blank_rows_and_columns_before_the_table_are_counted(read):
    """A table need not begin in the first cell."""
    rows = list(read([], [None, *HEADER], [None, "SN1", "u", None]).rows())

    assert outline(rows) == [(3, "SN1")]


@pytest.mark.parametrize(
    ("cell", "code"),
    [(123, "123"), (123.0, "123"), ("0123", "0123"), (999_999_999_999_999, "999999999999999")],
)
def test_whole_number_is_written_without_a_fraction(read, cell, code):
    """A number of up to 15 digits is the machine code that it shows."""
    [row] = read(HEADER, [cell, "u"]).rows()

    assert row.device == Device("u", code)


@pytest.mark.parametrize("field", ["machine_code", "user_id"])
def test_number_that_lost_digits_is_refused(read, field):
    """A number over 15 digits is not what was typed, so it is a problem that says so."""
    number = 356938035643809123
    [row] = read(HEADER, [number, "u"] if field == "machine_code" else ["A", number]).rows()

    assert [problem.field for problem in row.problems] == [field]
    assert "digits are gone" in row.problems[0].hint


def test_sheet_is_chosen_by_name_or_number(tmp_path):
    """Without a choice the first is read and a note names the others; a wrong one is refused."""
    path = write_xlsx(
        tmp_path / "b.xlsx", ("One", [HEADER, ["A", "u"]]), ("Two", [HEADER, ["B", "u"]])
    )
    first = open_manifest(path, ManifestSettings(), "b.xlsx")
    codes = [
        [row.values[1] for row in open_manifest(path, ManifestSettings(sheet=sheet)).rows()]
        for sheet in ("Two", "2", "1")
    ]

    assert codes == [["B"], ["B"], ["A"]]
    assert [row.values[1] for row in first.rows()] == ["A"]
    assert "b.xlsx: sheet `One` is read; --sheet takes another of `Two`" in first.notices
    with pytest.raises(ManifestError, match="has no sheet 'Three'"):
        open_manifest(path, ManifestSettings(sheet="Three"))


def test_workbook_is_known_by_its_content(tmp_path):
    """A workbook that is called CSV is read as what it is."""
    path = write_xlsx(tmp_path / "fleet.csv", ("One", [HEADER, ["A", "u"]]))

    assert outline(open_manifest(path, ManifestSettings()).rows()) == [(2, "A")]


def test_entities_are_refused(read):
    """A part that defines entities is no spreadsheet program's."""
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]>'
    with pytest.raises(ManifestError, match="XML entities"):
        read(HEADER, extra=bomb)


def test_sheet_that_spans_the_world_is_refused(tmp_path):
    """Two cells far apart would take a rectangle of memory."""
    path = write_xlsx(tmp_path / "fleet.xlsx", ("One", [HEADER]))
    far = tmp_path / "far.xlsx"
    with zipfile.ZipFile(path) as book, zipfile.ZipFile(far, "w") as out:
        for name in book.namelist():
            data = book.read(name)
            if "sheet1" in name:
                far_cell = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
                data = data.replace(b"</sheetData>", far_cell + b"</sheetData>")
            out.writestr(name, data)

    with pytest.raises(ManifestError, match="spans 1,048,576 rows and 16,384 columns"):
        open_manifest(far, ManifestSettings())


def test_part_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    """Parts that unpack to more than a workbook has are refused by what the archive says."""
    monkeypatch.setattr("bulkbind.manifest.xlsx_format.SHEET_BYTES", 1 << 20)
    path = tmp_path / "fleet.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/workbook.xml", "x")
        book.writestr("xl/media/1.bin", b"\0" * (1 << 21))

    with pytest.raises(ManifestError, match="unpacks to"):
        open_manifest(path, ManifestSettings())


@pytest.mark.parametrize("cut", [40, 400, -30])
def test_damaged_workbook_is_refused(tmp_path, cut):
    """Half a workbook is an error of ours."""
    path = write_xlsx(tmp_path / "fleet.xlsx", ("One", [HEADER, ["A", "u"]]))
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(ManifestError, match="fleet"):
        list(open_manifest(path, ManifestSettings()).rows())


cells = st.text(
    st.characters(
        min_codepoint=0x20, exclude_characters="\ufffe\uffff", exclude_categories=["Cs", "Cc"]
    ),
    max_size=10,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), max_size=5))
def test_texts_come_back(rows):
    """Every text that stands in a workbook is read back as it was."""
    table = [HEADER, *([f"A{n}", *row] for n, row in enumerate(rows))]
    with TemporaryDirectory() as folder:
        path = write_xlsx(Path(folder) / "fleet.xlsx", ("One", table))
        found = [row.cells for row in open_manifest(path, ManifestSettings(user_id="u")).rows()]

    assert found == table[1:]


@pytest.mark.parametrize("more", ["", '<rPh sb="0" eb="1"><t>x</t></rPh>'], ids=["", "a reading"])
@pytest.mark.parametrize("tag", ['<t xmlns:a="http://x/y">', "<t\n>", "<t xml:space='preserve' >"])
def test_text_with_attributes_is_read(tag, more):
    """Whatever stands in them; an empty one is no text."""
    inner = f"<r>{tag}A</t></r><r><t/></r><r>{tag}1</t></r>{more}"

    assert sheet_xml.text_of(inner.encode()) == "A1"

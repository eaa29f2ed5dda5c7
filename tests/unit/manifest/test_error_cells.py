"""Errors of formulas: a problem of their row wherever they stand, and never a value."""

from __future__ import annotations

import csv
import io
import zipfile

import pytest

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest import open_manifest
from bulkbind.model import Device
from bulkbind.settings import ManifestSettings
from tests.support.manifests import RawCell, error_cell, opener, write_xlsx
from tests.support.rows import device

HEADER: list[object] = ["machine_code", "user_id", "device_name", "device_os", "note"]
NA = error_cell("#N/A", "VLOOKUP(A2,People!A:B,2,0)")
GOOD: list[object] = ["SN1", "u", "Van", "linux", "n"]
NO_VALUE = "a value, not the error of a spreadsheet"


@pytest.fixture
def read(tmp_path):
    """Return a function that opens a workbook of some rows, with a user for rows that name none."""

    def opened(*rows, **given):
        path = write_xlsx(tmp_path / "fleet.xlsx", ("One", list(rows)))
        return open_manifest(path, ManifestSettings(**{"user_id": "fallback", **given}), "f.xlsx")

    return opened


@pytest.fixture
def read_sheet(tmp_path, read):
    """Return a function that opens a workbook whose sheet has some XML for its rows."""

    def opened(data, *, target="worksheets/sheet1.xml", part="xl/worksheets/sheet1.xml", **given):
        read(HEADER)
        path = tmp_path / "raw.xlsx"
        with zipfile.ZipFile(tmp_path / "fleet.xlsx") as book, zipfile.ZipFile(path, "w") as out:
            for name in book.namelist():
                text = book.read(name).decode()
                if name.endswith("sheet1.xml"):
                    start, end = text.index("<sheetData>") + 11, text.index("</sheetData>")
                    out.writestr(part, text[:start] + data + text[end:])
                else:
                    out.writestr(name, text.replace("worksheets/sheet1.xml", target))
        return open_manifest(path, ManifestSettings(**{"user_id": "fallback", **given}), "f.xlsx")

    return opened


def told(rows):
    """Return (line, device, [(field, value, found)]) of rows."""
    return [
        (row.line, row.device, [(p.field, p.value, p.found) for p in row.problems]) for row in rows
    ]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    "error",
    ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!",
     "#GETTING_DATA", "#SPILL!", "#CALC!", "#FIELD!", "#BUSY!", "odd", "#n/a"],
)  # fmt: skip
def test_error_in_a_field_is_a_problem_of_its_row(read, at, error):
    """Also where the field is optional, has a user to fall back on, or would be cleaned."""
    row = [*GOOD[:at], error_cell(error), *GOOD[at + 1 :]]
    rows = list(read(HEADER, row, ["SN2", None, None, None, None], clean="names").rows())
    place = f"{'ABCD'[at]}2"

    assert told(rows) == [
        (2, None, [(HEADER[at], error, f"an error of a formula ({error}) in {place}")]),
        (3, Device("fallback", "SN2"), []),
    ]
    assert rows[0].problems[0].rule == f"{HEADER[at]}: {NO_VALUE}"
    assert "fix the formula" in rows[0].problems[0].text
    kept = "odd (error of a formula)" if error == "odd" else error  # it comes back as CSV
    assert rows[0].cells == [*GOOD[:at], kept, *GOOD[at + 1 :]]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        pytest.param('<c t="e"/>', "", id="no content"),
        pytest.param('<c t="e"></c>', "", id="empty"),
        pytest.param('<c t="e"><f>1/0</f></c>', "", id="no value"),
        pytest.param('<c t="e"><v/></c>', "", id="empty value"),
        pytest.param("<c t = 'e' ><v>#N/A</v></c >", " (#N/A)", id="other quotes and blanks"),
        pytest.param('<c s="1" cm="1"\nt="e"\tvm="2"><v>#N/A</v></c>', " (#N/A)", id="attributes"),
        pytest.param('<c t="e"><v xml:space="preserve"> #N/A </v></c>', " (#N/A)", id="space"),
        pytest.param(
            '<c t="e"><f t="shared" si="0">IF(A1&lt;2,"t=e",A1&gt;0)</f><v>#N/A</v></c>',
            " (#N/A)", id="formula",
        ),
    ],
)  # fmt: skip
def test_error_cell_is_known_however_it_is_written(read, cell, shown):
    """A cell of that type has no value, whatever stands in it."""
    rows = read(HEADER, ["SN1", RawCell(cell), "Van", None, None]).rows()

    [(_, device, [(field, _, found)])] = told(rows)
    assert (device, field, found) == (None, "user_id", f"an error of a formula{shown} in B2")


def test_error_kept_as_text_is_a_problem(read):
    """A value that a formula took from elsewhere, or that was pasted, is no user either."""
    cached = RawCell('<c t="str"><f>B9</f><v>#N/A</v></c>')
    rows = list(read(HEADER, ["A", cached], ["B", " #REF! "], ["C", "#1"]).rows())

    assert told(rows) == [
        (2, None, [("user_id", "#N/A", "an error of a formula (#N/A) in B2")]),
        (3, None, [("user_id", "#REF!", "an error of a formula (#REF!) in B3")]),
        (4, Device("#1", "C"), []),
    ]


def test_errors_in_columns_that_no_field_uses_do_not_matter(read):
    """Beside the fields, beyond the header, and below the table, where formulas go on."""
    opened = read(
        HEADER, [*GOOD[:4], NA], ["SN2", "u", None, None, None, NA], [None, None, None, None, NA],
        ["SN3", "u", None, None, None], [None, None, None, None, None, NA],
    )  # fmt: skip

    assert [(line, bool(device)) for line, device, _ in told(opened.rows())] == [
        (2, True), (3, True), (5, True),
    ]  # fmt: skip
    assert "f.xlsx: 2 blank lines passed over" in opened.notices


def test_row_of_nothing_but_an_error_is_no_blank_line_and_no_comment(read):
    """`#N/A` is not a comment, though it begins like one."""
    rows = read(HEADER, [NA, None], [None, NA], [RawCell('<c t="e"/>')], GOOD).rows()

    assert [line for line, device, _ in told(rows) if device is None] == [2, 3, 4]


def test_column_given_for_all_rows_needs_no_value(read):
    """With `--set user_id=…` and `--ignore-column user_id` the column of users is not used."""
    given = {"constants": {"user_id": "all"}, "ignore_columns": ("user_id",)}
    [row] = read(HEADER, ["SN1", NA], **given).rows()

    assert row.device == Device("all", "SN1")


def test_error_alone_in_its_row_is_no_comment(read):
    """A word that nobody knows, in an error cell of the first column, is a lost machine code."""
    rows = list(read(HEADER, [error_cell("#weird")], ["SN2", None, None, None, None]).rows())

    assert told(rows) == [
        (2, None, [("machine_code", "#weird", "an error of a formula (#weird) in A2")]),
        (3, Device("fallback", "SN2"), []),
    ]


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("cell", [error_cell("#REF!"), "#REF!", RawCell('<c t="e"/>')])
def test_error_in_the_header_is_refused(read, at, cell):
    """The name that is lost may be any field's."""
    header = [*HEADER[:at], cell, *HEADER[at + 1 :]]
    with pytest.raises(ManifestError, match=f"f.xlsx:1: .* in {'ABCDE'[at]}1") as caught:
        read(header, GOOD)

    opened = read(header, GOOD, skip_rows=1, header=("machine_code", "user_id"))
    assert "--skip-rows 1" in caught.value.hint
    assert [row.values[1] for row in opened.rows()] == ["SN1"]


def test_error_in_a_title_does_not_matter(read):
    """The header is found below it."""
    [row] = read([NA], HEADER, GOOD).rows()

    assert row.device == device("u", "SN1", "Van", "linux")


def test_only_the_sheet_that_is_read_counts(tmp_path, read):
    """Sheets are told apart."""
    read(HEADER)
    path = write_xlsx(tmp_path / "b.xlsx", ("One", [HEADER, GOOD]), ("Two", [HEADER, ["A", NA]]))
    one, two = (
        list(open_manifest(path, ManifestSettings(user_id="x", sheet=sheet)).rows())
        for sheet in ("One", "Two")
    )

    assert one[0].device
    assert [problem.found for problem in two[0].problems] == ["an error of a formula (#N/A) in B2"]


def text_cell(text, place=""):
    """Return the XML of a cell with a text."""
    at = f' r="{place}"' if place else ""
    return f'<c{at} t="str"><v>{text}</v></c>'


def error_at(place):
    """Return the XML of an error cell."""
    return f'<c r="{place}" t="e"><v>#N/A</v></c>'


HEAD = text_cell("machine_code") + text_cell("user_id")


@pytest.mark.parametrize(
    ("data", "place"),
    [
        pytest.param(
            f'<row r="1">{HEAD}</row><row r="7">{text_cell("A", "A7")}{error_at("B7")}</row>',
            "B7", id="rows left out",
        ),
        pytest.param(
            f'<row r="3">{text_cell("machine_code", "C3")}{text_cell("user_id", "D3")}</row>'
            f'<row r="4">{text_cell("A", "C4")}{error_at("D4")}</row>',
            "D4", id="table begins elsewhere",
        ),
        pytest.param(
            f'<row r="1">{text_cell("machine_code", "AA1")}{text_cell("user_id", "AB1")}</row>'
            f'<row>{text_cell("A", "AA2")}<c t="e"><v>#N/A</v></c></row>',
            "AB2", id="position from the cell before",
        ),
        pytest.param(
            f'<row r="1">{HEAD}</row><row r="2">{error_at("b2")}{text_cell("A", "a2")}</row>',
            "B2", id="small letters and another order",
        ),
        pytest.param(
            f'<row r="2">{text_cell("A", "A2")}{error_at("B2")}</row><row r="1">'
            f'{text_cell("machine_code", "A1")}{text_cell("user_id", "B1")}</row>',
            "B2", id="rows in another order",
        ),
    ],
)  # fmt: skip
def test_errors_are_found_wherever_they_stand(read_sheet, data, place):
    """Positions may be left out, and need not begin in the first cell."""
    rows = told(read_sheet(data).rows())

    assert rows == [
        (int(place[-1]), None, [("user_id", "#N/A", f"an error of a formula (#N/A) in {place}")])
    ]


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("/xl/worksheets/sheet1.xml", "xl/worksheets/sheet1.xml"),
        ("Worksheets/SHEET1.XML", "xl/worksheets/sheet1.xml"),
        ("worksheets/sheet1.xml", "XL/Worksheets/Sheet1.XML"),
        ("/data/fleet.xml", "data/fleet.xml"),
        ("sheets/fleet.dat", "xl/sheets/fleet.dat"),
    ],
)
def test_errors_are_found_in_whatever_part_the_sheet_is(read_sheet, target, part):
    """The name of the part is the writing program's own affair."""
    data = f"<row>{HEAD}</row><row>{text_cell('A')}{error_at('B2')}</row>"
    [row] = read_sheet(data, target=target, part=part).rows()

    assert row.device is None


def test_errors_are_found_under_a_prefix(tmp_path, read):
    """Some programs write `x:c` for `c`."""
    read(HEADER, ["A", NA], ["B", RawCell('<c t="e"/>')])
    path = tmp_path / "prefixed.xlsx"
    with zipfile.ZipFile(tmp_path / "fleet.xlsx") as book, zipfile.ZipFile(path, "w") as out:
        for name in book.namelist():
            text = book.read(name).decode()
            if "sheet1" in name:
                text = text.replace("</", "\0").replace("<", "<x:").replace("\0", "</x:")
                text = text.replace("xmlns=", "xmlns:x=")
            out.writestr(name, text)
    rows = list(open_manifest(path, ManifestSettings(user_id="fallback")).rows())

    assert [row.device for row in rows] == [None, None]


def test_many_rows_keep_their_order_and_their_errors(read):
    """Errors anywhere in a large sheet are problems of their own rows alone."""
    rows: list[list[object]] = [
        [f"A{n}", NA if n % 997 == 5 else "u", "x" * 30, None, NA] for n in range(20_000)
    ]
    found = list(read(HEADER, *rows).rows())

    assert [row.line for row in found] == list(range(2, 20_002))
    assert [row.line - 2 for row in found if row.problems] == list(range(5, 20_000, 997))
    assert [row.values[1] for row in found] == [f"A{n}" for n in range(20_000)]


def test_cell_without_end_is_refused(read_sheet):
    """It would be held in memory as a whole."""
    data = f'<row>{HEAD}</row><row>{error_at("A2")}<c t="e"><v>{"x" * (3 << 20)}</v></c></row>'
    with pytest.raises(ManifestError, match=r"f\.xlsx: .* a cell takes more than"):
        list(read_sheet(data).rows())


def test_binary_workbook_is_refused(tmp_path):
    """Its error cells would be empty ones."""
    path = tmp_path / "fleet.xlsb"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/workbook.bin", b"x")

    with pytest.raises(ManifestError, match=r"binary workbook \(\.xlsb\)"):
        open_manifest(path, ManifestSettings())


# --- texts that came from a spreadsheet ----------------------------------------------------------

TEXTS = {
    "fleet.csv": "machine_code,user_id\n{0},{1}\n",
    "fleet.tsv": "machine_code\tuser_id\n{0}\t{1}\n",
    "quoted.csv": 'machine_code;user_id\n"{0}";" {1} "\n',
    "fleet.json": '[{{"machine_code": "{0}", "user_id": "{1}"}}]',
    "fleet.jsonl": '{{"machine_code": "{0}", "user_id": "{1}"}}\n',
    "fleet.yaml": '- machine_code: "{0}"\n  user_id: "{1}"\n',
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#BEZUG!", "Err:502", "Loading..."])
@pytest.mark.parametrize("at", [0, 1])
def test_error_in_a_text_is_a_problem(tmp_path, name, error, at):
    """In every format, in either field that must be there, with a user to fall back on."""
    values = ["SN1", "u"]
    values[at] = error
    text = TEXTS[name].format(*values)
    [row] = opener(tmp_path / name)(text, user_id="fallback").rows()
    field = ("machine_code", "user_id")[at]

    assert told([row]) == [(row.line, None, [(field, error, f"an error of a formula ({error})")])]
    assert row.problems[0].rule == f"{field}: {NO_VALUE}"


def test_error_among_many_good_rows_is_found(tmp_path):
    """Rows that are checked many at a time are checked no less; a `#` alone makes no error."""
    lines = [f"A{n},#{n}\n" for n in range(1000)]
    lines[500] = "A500,#N/A\n"
    rows = list(opener(tmp_path / "f.csv")("machine_code,user_id\n" + "".join(lines)).rows())

    assert [row.line for row in rows if row.problems] == [502]
    assert rows[7].device == Device("#7", "A7")


def test_error_that_begins_a_line_is_no_comment(tmp_path):
    """`#N/A,,` is a row without a machine code."""
    text = "machine_code,user_id,n\n#N/A,,\n# note,,\n"
    [row] = opener(tmp_path / "f.csv")(text, user_id="fallback").rows()

    assert [problem.column for problem in row.problems] == ["machine_code"]


@pytest.mark.parametrize("field", ["device_name", "device_os"])
def test_no_name_is_made_of_an_error(tmp_path, field):
    """`--clean names` does not send `_N_A`."""
    text = f"machine_code,user_id,{field}\nA,u,#N/A\nB,u,####\n"
    rows = list(opener(tmp_path / "f.csv")(text, clean="names").rows())

    assert [row.device for row in rows] == [None, None]


def test_error_in_the_header_of_a_text_is_refused(tmp_path):
    """A ruler of `#` above a header is none."""
    read = opener(tmp_path / "f.csv")
    with pytest.raises(ManifestError, match=r"f.csv:1: .* \(#REF!\)"):
        read("machine_code,#REF!,n\nA,u,x\n", user_id="fallback")

    assert len(list(read("####\nmachine_code,####\nA,u\n", user_id="x").rows())) == 1


def test_error_is_no_user_for_all_rows(tmp_path):
    """A script that took it from a sheet is stopped."""
    read = opener(tmp_path / "f.csv")
    with pytest.raises(UsageError, match="#N/A"):
        read("machine_code\nA\n", user_id="#N/A")
    with pytest.raises(UsageError, match="#REF!"):
        read("machine_code\nA\n", constants={"user_id": "#REF!"})


def test_rows_are_given_back_as_they_were(read):
    """The cells of a broken row are the operator's own."""
    [row] = read(HEADER, ["SN1", NA, "Van", None, None]).rows()
    out = io.StringIO()
    csv.writer(out).writerow(row.cells)

    assert out.getvalue() == "SN1,#N/A,Van,,\r\n"

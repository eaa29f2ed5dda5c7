"""A cell of a workbook means what a person sees in it; what is not certain is a problem."""

from __future__ import annotations

import gzip
import tempfile
import zipfile

import pytest

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.number_formats import NumberFormat
from bulkbind.settings import ManifestSettings
from tests.support.rows import device as a_device
from tests.support.workbooks import Book, Page, merged, number, row, table, text

FIELDS = ("machine_code", "user_id", "device_name", "device_os")
GOOD: tuple[object, ...] = ("SN1", "u", "Van", "linux")
OPEN_AND_SAVE = "open and save the file"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a workbook, with a user for rows that name none."""

    def opened(book, name="f.xlsx", **given):
        path = book.write(tmp_path / name)
        return open_manifest(path, ManifestSettings(**{"user_id": "fallback", **given}), name)

    return opened


def one(data, **given):
    """Return a workbook of one sheet."""
    page = {key: given.pop(key) for key in ("before", "after") if key in given}
    return Book([Page(data, **page)], **given)


def devices(manifest):
    """Return (line, device, what is wrong) of each row."""
    return [
        (r.line, r.device, "; ".join(p.text for p in r.problems) or None) for r in manifest.rows()
    ]


def lines(manifest):
    """Return the lines of the rows that are devices, and of those that are not."""
    rows = list(manifest.rows())
    return [r.line for r in rows if r.device], [r.line for r in rows if not r.device]


# --- formulas ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    "content", ['<f>"SN"&amp;"1"</f><v></v>', "<f>A9</f>", "<f>A9</f><v/>",
                '<f t="shared" si="0"/>', "<f/>", '<f t="array" ref="A2:A9">X()</f><v />'],
)  # fmt: skip
def test_formula_without_a_value_is_a_problem_in_every_field(read, at, content):
    """Programs that write formulas without calculating them leave the cell without a value."""
    cells = [*GOOD[:at], f"<c>{content}</c>", *GOOD[at + 1 :]]
    manifest = read(one(table(cells, ["SN2", None, None, None])), clean="names")
    [(_, device, told), (_, second, _)] = devices(manifest)

    assert device is None
    assert f"in {'ABCD'[at]}2 ({FIELDS[at]}: " in told
    assert "a formula that was never calculated" in told
    assert OPEN_AND_SAVE in told
    assert second == a_device("fallback", "SN2")


def test_calculated_formula_is_its_value(read):
    """Text, number and truth."""
    cells = ['<c t="str"><f>A9</f><v>SN1</v></c>', "<c><f>1+1</f><v>2</v></c>",
             '<c t="b"><f>TRUE()</f><v>1</v></c>', None]  # fmt: skip
    [(_, device, _)] = devices(read(one(table(cells))))

    assert device == a_device("2", "SN1", "TRUE")


def test_formula_that_shows_nothing_is_never_filled(read):
    """`=IFERROR(VLOOKUP(…),"")` found nobody; the user for other rows is not his."""
    nothing = '<c t="str"><f>IFERROR(X(),"")</f><v></v></c>'
    rows = [
        ["SN1", nothing, nothing, None],
        ["SN2", None, None, None],
        [nothing, nothing, None, None],
    ]
    manifest = read(one(table(*rows)))

    assert [(line, device) for line, device, _ in devices(manifest)] == [
        (2, None), (3, a_device("fallback", "SN2")),
    ]  # fmt: skip
    assert devices(read(one(table(rows[0]))))[0][2].count("a formula that shows nothing in B2") == 1


# --- merged cells --------------------------------------------------------------------------------


@pytest.mark.parametrize("column", "ABCD")
def test_merge_down_is_filled_down_with_a_notice(read, column):
    """Every row of a merged cell has its value, in whatever column."""
    at = "ABCD".index(column)
    below = [*GOOD[:at], "<c/>", *GOOD[at + 1 :]]
    manifest = read(one(table(GOOD, below, below, GOOD), after=merged(f"{column}2:{column}4")))
    found = [device for _, device, _ in devices(manifest)]

    assert found == [a_device("u", "SN1", "Van", "linux")] * 4
    assert (
        f"f.xlsx: merged cells of `{FIELDS[at]}` are filled down into 2 rows, "
        f"e.g. {column}3 from {column}2:{column}4"
    ) in manifest.notices


def test_hidden_rest_of_a_merged_cell_does_not_count(read):
    """What stood there before is not seen."""
    book = one(table(["SN1", "u"], ["SN2", "old"], header=FIELDS[:2]), after=merged("B2:B3"))

    assert [device.user_id for _, device, _ in devices(read(book))] == ["u", "u"]


@pytest.mark.parametrize(
    ("area", "bad"),
    [("A2:B2", [2]), ("B2:C2", [2]), ("A2:D3", [2]), ("B3:C4", [3, 4]), ("D3:E3", [3])],
)
def test_other_merges_are_a_problem_of_the_rows_they_cover(read, area, bad):
    """One value in several columns belongs to none for certain."""
    manifest = read(one(table(*[GOOD] * 3), after=merged(area)))
    told = devices(manifest)

    assert [line for line, device, _ in told if device is None] == bad
    assert all(
        f"a part of the merged cells {area}" in text for line, _, text in told if line in bad
    )


def test_merges_beside_the_fields_do_not_matter(read):
    """Of columns that no field uses."""
    rows = [[*GOOD, "a", "b"], [*GOOD, "c", "d"]]
    book = one(table(*rows, header=[*FIELDS, "x", "y"]), after=merged("E2:F3", "A1:A1"))

    assert lines(read(book)) == ([2, 3], [])


def test_empty_merged_cell_is_never_filled_by_a_default(read):
    """Nobody knows whether its owner was forgotten."""
    book = one(table(["SN1", None], ["SN2", None], ["SN3", None], header=FIELDS[:2]),
               after=merged("B2:B3"))  # fmt: skip

    assert lines(read(book)) == ([4], [2, 3])


def test_blank_rows_under_a_merged_cell_stay_blank(read):
    """An owner's cell may reach below his last device."""
    data = table(["SN1", "u"], header=FIELDS[:2]) + row("<c/>", "<c/>", at=3)
    manifest = read(one(data, after=merged("B2:B4")))

    assert lines(manifest) == ([2], [])


def test_error_in_a_merged_cell_is_a_problem_of_each_row(read):
    """As a person sees it."""
    rows: list[list[object]] = [["SN1", '<c t="e"><v>#N/A</v></c>'], ["SN2", None]]

    assert lines(read(one(table(*rows, header=FIELDS[:2]), after=merged("B2:B3")))) == ([], [2, 3])


def test_header_over_two_rows_is_one(read):
    """Some names are merged over both rows, others stand below a title."""
    data = (
        row(text("machine_code"), text("Owner"), "<c/>", at=1)
        + row("<c/>", text("user_id"), text("device_name"), at=2)
        + row(text("SN1"), text("u"), text("Van"), at=3)
    )
    manifest = read(one(data, after=merged("A1:A2", "B1:C1")))

    assert devices(manifest) == [(3, a_device("u", "SN1", "Van"), None)]


def test_second_row_of_a_header_is_no_device(read):
    """It belongs to the merged cells of the header."""
    data = (
        row(text("machine_code"), text("user_id"), text("note"), at=1)
        + row("<c/>", "<c/>", text("(optional)"), at=2)
        + row(text("SN1"), text("u"), at=3)
    )

    assert lines(read(one(data, after=merged("A1:A2", "B1:B2")))) == ([3], [])


def test_header_over_two_columns_names_none(read):
    """Until an option says which column is meant."""
    book = one(table(["SN1", "u", None], header=["machine_code", "user_id", None]),
               after=merged("B1:C1"))  # fmt: skip
    with pytest.raises(ManifestError, match=r"the header `user_id` spans the columns of B1:C1"):
        read(book)
    [(_, device, _)] = devices(read(book, columns={"user_id": "#2"}))

    assert device == a_device("u", "SN1")


# --- number formats ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "stored", "shown"),
    [
        ("0000000000", "12345", "0000012345"), ("00", "12345", "12345"),
        ("000-000", "12345", "012-345"),
        ("General", "42", "42"), ("@", "42", "42"), ("0", "42", "42"), ("0_ ", "42", "42"),
        ("0_);(0)", "42", "42"), ("[Red]000", "7", "007"), ('"SN"0000', "7", "SN0007"),
        (r"\S\N000", "7", "SN007"), ("####", "12", "12"), ("0;-0;0", "0", "0"), (1, "5", "5"),
        (49, "5", "5"), ("00000", "1.2345E4", "12345"), ("General", "12.0", "12"),
        ("[$-409]000", "5", "005"), (22 + 1, "5", "5"),
    ],
)  # fmt: skip
def test_number_is_what_its_format_surely_shows(read, code, stored, shown):
    """Zeros that only the format adds are part of a code."""
    book = one(table([number(stored, 1), "u"], header=FIELDS[:2]), formats=[code])
    [row] = read(book).rows()

    assert row.values[1] == shown
    assert all("shown" not in problem.rule for problem in row.problems)


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(
    ("code", "stored", "told"),
    [
        ("#,##0", "1234567", "1,234,567"), (3, "1234", "1,234"), ("0%", "0.5", "50%"),
        ("0.00", "12", "12.00"), ("0.00E+00", "12345", "1.23E+04"),
        ("yyyy-mm-dd", "45360", "2024-03-09"),
        (14, "45360", "2024-03-09"), ("d.m.yy h:mm", "45360.5", "2024-03-09 12:00:00"),
        ("# ?/?", "0.5", "# ?/?"), ("[<100]0;00000", "7", "[<100]0;00000"),
        ("0;-0;;@", "0", "stored as '0'"),
        ("0", "12.7", "13"), ("[$€-407] 0", "5", "$€"), (";;;", "5", "stored as '5'"),
        (44, "5", "built-in"),
        (18, "0.5", "12:00:00"), ("[h]:mm", "1.5", "1899-12-31"),
        ("General", "0.1234567890123", "0.123457"),
        ("0\\.0", "-5", "-5"), ('"sold"', "5", "sold"), ("()", "5", "stored as '5'"),
    ],
)  # fmt: skip
def test_number_that_is_shown_otherwise_is_a_problem(read, at, code, stored, told):
    """It says what is shown and what is stored; columns that no field uses do not matter."""
    cells = [*GOOD[:at], number(stored, 1), *GOOD[at + 1 :], number(stored, 1)]
    [(_, device, text)] = devices(
        read(one(table(cells, header=[*FIELDS, "x"]), formats=[code]), clean="names")
    )
    [(_, beside, _)] = devices(
        read(one(table([*GOOD, number(stored, 1)], header=[*FIELDS, "x"]), formats=[code]))
    )

    assert device is None
    assert told in text
    assert f"in {'ABCD'[at]}2" in text
    assert beside


def test_dates_count_from_1904_where_the_workbook_says_so(read):
    """As old workbooks of the Macintosh do."""
    book = one(table([*GOOD[:2], number(43898, 1)]), formats=["yyyy-mm-dd"], from_1904=True)

    assert "a date (2024-03-09, stored as 43898) in C2" in devices(read(book))[0][2]


@pytest.mark.parametrize(
    ("code", "value", "shown"),
    [("@", "a", "a"), ("0", "a", "a"), ("0;0;0", "a", "a"), ('"SN-"@', "7a", "SN-7a")],
)
def test_text_is_what_its_format_shows(code, value, shown):
    """A format may add something to texts."""
    assert NumberFormat(code).of_text(value) == (shown, "")


@pytest.mark.parametrize("code", [";;;", ';;;"hidden"', "0;0;0;[Blue]"])
def test_text_that_its_format_hides_is_in_doubt(code):
    """Nobody sees it."""
    assert NumberFormat(code).of_text("a").doubt == "the cell holds a"


def test_doubts_come_back_as_problems(tmp_path, read):
    """What a failed file gives back of them is no value in a CSV file either."""
    cells = ["<c><f>A9</f></c>", number(0.5, 1), number("1" * 17), number(45360, 2)]
    book = one(table(cells), formats=["0%", 14], after="")
    [first] = read(book, clean="names").rows()
    path = tmp_path / "again.csv"
    path.write_text(",".join(FIELDS) + "\n" + ",".join(f'"{c}"' for c in first.cells) + "\n")
    [again] = open_manifest(path, ManifestSettings(user_id="fallback", clean="names")).rows()

    assert [p.field for p in again.problems] == [p.field for p in first.problems]
    assert len(again.problems) == 4
    assert all(
        mine.found == f"{theirs.found} in {place}2"
        for mine, theirs, place in zip(first.problems, again.problems, "BACD", strict=True)
    )


# --- sheets --------------------------------------------------------------------------------------

HERE = table(["HERE", "u"], header=FIELDS[:2])
OTHER = table(["OTHER", "u"], header=FIELDS[:2])


@pytest.mark.parametrize(
    "others",
    [
        [Page(OTHER, "lists", state="hidden")],
        [Page(OTHER, "lists", state="veryHidden")],
        [Page("", "Chart", kind="chartsheet")],
        [Page("", "Ask", kind="dialogsheet"), Page(OTHER, "x", state="hidden")],
    ],
)
def test_first_visible_worksheet_is_read_and_named(read, others):
    """What nobody sees comes first in many templates."""
    manifest = read(Book([*others, Page(HERE)]))

    assert [row.values[1] for row in manifest.rows()] == ["HERE"]
    assert (
        f"sheet `Devices` is read; --sheet takes another of `{others[0].name}` ("
        in (manifest.notices[0])
    )


def test_hidden_sheet_is_read_on_wish(read):
    """By its name, or by a number that means one sheet only."""
    book = Book([Page(OTHER, "lists", state="hidden"), Page(HERE)])
    manifest = read(book, sheet="lists")

    assert [row.values[1] for row in manifest.rows()] == ["OTHER"]
    assert "f.xlsx: sheet `lists` is read, which is hidden" in manifest.notices
    assert [row.values[1] for row in read(book, sheet="2").rows()] == ["HERE"]
    with pytest.raises(ManifestError, match="sheet 1 is `lists` with the hidden ones counted"):
        read(book, sheet="1")
    with pytest.raises(ManifestError, match="no visible worksheet"):
        read(Book([Page(OTHER, "lists", state="hidden")]))
    with pytest.raises(ManifestError, match="`Chart` has no cells, it is a chartsheet"):
        read(Book([Page("", "Chart", kind="chartsheet"), Page(HERE)]), sheet="Chart")


@pytest.mark.parametrize("cover", [row(text("Fill in the sheet Devices")), "", table(header=["x"])])
def test_sheet_that_has_the_columns_is_offered(read, cover):
    """Where the first one lacks them."""
    with pytest.raises(ManifestError, match="`Read me`") as caught:
        read(Book([Page(cover, "Read me"), Page(OTHER, "Empty " * 3), Page(HERE)]))

    assert caught.value.hint == (
        "sheet `Read me` is read; `Empty Empty Empty ` has the columns: "
        "--sheet 'Empty Empty Empty '"
    )


def test_errors_and_notices_name_the_sheet(read):
    """Where there are several."""
    manifest = read(Book([Page(HERE + row(at=9) + row(text("B"), at=10)), Page(OTHER, "b")]))
    list(manifest.rows())

    assert "f.xlsx: sheet `Devices`: 7 blank lines passed over" in manifest.notices
    with pytest.raises(ManifestError, match=r"f.xlsx:1: no column .*\(sheet `Devices`\)"):
        read(one(table(header=["x", "y"])))


# --- rows and columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [' hidden="1"', ' hidden="true"', ' ht="0" customHeight="1"'])
def test_hidden_rows_are_counted_and_left_out_on_wish(read, hidden):
    """A filter hides rows in the same way."""
    data = table(["A", "u"], header=FIELDS[:2]) + "".join(
        row(text(f"H{at}"), text("u"), at=at, more=hidden) for at in (3, 5)
    ) + row(text("B"), text("u"), at=6)  # fmt: skip
    manifest = read(one(data))
    visible = read(one(data), visible_rows=True)

    assert lines(manifest) == ([2, 3, 5, 6], [])
    assert lines(visible) == ([2, 6], [])
    told = "f.xlsx: 2 hidden or filtered rows, the first in line 3, are "
    assert f"{told}read like the others; --visible-rows leaves them out" in manifest.notices
    assert f"{told}left out" in visible.notices


def test_hidden_column_that_is_used_is_named(read):
    """Nobody has checked what stands there."""
    before = '<cols><col min="2" max="2" hidden="1"/><col min="4" max="9" width="0"/></cols>'
    manifest = read(one(table(GOOD), before=before))
    list(manifest.rows())

    assert [n for n in manifest.notices if "hidden" in n] == [
        f"f.xlsx: the column `{name}` ({at}) is used, which is hidden"
        for name, at in (("user_id", "B"), ("device_os", "D"))
    ]


@pytest.mark.parametrize("left", range(4))
def test_positions_count_from_column_a(read, left):
    """Also where the table begins elsewhere."""
    data = row(*["<c/>"] * left, text("Serial"), text("Owner"), at=3)
    data += row(*["<c/>"] * left, text("SN-1"), text("u"), at=4)
    at = {"machine_code": f"#{left + 1}", "user_id": f"#{left + 2}"}
    data += row(*["<c/>"] * left, text("# a note"), at=5)
    manifest = read(one(data, before='<dimension ref="A1"/>'), columns=at)
    [(line, _, told)] = devices(manifest)

    assert line == 4
    assert manifest.notices == ["f.xlsx: 1 comment line passed over"]
    assert f"at position 3 in {'ABCD'[left]}4 (" in told


NO_PLACES = "".join(
    row(*cells)
    for cells in (
        (text("machine_code"), text("user_id")),
        (text("A"), text("u&v")),
        (text("B"), number(7, 1)),
    )
)
WRITTEN = {
    "attributes": lambda data: data.replace('<c r="B3" s="1"', '<c cm="1" s="1" r="B3"'),
    "prefix": lambda data: data,
    "strict": lambda data: data,
    "utf-16": lambda data: data,
    "blanks": lambda data: data.replace("><", ">\n  <"),
    "no places": lambda _: NO_PLACES,
    "cdata": lambda data: data.replace("u&amp;v", "<![CDATA[u&v]]>"),
    "small letters": lambda data: data.replace('r="B', 'r="b'),
    "single quotes": lambda data: data.replace('"', "'"),
    "comment": lambda data: data.replace("</row>", "</row><!-- <row> --><?x y?>"),
    "end tags": lambda data: data.replace("</row>", "</row >").replace("</c>", "</c\n>"),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_sheet_is_read_whoever_wrote_it(tmp_path, read, form):
    """All of these are the same sheet."""
    data = WRITTEN[form](table(["A", "u&v"], ["B", number(7, 1)], header=FIELDS[:2]))
    book = Book(
        [Page(data)], formats=["000"], prefix="x" * (form == "prefix"), is_strict=form == "strict"
    )
    if form == "utf-16":
        path = book.write(tmp_path / "g.xlsx")
        with zipfile.ZipFile(path) as archive:
            xml = archive.read("xl/worksheets/sheet1.xml").decode()
        book.more = {"xl/worksheets/sheet1.xml": xml.replace("UTF-8", "UTF-16").encode("utf-16")}

    assert [device for _, device, _ in devices(read(book))] == [
        a_device("u&v", "A"), a_device("007", "B"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inner", "shown"),
    [
        ("<t>AB1</t>", "AB1"), ('<t xml:space="preserve"> AB </t>', "AB"),
        ("<r><rPr><b/></rPr><t>AB</t></r><r><t>CD</t></r>", "ABCD"),
        ('<t>AB</t><rPh sb="0" eb="1"><t>xx</t></rPh><phoneticPr fontId="1"/>', "AB"),
        ('<r><t>A</t></r><rPh sb="0" eb="1"><t>x</t></rPh><r><t>B</t></r>', "AB"),
        ("<t>A_x005F_x000D_B</t>", "A_x000D_B"), ("<t>A_x0042_</t>", "AB"), ("<t>A&#66;</t>", "AB"),
        ("<t/>", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_shared", [True, False])
def test_text_is_that_of_its_runs(read, inner, shown, is_shared):
    """Without the readings above East Asian texts, in shared strings and in the cell itself."""
    cell = '<c t="s"><v>1</v></c>' if is_shared else f'<c t="inlineStr"><is>{inner}</is></c>'
    book = one(table([cell, "u"], header=FIELDS[:2]), shared=["<t>other</t>", inner, "<t>x</t>"])
    [row] = read(book).rows()

    assert row.values[1] == shown


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(row(text("A"), at=1) * 2, "row 1 stands twice", id="row"),
        pytest.param('<row r="1"><c r="A1"><v>1</v></c><c r="A1"><v>2</v></c></row>',
                     "A1 stands twice", id="cell"),
        pytest.param('<row r="1"><c r="A2"><v>1</v></c></row>', "A2 stands in row 1", id="place"),
        pytest.param('<row r="1"><c r="XFE1"><v>1</v></c></row>', "beyond the last", id="column"),
        pytest.param('<row r="1048577"><c><v>1</v></c></row>', "beyond the last", id="far row"),
        pytest.param('<row r="1"><c><v>1</v></d></row>', "not as expected", id="tag"),
        pytest.param('<row r="1"><x/><c><v>1</v></c></row>', "not as expected", id="unknown"),
        pytest.param('<row><c t="s"><v>7</v></c></row>', "out of range", id="shared string"),
        pytest.param('<row><c t="s"><v>-1</v></c></row>', "names text -1", id="negative"),
        pytest.param('<row><c t="z"><v>7</v></c></row>', "unknown type", id="type"),
        pytest.param("<row><c><v>seven</v></c></row>", "could not convert", id="number"),
        pytest.param('<row><c t="str"><v>&no;</v></c></row>', "no known entity", id="entity"),
        pytest.param("<row><c><v>1</v></c>", "not as expected", id="no end"),
    ],
)  # fmt: skip
def test_damaged_sheet_is_refused(read, data, told):
    """Nothing is passed over."""
    with pytest.raises(ManifestError, match=rf"f\.xlsx: sheet `Devices` cannot be read: .*{told}"):
        list(read(one(data)).rows())


# --- files ---------------------------------------------------------------------------------------


def test_bounds_are_those_of_the_sheet_that_is_read(read):
    """Neither a stray cell of another sheet nor a false dimension counts."""
    far = row('<c r="XFD1048576"><v>1</v></c>').replace("<row", '<row r="1048576"')
    pages = [Page(HERE, before='<dimension ref="A1:XFD1048576"/>'), Page(OTHER + far, "b")]
    cells = Book(pages)

    assert lines(read(cells)) == ([2], [])
    with pytest.raises(ManifestError, match="sheet `b` spans"):
        list(read(cells, sheet="b").rows())


@pytest.mark.parametrize("name", ["f.xlsx.gz", "f.gz", "-"])
def test_packed_workbook_is_read(tmp_path, name):
    """Unpacked to a private file."""
    path = tmp_path / "f"
    path.write_bytes(gzip.compress(one(HERE).write(tmp_path / "f.xlsx").read_bytes()))

    assert lines(open_manifest(path, ManifestSettings(), name)) == ([2], [])


def test_packed_workbook_is_bounded(tmp_path, monkeypatch):
    """Nothing is left behind."""
    monkeypatch.setattr("bulkbind.manifest.xlsx_format.SHEET_BYTES", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    path = tmp_path / "f.xlsx.gz"
    path.write_bytes(gzip.compress(one(HERE).write(tmp_path / "f.xlsx").read_bytes()))
    with pytest.raises(ManifestError, match="unpacks to more than 1,000 bytes"):
        open_manifest(path, ManifestSettings())

    assert list((tmp_path / "t").iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "x"},
         r"an OpenDocument file \(\.ods\)"),
        ({"Index/Document.iwa": "x"}, r"Apple's Numbers \(\.numbers\)"),
        ({"xl/workbook.bin": "x"}, r"a binary workbook \(\.xlsb\)"),
        ({"word/document.xml": "x"}, "a ZIP archive"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["f", "f.ods", "f.ods.gz"])
def test_other_spreadsheets_are_named(tmp_path, parts, told, name):
    """For what they are, with what to do."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ManifestError, match=told) as caught:
        open_manifest(path, ManifestSettings())

    assert "save it as .xlsx or CSV" in caught.value.hint or told == "a ZIP archive"


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        ("EncryptedPackage", "is protected by a password"),
        ("Workbook", r"an old Excel workbook \(\.xls\)"),
        ("WordDocument", r"an old Word file \(\.doc\)"),
        ("Other", "an old Excel or Word file"),
    ],
)
@pytest.mark.parametrize("far", [100, 300_000])
def test_old_files_are_named(tmp_path, stream, told, far):
    """Wherever their list of streams stands."""
    path = tmp_path / "f.xlsx"
    path.write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * far + stream.encode("utf-16-le"))
    with pytest.raises(ManifestError, match=told):
        open_manifest(path, ManifestSettings())

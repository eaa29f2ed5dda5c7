"""CSV manifests of any operator's: encodings, delimiters, quotes, and what cannot be read."""

from __future__ import annotations

import codecs
import csv
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest import batches_of, digest, open_manifest
from bulkbind.manifest.csv_dialect import find_dialect
from bulkbind.manifest.csv_format import _Uniform
from bulkbind.model import Device, GoodRows, Source
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, outline
from tests.support.paths import CSV_SPECTRUM, GPLAY
from tests.support.rows import device, values

HEADER = "machine_code,user_id,device_name,device_os"


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.csv`."""
    return opener(tmp_path / "fleet.csv")


@pytest.fixture
def read(manifest):
    """Return a function that reads all rows of what is written into `fleet.csv`."""
    return lambda content, **given: list(manifest(content, **given).rows())


def rules(row):
    """Return of every problem of a row the field and what was found."""
    return [(problem.field, problem.found) for problem in row.problems]


# --- The plain case ------------------------------------------------------------------------------


def test_row_becomes_a_device(read):
    """A good row is a device, with its line, its values and its cells untouched."""
    [row] = read(f"{HEADER}\n SN1 ,u1,\u00a0Van 1,\n")

    assert row.device == device("u1", "SN1", "Van 1", None)
    assert row.line == 2
    assert row.values == values("u1", "SN1", "Van 1", None)
    assert row.cells == [" SN1 ", "u1", "\u00a0Van 1", ""]
    assert row.problems == ()


def test_every_problem_names_the_operators_column(read):
    """A row that breaks rules shows each of them under the operator's own header."""
    [row] = read(
        "Serial No,Owner,deviceOS\nA-1,,b.c\n",
        columns={"machine_code": "Serial No", "user_id": "Owner"},
    )

    assert row.device is None
    assert row.values == values(None, "A-1", None, "b.c")
    assert [(problem.field, problem.column, problem.value) for problem in row.problems] == [
        ("user_id", "Owner", ""),
        ("machine_code", "Serial No", "A-1"),
        ("device_os", "deviceOS", "b.c"),
    ]


def test_user_given_fills_rows_without_one(read):
    """The user given is for rows whose own cell is empty."""
    rows = read("machine_code,user_id\nA,own\nB,  \n", user_id="given")

    assert [row.device.user_id for row in rows] == ["own", "given"]


def test_user_given_stands_in_for_the_column(read):
    """Without a column for the user, every row gets the one given."""
    rows = read("machine_code\nA\nB\n", user_id="given")

    assert [row.device.user_id for row in rows] == ["given", "given"]


def test_unknown_columns_are_kept_with_one_notice(manifest):
    """Columns that are not sent stay in the cells and are named once."""
    opened = manifest("machine_code,colour,user_id,site\nA,red,u,x\nB,blue,u,y\n")
    rows = list(opened.rows())

    assert [row.cells for row in rows] == [["A", "red", "u", "x"], ["B", "blue", "u", "y"]]
    assert opened.notices == ["fleet.csv: columns kept but not sent: colour, site"]


def test_columns_of_a_report_are_ignored(manifest):
    """What an earlier report added is neither sent nor worth a notice."""
    opened = manifest(
        "machine_code,user_id,bulkbind_status,bulkbind_reason\nA,u,failed,13000301 no space\n"
    )

    assert outline(opened.rows()) == [(2, "A")]
    assert opened.notices == []


def test_header_alone_has_no_rows(manifest):
    """A manifest of a header alone is a manifest without rows."""
    opened = manifest(HEADER)

    assert list(opened.rows()) == []
    assert opened.source.header == tuple(HEADER.split(","))


# --- Delimiters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delimiter", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "pipe"]
)
def test_delimiter_is_found(manifest, delimiter):
    """Each of the four delimiters is found from the header's own words."""
    lines = [HEADER.split(","), ["A", "u", "Van 1", "Android 15"]]
    opened = manifest("\n".join(delimiter.join(cells) for cells in lines))
    rows = list(opened.rows())

    assert opened.source.delimiter == delimiter
    assert [row.device for row in rows] == [device("u", "A", "Van 1", "Android 15")]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        pytest.param('machine_code;user_id\n"a,b";u\n"c,d";u\n', ";", id="commas in cells"),
        pytest.param(
            "machine_code;user_id;note, long, text\nA;u;x\n", ";", id="commas in the header"
        ),
        pytest.param("machine_code,user_id\nA;B,u;v\n", ",", id="semicolons in cells"),
        pytest.param('"machine_code"|"user_id"\n"A"|"u"\n', "|", id="quoted header"),
        pytest.param("x;y;z\n1;2;3\n4;5;6\n", ";", id="no known name, most columns"),
        pytest.param("machine_code\nA\n", ",", id="one column"),
        pytest.param("", ",", id="nothing"),
        pytest.param('machine_code;user_id;note\nA;u;"two\nlines, here"\n', ";", id="line break"),
    ],
)
def test_delimiter_makes_most_sense(text, delimiter):
    """The delimiter is the one under which the header names fields and the rows have its width."""
    assert find_dialect(text, {}).delimiter == delimiter


def test_delimiter_is_found_by_mapped_names():
    """Mapped names count as much as our own."""
    text = "Serial, internal;Owner\nA;u\n"

    assert (
        find_dialect(text, {"machine_code": "Serial, internal", "user_id": "Owner"}).delimiter
        == ";"
    )


# --- Encodings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "mark", "encoding"),
    [
        pytest.param("utf-8", b"", "utf-8", id="UTF-8"),
        pytest.param("utf-8", codecs.BOM_UTF8, "utf-8", id="UTF-8 with BOM"),
        pytest.param("utf-16-le", b"", "utf-16-le", id="UTF-16 LE"),
        pytest.param("utf-16-le", codecs.BOM_UTF16_LE, "utf-16-le", id="UTF-16 LE with BOM"),
        pytest.param("utf-16-be", b"", "utf-16-be", id="UTF-16 BE"),
        pytest.param("utf-16-be", codecs.BOM_UTF16_BE, "utf-16-be", id="UTF-16 BE with BOM"),
    ],
)
def test_encoding_is_found(manifest, codec, mark, encoding):
    """UTF-8 and UTF-16 are read with and without a byte order mark, which is no part of a cell."""
    text = "machine_code,user_id,Bemerkung gr\u00f6\u00dfer\nA,u,\u20ac \U0001f600\nB,u,\n"
    opened = manifest(mark + text.encode(codec))
    rows = list(opened.rows())

    assert opened.source == Source(
        "fleet.csv",
        "csv",
        encoding,
        bool(mark),
        ",",
        ("machine_code", "user_id", "Bemerkung gr\u00f6\u00dfer"),
        header_text="machine_code,user_id,Bemerkung gr\u00f6\u00dfer",
        line_end="\n",
    )
    assert [row.cells for row in rows] == [["A", "u", "\u20ac \U0001f600"], ["B", "u", ""]]
    assert outline(rows) == [(2, "A"), (3, "B")]


def test_undecodable_byte_breaks_its_own_row_alone(read):
    """A byte that is not UTF-8 makes its cell invalid and leaves the other rows alone."""
    rows = read(b"machine_code,user_id\nA,u\nB\xe9,u\nC,u\n")

    assert outline(rows) == [(2, "A"), (3, None), (4, "C")]
    assert rules(rows[1]) == [
        ("machine_code", "byte 0xE9, which the file's encoding does not know, at position 2")
    ]
    assert rows[1].values[1] == r"B\xe9"


def test_undecodable_byte_in_an_unknown_column_does_no_harm(read):
    """A byte that is not UTF-8 in a column that is not sent is kept and breaks nothing."""
    [row] = read(b"machine_code,user_id,note\nA,u,caf\xe9\n")

    assert row.device == Device("u", "A")
    assert row.cells == ["A", "u", "caf\udce9"]


def test_values_can_be_stored_whatever_the_bytes(read):
    """Values and problems are text that UTF-8 can hold, and cells survive JSON."""
    [row] = read(b"machine_code,user_id,device_name\n\xff\xfe,\xe9,\x80\n")

    shown = [*row.values[:3], *(problem.value + problem.found for problem in row.problems)]
    assert all(text.encode("utf-8") for text in shown)
    assert json.loads(json.dumps(row.cells)) == ["\udcff\udcfe", "\udce9", "\udc80"]


def test_names_of_columns_can_be_stored_whatever_the_bytes(manifest):
    """A header that is not UTF-8 is shown as text that UTF-8 can hold, and kept as it was."""
    opened = manifest(
        b"Ger\xe4t,user_id,Gr\xf6\xdfe\nA-1,u,x\n", columns={"machine_code": "Ger\udce4t"}
    )
    [row] = opened.rows()

    assert row.problems[0].column.encode("utf-8")
    assert "".join(opened.notices).encode("utf-8")
    assert opened.source.header == ("Ger\udce4t", "user_id", "Gr\udcf6\udcdfe")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"machine_code,user_id\nA\x00B,u\n", id="NUL in a cell"),
        pytest.param(b"\x00\x00\x00\x00\x00\x00\x00\x00", id="NULs alone"),
    ],
)
def test_nul_bytes_mean_no_text(manifest, content):
    """A file with NUL bytes that is not UTF-16 is refused as what it is."""
    with pytest.raises(ManifestError, match=r"fleet\.csv is not a text file: it holds NUL bytes"):
        manifest(content)


def test_nul_byte_far_down_breaks_its_row_alone(read):
    """A NUL byte behind what was looked at first is a broken character like any other."""
    good = b"A,u\n" * 20_000
    rows = read(b"machine_code,user_id\n" + good + b"B\x00,u\nC,u\n")

    assert rules(rows[-2]) == [("machine_code", "(U+0000 control character) at position 2")]
    assert outline(rows[-1:]) == [(20_003, "C")]


@pytest.mark.parametrize("codec", ["utf-32-le", "utf-32-be"])
def test_utf_32_is_refused(manifest, codec):
    """UTF-32 is named, not misread as UTF-16."""
    mark = codecs.BOM_UTF32_LE if codec == "utf-32-le" else codecs.BOM_UTF32_BE
    with pytest.raises(ManifestError, match=r"fleet\.csv is UTF-32"):
        manifest(mark + HEADER.encode(codec))


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"A", id="half a character"),
        pytest.param(b"\x00\xd8,\x00u\x00", id="surrogate"),
    ],
)
@pytest.mark.parametrize("rows", [0, 30_000], ids=["small file", "large file"])
def test_broken_utf_16_is_refused(read, tail, rows):
    """UTF-16 that cannot be decoded is a manifest that cannot be read, wherever it breaks."""
    text = "machine_code,user_id\n" + "A,u\n" * rows
    with pytest.raises(ManifestError, match=r"fleet\.csv is not utf-16-le"):
        read(codecs.BOM_UTF16_LE + text.encode("utf-16-le") + tail)


# --- Lines, quotes, shapes -----------------------------------------------------------------------


def test_lines_are_counted_through_cells_with_line_breaks(read):
    """A row has the line on which it begins, also after cells of several lines."""
    rows = read(
        'machine_code,user_id,"no\nte"\n'
        'A,u,"one\ntwo\n\nfour"\nB,u,x\nC,u,"""quoted"", \n"\nD,u,y\n'
    )

    assert outline(rows) == [(3, "A"), (7, "B"), (8, "C"), (10, "D")]
    assert rows[0].cells[2] == "one\ntwo\n\nfour"
    assert rows[2].cells[2] == '"quoted", \n'


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_line_endings_of_every_system(read, ending):
    """Lines end as on any system, and line breaks in cells are kept as they are."""
    text = ending.join([HEADER, f'A,u,"Van{ending}1",', "B,u,,", ""])
    rows = read(text)

    assert rows[0].cells[2] == f"Van{ending}1"
    assert outline(rows) == [(2, "A"), (4, "B")]


def test_last_line_needs_no_end(read):
    """A last row without a line end counts."""
    assert outline(read("machine_code,user_id\nA,u")) == [(2, "A")]


def test_blank_lines_are_passed_over_and_counted(manifest):
    """Blank lines are no rows; a notice tells their number, and lines are counted on."""
    opened = manifest("\n  \nmachine_code,user_id\n\nA,u\n   \n\u00a0\nB,u\n\n")

    assert outline(opened.rows()) == [(5, "A"), (8, "B")]
    assert opened.notices == ["fleet.csv: 4 blank lines passed over"]


@pytest.mark.parametrize(
    ("content", "given"),
    [
        pytest.param("machine_code,user_id,note\nA,u,\n,\nB,u,\n", {}, id="too few"),
        pytest.param("machine_code,user_id,note\nA,u,\n,,\nB,u,\n", {}, id="as the header"),
        pytest.param("machine_code,user_id,note\nA,u,\n , ,\t\nB,u,\n", {}, id="with blanks"),
        pytest.param("machine_code,user_id,note\nA,u,\n,,,,\nB,u,\n", {}, id="too many"),
        pytest.param("machine_code\nA\n  \nB\n", {"user_id": "u"}, id="one column"),
    ],
)
def test_row_of_empty_cells_is_a_blank_line(manifest, content, given):
    """What a spreadsheet leaves below a table is passed over, however many delimiters it has."""
    opened = manifest(content, **given)

    assert outline(opened.rows()) == [(2, "A"), (4, "B")]
    assert "fleet.csv: 1 blank line passed over" in opened.notices


def test_short_row_lacks_its_last_cells(read):
    """Cells that are not there are empty; what must be there is missing."""
    short, shorter = read(f"{HEADER}\nA,u\nB\n")

    assert short.device == Device("u", "A")
    assert short.cells == ["A", "u"]
    assert rules(shorter) == [("user_id", "it is missing")]


def test_long_row_of_blanks_is_good(read):
    """A trailing delimiter shifts nothing."""
    [row] = read("machine_code,user_id\nA,u,, \n")

    assert row.device == Device("u", "A")
    assert row.cells == ["A", "u", "", " "]


def test_long_row_is_a_problem(read):
    """A row with more cells than the header may be shifted, so it is not sent."""
    long, good = read("machine_code,user_id,device_name\nA,u,Van, big\nB,u,\n")

    assert long.device is None
    assert rules(long) == [("row", "it has 4, the header 3")]
    assert long.cells == ["A", "u", "Van", " big"]
    assert good.device == Device("u", "B")


def test_long_row_reports_its_other_problems_too(read):
    """The shape of a row hides no other broken rule."""
    [row] = read("machine_code,user_id\nA-1,,x\n")

    assert [problem.field for problem in row.problems] == ["user_id", "machine_code", "row"]


def test_broken_quoting_is_a_problem_of_its_row(read):
    """A quote in the wrong place spoils its own row; the text is kept, the next rows are read."""
    rows = read('machine_code,user_id\nA,u\n"B"x,u\nC,u\n')

    assert outline(rows) == [(2, "A"), (3, None), (4, "C")]
    assert [problem.field for problem in rows[1].problems] == ["row"]
    assert rows[1].problems[0].value == '"B"x,u'
    assert rows[1].problems[0].found
    assert rows[1].cells == ['"B"x,u']


def test_broken_quoting_over_several_lines_loses_no_text(read):
    """Where a stray quote swallowed a line break, the text of all lines concerned is kept."""
    rows = read('machine_code,user_id\n"A,u\n"B",u\nC,u\n')

    assert outline(rows) == [(2, None), (4, "C")]
    assert rows[0].cells == ['"A,u\n"B",u']


LATE_QUOTES = {
    "last column": 'S1,u1,x\nS2,u2,"x\nS3,u3,x"\nS4,u4,x\n',
    "middle column": '=u1,x,S1\nu2,"x,S2\nu3,x",S3\nu4,x,S4\n',
    "first column": '=x,S1,u1\n"x,S2,u2\nx",S3,u3\nx,S4,u4\n',
    "two rows": 'S1,u1,x\nS2,u2,"x\nS9,u9,x\nS3,u3,x"\nS4,u4,x\n',
    "a blank line": 'S1,u1,x\nS2,u2,"x\n\nS3,u3,x"\nS4,u4,x\n',
    "a broken row": 'S1,u1,x\nS2,u2,"x\nS-3,u 3,x"\nS4,u4,x\n',
    "all quoted": '"S1","u1","x"\n"S2","u2","x\n""S3"",""u3"",""x"\n"S4","u4","x"\n',
    "CR LF": 'S1,u1,x\r\nS2,u2,"x\r\nS3,u3,x"\r\nS4,u4,x\r\n',
    "another break": 'S1,u1,x\nS2,u2,"x\vS3,u3,x"\nS4,u4,x\n',
}
"""Of each the second row has taken in another; `=`: the columns are another three."""


@pytest.mark.parametrize("name", LATE_QUOTES)
def test_a_quote_closed_too_late_takes_no_row_in(read, name):
    """It would be lost, or give its device to another user; its neighbours are read."""
    text = LATE_QUOTES[name]
    header = {
        "middle column": "user_id,note,machine_code",
        "first column": "note,machine_code,user_id",
    }
    rows = read(header.get(name, "machine_code,user_id,note") + "\n" + text.removeprefix("="))

    assert [row.device and row.device.machine_code for row in rows] == ["S1", None, "S4"]
    [problem] = rows[1].problems
    assert problem.found.startswith("a cell holds what reads as a row: ")
    assert rows[1].text.count("S") == 2 + ("S9" in text)


@pytest.mark.parametrize(
    "note",
    [
        "call, then\nmail, please",
        "first\nsecond, of two, lines, at least",
        "2nd time, room2\n3rd, no",
        "12 Main St\nSpringfield, IL 62704",
        "\n\n",
        "a\vb",
    ],
)
@pytest.mark.parametrize("at", range(3))
def test_prose_of_several_lines_is_a_cell(read, note, at):
    """Wherever it stands: its lines have no code and user where the columns are."""
    names, cells = ["machine_code", "user_id"], ["SN1000001", "u7"]
    names.insert(at, "note")
    cells.insert(at, f'"{note}"')

    [row] = read(f"{','.join(names)}\n{','.join(cells)}\n")

    assert not row.problems


@pytest.mark.parametrize("inner", ["SN2,y\nSN3,z", "SN2\nSN3", "SN2,"])
def test_a_quote_closed_too_late_shows_where_all_have_one_user(read, inner):
    """Then the code alone tells rows from prose."""
    [first, row] = read(f'machine_code,note\nSN0,x\nSN1,"bad\n{inner}"\n', user_id="u")

    assert first.device is not None
    assert row.device is None


def test_quotes_within_a_cell_are_text(read):
    """A quote that does not begin a cell belongs to it."""
    [row] = read('machine_code,user_id,note\nA,u,24" screen\n')

    assert row.cells == ["A", "u", '24" screen']


def test_unclosed_quote_names_the_line_where_it_opens(manifest):
    """A quote that is never closed ends the reading; the rows before it were read."""
    rows = manifest('machine_code,user_id\nA,u\n"B,u\nC,u\nD,u\n').rows()

    assert outline([next(rows)]) == [(2, "A")]
    with pytest.raises(ManifestError, match=r"fleet\.csv:3: a quote opened here is never closed"):
        next(rows)


def test_unclosed_quote_in_the_header_is_refused(manifest):
    """A header that does not end cannot be read."""
    with pytest.raises(ManifestError, match="the header cannot be read"):
        manifest('machine_code,"user_id\nA,u\n')


def test_one_overlong_cell_is_a_problem_of_its_row(read):
    """A cell beyond what the CSV reader takes, without any quote, spoils its own row alone."""
    rows = read(f"machine_code,user_id,note\nA,u,{'x' * 200_000}\nB,u,\n")

    assert outline(rows) == [(2, None), (3, "B")]


# --- Files that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no byte"),
        pytest.param(b"\n\n  \n", id="blank lines"),
        pytest.param(b",,,\n,\n", id="delimiters"),
        pytest.param(codecs.BOM_UTF8, id="UTF-8 mark alone"),
        pytest.param(codecs.BOM_UTF16_LE, id="UTF-16 mark alone"),
    ],
)
def test_empty_file_is_refused(manifest, content):
    """A file without a header is empty, and says so."""
    with pytest.raises(ManifestError, match=r"fleet\.csv is empty"):
        manifest(content)


def test_file_that_is_not_there_is_refused(tmp_path):
    """A path that cannot be opened is named with the reason."""
    with pytest.raises(ManifestError, match="No such file"):
        open_manifest(tmp_path / "none.csv", ManifestSettings())


def test_missing_column_names_the_header_line(manifest):
    """The line of the message is the header's own, behind blank lines."""
    with pytest.raises(ManifestError, match=r"fleet\.csv:3: no column `machine_code`"):
        manifest("\n\nserial,user_id\nA,u\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"columns": {"colour": "x"}}, "columns cannot map `colour`", id="field"),
        pytest.param({"user_id": "a b"}, "user id 'a b': user_id: only visible ASCII", id="user"),
    ],
)
def test_settings_are_checked_first(manifest, given, message):
    """A mapping of no field of ours and a user id that breaks its rule are refused."""
    with pytest.raises(UsageError, match=message):
        manifest(HEADER, **given)


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("fleet.csv", "machine_code\nA\n", "csv"),
        ("fleet.TSV", "machine_code\nA\n", "csv"),
        ("fleet.txt", "machine_code\nA\n", "csv"),
        ("fleet.yaml", "[]\n", "yaml"),
        ("fleet.YML", "[]\n", "yaml"),
        ("-", "machine_code\nA\n", "csv"),
        ("-", "- machine_code: A\n", "yaml"),
        ("-", "# fleet\n\ndevices:\n- machine_code: A\n", "yaml"),
        ("-", "---\n- machine_code: A\n", "yaml"),
        ("-", "-\n  machine_code: A\n", "yaml"),
        ("fleet", "defaults:\n  user_id: u\ndevices: []\n", "yaml"),
        ("fleet", "devices,machine_code\nA,B\n", "csv"),
    ],
)
def test_form_is_found_by_name_or_text(tmp_path, name, content, form):
    """The file's name says whether it is CSV or YAML, else how its text begins."""
    path = tmp_path / "spool"
    path.write_text(content, encoding="utf-8")

    opened = open_manifest(path, ManifestSettings(user_id="u"), name)

    assert opened.source.format == form
    assert opened.source.name == name


# --- Digest --------------------------------------------------------------------------------------


def test_digest_tells_what_decides_the_rows(tmp_path):
    """Bytes, order, mapping and the user change the digest; the file's name does not."""
    one, two, copy = (tmp_path / name for name in ("one.csv", "two.csv", "copy.csv"))
    one.write_text("machine_code\nA\n", encoding="utf-8")
    two.write_text("machine_code\nB\n", encoding="utf-8")
    copy.write_bytes(one.read_bytes())
    plain = ManifestSettings()

    known = digest([one, two], plain)
    others = [
        digest([two, one], plain),
        digest([one], plain),
        digest([one, two], ManifestSettings(user_id="u")),
        digest([one, two], ManifestSettings(columns={"user_id": "Owner"})),
    ]

    assert digest([copy, two], plain) == known
    assert digest([one, two], ManifestSettings(on_invalid="skip", rebind=True)) == known
    assert len({known, *others}) == 5


class Later(ManifestSettings):
    """The settings of a version to come."""

    more: str | None = None


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, "a5a2928f7c74b2958afc6259301e0ee7cc8c9cfb0288e5ce0a3794b1abe6142f"),
        (
            {"user_id": "u", "columns": {"machine_code": "Serial"}, "clean": "names", "move": True},
            "434597275572e00046eeeb4bd7717d8d7ecb0458038d65a887a5839f3a72c2fc",
        ),
    ],
)
@pytest.mark.parametrize("kind", [ManifestSettings, Later])
def test_digest_outlives_new_settings(tmp_path, given, known, kind):
    """A manifest that an earlier version knew is the same one, until a new setting is used."""
    path = tmp_path / "one.csv"
    path.write_bytes(b"machine_code,user_id\nSN1,u1\n")
    new: list[dict[str, object]] = [{"items": "a"}]
    new += [{"ignore_columns": ["x"]}, {"placeholders": ["x"]}]
    new += [{"more": "x"}] if kind is Later else []
    changed = {digest([path], kind(**given, **setting)) for setting in new}

    assert digest([path], kind(**given)) == known
    assert len(changed - {known}) == len(new)


def test_digest_of_a_missing_file_is_refused(tmp_path):
    """A manifest that is not there has no digest."""
    with pytest.raises(ManifestError, match="cannot be read"):
        digest([tmp_path / "none.csv"], ManifestSettings())


# --- Round trip ----------------------------------------------------------------------------------

cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
tricky = st.text(st.sampled_from("ab ,;|\t\"'\r\n\ufeff\u2028\x85"), max_size=6)
codes = st.sampled_from(["A", "B_2", "no-code"])
devices = st.tuples(codes, st.just("user_12345"), cells | tricky, tricky)


@settings(max_examples=120, deadline=None)
@given(
    rows=st.lists(devices, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16-le", "utf-16"]),
)
@example(rows=[("A", "u", "\r", "\n")], delimiter=",", quoting=csv.QUOTE_MINIMAL, encoding="utf-8")
def test_rows_written_by_a_csv_writer_come_back(rows, delimiter, quoting, encoding):
    """Whatever stands in the cells, delimiter and encoding: rows come back with their lines."""
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\r\n")
    table.writerow(["machine_code", "user_id", "note", "remark"])
    lines = []
    for row in rows:
        written = text.getvalue()
        lines.append(1 + written.count("\n") + written.replace("\r\n", "").count("\r"))
        table.writerow(row)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.csv"
        path.write_bytes(text.getvalue().encode(encoding))
        manifest = open_manifest(path, ManifestSettings())
        found = list(manifest.rows())

    assert [row.cells for row in found] == [list(row) for row in rows]
    assert [row.line for row in found] == lines
    assert [row.device is not None for row in found] == [row[0] != "no-code" for row in rows]


# --- Files made by nobody here -------------------------------------------------------------------


CASES = (
    "comma_in_quotes",
    "empty",
    "empty_crlf",
    "escaped_quotes",
    "json",
    "location_coordinates",
    "newlines",
    "newlines_crlf",
    "quotes_and_newlines",
    "simple",
    "simple_crlf",
    "utf8",
)
ERRATA = {"location_coordinates": {"Contact Phone Number": "2095257564"}}
"""Cells of a case's table of which its answer says something else."""


@pytest.mark.skipif(not CSV_SPECTRUM.exists(), reason="csv-spectrum is not in ../shared/data")
def test_every_case_of_csv_spectrum_is_run():
    """No file of the suite is left out below."""
    assert tuple(sorted(path.stem for path in CSV_SPECTRUM.iterdir())) == CASES


@pytest.mark.skipif(not CSV_SPECTRUM.exists(), reason="csv-spectrum is not in ../shared/data")
@pytest.mark.parametrize("name", CASES)
def test_csv_spectrum(name):
    """The cells of the csv-spectrum suite are read as the suite says."""
    answer = json.loads((CSV_SPECTRUM.parent / "csv-spectrum-json" / f"{name}.json").read_bytes())
    expected = answer if isinstance(answer, list) else [answer]
    for row in expected:
        row.update(ERRATA.get(name, {}))
    first = next(iter(expected[0]))
    manifest = open_manifest(
        CSV_SPECTRUM / f"{name}.csv", ManifestSettings(user_id="u", columns={"machine_code": first})
    )
    found = [dict(zip(manifest.source.header, row.cells, strict=True)) for row in manifest.rows()]

    assert found == expected


@pytest.mark.skipif(not GPLAY.exists(), reason="the list of devices is not in ../shared/data")
def test_real_list_of_devices():
    """Google Play's list, UTF-16 as it was published, is read to the last row."""
    columns = {
        "machine_code": "Device",
        "device_name": "Marketing Name",
        "device_os": "Retail Branding",
    }
    manifest = open_manifest(GPLAY, ManifestSettings(user_id="fleet", columns=columns))
    rows = list(manifest.rows())
    codes = [row.device.machine_code for row in rows if row.device]

    assert (manifest.source.encoding, manifest.source.bom) == ("utf-16-le", True)
    assert (len(rows), len(codes), len(set(codes))) == (35_244, 27_050, 19_794)


# --- Blocks by column ----------------------------------------------------------------------------

cells = st.sampled_from(
    ["A1", "u1", "Van 1", "", " ", "#", "-", "é", "\x0b", "\x85", "N/A", "machine_code", "1e5"]
)
lines = st.lists(cells, min_size=1, max_size=5).map(",".join)
ends = st.sampled_from(["\n", "\n", "\r\n", "\r"])


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(lines, ends), max_size=8), ends, st.sampled_from(["utf-8", "latin-1"]))
@example([("A1,u1,Van,X", "\n"), ("A2,u1,Van", "\n"), ("A3,u1,a,b,c", "\n")], "\n", "utf-8")
@example([("A1,u1,Van,X", "\r\n"), ("A2,u1,Van,Y", "")], "\r\n", "utf-8")
@example([("A1,u1,Van,X", "\n"), ("A2,u1,Van,Y", "\r"), ("", "\n")], "\n", "utf-8")
def test_blocks_read_by_column_say_what_their_lines_say(monkeypatch, manifest, rows, end, encoding):
    """Whether a block is split as a whole or line by line, rows, lines and notices are the same."""
    content = f"{HEADER}{end}" + "".join(map("".join, rows))
    told: list[object] = []
    for is_line_by_line in (False, True):
        with monkeypatch.context() as patch:
            if is_line_by_line:
                patch.setattr(_Uniform, "by_column", lambda _self, _block: [])
            try:
                opened = manifest(content.encode(encoding), encoding=encoding)
                told.append((list(opened.rows()), opened.notices))
            except ManifestError as error:
                told.append(str(error))

    assert told[0] == told[1]


def test_good_blocks_are_read_by_column(manifest):
    """What saves half of the time is used, and says what the rows say one by one."""
    content = HEADER + "".join(f"\r\nSN{n},u{n}, Van {n},N/A" for n in range(5_000))
    parts = list(batches_of(manifest(content)))

    assert all(isinstance(part, GoodRows) for part in parts)
    assert sum(map(len, parts)) == 5_000
    assert [row for part in parts for row in part] == list(manifest(content).rows())
    assert next(iter(parts[0])).values == values("u0", "SN0", "Van 0")

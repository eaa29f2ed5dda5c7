"""Lines about a table that are no rows of it: other headers, types, totals, titles, notes."""

from __future__ import annotations

import pytest

from bulkbind.errors import ManifestError
from tests.support.formats import opened
from tests.support.manifests import opener, outline
from tests.support.workbooks import Book, Page, row, text

HEADER = "machine_code,user_id,device_name\n"


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.csv`, with a user for all."""
    opened = opener(tmp_path / "fleet.csv")
    return lambda content, **given: opened(content, **({"user_id": "u"} | given))


def codes(opened):
    """Return the machine code of every row, None where it is no device."""
    return [code for _, code in outline(opened.rows())]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        pytest.param("Serial_Number", "the name of a column", id="a name"),
        pytest.param("SERIENNUMMER", "the name of a column", id="in German"),
        pytest.param("string", "the name of a column", id="a type"),
        pytest.param("required", "the name of a column", id="what is needed"),
        pytest.param("Total", "below a table", id="a total"),
        pytest.param("Gesamtsumme", "below a table", id="a total in German"),
        pytest.param("EOF", "below a table", id="an end"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "xlsx", "yaml", "jsonl"])
def test_word_about_the_table_is_no_machine_code(tmp_path, kind, word, found):
    """It is a problem wherever it stands, never a device of the user given for all."""
    rows: list[list[str | None]] = [[f"SN{n}", "u", str(n)] for n in range(200)]
    rows[150] = [word, None, "7"]
    read = list(opened(tmp_path, kind, ["machine_code", "user_id", "n"], rows, user_id="f").rows())

    assert [row.device is None for row in read] == [n == 150 for n in range(200)]
    assert found in read[150].problems[0].found


def test_total_is_no_user_and_none_takes_every_word(manifest):
    """The line below a table may name a count in the first column."""
    content = "machine_code,user_id\nA1,joe\n1,Total\nserial,ann\n"

    assert codes(manifest(content)) == ["A1", None, None]
    assert codes(manifest(content, placeholders=("none",))) == ["A1", "1", "serial"]


@pytest.mark.parametrize(
    ("line", "after"),
    [
        pytest.param("Seriennummer,Benutzer,Gerätename\n", "A1,u1,n\n", id="below the header"),
        pytest.param("A1,u1,n\n\nserial,owner,\n", "A2,u2,n\n", id="further below"),
    ],
)
def test_header_in_other_words_is_passed_over(manifest, line, after):
    """It names the columns that ours names, in their order: what follows means the same."""
    read = manifest(HEADER + line + after)

    assert None not in codes(read)
    assert "fleet.csv: 1 reworded header passed over" in read.notices


@pytest.mark.parametrize(
    "line", ["Owner,Serial,Hostname", "owner,imei,", "Location,Count,", "Vendor,Quantity,Remarks"]
)
def test_header_of_other_columns_is_refused(manifest, line):
    """The rows below it would bind users to users."""
    with pytest.raises(ManifestError, match=r"fleet\.csv:3: another table begins here"):
        codes(manifest(f"{HEADER}A1,u1,n\n{line}\nann,A2,x\n"))


def test_types_below_the_header_are_a_row_that_is_a_problem(manifest):
    """They are no header of another table."""
    assert codes(manifest(f"{HEADER}string,varchar,text\nA1,u1,n\n")) == [None, "A1"]


@pytest.mark.parametrize("other", ["user_id,u1,u2", "Device Name,n1,n2"])
def test_table_that_is_turned_is_refused(manifest, other):
    """One device in each column, its names in the first one."""
    with pytest.raises(ManifestError, match="rows and columns of the table are exchanged"):
        codes(manifest(f"machine_code,A1,A2\n{other}\ncolour,red,blue\n"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("machine_code,user_id\nA1,u1\n\nmachine_code,user_id,os\nB,u,x\n", id="wider"),
        pytest.param("machine_code\nA1\n\nmachine_code,user_id\nB1,v\n", id="a single column"),
        pytest.param("Machine Code,User Id\nA1,u1\nmachine_code,user_id\nB1,v\n", id="exact"),
    ],
)
def test_rows_above_a_fuller_header_are_not_lost(manifest, content):
    """The first header has rows of its own: what comes later is another table."""
    with pytest.raises(ManifestError, match="another table begins here"):
        codes(manifest(content))


@pytest.mark.parametrize(
    ("content", "mapped"),
    [
        pytest.param("Serial,Site\nA1,u1\nA2,u2\ndevice_name,device_os\n", {}, id="a name below"),
        pytest.param("Fleet\nSerial,user_id\nA1,u1\n", {}, id="a title above"),
        pytest.param("Fleet,\nBerlin,\nSerial,user_id\nA1,u1\n", {}, id="padded titles"),
        pytest.param("Serial,user_id\nA1,u1\n", {"user_id": "#2"}, id="both by position"),
    ],
)
def test_header_by_position_is_the_first_with_rows_below_it(manifest, content, mapped):
    """A later line with more names is none; titles fill a single cell."""
    read = manifest(content, columns={"machine_code": "#1"} | mapped)

    assert read.source.header[0] == "Serial"
    assert next(iter(read.rows())).values[1] == "A1"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{0}Fields,Meaning\nmachine_code,the serial\n\n", id="a legend"),
        pytest.param("Machine Code,User ID,Name\n", id="labels"),
    ],
)
def test_lines_above_the_header_may_name_columns(manifest, content):
    """A legend or a line of labels has no rows below it."""
    assert codes(manifest(f"{content.format('')}{HEADER}A1,u1,n\n")) == ["A1"]


@pytest.mark.parametrize("gap", ["\n", ",\n", "\n\n"])
def test_notes_below_the_table_are_problems(manifest, gap):
    """They are shorter, but no rows whose empty last cells were left out."""
    read = list(manifest(f"machine_code,user_id\nA1,u1\nA2,u2\n{gap}Confidential\nBerlin\n").rows())

    assert [row.device is None for row in read] == [False, False, True, True]
    assert "a note below the table" in read[-1].problems[0].hint


def test_short_rows_of_a_table_with_gaps_are_read(manifest):
    """Where whole rows stand below blank lines, short ones may, too."""
    rows = "A1,n1\n\nA2\n\nA3,n3\n\nA4"

    assert codes(manifest(f"machine_code,device_name\nA0,n0\n\n{rows}\n")) == [
        "A0", "A1", "A2", "A3", "A4",
    ]  # fmt: skip


def test_words_among_numbered_codes_are_told(manifest):
    """A title between the rows keeps the rules: nobody can tell it from a device but its reader."""
    rows = [f"SN{n},u,n" for n in range(300)]
    rows[120] = "Berlin,,"
    read = manifest(HEADER + "\n".join(rows))

    assert codes(read)[120] == "Berlin"
    assert any("1 machine code like `Berlin` (line 122) has no digit" in n for n in read.notices)
    many = manifest(HEADER + "\n".join(f"{'abc' * (n % 2)}{n or 1},u,n" for n in range(9)))
    assert not any("no digit" in n for n in codes(many) and many.notices)


def test_total_of_a_workbook_is_a_problem(tmp_path):
    """A table of Excel has its total in its last row."""
    lines = [["machine_code", "n"], ["A1", "1"], ["Ergebnis", "1"]]
    data = "".join(row(*map(text, line)) for line in lines)
    path = Book([Page(data)]).write(tmp_path / "fleet.xlsx")

    assert codes(opener(path)(path.read_bytes(), user_id="u")) == ["A1", None]

"""CSV as it comes: valid whatever stands in it, rows of odd widths, and what is around a table."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.csv_dialect import Dialect
from bulkbind.model.wording import counted
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, outline


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.csv`, with a user for all."""
    opened = opener(tmp_path / "fleet.csv")
    return lambda content, **given: opened(content, **({"user_id": "u"} | given))


def codes(opened):
    """Return the machine code of every row, None where it is no device."""
    return [code for _, code in outline(opened.rows())]


def found(opened):
    """Return of every row what was found wrong with its shape; "" where nothing was."""
    return [
        "".join(problem.found for problem in row.problems if problem.field == "row")
        for row in opened.rows()
    ]


# --- quotes and escapes --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("at", [0, 70, 79, 5000], ids=str)
def test_valid_file_with_backslashes_is_read_as_valid(manifest, at, ending):
    """A cell that ends with a backslash swallows no row, wherever it stands."""
    rows = [f'"ok","D{n:04d}","linux"' for n in range(at + 10)]
    rows[at] = f'"C:\\export\\","D{at:04d}","linux"'
    opened = manifest(ending.join(['"note","machine_code","device_os"', *rows, ""]))

    assert codes(opened) == [f"D{n:04d}" for n in range(at + 10)]


@pytest.mark.parametrize("at", [0, 5000], ids=str)
def test_escapes_are_believed_where_doubling_fails(manifest, at):
    """Also where the first one stands far behind the beginning of the file."""
    rows = [f'"ok","D{n:04d}","linux"' for n in range(at + 10)]
    rows[at] = f'"24\\" screen, \\"wide\\"","D{at:04d}","linux"'
    opened = manifest("\n".join(['"note","machine_code","device_os"', *rows]))
    read = list(opened.rows())

    assert read[at].cells == ['24" screen, "wide"', f"D{at:04d}", "linux"]
    assert [row.device is None for row in read] == [False] * len(rows)


def test_backslash_that_escapes_nothing_is_text(manifest):
    """Only a quote and the backslash itself are escaped: a code keeps its backslash, and breaks."""
    opened = manifest('machine_code,note\nA\\1,"say \\"hi\\""\nA2,"C:\\new\\\\x \\"y\\""\n')
    rows = list(opened.rows())

    assert [row.cells for row in rows] == [["A\\1", 'say "hi"'], ["A2", 'C:\\new\\x "y"']]
    assert rows[0].device is None


@pytest.mark.parametrize(
    ("content", "mapped"),
    [
        pytest.param("Serial,OS\n'A1','linux'\n'A2','linux'\n", {}, id="a bare header"),
        pytest.param("Serial,OS\r\n'A1','linux'\r\n'A2','li''nux'\r\n", {}, id="doubled"),
        pytest.param("'Serial';'OS'\n'A1';7\n'A2';''\n", {}, id="numbers are bare"),
        pytest.param("Serial,OS,n\n'A1','x','24\"'\n'A2','x','\"b\"'\n", {}, id="double inside"),
        pytest.param("Serial,OS,n\nA1,x,'a, b'\nA2,x,'c, d'\n", {}, id="only where needed"),
        pytest.param("Serial,n,OS\nA1,'a\nb',x\nA2,c,x\n", {}, id="a line break"),
        pytest.param("Fleet\n\nSerial;n\n'A1';'O''Neil'\n'A2';'x'\n(2 rows)\n", {}, id="around"),
        pytest.param("Serial,OS\n'A1', 'x'\n'A2', 'y'\n", {}, id="blanks before quotes"),
    ],
)
def test_single_quotes_are_taken_off(manifest, content, mapped):
    """Single quotes around all but numbers, or without which rows would not fit, are quotes."""
    opened = manifest(content, columns={"machine_code": "Serial"} | mapped)

    assert codes(opened) == ["A1", "A2"]
    assert opened.source.quote == "'"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("machine_code,n\n\"A1\",\"'x', y\"\nA2,'z'\n", id="within double ones"),
        pytest.param("machine_code,n\nA1,'tis\nA2,O'Neil\n", id="apostrophes"),
        pytest.param("machine_code,n\nA1,'x'\nA2,y\n", id="a single cell"),
    ],
)
def test_single_quotes_in_a_valid_file_are_text(manifest, content):
    """A file that is valid with double quotes is read so."""
    opened = manifest(content)

    assert codes(opened) == ["A1", "A2"]
    assert opened.source.quote == '"'


@pytest.mark.parametrize("ending", ["\n", "\r"], ids=["LF", "CR"])
@pytest.mark.parametrize("blanks", [" ", "   "])
def test_blanks_before_quotes_do_not_matter(manifest, ending, blanks):
    """A quote behind blanks opens a cell."""
    rows = ["machine_code,note,device_os", f'A1,{blanks}"x, y",linux', f'A2,z,{blanks}"linux"']
    opened = manifest(ending.join(rows))

    assert [row.values[1:] for row in opened.rows()] == [
        ("A1", None, "linux"),
        ("A2", None, "linux"),
    ]


# --- longer and shorter rows ---------------------------------------------------------------------

WHOLE = "location,machine_code,slot,device_os,comments\n"


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        pytest.param("Berlin, Mitte,A2,8,linux,", "it has 6, the header 5", id="a comma unseen"),
        pytest.param("Berlin,,A3,9,linux,", "it has 6, the header 5", id="a cell too many"),
        pytest.param("Berlin,A2,8,linux,,", "it has 6, the header 5", id="a delimiter too many"),
        pytest.param("Berlin A2,8,linux,", "it has 4, the header 5", id="a comma lost"),
        pytest.param("A2,8", "it has 2, the header 5", id="cut off"),
    ],
)
@pytest.mark.parametrize("others", [1, 9, 3000], ids=str)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_row_of_another_width_than_the_others_is_a_problem(manifest, row, wanted, others, is_first):
    """Its values stand in wrong columns, though each of them may keep the rules."""
    good = [f"Berlin,A{n},7,linux," for n in range(100, 100 + others)]
    rows = [row, *good] if is_first else [*good, row]
    shapes = found(manifest(WHOLE + "\n".join(rows) + "\n"))

    assert shapes.pop(0 if is_first else -1) == wanted
    assert not any(shapes)


def test_delimiter_at_the_end_of_every_row_is_read(manifest):
    """Where all rows have it, it moves nothing; a row that has one more is still a problem."""
    opened = manifest("site,machine_code,device_os\n" + "Berlin,A1,linux,\n" * 3)

    assert codes(opened) == ["A1"] * 3
    assert any("every row ends with 1 empty cells more" in notice for notice in opened.notices)
    shifted = manifest("site,machine_code\n" + "Berlin,A1,\n" * 5 + "Berlin, Mitte,A2,\n")
    assert codes(shifted) == ["A1"] * 5 + [None]


@pytest.mark.parametrize("odd", ["Berlin A2,linux,", "Berlin,A2,linux", "Berlin,A2,,linux,,"])
def test_where_most_rows_are_longer_than_the_header_none_is_certain(manifest, odd):
    """A row that has as many cells as the header by accident is no device."""
    opened = manifest("site,machine_code,device_os\n" + "Berlin,A1,linux,\n" * 9 + f"{odd}\n")

    assert codes(opened)[-1] is None


def test_row_names_of_a_header_that_lacks_a_name(manifest):
    """Rows longer than the header, as R writes them, are problems, and so is one shorter by one."""
    rows = "".join(f"{n},A{n},linux\n" for n in range(9))
    opened = manifest(f"machine_code,device_os\n{rows}linux,A10\n")

    assert codes(opened) == [None] * 10


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(["A1,x,linux,7", "A2,x", "A3", "A4,y,linux"], id="ragged"),
        pytest.param(["A1", "A2", "A3", "A4"], id="all alike"),
        pytest.param(["A1,x,linux,7", "A2,,,", "A3,,,"] + ["A4"] * 40, id="Excel's blocks"),
    ],
)
def test_rows_without_their_last_empty_cells_are_read(manifest, rows):
    """An exporter that leaves out the empty cells at the end does so in many rows."""
    opened = manifest("machine_code,device_name,device_os,slot\n" + "\n".join(rows) + "\n")

    assert codes(opened) == [row.split(",")[0] for row in rows]
    assert any("shorter than the header, e.g. line" in notice for notice in opened.notices)


def test_rows_cut_off_far_below_whole_ones_are_read(manifest):
    """What the first rows cannot say, the rows around do."""
    whole, cut = [f"A{n},x,linux" for n in range(6000)], [f"B{n}" for n in range(300)]
    opened = manifest("\n".join(["machine_code,device_name,device_os", *whole, *cut]))

    assert codes(opened) == [*(row.split(",")[0] for row in whole), *cut]


def test_code_that_belongs_further_right_is_not_sent(manifest):
    """Among rows that are cut off, one that lacks a delimiter shows by a value of other columns."""
    rows = ["Berlin,A1,linux,7", "Bonn,A2,linux,8", "Berlin,A3", "Bonn,A4", "Berlin A5,linux"]
    opened = manifest("\n".join(["site,machine_code,device_os,slot", *rows]))

    assert codes(opened)[-1] is None
    assert codes(opened)[2:4] == ["A3", "A4"]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        pytest.param("site,machine_code,user_id", "B,M{n},u{n}", id="user last"),
        pytest.param("machine_code,device_name,user_id", "M{n},d{n},u{n}", id="name before it"),
        pytest.param("machine_code,user_id", "M{n},u{n}", id="two columns"),
        pytest.param("site,machine_code,user_id,slot", "B,M{n},u{n},{n}", id="one behind it"),
    ],
)
@pytest.mark.parametrize(
    "given", [{"user_id": "u"}, {"user_id": None, "constants": {"user_id": "c"}}]
)
@pytest.mark.parametrize("whole", [0, 3, 80, 3000])
def test_no_fallback_fills_a_cell_that_a_short_row_lacks(manifest, header, row, given, whole):
    """Whatever was left out may be another cell, and the user stands where the code should."""
    rows = [row.format(n=n) for n in range(whole)]
    at = header.split(",").index("user_id")
    short = [",".join(row.format(n=n + 9000).split(",")[-at:][:at]) for n in range(20)]
    read = list(manifest("\n".join([header, *rows, *short]), **given).rows())

    assert [line.device is None for line in read] == [False] * whole + [True] * 20
    assert "only where the row has the empty cell" in read[-1].problems[0].hint


def test_an_empty_cell_is_filled_where_the_row_has_it(manifest):
    """That is what a fallback is for."""
    opened = manifest("site,machine_code,user_id\nB,A1,\nB,A2,u2\nB,A3,\n")

    assert [row.values[:2] for row in opened.rows()] == [("u", "A1"), ("u2", "A2"), ("u", "A3")]


def test_short_rows_of_one_form_are_judged_alike(manifest):
    """Where two of them hold what belongs further right, all do; another width is another form."""
    header = "site,machine_code,user_id,device_name,slot"
    whole = [f"B,M{n},u{n},d{n},{n}" for n in range(4)]
    moved = [f"X{n},u{n},d{n}" for n in (7, 2, 8, 3, 9)]
    opened = manifest("\n".join([header, *whole, *moved, "B,M9,u9,d9"]), user_id=None)

    assert codes(opened) == ["M0", "M1", "M2", "M3", *[None] * 5, "M9"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.csv", "machine_code,user_id\nA1,u1\nA2,u2"),
        ("f.csv", "machine_code,user_id\rA1,u1"),
        ("f.tsv", "machine_code\tuser_id\r\nA1\tu1"),
        ("f.yaml", "- machine_code: A1\n  user_id: u1"),
    ],
)
def test_a_file_without_a_line_end_at_its_end_may_be_cut_off(tmp_path, name, text, encoding):
    """Half a value may be one, too; a file that ends its lines was not cut off within one."""
    found = []
    for content in (text, f"{text}\n", f"{text}\r"):
        path = tmp_path / name
        path.write_text(content, encoding=encoding, newline="")
        found.append(
            any(
                "was it cut off?" in told
                for told in open_manifest(path, ManifestSettings()).notices
            )
        )

    assert found == [True, False, False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("f.json", '[\n{"machine_code": "A1"}\n]', id="shows it itself"),
        pytest.param("f.yaml", "{machine_code: A1, user_id: u1}", id="one line"),
    ],
)
def test_what_needs_no_line_end_is_not_suspected(tmp_path, name, text):
    """Nothing is said where a cut would show, or where no line has an end."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    assert open_manifest(path, ManifestSettings()).notices == []


def test_empty_names_at_the_end_of_a_header_are_none(manifest):
    """A delimiter behind the last name only: rows without it are whole, the others are longer."""
    rows = ["Berlin,A1,linux", "Berlin,A2,linux", "Berlin, Mitte,A3,linux", "Berlin, Mitte,A4,"]

    assert codes(manifest("\n".join(["site,machine_code,device_os,", *rows]))) == [
        "A1", "A2", None, None,
    ]  # fmt: skip


# --- other tables, headers -----------------------------------------------------------------------


@pytest.mark.parametrize("good", [1, 300])
@pytest.mark.parametrize(
    ("header", "other"),
    [
        ("machine_code,device_name", "machine_code,location"),
        ("machine_code,device_name", "location,machine_code"),
        ("machine_code,note", "location,machineCode"),
        ("note,machine_code", "machine_code,place"),
        ("device_name;machine_code", '"Machine Code";"place"'),
    ],
)
def test_second_table_is_refused_by_its_one_known_column(manifest, header, other, good):
    """Where it begins, whatever else it has."""
    delimiter = ";" if ";" in header else ","
    at = [name.lower().replace(" ", "_") for name in header.split(delimiter)]
    rows = [
        delimiter.join(f"A{n}" if c == "machine_code" else "x" for c in at) for n in range(good)
    ]
    opened = manifest("\n".join([header, *rows, other, delimiter.join(["B1", "Berlin"])]))

    with pytest.raises(ManifestError, match=rf":{good + 2}: another table begins here"):
        list(opened.rows())


def test_second_table_is_refused_where_the_code_is_known_by_its_position(manifest):
    """Its header need not name it."""
    opened = manifest(
        "user_id,Serial,device_name\nu,A1,x\nuser_id,code,device_name\nu,B1,y\n",
        columns={"machine_code": "#2"},
    )

    with pytest.raises(ManifestError, match=":3: another table begins here"):
        list(opened.rows())


def test_text_that_reads_like_a_name_begins_no_table(manifest):
    """In a column that is not sent it is text."""
    assert codes(manifest("machine_code,note\nA1,machine code\nA2,machine_code\n")) == ["A1", "A2"]


def test_exact_name_beats_a_loose_one(manifest):
    """The header is where the name stands as `--map` has it, though a line above resembles it."""
    opened = manifest(
        "textbox2,textbox4\nInformation,Device Serial Number\n\n"
        "Device_Serial_Number0,Device_Serial_Number\nDevice Serial Number,ABC1\n",
        columns={"machine_code": "Device_Serial_Number"},
    )

    assert outline(opened.rows()) == [(5, "ABC1")]


@pytest.mark.parametrize("lines", [60, 900])
def test_header_below_many_blank_lines_is_found(manifest, lines):
    """Lines without a word are not counted among those searched."""
    opened = manifest("\n" * lines + "machine_code\nA1\n")

    assert outline(opened.rows()) == [(lines + 2, "A1")]


def test_endless_blank_lines_are_no_empty_file(manifest):
    """What is below them was not looked at, and is not called empty."""
    with pytest.raises(ManifestError, match=r"no header in the first 10,\d\d\d lines"):
        manifest("\n" * 20_000 + "machine_code\nA1\n")


@pytest.mark.parametrize(
    ("content", "line", "given"),
    [
        ('"machine_code,"device_name","device_os"\nA1,x,linux\n', 1, {}),
        ('Fleet\n"machine_code,"device_name";"x"\nA1,x,linux\n', 2, {}),
        ('"Serial,"OS"\nA1,x\nA2,y\n', 1, {"columns": {"machine_code": "Serial"}}),
        ('"Serial,"OS"\nA1,x\nA2,y\n', 1, {}),
    ],
)
def test_fault_of_the_header_is_named(manifest, content, line, given):
    """Not the line below it, which names nothing."""
    with pytest.raises(ManifestError, match=rf":{line}: the header cannot be read"):
        manifest(content, **given)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_lines_in_quotes_as_a_whole_are_named(manifest, delimiter):
    """The hint says what to take off."""
    lines = ("machine_code", "device_name"), ("SN1", "Van 1"), ("SN2", "Van 2")
    content = "".join(f'"{delimiter.join(line)}"\n' for line in lines)
    with pytest.raises(ManifestError, match="each line stands in quotes as a whole") as caught:
        manifest(content)

    assert "first and the last quote" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "columns", "wanted"),
    [
        ('A1,x,linux\nA2,"y" z,linux\nA3,q,linux\n', ("machine_code", "device_name", "device_os"),
         ["A1", None, "A3"]),
        ("# a comment\n# another\n# third\nA1;linux\nA2;linux\n", ("machine_code", "device_os"),
         ["A1", "A2"]),
        ("A1|a, b|linux\nA2|c, d|linux\n", ("machine_code", "note", "device_os"), ["A1", "A2"]),
        ("'A1','linux'\n'A2','linux'\n", ("machine_code", "device_os"), ["A1", "A2"]),
    ],
)  # fmt: skip
def test_columns_given_help_to_find_the_dialect(manifest, content, columns, wanted):
    """Their number says which delimiter and quotes make rows of so many cells."""
    assert codes(manifest(content, header=columns)) == wanted


# --- what programs print around a table ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "count"),
    [
        pytest.param(
            " machine_code | device_os \n--------------+----------\n A1 | x\n A2 | \n(2 rows)\n",
            2, id="psql",
        ),
        pytest.param(
            "+--------------+-------+\n| machine_code | n     |\n+--------------+-------+\n"
            "| A1           | x     |\n| A2           |       |\n+--------------+-------+\n"
            "2 rows in set (0.00 sec)\n", 3, id="mysql",
        ),
        pytest.param("machine_code,n\n------------,-\nA1,x\nA2,y\n\n(2 rows affected)\n", 2,
                     id="sqlcmd"),
        pytest.param("MACHINE_CODE\tN\n------------\t----\nA1\tx\nA2\ty\n\n2 rows selected.\n",
                     2, id="sqlplus"),
        pytest.param("| machine_code | n |\n|:-------------|--:|\n| A1 | x |\n| A2 | y |\n", 1,
                     id="Markdown"),
        pytest.param("machine_code | n\n--- | ---\nA1 | x\nA2 | y\n", 1, id="Markdown, bare"),
        pytest.param(" machine_code | n \n---+---\n A1 | x\n A2 | y\n(2 Zeilen)\n\nTime: 1.2 ms\n",
                     3, id="psql, German"),
        pytest.param("machine_code;n\nA1;x\nA2;y\n\n  2 record(s) selected.\n", 1, id="DB2"),
    ],
)  # fmt: skip
def test_what_databases_print_around_a_table_is_passed_over(manifest, content, count):
    """Lines of dashes and the count of rows, with a notice."""
    opened = manifest(content)

    assert codes(opened) == ["A1", "A2"]
    lines = counted(count, "footer or rule lines")
    assert f"fleet.csv: {lines} passed over" in opened.notices


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("MACHINE_CODE N\n------------ ----\nA1           x\n", id="sqlplus"),
        pytest.param(
            "\u250c\u2500\u2510\n\u2502 machine_code \u2502\n\u2502 A1 \u2502\n", id="a box"
        ),
        pytest.param("-[ RECORD 1 ]+---\nmachine_code | A1\nn | x\n", id="psql, expanded"),
    ],
)
def test_table_for_a_screen_is_named(manifest, content):
    """The hint says how databases write CSV."""
    with pytest.raises(ManifestError, match="printed for a screen") as caught:
        manifest(content, columns={"machine_code": "Serial"})

    assert "--csv" in caught.value.hint


@pytest.mark.parametrize("cell", ['="00018001"', "'00019001", '="A"'])
def test_marks_by_which_excel_keeps_text_are_named(manifest, cell):
    """The row stays a problem; the hint says what the marks are."""
    [row] = manifest(f"machine_code,n\n{cell},x\n").rows()

    assert row.device is None
    assert "by which a spreadsheet keeps text" in row.problems[0].hint


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("is_packed", [True, False])
def test_tar_archive_is_named(manifest, kind, is_packed):
    """Whatever wrote it, packed or not."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=kind) as archive:
        member = tarfile.TarInfo("fleet.csv")
        member.size = 16
        archive.addfile(member, io.BytesIO(b"machine_code\nA1\n"))
    data = content.getvalue()

    with pytest.raises(ManifestError, match="a tar archive"):
        manifest(gzip.compress(data) if is_packed else data)


def test_dialect_of_a_file_without_oddities_is_plain(manifest):
    """Nothing but the delimiter is taken from the beginning of the file."""
    opened = manifest("machine_code;n\nA1;x\n")

    assert Dialect(opened.source.delimiter, opened.source.quote, opened.source.escape) == Dialect(
        ";"
    )


@pytest.mark.parametrize("broken", [1, 6])
def test_broken_double_quotes_make_no_single_ones(manifest, broken):
    """Apostrophes far apart are no quotes, however many rows have a quote too many."""
    rows = [f"'\tA{n}" if n in (2, 8) else f"x\tA{n}" for n in range(20)]
    rows += [f'"a\tb"\tB{n}' for n in range(3)] + ['x\t"SN"1'] * broken
    read = list(manifest("\n".join(["note\tmachine_code", *rows])).rows())

    assert [row.device is None for row in read] == [False] * 23 + [True] * broken


def test_blanks_before_quotes_are_seen_outside_of_cells_alone(manifest):
    """A comma, a blank and a quote within a cell and its end speak for nothing."""
    read = list(manifest('note,machine_code,more\n ,A1,", "\n,A2,","\n').rows())

    assert [row.cells for row in read] == [[" ", "A1", ", "], ["", "A2", ","]]


@pytest.mark.parametrize(
    "content",
    [
        "-[ RECORD 1 ]+---\nmachine_code | A1\nuser_id | u1\n",
        "============ =======\nmachine_code user_id\n============ =======\nA1 u1\n",
    ],
    ids=["records", "blanks"],
)
def test_printed_table_with_a_header_is_named(manifest, content):
    """Also where one of its lines reads like a header."""
    with pytest.raises(ManifestError, match="printed for a screen"):
        codes(manifest(content))


def test_header_in_unknown_bytes_names_the_encoding(manifest):
    """Its names are lost, so no column is suggested; where they do not matter, nothing is said."""
    content = "序列号,用户\nA1,u1\n".encode("gb18030")
    with pytest.raises(ManifestError, match="the text is not utf-8") as caught:
        codes(manifest(content))

    assert "--encoding" in caught.value.hint
    assert codes(manifest(content, columns={"machine_code": "#1"})) == ["A1"]
    names = {"machine_code": "序列号", "user_id": "用户"}
    assert codes(manifest(content, encoding="gb18030", columns=names)) == ["A1"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_known_in_any_script(manifest, encoding):
    """Chinese and Japanese text has hardly a NUL byte."""
    content = "机器码\t用户标识符\t设备名称\n" + "甲乙丙丁\t戊己庚辛\t壬癸\n" * 90 + "A1\tu1\t\n"
    read = manifest(content.encode(encoding), columns={"machine_code": "机器码"})

    assert (read.source.encoding, codes(read)[-1]) == (encoding, "A1")


def test_nul_bytes_do_not_make_utf_16_of_utf_8(manifest):
    """A damaged byte behind a line end is a problem of its row."""
    read = manifest("machine_code,user_id\n\0A1,u1\n" + "A2,u2\n" * 99)

    assert read.source.encoding == "utf-8"
    assert codes(read)[:2] == [None, "A2"]


def test_end_mark_of_dos_is_passed_over(manifest):
    """It stands alone behind the last line."""
    assert codes(manifest("machine_code,user_id\nA1,u1\n\x1a")) == ["A1"]


def test_header_that_lacks_a_name_is_told(manifest):
    """R writes rows with their numbers, and no name for these."""
    [row, _] = manifest('"machine_code","user_id"\n"1","A1","u1"\n"2","A2","u2"\n').rows()

    assert "the header lacks a name" in row.problems[0].hint


def test_short_rows_below_names_with_gaps_are_problems(manifest):
    """Jira doubles the marks of a header: the cells of its rows stand under other names."""
    read = list(manifest("||machine_code||user_id||\n|A1|u1|\n|A2|u2|\n").rows())

    assert [row.device for row in read] == [None, None]


def test_end_mark_of_copy_is_passed_over(manifest):
    """PostgreSQL ends its data with a backslash and a dot."""
    assert codes(manifest("machine_code\tuser_id\nA1\tu1\n\\.\n")) == ["A1"]

"""Tables: where the header is, which dialect the file has, what is passed over."""

from __future__ import annotations

import pytest

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.csv_dialect import Dialect, find_dialect
from bulkbind.manifest.text import LONGEST_LINE, MOST_COLUMNS
from bulkbind.model import Device
from bulkbind.model.wording import counted
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, outline
from tests.support.rows import device

HEADER = "machine_code,user_id"


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.csv`."""
    return opener(tmp_path / "fleet.csv")


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        pytest.param("Fleet of 2026\nexported by x\n\n", 3, id="title"),
        pytest.param("# comment, with a comma\n#\n", 2, id="comments"),
        pytest.param("sep=,\n", 1, id="Excel's hint"),
        pytest.param('"broken "quote" here\n', 1, id="a title with quotes"),
    ],
)
def test_header_is_found_below_titles(manifest, before, lines):
    """The header is the row that names fields; what stands before it is kept to be written back."""
    opened = manifest(f"{before}{HEADER}\nA,u\n")

    assert outline(opened.rows()) == [(lines + 2, "A")]
    assert opened.source.preamble == before
    before_it = counted(lines, "lines")
    assert opened.notices[0] == f"fleet.csv: {before_it} before the header passed over"


def test_skip_rows_says_where_the_header_is(manifest):
    """With `--skip-rows` the next row that is not blank is the header, whatever came before."""
    text = f"{HEADER}\nX,x\nSerial,user_id\nA,u\n"
    opened = manifest(text, skip_rows=2, columns={"machine_code": "Serial"})

    assert outline(opened.rows()) == [(4, "A")]
    assert opened.source.preamble == f"{HEADER}\nX,x\n"


def test_columns_stand_in_for_a_header(manifest):
    """With `--columns` the first row is a device, also below lines that are skipped."""
    plain = manifest("A,u,Van\nB,v,\n", header=("machine_code", "user_id", "device_name"))
    rows = outline(plain.rows())
    skipped = manifest("Fleet\nA;u\n", header=("machine_code", "user_id"), skip_rows=1)

    assert not plain.source.has_header
    assert rows == [(1, "A"), (2, "B")]
    assert outline(skipped.rows()) == [(2, "A")]


def test_rows_of_a_report_without_header_are_read(manifest):
    """The two cells that a report adds to rows without a header are no shifted cells."""
    rows = list(manifest("A,u,failed,x\nB,u,else,x\n", header=("machine_code", "user_id")).rows())

    assert outline(rows) == [(1, "A"), (2, None)]


def test_position_names_a_column(manifest):
    """`#2` is the second column, unless a column has that name."""
    [row] = manifest("a,b,user_id\nx,A,u\n", columns={"machine_code": "#2"}).rows()
    [named] = manifest("#2,b,user_id\nA,x,u\n", columns={"machine_code": "#2"}).rows()

    assert row.device == named.device == Device("u", "A")
    with pytest.raises(ManifestError, match="no column `#9`"):
        manifest("a,b,user_id\nx,A,u\n", columns={"machine_code": "#9"})


def test_constant_wins_over_every_row(manifest):
    """`--set` gives one value to all rows; the column that would have held it is not sent."""
    opened = manifest(f"{HEADER}\nA,own\nB,\n", constants={"user_id": "all", "device_os": "X"})

    assert [row.device for row in opened.rows()] == [
        device("all", "A", None, "X"), device("all", "B", None, "X"),
    ]  # fmt: skip
    assert opened.notices == ["fleet.csv: columns kept but not sent: user_id"]


@pytest.mark.parametrize(
    "given", [{"constants": {"user_id": "a b"}}, {"constants": {"owner": "x"}}], ids=str
)
def test_constant_must_keep_the_rules(manifest, given):
    """A constant that breaks a rule is a usage error, not a problem of every row."""
    with pytest.raises(UsageError):
        manifest(f"{HEADER}\nA,u\n", **given)


def test_key_is_not_for_tables(manifest):
    """A row of a table has no key."""
    with pytest.raises(ManifestError, match="is a table"):
        manifest(f"{HEADER}\nA,u\n", columns={"machine_code": "@key"})


def test_repeated_headers_and_comments_are_passed_over(manifest):
    """What glued files and templates leave between rows is counted, not sent."""
    opened = manifest(f"{HEADER}\nA,u\n{HEADER}\n# more,\nB,u\n")

    assert outline(opened.rows()) == [(2, "A"), (5, "B")]
    assert opened.notices == [
        "fleet.csv: 1 repeated header passed over",
        "fleet.csv: 1 comment line passed over",
    ]


def test_comment_column_marks_rows(manifest):
    """A header that begins with a `#` of its own makes rows that do so comments."""
    opened = manifest("#,machine_code,user_id\n#,MANDATORY,MANDATORY\nx,A,u\n")

    assert outline(opened.rows()) == [(3, "A")]


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        pytest.param("'machine_code','user_id'\n'A','u'\n", Dialect(",", "'"), id="single quotes"),
        pytest.param("machine_code;user_id\n'A;B';u\n", Dialect(";", "'"), id="single in a cell"),
        pytest.param("machine_code,user_id\nO'Neil,u\n", Dialect(","), id="apostrophe"),
        pytest.param("machine_code,n\n'a',b\n'',c\n", Dialect(","), id="apostrophes as text"),
        pytest.param(
            'machine_code,user_id,n\nA,u,"a \\" b"\n', Dialect(",", '"', "\\"), id="backslash"
        ),
        pytest.param("sep=|\nmachine_code|a,b,c,d\n", Dialect("|"), id="told by sep="),
    ],
)
def test_dialect_is_found(text, dialect):
    """Quotes are what makes the lines make sense."""
    assert find_dialect(text, {}) == dialect


def test_cells_of_other_dialects_are_read(manifest):
    """Single quotes and backslashes are taken off."""
    single = list(manifest("'machine_code';'user_id';'n'\n'A';'u';'x;y'\n").rows())
    escaped = list(manifest('machine_code,user_id,n\nA,u,"x \\"y\\" z"\n').rows())

    assert single[0].cells == ["A", "u", "x;y"]
    assert escaped[0].cells == ["A", "u", 'x "y" z']


def test_batches_keep_lines_and_order(manifest):
    """Broken rows, line breaks in cells and bad quotes anywhere shift no line of a large file."""
    texts, wanted, line = [f"{HEADER},n"], [], 2
    for number in range(1500):
        kind = number % 137
        text = f"A{number},u,x"
        if kind == 7:
            text = f'A{number},u,"x\ny"'
        elif kind == 60:
            text = f"A-{number},u,x"
        elif kind == 100:
            text = f'"A"{number},u,x'
        texts.append(text)
        wanted.append((line, None if kind in (60, 100) else f"A{number}"))
        line += 1 + text.count("\n")

    assert outline(manifest("\n".join(texts)).rows()) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(HEADER + "\n" + "x" * 3 * LONGEST_LINE, "a line of more than", id="line"),
        pytest.param(
            f'{HEADER}\nA,u,"' + "x\n" * LONGEST_LINE, "a quote opened here", id="open quote"
        ),
        pytest.param(
            f"{HEADER}\nA,u" + f',"{"x" * 998}\n"' * (LONGEST_LINE // 300),
            "a row of more than",
            id="row over lines",
        ),
        pytest.param(
            ",".join([HEADER, *map(str, range(MOST_COLUMNS))]), "columns; at most", id="columns"
        ),
    ],
)
def test_bombs_are_refused(manifest, text, words):
    """What no manifest needs ends the reading with a place."""
    with pytest.raises(ManifestError, match=r"^fleet\.csv:\d+: ") as caught:
        list(manifest(text).rows())

    assert words in str(caught.value)


def test_settings_take_a_header_as_list_or_text():
    """`header:` is a list in a file and divided by commas on the command line."""
    assert ManifestSettings(header="a, b,c").header == ("a", "b", "c")  # type: ignore[arg-type]  # as flags give it
    assert ManifestSettings(header=("a", "b")).header == ("a", "b")


def test_comment_in_a_column_without_a_name_is_passed_over(tmp_path):
    """The first column may be the margin of a table, or the numbers that a program adds."""
    read = opener(tmp_path / "f.csv")
    rows = list(read(",machine_code,user_id\n0,A,u\n# note,,\n,# note,\n1,B,u\n").rows())

    assert outline(rows) == [(2, "A"), (5, "B")]

"""What the published suites of JSON, YAML and messy CSV ask, written down again in small.

A value that is JSON is taken, one that is none is refused with its place, nothing crashes; of a
table or a document nothing is guessed and nothing lost.
"""

from __future__ import annotations

import json

import pytest

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings

GOOD_JSON = [
    b"[[]   ]", b'[""]', b"[]", b'[null, 1, "1", {}]', b" [1]", b"[1,null,null,null,2]",
    b"[123e65]", b"[0e+1]", b"[-0.0000000000000000000000000000000000000001]", b"[-0]", b"[1E-2]",
    b'{"": 0}', b'{"foo\\u0000bar": 42}', b'{ "min": -1.0e+28, "max": 1.0e+28 }',
    b'["\\u0060\\u012a\\u12AB"]', b'["\\uD801\\udc37"]', b'["\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    b'["\\\\u0000"]', b'["a/*b*/c/*d//e"]', b'["\\uFFFF"]', b'["\xf4\x8f\xbf\xbf"]',
    b'["\\u0000"]', b'["\xe2\x80\xa8"]', b'["\x7f"]', b'" "', b"false", b"42", b"-0.1", b"null",
    b'""', b"[100000000000000000000]", b"[1.5e+9999]", b"[-1e+9999]", b"[123.456e-789]",
    b'["\\uDADA"]', b'{"\\uDFAA": 0}', b'["\\uD800\\n"]', b"[" * 500 + b"]" * 500,
]  # fmt: skip
BAD_JSON = [
    b"[1 true]", b"[a\xe5]", b'["": 1]', b'[""],', b"[,1]", b"[1,,2]", b'["x"]]', b'["",]', b'["x"',
    b"[3[4]]", b"[\xff]", b"[1:2]", b"[-]", b"[*]", b"[{}", b"[fals]", b"123\x00", b"[++1234]",
    b"[+1]", b"[+Inf]", b"[-01]", b"[-2.]", b"[-NaN]", b"[.2e-3]", b"[0.1.2]", b"[0.e1]", b"[0E+]",
    b"[1 000.0]", b"[NaN]", b"[Infinity]", b"[\xef\xbc\x91]", b"[1+2]", b"[0x1]", b"[0\xe5]",
    b"[-.123]", b"[012]", b'["x", truth]', b'{[: "x"}', b'{"x", null}', b'{"x"::"b"}',
    b"{\xf0\x9f\x87\xa8}", b'{"a":"a" 123}', b"{key: 'value'}", b'{"\xb9":"0",}', b'{:"b"}',
    b'{"a":', b"{1:1}", b'{"id":0,,}', b"{'a':0}", b'{"id":0,}', b'{"a":"b"}/**/', b'{"a":"b"}#',
    b'["\\uD800\\"]', b'["\\uD800\\u1x"]', b'["\\\x00"]', b'["\\x00"]', b'["\\\t"]', b'["\\a"]',
    b'["\\uqqqq"]', b'["\\\xe5"]', b'[\\u0020"asd"]', b'"', b"['x']", b'["a\x00a"]', b'["a\nb"]',
    b'["\t"]', b'""x', b"<.>", b"[1]x", b"[True]", b"[][]", b"]", b"[", b"[\x00]", b"2@", b"{}}",
    b'{"a":/*comment*/"b"}', b"['", b'["\\{["\\{["\\{', b"*", b"[\x0c]", b"[" * 100_000,
    b'[{"":' * 50_000, b"[\xe2\x81\xa0]",
]  # fmt: skip
HEADER = "machine_code,user_id,device_name\n"


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a file of some name to its end."""

    def rows(name, content, **given):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        manifest = open_manifest(path, ManifestSettings(**given), name)
        found = list(manifest.rows())
        assert len({row.line for row in found}) == len(found) or name != "fleet.csv"
        return found, manifest.notices

    return rows


def short(content):
    """Return an id that can be read."""
    return ascii(content[:24])


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", GOOD_JSON, ids=short)
@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_any_json_may_stand_in_a_device(read, form, value):
    """What JSON allows is taken, and can be kept; deeper than Python reads is refused by itself."""
    device = b'{"machine_code": "A", "user_id": "u", "x": %s}' % value
    rows, _ = read(f"fleet.{form}", device if form == "jsonl" else b"[%s]" % device)

    assert [row.values[1] for row in rows] == ["A"]
    assert json.dumps(rows[0].cells).encode()


@pytest.mark.parametrize("value", BAD_JSON, ids=short)
def test_what_is_no_json_is_refused_with_its_place(read, value):
    """In a document it ends the reading, in a line it is a problem of that line alone."""
    device = b'{"machine_code": "A", "user_id": "u", "x": %s}' % value
    with pytest.raises(ManifestError, match=r"fleet\.json"):
        read("fleet.json", b"[%s]" % device)
    if value == b"[][]":  # two documents, without a device
        assert read("x.json", value)[0] == []
    else:
        with pytest.raises(ManifestError, match=r"x\.json"):
            read("x.json", value)
    rows, _ = read("fleet.jsonl", device + b'\n{"machine_code": "B", "user_id": "u"}' * 5)

    assert rows[0].problems[0].found
    assert [row.values[1] for row in rows if row.device] == ["B"] * 5


@pytest.mark.parametrize("form", ["json", "yaml", "jsonl"])
def test_a_key_that_stands_twice_spoils_its_device_alone(read, form):
    """Which of the two counts is nobody's guess; the devices around it are read."""
    ends = ("", "") if form == "jsonl" else ("[", "]")
    between = "\n" if form == "jsonl" else ",\n"
    devices = [
        '{"machine_code": "A", "user_id": "u"}',
        '{"machine_code": "B", "user_id": "u", "user_id": "v"}',
        '{"machine_code": "C", "user_id": "u", "x": {"a": [{"b": 1, "b": 2}]}}',
        '{"machine_code": "D", "user_id": "u"}',
    ]
    rows, _ = read(f"fleet.{form}", between.join(devices).join(ends))

    assert [bool(row.problems) for row in rows] == [False, True, True, False]
    assert [row.line for row in rows] == [1, 2, 3, 4]
    assert "user_id" in rows[1].problems[0].text


def test_a_key_that_stands_twice_outside_devices_is_refused(read):
    """In defaults it would decide about all of them."""
    text = '{"defaults": {"user_id": "u", "user_id": "v"}, "devices": []}'
    with pytest.raises(ManifestError, match="`user_id` stands twice"):
        read("fleet.json", text)


# --- messy tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        pytest.param(f"\ufeff{HEADER}A,u,n\n", ["A"], id="byte order mark"),
        pytest.param((HEADER + "A,u,n\n").encode("utf-16-be"), ["A"], id="UTF-16 without a mark"),
        pytest.param(HEADER + "A,u,n", ["A"], id="no last line end"),
        pytest.param((HEADER + "A,u,n\nB,u,n").replace("\n", "\r"), ["A", "B"], id="CR"),
        pytest.param((HEADER + "A,u,n\nB,u,n").replace("\n", "\n\r"), ["A", "B"], id="LF CR"),
        pytest.param(HEADER + "A,u,n\r\nB,u,n\rC,u,n\n", ["A", "B", "C"], id="mixed line ends"),
        pytest.param(HEADER + "A,u,a\x0bb\nB,u,a\x0cb\nC,u,n\n", ["A", "B", "C"], id="VT and FF"),
        pytest.param(HEADER + 'A, "u", "a"\nB,u,n\n', ["A", "B"], id="blanks before quotes"),
        pytest.param("machine_code||user_id\nA||u\n", ["A"], id="doubled delimiter"),
        pytest.param("sep=^\nmachine_code^user_id\nA^u\n", ["A"], id="told delimiter"),
        pytest.param("Fleet, 2026\n\n" + HEADER + "A,u,n\n", ["A"], id="preamble"),
        pytest.param("Device,,User\n" + HEADER + "A,u,n\n", ["A"], id="two headers"),
        pytest.param(HEADER + "A,u,n\n" + HEADER + "B,u,n\n", ["A", "B"], id="header again"),
        pytest.param(HEADER + "A,u,n,,\n", ["A"], id="blank cells beyond the header"),
        pytest.param(HEADER + "A,u\n", ["A"], id="short row"),
        pytest.param("machine_code,user_id,site,site\nA,u,1,2\n", ["A"], id="names twice"),
        pytest.param("| machine_code | user_id |\n| A | u |\n", ["A"], id="a table of Markdown"),
    ],
)
def test_clear_table_is_read(read, content, codes):
    """However it is written, what is clear is taken."""
    rows, _ = read("fleet.csv", content)

    assert [(row.values[:2], row.problems) for row in rows] == [(("u", c), ()) for c in codes]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(HEADER + "A,u,n,x\n", id="long row"),
        pytest.param(HEADER + 'A,u,"a"b\n', id="text behind a quote"),
        pytest.param(HEADER + "A;u;n\n", id="another delimiter"),
        pytest.param(HEADER + "End of report\n", id="footer"),
        pytest.param(HEADER + 'A,u,5" disk\n', id="a quote within"),
        pytest.param((HEADER + "A,u,caf\u00e9\n").encode("latin-1"), id="other bytes"),
        pytest.param(HEADER + f"A,u,{'x' * 200_000}\n", id="a huge cell"),
        pytest.param(HEADER + '"' * 100_000 + "\n", id="nothing but quotes"),
        pytest.param(HEADER + "B,u,n\n" * 200 + "A\0,u,n\n", id="a NUL byte"),
    ],
)
def test_unclear_row_is_a_problem_of_its_own(read, content):
    """It is refused by itself; the rows behind it are read."""
    tail = b"" if isinstance(content, bytes) else ""
    rows, _ = read("fleet.csv", content + (tail or ("Z,u,n\n" if tail == "" else b"Z,u,n\n")))

    assert [bool(row.problems) for row in rows[-2:]] == [True, False]
    assert rows[-1].values[1] == "Z"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("", "is empty", id="nothing"),
        pytest.param("\ufeff", "is empty", id="a mark alone"),
        pytest.param(",,,\n\n", "is empty", id="delimiters alone"),
        pytest.param(HEADER.encode("utf-32"), "UTF-32", id="UTF-32"),
        pytest.param(bytes(range(256)) * 20, "not a text file", id="bytes"),
        pytest.param("machine_code~user_id\nA~u\n", "no column `user_id`", id="unknown delimiter"),
        pytest.param("machine_code,machine_code,user_id\n", "both claim", id="a field twice"),
        pytest.param("A,u,n\nB,u,n\n", "no column", id="no header"),
        pytest.param(HEADER + 'A,u,"n\nB,u,n\n', r":2: a quote .* never closed", id="open quote"),
        pytest.param(HEADER + "A,u," + "x" * 2_000_000, ":2: a line of more", id="endless line"),
        pytest.param(HEADER + "A,u,n\n\nsite,user_id,machine_code\ns,u,B\n",
                     ":4: another table begins here", id="a second table"),
        pytest.param(HEADER + "A,u,n\n" * 300 + "user_id,machine_code,site\nu,B,s\n",
                     ":302: another table begins here", id="a second table of the same width"),
        pytest.param("<html><body>login</body></html>", "a web page", id="a page"),
    ],
)  # fmt: skip
def test_unclear_table_is_refused(read, content, words):
    """What cannot be told apart is not guessed."""
    with pytest.raises(ManifestError, match=words):
        read("fleet.csv", content)


def test_joined_header_hints_at_the_delimiter(read):
    """A header in one cell has another delimiter; the hint says how to tell it."""
    with pytest.raises(ManifestError) as caught:
        read("fleet.csv", "machine_code~user_id\nA~u\n")

    assert "sep=~" in caught.value.hint


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (r'A,u,"Van \"1\""', 'Van "1"'),
        (r'A,u,"\"1\" Van"', '"1" Van'),
        (r'A,u,"C:\dir\"', "C:\\dir\\"),
        ('A,u,"Van ""1"""', 'Van "1"'),
    ],
)
def test_escapes_are_told_by_what_can_be_read(read, row, name):
    """A backslash before a quote escapes it only where the row makes sense that way."""
    rows, _ = read("fleet.csv", f'{HEADER}B,u,""\n{row}\nC,u,"n"\n')

    assert [found.values[1] for found in rows] == ["B", "A", "C"]
    assert list(rows[1].cells)[2] == name


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_odd_characters_end_no_line(read, end, odd):
    """What other programs take for the end of a line stands in a cell, with and without quotes."""
    for quote in ("", '"'):
        table = ["machine_code,user_id,note", f"A,u,{quote}a{odd}b{quote}", "B,u,c", ""]
        rows, _ = read("fleet.csv", end.join(table))

        assert [row.line for row in rows] == [2, 3]
        assert [row.cells for row in rows] == [["A", "u", f"a{odd}b"], ["B", "u", "c"]]


def test_rows_with_breaks_cross_blocks(read):
    """Wherever a block of the file ends, a quoted cell goes on behind it, and lines are counted."""
    row = '"A{0}",u,"' + "x\n" * 40 + '"\n'
    rows, _ = read("fleet.csv", HEADER + "".join(row.format(n) for n in range(3000)))

    assert [found.values[1] for found in rows] == [f"A{n}" for n in range(3000)]
    assert [found.line for found in rows] == [2 + 41 * n for n in range(3000)]


# --- YAML ----------------------------------------------------------------------------------------

TWO = "- machine_code: A\n  user_id: u\n"


@pytest.mark.parametrize(
    ("content", "values"),
    [
        pytest.param(f"\ufeff{TWO}", ("u", "A"), id="byte order mark"),
        pytest.param(TWO.encode("utf-16"), ("u", "A"), id="UTF-16"),
        pytest.param(f"%YAML 1.2\n---\n{TWO}...\n# end\n", ("u", "A"), id="directive"),
        pytest.param("- machine_code: !!str 0123\n  user_id: !!int 5\n", ("5", "0123"), id="tags"),
        pytest.param("- machine_code: no\n  user_id: on\n", ("on", "no"), id="Norway"),
        pytest.param("- machine_code: 1e3\n  user_id: .inf\n", (".inf", "1e3"), id="numbers"),
        pytest.param("- machine_code: |\n    A\n  user_id: >-\n    u\n", ("u", "A"), id="blocks"),
        pytest.param('- machine_code: "\\x41\\u0042"\n  user_id: u\n', ("u", "AB"), id="escapes"),
        pytest.param("- ? machine_code\n  : A\n  ? user_id\n  : u\n", ("u", "A"), id="? keys"),
        pytest.param(TWO.replace("\n", "\r\n"), ("u", "A"), id="CRLF"),
        pytest.param("- &a {user_id: u, machine_code: A}\n- *a\n", ("u", "A"), id="alias"),
        pytest.param("- &a {user_id: u, machine_code: A}\n- <<: *a\n", ("u", "A"), id="merge"),
        pytest.param(f"---\n---\n{TWO}---\n{TWO}", ("u", "A"), id="documents"),
    ],
)
def test_clear_yaml_is_read_as_it_is_written(read, content, values):
    """Every scalar is the text that was written; documents, aliases and merges are followed."""
    rows, _ = read("fleet.yaml", content)

    assert {(row.values[:2], row.problems) for row in rows} == {(values, ())}


@pytest.mark.parametrize(
    "content",
    [
        "- &a {machine_code: A, user_id: u, x: *a}\n", "&a [*a]\n", "- machine_code: *x\n",
        "- <<: x\n  machine_code: A\n", f"{TWO}}}\n", "[" * 100_000, "{a: " * 100_000,
        "- machine_code: A\n\tuser_id: u\n", "%YAML 2.0\n---\n" + TWO, "hello\n", "a: 1\nb: 2\n",
        "devices:\n", "devices: []\ndevices: []\n", "# nothing\n", '- machine_code: "\\ud800"\n',
        "- machine_code: @A\n", "[{machine_code: A, user_id: u}", '- machine_code: "\x07"\n',
        "- ? [a, b]\n  : c\n", b"- machine_code: \xff\n", "- machine_code: " + "x" * 3_000_000,
        '- machine_code: "A\n' + TWO * 3000, "--- |\n text\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi",
                                                                       strict=True)),
    ],
    ids=short,
)  # fmt: skip
def test_unclear_yaml_is_refused(read, content):
    """With the file's name, and the line where there is one."""
    with pytest.raises(ManifestError, match=r"^fleet\.yaml") as caught:
        read("fleet.yaml", content)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "- machine_code: !!python/object/apply:os.system [id]\n  user_id: u\n",
        "- !!set {machine_code, user_id}\n", "- !!omap [machine_code: A, user_id: u]\n",
        "- - machine_code: A\n", "- A\n", "-\n", "- machine_code: ~\n  user_id: null\n",
        "- machine_code: 12:30:45\n  user_id: u\n",
    ],
    ids=short,
)  # fmt: skip
def test_unclear_device_is_a_problem_of_its_own(read, content):
    """No tag makes anything but text; what is no device is refused by itself."""
    rows, _ = read("fleet.yaml", content + "- {machine_code: Z, user_id: u}\n")

    assert [row.device is None for row in rows] == [True, False]

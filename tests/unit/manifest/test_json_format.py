"""JSON Lines and JSON documents: numbers as they were written, one device at a time."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.text import LONGEST_LINE
from bulkbind.model import Device
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, outline

A = '{"machine_code": "A", "user_id": "u"}'
B = '{"machine_code": "B", "user_id": "u"}'


@pytest.fixture
def lines(tmp_path):
    """Return a function that opens what is written into `fleet.jsonl`."""
    return opener(tmp_path / "fleet.jsonl")


@pytest.fixture
def document(tmp_path):
    """Return a function that opens what is written into `fleet.json`."""
    return opener(tmp_path / "fleet.json")


def found(rows):
    """Return of every row its line, and what each problem says was found."""
    return [(row.line, [problem.found for problem in row.problems]) for row in rows]


# --- JSON Lines ----------------------------------------------------------------------------------


def test_a_line_is_a_device(lines):
    """Each line becomes a device; blank lines are counted, other keys are kept and named."""
    opened = lines(f'{A}\n\n{{"machine_code": 12, "user_id": "u", "site": {{"x": [1]}}}}\n')
    rows = list(opened.rows())

    assert outline(rows) == [(1, "A"), (3, "12")]
    assert rows[1].cells == {"machine_code": 12, "user_id": "u", "site": {"x": [1]}}
    assert opened.source.format == "jsonl"
    assert opened.notices == [
        "fleet.jsonl: 1 blank line passed over",
        "fleet.jsonl: keys kept but not sent: site",
    ]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('"0123"', "0123"),
        ("123", "123"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("5E4", "5E4"),
        ('"a"', "a"),
    ],
)
def test_number_is_the_text_that_was_written(lines, value, code):
    """No digit of a number is changed, however long it is."""
    [row] = lines(f'{{"machine_code": {value}, "user_id": "u"}}').rows()

    assert row.device == Device("u", code)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"machine_code": "A"', "Expecting ',' delimiter"),
        ("[1, 2]", "it is a list"),
        ('"A"', "it is a text"),
        ("null", "it is empty"),
        (
            '{"machine_code": "A", "machine_code": "B", "user_id": "u"}',
            "`machine_code` stands twice",
        ),
        ('{"machine_code": NaN, "user_id": "u"}', "NaN is no JSON value"),
        (f"{A} {B}", "something stands behind the value"),
        ("[" * 100_000, "nested too deeply"),
        ('{"machine_code": true, "user_id": "u"}', "it is true"),
        ('{"machine_code": {"a": 1}, "user_id": "u"}', "it is a mapping"),
        ('{"machine_code": 1.5, "user_id": "u"}', "'.' (U+002E FULL STOP) at position 2"),
        ('{"machine_code": "\\ud800", "user_id": "u"}', "U+D800"),
    ],
)
def test_broken_line_is_a_problem_of_its_own(lines, line, words):
    """A line that is no clear JSON object says why, and the others are read."""
    rows = list(lines(f"{A}\n{line}\n{B}\n").rows())

    assert outline(rows) == [(1, "A"), (2, None), (3, "B")]
    assert words in rows[1].problems[0].found
    assert all(value is None or value.encode() for value in rows[1].values)


def test_line_without_end_is_refused(lines):
    """A line over the bound ends the reading, without being held in memory."""
    with pytest.raises(ManifestError, match=r"fleet\.jsonl:\d+: a line of more than"):
        list(lines(f"{A}\n" + "x" * 3 * LONGEST_LINE).rows())


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mapping", "outcome"),
    [
        pytest.param(f"[{A},\n {B}]", {}, [(1, "A"), (2, "B")], id="array"),
        pytest.param("[]", {}, [], id="empty array"),
        pytest.param(
            '{"x": 1, "defaults": {"user_id": "u"},\n "devices": [{"machine_code": "A"}]}',
            {},
            [(2, "A")],
            id="defaults and devices",
        ),
        pytest.param(
            '{"A": {"user_id": "u"},\n "B": {"user_id": "u"}}',
            {"machine_code": "@key"},
            [(1, "A"), (2, "B")],
            id="devices under their keys",
        ),
        pytest.param(
            '{"devices": {"A": {"user_id": "u"}}}',
            {"machine_code": "@key"},
            [(1, "A")],
            id="devices as a mapping",
        ),
        pytest.param(
            '[{"data": {"ids": [{"sn": "A"}]}, "user_id": "u"}]',
            {"machine_code": "data.ids.0.sn"},
            [(1, "A")],
            id="path",
        ),
    ],
)
def test_forms_of_a_document(document, text, mapping, outcome):
    """Devices stand in an array, under `devices`, or under keys of their own."""
    assert outline(document(text, columns=mapping).rows()) == outcome


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1 2]", "`,` or `]` is missing"),
        (f"[{A}", "`,` or `]` is missing; here is the end of the file"),
        (f"[{A}] x", "'x' stands behind the end"),
        (f"[{A}, ]", "Expecting value"),
        (f'{{"devices": [{A}], "defaults": {{}}}}', "`devices` is an array"),
        ('{"machines": []}', "no `devices` in it"),
        ('{"a": {"b": 1, "b": 2}, "devices": []}', "key `b` stands twice"),
        ("{machine_code: 1}", "a key in double quotes is missing"),
        ("nonsense", "no array and no object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_document_is_refused_with_its_line(document, text, words):
    """What is no JSON, or not a manifest, is an error that names file and line."""
    with pytest.raises(ManifestError, match=r"^fleet\.json") as caught:
        list(document(text).rows())

    assert words in str(caught.value)


def test_rows_before_the_break_are_read(document):
    """Devices before what is broken are given, so that their problems can be seen, too."""
    rows = document(f"[{A}, {B}, oops]").rows()

    assert [next(rows).device, next(rows).device] == [Device("u", "A"), Device("u", "B")]
    with pytest.raises(ManifestError):
        next(rows)


def test_document_larger_than_what_is_held_in_memory(document):
    """Values over the edges of what is read at a time are whole, and lines are counted."""
    devices = [
        {"machine_code": f"SN{n}", "user_id": "u", "n": "x" * (n % 500)} for n in range(2000)
    ]
    rows = list(document("[" + ",\n".join(map(json.dumps, devices)) + "]").rows())

    assert [row.cells for row in rows] == devices
    assert [row.line for row in rows] == list(range(1, 2001))


def test_device_without_end_is_refused(document):
    """A value over the bound is refused before it fills the memory."""
    with pytest.raises(ManifestError, match="a value of more than"):
        list(document('[{"a": "' + "x" * 3 * LONGEST_LINE).rows())


values = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=8)
objects = st.dictionaries(st.text(max_size=6), values | st.lists(values, max_size=3), max_size=4)


@settings(max_examples=80, deadline=None)
@given(items=st.lists(objects, max_size=6), indent=st.sampled_from([None, 1]), wide=st.booleans())
def test_objects_that_json_wrote_come_back(items, indent, wide):
    """Every object that Python's own writer writes is read back, as a document and as lines."""
    items = [{"machine_code": "A", "user_id": "u"}, *items]
    with TemporaryDirectory() as folder:
        document = Path(folder) / "fleet.json"
        document.write_text(json.dumps(items, indent=indent, ensure_ascii=not wide), "utf-8")
        lines = Path(folder) / "fleet.jsonl"
        text = "\n".join(json.dumps(item, ensure_ascii=not wide) for item in items)
        lines.write_text(text, "utf-8")
        read = [list(open_manifest(p, ManifestSettings()).rows()) for p in (document, lines)]

    assert [row.cells for row in read[0]] == items
    assert [row.cells for row in read[1]] == items
    assert found(read[0][:1]) == [(2 if indent else 1, [])]


@pytest.mark.parametrize(
    ("content", "place", "cause"),
    [
        ('[{"machine_code": "A"}, // x\n{}]', "1:25", "no comments"),
        ("// x\n[]", "1:1", "no comments"),
        ("[{'machine_code': 'A'}]", "1:3", "printed by Python"),
        ('[{"machine_code": None}]', "1:19", "printed by Python"),
        ("[{machine_code: 1}]", "1:3", "stand in double quotes"),
        ('[{"machine_code": "A"}, {"machine_code": "B"', "1:45", "breaks off here"),
        ('[{"machine_code": "A", "n": "NaN", "x": -Infinity}]', "1:41", "`null` is"),
        ('[{"machine_code": "A"}, {"machine_code": NaN}]', "1:42", "`null` is"),
    ],
)
def test_error_names_the_place_and_the_likely_cause(document, content, place, cause):
    """What other programs write in place of JSON is named for what it is."""
    with pytest.raises(ManifestError, match=f"fleet.json:{place}: .*{cause}"):
        list(document(content, user_id="u").rows())


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{'machine_code': 'A'}", "printed by Python"),
        ('\x1e{"machine_code": "A"}', "RFC 7464"),
        ('{"machine_code": "A"', "breaks off here"),
    ],
)
def test_line_that_is_no_json_has_its_likely_cause(lines, content, cause):
    """It is a problem of its row."""
    [row, _] = lines(f"{content}\n{A}\n").rows()

    assert cause in row.problems[0].hint

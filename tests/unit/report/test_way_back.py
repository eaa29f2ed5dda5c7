"""The way back: failed files of YAML and JSON give the operator's own text again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.report.tables import write_failed
from bulkbind.settings import ManifestSettings
from tests.support.generated.json_files import json_file, json_lines_file
from tests.support.generated.made import differences, failed_row, meaning, returned
from tests.support.generated.yaml_files import yaml_file

OWN_JSON = ', "bulkbind_status": "invalid", "bulkbind_reason": "why"}'
NOTE = '{"bulkbind_status": "invalid", "bulkbind_reason": "why"}'
REFUSED = "- bulkbind_status: invalid\n  bulkbind_reason: why\n"


@pytest.fixture
def back(tmp_path):
    """Return a function that reads a text, and returns rows, rows read again, and failed text."""

    def came(name, content, **given_settings):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        reading = ManifestSettings(**given_settings)
        manifest = open_manifest(path, reading, name)
        rows = list(manifest.rows())
        return rows, *returned(manifest, rows, reading, tmp_path)

    return came


@pytest.mark.parametrize(
    "line",
    [
        '{"machine_code": 1e5, "user_id": "u1", "device_name": "a#b"}',
        '{"machine_code": 0.10, "user_id": "u1", "device_name": "ok"}',
        '{"machine_code":"SN-1" , "iccid": 8944110068000000001,"ver":1.10, "n": -0}',
        '{"machine_code": 123456789012345678901234567890, "x": 1E400, "y": -0.0}',
        '{"machine_code": "\\u0041-", "n\\u0061me": "\\ud83d\\ude00 \\/ \u00e9", "z": "\\ud800"}',
        '{"user_id": "u1", "user_id": "u2", "machine_code": "A"}',
        '  {"machine_code": "A"}\t',
        '{"": "", "a" : {"b":[1.0,{"c":null}]}, "machineCode" : null}',
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "stream"])
def test_object_comes_back_letter_by_letter(back, line, form):
    """Numbers, escapes, blanks, order and repeated keys are those that were written."""
    name, content = {
        "jsonl": ("fleet.jsonl", f"{line}\n"),
        "json": ("fleet.json", f"[\n{line}\n]"),
        "stream": ("fleet.json", f"{line}\n\n{line}{line}"),
    }[form]
    rows, again, text = back(name, '{"machine_code": "OK"}\n' * (form == "jsonl") + content)
    status = "failed" if rows[-1].device else "invalid"
    bare = line.strip() if form != "jsonl" else line
    expected = (
        bare.replace("}", OWN_JSON.replace("invalid", status), 1) if "{" not in bare[3:] else ""
    )

    assert [meaning(row) for row in again] == [meaning(row) for row in rows]
    assert bare.rstrip("}\t") in text
    assert not expected or expected in text


@pytest.mark.parametrize(
    "line",
    ["not json", "{", "{ ", '{"', '{"a', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1, ', "}",
     '{"machine_code": "A"', "[1, 1.10]", "null", "1e5", '{"a": NaN}', "{} {}", "{}",
     '"\udcff"', '{"a":\t"\x01"}'],
)  # fmt: skip
def test_line_that_is_no_object_comes_back_behind_its_reason(back, line):
    """A broken line stands as it was, so that it can be fixed; its reason is no row."""
    content = f'{{"machine_code": "A", "user_id": "u"}}\n{line}\n'
    rows, again, text = back("fleet.jsonl", content.encode("utf-8", "surrogateescape"))

    assert f"{NOTE}\n{line}\n" in text
    assert [meaning(row) for row in again] == [meaning(row) for row in rows]
    assert len(again) == 2


def test_own_members_are_replaced(back, tmp_path):
    """However often a device comes back, it has one status, and else what was written."""
    line = '{\n  "machine_code": "A-1",\n  "user_id": 1.0\n}'
    _, _, first = back("fleet.json", f"[{line}]")
    manifest = open_manifest(
        tmp_path / "report/failed/fleet.json", ManifestSettings(), "fleet.json"
    )
    _, second = returned(manifest, list(manifest.rows()), ManifestSettings(), tmp_path / "again")

    assert second == first
    assert first == (
        '[\n{\n  "machine_code": "A-1",\n  "user_id": 1.0,\n  "bulkbind_status": "invalid",\n'
        '  "bulkbind_reason": "why"\n}\n]\n'
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- machine_code: !secret x # no\n  '0': !!str 1.10\n",) * 2,
        ("- machine_code: SN-1\n  user_id: u1\n  user_id: u2\n",) * 2,
        ("- !device\n  machine_code: A\n",) * 2,
        ("- machine_code: \"\\x41-\"\n  n: |+\n    # kept\n\n  m: '0123'\n",) * 2,
        ("- machine_code: a-b\n  n: 0123\n  ? q\n  : [1.0,  {a: 'b'}]\n",) * 2,
        (
            "devices:\n    - machine_code: A-1\n      x:\n          - 1.0\n",
            "-     machine_code: A-1\n      x:\n          - 1.0\n",
        ),
        (
            "machine_code: A-1\nx: >\n two\n lines\n---\nmachine_code: B-1\n",
            "- machine_code: A-1\n  x: >\n   two\n   lines\n",
        ),
        (
            "defaults: {user_id: 007, site: !x y}\ndevices:\n- machine_code: A-1\n",
            "- user_id: 007\n  site: !x y\n  machine_code: A-1\n",
        ),
        (
            "x: &b {user_id: 'null', n: 1.10}\ndevices:\n- machine_code: A-1\n  <<: *b\n",
            "- machine_code: A-1\n  <<: {user_id: 'null', n: 1.10}\n",
        ),
        (
            "- {machine_code: &a A-1, n: &n [1.0]}\n- {machine_code: *a, x: u, x: *n}\n",
            "- {machine_code: A-1, x: u, x: [1.0] , bulkbind_status",
        ),
        ("- [machine_code,  A]\n", REFUSED + "- [machine_code,  A]\n"),
        ("- 'SN1'\n", REFUSED + "- 'SN1'\n"),
        ("- {}\n", REFUSED + "- {}\n"),
        ("-\n", REFUSED + "- \n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_yaml_comes_back_as_it_was_written(back, content, expected, end):
    """Scalars, tags, order, comments and repeated keys are the operator's; aliases their values."""
    rows, again, text = back("fleet.yaml", content.replace("\n", end))

    assert expected in text.replace("\r\n", "\n")
    assert [meaning(row) for row in again] == [meaning(row) for row in rows]


def test_keys_of_devices_come_back(back):
    """A device under a key of its own comes back with it, in either format."""
    for name in ("fleet.json", "fleet.yaml"):
        content = '{"SW-1": {"x": 1.10}, "SW-2": {}, "SW-3": null}'
        rows, again, text = back(name, content, columns={"machine_code": "@key"}, user_id="u")

        assert [row.values[1] for row in again] == ["SW-1", "SW-2", "SW-3"]
        assert [meaning(row) for row in again] == [meaning(row) for row in rows]
        assert "1.10" in text


def test_defaults_come_back_also_with_a_broken_device(back):
    """A device that is fixed has the user that its document gave it."""
    for name, content in (
        ("f.json", '{"defaults": {"user_id": 1.0}, "devices": [{"x": 1, "x": 2}, 5]}'),
        ("f.yaml", "defaults: {user_id: 1.0}\ndevices: [{x: 1, x: 2}, 5]\n"),
    ):
        rows, again, text = back(name, content)

        assert [meaning(row) for row in again] == [meaning(row) for row in rows]
        assert text.count("1.0") == 1


def test_mapping_of_an_older_ledger_is_still_written(tmp_path):
    """Rows staged by an earlier version are mappings; they come back as well as they can."""
    for name in ("f.json", "f.jsonl", "f.yaml"):
        path = tmp_path / name
        path.write_text('[{"machine_code": "A"}]' if name == "f.json" else '{"machine_code": "A"}')
        manifest = open_manifest(path, ManifestSettings(), name)
        [row] = manifest.rows()
        old = replace(failed_row(row), cells=json.dumps(row.cells))
        [failed] = write_failed(tmp_path / "out", [old], [manifest.source])

        assert [again.values[1] for again in open_manifest(failed, ManifestSettings()).rows()] == [
            "A"
        ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**40), maker=st.sampled_from([json_file, json_lines_file, yaml_file]))
def test_files_of_known_meaning_are_read_rightly_and_come_back(seed, maker):
    """Whatever is made: the right devices, the right problems, and the operator's own text."""
    with TemporaryDirectory() as folder:
        assert differences(maker(Random(seed)), Path(folder)) == []


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
nodes = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    items=st.lists(nodes, max_size=5),
    indent=st.sampled_from([None, 0, 2]),
    form=st.sampled_from(["json", "jsonl", "yaml"]),
    wide=st.booleans(),
)
def test_any_values_come_back(items, indent, form, wide):
    """Lists of anything: what comes back says the same, problems included."""
    items = [{"machine_code": "A", "user_id": "u"}, *items]
    indent = None if form == "jsonl" else indent
    written = [json.dumps(item, indent=indent, ensure_ascii=not wide) for item in items]
    text = "\n".join(written) if form == "jsonl" else f"[{', '.join(written)}]"
    with TemporaryDirectory() as folder:
        path = Path(folder, f"fleet.{form}")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            manifest = open_manifest(path, ManifestSettings(), path.name)
            rows = list(manifest.rows())
        except ManifestError:
            if form != "yaml":  # which knows fewer characters than JSON
                raise
            return
        again, failed = returned(manifest, rows, ManifestSettings(), Path(folder))

    assert [meaning(row) for row in again] == [meaning(row) for row in rows]
    if form != "yaml":
        assert all(item.rstrip("]}\n ") in failed for item in written)

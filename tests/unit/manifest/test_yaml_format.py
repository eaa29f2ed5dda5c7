"""YAML manifests: every scalar as text, nothing guessed, and no file that blows up."""

from __future__ import annotations

import codecs
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import pytest
import yaml
from hypothesis import given, settings, strategies as st

from bulkbind.errors import ManifestError
from bulkbind.manifest import open_manifest
from bulkbind.manifest.likely_causes import damage_of
from bulkbind.model import Device
from bulkbind.settings import ManifestSettings
from tests.support.manifests import opener, outline
from tests.support.rows import device, values


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.yaml`."""
    return opener(tmp_path / "fleet.yaml")


@pytest.fixture
def read(manifest):
    """Return a function that reads all rows of what is written into `fleet.yaml`."""
    return lambda content, **given: list(manifest(content, **given).rows())


def rules(row):
    """Return of every problem of a row the field, the operator's key, and what was found."""
    return [(problem.field, problem.column, problem.found) for problem in row.problems]


# --- Forms ---------------------------------------------------------------------------------------


def test_list_of_mappings(read):
    """A list of mappings is read item by item, each with the line on which it begins."""
    rows = read(
        "# fleet\n"
        "- machine_code: A\n"
        "  user_id: u1\n"
        "  deviceName: Van 1\n"
        "- {machineCode: B, userId: u2, deviceOS: Android 15}\n"
        "-\n"
        "  machine_code: C\n"
        "  user_id: u3\n"
    )

    assert [row.device for row in rows] == [
        device("u1", "A", "Van 1", None),
        device("u2", "B", None, "Android 15"),
        Device("u3", "C"),
    ]
    assert [row.line for row in rows] == [2, 5, 7]
    assert rows[0].cells == {"machine_code": "A", "user_id": "u1", "deviceName": "Van 1"}
    assert rows[1].values == values("u2", "B", None, "Android 15")


def test_defaults_fill_what_a_device_does_not_say(read):
    """Defaults stand for every device, and a device's own word comes before them."""
    rows = read(
        "defaults:\n"
        "  user_id: u\n"
        "  device_os: Android 15\n"
        "devices:\n"
        "  - machine_code: A\n"
        "  - machine_code: B\n"
        "    user_id: other\n"
        "    device_os: ''\n"
    )

    assert [row.device for row in rows] == [
        device("u", "A", None, "Android 15"),
        device("other", "B", None, None),
    ]
    assert rows[0].cells == {"user_id": "u", "device_os": "Android 15", "machine_code": "A"}


def test_other_spelling_of_a_field_overrides_its_default(read):
    """A device may say in the API's spelling what the defaults say in ours."""
    [row] = read("defaults:\n  user_id: u\ndevices:\n- machineCode: A\n  userId: other\n")

    assert row.device == Device("other", "A")
    assert row.cells == {"machineCode": "A", "userId": "other"}


def test_user_given_fills_rows_without_one(read):
    """The user given is for devices that have none, defaults included."""
    rows = read("- {machine_code: A}\n- {machine_code: B, user_id: own}\n", user_id="given")

    assert [row.device.user_id for row in rows] == ["given", "own"]


def test_keys_can_be_mapped(read):
    """The operator's own keys stand for fields of ours, and messages use them."""
    good, bad = read(
        "- {serial: A, owner: u}\n- {serial: B-1, machine_code: C}\n",
        columns={"machine_code": "serial", "user_id": "owner"},
    )

    assert good.device == Device("u", "A")
    assert rules(bad) == [
        ("user_id", "owner", "it is missing"),
        ("machine_code", "serial", "'-' (U+002D HYPHEN-MINUS) at position 2"),
    ]


def test_unknown_keys_are_kept_with_one_notice(manifest):
    """Keys that are not sent stay in the cells, whatever they hold, and are named once."""
    opened = manifest(
        "- {machine_code: A, user_id: u, site: x, tags: [1, 2]}\n"
        "- {machine_code: B, user_id: u, site: y, bulkbind_status: failed, bulkbind_reason: no}\n"
    )
    rows = list(opened.rows())

    assert outline(rows) == [(1, "A"), (2, "B")]
    assert rows[0].cells["tags"] == ["1", "2"]
    assert opened.notices == ["fleet.yaml: keys kept but not sent: site, tags"]


def test_other_keys_at_the_top_are_passed_over(manifest):
    """What stands beside `defaults:` and `devices:` is named and harmless."""
    opened = manifest(
        "version: 1\nowner: {name: [a, b]}\ndevices:\n- {machine_code: A, user_id: u}\nnotes: x\n"
    )

    assert outline(opened.rows()) == [(4, "A")]
    assert opened.notices == ["fleet.yaml: keys that are not used: version, owner, notes"]


@pytest.mark.parametrize(
    "content", ["[]\n", "devices: []\n", "defaults: {user_id: u}\ndevices: []\n"], ids=repr
)
def test_empty_list_has_no_rows(read, content):
    """A manifest of no devices is a manifest without rows."""
    assert read(content) == []


def test_several_documents_are_read_one_after_the_other(read):
    """Every document of a file brings its devices, with lines counted through; empty ones none."""
    rows = read(
        "- {machine_code: A, user_id: u}\n"
        "---\n"
        "devices:\n"
        "- {machine_code: B, user_id: u}\n"
        "...\n"
        "---\n"
        "---\n"
        "- {machine_code: C, user_id: u}\n"
    )

    assert outline(rows) == [(1, "A"), (4, "B"), (8, "C")]


def test_defaults_hold_for_their_own_document(read):
    """A device of another document gets no user that its own document does not name."""
    rows = read(
        "defaults: {user_id: u, device_os: x}\n"
        "devices:\n"
        "- {machine_code: A}\n"
        "---\n"
        "- {machine_code: B}\n"
        "---\n"
        "devices:\n"
        "- {machine_code: C, user_id: v}\n"
    )

    assert outline(rows) == [(3, "A"), (5, None), (8, "C")]
    assert rules(rows[1]) == [("user_id", "user_id", "it is missing")]
    assert rows[2].device == Device("v", "C")


def test_anchors_hold_for_their_own_document(read):
    """An alias names an anchor of its own document, as YAML has it."""
    with pytest.raises(ManifestError, match=r"fleet\.yaml:3: alias `\*a` has no anchor"):
        read("- {machine_code: &a A, user_id: u}\n---\n- {machine_code: *a, user_id: u}\n")


@pytest.mark.parametrize(
    ("codec", "mark"),
    [
        pytest.param("utf-8", codecs.BOM_UTF8, id="UTF-8 with BOM"),
        pytest.param("utf-16-le", codecs.BOM_UTF16_LE, id="UTF-16 LE with BOM"),
        pytest.param("utf-16-be", codecs.BOM_UTF16_BE, id="UTF-16 BE with BOM"),
    ],
)
def test_byte_order_marks(manifest, codec, mark):
    """A marked file is read by its mark, and its form is kept for writing back."""
    text = "- machine_code: A\n  user_id: u\n  site: gr\u00f6\u00dfer \U0001f600\n"
    opened = manifest(mark + text.encode(codec))
    [row] = opened.rows()

    assert row.cells == {"machine_code": "A", "user_id": "u", "site": "gr\u00f6\u00dfer \U0001f600"}
    assert (opened.source.format, opened.source.encoding, opened.source.bom) == (
        "yaml",
        codec,
        True,
    )


# --- Scalars -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scalar",
    ["0123", "no", "yes", "on", "true", "1_000", "1e5", "0x1F", "123", "0o17", "_", "2026_01"],
)
def test_scalar_is_the_text_that_was_written(read, scalar):
    """No scalar is taken for a number, a truth value or anything but its own text."""
    [row] = read(f"- {{machine_code: {scalar}, user_id: u}}\n")

    assert row.device == Device("u", scalar)


@pytest.mark.parametrize("scalar", ["12:34", "1.50", ".inf", "2026-01-02", "+1", "-0", "="])
def test_scalar_of_other_types_is_text_too(read, scalar):
    """Times, dates and fractions reach the rules as they were written."""
    [row] = read(f"- {{machine_code: A, user_id: {scalar}}}\n")

    assert row.device == Device(scalar, "A")


@pytest.mark.parametrize("absent", ["null", "Null", "NULL", "~", ""])
def test_null_is_absent(read, absent):
    """An unquoted null, in any of its spellings, is a field that is not there."""
    [row] = read(f"- machine_code: A\n  user_id: u\n  device_name: {absent}\n")

    assert row.device == device("u", "A", None, None)


@pytest.mark.parametrize("absent", ["null", "~", ""])
def test_null_in_a_required_field_is_missing(read, absent):
    """A required field that is null is missing; it never becomes a device called null."""
    [row] = read(f"- user_id: u\n  machine_code: {absent}\n")

    assert rules(row) == [("machine_code", "machine_code", "it is missing")]


def test_null_in_a_device_takes_a_default_away(read):
    """A device that says null has none, and the user given steps in."""
    content = "defaults: {user_id: u}\ndevices:\n- {machine_code: A, user_id: ~}\n"
    [without] = read(content)
    [row] = read(content, user_id="given")

    assert rules(without) == [("user_id", "user_id", "it is missing")]
    assert row.device == Device("given", "A")


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("'null'", "null"),
        ('"null"', "null"),
        ("'~'", "~"),
        ("!!str null", "null"),
        ("nulls", "nulls"),
        ("'  u  '", "u"),
        ('"\\u00a0u"', "u"),
    ],
)
def test_quoted_null_is_text(read, scalar, value):
    """What is quoted or tagged as text is text; white space around it goes."""
    [row] = read(f"- machine_code: A\n  user_id: {scalar}\n", placeholders=("none",))

    assert row.device == Device(value, "A")


@pytest.mark.parametrize("empty", ["''", '""', "'  '", '"\\u00a0"', "|\n    \n"])
def test_empty_text_is_absent(read, empty):
    """A text of nothing or of blanks is a field that is not there."""
    [row] = read(f"- machine_code: A\n  user_id: u\n  device_name: {empty}\n")

    assert row.device == Device("u", "A")


def test_block_scalar_is_one_text(read):
    """A text over several lines is one value, line breaks inside it kept."""
    [row] = read("- machine_code: A\n  user_id: u\n  device_name: |\n    Van\n    1\n")

    assert row.device == device("u", "A", "Van\n1", None)


# --- Keys that stand twice -----------------------------------------------------------------------


def test_key_that_stands_twice_spoils_its_own_device_alone(read):
    """A device with a key twice is a problem that names key and line; its neighbours are read."""
    rows = read(
        "- {machine_code: A, user_id: u}\n"
        "- machine_code: B\n"
        "  user_id: u\n"
        "  machine_code: X\n"
        "  tags: [1, {a: b}]\n"
        "- {machine_code: C, user_id: u}\n"
    )

    assert outline(rows) == [(1, "A"), (2, None), (6, "C")]
    assert rules(rows[1]) == [("row", "row", "`machine_code` stands again in line 4")]
    assert rows[1].problems[0].value == "machine_code"


@pytest.mark.parametrize(
    "second",
    [
        pytest.param("tags: {a: 1, a: 2}", id="in a mapping within"),
        pytest.param("tags: [x, [y, {a: 1, a: 2, b: [c]}], z]", id="deep within"),
        pytest.param("null: 1\n  ~: 2", id="the empty key"),
        pytest.param("tags: 1\n  'tags': 2", id="quoted and not"),
        pytest.param("tags: 1\n  tags: [[1], {b: c}]", id="a list the second time"),
    ],
)
def test_key_that_stands_twice_anywhere_in_a_device(read, second):
    """Also within the values of a device a key stands once, and reading goes on behind it."""
    rows = read(f"- machine_code: A\n  user_id: u\n  {second}\n- {{machine_code: B, user_id: u}}\n")

    assert rows[0].device is None
    assert [problem.field for problem in rows[0].problems] == ["row"]
    assert rows[1].device == Device("u", "B")
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("content", "line", "key"),
    [
        ("devices: []\ndevices: []\n", 2, "devices"),
        ("defaults: {}\nx: 1\ndefaults: {}\ndevices: []\n", 3, "defaults"),
        ("defaults:\n  user_id: u\n  user_id: v\ndevices: []\n", 3, "user_id"),
        ("other: {a: 1, a: 2}\ndevices: []\n", 1, "a"),
    ],
)
def test_key_that_stands_twice_outside_the_devices_is_refused(read, content, line, key):
    """Where it may concern every device, a key that stands twice refuses the file with its line."""
    with pytest.raises(ManifestError, match=rf"fleet\.yaml:{line}: key `{key}` stands twice"):
        read(content)


def test_two_keys_for_one_field_are_a_problem_of_the_device(read):
    """Two spellings of one field in a device: nothing is guessed."""
    [row] = read("- {machine_code: A, user_id: u, machineCode: B}\n")

    assert row.device is None
    assert rules(row) == [("machine_code", "machineCode", "`machine_code` claims it, too")]


# --- Anchors, aliases, merge keys ----------------------------------------------------------------


def test_aliases_are_resolved(read):
    """An alias stands for what its anchor marks: a text, a whole device, a list."""
    rows = read(
        "- &first {machine_code: A, user_id: &user u, tags: &tags [x]}\n"
        "- {machine_code: B, user_id: *user, tags: *tags}\n"
        "- *first\n"
    )

    assert [row.device for row in rows] == [Device("u", "A"), Device("u", "B"), Device("u", "A")]
    assert rows[1].cells["tags"] == ["x"]
    assert [row.line for row in rows] == [1, 2, 3]


def test_anchor_of_another_key_at_the_top(read):
    """Anchors may be defined beside the devices."""
    [row] = read("x-base: &base {user_id: u}\ndevices:\n- {<<: *base, machine_code: A}\n")

    assert row.device == Device("u", "A")


def test_anchor_can_be_given_anew(read):
    """An alias stands for the latest anchor of its name."""
    rows = read(
        "- {machine_code: &a A, user_id: u}\n"
        "- {machine_code: &a B, user_id: u}\n"
        "- {machine_code: *a, user_id: v}\n"
    )

    assert rows[2].device == Device("v", "B")


@pytest.mark.parametrize(
    ("device", "cells"),
    [
        pytest.param("{<<: *a, machine_code: B}", {"user_id": "u", "site": "x"}, id="added"),
        pytest.param(
            "{machine_code: B, user_id: own, <<: *a}",
            {"user_id": "own", "site": "x"},
            id="own first",
        ),
        pytest.param(
            "{<<: [*b, *a], machine_code: B}", {"user_id": "v", "site": "x"}, id="earlier first"
        ),
        pytest.param("{<<: {user_id: w}, machine_code: B}", {"user_id": "w"}, id="in place"),
    ],
)
def test_merge_key_adds_what_the_device_does_not_say(read, device, cells):
    """`<<` takes over a mapping or several; the device's own keys come first, then earlier ones."""
    rows = read(f"- &a {{user_id: u, site: x}}\n- &b {{user_id: v}}\n- {device}\n")

    assert rows[2].cells == {"machine_code": "B", **cells}
    assert rows[2].device == Device(cells["user_id"], "B")


def test_merge_key_works_in_defaults(read):
    """Defaults may be put together from others."""
    [row] = read("x: &x {user_id: u}\ndefaults: {<<: *x}\ndevices: [{machine_code: A}]\n")

    assert row.device == Device("u", "A")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            "- {machine_code: *none}\n", r":1: alias `\*none` has no anchor", id="unknown"
        ),
        pytest.param("- &a [*a]\n", r":1: alias `\*a` has no anchor", id="itself"),
        pytest.param("- &a {b: *a}\n", r":1: alias `\*a` has no anchor", id="its own device"),
        pytest.param("- {<<: text}\n", ":1: `<<` takes a mapping", id="merging a text"),
        pytest.param("- {<<: [x]}\n", ":1: `<<` takes a mapping", id="merging a list of texts"),
        pytest.param("- {[a]: b}\n", ":1: a key must be a text", id="a list as key"),
    ],
)
def test_what_has_no_meaning_is_refused(read, content, message):
    """An alias to nothing, a merge of no mapping and a key of no text are refused with the line."""
    with pytest.raises(ManifestError, match=rf"fleet\.yaml{message}"):
        read(content)


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "top",
    ["- {machine_code: A, user_id: u, x: %s}\n", "x: %s\ndevices: []\n"],
    ids=["in", "beside"],
)
def test_alias_bomb_is_refused_at_once(read, top):
    """Aliases that stand for a billion values are refused before they are built."""
    bomb = "[&a [x, x, x, x, x, x, x, x, x, x]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f", &{name} [{', '.join([f'*{before}'] * 10)}]"
    began = perf_counter()
    with pytest.raises(ManifestError, match="more than 1000 values in one device"):
        read(top % f"{bomb}]")

    assert perf_counter() - began < 1


def test_merge_bomb_is_refused_at_once(read):
    """Merging the same mapping again and again counts as often as it is used."""
    lines = ["- &a0 {k1: 1, k2: 2, k3: 3}"]
    lines += [f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    with pytest.raises(ManifestError, match="more than 1000 values in one device"):
        read("\n".join(lines))


@pytest.mark.parametrize(
    "deep",
    [
        pytest.param("[" * 30 + "]" * 30, id="lists"),
        pytest.param("{a: " * 30 + "b" + "}" * 30, id="mappings"),
        pytest.param("[" * 50_000, id="lists without end"),
    ],
)
@pytest.mark.parametrize(
    "top",
    ["- {machine_code: A, user_id: u, x: %s}\n", "x: %s\ndevices: []\n"],
    ids=["in", "beside"],
)
def test_deep_nesting_is_refused(read, deep, top):
    """What is nested beyond any use is refused with its line, and never a RecursionError."""
    with pytest.raises(ManifestError, match=r"line 1: exceeded maximum nesting|:1: nested deeper"):
        read(top % deep)


def test_some_nesting_is_fine(read):
    """Unknown keys may hold what an inventory holds."""
    [row] = read(f"- {{machine_code: A, user_id: u, x: {'[' * 15 + ']' * 15}}}\n")

    assert row.device == Device("u", "A")


def test_too_many_anchors_are_refused(read):
    """A file with an anchor for every device would grow in memory, and is refused."""
    content = "".join(f"- &a{n} {{machine_code: A{n}, user_id: u}}\n" for n in range(101))
    with pytest.raises(ManifestError, match=r"fleet\.yaml:101: more than 100 anchors"):
        read(content)


def test_large_device_is_refused(read):
    """A device of more than a thousand values is no device."""
    with pytest.raises(ManifestError, match=r"fleet\.yaml:1: more than 1000 values in one device"):
        read(f"- {{machine_code: A, tags: [{', '.join(['x'] * 1000)}]}}\n")


def test_bounds_are_per_device(read):
    """Many devices of some size each are no large device."""
    tags = ", ".join(["x"] * 200)
    rows = read("".join(f"- {{machine_code: A{n}, user_id: u, t: [{tags}]}}\n" for n in range(30)))

    assert all(row.device for row in rows)
    assert len(rows) == 30


# --- Devices that are none -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "found"),
    [
        ("SN1", "it is a text"),
        ("[SN1, u]", "it is a list"),
        ("''", "it is a text"),
    ],
)
def test_device_that_is_no_mapping_is_a_problem_of_its_row(read, item, found):
    """An item that is not a mapping is reported, and the next device is read."""
    rows = read(f"- {item}\n- {{machine_code: B, user_id: u}}\n")

    assert outline(rows) == [(1, None), (2, "B")]
    assert [problem.field for problem in rows[0].problems] == ["row"]
    assert rules(rows[0]) == [("row", "row", found)]


@pytest.mark.parametrize("item", ["", "~", "null"])
def test_empty_item_is_a_problem_in_yaml_words(read, item):
    """An item without a device is reported as what was written, not as Python's None."""
    [row] = read(f"- {item}\n")

    [problem] = row.problems
    assert (problem.field, row.device) == ("row", None)
    assert "None" not in problem.value


@pytest.mark.parametrize(
    ("value", "found"), [("[A, B]", "it is a list"), ("{code: A}", "it is a mapping")]
)
def test_nested_value_in_a_used_field_is_a_problem(read, value, found):
    """A field of ours holds a text: a list there is one problem, not a missing field, too."""
    [row] = read(f"- {{machine_code: {value}, user_id: a b}}\n")

    assert row.device is None
    assert sorted(rules(row)) == [
        ("machine_code", "machine_code", found),
        ("user_id", "user_id", "' ' (U+0020 SPACE) at position 2"),
    ]


def test_nested_value_in_an_optional_field_is_a_problem_too(read):
    """A device is not bound under a name that could not be read."""
    [row] = read("- {machine_code: A, user_id: u, device_name: [Van]}\n")

    assert row.device is None
    assert rules(row) == [("device_name", "device_name", "it is a list")]


def test_every_problem_of_a_device_is_reported(read):
    """A device that breaks several rules has a problem for each."""
    [row] = read("- {machine_code: A-1, device_name: a.b, deviceOS: c-d}\n")

    assert [problem.field for problem in row.problems] == [
        "user_id",
        "machine_code",
        "device_name",
        "device_os",
    ]
    assert [problem.column for problem in row.problems][3] == "deviceOS"


# --- Files that cannot be read -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "fleet.yaml is empty", id="no byte"),
        pytest.param("\n# nothing\n", "fleet.yaml is empty", id="a comment"),
        pytest.param("---\n...\n", "fleet.yaml is empty", id="an empty document"),
        pytest.param("text\n", "fleet.yaml:1: the file is one text, not a list", id="a text"),
        pytest.param("defaults: {user_id: u}\n", "fleet.yaml: no `devices:`", id="no devices"),
        pytest.param("a: {machine_code: A}\n", "fleet.yaml: no `devices:`", id="other keys"),
        pytest.param("{}\n", "fleet.yaml: no `devices:`", id="empty mapping"),
        pytest.param(
            "devices:\n  a: {machine_code: A}\n", "fleet.yaml:1: `devices:` is a list", id="mapping"
        ),
        pytest.param("devices:\n", "fleet.yaml:1: `devices:` is a list", id="null devices"),
        pytest.param(
            "defaults: [u]\ndevices: []\n",
            "fleet.yaml:1: `defaults:` must be a mapping",
            id="defaults as a list",
        ),
        pytest.param(
            "devices:\n- {machine_code: A, user_id: u}\ndefaults: {user_id: u}\n",
            "fleet.yaml:3: `devices:` is a list, and `defaults:` a mapping that stands before it",
            id="defaults too late",
        ),
    ],
)
def test_file_that_is_no_manifest_is_refused(read, content, message):
    """A file that is YAML but no manifest is refused with what is wrong."""
    with pytest.raises(ManifestError) as caught:
        read(content)

    assert str(caught.value).startswith(message)


def test_empty_defaults_are_none(read):
    """`defaults:` with nothing under it, or commented lines only, sets nothing."""
    [row] = read("defaults:\n  # user_id: u\ndevices:\n- {machine_code: A, user_id: u}\n")

    assert row.device == Device("u", "A")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param("- {machine_code: A, user_id: u}\n- {machine_code: B\n", 3, id="open mapping"),
        pytest.param("- machine_code: A\n\tuser_id: u\n", 2, id="tab"),
        pytest.param("- machine_code: A\n  user_id: 'u\n", 3, id="open quote"),
        pytest.param("- a: b\n  c\n- d\n", 3, id="no colon"),
        pytest.param("- machine_code: A\n user_id: u\n", 2, id="indentation"),
        pytest.param("- @x\n", 1, id="reserved character"),
    ],
)
def test_syntax_error_names_the_line(read, content, line):
    """What is not YAML is refused with the line where it stops being that."""
    with pytest.raises(ManifestError, match=rf"fleet\.yaml is not YAML: line {line}: \S"):
        read(content)


def test_rows_before_a_syntax_error_are_read(manifest):
    """Rows come one at a time: what stands before an error has been yielded."""
    rows = manifest(
        "- {machine_code: A, user_id: u}\n- {machine_code: B, user_id: u}\n- }\n"
    ).rows()

    assert outline([next(rows), next(rows)]) == [(1, "A"), (2, "B")]
    with pytest.raises(ManifestError, match="line 3"):
        next(rows)


def test_bytes_that_are_no_text_are_refused(manifest):
    """YAML is Unicode: other bytes are refused with their place; what stands before is read."""
    rows = manifest(
        b"- {machine_code: A, user_id: u}\n- {machine_code: B, user_id: u}\n- {note: caf\xe9}\n"
    ).rows()

    assert outline([next(rows)]) == [(1, "A")]
    with pytest.raises(ManifestError, match=r"fleet\.yaml is not utf-8: .* at byte 77"):
        list(rows)


def test_mapping_as_a_key_at_the_top_is_refused(read):
    """A mapping as a key is refused as any other thing that has no meaning."""
    with pytest.raises(ManifestError):
        read("? {a: 1, a: 2}\n: x\ndevices: []\n")


# --- Round trip ----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    [
        "null",
        "~",
        "no",
        "0123",
        "1e5",
        "12:34",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "'",
        '"',
        "\n",
        "\x85",
    ]
)
mappings = st.dictionaries(texts.filter(lambda key: key != "<<"), texts, max_size=4)


@settings(max_examples=100, deadline=None)
@given(items=st.lists(mappings, max_size=5), flow=st.booleans(), wide=st.booleans())
def test_mappings_that_yaml_wrote_come_back(items, flow, wide):
    """Every mapping of texts that YAML's safe dumper writes is read back as it was, in order."""
    items = [{"machine_code": "A"}, *items]
    # Not `safe_dump`: with allow_unicode it writes U+0085 so that no reader gets it back.
    text = yaml.dump(
        items,
        Dumper=yaml.CSafeDumper,
        sort_keys=False,
        default_flow_style=flow,
        allow_unicode=wide,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.yaml"
        path.write_text(text, encoding="utf-8")
        rows = list(open_manifest(path, ManifestSettings()).rows())

    assert [row.cells for row in rows] == items


@settings(max_examples=60, deadline=None)
@given(
    code=st.text("aZ09_", min_size=1, max_size=64),
    user=st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128
    ).filter(lambda user: damage_of(user) is None),
)
def test_good_values_that_yaml_wrote_become_the_device(code, user):
    """Identifiers that look like numbers or truth values survive YAML."""
    text = yaml.safe_dump([{"machine_code": code, "user_id": user}])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.yaml"
        path.write_text(text, encoding="utf-8")
        [row] = open_manifest(path, ManifestSettings(placeholders=("none",))).rows()

    assert row.device == Device(user, code)


# --- Merge keys and odd documents ----------------------------------------------------------------


def test_merge_key_twice_is_a_problem(read):
    """Parsers differ in which of the two counts."""
    [row] = read(
        "- machine_code: A\n  a: &a {user_id: u1}\n  b: &b {user_id: u2}\n  <<: *a\n  <<: *b\n"
    )

    assert rules(row) == [("row", "row", "`<<` stands again in line 5")]


def test_quoted_merge_key_is_a_key_like_any_other(read):
    """YAML merges at a plain `<<` alone."""
    [row] = read("- machine_code: A\n  a: &a {user_id: u1}\n  '<<': *a\n", user_id="fallback")

    assert row.device == Device("fallback", "A")


def test_documents_with_nothing_in_them_are_passed_over(read):
    """`null` stands where a program had nothing to print."""
    assert [
        row.device for row in read("---\nnull\n---\nmachine_code: A\n---\n~\n", user_id="u")
    ] == [Device("u", "A")]


def test_template_that_was_not_filled_in_is_named(read):
    """A plain `{{ code }}` is a mapping as a key to YAML."""
    with pytest.raises(ManifestError) as caught:
        read("- machine_code: {{ code }}\n")

    assert "a template that nobody filled in" in caught.value.hint

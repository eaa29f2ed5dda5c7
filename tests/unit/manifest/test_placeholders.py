"""Words that stand where a value is missing are no values."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings, strategies as st

from bulkbind.errors import UsageError
from bulkbind.manifest.placeholders import USUAL, placeholders
from bulkbind.manifest.rules import RULES, keeps
from tests.support.formats import FORMATS, opened
from tests.support.manifests import opener
from tests.support.manual import TOPICS
from tests.support.rows import device

HEADER = ("machine_code", "user_id", "device_name", "device_os")
FOUND = "a placeholder, not a value"
WORDS = [
    *("NA", "na", "Na", "N/A", "n/a", "NULL", "null", "nULL", "\\N", "\\n", "None", "NONE", "nan"),
    *("NaN", "NAN", "undefined", "UNDEFINED", "Undefined", "TBD", "tbd", "unknown", "Unknown"),
    *("UNKNOWN", "-", "--", "---", "?", "???", "0", "00", "000000", "0" * 40, "n.a.", "N.A."),
    *("<null>", "(null)", "[NULL]", "{null}", "<NA>", "'null'", '"N/A"', "(none)", "nil", "tbc"),
    *("TBA", "xxx", "XXXX", "missing", "unset", "not_set", "NotAvailable", "not-available"),
    *("Default_string", "To_be_filled_by_O.E.M.", "unbekannt", "k.A.", "inconnu", "n.d."),
]
WITH_BLANKS = [
    *("not set", "Not Available", "NOT APPLICABLE", "To be filled by O.E.M.", "No Tag", "k. A."),
    *("Default string", "keine Angabe", "—", "\u2013", "未知", "无", "неизвестно", "N / A", "n /a"),
    *("\uff2e\uff35\uff2c\uff2c", "NA\u200b", "\ufeffnull", "N\u00adA"),
]


def told(rows):
    """Return (device, [(field, value, found)]) of rows."""
    return [(row.device, [(p.field, p.value, p.found) for p in row.problems]) for row in rows]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("at", [0, 1])
def test_placeholder_in_a_must_field_is_a_problem(tmp_path, kind, at):
    """In every format, in every case of letters, and no fallback takes its place."""
    values = WORDS + WITH_BLANKS
    rows = []
    for word in values:
        row = ["SN1", "u", "Van", "linux"]
        row[at] = word
        rows.append(row)
    found = told(opened(tmp_path, kind, HEADER, rows, user_id="fallback").rows())

    field = HEADER[at]
    assert [re.sub(r" in [AB]\d+$", "", text) for _, [(_, _, text)] in found] == [FOUND] * len(
        values
    )
    assert [(device, named, value) for device, [(named, value, _)] in found] == [
        (None, field, word) for word in values
    ]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("clean", ["none", "names"])
def test_placeholder_in_an_optional_field_is_left_out(tmp_path, kind, clean):
    """It never becomes a name, and one notice for each column says how many there were."""
    values = WORDS + WITH_BLANKS
    rows = [[f"SN{n}", "u", word, word] for n, word in enumerate(values, 1)]
    manifest = opened(tmp_path, kind, HEADER, rows, clean=clean)

    assert [row.device for row in manifest.rows()] == [
        device("u", f"SN{n}") for n in range(1, len(values) + 1)
    ]
    for field in ("device_name", "device_os"):
        [notice] = [notice for notice in manifest.notices if f"in {field}" in notice]
        assert f"{len(values)} placeholders like `NA` (line " in notice
        assert "--placeholders none" in notice


@pytest.mark.parametrize("empty", [None, "", "  "])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_empty_is_no_placeholder(tmp_path, kind, empty):
    """A null of JSON, an unquoted null of YAML and a cell of blanks are filled by a fallback."""
    rows = opened(tmp_path, kind, HEADER, [["A", empty, empty, None]], user_id="fallback").rows()

    assert [row.device for row in rows] == [device("fallback", "A")]


@pytest.mark.parametrize("null", ["null", "~", "Null", "NULL", ""])
def test_unquoted_null_of_yaml_is_empty(tmp_path, null):
    """Quoted, the same word is a placeholder, where it is one."""
    open_yaml = opener(tmp_path / "fleet.yaml")
    [bare] = open_yaml(f"- machine_code: A\n  user_id: {null}\n", user_id="fallback").rows()
    [quoted] = open_yaml("- machine_code: A\n  user_id: 'NULL'\n", user_id="fallback").rows()

    assert bare.device == device("fallback", "A")
    assert told([quoted]) == [(None, [("user_id", "NULL", FOUND)])]


def test_zero_as_a_number_is_a_placeholder(tmp_path):
    """Inventories write 0 for none."""
    [row] = opener(tmp_path / "fleet.json")('[{"machine_code": 0, "user_id": 0}]').rows()

    assert [problem.field for problem in row.problems] == ["user_id", "machine_code"]


@pytest.mark.parametrize(
    "value",
    ["NA1", "N0", "nano", "nullable", "noname", "10", "001", "0A", "none1", "u-", "nab", "una",
     "NN", "NAN0", "unknown2", "user0", "x", "xx", "Van"],
)  # fmt: skip
@pytest.mark.parametrize("kind", FORMATS)
def test_what_only_resembles_a_placeholder_is_a_value(tmp_path, kind, value):
    """Nothing but the whole word counts."""
    code = value.replace("-", "_")
    rows = opened(tmp_path, kind, HEADER, [[code, value, value, code]]).rows()

    assert [row.device for row in rows] == [device(value, code, value, code)]


def test_none_takes_every_word_as_it_stands(tmp_path):
    """Where NA and 0 are values, `--placeholders none` says so."""
    rows = [["NA", "null", "TBD", "0"], ["0000", "-", "None", "xxx"]]
    manifest = opened(tmp_path, "csv", HEADER, rows, placeholders=("None ",))

    assert [row.device for row in manifest.rows()] == [
        device("null", "NA", "TBD", "0"), device("-", "0000", "None", "xxx"),
    ]  # fmt: skip
    assert manifest.notices == []


def test_own_words_replace_the_usual_ones(tmp_path):
    """With a word of one character, runs of it count; digits in a word are no hindrance."""
    rows = [
        ["DUMMY1", "u", "NA", "9"],
        ["A1", "Not-here", "999", "dummy1"],
        ["NULL", "0", "99", ""],
    ]
    manifest = opened(tmp_path, "csv", HEADER, rows, placeholders=("dummy1", "9", "not here"))

    assert told(manifest.rows()) == [
        (None, [("machine_code", "DUMMY1", FOUND)]),
        (None, [("user_id", "Not-here", FOUND)]),
        (device("0", "NULL"), []),
    ]


@pytest.mark.parametrize(
    "given",
    [{"user_id": "NULL"}, {"user_id": "n/a"}, {"constants": {"user_id": "TBD"}},
     {"constants": {"device_name": "NA"}}, {"constants": {"machine_code": "0"}}],
    ids=str,
)  # fmt: skip
def test_a_placeholder_as_an_option_is_refused(tmp_path, given):
    """A usage error, not a problem of every row; unless it is said to be a value."""
    with pytest.raises(UsageError, match=r"placeholder.*--placeholders none"):
        opened(tmp_path, "csv", HEADER, [["A", "u", "", ""]], **given)

    assert list(
        opened(
            tmp_path, "csv", HEADER, [["A", "u", "", ""]], **given, placeholders=("none",)
        ).rows()
    )


def test_a_failed_row_keeps_the_placeholder(tmp_path):
    """What comes back is what was written."""
    [row] = opened(tmp_path, "csv", HEADER, [["N/A", "u", " NULL ", "0"]]).rows()

    assert row.cells == ["N/A", "u", " NULL ", "0"]
    assert row.problems[0].text == (
        "machine_code 'N/A': a placeholder, not a value (machine_code: a value, not a "
        "placeholder); enter the value itself; --placeholders none takes it as it stands"
    )


def test_many_rows_are_told_once(tmp_path):
    """In large files, valid rows around them are not touched, and the count is right."""
    rows = [
        [f"SN{n}", f"u{n % 7}", "NULL" if n % 3 else f"Van {n}", "-" if n % 500 == 7 else "linux"]
        for n in range(3_000)
    ]
    rows[1234][0] = "N/A"
    manifest = opened(tmp_path, "csv", HEADER, rows)
    found = list(manifest.rows())

    assert [n for n, row in enumerate(found) if row.problems] == [1234]
    assert all(row.values[2] == (None if n % 3 else f"Van {n}") for n, row in enumerate(found))
    assert (
        "fleet.csv: 2,000 placeholders like `NULL` (line 3) in device_name" in manifest.notices[0]
    )
    assert "fleet.csv: 6 placeholders like `-` (line 9) in device_os" in manifest.notices[1]


words = st.sampled_from([*WORDS, "SN1", "0A", "u1", "Van 1", "x"]) | st.text(
    st.sampled_from("naNA/0-ul1?"), min_size=1, max_size=6
)


@settings(max_examples=100, deadline=None)
@given(rule=st.sampled_from(RULES), values=st.lists(words, min_size=1, max_size=20))
@example(rule=RULES[1], values=["SN1", "NuLl"])
@example(rule=RULES[1], values=["SN1", "0000"])
@example(rule=RULES[2], values=["Van 1", "not set"])
def test_many_values_at_once_are_judged_as_each_alone(rule, values):
    """A column is taken as a whole only where none of its values is a placeholder."""
    known = placeholders(())

    assert not keeps(rule, values, known) or not any(value in known for value in values)
    assert keeps(rule, values, known) == all(keeps(rule, [value], known) for value in values)


def test_every_usual_word_is_in_the_manual():
    """The topic of manifests names them all."""
    manual = TOPICS["manifests"].lower()

    assert [word for word in USUAL if f"`{word}`" not in manual] == []


@pytest.mark.parametrize("user", ["{{user}}", "${USER_1}", "$(id)", "%USERNAME%", "<user_id>"])
def test_variable_of_a_template_is_no_user(tmp_path, user):
    """Nobody filled it in; among many others, too, and where words are given it is a value."""
    rows = [[f"SN{n}", "joe"] for n in range(150)] + [["SN150", user]]
    header = ["machine_code", "user_id"]

    assert list(opened(tmp_path, "csv", header, rows).rows())[-1].device is None
    given = opened(tmp_path, "csv", header, rows, placeholders=("none",))
    assert list(given.rows())[-1].values[0] == user

"""The rules of a row, at their edges and against the contract's own patterns."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings, strategies as st

from bulkbind.manifest.likely_causes import damage_of
from bulkbind.manifest.rules import (
    RULES,
    breaks,
    check,
    keeps,
    name_character,
    printable,
    trim,
)
from bulkbind.model import CheckedRow
from bulkbind.model.fields import FIELDS, OPTIONAL
from tests.support.rows import device, values

COLUMNS = ("User", "Code", "Name", "System", *OPTIONAL[2:])
GOOD = {"user_id": "u1", "machine_code": "SN1", "device_name": "Van 1", "device_os": "Android 15"}

CONTRACT = {
    "user_id": re.compile(r"\A[\x21-\x7e]{1,128}\Z", re.ASCII),
    "machine_code": re.compile(r"\A[a-zA-Z0-9_]{1,64}\Z", re.ASCII),
    "device_name": re.compile(r"\A[a-zA-Z0-9\-_\s]{1,32}\Z", re.ASCII),
    "device_os": re.compile(r"\A[a-zA-Z0-9_\s]{1,32}\Z", re.ASCII),
}
"""Written down again from koodrive-api.md and design.md section 5, not taken from the code."""


def is_damaged(field, value):
    """Whether a user id that keeps the contract is none all the same."""
    return field == "user_id" and damage_of(value) is not None


def check_one(field, value):
    """Check a row in which all fields but one are good."""
    row = dict(zip(FIELDS, values(*GOOD.values()), strict=True)) | {field: value}
    return check(tuple(row.values()), COLUMNS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("machine_code", "a", id="code of 1"),
        pytest.param("machine_code", "a" * 64, id="code of 64"),
        pytest.param("machine_code", "azAZ09_", id="code of every kind"),
        pytest.param("machine_code", "_", id="code of an underscore"),
        pytest.param("device_name", "n", id="name of 1"),
        pytest.param("device_name", "n" * 32, id="name of 32"),
        pytest.param("device_name", "a-b_c D 9", id="name of every kind"),
        pytest.param("device_name", "-", id="name of a hyphen"),
        pytest.param("device_name", "a\tb\nc\rd\fe\vf g", id="name with every ASCII blank"),
        pytest.param("device_name", None, id="no name"),
        pytest.param("device_os", "o" * 32, id="system of 32"),
        pytest.param("device_os", "Android_15 x", id="system of every kind"),
        pytest.param("device_os", "a\tb\nc\rd\fe\vf g", id="system with every ASCII blank"),
        pytest.param("device_os", None, id="no system"),
        pytest.param("user_id", "!", id="user of the first visible character"),
        pytest.param("user_id", "~", id="user of the last visible character"),
        pytest.param("user_id", "u" * 128, id="user of 128"),
        pytest.param("user_id", "a@b.example/=+-'\"", id="user with punctuation"),
    ],
)
def test_allowed_value_becomes_a_device(field, value):
    """A value within its rule goes into the device as it is."""
    good = GOOD | {field: value}
    row = CheckedRow(1, [], values(*good.values()), check_one(field, value))

    assert row.problems == ()
    assert row.device == device(*good.values())


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("machine_code", "a" * 65, "it has 65 characters"),
        ("machine_code", "SN-1", "'-' (U+002D HYPHEN-MINUS) at position 3"),
        ("machine_code", "SN 1", "' ' (U+0020 SPACE) at position 3"),
        ("machine_code", "SN1\n", "(U+000A control character) at position 4"),
        ("machine_code", "\nSN1", "(U+000A control character) at position 1"),
        ("machine_code", "SN\u00a01", "(U+00A0 NO-BREAK SPACE) at position 3"),
        ("machine_code", "SN\u0661", "'\u0661' (U+0661 ARABIC-INDIC DIGIT ONE) at position 3"),
        ("machine_code", "SN\uff11", "'\uff11' (U+FF11 FULLWIDTH DIGIT ONE) at position 3"),
        (
            "machine_code",
            "SN\u00e9",
            "'\u00e9' (U+00E9 LATIN SMALL LETTER E WITH ACUTE) at position 3",
        ),
        ("machine_code", "S\u212a1", "'\u212a' (U+212A KELVIN SIGN) at position 2"),
        ("machine_code", "SN\x001", "(U+0000 control character) at position 3"),
        ("machine_code", "SN\ufeff1", "(U+FEFF ZERO WIDTH NO-BREAK SPACE) at position 3"),
        (
            "machine_code",
            "a-" * 33,
            "'-' (U+002D HYPHEN-MINUS) at position 2, it has 66 characters",
        ),
        ("device_name", "n" * 33, "it has 33 characters"),
        ("device_name", "Van (1)", "'(' (U+0028 LEFT PARENTHESIS) at position 5"),
        ("device_name", "a,b", "',' (U+002C COMMA) at position 2"),
        ("device_name", "a\u00a0b", "(U+00A0 NO-BREAK SPACE) at position 2"),
        ("device_name", "a\u2003b", "(U+2003 EM SPACE) at position 2"),
        ("device_name", "a\x1cb", "(U+001C control character) at position 2"),
        ("device_name", "a\u2013b", "'\u2013' (U+2013 EN DASH) at position 2"),
        ("device_os", "o" * 33, "it has 33 characters"),
        ("device_os", "Linux-5", "'-' (U+002D HYPHEN-MINUS) at position 6"),
        ("device_os", "iOS 17.2", "'.' (U+002E FULL STOP) at position 7"),
        ("user_id", "u" * 129, "it has 129 characters"),
        ("user_id", "a b", "' ' (U+0020 SPACE) at position 2"),
        ("user_id", "a\n", "(U+000A control character) at position 2"),
        ("user_id", "a\x7f", "(U+007F control character) at position 2"),
        (
            "user_id",
            "a\u00e4",
            "'\u00e4' (U+00E4 LATIN SMALL LETTER A WITH DIAERESIS) at position 2",
        ),
    ],
    ids=ascii,
)
def test_broken_value_is_one_problem_that_says_what_is_wrong(field, value, found):
    """A value outside its rule is one problem with column, value, rule and what breaks it."""
    problems = check_one(field, value)

    [problem] = problems
    assert problem.field == field
    assert problem.column == COLUMNS[FIELDS.index(field)]
    assert problem.value == value
    assert problem.rule == next(rule.text for rule in RULES if rule.field == field)
    assert problem.found == found


@pytest.mark.parametrize("field", list(GOOD))
def test_value_of_length_0_breaks_its_rule(field):
    """An empty text is no value of any field."""
    problems = check_one(field, "")

    assert [problem.field for problem in problems] == [field]


@pytest.mark.parametrize("field", ["user_id", "machine_code"])
def test_required_field_without_a_value_is_missing(field):
    """A required field that is absent is a problem of its own."""
    problems = check_one(field, None)

    [problem] = problems
    assert (problem.field, problem.value, problem.found) == (field, "", "it is missing")


def test_every_problem_of_a_row_is_reported():
    """A row that breaks four rules has four problems, in the order of the fields."""
    problems = check(values(None, "a b", "x.y", "a-b"), COLUMNS)

    assert [problem.field for problem in problems] == list(GOOD)
    assert [problem.column for problem in problems] == list(COLUMNS[:4])


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("user_id", "1 to 128"),
        ("machine_code", "1 to 64"),
        ("device_name", "1 to 32"),
        ("device_os", "1 to 32"),
    ],
)
def test_rule_tells_its_length(field, words):
    """The text of a rule names its field and the lengths it allows."""
    [text] = [rule.text for rule in RULES if rule.field == field]

    assert text.startswith(f"{field}: ")
    assert words in text


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (None, None),
        ("", None),
        ("  \t\r\n", None),
        ("\u00a0", None),
        (" SN1 ", "SN1"),
        ("\u00a0SN1\u00a0", "SN1"),
        ("\u2003SN1\u3000", "SN1"),
        ("\x1cSN1\x85", "SN1"),
        ("a b", "a b"),
        ("\ufeffSN1", "\ufeffSN1"),
        ("\u200bSN1", "\u200bSN1"),
    ],
    ids=ascii,
)
def test_trim_is_what_str_strip_does(cell, value):
    """White space around a cell goes, a no-break space too, and what is empty is absent."""
    assert trim(cell) == value


@pytest.mark.parametrize("value", ["u", "u" * 128, "42", "a@b"])
def test_user_id_given_as_an_option_is_good(value):
    """A user id that keeps the rule has nothing wrong with it."""
    assert breaks("user_id", value) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a b", "' ' (U+0020 SPACE) at position 2"),
        (" a", "' ' (U+0020 SPACE) at position 1"),
        ("u" * 129, "it has 129 characters"),
        ("u\n", "(U+000A control character) at position 2"),
    ],
    ids=ascii,
)
def test_user_id_given_as_an_option_is_wrong(value, found):
    """What is wrong with a user id is told with the rule."""
    assert breaks("user_id", value) == f"{RULES[0].text}; {found}"


def test_empty_user_id_given_as_an_option_is_wrong():
    """An empty user id is refused by a whole sentence."""
    wrong = breaks("user_id", "")

    assert wrong is not None
    assert wrong == wrong.rstrip("; ")


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("-", "'-' (U+002D HYPHEN-MINUS)"),
        ("\U0001f600", "'\U0001f600' (U+1F600 GRINNING FACE)"),
        ("\x07", "(U+0007 control character)"),
        ("\udcff", "byte 0xFF, which the file's encoding does not know,"),
        ("\udc80", "byte 0x80, which the file's encoding does not know,"),
    ],
    ids=ascii,
)
def test_characters_have_names(character, name):
    """A character is named so that it can be found, a byte that is no character too."""
    assert name_character(character) == name


def test_undecodable_byte_is_shown_so_that_it_can_be_stored():
    """A broken value with an undecodable byte is shown as plain text."""
    problems = check_one("machine_code", "SN\udce9")

    [problem] = problems
    assert problem.value == r"SN\xe9"
    assert problem.value.encode("utf-8")
    assert problem.found == "byte 0xE9, which the file's encoding does not know, at position 3"


def test_printable_leaves_text_alone():
    """Only undecodable bytes are rewritten."""
    assert printable("a\u00e9\U0001f600\n") == "a\u00e9\U0001f600\n"


near_the_rules = st.text(
    st.one_of(
        st.sampled_from("aZ09_- \t\n\r\f\v\x1c\x85\u00a0\u0661\uff11\u00e9\u212a~!\x7f\x00"),
        st.characters(),
    ),
    max_size=12,
)
long_ones = st.builds(
    lambda text, times: text * times, st.sampled_from("a9_- \u00e9"), st.integers(0, 130)
)


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(list(CONTRACT)), value=near_the_rules | long_ones)
@example(field="machine_code", value="a\n")
@example(field="device_name", value="a" * 32 + "\n")
@example(field="machine_code", value="\u0661")
def test_check_agrees_with_the_contract(field, value):
    """A value is taken exactly where the contract's own pattern, whole and ASCII, takes it."""
    problems = check_one(field, value)

    is_good = bool(CONTRACT[field].match(value)) and not is_damaged(field, value)
    assert [problem.field for problem in problems] == ([] if is_good else [field])


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from(list(CONTRACT)), value=(near_the_rules | long_ones).filter(bool))
def test_a_broken_rule_is_always_explained(field, value):
    """Whatever breaks a rule, the problem says what it is."""
    problems = check_one(field, value)

    assert all(problem.found for problem in problems)


@settings(max_examples=300, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    values=st.lists(near_the_rules | long_ones | st.sampled_from(["A", "9_a"]), min_size=1),
)
@example(rule=RULES[1], values=["A", "B\0C"])
@example(rule=RULES[1], values=["A", ""])
@example(rule=RULES[1], values=["A", "a" * 65])
@example(rule=RULES[2], values=["A", " b"])
@example(rule=RULES[2], values=["A ", "b"])
@example(rule=RULES[0], values=["A", "1.8E+18"])
@example(rule=RULES[0], values=["1001.0", "b"])
@example(rule=RULES[0], values=["a'b", "='1'"])
def test_many_values_at_once_are_judged_as_each_alone(rule, values):
    """What is said to keep a rule does, and is trimmed; of plain values nothing is missed."""
    are_good = all(
        CONTRACT[rule.field].match(v) and v.strip() == v and not is_damaged(rule.field, v)
        for v in values
    )
    are_plain = all(character >= " " for value in values for character in value)

    assert not keeps(rule, values) or are_good
    assert keeps(rule, values) or not (are_good and are_plain)

"""Cleaning: what a name becomes, and that it always keeps its rule."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings, strategies as st

from bulkbind.manifest.checking import clean
from bulkbind.manifest.rules import RULES
from bulkbind.model import Change
from bulkbind.model.fields import CLEANED
from tests.support.manifests import opener
from tests.support.rows import device

PATTERN = {rule.field: rule.pattern for rule in RULES}


@pytest.mark.parametrize(
    ("field", "before", "after"),
    [
        ("device_name", "Van 1", "Van 1"),
        ("device_name", "Van  1 ", "Van  1 "),
        ("device_name", "Émile's téléphone", "Emiles telephone"),
        ("device_name", "Straße Ærø Łódź İ \u0131", "Strasse AEro Lodz I i"),
        ("device_name", "Galaxy “S9+” (2017)™", "Galaxy S9_ 2017"),
        ("device_name", "Van\u00a0\u200b1", "Van 1"),
        ("device_name", "Van \u2013 1", "Van - 1"),
        ("device_name", "\uff21\uff22\uff11 \u2460 \ufb01x", "AB1 1 fix"),
        ("device_name", "小米 MIX 2", "_ MIX 2"),
        ("device_name", "a&b/c", "a_b_c"),
        ("device_name", "Warehouse tablet of the third floor", "Warehouse tablet of the third"),
        ("device_name", "x" * 40, "x" * 32),
        ("device_name", f"ab {'x' * 40}", f"ab {'x' * 29}"),
        ("device_os", "iOS 17.2", "iOS 17_2"),
        ("device_os", "Linux-5.15", "Linux_5_15"),
        ("device_name", "小米手机", None),
        ("device_name", "\udcff\udc80", None),
        ("device_name", "M\udcfcllers Ger\udce4t", None),
        ("device_name", "...", None),
    ],
    ids=ascii,
)
def test_name_becomes_what_its_rule_allows(field, before, after):
    """Accents go, other characters become `_`, blanks are collapsed, a cut is at a word's end."""
    assert clean(field, before) == after


texts = st.text(max_size=50) | st.text(
    st.sampled_from("aé _-.小\u00a0\u200b\n(\"'ﬃ½™"), max_size=70
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(field=st.sampled_from(CLEANED), value=texts)
@example(field="device_name", value="a" * 31 + "  b")
@example(field="device_name", value="\u00bd")
def test_what_is_cleaned_keeps_its_rule_and_stays(field, value):
    """Cleaning ends in a value that keeps the rule and that a second cleaning leaves alone."""
    after = clean(field, value)

    if after is not None:
        assert PATTERN[field].fullmatch(after)
        assert clean(field, after) == after
        assert after == after.strip() or PATTERN[field].fullmatch(value)


@pytest.fixture
def manifest(tmp_path):
    """Return a function that opens what is written into `fleet.csv`."""
    return opener(tmp_path / "fleet.csv")


TEXT = "machine_code,user_id,Name,device_os\nA,u,Büro,iOS 17.2\nB-1,u,Büro,\nC,u,Van,iOS\n"


def test_names_are_cleaned_when_asked_to(manifest):
    """Changes are told with the operator's column; machine codes are never touched."""
    cleaned, broken, plain = manifest(TEXT, columns={"device_name": "Name"}, clean="names").rows()

    assert cleaned.device == device("u", "A", "Buro", "iOS 17_2")
    assert cleaned.cells == ["A", "u", "Büro", "iOS 17.2"]
    assert cleaned.changes == (
        Change("Name", "Büro", "Buro"),
        Change("device_os", "iOS 17.2", "iOS 17_2"),
    )
    assert [problem.field for problem in broken.problems] == ["machine_code"]
    assert plain.changes == ()


def test_without_cleaning_a_problem_says_what_it_would_make(manifest):
    """Nothing is changed unasked, but the problem offers it."""
    first, *_ = manifest(TEXT, columns={"device_name": "Name"}).rows()

    assert first.device is None
    assert [problem.hint for problem in first.problems] == [
        "cleaning (--clean names) would make it 'Buro'",
        "cleaning (--clean names) would make it 'iOS 17_2'",
    ]

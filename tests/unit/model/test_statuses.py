"""The tables of states: no word without its facts, and no list of words beside the tables."""

from __future__ import annotations

import re

import pytest

from bulkbind.app.notices import run_end
from bulkbind.cli import live
from bulkbind.model import (
    COMES_BACK,
    GONE,
    IS_BOUND,
    IS_OPEN,
    IS_OURS,
    MEANINGS,
    NEEDS_PERSON,
    NOT_UNBOUND,
    PENDING,
    TO_SEE_TO,
    UNBIND_MEANINGS,
    VERDICTS,
    NoAnswer,
    PlanWord,
    Status,
    UnbindStatus,
)
from bulkbind.model.statuses import Described
from bulkbind.report.page import TONES
from tests.support.paths import ROOT

SOURCES = sorted((ROOT / "bulkbind").rglob("*.py"))


def test_a_word_without_facts_cannot_be_made():
    """A status that somebody only names is an error on import."""
    with pytest.raises(TypeError, match="postponed has no facts"):

        class Incomplete(Described):
            POSTPONED = "postponed"


def test_the_lists_that_follow_from_the_table():
    """What counts as bound, open, ours, gone; whom a person sees to; what comes back."""
    assert IS_BOUND == ("bound", "already_bound", "skipped")
    assert IS_OURS == ("bound",)
    assert IS_OPEN == ("claimed", "in_doubt")
    assert NEEDS_PERSON == ("invalid", "failed", "in_doubt", "moved")
    assert set(COMES_BACK) == {"invalid", "failed", "in_doubt", PENDING}
    assert set(TO_SEE_TO) == {*COMES_BACK, "moved"}
    assert GONE == ("unbound", "already_gone")
    assert NOT_UNBOUND == ("changed", "failed")
    assert set(MEANINGS) == {status.shown for status in Status}
    assert list(MEANINGS)[-1] == list(UNBIND_MEANINGS)[-1] == PENDING


def test_every_sign_of_a_plan_is_its_own():
    """A sign stands for one word."""
    assert len({word.about.sign for word in PlanWord}) == len(PlanWord)


def test_every_colour_has_a_class():
    """The page's style sheet knows the colour of each status."""
    style = (ROOT / "bulkbind/report/page/report.css").read_text(encoding="utf-8")

    assert set(TONES) == set(MEANINGS)
    for status in (*Status, *UnbindStatus):
        assert f".tone-{status.about.tone} " in style
        assert f"--{status.about.tone}:" in style


def test_the_live_display_has_a_style_for_every_status():
    """Bound is green, doubtful yellow, the rest red; of unbindings as well."""
    styles = {status: live._STYLES[status] for status in (*Status, *UnbindStatus)}

    assert {s for s, style in styles.items() if style == "green"} == {*IS_BOUND, "unbound"}
    assert {s for s, style in styles.items() if style == "yellow"} == {
        *("in_doubt", "moved", "changed"),
    }


@pytest.mark.parametrize("status", NEEDS_PERSON)
def test_a_mail_says_what_to_do(status):
    """Each status that needs a person is counted in words, with its advice."""
    words = status.replace("_", " ")

    assert run_end._counted({status: 1_200}) == f"1,200 {words}"
    assert run_end._to_do({status: 1}) == [f"what to do: {words}: {status.about.to_do}"]


def test_every_verdict_has_words():
    """By the name that the ledger keeps."""
    assert VERDICTS["NoAnswer"] == NoAnswer.words
    assert len(set(VERDICTS.values())) == len(VERDICTS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_list_of_states_beside_the_tables(path):
    """SQL names one state, or a list made from the table; Python the same; verdicts by class."""
    text = path.read_text(encoding="utf-8")
    names = "|".join({*Status, *UnbindStatus, PENDING})
    kinds = "|".join(VERDICTS)
    lists = [
        *re.findall(rf"'(?:{kinds})'", text),
        *re.findall(rf"IN\s*\(\s*'(?:{names})'", text),
        *re.findall(rf"\(\s*'(?:{names})'\s*,\s*'(?:{names})'", text),
        *re.findall(r"\bin \(\s*(?:Unbind)?Status\.\w+", text),
        *re.findall(r"= \(\s*(?:Unbind)?Status\.\w+", text),
    ]

    assert lists == []

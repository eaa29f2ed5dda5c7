"""The tables of states: no word without its facts, and no list of words beside the tables."""

from __future__ import annotations

import re

import pytest

from bulkbind.cli.colours import STYLES
from bulkbind.model import (
    COMES_BACK,
    GONE,
    IS_BOUND,
    IS_GONE,
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
    RunKind,
    RunState,
    RunSummary,
    Status,
    UnbindStatus,
)
from bulkbind.model.statuses import Described
from bulkbind.model.wording import words
from bulkbind.report.page import TONES
from bulkbind.report.summary import reason_lines, sentence
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
    assert IS_GONE == ("unbound", "already_gone")
    assert NEEDS_PERSON == ("invalid", "failed", "in_doubt", "moved", "changed", "not_ours")
    assert set(COMES_BACK) == {"invalid", "failed", "in_doubt", "changed", "not_ours", PENDING}
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
    styles = {status: STYLES[status] for status in (*Status, *UnbindStatus)}

    assert {s for s, style in styles.items() if style == "green"} == {*IS_BOUND, "unbound"}
    assert {s for s, style in styles.items() if style == "yellow"} == {
        *("in_doubt", "moved", "changed", "not_ours", "staged", "claimed"),
    }


@pytest.mark.parametrize("status", NEEDS_PERSON)
def test_a_mail_says_what_to_do(status):
    """Each status that needs a person is counted in words, with a reason and its advice."""
    reason = {"status": status, "code": "", "message": "why", "count": 1_200} | {
        "example": "fleet.csv:7",
        "detail": "",
    }
    summary = RunSummary("r", RunState.DONE, (), {status: 1_200}, (reason,))

    assert reason_lines(summary, 3) == [
        f"1,200 {words(status)}:",
        "  1,200  why",
        "         e.g. fleet.csv:7",
        f"      -> {status.about.to_do}",
    ]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("status", [status for status in Status if not status.about.needs_person])
def test_the_first_sentence_has_words_for_every_status(status, count):
    """Of one row and of several; those that need a person are said to need one."""
    kind = RunKind.UNBIND if status.about.is_gone else RunKind.BIND
    said = sentence(RunSummary("r", RunState.DONE, (), {status.shown: count}, (), kind=kind))

    assert f"{count} {status.about.said[count - 1]}" in said


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

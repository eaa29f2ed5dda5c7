"""Whatever is counted, in every text for people: one thing in the singular, others not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bulkbind.app.inbox import InboxFile, InboxResult
from bulkbind.app.notices.run_end import Here, of_error, of_inbox, of_run
from bulkbind.app.reports import Report
from bulkbind.app.session.sending import RunResult
from bulkbind.errors import ExitCode, LedgerError
from bulkbind.model import (
    EXTRA,
    NEEDS_PERSON,
    Changes,
    Example,
    Forecast,
    Plan,
    PlanWord,
    RunFacts,
    RunState,
    RunSummary,
    Status,
    UndoPlan,
    UndoSummary,
)
from bulkbind.model.wording import reason
from bulkbind.report.page import verdict
from bulkbind.report.plan_text import plan_text
from bulkbind.report.summary import as_text
from bulkbind.report.undo_report import undo_plan_text, undo_text

THINGS = (
    *("rows", "requests", "devices", "users", "files", "binds", "unbinds", "lists", "calls"),
    *("bindings", "reasons", "problems", "rules", "attempts", "runs", "folders"),
)
NUMBER = r"(?<![\d,.])"
VERBS = {"need": "needs", "are": "is", "have": "has", "wait": "waits"}
ONE_TOO_MANY = re.compile(
    rf"{NUMBER}1 (?:\w+ )?(?:{'|'.join(THINGS)})\b"
    rf"|{NUMBER}(?<!of )1 (?:\w+ )?(?:{'|'.join(VERBS)})\b"
    rf"|\d of 1 (?:\w+ )?(?:{'|'.join(VERBS)})\b"
)
ONE_TOO_FEW = re.compile(
    rf"{NUMBER}[02] (?:\w+ )?(?:{'|'.join(thing[:-1] for thing in THINGS)})\b(?! call)"
    rf"|{NUMBER}[02] (?:{'|'.join(VERBS.values())})\b"
)
HERE = Here(host="h", endpoint="https://e.test", again="bulkbind run a.csv", went_well_at=None)


def facts(count):
    """Return facts of a run in which all there is was counted so often."""
    found = RunFacts()
    found.requests = found.requests_lists = found.requests_throttled = count
    found.requests_again = count
    found.sending_s = 2.0
    found.changes = Changes({"since": "r0", "added": count, "newly_failed": count})
    found.refreshed = {
        "users": count,
        "vanished": count,
        "bound_again": False,
        "not_proven": count,
    }
    return found


def summary(count, state=RunState.DONE):
    """Return a run with *count* rows in each status."""
    reasons = tuple(
        {
            "status": status,
            "code": "",
            "message": f"why {number}",
            "count": count,
            "example": "a.csv:7",
            "detail": "",
        }
        for number in range(3)
        for status in NEEDS_PERSON
    )
    return RunSummary(
        "r1",
        state,
        ("a.csv",),
        {status.shown: count for status in Status},
        reasons,
        facts(count),
        stop_reason="the deadline has come" if state is RunState.STOPPED else None,
        cleaned=count,
        posted_again_after_bound=count,
    )


def plan(count):
    """Return a plan with *count* rows for each word."""
    return Plan(
        manifests=("a.csv",),
        counts=dict.fromkeys(PlanWord, count),
        users={},
        user_count=count,
        moved=(),
        problems=(),
        forecast=Forecast(binds=count, lists=count, per_s=1.0, source="s", unbinds=count),
        digest="",
        mark="",
        not_proven=count,
        extra=count,
        is_refreshed=True,
    )


def inbox(count):
    """Return a pass over an inbox with *count* files of each kind."""
    trouble = InboxFile(
        name="a.csv", exit_code=ExitCode.NEEDS_PERSON, counts={"failed": count},
        moved_to=Path("done/a.csv"),
    )  # fmt: skip
    told = replace(trouble, exit_code=ExitCode.DONE, was_told=True)
    return InboxResult(
        inbox=Path("in"),
        archive=Path("done"),
        started_at="",
        ended_at="",
        files=tuple([trouble] * count + [told] * count),
        waiting=count,
        exit_code=ExitCode.STOPPED,
        stopped="the deadline has come",
    )


def texts(count):
    """Yield every text for people with such counts."""
    for state in (RunState.DONE, RunState.STOPPED):
        run = summary(count, state)
        yield as_text(run)
        yield as_text(run, most_reasons=len(run.reasons) - count, is_brief=True)
        yield verdict(run)["text"]
        report = Report(run, Path("out"), [Path("out/report.html"), Path("out/failed.csv")])
        yield of_run(RunResult(report, ExitCode.NEEDS_PERSON), HERE).text
    undone = {"state": "done", "counts": {"unbound": count}}
    yield as_text(replace(summary(count), undo=undone))
    yield of_inbox(inbox(count), HERE).text
    yield of_error(LedgerError("no room"), "a.csv", HERE).text
    yield plan_text(plan(count))
    yield undo_plan_text(UndoPlan("r1", count, count, count, count))
    yield undo_text(UndoSummary("r1", "done", {"unbound": count}, count))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_thing_is_one_thing_in_every_text(count):
    """No `1 rows`, and no `2 row`, nor a verb that does not fit."""
    assert EXTRA
    for text in texts(count):
        assert not ONE_TOO_MANY.search(text), text
        assert not ONE_TOO_FEW.search(text), text


@pytest.mark.parametrize(
    ("sent", "more"),
    [
        (5, {"requests_unsure": 2}),
        (0, {"requests_unsure": 2}),
        (5, {"cut_offs": 1}),
        (0, {"cut_offs": 1}),
        (5, {}),
    ],
)
def test_what_may_have_been_sent_is_not_counted_as_sent(sent, more):
    """By lost workers, or by a process that was killed; the summary then tells the least."""
    told = RunFacts({"requests": sent, "sending_s": 1.0} | more)
    summary = RunSummary("r1", RunState.DONE, ("a.csv",), {"bound": 5}, (), told)

    text = as_text(summary)

    assert f"{sent} requests in 1.0 s" in text
    assert ("at least" in text) is bool(more)


def test_an_undo_with_doubt_names_the_report_that_tells_why():
    """What no list can settle has its reasons and cures in the run's own report."""
    told = undo_text(UndoSummary("r1", "done", {"unbound": 3}, 2))

    assert "  -> `bulkbind report r1` tells why, and what to do" in told.splitlines()
    assert "bulkbind report" not in undo_text(UndoSummary("r1", "done", {"unbound": 3}, 0))


@pytest.mark.parametrize(
    ("why", "cure"),
    [
        ("it lacks other devices known as bound, such as SN1", "`bulkbind adopt MANIFEST`"),
        ("timeout no answer came", "the next run asks the server again"),
    ],
)
def test_the_mail_of_an_inbox_says_what_settles_doubt(why, cure):
    """Where a list lacks known devices, the next run alone would say the same again."""
    example: Example = {"place": "a.csv:2", "status": "in_doubt", "why": why}
    found = replace(inbox(1).files[0], counts={"in_doubt": 1}, examples=[example])

    told = of_inbox(replace(inbox(1), files=(found,)), HERE).text

    [line] = [line for line in told.splitlines() if line.startswith("    -> ")]
    assert cure in line


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("no answer within 15 s", "no answer within 15 s"),
        ("it lacks other devices", "it lacks other devices"),
        ("13000301 full", "13000301 full: the user's cloud space is full or not opened"),
    ],
)
def test_the_mail_of_an_inbox_repeats_a_reason_as_it_is(why, told):
    """Only what a provider's code means is added: the first word is none where there is no code."""
    example: Example = {"place": "a.csv:2", "status": "failed", "why": why}
    found = replace(inbox(1).files[0], counts={"failed": 1}, examples=[example])

    assert f"a.csv:2  failed: {told}\n" in of_inbox(replace(inbox(1), files=(found,))).text


def test_a_time_out_is_said_once():
    """Its code says what its message does; other codes stand before theirs."""
    assert reason("timeout", "no answer within 15 s") == "no answer within 15 s"
    assert reason("timeout", "") == "timeout"
    assert reason("reset", "the connection broke") == "reset: the connection broke"

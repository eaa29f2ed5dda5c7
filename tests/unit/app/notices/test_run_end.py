"""Mails: what somebody who is woken at three has to know, and what to type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bulkbind.app.notices.run_end import Here, of_error, of_run
from bulkbind.app.reports import Report
from bulkbind.app.session.sending import RunResult
from bulkbind.errors import ExitCode, LedgerError
from bulkbind.model import RunState, RunSummary

AGAIN = "bulkbind run /srv/fleet.csv --config /etc/bulkbind.yaml"
HERE = Here(
    host="night-1",
    endpoint="https://koodrive.test",
    again=AGAIN,
    went_well_at="2026-11-25T03:00:12.000Z",
)
HEAD = "bulkbind on night-1: /srv/fleet.csv:"
REASON = {
    "status": "failed",
    "code": "13000301",
    "message": "space missing",
    "count": 4,
    "example": "fleet.csv:35",
    "machine_code": "SN00033",
    "user_id": "user_4",
    "detail": "",
}


def ended(state, exit_code, hint="", **more):
    """Return how a run ended of which nine are bound and four are not."""
    counts = {"bound": 9, "failed": 4}
    summary = RunSummary("r1", state, ("/srv/fleet.csv",), counts, (REASON,), **more)
    report = Report(summary, Path("out"), [Path("out/report.html"), Path("out/failed.csv")])
    return RunResult(report, exit_code, hint)


def test_a_mail_of_rows_that_need_a_person():
    """Host, count and code on the first line; why and which; since when; what to type."""
    lines = of_run(ended(RunState.DONE, ExitCode.NEEDS_PERSON), HERE).text.splitlines()

    assert lines == [
        f"{HEAD} 4 of 13 devices need you (exit 1: some rows need a person)",
        "9 of 13 devices are bound: 9 now. 4 need you.",
        "4 failed:",
        "      4  13000301 space missing: the user's cloud space is full or not opened",
        "         e.g. fleet.csv:35: SN00033 of user user_4",
        "      -> let that user open their cloud space, then run the failed file",
        "last went well: 2026-11-25 03:00:12 UTC",
        "run: r1 at https://koodrive.test",
        "manifest: /srv/fleet.csv",
        f"report: {Path('out/report.html').absolute()}",
        f"to fix or try again: {Path('out/failed.csv').absolute()}",
        "then run it again:",
        f"  {AGAIN}",
    ]


@pytest.mark.parametrize(
    ("hint", "told"),
    [
        (
            "get a new token",
            [
                "what to do: get a new token",
                "the next run resumes where it stopped; to resume then:",
            ],
        ),
        (
            "resume after 2026-11-26 00:00:00 UTC",
            [
                "what to do: resume after 2026-11-26 00:00:00 UTC",
                "the next run resumes where it stopped; to resume then:",
            ],
        ),
        ("", ["the next run resumes where it stopped; to resume now:"]),
    ],
    ids=["token", "later", "nothing to do"],
)
def test_a_mail_of_a_stop(hint, told):
    """Its cause is on the first line, and what to do before it can go on."""
    result = ended(
        RunState.STOPPED,
        ExitCode.STOPPED,
        hint,
        stop_reason="the credentials are refused",
    )
    lines = of_run(result, HERE).text.splitlines()

    stopped = "stopped: the credentials are refused (exit 3: stopped early, can be resumed)"
    assert lines[0] == f"{HEAD} {stopped}"
    assert lines[-len(told) - 1 :] == [*told, f"  {AGAIN}"]


def test_a_mail_of_a_wrong_endpoint_asks_to_mend_it_first():
    """Nothing goes on by itself there."""
    result = ended(
        RunState.STOPPED, ExitCode.STOPPED, "check `endpoint`", stop_reason="no such host"
    )
    lines = of_run(replace(result, is_endpoint_wrong=True), HERE).text.splitlines()

    assert lines[-3:] == [
        "what to do: check `endpoint`",
        "once that is fixed, the next run resumes where it stopped; to resume then:",
        f"  {AGAIN}",
    ]


def test_a_mail_of_an_error():
    """What it was, with what it means, and what to do."""
    error = LedgerError("the ledger cannot be written: disk full", hint="free the disk")

    assert of_error(error, "/srv/fleet.csv", HERE).text.splitlines() == [
        f"{HEAD} the ledger cannot be written: disk full (exit 4: ledger or disk trouble)",
        "last went well: 2026-11-25 03:00:12 UTC",
        "endpoint: https://koodrive.test",
        "what to do: free the disk",
        "then run it again:",
        f"  {AGAIN}",
    ]


@pytest.mark.parametrize(
    ("moment", "line"), [(None, ["last went well: never"]), ("", [])], ids=["never", "not known"]
)
def test_when_it_last_went_well_is_not_made_up(moment, line):
    """Where it is not known, nothing is said of it."""
    here = Here(went_well_at=moment)
    text = of_run(ended(RunState.DONE, ExitCode.NEEDS_PERSON), here).text

    assert [each for each in text.splitlines() if "went well" in each] == line

"""The installed command as a process, killed with SIGKILL while rows are claimed, and resumed."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.campaigns.crash_campaign import Lives, Plan, run_campaign
from tests.campaigns.crash_evidence import Evidence, Figures, Row, reckon


@pytest.mark.slow
def test_kills_lose_nothing_and_guess_nothing(tmp_path):
    """Every row ends once, report and server agree, and nothing bound is posted again."""
    plan = Plan(rows=1_000, kills=5, known_code="mixed", seed=3)

    figures = run_campaign(tmp_path, plan)

    assert figures.wrong(plan) == {}
    assert figures.kills_that_struck == 5
    assert figures.rows_claimed_when_struck >= 5
    assert figures.rows_bound == 1_000
    assert figures.resets_after_the_binding > 10
    assert figures.binds_delayed > 0
    assert figures.answers_500 > 0


@pytest.mark.slow
def test_a_late_server_makes_no_repeat_within_the_settling_time(tmp_path):
    """What is bound after its client gave up, but within `readback_settle`, is posted once."""
    plan = Plan(rows=300, kills=2, late_s=0.8, timeout_s=0.4, late_share=0.2)

    figures = run_campaign(tmp_path, plan)

    assert figures.wrong(plan) == {}
    assert figures.kills_that_struck == 2
    assert figures.binds_delayed > 20
    assert figures.binds_that_met_a_binding == 0


# --- the comparison itself ------------------------------------------------------------------------

KEYS = [("u", "SN0"), ("u", "SN1"), ("w", "SN2")]
LATER = "2026-11-23T12:00:05.000Z"
MADE = "2026-11-23T12:00:00.100Z"


def agreeing() -> Evidence:
    """Return what a campaign without a fault leaves."""
    rows = [
        Row(line=line, key=key, status="bound", device_id=f"{line}", create_time=MADE)
        for line, key in enumerate(KEYS, start=2)
    ]
    held = {row.key: (row.device_id, row.create_time) for row in rows}
    return Evidence(
        plan=Plan(rows=3, kills=1, settle_s=1.0),
        manifest=KEYS,
        report=rows,
        summary={"counts": {"bound": 3}, "posted_again_after_bound": 0},
        ledger=list(rows),
        ledger_bindings=held,
        counted={},
        refusals=set(),
        server=dict(held),
        journal=[line_of(row) for row in rows],
        stats={},
        lives=Lives(kills=1, struck=1, claimed=3, exit_code=0),
    )


def line_of(row, result="reset-after bound", at="2026-11-23T12:00:00.099Z"):
    """Return the line of the sandbox's journal that tells of a bind."""
    user, code = row.key
    return {
        "at": at,
        "user_id": user,
        "machine_code": code,
        "device_id": row.device_id,
        "result": result,
        "took_s": 0.002,
        "trace_id": f"{at} {result}",
    }


def with_report(evidence, *, ledger=True, **changes):
    """Return evidence whose report, and ledger, have another first row."""
    rows = [replace(evidence.report[0], **changes), *evidence.report[1:]]
    counts = {"bound": 2, rows[0].status: 1} if rows[0].status != "bound" else {"bound": 3}
    return replace(
        evidence,
        report=rows,
        ledger=rows if ledger else evidence.ledger,
        summary={**evidence.summary, "counts": counts},
    )


def posted_again(evidence, *, at=LATER, bound_at=None):
    """Return evidence of a second bind of the first row."""
    row = evidence.report[0]
    first = line_of(row)
    if bound_at is not None:
        first |= {"at": bound_at, "took_s": 60.0}
    journal = [first, *evidence.journal[1:], line_of(row, "posted_again", at)]
    return replace(evidence, journal=journal, stats={"posted_again": 1})


def without(mapping, key):
    """Return a mapping without a key."""
    return {k: v for k, v in mapping.items() if k != key}


REPEATED = {"posted_again_after_bound", "posted_again_without_excuse"}
TAMPERED = {
    "a kill too few": (
        lambda e: replace(e, lives=replace(e.lives, struck=0)),
        {"kills_missing"},
    ),
    "a row is missing in the report": (
        lambda e: replace(e, report=e.report[1:], summary={**e.summary, "counts": {"bound": 2}}),
        {
            "rows_without_exactly_one_final_state",
            "bindings_not_called_bound",
            "report_rows_unlike_the_ledger",
        },
    ),
    "a row stands in the report twice": (
        lambda e: replace(
            e,
            report=[*e.report, replace(e.report[0], status="skipped")],
            summary={**e.summary, "counts": {"bound": 3, "skipped": 1}},
        ),
        {"rows_without_exactly_one_final_state", "report_rows_unlike_the_ledger"},
    ),
    "a row ended in two runs": (
        lambda e: replace(e, ledger=[*e.ledger, replace(e.ledger[0], status="skipped")]),
        {"rows_without_exactly_one_final_state", "report_rows_unlike_the_ledger"},
    ),
    "a row is pending": (
        lambda e: with_report(e, status="pending"),
        {"rows_without_exactly_one_final_state", "bindings_not_called_bound"},
    ),
    "a row is in doubt": (
        lambda e: with_report(e, status="in_doubt"),
        {
            "rows_without_exactly_one_final_state",
            "rows_in_doubt",
            "bindings_not_called_bound",
        },
    ),
    "a row failed that the server holds": (
        lambda e: with_report(e, status="failed"),
        {"rows_failed", "bindings_not_called_bound"},
    ),
    "the server lacks a binding": (
        lambda e: replace(
            e,
            server=without(e.server, KEYS[0]),
            ledger_bindings=without(e.server, KEYS[0]),
            journal=e.journal[1:],
        ),
        {"rows_falsely_called_bound"},
    ),
    "another device id": (
        lambda e: with_report(e, device_id="9"),
        {"rows_falsely_called_bound"},
    ),
    "another createTime": (
        lambda e: with_report(e, create_time="2026-11-23T12:00:00.101Z"),
        {"rows_falsely_called_bound"},
    ),
    "the report says what the ledger does not": (
        lambda e: with_report(e, ledger=False, status="already_bound"),
        {"report_rows_unlike_the_ledger"},
    ),
    "the ledger forgot a binding": (
        lambda e: replace(e, ledger_bindings=without(e.ledger_bindings, KEYS[0])),
        {"ledger_bindings_unlike_the_server"},
    ),
    "the journal lacks a line": (
        lambda e: replace(e, journal=e.journal[1:]),
        {"journal_lines_unlike_the_server"},
    ),
    "the journal has a line twice": (
        lambda e: replace(e, journal=[*e.journal, e.journal[0]]),
        {"journal_lines_unlike_the_server"},
    ),
    "the journal tells another time": (
        lambda e: replace(
            e, journal=[{**e.journal[0], "at": "2026-11-23T12:00:09.000Z"}, *e.journal[1:]]
        ),
        {"journal_lines_unlike_the_server"},
    ),
    "the summary counts otherwise": (
        lambda e: replace(e, summary={**e.summary, "counts": {"bound": 2}}),
        {"summary_counts_wrong"},
    ),
    "a device was posted again": (
        posted_again,
        REPEATED,
    ),
    "a device was posted again that was bound late, but soon enough": (
        lambda e: posted_again(
            e, bound_at="2026-11-23T11:59:58.200Z"
        ),  # 1.9 s, of them 0.9 s given up
        REPEATED,
    ),
    "a device was posted again after too late a binding": (
        lambda e: posted_again(e, bound_at="2026-11-23T11:59:57.900Z"),  # 2.2 s
        {"posted_again_after_bound"},
    ),
    "a device was posted again, and the ledger forgot to count it": (
        lambda e: replace(
            posted_again(e, bound_at="2026-11-23T11:59:57.900Z"),
            refusals={f"{LATER} posted_again"},
        ),
        {"posted_again_after_bound", "posted_again_and_known_but_not_counted"},
    ),
    "a device was posted again, and the ledger counts it": (
        lambda e: replace(
            posted_again(e, bound_at="2026-11-23T11:59:57.900Z"),
            refusals={f"{LATER} posted_again"},
            counted={KEYS[0]: 1},
            summary={**e.summary, "posted_again_after_bound": 1},
        ),
        {"posted_again_after_bound"},
    ),
    "a device was posted again before it was bound": (
        lambda e: posted_again(e, at="2026-11-23T12:00:00.050Z"),
        set(),
    ),
    "the report tells of a repeat that was none": (
        lambda e: replace(e, summary={**e.summary, "posted_again_after_bound": 1}),
        {"posted_again_only_by_the_report"},
    ),
    "a process broke off": (
        lambda e: replace(e, lives=replace(e.lives, broke_off=[4])),
        {"lives_that_broke_off"},
    ),
    "the last process ended badly": (
        lambda e: replace(e, lives=replace(e.lives, exit_code=1)),
        {"lives_that_broke_off"},
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_the_comparison_sees(name):
    """Tampered evidence makes exactly the figures wrong that it should; untouched, none."""
    tamper, wanted = TAMPERED[name]
    evidence = agreeing()

    assert reckon(evidence).wrong(evidence.plan) == {}
    assert reckon(tamper(evidence)).wrong(evidence.plan).keys() == wanted


def test_a_kill_excuses_what_was_bound_long_after_it():
    """A request is given up when its client dies, which may be before its time-out."""
    evidence = posted_again(agreeing(), bound_at="2026-11-23T11:59:58.200Z")
    killed_at = 1795435198.4  # 11:59:58.4
    killed = replace(evidence, lives=replace(evidence.lives, killed_at=[killed_at]))

    assert reckon(evidence).posted_again_without_excuse == 1
    assert reckon(killed).posted_again_without_excuse == 0


def test_every_figure_that_should_be_0_can_be_wrong():
    """Each of them is made wrong by one of the tampered examples above."""
    zeros = {item.name for item in fields(Figures) if item.metadata.get("zero")}

    assert zeros == set().union(*(wanted for _, wanted in TAMPERED.values()))

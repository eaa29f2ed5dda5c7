"""Compares what a crash campaign left: report, ledger, and the server's bindings and journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from bulkbind.clock import epoch_of

if TYPE_CHECKING:
    from tests.campaigns.crash_campaign import Lives, Plan

Key: TypeAlias = tuple[str, str]
"""User and machine code."""

CALLED_BOUND = ("bound", "already_bound")
FINAL = (*CALLED_BOUND, "failed", "skipped", "withdrawn", "invalid", "duplicate", "moved")
TICK_S = 0.005
"""Moments of the server's clock have milliseconds; a journal's line is begun a little later."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """How a row ended, by the report or by the ledger."""

    line: int
    key: Key
    status: str
    device_id: str
    create_time: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is compared."""

    plan: Plan
    manifest: list[Key]
    """In its order; its first row is line 2."""
    report: list[Row]
    summary: dict[str, Any]
    ledger: list[Row]
    """The rows of every run."""
    ledger_bindings: dict[Key, tuple[str, str]]
    """Device id and createTime of what the ledger knows as bound."""
    counted: dict[Key, int]
    """How many requests, as the ledger says, met the binding of a row."""
    refusals: set[str]
    """Trace ids of the requests that, as the ledger remembers, were refused or called a repeat."""
    server: dict[Key, tuple[str, str]]
    """The same of what the server holds."""
    journal: list[dict[str, Any]]
    """The binds that the server saw."""
    stats: dict[str, int]
    lives: Lives


def _zero(*, may_repeat: bool = False) -> Any:
    """Mark a figure that should be 0; *may_repeat*: unless the server is too late."""
    return field(metadata={"zero": True, "may_repeat": may_repeat})


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a campaign came to."""

    kills_that_struck: int
    kills: int
    workers_killed: int
    rows_claimed_when_struck: int
    """Added up over the kills that struck."""
    rows: int
    rows_bound: int
    rows_already_bound: int
    binds_that_met_a_binding: int
    """Also those that came before it was made, and were worked off after it."""
    requests_after_the_binding: int
    """Bind requests that came in after their device was bound."""
    report_posted_again_after_bound: int
    """How many of them `summary.json` tells of; a killed process may not have heard of the rest."""
    resets_after_the_binding: int
    binds_delayed: int
    answers_500: int
    requests_throttled: int
    list_calls: int
    seconds: float
    kills_missing: int = _zero()
    rows_without_exactly_one_final_state: int = _zero()
    rows_in_doubt: int = _zero()
    rows_failed: int = _zero()
    bindings_not_called_bound: int = _zero()
    """The server holds them; the report calls the row anything but bound or already_bound."""
    rows_falsely_called_bound: int = _zero()
    """The server does not hold them, or under another device id or createTime."""
    report_rows_unlike_the_ledger: int = _zero()
    ledger_bindings_unlike_the_server: int = _zero()
    journal_lines_unlike_the_server: int = _zero()
    """Bindings, ids or times of which journal and bindings tell otherwise."""
    summary_counts_wrong: int = _zero()
    posted_again_after_bound: int = _zero(may_repeat=True)
    """Devices for which a bind request came in after they were bound."""
    posted_again_without_excuse: int = _zero()
    """Of them: the server had made the binding within `readback_settle` of falling silent."""
    posted_again_and_known_but_not_counted: int = _zero()
    """Of them: the ledger remembers the answer, and yet the report does not count the row."""
    posted_again_only_by_the_report: int = _zero()
    """Requests that the ledger counts, or the summary tells of, and the server did not see."""
    lives_that_broke_off: int = _zero()
    """Processes that ended by themselves with rows left, or the last not with 0."""

    def wrong(self, plan: Plan) -> dict[str, int]:
        """Return the figures that should be 0 and are not."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.metadata.get("zero")
            and not (plan.may_repeat and item.metadata["may_repeat"])
            and getattr(self, item.name)
        }


def reckon(evidence: Evidence, *, seconds: float = 0.0) -> Figures:
    """Compare report, ledger and server."""
    plan, lives, stats = evidence.plan, evidence.lives, evidence.stats
    statuses = Counter(row.status for row in evidence.report)
    repeats = _repeats(evidence)
    reported = int(evidence.summary["posted_again_after_bound"])
    called = {row.key for row in evidence.report if row.status in CALLED_BOUND}
    return Figures(
        kills_that_struck=lives.struck,
        kills=lives.kills,
        workers_killed=lives.workers_killed,
        rows_claimed_when_struck=lives.claimed,
        rows=len(evidence.manifest),
        rows_bound=statuses["bound"],
        rows_already_bound=statuses["already_bound"],
        binds_that_met_a_binding=stats.get("posted_again", 0),
        requests_after_the_binding=sum(len(repeat.trace_ids) for repeat in repeats.values()),
        report_posted_again_after_bound=reported,
        resets_after_the_binding=stats.get("reset-after", 0),
        binds_delayed=stats.get("delay-after", 0) + stats.get("delay-before", 0),
        answers_500=stats.get("500", 0),
        requests_throttled=stats.get("throttled", 0),
        list_calls=stats.get("lists", 0),
        seconds=round(seconds, 1),
        kills_missing=max(0, plan.kills - lives.struck),
        rows_without_exactly_one_final_state=_without_one_end(evidence),
        rows_in_doubt=statuses["in_doubt"],
        rows_failed=statuses["failed"],
        bindings_not_called_bound=len(evidence.server.keys() - called),
        rows_falsely_called_bound=sum(
            row.status in CALLED_BOUND
            and evidence.server.get(row.key) != (row.device_id, row.create_time)
            for row in evidence.report
        ),
        report_rows_unlike_the_ledger=len(set(evidence.report) ^ set(evidence.ledger)),
        ledger_bindings_unlike_the_server=_unlike(evidence.ledger_bindings, evidence.server),
        journal_lines_unlike_the_server=_journal_errors(evidence),
        summary_counts_wrong=_unlike(evidence.summary["counts"], dict(statuses)),
        posted_again_after_bound=len(repeats),
        posted_again_without_excuse=sum(not repeat.is_excused for repeat in repeats.values()),
        posted_again_and_known_but_not_counted=sum(
            not evidence.refusals.isdisjoint(repeat.trace_ids) and key not in evidence.counted
            for key, repeat in repeats.items()
        ),
        posted_again_only_by_the_report=_uncalled_for(evidence, repeats, reported),
        lives_that_broke_off=len(lives.broke_off) + (lives.exit_code != 0),
    )


def _without_one_end(evidence: Evidence) -> int:
    """Return how many rows do not end exactly once, in the report and in the ledger.

    Those that the manifest does not have count as well.
    """
    wanted = {(line, key) for line, key in enumerate(evidence.manifest, start=2)}
    wrong: set[tuple[int, Key]] = set()
    for rows in (evidence.report, evidence.ledger):
        ends = Counter((row.line, row.key) for row in rows if row.status in FINAL)
        wrong |= {place for place in wanted | ends.keys() if ends[place] != (place in wanted)}
    return len(wrong)


def _unlike(one: dict[Any, Any], other: dict[Any, Any]) -> int:
    """Return how many keys do not have the same value in both."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def _outcome(line: dict[str, Any]) -> str:
    return str(line["result"]).rpartition(" ")[2]


def _key(line: dict[str, Any]) -> Key:
    return (line["user_id"], line["machine_code"])


def _bound_lines(evidence: Evidence) -> dict[Key, dict[str, Any]]:
    return {_key(line): line for line in evidence.journal if _outcome(line) == "bound"}


def _journal_errors(evidence: Evidence) -> int:
    """Return how often journal, statistics and bindings of the server tell otherwise."""
    found = Counter(_outcome(line) for line in evidence.journal)
    bound = _bound_lines(evidence)
    ids = {key: line["device_id"] for key, line in bound.items()}
    errors = _unlike(ids, {key: device_id for key, (device_id, _) in evidence.server.items()})
    errors += found["bound"] - len(bound)
    errors += abs(found["posted_again"] - evidence.stats.get("posted_again", 0))
    for key in bound.keys() & evidence.server.keys():
        came = _epoch(bound[key]["at"])
        made = _epoch(evidence.server[key][1])
        errors += not came - TICK_S <= made <= came + bound[key]["took_s"] + TICK_S
    return errors


@dataclass
class _Repeat:
    """A device for which a bind came in after it was bound."""

    is_excused: bool
    """The request that bound it did so later than the settling time after its client had given it
    up, or had died."""
    trace_ids: set[str] = field(default_factory=set)
    """Of the binds that came in after it."""


def _repeats(evidence: Evidence) -> dict[Key, _Repeat]:
    """Return the devices for which a bind came in after they were bound."""
    bound = _bound_lines(evidence)
    repeats: dict[Key, _Repeat] = {}
    for line in evidence.journal:
        key = _key(line)
        if _outcome(line) != "posted_again" or key not in evidence.server or key not in bound:
            continue
        made = _epoch(evidence.server[key][1])
        if _epoch(line["at"]) >= made:
            silent = _silent_at(evidence, _epoch(bound[key]["at"]))
            is_excused = made - silent > evidence.plan.settle_s - TICK_S
            repeats.setdefault(key, _Repeat(is_excused)).trace_ids.add(line["trace_id"])
    return repeats


def _uncalled_for(evidence: Evidence, repeats: dict[Key, _Repeat], reported: int) -> int:
    """Return how many repeats are told of that there were not."""
    seen = {key: len(repeat.trace_ids) for key, repeat in repeats.items()}
    extra = sum(max(0, told - seen.get(key, 0)) for key, told in evidence.counted.items())
    return extra + abs(reported - sum(evidence.counted.values()))


def _silent_at(evidence: Evidence, came: float) -> float:
    """Return when a request that came then was given up: by its time-out, or by a kill."""
    kills = (moment for moment in evidence.lives.killed_at if moment >= came)
    return min(came + evidence.plan.timeout_s, next(kills, came + evidence.plan.timeout_s))


def _epoch(moment: str) -> float:
    seconds = epoch_of(moment)
    assert seconds is not None, moment
    return seconds

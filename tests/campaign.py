"""The crash campaign: kills a run again and again, then compares ledger, report and server.

`run_campaign` leaves all its evidence in a folder; `reckon` compares, and knows nothing else.
"""

from __future__ import annotations

import csv
import json
import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeAlias

from bulkbind.clock import SystemClock, epoch_of
from tests.kit import (
    BULKBIND,
    ask,
    environment,
    ledger_of,
    read_results,
    sandbox,
    sandbox_bindings,
    write_csv,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Key: TypeAlias = tuple[str, str]
"""User and machine code."""

CODE_FOR_BOUND = "13000310"
"""The sandbox's answer to a second bind."""
BLOCK = 10
"""So many rows of a user follow each other in the manifest."""
CALLED_BOUND = ("bound", "already_bound")
FINAL = (*CALLED_BOUND, "failed", "skipped", "withdrawn", "invalid", "duplicate", "moved")
PATIENCE_S = 60.0
"""A life that does not come to its end in this time is killed all the same."""
MOST_AT_END = 5
"""So often a run that stopped early, and says that it can go on, is gone on with."""
TICK_S = 0.005
"""Moments of the server's clock have milliseconds; a journal's line is begun a little later."""


# --- what is done ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a campaign is to be; the same seed draws the same plan, but no two runs are alike."""

    rows: int
    kills: int
    """Kills that must strike: after them, rows are claimed that were not before."""
    seed: int = 5
    limit: str = "700/s"
    timeout_s: float = 1.0
    settle_s: float = 1.0
    late_s: float | None = None
    """The server binds so much later than it was asked to; None: it answers late instead."""
    late_share: float = 0.05
    known_code: str = "with"
    """`with` or `without` the code for "already bound" in the settings; `mixed`: either, at random,
    in each life."""
    faults: tuple[str, ...] = ()
    """More of them."""

    @property
    def may_repeat(self) -> bool:
        """Whether a device may be posted again after it was bound."""
        return self.late_s is not None and self.late_s >= self.settle_s

    def sandbox_options(self) -> list[str]:
        """Return the server's faults and limits, on binds and lists."""
        late = (
            f"delay-after=0.01,for={1.5 * self.timeout_s}s"
            if self.late_s is None
            else f"delay-before={self.late_share},for={self.late_s}s"
        )
        faults = (
            "reset-after=0.03",
            late,
            "500=0.02",
            "reset-after=0.02,on=list",
            "500=0.02,on=list",
            "reset-before=0.01,on=list",
            *self.faults,
        )
        given = ["--second-bind", "error", "--limit", self.limit, "--seed", str(self.seed)]
        return given + [word for fault in faults for word in ("--fault", fault)]

    def settings(self) -> str:
        """Return a settings file without the code for "already bound"."""
        return (
            f"timeout: {self.timeout_s}s\nlist_timeout: {2 * self.timeout_s}s\n"
            f"readback_settle: {self.settle_s}s\nconcurrency: 32\nbackoff_base: 200ms\n"
        )


@dataclass
class Lives:
    """What became of the processes."""

    kills: int = 0
    struck: int = 0
    claimed: int = 0
    """Rows that the kills that struck found claimed, added up."""
    killed_at: list[float] = field(default_factory=list)
    """Seconds since 1970, ascending."""
    broke_off: list[int] = field(default_factory=list)
    """Exit codes of lives that ended by themselves, but not because all was done."""
    exit_code: int | None = None
    """Of the last life."""


def run_campaign(home: Path, plan: Plan) -> Figures:
    """Run a manifest to its end through as many kills as are wanted; compare what was left."""
    began = time.monotonic()
    manifest = write_csv(home / "fleet.csv", _fleet(plan.rows))
    (home / "without.yaml").write_text(plan.settings(), encoding="utf-8")
    (home / "with.yaml").write_text(
        f'{plan.settings()}already_bound_codes: ["{CODE_FOR_BOUND}"]\n', encoding="utf-8"
    )
    journal = home / "journal.jsonl"
    with sandbox(*plan.sandbox_options(), "--journal", str(journal), home=home) as url:
        lives = _Campaign(home, plan, url, manifest).run()
        _sleep((plan.late_s or 0.0) + 0.5)  # whatever the server still has to do
        bindings = sandbox_bindings(url)
        stats = ask(f"{url}/sandbox/stats")
        ledger = ledger_of(home, url)
    evidence = gather(home, plan, ledger=ledger, bindings=bindings, stats=stats, lives=lives)
    return reckon(evidence, seconds=time.monotonic() - began)


def _fleet(rows: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield rows of many users: 50 devices each, in a few blocks, so that lists are short."""
    users = max(1, rows // 50)
    for number in range(rows):
        user = number // BLOCK % users
        yield f"SN{number:06d}", f"user_{user}", f"Van {number}", "Android 15"


class _Campaign:
    """Starts, kills and starts again."""

    def __init__(self, home: Path, plan: Plan, url: str, manifest: Path) -> None:
        self._home = home
        self._plan = plan
        self._url = url
        self._manifest = manifest
        self._ledger = ledger_of(home, url)
        self._pick = random.Random(plan.seed)
        self._claimed: set[tuple[int, ...]] = set()
        self._lives = Lives()

    def run(self) -> Lives:
        """Kill until enough kills have struck or nothing is left; then go on to the end."""
        lives = self._lives
        while lives.struck < self._plan.kills and len(lives.broke_off) < MOST_AT_END:
            if self._live_and_die() in (0, 1):
                break
        for _ in range(MOST_AT_END):
            with self._started() as last:
                lives.exit_code = last.wait(600)
            if lives.exit_code != 3:
                break
        return lives

    def _live_and_die(self) -> int | None:
        """Start a run and kill it; return its exit code if it was the quicker."""
        how = self._pick.choices((self._early, self._sending, self._settling), (10, 60, 30))[0]
        options = ["--rate", str(self._pick.randint(80, 160))] if how == self._settling else []
        with self._started(*options) as started:
            how(started)
            started.kill()
            code = started.wait(10)
        if code != -signal.SIGKILL:
            if code not in (0, 1):
                self._lives.broke_off.append(code)
            return code
        self._lives.killed_at.append(_now())
        self._lives.kills += 1
        claimed = self._claims()
        if claimed - self._claimed:
            self._lives.struck += 1
            self._lives.claimed += len(claimed)
        self._claimed = claimed
        return None

    def _claims(self) -> set[tuple[int, ...]]:
        """Return the claimed rows; a kill before the ledger was opened leaves those of the last."""
        query = "SELECT id, attempts, doubts FROM rows WHERE status = 'claimed'"
        return set(_select(self._ledger, query))

    # --- moments to die ---------------------------------------------------------------------------

    def _early(self, started: subprocess.Popen[bytes]) -> None:
        """Wait for any moment of starting, staging, taking stock, and a little sending."""
        _wait(started, self._pick.uniform(0.0, 1.2))

    def _sending(self, started: subprocess.Popen[bytes]) -> None:
        """Wait until some requests, perhaps one, have been served."""
        self._wait_for_binds(started, self._pick.randint(1, 150))

    def _settling(self, started: subprocess.Popen[bytes]) -> None:
        """Wait for a moment while doubt is read back, and rows are sent again and anew."""
        self._wait_for_binds(started, 1)
        _wait(started, self._pick.uniform(0.0, 2.5 * self._plan.settle_s + 0.5))

    def _wait_for_binds(self, started: subprocess.Popen[bytes], more: int) -> None:
        wanted = self._binds() + more
        until = time.monotonic() + PATIENCE_S
        while self._binds() < wanted and started.poll() is None and time.monotonic() < until:
            _sleep(0.005)

    def _binds(self) -> int:
        return int(ask(f"{self._url}/sandbox/stats").get("binds", 0))

    # --- processes --------------------------------------------------------------------------------

    @contextmanager
    def _started(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start `run` or `resume`, which says what it does in `run.log`."""
        can_resume = bool(_select(self._ledger, "SELECT 1 FROM runs WHERE state = 'sending'"))
        is_resumed = can_resume and self._pick.random() < 0.5
        command = ["resume"] if is_resumed else ["run", str(self._manifest)]
        code = self._plan.known_code
        code = self._pick.choice(("with", "without")) if code == "mixed" else code
        command += ["--endpoint", self._url, "--config", f"{code}.yaml", "--out", "report"]
        with (self._home / "run.log").open("ab") as log:
            started = subprocess.Popen(
                [*BULKBIND, *command, *options],
                env=environment(self._home),
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            try:
                yield started
            finally:
                started.kill()
                started.wait()


def _wait(started: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        started.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # polling another process


def _now() -> float:
    return SystemClock().utc_now().timestamp()


def _select(ledger: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a ledger holds; nothing where it is not there, or has no tables, yet."""
    if not ledger.exists():
        return []
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        try:
            return db.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []


# --- what was left --------------------------------------------------------------------------------


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
    server: dict[Key, tuple[str, str]]
    """The same of what the server holds."""
    journal: list[dict[str, Any]]
    """The binds that the server saw."""
    stats: dict[str, int]
    lives: Lives


def gather(
    home: Path,
    plan: Plan,
    *,
    ledger: Path,
    bindings: list[dict[str, str]],
    stats: dict[str, int],
    lives: Lives,
) -> Evidence:
    """Read what a campaign left in its folder."""
    with (home / "fleet.csv").open(encoding="utf-8", newline="") as file:
        manifest = [(row["user_id"], row["machine_code"]) for row in csv.DictReader(file)]
    columns = "line, user_id, machine_code, status, device_id, create_time"
    lines = (home / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    return Evidence(
        plan=plan,
        manifest=manifest,
        report=[
            _row(*(item[name] for name in columns.split(", ")))
            for item in read_results(home / "report")
        ],
        summary=json.loads((home / "report/summary.json").read_text(encoding="utf-8")),
        ledger=[_row(*item) for item in _select(ledger, f"SELECT {columns} FROM rows")],  # noqa: S608  # constants
        ledger_bindings={
            (user, code): (device_id, created)
            for user, code, device_id, created in _select(
                ledger, "SELECT user_id, machine_code, device_id, create_time FROM bindings"
            )
        },
        server={
            (item["userId"], item["machineCode"]): (item["deviceId"], item["createTime"])
            for item in bindings
        },
        journal=[line for line in map(json.loads, lines) if line["method"] == "POST"],
        stats=stats,
        lives=lives,
    )


def _row(line: str | int, user: str, code: str, status: str, device_id: str, created: str) -> Row:
    return Row(
        line=int(line), key=(user, code), status=status, device_id=device_id, create_time=created
    )


# --- what it comes to -----------------------------------------------------------------------------


def _zero(*, may_repeat: bool = False) -> Any:
    """Mark a figure that should be 0; *may_repeat*: unless the server is too late."""
    return field(metadata={"zero": True, "may_repeat": may_repeat})


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a campaign came to."""

    kills_that_struck: int
    kills: int
    rows_claimed_when_struck: int
    """Added up over the kills that struck."""
    rows: int
    rows_bound: int
    rows_already_bound: int
    binds_that_met_a_binding: int
    """Also those that came before it was made, and were worked off after it."""
    report_posted_again_after_bound: int
    """What `summary.json` says."""
    resets_after_the_binding: int
    answers_too_late: int
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
    posted_again_only_by_the_report: int = _zero()
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
        rows_claimed_when_struck=lives.claimed,
        rows=len(evidence.manifest),
        rows_bound=statuses["bound"],
        rows_already_bound=statuses["already_bound"],
        binds_that_met_a_binding=stats.get("posted_again", 0),
        report_posted_again_after_bound=reported,
        resets_after_the_binding=stats.get("reset-after", 0),
        answers_too_late=stats.get("delay-after", 0) + stats.get("delay-before", 0),
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
        posted_again_without_excuse=sum(not is_excused for is_excused in repeats.values()),
        posted_again_only_by_the_report=max(0, reported - len(repeats)),
        lives_that_broke_off=len(lives.broke_off) + (lives.exit_code != 0),
    )


def _without_one_end(evidence: Evidence) -> int:
    """Return how many rows report or ledger do not end exactly once, lines beyond the manifest's
    included."""
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


def _repeats(evidence: Evidence) -> dict[Key, bool]:
    """Return the devices for which a bind came in after they were bound, and whether that is
    excused: the request that bound them did so later than the settling time after its client had
    heard nothing, or had died."""
    bound = _bound_lines(evidence)
    repeats: dict[Key, bool] = {}
    for line in evidence.journal:
        key = _key(line)
        if _outcome(line) != "posted_again" or key not in evidence.server or key not in bound:
            continue
        made = _epoch(evidence.server[key][1])
        if _epoch(line["at"]) >= made:
            silent = _silent_at(evidence, _epoch(bound[key]["at"]))
            repeats[key] = made - silent > evidence.plan.settle_s - TICK_S
    return repeats


def _silent_at(evidence: Evidence, came: float) -> float:
    """Return when a request that came then was given up: by its time-out, or by a kill."""
    kills = (moment for moment in evidence.lives.killed_at if moment >= came)
    return min(came + evidence.plan.timeout_s, next(kills, came + evidence.plan.timeout_s))


def _epoch(moment: str) -> float:
    seconds = epoch_of(moment)
    assert seconds is not None, moment
    return seconds

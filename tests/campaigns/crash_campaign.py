"""What kills come to: `python -m tests.campaigns.crash_campaign [--kills N] [--late S] ...`.

`bulkbind run` against `bulkbind sandbox`, both as processes; the sandbox resets connections,
answers too late or with 500, limits binds and lists, and calls a second bind an error. The run is
killed with SIGKILL at random moments and started again until enough kills have struck and all is
done; then report, ledger, and the sandbox's bindings and journal are compared
(`tests.campaigns.crash_evidence`). Exit code 1 if a figure that should be 0 is not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.clock import SystemClock
from tests.benchmarks.bench import say, write_json
from tests.campaigns.crash_evidence import Evidence, Figures, Row, reckon
from tests.support.manifests import write_csv
from tests.support.processes import (
    BULKBIND,
    PLAIN,
    ask,
    children,
    environment,
    ledger_of,
    read_results,
    sandbox,
    sandbox_bindings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CODE_FOR_BOUND = "13000901"
"""The sandbox's answer to a second bind."""
BLOCK = 25
"""So many rows of a user follow each other in the manifest."""
MUCH_DOUBT = 600
"""With more rows in question than that, the next life lasts until some of them can be settled."""
SETTLING_S = 5.0
"""The longest of such lives."""
START_S = 60.0
"""The longest time in which workers start on a busy machine."""
WORKERS_KILLED = 0.7
"""The share of lives in which a worker is killed before the run's own process is."""
PATIENCE_S = 20.0
"""A life that does not come to its end in this time is killed all the same."""
ROWS_PER_KILL = 250
MOST_AT_END = 5
"""So often a run that stopped early, and says that it can go on, is gone on with."""
# --- what is done ---------------------------------------------------------------------------------

PER_S = 700
NO_LIMIT = "none"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a campaign is to be; the same seed draws the same plan, but no two runs are alike."""

    rows: int
    kills: int
    """Kills that must strike: after them, rows are claimed that were not before."""
    seed: int = 5
    limit: str = f"{PER_S}/s"
    timeout_s: float = 1.0
    settle_s: float = 0.5
    late_s: float | None = None
    """The server binds so much later than it was asked to; None: it answers late instead."""
    late_share: float = 0.05
    known_code: str = "with"
    """`with` or `without` the code for "already bound" in the settings; `mixed`: either, at random,
    in each life."""
    faults: tuple[str, ...] = ()
    """More of them."""
    is_plain: bool = False
    """Whether every request takes the plain path."""
    workers: int = 1
    """Processes that send; of several, some are killed as well, and the others go on."""

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
        given = ["--second-bind", "error", "--seed", str(self.seed)]
        given += [] if self.limit == NO_LIMIT else ["--limit", self.limit]
        return given + [word for fault in faults for word in ("--fault", fault)]

    def settings(self) -> str:
        """Return a settings file without the code for "already bound"."""
        return (
            f"timeout: {self.timeout_s}s\nlist_timeout: {2 * self.timeout_s}s\n"
            f"readback_settle: {self.settle_s}s\nconcurrency: 32\nbackoff_base: 200ms\n"
            + (f"rate: {PER_S}\n" if self.limit == NO_LIMIT else "")
        )


@dataclass
class Lives:
    """What became of the processes."""

    kills: int = 0
    struck: int = 0
    workers_killed: int = 0
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
    manifest = write_csv(home / "fleet.csv", fleet_of(plan.rows))
    (home / "without.yaml").write_text(plan.settings(), encoding="utf-8")
    (home / "with.yaml").write_text(
        f'{plan.settings()}already_bound_codes: ["{CODE_FOR_BOUND}"]\n', encoding="utf-8"
    )
    journal = home / "journal.jsonl"
    with sandbox(*plan.sandbox_options(), "--journal", str(journal), home=home) as url:
        lives = _Campaign(home, plan, url, manifest).run()
        sleep((plan.late_s or 0.0) + 0.5)  # whatever the server still has to do
        bindings = sandbox_bindings(url)
        stats = ask(f"{url}/sandbox/stats")
        ledger = ledger_of(home, url)
    evidence = gather(home, plan, ledger=ledger, bindings=bindings, stats=stats, lives=lives)
    return reckon(evidence, seconds=time.monotonic() - began)


def fleet_of(rows: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield rows of many users: 50 devices each, in two blocks, so that lists are short."""
    users = max(1, rows // 50)
    for number in range(rows):
        user = number // BLOCK % users
        yield f"SN{number:06d}", f"user_{user}", f"Van {number}", "Android 15"


_CLAIMED = (
    "SELECT id, attempts, doubts FROM rows "
    "WHERE status = 'claimed' AND status IN ('claimed', 'in_doubt')"
)
_IN_DOUBT = "SELECT id FROM rows WHERE status = 'in_doubt' AND status IN ('claimed', 'in_doubt')"
"""The last part is the condition of an index."""
_STAGED = "SELECT id FROM rows WHERE status = 'staged'"


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
        self._log_at = 0

    def run(self) -> Lives:
        """Kill until enough kills have struck or nothing is left; then go on to the end."""
        lives = self._lives
        while lives.struck < self._plan.kills and len(lives.broke_off) < MOST_AT_END:
            lives.exit_code = self._live_and_die()
            if lives.exit_code in (0, 1):
                return lives
        for _ in range(MOST_AT_END):
            with self._started() as last:
                lives.exit_code = last.wait(600)
            if lives.exit_code != 3:
                break
        return lives

    def _live_and_die(self) -> int | None:
        """Start a run and kill it; return its exit code if it was the quicker."""
        ways = (self._early, self._sending, self._racing, self._settling)
        how = self._pick.choices(ways, (10, 70, 5, 15))[0]
        if self._in_doubt() + len(self._claimed) > MUCH_DOUBT:
            how = self._settling
        pace = int(self._pick.uniform(0.2, 0.8) * self._share()) + 60
        options = ["--rate", str(pace)] if how == self._settling else []
        with self._started(*options) as started:
            if self._plan.workers > 1 and how != self._early:
                self._wait_for_workers(started)
            how(started)
            if self._plan.workers > 1 and self._pick.random() < WORKERS_KILLED:
                self._kill_worker(started)
            started.kill()
            code = started.wait(10)
        if code != -signal.SIGKILL:
            if code not in (0, 1):
                self._lives.broke_off.append(code)
            return code
        self._lives.killed_at.append(now())
        self._lives.kills += 1
        claimed = self._claims()
        if claimed - self._claimed:
            self._lives.struck += 1
            self._lives.claimed += len(claimed)
        self._claimed = claimed
        return None

    def _wait_for_workers(self, started: subprocess.Popen[bytes]) -> None:
        """Wait until one of its workers can send, or there is nothing to send."""
        log = self._home / "run.log"
        poll(started, lambda: b'"worker.started"' in log.read_bytes()[self._log_at :], START_S)

    def _kill_worker(self, started: subprocess.Popen[bytes]) -> None:
        """Kill a worker; the others go on for some requests."""
        workers = children(started.pid)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self._pick.choice(workers), signal.SIGKILL)
            self._lives.killed_at.append(now())
            self._lives.workers_killed += 1
            self._sending(started)

    def _claims(self) -> set[tuple[int, ...]]:
        """Return the claimed rows; a kill before the ledger was opened leaves those of the last."""
        return set(select(self._ledger, _CLAIMED))

    # --- moments to die ---------------------------------------------------------------------------

    def _early(self, started: subprocess.Popen[bytes]) -> None:
        """Wait for any moment of starting, staging, taking stock, and a little sending."""
        wait_for(started, self._pick.uniform(0.0, 0.8))

    def _sending(self, started: subprocess.Popen[bytes]) -> None:
        """Wait until some requests, perhaps one, have been served."""
        self._wait_for_binds(started, self._pick.randint(1, max(1, min(150, self._share()))))

    def _racing(self, started: subprocess.Popen[bytes]) -> None:
        """Wait until the server's limit was felt, and a little longer."""
        throttled, most = self._seen("throttled"), self._binds() + 4 * self._share()
        poll(started, lambda: self._seen("throttled") > throttled or self._binds() > most)
        wait_for(started, self._pick.uniform(0.0, 0.2))

    def _settling(self, started: subprocess.Popen[bytes]) -> None:
        """Wait until some part of what is in doubt, perhaps all, was read back or sent again."""
        self._wait_for_binds(started, 1)
        wanted = self._pick.random() * self._in_doubt()
        poll(started, lambda: self._in_doubt() <= wanted, self._pick.uniform(0.5, SETTLING_S))

    def _wait_for_binds(self, started: subprocess.Popen[bytes], more: int) -> None:
        wanted = self._binds() + more
        poll(started, lambda: self._binds() >= wanted)

    def _binds(self) -> int:
        return self._seen("binds")

    def _seen(self, what: str) -> int:
        return int(ask(f"{self._url}/sandbox/stats").get(what, 0))

    def _share(self) -> int:
        """Return how many rows there are for each kill that is to come."""
        staged = len(select(self._ledger, _STAGED)) if self._lives.kills else self._plan.rows
        return staged // (self._plan.kills - self._lives.struck)

    def _in_doubt(self) -> int:
        return len(select(self._ledger, _IN_DOUBT))

    # --- processes --------------------------------------------------------------------------------

    @contextmanager
    def _started(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start `run` or `resume`, which says what it does in `run.log`."""
        can_resume = bool(select(self._ledger, "SELECT 1 FROM runs WHERE state = 'sending'"))
        is_resumed = can_resume and self._pick.random() < 0.5
        command = ["resume"] if is_resumed else ["run", str(self._manifest)]
        code = self._plan.known_code
        code = self._pick.choice(("with", "without")) if code == "mixed" else code
        command += ["--endpoint", self._url, "--config", f"{code}.yaml", "--out", "report"]
        command += ["--workers", str(self._plan.workers)]
        with (self._home / "run.log").open("ab") as log:
            self._log_at = log.tell()
            started = subprocess.Popen(
                [*(PLAIN if self._plan.is_plain else BULKBIND), *command, *options],
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


def wait_for(started: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until the process has ended, or so long."""
    with suppress(subprocess.TimeoutExpired):
        started.wait(seconds)


def poll(
    started: subprocess.Popen[bytes], is_reached: Callable[[], bool], most_s: float = PATIENCE_S
) -> None:
    """Wait until something is reached, or the process has ended, or patience."""
    until = time.monotonic() + most_s
    while not is_reached() and started.poll() is None and time.monotonic() < until:
        sleep(0.005)


def sleep(seconds: float) -> None:
    """Let others work."""
    time.sleep(seconds)  # noqa: TID251  # polling another process


def now() -> float:
    """Return seconds since 1970."""
    return SystemClock().utc_now().timestamp()


def select(ledger: Path, query: str) -> list[tuple[Any, ...]]:
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
            _row([item[name] for name in columns.split(", ")])
            for item in read_results(home / "report")
        ],
        summary=json.loads((home / "report/summary.json").read_text(encoding="utf-8")),
        ledger=[_row(item) for item in select(ledger, f"SELECT {columns} FROM rows")],  # noqa: S608  # constants
        ledger_bindings={
            (user, code): (device_id, created)
            for user, code, device_id, created in select(
                ledger, "SELECT user_id, machine_code, device_id, create_time FROM bindings"
            )
        },
        counted={
            (user, code): repeats
            for user, code, repeats in select(
                ledger, "SELECT user_id, machine_code, repeats FROM rows WHERE repeats > 0"
            )
        },
        refusals={
            trace_id
            for (trace_id,) in select(
                ledger,
                "SELECT trace_id FROM attempts WHERE verdict IN ('Refused', 'AlreadyBound')",
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


def _row(cells: Sequence[Any]) -> Row:
    line, user, code, status, device_id, created = cells
    return Row(
        line=int(line), key=(user, code), status=status, device_id=device_id, create_time=created
    )


# --- the command ----------------------------------------------------------------------------------


def main() -> None:
    """Run a campaign of 200 kills, unless told otherwise."""
    given = _parser().parse_args()
    late_s: float | None = given.late
    plan = Plan(
        rows=given.rows or ROWS_PER_KILL * given.kills * (1 if given.workers == 1 else 3),
        kills=given.kills,
        seed=given.seed,
        limit=given.limit or (f"{PER_S}/s" if given.workers == 1 else NO_LIMIT),
        timeout_s=given.timeout or (1.0 if late_s is None else min(1.0, late_s / 2)),
        settle_s=given.settle,
        late_s=late_s,
        late_share=given.late_share,
        known_code=given.known_code,
        faults=tuple(given.fault),
        is_plain=given.plain,
        workers=given.workers,
    )
    with ExitStack() as stack:
        if given.keep is not None:
            given.keep.mkdir(parents=True)
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        figures = run_campaign(folder.resolve(), plan)
    wrong = figures.wrong(plan)
    _show(figures, plan)
    name = "crash_campaign" if late_s is None else "crash_campaign_late"
    write_json(name, {"plan": asdict(plan), "figures": asdict(figures), "wrong": wrong})
    sys.exit(1 if wrong else 0)


def _parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description="Kill a run again and again, then compare.")
    add = parser.add_argument
    add("--kills", type=int, default=200, help="kills that must strike  [default: 200]")
    add(
        "--rows",
        type=int,
        help=f"rows of the manifest  [default: {ROWS_PER_KILL} a kill, thrice that with workers]",
    )
    add("--late", type=float, metavar="S", help="the server binds S seconds late, not at once")
    add("--late-share", type=float, default=0.05, help="share of late binds  [default: 0.05]")
    add("--timeout", type=float, metavar="S", help="of a bind  [default: 1; late: S / 2 at most]")
    add("--settle", type=float, default=0.5, metavar="S", help="readback_settle  [default: 0.5]")
    add(
        "--limit",
        help=f"of the sandbox, on all calls; {NO_LIMIT}: the run's own  [default: {PER_S}/s; with "
        f"workers, which send nothing at a limit as slow: {NO_LIMIT}]",
    )
    add(
        "--known-code",
        choices=("with", "without", "mixed"),
        default="with",
        help="whether the settings know the code of a second bind; mixed: it changes with every "
        "life  [default: with]",
    )
    add("--fault", action="append", default=[], help="one more fault of the sandbox; repeatable")
    add("--plain", action="store_true", help="every request takes the plain path")
    add("--workers", type=int, default=1, help="processes that send  [default: 1]")
    add("--seed", type=int, default=5, help="of kills and faults  [default: 5]")
    add("--keep", type=Path, metavar="DIR", help="a new folder in which all evidence stays")
    return parser


def _show(figures: Figures, plan: Plan) -> None:
    """Print every figure, and whether it should be 0."""
    wrong = figures.wrong(plan)
    for item in fields(figures):
        should = ""
        if item.metadata.get("zero"):
            should = "  (should be 0)" if item.name in wrong else "  (0 wanted)"
            if plan.may_repeat and item.metadata["may_repeat"]:
                should = "  (expected of so late a server)"
        say(f"{getattr(figures, item.name):>10,}  {item.name.replace('_', ' ')}{should}")


if __name__ == "__main__":
    main()

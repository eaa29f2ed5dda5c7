"""Workers and driver die or halt: `python -m tests.campaigns.workers_faults [KIND...]`.

`bulkbind run --workers N` against `bulkbind sandbox`, which calls a second bind an error and keeps
a journal. Each kind of fault strikes again and again while rows are sent: SIGKILL, and SIGSTOP for
shorter than the lease, for longer than it, and for longer than lease and time-out, of a worker and
of the run's own process (the driver). Then report, ledger and server are compared as after a crash
campaign, and the journal must not hold a request that left a process after its lease. Exit code 1
if a figure that should be 0 is not. Linux only.

Each of the nine kinds takes two to seven minutes for 50 strikes, of which it mostly waits: on two
cores with nothing else to do, `--at-once 5 --parts 2` has them all done in some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.clock import epoch_of
from bulkbind.engine.workers.worker import LEASE_S
from tests.benchmarks.bench import say, write_json
from tests.campaigns.crash_campaign import (
    CODE_FOR_BOUND,
    MOST_AT_END,
    PATIENCE_S,
    START_S,
    Lives,
    Plan,
    fleet_of,
    gather,
    now,
    poll,
    sleep,
)
from tests.campaigns.crash_evidence import reckon
from tests.campaigns.side_by_side import add_options, results_of
from tests.support.manifests import write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    children,
    environment,
    ledger_of,
    sandbox,
    sandbox_bindings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLACK_S = 0.3
"""For so long a request that has left may wait to be read by a sandbox on a busy machine."""
TIME_OUT_S, SETTLE_S = 1.0, 0.5
PER_S = 300
"""The run's own: at a limit of the gateway as slow, no worker sends."""
TRACE_PREFIX = 40
"""Characters of a trace id that tell processes apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A fault."""

    of_driver: bool
    stop_s: tuple[float, float] | None = None
    """For how long it is stopped, at random; None: it is killed."""
    halts_worker: bool = False
    """Whether a worker is stopped while the driver is killed, and goes on after it."""


_LONG = LEASE_S + TIME_OUT_S
STOPS = {
    "short": (0.05, 0.5 * LEASE_S),
    "lease": (LEASE_S + 0.3, LEASE_S + 0.8 * TIME_OUT_S),
    "long": (_LONG + 1.0, _LONG + SETTLE_S + 2.0),
}
KINDS = {
    "kill worker": Kind(of_driver=False),
    **{f"stop worker {name}": Kind(of_driver=False, stop_s=s) for name, s in STOPS.items()},
    "kill driver": Kind(of_driver=True),
    "kill driver, worker halted": Kind(of_driver=True, halts_worker=True),
    **{f"stop driver {name}": Kind(of_driver=True, stop_s=s) for name, s in STOPS.items()},
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, in seconds since 1970."""

    pid: int
    at: float
    until: float
    """When the process went on; infinite where it was killed."""


@dataclass
class Struck:
    """What was done to the processes of one kind of fault."""

    lives: Lives = field(default_factory=Lives)
    strikes: list[Strike] = field(default_factory=list)
    begun_at: list[float] = field(default_factory=list)
    """When each driver was started."""


class Faults:
    """Runs a manifest to its end, through strikes of one kind."""

    def __init__(self, home: Path, url: str, kind: Kind, given: argparse.Namespace) -> None:
        self._home = home
        self._url = url
        self._kind = kind
        self._given = given
        self._pick = random.Random(given.seed)
        self._log_at = 0
        self._kills_driver = kind.of_driver and kind.stop_s is None
        self.struck = Struck()

    def run(self) -> Struck:
        """Strike until it was often enough or nothing is left; then go on to the end."""
        lives = self.struck.lives
        for _ in range(self._given.strikes + MOST_AT_END):
            with self._started() as driver:
                self._wait_for_workers(driver)
                while self._left() and self._has_sent(driver) and self._strike(driver):
                    pass
                if self._left() and not self._kills_driver:
                    driver.terminate()  # it has no worker left, or has ended
                lives.exit_code = driver.wait(600)
            if lives.exit_code in (0, 1):
                break
            if lives.exit_code not in (-signal.SIGKILL, 128 + signal.SIGTERM):
                lives.broke_off.append(lives.exit_code)
                if len(lives.broke_off) >= MOST_AT_END:
                    break
        return self.struck

    def _left(self) -> int:
        """Return how many strikes are to come."""
        return int(self._given.strikes) - len(self.struck.strikes)

    def _wait_for_workers(self, driver: subprocess.Popen[bytes]) -> None:
        """Wait until all can send, or it ends before: then nothing is left for them."""
        wanted = self._given.workers if self._given.workers > 1 else 0
        poll(driver, lambda: self._log().count(b'"worker.started"') >= wanted, START_S)

    def _log(self) -> bytes:
        """Return what the present driver has logged."""
        with (self._home / "run.log").open("rb") as log:
            log.seek(self._log_at)
            return log.read()

    def _has_sent(self, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for some requests more; return whether there are any."""
        before = self._binds()
        wanted = before + self._pick.randint(5, 80)
        poll(driver, lambda: self._binds() >= wanted, PATIENCE_S)
        sleep(self._pick.uniform(0.0, 0.05))
        return driver.poll() is None

    def _strike(self, driver: subprocess.Popen[bytes]) -> bool:
        """Strike; return False if there is nobody to."""
        struck = [driver.pid] if self._kind.of_driver else children(driver.pid)
        if not struck:
            return False
        pid = self._pick.choice(struck)
        halted = self._halted(children(driver.pid)) if self._kind.halts_worker else nullcontext()
        at, until = now(), float("inf")
        with halted, suppress(ProcessLookupError):
            if self._kind.stop_s is None:
                os.kill(pid, signal.SIGKILL)
                self.struck.lives.killed_at.append(at)
            else:
                os.kill(pid, signal.SIGSTOP)
                sleep(self._pick.uniform(*self._kind.stop_s))
                until = now()
                os.kill(pid, signal.SIGCONT)
        self.struck.strikes.append(Strike(pid, at, until))
        self.struck.lives.kills += 1
        return not self._kills_driver

    @contextmanager
    def _halted(self, workers: list[int]) -> Iterator[None]:
        """Stop a worker, with orders that it has not read; it goes on within its lease."""
        pid = self._pick.choice(workers) if workers else 0
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGSTOP)
        sleep(self._pick.uniform(0.02, 0.2))
        yield
        sleep(self._pick.uniform(0.05, 0.8 * LEASE_S))
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, signal.SIGCONT)

    def _binds(self) -> int:
        return int(ask(f"{self._url}/sandbox/stats").get("binds", 0))

    @contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [*BULKBIND, "run", "fleet.csv", "--endpoint", self._url]
        command += ["--config", "faults.yaml", "--out", "report", "--yes"]
        command += ["--workers", str(self._given.workers), "--rate", str(PER_S)]
        self.struck.begun_at.append(now())
        with (self._home / "run.log").open("ab") as log:
            self._log_at = log.tell()
            driver = subprocess.Popen(
                command, env=environment(self._home), cwd=self._home,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
            try:
                yield driver
            finally:
                driver.kill()
                driver.wait()


# --- what is promised -----------------------------------------------------------------------------


def buried(home: Path) -> dict[int, float]:
    """Return when each lost worker was given up, by its process id."""
    lines = (home / "run.log").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    lost = [line for line in found if line["event"] == "worker.lost"]
    return {line["pid"]: _moment(line["timestamp"]) for line in lost}


def late_requests(
    kind: Kind, struck: Struck, journal: list[dict[str, Any]], buried_at: dict[int, float]
) -> int:
    """Return how many requests left a process later than its lease allows.

    A driver that halts, or is dead, renews no lease: nothing arrives until it goes on, or the next
    one begins. A worker that was given up while it halted owns nothing that it had in hand, so
    nothing arrives from it; one that asks in time for another lease goes on.
    """
    came = [(_moment(line["at"]), line["trace_id"][:TRACE_PREFIX]) for line in journal]
    if kind.of_driver:
        return sum(_arrivals(came, strike, struck.begun_at) for strike in struck.strikes)
    by_process: dict[str, list[float]] = defaultdict(list)
    for at, process in came:
        by_process[process].append(at)
    for begun_at in struck.begun_at:  # the driver sends first, and goes on where no worker is left
        driver = next((process for at, process in came if at > begun_at), "")
        by_process.pop(driver, None)
    return sum(
        _after_silence(moments, strike)
        for strike in struck.strikes
        for moments in by_process.values()
        if buried_at.get(strike.pid, float("inf")) < strike.until
    )


def _arrivals(came: list[tuple[float, str]], strike: Strike, begun_at: list[float]) -> int:
    """Return how many requests arrived though there was no driver to renew a lease."""
    next_at = min([at for at in begun_at if at > strike.at], default=float("inf"))
    end = min(strike.until, next_at)
    return sum(strike.at + LEASE_S + SLACK_S < at < end for at, _ in came)


def _after_silence(moments: list[float], strike: Strike) -> int:
    """Return how many requests a process sent that was there before a stop, and silent in it."""
    begin, end = strike.at + SLACK_S, strike.until
    if min(moments) >= strike.at or any(begin < at < end for at in moments):
        return 0
    if max(at for at in moments if at < strike.at) < strike.at - LEASE_S:
        return 0  # it had nothing to send before either
    return sum(at >= end for at in moments)


def _moment(text: str) -> float:
    moment = epoch_of(text)
    assert moment is not None
    return moment


# --- the command ----------------------------------------------------------------------------------


def measured(name: str, kind: Kind, home: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run one kind of fault, print a line and return the figures."""
    rows = given.rows or int(PER_S * _seconds(kind, given))
    write_csv(home / "fleet.csv", fleet_of(rows))
    (home / "faults.yaml").write_text(
        f"timeout: {TIME_OUT_S}s\nlist_timeout: 2s\nreadback_settle: {SETTLE_S}s\n"
        f'backoff_base: 200ms\nalready_bound_codes: ["{CODE_FOR_BOUND}"]\n',
        encoding="utf-8",
    )
    options = ["--second-bind", "error", "--fault", "delay-before=1,for=20ms"]
    journal = home / "journal.jsonl"
    began = time.monotonic()
    with sandbox(*options, "--journal", str(journal), home=home) as url:
        struck = Faults(home, url, kind, given).run()
        sleep(0.5)
        bindings, stats = sandbox_bindings(url), ask(f"{url}/sandbox/stats")
        ledger = ledger_of(home, url)
    plan = Plan(rows=rows, kills=0, timeout_s=TIME_OUT_S, settle_s=SETTLE_S)
    evidence = gather(home, plan, ledger=ledger, bindings=bindings, stats=stats, lives=struck.lives)
    figures = reckon(evidence, seconds=time.monotonic() - began)
    wrong = figures.wrong(plan)
    late = late_requests(kind, struck, evidence.journal, buried(home))
    missing = given.strikes - len(struck.strikes)
    wrong |= {"requests_after_the_lease": late} if late else {}
    wrong |= {"strikes_missing": missing} if missing else {}
    lost = sum(bool(worker["lost"]) for worker in evidence.summary.get("workers", ()))
    say(
        f"{name:<30}{len(struck.strikes):>6}{rows:>9,}{figures.rows_bound:>9,}"
        f"{figures.rows_already_bound:>9,}{figures.list_calls:>7,}{lost:>6}"
        f"{figures.seconds:>8.0f} s  {wrong or 'all 0'}"
    )
    return {"wrong": wrong, "lost": lost, **asdict(figures)}


def _seconds(kind: Kind, given: argparse.Namespace) -> float:
    """Return how long there must be rows, so that all strikes strike."""
    stop_s = sum(kind.stop_s) / 2 if kind.stop_s else 0.0
    lives = given.strikes if kind.of_driver and not stop_s else 1 + given.strikes // given.workers
    return float(given.strikes * (0.6 + 1.3 * stop_s) + 4 * lives)


def main() -> None:
    """Run every kind, or those that are named, 50 strikes each unless told otherwise."""
    given = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left
    say(
        f"{'':<30}{'struck':>6}{'rows':>9}{'bound':>9}{'already':>9}{'lists':>7}{'lost':>6}"
        f"{'':>10}  what should be 0 and is not"
    )
    kinds = {
        name: kind
        for name, kind in KINDS.items()
        if not given.kind or any(name.startswith(wanted) for wanted in given.kind)
    }
    if given.workers == 1:
        kinds = {name: kind for name, kind in kinds.items() if kind.of_driver}
    results = results_of(measured, kinds, given, _seconds)
    write_json("workers_faults", {"workers": given.workers, "kinds": results})
    sys.exit(any(result["wrong"] for result in results.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Kill and halt workers and driver, then compare.")
    add = parser.add_argument
    add("kind", nargs="*", help=f"kinds, or how they begin, of {', '.join(KINDS)}  [default: all]")
    add("--workers", type=int, default=3, help="1: the run's own process alone  [default: 3]")
    add("--rows", type=int, help="rows of each manifest  [default: enough for the strikes]")
    add_options(parser)
    return parser


if __name__ == "__main__":
    main()

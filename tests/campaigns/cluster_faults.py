"""A cluster of several machines fails: `python -m tests.campaigns.cluster_faults [KIND...]`.

Scheduler, workers and `bulkbind run --cluster` (the driver) are machines of their own, which are
network namespaces, with TLS between them, as `samples/deploy/cluster/machines.sh` starts them. Each
kind of fault strikes again and again while rows are sent: SIGKILL or SIGSTOP of a machine's
processes, or its link cut for 1, 10 or 60 s; the way from a worker to the server stays open, so
that nothing but its lease stops it. Two kinds last as long as the run: frames delayed by 50 ms, and
1 % of them lost; `calm` is what these are compared with.

Then report, ledger and server are compared as after a crash campaign; no request may have left a
worker after its lease, and no more of them may be refused than 2 %. Exit code 1 if a figure that
should be 0 is not. Linux, as root.

Where strikes are kills and halts, `kill stop --at-once 4 --parts 2` has 50 of each of the six kinds
done in some fifteen minutes on two cores with nothing else to do; others delay what is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from tests.campaigns.workers_faults import SETTLE_S, SLACK_S, TIME_OUT_S, buried
from tests.support.certificates import certify
from tests.support.manifests import write_csv
from tests.support.namespaces import Arrival, Machines
from tests.support.paths import ROOT
from tests.support.processes import (
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

PER_S = 200
REFUSED, SLOWER = 0.02, 0.02
"""The most that may be refused, and by how much the efficiency may be lower than `calm`'s."""
PORT = 8786
SCRIPT = str(ROOT / "samples" / "deploy" / "cluster" / "machines.sh")
BURIED_S = 4.0
"""By then whoever is silent has been given up …"""
KILLED_S = 1.0
"""… and whoever was killed, whose connections break."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A fault."""

    of: str = ""
    """Whose machine: worker, scheduler or driver; empty: nobody's."""
    how: str = ""
    """kill, stop or cut."""
    for_s: float = 0.0
    """How long a stop or a cut lasts."""
    delay_s: float = 0.0
    loss: float = 0.0
    """Of all frames, all the time."""


KINDS = {
    "calm": Kind(),
    "delay": Kind(delay_s=0.05),
    "loss": Kind(loss=0.01),
    **{f"kill {of}": Kind(of=of, how="kill") for of in ("worker", "scheduler", "driver")},
    **{f"stop {of}": Kind(of=of, how="stop", for_s=5) for of in ("worker", "scheduler", "driver")},
    **{
        f"cut {of} {for_s}": Kind(of=of, how="cut", for_s=for_s)
        for for_s in (1, 10, 60)
        for of in ("worker", "scheduler", "driver")
    },
}


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, in seconds since 1970."""

    at: float
    until: float
    """When it was over; infinite for a kill."""
    leased: dict[str, frozenset[int]]
    """The machines whose leases nobody renews from then on, with the numbers of their workers."""


@dataclass
class Struck:
    """What was done, and seen."""

    lives: Lives = field(default_factory=Lives)
    strikes: list[Strike] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    """When each driver began and ended."""


class Faults:
    """Runs a manifest to its end, through strikes of one kind."""

    def __init__(
        self, home: Path, url: str, machines: Machines, kind: Kind, given: argparse.Namespace
    ) -> None:
        self._home = home
        self._url = url
        self._machines = machines
        self._kind = kind
        self._given = given
        self._pick = random.Random(given.seed)
        self._workers = [f"worker{number}" for number in range(given.workers)]
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._log_at = 0
        self.struck = Struck()

    def run(self) -> Struck:
        """Strike until it was often enough or nothing is left; then go on to the end."""
        lives = self.struck.lives
        try:
            for _ in range(self._given.strikes + MOST_AT_END):
                lives.exit_code = self._live()
                if lives.exit_code in (0, 1):
                    break
                if lives.exit_code not in (-signal.SIGKILL, 128 + signal.SIGTERM, 3):
                    lives.broke_off.append(lives.exit_code)
                    if len(lives.broke_off) >= MOST_AT_END:
                        break
        finally:
            for part in self._parts.values():
                _end(part)
        return self.struck

    def _live(self) -> int:
        """Start what is not there, and a driver; strike; return the driver's exit code."""
        self._mend()
        with self._started() as driver:
            began = now()
            poll(driver, self._all_started, START_S)
            while self._left() and self._has_sent(driver):
                self._strike(driver)
            code = driver.wait(600)
            self.struck.spans.append((began, now()))
        return code

    def _left(self) -> int:
        """Return how many strikes are to come."""
        return self._given.strikes - len(self.struck.strikes) if self._kind.of else 0

    # --- the parts --------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Start the parts of the cluster that have ended."""
        scheduler = self._parts.get("scheduler")
        if scheduler is None or scheduler.poll() is not None:
            self._start("scheduler", "Scheduler at: ")
        for name in self._workers:
            worker = self._parts.get(name)
            if worker is None or worker.poll() is not None:
                self._start(name, "Registered to: ")

    def _start(self, name: str, until: str) -> None:
        """Start a part of the cluster, and wait until it says that it is there."""
        role = name.rstrip("0123456789")
        address = self._machines.address(name)
        words = ["sh", SCRIPT, role, *([self._address()] if role == "worker" else [])]
        log = self._home / f"{name}.log"
        with log.open("wb") as file:
            part = self._parts[name] = subprocess.Popen(
                self._machines.command(name, *words),
                env=environment(
                    self._home, TLS=str(self._home), LISTEN=address, HOST=address, PORT=str(PORT)
                ),
                cwd=self._home, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        poll(part, lambda: until.encode() in log.read_bytes(), START_S)
        assert part.poll() is None, log.read_text(encoding="utf-8")

    def _address(self) -> str:
        return f"tls://{self._machines.address('scheduler')}:{PORT}"

    @contextmanager
    def _started(self) -> Iterator[subprocess.Popen[bytes]]:
        command = ["sh", SCRIPT, "run", self._address(), "fleet.csv", "--endpoint", self._url]
        command += ["--config", "faults.yaml", "--out", "report", "--yes", "--log-level", "info"]
        with (self._home / "run.log").open("ab") as log:
            self._log_at = log.tell()
            driver = subprocess.Popen(
                self._machines.command("driver", *command),
                env=environment(self._home, TLS=str(self._home)),
                cwd=self._home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
            try:
                yield driver
            finally:
                _end(driver)

    def _said(self, event: str) -> int:
        """Return how often the present driver has logged an event."""
        with (self._home / "run.log").open("rb") as log:
            log.seek(self._log_at)
            return log.read().count(f'"{event}"'.encode())

    def _all_started(self) -> bool:
        return self._said("worker.started") + self._said("worker.lost") >= len(self._workers)

    def _has_sent(self, driver: subprocess.Popen[bytes]) -> bool:
        """Wait for some requests more; return whether the run goes on."""
        wanted = len(self._machines.came) + self._pick.randint(5, 80)
        poll(driver, lambda: len(self._machines.came) >= wanted, PATIENCE_S)
        sleep(self._pick.uniform(0.0, 0.05))
        return driver.poll() is None

    # --- the faults -------------------------------------------------------------------------------

    def _strike(self, driver: subprocess.Popen[bytes]) -> None:
        """Strike a machine; it is whole again at the end, unless it was killed."""
        kind = self._kind
        name = self._struck_one() if kind.of == "worker" else kind.of
        process = driver if kind.of == "driver" else self._parts[name]
        whose = {"worker": [name], "driver": self._workers, "scheduler": []}[kind.of]
        leased = {each: frozenset(children(self._parts[each].pid)) for each in whose}
        at = now()
        if kind.how == "kill":
            process.kill()
            self.struck.lives.killed_at.append(at)
            self.struck.lives.kills += 1
            until = float("inf")
            if kind.of != "driver":
                poll(driver, lambda: now() > at + KILLED_S)
        else:
            with self._halted(name, process):
                poll(driver, lambda: now() > at + kind.for_s, kind.for_s + 1)
            until = now()
            poll(driver, lambda: now() > at + BURIED_S)
        self.struck.strikes.append(Strike(at, until, leased))

    def _struck_one(self) -> str:
        """Return a worker to strike: one that is there and has a process, if there is any."""
        able = [each for each in self._workers if children(self._parts[each].pid)]
        return self._pick.choice(able or self._workers)

    @contextmanager
    def _halted(self, name: str, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Cut a machine off, or stop all or one of its processes."""
        if self._kind.how == "cut":
            self._machines.cut.add(name)
            yield
            self._machines.cut.discard(name)
            return
        own = [process.pid, *children(process.pid)]
        pids = self._pick.choice([own, own[:1], own[-1:]])
        _signal(pids, signal.SIGSTOP)
        yield
        _signal(pids, signal.SIGCONT)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


# --- what is promised -----------------------------------------------------------------------------


def late_requests(struck: Struck, came: list[Arrival], buried_at: dict[int, float]) -> int:
    """Return how many requests left a worker later than its lease allows.

    A machine whose leases nobody renews sends nothing from its lease's end until the fault is over;
    a process that was given up nothing after it either, and none anything after its driver's end.
    """
    first: dict[tuple[str, str], float] = {}
    for each in came:
        first.setdefault((each.machine, each.process), each.at)
    late: set[Arrival] = set()
    for began, ended in struck.spans:
        late |= {
            each
            for each in came
            if each.at > ended + LEASE_S + SLACK_S
            and began < first[each.machine, each.process] < ended
        }
    for strike in struck.strikes:
        for machine, pids in strike.leased.items():
            is_lost = all(buried_at.get(pid, 0.0) > strike.at for pid in pids)
            until = float("inf") if is_lost else strike.until
            late |= {
                each
                for each in came
                if each.machine == machine
                and first[machine, each.process] < strike.at
                and strike.at + LEASE_S + SLACK_S < each.at < until
            }
    return len(late)


# --- the command ----------------------------------------------------------------------------------


def measured(name: str, kind: Kind, home: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run one kind of fault, print a line and return the figures."""
    certify(home)
    rows = given.rows or _enough(kind, given)
    write_csv(home / "fleet.csv", fleet_of(rows))
    (home / "faults.yaml").write_text(
        f"timeout: {TIME_OUT_S}s\nlist_timeout: 2s\nreadback_settle: {SETTLE_S}s\n"
        f'backoff_base: 200ms\nconcurrency: 64\nalready_bound_codes: ["{CODE_FOR_BOUND}"]\n',
        encoding="utf-8",
    )
    options = ["--second-bind", "error", "--fault", "delay-before=1,for=20ms"]
    options += ["--limit", f"bucket:{PER_S}/s,burst=20,on=bind,tell=nothing"]
    journal = home / "journal.jsonl"
    names = ["driver", "scheduler", *(f"worker{number}" for number in range(given.workers))]
    began = time.monotonic()
    with (
        sandbox(*options, "--journal", str(journal), home=home) as url,
        Machines(names, urlsplit(url).port or 0, given.seed) as machines,
    ):
        machines.delay_s, machines.loss = kind.delay_s, kind.loss
        struck = Faults(home, url, machines, kind, given).run()
        sleep(LEASE_S)
        bindings, stats = sandbox_bindings(url), ask(f"{url}/sandbox/stats")
        ledger = ledger_of(home, url)
    plan = Plan(rows=rows, kills=0, timeout_s=TIME_OUT_S, settle_s=SETTLE_S)
    evidence = gather(home, plan, ledger=ledger, bindings=bindings, stats=stats, lives=struck.lives)
    figures = reckon(evidence, seconds=time.monotonic() - began)
    buried_at = buried(home)
    refused = figures.requests_throttled / max(1, stats["binds"])
    counts: dict[str, float] = {
        "requests_after_the_lease": late_requests(struck, machines.came, buried_at),
        "requests_that_nobody_saw": max(0, stats["binds"] - len(machines.came)),
        "strikes_missing": (given.strikes if kind.of else 0) - len(struck.strikes),
        "refused_too_often": refused if refused > REFUSED else 0,
    }
    wrong = figures.wrong(plan) | {each: count for each, count in counts.items() if count}
    efficiency = rows / PER_S / evidence.summary["sending_s"]
    say(
        f"{name:<22}{len(struck.strikes):>6}{len(struck.spans):>6}{rows:>9,}"
        f"{figures.rows_already_bound:>9,}{len(buried_at):>6}{refused:>9.2%}{efficiency:>8.3f}"
        f"{figures.seconds:>8.0f} s  {wrong or 'all 0'}"
    )
    if not kind.of:
        sent, at_all = machines.sent_bytes["driver"], sum(machines.sent_bytes.values())
        say(f"a row: {sent / rows:,.0f} bytes from the driver, {at_all / rows:,.0f} in all")
    return {
        "wrong": wrong, "lost": len(buried_at), "refused": refused, "efficiency": efficiency,
        "strikes": len(struck.strikes), **asdict(figures),
    }  # fmt: skip


def _enough(kind: Kind, given: argparse.Namespace) -> int:
    """Return how many rows there are while all strikes strike."""
    return int(PER_S * (_seconds(kind, given) or given.seconds))


def _seconds(kind: Kind, given: argparse.Namespace) -> float:
    """Return how long all strikes take; 0 where there are none."""
    if not kind.of:
        return 0.0
    each_s = (KILLED_S if kind.how == "kill" else max(kind.for_s, BURIED_S)) + 1.0
    lives = given.strikes if kind.of != "worker" else 1 + given.strikes // given.workers
    if kind.how == "stop" and kind.of != "worker":  # nobody is lost
        lives = 1
    return float(given.strikes * each_s + 6 * lives)


def main() -> None:
    """Run every kind, or those that are named."""
    given = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left
    say(
        f"{'':<22}{'struck':>6}{'lives':>6}{'rows':>9}{'already':>9}{'lost':>6}{'refused':>9}"
        f"{'ideal':>8}{'':>10}  what should be 0 and is not"
    )
    kinds = {
        name: kind
        for name, kind in KINDS.items()
        if not given.kind or any(name.startswith(wanted) for wanted in given.kind)
    }
    results = results_of(measured, kinds, given, _seconds)
    for name in results.keys() & {"delay", "loss"}:
        if "calm" in results:
            slower = results["calm"]["efficiency"] - results[name]["efficiency"]
            say(f"{name}: {slower:+.3f} of the ideal lost beside calm (at most {SLOWER})")
            if slower > SLOWER:
                results[name]["wrong"]["slower"] = slower
    write_json("cluster_faults", {"workers": given.workers, "kinds": results})
    sys.exit(any(result["wrong"] for result in results.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Kill, halt and cut off machines, then compare.")
    add = parser.add_argument
    add("kind", nargs="*", help=f"kinds, or how they begin, of {', '.join(KINDS)}  [default: all]")
    add("--workers", type=int, default=3, help="machines that send  [default: 3]")
    add("--rows", type=int, help="rows of each manifest  [default: enough for the strikes]")
    add("--seconds", type=int, default=30, help="of the kinds without strikes  [default: 30]")
    add_options(parser)
    return parser


if __name__ == "__main__":
    main()

"""A cluster beside workers of this machine, and one process: `python -m tests.benchmarks.cluster`.

`[ROUNDS [WAY...]] [--rows N] [--seconds N]`: against nginx with a static answer, *ROWS* (30,000) as
fast as they go, and *SECONDS* (15) at a limit of 500/s, 64 in flight; at that, workers of this
machine send nothing. Scheduler and workers of the cluster are processes of their own, which are
there before. Each figure is the difference between a run of many rows and one of few, so that no
start counts: rows per second of sending, processor time of a row in the driver, and in all
processes but nginx and the scheduler, which has nothing to do. Then, of the unlimited cluster,
what a hundred million rows would take where each worker has a core of its own: hours of sending,
how busy the driver is, and what goes over the network. Prints medians and writes JSON. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.engine.workers import messages
from bulkbind.model import Accepted, Attempt, Device
from tests.benchmarks.bench import median, nginx, ran, say, write_json
from tests.benchmarks.servers import Server, limit_req
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, children, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKERS = 2
READY_S = 4
"""The small run takes so long: all workers are ready before its end."""
PER_S, BURST = 500, 50
CONCURRENCY = 64
WANTED_MS = 0.3
"""Processor time of a row at PER_S through the cluster, of all processes."""
WAYS = ("process", "workers", "cluster")
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "5s",
}
"""As in `samples/deploy/cluster/machines.sh`."""


ON_PAPER = 100_000_000
SLOW_PER_S = 5000.0
"""A limit of a gateway, on paper."""
ENVELOPE_BYTES = 28 + 29 + 52
"""What Dask, TLS and TCP put around a message, at least."""


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Start a scheduler and workers; yield its address and the workers' process numbers."""
    with ExitStack() as stack:

        def start(part: str, *arguments: str, until: str) -> tuple[int, str]:
            command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments]
            log = folder / f"{part}{time.monotonic_ns()}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [*command, "--host", "127.0.0.1", "--no-dashboard"],
                    env=environment(folder, **QUIET), cwd=folder, stdout=file, stderr=file,
                )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            while (found := re.search(until, log.read_text(encoding="utf-8"))) is None:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.05)  # noqa: TID251  # polling another process
            return process.pid, found[0]

        _, address = start("scheduler", "--port", "0", until=r"tcp://127\.0\.0\.1:[0-9]+")
        options = (address, "--no-nanny", "--nthreads", "1", "--local-directory", str(folder))
        workers = [start("worker", *options, until="Registered to")[0] for _ in range(WORKERS)]
        yield address, workers


def cpu_s(pid: int) -> float:
    """Return the processor time of a process, and of its children that have ended."""
    while children(pid):  # the last run's
        time.sleep(0.02)  # noqa: TID251  # polling another process
    cells = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, cells[11:15])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """How one way did."""

    per_s: float
    driver_ms: float
    """Processor time of a row."""
    all_ms: float


def once(
    folder: Path, url: str, rows: int, options: Sequence[str], others: Sequence[int]
) -> tuple[float, float, float]:
    """Run a manifest; return the seconds of sending, the driver's processor seconds, and all.

    *others*: processes that work for it besides.
    """
    for old in folder.glob("ledger.db*"):
        old.unlink()
    write_csv(folder / "fleet.csv", fleet(rows))
    command = [*BULKBIND, "run", "fleet.csv", "--endpoint", url, "--yes", "--quiet"]
    command += ["--ledger", "ledger.db", "--out", "report", "--concurrency", str(CONCURRENCY)]
    before_s = sum(map(cpu_s, others))
    done = ran([*command, *options], cwd=folder)
    if done.code:
        sys.exit(f"it ended with {done.code}:\n{done.stderr[-2000:]}")
    others_s = sum(map(cpu_s, others)) - before_s
    summary = json.loads((folder / "report/summary.json").read_text(encoding="utf-8"))
    assert summary["counts"] == {"bound": rows}, summary["counts"]
    workers = summary.get("workers", [])
    assert all(worker["settled"] for worker in workers), "not all workers were ready in time"
    return summary["sending_s"] - summary["listening_s"], summary["cpu_s"], done.cpu_s + others_s


def measured(
    folder: Path, url: str, sizes: Sequence[int], options: Sequence[str], others: Sequence[int]
) -> Figures:
    """Return what rows cost, by the difference between two runs of so many."""
    few, many = (once(folder, url, rows, options, others) for rows in sizes)
    rows = sizes[1] - sizes[0]
    seconds, driver_s, all_s = (more - less for more, less in zip(many, few, strict=True))
    return Figures(rows / seconds, driver_s / rows * 1e3, all_s / rows * 1e3)


def row_bytes() -> tuple[float, float]:
    """Return the bytes of a row to a worker and back, where each is given half of all in flight."""
    together = CONCURRENCY // WORKERS
    devices = [Device(user, code, (name, system)) for code, user, name, system in fleet(together)]
    bound = Accepted("1842812272691451648", "2026-11-27T22:00:00Z")
    came = Attempt(bound, "0", "success", "a" * 58, 1.8e9, 0.001, 1.8e9, 1, http_status=200)
    down = messages.frame([messages.After(0.0)])
    down += messages.frame([messages.Order(1 << 24, 1, 10.0, devices)])
    numbered = [((1 << 24) + number, came) for number in range(together)]
    up = messages.frame([messages.Passed.of(numbered, is_ours=True)])
    return (len(down) + ENVELOPE_BYTES) / together, (len(up) + ENVELOPE_BYTES) / together


def paper(figures: Figures) -> Iterator[str]:
    """Yield what many rows would take, from what one does."""
    driver_ms, worker_ms = figures.driver_ms, figures.all_ms - figures.driver_ms
    down, up = row_bytes()
    yield (
        f"{ON_PAPER:,} rows on paper: {down * ON_PAPER / 1e9:.0f} GB from the driver, "
        f"{up * ON_PAPER / 1e9:.0f} GB to it"
    )
    for limit in (math.inf, SLOW_PER_S):
        for workers in (1, 4, 16):
            per_s = min(1e3 / driver_ms, workers * 1e3 / worker_ms, limit)
            words = f"at {limit:,.0f}/s" if limit < math.inf else "no limit"
            yield (
                f"{words:<12}{workers:>3} workers{per_s:>9,.0f}/s{ON_PAPER / per_s / 3600:>7.1f} h"
                f"  driver {per_s * driver_ms / 1e3:>4.0%} of a core"
                f"  each worker {per_s * worker_ms / 1e3 / workers:>4.0%}"
            )


def main() -> None:
    """Measure three rounds unless told otherwise."""
    parser = argparse.ArgumentParser(description="A cluster beside workers and one process.")
    add = parser.add_argument
    add("rounds", nargs="?", type=int, default=3, help="[default: 3]")
    add("ways", nargs="*", help=f"of {', '.join(WAYS)}  [default: all]")
    add("--rows", type=int, default=30_000, help="as fast as they go; 0: none  [default: 30000]")
    add("--seconds", type=float, default=15, help=f"at {PER_S}/s; 0: none  [default: 15]")
    given = parser.parse_args()
    servers: dict[str, tuple[Server, int, int]] = {
        "unlimited": (nginx, given.rows, 2 * given.rows),
        f"{PER_S}/s": (
            limit_req(PER_S, BURST), PER_S * READY_S, int(PER_S * (READY_S + given.seconds)),
        ),
    }  # fmt: skip
    found: dict[str, dict[str, list[Figures]]] = {name: {} for name in servers}
    with tempfile.TemporaryDirectory() as scratch, cluster(Path(scratch)) as (address, workers):
        options = {"workers": ["--workers", str(WORKERS)], "cluster": ["--cluster", address]}
        for number in range(given.rounds):
            for name, (serve, *sizes) in servers.items():
                for way in (given.ways or WAYS) if sizes[0] < sizes[1] else ():
                    if way == "workers" and serve is not nginx:
                        continue
                    others = workers if way == "cluster" else []
                    with serve() as url:
                        figures = measured(Path(scratch), url, sizes, options.get(way, []), others)
                    found[name].setdefault(way, []).append(figures)
                    say(f"round {number + 1}  {name:<12}{way:<10}{_line([figures])}")
    say()
    for name, by_way in found.items():
        for way, figures_of in by_way.items():
            say(f"{name:<12}{way:<10}{_line(figures_of)}")
    say(f"wanted: {WANTED_MS} ms at {PER_S}/s through the cluster, in all")
    if at_once := found["unlimited"].get("cluster"):
        for line in paper(_medians(at_once)):
            say(line)
    write_json("cluster", {"found": {
        name: {way: [asdict(each) for each in all_of] for way, all_of in by_way.items()}
        for name, by_way in found.items()
    }})  # fmt: skip


def _medians(figures: Sequence[Figures]) -> Figures:
    return Figures(
        *(median([getattr(each, name) for each in figures]) for name in Figures.__slots__)
    )


def _line(figures: Sequence[Figures]) -> str:
    found = _medians(figures)
    return (
        f"{found.per_s:>10,.0f}/s  a row: driver {found.driver_ms:.3f} ms, "
        f"in all {found.all_ms:.3f} ms"
    )


if __name__ == "__main__":
    main()

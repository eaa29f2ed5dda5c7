"""How close to a gateway's limit, untold or told: real time, real sockets, beside what people use.

`python -m tests.benchmarks.pacing [SECONDS [CASE...]] [--peers]`: each case is a run of *SECONDS*
(30) of ideal time against the sandbox's limiters or a real nginx with `limit_req`: limit times
seconds devices, and a bucket's burst, which a run may use up at once. Prints for bulkbind, and
with `--peers` for a bulkbind that is told the limit, a plain tenacity script, curl, and packages
that find a limit by themselves (`limiting_peers`), the efficiency (ideal time over the time of the
sending), refused requests per device, and devices that ended failed; then the cases of `sharing`,
and what the pacer costs where there is no limit. Writes them as JSON. The windows' limits are drawn
by `SEED`. Packages that are not installed are left out; `PEERS_PYTHON` names another Python that
has them.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.clock import SystemClock
from tests.benchmarks.bench import nginx, ran, say, write_json
from tests.benchmarks.limiting_peers import MISSING, PEERS as PACKAGES
from tests.benchmarks.servers import PATH, changing, limit_req, limited, sandbox, slow
from tests.benchmarks.sharing import together
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import BULKBIND
from tests.support.sandbox_client import stamp

if TYPE_CHECKING:
    from tests.benchmarks.servers import Server

CONCURRENCY = 64
SECONDS = 30.0
FREE_ROWS, FREE_ROUNDS = 20_000, 7
SEED, DRAWN, DRAWN_FROM, DRAWN_TO = 22, 4, 20, 140
LONGEST_TIMES = 6
"""A package is given up after so many times the ideal time, and 30 s."""


@dataclass(frozen=True, slots=True)
class Case:
    """A limit, and what is wanted."""

    server: Server
    per_s: float
    efficiency: float
    refused: float
    burst: int = 0
    """So many devices more, since a bucket is full at the start."""
    known: tuple[str, ...] = ()
    """What tells bulkbind the limit; empty: a cap on the rate."""


def drawn_windows() -> dict[str, Case]:
    """Return windows of a second whose limits nobody made the pacer for."""
    draw = random.Random(SEED)  # not a secret
    limits = [draw.randint(DRAWN_FROM, DRAWN_TO) for _ in range(DRAWN)]
    return {
        f"drawn-window-{per_s}/s": Case(limited(f"{per_s}/s,tell=nothing"), per_s, 0.95, 0.02)
        for per_s in limits
    }


def cases(seconds: float) -> dict[str, Case]:
    """Return every case by name."""
    return drawn_windows() | {
        "told-text-60/s": Case(limited("60/s,tell=text"), 60, 0.98, 0.005),
        "told-600/min": Case(limited("sliding:600/min,tell=draft-07"), 10, 0.98, 0.005),
        "told-x-ratelimit": Case(limited("60/s,tell=x-ratelimit"), 60, 0.98, 0.005),
        "told-draft-11": Case(limited("60/s,tell=draft-11"), 60, 0.98, 0.005),
        "bucket-100/s": Case(limited("bucket:100/s,burst=100,tell=nothing"), 100, 0.95, 0.02, 100),
        "window-60/s": Case(limited("60/s,tell=nothing"), 60, 0.95, 0.02),
        "sliding-60/s": Case(limited("sliding:60/s,tell=nothing"), 60, 0.95, 0.02),
        "nginx-200-burst-20": Case(limit_req(200, 20), 200, 0.95, 0.02, 20),
        "nginx-50-burst-20": Case(limit_req(50, 20), 50, 0.95, 0.02, 20),
        "nginx-200": Case(limit_req(200, 0), 200, 0.88, 0.03),
        "nginx-50": Case(limit_req(50, 0), 50, 0.88, 0.03),
        "changing": Case(changing(seconds), 230 / 3, 0.90, 0.03, 100),
        "slow-window-60/s": Case(slow("60/s,tell=nothing"), 60, 0.95, 0.02),
        "slow-spaced-50/s": Case(slow("bucket:50/s,burst=1,tell=nothing"), 50, 0.88, 0.03),
        "in-flight-16": Case(
            sandbox("--limit", "inflight:16,tell=nothing", "--fault", "delay-before=1,for=50ms"),
            16 / 0.05, 0.95, 0.02, known=("--concurrency", "16"),
        ),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """How one contender did."""

    sending_s: float
    refused: int | None
    """None: it does not say."""
    failed: int


def bulkbind(folder: Path, url: str, rows: int, *options: str) -> Figures:
    """Run the whole command with a new ledger."""
    for old in folder.glob("ledger.db*"):
        old.unlink()
    command: list[str | Path] = [*BULKBIND, "run", folder / "fleet.csv", "--endpoint", url]
    command += ["--ledger", folder / "ledger.db", "--out", folder / "report", "--yes", "--quiet"]
    ran([*command, "--concurrency", str(CONCURRENCY), *options], cwd=folder)
    told = json.loads((folder / "report/summary.json").read_text(encoding="utf-8"))
    bound = told["counts"].get("bound", 0)
    return Figures(told["sending_s"], told["requests_throttled"], rows - bound)


def script(folder: Path, url: str, rows: int) -> Figures:
    """Run a colleague's script: aiohttp and tenacity, six attempts."""
    module = [sys.executable, "-m", "tests.benchmarks.peers", "script"]
    done = ran([*module, folder / "fleet.csv", url], cwd=folder, PYTHONPATH=str(ROOT))
    told = json.loads(done.stdout)
    return Figures(told["sending_s"], None, rows - told["bound"])


def curl(folder: Path, url: str, rows: int) -> Figures:
    """Let curl do all transfers, with its own retries on 429.

    It truncates the output before a retry, so that may not be /dev/null.
    """
    body = '{\\"machineCode\\":\\"%s\\"}'
    now = stamp(SystemClock().utc_now())
    blocks = [
        f'url = "{url}{PATH}"\nrequest = "POST"\nheader = "Authorization: Bearer any"\n'
        f'header = "X-User-Id: {user}"\nheader = "X-Date: {now}"\n'
        f'header = "Content-Type: application/json"\ndata = "{body % code}"\n'
        'retry = 6\noutput = "curl.out"\nwrite-out = "%{http_code}\\n"\n'
        for code, user, _, _ in fleet(rows)
    ]
    (folder / "curl.conf").write_text("next\n".join(blocks), encoding="utf-8")
    command = ["curl", "--parallel", "--parallel-max", str(CONCURRENCY), "--no-progress-meter"]
    done = ran([*command, "--config", str(folder / "curl.conf")], cwd=folder)
    codes = done.stdout.split()
    return Figures(done.wall_s, None, rows - codes.count("200"))


def package(name: str, seconds: float, folder: Path, url: str, rows: int) -> Figures | None:
    """Run a package that finds a limit by itself; None if it is left out, or does not end."""
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    most_s = f"{LONGEST_TIMES * seconds + 30:g}"
    command = ["timeout", most_s, python, "-m", "tests.benchmarks.limiting_peers", name]
    done = ran([*command, folder / "fleet.csv", url], cwd=folder, PYTHONPATH=str(ROOT))
    if done.code == MISSING:
        say(f"{'':<20}{done.stderr.strip()}")
        return None
    if done.code:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        say(f"{'':<20}{name} did not end within {most_s} s, or broke off: {last[:100]}")
        return None
    told = json.loads(done.stdout)
    return Figures(told["sending_s"], told["refused"], rows - told["bound"])


Contender = Callable[[Path, str, int], Figures | None]
PEERS: dict[str, Contender] = {"script": script, "curl": curl}


def measured(name: str, case: Case, seconds: float, *, with_peers: bool) -> dict[str, object]:
    """Run a case and print a line for each contender."""
    rows = int(case.per_s * seconds) + case.burst
    results: dict[str, object] = {}
    known = case.known or ("--rate", f"{case.per_s:g}")
    contenders: dict[str, Contender] = {"bulkbind": bulkbind}
    if with_peers:
        contenders |= {"told": lambda *given: bulkbind(*given, *known), **PEERS}
        contenders |= {peer: partial(package, peer, seconds) for peer in PACKAGES}
    for who, contend in contenders.items():
        with tempfile.TemporaryDirectory() as scratch, case.server() as url:
            folder = Path(scratch)
            write_csv(folder / "fleet.csv", fleet(rows))
            figures = contend(folder, url, rows)
        if figures is None:
            continue
        efficiency = seconds / figures.sending_s
        share = None if figures.refused is None else figures.refused / rows
        mark = ""
        if who == "bulkbind" and share is not None:
            is_met = efficiency >= case.efficiency and share <= case.refused and not figures.failed
            wanted = f"{case.efficiency:.2f}, {case.refused:.1%}"
            mark = f"  ({'met' if is_met else 'NOT MET'}: wanted {wanted}, 0)"
        shown = "    ?  " if share is None else f"{share:>7.2%}"
        say(f"{name:<20}{who:<14}{efficiency:>6.3f}{shown}{figures.failed:>6} failed{mark}")
        results[who] = {"efficiency": efficiency, "refused": share, "failed": figures.failed}
    return results


def without_limit() -> dict[str, float]:
    """Measure sending with the pacer, and with one that always lets everybody go.

    The quickest run of each counts: what else goes on in a machine only makes one slower.
    """
    taken: dict[str, list[float]] = {"paced": [], "free": []}
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(FREE_ROWS))
        for _ in range(FREE_ROUNDS):
            for name, rates in taken.items():
                module = [sys.executable, "-m", "tests.benchmarks.unpaced", name]
                done = ran(
                    [*module, folder / "fleet.csv", url, str(CONCURRENCY)],
                    cwd=folder,
                    PYTHONPATH=str(ROOT),
                )
                rates.append(FREE_ROWS / float(done.stdout))
    paced, free = max(taken["paced"]), max(taken["free"])
    say(f"no limit: {paced:,.0f}/s with the pacer, {free:,.0f}/s without: {paced / free:.3f}")
    return {"paced_per_s": paced, "free_per_s": free, "ratio": paced / free}


def main() -> None:
    """Run the cases that are named, or all of them and the one without a limit."""
    words = [word for word in sys.argv[1:] if word != "--peers"]
    seconds = float(words[0]) if words else SECONDS
    names = words[1:]
    results: dict[str, object] = {
        name: measured(name, case, seconds, with_peers="--peers" in sys.argv)
        for name, case in cases(seconds).items()
        if not names or name in names
    }
    for name, measure in together(seconds).items():
        if not names or name in names:
            results[name] = measure()
    if not names:
        results["no-limit"] = without_limit()
    write_json("pacing", {"seconds": seconds, "cases": results})


if __name__ == "__main__":
    main()

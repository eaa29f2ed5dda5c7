"""Devices per second against a server that costs little, beside what people use instead.

`python -m tests.benchmarks.throughput [ROWS [ROUNDS [NAME...]]]`: nginx with a static answer;
bulkbind with ledger and report, alone and with two workers, `curl --parallel`, a colleague's
script, and bare aiohttp loops, or those that are named, one after the other in each round, 64
requests in flight each. Prints medians and ratios, and writes them as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bench import Ran, median, nginx, ran, say, write_json
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import BULKBIND

CONCURRENCY = 64
FIELDS = ("machineCode", "deviceName", "deviceOS")
PATH = "/koodrive/ose/v1/backup/device"

Figures = dict[str, float]
Contender = Callable[[Path, str, int], Figures]


def bulkbind(folder: Path, url: str, rows: int, *options: str) -> Figures:
    """Run the whole command: check, stage, send, settle, report."""
    for old in folder.glob("ledger.db*"):
        old.unlink()
    command: list[str | Path] = [
        *BULKBIND,
        "run",
        folder / "fleet.csv",
        "--endpoint",
        url,
        "--yes",
        "--quiet",
    ]
    command += ["--ledger", folder / "ledger.db", "--out", folder / "report"]
    done = ran([*command, "--concurrency", str(CONCURRENCY), *options], cwd=folder)
    _expect(done, 0)
    summary = json.loads((folder / "report/summary.json").read_text(encoding="utf-8"))
    assert summary["counts"] == {"bound": rows}, summary["counts"]
    # From the first request to the last answer: what follows is waiting for answers too many, as
    # these name no device.
    sending_s = summary["sending_s"] - summary["listening_s"]
    return {
        "wall_s": done.wall_s,
        "cpu_s": done.cpu_s,
        "sending_s": sending_s,
        "driver_s": summary["cpu_s"],
    }


def workers(folder: Path, url: str, rows: int) -> Figures:
    """Run the same with two workers."""
    return bulkbind(folder, url, rows, "--workers", "2")


def curl(folder: Path, url: str, rows: int) -> Figures:
    """Let curl do all transfers from one config file; it keeps no result but the codes."""
    config = folder / "curl.conf"
    if not config.exists():
        blocks = [
            f'url = "{url}{PATH}"\nrequest = "POST"\nheader = "Authorization: Bearer any"\n'
            f'header = "X-User-Id: {user}"\nheader = "X-Date: 20251103T070140Z"\n'
            f'header = "Content-Type: application/json"\n'
            f"data = {json.dumps(json.dumps(dict(zip(FIELDS, (code, name, os), strict=True))))}\n"
            'output = "/dev/null"\nwrite-out = "%{http_code}\\n"\n'
            for code, user, name, os in fleet(rows)
        ]
        config.write_text("next\n".join(blocks), encoding="utf-8")
    command: list[str | Path] = [
        "curl",
        "--parallel",
        "--parallel-max",
        str(CONCURRENCY),
        "--config",
        config,
    ]
    done = ran([*command, "--no-progress-meter"], cwd=folder)
    _expect(done, 0)
    assert done.stdout.split().count("200") == rows
    return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "sending_s": done.wall_s}


def peer(*arguments: str) -> Contender:
    """Return a contender of `tests.benchmarks.peers`."""

    def contend(folder: Path, url: str, rows: int) -> Figures:
        name, *options = arguments
        module = [sys.executable, "-m", "tests.benchmarks.peers"]
        command: list[str | Path] = [*module, name, folder / "fleet.csv", url, *options]
        done = ran(command, cwd=folder, PYTHONPATH=str(ROOT))
        _expect(done, 0)
        told = json.loads(done.stdout)
        assert told["bound"] == rows
        return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "sending_s": told["sending_s"]}

    return contend


def _expect(done: Ran, code: int) -> None:
    if done.code != code:
        sys.exit(
            f"a contender ended with {done.code}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )


CONTENDERS: dict[str, Contender] = {
    "bulkbind": bulkbind,
    "workers": workers,
    "curl": curl,
    "script": peer("script"),
    "bare": peer("bare"),
    "bare_asyncio": peer("bare", "--asyncio"),
}


RATIOS = (
    ("bulkbind", "sending", "sending", "bare"),
    ("bulkbind", "sending", "sending", "curl"),
    ("bulkbind", "whole", "wall", "script"),
    ("bulkbind", "whole", "wall", "curl"),
    ("workers", "sending", "sending", "bulkbind"),
    ("workers", "whole", "wall", "bulkbind"),
)
"""Whose time, what of it, its figure, and whose time it is compared with."""
WANTED = {
    "bulkbind_sending_to_bare": 1.45,
    "bulkbind_sending_to_curl": 1.05,
    "bulkbind_whole_to_curl": 0.8,
    "workers_sending_to_bulkbind": 1.10,
}


def main() -> None:
    """Run 20,000 devices three times, unless told otherwise."""
    given = sys.argv[1:]
    rows, rounds = (int(text) for text in (*given[:2], *("20000", "3")[len(given[:2]) :]))
    taken: dict[str, list[Figures]] = {name: [] for name in given[2:] or CONTENDERS}
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(rows))
        for number in range(rounds):
            for name, items in taken.items():
                figures = CONTENDERS[name](folder, url, rows)
                items.append(figures)
                rate = rows / figures["sending_s"]
                whole_s = figures["wall_s"]
                say(f"round {number + 1}  {name:<14}{rate:>8,.0f}/s  {whole_s:.2f} s in all")
    _tell(taken, rows, rounds)


def _tell(taken: dict[str, list[Figures]], rows: int, rounds: int) -> None:
    middle = {
        name: {key: median([item[key] for item in items]) for key in items[0]}
        for name, items in taken.items()
    }
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    say(f"\nmedians of {rounds}, {rows:,} devices, {CONCURRENCY} in flight, "
        f"bulkbind and bare on {'uvloop' if has_uvloop else 'asyncio'}")  # fmt: skip
    say(f"{'':<14}{'sending':>10}{'whole':>10}{'CPU':>14}")
    for name, item in middle.items():
        per_row_us = item["cpu_s"] / rows * 1e6
        say(
            f"{name:<14}{rows / item['sending_s']:>8,.0f}/s{rows / item['wall_s']:>8,.0f}/s"
            f"{per_row_us:>8,.0f} us/row"
        )
    for name in middle.keys() & {"bulkbind", "workers"}:
        per_row_us = middle[name]["driver_s"] / rows * 1e6
        say(f"{name}: its own process {per_row_us:.1f} us/row while sending")
    ratios = {
        f"{ours}_{what}_to_{other}": middle[other][f"{key}_s"] / middle[ours][f"{key}_s"]
        for ours, what, key, other in RATIOS
        if ours in middle and other in middle
    }
    for name, ratio in ratios.items():
        aim = f"  (wanted: {WANTED[name]:.2f} or more)" if name in WANTED else ""
        say(f"{name:<28}{ratio:>6.2f}{aim}")
    write_json(
        "throughput", {"rows": rows, "uvloop": has_uvloop, "medians": middle, "ratios": ratios}
    )


if __name__ == "__main__":
    main()

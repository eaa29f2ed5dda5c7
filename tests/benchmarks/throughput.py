"""Devices per second against a server that costs little, beside what people use instead.

`python -m tests.benchmarks.throughput [ROWS [ROUNDS]]`: nginx with a static answer; bulkbind with
ledger and report, `curl --parallel`, a colleague's script, and bare aiohttp loops, one after the
other in each round, 64 requests in flight each. Prints medians and ratios, and writes them as JSON.
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


def bulkbind(folder: Path, url: str, rows: int) -> Figures:
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
    done = ran([*command, "--concurrency", str(CONCURRENCY)], cwd=folder)
    _expect(done, 0)
    summary = json.loads((folder / "report/summary.json").read_text(encoding="utf-8"))
    assert summary["counts"] == {"bound": rows}, summary["counts"]
    # From the first request to the last answer: what follows is waiting for answers too many, as
    # these name no device.
    sending_s = summary["sending_s"] - summary["settling_s"]
    return {"wall_s": done.wall_s, "cpu_s": done.cpu_s, "sending_s": sending_s}


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
    "curl": curl,
    "script": peer("script"),
    "bare": peer("bare"),
    "bare_asyncio": peer("bare", "--asyncio"),
}


def main() -> None:
    """Run 20,000 devices three times, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, rounds = numbers + [20_000, 3][len(numbers) :]
    taken: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(rows))
        for number in range(rounds):
            for name, contend in CONTENDERS.items():
                figures = contend(folder, url, rows)
                taken[name].append(figures)
                rate = rows / figures["sending_s"]
                whole_s = figures["wall_s"]
                say(f"round {number + 1}  {name:<14}{rate:>8,.0f}/s  {whole_s:.2f} s in all")
    _tell(taken, rows)


def _tell(taken: dict[str, list[Figures]], rows: int) -> None:
    middle = {
        name: {key: median([item[key] for item in items]) for key in items[0]}
        for name, items in taken.items()
    }
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    say(f"\nmedians of {len(taken['bulkbind'])}, {rows:,} devices, {CONCURRENCY} in flight, "
        f"bulkbind and bare on {'uvloop' if has_uvloop else 'asyncio'}")  # fmt: skip
    say(f"{'':<14}{'sending':>10}{'whole':>10}{'CPU':>14}")
    for name, item in middle.items():
        per_row_us = item["cpu_s"] / rows * 1e6
        say(
            f"{name:<14}{rows / item['sending_s']:>8,.0f}/s{rows / item['wall_s']:>8,.0f}/s"
            f"{per_row_us:>8,.0f} us/row"
        )
    ours = middle["bulkbind"]
    ratios = {
        "sending_to_bare": middle["bare"]["sending_s"] / ours["sending_s"],
        "sending_to_curl": middle["curl"]["sending_s"] / ours["sending_s"],
        "whole_to_script": middle["script"]["wall_s"] / ours["wall_s"],
        "whole_to_curl": middle["curl"]["wall_s"] / ours["wall_s"],
    }
    wanted = {"sending_to_bare": 1.45, "sending_to_curl": 1.05, "whole_to_curl": 0.8}
    for name, ratio in ratios.items():
        aim = f"  (wanted: {wanted[name]:.2f} or more)" if name in wanted else ""
        say(f"{name:<18}{ratio:>6.2f}{aim}")
    write_json(
        "throughput", {"rows": rows, "uvloop": has_uvloop, "medians": middle, "ratios": ratios}
    )


if __name__ == "__main__":
    main()

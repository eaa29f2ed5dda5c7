"""Peak memory by rows: `python -m tests.benchmarks.memory [ROWS ...]`.

`validate`, staging alone (a run whose one invalid row at the end sends everything back), a whole
run against nginx with a static answer, and a night on which nothing has changed since, for 10,000,
100,000 and 1,000,000 rows. The peer is the colleague's script, which keeps a task a row.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.bench import Ran, nginx, ran, say, write_json
from tests.support.manifests import write_csv
from tests.support.paths import ROOT
from tests.support.processes import BULKBIND

if TYPE_CHECKING:
    from collections.abc import Iterator

WANTED_MB = 150
USERS = 5_000
MOST_FOR_PEER = 100_000
"""The script holds everything in memory; beyond this it takes too much of it."""


def _fleet(rows: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield the rows of a fleet: a process that is started inherits the peak of this one."""
    return (
        (f"SN{number:08d}", f"user_{number % USERS}", f"Van {number}", "Android 15")
        for number in range(rows)
    )


def measure(folder: Path, url: str, rows: int) -> dict[str, dict[str, float]]:
    """Return peak memory and seconds of each stage."""
    manifest = write_csv(folder / "fleet.csv", _fleet(rows))
    broken = write_csv(folder / "broken.csv", chain(_fleet(rows), [("no code", "u", "", "")]))
    common: list[str | Path] = [
        "--endpoint",
        url,
        "--ledger",
        folder / "ledger.db",
        "--yes",
        "--quiet",
    ]
    runs: dict[str, Ran] = {
        "validate": ran([*BULKBIND, "validate", manifest], cwd=folder),
        "stage": ran([*BULKBIND, "run", broken, *common], cwd=folder),
        "run": ran([*BULKBIND, "run", manifest, *common, "--out", folder / "out"], cwd=folder),
        "night": ran([*BULKBIND, "run", manifest, *common, "--out", folder / "night"], cwd=folder),
    }
    assert [run.code for run in runs.values()] == [0, 2, 0, 0], runs
    for name, status in {"out": "bound", "night": "skipped"}.items():
        summary = json.loads((folder / name / "summary.json").read_text(encoding="utf-8"))
        assert summary["counts"] == {status: rows}
    if rows <= MOST_FOR_PEER:
        peer = [sys.executable, "-m", "tests.benchmarks.peers", "script", manifest, url]
        runs["script"] = ran(peer, cwd=folder, PYTHONPATH=str(ROOT))
    for file in folder.glob("ledger.db*"):
        file.unlink()
    return {
        name: {"peak_mb": run.peak_bytes / 1e6, "wall_s": run.wall_s, "cpu_s": run.cpu_s}
        for name, run in runs.items()
    }


def main() -> None:
    """Measure 10,000, 100,000 and 1,000,000 rows, unless told otherwise."""
    sizes = [int(text) for text in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        for rows in sizes:
            figures[str(rows)] = measured = measure(Path(scratch), url, rows)
            for name, item in measured.items():
                rate = rows / item["wall_s"]
                say(f"{rows:>10,}  {name:<10}{item['peak_mb']:>7.0f} MB{rate:>10,.0f} rows/s")
    ours = [run["peak_mb"] for item in figures.values() for n, run in item.items() if n != "script"]
    say(f"most: {max(ours):.0f} MB (wanted: under {WANTED_MB})")
    write_json("memory", {"rows": figures, "most_mb": max(ours)})


if __name__ == "__main__":
    main()

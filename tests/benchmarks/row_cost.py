"""What a row costs while a run sends, in microseconds of processor time.

`python -m tests.benchmarks.row_cost [ROWS [ROUNDS]]`: whole runs against nginx with a static
answer, 64 requests in flight. Prints what the event loop's thread and all threads took for each
thousand rows: the least, the tenth and the half of them, as other load makes most of them dear; and
writes it as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bulkbind
from bulkbind.app.session import sending
from bulkbind.app.session.progress import Timeline
from tests.benchmarks.bench import nginx, say, write_json
from tests.benchmarks.peers import CONCURRENCY, loop_factory
from tests.support.manifests import fleet, write_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.model import Ended

SLICE, SHARES = 1_000, (0.0, 0.1, 0.5)


class Meter(Timeline):
    """Notes what has been used up whenever outcomes are durable."""

    seen: list[tuple[int, float, float]]
    """Rows so far; seconds of this thread, and of all."""

    def settled(self, ended: Sequence[Ended]) -> None:
        """Note it, and go on as any timeline."""
        super().settled(ended)
        before = Meter.seen[-1][0] if Meter.seen else 0
        Meter.seen.append((before + len(ended), time.thread_time(), time.process_time()))


def slices(seen: Sequence[tuple[int, float, float]]) -> list[tuple[float, float]]:
    """Return the microseconds a row of each slice, of the loop's thread and of all."""
    found, last = [], seen[0]
    for mark in seen:
        rows = mark[0] - last[0]
        if rows >= SLICE:
            loop_s, all_s = mark[1] - last[1], mark[2] - last[2]
            found.append((loop_s / rows * 1e6, all_s / rows * 1e6))
            last = mark
    return found


def send(folder: Path, url: str) -> list[tuple[float, float]]:
    """Run once, with a ledger and a report of its own."""
    Meter.seen = []
    with tempfile.TemporaryDirectory(dir=folder) as own:
        settings = bulkbind.load_settings(
            None,
            {
                "endpoint": url,
                "auth.token": "any",
                "ledger": str(Path(own, "ledger.db")),
                "out": str(Path(own, "report")),
                "concurrency": str(CONCURRENCY),
            },
        )
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(bulkbind.run([folder / "fleet.csv"], settings))
    return slices(Meter.seen)


def main() -> None:
    """Send 20,000 devices three times, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, rounds = numbers + [20_000, 3][len(numbers) :]
    vars(sending)["Timeline"] = Meter
    found: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as scratch, nginx() as url:
        folder = Path(scratch)
        write_csv(folder / "fleet.csv", fleet(rows))
        for _ in range(rounds):
            found += send(folder, url)
    figures = {
        name: [round(sorted(taken)[int(share * len(taken))], 1) for share in SHARES]
        for name, taken in zip(("loop_us", "all_us"), zip(*found, strict=True), strict=True)
    }
    for name, told in figures.items():
        say(f"{name:<8}" + "".join(f"{figure:>8.1f}" for figure in told))
    write_json("row_cost", {"rows": rows, "rounds": rounds, **figures})


if __name__ == "__main__":
    main()

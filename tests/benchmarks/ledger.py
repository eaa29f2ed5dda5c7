"""Rows per second through the ledger: `python -m tests.benchmarks.ledger [ROWS [USERS]]`.

Reads, checks and stages a CSV manifest, then claims and settles every row as a run does, in batches
of 192 and groups of 250, each durable before the next. Each step is told in rows a second by the
clock and of CPU time, and by the longest that the event loop was held meanwhile: for how much CPU
time, beyond 5 ms, a timer of 5 ms was not served, which other processes do not add to. The peer is
the same statement without what makes it safe: rows inserted into one table without an index.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.loop import MOST_UNCOLLECTED
from bulkbind.clock import SystemClock
from bulkbind.ledger import Ledger
from bulkbind.manifest import Manifest, open_manifest
from bulkbind.model import Accepted, Attempt, Claim, Outcome, Status
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import say, write_json
from tests.support.manifests import fleet, rows_together, write_csv

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BATCH = 192
GROUP = 250
CLOCK = SystemClock()


async def stage(ledger: Ledger, manifest: Manifest) -> int:
    """Stage a manifest as a confirmed run and return the run's number."""
    names = ("run_id", "digest", "created_at", "operator", "host", "pid", "version")
    run = await ledger.begin({**dict.fromkeys(names, "0"), "settings": json.dumps({})})
    await ledger.stage(
        run, 0, manifest.source, 0, rows_together(manifest), rebind=False, on_batch=lambda _: None
    )
    await ledger.ready(run)
    await ledger.confirm(run)
    return run


async def claim(ledger: Ledger, run: int) -> list[Claim]:
    """Claim every row of a run, batch by batch."""
    claims: list[Claim] = []
    while batch := await ledger.claim(
        run, claims[-1].row if claims else 0, BATCH, 0.0, excluding=()
    ):
        claims += batch
    return claims


async def settle(ledger: Ledger, claims: list[Claim]) -> None:
    """Settle claims as bound, group by group."""
    outcome = Outcome(Status.BOUND, "1842812272691451648", "2026-11-24T00:00:00.000Z")
    attempts = [
        Attempt(Accepted("", ""), "0", "success", trace, sent_at=0.0, took_s=0.02, http_status=200)
        for trace in (f"{'t' * 42}{number:016}" for number in range(GROUP))
    ]
    for start in range(0, len(claims), GROUP):
        for item, attempt in zip(claims[start : start + GROUP], attempts, strict=False):
            ledger.settle(Claim(item.row, item.device, 1, last=attempt), outcome)
        await ledger.flushed()


def size_of(folder: Path) -> int:
    """Return the bytes of the ledger and its log."""
    return sum(file.stat().st_size for file in folder.glob("ledger.db*"))


TICK_S = 0.005


@dataclass(slots=True)
class Step:
    """What a step took."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    late_s: list[float] = field(default_factory=list)
    """For how much CPU time of the process, beyond its own, a timer of `TICK_S` was not served."""

    def per_row(self, name: str, rows: int) -> dict[str, float]:
        """Return the figures of the step."""
        late = sorted(self.late_s)
        return {
            f"{name}_per_s": rows / self.wall_s,
            f"{name}_per_cpu_s": rows / self.cpu_s,
            f"{name}_held_ms_longest": late[-1] * 1e3,
            f"{name}_held_ms_of_99_percent": late[len(late) * 99 // 100] * 1e3,
        }


@asynccontextmanager
async def measured() -> AsyncIterator[Step]:
    """Measure what the block takes, and how long it holds the event loop."""
    step = Step()

    async def tick() -> None:
        while True:
            began = time.process_time()
            await CLOCK.sleep(TICK_S)
            step.late_s.append(time.process_time() - began - TICK_S)

    ticking = asyncio.create_task(tick())
    await CLOCK.sleep(TICK_S)
    began, cpu = CLOCK.monotonic(), time.process_time()
    yield step
    step.wall_s, step.cpu_s = CLOCK.monotonic() - began, time.process_time() - cpu
    await CLOCK.sleep(2 * TICK_S)
    ticking.cancel()


def peer(manifest: Manifest) -> float:
    """Return how many rows per CPU second a table takes that promises nothing."""
    began = time.process_time()
    count = 0
    with closing(sqlite3.connect("")) as db:
        db.execute("CREATE TABLE rows (line, user_id, machine_code, name, os, status)")
        rows = ((row.line, *row.values, "staged") for row in manifest.rows())
        count = db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", rows).rowcount
        db.commit()
    return count / (time.process_time() - began)


async def measure(folder: Path, rows: int, users: int) -> None:
    """Measure and tell."""
    path = write_csv(folder / "fleet.csv", fleet(rows, users))
    ledger = Ledger(folder / "ledger.db", "https://example.test", CLOCK)
    await ledger.open({})
    manifest = open_manifest(path, ManifestSettings())
    async with measured() as staging:
        run = await stage(ledger, manifest)
    staged_bytes = size_of(folder)
    async with measured() as claiming:
        claims = await claim(ledger, run)
    async with measured() as settling:
        await settle(ledger, claims)
    both = Step(
        claiming.wall_s + settling.wall_s,
        claiming.cpu_s + settling.cpu_s,
        claiming.late_s + settling.late_s,
    )
    await ledger.close()
    steps = {"stage": staging, "claim": claiming, "settle": settling, "claim_and_settle": both}
    figures = {
        name: value for step in steps for name, value in steps[step].per_row(step, rows).items()
    }
    figures["bytes_per_row_staged"] = staged_bytes / rows
    figures["bytes_per_row_bound"] = (folder / "ledger.db").stat().st_size / rows
    figures["peer_stage_per_cpu_s"] = peer(open_manifest(path, ManifestSettings()))
    figures["stage_to_peer"] = figures["stage_per_cpu_s"] / figures["peer_stage_per_cpu_s"]
    for name, value in figures.items():
        say(f"{value:>12,.2f}  {name.replace('_', ' ')}")
    write_json("ledger", {"rows": rows, "users": users, **figures})


def main() -> None:
    """Measure 1,000,000 rows for 5,000 users, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, users = numbers + [1_000_000, 5_000][len(numbers) :]
    gc.set_threshold(MOST_UNCOLLECTED)  # as the command does
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), rows, users))


if __name__ == "__main__":
    main()

"""Rows per second through the ledger: `python -m tests.benchmarks.ledger [ROWS [USERS]]`.

Reads, checks and stages a CSV manifest, then claims and settles every row as a run does, in batches
of 192 and groups of 250, each durable before the next. The peer is the same statement without what
makes it safe: rows inserted into one table without an index, and one UPDATE for all of them.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from bulkbind.clock import SystemClock
from bulkbind.ledger import Ledger
from bulkbind.manifest import Manifest, open_manifest
from bulkbind.model import Accepted, Attempt, Claim, Outcome, Status
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import say, write_json
from tests.support.manifests import fleet, write_csv

BATCH = 192
GROUP = 250
CLOCK = SystemClock()


async def stage(ledger: Ledger, manifest: Manifest) -> int:
    """Stage a manifest as a confirmed run and return the run's number."""
    names = ("run_id", "digest", "created_at", "operator", "host", "pid", "version")
    run = await ledger.begin({**dict.fromkeys(names, "0"), "settings": json.dumps({})})
    await ledger.stage(
        run, 0, manifest.source, 0, manifest.rows(), rebind=False, on_batch=lambda _: None
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
    attempt = Attempt(
        Accepted("", ""),
        "0",
        "success",
        trace_id="t" * 58,
        sent_at=0.0,
        took_s=0.02,
        http_status=200,
    )
    for start in range(0, len(claims), GROUP):
        for item in claims[start : start + GROUP]:
            ledger.settle(Claim(item.row, item.device, 1, last=attempt), outcome)
        await ledger.flushed()


def size_of(folder: Path) -> int:
    """Return the bytes of the ledger and its log."""
    return sum(file.stat().st_size for file in folder.glob("ledger.db*"))


def peer(folder: Path, manifest: Manifest) -> float:
    """Return how many rows per second a table takes that promises nothing."""
    began = CLOCK.monotonic()
    count = 0
    with closing(sqlite3.connect(folder / "peer.db")) as db:
        db.execute("CREATE TABLE rows (line, user_id, machine_code, name, os, status)")
        rows = ((row.line, *row.values, "staged") for row in manifest.rows())
        count = db.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", rows).rowcount
        db.commit()
    return count / (CLOCK.monotonic() - began)


async def measure(folder: Path, rows: int, users: int) -> None:
    """Measure and tell."""
    path = write_csv(folder / "fleet.csv", fleet(rows, users))
    figures: dict[str, float] = {}
    ledger = Ledger(folder / "ledger.db", "https://example.test", CLOCK)
    await ledger.open({})
    began = CLOCK.monotonic()
    run = await stage(ledger, open_manifest(path, ManifestSettings()))
    staged = CLOCK.monotonic()
    figures["stage_per_s"] = rows / (staged - began)
    staged_bytes = size_of(folder)
    claims = await claim(ledger, run)
    claimed = CLOCK.monotonic()
    figures["claim_per_s"] = rows / (claimed - staged)
    await settle(ledger, claims)
    figures["settle_per_s"] = rows / (CLOCK.monotonic() - claimed)
    await ledger.close()
    figures["bytes_per_row_staged"] = staged_bytes / rows
    figures["bytes_per_row_bound"] = (folder / "ledger.db").stat().st_size / rows
    figures["peer_stage_per_s"] = peer(folder, open_manifest(path, ManifestSettings()))
    figures["stage_to_peer"] = figures["stage_per_s"] / figures["peer_stage_per_s"]
    for name, value in figures.items():
        say(f"{value:>12,.2f}  {name.replace('_', ' ')}")
    write_json("ledger", {"rows": rows, "users": users, **figures})


def main() -> None:
    """Measure 1,000,000 rows for 5,000 users, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, users = numbers + [1_000_000, 5_000][len(numbers) :]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), rows, users))


if __name__ == "__main__":
    main()

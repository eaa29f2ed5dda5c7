"""Prints how fast a manifest is staged: `python -m tests.benchmarks.staging [ROWS [USERS]]`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from bulkbind.clock import SystemClock
from bulkbind.ledger import Ledger
from bulkbind.manifest import open_manifest
from bulkbind.settings import ManifestSettings
from tests.kit import fleet, write_csv


async def stage(folder: Path, rows: int, users: int) -> None:
    """Read, check and stage *rows* rows for *users* users, and print rows per second."""
    clock = SystemClock()
    manifest = open_manifest(
        write_csv(folder / "fleet.csv", fleet(rows, users)), ManifestSettings()
    )
    ledger = Ledger(folder / "ledger.db", "https://example.test", clock)
    await ledger.open({})
    names = ("run_id", "digest", "created_at", "operator", "host", "pid", "version")
    run = await ledger.begin({**dict.fromkeys(names, "0"), "settings": json.dumps({})})
    began = clock.monotonic()
    reached = await ledger.stage(
        run, 0, manifest.source, 0, manifest.rows(), rebind=False, on_batch=lambda _: None
    )
    await ledger.ready(run)
    took_s = clock.monotonic() - began
    await ledger.close()
    size = (folder / "ledger.db").stat().st_size
    print(f"{reached / took_s:>10,.0f} rows/s, {size / reached:,.0f} bytes a row, {users:,} users")  # noqa: T201  # what it is for


def main() -> None:
    """Stage 1,000,000 rows for 5,000 users, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    rows, users = numbers + [1_000_000, 5_000][len(numbers) :]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(stage(Path(folder), rows, users))


if __name__ == "__main__":
    main()

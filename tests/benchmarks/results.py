"""Rows of `results.csv` per second of CPU time: `python -m tests.benchmarks.results [ROWS]`.

A ledger of rows that were staged, claimed and settled as bound is written as `results.csv`, in
another process, whose peak of memory is told. The peer writes the same rows with `csv.writer`, as
the ledger gives them: without names of sources, without a look at formulas.
"""

from __future__ import annotations

import asyncio
import csv
import sys
import tempfile
import time
from pathlib import Path

from bulkbind.clock import SystemClock
from bulkbind.ledger import Ledger, RunReader, find_run, reading
from bulkbind.ledger.store import span
from bulkbind.manifest import open_manifest
from bulkbind.report.tables import write_lines
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import ran, say, write_json
from tests.benchmarks.ledger import claim, settle, stage
from tests.support.manifests import fleet, write_csv

ROUNDS = 3
FEW = 10_000
USERS = 500


async def make(folder: Path, rows: int) -> Path:
    """Return a ledger whose only run has bound so many rows."""
    manifest = write_csv(folder / f"{rows}.csv", fleet(rows, USERS))
    path = folder / f"{rows}.db"
    ledger = Ledger(path, "https://example.test", SystemClock())
    await ledger.open({})
    run = await stage(ledger, open_manifest(manifest, ManifestSettings()))
    await settle(ledger, await claim(ledger, run))
    await ledger.close()
    return path


def write(path: Path) -> None:
    """Write the results of a ledger's only run."""
    with reading(path) as db:
        run = RunReader(db, find_run(db, None))
        write_lines(path.with_suffix(".results.csv"), run, run.sources())


def write_bare(path: Path) -> None:
    """Write the same rows as they are."""
    with reading(path) as db, path.with_suffix(".bare.csv").open("w", newline="") as file:
        number = find_run(db, None)
        csv.writer(file).writerows(RunReader(db, number).cells(*span(number)))


def main() -> None:
    """Measure 200,000 rows, unless told otherwise."""
    if len(sys.argv) > 1 and sys.argv[1].endswith(".db"):
        write(Path(sys.argv[1]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as name:
        few, many = (asyncio.run(make(Path(name), count)) for count in (FEW, rows))
        per_s: dict[str, float] = {}
        for _ in range(ROUNDS):
            for work in (write_bare, write):
                began = time.process_time()
                work(many)
                rate = rows / (time.process_time() - began)
                per_s[work.__name__] = max(per_s.get(work.__name__, 0), rate)
        command = [sys.executable, "-m", "tests.benchmarks.results"]
        peaks = [ran([*command, path], cwd=Path()).peak_bytes / 1e6 for path in (few, many)]
    say(f"{per_s['write']:>10,.0f} rows/s beside {per_s['write_bare']:,.0f} of csv.writer alone")
    say(f"peak: {FEW:,} rows {peaks[0]:.0f} MB, {rows:,} rows {peaks[1]:.0f} MB")
    write_json("results", {"rows": rows, **per_s, "peak_mb": peaks[1], "peak_mb_few": peaks[0]})


if __name__ == "__main__":
    main()

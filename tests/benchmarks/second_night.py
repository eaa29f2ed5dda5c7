"""The second night of an unchanged manifest: `python -m tests.benchmarks.second_night [ROWS]`.

The first night is written to the ledger as one in which every row was bound, without a request; the
second and third take their rows from the night before, as nothing has changed; the fourth reads a
manifest with 1 % more rows, finds most of them in the ledger and binds the others on a sandbox.
Printed are the requests of the second night (the aim is 0), its seconds and its peak memory, and
what each night adds to the ledger in bytes a row, free pages left out; the peer is `validate` of
the same manifest, which reads and checks it and does nothing else.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bulkbind.clock import SystemClock, iso
from bulkbind.ledger import Ledger
from bulkbind.manifest import digest, open_manifest
from bulkbind.model import Accepted, Attempt, Claim, Outcome, RunFacts, Status
from bulkbind.settings import ManifestSettings
from tests.benchmarks.bench import Ran, ran, say, write_json
from tests.support.manifests import fleet, rows_together, write_csv
from tests.support.processes import BULKBIND, ask, ledger_of, sandbox

CLAIMED = 5_000
"""Rows per batch of the first night."""
BOUND_FROM = 1_764_000_000
"""When it bound the first of them, seconds since 1970."""


async def bind_all(path: Path, url: str, manifest: Path) -> None:
    """Write to a new ledger a run that has bound all rows of a manifest, each with its own ids."""
    rows = open_manifest(manifest, ManifestSettings())
    path.parent.mkdir(mode=0o700)
    ledger = Ledger(path, url, SystemClock())
    await ledger.open({})
    about = dict.fromkeys(("run_id", "created_at", "operator", "host", "pid"), "0")
    run = await ledger.begin(
        {
            **about,
            "digest": digest([manifest], ManifestSettings()),
            "version": version("bulkbind"),
            "settings": "{}",
        }
    )
    form = replace(rows.source, name=manifest.name)
    await ledger.stage(run, 0, form, 0, rows_together(rows), rebind=False, on_batch=lambda _: None)
    await ledger.note(run, 0, rows.notices)
    await ledger.ready(run)
    await ledger.confirm(run)
    await ledger.start(run)
    bound = 0
    last = 0
    while claims := await ledger.claim(run, last, CLAIMED, 0.0, excluding=()):
        last = claims[-1].row
        for claim in claims:
            bound += 1
            trace = f"{'t' * 42}{bound:016}"
            attempt = Attempt(
                Accepted("", ""), "0", "success", trace, sent_at=0.0, took_s=0.02, http_status=200
            )
            moment = iso(datetime.fromtimestamp(BOUND_FROM + bound / 100, UTC))
            outcome = Outcome(Status.BOUND, str(10**18 + bound), moment)
            ledger.settle(Claim(claim.row, claim.device, 1, last=attempt), outcome)
        await ledger.flushed()
    await ledger.finish(run, None, RunFacts())
    await ledger.close()


def measure(home: Path, rows: int) -> dict[str, float]:
    """Live through four nights and return what they took."""
    manifest = write_csv(home / "fleet.csv", fleet(rows, users=max(5, rows // 200)))
    with sandbox(home=home) as url:
        path = ledger_of(home, url)
        asyncio.run(bind_all(path, url, manifest))
        command = [*BULKBIND, "run", manifest.name, "--endpoint", url, "--out", "out", "--quiet"]
        second = checked(ran(command, cwd=home))
        requests = ask(f"{url}/sandbox/stats")["requests"]
        sizes = [(path.stat().st_size, used(path))]
        third = checked(ran(command, cwd=home))
        sizes.append((path.stat().st_size, used(path)))
        write_csv(home / "fleet.csv", fleet(rows + rows // 100, users=max(5, rows // 200)))
        fourth = checked(ran([*command, "--concurrency", "64"], cwd=home))
        sizes.append((path.stat().st_size, used(path)))
    peer = checked(ran([*BULKBIND, "validate", manifest], cwd=home))
    return {
        "requests": requests,
        "second_night_s": second.wall_s,
        "third_night_s": third.wall_s,
        "peak_mb": second.peak_bytes / 1e6,
        "fourth_night_s": fourth.wall_s,
        "second_night_cpu_s": second.cpu_s,
        "fourth_night_cpu_s": fourth.cpu_s,
        "ledger_mb_after_two": sizes[0][0] / 1e6,
        "bytes_per_row_unchanged_night": (sizes[1][1] - sizes[0][1]) / rows,
        "bytes_per_row_night_with_1_percent_new": (sizes[2][1] - sizes[1][1]) / rows,
        "file_bytes_per_row_after_four": sizes[2][0] / rows,
        "validate_s": peer.wall_s,
        "second_night_to_validate": second.wall_s / peer.wall_s,
    }


def used(path: Path) -> int:
    """Return the bytes of a ledger that hold something."""
    with closing(sqlite3.connect(path)) as db:
        pages, free, page_bytes = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * page_bytes)


def checked(done: Ran) -> Ran:
    """Return a process that ended well."""
    if done.code:
        sys.exit(f"exit {done.code}: {done.stderr[-500:]}")
    return done


def main() -> None:
    """Measure 100,000 rows unless told otherwise."""
    rows = int(sys.argv[1]) if sys.argv[1:] else 100_000
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder).resolve(), rows)
    for name, value in figures.items():
        say(f"{value:>14,.2f}  {name.replace('_', ' ')}")
    write_json("second_night", {"rows": rows, **figures})


if __name__ == "__main__":
    main()

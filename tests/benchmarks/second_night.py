"""The second night of an unchanged manifest: `python -m tests.benchmarks.second_night [ROWS]`.

The first night binds every row on a sandbox; the second and third take them from the night before,
as nothing has changed; the fourth reads a manifest with 1 % more rows and finds most of them
in the ledger. Printed are the requests of the second night (the aim is 0), its seconds and its peak
memory, and what each night adds to the ledger in bytes a row, free pages left out; the peer is
`validate` of the same manifest, which reads and checks it and does nothing else.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from tests.benchmarks.bench import Ran, ran, say, write_json
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, ask, ledger_of, sandbox


def measure(home: Path, rows: int) -> dict[str, float]:
    """Live through four nights and return what they took."""
    manifest = write_csv(home / "fleet.csv", fleet(rows, users=max(5, rows // 200)))
    with sandbox(home=home) as url:
        command = [*BULKBIND, "run", manifest, "--endpoint", url, "--out", home / "out", "--quiet"]
        first = checked(ran([*command, "--concurrency", "64"], cwd=home))
        before = ask(f"{url}/sandbox/stats")["requests"]
        second = checked(ran(command, cwd=home))
        requests = ask(f"{url}/sandbox/stats")["requests"] - before
        path = ledger_of(home, url)
        sizes = [(path.stat().st_size, used(path))]
        third = checked(ran(command, cwd=home))
        sizes.append((path.stat().st_size, used(path)))
        write_csv(home / "fleet.csv", fleet(rows + rows // 100, users=max(5, rows // 200)))
        fourth = checked(ran(command, cwd=home))
        sizes.append((path.stat().st_size, used(path)))
    peer = checked(ran([*BULKBIND, "validate", manifest], cwd=home))
    return {
        "first_night_s": first.wall_s,
        "requests": requests,
        "second_night_s": second.wall_s,
        "third_night_s": third.wall_s,
        "peak_mb": second.peak_bytes / 1e6,
        "fourth_night_s": fourth.wall_s,
        "second_night_cpu_s": second.cpu_s,
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

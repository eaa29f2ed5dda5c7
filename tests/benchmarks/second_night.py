"""The second night of an unchanged manifest: `python -m tests.benchmarks.second_night [ROWS]`.

The first night binds every row on a sandbox; the second finds them all in the ledger. Printed are
the requests of the second night (the aim is 0), its seconds and its peak memory; the peer is
`validate` of the same manifest, which reads and checks it and does nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.benchmarks.bench import Ran, ran, say, write_json
from tests.support.manifests import fleet, write_csv
from tests.support.processes import BULKBIND, ask, ledger_of, sandbox


def measure(home: Path, rows: int) -> dict[str, float]:
    """Live through three nights and return what the last two took."""
    manifest = write_csv(home / "fleet.csv", fleet(rows, users=max(5, rows // 200)))
    with sandbox(home=home) as url:
        command = [*BULKBIND, "run", manifest, "--endpoint", url, "--out", home / "out", "--quiet"]
        first = checked(ran([*command, "--concurrency", "64"], cwd=home))
        before = ask(f"{url}/sandbox/stats")["requests"]
        second = checked(ran(command, cwd=home))
        requests = ask(f"{url}/sandbox/stats")["requests"] - before
        ledger = ledger_of(home, url).stat().st_size
        third = checked(ran(command, cwd=home))
        grown = ledger_of(home, url).stat().st_size - ledger
    peer = checked(ran([*BULKBIND, "validate", manifest], cwd=home))
    return {
        "first_night_s": first.wall_s,
        "requests": requests,
        "second_night_s": second.wall_s,
        "third_night_s": third.wall_s,
        "peak_mb": second.peak_bytes / 1e6,
        "ledger_mb_after_two": ledger / 1e6,
        "ledger_bytes_per_row_and_night": grown / rows,
        "validate_s": peer.wall_s,
        "second_night_to_validate": second.wall_s / peer.wall_s,
    }


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

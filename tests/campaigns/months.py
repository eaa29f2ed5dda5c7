"""Many months of nights: `python -m tests.campaigns.months [MONTHS [ROWS]]`.

MONTHS months of thirty nights each on a clock that is turned by hand, every one with other faults;
then ten nights of processes with ROWS rows a night. Prints how many led to trouble, and which. The
peer of each month is itself without faults: how many requests they cost more.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from bulkbind.clock import SystemClock
from tests.benchmarks.bench import say, write_json
from tests.campaigns.ten_nights import Nights
from tests.integration.test_month import live


def months(count: int) -> dict[str, float]:
    """Live through so many months; return what came of them."""
    troubles = devices = binds = erred = again = 0
    for seed in range(100, 100 + count):
        with tempfile.TemporaryDirectory() as folder:
            month, run, size = asyncio.run(live(Path(folder, "ledger.db"), 30, seed))
            bench = month.bench
            unsettled = size - sum(
                bench.counts(run).get(status, 0) for status in ("bound", "already_bound", "skipped")
            )
            server = bench.server
            is_bad = bool(month.troubles) or unsettled or server.posted_again > month.erred
            if is_bad:
                say(f"seed {seed}: {month.troubles}, {unsettled} rows unsettled")
            troubles += bool(is_bad)
            devices += size
            binds += sum(server.binds.values())
            erred += month.erred
            again += server.posted_again
    say(f"{count} months: {troubles} with trouble; {devices} devices, {binds} binds done by the")
    say(f"server, {again} of them for a device that was bound ({erred} answers 500 after binding)")
    return {
        "months": count, "months_with_trouble": troubles, "devices": devices, "binds": binds,
        "posted_again": again, "binds_to_devices": binds / max(devices, 1),
    }  # fmt: skip


def nights(rows: int) -> dict[str, float]:
    """Live through ten nights of processes."""
    began = SystemClock().monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lived = Nights(Path(folder).resolve(), rows=rows)
        lived.live()
        found = lived.troubles()
        requests = lived.bind_requests()
    for night in lived.told:
        say(f"  {night.what:<28} exit {night.code:>3}, {night.files} files, {night.left} left")
    say(f"ten nights: {len(found)} troubles {found}; {dict(requests)}")
    return {
        "nights_rows": rows, "nights_troubles": len(found), "nights_requests": requests.total(),
        "nights_bound": requests["bound"], "nights_s": SystemClock().monotonic() - began,
    }  # fmt: skip


def main() -> None:
    """Twenty months and 300 rows a night, unless told otherwise."""
    numbers = [int(text) for text in sys.argv[1:]]
    count, rows = numbers + [20, 300][len(numbers) :]
    figures = months(count) | nights(rows)
    write_json("months", figures)
    sys.exit(bool(figures["months_with_trouble"] or figures["nights_troubles"]))


if __name__ == "__main__":
    main()

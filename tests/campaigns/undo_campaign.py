"""A run of 5,000 devices is undone, and the undo killed in the middle: who is left on the server?

Use: python -m tests.campaigns.undo_campaign [--devices 5000] [--kills 5] [--rate 400]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    bulkbind,
    environment,
    ledger_of,
    sandbox,
    sandbox_bindings,
)

OTHERS = 50
"""Devices of the same users that an earlier run bound, and that the undone run skips."""


@dataclass(frozen=True)
class Undone:
    """What a campaign came to; everything but the first two should be as the comment says."""

    devices: int
    kills_that_struck: int
    claimed_when_struck: int
    left_of_the_run: int
    """0: bindings of the undone run that are still there."""
    lost_of_others: int
    """0: bindings of others that are gone or were made anew."""
    exit_code: int
    """0."""
    statuses: dict[str, int]
    """All `unbound`: nobody else took anything back."""
    ledger_bindings_unlike_the_server: int
    """0."""


def open_unbindings(ledger: Path, status: str) -> int:
    """Return how many unbindings have a status."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        query = "SELECT count(*) FROM unbindings WHERE status = ?"
        return int(db.execute(query, (status,)).fetchone()[0])


def undo_killed(home: Path, *, devices: int, kills: int, rate: int) -> Undone:
    """Bind, then undo with `kill -9` in the middle, then let the same command go on."""
    rows = fleet(devices + OTHERS)
    faults = ("reset-after=0.02", "500=0.02", "500-after=0.02")
    options = [word for fault in faults for word in ("--fault", f"{fault},on=unbind")]
    with sandbox("--limit", f"{rate}/s,on=unbind", *options, "--seed", "5", home=home) as url:
        others = write_csv(home / "others.csv", rows[:OTHERS])
        manifest = write_csv(home / "fleet.csv", rows)
        common = ("--endpoint", url)
        bulkbind("run", others, *common, "--out", "others", home=home, check=0)
        kept = {record["deviceId"] for record in sandbox_bindings(url)}
        bulkbind("run", manifest, *common, "--out", "report", home=home, check=0)
        run_id = json.loads((home / "report/summary.json").read_text())["run_id"]
        sure = ("--yes-unbind", str(devices), "--out", "report", "--concurrency", "8")
        command = ("undo", run_id, *common, *sure)
        ledger = ledger_of(home, url)
        struck = claimed = 0
        for number in range(kills):
            wanted = devices * (number + 1) // (kills + 2)
            found = _kill(command, home, ledger, devices - wanted)
            struck += found > 0
            claimed += found
        last = bulkbind(*command, home=home)
        left = sandbox_bindings(url)
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
            known = {row[0] for row in db.execute("SELECT device_id FROM bindings")}
    with (home / "report/undo.csv").open(encoding="utf-8", newline="") as file:
        told = [row["status"] for row in csv.DictReader(file)]
    there = {record["deviceId"] for record in left}
    return Undone(
        devices=len(told),
        kills_that_struck=struck,
        claimed_when_struck=claimed,
        left_of_the_run=len(there - kept),
        lost_of_others=len(kept - there),
        exit_code=last.returncode,
        statuses={status: told.count(status) for status in sorted(set(told))},
        ledger_bindings_unlike_the_server=len(known ^ there),
    )


def _kill(command: tuple[str, ...], home: Path, ledger: Path, left: int) -> int:
    """Start the undo, kill it once no more than *left* are staged; return how many were claimed."""
    started = subprocess.Popen(
        [*BULKBIND, *command],
        env=environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < until:
        claimed = open_unbindings(ledger, "claimed")
        if claimed and open_unbindings(ledger, "staged") <= left:
            os.kill(started.pid, signal.SIGKILL)
            break
        time.sleep(0.005)  # noqa: TID251  # polling another process
    started.wait(30)
    return open_unbindings(ledger, "claimed") if started.returncode == -signal.SIGKILL else 0


def main() -> None:
    """Run the campaign and print what it came to; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=int, default=400, help="unbinds per second let through")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkbind-undo-") as folder:
        found = undo_killed(Path(folder), devices=given.devices, kills=given.kills, rate=given.rate)
    sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
    wrong = (
        found.left_of_the_run
        or found.lost_of_others
        or found.exit_code
        or found.ledger_bindings_unlike_the_server
        or found.statuses != {"unbound": given.devices}
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

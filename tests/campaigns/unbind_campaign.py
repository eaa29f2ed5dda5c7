"""Undo, `unbind` or `run --move`, killed again and again.

`python -m tests.campaigns.unbind_campaign undo`, or `leave` (`unbind` of a list), or `move`.

The server's lists are up to three seconds old; it limits unbinds and resets their connections. The
command is killed with SIGKILL at random moments and started again until enough kills have struck;
then report, ledger, and the sandbox's bindings and journal are compared. Exit code 1 if a figure
that should be 0 is not.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.bench import say, write_json
from tests.support.manifests import write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    environment,
    ledger_of,
    read_results,
    sandbox,
    sandbox_bindings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS_PER_KILL = 30
DEVICES_OF_A_USER = 20
SHARE_OF_OTHERS = 10
"""One device in so many is bound by an earlier run, and stays."""
PATIENCE_S = 60.0
MOST_AT_END = 20
"""So often a command that stopped early is started again at the end."""
FAULTS = (
    "stale=0.5,for=3s",
    "stale=0.2,for=1s",
    "reset-after=0.03,on=unbind",
    "reset-before=0.03,on=unbind",
    "500-after=0.02,on=unbind",
    "502=0.01,on=unbind",
    "reset-after=0.02",
)
LIMIT = "30/s,on=unbind"
SETTINGS = """\
timeout: 1s
list_timeout: 2s
readback_settle: 3200ms
backoff_base: 100ms
concurrency: 16
already_bound_codes: ["13000310"]
"""


def _zero() -> Any:
    """Mark a figure that should be 0."""
    return field(metadata={"zero": True})


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a campaign came to."""

    kills: int
    kills_that_struck: int
    claimed_when_struck: int
    """Bindings of which a request may have left, over all kills that struck."""
    devices: int
    statuses: dict[str, int]
    unbinds: int
    throttled: int
    resets: int
    stale_lists: int
    seconds: float
    exit_code: int = _zero()
    called_unbound_but_bound: int = _zero()
    called_bound_but_not: int = _zero()
    with_two_owners: int = _zero()
    unbound_though_not_ours: int = _zero()
    forgotten: int = _zero()
    """Devices that were to be unbound and are still there."""
    posted_again: int = _zero()
    ledger_bindings_unlike_the_server: int = _zero()

    def wrong(self) -> dict[str, int]:
        """Return the figures that should be 0 and are not."""
        found = asdict(self)
        return {
            item.name: found[item.name]
            for item in fields(self)
            if item.metadata.get("zero") and found[item.name]
        }


class Campaign:
    """A folder, a server, and a command that is killed."""

    def __init__(self, home: Path, url: str, *, kills: int, seed: int) -> None:
        self.home = home
        self.url = url
        self.ledger = ledger_of(home, url)
        self.kills = self.struck = self.claimed = 0
        self._wanted = kills
        self._pick = random.Random(seed)

    def go(self, command: Sequence[str], devices: int) -> int:
        """Kill the command until enough kills have struck; return the exit code of its last life.

        *devices*: how many it is to unbind.
        """
        while self.struck < self._wanted:
            left = max(1, devices - self.unbinds())
            code = self._live_and_die(command, max(2, left // (self._wanted - self.struck)))
            if code in (0, 1):
                return code
        code = -1
        for _ in range(MOST_AT_END):
            code = bulkbind(*command, home=self.home, timeout=500).returncode
            if code in (0, 1):
                break
        return code

    def unbinds(self) -> int:
        """Return how many unbinds the server has seen."""
        return int(ask(f"{self.url}/sandbox/stats").get("unbinds", 0))

    def _live_and_die(self, command: Sequence[str], share: int) -> int | None:
        """Start the command and kill it; return its exit code if it was the quicker."""
        with (self.home / "command.log").open("ab") as log:
            started = subprocess.Popen(
                [*BULKBIND, *command],
                env=environment(self.home),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wanted = self.unbinds() + self._pick.randint(1, share)
        until = time.monotonic() + PATIENCE_S
        while self.unbinds() < wanted and started.poll() is None and time.monotonic() < until:
            _sleep(0.005)
        with suppress(subprocess.TimeoutExpired):
            started.wait(self._pick.choice((0.0, 0.0, 0.02, 0.3)) * self._pick.random())
        started.kill()
        started.wait(10)
        if started.returncode != -signal.SIGKILL:
            return started.returncode
        self.kills += 1
        claimed = sum(
            select(self.ledger, f"SELECT count(*) FROM {table} WHERE status = 'claimed'")[0][0]  # noqa: S608  # constants
            for table in ("unbindings", "rows")
        )
        self.struck += claimed > 0
        self.claimed += claimed
        return None


def select(ledger: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a ledger holds."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)) as db:
        return db.execute(query).fetchall()


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251  # polling another process


def _row(number: int, user: str) -> tuple[str, str, str, str]:
    return f"SN{number:05d}", f"{user}_{number % 100_000 // DEVICES_OF_A_USER}", "", ""


def run_campaign(home: Path, kind: str, *, kills: int, seed: int) -> Figures:
    """Bind devices; undo or move them through kills; compare what is left."""
    began = time.monotonic()
    (home / "config.yaml").write_text(SETTINGS, encoding="utf-8")
    rows = [_row(number, "old") for number in range(kills * ROWS_PER_KILL)]
    others, ours = rows[::SHARE_OF_OTHERS], [r for n, r in enumerate(rows) if n % SHARE_OF_OTHERS]
    options = ["--limit", LIMIT, "--second-bind", "error", "--seed", str(seed)]
    options += [word for fault in FAULTS for word in ("--fault", fault)]
    journal = home / "journal.jsonl"
    with sandbox(*options, "--journal", str(journal), home=home) as url:
        common = ("--endpoint", url, "--config", "config.yaml")
        for name, some in (("others", others), ("ours", ours)):
            manifest = write_csv(home / f"{name}.csv", some)
            bulkbind("run", manifest, *common, "--out", name, home=home, check=0, timeout=500)
        campaign = Campaign(home, url, kills=kills, seed=seed)
        if kind == "undo":
            run_id = json.loads((home / "ours/summary.json").read_text())["run_id"]
            # What an earlier life has begun is gone on with, and asks no more.
            command = ["undo", run_id, "--yes-unbind", str(len(ours))]
        elif kind == "leave":
            leavers = write_csv(home / "leavers.csv", ours)
            command = ["unbind", str(leavers), "--yes-unbind", str(len(ours))]
        else:
            moved = [(row[0], row[1].replace("old", "new"), "", "") for row in ours]
            command = ["run", str(write_csv(home / "moved.csv", moved)), "--move", "--yes"]
        code = campaign.go([*command, *common, "--out", "report"], len(ours))
        records = sandbox_bindings(url)
        server = {(item["userId"], item["machineCode"]): item["deviceId"] for item in records}
        stats = ask(f"{url}/sandbox/stats")
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    return _reckon(
        campaign, kind, ours, code=code, server=server, stats=stats, lines=lines, began=began
    )


def _reckon(
    campaign: Campaign,
    kind: str,
    ours: Sequence[tuple[str, str, str, str]],
    *,
    code: int,
    server: dict[tuple[str, str], str],
    stats: dict[str, int],
    lines: Sequence[dict[str, Any]],
    began: float,
) -> Figures:
    home = campaign.home
    mine = {row["device_id"] for row in read_results(home / "ours") if row["status"] == "bound"}
    there = set(server.values())
    if kind == "undo":
        with (home / "report/undo.csv").open(encoding="utf-8", newline="") as file:
            report = list(csv.DictReader(file))
        freed = [row for row in report if row["status"] in ("unbound", "already_gone")]
        bound: list[dict[str, str]] = []
    elif kind == "leave":
        report = read_results(home / "report")
        freed = [row for row in report if row["status"] in ("unbound", "already_gone")]
        bound = []
    else:
        report = read_results(home / "report")
        gone = "SELECT device_id FROM unbindings WHERE status IN ('unbound', 'already_gone')"
        freed = [{"device_id": found} for (found,) in select(campaign.ledger, gone)]
        bound = [row for row in report if row["status"] in ("bound", "already_bound")]
    owners = Counter(machine_code for _, machine_code in server)
    known = {
        (user, machine_code): device_id
        for user, machine_code, device_id in select(
            campaign.ledger, "SELECT user_id, machine_code, device_id FROM bindings"
        )
    }
    taken = [
        line["device_id"]
        for line in lines
        if line["method"] == "DELETE" and line["result"].split()[-1] == "unbound"
    ]
    return Figures(
        kills=campaign.kills,
        kills_that_struck=campaign.struck,
        claimed_when_struck=campaign.claimed,
        devices=len(ours),
        statuses=dict(Counter(row["status"] for row in report)),
        unbinds=stats.get("unbinds", 0),
        throttled=stats.get("throttled", 0),
        resets=stats.get("reset-after", 0) + stats.get("reset-before", 0),
        stale_lists=stats.get("stale", 0),
        seconds=round(time.monotonic() - began, 1),
        exit_code=code,
        called_unbound_but_bound=sum(row["device_id"] in there for row in freed),
        called_bound_but_not=sum(
            server.get((row["user_id"], row["machine_code"])) != row["device_id"] for row in bound
        ),
        with_two_owners=sum(count > 1 for count in owners.values()),
        unbound_though_not_ours=len(set(taken) - mine),
        forgotten=len(mine & there),
        posted_again=stats.get("posted_again", 0),
        ledger_bindings_unlike_the_server=sum(
            known.get(key) != server.get(key) for key in known.keys() | server.keys()
        ),
    )


def main() -> None:
    """Run a campaign and print its figures."""
    parser = argparse.ArgumentParser(description="Kill a command that unbinds again and again.")
    parser.add_argument("kind", choices=("undo", "leave", "move"))
    parser.add_argument("--kills", type=int, default=100, help="that must strike  [default: 100]")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for all evidence")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkbind-unbind-") as folder:
        home = given.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=given.keep is None)
        figures = run_campaign(home.resolve(), given.kind, kills=given.kills, seed=given.seed)
    wrong = figures.wrong()
    if figures.kills_that_struck < given.kills:
        wrong["kills_missing"] = given.kills - figures.kills_that_struck
    for name, value in asdict(figures).items():
        say(f"{value!s:>12}  {name.replace('_', ' ')}{'  (should be 0)' if name in wrong else ''}")
    write_json(f"unbind_campaign_{given.kind}", {"figures": asdict(figures), "wrong": wrong})
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

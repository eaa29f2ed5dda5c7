"""What each fault of the sandbox comes to: `python -m tests.campaigns.fault_table [NAME ...]`.

For every fault: forty devices are bound by `bulkbind run` while the fault strikes a third of the
binds; then what the operator saw, what the ledger holds of the attempts, and how the rows that were
struck have ended. Exit code 1 if a promise is broken. The tests of the faults use the same runs.
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.clock import iso
from bulkbind.errors import BulkbindError
from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from bulkbind.sandbox.faults import KINDS
from tests.benchmarks.bench import say
from tests.support.manifests import fleet, write_csv
from tests.support.processes import bulkbind, free_port, read_results

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

ROWS = 40
STRIKES = 13
SEED = 11
SETTINGS = """\
timeout: 700ms
list_timeout: 700ms
readback_settle: 300ms
backoff_base: 20ms
backoff_cap: 100ms
"""
"""A late answer is later than `timeout`, and a late binding comes well within `readback_settle`."""
CALLED_BOUND = ("bound", "already_bound", "skipped")
LATE = {
    "delay-before": "for=850ms",
    "delay-after": "for=850ms",
    "drip": "for=50ms",
    "503": "for=1s",
}
"""Times of faults: silence longer than `timeout`; a Retry-After that a test can wait for."""


AT_ONCE = 4
"""Runs made at the same time: they wait more than they work."""


class Ahead:
    """Runs that will be wanted in this order, some of them made at the same time."""

    def __init__(self, jobs: Mapping[str, Callable[[], Any]]) -> None:
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._begun: dict[str, Any] = {}

    def result(self, name: str):
        """Return what a job came to, and begin those that follow it."""
        names = list(self._jobs)
        first = names.index(name)
        for each in names[first : first + AT_ONCE]:
            if each not in self._begun:
                self._begun[each] = self._pool.submit(self._jobs[each])
        return self._begun[name].result()

    def close(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Evidence:
    """All that a run leaves."""

    port: int
    code: int
    stderr: str
    summary: dict[str, Any]
    rows: list[dict[str, str]]
    """Of `results.csv`."""
    attempts: list[dict[str, str]]
    """Of `attempts.csv`: those that were not simply accepted."""
    held: dict[tuple[str, str], dict[str, str]]
    """What the sandbox holds, by user and machine code."""
    binds: list[dict[str, Any]]
    """The binds of the sandbox's journal."""
    stats: dict[str, float]
    """Of the sandbox."""
    is_local: bool
    """Whether any answer, of this run or one before it, had `local-time`."""

    def struck(self) -> list[dict[str, Any]]:
        """Return the binds that a fault struck."""
        return [line for line in self.binds if line["result"].split(maxsplit=1)[0] in KINDS]

    def ends(self) -> Counter[str]:
        """Return how the rows that were struck have ended."""
        codes = {line["machine_code"] for line in self.struck()}
        return Counter(row["status"] for row in self.rows if row["machine_code"] in codes)

    def verdicts(self) -> Counter[str]:
        """Return the verdicts on the binds that a fault struck."""
        known = {attempt["trace_id"]: attempt["verdict"] for attempt in self.attempts}
        return Counter(known.get(line["trace_id"], "Accepted") for line in self.struck())

    def said(self) -> str:
        """Return what a person reads at the end, as one line."""
        lines = [line.strip() for line in self.stderr.splitlines() if not line.startswith("{")]
        begin = next((n for n, line in enumerate(lines) if line.startswith("run ")), len(lines))
        kept = [line for line in lines[begin + 1 :] if not line.startswith(("report:", "sent:"))]
        return "; ".join(" ".join(line.split()) for line in kept if line)

    def broken(self) -> list[str]:
        """Return every promise that the run has broken: report against server, row by row."""
        found = [f"exit code {self.code}"] if self.code != self._wanted_code() else []
        if len({(row["user_id"], row["machine_code"]) for row in self.rows}) != ROWS:
            found.append(f"{len(self.rows)} rows in the report")
        for row in self.rows:
            code, status = row["machine_code"], row["status"]
            record = self.held.get((row["user_id"], code))
            if status in CALLED_BOUND:
                ids = (row["device_id"], row["create_time"])
                if record is None:
                    found.append(f"{code} is called {status}, and the server lacks it")
                elif ids not in self._shown(record):
                    found.append(f"{code} has {ids}, the server {record}")
            elif status not in ("failed", "in_doubt") and (status, self.code) != ("pending", 3):
                found.append(f"{code} ended as {status}")
            elif status != "in_doubt" and record is not None:
                found.append(f"{code} is called {status}, and the server holds it")
        told = self.summary["posted_again_after_bound"]
        least, most = self._repeats()
        if not least <= told <= most:
            found.append(f"{least} to {most} requests met a binding, {told} are told")
        return found

    def _shown(self, record: dict[str, str]) -> list[tuple[str, str]]:
        """Return device id and `createTime` as answers may have shown them."""
        times = [record["createTime"]]
        if self.is_local:
            ahead = timedelta(seconds=KINDS["local-time"].for_s or 0)
            times.append(iso(datetime.fromisoformat(times[0]) + ahead))
        return [(record["deviceId"], created) for created in times]

    def _repeats(self) -> tuple[int, int]:
        """Return how many requests are known to have met a binding, and how many did.

        The others were sent within the second in which the server's clock is not known better.
        """
        again = {line["trace_id"] for line in self.binds if "posted_again" in line["result"]}
        refused = {x["trace_id"] for x in self.attempts if x["verdict"] == "Refused"}
        return len(again & refused), len(again)

    def _wanted_code(self) -> int:
        if any(row["status"] == "pending" for row in self.rows):
            return 3
        return int(any(row["status"] not in CALLED_BOUND for row in self.rows))


def ordered(name: str, chance: float = 1 / 3, **more: object) -> str:
    """Return a fault as the sandbox is told of it."""
    keys = [f"{key}={value}" for key, value in more.items()]
    return ",".join([f"{name}={chance:.3f}", *filter(None, [LATE.get(name)]), *keys])


async def run_with(
    faults: list[str],
    folder: Path,
    settings: str = SETTINGS,
    *,
    users: int = 5,
    port: int = 0,
    is_audited: bool = True,
) -> Evidence:
    """Bind a fleet while faults strike, and return what that leaves in *folder*.

    Args:
        faults: As the sandbox is told of them.
        folder: Where all files go.
        settings: The settings file.
        users: How many have the devices.
        port: That of an earlier run in *folder*, whose server, ledger and manifest are gone on
            with.
        is_audited: Whether the attempts are asked for as well.
    """
    options = SandboxOptions(
        faults=tuple(map(parse_fault, faults)),
        second_bind="error",
        journal=folder / "journal.jsonl",
        seed=SEED,
        state=folder / "state.jsonl",
    )
    manifest = write_csv(folder / "fleet.csv", fleet(ROWS, users))
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    async with _served(options, port) as sandbox:
        common = ("--endpoint", sandbox.url, "--out", "out")
        run = ("run", manifest, *common, "--config", "config.yaml")
        done = await asyncio.to_thread(bulkbind, *run, home=folder)
        if is_audited:
            report = ("report", *common, "--attempts")
            await asyncio.to_thread(bulkbind, *report, home=folder, check=0)
        held = {(user, item["machineCode"]): item for user, item in sandbox.bindings.everything()}
        stats = sandbox.stats()
    journal = (folder / "journal.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in journal.splitlines()]
    return Evidence(
        port=int(sandbox.url.rpartition(":")[2]),
        code=done.returncode,
        stderr=done.stderr,
        summary=json.loads((folder / "out/summary.json").read_text(encoding="utf-8")),
        rows=read_results(folder / "out"),
        attempts=_read(folder / "out/attempts.csv") if is_audited else [],
        held=held,
        binds=[line for line in lines if line["method"] == "POST"],
        stats=stats,
        is_local=any("local-time" in line["result"].split() for line in lines),
    )


@asynccontextmanager
async def _served(options: SandboxOptions, port: int | None) -> AsyncIterator[Sandbox]:
    sandbox = await _listening(options, port)
    try:
        yield sandbox
    finally:
        await sandbox.__aexit__()


async def _listening(options: SandboxOptions, port: int | None, tries: int = 20) -> Sandbox:
    """Serve a sandbox; another process may have the port for a moment, to see if it is free."""
    while True:
        sandbox = Sandbox(options, port=port or free_port())
        try:
            return await sandbox.__aenter__()
        except BulkbindError:
            await sandbox.__aexit__()
            tries -= 1
            if not tries:
                raise
        await asyncio.sleep(0.1)  # noqa: TID251  # another process


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Print the table."""
    broken: list[str] = []
    of_binds = [name for name, kind in KINDS.items() if not kind.is_for_lists]
    for name in sys.argv[1:] or of_binds:
        with tempfile.TemporaryDirectory() as folder:
            faults = [ordered(name, count=STRIKES)]
            evidence = asyncio.run(run_with(faults, Path(folder).resolve()))
        say(name)
        say(f"  server     {_told(Counter(line['result'] for line in evidence.struck()))}")
        say(f"  operator   exit {evidence.code}: {evidence.said()}")
        say(f"  ledger     {_told(Counter(map(_attempt, evidence.attempts)))}")
        say(f"  rows       {_told(evidence.ends())}")
        broken += [f"{name}: {text}" for text in evidence.broken()]
    say("\n".join(broken) or "every promise was kept")
    sys.exit(1 if broken else 0)


def _attempt(attempt: dict[str, str]) -> str:
    words = (attempt["verdict"], attempt["http_status"], attempt["code"])
    return " ".join(filter(None, words))


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "nothing"


if __name__ == "__main__":
    main()

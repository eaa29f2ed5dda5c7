"""Ten real nights: processes, sockets, files, and faults that strike them; then all is compared.

Every night a file is dropped into the inbox and `run INBOX --archive DONE` is called once, as cron
would. The server is a process with a file of its own, so that it can be away, change its limit and
expire a token.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.manifests import write_csv
from tests.support.processes import BULKBIND, ask, environment, free_port, sandbox, sandbox_bindings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FINAL = ("bound", "already_bound", "skipped", "duplicate", "invalid", "failed", "moved")
FORCED = ("throttled", "refused", "500")
"""What makes a request not count: it was not done, and said so."""
TOKENS = ("first-token", "second-token")
LEFT = 8192
"""Bytes that the ledger may grow by on the night of the full disk."""


@dataclass
class Night:
    """What one night was to be, and how its command ended."""

    what: str
    code: int
    files: int
    """Files that were in the inbox when it began."""
    left: int
    """Files that were still there when it ended."""
    said: str = ""


@dataclass
class Nights:
    """Ten nights, or more, in a folder of their own."""

    home: Path
    rows: int
    seed: int = 3
    port: int = field(default_factory=free_port)
    told: list[Night] = field(default_factory=list)
    dropped: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    """Name of a file -> its rows."""
    struck: Counter[str] = field(default_factory=Counter)
    """What the servers counted, added up."""
    token: str = TOKENS[0]

    def __post_init__(self) -> None:
        self._pick = random.Random(self.seed)
        self._inbox = self.home / "in"
        self._inbox.mkdir()
        self._next = 0
        self._has_disk = False
        self.url = f"http://127.0.0.1:{self.port}"
        (self.home / "bulkbind.yaml").write_text(
            "readback_settle: 200ms\nbackoff_base: 100ms\nbackoff_cap: 500ms\non_invalid: skip\n"
            "timeout: 2s\nlist_timeout: 5s\nconnect_timeout: 1s\nconcurrency: 16\n"
        )

    # --- a night ----------------------------------------------------------------------------------

    def drop(self) -> None:
        """Put a new file into the inbox: new devices, some of the last file's, one bad row."""
        fresh = [self._row(number) for number in range(self._next, self._next + self.rows)]
        again = [self._row(number) for number in range(max(0, self._next - 3), self._next)]
        self._next += self.rows
        rows: list[tuple[str, ...]] = [
            *fresh,
            *again,
            fresh[0],
            (f"bad-{self._next}", "user_0", "", ""),
        ]
        name = f"night{len(self.dropped):02}.csv"
        self.dropped[name] = rows
        moment = time.time() - 1000 + len(self.dropped)  # noqa: TID251  # the system's own
        path = write_csv(self._inbox / name, rows)
        os.utime(path, (moment, moment))

    def _row(self, number: int) -> tuple[str, str, str, str]:
        return f"SN{number:06d}", f"user_{number % 9}", f"Van {number}", "Android 15"

    @contextmanager
    def served(self, *options: str) -> Iterator[str]:
        """Serve for the block; what is bound stays for the next one."""
        common = ("--port", str(self.port), "--state", str(self.home / "state.jsonl"))
        journal = ("--journal", str(self.home / "journal.jsonl"), "--second-bind", "error")
        with sandbox(*common, *journal, *options, home=self.home) as url:
            yield url
            self.struck.update({k: int(v) for k, v in ask(f"{url}/sandbox/stats").items()})

    def command(self, *options: str) -> list[str]:
        """Return the command of a night."""
        return [
            *BULKBIND, "run", str(self._inbox), "--archive", str(self.home / "done"), "--endpoint",
            self.url, "--ledger", str(self.home / "ledger" / "l.db"), "--out",
            str(self.home / "reports"), "--config", str(self.home / "bulkbind.yaml"), "--min-age",
            "0s", "--quiet", "--yes", *options,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Return what a night's command finds around it."""
        return environment(self.home, BULKBIND_TOKEN=self.token)

    def night(self, what: str, *options: str, ulimit: str = "") -> Night:
        """Drop a file, call the command once, and remember how it ended."""
        self.drop()
        files = len(list(self._inbox.iterdir()))
        done = subprocess.run(
            ["/bin/bash", "-c", f'{ulimit} exec "$@"', "bash", *self.command(*options)],
            env=self.environment(), cwd=self.home, capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip
        left = len(list(self._inbox.iterdir()))
        self.told.append(Night(what, done.returncode, files, left, done.stderr))
        return self.told[-1]

    def killed_night(self, what: str, *options: str) -> None:
        """Drop a file, and kill the command while requests are in flight."""
        self.drop()
        files = len(list(self._inbox.iterdir()))
        before = ask(f"{self.url}/sandbox/stats").get("binds", 0)
        wanted = before + self._pick.randint(self.rows // 4, self.rows // 2)
        started = subprocess.Popen(
            self.command(*options), env=self.environment(), cwd=self.home,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 60
        while (
            ask(f"{self.url}/sandbox/stats").get("binds", 0) < wanted
            and started.poll() is None
            and time.monotonic() < end
        ):
            time.sleep(0.005)  # noqa: TID251  # polling other processes
        started.kill()
        code = started.wait(10)
        self.told.append(Night(what, code, files, len(list(self._inbox.iterdir()))))

    @contextmanager
    def disk_of_its_own(self) -> Iterator[None]:
        """Let the ledger lie on a disk of its own for the block, where a disk can be mounted."""
        folder, kept = self.home / "ledger", self.home / "kept"
        folder.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", str(folder)]
        self._has_disk = not subprocess.run(command, capture_output=True, check=False).returncode
        try:
            yield
        finally:
            if self._has_disk:
                shutil.copytree(folder, kept)
                subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607  # a system's own
                shutil.copytree(kept, folder, dirs_exist_ok=True)

    def full_night(self, what: str) -> None:
        """Live through a night on which the ledger has hardly any room left to grow."""
        folder = self.home / "ledger"
        if not self._has_disk:
            size = (folder / "l.db").stat().st_size
            # In blocks of 1,024 bytes: no file may grow beyond what the ledger is.
            self.night(what, ulimit=f"ulimit -f {(size + LEFT) // 1024};")
            return
        filler = folder / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(folder).free - LEFT))
        self.night(what)
        filler.unlink()

    # --- ten of them ------------------------------------------------------------------------------

    def live(self) -> None:
        """Let ten nights pass, and one more on which nothing is wrong."""
        with self.disk_of_its_own():
            self._live()

    def _live(self) -> None:
        slow = ("--rate", str(max(20, self.rows)))
        with self.served():
            self.night("all well")
        with self.served("--limit", "bucket:20/s,burst=1"):
            self.night("a limit")
        self.night("no network", "--deadline", "1500ms")
        with self.served("--limit", "60/s,until=300ms", "--limit", "30/s,from=300ms"):
            self.night("a limit that changes")
            self.killed_night("a kill", *slow)
            self.night("the night after the kill")
        with self.served("--fault", "reset-after=0.15", "--fault", "500=0.05", "--seed", "7"):
            self.night("connections that break")
            self.full_night("a full disk")
        with self.served("--accept-token", TOKENS[1]):
            self.night("an expired token")
            self.token = TOKENS[1]
            self.night("a new token", "--deadline", "90s")
            self.night("all well again")

    # --- what is left -----------------------------------------------------------------------------

    def troubles(self) -> list[str]:
        """Return what is not as it should be after all these nights."""
        found = [f"{path.name} is in the inbox" for path in self._inbox.iterdir()]
        archived = {
            path.name.split("-", 3)[3]: path
            for path in (self.home / "done").rglob("*.csv")
            if not path.name.endswith(".failed.csv")
        }
        if archived.keys() != self.dropped.keys():
            found.append(f"archived: {sorted(archived)}")
        for name, path in archived.items():
            found += self._of_file(name, path)
        return found + self._of_server()

    def _of_file(self, name: str, path: Path) -> list[str]:
        """Compare a file with the report of its run: each row once, each ended."""
        run_id = "-".join(path.name.split("-")[:3])
        results = self.home / "reports" / run_id / "results.csv"
        with results.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        wanted = [row[:2] for row in self.dropped[name]]
        found = []
        if [(row["machine_code"], row["user_id"]) for row in rows] != wanted:
            found.append(f"{name}: its report has other rows")
        statuses = Counter(row["status"] for row in rows)
        if set(statuses) - set(FINAL) or statuses["invalid"] != 1 or statuses["duplicate"] != 1:
            found.append(f"{name}: {dict(statuses)}")
        return found

    def _of_server(self) -> list[str]:
        """Compare what is bound, and how often it was asked for."""
        found = []
        with self.served("--accept-token", self.token) as url:
            held = Counter(item["machineCode"] for item in sandbox_bindings(url))
        distinct = {self._row(number)[0] for number in range(self._next)}
        if held != Counter(distinct):
            found.append(f"{len(held)} devices are bound, {len(distinct)} were wanted")
        requests = self.bind_requests()
        if requests["bound"] != len(distinct):
            found.append(f"bound by {requests['bound']} requests: {len(distinct)} devices")
        if requests["posted_again"]:
            found.append(f"{requests['posted_again']} devices were posted again")
        if set(requests) - {"bound", *FORCED}:
            found.append(f"requests that no fault forced: {dict(requests)}")
        return found

    def bind_requests(self) -> Counter[str]:
        """Return the bind requests of all nights by what was done: `bound`, or why not."""
        done: Counter[str] = Counter()
        with (self.home / "journal.jsonl").open(encoding="utf-8") as file:
            for line in file:
                entry: dict[str, Any] = json.loads(line)
                if entry["method"] == "POST":
                    done[str(entry["result"]).rpartition(" ")[2]] += 1
        return done


KILLED = -signal.SIGKILL

"""bulkbind and its sandbox as processes, and what they leave: reports, ledgers, bindings."""

from __future__ import annotations

import csv
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from bulkbind.settings import ledger_name
from tests.support.forks import Forked, forks

BULKBIND = [sys.executable, "-m", "bulkbind"]
_PLAIN = """
from bulkbind.koodrive.connections import FastPath
FastPath.serves = staticmethod(lambda: False)
from bulkbind.cli import main
main()
"""
PLAIN = [sys.executable, "-c", _PLAIN]
"""The same, with every request on the plain path."""


def read_results(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `results.csv`."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> dict[str, int]:
    """Return how many rows have which status."""
    found: dict[str, int] = {}
    for row in read_results(folder):
        found[row["status"]] = found.get(row["status"], 0) + 1
    return found


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which bulkbind finds nothing but what the test gives."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BULKBIND_", "XDG_"))}
    return kept | {"XDG_STATE_HOME": str(home), "BULKBIND_TOKEN": "secret-token"} | more


def bulkbind(
    *arguments: str | Path,
    home: Path,
    check=None,
    timeout: float = 100,
    command=BULKBIND,
    **environ: str,
):
    """Run bulkbind to its end and return the finished process; *check*: its exit code."""
    words = list(map(str, arguments))
    variables = environment(home, **environ)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with begun(words, command=command, env=variables, cwd=home, text=True, **pipes) as started:
        try:
            out, err = started.communicate(timeout=timeout)
        except BaseException:
            started.kill()
            raise
    done = subprocess.CompletedProcess(words, started.returncode, out, err)
    if check is not None:
        assert done.returncode == check, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def begun(words: list[str], *, command=BULKBIND, env: dict[str, str], **how: Any):
    """Start bulkbind with the arguments *words*; *how*: what `Popen` takes, all streams given."""
    if command is BULKBIND and forks(env):
        return Forked(words, env=env, **how)
    return subprocess.Popen([*command, *words], env=env, **how)


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody gets who takes any: such are higher."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as server, suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port


@contextmanager
def process(*arguments: str | Path, home: Path, **environ: str):
    """Start bulkbind, and make sure that it is gone at the end."""
    started = begun(
        list(map(str, arguments)), env=environment(home, **environ), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=home, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


@contextmanager
def sandbox(*arguments: str, home: Path):
    """Serve a sandbox in a process of its own and yield its URL."""
    command = ["sandbox", "--port", "0", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    with begun(command, env=environment(home), cwd=home, text=True, **pipes) as started:
        try:
            line = started.stdout.readline()
            assert line.startswith("ready "), line
            yield line.split()[1]
            started.terminate()
            started.communicate(timeout=10)
        finally:
            started.kill()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and that have not ended; Linux only."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in thread.read_text().split()]
    return [child for child in found if is_running(child)]


def is_running(pid: int) -> bool:
    """Return whether a process has not ended; Linux only."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def ask(url: str):
    """Return the JSON that a sandbox's own page answers."""
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # loopback
        return json.load(answer)


def sandbox_bindings(url: str) -> list[dict[str, str]]:
    """Return every record that a sandbox holds."""
    with urllib.request.urlopen(f"{url}/sandbox/bindings", timeout=10) as answer:  # noqa: S310  # loopback
        return [json.loads(line) for line in answer]


def ledger_of(home: Path, url: str) -> Path:
    """Return the default ledger of an endpoint."""
    return home / "bulkbind" / f"{ledger_name(url)}.db"


def count_rows(ledger: Path, status: str) -> int:
    """Return how many rows of a ledger have a status; 0 where there is no ledger yet."""
    if not ledger.exists():
        return 0
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        try:
            query = "SELECT count(*) FROM rows WHERE status = ?"
            (number,) = db.execute(query, (status,)).fetchone()
        except sqlite3.OperationalError:
            return 0
        return int(number)

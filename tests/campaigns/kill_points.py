"""Kills a command before each of its steps: `python -m tests.campaigns.kill_points [STRIDE]`.

A step is a group of writes to the ledger, or a change to a file or folder of the test. For every
step (or every STRIDE-th) there is an inbox of its own with two files; the run is killed before that
step, by itself, with SIGKILL; a second run goes through. Then every row of both files must be
accounted for, each file must lie in the archive once, and no device may have been bound twice.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.cli import run_command_line
from bulkbind.ledger.writer import Writer
from tests.support.manifests import write_csv
from tests.support.processes import ask, environment, sandbox, sandbox_bindings

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"older.csv": 4, "newer.csv": 3}
"""Name -> rows; one more in each breaks a rule."""
FILE_EVENTS = {"os.rename", "os.link", "os.remove", "os.mkdir"}


@dataclass
class Point:
    """What a kill before one step led to."""

    step: int
    what: str
    """The step; empty where the command had fewer steps."""
    troubles: list[str]


def kill_before(step: int, home: Path) -> None:
    """Make this process kill itself before its *step*-th step, and say what that would have been.

    A hook cannot be taken away again, so this is for a process of its own.
    """
    left = step

    def count(what: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            (home / "killed").write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if left <= 0 or not arguments or not str(arguments[0]).startswith(str(home)):
            return
        is_written = event == "open" and len(arguments) > 2 and bool(arguments[2] & os.O_CREAT)
        if (event in FILE_EVENTS or is_written) and not str(arguments[0]).endswith("killed"):
            count(f"{event} {Path(str(arguments[0])).relative_to(home)}")

    write = Writer._execute

    def execute(self, db, group):
        if left > 0:
            count("ledger: " + ", ".join(item.verb.work.__name__ for item in group))
        write(self, db, group)

    Writer._execute = execute  # type: ignore[method-assign]  # in a process that is about to die
    sys.addaudithook(hook)


def run_forked(
    home: Path,
    arguments: list[str],
    first: Callable[[], None] = lambda: None,
    *,
    wait: bool = True,
) -> int:
    """Run bulkbind in a fork that begins with *first*; return its exit code, negative if killed.

    *wait*: else return its process id at once.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if wait else child
    try:
        os.chdir(home)
        os.environ.clear()
        os.environ.update(environment(home / "state"))
        quiet = os.open(home / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.argv = ["bulkbind", *arguments]
        first()
        run_command_line()
    except SystemExit as error:
        os._exit(error.code if isinstance(error.code, int) else 0)
    finally:
        os._exit(99)


def fill(inbox: Path, prefix: str) -> dict[str, list[str]]:
    """Put the files into an inbox; return their machine codes."""
    inbox.mkdir()
    codes: dict[str, list[str]] = {}
    for age, (name, count) in enumerate(FILES.items()):
        codes[name] = [f"{prefix}{name[0]}{number}" for number in range(count)]
        rows = [(code, f"user_{prefix}", "", "") for code in codes[name]]
        path = write_csv(inbox / name, [*rows, (f"{prefix}-broken", "u", "", "")])
        os.utime(path, (1_700_000_000 + age, 1_700_000_000 + age))
    return codes


def at_point(step: int, base: Path, url: str) -> Point:
    """Kill a run before a step, let another go through, and compare."""
    home = base / f"p{step}"
    home.mkdir()
    prefix = f"P{step}"
    codes = fill(home / "in", prefix)
    (home / "bulkbind.yaml").write_text("readback_settle: 100ms\non_invalid: skip\n")
    command = ["run", "in", "--archive", "done", "--min-age", "0s", "--out", "reports"]
    command += ["--endpoint", url, "--config", "bulkbind.yaml", "--quiet", "--yes"]
    run_forked(home, command, lambda: kill_before(step, home))
    killed = home / "killed"
    second = run_forked(home, command)
    return Point(
        step,
        killed.read_text() if killed.exists() else "",
        troubles(home, url, codes, prefix, second),
    )


def troubles(home: Path, url: str, codes, prefix: str, code: int) -> list[str]:
    """Return what is not as it should be."""
    found = []
    # The second run ends with 1 if it still had a file with a problem to move, else with 0.
    if code not in (0, 1):
        found.append(f"exit code {code}: {(home / 'said').read_text()[-500:]}")
    archived = Counter(
        path.name.split("-", 3)[3] for path in (home / "done").rglob("*.csv") if path.is_file()
    )
    wanted = Counter([*FILES, *(name.replace(".csv", ".failed.csv") for name in FILES)])
    if archived != wanted:
        found.append(f"archived: {dict(archived)}")
    if any((home / "in").iterdir()):
        found.append("a file is left in the inbox")
    held = Counter(
        item["machineCode"] for item in sandbox_bindings(url) if item["userId"] == f"user_{prefix}"
    )
    if held != Counter(code for each in codes.values() for code in each):
        found.append(f"bound: {dict(held)}")
    if runs_of(home) != len(FILES):
        found.append(f"{runs_of(home)} runs for {len(FILES)} files")
    for path in (home / "done").rglob("*-*.csv"):
        run_id = "-".join(path.name.split("-")[:3])
        if not (home / "reports" / run_id / "results.csv").exists():
            found.append(f"{path.name} has no report")
    return found


def runs_of(home: Path) -> int:
    """Return how many runs the ledger of a point has."""
    [ledger] = home.glob("state/bulkbind/*.db")
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])


def all_points(stride: int, first: int = 1) -> list[Point]:
    """Kill before every *stride*-th step until there are no more."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        with sandbox(home=base) as url:
            step = first
            while True:
                point = at_point(step, base, url)
                if not point.what:
                    break
                points.append(point)
                step += stride
            again = ask(f"{url}/sandbox/stats").get("posted_again", 0)
            if again:
                points.append(Point(0, "all", [f"{again} devices were posted again"]))
    return points


def run_all() -> int:
    """Print every point; return how many led to trouble."""
    points = all_points(*(int(text) for text in sys.argv[1:3] or ["1"]))
    for point in points:
        told = "; ".join(point.troubles) or "ok"
        print(f"{point.step:>4}  {point.what:<60}  {told}")  # noqa: T201  # what it is for
    return sum(bool(point.troubles) for point in points)


if __name__ == "__main__":
    sys.exit(min(run_all(), 100))

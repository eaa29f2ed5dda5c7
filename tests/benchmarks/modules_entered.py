"""How many modules of bulkbind a row, a bind, a 429 and an undo enter; `names`: which.

A module is entered when one of its functions runs; importing it does not count. The sandbox that
answers is a process of its own. What is counted:

- a row: everything from the CSV cell to `results.csv`, in a run of one row;
- a bind: what the worker's task enters for a row that is accepted at once;
- a 429: what the worker's and the retry's tasks enter from its answer on until the row is sent
  again;
- an undo: everything, for one device.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bulkbind
from tests.benchmarks.bench import say
from tests.support.manifests import write_csv
from tests.support.processes import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = str(Path(bulkbind.__file__).parent)


class Entered:
    """Collects the modules whose functions run, in all threads; of some tasks alone if named."""

    def __init__(self, *tasks: str) -> None:
        self.modules: set[str] = set()
        self.is_on = True
        self._tasks = tasks

    def __call__(self, frame: Any, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if event != "call" or not self.is_on or not self._is_ours(file):
            return
        if frame.f_code.co_name != "<module>" and (not self._tasks or self._is_wanted()):
            self.modules.add(os.path.relpath(file, PACKAGE))

    @staticmethod
    def _is_ours(file: str) -> bool:
        return file.startswith(PACKAGE) and file.endswith(".py")

    def _is_wanted(self) -> bool:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return False
        return task is not None and task.get_name().startswith(self._tasks)


@contextmanager
def entered(*tasks: str) -> Iterator[Entered]:
    """Collect for the block."""
    seen = Entered(*tasks)
    threading.setprofile(seen)
    sys.setprofile(seen)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


async def _run(home: Path, url: str, rows: int, seen: Entered) -> bulkbind.RunResult:
    """Bind a manifest of *rows* rows; nothing is counted before the package is loaded."""
    manifest = write_csv(
        home / "fleet.csv", [(f"SN{n}", "user_1", "Van", "OS") for n in range(rows)]
    )
    settings = bulkbind.load_settings(
        None,
        {
            "endpoint": url,
            "auth.token": "any",
            "ledger": str(home / "ledger.db"),
            "out": str(home / "report"),
            "readback_settle": "50ms",
            "log_level": "error",
        },
    )
    seen.is_on = True
    return await bulkbind.run([manifest], settings)


async def _undo(home: Path, url: str, run_id: str, seen: Entered) -> None:
    settings = bulkbind.load_settings(
        None,
        {
            "endpoint": url,
            "auth.token": "any",
            "ledger": str(home / "ledger.db"),
            "out": str(home / "undone"),
            "log_level": "error",
        },
    )
    seen.is_on = True
    result = await bulkbind.undo(settings, run_id, devices=1)
    assert result.exit_code == 0, result


def _measured(what: str, tasks: tuple[str, ...], rows: int, *faults: str) -> set[str]:
    """Return the modules entered by one of the four."""
    with tempfile.TemporaryDirectory() as folder, sandbox(*faults, home=Path(folder)) as url:
        home = Path(folder)
        with entered(*tasks) as seen:
            seen.is_on = False
            result = asyncio.run(_run(home, url, rows, seen))
        assert result.report is not None
        assert result.exit_code == 0, result
        if what != "undo":
            return set(seen.modules)
        with entered() as seen:
            seen.is_on = False
            asyncio.run(_undo(home, url, result.report.summary.run_id, seen))
        return set(seen.modules)


def main() -> None:
    """Print a line for each of the four, and with `names` which modules they are."""
    logging.disable()
    bind = _measured("bind", ("worker",), 2)
    measured = {
        "one row, from CSV cell to results.csv": _measured("row", (), 1),
        "one bind alone": bind,
        "a 429, beyond what a bind enters": _measured(
            "429", ("worker", "retry"), 3, "--limit", "1/s"
        )
        - bind,
        "an undo": _measured("undo", (), 1),
    }
    for what, modules in measured.items():
        say(f"{what}: {len(modules)} modules")
        if "names" in sys.argv:
            say("    " + ", ".join(sorted(modules)))


if __name__ == "__main__":
    main()

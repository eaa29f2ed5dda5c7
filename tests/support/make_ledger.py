"""Makes a ledger of the present version, for tests of later ones.

`python -m tests.support.make_ledger` writes to `tests/ledgers/`: `version-N.db` with one finished
run that has a row of most statuses, and one that was killed while it was sending; the sandbox's
bindings; the `summary.json` of the finished run. Run it before the schema changes, and keep what it
wrote.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from bulkbind.ledger import RunReader, reading
from bulkbind.ledger.versions import VERSION
from bulkbind.report import as_json
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import ask, bulkbind, process, sandbox

FOLDER = ROOT / "tests" / "ledgers"
ROWS = 40
FINISHED = [
    *fleet(6), fleet(1)[0], ("a-hyphen", "user_1", "", ""), (fleet(ROWS)[-1][0], "other", "", ""),
]  # fmt: skip
"""Bound or failed, then a duplicate, an invalid row, and a device that the other run gives to
another user."""


def make(home: Path) -> tuple[Path, Path]:
    """Make a ledger and the file of its server's bindings, and return both."""
    ledger, state = home / "ledger.db", home / "state.jsonl"
    finished = write_csv(home / "finished.csv", FINISHED)
    stopped = write_csv(home / "stopped.csv", fleet(ROWS))
    faults = ("--fault", "business=1,count=2", "--state", str(state))
    with sandbox(*faults, home=home) as url:
        common = (
            "--endpoint",
            url,
            "--ledger",
            ledger,
            "--out",
            home / "out",
            "--concurrency",
            "2",
        )
        bulkbind("run", finished, *common, "--on-invalid", "skip", home=home, check=1)
        with process("run", stopped, *common, "--rate", "12", home=home) as started:
            end = time.monotonic() + 60
            while ask(f"{url}/sandbox/stats")["binds"] < 20 and time.monotonic() < end:
                time.sleep(0.02)  # noqa: TID251  # polling another process
            started.kill()
            started.wait(10)
    with closing(sqlite3.connect(ledger)) as db:
        # What names this machine is of no use to a test.
        db.execute("UPDATE runs SET operator = 'somebody', host = 'somewhere'")
        db.execute("UPDATE meta SET value = json_quote('') WHERE key = 'endpoint'")
        db.commit()
        db.execute("VACUUM")
        db.execute("PRAGMA journal_mode = DELETE")
    return ledger, state


def summary_text(ledger: Path) -> str:
    """Return the `summary.json` of the finished run, without the folder in which it was made."""
    with reading(ledger) as db:
        summary = RunReader(db, 1).summary()
    text = json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n"
    return text.replace(f"{Path(summary.settings['ledger']).parent}/", "")


def main() -> None:
    """Write the three files to their place."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        ledger, state = make(Path(folder).resolve())
        shutil.copyfile(ledger, FOLDER / f"version-{VERSION}.db")
        shutil.copyfile(state, FOLDER / f"version-{VERSION}.jsonl")
        summary = summary_text(ledger)
        (FOLDER / f"version-{VERSION}.summary.json").write_text(summary, encoding="utf-8")


if __name__ == "__main__":
    main()

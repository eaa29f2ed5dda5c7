"""How long a history takes: `python -m tests.benchmarks.history [ROWS [RUNS]]`.

Fills a ledger with ROWS rows in RUNS runs of the same fleet (1,000,000 and 30): the first binds it,
the others skip all but 1 % that they bind anew. Then asks, as `bulkbind history` does, for devices
and users that lie in it at random, and for what is not in it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from statistics import median

from bulkbind.app.history import history
from bulkbind.clock import SystemClock
from bulkbind.errors import UsageError
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import RUN_SHIFT, transaction
from bulkbind.settings import Settings
from tests.benchmarks.bench import say

USERS = 5_000
ASKED = 200
CLOCK = SystemClock()
_ROWS = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)
INSERT INTO rows (id, run, source, line, user_id, machine_code, status, attempts, trace_id)
SELECT (:run << :shift) + i, :run, 0, i + 2, 'user' || (i % :users),
       printf('SN%010d', (i * 7919) % :rows),
       CASE WHEN :run = 1 OR i % 100 = 0 THEN 'bound' ELSE 'skipped' END, 1,
       printf('%056d', :run * 100000000 + i) FROM n
"""
_BINDINGS = """
INSERT INTO stored_bindings (device, device_id, create_time, since, run, name)
SELECT device, 'd' || id, '', '2026-11-26', 1, 0 FROM stored_rows WHERE id >> 40 = 1
"""


def fill(path: Path, rows: int, runs: int) -> None:
    """Make the ledger."""
    each = rows // runs
    with closing(connect(path, "https://example.org")) as db:
        for run in range(1, runs + 1):
            with transaction(db):
                db.execute(
                    "INSERT INTO runs (run, run_id, state, digest, created_at, operator, host, "
                    "pid, version, settings) VALUES (?, ?, 'done', '', '', 'me', 'here', 1, '', "
                    "'{}')",
                    (run, f"run-{run}"),
                )
                db.execute('INSERT INTO sources VALUES (?, 0, \'{"name": "f.csv"}\')', (run,))
                db.execute(_ROWS, {"rows": each, "run": run, "shift": RUN_SHIFT, "users": USERS})
        with transaction(db):
            db.execute(_BINDINGS)


def timed(settings: Settings, **asked: str) -> float:
    """Return the milliseconds of one question."""
    began = CLOCK.monotonic()
    with suppress(UsageError):
        history(settings, **asked)
    return (CLOCK.monotonic() - began) * 1_000


def main(rows: int = 1_000_000, runs: int = 30) -> None:
    """Make a ledger, ask, and print the milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.db")
        fill(path, rows, runs)
        settings = Settings(ledger=path)
        chance = random.Random(1)
        codes = [f"SN{chance.randrange(rows // runs):010}" for _ in range(ASKED)]
        users = [f"user{chance.randrange(USERS)}" for _ in range(ASKED)]
        say(f"{rows:,} rows in {runs} runs, {path.stat().st_size / 1e6:,.0f} MB")
        for name, asked in (
            ("a device", [{"machine_code": code} for code in codes]),
            ("a user", [{"user_id": user} for user in users]),
            ("a device that is not there", [{"machine_code": "NONE"}] * ASKED),
        ):
            took = sorted(timed(settings, **each) for each in asked)
            say(f"{name}: {median(took):.1f} ms, at most {took[-1]:.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))

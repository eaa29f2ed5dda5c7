"""A ledger of its own for a plan: it knows what the real one knows, and is thrown away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from bulkbind.ledger.store import connect, reading
from bulkbind.ledger.trouble import translated

if TYPE_CHECKING:
    from pathlib import Path

# What staging looks at, and nothing else: the real ledger is neither written to nor held.
_COPY = """
BEGIN;
INSERT INTO runs (run, run_id, state, digest, created_at, operator, host, pid, version, settings,
                  facts, superseded_by)
SELECT run, run_id, state, digest, created_at, operator, host, pid, version, '{}', facts,
       superseded_by
  FROM known.runs WHERE state NOT IN ('staging', 'ready');
INSERT INTO bindings (user_id, machine_code, device_id, create_time, device_name, device_os, since,
                      run)
SELECT user_id, machine_code, device_id, create_time, device_name, device_os, since, run
  FROM known.bindings;
INSERT INTO rows (id, run, source, line, user_id, machine_code, status)
SELECT id, run, source, line, user_id, machine_code, status
  FROM known.rows INDEXED BY rows_open WHERE status IN ('claimed', 'in_doubt');
COMMIT;
"""


def copy_known(ledger: Path, scratch: Path, endpoint: str) -> None:
    """Make a ledger *scratch* that knows which devices *ledger* knows as bound or in doubt.

    One consistent view, also beside a run that writes. Where there is no ledger yet, nothing is
    known.

    Raises: LedgerError if the ledger is none, or another endpoint's.
    """
    connect(scratch, endpoint).close()
    if not ledger.exists():
        return
    with reading(ledger, endpoint):
        pass  # it is one, and this endpoint's
    try:
        with closing(sqlite3.connect(scratch.as_uri(), uri=True, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = OFF")  # nobody needs it after a crash
            db.execute("ATTACH ? AS known", (f"{ledger.resolve().as_uri()}?mode=ro",))
            db.executescript(_COPY)
    except sqlite3.Error as error:
        raise translated(ledger, error) from error

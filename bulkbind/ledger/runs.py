"""Which run can resume; the start, state and end of a run's sending.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger import changes, transitions, unbinding
from bulkbind.ledger.store import OPEN, count_by, put_meta, sql_list
from bulkbind.model import CAN_RESUME, RunState, Status, UnbindKind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from datetime import datetime

MOST_PARTS = 20
"""Parts of a run, each from a start to a stop, whose details are kept."""
CARRIED_OVER = ("clock_skew_s", "limit", "limit_per_user")
"""Facts of a run that the next one starts with."""
_SUMMED = ("sending_s", "paced_s", "cooled_s", "retrying_s")


def unfinished(db: sqlite3.Connection, digest: str | None = None) -> tuple[int, str] | None:
    """Return number and id of the run that can resume: of these manifests, or any if None."""
    found: tuple[int, str] | None = db.execute(
        f"SELECT run, run_id FROM runs WHERE state IN {sql_list(CAN_RESUME)} "  # noqa: S608  # constants
        "AND superseded_by IS NULL AND coalesce(?1, digest) = digest ORDER BY run DESC LIMIT 1",
        (digest,),
    ).fetchone()
    return found


def finished(db: sqlite3.Connection, digest: str, name: str, since: str) -> str | None:
    """Return the id of a finished run, created after *since*, of the one manifest *name*, or None.

    *since*: as `iso` writes it. A run with rows in doubt does not count as finished.
    """
    found = db.execute(
        "SELECT r.run_id FROM runs r JOIN sources s ON s.run = r.run AND s.source = 0 "  # noqa: S608  # constants
        "WHERE r.state = 'done' AND r.digest = ? AND s.form ->> 'name' = ? "
        "AND r.created_at > ? AND NOT EXISTS (SELECT 1 FROM rows d INDEXED BY rows_open "
        f"WHERE d.{OPEN} AND d.run = r.run) "
        "ORDER BY r.run DESC LIMIT 1",
        (digest, name, since),
    ).fetchone()
    return str(found[0]) if found else None


def start(db: sqlite3.Connection, run: int) -> None:
    """Record that the run is sending."""
    db.execute(
        "UPDATE runs SET state = ?, ended_at = NULL, stop_reason = NULL WHERE run = ?",
        (RunState.SENDING, run),
    )
    db.execute("DROP TABLE IF EXISTS temp.turns")


def counts(db: sqlite3.Connection, run: int) -> dict[str, int]:
    """Return a run's rows by status."""
    return count_by(db, run, "status", tuple(Status))


def unsettled(db: sqlite3.Connection, run: int) -> tuple[int, int]:
    """Return the number of staged rows, and of rows in doubt."""
    found = count_by(db, run, "status", (Status.STAGED, Status.IN_DOUBT))
    return found.get(Status.STAGED, 0), found.get(Status.IN_DOUBT, 0)


def finish(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    stop_reason: str | None,
    facts: Mapping[str, object],
) -> RunState:
    """End the sending; rows still claimed become in doubt. Returns the run's final state."""
    transitions.recover(db, now)
    staged, in_doubt = unsettled(db, run)
    left = (
        staged
        or (stop_reason is not None and in_doubt)
        or unbinding.count_left(db, run, UnbindKind.MOVE)
    )
    state = RunState.STOPPED if left else RunState.DONE
    stop_reason = stop_reason if left else None
    before = json.loads(db.execute("SELECT facts FROM runs WHERE run = ?", (run,)).fetchone()[0])
    total = _added(before, facts)
    if state is RunState.DONE and (different := changes.outcomes(db, run)) is not None:
        total["changes"] = {**before.get("changes", {}), **different}
    db.execute(
        "UPDATE runs SET state = ?, ended_at = ?, stop_reason = ?, facts = ? WHERE run = ?",
        (state, iso(now), stop_reason, json.dumps(total), run),
    )
    for key in CARRIED_OVER:
        if key in facts:
            put_meta(db, key, facts[key])
    return state


def _added(before: dict[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """Merge a resumed run's facts: add request counts and seconds, append lists, replace others."""
    total = dict(before)
    for key, value in now.items():
        earlier = total.get(key)
        adds = key.startswith("requests") or key in _SUMMED
        if isinstance(earlier, list) and isinstance(value, list):
            total[key] = (earlier + value)[-MOST_PARTS:]
        elif adds and isinstance(earlier, int | float) and isinstance(value, int | float):
            total[key] = earlier + value
        else:
            total[key] = value
    return total

"""Which run can go on, a run's sending: its beginning, how the rows stand, and its end.

As in `transitions`, each function runs inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger import changes, transitions, unbinding
from bulkbind.ledger.store import count_by, put_meta
from bulkbind.model import RunState, Status, UnbindKind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from datetime import datetime

MOST_PARTS = 20
"""Parts of a run, each from a start to a stop, of which details are kept."""
REMEMBERED = ("clock_skew_s", "limit", "limit_per_user")
"""Facts of a run with which the next one begins."""
_ADDING = ("sending_s", "paced_s", "cooled_s", "retrying_s")


def unfinished(db: sqlite3.Connection, digest: str | None = None) -> tuple[int, str] | None:
    """Return number and id of the run that can go on: of these manifests, or any if None."""
    found: tuple[int, str] | None = db.execute(
        "SELECT run, run_id FROM runs WHERE state IN ('confirmed', 'sending', 'stopped') "
        "AND superseded_by IS NULL AND coalesce(?1, digest) = digest ORDER BY run DESC LIMIT 1",
        (digest,),
    ).fetchone()
    return found


def finished(db: sqlite3.Connection, digest: str, name: str, since: str) -> str | None:
    """Return the id of a finished run of one manifest, begun after *since*, or None.

    *name* is the manifest's, *since* a moment as `iso` writes it. A run with rows in doubt is not
    finished in this sense.
    """
    found = db.execute(
        "SELECT r.run_id FROM runs r JOIN sources s ON s.run = r.run AND s.source = 0 "
        "WHERE r.state = 'done' AND r.digest = ? AND s.form ->> 'name' = ? "
        "AND r.created_at > ? AND NOT EXISTS (SELECT 1 FROM rows d INDEXED BY rows_open "
        "WHERE d.status IN ('claimed', 'in_doubt') AND d.run = r.run) "
        "ORDER BY r.run DESC LIMIT 1",
        (digest, name, since),
    ).fetchone()
    return str(found[0]) if found else None


def start(db: sqlite3.Connection, run: int) -> None:
    """The run is sending from now on."""
    db.execute(
        "UPDATE runs SET state = ?, ended_at = NULL, stop_reason = NULL WHERE run = ?",
        (RunState.SENDING, run),
    )
    db.execute("DROP TABLE IF EXISTS temp.turns")


def counts(db: sqlite3.Connection, run: int) -> dict[str, int]:
    """Return a run's rows by status."""
    return count_by(db, run, "status", tuple(Status))


def unsettled(db: sqlite3.Connection, run: int) -> tuple[int, int]:
    """Return how many rows of a run are staged, and how many are in doubt."""
    found = count_by(db, run, "status", (Status.STAGED, Status.IN_DOUBT))
    return found.get(Status.STAGED, 0), found.get(Status.IN_DOUBT, 0)


def finish(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    stop_reason: str | None,
    facts: Mapping[str, object],
) -> RunState:
    """End the sending: what is still claimed may have been sent. Returns the run's last state."""
    transitions.recover(db, now)
    staged, in_doubt = unsettled(db, run)
    left = (
        staged or (stop_reason is not None and in_doubt) or unbinding.left(db, run, UnbindKind.MOVE)
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
    for key in REMEMBERED:
        if key in facts:
            put_meta(db, key, facts[key])
    return state


def _added(before: dict[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """Counts and seconds add up over the parts of a run that was resumed; the rest is the newest.

    What begins with `requests` adds up, and the seconds spent; lists hold an item for each part.
    """
    total = dict(before)
    for key, value in now.items():
        earlier = total.get(key)
        adds = key.startswith("requests") or key in _ADDING
        if isinstance(earlier, list) and isinstance(value, list):
            total[key] = (earlier + value)[-MOST_PARTS:]
        elif adds and isinstance(earlier, int | float) and isinstance(value, int | float):
            total[key] = earlier + value
        else:
            total[key] = value
    return total

"""A run's sending: its beginning, how the rows stand, and its end.

As in `claiming`, each function runs inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bulkbind.ledger import changes, transitions, unbinding
from bulkbind.ledger.store import count_by, put_meta, span
from bulkbind.model import RunState, Status, UnbindKind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

MOST_PARTS = 20
"""Parts of a run, each from a start to a stop, of which details are kept."""
REMEMBERED = ("clock_skew_s", "limit", "limit_per_user")
"""Facts of a run with which the next one begins."""
_ADDING = ("sending_s", "paced_s", "cooled_s", "retrying_s")


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


def finish(
    db: sqlite3.Connection,
    run: int,
    moment: str,
    stop_reason: str | None,
    facts: Mapping[str, object],
    *,
    now_s: float,
) -> RunState:
    """End the sending: what is still claimed may have been sent. Returns the run's last state."""
    transitions.recover(db, now_s)
    left = db.execute(
        "SELECT count(*) FROM rows WHERE id BETWEEN ? AND ? AND (status = 'staged' "
        "OR (status = 'in_doubt' AND ?))",
        (*span(run), stop_reason is not None),
    ).fetchone()[0] or unbinding.is_left(db, run, UnbindKind.MOVE)
    state = RunState.STOPPED if left else RunState.DONE
    stop_reason = stop_reason if left else None
    before = json.loads(db.execute("SELECT facts FROM runs WHERE run = ?", (run,)).fetchone()[0])
    total = _added(before, facts)
    if state is RunState.DONE and (different := changes.outcomes(db, run)) is not None:
        total["changes"] = {**before.get("changes", {}), **different}
    db.execute(
        "UPDATE runs SET state = ?, ended_at = ?, stop_reason = ?, facts = ? WHERE run = ?",
        (state, moment, stop_reason, json.dumps(total), run),
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

"""Which run can resume; the start, state and end of a run's sending.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from bulkbind.clock import iso
from bulkbind.ledger import changes, store, transitions, unbinding
from bulkbind.ledger.store import (
    OPEN,
    RUN_SHIFT,
    codes,
    get_facts,
    get_meta,
    put_facts,
    put_meta,
    span,
    sql_list,
)
from bulkbind.model import CAN_RESUME, IS_PENDING, LiveFacts, RunFacts, RunState, Status, UnbindKind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from datetime import datetime


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
        "AND r.created_at > ? AND NOT EXISTS (SELECT 1 FROM stored_rows d INDEXED BY rows_open "
        f"WHERE d.{OPEN} AND d.id >> {RUN_SHIFT} = r.run) "
        "ORDER BY r.run DESC LIMIT 1",
        (digest, name, since),
    ).fetchone()
    return str(found[0]) if found else None


def add_facts(db: sqlite3.Connection, run: int, facts: RunFacts) -> None:
    """Add to what is known of a run."""
    put_facts(db, "runs", run, get_facts(db, "runs", run).merge(facts))


def start(
    db: sqlite3.Connection, run: int, settings: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Record that the run is sending. *settings*: those that are others than before."""
    keep_live(db)
    if settings:
        (before,) = db.execute("SELECT settings FROM runs WHERE run = ?", (run,)).fetchone()
        held = json.dumps({**json.loads(before), **settings})
        db.execute("UPDATE runs SET settings = ? WHERE run = ?", (held, run))
    db.execute(
        "UPDATE runs SET state = ?, ended_at = NULL, stop_reason = NULL WHERE run = ?",
        (RunState.SENDING, run),
    )
    db.execute("DROP TABLE IF EXISTS temp.turns")


def live_facts(
    db: sqlite3.Connection, run: int | None = None, key: str = LiveFacts.key
) -> LiveFacts:
    """Return what the process that sends *run* (None: any) said last; empty if none does."""
    said = get_meta(db, key)
    live = LiveFacts(said if isinstance(said, dict) else {})
    return live if run in (None, live.run) else LiveFacts()


def keep_live(db: sqlite3.Connection) -> None:
    """Add what a killed process had learned and spent to the facts of its run."""
    if said := live_facts(db):
        if db.execute("SELECT 1 FROM runs WHERE run = ?", (said.run,)).fetchone():
            put_facts(
                db, "runs", said.run, get_facts(db, "runs", said.run).merge(said.spent.left_alone())
            )
        put_meta(db, LiveFacts.key, {})


def counts(db: sqlite3.Connection, run: int) -> dict[Status, int]:
    """Return a run's rows by status."""
    return store.counts(db, run)


def unsettled(db: sqlite3.Connection, run: int) -> tuple[int, int]:
    """Return the number of staged rows, and of rows in doubt."""
    found = store.counts(db, run, (Status.STAGED, Status.IN_DOUBT))
    return found.get(Status.STAGED, 0), found.get(Status.IN_DOUBT, 0)


MOST_USERS = 100_000
"""Of more, the one who has most left is not looked for: it would take some 10 MB."""


def left_by_user(db: sqlite3.Connection, run: int, most: int = MOST_USERS) -> dict[str, int]:
    """Return by user how many rows of a run are to be settled; nothing of more than *most* users.

    It reads all of them, some 2 us a row.
    """
    found = db.execute(
        "SELECT u.user_id, count(*) FROM stored_rows r JOIN devices d ON d.device = r.device "  # noqa: S608  # constants
        f"JOIN users u ON u.user = d.user WHERE r.id BETWEEN ? AND ? AND r.status IN "
        f"{codes(IS_PENDING)} GROUP BY d.user LIMIT ?",
        (*span(run), most + 1),
    ).fetchall()
    return dict(found) if len(found) <= most else {}


def finish(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    stop_reason: str | None,
    facts: RunFacts,
) -> RunState:
    """End the sending; rows still claimed become in doubt. Returns the run's final state.

    *facts*: of this session.
    """
    if stop_reason is None:
        transitions.recover(db, now)
    else:
        ended = stop_reason.partition(";")[0]
        transitions.recover(db, now, f"no answer had come when the run ended: {ended}")
    staged, in_doubt = unsettled(db, run)
    left = (
        staged
        or (stop_reason is not None and in_doubt)
        or unbinding.count_left(db, run, UnbindKind.MOVE)
        or unbinding.count_left(db, run, UnbindKind.LEAVE)
    )
    state = RunState.STOPPED if left else RunState.DONE
    stop_reason = stop_reason if left else None
    put_meta(db, LiveFacts.key, {})
    total = get_facts(db, "runs", run).merge(facts)
    if state is RunState.DONE and (different := changes.outcomes(db, run)) is not None:
        total.changes = total.changes.merge(different)
    put_facts(db, "runs", run, total)
    db.execute(
        "UPDATE runs SET state = ?, ended_at = ?, stop_reason = ? WHERE run = ?",
        (state, iso(now), stop_reason, run),
    )
    for name, value in facts.carried().items():
        put_meta(db, name, value)
    return state

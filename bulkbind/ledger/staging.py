"""Staging: the whole manifest goes into the ledger before anything is sent."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from bulkbind.ledger.store import RUN_SHIFT, span, transaction
from bulkbind.model import CheckedRow, RunState, Source, Status

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

BATCH = 2_000
"""Rows per transaction while staging."""

# The status of a row without problems, in the order of precedence: duplicate, moved, in doubt
# (left so by another run), skipped, staged.
_STAGE = """
INSERT INTO rows (id, run, source, line, user_id, machine_code, device_name, device_os,
                  cells, duplicate_of, status, device_id, create_time, detail)
SELECT :id, :run, :source, :line, :user, :code, :name, :os,
       CASE WHEN first IS NULL AND (known IS NULL OR :rebind OR doubt IS NOT NULL) THEN :cells END,
       first,
       CASE WHEN first IS NOT NULL THEN 'duplicate'
            WHEN other IS NOT NULL THEN 'moved'
            WHEN doubt IS NOT NULL THEN 'in_doubt'
            WHEN known IS NOT NULL AND NOT :rebind THEN 'skipped'
            ELSE 'staged' END,
       coalesce(CASE WHEN first IS NULL AND other IS NULL AND doubt IS NULL AND NOT :rebind
                     THEN (SELECT device_id FROM bindings
                            WHERE user_id = :user AND machine_code = :code) END, ''),
       coalesce(CASE WHEN first IS NULL AND other IS NULL AND doubt IS NULL AND NOT :rebind
                     THEN (SELECT create_time FROM bindings
                            WHERE user_id = :user AND machine_code = :code) END, ''),
       CASE WHEN first IS NOT NULL THEN ''
            WHEN other IS NOT NULL THEN 'bound to user ' || other
            WHEN doubt IS NOT NULL
            THEN 'in doubt since run ' || (SELECT run_id FROM runs WHERE run = doubt)
            WHEN known IS NOT NULL AND NOT :rebind
            THEN (SELECT 'bound since ' || b.since || ' by run ' || r.run_id
                    FROM bindings b JOIN runs r USING (run)
                   WHERE b.user_id = :user AND b.machine_code = :code)
            ELSE '' END
  FROM (SELECT
    (SELECT id FROM rows INDEXED BY rows_device
      WHERE run = :run AND user_id = :user AND machine_code = :code
        AND problems IS NULL AND duplicate_of IS NULL) AS first,
    (SELECT user_id FROM bindings
      WHERE machine_code = :code AND user_id <> :user LIMIT 1) AS other,
    (SELECT run FROM rows INDEXED BY rows_open
      WHERE user_id = :user AND machine_code = :code
        AND status IN ('claimed', 'in_doubt') LIMIT 1) AS doubt,
    (SELECT 1 FROM bindings WHERE user_id = :user AND machine_code = :code) AS known)
"""

_STAGE_INVALID = """
INSERT INTO rows (id, run, source, line, user_id, machine_code, device_name, device_os,
                  cells, status, problems, message, detail)
VALUES (:id, :run, :source, :line, :user, :code, :name, :os, :cells, 'invalid',
        :problems, :message, :detail)
"""


def begin(db: sqlite3.Connection, run: dict[str, object]) -> int:
    """Record a new run, state `staging`, and return its number. See `schema.sql` for the keys."""
    with transaction(db):
        cursor = db.execute(
            "INSERT INTO runs (run_id, state, digest, created_at, operator, host, pid, version, "
            "settings) VALUES (:run_id, 'staging', :digest, :created_at, :operator, :host, :pid, "
            ":version, :settings)",
            run,
        )
    assert cursor.lastrowid is not None  # an INSERT has one
    return cursor.lastrowid


def add_source(db: sqlite3.Connection, run: int, source: int, form: Source) -> None:
    """Record a manifest's form."""
    with transaction(db):
        db.execute("INSERT INTO sources VALUES (?, ?, ?)", (run, source, json.dumps(asdict(form))))


def stage(  # one value each, all needed
    db: sqlite3.Connection,
    run: int,
    source: int,
    position: int,
    rows: Iterable[CheckedRow],
    *,
    rebind: bool,
) -> int:
    """Write a batch of rows in one transaction and return the position after the last one.

    Args:
        db: The ledger.
        run: The run's number.
        source: Which of its manifests.
        position: 0-based, within the run, of the first of *rows*.
        rows: In the manifest's order.
        rebind: Stage also what is known as bound.
    """
    with transaction(db):
        for row in rows:
            user, code, name, system = row.values
            values: dict[str, object] = {
                "id": (run << RUN_SHIFT) + position,
                "run": run,
                "source": source,
                "line": row.line,
                "user": user,
                "code": code,
                "name": name,
                "os": system,
                "cells": json.dumps(row.cells),
            }
            if row.device is not None:
                db.execute(_STAGE, values | {"rebind": rebind})
            else:
                db.execute(_STAGE_INVALID, values | _problems(row))
            position += 1
    return position


def _problems(row: CheckedRow) -> dict[str, object]:
    return {
        "problems": json.dumps([asdict(problem) for problem in row.problems]),
        "message": "; ".join(problem.rule for problem in row.problems),
        "detail": "; ".join(
            f"{problem.column} {problem.value!r}: {problem.found}"
            if problem.value
            else f"{problem.column}: {problem.found}"
            for problem in row.problems
        ),
    }


def ready(db: sqlite3.Connection, run: int) -> None:
    """The whole manifest is in the ledger."""
    with transaction(db):
        db.execute("UPDATE runs SET state = ? WHERE run = ?", (RunState.READY, run))


def confirm(db: sqlite3.Connection, run: int, moment: str) -> int:
    """The operator wants this run: it takes the place of every other one.

    What an older unfinished run still had staged becomes `withdrawn`. Returns how many rows.
    """
    with transaction(db):
        withdrawn = 0
        older = db.execute(
            "SELECT o.run, n.run_id FROM runs o JOIN runs n ON n.run = ? "
            "WHERE o.run <> n.run AND o.superseded_by IS NULL AND o.state <> 'done'",
            (run,),
        ).fetchall()
        for number, run_id in older:
            withdrawn += db.execute(
                "UPDATE rows SET status = ?, settled_at = ?, detail = ? "
                "WHERE id BETWEEN ? AND ? AND status = 'staged'",
                (Status.WITHDRAWN, moment, f"run {run_id} took this run's place", *span(number)),
            ).rowcount
            db.execute("UPDATE runs SET superseded_by = ? WHERE run = ?", (run, number))
        db.execute(
            "UPDATE runs SET state = ?, confirmed_at = ? WHERE run = ?",
            (RunState.CONFIRMED, moment, run),
        )
    return withdrawn


def discard(db: sqlite3.Connection, run: int) -> None:
    """Throw away a run that was never confirmed: nothing of it stays."""
    with transaction(db):
        db.execute("DELETE FROM rows WHERE id BETWEEN ? AND ?", span(run))
        db.execute("DELETE FROM sources WHERE run = ?", (run,))
        db.execute("DELETE FROM runs WHERE run = ?", (run,))


def discard_unconfirmed(db: sqlite3.Connection) -> int:
    """Throw away what was killed before it was confirmed. Returns how many runs."""
    runs = db.execute("SELECT run FROM runs WHERE state IN ('staging', 'ready')").fetchall()
    for (run,) in runs:
        discard(db, run)
    return len(runs)

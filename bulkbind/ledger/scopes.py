"""Scopes: of which devices a manifest is the whole truth, and which of them it names no more.

A run's scope is the path of its manifest, or a name that the operator gives. What a run of a scope
has bound belongs to it, and so does an adopted device that one has named. What a later manifest of
that scope lacks leaves: an unbinding of the kind `leave`, which no row of the run stands for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.ledger.store import (
    HELD_CODES,
    RUN_SHIFT,
    UNBIND_OPEN,
    OfRun,
    get_facts,
    int_of,
    put_facts,
    span,
    sql_list,
    transaction,
)
from bulkbind.model import (
    BEYOND_ROWS,
    IS_UNCONFIRMED,
    NOT_UNBOUND,
    PENDING,
    UNBIND_MEANINGS,
    Held,
    LeaverRow,
    Synced,
    UnbindKind,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

MOST_EXAMPLES = 1_000
MOST_REASONS = 50
"""Reasons listed in a summary."""
_BOUND, _ADOPTED = HELD_CODES[Held.BOUND], HELD_CODES[Held.ADOPTED]
_COUNTS = f"state NOT IN {sql_list(IS_UNCONFIRMED)} AND run NOT IN (SELECT run FROM undos)"  # noqa: S608  # constants
"""Runs that are wanted: what one that was undone named is no truth any more."""
_LAST_RUNS = f"""
SELECT scope, max(run) AS run FROM runs
 WHERE scope NOT NULL AND run < :run AND {_COUNTS} GROUP BY scope
"""  # noqa: S608  # constants
"""The last run before this one of each scope."""
_OF_RUN = f"r.id BETWEEN n.run << {RUN_SHIFT} AND ((n.run + 1) << {RUN_SHIFT}) - 1"
_OF_SCOPE = f"""
SELECT b.device FROM stored_bindings b JOIN runs r USING (run)
 WHERE r.scope = :scope AND b.held = {_BOUND}
 UNION
SELECT s.device FROM scope_devices s JOIN stored_bindings b USING (device)
 WHERE s.scope = :scope AND b.held = {_ADOPTED}
 UNION
SELECT r.device FROM ({_LAST_RUNS}) n CROSS JOIN stored_rows r ON {_OF_RUN}
  CROSS JOIN stored_bindings b ON b.device = r.device
 WHERE n.scope = :scope AND b.held = {_ADOPTED}
"""  # noqa: S608  # constants
"""The devices that belong to a scope and are known as bound."""
_TABLE = """
CREATE TEMP TABLE leaving (device INTEGER PRIMARY KEY, machine_code TEXT COLLATE NOCASE)
"""
_LACKING = """
INSERT INTO leaving
SELECT d.device, d.machine_code FROM devices d JOIN temp.of_scope s USING (device)
 WHERE d.device NOT IN (SELECT device FROM stored_rows
                         WHERE id BETWEEN :first AND :last AND device NOT NULL)
"""
# Whoever is named with the device, and in whatever case: it is there. What is left out is, too.
_NAMED_HERE = """
DELETE FROM leaving WHERE machine_code IN (
       SELECT l.machine_code FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
         JOIN leaving l ON l.machine_code = d.machine_code
        WHERE r.id BETWEEN :first AND :last
        UNION ALL
       SELECT l.machine_code FROM broken k JOIN leaving l ON l.machine_code = k.machine_code
        WHERE k.id BETWEEN :first AND :last)
"""
_NAMED_ELSEWHERE = f"""
DELETE FROM leaving WHERE machine_code IN (
       SELECT l.machine_code FROM ({_LAST_RUNS}) n CROSS JOIN stored_rows r ON {_OF_RUN}
        CROSS JOIN devices d ON d.device = r.device
         JOIN leaving l ON l.machine_code = d.machine_code
        WHERE n.scope <> :scope
        UNION ALL
       SELECT l.machine_code FROM ({_LAST_RUNS}) n CROSS JOIN broken r ON {_OF_RUN}
         JOIN leaving l ON l.machine_code = r.machine_code
        WHERE n.scope <> :scope
        UNION ALL
       SELECT l.machine_code FROM ({_LAST_RUNS}) n
         JOIN scope_devices s ON s.scope = n.scope AND s.run = n.run
         JOIN devices d USING (device) JOIN leaving l ON l.machine_code = d.machine_code
        WHERE n.scope <> :scope)
"""  # noqa: S608  # constants
_STAGE = f"""
INSERT INTO unbindings (row, kind, user_id, machine_code, device_id)
SELECT :first + {BEYOND_ROWS} - 1 + row_number() OVER (ORDER BY b.user_id, b.machine_code),
       '{UnbindKind.LEAVE}', b.user_id, b.machine_code, b.device_id
  FROM leaving l JOIN devices d USING (device) JOIN users u USING (user)
  JOIN bindings b ON b.user_id = u.user_id AND b.machine_code = d.machine_code
"""  # noqa: S608  # constants
_BELONGS = f"""
INSERT OR REPLACE INTO scope_devices (scope, device, run)
SELECT n.scope, r.device, n.run FROM runs n CROSS JOIN stored_rows r ON {_OF_RUN}
 CROSS JOIN stored_bindings b ON b.device = r.device AND b.held = {_ADOPTED}
 WHERE n.run = ? AND n.scope NOT NULL
"""  # noqa: S608  # constants
_REMEMBER = f"""
INSERT OR REPLACE INTO scope_devices (scope, device, run)
SELECT n.scope, r.device, n.run FROM runs n CROSS JOIN stored_rows r ON {_OF_RUN}
 WHERE n.run = :run AND n.scope NOT NULL AND r.device NOT NULL AND NOT EXISTS (
       SELECT 1 FROM runs WHERE scope = n.scope AND run > n.run AND {_COUNTS})
"""  # noqa: S608  # constants
FORGET_NAMED = f"""
DELETE FROM scope_devices
 WHERE device NOT IN (SELECT device FROM stored_bindings WHERE held = {_ADOPTED})
   AND run NOT IN (SELECT max(run) FROM runs WHERE scope NOT NULL AND {_COUNTS} GROUP BY scope)
"""  # noqa: S608  # constants
"""What a scope's last run no longer names, and nobody has adopted."""


def scope_number(db: sqlite3.Connection, name: str | None) -> int | None:
    """Return the number of a scope by its name, a new one if there is none; None for None."""
    if name is None:
        return None
    db.execute("INSERT OR IGNORE INTO scopes (name) VALUES (?)", (name,))
    return int_of(db, "SELECT scope FROM scopes WHERE name = ?", (name,))


def stage_leavers(db: sqlite3.Connection, run: int) -> None:
    """Stage the unbinding of what belongs to the scope of a staged run, and nobody names any more.

    Neither a row of the run, whatever became of it, nor the last run of another scope. How many of
    how many is a fact of the run. Manages its own transaction.
    """
    (scope, name) = db.execute(
        "SELECT scope, name FROM runs JOIN scopes USING (scope) WHERE run = ?", (run,)
    ).fetchone()
    first, last = span(run)
    values = {"run": run, "scope": scope, "first": first, "last": last}
    for table in ("of_scope", "leaving"):
        db.execute(f"DROP TABLE IF EXISTS temp.{table}")
    db.execute("CREATE TEMP TABLE of_scope (device INTEGER PRIMARY KEY)")
    db.execute(f"INSERT INTO temp.of_scope {_OF_SCOPE}", values)  # constants
    db.execute(_TABLE)
    db.execute(_LACKING, values)
    if int_of(db, "SELECT EXISTS (SELECT 1 FROM temp.leaving)"):
        db.execute("CREATE INDEX temp.leaving_code ON leaving (machine_code)")
        db.execute(_NAMED_HERE, values)
        db.execute(_NAMED_ELSEWHERE, values)
    with transaction(db):
        db.execute(_STAGE, values)
        facts = get_facts(db, "runs", run)
        facts.synced = Synced(
            scope=name,
            bound=int_of(db, "SELECT count(*) FROM temp.of_scope"),
            leave=int_of(db, "SELECT count(*) FROM temp.leaving"),
        )
        put_facts(db, "runs", run, facts)
    for table in ("of_scope", "leaving"):
        db.execute(f"DROP TABLE temp.{table}")


def keep_belonging(db: sqlite3.Connection, run: int) -> None:
    """Record which adopted devices a confirmed run names: they belong to its scope from now on.

    Runs inside the caller's transaction, and so does `remember`.
    """
    if int_of(db, "SELECT EXISTS (SELECT 1 FROM runs WHERE kind = 'adopt')"):
        db.execute(_BELONGS, (run,))


def remember(db: sqlite3.Connection, run: int) -> None:
    """Record what the last run of a scope names, before its rows are deleted."""
    db.execute(_REMEMBER, {"run": run})


_SHOWN = f"CASE WHEN {UNBIND_OPEN} THEN '{PENDING}' ELSE status END"


class LeaverReader(OfRun):
    """The devices that leave by a run of their scope, as plans and reports show them."""

    _range = f"row BETWEEN ? + {BEYOND_ROWS} AND ? AND kind = '{UnbindKind.LEAVE}'"

    def counts(self) -> dict[str, int]:
        """Return their number by status as shown, in display order."""
        query = f"SELECT {_SHOWN}, count(*) FROM unbindings WHERE {self._range} GROUP BY 1"  # noqa: S608  # constants
        found = dict(self._db.execute(query, span(self._run)).fetchall())
        return {status: found[status] for status in UNBIND_MEANINGS if status in found}

    def reasons(self) -> tuple[dict[str, Any], ...]:
        """Return why some could not be unbound, most first, each with the first such device."""
        names = ("status", "code", "message", "count", "user_id", "machine_code", "detail")
        # SQLite takes the other columns from the row of the only `min`.
        found = self._db.execute(
            "SELECT status, code, CASE WHEN message = '' THEN detail ELSE message END, count(*), "  # noqa: S608  # constants
            f"user_id, machine_code, detail, min(row) FROM unbindings WHERE {self._range} "
            f"AND status IN {sql_list(NOT_UNBOUND)} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 8 LIMIT ?",
            (*span(self._run), MOST_REASONS),
        )
        return tuple(dict(zip(names, row[:-1], strict=True)) for row in found)

    def first(self) -> tuple[dict[str, str], ...]:
        """Return user and machine code of the first ones."""
        found = self._db.execute(
            f"SELECT user_id, machine_code FROM unbindings WHERE {self._range} "  # noqa: S608  # constants
            "ORDER BY row LIMIT ?",
            (*span(self._run), MOST_EXAMPLES),
        )
        return tuple({"user_id": user, "machine_code": code} for user, code in found)

    def users(self) -> int:
        """Return the number of users with something left to unbind."""
        return int_of(
            self._db,
            f"SELECT count(DISTINCT user_id) FROM unbindings WHERE {self._range} "  # noqa: S608  # constants
            f"AND {UNBIND_OPEN}",
            span(self._run),
        )

    def mark(self) -> Iterator[tuple[Any, ...]]:
        """Yield what identifies each of them."""
        return self._db.execute(
            f"SELECT user_id, machine_code, device_id FROM unbindings WHERE {self._range} "  # noqa: S608  # constants
            "ORDER BY row",
            span(self._run),
        )

    def rows(self) -> Iterator[LeaverRow]:
        """Yield them by user, as reports show them."""
        found = self._db.execute(
            f"SELECT user_id, machine_code, device_id, {_SHOWN}, http_status, code, message, "  # noqa: S608  # constants
            "attempts, trace_id, coalesce(settled_at, ''), detail "
            f"FROM unbindings WHERE {self._range} ORDER BY row",
            span(self._run),
        )
        return (LeaverRow(*row) for row in found)

"""Taking over what the server's lists show: bindings that no run of this ledger has made.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bulkbind.clock import iso
from bulkbind.ledger.outlook import KnownReader
from bulkbind.ledger.store import optional_of, put_facts, stored_id, stored_time
from bulkbind.model import Record
from bulkbind.model.fields import OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bulkbind.model import RunFacts

_COLUMNS = ", ".join(OPTIONAL)
_VALUES = ", ".join(f":{name}" for name in OPTIONAL)
_THIS = "d.machine_code = :machine_code AND u.user_id = :user_id"
_IS_SAME_ID = "stored_bindings.device_id IS excluded.device_id"
_STAYS_OURS = f"stored_bindings.held = 0 AND {_IS_SAME_ID}"
_TAKE_OVER = (
    "INSERT OR IGNORE INTO users (user_id) VALUES (:user_id)",
    f"""
INSERT OR IGNORE INTO devices (user, machine_code, {_COLUMNS})
SELECT user, :machine_code, {_VALUES} FROM users WHERE user_id = :user_id
""",  # noqa: S608  # constants
    f"""
INSERT INTO names (device, name, {_COLUMNS})
SELECT d.device, 1 + (SELECT coalesce(max(name), 0) FROM names WHERE device = d.device), {_VALUES}
  FROM devices d JOIN users u USING (user)
 WHERE {_THIS} AND ({optional_of("d")}) IS NOT ({_VALUES})
   AND NOT EXISTS (SELECT 1 FROM names n WHERE n.device = d.device
                      AND ({optional_of("n")}) IS ({_VALUES}))
""",  # noqa: S608  # constants
    # What a run of this ledger has bound stays that run's.
    f"""
INSERT INTO stored_bindings (device, device_id, create_time, since, run, name, held)
SELECT d.device, {stored_id(":device_id")}, {stored_time(":create_time")}, {stored_time(":now")},
       :run, coalesce((SELECT n.name FROM names n WHERE n.device = d.device
                          AND ({optional_of("n")}) IS ({_VALUES})), 0), 2
  FROM devices d JOIN users u USING (user) WHERE {_THIS}
    ON CONFLICT DO UPDATE SET device_id = excluded.device_id, create_time = excluded.create_time,
       name = excluded.name, since = iif({_IS_SAME_ID}, since, excluded.since),
       run = iif({_STAYS_OURS}, run, excluded.run), held = iif({_STAYS_OURS}, 0, 2)
""",  # noqa: S608  # constants
)


class KnownBinding(NamedTuple):
    """A binding as the ledger knows it."""

    record: Record
    is_found: bool
    """Whether a run found it there, so that it is nobody's yet."""


class AdoptReader(KnownReader):
    """What the ledger knows of users, to compare with what is to be taken over."""

    def bindings(self, user_id: str) -> dict[str, KnownBinding]:
        """Return a user's bindings by machine code."""
        found = self._db.execute(
            f"SELECT b.machine_code, b.device_id, b.create_time, s.held = 1, {optional_of('b')} "  # noqa: S608  # constants
            "FROM users u JOIN devices d USING (user) JOIN stored_bindings s USING (device) "
            "JOIN bindings b ON b.user_id = u.user_id AND b.machine_code = d.machine_code "
            "WHERE u.user_id = ? ORDER BY b.machine_code",
            (user_id,),
        )
        return {
            code: KnownBinding(Record(code, device_id, created, tuple(optional)), bool(is_found))
            for code, device_id, created, is_found, *optional in found
        }

    def holders(self, user_id: str, codes: Sequence[str]) -> dict[str, str]:
        """Return who else has devices, by machine code: the first of them by id."""
        found: dict[str, str] = {}
        for code in codes:
            (holder,) = self._db.execute(
                "SELECT min(user_id) FROM bindings WHERE machine_code = ? AND user_id <> ?",
                (code, user_id),
            ).fetchone()
            if holder is not None:
                found[code] = holder
        return found


def begin(db: sqlite3.Connection, run: Mapping[str, object]) -> int:
    """Insert a run that only takes over, and return its number. See `staging.begin` for the keys.

    It has no rows and is never resumed: to adopt again compares everything anew.
    """
    cursor = db.execute(
        "INSERT INTO runs (run_id, kind, state, digest, created_at, confirmed_at, stop_reason, "
        "operator, host, pid, version, settings) VALUES (:run_id, 'adopt', 'done', '', "
        ":created_at, :created_at, 'cut off', :operator, :host, :pid, :version, :settings)",
        run,
    )
    assert cursor.lastrowid is not None  # an INSERT has one
    return cursor.lastrowid


def take_over(
    db: sqlite3.Connection,
    now: datetime,
    run: int,
    shown: Sequence[tuple[str, Record]],
    gone: Sequence[tuple[str, str]],
) -> None:
    """Know as bound what lists show, and no more what they prove to be gone.

    *shown*: user and record; what is not a run's of this ledger is *run*'s from now on. *gone*:
    user and machine code.
    """
    for user_id, record in shown:
        values = {
            "user_id": user_id,
            "machine_code": record.machine_code,
            "device_id": record.device_id,
            "create_time": record.create_time,
            "now": iso(now),
            "run": run,
            **dict(zip(OPTIONAL, record.optional, strict=True)),
        }
        for statement in _TAKE_OVER:
            db.execute(statement, values)
    db.executemany("DELETE FROM bindings WHERE user_id = ? AND machine_code = ?", gone)


def end(
    db: sqlite3.Connection, now: datetime, run: int, stop_reason: str | None, facts: RunFacts
) -> None:
    """Record how a run ended that takes over. *stop_reason*: None if every list was read."""
    put_facts(db, "runs", run, facts)
    db.execute(
        "UPDATE runs SET ended_at = ?, stop_reason = ? WHERE run = ?", (iso(now), stop_reason, run)
    )

"""Taking over what the server's lists show: bindings that no run of this ledger has made.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bulkbind.clock import iso
from bulkbind.ledger import leaving
from bulkbind.ledger.outlook import KnownReader
from bulkbind.ledger.store import optional_of, put_facts
from bulkbind.model import Record

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bulkbind.model import RunFacts


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
    leaving.adopt(db, now, run, shown)
    db.executemany("DELETE FROM bindings WHERE user_id = ? AND machine_code = ?", gone)


def end(
    db: sqlite3.Connection, now: datetime, run: int, stop_reason: str | None, facts: RunFacts
) -> None:
    """Record how a run ended that takes over. *stop_reason*: None if every list was read."""
    put_facts(db, "runs", run, facts)
    db.execute(
        "UPDATE runs SET ended_at = ?, stop_reason = ? WHERE run = ?", (iso(now), stop_reason, run)
    )

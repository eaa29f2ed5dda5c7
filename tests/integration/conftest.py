"""What every integration test runs under: the ledger changes no state but as its tables allow.

And the two paths that requests may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bulkbind.koodrive.connections import FastPath
from bulkbind.ledger import store, versions
from bulkbind.model import ROW_TRANSITIONS, RUN_TRANSITIONS, UNBIND_TRANSITIONS, UNDO_TRANSITIONS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator


@pytest.fixture
def plain_path(monkeypatch) -> None:
    """Let every request take the plain path."""
    monkeypatch.setattr(FastPath, "serves", lambda: False)


@pytest.fixture(params=["fast", "plain"])
def path(request) -> str:
    """Let requests take each path in turn, and return its name."""
    if request.param == "plain":
        request.getfixturevalue("plain_path")
    name: str = request.param
    return name


TABLES: dict[str, tuple[str, dict[Any, dict[Any, str]]]] = {
    "rows": ("status", ROW_TRANSITIONS),
    "unbindings": ("status", UNBIND_TRANSITIONS),
    "runs": ("state", RUN_TRANSITIONS),
    "undos": ("state", UNDO_TRANSITIONS),
}
"""Table of the ledger -> the column that holds a state, and what may follow what."""
ALLOWED = {
    (table, before and before.value, after.value)
    for table, (_, transitions) in TABLES.items()
    for before, afters in transitions.items()
    for after in afters
}
WORDS: dict[int, str] = {code: status.value for status, code in store.CODES.items()}
"""What the ledger stores for the state of a row -> the state."""


class StateGuard:
    """Aborts a statement that changes a state as no table allows.

    Attributes:
        seen: Table, state before (None: a new row) and after, of all changes.
        refused: Those that are not allowed.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, str | None, str]] = set()
        self.refused: list[tuple[str, str | None, str]] = []

    def watch(self, db: sqlite3.Connection) -> None:
        """Watch a connection for as long as it is open; the file does not know of it."""
        db.create_function("is_allowed", 3, self._is_allowed)
        for table, (column, _) in TABLES.items():
            stored = "stored_rows" if table == "rows" else table
            for kind, event, before in (
                ("insert", "INSERT", "NULL"),
                ("update", f"UPDATE OF {column}", f"OLD.{column}"),
            ):
                db.execute(
                    f"CREATE TEMP TRIGGER {table}_{kind} AFTER {event} ON main.{stored} "
                    f"WHEN {before} IS NOT NEW.{column} "
                    f"AND NOT is_allowed('{table}', {before}, NEW.{column}) "
                    "BEGIN SELECT RAISE(ABORT, 'no such transition'); END"
                )

    def _is_allowed(self, table: str, before: Any, after: Any) -> bool:
        if table == "rows":
            before, after = WORDS.get(before), WORDS[after]
        change = (table, before, after)
        self.seen.add(change)
        if change not in ALLOWED:
            self.refused.append(change)
        return change in ALLOWED


@pytest.fixture(autouse=True)
def state_guard(monkeypatch) -> Iterator[StateGuard]:
    """Watch every connection that may write; a test fails if a state was changed as it must not."""
    guard = StateGuard()
    migrate = versions.migrate

    def migrate_and_watch(db: sqlite3.Connection) -> None:
        migrate(db)
        guard.watch(db)

    monkeypatch.setattr(versions, "migrate", migrate_and_watch)
    yield guard
    assert guard.refused == []

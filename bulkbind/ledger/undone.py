"""What the report of an undo is made of: read-only, streamed, in manifest order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bulkbind.ledger.store import span
from bulkbind.model import PENDING, UNBIND_MEANINGS, UndoneRow, UndoSummary

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_SHOWN = f"CASE WHEN u.status IN ('staged', 'claimed') THEN '{PENDING}' ELSE u.status END"
_FACTS = ("created_at", "ended_at", "stop_reason", "operator", "host", "pid", "version")


class UndoReader:
    """The undo of one run."""

    def __init__(self, db: sqlite3.Connection, run: int) -> None:
        self._db = db
        self._run = run

    def rows(self) -> Iterator[UndoneRow]:
        """Yield the bindings that were to be taken back, in manifest order."""
        found = self._db.execute(
            f"SELECT r.source, r.line, u.user_id, u.machine_code, u.device_id, {_SHOWN}, "  # noqa: S608  # constants
            "u.http_status, u.code, u.message, u.attempts, u.trace_id, "
            "coalesce(u.settled_at, ''), u.detail FROM unbindings u JOIN rows r ON r.id = u.row "
            "WHERE u.row BETWEEN ? AND ? AND u.kind = 'undo' ORDER BY u.row",
            span(self._run),
        )
        return (UndoneRow(*row) for row in found)

    def counts(self) -> dict[str, int]:
        """Return how many there are by status, in the order in which they are shown."""
        found = dict(
            self._db.execute(
                f"SELECT {_SHOWN}, count(*) FROM unbindings u "  # noqa: S608  # constants
                "WHERE u.row BETWEEN ? AND ? AND u.kind = 'undo' GROUP BY 1",
                span(self._run),
            ).fetchall()
        )
        return {status: found[status] for status in UNBIND_MEANINGS if status in found}

    def summary(self) -> UndoSummary | None:
        """Return how the undo stands, None if the run was never undone."""
        found = self._db.execute("SELECT * FROM undos WHERE run = ?", (self._run,))
        columns = [column[0] for column in found.description]
        values = found.fetchone()
        if values is None:
            return None
        undo: dict[str, Any] = dict(zip(columns, values, strict=True))
        (run_id,) = self._db.execute(
            "SELECT run_id FROM runs WHERE run = ?", (self._run,)
        ).fetchone()
        facts = json.loads(undo["facts"]) | {name: undo[name] for name in _FACTS}
        (in_doubt,) = self._db.execute(
            "SELECT count(*) FROM rows WHERE id BETWEEN ? AND ? AND status = 'in_doubt'",
            span(self._run),
        ).fetchone()
        return UndoSummary(run_id, undo["state"], self.counts(), in_doubt, facts)

"""What a manifest says otherwise than it did the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.ledger.store import span

if TYPE_CHECKING:
    import sqlite3


def changes(db: sqlite3.Connection, run: int) -> dict[str, object] | None:
    """Return what is different since the last run of manifests of the same names, if there is one.

    Returns: `since` (its run id); `added` and `removed` devices; `renamed`: bound under another
        name or OS than the manifest has now.
    """
    names = "(SELECT json_group_array(form ->> 'name') FROM sources s WHERE s.run = r.run)"
    earlier = db.execute(
        f"SELECT r.run, r.run_id FROM runs r WHERE r.run < ?1 AND {names} = "  # noqa: S608  # constants
        f"(SELECT {names} FROM runs r WHERE r.run = ?1) ORDER BY r.run DESC LIMIT 1",
        (run,),
    ).fetchone()
    if earlier is None:
        return None
    number, run_id = earlier
    (renamed,) = db.execute(
        "SELECT count(*) FROM rows r JOIN bindings b USING (user_id, machine_code) "
        "WHERE r.id BETWEEN ? AND ? AND r.status = 'skipped' "
        "AND (b.device_name IS NOT r.device_name OR b.device_os IS NOT r.device_os)",
        span(run),
    ).fetchone()
    return {
        "since": run_id,
        "added": _only_in(db, run, number),
        "removed": _only_in(db, number, run),
        "renamed": renamed,
    }


def _only_in(db: sqlite3.Connection, run: int, other: int) -> int:
    """Return how many devices one run has and another has not."""
    found: tuple[int] = db.execute(
        "SELECT count(*) FROM rows r WHERE r.id BETWEEN ? AND ? AND r.problems IS NULL "
        "AND r.duplicate_of IS NULL AND NOT EXISTS (SELECT 1 FROM rows o INDEXED BY rows_device "
        "WHERE o.run = ? AND o.user_id = r.user_id AND o.machine_code = r.machine_code "
        "AND o.problems IS NULL AND o.duplicate_of IS NULL)",
        (*span(run), other),
    ).fetchone()
    return found[0]

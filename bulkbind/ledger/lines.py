"""The rows of a run as `results.csv` shows them, line by line and fast.

The view `rows` tells everything of a row, which takes twice as long as what a report shows of one
that has ended as most do: this is read from the tables, and the view is asked for the others only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.ledger.store import CODES, shown_time, span, sql_list
from bulkbind.model import GONE, Status
from bulkbind.model.fields import DETAILS, OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable

    Line = tuple[int, int, str]
    """The row's id, the index of its source, and its other cells, joined by commas."""

_SKIPPED = CODES[Status.SKIPPED]
_SHOWN = " ".join(f"WHEN {code} THEN '{status.shown}'" for status, code in CODES.items())
_NAME = "(SELECT n.{0} FROM names n WHERE n.device = r.device AND n.name = r.name)"
_SINCE = f"""
'bound since ' || {shown_time("b.since")} || ' by run ' ||
(SELECT run_id FROM runs WHERE run = b.run) ||
CASE WHEN r.name = b.name THEN '' ELSE '; under another {DETAILS}: --rebind sends these' END
"""  # noqa: S608  # constants
_CELLS = (
    *("r.line", "u.user_id", "d.machine_code"),
    *(f"CASE WHEN r.name THEN {_NAME.format(field)} ELSE d.{field} END" for field in OPTIONAL),
    f"CASE r.status {_SHOWN} END",
    "coalesce(o.device_id, b.device_id)",
    shown_time("coalesce(o.create_time, b.create_time)"),
    *("a.http_status", "a.code", "a.message", "coalesce(o.attempts, 0)"),
    "t.word || coalesce(substr('0000000000000000' || o.traced, -16), '')",
    shown_time("o.settled_at"),
    _SINCE,
)
# `printf` takes less than half the time of as many `||`. It ends a text at a NUL, which neither a
# value that keeps its rule nor an answer has.
_USUAL = f"""
SELECT r.id, r.source, printf('{",".join(["%s"] * len(_CELLS))}', {", ".join(_CELLS)})
  FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
 CROSS JOIN users u ON u.user = d.user
  LEFT JOIN outcomes o ON o.id = r.id
  LEFT JOIN answers a ON a.answer = o.answer
  LEFT JOIN traces t ON t.trace = o.trace
  LEFT JOIN stored_bindings b
    ON b.device = CASE WHEN r.status = {_SKIPPED} AND o.id IS NULL THEN r.device END
 WHERE r.id BETWEEN ? AND ? ORDER BY r.id
"""  # noqa: S608  # constants
UNUSUAL = f"""
SELECT id FROM remarks WHERE id BETWEEN ?1 AND ?2
 UNION SELECT id FROM broken WHERE id BETWEEN ?1 AND ?2
 UNION SELECT id FROM sending WHERE id BETWEEN ?1 AND ?2
 UNION SELECT row FROM unbindings
        WHERE row BETWEEN ?1 AND ?2 AND kind <> 'leave' AND status IN {sql_list(GONE)}
 UNION SELECT id FROM stored_rows
        WHERE EXISTS (SELECT 1 FROM former_bindings) AND id BETWEEN ?1 AND ?2
          AND status = {_SKIPPED} AND device IN (SELECT device FROM former_bindings)
"""  # noqa: S608  # constants
"""The rows of a range of which other tables say more, or something else."""


def lines(db: sqlite3.Connection, run: int, unusual: Iterable[Line]) -> Generator[Line]:
    """Yield all rows of a run, in order. *unusual*: those that `UNUSUAL` selects, in order."""
    usual = iter(db.execute(_USUAL, span(run)))
    line = next(usual, None)
    for other in unusual:
        while line is not None and line[0] < other[0]:
            yield line
            line = next(usual, None)
        if line is not None and line[0] == other[0]:
            line = next(usual, None)
        yield other
    if line is not None:
        yield line
        yield from usual

"""The rows of a run as `results.csv` shows them, many at once and fast.

The view `rows` tells everything of a row, which takes twice as long as what a report shows of one
that has ended as most do: this is read from the tables, where SQLite itself puts the lines
together; the others are left to the view.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.ledger.store import CODES, int_of, shown_time, span, sql_list
from bulkbind.model import GONE, Status
from bulkbind.model.fields import DETAILS, OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterator, Sequence

AT_ONCE = 200
"""Rows that are put together: as many as are looked at again where one of them needs quotes."""


class Part(NamedTuple):
    """Some rows of a run that follow each other."""

    first: int
    last: int
    """Their ids, inclusive."""
    rows: int
    text: str
    """Their cells, joined by commas, and their lines, joined by CRLF; empty: to be asked for."""


_SKIPPED = CODES[Status.SKIPPED]
_SHOWN = " ".join(f"WHEN {code} THEN '{status.shown}'" for status, code in CODES.items())
_NAME = "(SELECT n.{0} FROM names n WHERE n.device = r.device AND n.name = r.name)"
_UNDER = f"iif(r.name = b.name, '', '; under another {DETAILS}: --rebind sends these')"


class _Cell(NamedTuple):
    """A cell, or several, as `printf` writes it: of so many values as its form has marks."""

    form: str
    values: str


_DAY_MS = 86_400_000
_CREATED, _SETTLED = 6, 8
"""The parameters of the likeliest day of such moments, each followed by that of its text."""


def _moment(value: str, likely: int) -> _Cell:
    """Return the cell of a moment stored as a number: its parts take a third of the whole's time.

    *likely*: the parameter of its likeliest day.
    """
    day = (
        f"CASE {value} / {_DAY_MS} WHEN ?{likely} THEN ?{likely + 1} "
        f"ELSE date({value} / 1000, 'unixepoch') END"
    )
    parts = (f"{value} / 3600000 % 24", f"{value} / 60000 % 60", f"{value} / 1000 % 60")
    return _Cell("%sT%02d:%02d:%02d.%03dZ", f"{day}, {', '.join(parts)}, {value} % 1000")


def _is_number(value: str) -> str:
    return f"{value} BETWEEN 0 AND 253402300799999"  # a text is more than any number


def _line(cells: Sequence[_Cell | str]) -> str:
    """Return the SQL of a line, of cells and of values that are cells."""
    parts = [cell if isinstance(cell, _Cell) else _Cell("%s", cell) for cell in cells]
    values = ", ".join(part.values for part in parts if part.values)
    return f"printf('{','.join(part.form for part in parts)}', {values})"


_ROW: tuple[_Cell | str, ...] = (
    "CASE r.source WHEN ?3 THEN ?4 ELSE ?5 ->> r.source END",
    _Cell("%d", "r.line"),
    *("u.user_id", "d.machine_code"),
    *(f"CASE WHEN r.name THEN {_NAME.format(field)} ELSE d.{field} END" for field in OPTIONAL),
)
_STATUS = f"CASE r.status {_SHOWN} END"
_ANSWERED = (
    *(*_ROW, _STATUS, "o.device_id", _moment("o.create_time", _CREATED)),
    *("a.http_status", "a.code", "a.message", _Cell("%d", "o.attempts")),
    *(_Cell("%s%016d", "t.word, o.traced"), _moment("o.settled_at", _SETTLED), _Cell("", "")),
)
_SINCE = _moment("b.since", _SETTLED)
_KNOWN = (
    *(*_ROW, _Cell(Status.SKIPPED.shown, ""), "b.device_id", _moment("b.create_time", _CREATED)),
    _Cell(",,,0,,", ""),
    _Cell(f"bound since {_SINCE.form} by run %s%s", f"{_SINCE.values}, n.run_id, {_UNDER}"),
)
_ANY_SINCE = f"'bound since ' || {shown_time('b.since')} || ' by run ' || n.run_id || {_UNDER}"
_ANY = (
    *(*_ROW, _STATUS, "coalesce(o.device_id, b.device_id)"),
    shown_time("coalesce(o.create_time, b.create_time)"),
    *("a.http_status", "a.code", "a.message", "coalesce(o.attempts, 0)"),
    "t.word || coalesce(substr('0000000000000000' || o.traced, -16), '')",
    shown_time("o.settled_at"),
    _ANY_SINCE,
)
_ANY_UNSENT = (
    *(*_ROW, _STATUS, "b.device_id", shown_time("b.create_time"), _Cell(",,,0,,", "")),
    _ANY_SINCE,
)
# `printf` takes less than half the time of as many `||`. It ends a text at a NUL, which neither a
# value that keeps its rule nor an answer has.
_KNOWN_LINE = f"""
WHEN {_is_number("b.create_time")} AND {_is_number("b.since")} THEN {_line(_KNOWN)}
"""
_OUTCOMES = """
  LEFT JOIN outcomes o ON o.id = r.id
  LEFT JOIN answers a ON a.answer = o.answer
  LEFT JOIN traces t ON t.trace = o.trace
"""


def _usual(line: str, outcomes: str, *, is_skipped: str, created: str, settled: str) -> str:
    """Return the query for the lines of a range, and for the moments that one of them has."""
    return f"""
SELECT count(*), max(source), group_concat(line, x'0d0a'), created, settled FROM (
SELECT r.source, CASE {line} END AS line, {created} AS created, {settled} AS settled
  FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
 CROSS JOIN users u ON u.user = d.user {outcomes}
  LEFT JOIN stored_bindings b
    ON b.device = CASE WHEN {is_skipped} THEN r.device END
  LEFT JOIN runs n ON n.run = b.run
 WHERE r.id BETWEEN ?1 AND ?2 ORDER BY r.id)
"""  # noqa: S608  # constants


_USUAL = _usual(
    f"""
WHEN {_is_number("o.create_time")} AND {_is_number("o.settled_at")}
 AND typeof(o.traced) = 'integer' THEN {_line(_ANSWERED)}
{_KNOWN_LINE} ELSE {_line(_ANY)}
""",
    _OUTCOMES,
    is_skipped=f"r.status = {_SKIPPED} AND o.id IS NULL",
    created="coalesce(o.create_time, b.create_time)",
    settled="coalesce(o.settled_at, b.since)",
)
_USUAL_UNSENT = _usual(
    f"{_KNOWN_LINE} ELSE {_line(_ANY_UNSENT)}",
    "",
    is_skipped=f"r.status = {_SKIPPED}",
    created="b.create_time",
    settled="b.since",
)
"""Of a run without outcomes, such as that of a night on which nothing changed."""
_HAS_OUTCOMES = "SELECT EXISTS (SELECT 1 FROM outcomes WHERE id BETWEEN ? AND ?)"
_UNUSUAL = f"""
SELECT id FROM remarks WHERE id BETWEEN ?1 AND ?2
 UNION SELECT id FROM broken WHERE id BETWEEN ?1 AND ?2
 UNION SELECT id FROM sending WHERE id BETWEEN ?1 AND ?2
 UNION SELECT row FROM unbindings
        WHERE row BETWEEN ?1 AND ?2 AND kind <> 'leave' AND status IN {sql_list(GONE)}
 UNION SELECT id FROM stored_rows
        WHERE EXISTS (SELECT 1 FROM former_bindings) AND id BETWEEN ?1 AND ?2
          AND status = {_SKIPPED} AND device IN (SELECT device FROM former_bindings)
 ORDER BY 1
"""  # noqa: S608  # constants
"""The rows of a range of which other tables say more, or something else."""


def lines(db: sqlite3.Connection, run: int, names: Sequence[str]) -> Generator[Part]:
    """Yield all rows of a run, in order. *names*: those of its sources."""
    first, last = span(run)
    last = int_of(db, "SELECT coalesce(max(id), 0) FROM stored_rows WHERE id <= ?", (last,))
    named = json.dumps(names, ensure_ascii=False)
    query = _USUAL if int_of(db, _HAS_OUTCOMES, (first, last)) else _USUAL_UNSENT
    # What the next rows mostly have, too.
    source = 0
    days = (_day(db, 0), _day(db, 0))

    def usual(until: int) -> Iterator[Part]:
        nonlocal source, days
        for begin in range(first, until + 1, AT_ONCE):
            end = min(begin + AT_ONCE - 1, until)
            values = (begin, end, source, names[source], named, *days[0], *days[1])
            rows, last_source, text, *moments = db.execute(query, values).fetchone()
            if rows:
                source = last_source
                if [day for day, _ in days] != [_day_of(moment) for moment in moments]:
                    days = (_day(db, moments[0]), _day(db, moments[1]))
                yield Part(begin, end, rows, text)

    for begin, end in _together(row for (row,) in db.execute(_UNUSUAL, (first, last))):
        yield from usual(begin - 1)
        yield Part(begin, end, end - begin + 1, "")
        first = end + 1
    yield from usual(last)


def _day_of(moment: object) -> int | None:
    return moment // _DAY_MS if isinstance(moment, int) else None


def _day(db: sqlite3.Connection, moment: object) -> tuple[int | None, str | None]:
    """Return the day of a moment, and its text, as parameters: NULL, which is none, of a text."""
    day = _day_of(moment)
    (text,) = db.execute(f"SELECT date(? * {_DAY_MS // 1000}, 'unixepoch')", (day,)).fetchone()
    return day, text


def _together(rows: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of rows that follow each other, `AT_ONCE` at most."""
    begin = end = next(rows, 0)
    for row in rows:
        if row > end + 1 or row == begin + AT_ONCE:
            yield begin, end
            begin = row
        end = row
    if begin:
        yield begin, end

"""The data for reports: read-only, streamed, in manifest order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.clock import iso
from bulkbind.errors import UsageError
from bulkbind.ledger import changes, lines
from bulkbind.ledger.lock import Holder, holder_of
from bulkbind.ledger.opening import reading
from bulkbind.ledger.runs import live_facts
from bulkbind.ledger.scopes import MOST_REASONS, LeaverReader
from bulkbind.ledger.store import CODES, OfRun, counts, int_of, marks, of_status, span, sql_list
from bulkbind.model import (
    COMES_BACK,
    GONE,
    IS_BOUND,
    IS_GONE,
    IS_PENDING,
    IS_UNCONFIRMED,
    NEEDS_PERSON,
    PENDING,
    UNBIND_MEANINGS,
    UNBIND_PENDING,
    AttemptRow,
    LiveFacts,
    Problem,
    ResultRow,
    RunFacts,
    RunKind,
    RunState,
    RunSummary,
    Source,
    Status,
    UnbindKind,
    UndoneRow,
    UndoState,
    UndoSummary,
    as_shown,
)
from bulkbind.model.fields import FIELDS, NAME, OPTIONAL
from bulkbind.model.results import CUT_OFF
from bulkbind.model.wording import SUCH_AS, Needing

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from bulkbind.ledger.lines import Part
    from bulkbind.ledger.store import View
    from bulkbind.model import LeaverRow

_UNDO_SHOWN = f"CASE WHEN u.status IN {sql_list(UNBIND_PENDING)} THEN '{PENDING}' ELSE u.status END"

_WHY = f"""
CASE WHEN r.message != '' THEN r.message WHEN instr(r.detail, '{SUCH_AS}')
     THEN substr(r.detail, 1, instr(r.detail, '{SUCH_AS}') - 1) ELSE r.detail END"""
"""Why a row ended as it did, without what differs between rows."""
_AS_KEPT = ("created_at", "ended_at", "stop_reason", "operator", "host", "pid", "version")
"""Columns of a run, and of an undo, that its summary has as they are."""


class UndoReader(OfRun):
    """The undo of one run."""

    def rows(self) -> Iterator[UndoneRow]:
        """Yield the bindings to unbind, in manifest order."""
        found = self._db.execute(
            f"SELECT r.source, r.line, u.user_id, u.machine_code, u.device_id, {_UNDO_SHOWN}, "  # noqa: S608  # constants
            "u.http_status, u.code, u.message, u.attempts, u.trace_id, "
            "coalesce(u.settled_at, ''), u.detail FROM unbindings u JOIN rows r ON r.id = u.row "
            "WHERE u.row BETWEEN ? AND ? AND u.kind = 'undo' ORDER BY u.row",
            span(self._run),
        )
        return (UndoneRow(*row) for row in found)

    def counts(self) -> dict[str, int]:
        """Return the number of bindings by status, in display order."""
        found = dict(
            self._db.execute(
                f"SELECT {_UNDO_SHOWN}, count(*) FROM unbindings u "  # noqa: S608  # constants
                "WHERE u.row BETWEEN ? AND ? AND u.kind = 'undo' GROUP BY 1",
                span(self._run),
            ).fetchall()
        )
        return {status: found[status] for status in UNBIND_MEANINGS if status in found}

    def live(self) -> LiveFacts:
        """Return what the process that undoes the run said last; empty if none does."""
        return live_facts(self._db, self._run, LiveFacts.undo_key)

    def settled_since(self, moment: str) -> tuple[int, str]:
        """As that of `RunReader`, of bindings."""
        return _unbound_since(self._db, self._run, UnbindKind.UNDO, moment)

    def summary(self) -> UndoSummary | None:
        """Return the state of the undo; None if the run was never undone."""
        found = self._db.execute("SELECT * FROM undos WHERE run = ?", (self._run,))
        columns = [column[0] for column in found.description]
        values = found.fetchone()
        if values is None:
            return None
        undo: dict[str, Any] = dict(zip(columns, values, strict=True))
        in_doubt = counts(self._db, self._run, (Status.IN_DOUBT,)).get(Status.IN_DOUBT, 0)
        return UndoSummary(
            run_id=self.run_id(),
            state=undo["state"],
            counts=self.counts(),
            in_doubt=in_doubt,
            facts=RunFacts(json.loads(undo["facts"])),
            **{name: undo[name] for name in _AS_KEPT},
        )


def _unbound_since(
    db: sqlite3.Connection, run: int, kind: UnbindKind, moment: str
) -> tuple[int, str]:
    found: tuple[int, str] = db.execute(
        "SELECT count(*) FILTER (WHERE settled_at >= ?), coalesce(max(settled_at), '') "
        "FROM unbindings WHERE row BETWEEN ? AND ? AND kind = ?",
        (moment, *span(run), kind),
    ).fetchone()
    return found


def _undo_state(undo: UndoSummary) -> UndoState:
    is_over = RunState(undo.state).about.is_over
    is_cut_off = not is_over and Holder(undo.pid, undo.host).is_alive() is False
    return UndoState(state=CUT_OFF if is_cut_off else undo.state, counts=undo.counts)


_SHOWN = f"CASE WHEN r.status IN {sql_list(IS_PENDING)} THEN '{PENDING}' ELSE r.status END"
_NAME = OPTIONAL[NAME]
# Unbindings by an undo or a move are in a table of their own; where there are none, none is looked
# for in every row.
_DETAIL = f"""
CASE WHEN r.changes IS NULL THEN '' ELSE r.changes || '; ' END ||
CASE WHEN r.duplicate_of IS NULL
     THEN trim(r.detail || CASE WHEN EXISTS (SELECT 1 FROM unbindings) THEN coalesce('; ' || (
          SELECT group_concat(CASE u.kind WHEN 'undo' THEN 'unbound again by undo, ' || u.settled_at
                                          ELSE 'moved from user ' || u.user_id END, '; ')
            FROM unbindings u WHERE u.row = r.id AND u.kind <> 'leave'
             AND u.status IN {sql_list(GONE)}), '') ELSE '' END,
          '; ')
     ELSE (SELECT 'same device as ' || (s.form ->> 'name') || ':' || f.line
                  || CASE WHEN f.user_id = r.user_id THEN '' ELSE ' for user ' || f.user_id END
                  || CASE WHEN f.{_NAME} IS r.{_NAME} OR f.{_NAME} IS NULL THEN ''
                          ELSE ' under the name ' || f.{_NAME} END
                  || ', which ' || CASE f.status WHEN 'failed' THEN '' ELSE 'is ' END
                  || {_SHOWN.replace("r.", "f.")}
             FROM rows f JOIN sources s ON s.run = f.run AND s.source = f.source
            WHERE f.id = r.duplicate_of) END
"""  # noqa: S608  # constants
_COLUMNS = f"""
r.source, r.line, coalesce(r.user_id, ''), coalesce(r.machine_code, ''),
{", ".join(f"coalesce(r.{name}, '')" for name in OPTIONAL)}, {_SHOWN}, r.device_id, r.create_time,
r.http_status, r.code, r.message, r.attempts, r.trace_id, coalesce(r.settled_at, ''), {_DETAIL}
"""
_RESULT = f"{_COLUMNS}, r.problems, r.cells, coalesce(r.changes, '')"
"""In the order of `ResultRow`."""
_CELLS = f"""
{_COLUMNS.replace("r.http_status", "coalesce(r.http_status, '')")},
CASE WHEN r.problems IS NULL THEN ''
     ELSE (SELECT coalesce(group_concat(value ->> 'field', ' '), '') FROM json_each(r.problems)) END
"""  # noqa: S608  # constants


_ANSWERED = [status for status in NEEDS_PERSON if status is not Status.INVALID]


def _of_range(statuses: Iterable[Status]) -> str:
    return of_status(statuses, "BETWEEN ?1 AND ?2")


_SUMS = """
SELECT (SELECT coalesce(sum(attempts), 0) FROM outcomes WHERE id BETWEEN ?1 AND ?2)
       + (SELECT coalesce(sum(attempts), 0) FROM sending WHERE id BETWEEN ?1 AND ?2),
       coalesce(sum(repeats), 0), count(changes)
  FROM remarks WHERE id BETWEEN ?1 AND ?2
"""
"""A run's attempts, repeats and cleaned rows."""
_SHOWN_WORDS = " ".join(f"WHEN {CODES[status]} THEN '{status.shown}'" for status in Status)
# The view `rows` would look a user up by each row; here rows are counted first, by one number. Only
# what broke a rule before it had a device has a user of its own.
_BY_USER = f"""
SELECT u, CASE status {_SHOWN_WORDS} END AS s, sum(n) AS n
  FROM (SELECT u.user_id AS u, g.both & 255 AS status, g.n
          FROM (SELECT d.user << 8 | r.status AS both, count(*) AS n
                  FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
                 WHERE r.id BETWEEN ?1 AND ?2 GROUP BY 1) g
          JOIN users u ON u.user = g.both >> 8
         UNION ALL
        SELECT coalesce(k.user_id, ''), r.status, 1
          FROM stored_rows r LEFT JOIN broken k USING (id)
         WHERE r.id BETWEEN ?1 AND ?2 AND r.device IS NULL)
 GROUP BY 1, 2
"""  # noqa: S608  # constants
"""Rows of a run by user and status as shown."""


class Counted(NamedTuple):
    """What is counted of a run's rows."""

    rows: dict[Status, int]
    attempts: int
    repeats: int
    cleaned: int


class RunReader(OfRun):
    """One run, as reports show it."""

    def __init__(self, db: View, run: int, counted: Counted | None = None) -> None:
        """*counted*: by an earlier reader, if no row has changed since."""
        super().__init__(db, run)
        if counted is not None:
            self.counted, self._counts = counted, counted.rows

    @cached_property
    def counted(self) -> Counted:
        """What is counted of the rows, which takes time."""
        return Counted(self._counts, *self._db.execute(_SUMS, span(self._run)).fetchone())

    @cached_property
    def _counts(self) -> dict[Status, int]:
        """The number of rows by status: what has none is not looked for among all rows."""
        return counts(self._db, self._run)

    def _among(self, statuses: Iterable[Status]) -> list[Status]:
        """Return those of *statuses* that any row has."""
        return [status for status in statuses if status in self._counts]

    def sources(self) -> list[Source]:
        """Return the manifests' forms, in the order given."""
        rows = self._db.execute(
            "SELECT form FROM sources WHERE run = ? ORDER BY source", (self._run,)
        )
        forms = [json.loads(row[0]) for row in rows]
        tuples = ("header", "fields")
        return [
            Source(**(form | {name: tuple(form[name]) for name in tuples if name in form}))
            for form in forms
        ]

    def _names(self) -> list[str]:
        return [source.name for source in self.sources()]

    def rows(self, statuses: tuple[str, ...] = ()) -> Iterator[ResultRow]:
        """Yield the rows in manifest order: all, or those shown with one of *statuses*."""
        wanted = self._among(status for status in Status if status.shown in statuses)
        which = f"IN ({of_status(wanted)})" if statuses else "BETWEEN ? AND ?"
        found = self._db.execute(
            f"SELECT {_RESULT} FROM rows r WHERE r.id {which} ORDER BY r.id",  # noqa: S608  # constants
            span(self._run),
        )
        last = 4 + len(OPTIONAL)
        fields = [source.fields for source in self.sources()]
        for *values, problems, stored, changed in found:
            cells = stored
            if stored is None and values[last] in COMES_BACK and fields[values[0]]:
                told = dict(zip(FIELDS, values[2:last], strict=True))
                cells = json.dumps([told[name] for name in fields[values[0]]])
            broken = [Problem(**problem) for problem in json.loads(problems)] if problems else []
            values[4:last] = [tuple(values[4:last])]
            yield ResultRow(*[*values, tuple(broken), cells, changed])

    def lines(self) -> Generator[Part]:
        """Yield all rows in manifest order as `results.csv` shows them, unless it quotes or guards.

        Their lines are empty where `cells` must be asked for them.
        """
        return lines.lines(self._db, self._run, self._names())

    def cells(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows between two ids, inclusive: id, source and values, each for itself.

        At the end the fields that break a rule, divided by blanks.
        """
        return self._cells("BETWEEN ? AND ?", (first, last))

    def _cells(self, which: str, values: tuple[int, int]) -> sqlite3.Cursor:
        return self._db.execute(
            f"SELECT r.id, {_CELLS} FROM rows r WHERE r.id {which} ORDER BY r.id",  # noqa: S608  # constants
            values,
        )

    def leavers(self) -> Iterator[LeaverRow]:
        """Yield the devices that leave, as the manifests lack them, by user."""
        return LeaverReader(self._db, self._run).rows()

    def attempts(self) -> Iterator[AttemptRow]:
        """Yield the attempts that were not accepted outright, by row, then in order."""
        found = self._db.execute(
            "SELECT r.source, r.line, r.user_id, r.machine_code, a.sent_at, a.took_s, a.verdict, "
            "a.http_status, a.code, a.message, a.trace_id FROM attempts a "
            "JOIN rows r ON r.id = a.row WHERE a.row BETWEEN ? AND ? ORDER BY a.row, a.rowid",
            span(self._run),
        )
        for source, line, user, code, sent_at, took_s, *rest in found:
            moment = iso(datetime.fromtimestamp(sent_at, UTC))
            yield AttemptRow(source, line, user, code, moment, round(took_s, 3), *rest)

    def summary(self) -> RunSummary:
        """Return the run with its counts and reasons."""
        row = self._db.execute(
            "SELECT r.*, n.run_id AS next FROM runs r LEFT JOIN runs n ON n.run = r.superseded_by "
            "WHERE r.run = ?",
            (self._run,),
        )
        run = dict(zip([column[0] for column in row.description], row.fetchone(), strict=True))
        facts = RunFacts(json.loads(run["facts"]))
        undo = UndoReader(self._db, self._run).summary()
        leavers = LeaverReader(self._db, self._run)
        is_cut_off, spent = self._is_cut_off(RunState(run["state"])), self.live().spent
        return RunSummary(
            run_id=run["run_id"],
            state=RunState(run["state"]),
            manifests=tuple(facts.pruned_manifests or self._names()),
            counts=facts.pruned_counts or self.counts(),
            reasons=tuple(self._reasons()),
            facts=facts.merge(spent.left_alone() if is_cut_off else spent),
            superseded_by=run["next"],
            settings=json.loads(run["settings"]),
            leavers=leavers.counts(),
            leaver_reasons=leavers.reasons(),
            undo=None if undo is None else _undo_state(undo),
            attempts=self.counted.attempts,
            posted_again_after_bound=self.counted.repeats,
            cleaned=self.counted.cleaned,
            examples=changes.needing(self._db, self._run) if self._among(NEEDS_PERSON) else [],
            is_cut_off=is_cut_off,
            unanswered=self._counts.get(Status.CLAIMED, 0) if is_cut_off else 0,
            kind=RunKind(run["kind"]),
            **{name: run[name] for name in (*_AS_KEPT, "confirmed_at", "digest")},
        )

    def holder(self) -> Holder:
        """Return the process that sends the run, or did so last, as far as is known."""
        began = self._db.execute("SELECT pid, host FROM runs WHERE run = ?", (self._run,))
        path = Path(self._db.execute("PRAGMA database_list").fetchone()[2])
        holder = holder_of(path)
        is_its = self.live().run == self._run
        return holder if holder is not None and is_its else Holder(*began.fetchone())

    def _is_cut_off(self, state: RunState) -> bool:
        if state.about.is_over:
            return False
        return self.holder().is_alive() is False

    def users(self, most: int) -> tuple[list[dict[str, Any]], int]:
        """Return *most* users with their rows by status, and how many users there are.

        Those with most rows left first.
        """
        reached = IS_BOUND if self.kind() is RunKind.BIND else IS_GONE
        found = self._db.execute(
            "SELECT u, json_group_object(s, n), sum(n), count(*) OVER () "  # noqa: S608  # constants
            f"FROM ({_BY_USER}) GROUP BY u ORDER BY "
            f"sum(CASE WHEN s IN {sql_list(reached)} THEN 0 ELSE n END) DESC, u "
            "LIMIT ?3",
            (*span(self._run), most),
        ).fetchall()
        users = [
            {"user_id": user, "counts": json.loads(counts), "rows": rows}
            for user, counts, rows, _ in found
        ]
        return users, found[0][-1] if found else 0

    def verdicts(self) -> list[dict[str, Any]]:
        """Return the number of attempts not accepted outright, by verdict and code."""
        found = self._db.execute(
            "SELECT verdict, code, count(*) FROM attempts WHERE row BETWEEN ? AND ? "
            "GROUP BY 1, 2 ORDER BY 3 DESC LIMIT ?",
            (*span(self._run), MOST_REASONS),
        )
        return [{"verdict": v, "code": code, "count": count} for v, code, count in found]

    def settled_since(self, moment: str) -> tuple[int, str]:
        """Return how many rows, and devices that leave, ended since *moment*, and the last when.

        The last is empty if none did.
        """
        found: tuple[int, str] = self._db.execute(
            "SELECT count(*) FILTER (WHERE settled_at >= ?), coalesce(max(settled_at), '') "
            "FROM rows WHERE id BETWEEN ? AND ?",
            (moment, *span(self._run)),
        ).fetchone()
        if self.kind() is not RunKind.BIND:  # its rows are the devices that leave
            return found
        left, last = _unbound_since(self._db, self._run, UnbindKind.LEAVE, moment)
        return found[0] + left, max(found[1], last)

    def unbound_since(self) -> int:
        """Return how many rows were bound and are not any more, where any run was undone."""
        if self.kind() is not RunKind.BIND or not int_of(
            self._db, "SELECT EXISTS (SELECT 1 FROM undos)"
        ):
            return 0
        return int_of(
            self._db,
            "SELECT count(*) FROM stored_rows r LEFT JOIN stored_bindings b USING (device) "  # noqa: S608  # constants
            f"WHERE r.id IN ({of_status(self._among(IS_BOUND))}) AND b.device IS NULL",
            span(self._run),
        )

    def live(self) -> LiveFacts:
        """Return what the process that sends the run said last; empty if none does."""
        return live_facts(self._db, self._run)

    def newest(self, statuses: tuple[str, ...], most: int) -> tuple[str, ...]:
        """Return the last settled rows with one of *statuses*, one clause each, the last first."""
        found = self._db.execute(
            "SELECT s.form ->> 'name', r.line, machine_code, status, code, message, detail "  # noqa: S608  # constants
            "FROM rows r JOIN sources s ON s.run = r.run AND s.source = r.source "
            f"WHERE r.id IN ({of_status(statuses)}) AND settled_at IS NOT NULL "
            "ORDER BY settled_at DESC LIMIT ?",
            (*span(self._run), most),
        )
        return tuple(Needing(*rest).text(f"{name}:{line}") for name, line, *rest in found)

    def counts(self) -> dict[str, int]:
        """Return the number of rows by displayed status, in display order."""
        return as_shown(self._counts)

    def _reasons(self) -> Iterator[dict[str, Any]]:
        # A row that breaks two rules counts for each of them.
        found = self._db.execute(
            f"SELECT r.status, r.code, {_WHY}, "  # noqa: S608  # constants
            f"count(*), min(r.id) FROM rows r WHERE r.id IN ({_of_range(self._among(_ANSWERED))}) "
            "GROUP BY 1, 2, 3 "
            "UNION ALL SELECT r.status, '', p.value ->> 'rule', count(*), min(r.id) "
            "FROM rows r, json_each(r.problems) p "
            f"WHERE r.id IN ({_of_range(self._among([Status.INVALID]))}) "
            "GROUP BY 3 ORDER BY 4 DESC, 5 LIMIT ?3",
            (*span(self._run), MOST_REASONS),
        ).fetchall()
        for status, code, message, count, first in found:
            name, line, detail, machine_code, user_id = self._db.execute(
                "SELECT s.form ->> 'name', r.line, r.detail, coalesce(r.machine_code, ''), "
                "coalesce(r.user_id, '') FROM rows r "
                "JOIN sources s ON s.run = r.run AND s.source = r.source WHERE r.id = ?",
                (first,),
            ).fetchone()
            yield {
                "status": status,
                "code": code,
                "message": message,
                "count": count,
                "example": f"{name}:{line}",
                "machine_code": machine_code,
                "user_id": user_id,
                # The reason is told already.
                "detail": detail.replace(f" ({message})", "").removeprefix(f"{message}, "),
            }


def places_of(db: sqlite3.Connection, rows: Sequence[int]) -> list[str]:
    """Return file and line of rows, in their order."""
    found = dict(
        db.execute(
            "SELECT r.id, (s.form ->> 'name') || ':' || r.line FROM rows r "  # noqa: S608  # marks
            f"JOIN sources s USING (run, source) WHERE r.id IN ({marks(len(rows))})",
            tuple(rows),
        ).fetchall()
    )
    return [found.get(row, "") for row in rows]


def find_run(db: sqlite3.Connection, run_id: str | None) -> int:
    """Return the number of a run by its id or a unique prefix of it; of the newest run if None.

    An adoption is no such run, as it has no rows.

    Raises: UsageError if there is none, or more than one.
    """
    rows = db.execute(
        "SELECT run, run_id, facts ->> 'pruned_at', kind FROM runs "  # noqa: S608  # constants
        f"WHERE state NOT IN {sql_list(IS_UNCONFIRMED)} AND substr(run_id, 1, length(?1)) = ?1 "
        "ORDER BY ?1 = '' AND kind = ?2, run DESC",
        (run_id or "", RunKind.ADOPT),
    ).fetchall()
    if not rows:
        raise UsageError(
            f"there is no run {run_id}" if run_id else "there is no run in this ledger",
            hint="`bulkbind runs` lists them",
        )
    if run_id and len(rows) > 1 and all(row[1] != run_id for row in rows):
        names = ", ".join(row[1] for row in rows[:5])
        raise UsageError(f"several runs begin with {run_id}: {names}")
    exact = [row for row in rows if row[1] == run_id]
    number, known_id, pruned_at, kind = exact[0] if exact else rows[0]
    if kind == RunKind.ADOPT:
        raise UsageError(
            f"run {known_id} took over what is bound, and has no rows",
            hint="`bulkbind runs` says how many; `bulkbind history` tells of a device",
        )
    if pruned_at is not None:
        raise UsageError(
            f"the rows of run {known_id} were pruned on {pruned_at[:10]}",
            hint="its report, if you kept it, tells of them; what it bound is still known as bound",
        )
    return int(number)


def people(db: sqlite3.Connection, run: int) -> list[str]:
    """Return the users that a run's rows may name: its own, and present owners of moved devices."""
    found = db.execute(
        "SELECT user_id FROM rows WHERE id BETWEEN ?1 AND ?2 AND user_id IS NOT NULL "  # noqa: S608  # constants
        "UNION SELECT b.user_id FROM rows r CROSS JOIN bindings b USING (machine_code) "
        f"WHERE r.id IN ({_of_range([Status.MOVED])})",
        span(run),
    )
    return [str(user) for (user,) in found if user]


class RunName(NamedTuple):
    """The id, state and manifests of a run."""

    run_id: str
    state: str
    manifests: tuple[str, ...]


def run_names(path: Path, endpoint: str | None, most: int) -> list[RunName]:
    """Return up to *most* runs, newest first, without reading rows. Raises: LedgerError."""
    with reading(path, endpoint) as db:
        found = db.execute(
            "SELECT run_id, state, coalesce(facts ->> 'pruned_manifests', "
            "(SELECT json_group_array(name) FROM (SELECT form ->> 'name' AS name FROM sources s "
            "WHERE s.run = r.run ORDER BY source))) FROM runs r WHERE kind <> ? "
            "ORDER BY run DESC LIMIT ?",
            (RunKind.ADOPT, most),
        )
        return [RunName(run_id, state, tuple(json.loads(names))) for run_id, state, names in found]


_LISTED = (
    *("run_id", "kind", "state", "created_at", "ended_at", "operator", "host", "version"),
    *("superseded_by", "manifests", "counts", "leavers", "undo"),
)


def all_runs(path: Path, endpoint: str | None = None) -> list[dict[str, Any]]:
    """Return the runs of a ledger, newest first: id, state, times, operator, manifests, counts."""
    with reading(path, endpoint) as db:
        numbers = [row[0] for row in db.execute("SELECT run FROM runs ORDER BY run DESC")]
        found = (RunReader(db, number).summary() for number in numbers)
        return [
            {name: getattr(summary, name) for name in _LISTED}
            | {"state": summary.shown_state, "manifests": list(summary.manifests)}
            | {"note": summary.facts.note or None, "adopted": summary.facts.adopted}
            for summary in found
        ]


MOST_LOOKED_AT = 50
"""Runs that are looked at for one that went well."""


def went_well_at(path: Path, endpoint: str, names: Sequence[str], before: str = "A") -> str | None:
    """Return when a run of manifests last ended with no row that needs a person; None: never.

    *names*: the manifests', or the beginning of those of an inbox; *before*: runs that ended later
    do not count, ISO 8601.

    Raises: LedgerError.
    """
    if not path.exists():
        return None
    with reading(path, endpoint) as db:
        found = db.execute(
            "SELECT r.run, r.ended_at FROM runs r JOIN sources s ON s.run = r.run "
            "AND s.source = 0 WHERE r.state = ? AND r.ended_at < ? "
            "AND r.facts ->> 'pruned_at' IS NULL "
            "AND coalesce(r.facts ->> '$.refreshed.not_proven', 0) = 0 "
            "AND EXISTS (SELECT 1 FROM json_each(?) n "
            "WHERE substr(s.form ->> 'name', 1, length(n.value)) = n.value) "
            "ORDER BY r.run DESC LIMIT ?",
            (RunState.DONE, before, json.dumps(list(names)), MOST_LOOKED_AT),
        ).fetchall()
        query = (
            "SELECT EXISTS (SELECT 1 FROM rows WHERE id BETWEEN ? AND ? "  # noqa: S608  # a constant
            f"AND status IN {sql_list(NEEDS_PERSON)})"
        )
        return next(
            (
                ended
                for run, ended in found
                if not int_of(db, query, span(run)) and not LeaverReader(db, run).reasons()
            ),
            None,
        )

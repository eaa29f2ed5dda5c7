"""What a run would do with each row, and which devices a run has bound. Read-only."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bulkbind.ledger import transitions, unbinding
from bulkbind.ledger.runs import live_facts
from bulkbind.ledger.scopes import LeaverReader
from bulkbind.ledger.store import (
    CODES,
    OPEN,
    UNBIND_OPEN,
    VALID,
    OfRun,
    View,
    codes,
    get_meta,
    int_of,
    of_status,
    optional_of,
    parts,
    span,
    sql_list,
)
from bulkbind.model import (
    CAN_RESUME,
    IS_BOUND,
    IS_OVER,
    IS_PENDING,
    PlanWord,
    Problem,
    ProblemGroups,
    Record,
    RunFacts,
    RunKind,
    Status,
    UnbindKind,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from bulkbind.model.fields import Values


class OfUsers(OfRun):
    """The devices of one run, user by user."""

    def __init__(self, db: View, run: int, only: str = VALID) -> None:
        """*only*: a condition that the stored rows must meet."""
        super().__init__(db, run)
        self._only = only
        self._table = ""

    def user_ids(self) -> Iterator[str]:
        """Yield the users of these devices, in order."""
        found = self._db.execute(
            "SELECT DISTINCT u.user_id FROM stored_rows r JOIN devices d ON d.device = r.device "  # noqa: S608  # constants
            "JOIN users u ON u.user = d.user "
            f"WHERE r.id BETWEEN ? AND ? AND r.{self._only} ORDER BY 1",
            span(self._run),
        )
        return (str(user) for (user,) in found)

    def _of(self, user_id: str, columns: str, tables: str = "") -> sqlite3.Cursor:
        """Select from a user's devices `d` and stored rows `r`, in order of machine code."""
        return self._db.execute(
            f"SELECT {columns} FROM users u CROSS JOIN devices d ON d.user = u.user "  # noqa: S608  # constants
            f"CROSS JOIN {self._by_device()} n ON n.device = d.device "
            f"CROSS JOIN stored_rows r ON r.id = n.id {tables} "
            "WHERE u.user_id = ? ORDER BY d.machine_code",
            (user_id,),
        )

    def _by_device(self) -> str:
        """Return the temporary table of these rows by device, on disk; make it the first time."""
        if not self._table:
            self._table = f"temp.devices_of_{id(self)}"
            self._db.execute(f"CREATE TABLE {self._table} (device INTEGER PRIMARY KEY, id INTEGER)")
            self._db.execute(
                f"INSERT INTO {self._table} SELECT device, id FROM stored_rows "  # noqa: S608  # constants
                f"WHERE id BETWEEN ? AND ? AND {self._only} ORDER BY device",
                span(self._run),
            )
        return self._table


class KnownReader:
    """The bindings that are known of users, to compare with the server's lists."""

    def __init__(self, db: View) -> None:
        self._db = db

    def known(self, user_id: str) -> dict[str, str]:
        """Return the device ids of a user's bindings that any run made, by machine code."""
        return transitions.known(self._db, user_id)

    def open_of(self, user_id: str) -> frozenset[str]:
        """Return a user's devices that the server may hold without our knowing, by any run."""
        found = self._db.execute(
            "SELECT d.machine_code FROM stored_rows r INDEXED BY rows_open "  # noqa: S608  # constants
            "CROSS JOIN devices d USING (device) JOIN users u ON u.user = d.user "
            f"WHERE r.{OPEN} AND u.user_id = ?",
            (user_id,),
        )
        return frozenset(str(code) for (code,) in found)

    def stranger(
        self, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> str | None:
        """Return a device on a user's list that is known as another user's, if there is one."""
        return transitions.stranger(self._db, user_id, records, known)


class SkippedReader(OfUsers, KnownReader):
    """The devices of one run that are skipped because they are known to be bound."""

    def __init__(self, db: View, run: int) -> None:
        super().__init__(db, run, f"status = {CODES[Status.SKIPPED]}")

    def of(self, user_id: str) -> Iterator[tuple[int, str]]:
        """Yield row id and machine code of a user's devices."""
        return self._of(user_id, "r.id, d.machine_code")


class BoundReader(OfUsers, KnownReader):
    """The devices of one run that are bound, by it or before it."""

    def of(self, user_id: str) -> Iterator[Record]:
        """Yield the run's devices bound to a user and not unbound since."""
        found = self._of(
            user_id,
            f"b.machine_code, b.device_id, b.create_time, {optional_of('b')}",
            f"AND r.status IN {codes(IS_BOUND)} CROSS JOIN bindings b "
            "ON b.user_id = u.user_id AND b.machine_code = d.machine_code",
        )
        return (
            Record(code, device_id, created, tuple(optional))
            for code, device_id, created, *optional in found
        )


_read_problems = msgspec.json.Decoder(list[Problem]).decode
MOST_USERS = 10_000
"""Users listed in a plan, in the order of their ids."""
MOST_EXAMPLES = 1_000
LOOKED_AT = 1_000
"""Rows that are counted together."""

# What the bindings say besides; the condition, and the word where it holds.
_KNOWN = "SELECT 1 FROM stored_bindings b WHERE b.device = r.device"
_SENT = "SELECT 1 FROM outcomes o WHERE o.id = r.id AND o.attempts > 0"
_BESIDES = {
    Status.FAILED: (f"EXISTS ({_KNOWN}) AND NOT EXISTS ({_SENT})", PlanWord.MISSING),
    Status.SKIPPED: (f"EXISTS ({_KNOWN} AND b.name <> r.name)", PlanWord.CHANGED),
}


def _planned(status: Status) -> str:
    """Return the SQL for the `PlanWord` of a stored row with this status."""
    word = f"'{status.about.planned}'"
    if status in _BESIDES:
        condition, other = _BESIDES[status]
        word = f"CASE WHEN {condition} THEN '{other}' ELSE {word} END"
    return f"WHEN {CODES[status]} THEN {word}"


_STATUS = "SELECT status FROM stored_rows WHERE id BETWEEN ? AND ? LIMIT 1"
_STATUSES = """
SELECT count(*), count(*) FILTER (WHERE status <> ?3) FROM stored_rows WHERE id BETWEEN ?1 AND ?2
"""
_IS_RENAMED = """
SELECT EXISTS (SELECT 1 FROM stored_rows r CROSS JOIN stored_bindings b ON b.device = r.device
                WHERE r.id BETWEEN ? AND ? AND r.device IN (SELECT device FROM names)
                  AND b.name <> r.name)
"""
_WORD = f"CASE r.status {' '.join(map(_planned, Status))} END"


# Rows are counted by the number of their user first, which takes half the time. Only what broke a
# rule before it had a device has a user of its own.
_BY_USER = """
SELECT user_id, word, sum(n)
  FROM (SELECT u.user_id, g.word, g.n
          FROM (SELECT d.user, {word} AS word, count(*) AS n
                  FROM stored_rows r CROSS JOIN devices d ON d.device = r.device
                 WHERE r.id BETWEEN ?1 AND ?2 GROUP BY 1, 2) g
          JOIN users u ON u.user = g.user
         UNION ALL
        SELECT coalesce(k.user_id, ''), {word}, 1
          FROM stored_rows r LEFT JOIN broken k USING (id)
         WHERE r.id BETWEEN ?1 AND ?2 AND r.device IS NULL)
 GROUP BY 1, 2 ORDER BY 1
"""


class Wanted(NamedTuple):
    """A user's valid row, to compare with the server's list."""

    machine_code: str
    optional: Values
    word: PlanWord


class Outlook(OfUsers, KnownReader):
    """One staged or resumable run, as needed by a plan."""

    def _word(self) -> str:
        """Return the SQL for the `PlanWord` of a stored row of this run."""
        if self.kind() is RunKind.BIND:
            return _WORD
        return (
            f"CASE WHEN r.status IN {codes(IS_PENDING)} THEN '{PlanWord.UNBIND}' ELSE {_WORD} END"
        )

    def counts(self) -> tuple[dict[str, int], str]:
        """Return the rows by every `PlanWord`, and the mark.

        The mark is a digest of the action planned for each row, of the number of moves, and of what
        leaves.
        """
        counts, mark = self._planned
        return dict(counts), mark

    def _has(self, *words: PlanWord) -> bool:
        """Return whether any row has one of these: what has none is not looked for among all."""
        counts, _ = self._planned
        return any(counts[word] for word in words)

    @cached_property
    def _planned(self) -> tuple[dict[str, int], str]:
        counts = dict.fromkeys(map(str, PlanWord), 0)
        total = hashlib.sha256(str(self.moves()).encode())
        for leaver in LeaverReader(self._db, self._run).mark():
            total.update(repr(leaver).encode())
        words = f"SELECT {self._word()} AS word FROM stored_rows r WHERE r.id BETWEEN ? AND ?"  # noqa: S608  # constants
        together = f"SELECT group_concat(word, ' ') FROM ({words} ORDER BY r.id)"  # noqa: S608  # constants
        for part, rows in self._looked_at():
            if rows:
                ((word,),) = self._db.execute(f"{words} LIMIT 1", part)
                some = {word: rows}
                for first in range(0, rows, LOOKED_AT):
                    total.update((word * min(LOOKED_AT, rows - first)).encode())
            else:
                (text,) = self._db.execute(together, part).fetchone()
                some = Counter((text or "").split())
                total.update((text or "").replace(" ", "").encode())
            for word, count in some.items():
                counts[word] += count
        return counts, total.hexdigest()

    def _looked_at(self) -> Iterator[tuple[tuple[int, int], int]]:
        """Yield parts of all rows, or all of them if they are alike, each with `_alike` of it."""
        whole = span(self._run)
        if rows := self._alike(whole):
            yield whole, rows
            return
        for part in parts(self._db, self._run, LOOKED_AT):
            yield part, self._alike(part)

    def _alike(self, part: tuple[int, int]) -> int:
        """Return the number of a part's rows if one word is that of all; 0 if that is not sure."""
        (code,) = self._db.execute(_STATUS, part).fetchone() or (None,)
        rows, others = self._db.execute(_STATUSES, (*part, code)).fetchone()
        if others or code == CODES[Status.FAILED]:
            return 0
        is_renamed = (
            code == CODES[Status.SKIPPED]
            and self._has_names
            and int_of(self._db, _IS_RENAMED, part)
        )
        return 0 if is_renamed else int(rows)

    @cached_property
    def _has_names(self) -> bool:
        """Whether any device has been named twice: a look at all rows is saved where none has."""
        return bool(int_of(self._db, "SELECT EXISTS (SELECT 1 FROM names)"))

    def user_count(self) -> int:
        """Return the number of users in valid rows."""
        return int_of(
            self._db,
            "SELECT count(DISTINCT d.user) FROM stored_rows r JOIN devices d USING (device) "  # noqa: S608  # constants
            f"WHERE r.id BETWEEN ? AND ? AND r.{VALID}",
            span(self._run),
        )

    def users_to_bind(self, first: int | None = None, *, moves: bool) -> int:
        """Return the number of users who would get devices: of all, or of the *first* rows."""
        if not self._has(PlanWord.BIND, PlanWord.UNBIND, PlanWord.MOVED):
            return 0
        rows = of_status([Status.STAGED, *([Status.MOVED] if moves else [])])
        return int_of(
            self._db,
            "SELECT count(DISTINCT d.user) FROM stored_rows r JOIN devices d USING (device) "  # noqa: S608  # constants
            f"WHERE r.id IN ({rows} ORDER BY id LIMIT ?)",
            (*span(self._run), -1 if first is None else first),
        )

    def users(self) -> dict[str, dict[str, int]]:
        """Return the number of rows of the first users by `PlanWord`."""
        users: dict[str, dict[str, int]] = {}
        found = self._db.execute(_BY_USER.format(word=self._word()), span(self._run))
        for user, word, count in found:
            if user not in users and len(users) == MOST_USERS:
                break
            users.setdefault(user, {})[word] = count
        return users

    def wanted(self, user_id: str) -> Iterator[Wanted]:
        """Yield a user's valid rows, each device once."""
        found = self._of(
            user_id,
            f"{self._word()}, v.machine_code, {optional_of('v')}",
            "CROSS JOIN rows v ON v.id = r.id",
        )
        return (Wanted(code, tuple(optional), PlanWord(word)) for word, code, *optional in found)

    def moved(self) -> tuple[dict[str, str], ...]:
        """Return the first moved rows, with the device's present and future user."""
        if not self._has(PlanWord.MOVED):
            return ()
        found = self._db.execute(
            "SELECT r.machine_code, min(b.user_id), r.user_id FROM rows r "  # noqa: S608  # constants
            "CROSS JOIN bindings b ON b.machine_code = r.machine_code AND b.user_id <> r.user_id "
            f"WHERE r.id IN ({of_status([Status.MOVED])}) GROUP BY r.id LIMIT ?",
            (*span(self._run), MOST_EXAMPLES),
        )
        return tuple({"machine_code": c, "from": f, "to": t} for c, f, t in found)

    def moves(self) -> int:
        """Return how many bindings a run with `--move` would unbind first."""
        return unbinding.count_left(self._db, self._run, UnbindKind.MOVE)

    def lists(self, *, moves: bool = True) -> int:
        """Return the number of list calls: per user, two to settle doubt, one before unbinding.

        *moves*: whether anything is unbound.
        """
        return int_of(
            self._db,
            "SELECT 2 * (SELECT count(DISTINCT d.user) FROM stored_rows r INDEXED BY rows_open "  # noqa: S608  # constants
            f"CROSS JOIN devices d USING (device) WHERE r.{OPEN} AND r.id BETWEEN ?1 AND ?2) + "
            "(SELECT count(DISTINCT user_id) FROM unbindings WHERE row BETWEEN ?1 AND ?2 "
            f"AND kind = 'move' AND {UNBIND_OPEN} AND ?3)",
            (*span(self._run), moves),
        )

    def lists_to_unbind(self, first: int | None) -> int:
        """Return the number of list calls of a run that unbinds: two per user if it takes any."""
        if self.kind() is RunKind.BIND:
            return 0
        users = self.users_to_bind(first, moves=False)
        return users * (2 if self.facts().takes_any else 1)

    def problems(self, most: int) -> tuple[tuple[str, ...], ProblemGroups]:
        """Return the texts of the first rows that break a rule, and all problems by rule."""
        if not self._has(PlanWord.INVALID):
            return (), ProblemGroups()
        found = self._db.execute(
            "SELECT r.source, s.form ->> 'name', r.line, r.detail, r.problems FROM rows r "  # noqa: S608  # constants
            "JOIN sources s ON s.run = r.run AND s.source = r.source "
            f"WHERE r.id IN ({of_status([Status.INVALID])}) ORDER BY r.id",
            span(self._run),
        )
        texts: list[str] = []
        groups = ProblemGroups()
        for number, name, line, detail, problems in found:
            if len(texts) < most:
                texts.append(f"{name}:{line}: {detail}")
            for problem in _read_problems(problems):
                groups.add(number, name, line, problem)
        return tuple(texts), groups


def replaced(db: sqlite3.Connection, run: int) -> tuple[str, int] | None:
    """Return the unfinished run whose place another one would take, and its rows to be sent.

    None if there is none, or it has nothing left. *run*: the other one; 0 if it is not in there.
    """
    found = db.execute(
        f"SELECT run, run_id FROM runs WHERE state IN {sql_list(CAN_RESUME)} "  # noqa: S608  # constants
        "AND superseded_by IS NULL AND run <> ? ORDER BY run DESC LIMIT 1",
        (run,),
    ).fetchone()
    if found is None:
        return None
    number, run_id = found
    query = "SELECT count(*) FROM rows WHERE id BETWEEN ? AND ? AND status = 'staged'"
    left = int_of(db, query, span(number))
    return (run_id, left) if left else None


LEAST_REQUESTS = 20
"""The fewest requests from which a run's speed is estimated."""


class LearnedPace(NamedTuple):
    """The speed of an earlier run."""

    run_id: str
    """Empty: it is not known any more."""
    per_s: float
    source: str
    is_limit: bool = False
    """Whether it is the gateway's limit, of which some may be left to others."""


def last_pace(db: sqlite3.Connection) -> LearnedPace | None:
    """Return the newest pace that a run learned, else the newest measured one; None if unknown."""
    found = db.execute(
        f"SELECT run_id, facts FROM runs WHERE state IN {sql_list(IS_OVER)} "  # noqa: S608  # constants
        "ORDER BY run DESC LIMIT 20"
    ).fetchall()
    earlier = [(run_id, RunFacts(json.loads(text))) for run_id, text in found]
    if live := live_facts(db):  # beside a run that sends
        found = db.execute("SELECT run_id FROM runs WHERE run = ?", (live.run,)).fetchall()
        earlier[:0] = [(run_id, live.spent) for (run_id,) in found]
    for run_id, facts in earlier:
        if facts.rate_scope == "x-user-id":
            continue  # these are per user
        for per_s in (facts.limit_per_s, facts.pace_per_s):
            if per_s is not None and per_s > 0:
                is_limit = per_s == facts.limit_per_s
                return LearnedPace(run_id, float(per_s), facts.pace_from or "learned", is_limit)
    for run_id, facts in earlier:
        if facts.requests >= LEAST_REQUESTS and facts.sending_s > 0:
            is_per_user = facts.rate_scope == "x-user-id"
            why = "each user has a limit" if is_per_user else "no limit was met"
            per_s = facts.requests / facts.sending_s
            return LearnedPace(run_id, per_s, f"as fast as it went; {why}")
    match get_meta(db, RunFacts.limit.name):  # it outlives the runs, which may be pruned
        case {"per_s": int() | float() as per_s} if per_s > 0:
            return LearnedPace("", float(per_s), "learned by an earlier run", is_limit=True)
    return None


def has_bindings(db: sqlite3.Connection) -> bool:
    """Return whether any device is known as bound: its endpoint has said so."""
    return bool(int_of(db, "SELECT EXISTS (SELECT 1 FROM stored_bindings)"))


def has_sent(db: sqlite3.Connection, run: int) -> bool:
    """Return whether an earlier process has sent for a run."""
    sent = "SELECT EXISTS (SELECT 1 FROM runs WHERE run = ? AND facts ->> 'sending_s' > 0)"
    return bool(int_of(db, sent, (run,)))


def has_met(db: sqlite3.Connection) -> bool:
    """Return whether any run of the ledger has sent anything."""
    has_sent = int_of(db, "SELECT EXISTS (SELECT 1 FROM runs WHERE facts ->> 'requests' > 0)")
    return bool(has_sent) or live_facts(db).spent.requests > 0

"""What a run would do with each row, and which devices a run has bound. Read-only."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bulkbind.ledger import transitions, unbinding
from bulkbind.ledger.store import (
    OPEN,
    UNBIND_OPEN,
    OfRun,
    View,
    differs,
    int_of,
    optional_of,
    span,
    sql_list,
)
from bulkbind.model import (
    CAN_RESUME,
    IS_BOUND,
    IS_OVER,
    PlanWord,
    Problem,
    ProblemGroups,
    Record,
    RunFacts,
    Status,
    UnbindKind,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from bulkbind.model.fields import Values

_VALID = "r.problems IS NULL AND r.duplicate_of IS NULL"


def user_ids(db: sqlite3.Connection, run: int, only: str = "") -> Iterator[str]:
    """Yield the users of a run's valid rows, in order. *only*: a further SQL condition."""
    last = ""
    while True:
        # Jumps from user to user in the index, instead of reading every row.
        found = db.execute(
            "SELECT r.user_id FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
            f"WHERE r.run = ? AND r.user_id > ? AND {_VALID} {only} ORDER BY r.user_id LIMIT 1",
            (run, last),
        ).fetchone()
        if found is None:
            return
        last = found[0]
        yield last


class KnownReader:
    """The bindings that are known of users, to compare with the server's lists."""

    def __init__(self, db: View) -> None:
        self._db = db

    def known(self, user_id: str) -> dict[str, str]:
        """Return the device ids of a user's bindings that any run made, by machine code."""
        return transitions.known(self._db, user_id)

    def stranger(
        self, user_id: str, records: Mapping[str, Record], known: Mapping[str, str]
    ) -> str | None:
        """Return a device on a user's list that is known as another user's, if there is one."""
        return transitions.stranger(self._db, user_id, records, known)


class SkippedReader(OfRun, KnownReader):
    """The devices of one run that are skipped because they are known to be bound."""

    def user_ids(self) -> Iterator[str]:
        """Yield the users who have such devices, in order."""
        return user_ids(self._db, self._run, "AND r.status = 'skipped'")

    def of(self, user_id: str) -> Iterator[tuple[int, str]]:
        """Yield row id and machine code of a user's devices."""
        return self._db.execute(
            "SELECT r.id, r.machine_code FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
            f"WHERE r.run = ? AND r.user_id = ? AND {_VALID} AND r.status = 'skipped'",
            (self._run, user_id),
        )


class BoundReader(OfRun, KnownReader):
    """The devices of one run that are bound, by it or before it."""

    def user_ids(self) -> Iterator[str]:
        """Yield the users of the run's valid rows, in order."""
        return user_ids(self._db, self._run)

    def of(self, user_id: str) -> Iterator[Record]:
        """Yield the run's devices bound to a user and not unbound since."""
        found = self._db.execute(
            f"SELECT b.machine_code, b.device_id, b.create_time, {optional_of('b')} "  # noqa: S608  # constants
            "FROM rows r INDEXED BY rows_device JOIN bindings b USING (user_id, machine_code) "
            f"WHERE r.run = ? AND r.user_id = ? AND {_VALID} AND r.status IN {sql_list(IS_BOUND)}",
            (self._run, user_id),
        )
        return (
            Record(code, device_id, created, tuple(optional))
            for code, device_id, created, *optional in found
        )


_read_problems = msgspec.json.Decoder(list[Problem]).decode
MOST_USERS = 10_000
"""Users listed in a plan, in the order of their ids."""
MOST_EXAMPLES = 1_000

_IS_KNOWN = (
    "EXISTS (SELECT 1 FROM bindings b "
    "WHERE b.user_id = r.user_id AND b.machine_code = r.machine_code"
)
# What the bindings say besides; the condition, and the word where it holds.
_BESIDES = {
    Status.FAILED: (f"r.attempts = 0 AND {_IS_KNOWN})", PlanWord.MISSING),
    Status.SKIPPED: (f"{_IS_KNOWN} AND {differs('b', 'r')})", PlanWord.CHANGED),
}


def _planned(status: Status) -> str:
    """Return the SQL for the `PlanWord` of a row with this status."""
    word = f"'{status.about.planned}'"
    if status in _BESIDES:
        condition, other = _BESIDES[status]
        return f"WHEN '{status}' THEN CASE WHEN {condition} THEN '{other}' ELSE {word} END"
    return f"WHEN '{status}' THEN {word}"


_WORD = f"CASE r.status {' '.join(map(_planned, Status))} END"


class Wanted(NamedTuple):
    """A user's valid row, to compare with the server's list."""

    machine_code: str
    optional: Values
    word: PlanWord


class Outlook(OfRun, KnownReader):
    """One staged or resumable run, as needed by a plan."""

    def counts(self) -> tuple[dict[str, int], str]:
        """Return the rows by every `PlanWord`, and the mark.

        The mark is a digest of the action planned for each row, and of the number of moves.
        """
        counts = dict.fromkeys(map(str, PlanWord), 0)
        total = hashlib.sha256(str(self.moves()).encode())
        words = self._db.execute(
            f"SELECT {_WORD} FROM rows r WHERE r.id BETWEEN ? AND ? ORDER BY r.id",  # noqa: S608  # constants
            span(self._run),
        )
        for (word,) in words:
            counts[word] += 1
            total.update(word.encode())
        return counts, total.hexdigest()

    def user_count(self) -> int:
        """Return the number of users in valid rows."""
        return int_of(
            self._db,
            "SELECT count(DISTINCT r.user_id) FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
            f"WHERE r.run = ? AND {_VALID}",
            (self._run,),
        )

    def users_to_bind(self, first: int | None = None, *, moves: bool) -> int:
        """Return the number of users who would get devices: of all, or of the *first* rows."""
        status = f"r.status IN {sql_list([Status.STAGED, *([Status.MOVED] if moves else [])])}"
        if first is None:
            return int_of(
                self._db,
                "SELECT count(DISTINCT r.user_id) FROM rows r INDEXED BY rows_device "  # noqa: S608  # constants
                f"WHERE r.run = ? AND {_VALID} AND {status}",
                (self._run,),
            )
        return int_of(
            self._db,
            "SELECT count(DISTINCT user_id) FROM (SELECT r.user_id FROM rows r "  # noqa: S608  # constants
            f"WHERE r.id BETWEEN ? AND ? AND {status} ORDER BY r.id LIMIT ?)",
            (*span(self._run), first),
        )

    def user_ids(self) -> Iterator[str]:
        """Yield the users of the valid rows, in order."""
        return user_ids(self._db, self._run)

    def users(self) -> dict[str, dict[str, int]]:
        """Return the number of rows of the first users by `PlanWord`."""
        users: dict[str, dict[str, int]] = {}
        found = self._db.execute(
            f"SELECT coalesce(r.user_id, ''), {_WORD}, count(*) FROM rows r "  # noqa: S608  # constants
            "WHERE r.id BETWEEN ? AND ? GROUP BY 1, 2 ORDER BY 1",
            span(self._run),
        )
        for user, word, count in found:
            if user not in users and len(users) == MOST_USERS:
                break
            users.setdefault(user, {})[word] = count
        return users

    def wanted(self, user_id: str) -> Iterator[Wanted]:
        """Yield a user's valid rows, each device once."""
        found = self._db.execute(
            f"SELECT {_WORD}, r.machine_code, {optional_of('r')} "  # noqa: S608  # constants
            f"FROM rows r INDEXED BY rows_device WHERE r.run = ? AND r.user_id = ? AND {_VALID}",
            (self._run, user_id),
        )
        return (Wanted(code, tuple(optional), PlanWord(word)) for word, code, *optional in found)

    def moved(self) -> tuple[dict[str, str], ...]:
        """Return the first moved rows, with the device's present and future user."""
        found = self._db.execute(
            "SELECT r.machine_code, min(b.user_id), r.user_id FROM rows r "
            "JOIN bindings b ON b.machine_code = r.machine_code AND b.user_id <> r.user_id "
            "WHERE r.id BETWEEN ? AND ? AND r.status = 'moved' GROUP BY r.id LIMIT ?",
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
            "SELECT 2 * (SELECT count(DISTINCT user_id) FROM rows INDEXED BY rows_open "  # noqa: S608  # constants
            f"WHERE {OPEN} AND run = ?1) + "
            "(SELECT count(DISTINCT user_id) FROM unbindings WHERE row BETWEEN ?2 AND ?3 "
            f"AND kind = 'move' AND {UNBIND_OPEN} AND ?4)",
            (self._run, *span(self._run), moves),
        )

    def problems(self, most: int) -> tuple[tuple[str, ...], ProblemGroups]:
        """Return the texts of the first rows that break a rule, and all problems by rule."""
        found = self._db.execute(
            "SELECT r.source, s.form ->> 'name', r.line, r.detail, r.problems FROM rows r "
            "JOIN sources s ON s.run = r.run AND s.source = r.source "
            "WHERE r.id BETWEEN ? AND ? AND r.status = 'invalid' ORDER BY r.id",
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
    per_s: float
    source: str


def last_pace(db: sqlite3.Connection) -> LearnedPace | None:
    """Return the newest pace that a run learned, else the newest measured one; None if unknown."""
    found = db.execute(
        f"SELECT run_id, facts FROM runs WHERE state IN {sql_list(IS_OVER)} "  # noqa: S608  # constants
        "ORDER BY run DESC LIMIT 20"
    ).fetchall()
    earlier = [(run_id, RunFacts(json.loads(text))) for run_id, text in found]
    for run_id, facts in earlier:
        if facts.rate_scope == "x-user-id":
            continue  # these are per user
        for per_s in (facts.limit_per_s, facts.pace_per_s):
            if per_s is not None and per_s > 0:
                return LearnedPace(run_id, float(per_s), facts.pace_from or "learned")
    for run_id, facts in earlier:
        if facts.requests >= LEAST_REQUESTS and facts.sending_s > 0:
            is_per_user = facts.rate_scope == "x-user-id"
            why = "each user has a limit" if is_per_user else "no limit was met"
            per_s = facts.requests / facts.sending_s
            return LearnedPace(run_id, per_s, f"as fast as it went; {why}")
    return None


def has_met(db: sqlite3.Connection) -> bool:
    """Return whether any run of the ledger has sent anything."""
    return bool(int_of(db, "SELECT EXISTS (SELECT 1 FROM runs WHERE facts ->> 'requests' > 0)"))

"""Devices that leave their users: what a run is to unbind, what it took over, what it unbound.

Each function runs inside the caller's transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.clock import DAY_S, iso
from bulkbind.ledger.store import (
    CODES,
    HELD_CODES,
    OPEN,
    RUN_SHIFT,
    UNBIND_OPEN,
    OfRun,
    as_json,
    codes,
    get_facts,
    optional_of,
    span,
    sql_list,
    stored_id,
    stored_time,
)
from bulkbind.model import (
    IS_PENDING,
    Claim,
    Device,
    Held,
    Record,
    RunKind,
    Status,
    Unbinding,
    UnbindKind,
)
from bulkbind.model.fields import OPTIONAL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

_STAGED = f"r.id BETWEEN :first AND :last AND r.status = {CODES[Status.STAGED]}"
_UNLISTED = f"""
{_STAGED} AND NOT EXISTS (SELECT 1 FROM unbindings x WHERE x.row = r.id AND x.kind = 'leave')
"""  # noqa: S608  # constants
"""Rows of which nothing says yet what there is to unbind."""
_OURS = f"({HELD_CODES[Held.BOUND]}, {HELD_CODES[Held.ADOPTED]})"
_LIST = f"""
INSERT INTO unbindings (row, kind, user_id, machine_code, device_id)
SELECT r.id, 'leave', u.user_id, d.machine_code, CAST(b.device_id AS TEXT)
  FROM stored_rows r JOIN devices d ON d.device = r.device JOIN users u ON u.user = d.user
  JOIN stored_bindings b ON b.device = r.device
 WHERE {_UNLISTED} AND b.held IN {_OURS} AND b.device_id NOT NULL
"""  # noqa: S608  # constants
# Rows in doubt of other runs must be settled first: their devices may be ours.
_SURE = f"""
{_UNLISTED} AND NOT EXISTS (SELECT 1 FROM stored_rows o INDEXED BY rows_open
                             WHERE o.device = r.device AND o.{OPEN})
"""  # noqa: S608  # constants
_MARK_GONE = f"""
UPDATE rows SET status = 'already_gone', device_id = f.device_id,
       detail = 'not bound to its user any more since run ' || f.run_id
  FROM (SELECT r.id, coalesce(CAST(f.device_id AS TEXT), '') AS device_id, n.run_id
          FROM stored_rows r
          JOIN former_bindings f ON f.device = r.device
           AND f.until = (SELECT max(until) FROM former_bindings WHERE device = r.device)
          JOIN runs n ON n.run = f.until
         WHERE {_SURE}
           AND NOT EXISTS (SELECT 1 FROM stored_bindings b WHERE b.device = r.device)) f
 WHERE rows.id = f.id
"""  # noqa: S608  # constants
_MARK_NOT_OURS = f"""
UPDATE rows SET status = 'not_ours', message = 'not bound or adopted by this ledger for its user',
       detail = coalesce(f.found, f.other, 'this ledger knows of no such binding')
  FROM (SELECT r.id,
               (SELECT 'found on the server by run ' || n.run_id || ', which did not bind it'
                  FROM stored_bindings b JOIN runs n USING (run)
                 WHERE b.device = r.device) AS found,
               (SELECT 'bound to user ' || min(u.user_id) FROM devices o
                  JOIN stored_bindings b ON b.device = o.device JOIN users u ON u.user = o.user
                 WHERE o.machine_code = d.machine_code AND o.user <> d.user) AS other
          FROM stored_rows r JOIN devices d ON d.device = r.device WHERE {_SURE}) f
 WHERE rows.id = f.id
"""  # noqa: S608  # constants


def mark(db: sqlite3.Connection, values: Mapping[str, object], *, takes_any: bool) -> None:
    """List what the staged rows of an unbind run name, or say why they name nothing to unbind.

    *values*: `first` and `last` row. *takes_any*: leave to the users' lists what there is.
    """
    if takes_any:
        return
    for statement in (_LIST, _MARK_GONE, _MARK_NOT_OURS):
        db.execute(statement, values)


def mark_staged(db: sqlite3.Connection, run: int) -> None:
    """Do the same for all rows of a run, as what they name may have become known since."""
    first, last = span(run)
    takes_any = get_facts(db, "runs", run).takes_any
    mark(db, {"first": first, "last": last}, takes_any=takes_any)


_KINDS = sql_list((UnbindKind.LEAVE, UnbindKind.MOVE))
"""What the run itself unbinds; an undo of it is begun again by hand."""


def withdraw(db: sqlite3.Connection, run: int) -> None:
    """Forget what a run was to unbind and has not sent for; the rest stays to be looked up."""
    db.execute(
        f"DELETE FROM unbindings WHERE row BETWEEN ? AND ? AND kind IN {_KINDS} "  # noqa: S608  # constants
        "AND status = 'staged'",
        span(run),
    )


def last_of(db: sqlite3.Connection, run: int, most: int | None) -> int:
    """Return the last of the first *most* rows that are left to unbind; None: of all."""
    first, last = span(run)
    if most is None:
        return last
    found = db.execute(
        "SELECT max(id) FROM (SELECT id FROM stored_rows WHERE id BETWEEN ? AND ? "  # noqa: S608  # constants
        f"AND status IN {codes([*IS_PENDING, Status.IN_DOUBT])} ORDER BY id LIMIT ?)",
        (first, last, most),
    ).fetchone()[0]
    return first if found is None else int(found)


def unlisted(db: sqlite3.Connection, run: int, last: int) -> dict[str, list[Claim]]:
    """Return the rows up to *last*, by user, of which only lists tell what there is to unbind."""
    found = db.execute(
        "SELECT r.id, u.user_id, d.machine_code FROM stored_rows r "  # noqa: S608  # constants
        f"JOIN devices d ON d.device = r.device JOIN users u ON u.user = d.user WHERE {_UNLISTED} "
        "ORDER BY u.user_id, r.id",
        {"first": span(run)[0], "last": last},
    )
    users: dict[str, list[Claim]] = {}
    for row, user, code in found:
        users.setdefault(user, []).append(Claim(row, Device(user, code)))
    return users


def take(
    db: sqlite3.Connection, now: datetime, run: int, found: Sequence[tuple[Claim, Record]]
) -> None:
    """Adopt what the lists show for rows, and list it to be unbound."""
    adopt(db, now, run, [(claim.device.user_id, record) for claim, record in found])
    db.executemany(
        "INSERT INTO unbindings (row, kind, user_id, machine_code, device_id) "
        "VALUES (?, 'leave', ?, ?, ?)",
        [
            (claim.row, claim.device.user_id, claim.device.machine_code, record.device_id)
            for claim, record in found
        ],
    )


_VALUES = ", ".join(f":{name}" for name in OPTIONAL)
_DEVICE = """
SELECT d.device FROM devices d JOIN users u ON u.user = d.user
 WHERE u.user_id = :user_id AND d.machine_code = :machine_code
"""
_NAMED = f"SELECT n.name FROM names n WHERE n.device = ({_DEVICE}) AND ({optional_of('n')}) IS"  # noqa: S608  # constants
_IS_SAME = "device_id IS excluded.device_id"
_ADOPT = (
    "INSERT OR IGNORE INTO users (user_id) VALUES (:user_id)",
    f"""
INSERT OR IGNORE INTO devices (user, machine_code, {", ".join(OPTIONAL)})
SELECT user, :machine_code, {_VALUES} FROM users WHERE user_id = :user_id
""",  # noqa: S608  # constants
    f"""
INSERT INTO names (device, name, {", ".join(OPTIONAL)})
SELECT d.device, 1 + (SELECT coalesce(max(name), 0) FROM names WHERE device = d.device), {_VALUES}
  FROM devices d
 WHERE d.device = ({_DEVICE}) AND ({optional_of("d")}) IS NOT ({_VALUES})
   AND NOT EXISTS ({_NAMED} ({_VALUES}))
""",  # noqa: S608  # constants
    f"""
INSERT INTO stored_bindings (device, device_id, create_time, since, run, name, held)
SELECT d.device, {stored_id(":device_id")}, {stored_time(":create_time")}, {stored_time(":since")},
       :run, CASE WHEN ({optional_of("d")}) IS ({_VALUES}) THEN 0 ELSE ({_NAMED} ({_VALUES})) END,
       {HELD_CODES[Held.ADOPTED]}
  FROM devices d WHERE d.device = ({_DEVICE})
    ON CONFLICT DO UPDATE SET device_id = excluded.device_id, create_time = excluded.create_time,
       name = excluded.name, since = iif({_IS_SAME}, since, excluded.since),
       run = iif({_IS_SAME}, run, excluded.run),
       held = iif({_IS_SAME} AND held = {HELD_CODES[Held.BOUND]}, held, excluded.held)
""",  # noqa: S608  # constants
)


def adopt(
    db: sqlite3.Connection, now: datetime, run: int, found: Iterable[tuple[str, Record]]
) -> None:
    """Take over what users' lists show; what this ledger has bound stays its own.

    *run*: the one that takes it over. *found*: user and device.
    """
    values = [
        {
            "user_id": user,
            "machine_code": record.machine_code,
            "device_id": record.device_id,
            "create_time": record.create_time,
            "since": iso(now),
            "run": run,
            **dict(zip(OPTIONAL, record.optional, strict=True)),
        }
        for user, record in found
    ]
    for statement in _ADOPT:
        db.executemany(statement, values)


THESE_DEVICES = """json_each(?) t CROSS JOIN users u ON u.user_id = t.value ->> 0
         CROSS JOIN devices d ON d.user = u.user AND d.machine_code = t.value ->> 1"""
"""Devices by the user and the machine code of each `t.value`, a JSON array."""
_REMEMBER = f"""
INSERT OR IGNORE INTO former_bindings (device, until, device_id, create_time, since, run, name)
SELECT b.device, t.value ->> 2, b.device_id, b.create_time, b.since, b.run, b.name
  FROM {THESE_DEVICES} JOIN stored_bindings b ON b.device = d.device
"""  # noqa: S608  # constants


def remember(db: sqlite3.Connection, items: Iterable[Unbinding]) -> None:
    """Keep what is about to be forgotten as bound, so that it can be bound again."""
    keys = [(item.user_id, item.machine_code, item.row >> RUN_SHIFT) for item in items]
    db.execute(_REMEMBER, (as_json(keys),))


_UNBOUND = f"""
SELECT x.user_id, x.machine_code, {optional_of("n")}, {optional_of("d")}, coalesce(f.name, 0)
  FROM unbindings x JOIN users u ON u.user_id = x.user_id
  JOIN devices d ON d.user = u.user AND d.machine_code = x.machine_code
  LEFT JOIN former_bindings f ON f.device = d.device
   AND f.until = (SELECT min(until) FROM former_bindings WHERE device = d.device AND until >= :run)
  LEFT JOIN names n ON n.device = f.device AND n.name = f.name
 WHERE x.row BETWEEN :first AND :last AND x.kind = 'leave' AND x.status = 'unbound'
 ORDER BY x.row
"""  # noqa: S608  # constants


def unbound_by(db: sqlite3.Connection, run: int) -> Iterator[Device]:
    """Yield the devices that left by a run, with the names under which they were bound."""
    first, last = span(run)
    many = len(OPTIONAL)
    found = db.execute(_UNBOUND, {"run": run, "first": first, "last": last})
    for user, code, *names, name in found:
        yield Device(user, code, tuple(names[:many] if name else names[many:]))


def left_in_doubt(db: sqlite3.Connection, run: int) -> dict[str, list[Unbinding]]:
    """Return what other runs may have unbound, which were cut off and replaced, by user."""
    first, last = span(run)
    found = db.execute(
        "SELECT row, kind, user_id, machine_code, device_id "  # noqa: S608  # constants
        "FROM unbindings INDEXED BY unbindings_open "
        f"WHERE {UNBIND_OPEN} AND status = 'claimed' AND kind IN {_KINDS} "
        "AND row NOT BETWEEN ? AND ? ORDER BY user_id, row",
        (first, last),
    )
    users: dict[str, list[Unbinding]] = {}
    for row, kind, user, code, device in found:
        item = Unbinding(row, UnbindKind(kind), user, code, device, was_sent=True)
        users.setdefault(user, []).append(item)
    return users


IS_OPEN = f"""
EXISTS (SELECT 1 FROM unbindings INDEXED BY unbindings_open
         WHERE {UNBIND_OPEN} AND kind IN {_KINDS} AND status = 'claimed')
"""  # noqa: S608  # constants
"""Whether any run may have unbound what no list has shown to be gone."""
_NOW = f"(julianday('now') - 2440587.5) * {DAY_S}"
_MARK_IN_DOUBT = f"""
UPDATE rows SET status = 'in_doubt', silent_at = {_NOW}, misses = 0, missed_at = NULL,
       detail = 'run ' || x.run_id || ' may have unbound it'
  FROM (SELECT r.id, n.run_id FROM unbindings x INDEXED BY unbindings_open
          JOIN users u ON u.user_id = x.user_id
          JOIN devices d ON d.user = u.user AND d.machine_code = x.machine_code
          JOIN stored_rows r ON r.device = d.device
          JOIN runs n ON n.run = x.row >> {RUN_SHIFT}
         WHERE x.{UNBIND_OPEN} AND x.status = 'claimed' AND x.kind IN {_KINDS} AND {_STAGED}) x
 WHERE rows.id = x.id
"""  # noqa: S608  # constants


def mark_in_doubt(db: sqlite3.Connection, values: Mapping[str, object]) -> None:
    """Mark staged rows whose devices another run may have unbound when it was cut off.

    *values*: `first` and `last` row.
    """
    db.execute(_MARK_IN_DOUBT, values)


def kind_of(db: sqlite3.Connection, run: int) -> RunKind:
    """Return what a run does."""
    return OfRun(db, run).kind()

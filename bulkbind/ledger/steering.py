"""How operators steer the run that is sending: by a list in the ledger, without its lock.

The process that sends reads the list several times a second, does what is new, and says so.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.errors import LedgerError, UsageError
from bulkbind.ledger.opening import reading, translated
from bulkbind.ledger.reading import RunReader, find_run
from bulkbind.ledger.runs import live_facts
from bulkbind.ledger.store import get_meta, int_of, put_meta, transaction
from bulkbind.ledger.versions import VERSION
from bulkbind.model import RunState

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.ledger.lock import Holder
    from bulkbind.model import Adjustment, RunSummary

ASKED, DONE = "adjustments", "adjusted"
"""Keys in the ledger: what was asked for last, and the number of what was done last."""
MOST_KEPT = 50


class Sending(NamedTuple):
    """The run that is sending, as far as its ledger knows."""

    number: int
    summary: RunSummary
    holder: Holder


def sending(path: Path, endpoint: str | None, run_id: str | None) -> Sending:
    """Return the run that is sending. Raises: UsageError if none is, or *run_id* is another."""
    with reading(path, endpoint) as db:
        # A killed one may still be called so; the one that tells how it goes, or began last, is it.
        newest = "SELECT coalesce(max(run), 0) FROM runs WHERE state = 'sending'"
        number = live_facts(db).run or int_of(db, newest)
        if number == 0:
            raise UsageError("no run is sending", hint="`bulkbind runs` lists them")
        if run_id and (asked := find_run(db, run_id)) != number:
            other = RunReader(db, asked).run_id()
            raise UsageError(
                f"run {other} is not sending; run {RunReader(db, number).run_id()} is",
                hint="leave RUN away: one run of a ledger sends at a time",
            )
        reader = RunReader(db, number)
        summary, holder = reader.summary(), reader.holder()
    if summary.state is not RunState.SENDING:
        raise UsageError("no run is sending", hint="`bulkbind runs` lists them")
    return Sending(number, summary, holder)


def ask(path: Path, run: int, *, at: str, who: str, why: str, what: dict[str, Any]) -> int:
    """Add to the list what the run is to do; return its number. Raises: LedgerError."""
    address = f"{path.resolve().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as db:
            db.execute("PRAGMA busy_timeout = 10000")
            if int_of(db, "PRAGMA user_version") != VERSION:
                raise LedgerError(
                    f"ledger {path} is used by another version of bulkbind",
                    hint="steer the run with the version that sends it",
                )
            with transaction(db):
                number, items = asked(db)
                item = {"number": number + 1, "at": at, "who": who, "why": why, "what": what}
                kept = [*items, (run, item)][-MOST_KEPT:]
                put_meta(db, ASKED, {"last": number + 1, "items": kept})
                return number + 1
    except sqlite3.Error as error:
        raise translated(path, error) from error


def asked(db: sqlite3.Connection) -> tuple[int, list[tuple[int, Adjustment]]]:
    """Return the number of what was asked for last, and the list: run and what it is to do."""
    said = get_meta(db, ASKED)
    if not isinstance(said, dict):
        return 0, []
    return int(said["last"]), [(int(run), item) for run, item in said["items"]]


def done(path: Path, endpoint: str | None) -> int:
    """Return the number of what the run did last."""
    with reading(path, endpoint) as db:
        said = get_meta(db, DONE)
        return said if isinstance(said, int) else 0

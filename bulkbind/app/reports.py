"""`report`, `runs` and `status`: read the ledger, also while a run is sending."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind import ledger, report
from bulkbind.clock import Clock, SystemClock, iso
from bulkbind.files import drafts, put_in_place
from bulkbind.ledger import Holder, RunReader, UndoReader, all_runs, find_run, ledger_of, reading
from bulkbind.model import NEEDS_PERSON, PENDING, LiveFacts, RunState, Status, Waits
from bulkbind.report.measures import left_s, rate_over_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.ledger import RunName
    from bulkbind.model import RunSummary
    from bulkbind.settings import Settings

SHORTEST_S = 0.1
MUTE_S = 5.0
"""A process says each second how it does; where it has not for longer, its words hold no more."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run."""

    summary: RunSummary
    done: int
    """Rows that have ended; those in doubt have only once the run is done with them."""
    per_s: float
    """Rows that ended per second of late."""
    measured_s: float
    """The time over which that was measured."""
    holder: Holder
    """The process that sends it, or did so last."""
    is_alive: bool | None
    """Whether that exists; None if that is not known, as on another host, or it has ended."""
    took_s: float
    """Since its process, or the one that is gone, began to send; 0 where none does."""
    last_settled_at: str
    problems: tuple[str, ...]
    """The newest rows that need a person."""
    live: LiveFacts
    """What its process said of it last; empty if it is not sending."""
    said_s: float
    """How many seconds ago."""
    to_do: int
    """Rows that its process has still to settle: not all that are left, if `--first` says so."""
    settled_s: float
    """How many seconds ago a row ended last, or its process began."""
    unbound_since: int
    """Rows that it counts as bound and that were unbound since, such as by the undo of a run."""

    @property
    def is_sending(self) -> bool:
        """Whether its process sends it."""
        return self.summary.state is RunState.SENDING and not self.summary.is_cut_off

    @property
    def is_undoing(self) -> bool:
        """Whether a process undoes it: then rate, time and what waits are those of the undo."""
        return self.summary.undo is not None and self.summary.undo["state"] == RunState.SENDING

    @property
    def is_mute(self) -> bool:
        """Whether its process has said nothing for long: it hangs, or is suspended."""
        return self.is_at_work and bool(self.live) and self.said_s > MUTE_S

    @property
    def is_at_work(self) -> bool:
        """Whether a process sends or undoes it."""
        return self.is_sending or self.is_undoing

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, None if nothing moves, or nobody knows when it will."""
        if not self.is_at_work or self.live.is_blocked or self.is_mute:
            return None
        return left_s(
            self.to_do,
            self.per_s,
            self.live.allowed_per_s,
            self.waiting,
            over_s=self.measured_s,
            since_s=self.settled_s,
        )

    @property
    def waiting(self) -> Waits:
        """What waits now."""
        said = self.live.waiting
        return said._replace(
            left_s=max(0.0, said.left_s - self.said_s),
            closed_s=max(0.0, said.closed_s - self.said_s),
        )


def status(settings: Settings, run_id: str | None = None, clock: Clock | None = None) -> RunStatus:
    """Return the state of a run; the newest one unless *run_id* is given. Read-only.

    Raises: UsageError if there is no such run, LedgerError.
    """
    now = (clock or SystemClock()).utc_now()
    with reading(ledger_of(settings), settings.api.endpoint) as db:
        reader = RunReader(db, find_run(db, run_id))
        summary, holder = reader.summary(), reader.holder()
        is_sending = summary.state is RunState.SENDING
        live, moving = reader.live() if is_sending else LiveFacts(), reader.settled_since
        undo = None
        if summary.undo and summary.undo["state"] == RunState.SENDING:
            undone = UndoReader(db, find_run(db, summary.run_id))
            undo, live, moving = undone.summary(), undone.live(), undone.settled_since
            holder = Holder(undo.pid, undo.host) if undo else holder

        def ended(longest_s: float) -> tuple[int, str]:
            return moving(iso(_since(now, live, longest_s)))

        longest_s = rate_over_s(lambda seconds: ended(seconds)[0])
        recent, newest = ended(longest_s)
        last = newest
        to_do = live.to_do
        if to_do is not None:
            to_do = max(0, to_do - moving(live.at)[0])
        if undo:
            last = reader.settled_since("")[1]
        problems = reader.newest(NEEDS_PERSON, 3)
        unbound_since = reader.unbound_since()
    measured_s = max((now - _since(now, live, longest_s)).total_seconds(), SHORTEST_S)
    open_rows = (PENDING,) if summary.state is RunState.DONE else (PENDING, Status.IN_DOUBT)
    left = sum(summary.counts.get(status, 0) for status in open_rows)
    is_moving = is_sending or undo is not None
    return RunStatus(
        summary=summary,
        done=summary.total - left,
        per_s=recent / measured_s if is_moving else 0.0,
        measured_s=measured_s,
        holder=holder,
        is_alive=holder.is_alive() if is_moving else None,
        took_s=_ago_s(now, live.began_at),
        last_settled_at=last,
        problems=problems,
        live=live,
        said_s=_ago_s(now, live.at),
        to_do=left if to_do is None else to_do,
        settled_s=_ago_s(now, max(newest, live.began_at) if live else ""),
        unbound_since=unbound_since,
    )


def _ago_s(now: datetime, moment: str) -> float:
    return (now - datetime.fromisoformat(moment)).total_seconds() if moment else 0.0


def _since(now: datetime, live: LiveFacts, longest_s: float) -> datetime:
    """Return since when a rate is measured: not before its process sent, and knew a limit."""
    moments = (datetime.fromisoformat(text) for text in (live.began_at, live.known_at) if text)
    return max((now - timedelta(seconds=longest_s), *moments))


@dataclass(frozen=True, slots=True)
class Report:
    """A written report."""

    summary: RunSummary
    folder: Path
    files: list[Path]


def _nothing(_run_id: str) -> str:
    return ""


def write_report(
    settings: Settings,
    run_id: str | None = None,
    *,
    attempts: bool = False,
    goes_on: Callable[[str], str] = _nothing,
) -> Report:
    """Write a run's report files again; the newest run's unless *run_id* is given.

    *attempts*: also write `attempts.csv`, the attempts that were not accepted. *goes_on*: returns
    the whole command that resumes a run; empty: not known.

    Raises: UsageError if there is no such run, LedgerError if something cannot be read or written.
    """
    with reading(ledger_of(settings), settings.api.endpoint) as db:
        reader = RunReader(db, find_run(db, run_id))
        folder = settings.out or Path("bulkbind-report") / reader.run_id()
        summary, files = report.write_report(reader, folder, goes_on)
        if attempts:
            files.append(report.write_attempts(reader, folder))
    return Report(summary, folder, files)


def draft_report(
    settings: Settings,
    run_id: str,
    is_last: Callable[[], bool],
    *,
    goes_on: Callable[[str], str] = _nothing,
) -> Report | None:
    """Write the report of a run that is about to end; return None if its rows change after all.

    What tells of rows is written at once, and takes its place with the rest after the end.

    *is_last*: waits for the end of the run; returns whether no row has changed since this began.

    Raises: LedgerError if something cannot be read or written.
    """
    path, endpoint = ledger_of(settings), settings.api.endpoint
    folder = settings.out or Path("bulkbind-report") / run_id
    with drafts(folder) as draft:
        with reading(path, endpoint) as db:
            run = find_run(db, run_id)
            reader = RunReader(db, run)
            files, users = report.write_rows(reader, draft)
            counted = reader.counted
        report.load_page()
        if not is_last():
            return None
        with reading(path, endpoint) as db:
            reader = RunReader(db, run, counted)
            rows = report.RowFiles(put_in_place(draft, folder, files), users)
            summary, written = report.write_rest(reader, folder, rows, goes_on)
    return Report(summary, folder, written)


def write_forms(
    settings: Settings,
    run_id: str | None = None,
    *,
    forms: Sequence[str],
    only: Sequence[str] = (),
    goes_on: Callable[[str], str] = _nothing,
) -> Report:
    """Write a run's report in other forms, of `report.FORMS`; in manifest order.

    *only*: conditions such as `status=failed|invalid,reason=space`; all must hold.
    *goes_on*: as in `write_report`.

    Raises: UsageError, LedgerError.
    """
    wanted = report.parse_filter(only)
    with reading(ledger_of(settings), settings.api.endpoint) as db:
        reader = RunReader(db, find_run(db, run_id))
        summary = reader.summary()
        summary = replace(summary, goes_on=goes_on(summary.run_id))
        folder = settings.out or Path("bulkbind-report") / summary.run_id
        files = [report.write_form(reader, summary, folder, form, wanted) for form in forms]
    return Report(summary, folder, files)


def run_names(settings: Settings, most: int) -> list[RunName]:
    """Return ids and names of the newest runs, without their rows. Raises: LedgerError."""
    return ledger.run_names(ledger_of(settings), settings.api.endpoint, most)


def runs(settings: Settings) -> list[dict[str, Any]]:
    """Return the runs in the ledger, newest first. Raises: LedgerError."""
    return all_runs(ledger_of(settings), settings.api.endpoint)

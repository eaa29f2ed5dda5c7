"""`run` and `resume`: stage the whole manifest, show what it would do, ask, send, report."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shlex
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.agreement import is_agreed, may_go_on
from bulkbind.app.inputs import Named, left_out_of, no_rows, too_few
from bulkbind.app.refresh import refresh
from bulkbind.app.scope import (
    in_scope,
    leavers_of,
    refuse_broken,
    refuse_unsure,
)
from bulkbind.app.session.listener import Listener
from bulkbind.app.session.opening import opened, read_heads
from bulkbind.app.session.sending import RunResult, Sent, result, send
from bulkbind.app.session.session import (
    Leave,
    Session,
    authorized,
    before_sending,
    held_ledger,
    holder,
    refuse_stopped,
    time_boxed,
)
from bulkbind.clock import Clock, SystemClock
from bulkbind.engine import StopSignal
from bulkbind.errors import (
    BulkbindError,
    ExitCode,
    InvalidRowsError,
    LedgerError,
    ManifestError,
    PlanMovedError,
    UsageError,
)
from bulkbind.ledger import (
    LeaverReader,
    Outlook,
    RunReader,
    find_run,
    has_met,
    last_pace,
    ledger_of,
    replaced,
)
from bulkbind.manifest import ChosenRows, Manifest, ManifestFile, batches_of, digest
from bulkbind.manifest.duplicates import Policy, Seen
from bulkbind.model import (
    COMES_BACK,
    Forecast,
    GoodRows,
    Plan,
    PlanWord,
    RunFacts,
    RunKind,
    Status,
    UnbindKind,
)
from bulkbind.model.wording import counted, share, verb
from bulkbind.pacing import Left
from bulkbind.redaction import line, lines
from bulkbind.report.measures import left_to_others
from bulkbind.report.problem_text import MOST_LINES, problem_lines
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from bulkbind.ledger import Ledger, View
    from bulkbind.model import CheckedRow, Leavers
    from bulkbind.settings import Settings

MOST_PROBLEMS = 10
LINES_AROUND = 6
"""Lines of a screen left to what stands around the problems."""


def read_plan(
    db: View,
    run: int,
    settings: Settings,
    manifests: tuple[str, ...],
    digest: str,
    *,
    going_on: str = "",
    is_whole: bool = False,
    first: int | None = None,
) -> Plan:
    """Return the plan of a run from a connection whose view does not change.

    Args:
        db: The ledger.
        run: The run's number.
        settings: Those of the run.
        manifests: Their names.
        digest: Theirs.
        going_on: The run's id if it is resumed.
        is_whole: Count by user as well, which the question before a run does not need.
        first: A pilot, as in `run`.
    """
    outlook = Outlook(db, run)
    counts, mark = outlook.counts()
    left_out = outlook.facts().left_out
    if left_out is not None:
        counts[PlanWord.LEFT_OUT] = left_out["rows"]
    texts, groups = outlook.problems(MOST_PROBLEMS)
    refuses = settings.manifest.refuses_invalid and not going_on
    leavers = leavers_of(db, run, settings.manifest, is_agreed=bool(going_on))
    return Plan(
        manifests=manifests,
        counts=counts,
        users=outlook.users() if is_whole else {},
        user_count=outlook.user_count(),
        moved=outlook.moved(),
        problems=texts,
        forecast=_forecast(db, outlook, run, settings, counts, first=first, leavers=leavers),
        digest=digest,
        mark=mark,
        going_on=going_on,
        broken=tuple(groups),
        is_refused=refuses and groups.count > 0,
        first=first,
        left_out=left_out,
        replaces=None if going_on else replaced(db, run),
        leavers=leavers,
        kind=outlook.kind(),
    )


def _forecast(  # those of `read_plan`
    db: View,
    outlook: Outlook,
    run: int,
    settings: Settings,
    counts: Mapping[str, int],
    *,
    first: int | None,
    leavers: Leavers | None,
) -> Forecast:
    """Return what a run would send, and how fast."""
    moves = 0 if first else outlook.moves()
    sent = counts[PlanWord.BIND] + counts[PlanWord.UNBIND]
    sent = sent if first is None else min(first, sent)
    binds, unbinds = (sent, 0) if outlook.kind() is RunKind.BIND else (0, sent)
    left = leavers.devices if leavers else 0
    per_s, source = _rate(db, settings)
    return Forecast(
        binds=binds + (counts[PlanWord.MOVED] if moves else 0),
        lists=outlook.lists(moves=moves > 0)
        + outlook.lists_to_unbind(first)
        + (LeaverReader(db, run).users() if left else 0),
        per_s=per_s,
        source=source,
        unbinds=moves + unbinds + left,
        moves=moves,
        users=outlook.users_to_bind(first, moves=moves > 0),
    )


def _rate(db: View, settings: Settings) -> tuple[float | None, str]:
    """Return the expected rate and its origin."""
    cap = None if settings.send.is_per_user else settings.send.rate
    known = last_pace(db)
    if known is None:
        met = "no run was long enough to tell" if has_met(db) else "no run has met this gateway yet"
        return (cap, "set by --rate") if cap else (None, met)
    left = Left(settings.send.share or 1.0, settings.send.reserve or 0.0)
    per_s = left.of(known.per_s) if known.is_limit else known.per_s
    if cap and cap <= per_s:
        return cap, "set by --rate"
    others = left_to_others(left.share, left.per_s) if known.is_limit else ""
    of_run = f"run {known.run_id}: " if known.run_id else ""
    return per_s, f"{of_run}{known.source}{others}"


def refuse_moved(plan: Plan, wanted: Plan | None) -> None:
    """Check that *plan* is the one that was agreed to. Raises: PlanMovedError."""
    if wanted is None or (plan.digest, plan.mark) == (wanted.digest, wanted.mark):
        return
    if plan.digest != wanted.digest:
        what = "the manifest, its mapping or --user-id is another than when the plan was made"
    else:
        changed = [
            f"{word}: {wanted.counts.get(word, 0):,} planned, {count:,} now"
            for word, count in plan.counts.items()
            if count != wanted.counts.get(word, 0)
        ]
        how = ", ".join(changed) or "other rows than planned, though as many of each"
        what = f"the ledger, --rebind or --move is another than when the plan was made ({how})"
    raise PlanMovedError(
        f"{what}, so nothing was sent",
        hint="`bulkbind plan MANIFEST --save FILE` shows a new one, and keeps it",
    )


async def run(
    manifests: Sequence[str | Path | Named],
    settings: Settings,
    *,
    first: int | None = None,
    wanted: Plan | None = None,
    note: str = "",
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> RunResult:
    """Bind every device of the manifests to its user, and write a result for every row.

    An unfinished run of the same manifests is resumed under its id.

    Args:
        manifests: Paths; `-` is standard input.
        settings: See `bulkbind.settings`; must include an endpoint and a token.
        first: A pilot: only this many of the rows that need sending are sent, then the run stops;
            the same call resumes it. None: all rows.
        wanted: The plan that was agreed to; nothing is sent if manifest or ledger have changed.
        note: What the operator says of the run, such as the number of a change.
        listener: Receives progress and is asked before anything is sent; agrees by default.
        stop: Set it to stop and drain the run.
        clock: For tests.

    Returns: The report, and the exit code of the command.

    Raises: UsageError, ManifestError, InvalidRowsError (with `on_invalid: abort` or `sync`),
        PlanMovedError, TooManyUnbindsError, LedgerBusyError, LedgerError. Only after a LedgerError
        may anything have been sent.
    """
    session = replace(new_session(settings, listener, stop, clock), note=note)
    return await send_manifests(session, manifests, first=first, wanted=wanted)


async def send_manifests(
    session: Session,
    manifests: Sequence[str | Path | Named],
    *,
    first: int | None = None,
    wanted: Plan | None = None,
) -> RunResult:
    """Do with manifests what the session says: bind or unbind. For arguments and errors see `run`.

    An unfinished run of the same manifests that does the same is resumed.
    """
    session = in_scope(session, manifests, first=first)
    async with time_boxed(session):
        files = await opened(session, manifests)
        session = await authorized(session)
        readable = await read_heads(session, files)
        probe(session.settings)
        async with held_ledger(session) as ledger:
            ended = await bind_all(session, ledger, readable, files, first=first, wanted=wanted)
    if isinstance(ended, RunResult):
        return ended
    return await asyncio.to_thread(result, session, ended)


async def resume(
    settings: Settings,
    run_id: str | None = None,
    *,
    first: int | None = None,
    devices: int | None = None,
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> RunResult:
    """Resume the unfinished run from the ledger alone; the manifest is not needed.

    *first*: as in `run`. *devices*: as in `unbind`, for a run of which only a pilot was agreed to.

    Raises: UsageError if there is none, or *run_id* is another run; otherwise as `run`.
    """
    session = new_session(settings, listener, stop, clock)
    async with time_boxed(session):
        session = await authorized(session)
        ended = await _resume(session, run_id, first, devices)
    if isinstance(ended, RunResult):
        return ended
    return await asyncio.to_thread(result, session, ended)


async def _resume(
    session: Session, run_id: str | None, first: int | None, devices: int | None
) -> Sent | RunResult:
    async with held_ledger(session) as ledger:
        unfinished = await ledger.unfinished()
        if unfinished is None or (run_id and not unfinished[1].startswith(run_id)):
            other, path = unfinished and unfinished[1], ledger_of(session.settings)
            raise await ledger.read(lambda db: _not_to_resume(db, path, run_id, other))
        number, known_id = unfinished
        if await ledger.kind_of(number) is RunKind.UNBIND:
            session = replace(session, leave=Leave(devices=devices))
            with before_sending(session):
                plan = await ledger.read(
                    lambda db: read_plan(
                        db,
                        number,
                        session.settings,
                        _names(db, number),
                        "",
                        going_on=known_id,
                        first=first,
                    )
                )
                if not await may_go_on(session, ledger, number, plan):
                    return declined(plan)
        elif first is not None and await ledger.unbindings.count_left(number, UnbindKind.LEAVE):
            raise UsageError(
                f"run {known_id} unbinds what its manifest lacks, which a pilot (--first) does not",
                hint="resume it without --first",
            )
        return await send(session, ledger, number, known_id, first)


def _not_to_resume(db: View, path: Path, run_id: str | None, other: str | None) -> UsageError:
    """Return why a run cannot be resumed; *other* is one that can. Raises: UsageError (no run)."""
    if not run_id:
        return UsageError(
            f"no unfinished run in the ledger {path}", hint="`bulkbind runs` lists what is in it"
        )
    number = find_run(db, run_id)
    summary = RunReader(db, number).summary()
    does = "run" if summary.kind is RunKind.BIND else "unbind"
    anew = f"`bulkbind {does} {shlex.join(summary.manifests)}`"
    also = f"; unfinished is run {other}" if other else ""
    if summary.superseded_by:
        return UsageError(
            f"run {summary.run_id} is over: run {summary.superseded_by} took its place{also}",
            hint=f"{anew} runs its manifest again",
        )
    left = any(summary.counts.get(status) for status in COMES_BACK)
    to_do = (
        f"what it left is in its failed file: fix that, and {does} it; or {anew}"
        if left
        else f"none of its rows is left to fix or try again; {anew} goes through them anew"
    )
    return UsageError(f"run {summary.run_id} is finished{also}", hint=to_do)


def _names(db: View, run: int) -> tuple[str, ...]:
    return tuple(source.name for source in RunReader(db, run).sources())


def declined(plan: Plan) -> RunResult:
    """Return how a command ends whose plan nobody agreed to."""
    what = "sent" if plan.kind is RunKind.BIND else "unbound"
    return RunResult(None, ExitCode.DECLINED, f"declined: nothing was {what}")


async def bind_all(
    session: Session,
    ledger: Ledger,
    manifests: Sequence[Manifest],
    files: Sequence[ManifestFile],
    *,
    first: int | None = None,
    wanted: Plan | None = None,
) -> Sent | RunResult:
    """Stage manifests, or resume their unfinished run, and send it.

    *wanted*: the plan that was agreed to; another one is refused.

    Returns: What was sent, or how the command ends without a run.
    Raises: as `run`.
    """
    with before_sending(session):
        ready = await _ready(session, ledger, manifests, files, first, wanted)
    if isinstance(ready, RunResult):
        return ready
    number, run_id = ready
    return await send(session, ledger, number, run_id, first)


async def _ready(  # noqa: PLR0917  # those of `bind_all`
    session: Session,
    ledger: Ledger,
    manifests: Sequence[Manifest],
    files: Sequence[ManifestFile],
    first: int | None,
    wanted: Plan | None,
) -> tuple[int, str] | RunResult:
    """Return number and id of a run that can be sent, or how the command ends without one."""
    known = await in_thread(digest_of, session, files)
    unfinished = await ledger.unfinished(known)
    if unfinished is None:
        return await Staging(session, ledger, manifests, files).run(known, wanted, first)
    number, run_id = unfinished
    names = tuple(manifest.source.name for manifest in manifests)
    plan = await ledger.read(
        lambda db: read_plan(
            db, number, session.settings, names, known, going_on=run_id, first=first
        )
    )
    refuse_moved(plan, wanted)
    session.listener.notice(f"resuming run {run_id}, which was not finished")
    if not await may_go_on(session, ledger, number, plan):
        return declined(plan)
    if facts := noted(session):
        await ledger.add_facts(number, facts)
    if session.settings.manifest.reads_lists and session.leave is None:
        session.listener.notice("the server's lists are read before a run begins: not for this")
    return number, run_id


def new_session(
    settings: Settings,
    listener: Listener | None,
    stop: StopSignal | None,
    clock: Clock | None,
) -> Session:
    """Return a session without credentials, with defaults for what is None."""
    return Session(settings, clock or SystemClock(), stop or StopSignal(), listener or Listener())


def digest_of(session: Session, files: Sequence[ManifestFile]) -> str:
    """Return the digest of the files, the settings that determine the rows, and what is done.

    Raises: ManifestError if a file cannot be read.
    """
    known = digest(files, session.settings.manifest)
    if session.leave is None:
        return known
    return f"{RunKind.UNBIND}{'-any' if session.leave.takes_any else ''}:{known}"


def noted(session: Session) -> RunFacts:
    """Return the operator's note as a fact of the run; empty if there is none."""
    facts = RunFacts()
    if session.note:
        facts.note = str(line(session.note))  # without secrets
    return facts


class Staging:
    """Stages manifests in the ledger as a confirmed run, or leaves nothing behind."""

    def __init__(
        self,
        session: Session,
        ledger: Ledger,
        manifests: Sequence[Manifest],
        files: Sequence[ManifestFile],
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._manifests = manifests
        self._files = files
        self._run_id = new_id(session.clock)
        self._seen = Seen()

    async def run(
        self, known: str, wanted: Plan | None, first: int | None
    ) -> tuple[int, str] | RunResult:
        """Return number and id of the confirmed run, or how the command ends without one.

        *wanted*: the plan that was agreed to; another one is refused. *first*: a pilot.
        """
        number = await self.stage(known)
        async with self._discarding(number):
            counts = await self._ledger.counts(number)
            await self._refuse_invalid(number, counts)
            if self._session.settings.manifest.sync:
                refuse_broken(counts)
            plan = await self._plan(number, known, first)
            refuse_moved(plan, wanted)
            if self._session.settings.manifest.reads_lists and self._session.leave is None:
                await refresh(self._session, self._ledger, number)
                plan = await self._plan(number, known, first)
            if not await is_agreed(self._session, self._ledger, number, plan):
                await self._ledger.discard(number)
                return declined(plan)
        withdrawn = await self._ledger.confirm(number)
        if withdrawn:
            left = counted(withdrawn, "rows")
            self._session.listener.notice(
                f"{left} that an older run had left {verb(withdrawn, 'is', 'are')} withdrawn"
            )
        return number, self._run_id

    async def _plan(self, number: int, known: str, first: int | None) -> Plan:
        names = tuple(manifest.source.name for manifest in self._manifests)
        return await self._ledger.read(
            lambda db: read_plan(db, number, self._session.settings, names, known, first=first)
        )

    async def stage(self, known: str) -> int:
        """Stage the manifests, and return the number of the run; on an error leave nothing behind.

        *known*: the digest of the files, which must not change meanwhile.
        """
        number = await self._begin(self._run_id, known)
        async with self._discarding(number):
            if not await self._repeated(number):
                await self._stage(number)
                await self._refuse_changed(known)
                reads = self._session.settings.manifest
                policy = Policy(reads.on_duplicate, reads.on_conflict)
                names = [manifest.source.name for manifest in self._manifests]
                await self._ledger.mark_repeats(number, self._seen.repeats(names, policy))
            if self._session.settings.manifest.sync:
                await self._stage_leavers(number)
            if facts := self._facts():
                await self._ledger.add_facts(number, facts)
            await self._ledger.ready(number)
        return number

    async def _stage_leavers(self, number: int) -> None:
        counts = await self._ledger.counts(number)
        await in_thread(refuse_unsure, self._manifests, self._files, sum(counts.values()))
        await self._ledger.stage_leavers(number)

    def _facts(self) -> RunFacts:
        """Return what is known of the run once its manifests are staged."""
        facts = noted(self._session)
        if (left_out := left_out_of(self._manifests)) is not None:
            facts.left_out = left_out
        return facts

    @asynccontextmanager
    async def _discarding(self, number: int) -> AsyncIterator[None]:
        """Discard a run that is not confirmed if the block fails, unless the ledger does."""
        try:
            yield
        except LedgerError:
            raise
        except BulkbindError:
            if not self._session.stop.is_set:  # else the next command does: it may take long
                await self._ledger.discard(number)
            raise

    async def _begin(self, run_id: str, known: str) -> int:
        leave = self._session.leave
        kind = RunKind.BIND if leave is None else RunKind.UNBIND
        number = await self._ledger.begin(run_record(self._session, run_id, known) | {"kind": kind})
        if leave is not None and leave.takes_any:
            facts = RunFacts()
            facts.takes_any = True
            await self._ledger.add_facts(number, facts)
        return number

    async def _repeated(self, number: int) -> bool:
        """Return whether the rows were taken from an earlier run, as nothing has changed since.

        The manifest is read where rows are to be sent again, lists to be read, or other files say
        which rows are meant.
        """
        settings = self._session.settings.manifest
        is_chosen = any(isinstance(manifest, ChosenRows) for manifest in self._manifests)
        is_unbind = self._session.leave is not None
        if settings.rebind or settings.reads_lists or is_chosen or is_unbind:
            return False
        forms = [manifest.source for manifest in self._manifests]
        found = await self._ledger.repeat(number, forms)
        if found is None:
            return False
        self._on_batch(found.rows)
        for text in [text for texts in found.notices for text in texts]:
            self._session.listener.notice(text)
        if fault := too_few(found.rows, settings):
            raise fault
        return True

    async def _stage(self, number: int) -> None:
        position = 0
        for source, manifest in enumerate(self._manifests):
            before = position
            position = await self._ledger.stage(
                number,
                source,
                manifest.source,
                position,
                self._rows(source, position, manifest),
                rebind=self._session.settings.manifest.rebind,
                keep_duplicates=self._session.settings.manifest.on_duplicate == "error",
                move=self._session.settings.manifest.move,
                on_batch=self._on_batch,
            )
            await self._ledger.note(number, source, manifest.notices)
            for notice in manifest.notices:
                self._session.listener.notice(notice)
            is_any = self._session.is_inbox
            if warning := no_rows(manifest, position - before, is_any=is_any):
                self._session.listener.warning(warning)
        reads = self._session.settings.manifest
        left_out = None if reads.keeps_left_out else left_out_of(self._manifests)
        if fault := too_few(position + (left_out["rows"] if left_out else 0), reads):
            raise fault

    def _rows(
        self, source: int, position: int, manifest: Manifest
    ) -> Iterator[CheckedRow | GoodRows]:
        """Yield the rows until the command stops. Raises: InterruptedRunError."""
        for rows in batches_of(manifest):
            if self._session.stop.is_set:
                refuse_stopped(self._session)
            self._seen.add(source, position, rows)
            position += len(rows)
            yield from (rows,) if isinstance(rows, GoodRows) else rows

    def _on_batch(self, position: int) -> None:
        refuse_stopped(self._session)
        self._session.listener.staged(position)
        self._session.pulse.beat()

    async def _refuse_changed(self, known: str) -> None:
        if await in_thread(digest_of, self._session, self._files) != known:
            raise ManifestError(
                "a manifest changed while it was read", hint="run again when it is complete"
            )

    async def _refuse_invalid(self, number: int, counts: dict[Status, int]) -> None:
        invalid = counts.get(Status.INVALID, 0)
        if invalid and self._session.settings.manifest.on_invalid == "abort":
            _, groups = await self._ledger.read(lambda db: Outlook(db, number).problems(0))
            broken = share(invalid, sum(counts.values()), "rows", "breaks", "break")
            shown = problem_lines(tuple(groups), MOST_LINES - LINES_AROUND)
            kind = await self._ledger.kind_of(number)
            name = "run" if kind is RunKind.BIND else "unbind"
            raise InvalidRowsError(
                lines([f"{broken} a rule, so nothing was sent:", *shown]),
                hint="`bulkbind validate MANIFEST --all` lists every one; "
                f"`bulkbind {name} MANIFEST --on-invalid skip` sends the rest",
            )


def probe(settings: Settings) -> None:
    """Check, before anything is sent, that the report can be written. Raises: UsageError."""
    folder = (settings.out or Path("bulkbind-report")).absolute()
    try:
        place = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError as error:
        raise UsageError(
            f"the report cannot go to {folder}: {error.strerror}", hint="choose another --out"
        ) from error
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        why = "cannot be written" if place.is_dir() else "is not a folder"
        raise UsageError(
            f"the report cannot go to {folder}: {place} {why}", hint="choose another --out"
        )


def run_record(session: Session, run_id: str, digest: str) -> dict[str, object]:
    """Return what the ledger holds of a run from its beginning."""
    who = holder(session.clock)
    return {
        "run_id": run_id,
        "digest": digest,
        "created_at": who.pop("started_at"),
        "settings": json.dumps(session.settings.public()),
        "scope": session.scope,
        **who,
    }


def new_id(clock: Clock) -> str:
    """Return a run id, `20261123-204403-9f3c52d1`; ids sort by creation time.

    UTC, then in hex four digits for the fraction of the second and four random ones. Older versions
    had random ones only.
    """
    now = clock.utc_now()
    part = now.microsecond * 0x10000 // 1_000_000
    return f"{now:%Y%m%d-%H%M%S}-{part:04x}{secrets.token_hex(2)}"

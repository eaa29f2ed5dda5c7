"""`run INBOX --archive DONE`: run every complete manifest of a folder, each as a run of its own.

The state of a file follows from the ledger and from the folder it is in. So a process may be killed
between any two steps, and the next one does the step that is missing:

    in the inbox, no run       -> stage and send
    in the inbox, unfinished   -> resume its run, before any other file
    in the inbox, in doubt     -> run it again: what is bound is skipped, the doubt is settled
    in the inbox, finished     -> write its report, copy failed.csv, then move it (one rename)
    in the inbox, with trouble -> try again; told once, as long as file and trouble are the same
    in the archive             -> nothing

Others write to the inbox. So a file is opened once, no link is followed, and only the file that was
read is moved. A finished run belongs to a file with its name and content that was last touched
before the run began; so the same file, dropped again, is a new one.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count as naturals
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.app.inputs import is_owner_file, shown
from bulkbind.app.run import bind_all, new_session, probe
from bulkbind.app.scope import with_scope
from bulkbind.app.session.opening import on_read, read_heads
from bulkbind.app.session.sending import RunResult, Sent, result
from bulkbind.app.session.session import (
    Session,
    authorized,
    before_sending,
    held_ledger,
    time_boxed,
)
from bulkbind.clock import Clock, iso
from bulkbind.errors import (
    ExitCode,
    InterruptedRunError,
    InvalidRowsError,
    LedgerError,
    ManifestError,
    TooManyUnbindsError,
    UnreadableListError,
    UsageError,
    worst,
)
from bulkbind.files import copy_file, fitting_name, make_folder, read_whole, replacing, write_json
from bulkbind.manifest import PACKED, ManifestFile, digest
from bulkbind.manifest.opened import Identity, open_once
from bulkbind.model import NEEDS_PERSON, RunFacts, RunState, Status
from bulkbind.model.wording import verb
from bulkbind.report.summary import leaver_lines, without_examples
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.reports import Report
    from bulkbind.app.session.listener import Listener
    from bulkbind.engine import StopReason, StopSignal
    from bulkbind.errors import BulkbindError
    from bulkbind.ledger import Ledger
    from bulkbind.model import Example
    from bulkbind.settings import Settings

MIN_AGE_S = 60.0
"""A file touched more recently may still be written to."""
UNFINISHED_NAMES = (".part", ".tmp", ".filepart", "~")
"""Endings of files that a program is still writing."""


def folders(inbox: Path, archive: Path) -> tuple[Path, Path]:
    """Return both folders as absolute paths; create the archive. Raises: UsageError."""
    if not inbox.is_dir():
        raise UsageError(f"--archive wants a folder of manifests, and {inbox} is none")
    inbox = inbox.resolve()
    try:
        make_folder(archive)
    except OSError as error:
        raise UsageError(f"archive {archive} cannot be made: {error.strerror}") from error
    archive = archive.resolve()
    if archive == inbox:
        raise UsageError("--archive must be another folder than the inbox")
    if archive.stat().st_dev != inbox.stat().st_dev:
        raise UsageError(
            f"archive {archive} lies on another file system than inbox {inbox}",
            hint="a file is moved in one step, so both must be on the same one",
        )
    for folder in (inbox, archive):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise UsageError(f"folder {folder} cannot be written", hint="files are moved there")
    return inbox, archive


@dataclass(frozen=True, slots=True)
class Dropped:
    """A file in the inbox, as it was looked at."""

    path: Path
    identity: Identity

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.name


def complete_files(inbox: Path, now_s: float, min_age_s: float) -> tuple[list[Dropped], int]:
    """Return the complete files, oldest first, and how many are not complete yet.

    *now_s*: seconds since 1970, local clock; *min_age_s*: a file touched later is not complete.
    """
    found: list[tuple[float, str, Dropped]] = []
    waiting = 0
    for path in inbox.iterdir():
        known = regular(path)
        if known is None or path.name.startswith(".") or is_owner_file(path.name):
            continue
        if path.name.lower().endswith(UNFINISHED_NAMES):
            continue
        if known.st_ctime > now_s - min_age_s:
            waiting += 1
        else:
            found.append((known.st_mtime, path.name, Dropped(path, Identity.of(known))))
    return [dropped for _, _, dropped in sorted(found, key=itemgetter(0, 1))], waiting


def regular(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for links, folders and missing files."""
    try:
        known = path.lstat()
    except OSError:
        return None
    return known if stat.S_ISREG(known.st_mode) else None


def _identity(path: Path) -> Identity | None:
    known = regular(path)
    return None if known is None else Identity.of(known)


def move(path: Path, read: Identity, target: Path) -> bool:
    """Move a file in one step if it is the one that was read, overwriting nothing.

    Raises: OSError; LedgerError if another file was moved that took its name.
    """
    if _identity(path) != read:
        return False
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    path.rename(target)
    if _identity(target) == read:
        return True
    _put_back(target, path)
    return False


def _put_back(moved: Path, path: Path) -> None:
    """Give a file that was moved by mistake its name again, or the next free one beside it."""
    try:
        for number in naturals():
            added = f".{number}" if number else ""
            name = path.with_name(fitting_name(f"{path.stem}{added}{path.suffix}"))
            with suppress(FileExistsError):
                os.link(moved, name, follow_symlinks=False)
                moved.unlink()
                return
    except OSError as error:
        raise LedgerError(
            f"another file took its name while it was moved, and cannot be put back: "
            f"{error.strerror}",
            hint=f"that file is now {shown(moved)}, and was not run: put it into the inbox again",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxFile:
    """The result for one file."""

    name: str
    exit_code: ExitCode
    """As of a `run` of this file."""
    run_id: str | None = None
    state: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    leavers: dict[str, int] = field(default_factory=dict)
    """Devices that left its manifest, by status."""
    leaver_reasons: tuple[dict[str, Any], ...] = ()
    """Why some of them are still bound."""
    leaver_lines: tuple[str, ...] = ()
    """The same for a person."""
    facts: RunFacts = field(default_factory=RunFacts)
    report: Path | None = None
    moved_to: Path | None = None
    """None: it is still in the inbox."""
    problem: str = ""
    """Why it is still in the inbox."""
    hint: str = ""
    """What to do, if known."""
    was_told: bool = False
    """Whether an earlier pass said the same of the same file; its exit code says no more then."""

    @property
    def is_stopped(self) -> bool:
        """Whether its run has rows left."""
        return self.state == RunState.STOPPED

    @property
    def for_a_person(self) -> list[int]:
        """How many of its rows need a person, by status: the same again is no news."""
        statuses = (status for status in NEEDS_PERSON if status is not Status.IN_DOUBT)
        return [*(self.counts.get(status, 0) for status in statuses), self.facts.not_found]


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxResult:
    """The result of a pass over an inbox."""

    inbox: Path
    archive: Path
    started_at: str
    ended_at: str
    files: tuple[InboxFile, ...]
    waiting: int
    """Files that were not run: touched too recently, or the pass was stopped."""
    exit_code: ExitCode
    stopped: str = ""
    """Why it ended before every file was run."""
    hint: str = ""
    was_told: bool = False
    """Whether the last pass ended early for the same reason."""
    summary_file: Path | None = None

    @property
    def is_news(self) -> bool:
        """Whether an earlier pass has not told all of it."""
        files = [item for item in self.files if item.exit_code and not item.is_stopped]
        return bool(files) or (bool(self.stopped) and not self.was_told)

    def counts(self) -> dict[str, int]:
        """Return the rows of all files by status."""
        total: dict[str, int] = {}
        for item in self.files:
            for status, count in item.counts.items():
                total[status] = total.get(status, 0) + count
        return total

    def as_json(self) -> dict[str, Any]:
        """Return it as in `inbox.json`."""
        return {
            "inbox": shown(self.inbox),
            "archive": shown(self.archive),
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "exit_code": self.exit_code,
            "stopped": self.stopped,
            "rows": sum(self.counts().values()),
            "counts": self.counts(),
            "waiting": self.waiting,
            "files": [
                {
                    "name": item.name,
                    "exit_code": item.exit_code,
                    "run_id": item.run_id,
                    "state": item.state,
                    "rows": sum(item.counts.values()),
                    "counts": item.counts,
                    "changes": item.facts.changes.as_json(),
                    "examples": item.examples,
                    "leavers": item.leavers,
                    "leaver_reasons": without_examples(item.leaver_reasons),
                    "report": str(item.report) if item.report else None,
                    "moved_to": shown(item.moved_to) if item.moved_to else None,
                    "problem": item.problem,
                    "hint": item.hint,
                    "was_told": item.was_told,
                }
                for item in self.files
            ],
        }


def file_of(path: Path, ended: RunResult, run_id: str) -> InboxFile:
    """Return the result for a file whose run was sent."""
    assert ended.report is not None  # it was sent
    summary = ended.report.summary
    return InboxFile(
        name=shown(path.name),
        exit_code=ended.exit_code,
        run_id=run_id,
        state=summary.state.value,
        counts=dict(summary.counts),
        examples=summary.examples,
        leavers=summary.leavers,
        leaver_reasons=summary.leaver_reasons,
        leaver_lines=tuple(leaver_lines(summary, MOST_REASONS)),
        facts=summary.facts,
        report=ended.report.folder,
    )


MOST_REASONS = 3
"""Reasons that are told of what left a file's manifest."""
TROUBLE = "inbox-trouble.json"
"""In the report folder: what the last pass met before it looked at any file."""


def is_new_trouble(settings: Settings, error: BulkbindError) -> bool:
    """Return whether the last pass did not end with the same error, and keep this one."""
    path = _out(settings) / TROUBLE
    told = {"exit_code": int(error.exit_code), "error": _cause(error.message)}
    with suppress(OSError, ValueError):
        if json.loads(read_whole(path)[0]) == told:
            return False
    with suppress(LedgerError):  # told again then
        write_json(path, told)
    return True


UNTOLD = "inbox-untold"
"""In the report folder: that nobody could be told of the last pass, which is told again."""


def tell_again(settings: Settings) -> None:
    """Let the next pass tell all that this one knew, as nobody heard of it."""
    out = _out(settings)
    with suppress(OSError):
        (out / TROUBLE).unlink()
    with suppress(OSError):
        make_folder(out)
        with replacing(out / UNTOLD):
            pass


def _cause(text: str) -> str:
    """Return a text without its numbers, which change while the cause stays.

    Those of an answer are the cause: `HTTP 401 40101`.
    """
    return re.sub(r"(HTTP [0-9]{3}(?: [0-9]+\b)?)|[0-9]+(?:[.,][0-9]+)*", r"\1", text)


def _out(settings: Settings) -> Path:
    return settings.out or Path("bulkbind-report")


WITH_PROBLEMS = "with-problems"


async def run_inbox(
    inbox: Path,
    archive: Path,
    settings: Settings,
    *,
    min_age_s: float = MIN_AGE_S,
    note: str = "",
    listener: Listener | None = None,
    stop: StopSignal | None = None,
    clock: Clock | None = None,
) -> InboxResult:
    """Run every complete manifest of a folder, oldest first, and move it once it is accounted for.

    Args:
        inbox: The folder; folders below it are ignored.
        archive: The folder, on the inbox's file system, for files whose rows need no person; other
            files go to `with-problems` below it, next to their failed.csv.
        settings: As in `run`; `out` gets a report folder for each run, and `inbox.json` about all.
        min_age_s: A file touched in the last so many seconds is left for the next pass.
        note: As in `run`, of every run.
        listener: As in `run`; asked to confirm each file.
        stop: As in `run`; there is one deadline for all files.
        clock: For tests.

    Raises: UsageError, LedgerBusyError, LedgerError. An error of one file is in its result, and the
        others are run.
    """
    session = replace(new_session(settings, listener, stop, clock), note=note, is_inbox=True)
    session = with_scope(session, settings.manifest.sync_name)
    async with time_boxed(session):
        session = await authorized(session)
        probe(settings)
        inbox, archive = folders(inbox, archive)
        async with held_ledger(session) as ledger:
            return await _Pass(session, ledger, inbox, archive, min_age_s).run()


TOLD = "inbox_told"
"""Key in the ledger: by inbox and file, a digest of which file it was and what was said of it."""
STOP = "/"
"""Among them: of why the last pass ended early. No file has that name."""


def _digest_of(said: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


class _Pass:
    """One pass over the inbox, holding the ledger."""

    def __init__(
        self, session: Session, ledger: Ledger, inbox: Path, archive: Path, min_age_s: float
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._inbox = inbox
        self._archive = archive
        self._min_age_s = min_age_s
        self._out = _out(session.settings)
        self._began = iso(session.clock.utc_now())
        self._files: list[InboxFile] = []
        self._waiting = 0
        self._told: dict[str, str] = {}
        """As in the ledger, of this inbox: what earlier passes said."""
        self._telling: dict[str, str] = {}
        """What is said of the files that are still there."""

    async def run(self) -> InboxResult:
        is_same = True  # as the last pass, if it got as far
        with suppress(OSError):
            (self._out / TROUBLE).unlink()
            is_same = False
        now_s = self._session.clock.utc_now().timestamp()
        candidates, self._waiting = complete_files(self._inbox, now_s, self._min_age_s)
        told = await self._ledger.get_meta(TOLD)
        inboxes: dict[str, Any] = told if isinstance(told, dict) else {}
        with suppress(OSError):
            (self._out / UNTOLD).unlink()
            inboxes = {}
        self._told = inboxes.get(shown(self._inbox), {})
        queue, was_told = candidates, False
        stop = self._session.stop
        try:
            queue = await self._ordered(candidates)
            while queue and not stop.is_set:
                if (item := await self._handle(queue[0])) is not None:
                    self._files.append(self._once(queue[0], item))
                del queue[0]
            names = {shown(each.name) for each in queue}
            telling = {name: key for name, key in self._told.items() if name in names}
            telling |= self._telling
            if (stopped := self._stopped(is_left=bool(queue))) is not None:
                left = [item.for_a_person for item in self._files if item.is_stopped]
                telling[STOP] = _digest_of([_cause(stopped.text), left])
                was_told = is_same and self._told.get(STOP) == telling[STOP]
            await self._ledger.put_meta(TOLD, inboxes | {shown(self._inbox): telling})
        except InterruptedRunError:
            pass  # before anything of that file was sent; the ledger may be busy with it
        reason = self._stopped(is_left=bool(queue))
        codes = [item.exit_code for item in self._files]
        codes += [reason.exit_code] if reason else []
        ended = self._result(
            self._files,
            waiting=self._waiting + len(queue),
            exit_code=worst(codes),
            stopped=reason.text if reason else "",
            hint=reason.hint if reason else "",
            was_told=was_told,
        )
        await asyncio.to_thread(write_json, self._summary_file, ended.as_json())
        return ended

    def _stopped(self, *, is_left: bool) -> StopReason | None:
        """Return why the pass ended early; None if it did not. *is_left*: files were not run."""
        is_stopped = is_left or any(item.is_stopped for item in self._files)
        return self._session.stop.reason if is_stopped else None

    def _once(self, dropped: Dropped, item: InboxFile) -> InboxFile:
        """Return a result without its exit code if an earlier pass told the same."""
        is_new = item.is_stopped or item.exit_code == ExitCode.DECLINED
        if item.moved_to is not None or is_new:
            return item
        # Not the device, whose number another mount may change.
        said = (item.problem, item.exit_code, item.for_a_person)
        key = self._telling[item.name] = _digest_of([*dropped.identity[1:], *said])
        if self._told.get(item.name) != key:
            return item
        return replace(item, exit_code=ExitCode.DONE, was_told=True)

    async def _ordered(self, files: list[Dropped]) -> list[Dropped]:
        """Put the file of the interrupted run first: another run would withdraw its rows."""
        if await self._ledger.unfinished() is None:
            return files
        for dropped in files:
            try:
                with before_sending(self._session):
                    file = await in_thread(self._opened, dropped)
                    known = await self._digest(file) if file else ""
            except ManifestError:
                continue  # reported when the file is run
            if await self._ledger.unfinished(known) is not None:
                return [dropped, *(other for other in files if other is not dropped)]
        return files

    def _opened(self, dropped: Dropped) -> ManifestFile | None:
        """Open a file; None if it is not the one that was looked at. Raises: ManifestError."""
        name = shown(dropped.path)
        try:
            file = ManifestFile(open_once(dropped.path, name, follow=False), name)
        except ManifestError:
            if _identity(dropped.path) != dropped.identity:  # gone, or a link, or a FIFO by now
                return None
            raise
        file.on_read = lambda: on_read(self._session)
        return file if file.identity == dropped.identity else None

    async def _digest(self, file: ManifestFile) -> str:
        return await in_thread(digest, [file], self._session.settings.manifest)

    async def _handle(self, dropped: Dropped) -> InboxFile | None:
        """Take the missing steps for a file; None if it is gone, or another one by now."""
        try:
            with before_sending(self._session):
                file = await in_thread(self._opened, dropped)
                if file is None:
                    self._waiting += regular(dropped.path) is not None
                    return None
                run_id = await self._finished(file)
            if run_id is None:
                manifests = await read_heads(self._session, [file])
                ended = await bind_all(self._session, self._ledger, manifests, [file])
                if isinstance(ended, RunResult):
                    return InboxFile(
                        name=shown(dropped.name),
                        exit_code=ended.exit_code,
                        problem="it was not confirmed",
                    )
                run_id = ended.run_id
        except (
            ManifestError,
            InvalidRowsError,
            TooManyUnbindsError,
            UsageError,
            UnreadableListError,
        ) as error:
            return InboxFile(
                name=shown(dropped.name),
                exit_code=error.exit_code,
                problem=str(error),
                hint=error.hint,
            )
        return await asyncio.to_thread(self._settle, dropped.path, file.identity, run_id)

    async def _finished(self, file: ManifestFile) -> str | None:
        touched = datetime.fromtimestamp(file.status.st_ctime, UTC)
        return await self._ledger.finished(await self._digest(file), file.name, iso(touched))

    def _settle(self, path: Path, read: Identity, run_id: str) -> InboxFile:
        """Write a run's report, and move its file if its rows are accounted for."""
        settings = self._session.settings.model_copy(update={"out": self._out / run_id})
        try:
            ended = result(replace(self._session, settings=settings), Sent(run_id))
        except LedgerError as error:
            return InboxFile(
                name=shown(path.name),
                exit_code=error.exit_code,
                run_id=run_id,
                problem=str(error),
                hint=error.hint,
            )
        assert ended.report is not None  # it was sent
        item = file_of(path, ended, run_id)
        if ended.report.summary.state is not RunState.DONE:
            return replace(item, problem="stopped before all its rows had ended")
        doubtful = item.counts.get(Status.IN_DOUBT, 0)
        if doubtful and settings.doubt.readback:
            return replace(
                item,
                problem=f"{doubtful:,} of its rows {verb(doubtful, 'is', 'are')} in doubt",
                hint="the next run asks the server again, and moves it then",
            )
        target = self._target(path, ended.report, run_id)
        # Recorded first: whatever left the inbox must be in a report.
        files = [*self._files, replace(item, moved_to=target)]
        so_far = self._result(files, waiting=0, exit_code=ExitCode.DONE, stopped="not ended yet")
        write_json(self._summary_file, so_far.as_json())
        try:
            self._add_failed(ended.report, target)
            if move(path, read, target):
                return replace(item, moved_to=target)
        except (OSError, LedgerError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            hint = "" if isinstance(error, OSError) else error.hint
            return replace(
                item,
                exit_code=worst([item.exit_code, ExitCode.LEDGER]),
                problem=f"it cannot be moved to {shown(target)}: {why}",
                hint=hint or "its rows are accounted for; the next run moves it",
            )
        return replace(item, problem="it was changed while it was run: the next run takes it again")

    def _target(self, path: Path, report: Report, run_id: str) -> Path:
        """Return where to move a file."""
        folder = self._archive
        if report.summary.needs_person:
            folder /= WITH_PROBLEMS
        return folder / fitting_name(f"{run_id}-{path.name}")

    @staticmethod
    def _add_failed(report: Report, target: Path) -> None:
        """Put a report's failed.csv where its file is to be moved, if it has problems.

        Raises: OSError.
        """
        if not report.summary.needs_person:
            return
        make_folder(target.parent)
        for failed in report.files:
            if failed.name == "failed.csv" or failed.parent.name == "failed":
                stem = target.name.removesuffix(PACKED).removesuffix(failed.suffix)
                name = fitting_name(f"{stem}.failed{failed.suffix}")
                copy_file(failed, target.with_name(name))

    @property
    def _summary_file(self) -> Path:
        return self._out / "inbox.json"

    def _result(self, files: list[InboxFile], **how: Any) -> InboxResult:
        return InboxResult(
            inbox=self._inbox,
            archive=self._archive,
            started_at=self._began,
            ended_at=iso(self._session.clock.utc_now()),
            files=tuple(files),
            summary_file=self._summary_file,
            **how,
        )

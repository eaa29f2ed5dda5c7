"""`run INBOX --archive DONE`: run every complete manifest of a folder, each as a run of its own.

The state of a file follows from the ledger and from the folder it is in. So a process may be killed
between any two steps, and the next one does the step that is missing:

    in the inbox, no run       -> stage and send
    in the inbox, unfinished   -> resume its run, before any other file
    in the inbox, in doubt     -> run it again: what is bound is skipped, the doubt is settled
    in the inbox, finished     -> write its report, copy failed.csv, then move it (one rename)
    in the archive             -> nothing

A finished run belongs to a file with its name and content that was last touched before the run
began; so the same file, dropped again, is a new one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkbind.app.inputs import Named, is_owner_file, shown
from bulkbind.app.run import bind_all, new_session, probe
from bulkbind.app.session.sending import RunResult, result
from bulkbind.app.session.session import Session, held_ledger
from bulkbind.clock import Clock, iso
from bulkbind.errors import (
    ExitCode,
    InterruptedRunError,
    InvalidRowsError,
    LedgerError,
    ManifestError,
    UsageError,
    worst,
)
from bulkbind.files import replacing, write_json
from bulkbind.manifest import PACKED, digest, open_manifest
from bulkbind.model import RunFacts, RunState, Status

if TYPE_CHECKING:
    from bulkbind.app.reports import Report
    from bulkbind.app.session.listener import Listener
    from bulkbind.engine import StopSignal
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
        archive.mkdir(mode=0o700, parents=True, exist_ok=True)
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


def complete_files(inbox: Path, now_s: float, min_age_s: float) -> tuple[list[Path], int]:
    """Return the complete files, oldest first, and how many are not complete yet.

    *now_s*: seconds since 1970, local clock; *min_age_s*: a file touched later is not complete.
    """
    found: list[tuple[float, str, Path]] = []
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
            found.append((known.st_mtime, path.name, path))
    return [path for _, _, path in sorted(found)], waiting


def regular(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for links, folders and missing files."""
    try:
        known = path.lstat()
    except OSError:
        return None
    return known if stat.S_ISREG(known.st_mode) else None


def _is_same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def move(path: Path, before: os.stat_result, target: Path) -> bool:
    """Move a file in one step if it is still what was run, overwriting nothing.

    Raises: LedgerError.
    """
    try:
        if not _is_same(regular(path), before) or target.exists():
            return False
        path.rename(target)
        if _is_same(regular(target), before):
            return True
        # Another file took its name in between: move it back, unless there is a third one.
        os.link(target, path, follow_symlinks=False)
        target.unlink()
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be moved to {target}: {error.strerror or error}",
            hint="its rows are accounted for; the next run moves it",
        ) from error
    return False


def copy(source: Path, target: Path) -> None:
    """Copy a file atomically. Raises: LedgerError."""
    with (
        source.open(encoding="latin-1", newline="") as file,
        replacing(target, encoding="latin-1") as copied,
    ):
        shutil.copyfileobj(file, copied)


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
    facts: RunFacts = field(default_factory=RunFacts)
    report: Path | None = None
    moved_to: Path | None = None
    """None: it is still in the inbox."""
    problem: str = ""
    """Why it is still in the inbox."""
    hint: str = ""
    """What to do, if known."""


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
    summary_file: Path | None = None

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
                    "report": str(item.report) if item.report else None,
                    "moved_to": shown(item.moved_to) if item.moved_to else None,
                    "problem": item.problem,
                    "hint": item.hint,
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
        facts=summary.facts,
        report=ended.report.folder,
    )


WITH_PROBLEMS = "with-problems"


async def run_inbox(
    inbox: Path,
    archive: Path,
    settings: Settings,
    *,
    min_age_s: float = MIN_AGE_S,
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
        listener: As in `run`; asked to confirm each file.
        stop: As in `run`; there is one deadline for all files.
        clock: For tests.

    Raises: UsageError, LedgerBusyError, LedgerError. An error of one file is in its result, and the
        others are run.
    """
    session = new_session(settings, listener, stop, clock)
    probe(settings)
    inbox, archive = folders(inbox, archive)
    async with held_ledger(session) as ledger:
        return await _Pass(session, ledger, inbox, archive, min_age_s).run()


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
        self._out = session.settings.out or Path("bulkbind-report")
        self._began = iso(session.clock.utc_now())
        self._files: list[InboxFile] = []

    async def run(self) -> InboxResult:
        now_s = self._session.clock.utc_now().timestamp()
        candidates, waiting = complete_files(self._inbox, now_s, self._min_age_s)
        queue = await self._ordered(candidates)
        stop = self._session.stop
        while queue and not stop.is_set:
            path = queue.pop(0)
            try:
                item = await self._handle(path)
            except InterruptedRunError:  # before anything was sent, so no run remains
                queue.insert(0, path)
                continue
            if item is not None:
                self._files.append(item)
        is_stopped = queue or any(item.state == RunState.STOPPED for item in self._files)
        reason = stop.reason if is_stopped else None
        codes = [item.exit_code for item in self._files]
        codes += [reason.exit_code] if reason else []
        ended = self._result(
            self._files,
            waiting=waiting + len(queue),
            exit_code=worst(codes),
            stopped=reason.text if reason else "",
            hint=reason.hint if reason else "",
        )
        await asyncio.to_thread(write_json, self._summary_file, ended.as_json())
        return ended

    async def _ordered(self, paths: list[Path]) -> list[Path]:
        """Put the file of the interrupted run first: another run would withdraw its rows."""
        if await self._ledger.unfinished() is None:
            return paths
        for path in paths:
            try:
                known = await self._digest(path)
            except ManifestError:
                continue  # reported when the file is run
            if await self._ledger.unfinished(known) is not None:
                return [path, *(other for other in paths if other != path)]
        return paths

    async def _digest(self, path: Path) -> str:
        return await asyncio.to_thread(digest, [path], self._session.settings.manifest)

    async def _handle(self, path: Path) -> InboxFile | None:
        """Take the missing steps for a file; None if it is gone."""
        before = regular(path)
        if before is None:
            return None
        try:
            run_id = await self._finished(path, before)
            if run_id is None:
                named = Named(path, shown(path))
                manifest = open_manifest(path, self._session.settings.manifest, named.name)
                ended = await bind_all(self._session, self._ledger, [manifest], [path])
                if isinstance(ended, RunResult):
                    return InboxFile(
                        name=shown(path.name),
                        exit_code=ended.exit_code,
                        problem="it was not confirmed",
                    )
                run_id = ended
        except (ManifestError, InvalidRowsError, UsageError) as error:
            return InboxFile(
                name=shown(path.name),
                exit_code=error.exit_code,
                problem=str(error),
                hint=error.hint,
            )
        return await asyncio.to_thread(self._settle, path, before, run_id)

    async def _finished(self, path: Path, before: os.stat_result) -> str | None:
        touched = datetime.fromtimestamp(before.st_ctime, UTC)
        return await self._ledger.finished(await self._digest(path), shown(path), iso(touched))

    def _settle(self, path: Path, before: os.stat_result, run_id: str) -> InboxFile:
        """Write a run's report, and move its file if its rows are accounted for."""
        settings = self._session.settings.model_copy(update={"out": self._out / run_id})
        ended = result(replace(self._session, settings=settings), run_id)
        assert ended.report is not None  # it was sent
        item = file_of(path, ended, run_id)
        if ended.report.summary.state is not RunState.DONE:
            return replace(item, problem="stopped before all its rows had ended")
        doubtful = item.counts.get(Status.IN_DOUBT, 0)
        if doubtful and settings.doubt.readback:
            return replace(
                item,
                problem=f"{doubtful:,} of its rows are in doubt",
                hint="the next run asks the server again, and moves it then",
            )
        target = self._target(path, ended.report, run_id)
        # Recorded first: whatever left the inbox must be in a report.
        files = [*self._files, replace(item, moved_to=target)]
        so_far = self._result(files, waiting=0, exit_code=ExitCode.DONE, stopped="not ended yet")
        write_json(self._summary_file, so_far.as_json())
        if move(path, before, target):
            return replace(item, moved_to=target)
        return replace(item, problem="it was changed while it was run: the next run takes it again")

    def _target(self, path: Path, report: Report, run_id: str) -> Path:
        """Return where to move a file; copy its failed.csv there if it has problems."""
        if not report.summary.needs_person:
            return self._archive / f"{run_id}-{path.name}"
        folder = self._archive / WITH_PROBLEMS
        folder.mkdir(mode=0o700, exist_ok=True)
        for failed in report.files:
            if failed.name == "failed.csv" or failed.parent.name == "failed":
                stem = path.name.removesuffix(PACKED).removesuffix(failed.suffix)
                copy(failed, folder / f"{run_id}-{stem}.failed{failed.suffix}")
        return folder / f"{run_id}-{path.name}"

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

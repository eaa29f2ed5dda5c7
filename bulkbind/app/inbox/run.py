"""One pass over an inbox: which file is next, its run, and where it goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.inbox.files import MIN_AGE_S, complete_files, copy, folders, move, regular
from bulkbind.app.inbox.result import InboxFile, InboxResult, file_of
from bulkbind.app.inputs import Named, shown
from bulkbind.app.run import bind_all, new_session, probe
from bulkbind.app.sending import RunResult, Session, held_ledger, result
from bulkbind.clock import Clock, iso
from bulkbind.errors import InterruptedRunError, InvalidRowsError, ManifestError, UsageError
from bulkbind.manifest import digest, open_manifest
from bulkbind.model import RunState, Status
from bulkbind.report.files import write_json

if TYPE_CHECKING:
    import os

    from bulkbind.app.listener import Listener
    from bulkbind.app.reports import Report
    from bulkbind.engine import StopSignal
    from bulkbind.ledger import Ledger
    from bulkbind.settings import Settings

WITH_PROBLEMS = "with-problems"
_WORST = (0, 1, 2, 3, 75, 4, 130, 143)
"""Exit codes; the last of them that a file has is that of the command."""


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
        inbox: The folder; what lies in folders below it is left alone.
        archive: Where files go whose rows are all bound; those with rows that need a person go to
            `with-problems` below it, their failed.csv beside them. On the inbox's file system.
        settings: As in `run`; `out` is the folder that gets a report folder for each run, and
            `inbox.json`, the report on all.
        min_age_s: A file touched later than so many seconds ago is left for the next time.
        listener: As in `run`; it is asked for each file.
        stop: As in `run`; the deadline is one for all files.
        clock: For tests.

    Raises: UsageError, LedgerBusyError, LedgerError. What a file cannot be run for is told of that
        file, and the others are run.
    """
    session = new_session(settings, listener, stop, clock)
    probe(settings)
    inbox, archive = folders(inbox, archive)
    async with held_ledger(session) as ledger:
        return await _Pass(session, ledger, inbox, archive, min_age_s).run()


class _Pass:
    """One look at the inbox, under the ledger's lock."""

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
        queue = await self._in_turn(candidates)
        stop = self._session.stop
        while queue and not stop.is_set:
            path = queue.pop(0)
            try:
                item = await self._one(path)
            except InterruptedRunError:  # while it was read, so nothing of it is left behind
                queue.insert(0, path)
                continue
            if item is not None:
                self._files.append(item)
        reason = stop.reason if queue or any(_is_stopped(item) for item in self._files) else None
        codes = [item.exit_code for item in self._files]
        codes += [reason.exit_code] if reason else []
        return await self._told(
            waiting=waiting + len(queue),
            exit_code=max(codes, key=_WORST.index, default=0),
            stopped=reason.text if reason else "",
            hint=reason.hint if reason else "",
        )

    # --- which one is next ------------------------------------------------------------------------

    async def _in_turn(self, paths: list[Path]) -> list[Path]:
        """Put the file whose run was cut off first: another run would take that one's place."""
        if await self._ledger.unfinished() is None:
            return paths
        for path in paths:
            try:
                known = await self._digest(path)
            except ManifestError:
                continue  # it is told when its turn comes
            if await self._ledger.unfinished(known) is not None:
                return [path, *(other for other in paths if other != path)]
        return paths

    async def _digest(self, path: Path) -> str:
        return await asyncio.to_thread(digest, [path], self._session.settings.manifest)

    # --- one file ---------------------------------------------------------------------------------

    async def _one(self, path: Path) -> InboxFile | None:
        """Do what is left to do with a file; None where it has gone."""
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
        assert ended.report is not None  # it has been sent
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
        # Told before it is done: a file that has gone from the inbox stands in a report.
        self._write([*self._files, replace(item, moved_to=target)])
        if move(path, before, target):
            return replace(item, moved_to=target)
        return replace(item, problem="it was changed while it was run: the next run takes it again")

    def _target(self, path: Path, report: Report, run_id: str) -> Path:
        """Return where a file goes, with failed.csv beside it where that is `with-problems`."""
        if not report.summary.needs_person:
            return self._archive / f"{run_id}-{path.name}"
        folder = self._archive / WITH_PROBLEMS
        folder.mkdir(mode=0o700, exist_ok=True)
        for failed in report.files:
            if failed.name == "failed.csv" or failed.parent.name == "failed":
                stem = path.name.removesuffix(".gz").removesuffix(failed.suffix)
                copy(failed, folder / f"{run_id}-{stem}.failed{failed.suffix}")
        return folder / f"{run_id}-{path.name}"

    # --- the report on all ------------------------------------------------------------------------

    async def _told(self, *, waiting: int, exit_code: int, stopped: str, hint: str) -> InboxResult:
        ended = self._result(self._files, waiting, exit_code, stopped, hint)
        await asyncio.to_thread(write_json, self._summary_file, ended.as_json())
        return ended

    @property
    def _summary_file(self) -> Path:
        return self._out / "inbox.json"

    def _write(self, files: list[InboxFile]) -> None:
        write_json(self._summary_file, self._result(files, 0, 0, "not ended yet", "").as_json())

    def _result(
        self, files: list[InboxFile], waiting: int, exit_code: int, stopped: str, hint: str
    ) -> InboxResult:
        return InboxResult(
            inbox=self._inbox,
            archive=self._archive,
            started_at=self._began,
            ended_at=iso(self._session.clock.utc_now()),
            files=tuple(files),
            waiting=waiting,
            exit_code=exit_code,
            stopped=stopped,
            hint=hint,
            summary_file=self._summary_file,
        )


def _is_stopped(item: InboxFile) -> bool:
    return item.state == RunState.STOPPED

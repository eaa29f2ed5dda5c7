"""`prune`: delete what is old from the ledger and from the report folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.session.session import holder
from bulkbind.clock import Clock, SystemClock, epoch_of, iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import Pruned, ledger_of, prune as prune_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Housekeeping:
    """What was deleted, or would be."""

    ledger: Pruned | None
    reports: tuple[Path, ...]
    """Report folders."""


def prune(
    settings: Settings,
    *,
    older_than_s: float | None = None,
    reports_older_than_s: float | None = None,
    keep_reports: int | None = None,
    is_trial: bool = False,
    clock: Clock | None = None,
    on_batch: Callable[[int], None] = lambda _rows: None,
) -> Housekeeping:
    """Delete what is old.

    Args:
        settings: For the ledger; `out` is the parent of the report folders.
        older_than_s: Rows of runs that ended so many seconds ago, see `bulkbind.ledger.prune`.
        reports_older_than_s: Report folders of runs that began so many seconds ago; the newest
            one is kept.
        keep_reports: How many of the newest report folders to keep; at least 1.
        is_trial: Delete nothing, only return what would be deleted.
        clock: For tests.
        on_batch: Called with the number of rows deleted so far.

    Raises: LedgerBusyError while a run holds the ledger, LedgerError.
    """
    time = clock or SystemClock()
    now = time.utc_now()
    pruned = None
    if older_than_s is not None:
        pruned = prune_ledger(
            ledger_of(settings),
            settings.endpoint(),
            holder(time),
            before=iso(now - timedelta(seconds=older_than_s)),
            now=iso(now),
            is_trial=is_trial,
            on_batch=on_batch,
        )
    reports = _reports(settings.out or Path("bulkbind-report"))
    old = [path for _, path in reports[keep_reports:]] if keep_reports is not None else []
    if reports_older_than_s is not None:
        limit = now - timedelta(seconds=reports_older_than_s)
        old += [path for began, path in reports[1:] if began < limit and path not in old]
    for folder in [] if is_trial else old:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise LedgerError(
                f"report folder {folder} cannot be deleted: {error.strerror or error}"
            ) from error
    return Housekeeping(ledger=pruned, reports=tuple(sorted(old)))


def _reports(root: Path) -> list[tuple[datetime, Path]]:
    """Return the report folders in a folder, newest first, each with the start of its run.

    They are named after their run. Anything else is left alone, and so are links.
    """
    if not root.is_dir():
        return []
    found = [
        (began, path)
        for path in root.iterdir()
        if not path.is_symlink() and (began := _began(path)) is not None
    ]
    return sorted(found, reverse=True)


def _began(path: Path) -> datetime | None:
    """Return when the run of a report folder began; None if it is not one of our report folders.

    The summary has milliseconds; ids of older versions do not sort within a second.
    """
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        named = datetime.strptime(path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None
    if not isinstance(summary, dict) or summary.get("run_id") != path.name:
        return None
    created_s = epoch_of(str(summary.get("created_at")))
    return named if created_s is None else datetime.fromtimestamp(created_s, UTC)

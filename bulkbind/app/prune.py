"""`prune`: what is old goes from the ledger and from the report folders."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.app.session.session import holder
from bulkbind.clock import Clock, SystemClock, iso
from bulkbind.errors import LedgerError
from bulkbind.ledger import Pruned, prune as prune_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from bulkbind.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Housekeeping:
    """What went, or would go."""

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
        settings: Which ledger; `out` is the folder that holds the report folders.
        older_than_s: Rows of runs that ended so many seconds ago, see `bulkbind.ledger.prune`.
        reports_older_than_s: Report folders of runs that began so long ago; the newest one stays.
        keep_reports: Only so many report folders stay, the newest; at least 1.
        is_trial: Delete nothing, only say what would go.
        clock: For tests.
        on_batch: Hears how many rows are gone so far.

    Raises: LedgerBusyError while a run holds the ledger, LedgerError.
    """
    time = clock or SystemClock()
    now = time.utc_now()
    pruned = None
    if older_than_s is not None:
        pruned = prune_ledger(
            settings.ledger_path(),
            settings.endpoint(),
            holder(time),
            before=iso(now - timedelta(seconds=older_than_s)),
            now=iso(now),
            is_trial=is_trial,
            on_batch=on_batch,
        )
    folders = _reports(settings.out or Path("bulkbind-report"))
    old = folders[keep_reports:] if keep_reports is not None else []
    if reports_older_than_s is not None:
        limit = now - timedelta(seconds=reports_older_than_s)
        old += [folder for folder in folders[1:] if _began(folder) < limit and folder not in old]
    for folder in [] if is_trial else old:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise LedgerError(
                f"report folder {folder} cannot be deleted: {error.strerror or error}"
            ) from error
    return Housekeeping(ledger=pruned, reports=tuple(sorted(old)))


def _reports(root: Path) -> list[Path]:
    """Return the report folders below a folder, newest first: those named after the run they hold.

    Anything else is left alone, and so are links.
    """
    if not root.is_dir():
        return []
    found = [path for path in root.iterdir() if not path.is_symlink() and _is_report(path)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def _is_report(path: Path) -> bool:
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        _began(path)
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and summary.get("run_id") == path.name


def _began(path: Path) -> datetime:
    """Return when the run of a report folder began, from its name. Raises: ValueError."""
    return datetime.strptime(path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)

"""The folders and files of an inbox: which ones are complete, and how they are moved."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError, UsageError
from bulkbind.report.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

MIN_AGE_S = 60.0
"""A file that was touched later may still be written to."""
UNFINISHED_NAMES = (".part", ".tmp", ".filepart", "~")
"""Endings that programs give to files which they are still writing."""


def folders(inbox: Path, archive: Path) -> tuple[Path, Path]:
    """Return both folders as absolute paths; the archive is made. Raises: UsageError."""
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
    """Return the files that are complete, oldest first, and how many are not yet.

    Args:
        inbox: The folder.
        now_s: Seconds since 1970, local clock.
        min_age_s: A file touched later than so many seconds ago is not complete yet.
    """
    found: list[tuple[float, str, Path]] = []
    waiting = 0
    for path in inbox.iterdir():
        known = regular(path)
        if known is None or path.name.startswith(".") or _is_unfinished_name(path.name):
            continue
        if known.st_ctime > now_s - min_age_s:
            waiting += 1
        else:
            found.append((known.st_mtime, path.name, path))
    return [path for _, _, path in sorted(found)], waiting


def regular(path: Path) -> os.stat_result | None:
    """Return what is known of a regular file; None for links, folders and what has gone."""
    try:
        known = path.lstat()
    except OSError:
        return None
    return known if stat.S_ISREG(known.st_mode) else None


def _is_unfinished_name(name: str) -> bool:
    return name.lower().endswith(UNFINISHED_NAMES)


def _is_same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and all(
        getattr(one, name) == getattr(other, name)
        for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    )


def move(path: Path, before: os.stat_result, target: Path) -> bool:
    """Move a file in one step, if it is still what was run; nothing is overwritten.

    Raises: LedgerError.
    """
    try:
        if not _is_same(regular(path), before) or target.exists():
            return False
        path.rename(target)
        if _is_same(regular(target), before):
            return True
        # Another file took its name in between: it goes back, unless a third one came.
        os.link(target, path, follow_symlinks=False)
        target.unlink()
    except OSError as error:
        raise LedgerError(
            f"{path} cannot be moved to {target}: {error.strerror or error}",
            hint="its rows are accounted for; the next run moves it",
        ) from error
    return False


def copy(source: Path, target: Path) -> None:
    """Copy a file's bytes so that it is there whole or not at all. Raises: LedgerError."""
    with (
        source.open(encoding="latin-1", newline="") as file,
        replacing(target, encoding="latin-1") as copied,
    ):
        shutil.copyfileobj(file, copied)

"""What errors of files and of SQLite mean for a person, and what to do about them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

ELSEWHERE = "or choose another place with --ledger FILE"
_FREE = f"free the disk, {ELSEWHERE}"
_READ_ONLY = f"its disk or file is read-only: make it writable, {ELSEWHERE}"
_RIGHTS = f"give this user the right to read and write it and its folder, {ELSEWHERE}"
_FOLDER = "it is a folder: name a file, for instance one in it, with --ledger FILE"
_NO_FOLDER = f"a part of its path is a file: {ELSEWHERE[3:]}"
_HINTS = {
    errno.EISDIR: _FOLDER,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,  # as `mkdir` says it
}
_SQLITE_HINTS = {
    "CANTOPEN": _RIGHTS,
    "PERM": _RIGHTS,
    "AUTH": _RIGHTS,
    "READONLY": _READ_ONLY,
    "FULL": _FREE,
    "IOERR": f"see to the disk (space, quota, cables), {ELSEWHERE}",
    "BUSY": "another program has it open: end it, and try again",
}


def refused(what: str, error: OSError) -> LedgerError:
    """Return the error of an operating system that does not give us a file."""
    hint = _HINTS.get(error.errno or 0, ELSEWHERE[3:])
    return LedgerError(f"{what}: {error.strerror}", hint=hint)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error says that the file is damaged."""
    return "CORRUPT" in _name(error)


def damaged(path: Path, what: str, *, is_untouched: bool) -> LedgerError:
    """Return the error of a damaged ledger. *is_untouched*: whether nothing was written to it."""
    hint = "restore a copy of it, or choose another file with --ledger; " + (
        "it was not written to"
        if is_untouched
        else "this run has written to it: keep it beside the copy, which lacks what was done since"
    )
    return LedgerError(f"ledger {path} is damaged: {what}", hint=hint)


def translated(path: Path, error: sqlite3.Error, *, is_untouched: bool = True) -> LedgerError:
    """Return an error of SQLite's as one of ours."""
    name = _name(error)
    if "NOTADB" in name:
        return LedgerError(
            f"{path} is not a ledger: {error}", hint="the file was not touched; name another one"
        )
    if is_damage(error):
        return damaged(path, str(error), is_untouched=is_untouched)
    hints = [hint for word, hint in _SQLITE_HINTS.items() if name.startswith(f"SQLITE_{word}")]
    return LedgerError(f"ledger {path}: {error}", hint="".join(hints[:1]))


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""

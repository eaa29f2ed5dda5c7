"""Find and open the manifests that the operator named; what can be read once is copied first."""

from __future__ import annotations

import glob
import os
import select
import stat
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError, ManifestError, UsageError
from bulkbind.manifest import SUFFIXES, ChosenRows, ManifestFile, choice_of, is_manifest_name
from bulkbind.manifest.opened import open_once, unreadable
from bulkbind.model import Chosen
from bulkbind.model.wording import counted, verb
from bulkbind.redaction import line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bulkbind.manifest import Manifest
    from bulkbind.settings import ManifestSettings

STDIN = "-"
LOOK_S = 0.2
"""How often whoever waits for standard input or a FIFO looks whether the command stops."""
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Named:
    """A manifest file, not yet opened, and its name in messages and reports."""

    path: Path
    name: str


def named(manifests: Sequence[str | Path | Named]) -> list[Named]:
    """Return the files of manifests, folders and patterns; `-` is standard input.

    Raises: UsageError for no manifest or `-` twice, ManifestError for what is no file.
    """
    if not manifests:
        raise UsageError("no manifest was given", hint="name a file, a folder, or - for stdin")
    if [str(manifest) for manifest in manifests].count(STDIN) > 1:
        raise UsageError("standard input can be read once")
    return [
        each
        for manifest in _without_owner_files(manifests)
        for each in ([manifest] if isinstance(manifest, Named) else _named(str(manifest)))
    ]


def _named(name: str) -> list[Named]:
    path = Path(name)
    if name == STDIN:
        return [Named(path, name)]
    try:
        if path.is_dir():
            return _in_folder(path)
        if not path.exists():
            return _matching(name)
    except OSError as error:  # a name that is too long, a folder that cannot be entered
        raise ManifestError(f"manifest {shown(name)} cannot be read: {error.strerror}") from error
    return [Named(path, shown(name))]


def open_all(
    manifests: Sequence[str | Path | Named],
    *,
    is_over: Callable[[], None] = lambda: None,
    on_read: Callable[[], None] = lambda: None,
) -> list[ManifestFile]:
    """Open the files of `named`, each once; a link is followed to the file that it names now.

    Standard input and FIFOs can be read once, so they are copied to a private file without a name.
    This waits until their other end is closed.

    *is_over*: called while waiting, several times a second, and *on_read*: before every read; what
    they raise ends it.

    Raises: as `named`, ManifestError for what is not a regular file, LedgerError if a copy cannot
        be made.
    """
    files = [_opened(each, is_over) for each in named(manifests)]
    for file in files:
        file.on_read = on_read
    return files


def _opened(named: Named, is_over: Callable[[], None]) -> ManifestFile:
    if named.name == STDIN:
        try:
            source = sys.stdin.fileno()
        except (AttributeError, OSError, ValueError):  # None, closed, or no file
            raise ManifestError(
                "standard input is closed", hint="name a file instead of -"
            ) from None
        return _copied(source, named.name, is_over)
    descriptor = open_once(named.path, named.name)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return ManifestFile(descriptor, named.name)
    try:
        return _copied(descriptor, named.name, is_over)
    finally:
        os.close(descriptor)


def _copied(source: int, name: str, is_over: Callable[[], None]) -> ManifestFile:
    """Return a copy of what a descriptor gives until its other end is closed."""
    what = "standard input" if name == STDIN else name
    waiting = select.poll()
    waiting.register(source, select.POLLIN)
    try:
        with tempfile.NamedTemporaryFile(prefix="bulkbind-stdin-") as copy:
            while True:
                is_over()
                if not waiting.poll(LOOK_S * 1000):
                    continue
                if not (block := _read(source, what)):
                    break
                copy.write(block)
            copy.flush()
            return ManifestFile(os.dup(copy.fileno()), name)
    except OSError as error:
        raise LedgerError(
            f"{what} cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
            hint="free the disk, or name a file instead of -",
        ) from error


def _read(source: int, what: str) -> bytes:
    try:
        return os.read(source, _BLOCK)
    except OSError as error:
        raise unreadable(what, error) from error


def _without_owner_files(manifests: Sequence[str | Path | Named]) -> list[str | Path | Named]:
    """Return the manifests without owner files, which a pattern of a shell may have added.

    Raises: ManifestError if nothing else was named.
    """
    found = [
        manifest
        for manifest in manifests
        if isinstance(manifest, Named) or not is_owner_file(Path(manifest).name)
    ]
    if not found:
        raise ManifestError(
            f"{shown(str(manifests[0]))} only says who has another file open",
            hint="name the file itself, without what is in front of its name",
        )
    return found


def is_owner_file(name: str) -> bool:
    """Return whether a file only says who has another one open in an office program."""
    return name.startswith("~$") or (name.startswith(".~lock.") and name.endswith("#"))


def _in_folder(folder: Path) -> list[Named]:
    """Return the manifests in a folder, sorted by name, without dotfiles."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ManifestError(f"folder {shown(folder)} cannot be read: {error.strerror}") from error
    found = [
        Named(path, shown(path))
        for path in entries
        if not path.name.startswith(".")
        and not is_owner_file(path.name)
        and is_manifest_name(path.name)
        and path.is_file()
    ]
    if not found:
        raise ManifestError(
            f"folder {shown(folder)} holds no manifest",
            hint=f"manifests end with {', '.join(SUFFIXES)}, each also with .gz",
        )
    return found


def _matching(pattern: str) -> list[Named]:
    """Return the files that match a pattern that the shell did not expand."""
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  # absolute ones, too
    files = [path for path in found if path.is_file() and not is_owner_file(path.name)]
    if not files:
        is_pattern = glob.has_magic(pattern)
        raise ManifestError(
            f"no file matches {shown(pattern)}"
            if is_pattern
            else f"manifest {shown(pattern)} does not exist",
            hint="check the path; - is standard input",
        )
    return [Named(path, shown(path)) for path in files]


def choice_notices(files: Sequence[ManifestFile]) -> list[str]:
    """Return what is to be told of the table of users, once it has been read."""
    choices = dict.fromkeys(map(choice_of, files))
    return [told for each in choices if each and each.users for told in each.users.notices]


def left_out_of(manifests: Sequence[Manifest]) -> Chosen | None:
    """Return how many rows conditions left out of manifests that were read; None: none could."""
    parts = [
        each.chosen for each in manifests if isinstance(each, ChosenRows) and each.chosen["by"]
    ]
    if not parts:
        return None
    by: Counter[str] = Counter()
    for part in parts:
        by.update(part["by"])
    return Chosen(rows=by.total(), by=dict(by))


def no_rows(manifest: Manifest, rows: int, *, is_any: bool = False) -> str:
    """Return the warning of a manifest without rows, or of which none is meant; else "".

    *rows*: how many of it were read and meant. *is_any*: it is whatever came into an inbox, where
    it is usual that none is meant.
    """
    name = manifest.source.name
    if isinstance(manifest, ChosenRows) and manifest.has_none:
        if is_any:
            return ""
        left = manifest.chosen["rows"]
        return f"{name}: all {left:,} rows are left out; capitals count, and so does the whole cell"
    return "" if rows else f"{name} holds no rows"


def too_few(rows: int, settings: ManifestSettings) -> ManifestError | None:
    """Return the error of fewer rows in all manifests together than there must be, if they are.

    *rows*: with those that conditions leave out.
    """
    least = settings.min_rows or 0
    if rows >= least:
        return None
    return ManifestError(
        f"{counted(rows, 'rows')} {verb(rows, 'was', 'were')} read, and there must be {least:,} at "
        "least (min_rows)",
        hint="was the export cut off? --min-rows N says how many rows it has at least",
    )


def shown(name: str | Path) -> str:
    """Return a file name as it is shown and kept."""
    return str(line(str(name)))

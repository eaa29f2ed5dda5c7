"""Find the manifests that the operator named; standard input is copied to a temporary file."""

from __future__ import annotations

import glob
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError, ManifestError, UsageError
from bulkbind.manifest import SUFFIXES, is_manifest_name
from bulkbind.redaction import line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulkbind.settings import ManifestSettings

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Named:
    """A manifest file, and its name in messages and reports."""

    path: Path
    name: str


@contextmanager
def named(manifests: Sequence[str | Path | Named]) -> Iterator[list[Named]]:
    """Yield the files of manifests, folders and patterns; `-` is standard input.

    Standard input is read more than once, so it is copied to a private file (mode 0600). This
    blocks until its other end is closed: call it before starting an event loop.

    Raises: UsageError for no manifest or `-` twice, ManifestError for what is not a regular file,
        LedgerError if standard input cannot be copied.
    """
    if not manifests:
        raise UsageError("no manifest was given", hint="name a file, a folder, or - for stdin")
    if [str(manifest) for manifest in manifests].count(STDIN) > 1:
        raise UsageError("standard input can be read once")
    with ExitStack() as stack:
        yield [
            each
            for manifest in _without_owner_files(manifests)
            for each in (
                [manifest] if isinstance(manifest, Named) else _named(str(manifest), stack)
            )
        ]


def _named(name: str, stack: ExitStack) -> list[Named]:
    if name == STDIN:
        return [Named(_keep_stdin(stack), name)]
    path = Path(name)
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        return _matching(name)
    if not path.is_file():
        raise ManifestError(
            f"manifest {shown(name)} is not a regular file",
            hint="name the files themselves, or use -",
        )
    return [Named(path, shown(name))]


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


def no_rows(name: str) -> str:
    """Return the warning of a manifest without rows."""
    return f"{name} holds no rows"


def too_few(rows: int, settings: ManifestSettings) -> ManifestError | None:
    """Return the error of fewer rows in all manifests together than there must be, if they are."""
    least = settings.min_rows or 0
    if rows >= least:
        return None
    return ManifestError(
        f"{rows:,} rows were read, and there must be {least:,} at least (min_rows)",
        hint="was the export cut off? --min-rows N says how many rows it has at least",
    )


def shown(name: str | Path) -> str:
    """Return a file name as it is shown and kept."""
    return str(line(str(name)))


def _keep_stdin(stack: ExitStack) -> Path:
    if sys.stdin is None:
        raise ManifestError("standard input is closed", hint="name a file instead of -")
    try:
        spool = tempfile.NamedTemporaryFile(prefix="bulkbind-stdin-")  # noqa: SIM115  # the stack closes it
        file = stack.enter_context(spool)
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
    except OSError as error:
        raise LedgerError(
            f"standard input cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
            hint="free the disk, or name a file instead of -",
        ) from error
    return Path(file.name)

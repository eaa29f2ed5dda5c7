"""Opens what the operator named: files, and standard input kept in a file while it is needed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.errors import LedgerError, ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Named:
    """A manifest file, and what messages and reports call it."""

    path: Path
    name: str


@contextmanager
def named(manifests: Sequence[str | Path | Named]) -> Iterator[list[Named]]:
    """Yield the file of each manifest; `-` is standard input.

    Standard input is copied to a private file (mode 0600), since it is read more than once. That
    waits until its other end is closed, so a program with an event loop does it before.

    Raises: UsageError for none at all or `-` twice, ManifestError for what is no regular file,
        LedgerError if standard input cannot be kept.
    """
    if not manifests:
        raise UsageError("no manifest was given", hint="name a CSV or YAML file, or - for stdin")
    if [str(manifest) for manifest in manifests].count(STDIN) > 1:
        raise UsageError("standard input can be read once")
    with ExitStack() as stack:
        yield [
            manifest if isinstance(manifest, Named) else _named(str(manifest), stack)
            for manifest in manifests
        ]


def _named(name: str, stack: ExitStack) -> Named:
    shown = _shown(name)
    if name == STDIN:
        return Named(_keep_stdin(stack), name)
    path = Path(name)
    if not path.exists():
        raise ManifestError(
            f"manifest {shown} does not exist", hint="check the path; - is standard input"
        )
    if not path.is_file():
        raise ManifestError(
            f"manifest {shown} is not a regular file", hint="name the files themselves, or use -"
        )
    return Named(path, shown)


def _shown(name: str) -> str:
    """Return a file's name with what cannot be printed, or stored, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


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

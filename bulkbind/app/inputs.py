"""Opens what the operator named: files, and standard input kept in a file while it is needed."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDIN = "-"


@contextmanager
def named(manifests: Sequence[str | Path]) -> Iterator[list[tuple[Path, str]]]:
    """Yield a path and a name for each manifest; `-` is standard input.

    Standard input is copied to a private file (mode 0600), since it is read more than once.

    Raises: UsageError for none at all or `-` twice, ManifestError for what is no regular file.
    """
    names = [str(manifest) for manifest in manifests]
    if not names:
        raise UsageError("no manifest was given", hint="name a CSV or YAML file, or - for stdin")
    if names.count(STDIN) > 1:
        raise UsageError("standard input can be read once")
    with ExitStack() as stack:
        yield [(_path(name, stack), name) for name in names]


def _path(name: str, stack: ExitStack) -> Path:
    if name == STDIN:
        spool = tempfile.NamedTemporaryFile(prefix="bulkbind-stdin-")  # noqa: SIM115  # the stack closes it
        file = stack.enter_context(spool)
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        return Path(file.name)
    path = Path(name)
    if not path.exists():
        raise ManifestError(
            f"manifest {name} does not exist", hint="check the path; - is standard input"
        )
    if not path.is_file():
        raise ManifestError(
            f"manifest {name} is not a regular file", hint="name the files themselves, or use -"
        )
    return path

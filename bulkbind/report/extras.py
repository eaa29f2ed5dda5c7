"""The libraries of the extras: what to type where one is not installed."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires


def install(extra: str) -> str:
    """Return the command that installs the libraries of an extra into this environment.

    They are named one by one, as this installation declares them: it need not have come from an
    index that knows bulkbind.
    """
    try:
        declared = requires("bulkbind") or []
    except PackageNotFoundError:  # run from a folder
        declared = []
    wanted = re.compile(rf"\bextra\s*==\s*['\"]{re.escape(extra)}['\"]")
    names = [each.partition(";")[0].strip() for each in declared if wanted.search(each)]
    return shlex.join([sys.executable, "-m", "pip", "install", *(names or [extra])])

"""The journal: one JSON line for every request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from bulkbind.errors import BulkbindError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True, kw_only=True)
class Line:
    """One request, filled in while it is served."""

    at: str
    """When the request came, by the sandbox's clock."""
    method: str
    user_id: str | None
    trace_id: str | None
    machine_code: str = ""
    device_id: str = ""
    credential: str = ""
    """Whose credentials came with it, by name."""
    faults: list[str] = field(default_factory=list)
    """Names of those that struck."""
    outcome: str = ""
    """What was done; empty: nothing."""
    status: int | None = None
    """None: no answer, or none that is HTTP, or its end was not reached."""
    took_s: float = 0.0

    @property
    def result(self) -> str:
        """The faults and what was done, e.g. `reset-after bound`."""
        return " ".join([*self.faults, self.outcome]).strip() or "hung up"


class Journal:
    """JSON lines, appended to a file, if there is one, as soon as a request has ended."""

    def __init__(self, path: Path | None) -> None:
        """Open the file. Raises: BulkbindError."""
        self._file = open_to_append(path, "journal") if path is not None else None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def write(self, line: Line) -> None:
        """Append a line; once this returns it survives the end of the process."""
        if self._file is None:
            return
        entry = {
            "at": line.at,
            "method": line.method,
            "user_id": line.user_id,
            "machine_code": line.machine_code,
            "device_id": line.device_id,
            "credential": line.credential,
            "result": line.result,
            "status": line.status,
            "trace_id": line.trace_id,
            "took_s": round(line.took_s, 6),
        }
        self._file.write(json.dumps(entry) + "\n")


def open_to_append(path: Path, what: str) -> TextIO:
    """Return a file to append lines to. Raises: BulkbindError."""
    try:
        return path.open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        raise BulkbindError(
            f"the sandbox's {what} {path} cannot be opened: {error.strerror}"
        ) from error

"""Journal lines, and files of JSON lines."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.errors import BulkbindError
from bulkbind.files import appending

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True, kw_only=True)
class Line:
    """The journal's line for a request, completed while it is served."""

    at: str
    """When the request was received, by the sandbox's clock."""
    method: str
    user_id: str | None
    trace_id: str | None
    machine_code: str = ""
    device_id: str = ""
    credential: str = ""
    """The name of its credentials."""
    faults: list[str] = field(default_factory=list)
    """The names of the faults that struck."""
    outcome: str = ""
    """What was done; empty: nothing."""
    status: int | None = None
    """None: no answer, not HTTP, or incomplete."""
    took_s: float = 0.0

    def entry(self) -> dict[str, object]:
        """Return it as in the journal; `result` is e.g. `reset-after bound`."""
        return {
            "at": self.at,
            "method": self.method,
            "user_id": self.user_id,
            "machine_code": self.machine_code,
            "device_id": self.device_id,
            "credential": self.credential,
            "result": " ".join([*self.faults, self.outcome]).strip() or "hung up",
            "status": self.status,
            "trace_id": self.trace_id,
            "took_s": round(self.took_s, 6),
        }


class JsonLines:
    """Appends JSON lines to a file, if there is one."""

    def __init__(self, path: Path | None, what: str) -> None:
        """Open the file; *what* is its name in errors. Raises: BulkbindError."""
        try:
            self._file = appending(path) if path else None
        except OSError as error:
            raise BulkbindError(
                f"the sandbox's {what} {path} cannot be opened: {error.strerror}"
            ) from error

    def write(self, entry: dict[str, Any]) -> None:
        """Append a line; it survives the end of the process from then on."""
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

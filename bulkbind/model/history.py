"""What became of a device, or of a user's devices, over all runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One attempt that was not accepted outright."""

    at: str
    """ISO 8601, by the server's clock as far as known."""
    verdict: str
    http_status: int | None
    code: str
    message: str
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A binding that was to be taken back."""

    kind: str
    """`undo`, or `move` to another user; `leave` where its scope has the device no more."""
    status: str
    user_id: str
    device_id: str
    at: str
    """ISO 8601; empty while it has not ended."""
    operator: str
    """Who, and on which host."""
    http_status: int | None
    code: str
    message: str
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(Taken):
    """A binding that a run was to unbind as its scope's manifest names the device no more."""

    run_id: str
    """The run that unbinds it, which has no row for it."""
    state: str
    """Of the run."""
    began_at: str
    note: str
    """What the operator said of the run."""
    machine_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """A row of a run that names the device."""

    run_id: str
    state: str
    """Of the run."""
    began_at: str
    """When the run began; ISO 8601, like all times."""
    operator: str
    """Who ran it, and on which host."""
    note: str
    """What the operator said of the run."""
    file: str
    line: int
    user_id: str
    machine_code: str
    status: str
    device_id: str
    create_time: str
    attempts: int
    http_status: int | None
    code: str
    message: str
    detail: str
    trace_id: str
    settled_at: str
    tries: tuple[Try, ...]
    taken: tuple[Taken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A binding as the ledger knows it now."""

    user_id: str
    machine_code: str
    device_id: str
    create_time: str
    since: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything that the ledger holds of a device, or of a user.

    Of runs whose rows were pruned, only their bindings are left.
    """

    machine_code: str | None
    """None: of a user."""
    user_id: str | None
    """None: of a device."""
    bindings: tuple[Known, ...]
    rows: tuple[Appearance, ...]
    """The oldest run first, then in the order of its manifest."""
    left: tuple[Left, ...]
    """The oldest run first."""

    def as_json(self) -> dict[str, Any]:
        """Return it as `history --json` prints it."""
        return asdict(self)

"""Claims: rows in the hands of the engine, and how they ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bulkbind.model.attempts import value

if TYPE_CHECKING:
    from bulkbind.model.attempts import Attempt, Verdict
    from bulkbind.model.rows import Device
    from bulkbind.model.statuses import Status


@dataclass(slots=True)
class Claim:
    """A row in a worker's hands. Owned by one task at a time, which counts in it."""

    row: int
    """The row's id in the ledger."""
    device: Device
    attempts: int = 0
    """Attempts that cost: Transient and NoAnswer, and the one that ended it."""
    doubts: int = 0
    """How often a request for this row got no answer."""
    sent_at: float | None = None
    """The first moment it may have been sent, server's clock; None: never, or clock unknown."""
    clock_refusals: int = 0
    last: Attempt | None = None
    """The last attempt of this process, if any."""
    left: Verdict | None = None
    """In doubt: the verdict on the last request of an earlier process, None where it heard none."""
    silent_at: float | None = None
    """In doubt: since when nothing of ours is on its way, seconds since 1970, local clock."""
    misses: int = 0
    """In doubt: how many lists that could be trusted did not show it."""
    missed_at: float | None = None
    """When the last of them was read, local clock."""


@value
class Outcome:
    """How a row ended."""

    status: Status
    device_id: str = ""
    create_time: str = ""
    detail: str = ""
    """For a person: what is worth knowing beyond the server's message."""
    made_at: float | None = None
    """Where one of several requests made the binding: the latest moment when that may have been,
    seconds since 1970, server's clock. What was sent later was posted again although it was
    bound."""
    repeated: bool = False
    """Whether the attempt that was accepted is one of those."""


Ended: TypeAlias = tuple[Claim, Outcome]
"""A row and how it ended; the claim bears its attempts, and the last of them."""

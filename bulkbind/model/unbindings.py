"""Taking bindings back: what is to be unbound, and how that ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bulkbind.model.statuses import PENDING

if TYPE_CHECKING:
    from bulkbind.model.attempts import Attempt


class UnbindStatus(StrEnum):
    """The states of a binding that is to be taken back."""

    STAGED = "staged"
    CLAIMED = "claimed"
    """A request to unbind it may have left."""
    UNBOUND = "unbound"
    """Unbound by us."""
    ALREADY_GONE = "already_gone"
    """It was not there any more when it was looked for."""
    CHANGED = "changed"
    """The user has the device under another device id now: somebody bound it anew; left alone."""
    FAILED = "failed"
    """The server said no, or its list could not be read; it may still be bound."""


UNBIND_TRANSITIONS: dict[UnbindStatus | None, dict[UnbindStatus, str]] = {
    None: {UnbindStatus.STAGED: "its run is undone, or its device is to be moved"},
    UnbindStatus.STAGED: {
        UnbindStatus.CLAIMED: "a request may leave",
        UnbindStatus.ALREADY_GONE: "the list does not show the device",
        UnbindStatus.CHANGED: "the list shows the device under another id",
        UnbindStatus.FAILED: "the list could not be read",
    },
    UnbindStatus.CLAIMED: {
        UnbindStatus.STAGED: "no request has left",
        UnbindStatus.UNBOUND: "accepted; or no answer came, and the list shows it no more",
        UnbindStatus.ALREADY_GONE: "the server says, or its list shows, that it was gone before",
        UnbindStatus.CHANGED: "the list shows the device under another id",
        UnbindStatus.FAILED: "refused, or out of attempts",
    },
    UnbindStatus.ALREADY_GONE: {UnbindStatus.STAGED: "the undo is begun anew: lists may be wrong"},
    UnbindStatus.CHANGED: {UnbindStatus.STAGED: "the undo is begun again"},
    UnbindStatus.FAILED: {UnbindStatus.STAGED: "the undo is begun again"},
}
"""As `ROW_TRANSITIONS`, for a binding that is to be taken back."""
UNBIND_MEANINGS: dict[str, str] = {
    UnbindStatus.UNBOUND: "unbound",
    UnbindStatus.ALREADY_GONE: "was not there any more; undo it again to look again",
    UnbindStatus.CHANGED: "bound anew since, under another device id; left alone",
    UnbindStatus.FAILED: "could not be unbound; the same command tries again",
    PENDING: "not settled yet: the same command goes on",
}
"""One clause for each status that a report of an undo can show, in that order."""
GONE = (UnbindStatus.UNBOUND, UnbindStatus.ALREADY_GONE)
"""The states after which the binding is no more."""


class UnbindKind(StrEnum):
    """Why a binding is taken back."""

    UNDO = "undo"
    """Its run is undone."""
    MOVE = "move"
    """Its device goes to another user (`run --move`)."""


@dataclass(slots=True)
class Unbinding:
    """A binding in the hands of whoever takes it back."""

    row: int
    """The row, in the ledger, that is undone or that moves the device."""
    kind: UnbindKind
    user_id: str
    machine_code: str
    device_id: str
    status: UnbindStatus = UnbindStatus.STAGED
    attempts: int = 0
    was_sent: bool = False
    """Whether a request may have been carried out of which nobody heard."""
    last: Attempt | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would do."""

    run_id: str
    bound: int
    """Devices that the run bound and that no undo has unbound."""
    in_doubt: int
    """Its rows in doubt: they are looked up, and unbound as well where the run had bound them."""
    moved: int
    """Of the bound ones, those that had been moved from another user: they do not go back there."""
    gone: int
    """Of the bound ones, those that an earlier undo did not find: they are looked for again."""

    @property
    def devices(self) -> int:
        """The number that has to be confirmed: so many are unbound at most."""
        return self.bound + self.in_doubt


@dataclass(frozen=True, slots=True)
class UndoneRow:
    """One row of the report of an undo."""

    source: int
    line: int
    user_id: str
    machine_code: str
    device_id: str
    status: str
    http_status: int | None
    code: str
    message: str
    attempts: int
    trace_id: str
    settled_at: str
    detail: str


@dataclass(frozen=True, slots=True)
class UndoSummary:
    """How an undo stands; every number is read from the ledger."""

    run_id: str
    state: str
    """`planned` where nothing was confirmed yet, else as a run's."""
    counts: dict[str, int]
    """Bindings by status, as a report shows them."""
    in_doubt: int = 0
    """Rows of the run of which no list could tell whether they are bound."""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_person(self) -> bool:
        """Whether a binding could not be taken back, or may still be there."""
        return self.in_doubt > 0 or any(
            self.counts.get(s) for s in (UnbindStatus.CHANGED, UnbindStatus.FAILED)
        )

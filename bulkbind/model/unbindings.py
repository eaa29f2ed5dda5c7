"""Unbinding: what to unbind, and how that ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypedDict

from bulkbind.model.facts import RunFacts
from bulkbind.model.rows import Claim, Device, Ended, Outcome
from bulkbind.model.statuses import PENDING, Described, Status, StatusFacts

if TYPE_CHECKING:
    from bulkbind.model.attempts import Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class UnbindFacts(StatusFacts):
    """The facts about a status of an unbinding."""

    is_gone: bool
    """Whether the binding no longer exists."""
    needs_person: bool = False
    """Whether it has ended and needs a person (exit code 1)."""


_PENDING = UnbindFacts(
    meaning="not settled yet: the same command resumes", tone="wait", is_gone=False, is_pending=True
)


class UnbindStatus(Described):
    """The states of a binding that is to be unbound, in display order."""

    about: UnbindFacts

    STAGED = "staged", _PENDING
    CLAIMED = "claimed", _PENDING
    """A request to unbind it may have been sent."""
    UNBOUND = "unbound", UnbindFacts(meaning="unbound", tone="ok", is_gone=True)
    """Unbound by us."""
    ALREADY_GONE = "already_gone", UnbindFacts(
        meaning="was not there any more; undo it again to look again", tone="mute", is_gone=True
    )  # fmt: skip
    CHANGED = "changed", UnbindFacts(
        meaning="bound anew since, under another device id; left alone",
        tone="warn", is_gone=False, needs_person=True,
    )  # fmt: skip
    FAILED = "failed", UnbindFacts(
        meaning="could not be unbound; the same command tries again",
        tone="bad", is_gone=False, needs_person=True,
    )  # fmt: skip
    """Refused, or the list could not be read; it may still be bound."""


UNBIND_TRANSITIONS: dict[UnbindStatus | None, dict[UnbindStatus, str]] = {
    None: {UnbindStatus.STAGED: "its run is undone, or its device is to be moved or to leave"},
    UnbindStatus.STAGED: {
        UnbindStatus.CLAIMED: "a request may be sent",
        UnbindStatus.ALREADY_GONE: "the list does not show the device",
        UnbindStatus.CHANGED: "the list shows the device under another id",
        UnbindStatus.FAILED: "the list could not be read",
    },
    UnbindStatus.CLAIMED: {
        UnbindStatus.STAGED: "no request was sent",
        UnbindStatus.UNBOUND: "accepted; or no answer came, and the list no longer shows it",
        UnbindStatus.ALREADY_GONE: "the server says, or its list shows, that it was gone before",
        UnbindStatus.CHANGED: "the list shows the device under another id",
        UnbindStatus.FAILED: "refused, or out of attempts",
    },
    UnbindStatus.ALREADY_GONE: {UnbindStatus.STAGED: "the undo is repeated: lists may be wrong"},
    UnbindStatus.CHANGED: {UnbindStatus.STAGED: "the undo is repeated"},
    UnbindStatus.FAILED: {UnbindStatus.STAGED: "the undo is repeated"},
}
"""Like `ROW_TRANSITIONS`, for a binding that is to be unbound."""
UNBIND_MEANINGS: dict[str, str] = {
    **{status: status.about.meaning for status in UnbindStatus if not status.about.is_pending},
    PENDING: _PENDING.meaning,
}
"""One clause for each status that the report of an undo can show, in display order."""
UNBIND_PENDING = tuple(status for status in UnbindStatus if status.about.is_pending)
"""The states that reports show as `PENDING`."""
GONE = tuple(status for status in UnbindStatus if status.about.is_gone)
"""The states in which the binding no longer exists."""
NOT_UNBOUND = tuple(status for status in UnbindStatus if status.about.needs_person)
"""The final states that need a person (exit code 1)."""


class UnbindKind(StrEnum):
    """Why a binding is unbound."""

    UNDO = "undo"
    """Its run is undone."""
    MOVE = "move"
    """Its device goes to another user (`run --move`)."""
    LEAVE = "leave"
    """Its device leaves its user: a list to unbind names it, or its scope has it no more."""


class Held(StrEnum):
    """Whose a binding is that the ledger knows."""

    BOUND = "bound"
    """Its run bound it."""
    FOUND = "found"
    """Its run found it on the server: it is not ours."""
    ADOPTED = "adopted"
    """It was found, and taken over: unbinding it is ours, undoing it is not."""


ADOPTED = {
    "same": "known as it is",
    "taken_over": "found there by a run before; from now on it may be unbound as ours",
    "new": "on the server, not known to the ledger; taken over",
    "other_user": "by the ledger another user's; taken over for this one",
    "changed": "under another device id, name or OS than known; taken over",
    "gone": "known as bound, but on neither of two lists that show others; known no more",
    "not_proven": "known otherwise than the lists show, which say nothing sure; left as it was",
}
"""What users' lists may say of a device to be taken over, in display order."""


@dataclass(slots=True)
class Unbinding:
    """A binding being unbound."""

    row: int
    """Id of the row that is undone, moves the device, or lists it to be unbound; an id of the run
    beyond its rows where none does."""
    kind: UnbindKind
    user_id: str
    machine_code: str
    device_id: str
    status: UnbindStatus = UnbindStatus.STAGED
    attempts: int = 0
    was_sent: bool = False
    """Whether an unanswered request may have been carried out."""
    last: Attempt | None = None
    detail: str = ""

    @property
    def is_listed(self) -> bool:
        """Whether a row of its run lists it to be unbound, and so ends with it."""
        return self.kind is UnbindKind.LEAVE and self.row % _POSITIONS < BEYOND_ROWS

    def end(self, status: UnbindStatus, detail: str = "") -> Self:
        """Note how it ended; return it."""
        self.status, self.detail = status, detail
        return self


_POSITIONS = 1 << 40
BEYOND_ROWS = 1 << 39
"""The first position in a run of a leaver that no row of it names."""


def ended_of(item: Unbinding) -> Ended:
    """Return how the row ends that lists a binding, once that is unbound or cannot be."""
    device = Device(item.user_id, item.machine_code)
    claim = Claim(item.row, device, attempts=item.attempts, last=item.last)
    is_unsent = not item.attempts and not item.was_sent
    outcome = Outcome(Status(item.status), item.device_id, detail=item.detail, is_unsent=is_unsent)
    return claim, outcome


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would do."""

    run_id: str
    bound: int
    """Devices that the run bound and that no undo has unbound."""
    in_doubt: int
    """Rows in doubt: looked up, and unbound if the run bound them."""
    moved: int
    """Bound devices that were moved from another user; they are not moved back."""
    gone: int
    """Bound devices that an earlier undo did not find; they are looked up again."""

    @property
    def devices(self) -> int:
        """The most devices that are unbound: the number to confirm."""
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
class LeaverRow:
    """A device that leaves by a run of its scope, as shown in a report."""

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


class UndoState(TypedDict):
    """What a run's summary says of its undo."""

    state: str
    """As people and scripts see it."""
    counts: dict[str, int]
    """Bindings by status."""


@dataclass(frozen=True, slots=True)
class UndoSummary:
    """The state of an undo; every number is read from the ledger.

    What follows `facts` stands in `undo.json` under the same names.
    """

    run_id: str
    state: str
    """`planned` before confirmation, then like a run's."""
    counts: dict[str, int]
    """Bindings by status as shown in a report."""
    in_doubt: int = 0
    """Rows of the run that no list could settle."""
    facts: RunFacts = field(default_factory=RunFacts)
    created_at: str = ""
    """ISO 8601: when it was first confirmed."""
    ended_at: str | None = None
    stop_reason: str | None = None
    """None if nothing is left to unbind."""
    operator: str = ""
    host: str = ""
    pid: int = 0
    version: str = ""

    @property
    def needs_person(self) -> bool:
        """Whether a binding could not be unbound or may still exist."""
        return self.in_doubt > 0 or any(self.counts.get(status) for status in NOT_UNBOUND)

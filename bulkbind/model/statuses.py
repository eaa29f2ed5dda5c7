"""The states of a run and of a row, and their names in reports."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The states of a row."""

    STAGED = "staged"
    """Checked and waiting to be sent."""
    CLAIMED = "claimed"
    """Handed to a worker; it may have been sent."""
    BOUND = "bound"
    """Bound by this run; only these can be undone."""
    ALREADY_BOUND = "already_bound"
    """The server held the binding before this run sent it."""
    FAILED = "failed"
    """Refused or out of attempts; not bound."""
    IN_DOUBT = "in_doubt"
    """A request was sent and no answer came: the server may hold the binding."""
    INVALID = "invalid"
    """Breaks a rule; never sent."""
    DUPLICATE = "duplicate"
    """Another valid row of this run names the same device and counts instead."""
    SKIPPED = "skipped"
    """Known to be bound by the ledger; not sent again."""
    MOVED = "moved"
    """Bound to another user according to the ledger; not sent."""
    WITHDRAWN = "withdrawn"
    """Only wanted by an older run, which another run replaced; not sent."""


ROW_TRANSITIONS: dict[Status | None, dict[Status, str]] = {
    None: {
        Status.STAGED: "it keeps every rule",
        Status.INVALID: "it breaks a rule",
        Status.DUPLICATE: "an earlier row of the run names its user and device",
    },
    Status.STAGED: {
        Status.CLAIMED: "handed to a worker",
        Status.IN_DOUBT: "an older run may have sent it, or another run may have bound it",
        Status.SKIPPED: "the ledger knows it as bound",
        Status.MOVED: "the ledger knows its device as bound to another user",
        Status.WITHDRAWN: "another run takes its run's place, or its run is undone",
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
    Status.CLAIMED: {
        Status.BOUND: "accepted, and made since it was first sent",
        Status.ALREADY_BOUND: "accepted, but made earlier; or said to be bound",
        Status.FAILED: "refused, or out of attempts",
        Status.STAGED: "surely not done: it was put off, or is to be sent again",
        Status.IN_DOUBT: "no answer came, or it was found claimed at start-up",
    },
    Status.IN_DOUBT: {
        Status.BOUND: "the list shows it, made since it was first sent",
        Status.ALREADY_BOUND: "the list shows it, made earlier",
        Status.SKIPPED: "the list shows it, and an older run had sent it",
        Status.STAGED: "two lists do not show it",
        Status.FAILED: "two lists do not show it, and it was refused or is out of attempts",
        Status.WITHDRAWN: "two lists do not show it, and another run took its run's place",
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
    Status.SKIPPED: {
        Status.FAILED: "its binding has vanished from the server",
        Status.STAGED: "its binding has vanished, and is to be made again",
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
    Status.MOVED: {
        Status.STAGED: "the other user's binding has been taken back",
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
    Status.DUPLICATE: {
        Status.INVALID: "duplicates are errors",
    },
}
"""Every permitted transition: state (None: a new row) -> next state -> reason.

Every integration test checks the ledger's SQL against it.
"""

PENDING = "pending"
"""The status that a report shows for rows still staged or claimed."""
MEANINGS: dict[str, str] = {
    Status.BOUND: "bound by this run",
    Status.ALREADY_BOUND: "was bound on the server before this run sent it",
    Status.SKIPPED: "known as bound from an earlier run, not sent again",
    Status.DUPLICATE: "same device as another row, which is the one that counts",
    Status.INVALID: "breaks a rule, never sent",
    Status.FAILED: "the server said no, all attempts were used up, or a known binding has vanished",
    Status.IN_DOUBT: "sent, no answer came, and the server's list could not settle it yet",
    Status.MOVED: "bound to another user, not sent",
    Status.WITHDRAWN: "left by a run that another one replaced, not sent",
    PENDING: "not settled yet: `bulkbind resume` goes on",
}
"""One clause for each status that a report can show, in display order."""
NEEDS_PERSON = (Status.FAILED, Status.INVALID, Status.IN_DOUBT, Status.MOVED)
"""The final states that need a person (exit code 1)."""
COMES_BACK = (Status.FAILED, Status.INVALID, Status.IN_DOUBT, PENDING)
"""The states of rows returned to the operator as a manifest: fix them or retry."""


class RunState(StrEnum):
    """The states of a run, each durable before the next step begins."""

    STAGING = "staging"
    READY = "ready"
    CONFIRMED = "confirmed"
    SENDING = "sending"
    DONE = "done"
    STOPPED = "stopped"


RUN_TRANSITIONS: dict[RunState | None, dict[RunState, str]] = {
    None: {RunState.STAGING: "its manifest is about to be read"},
    RunState.STAGING: {RunState.READY: "the whole manifest is staged"},
    RunState.READY: {RunState.CONFIRMED: "it is wanted"},
    RunState.CONFIRMED: {
        RunState.SENDING: "the first rows are about to leave",
        RunState.DONE: "it is undone before anything was sent",
    },
    RunState.SENDING: {
        RunState.DONE: "nothing is left to send; or it was killed, and is undone",
        RunState.STOPPED: "rows are left, and the run can resume",
    },
    RunState.STOPPED: {RunState.SENDING: "it resumes", RunState.DONE: "it is undone"},
}
"""Like `ROW_TRANSITIONS`, for a run; an unconfirmed run is deleted."""
UNDO_TRANSITIONS: dict[RunState | None, dict[RunState, str]] = {
    None: {RunState.CONFIRMED: "the question was answered"},
    RunState.CONFIRMED: {RunState.SENDING: "the first requests are about to leave"},
    RunState.SENDING: {
        RunState.DONE: "everything was tried",
        RunState.STOPPED: "bindings are left, and the undo can resume",
    },
    RunState.STOPPED: {RunState.SENDING: "it resumes"},
    RunState.DONE: {RunState.CONFIRMED: "it is repeated for what could not be unbound"},
}
"""Like `ROW_TRANSITIONS`, for the undo of a run."""

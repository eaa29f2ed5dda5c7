"""The states of a run and of a row, and what a report calls them."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """The states of a row; the transitions between them are the ledger's."""

    STAGED = "staged"
    """Checked, and waiting to be sent."""
    CLAIMED = "claimed"
    """Handed to a worker; it may have been sent."""
    BOUND = "bound"
    """Bound by this run: only these can be undone."""
    ALREADY_BOUND = "already_bound"
    """The server held the binding before this run sent it."""
    FAILED = "failed"
    """Refused, or out of attempts; not bound."""
    IN_DOUBT = "in_doubt"
    """A request left and no answer came: the server may hold the binding."""
    INVALID = "invalid"
    """A rule is broken; never sent."""
    DUPLICATE = "duplicate"
    """Another valid row of this run names the same device, and is the one that counts."""
    SKIPPED = "skipped"
    """The ledger knows that it is bound; not sent again."""
    MOVED = "moved"
    """The ledger knows the device as bound to another user; not sent."""
    WITHDRAWN = "withdrawn"
    """Only an older run wanted it, and another run took that one's place; not sent."""


PENDING = "pending"
"""What a report calls a row that is still staged or claimed when a run has stopped."""
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
"""One clause for each status that a report can show, in the order in which they are shown."""
NEEDS_PERSON = (Status.FAILED, Status.INVALID, Status.IN_DOUBT, Status.MOVED)
"""The final states after which somebody has to look (exit code 1)."""
COMES_BACK = (Status.FAILED, Status.INVALID, Status.IN_DOUBT, PENDING)
"""What comes back to the operator as a manifest: it needs a person or another try."""


class RunState(StrEnum):
    """The states of a run, each durable before the next step begins."""

    STAGING = "staging"
    READY = "ready"
    CONFIRMED = "confirmed"
    SENDING = "sending"
    DONE = "done"
    STOPPED = "stopped"

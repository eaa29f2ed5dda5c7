"""The states of a run and of a row: every fact about each, from which everything else follows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from bulkbind.model.fields import DETAILS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

PENDING = "pending"
"""What reports show for what has not ended yet."""


class Described(StrEnum):
    """Words with facts: a word without them is an error on import."""

    about: object

    def __new__(cls, value: str, about: object = None) -> Self:
        """*about* has a default only because mypy takes a lookup by value for this call."""
        if about is None:
            raise TypeError(f"{cls.__name__} {value} has no facts")
        self = str.__new__(cls, value)
        self._value_ = value
        self.about = about
        return self


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The facts about a word of a plan."""

    sign: str
    meaning: str
    said: tuple[str, str]
    """What the plan's first sentence says after one row and after several."""
    is_bound: bool = False
    """Whether the device is known as bound; the server's list may say otherwise."""
    is_fixed: bool = False
    """Whether it stays, whatever the server's list shows."""
    is_problem: bool = False
    """Whether `plan` ends with 1 for it, unless an option solves it."""


class PlanWord(Described):
    """What a plan says of a row, in display order."""

    about: PlanFacts

    BIND = "bind", PlanFacts("+", "to bind", ("is to be bound", "are to be bound"))
    UNBIND = "unbind", PlanFacts(
        "-", "to unbind", ("is to be unbound", "are to be unbound"), is_fixed=True
    )  # fmt: skip
    ALREADY_BOUND = "already_bound", PlanFacts(
        "=", "already bound", ("is bound already", "are bound already"), is_bound=True
    )  # fmt: skip
    CHANGED = "changed", PlanFacts(
        "~", f"bound under another {DETAILS}: --rebind sends these",
        (f"is bound under another {DETAILS}", f"are bound under another {DETAILS}"), is_bound=True,
    )  # fmt: skip
    MISSING = "missing", PlanFacts(
        "_", "known as bound, but not on the server's list: --rebind-missing sends these",
        ("is missing on the server", "are missing on the server"), is_problem=True,
    )  # fmt: skip
    IN_DOUBT = "in_doubt", PlanFacts(
        "…", "in doubt: the server's list settles them first", ("is in doubt", "are in doubt")
    )  # fmt: skip
    MOVED = "moved", PlanFacts(
        ">", "bound to another user: --move takes them from there",
        ("is bound to another user", "are bound to another user"), is_fixed=True, is_problem=True,
    )  # fmt: skip
    GONE = "gone", PlanFacts(
        "0", "not bound any more, as the ledger knows", ("is gone already", "are gone already"),
        is_fixed=True,
    )  # fmt: skip
    NOT_OURS = "not_ours", PlanFacts(
        "#", "not bound or adopted by this ledger for its user: --any unbinds what lists show",
        ("is not ours", "are not ours"), is_fixed=True, is_problem=True,
    )  # fmt: skip
    DUPLICATE = "duplicate", PlanFacts(
        "2", "same device as another row, which is the one that counts",
        ("is a duplicate", "are duplicates"),
    )  # fmt: skip
    INVALID = "invalid", PlanFacts(
        "!", "invalid: a rule is broken", ("breaks a rule", "break a rule"), is_problem=True
    )  # fmt: skip
    LEFT_OUT = "left_out", PlanFacts(
        "/", "left out by --where or --where-not", ("is left out", "are left out"), is_fixed=True
    )  # fmt: skip
    FAILED = "failed", PlanFacts(
        "x", "failed in the unfinished run that this one resumes",
        ("has failed before", "have failed before"), is_fixed=True,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFacts:
    """The facts about a status, of a row or of an unbinding."""

    meaning: str
    """One clause, for reports."""
    tone: str
    """Its colour: a class of the page's style sheet."""
    is_pending: bool = False
    """Whether it has not ended; reports show it as `PENDING`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFacts(StatusFacts):
    """The facts about a status of a row."""

    planned: PlanWord
    """What a plan says of it."""
    comes_back: bool
    """Whether the row is returned to the operator as a manifest: fix it or retry."""
    is_bound: bool
    """Whether the device is bound to the row's user."""
    is_gone: bool = False
    """Whether an unbind run leaves the device without a binding to the row's user."""
    is_ours: bool = False
    """Whether its own run bound it, so that an undo unbinds it."""
    is_open: bool = False
    """Whether the server may hold the binding without our knowing."""
    said: tuple[str, str] = ("", "")
    """What a summary says after one and after several: `now` of what is bound, else a clause."""
    to_do: str = ""
    """What a person can do about it; empty if it needs none."""
    to_do_unbinding: str = ""
    """The same where an unbind run left it so; empty if it is no other."""

    @property
    def needs_person(self) -> bool:
        """Whether it has ended and needs a person (exit code 1)."""
        return bool(self.to_do)


_PENDING = RowFacts(
    meaning="not sent yet, or not answered", planned=PlanWord.BIND, tone="wait",
    comes_back=True, is_bound=False, is_pending=True, said=("is left", "are left"),
)  # fmt: skip


class Status(Described):
    """The states of a row, in display order."""

    about: RowFacts

    @property
    def shown(self) -> str:
        """The status that reports show."""
        return PENDING if self.about.is_pending else self.value

    STAGED = "staged", _PENDING
    """Checked and waiting to be sent."""
    CLAIMED = "claimed", replace(_PENDING, planned=PlanWord.IN_DOUBT, is_open=True)
    """Handed to a worker; it may have been sent."""
    BOUND = "bound", RowFacts(
        meaning="bound by this run", planned=PlanWord.ALREADY_BOUND, tone="ok",
        comes_back=False, is_bound=True, is_ours=True, said=("now", "now"),
    )  # fmt: skip
    ALREADY_BOUND = "already_bound", RowFacts(
        meaning="bound on the server, and not proven to be this run's; an undo leaves it",
        planned=PlanWord.ALREADY_BOUND, tone="ok2", comes_back=False, is_bound=True,
        said=("found on the server", "found on the server"),
    )  # fmt: skip
    SKIPPED = "skipped", RowFacts(
        meaning="known as bound from an earlier run, not sent again",
        planned=PlanWord.ALREADY_BOUND, tone="info", comes_back=False, is_bound=True,
        said=("known", "known"),
    )  # fmt: skip
    DUPLICATE = "duplicate", RowFacts(
        meaning="same device as another row, which is the one that counts",
        planned=PlanWord.DUPLICATE, tone="mute", comes_back=False, is_bound=False,
        said=("is a duplicate", "are duplicates"),
    )  # fmt: skip
    INVALID = "invalid", RowFacts(
        meaning="breaks a rule, never sent", planned=PlanWord.INVALID, tone="bad2",
        comes_back=True, is_bound=False,
        to_do="fix the cell that the reason names, in its failed file or at its source",
    )  # fmt: skip
    FAILED = "failed", RowFacts(
        meaning="the server said no, all attempts were used up, or a known binding has vanished",
        planned=PlanWord.FAILED, tone="bad", comes_back=True, is_bound=False,
        to_do="fix the row, or run its failed file once more as it is",
        to_do_unbinding="fix the row, or `unbind` its failed file as it is; `run` would bind it",
    )  # fmt: skip
    IN_DOUBT = "in_doubt", RowFacts(
        meaning="sent, no answer came, and no list of its user has settled it yet",
        planned=PlanWord.IN_DOUBT, tone="warn", comes_back=True, is_bound=False, is_open=True,
        said=("is in doubt", "are in doubt"),
        to_do="the next run asks the server again",
    )  # fmt: skip
    MOVED = "moved", RowFacts(
        meaning="bound to another user, not sent", planned=PlanWord.MOVED, tone="warn2",
        comes_back=False, is_bound=False,
        to_do="decide whose the device is; results.csv names the other user",
    )  # fmt: skip
    WITHDRAWN = "withdrawn", RowFacts(
        meaning="not sent: another run took its run's place, or its run was undone",
        planned=PlanWord.FAILED, tone="mute2", comes_back=False, is_bound=False,
        said=("is withdrawn", "are withdrawn"),
    )  # fmt: skip
    LEFT_OUT = "left_out", RowFacts(
        meaning="left out by --where or --where-not, never sent", planned=PlanWord.LEFT_OUT,
        tone="mute2", comes_back=False, is_bound=False, said=("is left out", "are left out"),
    )  # fmt: skip
    UNBOUND = "unbound", RowFacts(
        meaning="unbound by this run", planned=PlanWord.GONE, tone="ok",
        comes_back=False, is_bound=False, is_gone=True, said=("now", "now"),
    )  # fmt: skip
    ALREADY_GONE = "already_gone", RowFacts(
        meaning="was not bound any more before this run: by the list, or by the ledger",
        planned=PlanWord.GONE, tone="mute", comes_back=False, is_bound=False, is_gone=True,
        said=("gone before", "gone before"),
    )  # fmt: skip
    CHANGED = "changed", RowFacts(
        meaning="bound anew since, under another device id; left alone",
        planned=PlanWord.NOT_OURS, tone="warn", comes_back=True, is_bound=False,
        to_do="decide whose the device is; `unbind --any` unbinds what the lists show",
    )  # fmt: skip
    NOT_OURS = "not_ours", RowFacts(
        meaning="not bound or adopted by this ledger for its user; left alone",
        planned=PlanWord.NOT_OURS, tone="warn2", comes_back=True, is_bound=False,
        to_do="adopt it first, or `unbind --any` unbinds what the lists show",
    )  # fmt: skip


_UNASKED = "the connection that settled it said something unasked afterwards, or broke"
ROW_TRANSITIONS: dict[Status | None, dict[Status, str]] = {
    None: {
        Status.STAGED: "it keeps every rule",
        Status.INVALID: "it breaks a rule",
        Status.DUPLICATE: "an earlier row of the run names its user and device",
        Status.LEFT_OUT: "a condition leaves it out, and such rows are kept",
        Status.SKIPPED: "its manifest has not changed, and the ledger knows it as bound",
    },
    Status.STAGED: {
        Status.CLAIMED: "handed to a worker",
        Status.FAILED: "its user's state refuses binds: proven three times, and by the list; or "
        "it could not be unbound",
        Status.IN_DOUBT: "an older run may have sent it, or another run may have bound it",
        Status.SKIPPED: "the ledger knows it as bound",
        Status.MOVED: "the ledger knows its device as bound to another user",
        Status.WITHDRAWN: "another run takes its run's place, or its run is undone",
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
        Status.ALREADY_GONE: "the ledger knows so, or lists show so",
        Status.CHANGED: "the list shows the device under another id",
        Status.NOT_OURS: "this ledger has not bound or adopted it for its user",
    },
    Status.CLAIMED: {
        Status.BOUND: "accepted, and made since it was first sent",
        Status.ALREADY_BOUND: "accepted, but not proven to be made by it; or said to be bound",
        Status.FAILED: "refused, or out of attempts",
        Status.STAGED: "surely not done: it was put off, or is to be sent again",
        Status.IN_DOUBT: "no answer came, or it was found claimed at start-up",
        Status.UNBOUND: "unbound; or no answer came, and the list no longer shows it",
        Status.ALREADY_GONE: "the server says, or its list shows, that it was gone before",
        Status.CHANGED: "the list shows the device under another id",
    },
    Status.FAILED: {Status.IN_DOUBT: _UNASKED},
    Status.BOUND: {Status.IN_DOUBT: _UNASKED},
    Status.ALREADY_BOUND: {Status.IN_DOUBT: _UNASKED},
    Status.IN_DOUBT: {
        Status.BOUND: "the list shows it, made since it was first sent",
        Status.ALREADY_BOUND: "the list shows it, not proven to be made by it",
        Status.SKIPPED: "the list shows it, and an older run had sent it",
        Status.STAGED: "two lists do not show it",
        Status.FAILED: "two lists do not show it, and it was refused or is out of attempts",
        Status.WITHDRAWN: "two lists do not show it, and another run took its run's place",
        Status.UNBOUND: "it was to be unbound, and two lists do not show it",
        Status.CHANGED: "it was to be unbound, and two lists show the device under another id",
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
    Status.ALREADY_GONE: {
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
    Status.NOT_OURS: {
        Status.INVALID: "another row has its device, which is an error",
        Status.DUPLICATE: "another row has its device for another user, and counts",
    },
}
"""Every permitted transition: state (None: a new row) -> next state -> reason.

Every integration test checks the ledger's SQL against it.
"""

BY_ANSWER = tuple(
    before for before in Status if ROW_TRANSITIONS.get(before, {}).get(Status.IN_DOUBT) == _UNASKED
)
"""The states in which an answer alone may have left a row."""
MEANINGS: dict[str, str] = {
    **{status: status.about.meaning for status in Status if not status.about.is_pending},
    PENDING: _PENDING.meaning,
}
"""One clause for each status that a report can show, in display order."""
IS_PENDING = tuple(status for status in Status if status.about.is_pending)
"""The states that reports show as `PENDING`."""
IS_OPEN = tuple(status for status in Status if status.about.is_open)
"""The states in which the server may hold the binding without our knowing."""
IS_BOUND = tuple(status for status in Status if status.about.is_bound)
"""The states in which the device is bound to the row's user."""
IS_GONE = tuple(status for status in Status if status.about.is_gone)
"""The states in which an unbind run has left the device without a binding to the row's user."""
IS_OURS = tuple(status for status in Status if status.about.is_ours)
"""The states in which the row's own run bound the device."""
NEEDS_PERSON = tuple(status for status in Status if status.about.needs_person)
"""The final states that need a person (exit code 1)."""
COMES_BACK = tuple(dict.fromkeys(status.shown for status in Status if status.about.comes_back))
"""The states of rows returned to the operator as a manifest: fix them or retry."""
TO_SEE_TO = tuple(dict.fromkeys([*COMES_BACK, *NEEDS_PERSON]))
"""The states of rows that need a person or another try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFacts:
    """The facts about a state of a run."""

    is_confirmed: bool
    """Whether it is wanted; other runs are thrown away when the next one begins."""
    can_resume: bool
    is_over: bool
    """Whether its sending has ended, for now or for good."""


class RunKind(StrEnum):
    """What a run does."""

    BIND = "bind"
    UNBIND = "unbind"
    ADOPT = "adopt"
    """It takes over what is bound, and has no rows."""


class RunState(Described):
    """The states of a run, each durable before the next step begins."""

    about: StateFacts

    STAGING = "staging", StateFacts(is_confirmed=False, can_resume=False, is_over=False)
    READY = "ready", StateFacts(is_confirmed=False, can_resume=False, is_over=False)
    CONFIRMED = "confirmed", StateFacts(is_confirmed=True, can_resume=True, is_over=False)
    SENDING = "sending", StateFacts(is_confirmed=True, can_resume=True, is_over=False)
    DONE = "done", StateFacts(is_confirmed=True, can_resume=False, is_over=True)
    STOPPED = "stopped", StateFacts(is_confirmed=True, can_resume=True, is_over=True)


IS_UNCONFIRMED = tuple(state for state in RunState if not state.about.is_confirmed)
CAN_RESUME = tuple(state for state in RunState if state.about.can_resume)
IS_OVER = tuple(state for state in RunState if state.about.is_over)


RUN_TRANSITIONS: dict[RunState | None, dict[RunState, str]] = {
    None: {
        RunState.STAGING: "its manifest is about to be read",
        RunState.DONE: "it takes over what lists show, and has no rows",
    },
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


def as_shown(counts: Mapping[Status, int]) -> dict[str, int]:
    """Return a number of rows by status as reports show it, in display order, zeros omitted."""
    shown = dict.fromkeys(MEANINGS, 0)
    for status, count in counts.items():
        shown[status.shown] += count
    return {status: count for status, count in shown.items() if count}

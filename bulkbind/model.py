"""The nouns that every stage shares.

Imports the standard library, and msgspec for what is made for every row of a manifest: a
`msgspec.Struct` takes a third of the time of a dataclass, and none of the garbage collector's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import msgspec

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a class of values: frozen for the type checker, which costs nothing at run time.

    For what is made for every device; `dataclass(frozen=True)` makes them three times as slowly.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


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


OWN_COLUMNS = ("bulkbind_status", "bulkbind_reason")
"""Columns that we add to rows that come back to the operator, and ignore on input."""


class Device(msgspec.Struct, frozen=True, gc=False):
    """One device and the user who gets it; every rule has been passed."""

    user_id: str
    machine_code: str
    device_name: str | None = None
    device_os: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of one row."""

    field: str
    """The field of the manifest (`machine_code`, …), or `row`."""
    column: str
    """The operator's own name of the column, or the field's where there is none."""
    value: str
    """The cell as it was found, trimmed."""
    rule: str
    """What is allowed: one clause, the same for every row that breaks it."""
    found: str
    """What breaks it in this value, e.g. `'-' (U+002D HYPHEN-MINUS) at 4`."""
    hint: str = ""
    """The likely cause, and what would mend it; empty where nothing is known."""

    @property
    def what(self) -> str:
        """The value and what is wrong with it."""
        shown = f"{self.column} {self.value!r}" if self.value else self.column
        return f"{shown}: {self.found}"

    @property
    def text(self) -> str:
        """The problem as a person reads it, the same wherever it is shown."""
        return f"{self.what} ({self.rule})" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Change:
    """A value that cleaning made fit its rule."""

    column: str
    """The operator's own name of the column."""
    before: str
    after: str

    @property
    def text(self) -> str:
        """The change as a person reads it."""
        return f"{self.column} cleaned: {self.before!r} -> {self.after!r}"


class CheckedRow(msgspec.Struct, frozen=True, gc=False):
    """A row of a manifest after the rules: its values, and what is wrong with them."""

    line: int
    """The line on which the row begins, 1-based."""
    cells: list[str] | dict[str, Any]
    """The operator's own cells, untouched: a list (a table) or a mapping (YAML, JSON)."""
    values: tuple[str | None, str | None, str | None, str | None]
    """user_id, machine_code, device_name, device_os as found, also where they break a rule."""
    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()
    """What cleaning did; `values` hold what came of it."""

    @property
    def device(self) -> Device | None:
        """The device, or None where a rule is broken. Made anew: most never need it."""
        user, code, name, system = self.values
        if self.problems or user is None or code is None:
            return None
        return Device(user, code, name, system)


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest file as it was found: all that is needed to write rows back in its own form."""

    name: str
    """The path as the operator gave it; `-` for standard input."""
    format: str
    """`csv`, `xlsx`, `yaml`, `json` or `jsonl`."""
    encoding: str
    bom: bool
    delimiter: str = ","
    header: tuple[str, ...] = ()
    """The operator's header cells, untouched (tables)."""
    has_header: bool = True
    """False where `header` was given because the file has none."""
    preamble: str = ""
    """The lines before the header, untouched (CSV)."""
    quote: str = '"'
    escape: str = ""
    """What stands before a quote inside quotes; empty: the quote is doubled."""


# --- Verdicts: what an answer, or silence, means -------------------------------------------------


@value
class Accepted:
    """The server holds the binding and sent its record."""

    device_id: str
    create_time: str
    """As the server wrote it; empty where it sent none."""


@dataclass(frozen=True, slots=True)
class AlreadyBound:
    """A code that is set as "already bound": perhaps to this user, perhaps to another."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A final no."""

    set_up: bool = False
    """True where the answer may speak of the set-up (credentials, path) rather than the device."""
    unsure: bool = False
    """True where it may have been done for all that, as behind a redirect."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """The gateway said slow down: the destination's state, never the device's fault."""

    limit: float | None = None
    """Requests per window, where the gateway told."""
    window_s: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What the headers of an answer tell of one of the gateway's limits."""

    limit: float | None
    """Requests per window."""
    window_s: float | None
    remaining: float | None
    """Requests left in the window."""
    reset_s: float | None
    """Seconds until the window is whole again."""
    source: str
    """The header's name, for a person."""


@dataclass(frozen=True, slots=True)
class QuotaUsedUp:
    """The gateway takes nothing more of this application for a long time, or for ever."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Transient:
    """Trouble that may pass; the device was not bound as far as the server says."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A request left and no usable answer came: the server may hold the binding."""


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No connection was made, so nothing was sent."""


@dataclass(frozen=True, slots=True)
class AuthExpired:
    """The credentials were refused, or there are none to send with: nothing was done."""

    is_renewable: bool = False
    """Whether the same request may go through with renewed credentials."""
    is_users_own: bool = False
    """Whether it is about this user alone, and others can be served."""
    advice: str = ""
    """What a person can do about it."""


@dataclass(frozen=True, slots=True)
class ClockRefused:
    """Our X-Date was outside the server's window; its clock is known now."""


Verdict: TypeAlias = (
    Accepted
    | AlreadyBound
    | Refused
    | Throttled
    | QuotaUsedUp
    | Transient
    | NoAnswer
    | Unreachable
    | AuthExpired
    | ClockRefused
)


@value
class Attempt:
    """One request and what came of it."""

    verdict: Verdict
    trace_id: str
    sent_at: float
    """When it was sent: seconds since 1970 by the server's clock as far as it is known, never
    later than the true moment."""
    took_s: float
    http_status: int | None = None
    code: str = ""
    """The answer's `code` or `error_code`, as text."""
    message: str = ""
    """The server's own words, cut at 300 characters; or what happened on the way."""
    request_id: str = ""
    """The gateway's own name for it, where it was not accepted and the answer gave one."""


@dataclass(frozen=True, slots=True)
class Record:
    """A binding as the server's list shows it."""

    machine_code: str
    device_id: str
    create_time: str
    device_name: str | None = None
    device_os: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A user's list of devices, or the attempt that did not bring one."""

    attempt: Attempt
    records: dict[str, Record] | None
    """By machine code; None where no usable list came."""


# --- Plans ----------------------------------------------------------------------------------------

PLANNED: dict[str, tuple[str, str]] = {
    "bind": ("+", "to bind"),
    "already_bound": ("=", "already bound"),
    "changed": ("~", "bound under another name or OS: --rebind sends these"),
    "missing": (
        "-",
        "known as bound, but not on the server's list: --rebind-missing sends these",
    ),
    "in_doubt": ("…", "in doubt: the server's list settles them first"),
    "moved": (">", "bound to another user: --move takes them from there"),
    "duplicate": ("2", "same user and machine code as an earlier row"),
    "invalid": ("!", "break a rule"),
    "failed": ("x", "failed in the unfinished run that is gone on with"),
}
"""What a plan counts: its mark and its meaning, in the order in which they are shown."""
EXTRA = ("?", "on the server, but not in the manifest")


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would cost."""

    binds: int
    lists: int
    per_s: float | None
    """The rate it is reckoned with; None: nothing is known."""
    source: str
    """Where the rate comes from."""
    unbinds: int = 0

    @property
    def calls(self) -> int:
        """Requests, if none has to be sent again."""
        return self.binds + self.lists + self.unbinds

    @property
    def seconds(self) -> float | None:
        """How long they take at that rate; None where no rate is known."""
        return None if not self.per_s else self.calls / self.per_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do, before it does."""

    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by the words of `PLANNED`, all of them."""
    users: dict[str, dict[str, int]]
    """The same by user, those without any left out, with `extra`; of the first users alone."""
    user_count: int
    """Users in the manifests."""
    moved: tuple[dict[str, str], ...]
    """`machine_code`, `from`, `to` of the first moved rows."""
    problems: tuple[str, ...]
    """The first rows that break a rule."""
    forecast: Forecast
    digest: str
    """Of the manifests."""
    mark: str
    """Of what would be done with each row: another one means that manifest or ledger moved."""
    going_on: str = ""
    """The unfinished run of these manifests that would be gone on with."""
    is_refreshed: bool = False
    """Whether the server's lists were asked."""
    extra: int | None = None
    """Devices of these users on the server that no row names; None: nobody looked."""
    extras: tuple[dict[str, str], ...] = ()
    """`user_id`, `machine_code` of the first of them."""

    @property
    def rows(self) -> int:
        """Rows in the manifests."""
        return sum(self.counts.values())


# --- Taking bindings back -------------------------------------------------------------------------


class UnbindStatus(StrEnum):
    """The states of a binding that is to be taken back."""

    STAGED = "staged"
    CLAIMED = "claimed"
    """A request to unbind it may have left."""
    UNBOUND = "unbound"
    """Unbound by us."""
    ALREADY_GONE = "already_gone"
    """Somebody else had unbound it."""
    CHANGED = "changed"
    """The user has the device under another device id now: somebody bound it anew; left alone."""
    FAILED = "failed"
    """The server said no, or its list could not be read; it may still be bound."""


UNBIND_MEANINGS: dict[str, str] = {
    UnbindStatus.UNBOUND: "unbound",
    UnbindStatus.ALREADY_GONE: "was unbound before, by somebody else",
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
class UndoPlan:
    """What an undo would do."""

    run_id: str
    bound: int
    """Devices that the run bound and that were not taken back."""
    in_doubt: int
    """Its rows in doubt: they are looked up, and unbound as well where the run had bound them."""
    moved: int
    """Of the bound ones, those that had been moved from another user: they do not go back there."""

    @property
    def devices(self) -> int:
        """The number that has to be confirmed: so many are unbound at most."""
        return self.bound + self.in_doubt


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


# --- What the engine works on --------------------------------------------------------------------


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


@value
class Settlement:
    """An outcome with the attempt that led to it, ready for the ledger."""

    row: int
    device: Device
    outcome: Outcome
    attempts: int
    attempt: Attempt | None = None
    """None where no request of this run led to it."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of a report."""

    source: int
    line: int
    user_id: str
    machine_code: str
    device_name: str
    device_os: str
    status: str
    device_id: str
    create_time: str
    http_status: int | None
    code: str
    message: str
    attempts: int
    trace_id: str
    settled_at: str
    detail: str
    problems: tuple[Problem, ...]
    """The rules that the row breaks."""
    cells: str | None
    """JSON of the operator's cells, None once the row is known as bound."""
    changes: str = ""
    """What cleaning did; `detail` begins with it."""

    @property
    def broken(self) -> frozenset[str]:
        """Fields whose values break a rule."""
        return frozenset(problem.field for problem in self.problems)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt that was not simply accepted, as a report shows it."""

    source: int
    line: int
    user_id: str
    machine_code: str
    sent_at: str
    """ISO 8601, by the server's clock as far as it was known."""
    took_s: float
    verdict: str
    http_status: int | None
    code: str
    message: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run is and how its rows stand; every number is read from the ledger."""

    run_id: str
    state: RunState
    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by status, as a report shows them (`pending` for what is left)."""
    reasons: tuple[dict[str, Any], ...]
    """`status, code, message, count, example` (file and line of the first), largest first."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Who, where, which version, times, settings without secrets, pace learned."""

    @property
    def total(self) -> int:
        """Rows in the manifests."""
        return sum(self.counts.values())

    @property
    def needs_person(self) -> bool:
        """Whether a row ended in a state that somebody has to look at."""
        return any(self.counts.get(status, 0) for status in NEEDS_PERSON)

"""The contents of a plan before a run and of a report after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.model.facts import RunFacts
from bulkbind.model.fields import NAME
from bulkbind.model.statuses import NEEDS_PERSON, RunKind, RunState
from bulkbind.model.unbindings import NOT_UNBOUND

if TYPE_CHECKING:
    from bulkbind.model.facts import Chosen, Example
    from bulkbind.model.problem_groups import BrokenRule
    from bulkbind.model.rows import Problem
    from bulkbind.model.statuses import Status
    from bulkbind.model.unbindings import UnbindStatus, UndoState

EXTRA = ("?", "on the server, but not in the manifest")
CUT_OFF = "cut off"
"""What is shown for a run, or its undo, that has not ended, and whose process is gone."""
NO_COLUMN = {"is_column": False}
"""Marks an attribute of a row that reports do not show. All others are columns, in their order."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would cost."""

    binds: int
    lists: int
    per_s: float | None
    """The expected rate; None if unknown."""
    source: str
    """Where the rate comes from."""
    unbinds: int = 0
    moves: int = 0
    """Those of the unbinds that take a device from the user who has it, as a row names another."""
    users: int = 0
    """Users of the devices that would be bound."""

    @property
    def calls(self) -> int:
        """Requests, not counting retries."""
        return self.binds + self.lists + self.unbinds

    @property
    def seconds(self) -> float | None:
        """Expected duration; None if the rate is unknown."""
        return None if not self.per_s else self.calls / self.per_s


@dataclass(frozen=True, slots=True)
class Leavers:
    """What a run would unbind, as its scope's manifest names it no more."""

    scope: str
    bound: int
    """Devices of the scope that are known as bound."""
    devices: int
    """Those of them to be unbound."""
    most: str
    """How many may be unbound unless a person agrees: `50`, or `5%` of those known as bound."""
    is_beyond: bool
    """Whether they are more than that."""
    first: tuple[dict[str, str], ...]
    """`user_id`, `machine_code` of the first of them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by every `PlanWord`."""
    users: dict[str, dict[str, int]]
    """The same for each of the first users, zeros omitted, plus `extra`."""
    user_count: int
    moved: tuple[dict[str, str], ...]
    """`machine_code`, `from`, `to` of the first moved rows."""
    problems: tuple[str, ...]
    """The first rows that break a rule, each with its place."""
    forecast: Forecast
    digest: str
    """Of the manifests."""
    mark: str
    """Digest of the action planned for each row; changes when manifest or ledger change."""
    going_on: str = ""
    """The unfinished run of these manifests that would resume; empty if there is none."""
    is_refreshed: bool = False
    """Whether the server's lists were read."""
    not_proven: int = 0
    """Known devices that lists lack which prove nothing; they count as if they were there."""
    extra: int | None = None
    """Devices of these users on the server that no row names; None if not looked up."""
    extras: tuple[dict[str, str], ...] = ()
    """`user_id`, `machine_code` of the first of them."""
    broken: tuple[BrokenRule, ...] = ()
    """The rules that rows break, the one broken most often first."""
    is_refused: bool = False
    """Whether nothing is sent, as rows break a rule and `on_invalid` is `abort`."""
    first: int | None = None
    """A pilot: only so many of the rows that need sending are sent; None: all."""
    left_out: Chosen | None = None
    """Rows that conditions left out, by condition; None: none was given."""
    replaces: tuple[str, int] | None = None
    """The unfinished run that it would replace, and the rows that this would withdraw."""
    kind: RunKind = RunKind.BIND

    leavers: Leavers | None = None
    """What is to be unbound, as the manifests lack it; None: that is not looked for."""

    @property
    def rows(self) -> int:
        """The number of rows in the manifests."""
        return sum(self.counts.values())


@dataclass(slots=True)  # for every row of a report: frozen, it would take three times as long
class ResultRow:
    """One row of a report."""

    source: int
    line: int
    user_id: str
    machine_code: str
    optional: tuple[str, ...]
    """The values of the optional fields, empty if missing; a column each."""
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
    problems: tuple[Problem, ...] = field(metadata=NO_COLUMN)
    """The rules that the row breaks."""
    cells: str | None = field(metadata=NO_COLUMN)
    """JSON: a list of the operator's cells, or the text of a device in YAML or JSON (of older
    ledgers a mapping); None once the row is known to be bound."""
    changes: str = field(default="", metadata=NO_COLUMN)
    """What cleaning changed; `detail` begins with it."""

    @property
    def name(self) -> str:
        """The name by which people know the device; empty if it has none."""
        return self.optional[NAME]

    @property
    def broken(self) -> frozenset[str]:
        """Fields whose values break a rule."""
        return frozenset(problem.field for problem in self.problems)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt that was not accepted outright, as shown in a report."""

    source: int
    line: int
    user_id: str
    machine_code: str
    sent_at: str
    """ISO 8601, by the server's clock as far as known."""
    took_s: float
    verdict: str
    http_status: int | None
    code: str
    message: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run and the state of its rows; every number is read from the ledger.

    What follows `facts` stands in `summary.json` under the same names.
    """

    run_id: str
    state: RunState
    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by status as shown in a report (`pending` if not settled)."""
    reasons: tuple[dict[str, Any], ...]
    """`status, code, message, count, example` (file and line of the first), largest first."""
    facts: RunFacts = field(default_factory=RunFacts)
    created_at: str = ""
    """ISO 8601, like all times."""
    confirmed_at: str | None = None
    ended_at: str | None = None
    """None while it is sending, and before."""
    stop_reason: str | None = None
    """None if nothing is left to send."""
    operator: str = ""
    host: str = ""
    pid: int = 0
    """Of the process that began it."""
    version: str = ""
    """Of bulkbind."""
    digest: str = ""
    """Of the manifests."""
    goes_on: str = ""
    """The whole command that resumes it; empty: not known."""
    superseded_by: str | None = None
    """Id of the run that took its place."""
    kind: RunKind = RunKind.BIND
    settings: dict[str, Any] = field(default_factory=dict)
    """Without secrets."""
    undo: UndoState | None = None
    """None: it was never undone."""
    leavers: dict[str, int] = field(default_factory=dict)
    """Devices that leave, as the manifests lack them, by status as shown in a report."""
    leaver_reasons: tuple[dict[str, Any], ...] = ()
    """Why some of those could not be unbound, most first, each with the first such device."""
    attempts: int = 0
    """Over all rows."""
    posted_again_after_bound: int = 0
    """Requests for devices that were bound already."""
    cleaned: int = 0
    """Rows whose cells were cleaned."""
    examples: list[Example] = field(default_factory=list)
    """The first rows that need a person."""
    is_cut_off: bool = False
    """Whether it has not ended, and its process is gone."""
    unanswered: int = 0
    """Rows that a run was sending when it was cut off, and that may have been sent."""

    @property
    def shown_state(self) -> str:
        """The state as people and scripts see it."""
        return CUT_OFF if self.is_cut_off else self.state.value

    @property
    def total(self) -> int:
        """The number of rows in the manifests."""
        return sum(self.counts.values())

    @property
    def needing(self) -> dict[Status, int]:
        """Rows that need a person, by status: those in doubt only once the run is done with them.

        Whatever resumes a run that was stopped looks them up.
        """
        is_settled = self.state is RunState.DONE
        return {
            status: count
            for status in NEEDS_PERSON
            if (count := self.counts.get(status, 0)) and (is_settled or not status.about.is_open)
        }

    @property
    def needing_leavers(self) -> dict[UnbindStatus, int]:
        """Devices that leave and need a person, by status."""
        return {status: count for status in NOT_UNBOUND if (count := self.leavers.get(status, 0))}

    @property
    def needing_count(self) -> int:
        """The number of rows, and of devices that leave, that need a person."""
        rows = sum(self.needing.values()) + self.facts.not_found
        return rows + sum(self.needing_leavers.values())

    @property
    def needs_person(self) -> bool:
        """Whether any row ended so that it needs a person, or any device that leaves."""
        return self.needing_count > 0

"""The contents of a plan before a run and of a report after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.model.statuses import NEEDS_PERSON

if TYPE_CHECKING:
    from bulkbind.model.rows import Problem
    from bulkbind.model.statuses import RunState

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
"""What a plan counts: mark and meaning of each kind of row, in display order."""
EXTRA = ("?", "on the server, but not in the manifest")


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

    @property
    def calls(self) -> int:
        """Requests, not counting retries."""
        return self.binds + self.lists + self.unbinds

    @property
    def seconds(self) -> float | None:
        """Expected duration; None if the rate is unknown."""
        return None if not self.per_s else self.calls / self.per_s


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by every key of `PLANNED`."""
    users: dict[str, dict[str, int]]
    """The same for each of the first users, zeros omitted, plus `extra`."""
    user_count: int
    moved: tuple[dict[str, str], ...]
    """`machine_code`, `from`, `to` of the first moved rows."""
    problems: tuple[str, ...]
    """The first rows that break a rule."""
    forecast: Forecast
    digest: str
    """Of the manifests."""
    mark: str
    """Digest of the action planned for each row; changes when manifest or ledger change."""
    going_on: str = ""
    """The unfinished run of these manifests that would resume; empty if there is none."""
    is_refreshed: bool = False
    """Whether the server's lists were read."""
    extra: int | None = None
    """Devices of these users on the server that no row names; None if not looked up."""
    extras: tuple[dict[str, str], ...] = ()
    """`user_id`, `machine_code` of the first of them."""

    @property
    def rows(self) -> int:
        """The number of rows in the manifests."""
        return sum(self.counts.values())


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
    """JSON: a list of the operator's cells, or the text of a device in YAML or JSON (of older
    ledgers a mapping); None once the row is known to be bound."""
    changes: str = ""
    """What cleaning changed; `detail` begins with it."""

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
    """A run and the state of its rows; every number is read from the ledger."""

    run_id: str
    state: RunState
    manifests: tuple[str, ...]
    counts: dict[str, int]
    """Rows by status as shown in a report (`pending` if not settled)."""
    reasons: tuple[dict[str, Any], ...]
    """`status, code, message, count, example` (file and line of the first), largest first."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Operator, host, version, times, settings without secrets, learned pace."""

    @property
    def total(self) -> int:
        """The number of rows in the manifests."""
        return sum(self.counts.values())

    @property
    def needs_person(self) -> bool:
        """Whether any row ended in a state that needs a person."""
        return any(self.counts.get(status, 0) for status in NEEDS_PERSON)

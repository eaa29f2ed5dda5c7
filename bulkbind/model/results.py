"""What a plan says before a run, and a report after it."""

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

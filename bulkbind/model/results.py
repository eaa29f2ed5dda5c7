"""What a report on a run holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.model.states import NEEDS_PERSON

if TYPE_CHECKING:
    from bulkbind.model.rows import Problem
    from bulkbind.model.states import RunState


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

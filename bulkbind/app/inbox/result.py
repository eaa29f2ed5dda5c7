"""What became of an inbox and of each of its files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bulkbind.app.inputs import shown

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.app.sending import RunResult

_FACTS = (
    "requests", "requests_throttled", "requests_lists", "paced_s", "cooled_s", "retrying_s",
    "pace_per_s", "pace_from", "limit", "limit_per_user", "limit_in_flight",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxFile:
    """What became of one file."""

    name: str
    exit_code: int
    """As `run` would have ended with it."""
    run_id: str | None = None
    state: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """Requests and pace, as in the run's summary."""
    report: Path | None = None
    moved_to: Path | None = None
    """None: it is still in the inbox."""
    problem: str = ""
    """Why it is still there; where that is clear, what to do."""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxResult:
    """How a pass over an inbox ended."""

    inbox: Path
    archive: Path
    started_at: str
    ended_at: str
    files: tuple[InboxFile, ...]
    waiting: int
    """Files that are not taken yet, since they were touched too recently or the run was stopped."""
    exit_code: int
    stopped: str = ""
    """Why it ended before every file had its turn."""
    hint: str = ""
    summary_file: Path | None = None

    def counts(self) -> dict[str, int]:
        """Return the rows of all files by status."""
        total: dict[str, int] = {}
        for item in self.files:
            for status, count in item.counts.items():
                total[status] = total.get(status, 0) + count
        return total

    def as_json(self) -> dict[str, Any]:
        """Return it as `inbox.json` holds it."""
        return {
            "inbox": shown(self.inbox),
            "archive": shown(self.archive),
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "exit_code": self.exit_code,
            "stopped": self.stopped,
            "rows": sum(self.counts().values()),
            "counts": self.counts(),
            "waiting": self.waiting,
            "files": [
                {
                    "name": item.name,
                    "exit_code": item.exit_code,
                    "run_id": item.run_id,
                    "state": item.state,
                    "rows": sum(item.counts.values()),
                    "counts": item.counts,
                    "changes": item.changes,
                    "examples": item.examples,
                    "report": str(item.report) if item.report else None,
                    "moved_to": shown(item.moved_to) if item.moved_to else None,
                    "problem": item.problem,
                    "hint": item.hint,
                }
                for item in self.files
            ],
        }


def file_of(path: Path, ended: RunResult, run_id: str) -> InboxFile:
    """Return what became of a file whose run was sent."""
    assert ended.report is not None  # as its caller knows
    summary = ended.report.summary
    return InboxFile(
        name=shown(path.name),
        exit_code=ended.exit_code,
        run_id=run_id,
        state=summary.state.value,
        counts=dict(summary.counts),
        changes=dict(summary.facts.get("changes") or {}),
        examples=list(summary.facts.get("examples") or []),
        facts={key: value for key, value in summary.facts.items() if key in _FACTS},
        report=ended.report.folder,
    )

"""`validate`: check the rules only, without network and ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from bulkbind import report
from bulkbind.app.inputs import Named, named
from bulkbind.app.session.listener import Listener
from bulkbind.errors import ExitCode, ManifestError
from bulkbind.ledger import Policy, Seen
from bulkbind.manifest import open_manifest
from bulkbind.model import CheckedRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bulkbind.settings import Settings

BATCH = 1_000
"""Rows checked together: ten times as many take half as long again, being larger than caches."""
MOST_EXAMPLES = 3
PROBLEMS_FILE = "problems.csv"


@dataclass(slots=True)
class BrokenRule:
    """How often a rule is broken."""

    count: int = 0
    examples: list[str] = field(default_factory=list)
    """The first problems with their places."""


@dataclass(slots=True)
class Validation:
    """What `validate` found."""

    rows: int = 0
    invalid: int = 0
    """Rows that break a rule, including conflicts and unwanted duplicates."""
    duplicates: int = 0
    """Rows that repeat an earlier row's user and device, and do no harm."""
    cleaned: int = 0
    """Rows that cleaning changed."""
    rules: dict[str, BrokenRule] = field(default_factory=dict)
    file: Path | None = None
    """The file with all problems."""

    @property
    def exit_code(self) -> ExitCode:
        """`NEEDS_PERSON` if some rows could not be bound."""
        return ExitCode.NEEDS_PERSON if self.invalid else ExitCode.DONE

    def as_json(self) -> dict[str, Any]:
        """Return the counts, and the rules with their first examples, largest first."""
        ordered = sorted(self.rules.items(), key=lambda item: -item[1].count)
        return {
            "rows": self.rows,
            "invalid": self.invalid,
            "duplicates": self.duplicates,
            "cleaned": self.cleaned,
            "rules": {
                rule: {"count": found.count, "examples": found.examples} for rule, found in ordered
            },
        }


def validate(
    manifests: Sequence[str | Path],
    settings: Settings,
    listener: Listener | None = None,
    *,
    repeats: bool = True,
) -> Validation:
    """Check every row of every manifest, and report each that breaks a rule to the listener.

    Args:
        manifests: Paths, folders, patterns; `-` is standard input.
        settings: With `out`, all problems are written there: a `.csv` file, or `problems.csv` in
            that folder.
        listener: Receives problems, changes and notices.
        repeats: Also find repeated devices; takes twice the time, and some 100 bytes of temporary
            disk space per row.

    Raises: ManifestError if one cannot be read to its end, LedgerError if a disk is full. What was
        found until then has been reported and written.
    """
    with named(manifests) as inputs:
        work = _Work(inputs, settings, listener or Listener())
        problems = work.problems(repeats=repeats)
        if settings.out is None:
            for _ in problems:
                pass
        else:
            is_file = settings.out.suffix.lower() == ".csv"
            work.found.file = settings.out if is_file else settings.out / PROBLEMS_FILE
            report.write_problems(work.found.file, problems)
    if work.fault is not None:
        work.report_partial()
        raise work.fault
    return work.found


class _Work:
    """One validation."""

    def __init__(self, inputs: Sequence[Named], settings: Settings, listener: Listener) -> None:
        self._inputs = inputs
        self._reads = settings.manifest
        self._listener = listener
        self.found = Validation()
        self.fault: ManifestError | None = None
        """Why the manifests could not be read to the end."""

    def problems(self, *, repeats: bool) -> Iterator[tuple[str, int, Problem]]:
        """Yield source, line and problem of every broken rule, in order; repeats at the end.

        If a manifest becomes unreadable, no more is read, but what was found is yielded.
        """
        manifests = [open_manifest(i.path, self._reads, i.name) for i in self._inputs]
        with Seen() as seen:
            for number, manifest in enumerate(manifests):
                rows = manifest.rows()
                while batch := self._next_batch(rows):
                    self.found.rows += len(batch)
                    self._listener.staged(self.found.rows)
                    if repeats:
                        seen.add(number, batch)
                    for row in batch:
                        if row.problems or row.changes:
                            yield from self._report(manifest.source.name, row)
                for notice in manifest.notices:
                    self._listener.notice(notice)
                if self.fault is not None:
                    break
            if self.fault is not None and not self.found.rows:
                raise self.fault  # there is nothing to write
            if repeats:
                yield from self._repeats(seen)

    def report_partial(self) -> None:
        """Report what was found before a manifest became unreadable."""
        found = self.found
        file = f"; problems: {found.file}" if found.file else ""
        self._listener.notice(
            f"{found.rows:,} rows could be read, {found.invalid:,} of them break a rule{file}"
        )

    def _next_batch(self, rows: Iterator[CheckedRow]) -> list[CheckedRow]:
        """Return the next rows, even if later ones cannot be read."""
        batch: list[CheckedRow] = []
        try:
            batch.extend(islice(rows, BATCH if self.fault is None else 0))
        except ManifestError as error:
            self.fault = error
        return batch

    def _report(self, source: str, row: CheckedRow) -> Iterator[tuple[str, int, Problem]]:
        self.found.invalid += bool(row.problems)
        self.found.cleaned += bool(row.changes)
        self._listener.problem(source, row)
        for problem in row.problems:
            self._count(source, row.line, problem)
            yield source, row.line, problem

    def _repeats(self, seen: Seen) -> Iterator[tuple[str, int, Problem]]:
        policy = Policy(self._reads.on_duplicate, self._reads.on_conflict)
        names = [each.name for each in self._inputs]
        example = ""
        for source, line, problem, is_conflict in seen.repeats(names, policy):
            if not is_conflict and policy.on_duplicate == "first":
                self.found.duplicates += 1
                example = example or f"{names[source]}:{line}: {problem.found}"
                continue
            self.found.invalid += 1
            values = (None, problem.value, None, None)
            self._listener.problem(names[source], CheckedRow(line, [], values, (problem,)))
            self._count(names[source], line, problem)
            yield names[source], line, problem
        if self.found.duplicates:
            self._listener.notice(
                f"{self.found.duplicates:,} rows name a device of an earlier row again and do no "
                f"harm, e.g. {example}"
            )

    def _count(self, source: str, line: int, problem: Problem) -> None:
        rule = self.found.rules.setdefault(problem.rule, BrokenRule())
        rule.count += 1
        if len(rule.examples) < MOST_EXAMPLES:
            rule.examples.append(f"{source}:{line}: {problem.what}")

"""`validate`: the rules alone; no network, no ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from bulkbind import report
from bulkbind.app.inputs import Named, named
from bulkbind.app.session.listener import Listener, Silent
from bulkbind.errors import ManifestError
from bulkbind.ledger import Policy, Seen
from bulkbind.manifest import open_manifest
from bulkbind.model import CheckedRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bulkbind.settings import Settings

BATCH = 1_000
"""Rows looked at together: ten times as many are slower by half, as they leave the caches."""
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
    """Rows that break a rule, conflicts and unwanted duplicates among them."""
    duplicates: int = 0
    """Rows whose device stands in an earlier one for the same user, and do no harm."""
    cleaned: int = 0
    """Rows that cleaning changed."""
    rules: dict[str, BrokenRule] = field(default_factory=dict)
    file: Path | None = None
    """Where all problems stand."""

    @property
    def exit_code(self) -> int:
        """0 no problem, 1 some rows could not be bound."""
        return 1 if self.invalid else 0

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
    """Check every row of every manifest, and tell the listener of each that breaks a rule.

    Args:
        manifests: Paths, folders, patterns; `-` is standard input.
        settings: With `out`, all problems are written there: a `.csv` file, or `problems.csv` in
            that folder.
        listener: Hears of problems, changes and notices.
        repeats: Look for devices that stand more than once, too; twice the time, and some 100
            bytes of temporary disk a row.

    Raises: ManifestError if one cannot be read, or read on, LedgerError if a disk is full. What was
        found until then has been told, and written.
    """
    with named(manifests) as inputs:
        work = _Work(inputs, settings, listener or Silent())
        problems = work.problems(repeats=repeats)
        if settings.out is None:
            for _ in problems:
                pass
        else:
            is_file = settings.out.suffix.lower() == ".csv"
            work.found.file = settings.out if is_file else settings.out / PROBLEMS_FILE
            report.write_problems(work.found.file, problems)
    if work.fault is not None:
        work.tell_how_far()
        raise work.fault
    return work.found


class _Work:
    """One validation."""

    def __init__(self, inputs: Sequence[Named], settings: Settings, hears: Listener) -> None:
        self._inputs = inputs
        self._reads = settings.manifest
        self._hears = hears
        self.found = Validation()
        self.fault: ManifestError | None = None
        """Why the manifests could not be read to their end."""

    def problems(self, *, repeats: bool) -> Iterator[tuple[str, int, Problem]]:
        """Yield source, line and problem of every broken rule, in order; repeats at the end.

        A manifest that breaks off ends the reading, not the file of problems.
        """
        manifests = [open_manifest(i.path, self._reads, i.name) for i in self._inputs]
        with Seen() as seen:
            for number, manifest in enumerate(manifests):
                rows = manifest.rows()
                while batch := self._some(rows):
                    self.found.rows += len(batch)
                    self._hears.staged(self.found.rows)
                    if repeats:
                        seen.add(number, batch)
                    for row in batch:
                        if row.problems or row.changes:
                            yield from self._looked_at(manifest.source.name, row)
                for notice in manifest.notices:
                    self._hears.notice(notice)
                if self.fault is not None:
                    break
            if self.fault is not None and not self.found.rows:
                raise self.fault  # nothing was found that would be worth a file
            if repeats:
                yield from self._repeats(seen)

    def tell_how_far(self) -> None:
        """Tell the listener what was found before the manifests broke off."""
        found = self.found
        file = f"; problems: {found.file}" if found.file else ""
        self._hears.notice(
            f"{found.rows:,} rows could be read, {found.invalid:,} of them break a rule{file}"
        )

    def _some(self, rows: Iterator[CheckedRow]) -> list[CheckedRow]:
        """Return the next rows, also where those behind them cannot be read."""
        batch: list[CheckedRow] = []
        try:
            batch.extend(islice(rows, BATCH if self.fault is None else 0))
        except ManifestError as error:
            self.fault = error
        return batch

    def _looked_at(self, source: str, row: CheckedRow) -> Iterator[tuple[str, int, Problem]]:
        self.found.invalid += bool(row.problems)
        self.found.cleaned += bool(row.changes)
        self._hears.problem(source, row)
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
            self._hears.problem(names[source], CheckedRow(line, [], values, (problem,)))
            self._count(names[source], line, problem)
            yield names[source], line, problem
        if self.found.duplicates:
            self._hears.notice(
                f"{self.found.duplicates:,} rows name a device of an earlier row again and do no "
                f"harm, e.g. {example}"
            )

    def _count(self, source: str, line: int, problem: Problem) -> None:
        rule = self.found.rules.setdefault(problem.rule, BrokenRule())
        rule.count += 1
        if len(rule.examples) < MOST_EXAMPLES:
            rule.examples.append(f"{source}:{line}: {problem.what}")

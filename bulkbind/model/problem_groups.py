"""Problems grouped by rule and likely cause, as `validate`, `plan` and `run` show them."""

from __future__ import annotations

import re
from bisect import insort
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.model.rows import CLEANING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.model.rows import Problem

MOST_EXAMPLES = 3
"""Examples kept of a cause: the first in the order of the manifests."""
MOST_CAUSES = 50
"""Causes told apart within a rule; the rest are counted together."""
_OTHERS = "other causes"
_OTHER_ROW = (
    (re.compile(r".*:\d+ gives it to .*", re.DOTALL), "another row gives it to another user"),
    (re.compile(r".*:\d+ has it, too.*", re.DOTALL), "an earlier row has it, too"),
)
_SPECIFIC = (
    *_OTHER_ROW,
    (re.compile(r"it has \d+ characters"), "too long"),
    (re.compile(r",? at (?:position )?\d+\b"), ""),
    (re.compile(r" in [A-Z]{1,3}\d+$"), ""),
)
"""What differs between rows with the same problem: other rows, lengths, positions, cells."""


class CauseKey(NamedTuple):
    """What problems of a rule have in common."""

    text: str
    """What is wrong, as in `Problem.found`, without what differs from row to row."""
    hint: str
    """The likely origin, as in `Problem.hint`; empty if unknown."""


def cause_of(problem: Problem) -> CauseKey:
    """Return what a problem has in common with others of its rule."""
    return CauseKey(_text(problem.found), problem.hint.partition(CLEANING)[0].removesuffix("; "))


@lru_cache(1024)
def _text(found: str) -> str:
    for pattern, common in _SPECIFIC:
        found = pattern.sub(common, found)
    return found


class ProblemExample(NamedTuple):
    """A problem and its place; sorts in the order of the manifests."""

    number: int
    """Of its manifest, 0-based."""
    line: int
    nth: int
    """Which of the problems added, so that problems are never compared."""
    source: str
    """The manifest's name."""
    problem: Problem

    @property
    def text(self) -> str:
        """The problem without its rule, which is said once for its group."""
        return f"{self.source}:{self.line}: {self.problem.what}"

    @property
    def names_another_row(self) -> bool:
        """Whether what is wrong is another row, so that it is said of each."""
        return any(pattern.fullmatch(self.problem.found) for pattern, _ in _OTHER_ROW)


@dataclass(slots=True)
class Cause:
    """Problems of one rule that have a cause in common."""

    key: CauseKey
    count: int = 0
    examples: list[ProblemExample] = field(default_factory=list)

    def add(self, example: ProblemExample) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.count += 1
        if len(self.examples) < MOST_EXAMPLES or example < self.examples[-1]:
            insort(self.examples, example)
            del self.examples[MOST_EXAMPLES:]


@dataclass(slots=True)
class BrokenRule:
    """The problems of one rule."""

    rule: str
    by_cause: dict[CauseKey, Cause] = field(default_factory=dict)
    cures: Counter[str] = field(default_factory=Counter)
    """How many of the problems an option fixes, by option."""

    @property
    def count(self) -> int:
        """How many problems there are."""
        return sum(cause.count for cause in self.by_cause.values())

    @property
    def causes(self) -> list[Cause]:
        """The causes, the most frequent first."""
        return sorted(self.by_cause.values(), key=lambda cause: -cause.count)

    @property
    def first(self) -> list[ProblemExample]:
        """The first problems."""
        found = sorted(one for cause in self.by_cause.values() for one in cause.examples)
        return found[:MOST_EXAMPLES]

    @property
    def examples(self) -> list[str]:
        """The first problems with their places."""
        return [example.text for example in self.first]

    def as_json(self) -> dict[str, Any]:
        """Return counts and first examples."""
        return {
            "count": self.count,
            "examples": self.examples,
            "causes": [
                {"cause": c.key.text, "hint": c.key.hint, "count": c.count} for c in self.causes
            ],
            "cures": dict(self.cures.most_common()),
        }


class ProblemGroups:
    """The broken rules with their problems; memory does not grow with the number of problems."""

    def __init__(self) -> None:
        self._rules: dict[str, BrokenRule] = {}
        self.count = 0
        """Problems of all rules."""

    def add(self, number: int, source: str, line: int, problem: Problem) -> None:
        """Count a problem. *number* and *source*: its manifest, as in `ProblemExample`."""
        self.count += 1
        broken = self._rules.setdefault(problem.rule, BrokenRule(problem.rule))
        if problem.cure:
            broken.cures[problem.cure] += 1
        key = cause_of(problem)
        if key not in broken.by_cause and len(broken.by_cause) >= MOST_CAUSES:
            key = CauseKey(_OTHERS, "")
        cause = broken.by_cause.setdefault(key, Cause(key))
        cause.add(ProblemExample(number, line, self.count, source, problem))

    def __iter__(self) -> Iterator[BrokenRule]:
        """Yield the rules, the one broken most often first."""
        return iter(sorted(self._rules.values(), key=lambda broken: (-broken.count, broken.rule)))

    def __getitem__(self, rule: str) -> BrokenRule:
        """Return the problems of a rule. Raises: KeyError."""
        return self._rules[rule]

    def as_json(self) -> dict[str, Any]:
        """Return the rules with counts and first examples, the one broken most often first."""
        return {broken.rule: broken.as_json() for broken in self}

"""Problems by rule as lines for a person: few enough for a screen, or every one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.model import CLEANING
from bulkbind.model.wording import counted
from bulkbind.report.layout import WIDTH, columns, cut, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bulkbind.model import BrokenRule, Cause, Problem
    from bulkbind.model.problem_groups import ProblemExample

MOST_LINES = 20
"""Lines that fit a screen."""
_INDENT = " " * 9
_LEAST_ROOM = 48
"""Columns for a cell and what is wrong with it, behind a place that takes half of the line."""
_LEAST_VALUE = 8
"""Characters left of a value that is cut."""
_CHARACTERS = " characters"
_NAME_OF_CHARACTER = re.compile(r"(\(U\+[0-9A-F]{4,6}) [^)]*\)")
_MEND = "fix them"
_NO_CURE = f"no option fixes these: {_MEND} where they stand"


class _Detail(NamedTuple):
    """How much is shown of each rule."""

    causes: int
    examples: int
    """Of each cause; 1: on the line of the cause, 0: one for all, on the line of the cure."""


_DETAILS = (_Detail(1, 0), _Detail(2, 1), _Detail(4, 1), _Detail(6, 2), _Detail(20, 3))
"""From the least, which takes two lines, to the most."""


def problem_lines(
    rules: Sequence[BrokenRule], most: int = MOST_LINES, width: int = WIDTH
) -> list[str]:
    """Return the rules with counts, causes, first examples and cures in at most *most* lines.

    Lines have at most *width* columns: values are cut, but not the names of files, nor what is
    wrong where it names another row.
    """
    shown = [list(_block(broken, _DETAILS[0], width)) for broken in rules]
    if (lines := sum(map(len, shown))) > most:
        kept = max(1, (most - 1) // len(shown[0]))
        count = sum(broken.count for broken in rules[kept:])
        shown[kept:] = [
            [f"… and {counted(count, 'problems')} of {counted(len(rules) - kept, 'more rules')}"]
        ]
        return [line for block in shown for line in block]
    for detail in _DETAILS[1:]:  # while there is room, for the rules broken most often first
        for nth, broken in enumerate(rules):
            block = list(_block(broken, detail, width))
            more = len(block) - len(shown[nth])
            if lines + more <= most:
                shown[nth] = block
                lines += more
    return [line for block in shown for line in block]


def every_line(
    rules: Iterable[BrokenRule], texts: Callable[[BrokenRule, Cause], Iterable[str]]
) -> Iterator[str]:
    """Yield the rules with every problem. *texts*: returns those of a cause, a line each."""
    for broken in rules:
        yield _head(broken)
        for cause in broken.causes:
            if len(broken.by_cause) > 1:
                yield f"{_INDENT}{_times(cause, has_hint=len(_hints(broken)) > 1)}"
            indent = _INDENT if len(broken.by_cause) == 1 else f"{_INDENT}  "
            yield from (f"{indent}{text}" for text in texts(broken, cause))
        yield f"{_INDENT}{_cure(broken)}"


def full_text(source: str, line: int, problem: Problem) -> str:
    """Return a problem without its rule and likely cause, which its group says once."""
    _, cleaning, after = problem.hint.partition(CLEANING)
    return f"{source}:{line}: {problem.what}" + (f"; {cleaning}{after}" if cleaning else "")


def _block(broken: BrokenRule, detail: _Detail, width: int) -> Iterator[str]:
    causes = broken.causes
    if not detail.examples:
        yield cut(_head(broken, width), width)
        cure = f"; {_option(broken) or _MEND}"
        yield _example(causes[0].examples[0], width - len(cure), is_brief=len(causes) > 1) + cure
        return
    yield from wrapped(_head(broken, width), width, _INDENT)
    if len(causes) == 1 or broken.count <= detail.examples:
        yield from _problems(broken, detail, width)
    else:
        for cause in causes[: detail.causes]:
            yield from _cause(cause, detail, width, has_hint=len(_hints(broken)) > 1)
        if left := causes[detail.causes :]:
            count = sum(cause.count for cause in left)
            yield f"{_INDENT}{_often(count)}: {counted(len(left), 'other reasons')}"
    yield from wrapped(f"{_INDENT}{_cure(broken)}", width, _INDENT)


def _problems(broken: BrokenRule, detail: _Detail, width: int) -> Iterator[str]:
    """Yield the first problems, below their cause if no line of theirs has room for it."""
    found = broken.first[: detail.examples]
    lines = [_example(each, width) for each in found]
    if len(broken.by_cause) == 1 and lines[0].endswith(found[0].problem.cell):
        yield from wrapped(f"{_INDENT}{broken.causes[0].key.text}", width, _INDENT)
    yield from lines


def _cause(cause: Cause, detail: _Detail, width: int, *, has_hint: bool) -> Iterator[str]:
    if detail.examples == 1:
        text = f"{_INDENT}{_often(cause.count)}: {_brief(cause.key.text)}, e.g. "
        yield text + _example(cause.examples[0], width - len(text), is_brief=True).lstrip()
        return
    yield from wrapped(f"{_INDENT}{_times(cause, has_hint=has_hint)}", width, _INDENT)
    for example in cause.examples[: detail.examples]:
        yield f"  {_example(example, width - 2, is_brief=True)}"


def _head(broken: BrokenRule, width: int = 0) -> str:
    """Return count and rule; where that is wider than *width*, without its last word."""
    head = f"{broken.count:>7,}  {broken.rule}"
    return head.removesuffix(_CHARACTERS) if width and columns(head) > width else head


def _times(cause: Cause, *, has_hint: bool) -> str:
    hint = f": {cause.key.hint}" if has_hint and cause.key.hint else ""
    return f"{_often(cause.count)}: {cause.key.text}{hint}"


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _cure(broken: BrokenRule) -> str:
    """Return what fixes the problems of a rule, the last words on it."""
    hints = _hints(broken)
    return _option(broken) or (hints.pop() if len(hints) == 1 else "") or _NO_CURE


def _hints(broken: BrokenRule) -> set[str]:
    return {cause.key.hint for cause in broken.by_cause.values()}


def _option(broken: BrokenRule) -> str:
    return ", ".join(
        f"{cure} fixes {count:,} of {broken.count:,}" for cure, count in broken.cures.most_common()
    )


def _brief(text: str) -> str:
    """Return a text without the names of characters, whose numbers stay."""
    return _NAME_OF_CHARACTER.sub(r"\1)", text)


def _example(example: ProblemExample, width: int, *, is_brief: bool = False) -> str:
    """Return a place, the cell and what is wrong, as much of it as *width* columns can hold."""
    problem = example.problem
    place = f"{_INDENT}{example.source}:{example.line}: "
    if example.names_another_row:
        return f"{place}{problem.what}"
    if columns(place) > WIDTH // 2:
        width = max(width, columns(place) + _LEAST_ROOM)
    room = 0
    for found in ("",) if is_brief else (f": {problem.found}", f": {_brief(problem.found)}", ""):
        room = width - columns(f"{place}{problem.cell}{found}")
        if room >= 0:
            return f"{place}{problem.cell}{found}"
    value = cut(problem.value, max(_LEAST_VALUE, columns(problem.value) + room))
    return cut(place + replace(problem, value=value).cell, width)

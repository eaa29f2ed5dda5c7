"""Exit codes: each has a name and a meaning, and none stands as a bare number."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from bulkbind.errors import BulkbindError, ExitCode, InterruptedRunError, meanings, worst
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

CODES = {0, 1, 2, 3, 4, 5, 75, 130, 143}
"""Source: design.md, section 5."""
SOURCES = sorted((ROOT / "bulkbind").rglob("*.py"))
EXITS = ("exit", "_exit", "Exit", "SystemExit")


def test_the_codes_are_those_of_the_design():
    """Codes are added, never changed."""
    assert set(ExitCode) == CODES
    assert [f"{code}" for code in (ExitCode.DONE, ExitCode.TERMINATED)] == ["0", "143"]


def test_a_code_without_a_meaning_cannot_be_made():
    """Whoever adds one says what it means."""
    make = vars(ExitCode)["__new_member__"]

    assert make(ExitCode, 6, "sixth") == 6
    with pytest.raises(TypeError, match="no meaning"):
        make(ExitCode, 6)


def test_the_help_groups_the_meanings_by_number():
    """As the help prints them."""
    assert meanings().startswith("0 all well, 1 some rows need a person, 2 could not start, 3 ")
    assert meanings().endswith(", 130/143 interrupted, can be resumed")


def test_the_worst_code_counts():
    """By severity, not by number."""
    ordered = [0, 1, 5, 2, 3, 75, 4, 130, 143]

    assert list(ExitCode) == ordered
    assert worst([]) is ExitCode.DONE
    assert worst([ExitCode.LEDGER, ExitCode.BUSY, ExitCode.DECLINED]) is ExitCode.LEDGER


def test_every_error_has_a_code():
    """Of the enum, so that it has a meaning."""
    errors = [BulkbindError]
    for error in errors:
        errors += error.__subclasses__()

    assert all(isinstance(error.exit_code, ExitCode) for error in errors)
    assert InterruptedRunError("why").exit_code is ExitCode.INTERRUPTED


def _is_number(node: ast.AST | None) -> bool:
    """Whether a number may come out of an expression as it stands."""
    if isinstance(node, ast.IfExp):
        return _is_number(node.body) or _is_number(node.orelse)
    return isinstance(node, ast.Constant) and type(node.value) is int


def _is_code(node: ast.AST) -> bool:
    """Whether a name or an attribute holds an exit code."""
    name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
    return name in ("exit_code", "returncode")


def line_of(node: ast.AST, *, last: bool = False) -> int:
    """Return a node's first line, or its last one."""
    return int(getattr(node, "end_lineno" if last else "lineno"))


def _is_range(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range"


def bare_codes(tree: ast.AST) -> list[int]:
    """Return the lines in which a bare number is an exit code."""
    found: list[int] = []
    for node in ast.walk(tree):
        values: Sequence[ast.AST | None]
        match node:
            case ast.Call(func=func, args=args, keywords=keywords):
                name = getattr(func, "id", None) or getattr(func, "attr", None)
                values = args if name in EXITS else []
                values = [*values, *(word.value for word in keywords if _is_code(word))]
            case ast.Assign(targets=targets, value=value):
                values = [value] if any(map(_is_code, targets)) else []
            case ast.AnnAssign(target=target, value=value):
                values = [value] if _is_code(target) else []
            case ast.Compare(left=left, comparators=others):
                values = [left, *others] if any(map(_is_code, [left, *others])) else []
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                returns = [it for it in ast.walk(node) if isinstance(it, ast.Return)]
                values = [it.value for it in returns] if node.name in ("exit_code", "work") else []
            case ast.Constant(value=130 | 143 | 75):
                values = [node]
            case _:
                values = []
        found += [line_of(node) for value in values if _is_number(value)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_bare_number_is_an_exit_code(path):
    """A code outside the enum has no meaning, and no place in the order of severity."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = {
        line
        for node in ast.walk(tree)
        if getattr(node, "name", "") == "ExitCode" or _is_range(node)
        for line in range(line_of(node), line_of(node, last=True) + 1)
    }

    assert [line for line in bare_codes(tree) if line not in allowed] == []


@pytest.mark.parametrize(
    "text",
    [
        "sys.exit(3)",
        "os._exit(1 if bad else 0)",
        "RunResult(None, exit_code=2)",
        "class A:\n exit_code: int = 4",
        "self.exit_code = 75",
        "result.exit_code == 1",
        "async def work(stop):\n return 1 if bad else 0",
        "code = 130",
    ],
)
def test_a_bare_number_is_found(text):
    """Wherever a code may stand."""
    assert bare_codes(ast.parse(text))

"""`bulkbind validate`."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from array import array
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.validate import BrokenOffError, Validation, validate
from bulkbind.cli import options
from bulkbind.cli.console import Console, say
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import LedgerError
from bulkbind.model import Change, Problem, cause_of, in_one_line
from bulkbind.model.problem_groups import MOST_EXAMPLES
from bulkbind.model.wording import counted, verb
from bulkbind.redaction import Lines, json_text
from bulkbind.report.layout import WIDTH
from bulkbind.report.problem_text import MOST_LINES, every_line, full_text, problem_lines
from bulkbind.settings import Group

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import Self

    from bulkbind.model import BrokenRule, Cause, CheckedRow

MOST_NOTES = 6
LEAST_LINES = 8
LINES_AROUND = 2
"""The counts, and where every problem is."""


class _Spool:
    """Everything found, in a private temporary file, so that memory stays flat."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, found: dict[str, Any]) -> int:
        """Keep an object and return its place. Raises: LedgerError."""
        written = json.dumps(found).encode() + b"\n"
        at, self._end = self._end, self._end + len(written)
        try:
            self._file.write(written)
        except OSError as error:
            raise LedgerError(
                f"the problems cannot be kept in {tempfile.gettempdir()}: {error.strerror}",
                hint="free that disk, or set TMPDIR to another folder",
            ) from error
        return at

    def read(self, places: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the objects at some places."""
        for at in places:
            self._file.seek(at)
            yield json.loads(self._file.readline())


@dataclass(slots=True)
class _Cleaned:
    """What cleaning changed in one column."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


class _Findings(Console):
    """Prints notices, the first few only unless *is_whole*, and keeps what else is found."""

    def __init__(self, spool: _Spool, *, is_json: bool, is_whole: bool) -> None:
        super().__init__(is_quiet=False)
        self._spool = spool
        self._is_whole = is_whole
        self._keeps = is_json or is_whole
        self._notes = 0
        self.lines_said = 0
        self.places: defaultdict[tuple[str, ...], array[int]] = defaultdict(lambda: array("Q"))
        """Where problems are in the spool, by rule and cause, and changes by column."""
        self.problems, self.changes = array("Q"), array("Q")
        """The same in the order of the manifests."""
        self.cleaned: defaultdict[str, _Cleaned] = defaultdict(_Cleaned)

    def notice(self, text: str) -> None:
        self._notes += 1
        if self._is_whole or self._notes <= MOST_NOTES:
            super().notice(text)
            self.lines_said += 1 + len(text) // shutil.get_terminal_size().columns

    def end(self) -> None:
        """Say how many notices were not printed."""
        if not self._is_whole and self._notes > MOST_NOTES:
            say(f"note: … {self._notes - MOST_NOTES:,} more notes; --all prints them")
            self.lines_said += 1

    def problem(self, source: str, row: CheckedRow) -> None:
        place = {"source": source, "line": row.line}
        for change in row.changes:
            self._count(f"{source}:{row.line}: {change.text}", change)
            if self._keeps:
                at = self._spool.add(place | asdict(change))
                self.changes.append(at)
                self.places[change.column,].append(at)
        if self._keeps:
            for problem in row.problems:
                at = self._spool.add(place | asdict(problem))
                self.problems.append(at)
                self.places[problem.rule, *cause_of(problem)].append(at)

    def _count(self, text: str, change: Change) -> None:
        found = self.cleaned[change.column]
        found.count += 1
        if len(found.examples) < MOST_EXAMPLES:
            found.examples.append(text)


@options.command("validate")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.config
@options.settings(Group.MANIFEST, Group.REPEAT)
@options.option("--all", "is_whole", is_flag=True, help="print every problem, not a screen of them")
@options.path(
    "--problems",
    "--out",
    "problems",
    metavar="FILE.csv|DIR",
    help="write every problem there; in a folder, as problems.csv",
)
@options.option("--json", "as_json", is_flag=True, help="print the result, and every problem")
def command(
    manifests: tuple[str, ...],
    *,
    is_whole: bool,
    problems: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Check every row of the manifests against the rules; no network, no ledger.

    MANIFEST is a file (CSV, XLSX, YAML, JSON Lines, JSON, each also as .gz), a folder, a pattern in
    quotes, or - for standard input. Problems are printed by rule: how many, the causes, the first
    ones with file, line, column and value, and what fixes them; on one screen, unless --all,
    --json or --problems asks for every one.

    \b
    Examples:
      bulkbind validate fleet.csv
      bulkbind validate export.csv --map machine_code=Serial --clean names --problems problems.csv
      bulkbind validate 'exports/*.xlsx' --set user_id=u42

    Exit codes: 0 no problem, 1 some rows could not be bound, 2 a manifest could not be read.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained(), _Spool() as spool:
        findings = _Findings(spool, is_json=as_json, is_whole=is_whole)
        settings = settings_from(given)
        try:
            found = validate(manifests, settings, findings, problems=problems)
        except BrokenOffError as error:
            if not as_json:
                print_lines(_text(error.found, findings, spool, is_whole=is_whole))
            raise
        if as_json:
            print_lines(_json(found, findings, spool))
        else:
            findings.end()
            print_lines(_text(found, findings, spool, is_whole=is_whole))
            _summarise(found, is_whole=is_whole)
    sys.exit(found.exit_code)


def _text(
    found: Validation, findings: _Findings, spool: _Spool, *, is_whole: bool
) -> Iterator[str]:
    if is_whole:
        yield from every_line(found.rules, lambda rule, cause: _texts(rule, cause, findings, spool))
        for column, cleaned in findings.cleaned.items():
            yield _cleaned_head(column, cleaned)
            for each in spool.read(findings.places[column,]):
                change = Change(each["column"], each["before"], each["after"])
                yield f"{'':9}{each['source']}:{each['line']}: {change.text}"
        return
    columns = len(findings.cleaned)
    room = MOST_LINES - LINES_AROUND - findings.lines_said
    width = shutil.get_terminal_size((WIDTH, MOST_LINES)).columns
    lines = problem_lines(tuple(found.rules), max(LEAST_LINES, room) - 2 * columns, width)
    yield from lines
    most = 1 if columns and (room - len(lines)) // columns < 1 + MOST_EXAMPLES else MOST_EXAMPLES
    for column, cleaned in findings.cleaned.items():
        yield _cleaned_head(column, cleaned)
        yield from (f"{'':9}{text}" for text in cleaned.examples[:most])


def _texts(broken: BrokenRule, cause: Cause, findings: _Findings, spool: _Spool) -> Iterator[str]:
    for each in spool.read(findings.places[broken.rule, *cause.key]):
        source, line = each.pop("source"), each.pop("line")
        yield full_text(source, line, Problem(**each))


def _cleaned_head(column: str, cleaned: _Cleaned) -> str:
    return f"{cleaned.count:>7,}  {in_one_line(column)}: made to fit its rule by --clean names"


def _json(found: Validation, findings: _Findings, spool: _Spool) -> Iterator[str]:
    """Yield the counts, and the lists piece by piece, since they may be long."""
    yield Lines(json_text(found.as_json() | {"left_out": 0})[:-2] + ",")
    for name, places, end in (
        ("problems", findings.problems, ","),
        ("changes", findings.changes, ""),
    ):
        yield f'  "{name}": ['
        for nth, each in enumerate(spool.read(places), start=1):
            comma = "," if nth < len(places) else ""
            yield Lines(f"    {json_text(each, indent=None)}{comma}")
        yield f"  ]{end}"
    yield "}"


def _summarise(found: Validation, *, is_whole: bool) -> None:
    breaks = verb(found.invalid, "breaks", "break")
    parts = [f"{counted(found.rows, 'rows')}, {found.invalid:,} of them {breaks} a rule"]
    if found.duplicates:
        parts.append(counted(found.duplicates, "duplicates"))
    if found.cleaned:
        parts.append(f"{found.cleaned:,} cleaned")
    say(", ".join(parts))
    if found.file:
        say(f"problems: {found.file}")
    elif not is_whole and found.rules.count + found.cleaned > 1:
        say("--all prints every one, --problems FILE.csv writes them")

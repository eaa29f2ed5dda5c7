"""`bulkbind validate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.validate import Validation, validate
from bulkbind.cli import options
from bulkbind.cli.console import Console, say
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, leave_stdout, print_json
from bulkbind.errors import LedgerError
from bulkbind.settings import Group

if TYPE_CHECKING:
    from bulkbind.model import CheckedRow

MOST_PRINTED = 1_000
"""Problems to print or to list in JSON; `--out` has all of them."""


class _Problems(Console):
    """Prints the first problems as they are found, and collects them for JSON."""

    def __init__(self, *, is_silent: bool) -> None:
        super().__init__()
        self._is_silent = is_silent
        self._printed = 0
        self.problems: list[dict[str, Any]] = []
        self.changes: list[dict[str, Any]] = []

    def problem(self, source: str, row: CheckedRow) -> None:
        place = {"source": source, "line": row.line}
        for change in row.changes:
            if self._has_room():
                self.changes.append(place | asdict(change))
                self._print(f"{source}:{row.line}: {change.text}")
        for problem in row.problems:
            if self._has_room():
                self.problems.append(place | asdict(problem))
                self._print(f"{source}:{row.line}: {problem.text}")

    def _has_room(self) -> bool:
        self._printed += 1
        return self._printed <= MOST_PRINTED

    def _print(self, text: str) -> None:
        if self._is_silent:
            return
        try:
            click.echo(text)
        except OSError as error:  # not to be mistaken for an error of the problems file
            leave_stdout()
            raise LedgerError(f"standard output cannot be written: {error.strerror}") from error

    @property
    def left_out(self) -> int:
        """Problems and changes that were not printed."""
        return max(0, self._printed - MOST_PRINTED)


@options.command("validate")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.config
@options.settings(Group.MANIFEST, Group.REPEAT)
@options.path(
    "--out",
    of="validate",
    metavar="FILE.csv|DIR",
    help="write every problem there; in a folder, as problems.csv  [default: print the first]",
)
@options.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def command(manifests: tuple[str, ...], *, as_json: bool, **given: Any) -> None:
    """Check every row of the manifests against the rules; no network, no ledger.

    MANIFEST is a file (CSV, XLSX, YAML, JSON Lines, JSON, each also as .gz), a folder, a pattern in
    quotes, or - for standard input. The first 1,000 problems are printed, each with file, line,
    column, value and rule, then all of them by rule; --out writes every one.

    \b
    Examples:
      bulkbind validate fleet.csv
      bulkbind validate export.csv --map machine_code=Serial --clean names --out problems.csv
      bulkbind validate 'exports/*.xlsx' --set user_id=u42

    Exit codes: 0 no problem, 1 some rows could not be bound, 2 a manifest could not be read.
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        console = _Problems(is_silent=as_json)
        found = validate(manifests, settings_from(given), console)
        if as_json:
            lists = {"problems": console.problems, "changes": console.changes}
            print_json(found.as_json() | lists | {"left_out": console.left_out})
        else:
            _summarise(found, console.left_out)
    sys.exit(found.exit_code)


def _summarise(found: Validation, left_out: int) -> None:
    if left_out:
        say(f"… and {left_out:,} more; --out FILE.csv writes every problem")
    for rule, each in sorted(found.rules.items(), key=lambda item: -item[1].count):
        say(f"{each.count:>8,}  {rule}")
        for example in each.examples:
            say(f"          e.g. {example}")
    parts = [f"{found.rows:,} rows, {found.invalid:,} of them break a rule"]
    if found.duplicates:
        parts.append(f"{found.duplicates:,} duplicates")
    if found.cleaned:
        parts.append(f"{found.cleaned:,} cleaned")
    say(", ".join(parts))
    if found.file:
        say(f"problems: {found.file}")

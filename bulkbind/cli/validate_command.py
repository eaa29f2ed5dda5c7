"""`bulkbind validate`."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bulkbind.app.validate import validate
from bulkbind.cli import options
from bulkbind.cli.console import Console, say
from bulkbind.cli.options import settings_from
from bulkbind.cli.running import explained, print_json

if TYPE_CHECKING:
    from bulkbind.model import CheckedRow


class _Problems(Console):
    """Prints every problem as it is found, and counts them by rule."""

    def __init__(self, *, is_silent: bool) -> None:
        super().__init__()
        self._is_silent = is_silent
        self.rules: Counter[str] = Counter()
        self.found: list[dict[str, Any]] = []

    def problem(self, source: str, row: CheckedRow) -> None:
        for problem in row.problems:
            self.rules[problem.rule] += 1
            if self._is_silent:
                self.found.append({"source": source, "line": row.line, **asdict(problem)})
            else:
                click.echo(
                    f"{source}:{row.line}: {problem.column} {problem.value!r}: {problem.found}"
                    f" ({problem.rule})"
                )


@click.command("validate")
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...")
@options.manifest_options
@options.option("--json", "as_json", is_flag=True, help="print the problems as JSON")
def command(
    manifests: tuple[str, ...], *, as_json: bool, **given: Any
) -> None:  # click's parameters
    """Check every row of the manifests against the rules; no network, no ledger.

    Every problem is printed with file, line, column, value and rule.

    Exit codes: 0 no problem, 1 some rows could not be bound, 2 a manifest could not be read.
    """
    with explained():
        console = _Problems(is_silent=as_json)
        found = validate(manifests, settings_from(given), console)
        if as_json:
            print_json(
                {
                    "rows": found.rows,
                    "invalid": found.invalid,
                    "rules": dict(console.rules.most_common()),
                    "problems": console.found,
                }
            )
        for rule, count in console.rules.most_common():
            say(f"{count:>8,}  {rule}")
        say(f"{found.rows:,} rows, {found.invalid:,} of them break a rule")
    sys.exit(found.exit_code)

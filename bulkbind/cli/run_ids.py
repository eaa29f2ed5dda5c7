"""The argument RUN, which a shell can complete from the ledger."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from bulkbind.cli.given import settings_from
from bulkbind.errors import BulkbindError

MOST_RUNS = 50
"""The newest ones are offered."""


def runs_of(
    context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the ids of the runs in the ledger that the options given so far lead to."""
    from bulkbind.app.reports import runs  # noqa: PLC0415  # completing a word must be quick

    given: dict[str, Any] = {
        name: context.params.get(name) for name in ("config", "endpoint", "ledger")
    }
    try:
        with context:
            found = runs(settings_from(given))
    except BulkbindError:
        return []
    return [
        CompletionItem(run["run_id"], help=f"{run['state']}, {', '.join(run['manifests'])}")
        for run in found[:MOST_RUNS]
        if run["run_id"].startswith(incomplete)
    ]


run_argument = click.argument("run_id", required=False, metavar="[RUN]", shell_complete=runs_of)
"""A run's id or the beginning of it."""

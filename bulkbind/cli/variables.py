"""Environment variables of ours that no option has: slips of the finger, and what clusters set."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from bulkbind import logs
from bulkbind.cli import COMMANDS, cli, console
from bulkbind.cli.options import settings_from
from bulkbind.errors import UsageError
from bulkbind.settings import PREFIX, SETTINGS, LogSettings, Setting

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WRONG = 2
"""Letters that a slip of the finger changes, adds, drops or swaps with the next one."""
_SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
    r"|NAME|ENV_\w+)",
    re.ASCII,
)
"""What Kubernetes and Docker set for a service whose name begins with `bulkbind`."""


class Command(click.Command):
    """A command that first looks for variables of ours that mean nothing."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # click's signature
        """Call the command, or exit with 2 where a variable is nearly one of ours."""
        unknown = {name for name in os.environ if name.startswith(PREFIX)} - _variables_of(self)
        if unknown:
            known = every_variable()
            guesses = {name: meant(name, known) for name in sorted(unknown - known)}
            slips = [f"{_shown(n)}; did you mean {guess}?" for n, guess in guesses.items() if guess]
            for slip in slips:
                console.fail(f"the environment sets {slip}")
            if slips:
                ctx.exit(UsageError.exit_code)
            _warn(ctx, guesses)
        return super().invoke(ctx)


def every_variable() -> set[str]:
    """Return the variables of all commands, which are imported for that."""
    context = click.Context(cli)
    commands = (cli.get_command(context, name) for name in COMMANDS)
    return {variable for c in commands if c is not None for variable in _variables_of(c)}


def _variables_of(command: click.Command) -> set[str]:
    """Return the variables of a command's options, and of all settings."""
    options = {str(param.envvar) for param in command.params if param.envvar}
    return options | {setting.variable for setting in SETTINGS.values() if setting.variable}


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return the variable that was probably meant; None for a setting's own name or a cluster's."""
    if _SERVICE_LINK.fullmatch(name) or _setting(name):
        return None
    wrong, nearest = min((_letters_apart(name, other), other) for other in known)
    return nearest if wrong <= MOST_WRONG else None


def _setting(name: str) -> Setting | None:
    key = name.removeprefix(PREFIX).lower()
    return SETTINGS.get(key, SETTINGS.get(f"auth.{key}"))


def _letters_apart(one: str, other: str) -> int:
    """Return how many letters to change, add, drop or swap with the next turn one into the other.

    Source: Damerau's distance, in the form that edits no part twice.
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (letter != wanted)))
            if i > 1 < j and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], before[j - 2] + 1)
        before, last = last, row
    return last[-1]


def _shown(name: str) -> str:
    """Return a name without what would change a terminal or a line."""
    return ascii(name)[1:-1]


def _warn(ctx: click.Context, names: Iterable[str]) -> None:
    """Say which variables mean nothing: in a line, or in the log where only that may be written."""
    log = LogSettings()
    with contextlib.suppress(UsageError):  # which the command reports itself
        log = settings_from(ctx.params).log
    if log.log_format == "json":
        logs.configure(logs.Sink(sys.stderr, "json", log.log_level or "warning"))
    for name in () if ctx.params.get("quiet") else names:
        text = f"the environment sets {_shown(name)}, which means nothing to bulkbind"
        if setting := _setting(name):
            text += f"; {setting.variable or 'a settings file'} sets `{setting.key}`"
        if log.log_format == "json":
            logs.logger().warning("command.said", text=text)
        else:
            console.say(f"note: {text}")

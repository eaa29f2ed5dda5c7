"""Environment variables of ours that no option has: slips of the finger, and what clusters set."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import click

from bulkbind.cli import COMMANDS, cli
from bulkbind.settings import PREFIX, SETTINGS

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


def unknown_variables(command: click.Command) -> tuple[list[str], list[str]]:
    """Return what to say of variables that are nearly one of ours, and of those that are not.

    Their values, which may be secrets, are not shown.
    """
    unknown = {name for name in os.environ if name.startswith(PREFIX)} - _variables_of(command)
    if not unknown:
        return [], []
    known = every_variable()
    slips, others = [], []
    for name in sorted(unknown - known):
        text = f"the environment sets {ascii(name)[1:-1]}"  # nothing that would steer a terminal
        key = name.removeprefix(PREFIX).lower()
        setting = SETTINGS.get(key, SETTINGS.get(f"auth.{key}"))
        if setting is not None:
            source = setting.variable or "a settings file"
            others.append(f"{text}, which means nothing to bulkbind; {source} sets `{setting.key}`")
        elif guess := meant(name, known):
            slips.append(f"{text}; did you mean {guess}?")
        else:
            others.append(f"{text}, which means nothing to bulkbind")
    return slips, others


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
    """Return the variable that was probably meant, or those; None for what a cluster sets."""
    wrong, nearest = min((_letters_apart(name, other), other) for other in known)
    if wrong > MOST_WRONG or _SERVICE_LINK.fullmatch(name):
        return None
    word = name.removeprefix(PREFIX.rstrip("_"))
    of_commands = sorted(other for other in known if other.endswith(word))
    return " or ".join(of_commands) or nearest


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

"""Commands to paste: the one that was given, and the options that lead to the same place."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click
from click.core import ParameterSource

NOT_SHOWN = ("proxy",)
"""Options whose values may hold a secret."""


def typed_again() -> str:
    """Return this command as it was given, whole: with its folder, and the variables it reads."""
    context = click.get_current_context()
    variables = {
        str(option.envvar): os.environ[str(option.envvar)]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is ParameterSource.ENVIRONMENT
        and option.name not in NOT_SHOWN
        and option.envvar in os.environ
    }
    parts = [f"{name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    parts += ["bulkbind", *(shlex.quote(text) for text in sys.argv[1:] if text != "--quiet")]
    return f"cd {shlex.quote(str(Path.cwd()))} && {' '.join(parts)}"


def same_place() -> str:
    """Return the given options that select the ledger, the report and the caps."""
    context = click.get_current_context(silent=True)
    if context is None:
        return ""
    given = [
        f" --{name} {shlex.quote(str(context.params[name]))}"
        for name in ("config", "endpoint", "ledger", "out", "rate", "concurrency")
        if context.params.get(name)
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    return "".join(given)

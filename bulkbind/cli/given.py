"""The settings that a command is given: its parameters, the environment's secrets and the file."""

from __future__ import annotations

import os
from typing import Any

import click

from bulkbind.errors import UsageError
from bulkbind.settings import FIELDS, SECRETS, Loaded, Settings, load

GIVEN = (
    "endpoint",
    "ca_file",
    "proxy",
    "user_id",
    "columns",
    "constants",
    "header",
    "skip_rows",
    "format",
    "encoding",
    "sheet",
    "clean",
    "profile",
    "on_duplicate",
    "on_conflict",
    "on_invalid",
    "rebind",
    "refresh",
    "rebind_missing",
    "move",
    "ledger",
    "out",
    "concurrency",
    "rate",
    "max_attempts",
    "max_wait",
    "deadline",
    "stall",
    "max_failures",
    "grace",
    "wait",
    "log_level",
    "log_format",
    "log_file",
    "log_devices",
    "fail_on",
    "metrics_file",
)
"""Parameters that give the setting of the same name."""
_PAIRS = {"columns": ("--map", "FIELD=COLUMN"), "constants": ("--set", "FIELD=VALUE")}
"""Parameters that are pairs, with their flag and their form."""


def settings_from(given: dict[str, Any]) -> Settings:
    """Return the settings of a command's parameters, the environment's secrets and the file.

    Raises: UsageError.
    """
    return loaded_from(given).settings


def loaded_from(given: dict[str, Any]) -> Loaded:
    """Return the same, with where each value came from. Raises: UsageError."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in GIVEN:
        value = given.get(name)
        if value in (None, (), False, ""):
            continue
        origins[name] = _origin(name)
        values[name] = _pairs(value, *_PAIRS[name]) if name in _PAIRS else value
    for name in (*SECRETS, "app_id"):
        variable = f"BULKBIND_{name.upper()}"
        if secret := os.environ.get(variable):
            values[f"auth.{name}"] = secret
            origins[f"auth.{name}"] = variable
    return load(given.get("config"), values, origins)


def _origin(name: str) -> str:
    """Return the flag or the variable that gave a parameter."""
    context = click.get_current_context()
    option = next(param for param in context.command.params if param.name == name)
    if context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT:
        return str(option.envvar)
    return max(option.opts, key=len)


def _pairs(pairs: tuple[str, ...], flag: str, form: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or field not in FIELDS or not value.strip():
            raise UsageError(
                f"{flag} {pair!r}: write {form}", hint=f"fields are {', '.join(FIELDS)}"
            )
        found[field] = value.strip()
    return found

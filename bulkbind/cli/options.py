"""Options that commands share, each with its environment variable, and the resulting settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bulkbind.errors import BulkbindError, UsageError
from bulkbind.settings import FIELDS, SECRETS, Loaded, Settings, load, parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])


class Listed(click.types.StringParamType):
    """Texts that may contain blanks: the environment variable separates them by semicolons."""

    envvar_list_splitter = ";"


class _Time(click.ParamType[float]):
    """A duration, written as in settings."""

    name = "time"

    def convert(
        self,
        value: Any,  # noqa: ANN401  # click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


TIME = _Time()


def option(flag: str, *more: Any, **attributes: Any) -> Callable[[Command], Command]:
    """Return a click option with its environment variable `BULKBIND_…`, shown in the help."""
    variable = "BULKBIND_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(flag, *more, envvar=variable, show_envvar=True, **attributes)


def together(options: list[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    """Return a decorator that adds several options to a command, in the order of its help."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(options):
            command = decorator(command)
        return command

    return decorate


config = option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="settings file (YAML)"
)

manifest_options = together(
    [
        config,
        option("--user-id", metavar="ID", help="user of the rows that name none"),
        option(
            "--map",
            "columns",
            multiple=True,
            type=Listed(),
            metavar="FIELD=COLUMN",
            help=f"which column holds a field ({', '.join(FIELDS)}): its header, #3 for the third, "
            "and in YAML and JSON a path (data.vendor) or @key for the device's own key; "
            "repeatable, and divided by semicolons in the environment",
        ),
        option(
            "--set",
            "constants",
            multiple=True,
            type=Listed(),
            metavar="FIELD=VALUE",
            help="one value of a field for all rows, whatever they say; repeatable",
        ),
        option(
            "--profile",
            metavar="NAME",
            help="how such files are read, by its name under `profiles:` in the settings file",
        ),
        option(
            "--format",
            metavar="FORMAT",
            help="csv, xlsx, yaml, jsonl or json; without it, told from name or content",
        ),
        option(
            "--encoding",
            metavar="NAME",
            help="of text without a byte order mark, e.g. cp1252; without it UTF-8, or UTF-16 "
            "where it looks like it",
        ),
        option(
            "--skip-rows",
            metavar="N",
            help="lines before the header; without it, it is found by the names of its columns",
        ),
        option(
            "--columns",
            "header",
            metavar="NAME,…",
            help="the columns of a table that has no header, in their order",
        ),
        option("--sheet", metavar="NAME|N", help="sheet of a workbook; without it the first"),
        option(
            "--items",
            metavar="PATH",
            help="where the list of devices stands in YAML or JSON, e.g. results or data.items",
        ),
        option(
            "--clean",
            metavar="none|names",
            help="names: make device_name and device_os fit their rules; every change is "
            "listed  [default: none]",
        ),
    ]
)

repeat_options = together(
    [
        option(
            "--on-duplicate",
            metavar="first|error",
            help="the same device again for the same user: the first row counts, or the others "
            "are invalid  [default: first]",
        ),
        option(
            "--on-conflict",
            metavar="error|first|last",
            help="the same device for another user: both rows are invalid, or which one "
            "counts  [default: error]",
        ),
    ]
)

problems_out = option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.csv|DIR",
    help="write every problem there; in a folder, as problems.csv  [default: print the first]",
)

ledger_options = together(
    [
        option("--endpoint", metavar="URL", help="scheme://host[:port] of the API"),
        option(
            "--ledger",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="the ledger  [default: $XDG_STATE_HOME/bulkbind/<host>.db]",
        ),
    ]
)

out = option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="report folder  [default: bulkbind-report/<run id>]",
)

network_options = together(
    [
        option(
            "--ca-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="certificates (PEM) of a private authority, trusted instead of the system's",
        ),
        option(
            "--proxy",
            metavar="URL",
            help="http://host:port for an https endpoint  [default: HTTPS_PROXY and NO_PROXY]",
        ),
    ]
)

pace_options = together(
    [
        network_options,
        option(
            "--concurrency",
            metavar="N",
            help="requests in flight at once, 1 to 1000  [default: 32]",
        ),
        option(
            "--rate",
            metavar="N",
            help="cap in requests per second  [default: as fast as the gateway allows]",
        ),
    ]
)

sending_options = together(
    [
        pace_options,
        option(
            "--max-attempts",
            metavar="N",
            help="attempts before a device has failed; 429 costs none  [default: 6]",
        ),
        option(
            "--max-wait",
            metavar="TIME",
            help="the longest wait for the gateway's limit that is waited out; a longer one, as "
            "for a limit per hour or day, stops with 3  [default: 120s]",
        ),
        option(
            "--deadline",
            metavar="TIME",
            help="stop after this long (90s, 50m, 2h), exit 3  [default: none]",
        ),
        option(
            "--stall",
            metavar="TIME",
            help="stop, exit 3, once nothing was read, sent or settled for so long; a pause for a "
            "limit or an endpoint that is away is none  [default: 600s]",
        ),
        option(
            "--max-failures",
            metavar="N|N%",
            help="stop, exit 3, once so many devices have failed, or so many percent of those "
            "that have ended (counted from 100 on)  [default: none]",
        ),
        option(
            "--grace",
            metavar="TIME",
            help="after Ctrl-C or SIGTERM: how long requests in flight may take  [default: 20s]",
        ),
        option(
            "--wait",
            metavar="TIME",
            help="wait so long for a ledger that another run holds, before exit 75  [default: 0s]",
        ),
    ]
)

staging_options = together(
    [
        option(
            "--on-invalid",
            metavar="abort|skip",
            help="when rows break a rule: send nothing, or the other rows  [default: abort]",
        ),
        option("--rebind", is_flag=True, help="send again what the ledger knows as bound"),
        option(
            "--refresh",
            is_flag=True,
            help="look in the users' lists on the server, too: what the ledger knows as bound and "
            "the lists lack fails",
        ),
        option(
            "--rebind-missing",
            is_flag=True,
            help="as --refresh, but what the lists lack is bound again",
        ),
        option(
            "--move",
            is_flag=True,
            help="unbind a device that the ledger knows for another user from there, then bind it",
        ),
    ]
)

end_options = together(
    [
        option(
            "--fail-on",
            metavar="any|new|none",
            help="which rows that need a person make exit code 1: any, only such that did not "
            "need one the last time, or none  [default: any]",
        ),
        option(
            "--metrics-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="write metrics for Prometheus' node exporter there (needs the extra `metrics`)",
        ),
    ]
)

first = option(
    "--first",
    type=click.IntRange(min=1),
    metavar="N",
    help="a pilot: send only the first N rows that need sending, then stop with 3; the "
    "same command without it goes on  [default: all]",
)

log_options = together(
    [
        option(
            "--log-format",
            metavar="console|json",
            help="form of log lines on standard error; json given outright: nothing else is "
            "written there  [default: console on a terminal, else json]",
        ),
        option(
            "--log-level",
            metavar="LEVEL",
            help="least severe log line: debug, info, warning or error  [default: warning on a "
            "terminal, which has the live display, else info]",
        ),
        option(
            "--log-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="append log lines to a file as well, as JSON",
        ),
        option(
            "--log-devices",
            is_flag=True,
            help="a log line for every settled device, instead of progress lines",
        ),
    ]
)

output_options = together(
    [
        option("--quiet", is_flag=True, help="say nothing but problems"),
        option(
            "--json", "as_json", is_flag=True, help="print the summary as JSON on standard output"
        ),
        log_options,
    ]
)


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
    "items",
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
"""Parameters that set the setting of the same name."""
_PAIRS = {"columns": ("--map", "FIELD=COLUMN"), "constants": ("--set", "FIELD=VALUE")}
"""Parameters that are pairs, with their flag and format."""


def settings_from(given: dict[str, Any]) -> Settings:
    """Return the settings by parameters, environment secrets and file. Raises: UsageError."""
    return loaded_from(given).settings


def loaded_from(given: dict[str, Any]) -> Loaded:
    """Return the same, with the origin of each value. Raises: UsageError."""
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
    """Return the flag or the environment variable that a parameter came from."""
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


MOST_RUNS = 50
"""Runs offered for completion, the newest ones."""


def runs_of(
    context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the ids of runs in the ledger that the options so far select."""
    from bulkbind.app.reports import run_names  # noqa: PLC0415  # completion must be fast

    given: dict[str, Any] = {
        name: context.params.get(name) for name in ("config", "endpoint", "ledger")
    }
    try:
        with context:
            found = run_names(settings_from(given), MOST_RUNS)
    except BulkbindError:
        return []
    return [
        CompletionItem(run.run_id, help=f"{run.state}, {', '.join(run.manifests)}")
        for run in found
        if run.run_id.startswith(incomplete)
    ]


run_argument = click.argument("run_id", required=False, metavar="[RUN]", shell_complete=runs_of)
"""A run's id or a prefix of it."""

"""Options that commands share, each with its environment variable, and the resulting settings."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from bulkbind import logs
from bulkbind.app.schema import filled
from bulkbind.cli import console
from bulkbind.cli.consent import Consent
from bulkbind.cli.here import FOUND_HERE
from bulkbind.cli.layout import BRIEF, WHOLE, write_options
from bulkbind.cli.running import explained, print_failure
from bulkbind.cli.variables import unknown_variables
from bulkbind.errors import BulkbindError, UsageError, did_you_mean
from bulkbind.manifest.columns import field_of
from bulkbind.manifest.formats import FORMATS
from bulkbind.model import in_one_line
from bulkbind.model.fields import FIELDS
from bulkbind.redaction import learn
from bulkbind.settings import (
    FOUND,
    SECRETS,
    SETTINGS,
    ConfigFile,
    Group,
    Loaded,
    LogSettings,
    Setting,
    Settings,
    find_config,
    load,
    parse_duration,
    shipped_names,
    variable_of,
)
from bulkbind.settings.model import Repeated, Shown

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Listed(click.types.StringParamType):
    """Texts that may contain blanks: the environment variable separates them by semicolons."""

    envvar_list_splitter = ";"


class Choice(click.Choice[str]):
    """One of some words; the error names the nearest one."""

    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        """Return what is wrong, and what was probably meant."""
        told = super().get_invalid_choice_message(value, ctx).removesuffix(".")
        return told + did_you_mean(value, self.choices)


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


_NO_YES = (
    "there is no --yes where devices are unbound: --yes-unbind N says how many are meant "
    "(0 for the undo of a run that only unbound: it binds again)"
)


class Command(click.Command):
    """A command that first looks for environment variables of ours that mean nothing."""

    def __init__(
        self, *args: Any, is_brief: bool = False, finds_settings: bool = True, **attributes: Any
    ) -> None:
        """Make a command.

        *is_brief*: `--help` has a line for each option, and `bulkbind help` has all of it.
        *finds_settings*: whether those of the current folder count, if it takes any.
        """
        super().__init__(*args, **attributes)
        self.is_brief = is_brief
        self.finds_settings = finds_settings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; who gives the `--yes` of other commands is told what is asked for."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name == "--yes" and any("--yes-unbind" in p.opts for p in self.params):
                raise click.UsageError(_NO_YES, ctx) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options below headings."""
        is_brief = self.is_brief and WHOLE not in ctx.meta
        write_options(self.get_params(ctx), ctx, formatter, is_brief=is_brief)
        if is_brief:
            formatter.write_paragraph()
            formatter.write_text(BRIEF.format(name=self.name))

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # click's signature
        """Call the command, or exit with 2 where a variable is nearly one of ours."""
        learn(*(os.environ.get(variable_of(name)) for name in SECRETS))  # before any is quoted
        slips, others = unknown_variables(self)
        for text in slips:
            console.fail(text)
        if slips:
            print_failure("; ".join(slips), "", UsageError.exit_code)
            ctx.exit(UsageError.exit_code)
        with explained():
            found = _found(ctx)
        if isinstance(found, str):
            others.append(
                f"{FOUND} in this folder is not used: {found}; --config {FOUND} takes it all the "
                "same"
            )
        elif found is not None:
            others.append(f"settings from {FOUND} in this folder")
        if others and not ctx.params.get("quiet"):
            _note(ctx.params, others)
        return super().invoke(ctx)


_READ = "bulkbind.settings-file"
"""Key in a context: what `find_config` returned, so that it is opened once."""


def _found(ctx: click.Context) -> ConfigFile | str | None:
    """Return what `find_config` finds, where the command takes settings and none are named."""
    command = ctx.command
    if ctx.resilient_parsing or not (isinstance(command, Command) and command.finds_settings):
        return None  # completing, or a command that makes such a file
    if "config" not in ctx.params or ctx.params["config"] is not None:
        return None
    if _READ not in ctx.meta:
        found = ctx.meta[_READ] = find_config()
        if isinstance(found, ConfigFile):
            ctx.meta[FOUND_HERE] = found.path
    read: ConfigFile | str | None = ctx.meta[_READ]
    return read


def _note(given: dict[str, Any], texts: list[str]) -> None:
    """Print notes: as log lines where nothing else may be written."""
    log = LogSettings()
    with contextlib.suppress(UsageError):  # which the command reports itself
        log = settings_from(given).log
    if log.log_format == "json":
        logs.configure(logs.Sink(sys.stderr, "json", log.log_level or "warning"))
    for text in texts:
        if log.log_format == "json":
            logs.logger().warning("command.said", text=text)
        else:
            console.say(f"note: {text}")


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a command of a function."""
    return click.command(name, cls=Command, **attributes)


def option(
    flag: str, *more: Any, of: str = "", **attributes: Any
) -> Callable[[Decorated], Decorated]:
    """Return a click option with its environment variable `BULKBIND_…`, shown in the help.

    *of*: the command, where other commands' options of that name mean something else, or where
    the name is so short that many another variable would be taken for a slip.
    """
    variable = variable_of(f"{of}-{flag.removeprefix('--')}" if of else flag)
    return click.option(flag, *more, envvar=variable, show_envvar=True, **attributes)


def path(
    flag: str, *more: Any, metavar: str = "FILE", **attributes: Any
) -> Callable[[Decorated], Decorated]:
    """Return the option of a file or a folder."""
    kind = click.Path(path_type=Path)
    return option(flag, *more, type=kind, metavar=metavar, **attributes)


def together(options: list[Callable[[Any], Any]]) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds several options to a command, in the order of its help."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(options):
            command = decorator(command)
        return command

    return decorate


def settings(*groups: Group) -> Callable[[Decorated], Decorated]:
    """Return a decorator that adds the options of the settings in some groups."""
    return together([_option(s) for group in groups for s in SETTINGS.values() if s.group is group])


def setting(key: str) -> Callable[[Decorated], Decorated]:
    """Return the option of one setting."""
    return _option(SETTINGS[key])


def _option(setting: Setting) -> Callable[[Any], Any]:
    """Return the option of a setting; pydantic checks its value, as it checks a file's."""
    attributes: dict[str, Any] = {"metavar": setting.metavar}
    text = filled(setting.text)
    default = setting.none or setting.default
    if bool in setting.kinds:
        attributes = {"is_flag": True}
    elif any(isinstance(kind, Repeated) for kind in setting.kinds):
        attributes |= {"multiple": True, "type": Listed()}
        text += "; repeatable, and divided by semicolons in the environment"
    elif Path in setting.kinds:
        attributes["type"] = click.Path(path_type=Path)
    if default:
        text += f"  [default: {default}]"
    if values := _values_of(setting):
        attributes["shell_complete"] = values
    return option(setting.flag, setting.name, help=text, **attributes)


Completion = Callable[[click.Context, click.Parameter, str], list[str]]


def offering(*words: str) -> Completion:
    """Return a completion of some words."""
    return lambda _context, _param, incomplete: [w for w in words if w.startswith(incomplete)]


def _values_of(setting: Setting) -> Completion | None:
    """Return the completion of a setting's values, where they can be told."""
    words = [
        kind for kind in setting.kinds if isinstance(kind, str) and not isinstance(kind, Shown)
    ]
    if setting.name == "format":
        words = list(FORMATS)
    elif dict in setting.kinds:
        words = [f"{name}=" for name in FIELDS]
    elif setting.name == "profile":
        return _profiles
    return offering(*words) if words else None


def _profiles(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the profiles of the settings file that the options so far name."""
    with contextlib.suppress(BulkbindError), context:
        profiles = settings_from({"config": context.params.get("config")}).manifest.profiles
        return [name for name in profiles if name.startswith(incomplete)]
    return []


config = path(
    "--config",
    help=f"settings file (YAML), or one that comes along; {', '.join(shipped_names())}, without "
    f"it {FOUND} in this folder, if it is yours alone",
)

first = option(
    "--first",
    type=click.IntRange(min=1),
    metavar="N",
    help="a pilot of the first N rows that need sending; then it stops with 3, and the same "
    "command without it sends the rest  [default: all]",
)

takes_any = option(
    "--any",
    "takes_any",
    is_flag=True,
    help="unbind what two lists of each user show; also what this ledger has not bound or adopted",
)
yes_unbind = option(
    "--yes-unbind",
    type=click.IntRange(min=0),
    metavar="N",
    help="do not ask: N devices are meant; if it would be another number, none is unbound",
)

output_options = together(
    [
        option("--quiet", is_flag=True, help="say nothing but problems"),
        option(
            "--json", "as_json", is_flag=True, help="print the summary as JSON on standard output"
        ),
        settings(Group.LOG),
    ]
)


def settings_from(given: dict[str, Any]) -> Settings:
    """Return the settings by parameters, environment secrets and file. Raises: UsageError."""
    return loaded_from(given).settings


def loaded_from(given: dict[str, Any]) -> Loaded:
    """Return the same, with the origin of each value. Raises: UsageError."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, setting in SETTINGS.items():
        if setting.flag:
            value = given.get(setting.name)
            if value == "":  # as of a shell's variable that is not set
                raise UsageError(
                    f"{setting.flag} is empty", hint=f"give it a value, or leave {setting.flag} out"
                )
            origin = _origin(setting.name) if value else ""
        else:
            value = os.environ.get(setting.variable)
            origin = setting.variable
        if value:
            values[key] = _pairs(value, setting) if dict in setting.kinds else value
            origins[key] = origin
    file: Path | ConfigFile | None = given.get("config")
    if file is None and (context := click.get_current_context(silent=True)) is not None:
        found = _found(context)
        file = found if isinstance(found, ConfigFile) else None
    return load(file, values, origins, formats=FORMATS)


def typed_of(group: Group) -> list[Setting]:
    """Return the settings of a group whose options stand in the command line itself."""
    source = click.get_current_context().get_parameter_source
    typed = click.core.ParameterSource.COMMANDLINE
    return [s for s in SETTINGS.values() if s.group is group and source(s.name) is typed]


def consent_from(
    given: dict[str, Any], on_given: Callable[[Settings], None] | None = None
) -> Consent:
    """Return the settings as `Consent`, for a command that sends. Raises: UsageError."""
    return Consent(loaded_from(given), on_given)


def _origin(name: str) -> str:
    """Return the flag or the environment variable that a parameter came from."""
    context = click.get_current_context()
    option = next(param for param in context.command.params if param.name == name)
    if context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT:
        return str(option.envvar)
    return max(option.opts, key=len)


def _pairs(pairs: tuple[str, ...], setting: Setting) -> dict[str, str]:
    found = {}
    for pair in pairs:
        field, separator, value = pair.partition("=")
        if not separator or field not in FIELDS or not value.strip():
            raise _malformed(pair, setting)
        found[field] = value.strip()
    return found


def _malformed(pair: str, setting: Setting) -> UsageError:
    """Return the error of a pair, with the corrected one where it can be told."""
    left, _, right = (part.strip() for part in pair.partition("="))
    if left and field_of(left, {}) is None and (field := field_of(right, {})):
        return UsageError(
            f"{setting.flag} {pair!r}: it is the other way round",
            hint=f"write {setting.flag} {field}={shlex.quote(left)}",
        )
    if right and (field := field_of(left, {})):
        return UsageError(
            f"{setting.flag} {pair!r}: write the name of the field as it is here, {field}",
            hint=f"write {setting.flag} {field}={shlex.quote(right)}",
        )
    guess = did_you_mean(left, FIELDS) if left not in FIELDS else ""
    return UsageError(
        f"{setting.flag} {pair!r}: {_lack(pair, left, right)}; write {setting.metavar}",
        hint=f"fields are {', '.join(FIELDS)}{guess}",
    )


LONGEST_WORDS = 200
"""Characters of what an operator says of a run."""


def one_line(_context: click.Context, _param: click.Parameter, text: str) -> str:
    """Return what an operator says of a run as one line of printable text."""
    words = in_one_line(" ".join(text.split()))
    if len(words) > LONGEST_WORDS:
        raise click.BadParameter(f"it has {len(words)} characters, at most {LONGEST_WORDS}")
    return words


def _lack(pair: str, left: str, right: str) -> str:
    """Return what is wrong with a pair of a field and something else."""
    if "=" not in pair:
        return "there is no `=` in it"
    if not left or not right:
        return f"nothing stands {'behind' if left else 'before'} the `=`"
    return f"there is no field `{left}`"


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
    if given["config"] is None and isinstance(found_here := find_config(), ConfigFile):
        given["config"] = found_here
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

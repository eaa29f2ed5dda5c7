"""Commands to paste: whole for the place where they are told.

Hints are written where their cause is known, as `bulkbind resume` in backticks. What makes such a
command work here (settings file, endpoint, ledger, report folder, how manifests are read) is known
to the command line alone, and added by `completed`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bulkbind.model import RunKind
from bulkbind.redaction import HIDDEN, Lines, line
from bulkbind.settings import SETTINGS, Group, shipped_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bulkbind.model import RunSummary
    from bulkbind.settings import Setting, Settings

NAME = "bulkbind"
MANIFEST = "MANIFEST"
"""Stands in a hint for the manifests of the command at hand."""
SAME = "the same command"
"""Stands in a text for the command at hand."""
_WRITTEN = re.compile(rf"`{NAME} ([a-z][^`\n]*)`")
_FLAG = re.compile(r"--[a-z][a-z-]*")
_CARRIED = {
    setting.name
    for setting in SETTINGS.values()
    if setting.group
    in (
        *(Group.MANIFEST, Group.REPEAT, Group.LEDGER, Group.OUT, Group.NETWORK, Group.PACE),
        *(Group.WORKERS, Group.STAGING, Group.END),
    )
} | {"config", "max_attempts", "max_failures", "grace"}
"""Options that say where, what and how. What ends a run in time (`--deadline`) is not repeated."""
_LOOKS = ("doctor", "config")
"""Commands that look at what is wrong, and so must be told it."""


def completed(
    text: str, *, without: Collection[str] = (), is_absolute: bool = False, same: str = ""
) -> Lines:
    """Return a text, fit to be shown, in which the commands in backticks are whole for this place.

    Options that the text itself names beside them are what is to be changed, so they are not
    repeated.

    Args:
        text: For a person; in it, `SAME` becomes the command at hand; not in a mail, whose last
            line has it.
        without: More flags that are not repeated.
        is_absolute: Whether it is read elsewhere, as a mail is.
        same: What `SAME` means, if it is not the command at hand.
    """
    shown = line(text)
    named = {*_FLAG.findall(_WRITTEN.sub("", shown)), *without}

    def whole(found: re.Match[str]) -> str:
        try:
            words = shlex.split(found[1])
        except ValueError:  # no command, or cut short
            return found[0]
        skipped = () if words[0] in _LOOKS else named
        return f"`{line(command(words, without=skipped, is_absolute=is_absolute))}`"

    same = SAME if is_absolute else f"`{line(same or again())}`"
    return Lines(_WRITTEN.sub(whole, shown).replace(SAME, same))


def fitting(hint: str) -> str:
    """Return a hint without the clauses that begin with an option which the command at hand lacks.

    One where nothing would be left stays as it is.
    """
    context = click.get_current_context(silent=True)
    if context is None:
        return hint
    known = {flag for param in context.command.params for flag in param.opts}
    clauses = hint.split("; ")
    fit = [each for each in clauses if not (flag := _FLAG.match(each)) or flag[0] in known]
    return "; ".join(fit) or hint


def command(
    words: Sequence[str], *, without: Collection[str] = (), is_absolute: bool = False
) -> str:
    """Return a command line of ours with what the present one was told of place and manifests.

    Options that it has already, that are in *without*, or that its command does not know, are not
    added.

    Args:
        words: Without the program: `["resume", "20261123-"]`; `MANIFEST` stands for the manifests.
        without: Flags.
        is_absolute: Whether files are named in full, for whoever is elsewhere.
    """
    context = click.get_current_context(silent=True)
    target = _command(words[0])
    if context is None or target is None:
        return typed(*words)
    named = context.params.get("manifests") or (MANIFEST,)
    manifests = [_path(each, is_absolute=is_absolute) for each in named]
    given = [each for word in words for each in (manifests if word == MANIFEST else [word])]
    known = {param.envvar for param in target.params if param.name in _CARRIED}
    skipped = {*without, *given}
    for flag, option in _options(context):
        if option.envvar in known and flag not in skipped:
            given += _flagged(context, flag, option, is_absolute=is_absolute)
    return typed(*given)


def resume_of(summary: RunSummary, settings: Settings) -> str:
    """Return the command that resumes a run as that was told to go, where less is told.

    *settings*: those of this place.
    """
    return as_told(["resume", summary.run_id], summary, settings)


def same_as(summary: RunSummary, settings: Settings) -> str:
    """Return the command that does again what a run did: that at hand, if it was given manifests.

    *settings*: those of this place.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.params.get("manifests"):
        return again()
    return as_told([verb_of(summary), *summary.manifests], summary, settings)


def verb_of(summary: RunSummary) -> str:
    """Return the command that a run was made by."""
    return "run" if summary.kind is RunKind.BIND else "unbind"


def as_told(
    words: Sequence[str], summary: RunSummary, settings: Settings, *, is_absolute: bool = False
) -> str:
    """Return a command with what a run was told, where less is told; otherwise as `command`.

    *settings*: those of this place.
    """
    given, here = list(words), settings.public()
    target = _command(words[0])
    assert target is not None
    known = {str(param.name) for param in target.params}
    for setting in SETTINGS.values():
        if setting.name in _CARRIED & known and setting.name in here and setting.flag not in words:
            was = summary.settings.get(setting.name)
            given += _as_typed(setting, was) if was != here[setting.name] else ()
    return command(given, is_absolute=is_absolute)


def _as_typed(setting: Setting, value: Any) -> Iterator[str]:  # noqa: ANN401  # of any setting
    """Yield the option that sets a value as `Settings.public` has it; nothing if none can."""
    each = [f"{k}={v}" for k, v in value.items()] if isinstance(value, dict) else value
    for one in each if isinstance(each, list) else [each]:
        if one and HIDDEN not in str(one):
            yield setting.flag
            yield from [] if one is True else [str(one).removesuffix(".0")]


FOUND_HERE = "bulkbind.found-settings"
"""Key in a context: the settings file that was found by itself."""


def typed(*words: str) -> str:
    """Return a command line of ours, as it is."""
    return shlex.join([*program(), *words])


def again(*more: str, without: Collection[str] = (), is_absolute: bool = False) -> str:
    """Return the present command line, with more options at its end.

    *without*: flags that are left away; *is_absolute*: it is read elsewhere.
    """
    context = click.get_current_context(silent=True)
    if not is_absolute or context is None:
        return typed(*sys.argv[1:], *more)
    given = [str(context.info_name)]
    for param in context.command.params:
        if isinstance(param, click.Argument):
            value = context.params[str(param.name)] or ()
            each = value if isinstance(value, tuple) else (value,)
            is_file = param.name == "manifests"
            given += [_path(one, is_absolute=is_file) for one in each]
    for flag, option in _options(context):
        if flag not in without:
            given += _flagged(context, flag, option, is_absolute=True)
    return typed(*given, *more)


def program() -> list[str]:
    """Return how this program is called here: by its name, or by its path if that finds none."""
    called = Path(sys.argv[0])
    if called.name != NAME or not called.is_file():
        return [NAME]  # as a module, or in a test
    found = shutil.which(NAME)
    is_on_path = found is not None and Path(found).resolve() == called.resolve()
    return [NAME if is_on_path else str(called.absolute())]


def _command(name: str) -> click.Command | None:
    from bulkbind.cli import cli  # noqa: PLC0415  # which imports the commands

    return cli.get_command(click.Context(cli), name)


def _options(context: click.Context) -> Iterator[tuple[str, click.Option]]:
    for option in context.command.params:
        if isinstance(option, click.Option):
            yield max(option.opts, key=len), option


def _flagged(
    context: click.Context, flag: str, option: click.Option, *, is_absolute: bool
) -> Iterator[str]:
    """Yield an option as it is typed, if it was given; elsewhere also settings found by itself."""
    name = str(option.name)
    value = context.params[name]
    if name == "config" and value is None and is_absolute:
        value = context.meta.get(FOUND_HERE)
    elif not value or context.get_parameter_source(name) is ParameterSource.DEFAULT:
        return
    for each in value if option.multiple else [value] if value else []:
        yield flag
        if not option.is_flag:
            is_file = isinstance(each, Path) and str(each) not in shipped_names()
            yield _path(each, is_absolute=is_absolute and is_file)


def _path(value: object, *, is_absolute: bool) -> str:
    text = str(value)
    if text in ("-", MANIFEST):
        return text
    if is_absolute:
        return str(Path(text).absolute())
    return f"./{text}" if text.startswith("-") else text  # else it would be an option

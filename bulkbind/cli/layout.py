"""How a command's help is laid out: options in groups, in brief where they are many."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from bulkbind.settings import SETTINGS, Group

if TYPE_CHECKING:
    from collections.abc import Iterable

WHOLE = "bulkbind.whole-help"
"""Key in a context: the whole help is wanted, also of a command whose `--help` is brief."""
OTHERS = "Options"
HEADINGS: dict[str, tuple[tuple[Group, ...], tuple[str, ...]]] = {
    "Manifests": ((Group.MANIFEST, Group.REPEAT), ()),
    "Which rows": ((Group.STAGING,), ("first", "plan_file", "note", "yes")),
    "Where": ((Group.LEDGER, Group.OUT, Group.NETWORK), ("config",)),
    "How fast, how long": ((Group.PACE, Group.WORKERS, Group.SENDING), ()),
    "Rehearsal": ((), ("rehearse", "limits", "faults", "seed")),
    "Inbox": ((), ("archive", "min_age")),
    "What is said": ((Group.END, Group.LOG), ("quiet", "as_json")),
    OTHERS: ((), ()),
}
"""Headings in their order: the groups of settings below each, and the names of other options."""
COLUMN = 28
"""Of the texts of a brief help."""
_GROUPS = {found.variable: found.group for found in SETTINGS.values() if found.flag}
_DEFAULT = re.compile(r"  \[default: (.*)\]$")
_WORD = re.compile(r"[\w.]+")
_NOTHING = ("none", "all", "chance")
"""Defaults that go without saying."""
_MORE = re.compile(r"\[.*?\]")
"""What a value may hold besides."""
_ASIDE = re.compile(r" \([^()]*\)")
BRIEF = "`bulkbind help {name}` says more, also of variables such as BULKBIND_USER_ID."


def heading_of(param: click.Parameter) -> str:
    """Return the heading below which an option stands."""
    group = _GROUPS.get(str(param.envvar))
    for heading, (groups, names) in HEADINGS.items():
        if group in groups or param.name in names:
            return heading
    return OTHERS


def write_options(
    params: Iterable[click.Parameter],
    ctx: click.Context,
    formatter: click.HelpFormatter,
    *,
    is_brief: bool,
) -> None:
    """Write a command's options below their headings; where there is one heading, it is plain."""
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
    for param in params:
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            found[heading_of(param)].append(_brief(param, ctx) if is_brief else record)
    few = sum(map(bool, found.values())) == 1
    for heading, records in found.items():
        if records:
            with formatter.section(OTHERS if few else heading):
                if is_brief:
                    formatter.write_dl(records, col_max=COLUMN - 2)
                else:
                    formatter.write_dl(records)


def _brief(param: click.Parameter, ctx: click.Context) -> tuple[str, str]:
    """Return an option's flag, the first clause of its text, and its default if it is a word."""
    text = str(getattr(param, "help", None) or "")
    told = _DEFAULT.search(text)
    default = told[1] if told else str(param.default) if getattr(param, "show_default", 0) else ""
    clause = _ASIDE.sub("", re.split(r"; |: |, e\.g\. |  \[", text)[0])
    metavar = "" if getattr(param, "is_flag", False) else f" {param.make_metavar(ctx)}"
    metavar = _MORE.sub("", metavar)
    is_told = _WORD.fullmatch(default) and default not in _NOTHING
    return ", ".join(param.opts) + metavar, f"{clause} [{default}]" if is_told else clause

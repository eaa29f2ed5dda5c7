"""`bulkbind help`: the topics of the manual, which ship with the package."""

from __future__ import annotations

import io
import os
import sys
from importlib import resources
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from bulkbind.cli import COMMANDS, cli, options
from bulkbind.cli.layout import WHOLE
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import UsageError, did_you_mean
from bulkbind.logs import is_terminal
from bulkbind.redaction import Lines

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

WIDTH = 100
"""Columns of a rendered topic at most."""


def topics() -> dict[str, Traversable]:
    """Return the file of each topic, by its name."""
    folder = resources.files("bulkbind").joinpath("docs")
    return {
        file.name.removesuffix(".md"): file
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".md")
    }


def help_of(name: str) -> str:
    """Return the whole help of a command."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    ctx = click.Context(command, info_name=f"bulkbind {name}", max_content_width=WIDTH)
    ctx.meta[WHOLE] = True
    return command.get_help(ctx)


def about(text: str) -> str:
    """Return what a topic is about: what its heading says behind the name."""
    return text.partition("\n")[0].partition(": ")[2]


def _complete(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    told = {name: about(file.read_text("utf-8")) for name, file in topics().items()}
    return [
        CompletionItem(name, help=text)
        for name, text in (told | COMMANDS).items()
        if name.startswith(incomplete)
    ]


@options.command("help")
@click.argument("topic", required=False, shell_complete=_complete)
@options.option(
    "--man", of="help", is_flag=True, help="print all topics and commands as a man page (roff)"
)
def command(topic: str | None, *, man: bool) -> None:
    """Show a topic of the manual, or the help of a command; without one, list the topics.

    A terminal gets it rendered, in $PAGER; a pipe or a file gets the text as it is, Markdown.

    \b
    Examples:
      bulkbind help
      bulkbind help what-happens-when
      bulkbind help credentials | less
      bulkbind help --man > bulkbind.1
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        if man:
            from bulkbind.cli.man_page import man_page  # noqa: PLC0415  # few calls need it

            print_lines([Lines(man_page(topics(), help_of))])
        elif topic is None:
            print_lines(_listed())
        elif topic in COMMANDS:
            print_lines([Lines(help_of(topic))])
        else:
            _show(_text(topic))


def _listed() -> list[str]:
    found = {name: about(file.read_text("utf-8")) for name, file in topics().items()}
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {text}" for name, text in found.items()]
    return ["Topics, shown by `bulkbind help TOPIC`:", "", *lines]


def _text(topic: str) -> str:
    """Return a topic's text. Raises: UsageError if there is none of that name."""
    found = topics()
    if topic in found:
        return found[topic].read_text("utf-8").rstrip("\n")
    guess = did_you_mean(topic, [*found, *COMMANDS])
    raise UsageError(f"there is no topic {topic!r}{guess}", hint="`bulkbind help` lists them")


def _show(text: str) -> None:
    """Print a topic: rendered and paged on a terminal, else as it is."""
    if not is_terminal(sys.stdout):
        print_lines([Lines(text)])
        return
    from rich.console import Console as Terminal  # noqa: PLC0415  # only on a terminal
    from rich.markdown import Markdown  # noqa: PLC0415  # as above
    from rich.theme import Theme  # noqa: PLC0415  # as above

    shown = io.StringIO()
    plain = Theme({"markdown.code": "bold cyan"})  # rich's own has a background
    terminal = Terminal(file=shown, force_terminal=True, theme=plain)
    terminal.width = min(WIDTH, Terminal().width)
    terminal.print(Markdown(text, hyperlinks=False, code_theme="ansi_dark"))
    os.environ.setdefault("LESS", "FRX")  # as git: no pager for what fits the screen
    click.echo_via_pager(shown.getvalue(), color=True)

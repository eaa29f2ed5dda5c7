"""`bulkbind completion`."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from bulkbind.cli import options
from bulkbind.cli.running import explained, print_lines
from bulkbind.errors import ExitCode, UsageError
from bulkbind.redaction import Lines

VARIABLE = "_BULKBIND_COMPLETE"
"""The variable that click reads: the shell's name with `_complete` or `_source`."""


@options.command("completion")
@click.argument("shell", type=options.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes commands, options and run ids in a shell.

    \b
    Examples, where each shell looks for it:
    bash:  bulkbind completion bash > ~/.local/share/bash-completion/completions/bulkbind
    zsh:   bulkbind completion zsh > "${fpath[1]}/_bulkbind"
    fish:  bulkbind completion fish > ~/.config/fish/completions/bulkbind.fish
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        kind = get_completion_class(shell)
        assert kind is not None  # click knows these three
        root = click.get_current_context().find_root()
        try:
            print_lines([Lines(kind(root.command, {}, "bulkbind", VARIABLE).source())])
        except RuntimeError as error:  # a bash too old for it
            raise UsageError(f"completion for {shell}: {error}") from error
    sys.exit(ExitCode.DONE)

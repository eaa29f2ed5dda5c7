"""`bulkbind config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulkbind.cli import options
from bulkbind.cli.options import loaded_from
from bulkbind.cli.running import explained, print_json, print_lines
from bulkbind.settings import Group, plain

if TYPE_CHECKING:
    from bulkbind.settings import Value

COMMENT_AT = 40
"""Column of the origins."""


@options.command("config")
@options.config
@options.settings(*Group)
@options.option("--json", "as_json", is_flag=True, help="print them as JSON")
def command(*, as_json: bool, **given: Any) -> None:
    """Print the settings in force, each with where it came from: a settings file by itself.

    A flag wins over the environment, that over the settings file, that over the default. Secrets
    are masked. Give it the options of the `run` in question.

    \b
    Examples:
      bulkbind config --config koodrive-intl --concurrency 64
      BULKBIND_RATE=20 bulkbind config > mine.yaml
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        values = list(loaded_from(given).values())
        if as_json:
            print_json({v.key: {"value": v.value, "origin": v.origin} for v in values})
            return
        for line in _lines(values):
            print_lines([line])


def _lines(values: list[Value]) -> list[str]:
    lines: list[str] = []
    part = ""
    for item in values:
        above, _, name = item.key.rpartition(".")
        if above and above != part:
            lines.append(f"{above}:")
        part = above
        indent = "  " if above else ""
        if item.is_secret:
            # A comment, since a settings file that contains the mask would be refused.
            shown = f"{indent}# {name}: {item.value or 'not set'}"
        else:
            shown = f"{indent}{name}:{plain(item.value)}"
        lines.append(f"{shown:<{COMMENT_AT}}  # {item.origin}")
    return lines

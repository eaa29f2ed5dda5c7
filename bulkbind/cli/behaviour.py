"""The options of every command that starts a sandbox: how that behaves.

Most runs have none, and do not import it: it is a web server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.cli import options
from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from bulkbind.sandbox import SandboxOptions


def _kinds(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a fault."""
    from bulkbind.sandbox.faults import KINDS  # noqa: PLC0415  # see above

    return options.offering(*(f"{kind}=" for kind in KINDS))(context, parameter, incomplete)


behaviour_options = options.together(
    [
        options.option(
            "--limit",
            "limits",
            multiple=True,
            metavar="[KIND:]N/UNIT[,KEY=VALUE...]",
            help="limit of the sandbox's gateway, e.g. 60/s; repeatable: all of them hold  "
            "[default: none]",
        ),
        options.option(
            "--fault",
            "faults",
            multiple=True,
            metavar="NAME=P[,KEY=VALUE...]",
            shell_complete=_kinds,
            help="fault of the sandbox with probability P (0 to 1), e.g. "
            "reset-after=0.03; repeatable  [default: none]",
        ),
        options.option(
            "--seed", type=int, help="makes the sandbox's faults repeatable  [default: chance]"
        ),
    ]
)
"""`--limit`, `--fault` and `--seed`, as `limits`, `faults` and `seed`."""


def behaviour_from(
    limits: Sequence[str], faults: Sequence[str], seed: int | None
) -> SandboxOptions:
    """Return the values of `behaviour_options` as options of a sandbox. Raises: UsageError."""
    from bulkbind.sandbox import SandboxOptions, parse_fault, parse_limit  # noqa: PLC0415  # as above

    try:
        return SandboxOptions(
            limits=tuple(map(parse_limit, limits)),
            faults=tuple(map(parse_fault, faults)),
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(
            str(error), hint="`bulkbind sandbox --help` lists kinds, keys, forms and faults"
        ) from None

"""The options that say how a sandbox behaves, for every command that serves one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.cli import options
from bulkbind.errors import UsageError
from bulkbind.sandbox import SandboxOptions, parse_fault, parse_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

WHERE = "`bulkbind sandbox --help` lists kinds, keys, forms and faults"

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
            help="fault of the sandbox that strikes with probability P (0 to 1), e.g. "
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
    """Return the values of `behaviour_options` as options of a sandbox.

    Raises: UsageError.
    """
    try:
        return SandboxOptions(
            limits=tuple(map(parse_limit, limits)),
            faults=tuple(map(parse_fault, faults)),
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(str(error), hint=WHERE) from None

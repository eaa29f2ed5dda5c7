"""`validate`: the rules alone; no network, no ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkbind.app.inputs import named
from bulkbind.app.listener import Listener, Silent
from bulkbind.manifest import open_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bulkbind.settings import Settings


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found."""

    rows: int
    invalid: int

    @property
    def exit_code(self) -> int:
        """0 no problem, 1 some rows could not be bound."""
        return 1 if self.invalid else 0


def validate(
    manifests: Sequence[str | Path], settings: Settings, listener: Listener | None = None
) -> Validation:
    """Check every row of every manifest, and tell the listener of each that breaks a rule.

    Raises: ManifestError if one cannot be read.
    """
    hears = listener or Silent()
    rows = invalid = 0
    with named(manifests) as inputs:
        for each in inputs:
            manifest = open_manifest(each.path, settings.manifest, each.name)
            for row in manifest.rows():
                rows += 1
                if row.problems:
                    invalid += 1
                    hears.problem(each.name, row)
            for notice in manifest.notices:
                hears.notice(notice)
    return Validation(rows, invalid)

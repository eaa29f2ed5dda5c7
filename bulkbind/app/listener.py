"""What a use case tells while it works, and what it asks; a library may ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bulkbind.model import CheckedRow


class Listener(Protocol):
    """Hears of progress. Called on the event loop, but for `staged`."""

    def notice(self, text: str) -> None:
        """Hear something worth knowing."""
        ...

    def staged(self, rows: int) -> None:
        """Hear how many rows have been read and staged so far; called from another thread."""
        ...

    def sending(self, rows: int) -> None:
        """Hear that sending begins, and how many rows there are to settle."""
        ...

    def settled(self, counts: dict[str, int]) -> None:
        """Hear how many rows of this sending have ended, by status; all of them durable."""
        ...

    def confirm(self, counts: dict[str, int]) -> bool:
        """Say whether to go on, given the staged rows by status."""
        ...

    def problem(self, source: str, row: CheckedRow) -> None:
        """Hear of a row that breaks a rule; called from another thread."""
        ...


class Silent:
    """Says nothing and agrees to everything."""

    def notice(self, text: str) -> None:
        """Ignore it."""

    def staged(self, rows: int) -> None:
        """Ignore it."""

    def sending(self, rows: int) -> None:
        """Ignore it."""

    def settled(self, counts: dict[str, int]) -> None:
        """Ignore it."""

    def confirm(self, counts: dict[str, int]) -> bool:  # noqa: ARG002  # the protocol's
        """Agree."""
        return True

    def problem(self, source: str, row: CheckedRow) -> None:
        """Ignore it."""

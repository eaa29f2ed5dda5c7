"""What a use case tells while it works, and what it asks; a library may ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.gauge import Gauge
    from bulkbind.model import CheckedRow, Plan, UndoPlan


class Listener(Protocol):
    """Hears of progress. Called on the event loop, but for `staged`."""

    def notice(self, text: str) -> None:
        """Hear something worth knowing."""
        ...

    def staged(self, rows: int) -> None:
        """Hear how many rows have been read and staged so far; called from another thread."""
        ...

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Hear that sending begins, how many rows there are to settle, and whom to ask of pace."""
        ...

    def sent(self) -> None:
        """Hear that this sending has ended, however it did; nothing of it is to be shown on."""
        ...

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Hear how many rows of this sending have ended, by status; all of them durable.

        *problems*: what went wrong with some of the newest, one clause each.
        """
        ...

    def confirm(self, plan: Plan) -> bool:
        """Say whether to go on, given what would be done."""
        ...

    def confirm_undo(self, undo: UndoPlan) -> bool:
        """Say whether to unbind so many devices."""
        ...

    def problem(self, source: str, row: CheckedRow) -> None:
        """Hear of a row that breaks a rule; called from another thread."""
        ...


class Silent:
    """Says nothing, lets what was asked for begin, and takes nothing back by itself."""

    def notice(self, text: str) -> None:
        """Ignore it."""

    def staged(self, rows: int) -> None:
        """Ignore it."""

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Ignore it."""

    def sent(self) -> None:
        """Ignore it."""

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Ignore it."""

    def confirm(self, plan: Plan) -> bool:  # noqa: ARG002  # the protocol's
        """Agree."""
        return True

    def confirm_undo(self, undo: UndoPlan) -> bool:  # noqa: ARG002  # the protocol's
        """Refuse: nothing is unbound that nobody has asked for by number."""
        return False

    def problem(self, source: str, row: CheckedRow) -> None:
        """Ignore it."""

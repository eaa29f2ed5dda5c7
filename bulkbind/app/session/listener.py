"""What a use case reports while it works, and what it asks; both are optional in a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.session.eta import Gauge
    from bulkbind.model import CheckedRow, Plan, UndoPlan


class Listener:
    """Receives progress, and ignores it; agrees to plans and refuses undos. Override what matters.

    Called on the event loop, unless stated otherwise.
    """

    def notice(self, text: str) -> None:
        """Receive a notice for a person."""

    def warning(self, text: str) -> None:
        """Receive what a person must see, even who asked for nothing but problems."""

    def staged(self, rows: int) -> None:
        """Receive the number of rows staged so far; called from another thread."""

    def sending(self, rows: int, gauge: Gauge) -> None:
        """Note that sending starts; *rows*: to settle; *gauge*: shows the pace."""

    def sent(self) -> None:
        """Note that sending has ended, with or without success: stop showing it."""

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Receive the numbers of durably settled rows by status.

        *problems*: what went wrong with some of the newest, one clause each.
        """

    def before_credentials(self) -> None:
        """Note that requests with credentials are about to leave; an error keeps them back."""

    def goes_on(self, run_id: str) -> str:  # noqa: ARG002  # for those who override it
        """Return the whole command that resumes a run; called from another thread."""
        return ""

    def confirm(self, plan: Plan) -> bool:  # noqa: ARG002  # for those who override it
        """Return whether to carry out a plan."""
        return True

    def confirm_undo(self, undo: UndoPlan) -> bool:  # noqa: ARG002  # as above
        """Return whether to carry out an undo, which must be asked for with its number."""
        return False

    def confirm_leavers(self, plan: Plan) -> bool:  # noqa: ARG002  # as above
        """Return whether a person agrees to a plan that unbinds more than may be unasked."""
        return False

    def confirm_unbind(self, plan: Plan) -> bool:  # noqa: ARG002  # as above
        """Return whether to unbind what a plan says, which must be asked for with its number."""
        return False

    def problem(self, source: str, row: CheckedRow) -> None:
        """Receive a row that breaks a rule or was changed; called from another thread."""

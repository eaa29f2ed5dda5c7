"""`history`: what became of a device or of a user's devices, from the ledger alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bulkbind.errors import UsageError
from bulkbind.ledger import history_of_device, history_of_user, ledger_of, reading

if TYPE_CHECKING:
    from bulkbind.model.history import History
    from bulkbind.settings import Settings


def history(
    settings: Settings, machine_code: str | None = None, *, user_id: str | None = None
) -> History:
    """Return what the ledger holds of a device, or of a user; one of them is named. Read-only.

    Raises: UsageError if none or both are named, or the ledger holds nothing; LedgerError.
    """
    if (machine_code is None) is (user_id is None):
        raise UsageError(
            "history is that of a device or of a user",
            hint="bulkbind history SN000001, or bulkbind history --user u42",
        )
    with reading(ledger_of(settings), settings.api.endpoint) as db:
        if machine_code is not None:
            found = history_of_device(db, machine_code)
        else:
            assert user_id is not None
            found = history_of_user(db, user_id)
    if not (found.rows or found.left or found.bindings):
        what = f"device {machine_code!r}" if user_id is None else f"user {user_id!r}"
        raise UsageError(
            f"no run in the ledger names the {what}",
            hint="capitals count; another endpoint has a ledger of its own (--endpoint, --ledger)",
        )
    return found

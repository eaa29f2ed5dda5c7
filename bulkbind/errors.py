"""Errors that end a command.

BulkbindError
 ├─ UsageError        2   an option or a setting is wrong
 ├─ ManifestError     2   a manifest cannot be read
 ├─ InvalidRowsError  2   rows break rules and `--on-invalid abort` is set
 ├─ PlanMovedError    2   a saved plan is out of date
 ├─ UnreadableListError 3   the server did not return a list that a command needs
 ├─ InterruptedRunError  3, 130 or 143   stopped before anything was sent
 └─ LedgerError       4   the ledger or a disk failed
     └─ LedgerBusyError   75  another run holds the ledger

A row that cannot be bound is a value with a status, and a run that stopped early after sending is
a result with an exit code; neither is an exception.
"""

from __future__ import annotations


def _storable(text: str) -> str:
    """Return *text* with undecodable bytes, quoted from a file, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class BulkbindError(Exception):
    """The base class. The message names the operation, the value and what is allowed."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_storable(message))
        self.hint = _storable(hint)
        """What to do next: one sentence, or empty."""


class UsageError(BulkbindError):
    """An option, a setting or an environment variable is wrong or missing."""


class ManifestError(BulkbindError):
    """A manifest cannot be read as a whole (a bad row is a `Problem` instead)."""


class InvalidRowsError(BulkbindError):
    """Rows break rules, and `--on-invalid abort` is set."""


class PlanMovedError(BulkbindError):
    """The manifest or the ledger has changed since the plan was saved."""


class UnreadableListError(BulkbindError):
    """The server did not return a user's list that a command needs."""

    exit_code = 3


class InterruptedRunError(BulkbindError):
    """A person, a signal or the deadline stopped a run before anything was sent."""

    def __init__(self, message: str, *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LedgerError(BulkbindError):
    """The ledger, its lock or a report could not be written or read."""

    exit_code = 4


class LedgerBusyError(LedgerError):
    """Another run holds the ledger."""

    exit_code = 75

"""Errors that end a command.

BulkbindError
 ├─ UsageError        2   an option or a setting is wrong
 ├─ ManifestError     2   a manifest cannot be read
 ├─ InvalidRowsError  2   rows break rules and `--on-invalid abort` holds
 ├─ PlanMovedError    2   what a saved plan says would no longer be done
 ├─ UnreadableListError 3   the server did not answer a list that a command needs
 ├─ InterruptedRunError  3, 130 or 143   stopped before anything was sent
 └─ LedgerError       4   the ledger or a disk failed
     └─ LedgerBusyError   75  another run holds the ledger

A run that was sent and stopped early is no error either: its result carries the exit code.

A row that cannot be bound is never an exception: it is a value with a status.
"""

from __future__ import annotations


def _storable(text: str) -> str:
    """Return a text that may quote any file, with bytes that are no text as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class BulkbindError(Exception):
    """The root. The text says what was being done, with which value, and what is allowed."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(_storable(message))
        self.hint = _storable(hint)
        """What to do next: one sentence, or empty."""


class UsageError(BulkbindError):
    """An option, a setting or an environment variable is wrong or missing."""


class ManifestError(BulkbindError):
    """A manifest cannot be read as a whole (one bad row is a problem of that row instead)."""


class InvalidRowsError(BulkbindError):
    """Rows break rules, and the operator wants all or nothing."""


class PlanMovedError(BulkbindError):
    """The manifest or the ledger is another than a saved plan was made of."""


class UnreadableListError(BulkbindError):
    """A command needs a user's list, and the server did not give it."""

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

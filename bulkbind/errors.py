"""Errors that end a command, and the codes with which commands exit.

A row that cannot be bound is a value with a status, and a run that stopped early after sending is
a result with an exit code; neither is an exception.
"""

from __future__ import annotations

import difflib
from enum import IntEnum
from itertools import groupby
from typing import TYPE_CHECKING

from bulkbind.redaction import line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self


class ExitCode(IntEnum):
    """How a command ended, in order of severity. Codes are added, never changed."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        """*meaning* has a default only because mypy takes a lookup by value for this call."""
        if not meaning:
            raise TypeError(f"exit code {value} has no meaning")
        self = int.__new__(cls, value)
        self._value_ = value
        self.meaning = meaning
        return self

    DONE = 0, "all well"
    NEEDS_PERSON = 1, "some rows need a person"
    DECLINED = 5, "declined: the question was answered no"
    NOT_STARTED = 2, "could not start"
    STOPPED = 3, "stopped early, can be resumed"
    BUSY = 75, "another run holds the ledger"
    LEDGER = 4, "ledger or disk trouble"
    INTERRUPTED = 130, "interrupted, can be resumed"
    TERMINATED = 143, "interrupted, can be resumed"


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the most severe of some exit codes."""
    return max(codes, key=list(ExitCode).index, default=ExitCode.DONE)


def meanings() -> str:
    """Return every exit code with its meaning, by number: `0 all well, 1 some …`."""
    ordered = groupby(sorted(ExitCode), lambda code: code.meaning)
    return ", ".join(f"{'/'.join(map(str, codes))} {meaning}" for meaning, codes in ordered)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `; did you mean `x`?` for the word nearest to a wrong one; empty if none is near."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


class BulkbindError(Exception):
    """The base class. The message names the operation, the value and what is allowed.

    Message and hint may quote anything: they become a line each, unless they are `Lines`.
    """

    exit_code = ExitCode.NOT_STARTED

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = line(message)
        super().__init__(self.message)
        self.hint = line(hint)
        """What to do next: one sentence, or empty."""


class UsageError(BulkbindError):
    """An option, a setting or an environment variable is wrong or missing."""


class ManifestError(BulkbindError):
    """A manifest cannot be read as a whole (a bad row is a `Problem` instead)."""

    def __init__(self, message: str, *, hint: str = "", names: Sequence[str] = ()) -> None:
        """*names*: where required columns are missing, those that there are."""
        super().__init__(message, hint=hint)
        self.names = tuple(names)


class InvalidRowsError(BulkbindError):
    """Rows break rules, and `--on-invalid abort` is set."""


class PlanMovedError(BulkbindError):
    """The manifest or the ledger has changed since the plan was saved."""


class TooManyUnbindsError(BulkbindError):
    """A manifest lacks more devices of its scope than may be unbound unless a person agrees."""

    exit_code = ExitCode.STOPPED


class UnreadableListError(BulkbindError):
    """The server did not return a user's list that a command needs."""

    exit_code = ExitCode.STOPPED


class InterruptedRunError(BulkbindError):
    """A person, a signal or the deadline stopped a run before anything was sent."""

    def __init__(
        self, message: str, *, exit_code: ExitCode = ExitCode.INTERRUPTED, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class DeclinedError(BulkbindError):
    """A question was answered no."""

    exit_code = ExitCode.DECLINED


class LedgerError(BulkbindError):
    """The ledger, its lock or a report could not be written or read."""

    exit_code = ExitCode.LEDGER


class NoLedgerError(LedgerError):
    """There is no ledger yet, or only a file whose creation was cut off."""


class LedgerBusyError(LedgerError):
    """Another run holds the ledger."""

    exit_code = ExitCode.BUSY

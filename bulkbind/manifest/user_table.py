"""The table of users: an address, a phone number or a name, and the user id that belongs to it.

A table with one broken row is refused as a whole. An address counts only where it is one user's: in
the form in which a person reads it, and e-mail addresses in any case of letters, phone numbers with
any marks between their digits and with 00 for +. What may be another number counts as written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError
from bulkbind.manifest.likely_causes import damage_of
from bulkbind.manifest.placeholders import placeholders
from bulkbind.manifest.rules import printable
from bulkbind.model import Problem

if TYPE_CHECKING:
    from bulkbind.manifest.formats import Manifest
    from bulkbind.settings.model import Reading

_PHONE = re.compile(r"(?P<plus>\+|00)?(?P<digits>[\d ()./-]{1,40})", re.ASCII)
_MARKS = str.maketrans("", "", " ()./-")
_AMERICAN = re.compile(r"(?:1[ ./-])?(?:\(\d{3}\) ?|\d{3}[ ./-])\d{3}[ ./-]\d{4}", re.ASCII)
"""A phone number that begins with neither +, 00 nor 0. Digits grouped in another way may be an IP
address or the number of a place, in which it counts where the marks are."""
_LEAST_DIGITS = 7
"""Behind a +."""
_WHOLE_DIGITS = 10
"""Of a phone number that begins with 00 or 0; a shorter one may be of an employee or a place."""
_MOST_TOLD = 5
_FIELDS = frozenset(("user_id", "row"))
"""Fields whose problems count in a table of users."""


def form_of(address: str) -> str:
    """Return the form in which addresses are compared; *address*: as `seen` returns it."""
    if "@" in address:
        return address.lower()
    if found := _PHONE.fullmatch(address):
        digits, plus = found["digits"].translate(_MARKS), found["plus"]
        least = _LEAST_DIGITS if plus == "+" else _WHOLE_DIGITS
        is_phone = plus or digits.startswith("0") or _AMERICAN.fullmatch(address)
        if is_phone and len(digits) >= least:
            return ("+" if plus else "") + digits
    return address


class UserTable:
    """Who has which address.

    Attributes:
        notices: For the operator.
    """

    def __init__(self, manifest: Manifest, settings: Reading, key: str) -> None:
        """Read the whole table; its rows name the user and, asked for, the address.

        *key*: its column. Raises: ManifestError if a row is broken, or there is none.
        """
        self._name = manifest.source.name
        self._key = key
        self._rule = f"user_id: the one user in {self._name} who has the same `{key}`"
        self._no_values = placeholders(settings.placeholders)
        self._users: dict[str, dict[str, int]] = {}
        self._count = self._empty = 0
        broken: list[str] = []
        for row in manifest.rows():
            address = manifest.asked(row)[-1]
            problems = [problem for problem in row.problems if problem.field in _FIELDS]
            if isinstance(address, Problem):
                problems.append(address)
            elif fault := damage_of(address):
                problems.append(Problem("row", key, printable(address), fault.rule, fault.found))
            broken += [f"line {row.line}: {problem.text}" for problem in problems]
            if not problems and isinstance(address, str):
                self._add(address, row.values[0] or "", row.line)
        if broken:
            shown = "; ".join(broken[:_MOST_TOLD])
            more = f"; and {len(broken) - _MOST_TOLD:,} more" if len(broken) > _MOST_TOLD else ""
            raise ManifestError(
                f"the table of users {self._name} has broken rows, so nobody is looked up in it: "
                f"{shown}{more}",
                hint="fix the table, or export it again",
            )
        if not self._users:
            raise ManifestError(
                f"the table of users {self._name} names nobody in `{key}`",
                hint="--user-key COLUMN=COLUMN says how its column is called, behind the =",
            )
        # That its other columns are not sent goes without saying.
        self.notices = [told for told in manifest.notices if "not sent" not in told]
        self.notices += self._told()

    def _add(self, address: str, user: str, line: int) -> None:
        self._count += 1
        if self._is_none(address):
            self._empty += 1
        else:
            self._users.setdefault(form_of(address), {}).setdefault(user, line)

    def _is_none(self, address: str) -> bool:
        return not address or address in self._no_values or self._no_values.is_disguised(address)

    def _told(self) -> list[str]:
        shared = sum(len(users) > 1 for users in self._users.values())
        told = f"{self._name}: users are looked up by `{self._key}`; rows: {self._count:,}"
        told += f", without one, which nobody finds: {self._empty:,}" if self._empty else ""
        told += f", of several users, which name nobody: {shared:,}" if shared else ""
        return [told]

    def find(self, address: str, column: str) -> str | Problem:
        """Return the user who has an address, as `seen`; else what is wrong with it.

        *column*: the operator's name of the column in the manifest.
        """
        if self._is_none(address):
            found = "it is missing" if not address else "a placeholder, not a value"
            return Problem("user_id", column, printable(address), self._rule, found)
        if fault := damage_of(address):
            shown = printable(address)
            return Problem("user_id", column, shown, self._rule, fault.found, fault.hint)
        users = self._users.get(form_of(address), {})
        if len(users) == 1:
            return next(iter(users))
        few = [f"{user} (line {line})" for user, line in list(users.items())[:_MOST_TOLD]]
        found = f"{len(users)} users have it: {', '.join(few)}" if few else "no user has it"
        return Problem("user_id", column, printable(address), self._rule, found)

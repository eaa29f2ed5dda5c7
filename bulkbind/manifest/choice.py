"""What rows of manifests are meant, and whose they are, where the operator says so by columns."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.columns import field_of
from bulkbind.manifest.conditions import Condition, asked_columns, conditions_of, user_keys
from bulkbind.manifest.opened import ManifestFile
from bulkbind.manifest.rules import printable
from bulkbind.manifest.user_table import UserTable
from bulkbind.model import CheckedRow, Chosen, Problem
from bulkbind.model.fields import FIELDS
from bulkbind.model.wording import counted
from bulkbind.settings import ManifestSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bulkbind.manifest.formats import Manifest

_NOBODY = "user-of-the-table"
"""Stands for the user while a row is read; the table then says who it is."""
_NO_DEVICE = "1"
_MOST_TOLD = 5
_OWN_USER = "user_id: either in the manifest, or by the table of users"


class Choice:
    """The operator's conditions and the table of users, read once.

    Attributes:
        digest: SHA-256 (hex) of all that determines which rows are meant, and whose they are.
        settings: By which manifests are to be read.
    """

    def __init__(
        self,
        settings: ManifestSettings,
        reads: Callable[[ManifestFile, ManifestSettings], Manifest],
    ) -> None:
        """*reads*: opens a file as the settings say.

        Raises: UsageError, ManifestError if a list or the table cannot be read.
        """
        self.settings = settings
        self._conditions = conditions_of(settings)
        self.users: UserTable | None = None
        meaning = sorted({condition.meaning for condition in self._conditions})
        if settings.user_key and settings.user_table is None:
            raise UsageError(
                "--user-key says how users are looked up", hint="add --user-table FILE"
            )
        if settings.user_table is not None:
            ours, theirs = _keys(settings)
            try:
                file = ManifestFile.of(settings.user_table)
                digests = [file.digest()]
                self.users = UserTable(reads(file, _of_table(settings, theirs)), settings, theirs)
                digests.append(file.digest())
            except ManifestError as error:
                raise ManifestError(f"--user-table: {error}", hint=error.hint) from error
            if digests[0] != digests[1]:
                raise ManifestError(f"--user-table: {file.name} changed while it was read")
            meaning.append((ours, theirs, digests[0].hex()))
            self.settings = _without_users(settings, ours)
        self.digest = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()

    def of(self, manifest: Manifest) -> ChosenRows:
        """Return the rows of a manifest that are meant; it was read by `settings`."""
        return ChosenRows(manifest, self.settings, self._conditions, self.users)


class ChosenRows:
    """A manifest, of which only the rows that are meant count, each with its user.

    Attributes:
        source: Of the manifest.
        notices: For the operator; complete once the rows have been read.
        chosen: How many rows are left out by which condition; complete once all have been read.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: ManifestSettings,
        conditions: tuple[Condition, ...],
        users: UserTable | None,
    ) -> None:
        self._manifest = manifest
        self._keeps = settings.keeps_left_out
        self._conditions = conditions
        self._users = users
        self._column = printable(asked_columns(settings)[-1])
        self._left_out: Counter[str] = Counter()
        self._meant = 0
        self._found: dict[str, set[str]] = {condition.text: set() for condition in conditions}
        """The values of each list that rows have."""
        self.source = manifest.source
        self.notices: list[str] = []

    @property
    def chosen(self) -> Chosen:
        """How many rows are left out, by which condition."""
        by = {each.text: self._left_out[each.text] for each in self._conditions}
        return Chosen(rows=self._left_out.total(), by=by)

    @property
    def has_none(self) -> bool:
        """Whether it has rows, and all are left out."""
        return bool(self._left_out) and not self._meant

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a row has in the columns that the operator asks for."""
        return self._manifest.asked(row)

    def rows(self) -> Iterator[CheckedRow]:
        """Yield the rows that are meant, and the others where they are kept. Raises: as it does."""
        for row in self._manifest.rows():
            judged = self._judged(row)
            if judged.left_out:
                self._left_out[judged.left_out] += 1
                if not self._keeps:
                    continue
            else:
                self._meant += 1
            yield judged
        self.notices += self._manifest.notices
        self.notices += self._told()

    def _judged(self, row: CheckedRow) -> CheckedRow:
        """Return a row with the condition that leaves it out, or with its user.

        Where it cannot be told what the row has, nobody leaves it out: it is a problem.
        """
        if any(problem.field == "row" for problem in row.problems):
            return self._nobodys(row)
        found = self._manifest.asked(row)
        doubts = [cell for cell in found if isinstance(cell, Problem)]
        cells = [cell if isinstance(cell, str) else "" for cell in found]
        if not doubts:
            for condition, cell in zip(self._conditions, cells, strict=False):
                holds = condition.holds(cell)
                if holds and condition.values:
                    self._found[condition.text].add(cell)
                if holds is condition.is_not:
                    return self._left(row, condition.text)
        problems = (*row.problems, *dict.fromkeys(doubts))
        if self._users is None or doubts:
            return self._nobodys(msgspec.structs.replace(row, problems=problems))
        return self._with_user(row, cells[-1])

    def _left(self, row: CheckedRow, text: str) -> CheckedRow:
        """Return a row that is left out, without the values that break a rule."""
        row = self._nobodys(row)
        if row.problems:
            broken = {problem.field for problem in row.problems}
            pairs = zip(FIELDS, row.values, strict=True)
            kept = tuple(None if field in broken else value for field, value in pairs)
            row = msgspec.structs.replace(row, problems=(), values=kept)
        return msgspec.structs.replace(row, left_out=text)

    def _nobodys(self, row: CheckedRow) -> CheckedRow:
        if self._users is None or row.values[0] != _NOBODY:
            return row
        return msgspec.structs.replace(row, values=(None, *row.values[1:]))

    def _with_user(self, row: CheckedRow, address: str) -> CheckedRow:
        assert self._users is not None
        if row.values[0] != _NOBODY:
            shown = row.values[0] or ""
            problem = Problem(
                "user_id", "user_id", shown, _OWN_USER, "the row names a user itself",
                "--ignore-column user_id leaves that column out, no --user-table takes it",
            )  # fmt: skip
            kept = [each for each in row.problems if each.field != "user_id"]
            return msgspec.structs.replace(row, problems=(*kept, problem))
        user = self._users.find(address, self._column)
        if isinstance(user, Problem):
            return msgspec.structs.replace(self._nobodys(row), problems=(user, *row.problems))
        return msgspec.structs.replace(row, values=(user, *row.values[1:]))

    def _told(self) -> Iterator[str]:
        name = self.source.name
        for condition in self._conditions:
            if count := self._left_out[condition.text]:
                yield f"{name}: {counted(count, 'rows')} left out by {condition.text}"
            if unused := sorted(condition.values - self._found[condition.text]):
                few = ", ".join(f"`{value}`" for value in unused[:_MOST_TOLD])
                more = f" and {len(unused) - _MOST_TOLD:,} more" if len(unused) > _MOST_TOLD else ""
                yield f"{name}: no row has these of {condition.text}: {few}{more}"


def _keys(settings: ManifestSettings) -> tuple[str, str]:
    """Return the columns that name the user, of manifest and table. Raises: UsageError."""
    ours, theirs = user_keys(settings)
    if not ours:
        raise UsageError(
            "a table of users is looked up by a column",
            hint="--user-key E-Mail, or --user-key 'Owner=E-Mail' if the table calls it E-Mail",
        )
    given = "--user-id" if settings.user_id is not None else ""
    given = given or "--set user_id" * ("user_id" in settings.constants)
    if given:
        raise UsageError(
            f"{given} and --user-table both say who the users are", hint="leave one of them away"
        )
    return ours, theirs


def _of_table(settings: ManifestSettings, key: str) -> ManifestSettings:
    """Return how the table of users is read: a user and an address in each row, and no device."""
    mapped = settings.columns.get("user_id")
    return ManifestSettings(
        columns={"user_id": mapped} if mapped else {},
        constants={"machine_code": _NO_DEVICE},
        placeholders=settings.placeholders,
        visible_rows=settings.visible_rows,
        user_key=key,
    )


def _without_users(settings: ManifestSettings, key: str) -> ManifestSettings:
    """Return how manifests are read whose users a table names by the column *key*."""
    columns = {field: name for field, name in settings.columns.items() if field != "user_id"}
    is_ours = field_of(key, columns) not in (None, "user_id") or key.startswith("#")
    return settings.model_copy(
        update={
            "user_id": _NOBODY,
            "columns": columns,
            "ignore_columns": settings.ignore_columns + (() if is_ours else (key,)),
        }
    )

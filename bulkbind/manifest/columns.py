"""Which column of the operator's is which field of ours."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError
from bulkbind.model import OWN_COLUMNS
from bulkbind.settings import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SPELLINGS = {
    "userid": "user_id",
    "xuserid": "user_id",
    "machinecode": "machine_code",
    "devicename": "device_name",
    "deviceos": "device_os",
}
"""Ours and the API's spelling, without case, blanks, hyphens and underscores."""


def plain(header: str) -> str:
    """Return *header* without case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_\-]+", "", header).casefold()


def field_of(header: str, mapping: Mapping[str, str]) -> str | None:
    """Return the field that *header* names, or None. A mapped field has no other spelling."""
    wanted = header.strip()
    for field, column in mapping.items():
        if column == wanted or plain(column) == plain(wanted):
            return field
    spelled = _SPELLINGS.get(plain(wanted))
    return None if spelled in mapping else spelled


def positions(
    header: Sequence[str], mapping: Mapping[str, str], *, source: str, line: int, has_user: bool
) -> tuple[int | None, ...]:
    """Return the position of each of `FIELDS` in *header*, None where it has no column.

    Raises: ManifestError if two columns claim one field, a mapped column is not there, or
        machine_code (or user_id, unless *has_user*) has no column.
    """
    found: dict[str, int] = {}
    names = [name.strip() for name in header]
    exact = {field: column for field, column in mapping.items() if column in names}
    for position, name in enumerate(names):
        field = field_of(name, mapping)
        if field is None or name != exact.get(field, name):
            continue
        if field in found:
            raise ManifestError(
                f"{source}:{line}: columns `{header[found[field]].strip()}` and `{name.strip()}` "
                f"both claim {field}",
                hint=f"say which with --map {field}=COLUMN, or rename one of them",
            )
        found[field] = position
    _require(found, header, mapping, source=source, line=line, has_user=has_user)
    return tuple(found.get(field) for field in FIELDS)


def _require(
    found: Mapping[str, int],
    header: Sequence[str],
    mapping: Mapping[str, str],
    *,
    source: str,
    line: int,
    has_user: bool,
) -> None:
    must = {"machine_code", *mapping} | (set() if has_user else {"user_id"})
    for field in FIELDS:
        if field in must and field not in found:
            wanted = mapping.get(field, field)
            shown = ", ".join(f"`{name.strip()}`" for name in header[:20]) or "none"
            close = difflib.get_close_matches(
                plain(wanted), [plain(name) for name in header], n=1, cutoff=0.6
            )
            near = next((name.strip() for name in header if [plain(name)] == close), "")
            guess = f"did you mean --map {field}='{near}'? " if near else ""
            raise ManifestError(
                f"{source}:{line}: no column `{wanted}` for {field}; columns found: {shown}",
                hint=guess
                + ("--user-id gives one user to all rows, " if field == "user_id" else "")
                + f"--map {field}=COLUMN names another column",
            )


def unknown(header: Sequence[str], used: Sequence[int | None]) -> list[str]:
    """Return the operator's columns that are neither ours nor used."""
    taken = {position for position in used if position is not None}
    return [
        name.strip() or f"column {position + 1}"
        for position, name in enumerate(header)
        if position not in taken and name.strip() not in OWN_COLUMNS
    ]

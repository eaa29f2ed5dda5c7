"""Manifests: read files of various formats into checked rows, without loading them whole."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.choice import Choice, ChosenRows
from bulkbind.manifest.columns import field_of, same
from bulkbind.manifest.formats import (
    FORMATS,
    PACKED,
    SUFFIXES,
    Manifest,
    batches_of,
    binary_format,
    format_names,
    format_of,
    is_manifest_name,
)
from bulkbind.manifest.likely_causes import PLACEHOLDER, damage_of, fault_of
from bulkbind.manifest.opened import ManifestFile
from bulkbind.manifest.placeholders import placeholders
from bulkbind.manifest.rules import breaks
from bulkbind.manifest.text import encoding_of, last_bytes, read_head
from bulkbind.manifest.workbook import OLD, refuse_old
from bulkbind.model import Source
from bulkbind.model.fields import FIELDS, USER
from bulkbind.settings import check_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bulkbind.settings import ManifestSettings

__all__ = [
    "FORMATS",
    "PACKED",
    "SUFFIXES",
    "ChosenRows",
    "Manifest",
    "ManifestFile",
    "batches_of",
    "choice_of",
    "choose",
    "digest",
    "ends_within_line",
    "format_names",
    "is_manifest_name",
    "open_manifest",
    "refuse_no_users",
    "why_no_value",
]


_IN_EVERY_DIGEST = {
    "user_id", "columns", "constants", "header", "skip_rows", "format", "encoding", "sheet",
    "clean", "on_duplicate", "on_conflict", "move",
}  # fmt: skip
"""Every other setting is in the digest once it is not the default, so that files that were read
before there was such a setting keep their digest."""
_IN_NO_DIGEST = {
    "profile", "profiles", "on_invalid", "min_rows", "rebind", "refresh", "rebind_missing",
    "max_unbinds",
    "where", "where_not", "user_table", "user_key",  # the digest of the choice tells
}  # fmt: skip


def open_manifest(
    file: Path | ManifestFile, settings: ManifestSettings, name: str | None = None
) -> Manifest:
    """Detect encoding, format and columns of a manifest.

    A path is opened; *name* is then used in messages and reports, not the path itself.

    Raises: ManifestError, UsageError.
    """
    manifest = ManifestFile.of(file, name)
    choose([manifest], settings)
    choice = choice_of(manifest)
    if choice is None:
        return _read(manifest, settings)
    return choice.of(_read(manifest, choice.settings))


def ends_within_line(file: ManifestFile, source: Source) -> bool:
    """Return whether a file may be cut off within its last row: it does not end with a line end.

    Nothing else shows it where the rest of the row is one, too; False where that would show.

    Raises: ManifestError.
    """
    if FORMATS[source.format].shows_cuts:
        return False
    ends = tuple(mark.encode(source.encoding) for mark in "\n\r")
    return not last_bytes(file, max(map(len, ends))).endswith(ends)


def choose(files: Sequence[ManifestFile], settings: ManifestSettings) -> None:
    """Read what says which rows are meant and whose they are, if anything does, once for all files.

    Files that know it already keep it. Raises: ManifestError, UsageError.
    """
    is_chosen = settings.where or settings.where_not or settings.user_table or settings.user_key
    if is_chosen and any(choice_of(file) is None for file in files):
        choice = Choice(settings, _read)
        for file in files:
            file.choice = choice_of(file) or choice


def choice_of(file: ManifestFile) -> Choice | None:
    """Return which rows of a file are meant, once `choose` has read it; None: all of them."""
    return file.choice if isinstance(file.choice, Choice) else None


def _read(manifest: ManifestFile, settings: ManifestSettings) -> Manifest:
    """Open a file, all of whose rows are meant. Raises: as `open_manifest`."""
    _check_settings(settings)
    shown = manifest.name
    head = read_head(manifest)
    if not head:
        raise ManifestError(f"{shown} is empty")
    if binary := binary_format(manifest, head):
        source = Source(shown, binary, "utf-8", bom=True)
        return FORMATS[binary].opens(manifest, source, "", settings)
    if head.startswith(OLD):
        refuse_old(manifest)
    encoding, bom = encoding_of(head, shown, settings.encoding)
    text = head.decode(encoding, "replace").lstrip("\ufeff")
    form = format_of(shown, text, settings.format)
    source = Source(shown, form, encoding, bom)
    opened = FORMATS[form].opens(manifest, source, text, settings)
    with suppress(ManifestError):  # what cannot be read is told where its rows end
        if not {"\n", "\r"}.isdisjoint(text) and ends_within_line(manifest, source):
            opened.notices.append(f"{shown}: the last line has no line end: was it cut off?")
    return opened


def digest(files: Sequence[Path | ManifestFile], settings: ManifestSettings) -> str:
    """Return the SHA-256 (hex) of the files' bytes and of the settings that determine the rows.

    Paths are opened.

    Raises: ManifestError if a file cannot be read.
    """
    meaning = settings.model_dump(mode="json", include=_IN_EVERY_DIGEST)
    meaning |= settings.model_dump(mode="json", exclude=_IN_NO_DIGEST, exclude_defaults=True)
    total = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    opened = [ManifestFile.of(file) for file in files]
    choose(opened, settings)
    for file in opened:
        total.update(file.digest())
    for choice in dict.fromkeys(map(choice_of, opened)):
        total.update(b"" if choice is None else choice.digest.encode())
    return total.hexdigest()


def _check_settings(settings: ManifestSettings) -> None:
    if settings.format is not None:
        try:
            check_format(settings.format, FORMATS)
        except ValueError as error:
            raise UsageError(f"setting `format`: {settings.format!r}: {error}") from None
    for field, other in (*settings.columns.items(), *settings.constants.items()):
        if field not in FIELDS:
            turned = field_of(other, {}) if field_of(field, {}) is None else None
            raise UsageError(
                f"columns cannot map `{field}`",
                hint=f"it is the other way round: {turned}: {field}"
                if turned
                else f"fields are {', '.join(FIELDS)}",
            )
    counting = settings.columns.keys() - settings.constants.keys()
    for field, column in settings.columns.items():
        if field in counting and any(same(column, name) for name in settings.ignore_columns):
            raise UsageError(
                f"column {column!r} is mapped to {field} and ignored as well",
                hint="take it out of --ignore-column (`ignore_columns:`), or of --map (`columns:`)",
            )
    if settings.user_id is not None:
        refuse_no_users([settings.user_id], settings)
    for field, value in settings.constants.items():
        if wrong := why_no_value(field, value, settings):
            raise UsageError(f"--set {field}={value!r}: {wrong}")


def refuse_no_users(user_ids: Iterable[str], settings: ManifestSettings) -> None:
    """Check user ids that are given elsewhere than in rows. Raises: UsageError."""
    for user_id in user_ids:
        if wrong := why_no_value(USER.name, user_id, settings):
            raise UsageError(f"user id {user_id!r}: {wrong}")


def why_no_value(field: str, value: str, settings: ManifestSettings) -> str | None:
    """Return why a row could not have a value in a field; None if it could."""
    fault = damage_of(value) if field == USER.name else fault_of(value)
    if fault is None and value in placeholders(settings.placeholders):
        return f"{PLACEHOLDER.found}; --placeholders none takes it as it stands"
    return fault.found if fault else breaks(field, value)

"""Manifests: read files of various formats into checked rows, without loading them whole."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.formats import (
    FORMATS,
    SUFFIXES,
    Manifest,
    format_of,
    is_manifest_name,
    is_workbook,
)
from bulkbind.manifest.likely_causes import fault_of
from bulkbind.manifest.rules import breaks
from bulkbind.manifest.text import encoding_of, read_head
from bulkbind.model import Source
from bulkbind.settings import FIELDS, ManifestSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["SUFFIXES", "Manifest", "digest", "is_manifest_name", "open_manifest"]


def open_manifest(path: Path, settings: ManifestSettings, name: str | None = None) -> Manifest:
    """Open a regular file as a manifest and detect its encoding, format and columns.

    *name* is used in messages and reports; the default is the path.

    Raises: ManifestError, UsageError.
    """
    _check_settings(settings)
    shown = name or str(path)
    head = read_head(path, shown)
    if not head:
        raise ManifestError(f"{shown} is empty")
    if is_workbook(path, head):
        return FORMATS["xlsx"].opens(path, Source(shown, "xlsx", "utf-8", bom=True), "", settings)
    encoding, bom = encoding_of(head, shown, settings.encoding)
    text = head.decode(encoding, "replace").lstrip("\ufeff")
    form = format_of(shown, text, settings.format)
    return FORMATS[form].opens(path, Source(shown, form, encoding, bom), text, settings)


def digest(paths: Sequence[Path], settings: ManifestSettings) -> str:
    """Return the SHA-256 (hex) of the files' bytes and of the settings that determine the rows.

    Raises: ManifestError if a file cannot be read.
    """
    meaning = settings.model_dump(
        mode="json",
        exclude={"profile", "profiles", "on_invalid", "rebind", "refresh", "rebind_missing"},
    )
    if settings.items is None:
        del meaning["items"]  # as before there was such a setting
    total = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
    for path in paths:
        try:
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ManifestError(
                f"manifest {path} cannot be read: {error.strerror or error}"
            ) from error
    return total.hexdigest()


def _check_settings(settings: ManifestSettings) -> None:
    for field in (*settings.columns, *settings.constants):
        if field not in FIELDS:
            raise UsageError(
                f"columns cannot map `{field}`", hint=f"fields are {', '.join(FIELDS)}"
            )
    if settings.user_id is not None and (wrong := _wrong("user_id", settings.user_id)):
        raise UsageError(f"user id {settings.user_id!r}: {wrong}")
    for field, value in settings.constants.items():
        if wrong := _wrong(field, value):
            raise UsageError(f"--set {field}={value!r}: {wrong}")


def _wrong(field: str, value: str) -> str | None:
    fault = fault_of(value)
    return fault.found if fault else breaks(field, value)

"""Manifests: files of any operator's in, checked rows out, never the whole file in memory."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

from bulkbind.errors import ManifestError, UsageError
from bulkbind.manifest.csv_reader import CsvManifest
from bulkbind.manifest.rules import check_user_id
from bulkbind.manifest.text import encoding_of, format_of, read_head
from bulkbind.manifest.yaml_reader import YamlManifest
from bulkbind.model import CheckedRow, Source
from bulkbind.settings import FIELDS, ManifestSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Manifest", "digest", "open_manifest"]


class Manifest(Protocol):
    """A file whose rows can be read once, in order."""

    source: Source
    notices: list[str]

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row, checked. Raises: ManifestError if the file cannot be read on."""
        ...


def open_manifest(path: Path, settings: ManifestSettings, name: str | None = None) -> Manifest:
    """Open a manifest and find out its encoding, form and columns.

    Args:
        path: A regular file.
        settings: Mapping of columns and the user for rows without one.
        name: What messages and reports call it; the path unless given.

    Raises: ManifestError, UsageError.
    """
    _check_settings(settings)
    shown = name or str(path)
    head = read_head(path)
    if not head:
        raise ManifestError(f"{shown} is empty")
    encoding, bom = encoding_of(head, shown)
    text = head.decode(encoding, "replace").lstrip("\ufeff")
    source = Source(shown, format_of(shown, text), encoding, bom)
    if source.format == "yaml":
        return YamlManifest(path, source, settings.columns, settings.user_id)
    return CsvManifest(path, source, text, settings.columns, settings.user_id)


def digest(paths: Sequence[Path], settings: ManifestSettings) -> str:
    """Return the SHA-256 (hex) of what decides the rows: bytes, mapping and the user given.

    Raises: ManifestError if a file cannot be read.
    """
    total = hashlib.sha256(
        json.dumps([settings.columns, settings.user_id], sort_keys=True).encode()
    )
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
    for field in settings.columns:
        if field not in FIELDS:
            raise UsageError(
                f"columns cannot map `{field}`", hint=f"fields are {', '.join(FIELDS)}"
            )
    if settings.user_id is not None and (wrong := check_user_id(settings.user_id)):
        raise UsageError(f"user id {settings.user_id!r}: {wrong}")

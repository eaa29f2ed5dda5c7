"""The formats, and how a file's format is detected: by its name, else by its first characters.

To add a format, write a module with a class like the others and add a line to `FORMATS`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bulkbind.manifest.csv_reader import CsvManifest
from bulkbind.manifest.json_reader import (
    JsonLinesManifest,
    JsonManifest,
    RepeatedKeyError,
    WrongJsonError,
    value_at,
    whole_value,
)
from bulkbind.manifest.xlsx_reader import XlsxManifest
from bulkbind.manifest.yaml_reader import YamlManifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.model import CheckedRow, Source
    from bulkbind.settings import ManifestSettings

PACKED = ".gz"
_ZIP = b"PK\x03\x04"
_YAML_STARTS = ("---", "- ", "-\n", "defaults:", "devices:", "%YAML", "machine_code: ", "user_id: ")


class Manifest(Protocol):
    """A file whose rows can be read once, in order."""

    source: Source
    notices: list[str]

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row, checked. Raises: ManifestError where the rest cannot be read."""
        ...


class Opens(Protocol):
    """Opens a manifest, given its source as far as known and the beginning of its text."""

    def __call__(
        self, path: Path, source: Source, head: str, settings: ManifestSettings, /
    ) -> Manifest:
        """Raises: ManifestError if the file is not of this format."""
        ...


class Format(NamedTuple):
    """A format of manifests."""

    suffixes: tuple[str, ...]
    opens: Opens
    is_text: bool = True


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab", ".txt"), CsvManifest),
    "xlsx": Format((".xlsx", ".xlsm"), XlsxManifest, is_text=False),
    "yaml": Format((".yaml", ".yml"), YamlManifest),
    "jsonl": Format((".jsonl", ".ndjson"), JsonLinesManifest),
    "json": Format((".json",), JsonManifest),
}
SUFFIXES = tuple(suffix for form in FORMATS.values() for suffix in form.suffixes)


def is_manifest_name(name: str) -> bool:
    """Return whether a file's name is that of a manifest."""
    return PurePath(name.lower().removesuffix(PACKED)).suffix in SUFFIXES


def is_workbook(path: Path, head: bytes) -> bool:
    """Return whether a file is XLSX, judging by its content."""
    if not head.startswith(_ZIP):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/workbook") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError):
        return PurePath(path).suffix.lower() in FORMATS["xlsx"].suffixes


def format_of(name: str, head: str, declared: str | None = None) -> str:
    """Return a text's format: as declared, by the file's name, else by its first characters."""
    if declared and FORMATS[declared].is_text:
        return declared
    suffix = PurePath(name.lower().removesuffix(PACKED)).suffix
    by_name = next((key for key, form in FORMATS.items() if suffix in form.suffixes), None)
    text = head.lstrip()
    if by_name == "jsonl" and text.startswith(("{", "[")) and _is_stream(text):
        by_name = "json"
    if by_name not in (None, "json", "xlsx"):
        assert by_name is not None  # checked above, which mypy does not see
        return by_name
    begins = text[:1]
    if begins == "{":
        return "jsonl" if _begins_with_a_row(text) else "json"
    if by_name == "json" or (begins == "[" and head.lstrip()[1:].lstrip()[:1] in ("{", "]")):
        return "json"
    for line in head.splitlines():
        if line.strip() and not line.startswith("#"):
            return "yaml" if (line + "\n").startswith(_YAML_STARTS) else "csv"
    return "csv"


def _is_stream(text: str, *, side_by_side: bool = False) -> bool:
    """Whether the JSON values, as far as they can be read, do not stand in a line each.

    One of them goes on after its first line or, if *side_by_side*, begins in the line of another.
    """
    at = 0
    while at < len(text):
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        try:
            _, end = value_at(text, at)
        except RepeatedKeyError as error:
            end = error.end
        except WrongJsonError as error:
            next_line = line_end + len(text[line_end:]) - len(text[line_end:].lstrip())
            # At the beginning of another line, it is the line before that is broken.
            return error.at is not None and error.at > line_end and error.at != next_line
        at = end + len(text[end:]) - len(text[end:].lstrip())
        is_beside = side_by_side and at < line_end and text[at] in "{["
        if end > line_end or is_beside:
            return True
    return False


def _begins_with_a_row(text: str) -> bool:
    """Whether the first line is a device of its own, not the start of a document."""
    lines = io.StringIO(text)
    first = next(lines, "")
    if _is_stream(text, side_by_side=True):
        return False
    if next((line for line in lines if line.strip()), "").lstrip().startswith("{"):
        return True
    try:
        value = whole_value(first)
    except WrongJsonError:
        return False
    return not any(isinstance(inner, list | dict) for inner in value.values())

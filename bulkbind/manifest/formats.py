"""The formats, and how a file's format is detected: by its name, else by its first characters.

To add a format, write a module that reads and writes it, like the others, and add a line to
`FORMATS`.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from bulkbind.manifest.csv_format import CsvManifest, write_csv
from bulkbind.manifest.json_format import (
    JsonLinesManifest,
    JsonManifest,
    begins_document,
    begins_lines,
    write_document,
    write_lines,
)
from bulkbind.manifest.xlsx_format import SUFFIXES as WORKBOOKS, XlsxManifest, is_workbook
from bulkbind.manifest.yaml_format import YamlManifest, begins_yaml, write_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bulkbind.model import CheckedRow, Source
    from bulkbind.settings import ManifestSettings

PACKED = ".gz"


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


class Writes(Protocol):
    """Writes rows back, given what `Opens` found out about the file.

    Each row is the cells that the reader kept (`CheckedRow.cells`) and `OWN_COLUMNS` with what
    they say of the row. Every row must be taken, in order.
    """

    def __call__(
        self, file: TextIO, source: Source, rows: Iterable[tuple[Any, dict[str, str]]], /
    ) -> None:
        """Write the whole file, also if there are no rows."""
        ...


def _claims_nothing(_head: str) -> bool:
    return False


class Format(NamedTuple):
    """A format of manifests."""

    suffixes: tuple[str, ...]
    """One may belong to several formats: to the first that claims its text, else to the last."""
    opens: Opens
    writes: Writes
    claims: Callable[[str], bool] = _claims_nothing
    """Whether a text begins as in no other format; not asked of the first of `FORMATS`."""
    claims_binary: Callable[[Path, bytes], bool] | None = None
    """Of a format that is not text: whether a file that begins with these bytes has it."""
    writes_as: str = ""
    """The format that `writes` writes, if it is another one."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab", ".txt"), CsvManifest, write_csv),
    "xlsx": Format(WORKBOOKS, XlsxManifest, write_csv, claims_binary=is_workbook, writes_as="csv"),
    "yaml": Format((".yaml", ".yml"), YamlManifest, write_yaml, begins_yaml),
    "jsonl": Format((".jsonl", ".ndjson", ".json"), JsonLinesManifest, write_lines, begins_lines),
    "json": Format((".json",), JsonManifest, write_document, begins_document),
}
"""By the name that `--format` takes. A text that no other format claims has the first one."""
SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMATS.values() for suffix in form.suffixes))


def format_names() -> tuple[str, ...]:
    """Return the names of the formats, in order."""
    return tuple(FORMATS)


def is_manifest_name(name: str) -> bool:
    """Return whether a file's name is that of a manifest."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return PurePath(name.lower().removesuffix(PACKED)).suffix


def binary_format(path: Path, head: bytes) -> str | None:
    """Return the format of a file that is not text; *head*: its first bytes, decompressed."""
    for key, form in FORMATS.items():
        if form.claims_binary and form.claims_binary(path, head):
            return key
    return None


def format_of(name: str, head: str, declared: str | None = None) -> str:
    """Return a text's format: as declared, by the file's name, else by its first characters."""
    first, *others = (key for key, form in FORMATS.items() if not form.claims_binary)
    if declared in (first, *others):
        return declared
    suffix = _suffix(name)
    named = [key for key in (first, *others) if suffix in FORMATS[key].suffixes]
    *asked, last = named or [*others, first]
    return next((key for key in asked if FORMATS[key].claims(head)), last)

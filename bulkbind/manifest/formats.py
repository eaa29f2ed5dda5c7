"""The formats, and how a file's format is detected: by its name, else by its first characters.

To add a format, write a module that reads and writes it, like the others, and add a line to
`FORMATS`.
"""

from __future__ import annotations

from itertools import islice
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO

from bulkbind.errors import ManifestError
from bulkbind.manifest.csv_format import CsvManifest, write_csv
from bulkbind.manifest.json_format import (
    JsonLinesManifest,
    JsonManifest,
    begins_document,
    begins_lines,
    exceeds_lines,
    write_document,
    write_lines,
)
from bulkbind.manifest.xlsx_format import SUFFIXES as WORKBOOKS, XlsxManifest, is_workbook
from bulkbind.manifest.yaml_format import YamlManifest, begins_yaml, write_yaml
from bulkbind.model import GoodRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bulkbind.manifest.opened import ManifestFile
    from bulkbind.model import CheckedRow, Problem, Source
    from bulkbind.settings import ManifestSettings

PACKED = ".gz"
BATCH = 1_000
"""Rows in a list of `batches_of`: ten times as many take half as long again, being larger than
caches."""


class Manifest(Protocol):
    """A file whose rows can be read once, in order."""

    source: Source
    notices: list[str]

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every row, checked. Raises: ManifestError where the rest cannot be read."""
        ...

    def asked(self, row: CheckedRow, /) -> list[str | Problem]:
        """Return what a row has in each column of `asked_columns`, in order; "" for nothing."""
        ...


def batches_of(manifest: Manifest) -> Iterator[GoodRows | list[CheckedRow]]:
    """Yield the rows of a manifest in parts; `GoodRows` save looking at each of them.

    Raises: ManifestError where the rest cannot be read, after the rows before.
    """
    parts = manifest.batches() if isinstance(manifest, CsvManifest) else iter((manifest.rows(),))
    for rows in parts:
        if isinstance(rows, GoodRows):
            yield rows
        else:
            yield from _lists(rows)


def _lists(rows: Iterable[CheckedRow]) -> Iterator[list[CheckedRow]]:
    left = iter(rows)
    fault = None
    while fault is None:
        some: list[CheckedRow] = []
        try:
            some.extend(islice(left, BATCH))  # keeps the rows before an error
        except ManifestError as error:
            fault = error
        if some:
            yield some
        elif fault is None:
            return
    raise fault


class Opens(Protocol):
    """Opens a manifest, given its source as far as known and the beginning of its text."""

    def __call__(
        self, manifest: ManifestFile, source: Source, head: str, settings: ManifestSettings, /
    ) -> Manifest:
        """Raises: ManifestError if the file is not of this format."""
        ...


class Writes(Protocol):
    """Writes rows back, given what `Opens` found out about the file.

    Each row is what the reader kept (`CheckedRow.text`, or its `cells` where there is none) and
    `OWN_COLUMNS` with what they say of the row. Every row must be taken, in order.
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
    opens: Opens
    writes: Writes
    claims: Callable[[str], bool] = _claims_nothing
    """Whether a text begins as in no other format; not asked of the first of `FORMATS`."""
    claims_binary: Callable[[ManifestFile, bytes], bool] | None = None
    """Of a format that is not text: whether a file that begins with these bytes has it."""
    also: Mapping[str, Callable[[str], bool]] = MappingProxyType({})
    """Suffixes of other formats, each with whether a text under it is of this one all the same."""
    writes_as: str = ""
    """The format that `writes` writes, if it is another one."""
    shows_cuts: bool = True
    """Whether a file that is cut off within a row cannot be read, or has a row that breaks."""


FORMATS: dict[str, Format] = {
    "csv": Format((".csv", ".tsv", ".tab", ".txt"), CsvManifest, write_csv, shows_cuts=False),
    "xlsx": Format(WORKBOOKS, XlsxManifest, write_csv, claims_binary=is_workbook, writes_as="csv"),
    "yaml": Format((".yaml", ".yml"), YamlManifest, write_yaml, begins_yaml, shows_cuts=False),
    "jsonl": Format(
        (".jsonl", ".ndjson"),
        JsonLinesManifest,
        write_lines,
        begins_lines,
        also={".json": begins_lines},
    ),
    "json": Format(
        (".json",),
        JsonManifest,
        write_document,
        begins_document,
        also={".jsonl": exceeds_lines, ".ndjson": exceeds_lines},
    ),
}
"""By the name that `--format` takes. A text that no other format claims has the first one."""
SUFFIXES = tuple(suffix for form in FORMATS.values() for suffix in form.suffixes)


def format_names() -> tuple[str, ...]:
    """Return the names of the formats, in order."""
    return tuple(FORMATS)


def is_manifest_name(name: str) -> bool:
    """Return whether a file's name is that of a manifest."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return PurePath(name.lower().removesuffix(PACKED)).suffix


def binary_format(manifest: ManifestFile, head: bytes) -> str | None:
    """Return the format of a file that is not text; *head*: its first bytes, decompressed."""
    for key, form in FORMATS.items():
        if form.claims_binary and form.claims_binary(manifest, head):
            return key
    return None


def format_of(name: str, head: str, declared: str | None = None) -> str:
    """Return a text's format: as declared, by the file's name, else by its first characters."""
    first, *others = (key for key, form in FORMATS.items() if not form.claims_binary)
    if declared in (first, *others):
        return declared
    suffix = _suffix(name)
    texts = {key: FORMATS[key] for key in (*others, first)}
    for key, form in texts.items():
        if suffix in form.also and form.also[suffix](head):
            return key
    named = (key for key, form in texts.items() if suffix in form.suffixes)
    claimed = (key for key, form in texts.items() if form.claims(head))
    return next(named, None) or next(claimed, first)

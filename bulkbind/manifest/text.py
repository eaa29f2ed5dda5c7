"""What a file's first bytes say of its encoding and its form."""

from __future__ import annotations

import codecs
from pathlib import Path

from bulkbind.errors import ManifestError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HEAD_BYTES = 65536
_YAML_STARTS = ("---", "- ", "-\n", "defaults:", "devices:", "%YAML")


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file. Raises: ManifestError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise ManifestError(f"manifest {path} cannot be read: {error.strerror or error}") from error


def encoding_of(head: bytes, name: str) -> tuple[str, bool]:
    """Return the encoding and whether a byte order mark stands in front.

    Without a mark: NUL bytes at every other place mean UTF-16, none at all UTF-8.

    Raises: ManifestError for UTF-32 and for what is not text.
    """
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            if encoding == "utf-32":
                raise ManifestError(f"{name} is UTF-32", hint="save it as UTF-8")
            return encoding, True
    if b"\0" not in head:
        return "utf-8", False
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > len(head) / 4 and even < odd / 10:
        return "utf-16-le", False
    if even > len(head) / 4 and odd < even / 10:
        return "utf-16-be", False
    raise ManifestError(
        f"{name} is not a text file: it holds NUL bytes", hint="export it as CSV or YAML"
    )


def format_of(name: str, head: str) -> str:
    """Return `csv` or `yaml`: by the file's name, else by how its text begins."""
    suffix = Path(name).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return "yaml"
    if suffix in (".csv", ".tsv", ".txt"):
        return "csv"
    for line in head.splitlines():
        if line.strip() and not line.startswith("#"):
            return "yaml" if (line + "\n").startswith(_YAML_STARTS) else "csv"
    return "csv"

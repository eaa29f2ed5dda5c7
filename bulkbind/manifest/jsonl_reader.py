"""JSON Lines: a device in each line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bulkbind.manifest.json_values import WrongJsonError, whole_value
from bulkbind.manifest.lines import blocks, lines_of, open_text
from bulkbind.manifest.rules import printable
from bulkbind.manifest.tree import Item, Tree, Written
from bulkbind.model import CheckedRow, Problem, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bulkbind.settings import ManifestSettings

_JSON = "row: a line is one JSON object whose keys stand once"
_BLANK = " \t\r\n"


class JsonLinesManifest:
    """One file of JSON Lines.

    Attributes:
        source: Name and encoding.
        notices: What the operator should know; complete once the rows have been read.
    """

    def __init__(
        self,
        path: Path,
        source: Source,
        head: str,  # noqa: ARG002  # as every format is opened
        settings: ManifestSettings,
    ) -> None:
        self._path = path
        self._tree = Tree(source.name, settings)
        self._blank = 0
        self.source = Source(source.name, "jsonl", source.encoding, source.bom)
        self.notices: list[str] = []

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every device with its line; a line that is no JSON object is a problem of its own.

        Raises: ManifestError for a broken encoding or a line without end.
        """
        yield from self._tree.rows(self._items(), {})
        self.notices += self._tree.notices()
        if self._blank:
            self.notices.append(f"{self.source.name}: {self._blank:,} blank lines passed over")

    def _items(self) -> Iterator[Item]:
        decode = msgspec.json.Decoder(float_hook=Written.read).decode
        first = 1
        with open_text(self._path, self.source) as file:
            for lines in map(lines_of, blocks(file, self.source.name)):
                for line, text in enumerate(lines, start=first):
                    try:
                        node = decode(text)
                    except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError):
                        node = None
                    # As many colons as keys: it is flat, and no key stands twice.
                    if type(node) is dict and text.count(":") == len(node):
                        yield Item(line, node)
                    elif text.strip(_BLANK):
                        yield _slowly(line, text)
                    else:
                        self._blank += 1
                first += len(lines)


def _slowly(line: int, text: str) -> Item:
    try:
        return Item(line, whole_value(text))
    except WrongJsonError as error:
        at = "" if error.at is None else f" at {error.at + 1}"
        shown = printable(text.rstrip(_BLANK))
        return Item(line, None, Problem("row", "row", shown, _JSON, f"{error}{at}"))

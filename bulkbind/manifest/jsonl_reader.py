"""JSON Lines: a device in each line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bulkbind.manifest.json_values import WrongJsonError, whole_value
from bulkbind.manifest.lines import blocks, lines_of
from bulkbind.manifest.rules import printable
from bulkbind.manifest.tree import Item, Written
from bulkbind.manifest.tree_manifest import TreeManifest
from bulkbind.model import CheckedRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.manifest.lines import Text

_JSON = "row: a line is one JSON object whose keys stand once"
_BLANK = " \t\r\n"


class JsonLinesManifest(TreeManifest):
    """A device in each line; a line that is no JSON object is a problem of its own."""

    def _read(self, text: Text) -> Iterator[CheckedRow]:
        self._blank = 0
        yield from self._tree.rows(self._items(text), {})
        if self._blank:
            self.notices.append(f"{self.source.name}: {self._blank:,} blank lines passed over")

    def _items(self, text: Text) -> Iterator[Item]:
        decode = msgspec.json.Decoder(float_hook=Written.read).decode
        first = 1
        for lines in map(lines_of, blocks(text, self.source.name)):
            for line, written in enumerate(lines, start=first):
                try:
                    node = decode(written)
                except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError):
                    node = None
                # As many colons as keys: it is flat, and no key stands twice.
                if type(node) is dict and written.count(":") == len(node):
                    yield Item(line, node)
                elif written.strip(_BLANK):
                    yield _slowly(line, written)
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

"""YAML from parser events: one device at a time, every scalar as the text that was written.

Loading a document whole took 18 s and 737 MB for 200,000 items, events 3 s and 12 MB; and
YAML's own types corrupt identifiers (`0123` is 83, `no` is False).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.rules import printable
from bulkbind.manifest.tree import Item
from bulkbind.manifest.tree_manifest import TreeManifest
from bulkbind.manifest.yaml_events import DuplicateKeyError, Events, Node, line_of
from bulkbind.model import CheckedRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.manifest.lines import Text

_TWICE = "row: a key stands once in a device"
_FORMS = (
    "a manifest is a list of mappings, or `defaults:` and `devices:`; where each device stands "
    "under a key of its own, --map FIELD=@key takes that key"
)


class YamlManifest(TreeManifest):
    """A list of mappings, `defaults:` and `devices:`, or a mapping of devices."""

    undecodable = "strict"

    def _read(self, text: Text) -> Iterator[CheckedRow]:
        events = Events(text, self.source)
        self._defaults: dict[str, Any] = {}
        is_empty = True
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._defaults = {}
                events.forget()
                continue
            if isinstance(event, yaml.SequenceStartEvent):
                yield from self._tree.rows(self._listed(events), self._defaults)
            elif isinstance(event, yaml.MappingStartEvent):
                yield from self._document(events)
            elif isinstance(event, yaml.ScalarEvent) and event.value.strip():
                raise ManifestError(
                    f"{events.place(event)}: the file is one text, not a list of devices",
                    hint=_FORMS,
                )
            else:
                continue
            is_empty = False
        if is_empty:
            raise ManifestError(f"{self.source.name} is empty")

    def _document(self, events: Events) -> Iterator[CheckedRow]:
        """A mapping at the top: `defaults:` before `devices:`, or devices under their keys."""
        first = next(events)
        is_known = isinstance(first, yaml.ScalarEvent) and first.value in ("defaults", "devices")
        if self._tree.is_keyed and not is_known:
            yield from self._tree.rows(self._keyed(events, first), self._defaults)
            return
        seen: set[str] = set()
        event = first
        while not isinstance(event, yaml.MappingEndEvent):
            key = str(self._built(events, event))
            if key in seen:
                raise ManifestError(f"{events.place(event)}: key `{key}` stands twice")
            seen.add(key)
            value = next(events)
            if key == "devices" and isinstance(value, yaml.SequenceStartEvent):
                yield from self._tree.rows(self._listed(events), self._defaults)
            elif (
                key == "devices"
                and isinstance(value, yaml.MappingStartEvent)
                and self._tree.is_keyed
            ):
                yield from self._tree.rows(self._keyed(events, next(events)), self._defaults)
            elif key == "defaults" and "devices" not in seen:
                self._read_defaults(events, value)
            elif key in ("defaults", "devices"):
                raise ManifestError(
                    f"{events.place(event)}: `devices:` is a list, and `defaults:` a mapping that "
                    "stands before it",
                    hint=_FORMS,
                )
            else:
                self._built(events, value)
                self.notices.append(f"{self.source.name}: key `{printable(key)}` is not used")
            event = next(events)
        if "devices" not in seen:
            raise ManifestError(f"{self.source.name}: no `devices:` in it", hint=_FORMS)

    def _built(self, events: Events, event: yaml.Event) -> Node:
        try:
            return events.build(event)
        except DuplicateKeyError as error:
            raise ManifestError(
                f"{self.source.name}:{error.line}: key `{error.key}` stands twice"
            ) from error

    def _read_defaults(self, events: Events, event: yaml.Event) -> None:
        defaults = self._built(events, event)
        if defaults is None:
            return
        if not isinstance(defaults, dict):
            raise ManifestError(f"{events.place(event)}: `defaults:` must be a mapping of fields")
        self._defaults = defaults

    def _listed(self, events: Events) -> Iterator[Item]:
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._item(events, event)

    def _keyed(self, events: Events, event: yaml.Event) -> Iterator[Item]:
        """Yield the devices of a mapping, each with its key under `@key`."""
        while not isinstance(event, yaml.MappingEndEvent):
            line = line_of(event)
            key = self._built(events, event)
            if not isinstance(key, str):
                raise ManifestError(f"{events.place(event)}: a key must be a text")
            _, node, problem = self._item(events, next(events))
            if node is None and problem is None:
                node = {}  # a device of which nothing but its key is said
            keyed = {columns.KEY: key, **node} if isinstance(node, dict) else node
            yield Item(line, keyed, problem)
            event = next(events)

    def _item(self, events: Events, event: yaml.Event) -> Item:
        line = line_of(event)
        try:
            return Item(line, events.build(event))
        except DuplicateKeyError as error:
            events.skip()
            found = f"`{error.key}` stands again in line {error.line}"
            return Item(line, None, Problem("row", "row", error.key, _TWICE, found))

"""YAML's parser events, and values built from them within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import yaml

from bulkbind.errors import ManifestError

if TYPE_CHECKING:
    from typing import Self

Node: TypeAlias = "str | list[Any] | dict[str, Any] | None"

MOST_NODES = 1_000
"""Values in one device, aliases resolved: a bound against expanding aliases."""
MOST_ANCHORS = 100
DEEPEST = 20
_NULLS = ("", "~", "null", "Null", "NULL")
"""Unquoted, these are YAML's "nothing here"."""


class DuplicateKeyError(Exception):
    """A key stands twice in one mapping."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


class Events:
    """The parser's events, and values built from them within bounds."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._parser = iter(yaml.parse(file, Loader=yaml.CLoader))
        self._name = name
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._open = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> yaml.Event:
        event = next(self._parser)
        assert isinstance(event, yaml.Event)  # the type stubs leave it open
        return event

    def place(self, event: yaml.Event) -> str:
        """Return `file:line` of an event."""
        return f"{self._name}:{line_of(event)}"

    def build(self, event: yaml.Event) -> Node:
        """Return the value that begins with *event*, all of its events consumed.

        Raises: DuplicateKeyError (call `skip` to leave the value), ManifestError over the bounds.
        """
        self._nodes = 0
        self._open = 0
        return self._node(event)

    def forget(self) -> None:
        """Forget the anchors: they hold for one document."""
        self._anchors.clear()

    def skip(self) -> None:
        """Leave a value whose building was broken off."""
        while self._open:
            event = next(self)
            if isinstance(event, yaml.CollectionStartEvent):
                self._open += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open -= 1

    def _node(self, event: yaml.Event) -> Node:
        before = self._nodes
        self._count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if isinstance(event, yaml.ScalarEvent):
            plain_null = event.implicit[0] and not event.style and event.value in _NULLS
            node: Node = None if plain_null else event.value
        else:
            self._open += 1
            if self._open > DEEPEST:
                raise ManifestError(f"{self.place(event)}: nested deeper than {DEEPEST}")
            is_list = isinstance(event, yaml.SequenceStartEvent)
            node = self._list() if is_list else self._mapping()
            self._open -= 1
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            if len(self._anchors) >= MOST_ANCHORS and anchor not in self._anchors:
                raise ManifestError(f"{self.place(event)}: more than {MOST_ANCHORS} anchors")
            self._anchors[anchor] = (node, self._nodes - before)
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise ManifestError(f"{self.place(event)}: alias `*{event.anchor}` has no anchor")
        self._count(event, known[1])
        return known[0]

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise ManifestError(
                f"{self.place(event)}: more than {MOST_NODES} values in one device",
                hint="aliases count as often as they are used",
            )

    def _list(self) -> list[Any]:
        items: list[Any] = []
        for event in self:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._node(event))
        return items

    def _mapping(self) -> dict[str, Any]:
        """A mapping; `<<:` adds what the mapping itself does not say."""
        pairs: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event)
            if isinstance(key, list | dict):
                raise ManifestError(f"{self.place(event)}: a key must be a text")
            name = "" if key is None else key
            if name in pairs:
                raise DuplicateKeyError(name, line_of(event))
            value = self._node(next(self))
            if name == "<<":
                for part in value if isinstance(value, list) else [value]:
                    if not isinstance(part, dict):
                        raise ManifestError(f"{self.place(event)}: `<<` takes a mapping")
                    merged = {**part, **merged}
            else:
                pairs[name] = value
        return {**merged, **pairs} if merged else pairs


def line_of(event: yaml.Event) -> int:
    """Return the line on which an event begins, 1-based."""
    return event.start_mark.line + 1 if event.start_mark else 0

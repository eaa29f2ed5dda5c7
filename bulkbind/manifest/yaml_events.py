"""YAML's parser events, and values built from them within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeAlias

import yaml

from bulkbind.errors import ManifestError
from bulkbind.manifest.bounds import DEEPEST, LONGEST_LINE, MOST_ANCHORS, MOST_NODES
from bulkbind.manifest.lines import undecodable

if TYPE_CHECKING:
    from typing import Self

    from bulkbind.model import Source

Node: TypeAlias = "str | list[Any] | dict[str, Any] | None"

_NULLS = ("", "~", "null", "Null", "NULL")
"""Unquoted, these are YAML's "nothing here"."""


class DuplicateKeyError(Exception):
    """A key stands twice in one mapping."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


class _Bounded:
    """A stream for the parser, which would keep a text that never ends in memory."""

    def __init__(self, file: BinaryIO | TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._read = 0
        self.line = 0

    def passed(self, line: int) -> None:
        """Say that the parser has come to a line, 1-based."""
        if line > self.line:
            self.line = line
            self._read = 0

    def read(self, size: int) -> bytes | str:
        data = self._file.read(size)
        self._read += len(data)
        if self._read > 2 * LONGEST_LINE:
            raise ManifestError(
                f"{self._name}:{self.line}: from here on, a text of more than "
                f"{LONGEST_LINE:,} characters",
                hint="is a quote never closed?",
            )
        return data


class Events:
    """The parser's events, and values built from them within bounds."""

    def __init__(self, file: BinaryIO | TextIO, source: Source) -> None:
        self._source = source
        self._stream = _Bounded(file, source.name)
        # `yaml.parse` asks for each event twice, through Python.
        self._get = yaml.CBaseLoader(self._stream).get_event  # type: ignore[arg-type]  # reads either
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._open = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> yaml.Event:
        try:
            event = self._get()
        except yaml.YAMLError as error:
            raise ManifestError(f"{self._source.name} is not YAML: {_where(error)}") from error
        except UnicodeDecodeError as error:
            raise undecodable(self._source, error) from error
        except UnicodeEncodeError as error:
            raise ManifestError(
                f"{self._source.name} is not {self._source.encoding}",
                hint="say which encoding it has with --encoding, or save it as UTF-8",
            ) from error
        if event is None:
            raise StopIteration
        assert isinstance(event, yaml.Event)  # the type stubs leave it open
        return event

    def place(self, event: yaml.Event) -> str:
        """Return `file:line` of an event."""
        return f"{self._source.name}:{line_of(event)}"

    def build(self, event: yaml.Event) -> Node:
        """Return the value that begins with *event*, all of its events consumed.

        Raises: DuplicateKeyError (call `skip` to leave the value), ManifestError over the bounds.
        """
        self._nodes = 0
        self._open = 0
        self._stream.passed(line_of(event))
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
        if type(event) is yaml.ScalarEvent and event.anchor is None:
            self._count(event, 1)
            return _text(event)
        before = self._nodes
        self._count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = _text(event)
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
            if type(event) is yaml.MappingEndEvent:
                break
            key = self._node(event)
            if isinstance(key, list | dict):
                raise ManifestError(f"{self.place(event)}: a key must be a text")
            name = key or ""
            if name in pairs:
                raise DuplicateKeyError(name, line_of(event))
            value = self._node(next(self))
            if name == "<<":
                self._merge(event, value, merged)
            else:
                pairs[name] = value
        return {**merged, **pairs} if merged else pairs

    def _merge(self, event: yaml.Event, value: Node, merged: dict[str, Any]) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise ManifestError(f"{self.place(event)}: `<<` takes a mapping")
            for name, inner in part.items():
                merged.setdefault(name, inner)


def _text(event: yaml.ScalarEvent) -> str | None:
    """Return a scalar as it was written; None for YAML's "nothing here"."""
    value: str = event.value
    if value in _NULLS and event.implicit[0] and not event.style:
        return None
    return value


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)


def line_of(event: yaml.Event) -> int:
    """Return the line on which an event begins, 1-based."""
    return event.start_mark.line + 1 if event.start_mark else 0

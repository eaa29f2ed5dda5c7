"""YAML, read from parser events: one device at a time, every scalar as the original text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import yaml

from bulkbind.errors import ManifestError
from bulkbind.manifest.rules import printable
from bulkbind.manifest.text import DEEPEST, LONGEST_LINE, MOST_ANCHORS, MOST_NODES
from bulkbind.manifest.tree import Item, TreeManifest, with_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from bulkbind.manifest.text import Text
    from bulkbind.manifest.tree import Rows
    from bulkbind.model import CheckedRow, Source

Node: TypeAlias = "str | list[Any] | dict[str, Any] | None"

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
"""YAML's null values, if unquoted."""
_STARTS = ("---", "- ", "-\n", "defaults:", "devices:", "%YAML")


class DuplicateKeyError(Exception):
    """A key is repeated in one mapping."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(key)
        self.key = key
        self.line = line


class _Bounded:
    """A stream for the parser that limits the length of one value, which it keeps in memory."""

    def __init__(self, file: Text, name: str) -> None:
        self._file = file
        self._name = name
        self._read = 0
        self.line = 0

    def reached(self, line: int) -> None:
        """Record that the parser has reached a line, 1-based."""
        if line > self.line:
            self.line = line
            self._read = 0

    def read(self, size: int) -> str:
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
    """The parser's events, and values of limited size built from them."""

    def __init__(self, file: Text, source: Source) -> None:
        self._source = source
        self._stream = _Bounded(file, source.name)
        # `yaml.parse` calls Python twice for each event.
        self._get: Callable[[], Any] = yaml.CBaseLoader(self._stream).get_event  # type: ignore[arg-type]  # reads either
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._open = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> yaml.Event:
        try:
            event = self._get()
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._translated(error) from error
        if event is None:
            raise StopIteration
        assert isinstance(event, yaml.Event)  # as the parser promises
        return event

    def _translated(self, error: yaml.YAMLError | UnicodeError) -> ManifestError:
        if isinstance(error, yaml.YAMLError):
            return ManifestError(f"{self._source.name} is not YAML: {_where(error)}")
        return ManifestError(
            f"{self._source.name} is not {self._source.encoding}",
            hint="say which encoding it has with --encoding, or save it as UTF-8",
        )

    def place(self, event: yaml.Event) -> str:
        """Return `file:line` of an event."""
        return f"{self._source.name}:{line_of(event)}"

    def build(self, event: yaml.Event) -> Node:
        """Return the value that begins with *event*, consuming all of its events.

        Raises: DuplicateKeyError (call `skip` to leave the value), ManifestError if too large.
        """
        self._nodes = 0
        self._open = 0
        self._stream.reached(line_of(event))
        try:
            return self._node(event)
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._translated(error) from error

    def clear_anchors(self) -> None:
        """Forget the anchors, which are valid within one document."""
        self._anchors.clear()

    def skip(self) -> None:
        """Skip the rest of a value after `build` raised."""
        while self._open:
            event = next(self)
            if isinstance(event, yaml.CollectionStartEvent):
                self._open += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open -= 1

    def _node(self, event: Any) -> Node:  # noqa: ANN401  # the stubs lack what its kinds have
        before = self._nodes
        self._nodes = before + 1
        if before >= MOST_NODES:
            self._count(event, 0)
        kind = type(event)
        node: Node
        if kind is yaml.ScalarEvent:
            node = event.value
            if node in _NULLS and event.implicit[0] and not event.style:
                node = None
        elif kind is yaml.AliasEvent:
            return self._alias(event)
        else:
            self._open += 1
            if self._open > DEEPEST:
                raise ManifestError(f"{self.place(event)}: nested deeper than {DEEPEST}")
            node = self._mapping() if kind is yaml.MappingStartEvent else self._list()
            self._open -= 1
        if event.anchor is not None:
            self._keep(event, node, self._nodes - before)
        return node

    def _keep(self, event: Any, node: Node, nodes: int) -> None:  # noqa: ANN401  # as above
        anchor: str = event.anchor
        if len(self._anchors) >= MOST_ANCHORS and anchor not in self._anchors:
            raise ManifestError(f"{self.place(event)}: more than {MOST_ANCHORS} anchors")
        self._anchors[anchor] = (node, nodes)

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
        while type(event := self._get()) is not yaml.SequenceEndEvent:
            items.append(self._node(event))
        return items

    def _mapping(self) -> dict[str, Any]:
        """Build a mapping; `<<:` adds keys that the mapping itself lacks."""
        get, build, scalar = self._get, self._node, yaml.ScalarEvent
        pairs: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while type(event := get()) is not yaml.MappingEndEvent:
            # Nearly all keys and values are plain scalars, for which a call would be slow.
            if type(event) is scalar and event.anchor is None and event.value not in _NULLS:
                self._nodes += 1
                name = event.value
            else:
                key = build(event)
                if isinstance(key, list | dict):
                    raise ManifestError(f"{self.place(event)}: a key must be a text")
                name = key or ""
            if name in pairs:
                raise DuplicateKeyError(name, line_of(event))
            inner = get()
            if type(inner) is scalar and inner.anchor is None and inner.value not in _NULLS:
                self._nodes += 1
                value: Node = inner.value
            else:
                value = build(inner)
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


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if isinstance(error, yaml.reader.ReaderError):
        return f"{error.reason}, U+{error.character:04X}, at character {error.position + 1:,}"
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)


def line_of(event: yaml.Event) -> int:
    """Return the line on which an event begins, 1-based."""
    return event.start_mark.line + 1 if event.start_mark else 0


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
                events.clear_anchors()
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
        """Yield the devices of a top-level mapping: `devices:` with defaults, or by their keys."""
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
        """Yield the devices of a mapping, each with its key as `@key`."""
        while not isinstance(event, yaml.MappingEndEvent):
            line = line_of(event)
            key = self._built(events, event)
            if not isinstance(key, str):
                raise ManifestError(f"{events.place(event)}: a key must be a text")
            item = self._item(events, next(events))
            if item.node is None and item.problem is None:
                item = item._replace(node={})  # the device has only its key
            yield item.under(key, line)
            event = next(events)

    def _item(self, events: Events, event: yaml.Event) -> Item:
        line = line_of(event)
        try:
            return Item(line, events.build(event))
        except DuplicateKeyError as error:
            events.skip()
            found = f"`{error.key}` stands again in line {error.line}"
            return Item.with_repeated_key(line, error.key, found)


def begins_yaml(head: str) -> bool:
    """Return whether the first line that is no comment begins as only YAML does."""
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith("#"))
    return (next(lines, "") + "\n").startswith(_STARTS)


def write_yaml(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write a list of mappings, every scalar with its original text."""
    is_empty = True
    for device in with_own(rows):
        text = yaml.dump(
            [device], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=10_000
        )
        file.write(text)
        is_empty = False
    if is_empty:
        file.write("[]\n")

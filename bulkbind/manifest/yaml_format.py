"""YAML, read from parser events: one device at a time, every scalar as the original text.

The text of a device is kept as an entry of a list, `- machine_code: SN1`, with its lines as they
were written; aliases of what stands outside it are replaced by their values.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, TypeAlias

import yaml

from bulkbind.errors import ManifestError
from bulkbind.manifest import shapes
from bulkbind.manifest.columns import KEY
from bulkbind.manifest.rules import printable
from bulkbind.manifest.shapes import ANY, DEFAULTS, DEVICES, FORMS, Entries, Pairs, Survey
from bulkbind.manifest.text import DEEPEST, LONGEST_LINE, MOST_ANCHORS, MOST_NODES
from bulkbind.manifest.tree import (
    Defaults,
    Item,
    Tagged,
    TreeManifest,
    mapping_with_own,
    plain_item,
)
from bulkbind.model.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Self

    from bulkbind.manifest.shapes import Path
    from bulkbind.manifest.text import Text
    from bulkbind.manifest.tree import Kept, Rows
    from bulkbind.model import Source

Node: TypeAlias = "str | list[Any] | dict[str, Any] | Tagged | None"

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
"""YAML's null values, if unquoted."""
_STARTS = (
    *("---", "- ", "-\n", "defaults:", "devices:", "%YAML"),
    *(f"{field}: " for field in FIELDS),
)
_NULL_TAG = "tag:yaml.org,2002:null"
_KNOWN_TAGS = frozenset(
    ["!", _NULL_TAG]
    + [
        f"tag:yaml.org,2002:{name}"
        for name in ("str", "int", "float", "bool", "timestamp", "map", "seq")
    ]
)
"""Tags of values whose text is the value."""
_MOST_AHEAD = 2_000
"""Events of a document that are held in memory to see what it holds."""


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
        self._kept = ""
        self._base = 0
        self._wanted = 0
        self.line = 0

    def between(self, start: int, end: int) -> str:
        """Return a part of the text kept."""
        return self._kept[start - self._base : end - self._base]

    def keep_from(self, mark: Any) -> None:  # noqa: ANN401  # the stubs have two kinds
        """Record that the parser has reached a mark: the text before it may be dropped."""
        self._wanted = mark.index
        self.reached(mark)

    def reached(self, mark: Any) -> None:  # noqa: ANN401  # as above
        """Record that the parser has reached the line of a mark."""
        line = mark.line + 1
        if line > self.line:
            self.line = line
            self._read = 0

    def read(self, size: int) -> str:
        data = self._file.read(size)
        self._read += len(data)
        self._kept = self._kept[self._wanted - self._base :] + data
        self._base = self._wanted
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
        self._parsed: Callable[[], Any] = yaml.CBaseLoader(self._stream).get_event  # type: ignore[arg-type]  # reads either
        self._get: Callable[[], Any] = self._parsed
        self._again: deque[yaml.Event | Exception] = deque()
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        """Each with its value, the number of values in it, and its place."""
        self._nodes = 0
        self._open = 0
        self._start: Any = None
        self._end: Any = None
        self._aliases: list[tuple[int, int, Node]] = []
        self._directives = False
        self.documents = 0
        """How many have begun."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> yaml.Event:
        try:
            event: yaml.Event | None = self._get()
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._translated(error) from error
        if event is None:
            raise StopIteration
        if type(event) is yaml.DocumentStartEvent:
            self.documents += 1
            self._directives = bool(event.tags)
            self._anchors.clear()  # they are valid within one document
        return event

    def look_ahead(self) -> tuple[list[yaml.Event], bool]:
        """Return the next events, up to the end of a mapping that has begun, to be read again.

        Also returns whether its end is among them; after many events, or an error, it is not.
        """
        found: list[yaml.Event | Exception] = []
        depth = 1
        while depth and len(found) < _MOST_AHEAD:
            try:
                event = self._get()
            except (yaml.YAMLError, UnicodeError, ManifestError) as error:
                found.append(error)
                break
            self._stream.reached(event.start_mark)
            found.append(event)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
        self._again.extendleft(reversed(found))
        self._get = self._replayed
        return [event for event in found if isinstance(event, yaml.Event)], not depth

    def _replayed(self) -> yaml.Event | None:
        if not self._again:
            self._get = self._parsed
            event: yaml.Event | None = self._parsed()
            return event
        found = self._again.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def _translated(self, error: yaml.YAMLError | UnicodeError) -> ManifestError:
        if isinstance(error, yaml.YAMLError):
            tab = self._tab_at(error)
            return ManifestError(f"{self._source.name} is not YAML: {_where(error)}{tab}")
        return ManifestError(
            f"{self._source.name} is not {self._source.encoding}",
            hint="say which encoding it has with --encoding, or save it as UTF-8",
        )

    def _tab_at(self, error: yaml.YAMLError) -> str:
        mark = getattr(error, "problem_mark", None)
        if mark is None or self._stream.between(mark.index, mark.index + 1) != "\t":
            return ""
        return ", which is a tab: YAML is indented with blanks"

    def place(self, event: yaml.Event) -> str:
        """Return `file:line` of an event."""
        return f"{self._source.name}:{line_of(event)}"

    def passing(self) -> Iterator[yaml.Event]:
        """Yield the events without keeping their text."""
        for event in self:
            self._stream.keep_from(event.start_mark)
            yield event

    def build(self, event: yaml.Event) -> Node:
        """Return the value that begins with *event*, consuming all of its events.

        Raises: DuplicateKeyError (call `skip` to leave the value), ManifestError if too large.
        """
        self._nodes = 0
        self._open = 0
        self._start = self._end = event
        self._aliases.clear()
        self._stream.keep_from(event.start_mark)
        try:
            return self._node(event)
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._translated(error) from error

    def skip(self) -> None:
        """Skip the rest of a value after `build` raised."""
        while self._open:
            event = self._end = next(self)
            if isinstance(event, yaml.CollectionStartEvent):
                self._open += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                self._open -= 1
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)

    def entry(self, node: Node) -> str:
        """Return the text of the last value built, or left by `skip`, as an entry of a list."""
        first, begin, end = self._start, self._start.start_mark, self._end.end_mark
        text = self._stream.between(begin.index, end.index)
        is_mapping = type(first) is yaml.MappingStartEvent
        if self._directives or (is_mapping and first.flow_style and text[-1:] != "}"):
            return f"- {flow(node)}\n"  # it would not mean the same by itself
        for start, stop, value in reversed(self._aliases):
            text = text[: start - begin.index] + flow(value) + text[stop - begin.index :]
        is_block = isinstance(first, yaml.CollectionStartEvent) and not first.flow_style
        return _entry(text, begin.column, is_block=is_block)

    def _node(self, event: Any) -> Node:  # noqa: ANN401  # the stubs lack what its kinds have
        before = self._nodes
        self._nodes = before + 1
        if before >= MOST_NODES:
            self._count(event, 0)
        kind = type(event)
        node: Node
        if kind is yaml.ScalarEvent:
            node = None if event.value in _NULLS and _is_null(event) else event.value
        elif kind is yaml.AliasEvent:
            return self._alias(event)
        else:
            self._open += 1
            if self._open > DEEPEST:
                raise ManifestError(f"{self.place(event)}: nested deeper than {DEEPEST}")
            node = self._mapping() if kind is yaml.MappingStartEvent else self._list()
            self._open -= 1
        if event.tag is not None:
            node = _tagged(event.tag, node)
        if event.anchor is not None:
            self._keep(event, node, self._nodes - before)
        return node

    def _keep(self, event: Any, node: Node, nodes: int) -> None:  # noqa: ANN401  # as above
        anchor: str = event.anchor
        if len(self._anchors) >= MOST_ANCHORS and anchor not in self._anchors:
            raise ManifestError(f"{self.place(event)}: more than {MOST_ANCHORS} anchors")
        self._anchors[anchor] = (node, nodes, event.start_mark.index)

    def _alias(self, event: yaml.AliasEvent) -> Node:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            raise ManifestError(f"{self.place(event)}: alias `*{event.anchor}` has no anchor")
        self._count(event, known[1])
        if known[2] < self._start.start_mark.index:
            marks: Any = event
            place = (marks.start_mark.index, marks.end_mark.index, known[0])
            self._aliases.append(place)
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
        self._end = event
        return items

    def _mapping(self) -> dict[str, Any]:
        """Build a mapping; a plain `<<:` adds keys that the mapping itself lacks."""
        get, build, scalar = self._get, self._node, yaml.ScalarEvent
        pairs: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        has_merge = False
        count = 0
        while type(event := get()) is not yaml.MappingEndEvent:
            # Nearly all keys and values are plain scalars, for which a call would be slow.
            if (
                type(event) is scalar
                and event.anchor is event.tag is None
                and event.value not in _NULLS
            ):
                count += 1
                name = event.value
            else:
                key = build(event)
                if isinstance(key, list | dict | Tagged):
                    raise self._no_key(event, key)
                name = key or ""
            is_merge = name == "<<" and event.implicit[0]
            if name in pairs or (is_merge and has_merge):
                raise DuplicateKeyError(name, line_of(event))
            inner = get()
            if (
                type(inner) is scalar
                and inner.anchor is inner.tag is None
                and inner.value not in _NULLS
            ):
                count += 1
                value: Node = inner.value
            else:
                value = build(inner)
            if is_merge:
                has_merge = True
                self._merge(event, value, merged)
            else:
                pairs[name] = value
        self._end = event
        self._nodes += count
        return {**merged, **pairs} if merged else pairs

    def _no_key(self, event: yaml.Event, key: Node) -> ManifestError:
        """Return the error of a key that is no text, as `{{ name }}` of a template is none."""
        is_template = isinstance(key, dict)
        return ManifestError(
            f"{self.place(event)}: a key must be a text",
            hint="is `{{ … }}` the variable of a template that nobody filled in?" * is_template,
        )

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


def _tagged(tag: str, node: Node) -> Node:
    if tag == _NULL_TAG:
        return None
    return node if tag in _KNOWN_TAGS else Tagged(tag, node)


# --- the text of a device ------------------------------------------------------------------------

_BLOCK_COLUMN = 2
"""Where the keys of an entry stand at least."""
_KEEPS_BLANKS = re.compile(r"[|>]\d?\+")
_LONE_CR = re.compile(r"\r(?!\n)")
_LINE_START = re.compile(r"([\n\x85\u2028\u2029])(?=[^\r\n\x85\u2028\u2029])")
"""The end of a line of YAML, where the next is not empty."""
_PLAIN_ENTRY = re.compile(r"- +(?=[A-Za-z_][\w .-]*:(?: |\n))", re.ASCII)
"""The beginning of an entry that is a mapping with a plain key."""
_PLAIN_TEXT = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def _entry(text: str, column: int, *, is_block: bool) -> str:
    """Return a value that began at a column (0-based) as an entry, its lines as they were."""
    text = _LONE_CR.sub("\n", text) if "\r" in text else text
    if not is_block:
        return f"- {text}\n"
    if column >= _BLOCK_COLUMN and text[0] not in "&!" and "#" not in text and "+" not in text:
        end = text.find("\n", len(text.rstrip(" \n")))
        return f"-{' ' * (column - 1)}{text if end < 0 else text[:end]}\n"
    lines = text.split("\n")
    if not _KEEPS_BLANKS.search(text):
        while len(lines) > 1 and _is_between(lines[-1], column):
            lines.pop()
    elif not lines[-1].strip():
        lines.pop()
    own = next((line for line in lines[1:] if line.strip()), "")
    if text[0] in "&!" and own:  # the keys stand below anchor and tag
        column = len(own) - len(own.lstrip(" "))
    before = "-" + " " * (max(column, _BLOCK_COLUMN) - 1)
    more = " " * (_BLOCK_COLUMN - column)
    return before + _LINE_START.sub(rf"\1{more}", "\n".join(lines)) + "\n"


def _is_between(line: str, column: int) -> bool:
    """Whether a line below a value, whose keys stand at a column, is blank or a comment."""
    bare = line.lstrip(" ")
    return not bare.strip() or (bare.startswith("#") and len(line) - len(bare) < column)


def flow(node: Node) -> str:
    """Return a value as YAML in one line."""
    if isinstance(node, str) and _PLAIN_TEXT.fullmatch(node) and node not in _NULLS:
        return node
    events: list[yaml.Event] = [yaml.StreamStartEvent(), yaml.DocumentStartEvent(explicit=False)]
    events += _events(node)
    events += [yaml.DocumentEndEvent(explicit=False), yaml.StreamEndEvent()]
    text: str = yaml.emit(events, Dumper=yaml.CSafeDumper, width=-1, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _events(node: Node, tag: str | None = None) -> Iterator[yaml.Event]:
    if isinstance(node, Tagged):
        yield from _events(node.node, node.tag)
    elif isinstance(node, dict):
        yield yaml.MappingStartEvent(None, tag, implicit=tag is None, flow_style=True)
        for key, value in node.items():
            yield from _events(key)
            yield from _events(value)
        yield yaml.MappingEndEvent()
    elif isinstance(node, list):
        yield yaml.SequenceStartEvent(None, tag, implicit=tag is None, flow_style=True)
        for value in node:
            yield from _events(value)
        yield yaml.SequenceEndEvent()
    else:
        text = "null" if node is None else node
        style = "'" if node in _NULLS or "\n" in text else None
        is_plain = tag is None
        yield yaml.ScalarEvent(None, tag, (is_plain, is_plain), text, style=style)


def _member(key: str, value: Node) -> str:
    return flow({key: value})[1:-1]


def _inside(text: str) -> list[Any]:
    """Return the events of the value in an entry. Raises: yaml.YAMLError."""
    # Before it stand the starts of the stream, a document and the list, behind it their ends.
    return list(yaml.parse(text, Loader=yaml.CBaseLoader))[3:-3]


class _Place(NamedTuple):
    key: str
    start: int
    end: int


def _members(events: Sequence[Any]) -> list[_Place]:
    """Return the members of the mapping that begins the events, with their places in the text."""
    found = []
    depth = 0
    marks: list[Any] = []
    for event in events[1:-1]:
        if not depth:
            marks.append(event)
        depth += isinstance(event, yaml.CollectionStartEvent)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            if not depth:
                marks[-1] = _Span(marks[-1].start_mark, event.end_mark)
        if not depth and len(marks) == 2:  # noqa: PLR2004  # a key and its value
            key, value = marks
            found.append(
                _Place(
                    getattr(key, "value", ""),
                    key.start_mark.index,
                    max(key.end_mark.index, value.end_mark.index),
                )
            )
            marks = []
    return found


class _Span(NamedTuple):
    start_mark: Any
    end_mark: Any


def with_own(text: str, own: Mapping[str, str]) -> str:
    """Return the entry of a device with bulkbind's own members, in place of older ones.

    Empty for what is no mapping, or has no members of its own: there is no place for ours.
    """
    try:
        events = _inside(text)
    except yaml.YAMLError:
        return ""
    if not events or not isinstance(events[0], yaml.MappingStartEvent):
        return ""
    members = _members(events)
    kept = [at for at, member in enumerate(members) if member.key not in own]
    if not kept:
        return ""
    written = [_member(key, value) for key, value in own.items()]
    if events[0].flow_style:
        parts = [text[: members[0].start], text[members[kept[0]].start : members[kept[0]].end]]
        parts += [text[members[at - 1].end : members[at].end] for at in kept[1:]]
        # The blank parts a comma from a colon without a value.
        return "".join([*parts, " , ", ", ".join(written), text[members[-1].end :]])
    ends = [member.start for member in members[1:]] + [len(text)]
    column = members[0].start - text.rfind("\n", 0, members[0].start) - 1
    parts = [text[: members[0].start]]
    parts += [text[members[at].start : ends[at]] for at in kept]
    whole = "".join(parts)
    whole = whole[: len(whole.rstrip(" "))] if whole.rstrip(" ").endswith("\n") else whole
    return whole + "".join(f"{' ' * column}{member}\n" for member in written)


_ORDER = "`devices:` is a list, and `defaults:` a mapping that stands before it"


class YamlManifest(TreeManifest):
    """Documents: lists of mappings, mappings that hold them, or single devices."""

    undecodable = "strict"

    @staticmethod
    def fill(text: str, members: Sequence[str]) -> str:
        """Return the entry of a mapping with members added; any other entry as it is."""
        if match := _PLAIN_ENTRY.match(text):  # many times as fast as looking at the events
            column = match.end()
            return text[:column] + f"\n{' ' * column}".join([*members, text[column:]])
        try:
            events = _inside(text)
        except yaml.YAMLError:
            return text
        if not events or not isinstance(events[0], yaml.MappingStartEvent):
            return text
        is_empty = isinstance(events[1], yaml.MappingEndEvent)
        at = events[1].start_mark.index
        if events[0].flow_style:
            added = ", ".join(members) + ("" if is_empty else ", ")
        else:
            blanks = " " * (at - text.rfind("\n", 0, at) - 1)
            added = "".join(f"{member}\n{blanks}" for member in members)
        return text[:at] + added + text[at:]

    @staticmethod
    def keys(text: str) -> list[str]:
        """Return the keys of the mapping in an entry; none of any other."""
        try:
            events = _inside(text)
        except yaml.YAMLError:
            return []
        is_mapping = events and isinstance(events[0], yaml.MappingStartEvent)
        return [member.key for member in _members(events)] if is_mapping else []

    def _items(self, text: Text) -> Iterator[Item]:
        events = Events(text, self.source)
        self._ahead: Events | None = None
        is_empty = True
        for event in events:
            if isinstance(event, yaml.SequenceStartEvent):
                yield from self._listed(events, None)
            elif isinstance(event, yaml.MappingStartEvent):
                yield from self._document(events, event)
            elif isinstance(event, yaml.ScalarEvent) and not _is_null(event):
                raise ManifestError(
                    f"{events.place(event)}: the file is one text, not a list of devices",
                    hint=FORMS,
                )
            else:
                continue
            is_empty = False
        if is_empty:
            raise ManifestError(f"{self.source.name} is empty")

    def _document(self, events: Events, event: yaml.Event) -> Iterator[Item]:
        """Yield the devices of a top-level mapping."""
        path = self._place(events)
        if path is None:
            yield self._item(events, event)
        else:
            yield from self._at(events, path)

    def _place(self, events: Events) -> Path | None:
        """Return where in the mapping that has begun the devices stand; None: it is one device."""
        if self._settings.items:
            path = shapes.parsed(self._settings.items)
            return path if path or self._tree.is_keyed else None
        found, is_whole = events.look_ahead()
        first = found[0] if found else None
        is_known = isinstance(first, yaml.ScalarEvent) and first.value in (DEFAULTS, DEVICES)
        if is_known and not self._tree.is_keyed:
            return (DEVICES,)
        survey = Survey(self._settings, "devices:")
        survey.look(_pairs(iter(found) if is_whole else self._read_ahead(events.documents)))
        found_at, notice = survey.place(self.source.name)
        if notice and notice not in self.notices:
            self.notices.append(notice)
        return found_at

    def _read_ahead(self, document: int) -> Iterator[yaml.Event]:
        """Return the events of a document's mapping, read in advance."""
        if self._ahead is None:
            self._ahead = Events(self._open(), self.source)
        passing = self._ahead.passing()
        while self._ahead.documents < document:
            next(passing)
        next(passing)  # the start of the mapping
        return passing

    def _at(
        self, events: Events, path: Path, defaults: Defaults | None = None, *, is_top: bool = True
    ) -> Iterator[Item]:
        """Yield the devices at a path of the mapping that has begun."""
        if not path:
            yield from self._guarded(self._keyed(events, defaults))
            return
        seen: dict[str, None] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._built(events, event)
            if not isinstance(key, str | None):
                raise ManifestError(f"{events.place(event)}: a key must be a text")
            key = key or ""
            if key in seen:
                raise ManifestError(f"{events.place(event)}: key `{printable(key)}` stands twice")
            seen[key] = None
            value = next(events)
            if key == path[0]:
                yield from self._found(events, event, value, path[1:], defaults)
            elif is_top and key == DEFAULTS and path[0] not in seen:
                defaults = self._read_defaults(events, value)
            elif is_top and key == DEFAULTS:
                raise ManifestError(f"{events.place(event)}: {_ORDER}", hint=FORMS)
            else:
                self._pass_over(key, self._built(events, value))
        if path[0] not in seen:
            if path == (DEVICES,):
                raise ManifestError(f"{self.source.name}: no `devices:` in it", hint=FORMS)
            raise self._missing(path[0], seen)

    def _found(
        self,
        events: Events,
        key: yaml.Event,
        event: yaml.Event,
        rest: Path,
        defaults: Defaults | None,
    ) -> Iterator[Item]:
        """Yield the devices of the value to which a path has led so far, by its last *key*."""
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        if is_mapping and rest:
            yield from self._at(events, rest, defaults, is_top=False)
        elif isinstance(event, yaml.SequenceStartEvent) and not rest:
            yield from self._listed(events, defaults)
        elif is_mapping and self._tree.is_keyed:
            yield from self._guarded(self._keyed(events, defaults))
        elif is_mapping and self._settings.items:
            yield self._item(events, event, defaults)
        elif self._settings.items:
            items = printable(self._settings.items)
            raise ManifestError(
                f"{events.place(key)}: what stands at `{items}` is no list of devices", hint=FORMS
            )
        else:
            raise ManifestError(f"{events.place(key)}: {_ORDER}", hint=FORMS)

    def _built(self, events: Events, event: yaml.Event) -> Node:
        try:
            return events.build(event)
        except DuplicateKeyError as error:
            raise ManifestError(
                f"{self.source.name}:{error.line}: key `{error.key}` stands twice"
            ) from error

    def _read_defaults(self, events: Events, event: yaml.Event) -> Defaults | None:
        values = self._built(events, event)
        if values is None:
            return None
        if not isinstance(values, dict):
            raise ManifestError(f"{events.place(event)}: `defaults:` must be a mapping of fields")
        return Defaults(values, {key: _member(key, value) for key, value in values.items()})

    def _listed(self, events: Events, defaults: Defaults | None) -> Iterator[Item]:
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            yield self._item(events, event, defaults)

    def _keyed(self, events: Events, defaults: Defaults | None) -> Iterator[Item]:
        """Yield the devices of a mapping, each with its key as `@key`."""
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = line_of(event)
            key = _plain(event) or self._built(events, event)
            if not isinstance(key, str):
                raise ManifestError(f"{events.place(event)}: a key must be a text")
            item = self._item(events, next(events), defaults)
            node, text, problem = item.node, item.text, item.problem
            if node is None and problem is None:
                node, text = {}, "- {}\n"  # the device has only its key
            if isinstance(node, dict):
                text = self.fill(text, [f"'{KEY}': {flow(key)}"])
                yield plain_item((line, {KEY: key, **node}, text, None, defaults))
            elif problem is not None:
                text = self.fill(text, [f"'{KEY}': {flow(key)}"])
                yield item._replace(line=line, text=text)
            else:
                yield item._replace(line=line, text=f"- {_member(key, node)}\n")

    def _item(self, events: Events, event: yaml.Event, defaults: Defaults | None = None) -> Item:
        line = line_of(event)
        try:
            node = events.build(event)
        except DuplicateKeyError as error:
            events.skip()
            found = f"`{error.key}` stands again in line {error.line}"
            item = Item.with_repeated_key(line, error.key, found, events.entry(None))
            return item._replace(defaults=defaults)
        return plain_item((line, node, events.entry(node), None, defaults))


def _pairs(events: Iterator[yaml.Event], depth: int = 0) -> Pairs:
    """Return a mapping that has begun, to walk through."""
    return Pairs(
        (_key(_view(event, events, depth)), _view(next(events, None), events, depth))
        for event in takewhile(lambda event: not isinstance(event, yaml.MappingEndEvent), events)
    )


def _view(event: yaml.Event | None, events: Iterator[yaml.Event], depth: int) -> Any:  # noqa: ANN401  # see `Survey`
    """Return the value that begins with an event; of one nested too deeply only that it is one."""
    if isinstance(event, yaml.ScalarEvent):
        return None if _is_null(event) else event.value
    if not isinstance(event, yaml.CollectionStartEvent):
        return ANY
    if depth > DEEPEST:
        _leave(events)
        return ANY
    if isinstance(event, yaml.MappingStartEvent):
        return _pairs(events, depth + 1)
    return Entries(
        _view(inner, events, depth + 1)
        for inner in takewhile(lambda e: not isinstance(e, yaml.SequenceEndEvent), events)
    )


def _plain(event: Any) -> str | None:  # noqa: ANN401  # as in `_node`
    """Return the text of a scalar that is nothing else."""
    is_plain = type(event) is yaml.ScalarEvent and event.anchor is event.tag is None
    text: str | None = event.value if is_plain and event.value not in _NULLS else None
    return text


def _is_null(event: Any) -> bool:  # noqa: ANN401  # as in `_node`
    return event.value in _NULLS and event.implicit[0] and not event.style


def _leave(events: Iterator[yaml.Event]) -> None:
    """Read up to the end of a collection that has begun."""
    depth = 1
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if not depth:
            return


def _key(view: Any) -> str:  # noqa: ANN401  # as above
    for _ in view[0] if isinstance(view, Pairs | Entries) else ():
        pass
    return view if isinstance(view, str) else ""


def begins_yaml(head: str) -> bool:
    """Return whether the first line that is no comment begins as only YAML does."""
    lines = (line for line in head.splitlines() if line.strip() and not line.startswith("#"))
    return (next(lines, "") + "\n").startswith(_STARTS)


def write_yaml(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write a list."""
    is_empty = True
    for cells, own in rows:
        file.write(_returned(cells, own))
        is_empty = False
    if is_empty:
        file.write("[]\n")


def _returned(cells: Kept, own: Mapping[str, str]) -> str:
    """Return a row as an entry: one that has no place for status and reason stands behind them."""
    if not isinstance(cells, str):
        return _dumped(mapping_with_own(cells, own))
    return with_own(cells, own) or _dumped(own) + cells


def _dumped(device: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        [dict(device)], Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return text

"""YAML from parser events: one device at a time, every scalar as the text that was written.

Loading a document whole took 18 s and 737 MB for 200,000 items, events 3 s and 12 MB; and
YAML's own types corrupt identifiers (`0123` is 83, `no` is False).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.rules import check, printable, trim
from bulkbind.manifest.yaml_events import MOST_NODES, DuplicateKeyError, Events, Node, line_of
from bulkbind.model import OWN_COLUMNS, CheckedRow, Problem, Source
from bulkbind.settings import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MAPPING = "row: a device is a mapping of fields"
_TWICE = "row: a key stands once in a device"
_TEXT = "a text, not a list or a mapping"


class YamlManifest:
    """One YAML file: a list of mappings, or `defaults:` and `devices:`.

    Attributes:
        source: Name and encoding.
        notices: What the operator should know; complete once the rows have been read.
    """

    def __init__(
        self, path: Path, source: Source, mapping: Mapping[str, str], user_id: str | None
    ) -> None:
        self._path = path
        self._mapping = mapping
        self._user_id = user_id
        self._defaults: dict[str, Any] = {}
        self._unknown: dict[str, None] = {}
        self._fields: dict[str, str | None] = {}
        self.source = Source(source.name, "yaml", source.encoding, source.bom)
        self.notices: list[str] = []

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every device with its first line.

        Raises: ManifestError where the file as a whole is not what it should be.
        """
        try:
            with self._path.open("rb") as file:
                yield from self._documents(Events(file, self.source.name))
        except yaml.YAMLError as error:
            raise ManifestError(f"{self.source.name} is not YAML: {_place(error)}") from error
        if self._unknown:
            names = ", ".join(list(self._unknown)[:20])
            self.notices.append(f"{self.source.name}: keys kept but not sent: {names}")

    def _documents(self, events: Events) -> Iterator[CheckedRow]:
        empty = True
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._defaults = {}
                events.forget()
                continue
            if isinstance(event, yaml.SequenceStartEvent):
                yield from self._devices(events)
            elif isinstance(event, yaml.MappingStartEvent):
                yield from self._document(events)
            elif isinstance(event, yaml.ScalarEvent) and event.value.strip():
                raise ManifestError(
                    f"{events.place(event)}: the file is one text, not a list of devices",
                    hint="a manifest is a list of mappings, or `defaults:` and `devices:`",
                )
            else:
                continue
            empty = False
        if empty:
            raise ManifestError(f"{self.source.name} is empty")

    def _document(self, events: Events) -> Iterator[CheckedRow]:
        """A mapping at the top: `defaults:` before `devices:`, other keys passed over."""
        seen: set[str] = set()
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = str(self._built(events, event))
            if key in seen:
                raise ManifestError(f"{events.place(event)}: key `{key}` stands twice")
            seen.add(key)
            value = next(events)
            if key == "devices" and isinstance(value, yaml.SequenceStartEvent):
                yield from self._devices(events)
            elif key == "defaults" and "devices" not in seen:
                self._read_defaults(events, value)
            elif key in ("defaults", "devices"):
                raise ManifestError(
                    f"{events.place(event)}: `devices:` is a list, and `defaults:` a mapping that "
                    "stands before it"
                )
            else:
                self._built(events, value)
                self.notices.append(f"{self.source.name}: key `{key}` is not used")
        if "devices" not in seen:
            raise ManifestError(
                f"{self.source.name}: no `devices:` in it",
                hint="a manifest is a list of mappings, or `defaults:` and `devices:`",
            )

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

    def _devices(self, events: Events) -> Iterator[CheckedRow]:
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return
            line = line_of(event)
            try:
                node = events.build(event)
            except DuplicateKeyError as error:
                events.skip()
                found = f"`{error.key}` stands again in line {error.line}"
                problem = Problem("row", "row", error.key, _TWICE, found)
                yield CheckedRow(line, {}, None, (None,) * 4, (problem,))
                continue
            yield self._checked(node, line)

    def _checked(self, node: Node, line: int) -> CheckedRow:
        if not isinstance(node, dict):
            shown = "" if node is None else printable(str(node))
            problem = Problem("row", "row", shown, _MAPPING, f"it is a {_kind(node)}")
            return CheckedRow(line, {"value": node}, None, (None,) * 4, (problem,))
        claimed = {self._field(key) for key in node} - {None}
        kept = {k: v for k, v in self._defaults.items() if self._field(k) not in claimed}
        cells = {**kept, **node}
        names, values, problems = self._pick(cells)
        values["user_id"] = values.get("user_id") or self._user_id
        picked = tuple(values.get(field) for field in FIELDS)
        user, code, name, system = picked
        device, broken = check(
            (user, code, name, system), tuple(names.get(field, field) for field in FIELDS)
        )
        # A field that holds a list is a problem of its own, not a missing one.
        named = {problem.field for problem in problems}
        problems += [problem for problem in broken if problem.field not in named]
        return CheckedRow(
            line,
            cells,
            None if problems else device,
            (user, code, name, system),
            tuple(problems),
        )

    def _pick(
        self, cells: Mapping[str, Any]
    ) -> tuple[dict[str, str], dict[str, str | None], list[Problem]]:
        """Return the operator's key and the value of each field, and what cannot be used."""
        names: dict[str, str] = {}
        values: dict[str, str | None] = {}
        problems: list[Problem] = []
        for key, value in cells.items():
            field = self._field(key)
            if field is None:
                if key not in OWN_COLUMNS and len(self._unknown) < MOST_NODES:
                    self._unknown[key] = None
            elif field in names:
                rule = f"{field}: one key for one field"
                found = f"`{names[field]}` claims it, too"
                problems.append(Problem(field, key, printable(str(value)), rule, found))
            elif isinstance(value, list | dict):
                names[field] = key
                found = f"it is a {_kind(value)}"
                problems.append(Problem(field, key, str(value), f"{field}: {_TEXT}", found))
            else:
                names[field] = key
                values[field] = trim(value)
        return names, values, problems

    def _field(self, key: str) -> str | None:
        if key not in self._fields:
            if len(self._fields) > MOST_NODES:
                return columns.field_of(key, self._mapping)
            self._fields[key] = columns.field_of(key, self._mapping)
        return self._fields[key]


def _kind(node: Node) -> str:
    if isinstance(node, dict):
        return "mapping"
    return "list" if isinstance(node, list) else "text"


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)

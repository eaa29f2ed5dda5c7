"""Devices as mappings, from YAML and JSON: fields by key, by path, or by the device's key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.checking import FEW, Checker, columns_of, good_values
from bulkbind.manifest.rules import printable, trim
from bulkbind.manifest.text import MOST_SHAPES, open_text
from bulkbind.model import OWN_COLUMNS, CheckedRow, Problem
from bulkbind.model.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from bulkbind.manifest.text import Text
    from bulkbind.model import Source
    from bulkbind.settings import ManifestSettings

BATCH = 128
"""Devices checked at a time; a batch with a broken one is split into smaller ones."""
_CODE = FIELDS.index("machine_code")
_MAPPING = "row: a device is a mapping of fields"
_TEXT = "a text, not a list or a mapping"
_NOT_BOOLEAN = "a text or a number, not true or false"

Node = Any
"""A string, number, boolean, None, list or mapping."""
Rows: TypeAlias = "Iterable[tuple[dict[str, Any], dict[str, str]]]"
"""Rows to write back: the device's keys, and `OWN_COLUMNS`."""


class Written(float):
    """A number with its original text, which a float would not keep."""

    __slots__ = ("text",)
    text: str

    @classmethod
    def read(cls, text: str) -> Written | str:
        """Return the number, or its text if it exceeds the range of a float."""
        number = cls(text)
        if number in (float("inf"), float("-inf")):
            return text
        number.text = text
        return number


class Item(NamedTuple):
    """The value at a device's place in the file."""

    line: int
    node: Node
    problem: Problem | None = None
    """Why it could not be read."""

    @classmethod
    def with_repeated_key(cls, line: int, key: str, found: str) -> Self:
        """Return an item that is refused because of a repeated key."""
        rule = "row: a key stands once in a device"
        return cls(line, None, Problem("row", "row", printable(key), rule, found))

    def under(self, key: str, line: int) -> Item:
        """Return the device with the key that it has in a mapping of devices as `@key`."""
        node = {columns.KEY: key, **self.node} if isinstance(self.node, dict) else self.node
        return Item(line, node, self.problem)


class _Shape(NamedTuple):
    """The location of the fields in devices with the same keys."""

    names: tuple[str, ...]
    """The operator's key of each of `FIELDS`."""
    paths: tuple[tuple[str, ...] | None, ...]
    claims: tuple[tuple[str, str, str], ...]
    """Field, second key that claims it, and the key that has it."""
    at: tuple[int | None, ...] | None
    """Positions among the keys; None if any field is nested."""


class Tree:
    """Turns mappings into checked rows."""

    def __init__(self, name: str, settings: ManifestSettings) -> None:
        self._name = name
        self._settings = settings
        self._mapping = settings.columns
        self._checker = Checker(cleans=settings.clean == "names")
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._unknown: dict[str, None] = {}
        self._fills: dict[str, str | None] = {"user_id": settings.user_id, **settings.constants}
        self._has_code = False

    @property
    def is_keyed(self) -> bool:
        """Whether a field is mapped to the devices' own keys."""
        return columns.KEY in self._mapping.values()

    def rows(self, items: Iterable[Item], defaults: dict[str, Any]) -> Iterator[CheckedRow]:
        """Yield a row for each item, in batches. *defaults*: for keys that a device lacks."""
        batch: list[Item] = []
        try:
            for item in items:
                batch.append(item)
                if len(batch) == BATCH:
                    yield from self._batch(batch, defaults)
                    batch = []
        except ManifestError:
            self._has_code = True  # the file's own error takes precedence
            yield from self._batch(batch, defaults)
            raise
        yield from self._batch(batch, defaults)

    def notices(self) -> Iterator[str]:
        """Yield the notices."""
        if self._unknown:
            names = printable(", ".join(list(self._unknown)[:20]))
            yield f"{self._name}: keys kept but not sent: {names}"
        yield from self._checker.notices(self._name)

    def _guess(self) -> str:
        missing = {field for field in FIELDS if not self._fills.get(field)}
        for shape in self._shapes.values():
            missing -= {field for field, path in zip(FIELDS, shape.paths, strict=True) if path}
        return columns.suggestion(list(self._unknown), missing, self._mapping, has_positions=False)

    def _require_code(self, nodes: Sequence[Node], defaults: dict[str, Any]) -> None:
        """Refuse a file in which none of the first devices has a key for machine_code."""
        if self._has_code or "machine_code" in self._fills:
            return
        shapes = [self._shape((*defaults, *node)) for node in nodes if isinstance(node, dict)]
        self._has_code = any(shape.paths[_CODE] is not None for shape in shapes)
        if self._unknown and not self._has_code:
            shown = ", ".join(f"`{key}`" for key in list(self._unknown)[:20]) or "none"
            raise ManifestError(
                f"{self._name}: no device has a key for machine_code; keys found: {shown}",
                hint=self._guess() + "--map machine_code=KEY names another key, a path as "
                "data.serial, or @key for the key of the device itself",
            )

    def _batch(self, items: Sequence[Item], defaults: dict[str, Any]) -> Iterator[CheckedRow]:
        self._require_code([item.node for item in items], defaults)
        yield from self._parts(items, defaults)

    def _parts(self, items: Sequence[Item], defaults: dict[str, Any]) -> Iterator[CheckedRow]:
        fast = None if defaults else self._fast(items)
        if fast is not None:
            yield from fast
            return
        if len(items) > FEW and not defaults:
            half = len(items) // 2
            yield from self._parts(items[:half], defaults)
            yield from self._parts(items[half:], defaults)
            return
        for item in items:
            if item.problem is not None:
                yield CheckedRow(item.line, {}, (None,) * len(FIELDS), (item.problem,))
            else:
                yield self._checked(item.line, item.node, defaults)

    def _fast(self, items: Sequence[Item]) -> Iterator[CheckedRow] | None:
        """Return the rows if all devices are valid and have the same keys; otherwise None."""
        nodes = [item.node for item in items]
        if set(map(type, nodes)) != {dict}:
            return None
        keys = set(map(tuple, nodes))
        if len(keys) != 1:
            return None
        shape = self._shape(keys.pop())
        if shape.at is None or shape.claims:
            return None
        cells = list(zip(*(node.values() for node in nodes), strict=True))
        places = columns_of(shape.at, self._settings)
        if any(p.at is not None and set(map(type, cells[p.at])) != {str} for p in places):
            return None
        values = good_values(places, cells, len(nodes))
        if values is None:
            return None
        lines = [item.line for item in items]
        self._checker.suspicions.add(values[1], lines)  # type: ignore[arg-type]  # it is required
        return map(CheckedRow, lines, nodes, zip(*values, strict=True))

    def _checked(self, line: int, node: Node, defaults: dict[str, Any]) -> CheckedRow:
        if not isinstance(node, dict):
            shown = "" if node is None else printable(text_of(node) or str(node))
            problem = Problem("row", "row", shown, _MAPPING, f"it is {_kind(node)}")
            return CheckedRow(line, {"value": node}, (None,) * len(FIELDS), (problem,))
        cells = self._with_defaults(node, defaults) if defaults else node
        shape = self._shape(tuple(cells))
        problems = [self._claimed(cells, *claim) for claim in shape.claims]
        values: list[str | None] = []
        for field, name, path in zip(FIELDS, shape.names, shape.paths, strict=True):
            found = None
            if path is not None:
                found = columns.at_path(cells, path)
                if isinstance(found, list | dict | bool):
                    problems.append(_not_text(field, name, found))
            values.append(trim(text_of(found)) or self._fills.get(field))
        return self._checker.row(line, cells, tuple(values), shape.names, problems)

    def _with_defaults(self, node: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        """Return a device with defaults for the fields that it lacks in any spelling."""
        stated = {columns.field_of(key, self._mapping) for key in node} - {None}
        kept = {
            key: value
            for key, value in defaults.items()
            if columns.field_of(key, self._mapping) not in stated
        }
        return {**kept, **node}

    def _claimed(self, cells: dict[str, Any], field: str, key: str, other: str) -> Problem:
        shown = printable(text_of(cells[key]) or str(cells[key]))
        return Problem(
            field, key, shown, f"{field}: one key for one field", f"`{other}` claims it, too"
        )

    def _shape(self, keys: tuple[str, ...]) -> _Shape:
        shape = self._shapes.get(keys)
        if shape is None:
            shape = self._find(keys)
            if len(self._shapes) < MOST_SHAPES:
                self._shapes[keys] = shape
        return shape

    def _find(self, keys: tuple[str, ...]) -> _Shape:
        names: dict[str, str] = {}
        paths: dict[str, tuple[str, ...]] = {}
        claims = []
        for key in keys:
            field = columns.field_of(key, self._mapping)
            if field in self._settings.constants:
                continue
            if field is None:
                if key not in OWN_COLUMNS and len(self._unknown) < MOST_SHAPES:
                    self._unknown[printable(key)] = None
            elif field in names:
                claims.append((field, key, names[field]))
            else:
                names[field] = key
                paths[field] = (key,)
        for field, column in self._mapping.items():
            first, _, rest = column.partition(".")
            if rest and field not in names and first in keys:
                names[field] = column
                paths[field] = (first, *rest.split("."))
                self._unknown.pop(first, None)
        at = None
        if all(len(path) == 1 for path in paths.values()):
            at = tuple(keys.index(names[f]) if f in names else None for f in FIELDS)
        return _Shape(
            tuple(printable(names.get(f, self._mapping.get(f, f))) for f in FIELDS),
            tuple(paths.get(f) for f in FIELDS),
            tuple(claims),
            at,
        )


def text_of(node: Node) -> str | None:
    """Return a string or number as text; None for anything else."""
    if isinstance(node, str):
        return node
    if isinstance(node, Written):
        return node.text
    if isinstance(node, int) and not isinstance(node, bool):
        return str(node)  # readers keep numbers too long for str() as text
    return None


def _not_text(field: str, name: str, found: Node) -> Problem:
    if isinstance(found, bool):
        shown = "true" if found else "false"
        return Problem(field, name, shown, f"{field}: {_NOT_BOOLEAN}", f"it is {shown}")
    shown = printable(str(found))
    return Problem(field, name, shown, f"{field}: {_TEXT}", f"it is {_kind(found)}")


def _kind(node: Node) -> str:
    if isinstance(node, dict):
        return "a mapping"
    if node is None:
        return "empty"
    return "a list" if isinstance(node, list) else "a text"


class TreeManifest(ABC):
    """One file.

    Attributes:
        source: Name, format and encoding.
        notices: For the operator; complete once the rows have been read.
    """

    undecodable: ClassVar[str | None] = None
    """The `errors` of `open_text`."""

    def __init__(
        self,
        path: Path,
        source: Source,
        head: str,  # noqa: ARG002  # required by Opens
        settings: ManifestSettings,
    ) -> None:
        self._path = path
        self._tree = Tree(source.name, settings)
        self.source = source
        self.notices: list[str] = []

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every device with its first line. Raises: ManifestError if it is no manifest."""
        with open_text(self._path, self.source, self.undecodable) as text:
            yield from self._read(text)
        self.notices += self._tree.notices()

    @abstractmethod
    def _read(self, text: Text) -> Iterator[CheckedRow]:
        """Yield every device of a text."""


def with_own(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yield the devices to write back: their keys, and `OWN_COLUMNS` behind them."""
    for cells, own in rows:
        yield {key: value for key, value in cells.items() if key not in OWN_COLUMNS} | own

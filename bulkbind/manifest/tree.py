"""Devices as mappings, from YAML and JSON: fields by key, by path, or by the device's key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from functools import partial
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from msgspec.structs import replace

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.checking import (
    FEW,
    Checker,
    asked_cell,
    columns_of,
    covered_problem,
)
from bulkbind.manifest.conditions import asked_columns
from bulkbind.manifest.likely_causes import Fault
from bulkbind.manifest.rules import RULES, Rule, printable, trim
from bulkbind.manifest.shapes import FORMS, Survey, next_page
from bulkbind.manifest.text import MOST_SHAPES, open_text
from bulkbind.model import OWN_COLUMNS, CheckedRow, Problem
from bulkbind.model.fields import FIELDS
from bulkbind.redaction import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    from bulkbind.manifest.opened import ManifestFile
    from bulkbind.manifest.text import Text
    from bulkbind.model import Source
    from bulkbind.settings import ManifestSettings

BATCH = 128
"""Devices checked at a time; a batch with a broken one is split into smaller ones."""
FEW_NAMES = 20
"""Names shown in one notice."""
_USER, _CODE = FIELDS.index("user_id"), FIELDS.index("machine_code")
_MAPPING = "row: a device is a mapping of fields"
_TEXT = "a text, not a list or a mapping"
_NOT_BOOLEAN = "a text or a number, not true or false"
_TAG = "a value without a tag of another program"
_WRITE = "write the value itself"
_OWN = frozenset(OWN_COLUMNS)

Node = Any
"""A string, number, boolean, None, list or mapping."""
Kept: TypeAlias = str | dict[str, Any]
"""The operator's own text of a device; in ledgers of earlier versions, its mapping."""
Rows: TypeAlias = "Iterable[tuple[Kept, dict[str, str]]]"
"""Rows to write back, and `OWN_COLUMNS` with what they say of each."""


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


class Tagged(NamedTuple):
    """A YAML value with a tag that means something to another program alone."""

    tag: str
    node: Node

    @property
    def problem(self) -> str:
        """What is wrong with it."""
        return f"`{printable(self.shown_tag)}` is a tag that is not known here"

    @property
    def shown_tag(self) -> str:
        """The tag as in a file without directives."""
        return self.tag if self.tag.startswith("!") else f"!<{self.tag}>"

    @property
    def shown(self) -> str:
        """The tag and the value for messages."""
        text = text_of(self.node)
        return printable(self.shown_tag if text is None else f"{self.shown_tag} {text}")


class Defaults(NamedTuple):
    """The values of keys that a device of the same document lacks."""

    values: dict[str, Any]
    members: dict[str, str]
    """Each key with its value as text in the syntax of the format."""


class Item(NamedTuple):
    """The value at a device's place in the file."""

    line: int
    node: Node
    text: str
    """The operator's own text of the value."""
    problem: Problem | None = None
    """Why it could not be read."""
    defaults: Defaults | None = None

    @classmethod
    def with_repeated_key(cls, line: int, key: str, found: str, text: str) -> Self:
        """Return an item that is refused because of a repeated key."""
        rule = "row: a key stands once in a device"
        return cls(line, None, text, Problem("row", "row", printable(key), rule, found))


plain_item: Callable[[tuple[int, Node, str, None, Defaults | None]], Item]
plain_item = partial(tuple.__new__, Item)
"""Makes an item in half the time that its class takes."""


class _Shape(NamedTuple):
    """The location of the fields in devices with the same keys."""

    names: tuple[str, ...]
    """The operator's key of each of `FIELDS`."""
    paths: tuple[tuple[str, ...] | None, ...]
    claims: tuple[tuple[str, str, str], ...]
    """Field, second key that claims it, and the key that has it."""
    at: tuple[int | None, ...] | None
    """Positions among the keys; None if any field is nested."""
    lookalikes: dict[str, list[int]]
    """Positions of keys that may be meant for a field without a key, by the field."""


class Tree:
    """Turns mappings into checked rows."""

    def __init__(self, name: str, settings: ManifestSettings, form: type[TreeManifest]) -> None:
        """*form*: what knows the text of devices."""
        self._name = name
        self._form = form
        self._settings = settings
        self._mapping = settings.columns
        self._checker = Checker(settings)
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        self._unknown: dict[str, None] = {}
        self._read_as = ""
        self._fills: dict[str, str | None] = {"user_id": settings.user_id, **settings.constants}
        self._has_code = False
        self._asked = asked_columns(settings)
        self._missing = set(self._asked)
        """Columns asked for that no device had so far."""
        self._names: dict[str, None] = {}
        self._asked_paths: dict[tuple[str, ...], tuple[str, ...] | Problem | None] = {}
        """Where it stands, by the column and a device's keys."""

    @property
    def is_keyed(self) -> bool:
        """Whether a field is mapped to the devices' own keys."""
        return columns.KEY in self._mapping.values()

    def rows(self, items: Iterable[Item]) -> Iterator[CheckedRow]:
        """Yield a row for each item, in batches.

        What `write_failed` puts before a value that is no mapping, its status and reason, is no
        item.
        """
        iterator = iter(items)
        while True:
            batch: list[Item] = []
            try:
                batch.extend(islice(iterator, BATCH))
            except ManifestError:
                self._has_code = True  # the file's own error takes precedence
                yield from self._batch(batch)
                raise
            if not batch:
                return
            yield from self._batch(batch)

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a device has under the keys that the operator asks for."""
        return [self._value(row.cells, column) for column in self._asked]

    def _value(self, cells: Any, column: str) -> str | Problem:  # noqa: ANN401  # a mapping
        known = (column, *cells)
        path = self._asked_paths.get(known, ())
        if path == ():
            path = self._path(cells, column)
            if len(self._asked_paths) < MOST_SHAPES:
                self._asked_paths[known] = path
        if path is None:
            return ""
        if isinstance(path, Problem):
            return path
        self._missing.discard(column)
        found, misfit = at_path(cells, path)
        if found is None:
            return ""
        name = printable(".".join(path))
        if isinstance(found, bool):
            return "true" if found else "false"
        text = text_of(found)
        if misfit or text is None:
            return _not_text("row", name, found, misfit=misfit)
        return asked_cell(name, text)

    def _path(self, cells: dict[str, Any], column: str) -> tuple[str, ...] | Problem | None:
        """Return where a device has what a column's name says; None if it has no such key."""
        alike = [key for key in cells if key == column or columns.same(key, column)]
        if len(alike) > 1:
            return Problem(
                "row", column, printable(", ".join(alike)), "row: one key for one column",
                "several keys, or one and a default, are called so",
            )  # fmt: skip
        if alike:
            return (alike[0],)
        first, _, rest = column.partition(".")
        if rest and first in cells:
            return (first, *rest.split("."))
        field = columns.field_of(column, {})
        found = self._shape(tuple(cells)).paths[FIELDS.index(field)] if field else None
        if found is None and len(self._names) < MOST_SHAPES:
            self._names |= dict.fromkeys(cells)
        return found

    def refuse_unknown(self) -> None:
        """Refuse a column that is asked for and that no device has. Raises: ManifestError."""
        if self._names and self._missing:
            column = next(name for name in self._asked if name in self._missing)
            raise columns.unknown_column(self._name, column, list(self._names))

    def notices(self) -> Iterator[str]:
        """Yield the notices."""
        if self._read_as:
            yield f"{self._name}: key {self._read_as}"
        if self._unknown:
            names = printable(", ".join(list(self._unknown)[:FEW_NAMES]))
            yield f"{self._name}: keys kept but not sent: {names}"
        yield from self._checker.notices(self._name)

    def _guess(self) -> str:
        missing = {field for field in FIELDS if not self._fills.get(field)}
        for shape in self._shapes.values():
            missing -= {field for field, path in zip(FIELDS, shape.paths, strict=True) if path}
        return columns.suggestion(list(self._unknown), missing, self._mapping, has_positions=False)

    def _require_code(self, items: Sequence[Item]) -> None:
        """Refuse a file in which none of the first devices has a key for machine_code."""
        if self._has_code or "machine_code" in self._fills:
            return
        shapes = [
            self._shape((*(item.defaults.values if item.defaults else ()), *item.node))
            for item in items
            if isinstance(item.node, dict)
        ]
        self._has_code = any(shape.paths[_CODE] is not None for shape in shapes)
        if self._unknown and not self._has_code:
            shown = ", ".join(f"`{key}`" for key in list(self._unknown)[:FEW_NAMES]) or "none"
            raise ManifestError(
                f"{self._name}: no device has a key for machine_code; keys found: {shown}",
                hint=lines(
                    (
                        self._guess() + "--map machine_code=KEY names another key, a path as "
                        "data.serial, or @key for the key of the device itself"
                    ).split("\n")
                ),
                names=list(self._unknown),
            )

    def _batch(self, items: Sequence[Item]) -> Iterator[CheckedRow]:
        self._require_code(items)
        yield from self._parts(items)

    def _parts(self, items: Sequence[Item]) -> Iterator[CheckedRow]:
        if not items:
            return
        lines, nodes, texts, _, defaults = zip(*items, strict=True)
        has_defaults = any(defaults)
        fast = None if has_defaults else self._fast(lines, nodes, texts)
        if fast is not None:
            yield from fast
            return
        if len(items) > FEW and not has_defaults:
            half = len(items) // 2
            yield from self._parts(items[:half])
            yield from self._parts(items[half:])
            return
        for item in items:
            if not _is_note(item.node):
                yield self._checked(item)

    def _fast(
        self, lines: Sequence[int], nodes: Sequence[Node], texts: Sequence[str]
    ) -> Iterator[CheckedRow] | None:
        """Return the rows if all devices are valid and have the same keys; otherwise None."""
        if set(map(type, nodes)) != {dict}:
            return None
        keys = set(map(tuple, nodes))
        if len(keys) != 1:
            return None
        shape = self._shape(keys.pop())
        is_unsure = not self._fills.keys().isdisjoint(shape.lookalikes)
        if shape.at is None or shape.claims or is_unsure or _is_note(nodes[0]):
            return None
        cells = list(zip(*(node.values() for node in nodes), strict=True))
        places = columns_of(shape.at, self._settings)
        used = [at for place in places for at in (place.at, place.covered) if at is not None]
        if any(set(map(type, cells[at])) != {str} for at in used):
            return None
        good = self._checker.good(places, cells, len(nodes))
        if good is None:
            return None
        self._checker.accept(good, places, cells, lines, shape.names)
        nothing = repeat(())
        rows = zip(*good.values, strict=True)
        return map(CheckedRow, lines, nodes, rows, nothing, nothing, texts)

    def _checked(self, item: Item) -> CheckedRow:
        line, node, text, problem, defaults = item
        if defaults:
            node, text = self._with_defaults(node, text, defaults)
        if problem is None and not isinstance(node, dict):
            problem = _no_mapping(node)
        if problem is not None:
            cells = node if isinstance(node, dict) else {"value": node}
            return CheckedRow(line, cells, (None,) * len(FIELDS), (problem,), text=text)
        unsure = list(self._unsure(node, defaults))
        return replace(self._ruled(line, node, unsure), text=text)

    def _ruled(self, line: int, cells: dict[str, Any], unsure: Sequence[Problem]) -> CheckedRow:
        shape = self._shape(tuple(cells))
        problems = [self._claimed(cells, *claim) for claim in shape.claims]
        values: list[str | None] = []
        for rule, name, path in zip(RULES, shape.names, shape.paths, strict=True):
            found, misfit = at_path(cells, path) if path is not None else (None, False)
            value = None
            if rule.field in self._settings.constants:
                problem = self._covered(rule, name, found, misfit=misfit)
            elif misfit or isinstance(found, list | dict | bool | Tagged):
                problem = _not_text(rule.field, name, found, misfit=misfit)
            else:
                value = trim(text_of(found))
                problem = None
            if problem is not None:
                problems.append(problem)
            # A value for all rows is for what is empty.
            values.append(value if problem else value or self._fills.get(rule.field))
        return self._checker.row(line, cells, tuple(values), shape.names, [*problems, *unsure])

    def _covered(self, rule: Rule, name: str, found: Node, *, misfit: bool) -> Problem | None:
        """Return the problem of a damaged value that a constant would replace."""
        if misfit:
            return _not_text(rule.field, name, found, misfit=True)
        if isinstance(found, Tagged):
            fault = Fault(found.problem, _WRITE, _TAG)
            return covered_problem(rule.field, name, found.shown, fault)
        value = trim(text_of(found)) or ""
        hidden = self._checker.fault_behind(rule, value)
        return covered_problem(rule.field, name, value, hidden) if hidden else None

    def _unsure(self, node: dict[str, Any], defaults: Defaults | None) -> Iterator[Problem]:
        """Yield the problems of fields that a fallback fills though a key may be meant for them."""
        keys = tuple(node)
        lookalikes = self._shape(keys).lookalikes
        given = set(self._fields_of(defaults.values).values()) if defaults and lookalikes else set()
        for field, found in lookalikes.items():
            if self._fills.get(field) or field in given:
                key = keys[found[0]]
                yield Problem(
                    field, key, printable(text_of(node[key]) or str(node[key])),
                    f"{field}: its key, not one that is like it",
                    "it may be meant, and a value for all rows would take its place",
                    columns.ways_on(field, found, keys, has_positions=False),
                )  # fmt: skip

    def _fields_of(self, keys: Collection[str]) -> dict[str, str | None]:
        """Return the field of each key, None if it is no field's."""
        ignored = columns.ignored(tuple(keys), self._settings)
        return {
            key: None if key in ignored else columns.field_of(key, self._mapping) for key in keys
        }

    def _with_defaults(self, node: Node, text: str, defaults: Defaults) -> tuple[Node, str]:
        """Return a device with defaults for the fields that it lacks in any spelling."""
        keys = tuple(node) if isinstance(node, dict) else self._form.keys(text)
        stated = set(self._fields_of(keys).values()) - {None}
        stated |= {*self._shape(tuple(dict.fromkeys(keys))).lookalikes}
        fields = self._fields_of(defaults.values)
        kept = {
            key: value
            for key, value in defaults.values.items()
            if key not in keys and fields[key] not in stated
        }
        members = [defaults.members[key] for key in kept]
        filled = self._form.fill(text, members) if kept else text
        return {**kept, **node} if isinstance(node, dict) else node, filled

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
        for key, field in self._fields_of(keys).items():
            if field in self._settings.constants and field in names:
                continue
            if field is None:
                if key not in OWN_COLUMNS and len(self._unknown) < MOST_SHAPES:
                    self._unknown[printable(key)] = None
            elif field in names:
                claims.append((field, key, names[field]))
            else:
                names[field] = key
                paths[field] = (key,)
                if (how := columns.read_as(key, field, self._mapping)) and not self._read_as:
                    self._read_as = how
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
            dict(self._lookalikes(keys, names)),
        )

    def _lookalikes(
        self, keys: Sequence[str], names: Mapping[str, str]
    ) -> Iterator[tuple[str, list[int]]]:
        without = columns.ignored(keys, self._settings).union(names.values())
        others = ["" if key in without else key for key in keys]
        by_synonym = self._settings.user_key is None
        for field in FIELDS:
            if field in names or field in self._settings.constants:
                continue
            if at := columns.resembling(field, others, self._mapping, by_synonym=by_synonym):
                yield field, at


def text_of(node: Node) -> str | None:
    """Return a string or number as text; None for anything else."""
    if isinstance(node, str):
        return node
    if isinstance(node, Written):
        return node.text
    if isinstance(node, int) and not isinstance(node, bool):
        return str(node)  # readers keep numbers too long for str() as text
    return None


def _is_note(node: Node) -> bool:
    """Whether it is no device, but holds status and reason alone."""
    return isinstance(node, dict) and bool(node) and _OWN.issuperset(node)


def at_path(node: Node, path: Sequence[str]) -> tuple[Node, bool]:
    """Return the value at a path of keys and list positions; None if there is none.

    Also returns whether the path leads through what is neither: then the value is that.
    """
    for part in path:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and part.isdecimal():
            node = node[int(part[:6])] if int(part[:6]) < len(node) else None
        else:
            return node, node is not None
    return node, False


def _no_mapping(node: Node) -> Problem:
    if isinstance(node, Tagged):
        return Problem("row", "row", node.shown, f"row: {_TAG}", node.problem)
    shown = "" if node is None else printable(text_of(node) or str(node))
    return Problem("row", "row", shown, _MAPPING, f"it is {_kind(node)}")


def _not_text(field: str, name: str, found: Node, *, misfit: bool) -> Problem:
    if isinstance(found, Tagged):
        return Problem(field, name, found.shown, f"{field}: {_TAG}", found.problem, _WRITE)
    if isinstance(found, bool):
        shown = "true" if found else "false"
        return Problem(field, name, shown, f"{field}: {_NOT_BOOLEAN}", f"it is {shown}")
    shown = printable(text_of(found) or str(found))
    where = "what should hold it is" if misfit else "it is"
    return Problem(field, name, shown, f"{field}: {_TEXT}", f"{where} {_kind(found)}")


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
        manifest: ManifestFile,
        source: Source,
        head: str,  # noqa: ARG002  # required by Opens
        settings: ManifestSettings,
    ) -> None:
        self._manifest = manifest
        self._settings = settings
        self._tree = Tree(source.name, settings, type(self))
        self._survey = Survey(settings)
        self._unused: dict[str, None] = {}
        self._is_page = False
        self.source = source
        self.notices: list[str] = []

    def rows(self) -> Iterator[CheckedRow]:
        """Yield every device with its first line. Raises: ManifestError if it is no manifest."""
        with ExitStack() as self._files:
            yield from self._tree.rows(self._items(self._open()))
        self._tree.refuse_unknown()
        if self._unused:
            few = printable(", ".join(islice(self._unused, FEW_NAMES)))
            more = len(self._unused) - FEW_NAMES
            shown = f"{few} and {more:,} more" if more > 0 else few
            self.notices.append(f"{self.source.name}: keys that are not used: {shown}")
        self.notices += self._tree.notices()

    def asked(self, row: CheckedRow) -> list[str | Problem]:
        """Return what a device has under the keys that the operator asks for."""
        return self._tree.asked(row)

    def _open(self) -> Text:
        return self._files.enter_context(open_text(self._manifest, self.source, self.undecodable))

    def _pass_over(self, key: str, value: Node) -> None:
        """Note a key beside the devices."""
        if len(self._unused) < MOST_SHAPES:
            self._unused[key] = None
        if not self._is_page and (page := next_page(key, value)):
            self._is_page = True
            self.notices.append(
                f"{self.source.name}: `{printable(page)}` says that more pages follow: this is one "
                "page of several"
            )

    def _guarded(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield the values of a mapping, which are devices as far as it was looked at.

        Raises: ManifestError for what is none, unless the operator named the mapping.
        """
        for item in items:
            if not (self._settings.items or item.problem or self._survey.is_entry(item.node)):
                is_mapping = isinstance(item.node, dict)
                key = item.node[columns.KEY] if is_mapping else self.keys(item.text)[0]
                raise ManifestError(
                    f"{self.source.name}:{item.line}: `{printable(key)}` is no device, as those "
                    "before it are",
                    hint=FORMS,
                )
            yield item

    def _missing(self, key: str, seen: Iterable[str]) -> ManifestError:
        """Return the error of a document without the key under which the devices stand."""
        shown = ", ".join(f"`{printable(name)}`" for name in islice(seen, FEW_NAMES))
        found = f"; keys found: {shown}" if shown else ""
        return ManifestError(f"{self.source.name}: no `{printable(key)}` in it{found}", hint=FORMS)

    @abstractmethod
    def _items(self, text: Text) -> Iterator[Item]:
        """Yield every device of a text."""

    @staticmethod
    @abstractmethod
    def fill(text: str, members: Sequence[str]) -> str:
        """Return the text of a device with members, as text, added before its own."""

    @staticmethod
    @abstractmethod
    def keys(text: str) -> Sequence[str]:
        """Return the keys in the text of a device, also where they are repeated."""


def mapping_with_own(cells: dict[str, Any], own: Mapping[str, str]) -> dict[str, Any]:
    """Return the mapping of a device with bulkbind's own keys behind the others."""
    return {key: value for key, value in cells.items() if key not in own} | dict(own)

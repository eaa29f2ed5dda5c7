"""Where the devices stand in a document of YAML or JSON: what its lists and mappings hold.

Without `@key`, devices are the mappings of a list with a key for machine_code, or the document
itself. With it, they are the values of a mapping: mappings of fields, not of further mappings.
"""

from __future__ import annotations

from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.errors import ManifestError
from bulkbind.manifest import columns
from bulkbind.manifest.rules import printable
from bulkbind.manifest.text import DEEPEST, MOST_SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bulkbind.settings import ManifestSettings

FORMS = (
    "a manifest is a list of devices, or `defaults` and `devices`, or one device; --items PATH "
    "names the list in a larger document; where each device stands under a key of its own, "
    "--map FIELD=@key takes that key"
)
DEVICES = "devices"
DEFAULTS = "defaults"
TOP = "."
"""The path of the document itself."""
_FEW = 5
"""Names shown in a message."""
_LOOKED_AT = 1_000
"""Items of a list, and keys of a mapping, whose keys are looked at."""
_ENOUGH = 200
"""Devices under keys of their own, after which a document holds nothing else."""
_GROUP_KEYS = frozenset(("hosts", "children"))
"""Keys under which an inventory of Ansible's has devices and groups, beside variables."""
_PAGE_KEYS = frozenset(
    (
        *("next", "nexturl", "nexthref", "nextlink", "nextpage", "nextpagelink", "nextpagetoken"),
        *("nextpageurl", "nexttoken", "nextcursor", "nextmarker", "nextrecordsurl", "nextoffset"),
        *("nextstart", "@odata.nextlink", "odata.nextlink", "hasmore", "hasnext", "hasnextpage"),
        *("morerecords", "istruncated"),
    )
)
"""What APIs call the next page of a list, without case, hyphens and underscores."""
_PAGE_PARTS = frozenset(
    (
        *("links", "paging", "pagination", "page", "pageinfo", "pageinformation", "meta"),
        *("metadata", "responsemetadata", "cursor", "cursors", "info"),
    )
)
"""What they call the mapping that holds it."""

Path = tuple[str, ...]


class Pairs(NamedTuple):
    """A mapping that is read as it is walked through."""

    pairs: Iterator[tuple[Any, Any]]


class Entries(NamedTuple):
    """A list that is read as it is walked through."""

    entries: Iterator[Any]


ANY = object()
"""A value of unknown kind, as an alias of YAML."""


class Kind(Enum):
    """What a value is for the mapping that holds it."""

    EMPTY = "empty"
    VALUE = "a value"
    LIST = "a list"
    DEVICE = "a device"
    """A mapping of fields."""
    GROUP = "a group"
    """A mapping of mappings."""
    ANY = "unknown"


class _Place(NamedTuple):
    """A list or mapping in a document."""

    path: Path
    keys: tuple[str, ...]
    """A few keys of its items (list), or in it (mapping)."""


class Survey:
    """What the lists and mappings of a document hold.

    Attributes:
        keys: The first keys of the document.
        count: How many it has.
    """

    def __init__(self, settings: ManifestSettings, devices: str = DEVICES) -> None:
        """*devices*: how the usual key of the list is called in messages."""
        self._devices = devices
        self._mapping = {
            field: column
            for field, column in settings.columns.items()
            if field not in settings.constants
        }
        self._is_keyed = columns.KEY in self._mapping.values()
        self._has_any_code = "machine_code" in settings.constants
        self._firsts = {
            column.partition(".")[0]: field
            for field, column in self._mapping.items()
            if "." in column
        }
        self._fields: dict[str, str | None] = {}
        self._sure: list[_Place] = []
        self._lists: list[_Place] = []
        self._maps: list[_Place] = []
        self._groups: list[_Place] = []
        self._is_device = False
        self._tops: dict[str, Kind] = {}
        self.keys: tuple[str, ...] = ()
        self.count = 0

    def look(self, document: Any) -> None:  # noqa: ANN401  # a mapping, or `Pairs`
        """Take in a document. Raises: ManifestError where a lazily read one cannot be read."""
        self._node(document, ())

    def field_of(self, key: str) -> str | None:
        """Return the field that a key, or the first part of a mapped path, is for."""
        if key not in self._fields:
            found = columns.field_of(key, self._mapping) or self._firsts.get(key)
            if len(self._fields) >= MOST_SHAPES:
                return found
            self._fields[key] = found
        return self._fields[key]

    def is_device(self, keys: Iterable[str]) -> bool:
        """Whether a mapping with these keys states a machine code."""
        return any(self.field_of(key) == "machine_code" for key in keys)

    def is_entry(self, node: Any) -> bool:  # noqa: ANN401  # any value
        """Whether the value of a mapping, with its key under `@key`, is a device."""
        if not isinstance(node, dict) or node.get(columns.KEY) in (DEFAULTS, DEVICES):
            return False
        if dict not in map(type, node.values()):
            return True
        inner = {key: value for key, value in node.items() if key != columns.KEY}
        if any(isinstance(inner.get(key), dict) for key in _GROUP_KEYS):
            return False
        has_others = any(not isinstance(value, dict | None) for value in inner.values())
        return has_others or any(map(self.field_of, inner))

    # --- walking through ---------------------------------------------------------------------

    def _node(self, node: Any, path: Path) -> tuple[Kind, tuple[str, ...]]:  # noqa: ANN401
        """Return what a value is, and the first of its keys."""
        if isinstance(node, dict):
            return self._walk(iter(node.items()), path)
        if type(node) is Pairs:
            return self._walk(node.pairs, path)
        if isinstance(node, list):
            self._list(iter(node), path)
            return Kind.LIST, ()
        if type(node) is Entries:
            self._list(node.entries, path)
            return Kind.LIST, ()
        if node is ANY:
            return Kind.ANY, ()
        return (Kind.EMPTY if node is None else Kind.VALUE), ()

    def _list(self, entries: Iterator[Any], path: Path) -> None:
        found: dict[str, None] = {}
        has_mapping = False
        for entry in islice(entries, _LOOKED_AT):
            if isinstance(entry, dict) or type(entry) is Pairs:
                has_mapping = True
                keys = entry if isinstance(entry, dict) else _keys(entry)
                if len(found) < MOST_SHAPES:
                    found |= dict.fromkeys(islice(map(str, keys), MOST_SHAPES))
            _exhaust(entry)
        for entry in entries:
            _exhaust(entry)
        if not has_mapping:
            return
        place = _Place(path, tuple(found)[:_FEW])
        self._lists.append(place)
        if self._has_any_code or self.is_device(found):
            self._sure.append(place)

    def _walk(self, pairs: Iterator[tuple[Any, Any]], path: Path) -> tuple[Kind, tuple[str, ...]]:
        if len(path) > DEEPEST:
            for _, value in pairs:
                _exhaust(value)
            return Kind.VALUE, ()
        before = len(self._maps)
        kinds: dict[Kind, int] = {}
        keys: list[str] = []
        common = _Common()
        for count, (name, value) in enumerate(pairs, start=1):
            key = str(name)
            kind, inner = self._node(value, (*path, key))
            kinds[kind] = kinds.get(kind, 0) + 1
            if len(keys) < _LOOKED_AT:
                keys.append(key)
            common.is_group |= key in _GROUP_KEYS and kind in (Kind.DEVICE, Kind.GROUP)
            common.add(inner, has_field=kind is Kind.DEVICE and any(map(self.field_of, inner)))
            if not path and self._is_clear(key, kind, count, kinds, common):
                self._maps = [_Place(path, ())]
                return Kind.DEVICE, ()
        return self._judged(path, keys, kinds, common, before), tuple(keys)

    def _judged(
        self, path: Path, keys: list[str], kinds: dict[Kind, int], common: _Common, before: int
    ) -> Kind:
        """Return what a mapping is; *before*: the mappings of devices found before it."""
        kind = self._kind_of(kinds, keys, is_group=common.is_group)
        if not path:
            self.keys, self.count = tuple(keys[:_FEW]), sum(kinds.values())
        if not self._is_keyed or not keys:
            return kind
        place = _Place(path, tuple(keys[:_FEW]))
        if self._holds_devices(kinds) and common.is_one_kind and not common.is_group:
            # A single one with devices in it may be what holds them, unless it has fields itself.
            kept = self._maps[before:] if len(keys) == 1 and not common.has_field else []
            self._maps[before:] = [place, *kept]
            return kind
        is_other = common.is_group or kinds.get(Kind.VALUE) or kinds.get(Kind.LIST)
        if self._maps[before:] and kinds.get(Kind.DEVICE) and not is_other:
            self._maps.insert(before, place)  # it may be that some of its devices lack fields
        if kind is Kind.GROUP:
            self._groups.append(place)
        return kind

    def _top(self, key: str, kind: Kind) -> None:
        if key in (DEVICES, DEFAULTS):
            self._tops[key] = kind
        if key not in self._firsts or kind in (Kind.DEVICE, Kind.GROUP):
            self._is_device |= self.field_of(key) == "machine_code"

    def _kind_of(self, kinds: dict[Kind, int], keys: list[str], *, is_group: bool) -> Kind:
        if not keys:
            return Kind.EMPTY
        mappings = kinds.get(Kind.DEVICE, 0) + kinds.get(Kind.GROUP, 0)
        others = kinds.get(Kind.VALUE, 0) + kinds.get(Kind.LIST, 0) + kinds.get(Kind.ANY, 0)
        if is_group or (mappings and not others and not any(map(self.field_of, keys))):
            return Kind.GROUP
        return Kind.DEVICE

    def _is_clear(
        self, key: str, kind: Kind, count: int, kinds: dict[Kind, int], common: _Common
    ) -> bool:
        """Take in a key of the document; return whether it clearly holds devices under theirs."""
        self._top(key, kind)
        return (
            count == _ENOUGH
            and self._is_keyed
            and not self._tops
            and common.is_one_kind
            and not common.is_group
            and self._holds_devices(kinds)
        )

    @staticmethod
    def _holds_devices(kinds: dict[Kind, int]) -> bool:
        return not any(kinds.get(kind) for kind in (Kind.VALUE, Kind.LIST, Kind.GROUP))

    # --- deciding ----------------------------------------------------------------------------

    def place(self, name: str) -> tuple[Path | None, str]:
        """Return where the devices stand, and a notice if that had to be found out.

        None: the document itself is one device.

        Raises: ManifestError if there is no such place, or more than one.
        """
        if self._tops.get(DEVICES) is Kind.LIST or (not self._is_keyed and DEVICES in self._tops):
            if self._is_device and not self._is_keyed:
                raise _several(name, [TOP, DEVICES])
            return (DEVICES,), ""
        if self._is_keyed:
            return self._place_of_keyed(name)
        if self._is_device:
            if self._sure:
                raise _several(name, [TOP, *(shown(place.path) for place in self._sure)])
            if DEFAULTS in self._tops:
                raise ManifestError(f"{name}: `defaults` has no `devices` beside it", hint=FORMS)
            return None, ""
        found = self._sure or self._lists
        if len(found) > 1:
            raise _several(name, [shown(place.path) for place in found])
        if found and (self._sure or DEFAULTS not in self._tops):
            return found[0].path, _notice(name, found[0].path, "list")
        raise self._nothing(name)

    def _place_of_keyed(self, name: str) -> tuple[Path, str]:
        paths = [place.path for place in self._maps]
        if (DEVICES,) in paths:
            return (DEVICES,), ""
        if paths == [()] and DEFAULTS not in self._tops:
            return (), ""
        if len(paths) == 1 and paths[0]:
            return paths[0], _notice(name, paths[0], "mapping")
        error = _several(name, list(map(shown, paths))) if paths else self._nothing(name)
        group = next((place for place in self._groups if len(place.path) == 1), None)
        if group is not None:
            devices = f"; devices may be read from {_named(map(shown, paths))}" if paths else ""
            raise ManifestError(
                f"{name}: the items hold groups, not devices: {_named([shown(group.path)])} holds "
                f"{_named(group.keys)}{devices}",
                hint=error.hint,
            )
        raise error

    def _nothing(self, name: str) -> ManifestError:
        keys = _named(self.keys)
        more = f" and {self.count - len(self.keys):,} more" if self.count > len(self.keys) else ""
        found = f"; keys found: {keys}{more}" if self.keys else ""
        return ManifestError(f"{name}: no `{self._devices}` in it{found}", hint=FORMS)


class _Common:
    """Whether the mappings of a mapping are of one kind: devices, and not parts of settings."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._filled = 0
        self._is_shared = False
        self.is_group = False
        self.has_field = False

    def add(self, keys: tuple[str, ...], *, has_field: bool) -> None:
        """Take in the keys of one; *has_field*: whether they name a field."""
        self.has_field |= has_field
        if not keys or self._is_shared:
            return
        self._filled += 1
        self._is_shared = has_field or not self._seen.isdisjoint(keys)
        if len(self._seen) < MOST_SHAPES:
            self._seen.update(keys)

    @property
    def is_one_kind(self) -> bool:
        """Whether two of them share a key, if there are two."""
        return self._is_shared or self._filled <= 1


def _keys(mapping: Pairs) -> Iterator[str]:
    for key, value in mapping.pairs:
        _exhaust(value)
        yield key


def _exhaust(node: Any) -> None:  # noqa: ANN401  # any value
    """Read the rest of a lazily read value."""
    if type(node) is Pairs:
        for _, value in node.pairs:
            _exhaust(value)
    elif type(node) is Entries:
        for entry in node.entries:
            _exhaust(entry)


def shown(path: Path) -> str:
    """Return a path as it is written for `--items`."""
    return ".".join(path) or TOP


def parsed(items: str) -> Path:
    """Return the path that is written as `data.items`; `.` is the document itself."""
    return () if items == TOP else tuple(items.split("."))


def next_page(key: str, value: Any) -> str:  # noqa: ANN401  # any value
    """Return the path of a key that says that more pages follow; empty if it does not."""
    word = columns.plain(key).strip("_")
    if word in _PAGE_KEYS:
        says_no = isinstance(value, str) and value.casefold() in ("", "false", "null")
        return "" if says_no or not value or str(value) == "0" else key
    if word in _PAGE_PARTS and isinstance(value, dict):
        inner = (next_page(str(name), part) for name, part in value.items())
        return next((f"{key}.{found}" for found in inner if found), "")
    return ""


def _notice(name: str, path: Path, kind: str) -> str:
    items = printable(shown(path))
    return f"{name}: the devices are read from `{items}`, the only {kind} of devices in it"


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{printable(name)}`" for name in islice(names, _FEW))


def _several(name: str, places: list[str]) -> ManifestError:
    more = f" and {len(places) - _FEW:,} more" if len(places) > _FEW else ""
    return ManifestError(
        f"{name}: devices may be read from {_named(places)}{more}",
        hint=f"say which with --items PATH; `{TOP}` is the document itself",
    )

"""JSON and JSON Lines, keeping numbers as written and refusing repeated keys.

Documents, each an array of devices, an object that holds them or one device, are read value by
value. In JSON Lines, each line holds one device.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import msgspec

from bulkbind.errors import ManifestError
from bulkbind.manifest import shapes
from bulkbind.manifest.columns import KEY
from bulkbind.manifest.rules import printable
from bulkbind.manifest.shapes import DEFAULTS, FORMS, Entries, Pairs, Survey
from bulkbind.manifest.text import LONGEST_LINE, blocks, lines_of
from bulkbind.manifest.tree import (
    Defaults,
    Item,
    TreeManifest,
    Written,
    mapping_with_own,
    plain_item,
)
from bulkbind.model import Problem
from bulkbind.model.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bulkbind.manifest.shapes import Path
    from bulkbind.manifest.text import Text
    from bulkbind.manifest.tree import Kept, Rows
    from bulkbind.model import Source

_LONGEST_INT = 18


class WrongJsonError(Exception):
    """A text is not JSON, or ambiguous JSON."""

    def __init__(self, found: str, at: int | None = None) -> None:
        super().__init__(found)
        self.at = at
        """The 0-based position in the text, if known."""


class RepeatedKeyError(WrongJsonError):
    """A key is repeated in one object of an otherwise valid value."""

    def __init__(self, key: str, end: int) -> None:
        super().__init__(f"key `{key[:100]}` stands twice")
        self.key = key
        self.end = end
        """The position after the value."""


def value_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value at *start*, and its end. Raises: RepeatedKeyError, WrongJsonError."""
    try:
        try:
            return _DECODER.raw_decode(text, start)
        except _DecoderKeyError as error:
            raise RepeatedKeyError(str(error), _PLAIN.raw_decode(text, start)[1]) from error
    except json.JSONDecodeError as error:
        raise WrongJsonError(error.msg, error.pos) from error
    except _ConstantError as error:
        found = next(found for found in _CONSTANT.finditer(text, start) if found[1])
        raise WrongJsonError(f"{found[1]} is no JSON value, `null` is", found.start()) from error
    except RecursionError as error:
        raise WrongJsonError("it is nested too deeply") from error


def whole_value(text: str) -> Any:  # noqa: ANN401  # any JSON value
    """Return the single value of a text. Raises: WrongJsonError."""
    stripped = text.strip(" \t\r\n")
    value, end = value_at(stripped, 0)
    if end < len(stripped):
        raise WrongJsonError("something stands behind the value", end)
    return value


class _DecoderKeyError(Exception):
    """Carries a repeated key out of the decoder."""


class _ConstantError(Exception):
    """Ends the reading at a number of Python and JavaScript that JSON does not know."""


_CONSTANT = re.compile(r'(?>"(?:[^"\\]|\\.)*")|(NaN|-?Infinity)', re.DOTALL)
"""Passes over texts."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # a set's add
        raise _DecoderKeyError(repeated)
    return found


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INT and text != "-0" else text


def _refuse(name: str) -> NoReturn:
    raise _ConstantError(name)


def _cause(text: str, at: int) -> str:
    """Return the likely cause of what is broken at a place; empty if unknown."""
    begins = text[at : at + 1]
    if begins in ("/", "#"):
        return "JSON has no comments"
    if begins == "'" or text.startswith(("None", "True", "False"), at):
        return "it seems to be printed by Python, not as JSON"
    if begins == "\x1e":
        return "a mark before each value (RFC 7464): take the marks out"
    if text.startswith(("NaN", "Infinity", "-"), at):
        return ""
    if begins.isalpha() or begins in ("_", "$"):
        return "keys and texts stand in double quotes"
    return "" if text[at:].strip(_BLANK) else "the file breaks off here"


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=Written.read, parse_int=_int, parse_constant=_refuse
)
_PLAIN = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
"""Finds the end of a value with repeated keys."""
_scan_text: Callable[[str, int], tuple[str, int]]
_scan_text = json.decoder.scanstring  # type: ignore[attr-defined]  # the stubs lack it
"""Returns the text of a string that began before a place, and its end. Raises: ValueError."""
_FAST = json.JSONDecoder(parse_float=Written.read, parse_int=_int, parse_constant=_refuse)
_scan: Callable[[str, int], tuple[Any, int]] = _FAST.scan_once  # type: ignore[attr-defined]  # as above
"""Reads a value many times as fast as `_DECODER`; of repeated keys, it keeps the last."""


_decode = msgspec.json.Decoder(float_hook=Written.read).decode


def _flat(written: str) -> dict[str, Any] | None:
    """Return the object in a text; None if there is none, or it takes a closer look."""
    try:
        node = _decode(written)
    except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError):
        return None
    if type(node) is not dict or "-0" in written:  # of which the decoder makes 0
        return None
    is_clear = written.count(":") == len(node) or _has_single_keys(written, 0, len(written), node)
    return node if is_clear else None


def _has_single_keys(text: str, start: int, end: int, node: dict[str, Any]) -> bool:
    """Return whether no key of a value is repeated; False if that takes a closer look.

    A colon after a key stands behind a quote or a blank, so that there are at least as many of
    these as keys were written.
    """
    keys = len(node)
    keys += sum(map(_keys_within, node.values()))
    return keys == sum(text.count(f"{before}:", start, end) for before in '" \t\r\n')


def _keys_within(node: Any) -> int:  # noqa: ANN401  # any JSON value
    if isinstance(node, dict):
        return len(node) + sum(map(_keys_within, node.values()))
    return sum(map(_keys_within, node)) if isinstance(node, list) else 0


# --- the text of an object ---------------------------------------------------------------------

_BLANKS = re.compile(r"[ \t\r\n]*")


class _Member(NamedTuple):
    key: str
    start: int
    end: int


def _members(text: str) -> list[_Member]:
    """Return the members of an object with their places. Raises: ValueError if it is none."""
    found: list[_Member] = []
    at = _after(text, 0, "{")
    if text[at : at + 1] == "}":
        return found
    while True:
        key, end = _scan_text(text, _after(text, at, '"', blanks=False))
        _, end = _PLAIN.raw_decode(text, _after(text, end, ":"))
        found.append(_Member(key, at, end))
        at = _skip(text, end)
        if text[at : at + 1] == "}" and not text[at + 1 :].strip(_BLANK):
            return found
        at = _after(text, at, ",")


def _skip(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    assert match is not None  # it also matches the empty string
    return match.end()


def _after(text: str, at: int, character: str, *, blanks: bool = True) -> int:
    """Return the place after a character and blanks. Raises: ValueError if it is not there."""
    at = _skip(text, at)
    if text[at : at + 1] != character:
        raise ValueError(at)
    return _skip(text, at + 1) if blanks else at + 1


def with_own(text: str, own: Mapping[str, str]) -> str:
    """Return the text of a device with bulkbind's own members, in place of older ones.

    Empty for a text that is no object, or has no members of its own: there is no place for ours.
    """
    written = [f"{json.dumps(key)}: {_as_json(value)}" for key, value in own.items()]
    try:
        members = _members(text)
    except _UNREAD:
        members = []
    kept = [at for at, member in enumerate(members) if member.key not in own]
    if not kept:
        return ""
    begin = text[: members[0].start]
    parts = [begin, text[members[kept[0]].start : members[kept[0]].end]]
    parts += [text[members[at - 1].end : members[at].end] for at in kept[1:]]
    blanks = begin[begin.index("{") + 1 :]
    separator = "," + (blanks if "\n" in blanks else " ")
    parts += [separator + member for member in written]
    return "".join([*parts, text[members[-1].end :]])


_UNREAD = (StopIteration, ValueError, RecursionError, WrongJsonError, _ConstantError)
"""What ends a fast look at a value, which a closer look then shows."""
_BLANK = " \t\r\n"
_SEPARATOR = re.compile(r"[ \t\r\n]*,[ \t\r\n]*\{")
_NEXT_KEY = re.compile(r'[ \t\r\n]*,[ \t\r\n]*"')
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*\{")
_DEEPEST_STREAMED = 100
_MOST_UNSEEN = 20
"""Characters that a broken token can extend beyond the place that an error names."""


class _JsonTexts(TreeManifest):
    """What JSON and JSON Lines have in common."""

    @staticmethod
    def fill(text: str, members: Sequence[str]) -> str:
        """Return the text of an object with members added; any other text as it is."""
        inner = text.strip(_BLANK)[1:]
        if not text.startswith("{"):
            return text
        separator = "" if inner[:1].isspace() or inner.lstrip(_BLANK) == "}" else " "
        end = "" if inner.lstrip(_BLANK) == "}" else ","
        return f"{{{', '.join(members)}{end}{separator}{inner}"

    @staticmethod
    def keys(text: str) -> list[str]:
        """Return the keys of an object; none of any other text."""
        try:
            return [member.key for member in _members(text)]
        except _UNREAD:
            return []


class JsonManifest(_JsonTexts):
    """JSON documents: arrays of devices, objects that hold them, or single devices."""

    def _items(self, text: Text) -> Iterator[Item]:
        document = _Document(text, self.source)
        self._ahead: _Document | None = None
        begins = document.peek()
        if begins not in ("[", "{"):
            raise document.begins_wrong()
        while begins:
            if begins == "[":
                yield from _listed(document, None)
            elif begins == "{":
                yield from self._object(document)
            else:
                raise document.wrong(f"{begins!r} stands behind the end of the document")
            begins = document.peek()

    def _object(self, text: _Document) -> Iterator[Item]:
        """Yield the devices of a top-level object."""
        path = self._place(text)
        if path is None:
            yield _item(text, text.line)
        else:
            yield from self._at(text, path)

    def _place(self, text: _Document) -> Path | None:
        """Return where in the object at hand the devices stand; None: it is one device."""
        if self._settings.items:
            path = shapes.parsed(self._settings.items)
            return path if path or self._tree.is_keyed else None
        if not self._tree.is_keyed and text.first_key() in (DEFAULTS, shapes.DEVICES):
            return (shapes.DEVICES,)
        survey = Survey(self._settings)
        found = text.whole()
        survey.look(found[0] if found else self._read_ahead(text.place).streamed())
        found_at, notice = survey.place(self.source.name)
        if notice and notice not in self.notices:
            self.notices.append(notice)
        return found_at

    def _read_ahead(self, place: int) -> _Document:
        """Return the same text at a place, from where it is read in advance."""
        if self._ahead is None:
            self._ahead = _Document(self._open(), self.source)
        self._ahead.go_to(place)
        return self._ahead

    def _at(
        self, text: _Document, path: Path, defaults: Defaults | None = None, *, is_top: bool = True
    ) -> Iterator[Item]:
        """Yield the devices at a path of the object at hand."""
        if not path:
            yield from self._guarded(_keyed(text, defaults))
            return
        seen: dict[str, None] = {}
        for key in _Keys(text):
            if key in seen:
                raise text.wrong(f"key `{printable(key)}` stands twice")
            seen[key] = None
            begins = text.peek()
            if key == path[0]:
                yield from self._found(text, begins, path[1:], defaults)
            elif is_top and key == DEFAULTS and (begins == "{" or path == (shapes.DEVICES,)):
                if path[0] in seen or begins != "{":
                    raise text.wrong(_ORDER, hint=FORMS)
                defaults = _defaults(text)
            else:
                self._pass_over(key, text.unambiguous_value())
        if path[0] not in seen:
            raise self._missing(path[0], seen)

    def _found(
        self, text: _Document, begins: str, rest: Path, defaults: Defaults | None
    ) -> Iterator[Item]:
        """Yield the devices of the value to which a path has led so far."""
        if begins == "{" and rest:
            yield from self._at(text, rest, defaults, is_top=False)
        elif begins == "[" and not rest:
            yield from _listed(text, defaults)
        elif begins == "{" and self._tree.is_keyed:
            yield from self._guarded(_keyed(text, defaults))
        elif begins == "{" and self._settings.items:
            yield _item(text, text.line, defaults)
        elif self._settings.items:
            items = printable(self._settings.items)
            raise text.wrong(f"what stands at `{items}` is no list of devices", hint=FORMS)
        else:
            raise text.wrong(_ORDER, hint=FORMS)


_ORDER = "`devices` is an array, and `defaults` an object that stands before it"


def _defaults(text: _Document) -> Defaults | None:
    start = text.place
    values = text.unambiguous_value()
    written = text.since(start)
    members = {member.key: written[member.start : member.end] for member in _members(written)}
    return Defaults(values, members) if values else None


def _listed(text: _Document, defaults: Defaults | None) -> Iterator[Item]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        if defaults is None:
            yield from text.objects()
        if text.peek() == "]":
            raise text.comma_too_many("Expecting value")
        yield _item(text, text.line, defaults)
        if text.take(",]") == "]":
            return


def _item(text: _Document, line: int, defaults: Defaults | None = None) -> Item:
    """Return the next value; one with a repeated key becomes an item with a problem."""
    start = text.place
    try:
        value = text.value()
    except RepeatedKeyError as error:
        item = Item.with_repeated_key(line, error.key, str(error), text.since(start))
        return item._replace(defaults=defaults)
    return Item(line, value, text.since(start), None, defaults)


def _keyed(text: _Document, defaults: Defaults | None) -> Iterator[Item]:
    """Yield the values of an object, each with its key under `@key`."""
    keys = _Keys(text)
    for key in keys:
        text.peek()
        item = _item(text, keys.line, defaults)
        yield _with_key(item, key, json.dumps(key, ensure_ascii=False))
        if defaults is None:
            yield from text.pairs()


def _with_key(item: Item, key: str, name: str) -> Item:
    """Return an item with its key, as text *name*, under `@key`."""
    if item.node is None and item.problem is None:
        item = item._replace(node={}, text="{}")
    if not item.text.startswith("{"):
        return item._replace(text=f"{{{name}: {item.text}}}")
    node = {KEY: key, **item.node} if isinstance(item.node, dict) else item.node
    return item._replace(node=node, text=_JsonTexts.fill(item.text, [f'"{KEY}": {name}']))


class _Keys:
    """The keys of an object; take each value before asking for the next key."""

    def __init__(self, text: _Document) -> None:
        self._text = text
        self._is_first = True
        self.line = 0
        """The line of the last key."""

    def __iter__(self) -> _Keys:
        return self

    def __next__(self) -> str:
        text = self._text
        if self._is_first:
            text.take("{")
            if text.peek() == "}":
                text.take("}")
                raise StopIteration
            self._is_first = False
        elif text.take(",}") == "}":
            raise StopIteration
        begins = text.peek()
        if begins == "}":
            raise text.comma_too_many("Expecting property name enclosed in double quotes")
        if begins != '"':
            raise text.wrong("a key in double quotes is missing")
        self.line = text.line
        key: str = text.value()
        text.take(":")
        return key


class _Document:
    """The text of a document, partly in memory."""

    def __init__(self, file: Text, source: Source) -> None:
        self._file = file
        self._source = source
        self._buffer = ""
        self._at = 0
        self._base = 0
        """How much text was dropped before the buffer."""
        self._column = 0
        """How much of it stands in the line with which the buffer begins."""
        self._counted = 0
        self._is_ended = False
        self.line = 1
        """The line of the next character, valid after `peek`."""

    @property
    def place(self) -> int:
        """How many characters were taken."""
        return self._base + self._at

    def since(self, place: int) -> str:
        """Return the text taken since a place, which is that of the last value."""
        return self._buffer[max(0, place - self._base) : self._at]

    def go_to(self, place: int) -> None:
        """Take all text before a place."""
        while self._base + len(self._buffer) < place:
            self._at = len(self._buffer)
            if not self._more():
                break
        self._at = place - self._base

    def peek(self) -> str:
        """Return the next non-blank character without taking it; empty at the end."""
        while True:
            self._at = _skip(self._buffer, self._at)
            if self._at < len(self._buffer) or not self._more():
                break
        self.line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._buffer[self._at : self._at + 1]

    def take(self, allowed: str) -> str:
        """Take the next non-blank character. Raises: ManifestError if it is not *allowed*."""
        found = self.peek()
        if not found or found not in allowed:
            wanted = " or ".join(f"`{character}`" for character in allowed)
            shown = f"`{found}`" if found else "the end of the file"
            raise self.wrong(f"{wanted} is missing; here is {shown}")
        self._at += 1
        return found

    def objects(self) -> Iterator[Item]:
        """Yield the objects at hand that take no closer look, with the comma behind each."""
        buffer, at = self._buffer, self._at
        at = _skip(buffer, at)
        line = self.line + buffer.count("\n", self._counted, at)
        if buffer[at : at + 1] != "{":
            return
        usual = ", {"
        is_flat = True
        while True:
            end = buffer.find("}", at) + 1 if is_flat else at
            written = buffer[at:end]
            node = _flat(written) if is_flat else None
            if node is None:
                is_flat = False  # as will be those that follow
                try:
                    node, end = _scan(buffer, at)
                except _UNREAD:
                    break  # which shows again in the closer look
                if not _has_single_keys(buffer, at, end, node):
                    break
                written = buffer[at:end]
            if not buffer.startswith(usual, end):  # many times as fast as the pattern
                match = _SEPARATOR.match(buffer, end)
                if match is None:
                    break
                usual = match[0]
            after = end + len(usual) - 1
            yield plain_item((line, node, written, None, None))
            if "\n" in buffer[end:after] or "\n" in written:
                line += buffer.count("\n", at, after)
            at = after
        self._at = self._counted = at
        self.line = line

    def pairs(self) -> Iterator[Item]:
        """Yield further objects under keys that take no closer look, each as `@key` has it."""
        buffer, at = self._buffer, self._at
        line = self.line + buffer.count("\n", self._counted, at)
        self._counted = at
        while match := _NEXT_KEY.match(buffer, at):
            start = match.end() - 1
            try:
                key, end = _scan_text(buffer, start + 1)
                colon = _COLON.match(buffer, end)
                if colon is None:
                    break
                node, after = _scan(buffer, colon.end() - 1)
            except _UNREAD:
                break  # which shows again in the closer look
            if not _has_single_keys(buffer, colon.end() - 1, after, node):
                break
            line += buffer.count("\n", at, start)
            name = buffer[start:end]
            written = buffer[colon.end() : after]
            separator = "," if written[0].isspace() else ", " if node else ""
            text = f'{{"{KEY}": {name}{separator}{written}'
            yield plain_item((line, {KEY: key, **node}, text, None, None))
            line += buffer.count("\n", start, after)
            at = after
            self._at = self._counted = at
            self.line = line

    def value(self) -> Any:  # noqa: ANN401  # any JSON value
        """Take a whole value.

        Raises: RepeatedKeyError, with the value taken; ManifestError if there is none, or it is too
            long.
        """
        self.peek()
        while True:
            failed = None
            end = 0
            value = None
            try:
                value, end = value_at(self._buffer, self._at)
            except RepeatedKeyError as error:
                self._at = error.end
                raise
            except WrongJsonError as error:
                failed = error
            # A value that reaches the end of the buffer may continue after it.
            if failed is None and (end < len(self._buffer) or self._is_ended):
                self._at = end
                return value
            if failed is not None and (self._is_ended or self._is_seen(failed)):
                raise self._broken(failed)
            if len(self._buffer) - self._at > LONGEST_LINE:
                raise self.wrong(
                    f"a value of more than {LONGEST_LINE:,} characters, or one that is broken"
                )
            self._more()

    def _is_seen(self, error: WrongJsonError) -> bool:
        """Whether more text could not fix what is broken."""
        if error.at is None:
            return True
        is_open = str(error).startswith("Unterminated")
        return error.at + _MOST_UNSEEN < len(self._buffer) and not is_open

    def unambiguous_value(self) -> Any:  # noqa: ANN401  # as above
        """Take a value without repeated keys. Raises: ManifestError."""
        try:
            return self.value()
        except RepeatedKeyError as error:
            raise self.wrong(str(error)) from error

    def first_key(self) -> str | None:
        """Return the first key of the object at hand, without taking it; None if it has none."""
        while True:
            at = _skip(self._buffer, self._at + 1)
            begins = self._buffer[at : at + 1]
            if begins not in ("", '"'):
                return None
            with contextlib.suppress(ValueError):
                if begins:
                    return _scan_text(self._buffer, at + 1)[0]
            if len(self._buffer) - self._at > LONGEST_LINE or not self._more():
                return None

    def whole(self) -> tuple[Any, int] | None:
        """Return the value at hand and its end if it is in memory as a whole, without taking it."""
        try:
            return _scan(self._buffer, self._at)
        except _UNREAD:
            return None

    def streamed(self, depth: int = 0) -> Any:  # noqa: ANN401  # any JSON value, or a view of one
        """Take a value; one that is not in memory as a whole while it is walked through.

        Raises: ManifestError, also while it is walked through.
        """
        begins = self.peek()
        if begins not in ("{", "["):
            return self.value()
        found = self.whole()
        if found is not None:
            node, self._at = found
            return node
        if depth > _DEEPEST_STREAMED:
            raise self.wrong("it is nested too deeply")
        if begins == "{":
            return Pairs((key, self.streamed(depth + 1)) for key in _Keys(self))
        return Entries(self._streamed_entries(depth + 1))

    def _streamed_entries(self, depth: int) -> Iterator[Any]:
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.streamed(depth)
            if self.take(",]") == "]":
                return

    def begins_wrong(self) -> ManifestError:
        """Return the error of a text that begins as no document."""
        cause = _cause(self._buffer, self._at)
        more = f": {cause}" if cause else ""
        return self.wrong(f"the document is no array and no object{more}", hint=FORMS)

    def comma_too_many(self, expected: str) -> ManifestError:
        """Return the error of a comma before the end at hand."""
        return self.wrong(f"{expected}: a comma too many before `{self.peek()}`")

    def wrong(self, what: str, hint: str = "") -> ManifestError:
        """Return an error that names the place at hand."""
        return self._wrong_at(self._at, what, hint)

    def _wrong_at(self, at: int, what: str, hint: str = "") -> ManifestError:
        line = self.line + self._buffer.count("\n", self._counted, at)
        before = self._buffer.rfind("\n", 0, at)
        column = at - before if before >= 0 else self._column + at + 1
        return ManifestError(f"{self._source.name}:{line}:{column}: {what}", hint=hint)

    def _broken(self, error: WrongJsonError) -> ManifestError:
        """Return the error at the place that Python's parser names, which counts from 1."""
        if error.at is None:
            return self.wrong(str(error))
        at = error.at
        if self._buffer[at : at + 1] == ",":  # as Python names a comma too many from 3.13 on
            at = _skip(self._buffer, at + 1)
        ends = self._buffer[at : at + 1]
        is_comma = ends in ("]", "}") and self._buffer[:at].rstrip(_BLANK).endswith(",")
        cause = f"a comma too many before `{ends}`" if is_comma else _cause(self._buffer, at)
        more = f": {cause}" if cause else ""
        return self._wrong_at(at if is_comma else error.at, f"{error}{more}")

    def _more(self) -> bool:
        """Read the next block and drop what was taken; return False at the end."""
        block = self._file.read()
        self.line += self._buffer.count("\n", self._counted, self._at)
        newline = self._buffer.rfind("\n", 0, self._at)
        self._column = self._at - newline - 1 if newline >= 0 else self._column + self._at
        self._buffer = self._buffer[self._at :] + block
        self._base += self._at
        self._at = self._counted = 0
        self._is_ended = not block
        return bool(block)


_JSON = "row: a line is one JSON object whose keys stand once"


class JsonLinesManifest(_JsonTexts):
    """JSON Lines: a device in each line; a line that is no JSON object is a row's problem."""

    def _items(self, text: Text) -> Iterator[Item]:
        first = 1
        blank = 0
        for lines in map(lines_of, blocks(text, self.source.name)):
            for line, written in enumerate(lines, start=first):
                node = _flat(written)
                if node is not None:
                    yield plain_item((line, node, written.rstrip("\r\n"), None, None))
                elif written.strip(_BLANK):
                    yield _parse_line(line, written)
                else:
                    blank += 1
            first += len(lines)
        if blank:
            self.notices.append(f"{self.source.name}: {counted(blank, 'blank lines')} passed over")


def _parse_line(line: int, written: str) -> Item:
    text = written.rstrip("\r\n")
    try:
        return Item(line, whole_value(text), text)
    except WrongJsonError as error:
        at = "" if error.at is None else f" at position {error.at + 1}"
        shown = printable(text.rstrip(_BLANK))
        hint = "" if error.at is None else _cause(text.strip(_BLANK), error.at)
        return Item(line, None, text, Problem("row", "row", shown, _JSON, f"{error}{at}", hint))


# --- how a text begins -------------------------------------------------------------------------


def begins_lines(head: str) -> bool:
    """Return whether a text begins as JSON Lines: with a line that is a device of its own."""
    text = head.lstrip()
    lines = io.StringIO(text)
    first = next(lines, "")
    if not first.startswith("{") or _is_stream(text, side_by_side=True):
        return False
    if next((line for line in lines if line.strip()), "").lstrip().startswith("{"):
        return True
    try:
        value = whole_value(first)
    except WrongJsonError:
        return False
    return not any(isinstance(inner, list | dict) for inner in value.values())


def begins_document(head: str) -> bool:
    """Return whether a text begins as a JSON document: with an object, or an array of them."""
    text = head.lstrip()
    return text[:1] == "{" or (text[:1] == "[" and text[1:].lstrip()[:1] in ("{", "]"))


def exceeds_lines(head: str) -> bool:
    """Return whether a text begins with objects or arrays that do not stand in a line each."""
    text = head.lstrip()
    return text.startswith(("{", "[")) and _is_stream(text)


def _is_stream(text: str, *, side_by_side: bool = False) -> bool:
    """Whether the JSON values, as far as they can be read, do not stand in a line each.

    One of them goes on after its first line or, if *side_by_side*, begins in the line of another.
    """
    at = 0
    while at < len(text):
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        try:
            _, end = value_at(text, at)
        except RepeatedKeyError as error:
            end = error.end
        except WrongJsonError as error:
            next_line = line_end + len(text[line_end:]) - len(text[line_end:].lstrip())
            if error.at is None or error.at <= line_end:
                return False
            # At the beginning of another line, it is the line before that is broken.
            return error.at != next_line and not _is_line_for_key(text, error)
        at = end + len(text[end:]) - len(text[end:].lstrip())
        is_beside = side_by_side and at < line_end and text[at] in "{["
        if end > line_end or is_beside:
            return True
    return False


def _is_line_for_key(text: str, error: WrongJsonError) -> bool:
    """Whether a line begins with an object where a key, or the colon behind one, is missing."""
    if error.at is None or not str(error).startswith(("Expecting property name", "Expecting ':'")):
        return False
    begin = text.rfind("\n", 0, error.at) + 1
    return text[begin : error.at + 1].lstrip(_BLANK) == "{"


# --- writing -----------------------------------------------------------------------------------


def write_lines(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write JSON Lines."""
    for cells, own in rows:
        file.writelines(f"{text}\n" for text in _returned(cells, own))


def write_document(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write an array."""
    before = "["
    for cells, own in rows:
        for text in _returned(cells, own):
            file.write(f"{before}\n{text}")
            before = ","
    file.write("[]\n" if before == "[" else "\n]\n")


def _returned(cells: Kept, own: Mapping[str, str]) -> list[str]:
    """Return a row as JSON: a text that has no place for status and reason stands behind them."""
    if not isinstance(cells, str):
        return [_as_json(mapping_with_own(cells, own))]
    whole = with_own(cells, own)
    return [whole] if whole else [_as_json(own), cells]


def _as_json(value: object) -> str:
    """Return a value as JSON; lone surrogates become the escapes from which they were read."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)

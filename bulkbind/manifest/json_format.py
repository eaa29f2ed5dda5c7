"""JSON and JSON Lines, keeping numbers as written and refusing repeated keys.

A document, an array of devices or an object that holds them, is read value by value. In JSON Lines,
each line holds one device.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import msgspec

from bulkbind.errors import ManifestError
from bulkbind.manifest.rules import printable
from bulkbind.manifest.text import LONGEST_LINE, blocks, lines_of
from bulkbind.manifest.tree import Item, TreeManifest, Written, with_own
from bulkbind.model import CheckedRow, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bulkbind.manifest.text import Text
    from bulkbind.manifest.tree import Rows
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


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # a set's add
        raise _DecoderKeyError(repeated)
    return found


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INT else text


def _refuse(name: str) -> NoReturn:
    raise WrongJsonError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=Written.read, parse_int=_int, parse_constant=_refuse
)
_PLAIN = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
"""Finds the end of a value with repeated keys."""


_FORMS = (
    'a manifest is an array of objects, or {"defaults": {…}, "devices": […]}; where each device '
    "stands under a key of its own, --map FIELD=@key takes that key"
)
_BLANKS = re.compile(r"[ \t\r\n]*")


class JsonManifest(TreeManifest):
    """A JSON document: an array of devices, or an object that holds them."""

    def _read(self, text: Text) -> Iterator[CheckedRow]:
        document = _Document(text, self.source)
        begins = document.peek()
        if begins == "[":
            yield from self._tree.rows(_listed(document), {})
        elif begins == "{":
            yield from self._object(document)
        else:
            raise document.wrong("the document is no array and no object", hint=_FORMS)
        if document.peek():
            raise document.wrong(f"{document.peek()!r} stands behind the end of the document")

    def _object(self, text: _Document) -> Iterator[CheckedRow]:
        """Yield the devices of a top-level object: `devices` with defaults, or by their keys."""
        defaults: dict[str, Any] = {}
        has_devices = False
        keys = _Keys(text)
        first = next(keys, None)
        if self._tree.is_keyed and first not in (None, "defaults", "devices"):
            assert first is not None  # checked above, which mypy does not see
            yield from self._tree.rows(_keyed(text, keys, first), {})
            return
        key = first
        while key is not None:
            begins = text.peek()
            if key == "devices" and begins == "[":
                yield from self._tree.rows(_listed(text), defaults)
            elif key == "devices" and begins == "{" and self._tree.is_keyed:
                inner = _Keys(text)
                yield from self._tree.rows(_keyed(text, inner, next(inner, None)), defaults)
            elif key == "defaults" and begins == "{" and not has_devices:
                defaults = text.unambiguous_value()
            elif key in ("defaults", "devices"):
                raise text.wrong(
                    "`devices` is an array, and `defaults` an object that stands before it",
                    hint=_FORMS,
                )
            else:
                text.unambiguous_value()
                self.notices.append(f"{self.source.name}: key `{printable(key)}` is not used")
            has_devices |= key == "devices"
            key = next(keys, None)
        if not has_devices:
            raise ManifestError(f"{self.source.name}: no `devices` in it", hint=_FORMS)


def _listed(text: _Document) -> Iterator[Item]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        text.peek()
        line = text.line
        yield _item(text, line)
        if text.take(",]") == "]":
            return


def _item(text: _Document, line: int) -> Item:
    """Return the next value; one with a repeated key becomes an item with a problem."""
    try:
        return Item(line, text.value())
    except RepeatedKeyError as error:
        return Item.with_repeated_key(line, error.key, str(error))


def _keyed(text: _Document, keys: _Keys, first: str | None) -> Iterator[Item]:
    """Yield the values of an object, each with its key under `@key`."""
    key = first
    while key is not None:
        line = keys.line
        yield _item(text, line).under(key, line)
        key = next(keys, None)


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
        if text.peek() != '"':
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
        self._counted = 0
        self._is_ended = False
        self.line = 1
        """The line of the next character, valid after `peek`."""

    def peek(self) -> str:
        """Return the next non-blank character without taking it; empty at the end."""
        while True:
            match = _BLANKS.match(self._buffer, self._at)
            assert match is not None  # it also matches the empty string
            self._at = match.end()
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
            if len(self._buffer) - self._at > LONGEST_LINE:
                raise self.wrong(
                    f"a value of more than {LONGEST_LINE:,} characters, or one that is broken"
                )
            if not self._more() and failed is not None:
                raise self._broken(failed)

    def unambiguous_value(self) -> Any:  # noqa: ANN401  # as above
        """Take a value without repeated keys. Raises: ManifestError."""
        try:
            return self.value()
        except RepeatedKeyError as error:
            raise self.wrong(str(error)) from error

    def wrong(self, what: str, hint: str = "") -> ManifestError:
        """Return an error that names the current line."""
        return ManifestError(f"{self._source.name}:{self.line}: {what}", hint=hint)

    def _broken(self, error: WrongJsonError) -> ManifestError:
        if error.at is None:
            return self.wrong(str(error))
        line = self.line + self._buffer.count("\n", self._counted, error.at)
        column = error.at - self._buffer.rfind("\n", 0, error.at)
        return ManifestError(f"{self._source.name}:{line}: {error}, character {column} of the line")

    def _more(self) -> bool:
        """Read the next block and drop what was taken; return False at the end."""
        block = self._file.read()
        self.line += self._buffer.count("\n", self._counted, self._at)
        self._buffer = self._buffer[self._at :] + block
        self._at = self._counted = 0
        self._is_ended = not block
        return bool(block)


_JSON = "row: a line is one JSON object whose keys stand once"
_BLANK = " \t\r\n"


class JsonLinesManifest(TreeManifest):
    """JSON Lines: a device in each line; a line that is no JSON object is a row's problem."""

    def _read(self, text: Text) -> Iterator[CheckedRow]:
        self._blank = 0
        yield from self._tree.rows(self._items(text), {})
        if self._blank:
            self.notices.append(f"{self.source.name}: {self._blank:,} blank lines passed over")

    def _items(self, text: Text) -> Iterator[Item]:
        decode = msgspec.json.Decoder(float_hook=Written.read).decode
        first = 1
        for lines in map(lines_of, blocks(text, self.source.name)):
            for line, written in enumerate(lines, start=first):
                try:
                    node = decode(written)
                except (msgspec.DecodeError, RecursionError, UnicodeError, ValueError):
                    node = None
                # As many colons as keys: it is flat and has no repeated key.
                if type(node) is dict and written.count(":") == len(node):
                    yield Item(line, node)
                elif written.strip(_BLANK):
                    yield _parse_line(line, written)
                else:
                    self._blank += 1
            first += len(lines)


def _parse_line(line: int, text: str) -> Item:
    try:
        return Item(line, whole_value(text))
    except WrongJsonError as error:
        at = "" if error.at is None else f" at {error.at + 1}"
        shown = printable(text.rstrip(_BLANK))
        return Item(line, None, Problem("row", "row", shown, _JSON, f"{error}{at}"))


def begins_lines(head: str) -> bool:
    """Return whether a text begins as JSON Lines: with a line that is a device of its own."""
    lines = io.StringIO(head.lstrip())
    first = next(lines, "")
    if not first.startswith("{"):
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


def write_lines(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write JSON Lines."""
    file.writelines(f"{_as_json(device)}\n" for device in with_own(rows))


def write_document(file: TextIO, _source: Source, rows: Rows) -> None:
    """Write an array with an object in each line."""
    before = "["
    for device in with_own(rows):
        file.write(f"{before}\n{_as_json(device)}")
        before = ","
    file.write("[]\n" if before == "[" else "\n]\n")


def _as_json(device: dict[str, Any]) -> str:
    """Return a device as JSON; lone surrogates become the escapes from which they were read."""
    text = json.dumps(device, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(device)

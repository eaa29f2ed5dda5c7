"""JSON values from text, every number as it was written, keys that stand twice refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from bulkbind.manifest.tree import Written

_LONGEST_INT = 18


class WrongJsonError(Exception):
    """A text is not JSON, or not JSON that is clear."""

    def __init__(self, found: str, at: int | None = None) -> None:
        super().__init__(found)
        self.at = at
        """The 0-based position in the text, where it is known."""


class TwiceError(WrongJsonError):
    """A key stands twice in one object of a value that is JSON."""

    def __init__(self, key: str, end: int) -> None:
        super().__init__(f"key `{key[:100]}` stands twice")
        self.key = key
        self.end = end
        """The position behind the value."""


def value_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at *start* exactly, and the position behind it.

    Raises: TwiceError, WrongJsonError.
    """
    try:
        try:
            return _DECODER.raw_decode(text, start)
        except _KeyTwiceError as error:
            raise TwiceError(str(error), _PLAIN.raw_decode(text, start)[1]) from error
    except json.JSONDecodeError as error:
        raise WrongJsonError(error.msg, error.pos) from error
    except RecursionError as error:
        raise WrongJsonError("it is nested too deeply") from error


def whole_value(text: str) -> Any:  # noqa: ANN401  # whatever the text says
    """Return the one value of a text. Raises: WrongJsonError."""
    stripped = text.strip(" \t\r\n")
    value, end = value_at(stripped, 0)
    if end < len(stripped):
        raise WrongJsonError("something stands behind the value", end)
    return value


class _KeyTwiceError(Exception):
    """How a key that stands twice is told through the decoder."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # a set's add
        raise _KeyTwiceError(twice)
    return found


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INT else text


def _refuse(name: str) -> NoReturn:
    raise WrongJsonError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=Written.read, parse_int=_int, parse_constant=_refuse
)
_PLAIN = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
"""Finds the end of a value, whatever its keys."""

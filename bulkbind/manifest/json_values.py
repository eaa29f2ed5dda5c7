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


def value_at(text: str, start: int) -> tuple[Any, int]:
    """Return the value that begins at *start* exactly, and the position behind it.

    Raises: WrongJsonError.
    """
    try:
        return _DECODER.raw_decode(text, start)
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


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # a set's add
        raise WrongJsonError(f"key `{twice[:100]}` stands twice")
    return found


def _int(text: str) -> int | str:
    return int(text) if len(text) <= _LONGEST_INT else text


def _refuse(name: str) -> NoReturn:
    raise WrongJsonError(f"{name} is no JSON value")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=Written.read, parse_int=_int, parse_constant=_refuse
)

"""Masking: who and what a text speaks of is replaced by a name that tells nothing, always the same.

`user_7` becomes `user#1` wherever it stands alone, also within a message of the server's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_WORD = re.compile(r"[^\s\"'`=,;()<>\[\]{}]+")
_AROUND = ":.!?"
"""What may follow a user id in a sentence, and is none of it."""
_USER_KEYS = frozenset({"user_id", "userid", "x-user-id", "operator", "account"})
_NAME_KEYS = frozenset({"device_name", "devicename"})


class Mask:
    """Gives every user id and every device name a number, in order of appearance."""

    def __init__(self, users: Iterable[str] = ()) -> None:
        """*users*: ids that are replaced wherever they stand as a word."""
        self._known = set(users)
        self._users: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def user(self, user_id: str) -> str:
        """Return what stands for a user id; nothing for nothing."""
        if not user_id:
            return ""
        self._known.add(user_id)
        return self._users.setdefault(user_id, f"user#{len(self._users) + 1}")

    def name(self, device_name: str) -> str:
        """Return what stands for a device name; nothing for nothing."""
        if not device_name:
            return ""
        return self._names.setdefault(device_name, f"device#{len(self._names) + 1}")

    def text(self, text: str) -> str:
        """Return a text without the user ids, and the device names seen so far."""
        for name in sorted(self._names, key=len, reverse=True):
            if name in text:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", self._names[name], text)
        return _WORD.sub(self._word, text)

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        for known in (word, word.strip(_AROUND)):
            if known in self._known:
                return word.replace(known, self.user(known))
        return word

    def values(self, value: Any) -> Any:  # noqa: ANN401  # whatever JSON holds
        """Return a JSON value masked: by its keys, and in its texts."""
        if isinstance(value, dict):
            return {key: self._value(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.values(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value

    def _value(self, key: str, value: Any) -> Any:  # noqa: ANN401  # as above
        if isinstance(value, str) and key.lower() in _USER_KEYS:
            return self.user(value)
        if isinstance(value, str) and key.lower() in _NAME_KEYS:
            return self.name(value)
        return self.values(value)

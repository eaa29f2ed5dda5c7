"""Reading a settings file: every scalar as the text that was written, every key with its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from bulkbind.errors import UsageError
from bulkbind.settings.model import SECRETS

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = 4
"""Levels of nesting; no key needs more, and an alias inside itself has no end."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a settings file says."""

    path: Path
    values: dict[str, Any]
    """Nested mappings and lists of text; keys with nothing behind them are left out."""
    lines: dict[str, int] = field(default_factory=dict)
    """Dotted key (`auth.token_file`) -> the line on which it stands, 1-based."""

    def place(self, key: str) -> str:
        """Return the file, and the line of a key or of what holds it."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.path}, line {self.lines[key]}" if key else str(self.path)


def read_config(path: Path) -> ConfigFile:
    """Return what a settings file says. Raises: UsageError if it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"settings file {path} cannot be read: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"settings file {path} is not YAML: {error}") from error
    found = ConfigFile(path, {})
    if root is None or (isinstance(root, yaml.ScalarNode) and root.value == ""):
        return found
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"settings file {path} must be a mapping of keys")
    found.values.update(_mapping(root, found, ""))
    _refuse_secrets(found)
    return found


def _refuse_secrets(file: ConfigFile) -> None:
    auth = file.values.get("auth")
    for name in SECRETS:
        if isinstance(auth, dict) and name in auth:
            raise UsageError(
                f"settings file {file.place(f'auth.{name}')} holds `auth.{name}`: a secret has no "
                "place there",
                hint=f"use BULKBIND_{name.upper()}, or `auth: {name}_file:` with a file only you "
                "can read",
            )


def _mapping(node: yaml.MappingNode, file: ConfigFile, above: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, inner in node.value:
        line = name.start_mark.line + 1
        if not isinstance(name, yaml.ScalarNode):
            raise UsageError(f"settings file {file.path}, line {line}: a key must be a word")
        key = f"{above}{name.value}"
        if key in file.lines:
            raise UsageError(
                f"settings file {file.path} sets `{key}` twice: in line {file.lines[key]} and in "
                f"line {line}"
            )
        file.lines[key] = line
        value = _value(inner, file, key)
        if value is not None:
            values[name.value] = value
    return values


def _value(node: yaml.Node, file: ConfigFile, key: str) -> Any:  # noqa: ANN401  # as the file has it
    if isinstance(node, yaml.ScalarNode):
        # A plain scalar of nothing: the key stands there, and nothing is set.
        return None if node.value == "" and not node.style else str(node.value)
    if key.count(".") >= DEEPEST:
        raise UsageError(f"settings file {file.place(key)}: `{key}` is nested too deeply")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, file, f"{key}.")
    keys = [f"{key}.{number}" for number in range(len(node.value))]
    file.lines.update(
        {k: item.start_mark.line + 1 for k, item in zip(keys, node.value, strict=True)}
    )
    return [_value(item, file, k) for k, item in zip(keys, node.value, strict=True)]

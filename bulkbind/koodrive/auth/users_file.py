"""The file of users and their tokens, CSV or YAML. No message repeats what stands in it."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FIELDS = ("token", "refresh_token")
FORM = (
    "a CSV file with the columns user_id and token or refresh_token, or a YAML mapping of users to "
    "tokens, or to mappings with `token:` or `refresh_token:`"
)


class UserEntry(NamedTuple):
    """What one user is authorised by; at least one of the two."""

    token: str | None
    refresh_token: str | None

    def __repr__(self) -> str:
        return "UserEntry(***)"


def parse_users(text: str, path: Path) -> dict[str, UserEntry]:
    """Return the users of a file. Raises: UsageError that names the line."""
    read = _csv if path.suffix.lower() == ".csv" else _yaml
    users: dict[str, UserEntry] = {}
    for line, user_id, values in read(text, path):
        where = f"users file {path}, line {line}"
        token, refresh_token = (values.get(name, "").strip() or None for name in FIELDS)
        if not user_id:
            raise UsageError(f"{where}: the user's id is missing")
        if user_id in users:
            raise UsageError(f"{where}: user {user_id} stands there for the second time")
        if token is None and refresh_token is None:
            raise UsageError(f"{where}: user {user_id} has no token", hint=f"it is {FORM}")
        users[user_id] = UserEntry(token, refresh_token)
    if not users:
        raise UsageError(f"users file {path} holds no user", hint=f"it is {FORM}")
    return users


def _csv(text: str, path: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    lines = io.StringIO(text.removeprefix("\ufeff"), newline="")
    first = lines.readline()
    lines.seek(0)
    table = csv.reader(lines, delimiter=";" if ";" in first else ",", strict=True)
    try:
        header = [name.strip().lower() for name in next(table, [])]
        _check_names(header, {"user_id", *FIELDS}, f"users file {path}, line 1")
        if "user_id" not in header:
            raise UsageError(f"users file {path} has no column user_id", hint=f"it is {FORM}")
        for cells in table:
            if any(cell.strip() for cell in cells):
                values = dict(zip(header, cells, strict=False))
                yield table.line_num, values.pop("user_id", "").strip(), values
    except csv.Error:
        raise UsageError(f"users file {path}, line {table.line_num} is no CSV") from None


def _yaml(text: str, path: Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    try:
        root = yaml.compose(text, Loader=yaml.CBaseLoader)
    except yaml.YAMLError as error:
        mark: Any = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}," if mark else ""
        raise UsageError(f"users file {path}{at} is no YAML", hint=f"it is {FORM}") from None
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"users file {path} is no mapping of users", hint=f"it is {FORM}")
    for key, node in root.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and isinstance(node, yaml.ScalarNode):
            yield line, key.value.strip(), {"token": node.value}
        elif isinstance(key, yaml.ScalarNode) and isinstance(node, yaml.MappingNode):
            yield line, key.value.strip(), _mapping(node, f"users file {path}, line {line}")
        else:
            raise UsageError(f"users file {path}, line {line} is no user", hint=f"it is {FORM}")


def _mapping(node: yaml.MappingNode, where: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, inner in node.value:
        if not (isinstance(name, yaml.ScalarNode) and isinstance(inner, yaml.ScalarNode)):
            raise UsageError(f"{where} is no user", hint=f"it is {FORM}")
        values[name.value] = inner.value
    _check_names(values, set(FIELDS), where)
    return values


def _check_names(names: Iterable[str], known: set[str], where: str) -> None:
    if set(names) - known:
        # The name is not repeated: where a colon is missing, it is a token.
        listed = ", ".join(sorted(known))
        raise UsageError(f"{where} has a name that is none of {listed}", hint=f"it is {FORM}")

"""A credential per user, from a file: one that fails affects only its own user's rows.

No message quotes the file.
"""

from __future__ import annotations

import asyncio
import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from bulkbind.errors import UsageError
from bulkbind.model import Attempt, AuthExpired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from bulkbind.koodrive.auth.credential import Credential
    from bulkbind.koodrive.auth.renewing import Call, Renewing

FIELDS = ("token", "refresh_token")
FORM = (
    "a CSV file with the columns user_id and token or refresh_token, or a YAML mapping of users to "
    "tokens, or to mappings with `token:` or `refresh_token:`"
)


class UserEntry(NamedTuple):
    """The credentials of one user; at least one is set."""

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
        # The name is not quoted: if a colon is missing, it is a token.
        listed = ", ".join(sorted(known))
        raise UsageError(f"{where} has a name that is none of {listed}", hint=f"it is {FORM}")


class UserAuth:
    """The credentials of many users, each renewed separately."""

    def __init__(self, origin: str, make: Callable[[str], Renewing | None]) -> None:
        """*make*: returns what authorises a user; None for an unknown one."""
        self._origin = origin
        self._make = make
        self._users: dict[str, Renewing | None] = {}

    def _of(self, user_id: str) -> Renewing | None:
        if user_id not in self._users:
            self._users[user_id] = self._make(user_id)
        return self._users[user_id]

    def current(self, user_id: str) -> Credential | None:
        """Return a user's credential; None if it must be renewed first, or there is none."""
        own = self._of(user_id)
        return None if own is None else own.current(user_id)

    async def renew(self, user_id: str, call: Call) -> Attempt | None:
        """Renew a user's credential; return why there is none."""
        own = self._of(user_id)
        if own is None:
            return Attempt(
                AuthExpired(
                    is_users_own=True, advice=f"add the user to {self._origin}, and run again"
                ),
                "user",
                f"{self._origin} holds no token for this user",
            )
        trouble = await own.renew(user_id, call)
        if trouble is None or not isinstance(trouble.verdict, AuthExpired):
            return trouble
        return replace(trouble, verdict=self._own())

    def accepted(self, credential: Credential, user_id: str) -> None:
        """Note that the server accepted a user's credential."""
        own = self._of(user_id)
        if own is not None:
            own.accepted(credential, user_id)

    def witness(self, credential: Credential, user_id: str) -> str | None:  # noqa: ARG002  # as below
        """Return None: each credential serves one user, so there is no witness."""
        return None

    def refused(self, credential: Credential, user_id: str, *, is_users_own: bool) -> AuthExpired:
        """Note that the server refused a user's credential; return what that means."""
        own = self._of(user_id)
        assert own is not None  # it made the credential
        found = own.refused(credential, user_id, is_users_own=is_users_own)
        return found if found.is_renewable else self._own()

    async def close(self) -> None:
        """Wait for renewals under way."""
        await asyncio.gather(*(own.close() for own in self._users.values() if own is not None))

    def _own(self) -> AuthExpired:
        return AuthExpired(
            is_users_own=True, advice=f"put a new token for the user into {self._origin}"
        )

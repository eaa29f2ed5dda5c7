"""What credentials a sandbox takes, as a file of its own says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from bulkbind.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORM = (
    "tokens: {TOKEN: USER}           a user's token; `any`: for every user",
    "refresh_tokens: {TOKEN: USER}   begins a session of that user; `any` as above",
    "accounts: {NAME: PASSWORD}      who may log in",
    "apps: {ID: SECRET}              who may sign requests",
)
"""A line for each key."""
ANY_USER = "any"
IDLE_S = 1200.0
"""A session's token lives so long after its last call. Source: koodrive-api.md, "Token life"."""


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What is taken; all of it empty: any token."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Token -> the user that it is for, or `any`."""
    refresh_tokens: Mapping[str, str] = field(default_factory=dict)
    """Refresh token that begins a session -> the user that it is for, or `any`."""
    accounts: Mapping[str, str] = field(default_factory=dict)
    """Account -> password; its sessions are for any user."""
    apps: Mapping[str, str] = field(default_factory=dict)
    """App id -> secret."""
    session_calls: int | None = None
    """A session's token dies after so many calls; None: never for that."""
    session_idle_s: float = IDLE_S
    """A session's token dies when so long no call came with it."""

    @property
    def takes_any(self) -> bool:
        """Whether any token is taken."""
        return not (self.tokens or self.refresh_tokens or self.accounts or self.apps)


KINDS = ("tokens", "refresh_tokens", "accounts", "apps")


def read_credentials(
    path: Path | None, *, session_calls: int | None = None, session_idle_s: float = IDLE_S
) -> Credentials:
    """Return what a file says is taken. Raises: UsageError."""
    found: dict[str, Any] = {}
    if path is not None:
        try:
            found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader) or {}  # noqa: S506  # every scalar stays text
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"credentials file {path} cannot be read: {error}") from error
        is_right = isinstance(found, dict) and all(
            key in KINDS
            and isinstance(kind, dict)
            and all(isinstance(v, str) for v in kind.values())
            for key, kind in found.items()
        )
        if not is_right:
            raise UsageError(
                f"credentials file {path} is none",
                hint="`bulkbind sandbox --help` shows what it holds",
            )
    return Credentials(**found, session_calls=session_calls, session_idle_s=session_idle_s)

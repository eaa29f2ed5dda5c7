"""How requests are authorised. Source: koodrive-api.md, header table and "Errors"."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from bulkbind.errors import UsageError
from bulkbind.settings import is_shared

if TYPE_CHECKING:
    from pathlib import Path

    from bulkbind.settings import AuthSettings


class FixedToken:
    """A token that nobody renews."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    def __repr__(self) -> str:
        return "FixedToken(***)"

    def authorization(self) -> str:
        """Return the value of the Authorization header."""
        return self._authorization


def fixed_token(settings: AuthSettings) -> FixedToken:
    """Return the token of the settings, ready for the header.

    A token with a scheme word of its own (`AT 3b91…`) goes out as it is, any other one behind
    `token_prefix`.

    Raises: UsageError if there is none, or it cannot stand in a header.
    """
    token, origin = _find(settings)
    token = token.strip()
    if not token:
        raise UsageError(
            f"the token from {origin} is empty" if origin else "no token is set",
            hint="set BULKBIND_TOKEN, or `auth: token_file:` to a file with the token alone",
        )
    authorization = token if " " in token else f"{settings.token_prefix}{token}"
    if not authorization.isascii() or not authorization.isprintable():
        raise UsageError(
            f"the token from {origin}, or `auth: token_prefix:`, holds characters that no header "
            "can carry"
        )
    return FixedToken(authorization)


def _find(settings: AuthSettings) -> tuple[str, str]:
    if settings.token is not None:
        return settings.token.get_secret_value(), "BULKBIND_TOKEN"
    if settings.token_file is None:
        return "", ""
    return _read_secret(settings.token_file), str(settings.token_file)


def _read_secret(path: Path) -> str:
    """Return a secret file's text. Raises: UsageError if others can read it, or nobody can."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"token file {path} cannot be read: {error}") from error
    if is_shared(path, mode):
        raise UsageError(
            f"token file {path} can be read by others (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}",
        )
    return text

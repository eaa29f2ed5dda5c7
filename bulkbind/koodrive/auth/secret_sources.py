"""Find secrets: in the environment, in files of their own, in systemd's credentials."""

from __future__ import annotations

import codecs
import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.errors import UsageError
from bulkbind.files import read_whole
from bulkbind.redaction import learn
from bulkbind.settings import shared, variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulkbind.settings import AuthSettings

_BOM = "\ufeff"
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Set by systemd for `LoadCredential=` and its kin. Source: systemd.exec(5)."""


class Found(NamedTuple):
    """A secret and its origin."""

    text: str
    origin: str

    def __repr__(self) -> str:
        return f"Found(*** from {self.origin})"


class Secrets:
    """Finds secrets by the name of their setting, such as `refresh_token`."""

    def __init__(self, settings: AuthSettings, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._folder = environ.get(CREDENTIALS_DIRECTORY)

    def find(self, name: str) -> Found | None:
        """Return a secret: from the environment, its file, or `bulkbind-<name>` of systemd.

        Raises: UsageError if it is empty, or its file cannot be read, or others can read or write
            it.
        """
        given = getattr(self._settings, name)
        path = self.file(name)
        if given is not None:
            found = Found(given.get_secret_value().lstrip(_BOM), variable_of(name))
        elif path is not None:
            found = Found(self.read(path).rstrip("\r\n"), str(path))
        else:
            return None
        if not found.text.strip():
            raise UsageError(
                f"the {name.replace('_', ' ')} from {found.origin} is empty",
                hint=f"give another {variable_of(name)}, or `auth: {name}_file:`",
            )
        learn(found.text.strip())
        return found

    def file(self, name: str) -> Path | None:
        """Return the file that holds a secret, None if there is none."""
        set_to: Path | None = getattr(self._settings, f"{name}_file")
        if set_to is not None or not self._folder:
            return set_to
        path = Path(self._folder, f"bulkbind-{name.replace('_', '-')}")
        return path if path.exists() else None

    def read(self, path: Path) -> str:
        """Return the text of a file that holds secrets. Raises: as `read_private`."""
        return read_private(path, self._environ)


def read_private(path: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Return the text of a file that holds secrets.

    Raises: UsageError if it cannot be read, or others can read or write it (see `shared`).
    """
    try:
        content, status = read_whole(path)
        text = _decoded(content)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"secret file {path} cannot be read: {_why(error)}") from None
    if how := shared(path, status.st_mode, environ):
        raise UsageError(
            f"secret file {path} can be {how} by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 600 {shlex.quote(str(path))}",
        )
    return text


def _decoded(data: bytes) -> str:
    """Return a text without byte order marks, which editors and shells of Windows write."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if is_utf16 else "utf-8").lstrip(_BOM)


def _why(error: OSError | UnicodeDecodeError) -> str:
    # A decoding error would quote the bytes, and so the secret.
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"


def header_value(token: str, origin: str, prefix: str) -> str:
    """Return a token as an Authorization header: with *prefix*, unless it has a scheme (`AT 3b91`).

    Raises: UsageError if it is empty, or a header cannot hold it.
    """
    token = token.strip()
    if not token:
        raise UsageError(
            f"the token from {origin} is empty",
            hint="set BULKBIND_TOKEN, or `auth: token_file:` to a file with the token alone",
        )
    learn(token.rpartition(" ")[2])
    value = token if " " in token else f"{prefix}{token}"
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            f"the token from {origin}, or `auth: token_prefix:`, holds characters that no header "
            "can carry"
        )
    return value

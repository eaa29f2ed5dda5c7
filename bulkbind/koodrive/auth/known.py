"""Every secret that the settings lead to, so that they can be looked for where none should be."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from bulkbind.errors import UsageError
from bulkbind.koodrive.auth.finding import Secrets, read_private
from bulkbind.koodrive.auth.store import session_files
from bulkbind.koodrive.auth.users_file import parse_users
from bulkbind.settings import SECRETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bulkbind.settings import AuthSettings


def known_secrets(
    settings: AuthSettings, ledger: Path, environ: Mapping[str, str] = os.environ
) -> set[str]:
    """Return the secrets of the settings, their files, the users and the sessions kept so far.

    What cannot be read is left out: it has been read by nobody else, either.
    """
    secrets = Secrets(settings, environ)
    found: set[str] = set()
    for name in SECRETS:
        try:
            given = secrets.find(name)
        except UsageError:
            continue
        if given is not None:
            found.add(given.text)
    found.update(_of_users(settings, secrets))
    for path in session_files(ledger):
        found.update(_of_session(path))
    return {text.strip() for text in found if text.strip()}


def _of_users(settings: AuthSettings, secrets: Secrets) -> Iterator[str]:
    path = settings.users_file
    if path is None:
        return
    try:
        entries = parse_users(secrets.read(path), path)
    except UsageError:
        return
    for entry in entries.values():
        yield from filter(None, entry)


def _of_session(path: Path) -> Iterator[str]:
    try:
        kept = json.loads(read_private(path))
    except (UsageError, ValueError):
        return
    if isinstance(kept, dict):
        yield from (kept[name] for name in ("access_token", "refresh_token") if name in kept)

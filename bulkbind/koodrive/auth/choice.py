"""Choose the kind of credentials from the settings and build it; find every known secret."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from bulkbind.errors import UsageError
from bulkbind.koodrive.auth.credential import App, Token
from bulkbind.koodrive.auth.renewed_session import Grant, RenewedSession, SessionForm
from bulkbind.koodrive.auth.renewing import Renewing
from bulkbind.koodrive.auth.secret_sources import Secrets, header_value, read_private
from bulkbind.koodrive.auth.session_store import (
    SessionStore,
    session_file,
    session_files,
    session_folder,
)
from bulkbind.koodrive.auth.static_token import GIVEN_APP, GIVEN_TOKEN, FetchedToken, output_of
from bulkbind.koodrive.auth.users import UserAuth, parse_users
from bulkbind.settings import SECRETS, variable_of
from bulkbind.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bulkbind.clock import Clock
    from bulkbind.settings import AuthMode, AuthSettings


def known_secrets(
    settings: AuthSettings, ledger: Path, environ: Mapping[str, str] = os.environ
) -> set[str]:
    """Return the secrets in the settings, their files, the users file and the stored sessions.

    What cannot be read is left out: then nothing else has read it either.
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
        stored = json.loads(read_private(path))
    except (UsageError, ValueError):
        return
    if isinstance(stored, dict):
        yield from (stored[name] for name in ("access_token", "refresh_token") if name in stored)


Auth: TypeAlias = Renewing | UserAuth

_HINT = (
    "or set BULKBIND_REFRESH_TOKEN, or BULKBIND_APP_ID and BULKBIND_APP_SECRET; or "
    "name a file in the settings: `auth: token_file:` and the like"
)
_NEEDS: dict[AuthMode, str] = {
    "token": "BULKBIND_TOKEN, `auth: token_file:` or `auth: token_command:`",
    "session": "BULKBIND_REFRESH_TOKEN or `auth: refresh_token_file:`, or `auth: account:` with "
    "BULKBIND_PASSWORD or `auth: password_file:`",
    "app": "BULKBIND_APP_ID (or `auth: app_id:`) with BULKBIND_APP_SECRET or `auth: "
    "app_secret_file:`",
    "users": "`auth: users_file:`",
}


def _typed_in(mode: AuthMode) -> str:
    """Return how to give a secret so that neither screen nor history has it."""
    name = {"token": "token", "session": "refresh_token", "app": "app_secret"}.get(mode)
    if name is None:
        return ""
    variable = variable_of(name)
    return f"`read -rs {variable} && export {variable}` takes what is pasted, unseen; "


class Chosen(NamedTuple):
    """A kind of credentials, and why it was chosen."""

    mode: AuthMode
    why: str
    """For a person; names places, never secrets."""


def choose(settings: AuthSettings, environ: Mapping[str, str] = os.environ) -> Chosen:
    """Return the kind that the settings name, else the first complete one.

    The order: users file, app, session, token.

    Raises: UsageError if a needed secret is missing or cannot be read.
    """
    secrets = Secrets(settings, environ)
    modes: tuple[AuthMode, ...] = ("users", "app", "session", "token")
    found = {mode: _origins(mode, settings, secrets) for mode in modes}
    if settings.mode is not None:
        origins = found[settings.mode]
        if origins is None:
            raise UsageError(
                f"`auth: mode: {settings.mode}` needs {_NEEDS[settings.mode]}",
                hint=f"{_typed_in(settings.mode)}`bulkbind config` shows what is set",
            )
        return Chosen(settings.mode, f"as `auth: mode:` says; {origins}")
    for mode, origins in found.items():
        if origins is not None:
            return Chosen(mode, f"inferred from {origins}")
    half = ""
    if settings.app_id is not None:
        half = "; an app id is set, but no app secret"
    elif secrets.find("app_secret") is not None:
        half = "; an app secret is set, but no app id"
    elif settings.account is not None:
        half = "; an account is set, but no password"
    raise UsageError(
        f"no token is set, nor other credentials{half}", hint=f"{_typed_in('token')}{_HINT}"
    )


def caller(settings: AuthSettings, environ: Mapping[str, str] = os.environ) -> str:
    """Return as whom requests are sent, as the end of a sentence; names places, never secrets.

    Raises: as `choose`.
    """
    secrets = Secrets(settings, environ)
    match choose(settings, environ).mode:
        case "users":
            return f"with the tokens in {settings.users_file}"
        case "app":
            return f"as app {settings.app_id}"
        case "session" if settings.account:
            return f"as session of {settings.account}"
        case "session":
            found = secrets.find("refresh_token")
            return f"as session of the refresh token from {found.origin if found else ''}"
        case "token":
            found = secrets.find("token")
            of_command = f"`{settings.token_command[0]}`" if settings.token_command else ""
            return f"with the token from {found.origin if found else of_command}"


def _origins(mode: AuthMode, settings: AuthSettings, secrets: Secrets) -> str | None:
    """Return where the secrets of a kind come from; None if one is missing."""
    match mode:
        case "users":
            return None if settings.users_file is None else str(settings.users_file)
        case "app":
            secret = secrets.find("app_secret")
            if settings.app_id is None or secret is None:
                return None
            return f"app id {settings.app_id}, secret from {secret.origin}"
        case "session":
            return _session_origins(settings, secrets)
        case "token":
            if (token := secrets.find("token")) is not None:
                return token.origin
            return "`auth: token_command:`" if settings.token_command else None


def _session_origins(settings: AuthSettings, secrets: Secrets) -> str | None:
    origins: list[str] = []
    if (refresh := secrets.find("refresh_token")) is not None:
        origins.append(f"a refresh token from {refresh.origin}")
    if settings.account and (password := secrets.find("password")) is not None:
        origins.append(f"account {settings.account} with its password from {password.origin}")
    return ", ".join(origins) or None


def authorizer(
    settings: AuthSettings, ledger: Path, clock: Clock, environ: Mapping[str, str] = os.environ
) -> Auth:
    """Return what authorises the requests; nothing is requested yet.

    Args:
        settings: The credentials, or where to find them.
        ledger: Sessions are stored in files next to it.
        clock: Measures how long a token is valid.
        environ: For systemd's credentials.

    Raises: UsageError if there are no credentials, or they cannot be read or sent.
    """
    secrets = Secrets(settings, environ)
    match choose(settings, environ).mode:
        case "users":
            return _users(settings, secrets, ledger, clock)
        case "app":
            secret = secrets.find("app_secret")
            assert settings.app_id is not None and secret is not None  # noqa: PT018  # chosen
            return Renewing(GIVEN_APP, clock, App(settings.app_id, secret.text))
        case "session":
            store = SessionStore(session_file(ledger))
            return Renewing(_session(settings, secrets, store, clock), clock)
        case "token":
            return _token(settings, secrets, clock)


def _token(settings: AuthSettings, secrets: Secrets, clock: Clock) -> Renewing:
    prefix = settings.token_prefix
    path = secrets.file("token")
    if settings.token is not None or (path is None and not settings.token_command):
        given = secrets.find("token")
        assert given is not None  # chosen
        return Renewing(GIVEN_TOKEN, clock, Token(header_value(*given, prefix)))
    if path is not None:
        header_value(secrets.read(path), str(path), prefix)  # fail early

        async def read() -> str:
            return await in_thread(secrets.read, path)

        return Renewing(FetchedToken(str(path), prefix, read), clock)
    command = settings.token_command
    if shutil.which(command[0]) is None:
        raise UsageError(f"token command `{command[0]}` is no program that can be run")

    async def run() -> str:
        return await output_of(command)

    return Renewing(FetchedToken("the token command", prefix, run), clock)


def _session(
    settings: AuthSettings, secrets: Secrets, store: SessionStore, clock: Clock
) -> RenewedSession:
    found = {name: secrets.find(name) for name in ("token", "refresh_token", "password")}
    texts = {name: item.text for name, item in found.items() if item is not None}
    grant = Grant(
        access_token=texts.get("token"),
        refresh_token=texts.get("refresh_token"),
        account=settings.account,
        password=texts.get("password"),
    )
    return RenewedSession(grant, _form(settings), store, clock)


def _form(settings: AuthSettings) -> SessionForm:
    return SessionForm(
        path=settings.session_path,
        agent_name=settings.agent_name,
        token_prefix=settings.token_prefix,
    )


def _users(settings: AuthSettings, secrets: Secrets, ledger: Path, clock: Clock) -> UserAuth:
    path = settings.users_file
    assert path is not None  # chosen
    entries = parse_users(secrets.read(path), path)
    folder = session_folder(ledger)
    prefix, form = settings.token_prefix, _form(settings)
    for user_id, entry in entries.items():
        if entry.token is not None:
            header_value(entry.token, f"{path}, user {user_id},", prefix)

    def make(user_id: str) -> Renewing | None:
        entry = entries.get(user_id)
        if entry is None:
            return None
        if entry.refresh_token is None:
            return Renewing(GIVEN_TOKEN, clock, Token(header_value(entry.token or "", "", prefix)))
        grant = Grant(access_token=entry.token, refresh_token=entry.refresh_token)
        name = hashlib.sha256(user_id.encode()).hexdigest()[:32]
        return Renewing(RenewedSession(grant, form, SessionStore(folder / name), clock), clock)

    return UserAuth(str(path), make)

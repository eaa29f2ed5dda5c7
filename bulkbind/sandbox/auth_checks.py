"""Check credentials: tokens, expiring sessions, app signatures.

Written from koodrive-api.md, independently of the client's code.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from bulkbind.errors import UsageError
from bulkbind.sandbox.device_api import Refusal, gateway_refusal, unauthorised, wrong_parameters

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

    from bulkbind.clock import Clock

CREDENTIALS_HELP = (
    "tokens: {TOKEN: USER}           a user's token; `any`: for every user",
    "refresh_tokens: {TOKEN: USER}   begins a session of that user; `any` as above",
    "accounts: {NAME: PASSWORD}      who may log in",
    "apps: {ID: SECRET}              who may sign requests",
)
"""A line for each key of a credentials file."""
ANY_USER = "any"
IDLE_S = 1200.0
"""Idle time after which a session's token expires. Source: koodrive-api.md, "Token life"."""
EXPIRES_IN_S = 1800
"""As stated in a session answer. Source: koodrive-api.md."""
SCHEMES = ("Bearer", "AT")

_FILE_KEYS = ("tokens", "refresh_tokens", "accounts", "apps")


# --- what is accepted -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The accepted credentials; without any, every token is accepted."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Token -> its user, or `any`."""
    refresh_tokens: Mapping[str, str] = field(default_factory=dict)
    """Refresh token that starts a session -> its user, or `any`."""
    accounts: Mapping[str, str] = field(default_factory=dict)
    """Account -> password; its sessions are for any user."""
    apps: Mapping[str, str] = field(default_factory=dict)
    """App id -> secret."""
    session_calls: int | None = None
    """Calls after which a session's token expires; None: no limit."""
    session_idle_s: float = IDLE_S
    """Seconds without a call after which a session's token expires."""

    @property
    def takes_any(self) -> bool:
        """Whether any token is accepted."""
        return not (self.tokens or self.refresh_tokens or self.accounts or self.apps)


def read_credentials(
    path: Path | None, *, session_calls: int | None = None, session_idle_s: float = IDLE_S
) -> Credentials:
    """Return the accepted credentials from a file. Raises: UsageError."""
    found: dict[str, Any] = {}
    if path is not None:
        try:
            found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader) or {}  # noqa: S506  # keeps scalars as text
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UsageError(f"credentials file {path} cannot be read: {error}") from error
        is_right = isinstance(found, dict) and all(
            key in _FILE_KEYS
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


# --- the checks -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Session:
    number: int
    user: str
    used_at: float
    calls: int = 0
    is_dead: bool = False


class AuthResult(NamedTuple):
    """The result of checking a request's credentials."""

    name: str
    """Their name in the journal: `session 3`, `app demo`, `token`; never a secret."""
    refusal: Refusal | None = None


class AuthChecks:
    """Checks credentials, and holds the sessions started so far."""

    def __init__(
        self, credentials: Credentials, token: str | None, clock: Clock, counts: Counter[str]
    ) -> None:
        """*token*: the only one accepted besides *credentials*; None: no other."""
        self._credentials = credentials
        self._token = token
        self._clock = clock
        self._counts = counts
        self._sessions: dict[str, _Session] = {}
        """Access token -> session."""
        self._refresh: dict[str, tuple[str, str | None]] = {
            token: (user, None) for token, user in credentials.refresh_tokens.items()
        }
        """Unused refresh token -> its user, and the access token issued with it."""

    def check(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> AuthResult:
        """Return the name of a request's credentials, and why it is refused, if it is.

        *method*: in capitals; *target*: path and query as received; *headers*: names in any case.
        """
        given = headers.get("Authorization", "")
        user_id = headers.get("X-User-Id", "")
        if (match := _SIGNATURE.fullmatch(given)) is not None:
            wrong = check_signature(method, target, headers, body, self._credentials.apps)
            return AuthResult(f"app {match[1]}", None if wrong is None else _wrong(wrong))
        scheme, _, token = given.partition(" ")
        if scheme not in SCHEMES or not token:
            return AuthResult("", _wrong("no token"))
        if token in self._sessions:
            return self._check_session(self._sessions[token], user_id)
        return AuthResult("token", self._check_token(token, user_id))

    def _check_session(self, session: _Session, user_id: str) -> AuthResult:
        now, name = self._clock.monotonic(), f"session {session.number}"
        limit = self._credentials.session_calls
        if now - session.used_at > self._credentials.session_idle_s or session.calls == limit:
            session.is_dead = True
        if session.is_dead:
            self._counts["ended_token"] += 1
            return AuthResult(name, gateway_refusal(401, "APIG.0307", "The token must be updated"))
        if session.user not in (ANY_USER, user_id):
            return AuthResult(name, _wrong("the token is another user's"))
        session.calls += 1
        session.used_at = now
        return AuthResult(name)

    def _check_token(self, token: str, user_id: str) -> Refusal | None:
        known = self._credentials
        if (known.takes_any and self._token is None) or token == self._token:
            return None
        if known.tokens.get(token) in (ANY_USER, user_id):
            return None
        return _wrong("decrypt token fail")

    # --- the session calls ------------------------------------------------------------------------

    def login(self, headers: Mapping[str, str], body: bytes) -> dict[str, object] | Refusal:
        """Start a session."""
        fields = _text_fields(body)
        account, password = fields.get("account", ""), fields.get("password", "")
        right = self._credentials.accounts.get(account)
        if not headers.get("x-hw-agentName"):
            return wrong_parameters("x-hw-agentName is missing")
        if fields.get("authType") != "1" or right is None:
            return _wrong("the account is unknown")
        if not hmac.compare_digest(right.encode(), password.encode()):
            return _wrong("the password is wrong")
        self._counts["logins"] += 1
        return self._start_session(ANY_USER, {"userInfo": {"userId": account}})

    def refresh(self, headers: Mapping[str, str], body: bytes) -> dict[str, object] | Refusal:
        """Exchange a refresh token, once, for a new session; the old one ends."""
        token = _text_fields(body).get("refreshToken", "")
        if token not in self._refresh:
            return _wrong("the refresh token is unknown, or was used")
        user, access = self._refresh[token]
        given = headers.get("Authorization", "").partition(" ")[2]
        if access is not None and given != access:
            return _wrong("the access token does not belong to the refresh token")
        del self._refresh[token]
        if access is not None:
            self._sessions[access].is_dead = True
        self._counts["refreshes"] += 1
        return self._start_session(user, {})

    def _start_session(self, user: str, more: dict[str, object]) -> dict[str, object]:
        access, refresh = secrets.token_hex(20), secrets.token_hex(20)
        now = self._clock.monotonic()
        self._sessions[access] = _Session(len(self._sessions) + 1, user, now)
        self._refresh[refresh] = (user, access)
        issued_ms = int(self._clock.utc_now().timestamp() * 1000)
        info = {
            "accessToken": f"AT {access}",
            "expiresIn": EXPIRES_IN_S,
            "issuedAt": str(issued_ms),
            "refreshToken": refresh,
        }
        return {"code": 0, "msg": "success", "data": {"sessionInfo": info} | more}


def _text_fields(body: bytes) -> dict[str, str]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _wrong(message: str) -> Refusal:
    return unauthorised(f"Incorrect authentication information: {message}")


# --- signatures -----------------------------------------------------------------------------------

_SIGNATURE = re.compile(
    r"HMAC-SHA256 AppId=([^,]+),SignedHeaders=([a-z0-9;-]+),Signature=([0-9a-f]{64})"
)
_MUST_BE_SIGNED = {"x-date", "x-user-id"}
_UNRESERVED = frozenset((string.ascii_letters + string.digits + "-_.~").encode())
_HEX = re.compile(rb"%([0-9A-Fa-f]{2})")


def check_signature(
    method: str, target: str, headers: Mapping[str, str], body: bytes, apps: Mapping[str, str]
) -> str | None:
    """Return what is wrong with a signed request, or None.

    *apps*: app id -> secret; other arguments: as in `AuthChecks.check`.
    """
    match = _SIGNATURE.fullmatch(headers.get("Authorization", ""))
    if match is None:
        return "the Authorization header is no signature"
    app_id, names, signature = match.groups()
    if app_id not in apps:
        return "app not found"
    signed = names.split(";")
    if signed != sorted(signed) or _MUST_BE_SIGNED - set(signed):
        return "SignedHeaders must be sorted, and name x-date and x-user-id"
    if any(name not in headers for name in signed):
        return "a signed header is missing"
    path, _, query = target.partition("?")
    lines = [
        method,
        _canonical_path(path),
        _canonical_query(query),
        *(f"{name}:{headers[name].strip()}" for name in signed),
        "",
        names,
        hashlib.sha256(body).hexdigest(),
    ]
    hashed = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    right = hmac.new(apps[app_id].encode(), f"HMAC-SHA256\n{hashed}".encode(), hashlib.sha256)
    return None if hmac.compare_digest(right.hexdigest(), signature) else "signature mismatch"


def _canonical_path(path: str) -> str:
    whole = "/".join(_encoded(part) for part in path.split("/"))
    return whole if whole.endswith("/") else whole + "/"


def _canonical_query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    coded = sorted((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join("=".join(pair) for pair in coded)


def _encoded(text: str) -> str:
    decoded = _HEX.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in decoded)

"""Who may come in: tokens, sessions that end, signatures. Written from koodrive-api.md."""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bulkbind.sandbox.checks import Refusal, unauthorised
from bulkbind.sandbox.credentials import ANY_USER
from bulkbind.sandbox.signature import app_of, check_signature

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from bulkbind.clock import Clock
    from bulkbind.sandbox.credentials import Credentials

EXPIRES_IN_S = 1800
"""What a session answer says. Source: koodrive-api.md."""
SCHEMES = ("Bearer", "AT")


@dataclass(slots=True)
class _Session:
    number: int
    user: str
    used_at: float
    calls: int = 0
    is_dead: bool = False


class Pass(NamedTuple):
    """What the doorman makes of a request."""

    name: str
    """Whose it is, for the journal: `session 3`, `app demo`, `token`; never a secret."""
    refusal: Refusal | None = None


class Doorman:
    """Knows the sessions of this sandbox's life."""

    def __init__(
        self, credentials: Credentials, token: str | None, clock: Clock, counts: Counter[str]
    ) -> None:
        """*token*: the only one that is taken beside *credentials*; None: none, or any."""
        self._credentials = credentials
        self._token = token
        self._clock = clock
        self._counts = counts
        self._sessions: dict[str, _Session] = {}
        """Access token -> session."""
        self._refresh: dict[str, tuple[str, str | None]] = {
            token: (user, None) for token, user in credentials.refresh_tokens.items()
        }
        """Refresh token that may still be used -> its user, and the access token it came with."""

    def look(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, user_id: str
    ) -> Pass:
        """Return whether a request comes in."""
        given = headers.get("Authorization", "")
        if (app := app_of(given)) is not None:
            wrong = check_signature(method, target, headers, body, self._credentials.apps)
            return Pass(f"app {app}", None if wrong is None else _wrong(wrong))
        scheme, _, token = given.partition(" ")
        if scheme not in SCHEMES or not token:
            return Pass("", _wrong("no token"))
        if token in self._sessions:
            return self._look_at(self._sessions[token], user_id)
        return Pass("token", self._look_at_token(token, user_id))

    def _look_at(self, session: _Session, user_id: str) -> Pass:
        now, name = self._clock.monotonic(), f"session {session.number}"
        limit = self._credentials.session_calls
        if now - session.used_at > self._credentials.session_idle_s or session.calls == limit:
            session.is_dead = True
        if session.is_dead:
            self._counts["ended_token"] += 1
            return Pass(name, _ended())
        if session.user not in (ANY_USER, user_id):
            return Pass(name, _wrong("the token is another user's"))
        session.calls += 1
        session.used_at = now
        return Pass(name)

    def _look_at_token(self, token: str, user_id: str) -> Refusal | None:
        known = self._credentials
        if (known.takes_any and self._token is None) or token == self._token:
            return None
        if known.tokens.get(token) in (ANY_USER, user_id):
            return None
        return _wrong("decrypt token fail")

    # --- the session calls ------------------------------------------------------------------------

    def login(self, headers: Mapping[str, str], body: bytes) -> dict[str, object] | Refusal:
        """Begin a session."""
        fields = _fields(body)
        account, password = fields.get("account", ""), fields.get("password", "")
        right = self._credentials.accounts.get(account)
        if not headers.get("x-hw-agentName"):
            return Refusal(400, {"code": 13000102, "msg": "x-hw-agentName is missing"})
        if fields.get("authType") != "1" or right is None:
            return _wrong("the account is unknown")
        if not hmac.compare_digest(right.encode(), password.encode()):
            return _wrong("the password is wrong")
        self._counts["logins"] += 1
        return self._begin(ANY_USER, {"userInfo": {"userId": account}})

    def refresh(self, headers: Mapping[str, str], body: bytes) -> dict[str, object] | Refusal:
        """Trade a refresh token, once, for a new session; the old one ends."""
        token = _fields(body).get("refreshToken", "")
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
        return self._begin(user, {})

    def _begin(self, user: str, more: dict[str, object]) -> dict[str, object]:
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


def _fields(body: bytes) -> dict[str, str]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _wrong(message: str) -> Refusal:
    return unauthorised(f"Incorrect authentication information: {message}")


def _ended() -> Refusal:
    body: dict[str, object] = {
        "error_code": "APIG.0307",
        "error_msg": "The token must be updated",
        "request_id": "sandbox",
    }
    return Refusal(401, body)

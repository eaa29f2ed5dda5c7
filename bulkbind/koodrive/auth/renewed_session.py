"""A session: a short-lived token, renewed by a single-use refresh token or by a login.

Source of the calls: koodrive-api.md, "Its neighbours".
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.koodrive.auth.credential import Token
from bulkbind.koodrive.auth.renewing import Call, Made, SessionCall
from bulkbind.koodrive.auth.secret_sources import header_value
from bulkbind.koodrive.auth.session_store import SessionStore, Stored, root_of
from bulkbind.koodrive.verdicts import Codes, classify
from bulkbind.model import (
    Accepted,
    Attempt,
    AuthExpired,
    NoAnswer,
    Throttled,
    Transient,
    Unreachable,
)
from bulkbind.redaction import learn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from bulkbind.clock import Clock
    from bulkbind.koodrive.wire import Answer

BY_PASSWORD = "1"  # noqa: S105  # no password
LONGEST_TOKEN = 8192
"""Common servers refuse a longer header."""


class SessionInfo(NamedTuple):
    """The result of a session call."""

    access_token: str
    """Perhaps with a scheme."""
    refresh_token: str
    expires_in_s: float | None

    def __repr__(self) -> str:
        return "SessionInfo(***)"


async def refresh(
    call: Call, path: str, access_header: str | None, refresh_token: str
) -> SessionInfo | Attempt:
    """Exchange a refresh token for a new session. *access_header*: the old token's, if known."""
    headers = {} if access_header is None else {"Authorization": access_header}
    return await _request_session(
        call,
        f"{path}/refreshToken",
        headers,
        {"refreshToken": refresh_token},
    )


async def login(
    call: Call, path: str, agent_name: str, account: str, password: str
) -> SessionInfo | Attempt:
    """Start a session with an account and its password."""
    return await _request_session(
        call,
        f"{path}/login",
        {"x-hw-agentName": agent_name},
        {"account": account, "authType": BY_PASSWORD, "password": password},
    )


async def _request_session(
    call: Call, path: str, headers: dict[str, str], body: dict[str, str]
) -> SessionInfo | Attempt:
    found: list[SessionInfo] = []

    def judge(answer: Answer) -> Attempt:
        info = session_of(answer)
        if info is None:
            return _refusal(answer)
        found.append(info)
        return Attempt(Accepted("", ""), "0", "success")

    reading = await call(SessionCall(path, headers, json.dumps(body).encode(), judge))
    return found[-1] if found else reading


def session_of(answer: Answer) -> SessionInfo | None:
    """Return the session in an answer, None if there is none."""
    if answer.status != 200 or not answer.whole:  # noqa: PLR2004  # HTTP status
        return None
    try:
        body = json.loads(answer.body)
        info: dict[str, Any] = body["data"]["sessionInfo"]
        if str(body["code"]) != "0":
            return None
        access, refreshing = info["accessToken"], info["refreshToken"]
        expires_in_s = float(info.get("expiresIn") or 0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not (_is_token(access) and _is_token(refreshing)):
        return None
    return SessionInfo(access, refreshing, expires_in_s if expires_in_s > 0 else None)


def _is_token(text: object) -> bool:
    return (
        isinstance(text, str)
        and 0 < len(text) <= LONGEST_TOKEN
        and text.isascii()
        and text.isprintable()
    )


def _refusal(answer: Answer) -> Attempt:
    """Return why an answer holds no session. A text that may hold one is not quoted."""
    refused = classify(answer, Codes())
    verdict, code, message = refused.verdict, refused.code, refused.message
    if answer.status < 300:  # noqa: PLR2004  # HTTP status
        message = "the answer holds no session" if isinstance(verdict, NoAnswer) else message
    words = f"HTTP {answer.status} {code}".strip() + f": {message}"
    match verdict:
        case Throttled():
            return Attempt(verdict, code, words)
        case Transient() | NoAnswer():
            return Attempt(Unreachable(), "session", f"the session cannot be renewed: {words}")
        case _:
            return Attempt(AuthExpired(), code, words)


SPARE_S = 30.0
"""A stored session that expires sooner is renewed at once."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Grant:
    """What starts a session: a refresh token, or an account with its password, or both."""

    access_token: str | None = None
    """The first token, if there is one."""
    refresh_token: str | None = None
    account: str | None = None
    password: str | None = None

    def __post_init__(self) -> None:
        learn(self.access_token, self.refresh_token, self.password)

    def root(self) -> str:
        """Return the `Stored.root` of sessions that descend from this."""
        if self.refresh_token is not None:
            return root_of("refresh token", self.refresh_token)
        return root_of("account", self.account or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionForm:
    """The settings of session calls."""

    path: str
    agent_name: str
    token_prefix: str


class RenewedSession:
    """Makes tokens; each renewal is stored for later runs and for concurrent processes."""

    is_spent = False
    is_kept = True
    advice = (
        "log in anew and set BULKBIND_REFRESH_TOKEN; with `auth: account:` and "
        "BULKBIND_PASSWORD bulkbind logs in by itself"
    )

    def __init__(self, grant: Grant, form: SessionForm, store: SessionStore, clock: Clock) -> None:
        self._grant = grant
        self._form = form
        self._store = store
        self._clock = clock
        self._root = grant.root()
        self._access: str | None = None
        """The token in use."""
        self._refresh: str | None = None
        """The latest refresh token that this process received."""

    async def make(self, call: Call) -> Made | Attempt:
        """Return the stored session's token if it is not the expired one; else a renewed one.

        Raises: LedgerError if the lock of the session cannot be acquired.
        """
        async with self._store.held(self._clock):
            stored = self._store.read(self._root)
            available = self._available(stored)
            if available is not None:
                return available
            refused: list[str] = []
            for name, renew in self._renewals(stored):
                result = await renew(call)
                if isinstance(result, SessionInfo):
                    return self._keep(result)
                if not isinstance(result.verdict, AuthExpired):
                    return result
                refused.append(f"{name} is refused ({result.message})")
        words = "the session cannot be renewed: " + "; ".join(refused)
        return Attempt(AuthExpired(advice=self.advice), "session", words)

    def _available(self, stored: Stored | None) -> Made | None:
        """Return a token that needs no call: the stored one, or the configured one."""
        if stored is not None:
            left_s = stored.expires_at - self._now()
            if stored.access_token == self._access or left_s < SPARE_S:
                return None
            self._access, self._refresh = stored.access_token, stored.refresh_token
            return self._made(stored.access_token, left_s)
        if self._access is None and self._grant.access_token:
            self._access = self._grant.access_token
            return self._made(self._access, math.inf)
        return None

    def _renewals(
        self, stored: Stored | None
    ) -> Iterator[tuple[str, Callable[[Call], Awaitable[SessionInfo | Attempt]]]]:
        """Yield the calls that may return a session, the likeliest first."""
        access = stored.access_token if stored is not None else self._access
        header = None if access is None else self._header(access)
        path, account, password = self._form.path, self._grant.account, self._grant.password
        own = "the refresh token"
        kept = (
            f"{own} of an earlier renewal, perhaps used up by a run that was cut off before it "
            "could keep the next one,"
        )
        tokens = [(self._refresh, kept), (self._grant.refresh_token, own)]
        if stored is not None:
            tokens.insert(0, (stored.refresh_token, kept))
        tried: set[str] = set()
        for token, name in tokens:
            if token is not None and token not in tried:
                tried.add(token)
                yield name, partial(refresh, path=path, access_header=header, refresh_token=token)
        if account is not None and password is not None:
            agent = self._form.agent_name
            by_login = partial(
                login, path=path, agent_name=agent, account=account, password=password
            )
            yield "the login", by_login

    def _keep(self, info: SessionInfo) -> Made:
        learn(info.refresh_token)  # the token is learned once it is ready for a header
        valid_s = math.inf if info.expires_in_s is None else info.expires_in_s
        self._access, self._refresh = info.access_token, info.refresh_token
        self._store.write(
            Stored(
                root=self._root,
                access_token=info.access_token,
                refresh_token=info.refresh_token,
                expires_at=self._now() + valid_s,
            )
        )
        return self._made(info.access_token, valid_s)

    def _made(self, access: str, valid_s: float) -> Made:
        return Made(Token(self._header(access)), valid_s)

    def _header(self, access: str) -> str:
        return header_value(access, "the session", self._form.token_prefix)

    def _now(self) -> float:
        return self._clock.utc_now().timestamp()

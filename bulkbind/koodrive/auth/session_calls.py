"""The session calls: login and refreshToken. Source: koodrive-api.md, "Its neighbours"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from bulkbind.koodrive.auth.credential import scrub
from bulkbind.koodrive.auth.renewing import SessionCall
from bulkbind.koodrive.verdict import Codes, Reading, classify
from bulkbind.model import Accepted, AuthExpired, NoAnswer, Throttled, Transient, Unreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.koodrive.answer import Answer
    from bulkbind.koodrive.auth.renewing import Call

BY_PASSWORD = "1"  # noqa: S105  # no password
LONGEST_TOKEN = 8192
"""A header longer than that is refused by common servers."""


class SessionInfo(NamedTuple):
    """What a session call brought."""

    access_token: str
    """Perhaps with a scheme word."""
    refresh_token: str
    expires_in_s: float | None

    def __repr__(self) -> str:
        return "SessionInfo(***)"


async def refresh(
    call: Call, path: str, access_header: str | None, refresh_token: str
) -> SessionInfo | Reading:
    """Trade a refresh token for a new session. *access_header*: the old token's, if known."""
    headers = {} if access_header is None else {"Authorization": access_header}
    return await _ask(
        call,
        f"{path}/refreshToken",
        headers,
        {"refreshToken": refresh_token},
        hidden=(refresh_token, (access_header or "").rpartition(" ")[2]),
    )


async def login(
    call: Call, path: str, agent_name: str, account: str, password: str
) -> SessionInfo | Reading:
    """Begin a session with an account and its password."""
    return await _ask(
        call,
        f"{path}/login",
        {"x-hw-agentName": agent_name},
        {"account": account, "authType": BY_PASSWORD, "password": password},
        hidden=(password,),
    )


async def _ask(
    call: Call, path: str, headers: dict[str, str], body: dict[str, str], *, hidden: Sequence[str]
) -> SessionInfo | Reading:
    found: list[SessionInfo] = []

    def judge(answer: Answer) -> Reading:
        info = session_of(answer)
        if info is None:
            return _refusal(answer, hidden)
        found.append(info)
        return Reading(Accepted("", ""), "0", "success")

    reading = await call(SessionCall(path, headers, json.dumps(body).encode(), judge))
    return found[-1] if found else reading


def session_of(answer: Answer) -> SessionInfo | None:
    """Return the session that an answer brings, if it does."""
    if answer.status != 200 or not answer.whole:  # noqa: PLR2004  # HTTP's own number
        return None
    try:
        body = json.loads(answer.body)
        info: dict[str, Any] = body["data"]["sessionInfo"]
        if str(body["code"]) != "0":
            return None
        access, refreshing = info["accessToken"], info["refreshToken"]
        life = float(info.get("expiresIn") or 0)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not (_is_token(access) and _is_token(refreshing)):
        return None
    return SessionInfo(access, refreshing, life if life > 0 else None)


def _is_token(text: object) -> bool:
    return (
        isinstance(text, str)
        and 0 < len(text) <= LONGEST_TOKEN
        and text.isascii()
        and text.isprintable()
    )


def _refusal(answer: Answer, hidden: Sequence[str]) -> Reading:
    """Return why an answer brings no session. What may hold one is not quoted."""
    verdict, code, message = classify(answer, Codes())
    if answer.status < 300:  # noqa: PLR2004  # HTTP's own number
        message = "the answer holds no session" if isinstance(verdict, NoAnswer) else message
    words = scrub(f"HTTP {answer.status} {code}".strip() + f": {message}", hidden)
    match verdict:
        case Throttled():
            return Reading(verdict, code, words)
        case Transient() | NoAnswer():
            return Reading(Unreachable(), "session", f"the session cannot be renewed: {words}")
        case _:
            return Reading(AuthExpired(), code, words)

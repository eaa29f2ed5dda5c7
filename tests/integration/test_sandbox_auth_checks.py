"""Whom the sandbox lets in: tokens, sessions and signatures, asked by a plain client."""

from __future__ import annotations

import pytest

from bulkbind.errors import UsageError
from bulkbind.sandbox import Credentials, read_credentials
from tests.support.fake_clock import HandClock
from tests.support.sandbox_client import Asker, serving

AUTH = "/koodrive/ose/v1/auth"
KNOWN = Credentials(
    tokens={"token-of-u1": "user_1", "token-of-all": "any"},
    refresh_tokens={"root": "user_1"},
    accounts={"ops": "pass"},
    session_calls=2,
    session_idle_s=60.0,
)


async def refreshed(asker: Asker, token: str, **headers):
    """Trade a refresh token; return status and session, or the error."""
    headers = {"Authorization": None, "X_User_Id": None, "X_Date": None} | headers
    status, answer = await asker.ask(
        "POST", f"{AUTH}/refreshToken", {"refreshToken": token}, **headers
    )
    return status, answer["data"]["sessionInfo"] if status == 200 else answer["error_code"]


@pytest.mark.parametrize(
    ("token", "user", "status"),
    [
        ("token-of-u1", "user_1", 200),
        ("token-of-u1", "user_2", 401),
        ("token-of-all", "user_2", 200),
        ("another", "user_1", 401),
    ],
)
async def test_a_token_is_for_its_user(token, user, status):
    """A user's token serves that user alone."""
    async with serving(credentials=KNOWN) as asker:
        found, _ = await asker.bind(Authorization=f"Bearer {token}", X_User_Id=user)

    assert found == status


async def test_a_session_ends_after_its_calls():
    """The third call of a session of two is answered with APIG.0307, and so are all after it."""
    async with serving(credentials=KNOWN) as asker:
        _, info = await refreshed(asker, "root")
        assert info["expiresIn"] == 1800
        assert info["accessToken"].startswith("AT ")
        answers = [await asker.bind(Authorization=info["accessToken"]) for _ in range(4)]

    assert [status for status, _ in answers] == [200, 200, 401, 401]
    assert answers[2][1]["error_code"] == "APIG.0307"


@pytest.mark.parametrize(("idle_s", "status"), [(59, 200), (61, 401)])
async def test_a_session_ends_after_idle_time(idle_s, status):
    """Every call within the time resets it."""
    clock = HandClock()
    async with serving(clock, credentials=KNOWN) as asker:
        _, info = await refreshed(asker, "root")
        clock.advance(50)
        first, _ = await asker.bind(Authorization=info["accessToken"])
        clock.advance(idle_s)
        second, _ = await asker.bind(Authorization=info["accessToken"])

    assert (first, second) == (200, status)


async def test_a_refresh_token_is_used_once():
    """The next one comes with the answer, goes with its access token, and ends the old session."""
    async with serving(credentials=KNOWN) as asker:
        _, first = await refreshed(asker, "root")
        again = await refreshed(asker, "root")
        alone = await refreshed(asker, first["refreshToken"])
        status, second = await refreshed(
            asker, first["refreshToken"], Authorization=first["accessToken"]
        )
        old, _ = await asker.bind(Authorization=first["accessToken"])
        new, _ = await asker.bind(Authorization=second["accessToken"])

    assert again == alone == (401, "APIG.0301")
    assert (status, old, new) == (200, 401, 200)


@pytest.mark.parametrize(
    ("changes", "agent", "status"),
    [
        ({}, "x", 200),
        ({"password": "wrong"}, "x", 401),
        ({"account": "nobody"}, "x", 401),
        ({"authType": "2"}, "x", 401),
        ({}, None, 400),
    ],
)
async def test_a_login(changes, agent, status):
    """Account, password, kind and agent must be right."""
    fields = {"account": "ops", "authType": "1", "password": "pass"} | changes
    async with serving(credentials=KNOWN) as asker:
        found, answer = await asker.ask(
            "POST", f"{AUTH}/login", fields, Authorization=None, x_hw_agentName=agent
        )

    assert found == status
    if status == 200:
        assert answer["data"]["userInfo"]["userId"] == "ops"
        assert answer["data"]["sessionInfo"]["refreshToken"]


def test_a_file_says_what_is_taken(tmp_path):
    """Every text stays as written; what is no such file is refused."""
    path = tmp_path / "accepted.yaml"
    path.write_text("tokens: {0123: any}\napps: {app1: no}\n", encoding="utf-8")
    wrong = tmp_path / "wrong.yaml"

    found = read_credentials(path, session_calls=7)

    assert (found.tokens, found.apps, found.session_calls) == ({"0123": "any"}, {"app1": "no"}, 7)
    assert read_credentials(None).takes_any
    for text in ("tokens: [a]\n", "passwords: {a: b}\n", "- a\n", "tokens: {a: [b]}\n", "{\n"):
        wrong.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="credentials file"):
            read_credentials(wrong)


NAMES = "host;x-date;x-user-id"
SIGNATURE = "0" * 64


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (f"HMAC-SHA256 AppId=nobody,SignedHeaders={NAMES},Signature={SIGNATURE}", "app not found"),
        (f"HMAC-SHA256 AppId=app1,SignedHeaders=host,Signature={SIGNATURE}", "must be sorted"),
        (
            f"HMAC-SHA256 AppId=app1,SignedHeaders=x-user-id;x-date,Signature={SIGNATURE}",
            "must be sorted",
        ),
        (f"HMAC-SHA256 AppId=app1,SignedHeaders=a;{NAMES},Signature={SIGNATURE}", "is missing"),
        (f"HMAC-SHA256 AppId=app1,SignedHeaders={NAMES},Signature={SIGNATURE}", "mismatch"),
        ("HMAC-SHA256 AppId=app1", "no token"),
    ],
)
async def test_a_wrong_signature_is_refused_with_its_reason(header, words):
    """Unknown app, wrong list of headers, a header that is not there, another signature."""
    async with serving(credentials=Credentials(apps={"app1": "s3cret"})) as asker:
        status, answer = await asker.bind(Authorization=header)

    assert (status, answer["error_code"]) == (401, "APIG.0301")
    assert words in answer["error_msg"]

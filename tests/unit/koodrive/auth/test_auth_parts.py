"""The parts of the credentials: choice, file of users, single flight, store."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from bulkbind.errors import LedgerError, UsageError
from bulkbind.koodrive.auth.choice import choose
from bulkbind.koodrive.auth.credential import App, Outgoing
from bulkbind.koodrive.auth.renewed_session import session_of
from bulkbind.koodrive.auth.renewing import SingleFlight
from bulkbind.koodrive.auth.session_store import SessionStore, Stored, root_of
from bulkbind.koodrive.auth.users import UserEntry, parse_users
from bulkbind.koodrive.wire import Answer
from bulkbind.settings import AuthSettings
from tests.support.fake_clock import FakeClock

TOKEN = {"token": SecretStr("t-o-k-e-n")}
REFRESH = {"refresh_token": SecretStr("r-e-f-r-e-s-h")}
APP = {"app_id": "app1", "app_secret": SecretStr("s-e-c-r-e-t")}
LOGIN = {"account": "ops", "password": SecretStr("p-a-s-s")}
USERS = {"users_file": Path("users.csv")}


# --- which kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        (TOKEN, "token"),
        ({"token_command": ("print-token",)}, "token"),
        (REFRESH, "session"),
        (LOGIN, "session"),
        (TOKEN | REFRESH, "session"),
        (TOKEN | REFRESH | APP, "app"),
        (TOKEN | REFRESH | APP | USERS, "users"),
        (TOKEN | {"app_id": "app1"}, "token"),
        (TOKEN | {"account": "ops"}, "token"),
        (TOKEN | REFRESH | APP | {"mode": "token"}, "token"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else value,
)
def test_the_kind_is_inferred_in_order(given, mode):
    """Users, app, session, token: the first that there is all for; a set mode wins."""
    found = choose(AuthSettings(**given), {})

    assert found.mode == mode
    assert "-" not in found.why.replace("password", "")


@pytest.mark.parametrize("mode", ["token", "session", "app", "users"])
def test_a_mode_without_what_it_needs_is_refused(mode):
    """The error says what that mode needs."""
    other = APP if mode == "token" else TOKEN

    with pytest.raises(UsageError, match=f"`auth: mode: {mode}` needs") as error:
        choose(AuthSettings(mode=mode, **other), {})

    assert "BULKBIND_" in str(error.value) or "users_file" in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no token is set"),
        ({"app_id": "app1"}, "no app secret"),
        ({"app_secret": SecretStr("s-e-c")}, "no app id"),
        ({"account": "ops"}, "no password"),
    ],
)
def test_half_of_what_is_needed_is_named(given, words):
    """Nothing usable: the error says what is missing of what is there."""
    with pytest.raises(UsageError, match=words):
        choose(AuthSettings(**given), {})


# --- the file of users ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.csv", "user_id,token,refresh_token\na,t-1,\nb,,r-2\nc,t-3,r-3\n"),
        ("u.csv", "\ufeffrefresh_token;User_Id;token\r\n;a;t-1\r\n\r\nr-2;b;\r\nr-3;c; t-3 \r\n"),
        ("u.yaml", "a: t-1\nb: {refresh_token: r-2}\nc:\n  token: t-3\n  refresh_token: r-3\n"),
    ],
    ids=["csv", "another csv", "yaml"],
)
def test_users_are_read(name, text):
    """Every form gives the same."""
    assert parse_users(text, Path(name)) == {
        "a": UserEntry("t-1", None),
        "b": UserEntry(None, "r-2"),
        "c": UserEntry("t-3", "r-3"),
    }


def test_texts_of_a_users_file_stay_as_written():
    """`no` and `0123` are users and tokens like any other."""
    assert parse_users("no: 0123\n0123: no\n", Path("u.yaml")) == {
        "no": UserEntry("0123", None),
        "0123": UserEntry("no", None),
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("u.csv", "", "no column user_id"),
        ("u.csv", "user_id,token\n", "holds no user"),
        ("u.csv", "user,token\na,HUSH-1\n", "line 1"),
        ("u.csv", "user_id,token\na,HUSH-1\na,HUSH-2\n", "line 3.*second time"),
        ("u.csv", "user_id,token\na,\n", "line 2.*no token"),
        ("u.csv", "user_id,token\n,HUSH-1\n", "line 2.*id is missing"),
        ("u.csv", 'user_id,token\na,"HUSH-1" x\n', "is no CSV"),
        ("u.yaml", "", "no mapping"),
        ("u.yaml", "- HUSH-1\n", "no mapping"),
        ("u.yaml", "a: HUSH-1\na: HUSH-2\n", "line 2.*second time"),
        ("u.yaml", "a: [HUSH-1]\n", "line 1 is no user"),
        ("u.yaml", "a: {HUSH-1: x}\n", "line 1.*a name that is none of"),
        ("u.yaml", "a: {token: [HUSH-1]}\n", "line 1 is no user"),
        ("u.yaml", "a: HUSH-1\nb: 'HUSH-2\n", "no YAML"),
    ],
)
def test_a_wrong_users_file_is_explained_without_its_secrets(name, text, words):
    """The error names file and line, and repeats no token."""
    with pytest.raises(UsageError, match=words) as error:
        parse_users(text, Path(name))

    assert name in str(error.value)
    assert "HUSH" not in str(error.value) + error.value.hint


# --- single flight --------------------------------------------------------------------------------


async def test_all_who_come_share_one_flight():
    """The work is done once; who comes after its end begins it anew."""
    flight: SingleFlight[int] = SingleFlight()
    runs = 0
    door = asyncio.Event()

    async def work() -> int:
        nonlocal runs
        runs += 1
        await door.wait()
        return runs

    waiting = [asyncio.create_task(flight.join(work)) for _ in range(5)]
    await asyncio.sleep(0)  # noqa: TID251  # lets them begin
    door.set()

    assert await asyncio.gather(*waiting) == [1] * 5
    assert await flight.join(work) == 2


async def test_whoever_is_cancelled_does_not_cancel_the_flight():
    """What a renewal brings is not lost with the request that asked for it."""
    flight: SingleFlight[str] = SingleFlight()
    door = asyncio.Event()
    kept = []

    async def work() -> str:
        await door.wait()
        kept.append("new token")
        return "new token"

    first = asyncio.create_task(flight.join(work))
    await asyncio.sleep(0)  # noqa: TID251  # lets it begin
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    door.set()
    await flight.landed(5)

    assert kept == ["new token"]


async def test_an_error_reaches_all_who_wait():
    """A flight that fails fails for everybody, once."""
    flight: SingleFlight[str] = SingleFlight()

    async def work() -> str:
        raise UsageError("broken")

    ended = await asyncio.gather(*(flight.join(work) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in ended] == [UsageError] * 3


# --- the store ------------------------------------------------------------------------------------

STORED = Stored("root", "AT access", "refresh", 1e9)


def test_a_session_is_kept_for_its_own_credentials(tmp_path):
    """Mode 0600, found under the same root alone, and nothing else lies there."""
    store = SessionStore(tmp_path / "ledger.db.session")

    store.write(STORED)

    assert store.read("root") == STORED
    assert store.read("another") is None
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db.session"]
    assert (tmp_path / "ledger.db.session").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"root": 1}', '{"root": "root", "x": 1}', "\x00"])
def test_a_damaged_session_file_counts_as_none(tmp_path, text):
    """It is no reason to fail: the credentials given begin a new session."""
    path = tmp_path / "session"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)

    assert SessionStore(path).read("root") is None


def test_a_session_that_cannot_be_kept_is_no_error(tmp_path):
    """The server has rotated already: the run goes on with what it has."""
    store = SessionStore(tmp_path / "no such folder" / "session")

    store.write(STORED)

    assert store.read("root") is None


async def test_one_process_at_a_time_renews(tmp_path):
    """Who comes second waits for the first, and gives up with an error after a minute."""
    clock = FakeClock()
    store, other = SessionStore(tmp_path / "session"), SessionStore(tmp_path / "session")

    async with store.held(clock):
        with pytest.raises(LedgerError, match="another process"):
            async with other.held(clock):
                raise AssertionError
    async with other.held(clock):
        pass

    assert clock.monotonic() >= 60


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_cannot_be_written_is_said_before_renewing(tmp_path):
    """Nothing is asked of the server if its answer could not be kept."""
    tmp_path.chmod(0o500)

    with pytest.raises(LedgerError, match="cannot be made"):
        async with SessionStore(tmp_path / "session").held(FakeClock()):
            raise AssertionError


def test_a_root_gives_nothing_away():
    """It tells credentials apart, by kind as well, and holds nothing of them."""
    roots = {root_of("refresh token", "abc"), root_of("account", "abc"), root_of("account", "abd")}

    assert len(roots) == 3
    assert not [root for root in roots if "abc" in root]


# --- what comes back ------------------------------------------------------------------------------


def answer(info, code=0, status=200) -> Answer:
    """Return the answer of a session call."""
    body = {"code": code, "msg": "success", "data": {"sessionInfo": info}}
    return Answer(status, json.dumps(body).encode())


GOOD = {"accessToken": "AT a", "refreshToken": "r", "expiresIn": 1800, "issuedAt": "1"}


@pytest.mark.parametrize(
    ("came", "valid_s"),
    [(GOOD, 1800.0), (GOOD | {"expiresIn": "1800"}, 1800.0), (GOOD | {"expiresIn": None}, None)],
    ids=["as documented", "a text", "not told"],
)
def test_a_session_is_read(came, valid_s):
    """Tokens as they are, and how long the session holds."""
    assert session_of(answer(came)) == ("AT a", "r", valid_s)


@pytest.mark.parametrize(
    "came",
    [
        answer(GOOD, code=1),
        answer(GOOD, status=201),
        answer(None),
        answer([]),
        answer({"accessToken": "AT a"}),
        answer(GOOD | {"accessToken": ""}),
        answer(GOOD | {"accessToken": "a\r\nX-Evil: 1"}),
        answer(GOOD | {"refreshToken": 7}),
        answer(GOOD | {"expiresIn": "soon"}),
        Answer(200, b"[]"),
        Answer(200, b"null"),
        Answer(200, b"{"),
        Answer(200, b'{"code": 0, "data": 5}'),
    ],
    ids=[
        "another code",
        "another status",
        "null",
        "a list",
        "no refresh token",
        "empty",
        "a second header",
        "a number",
        "no life",
        "body a list",
        "body null",
        "no JSON",
        "data a number",
    ],
)
def test_what_is_no_session_is_none(came):
    """Any other answer brings no session, and raises nothing."""
    assert session_of(came) is None


def test_an_app_signs_the_host_that_goes_out():
    """The Host header stands among the headers, with its port, and among the signed ones."""
    headers = {"X-Date": "20251103T070140Z", "X-User-Id": "u"}
    App("app1", "secret").authorize(Outgoing("GET", "/p?b=1&a", "127.0.0.1:8765", headers, None))

    assert headers["Host"] == "127.0.0.1:8765"
    assert "SignedHeaders=host;x-date;x-user-id," in headers["Authorization"]

"""When a credential is replaced, by whom, and when no more; no network, a clock turned by hand."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from bulkbind.koodrive.auth.credential import App, Token
from bulkbind.koodrive.auth.renewing import FRUITLESS, LATER_S, Made, Renewing
from bulkbind.koodrive.auth.static_token import GIVEN_APP
from bulkbind.koodrive.auth.users import UserAuth
from bulkbind.model import Attempt, AuthExpired, Unreachable
from tests.support.fake_clock import FakeClock

AWAY = Attempt(Unreachable(), "session", "the session cannot be renewed: HTTP 503")
LOST = Attempt(AuthExpired(advice="log in"), "session", "the refresh token is refused")


class Source:
    """Makes what is planned, then tokens without an end."""

    advice = "log in"
    is_spent = False
    is_kept = True

    def __init__(self, *planned) -> None:
        self.planned = deque(planned)
        self.made = 0

    async def make(self, call):  # noqa: ARG002  # the protocol's
        await asyncio.sleep(0)  # noqa: TID251  # as a real one would
        self.made += 1
        return self.planned.popleft() if self.planned else Made(Token(f"AT {self.made}"))


async def no_call(_call):
    """Stand in for the session calls."""
    raise AssertionError


async def ready(auth, user="u"):
    """Return a credential that may be sent with."""
    if auth.current(user) is None:
        assert await auth.renew(user, no_call) is None
    credential = auth.current(user)
    assert credential is not None
    return credential


async def test_many_refusals_of_one_token_make_one_new_one():
    """Requests in flight with the old token are sent again with the new one, whenever they end."""
    source = Source()
    auth = Renewing(source, FakeClock())
    old = await ready(auth)
    auth.accepted(old, "u")

    first = auth.refused(old, "a", is_users_own=False)
    assert auth.current("a") is None
    assert await asyncio.gather(*(auth.renew(str(n), no_call) for n in range(9))) == [None] * 9
    late = auth.refused(old, "b", is_users_own=False)

    assert first == late == AuthExpired(is_renewable=True, advice="log in")
    assert source.made == 2
    new = auth.current("b")
    assert new is not None
    assert new is not old


async def test_a_token_is_renewed_ahead_of_its_end():
    """Of 30 minutes the last two are not used; of a short life, its last fifth."""
    for valid_s, until_s in ((1800.0, 1680.0), (10.0, 8.0)):
        clock = FakeClock()
        auth = Renewing(Source(Made(Token("AT x"), valid_s)), clock)
        token = await ready(auth)

        clock.advance(until_s - 0.1)
        assert auth.current("u") is token
        clock.advance(0.1)
        assert auth.current("u") is None


@pytest.mark.parametrize("trouble", [AWAY, LOST], ids=["away", "lost"])
async def test_a_renewal_ahead_that_fails_leaves_the_token_in_use(trouble):
    """The token still holds: it goes on, and the renewal is tried again later."""
    clock = FakeClock()
    source = Source(Made(Token("AT x"), 100.0), trouble)
    auth = Renewing(source, clock)
    token = await ready(auth)
    clock.advance(90)

    assert await ready(auth) is token
    clock.advance(LATER_S)
    assert await ready(auth) is not token


async def test_a_renewal_that_is_needed_says_why_it_fails():
    """Without a token that holds, its trouble is everybody's."""
    auth = Renewing(Source(AWAY, LOST), FakeClock())

    assert await auth.renew("u", no_call) == AWAY
    assert await auth.renew("u", no_call) == LOST
    assert await auth.renew("u", no_call) is None


async def test_new_tokens_that_nobody_takes_are_not_made_for_ever():
    """Three in a row that were never taken are the last; one that is taken starts anew."""
    source = Source()
    auth = Renewing(source, FakeClock())
    for _ in range(FRUITLESS - 1):
        assert auth.refused(await ready(auth), "u", is_users_own=False).is_renewable
    auth.accepted(await ready(auth), "u")
    assert auth.refused(await ready(auth), "u", is_users_own=False).is_renewable
    verdicts = [auth.refused(await ready(auth), "u", is_users_own=False) for _ in range(FRUITLESS)]
    ended = await auth.renew("u", no_call)

    assert [verdict.is_renewable for verdict in verdicts] == [True, True, False]
    assert ended is not None
    assert isinstance(ended.verdict, AuthExpired)
    assert not ended.verdict.is_renewable
    assert source.made == 2 * FRUITLESS


async def test_a_witness_is_asked_once_a_renewal_did_not_help():
    """The first refusal renews; the second of the same user puts the user in question."""
    auth = Renewing(Source(), FakeClock())
    first = await ready(auth)
    assert auth.witness(first, "odd") is None
    auth.accepted(first, "good")
    assert auth.witness(first, "odd") is None
    auth.refused(first, "odd", is_users_own=False)
    assert auth.witness(first, "odd") is None  # it is known dead
    second = await ready(auth)

    assert auth.witness(second, "odd") == "good"
    assert auth.witness(second, "another") is None
    assert auth.refused(second, "odd", is_users_own=True).is_users_own
    # From now on the user is known, and costs neither a renewal nor a question.
    assert auth.witness(second, "odd") is None
    assert auth.refused(second, "odd", is_users_own=False).is_users_own
    assert auth.current("good") is second


async def test_a_user_who_is_served_again_is_in_question_no_more():
    """What a renewal did help is no witness's matter."""
    auth = Renewing(Source(), FakeClock())
    auth.accepted(await ready(auth), "good")
    auth.refused(await ready(auth), "u", is_users_own=False)
    auth.accepted(await ready(auth), "u")
    auth.accepted(await ready(auth), "good")

    assert auth.witness(await ready(auth), "u") is None


async def test_an_app_is_refused_for_one_user_or_for_all():
    """A witness who is served makes it the user's; nobody served, or the witness refused: all."""
    app = Renewing(GIVEN_APP, FakeClock(), App("app1", "secret"))
    credential = await ready(app)
    assert app.witness(credential, "u") is None
    app.accepted(credential, "good")
    assert app.witness(credential, "odd") == "good"
    assert app.refused(credential, "odd", is_users_own=True).is_users_own
    assert app.current("good") is credential
    assert credential is not None

    ended = app.refused(credential, "good", is_users_own=False)

    assert (ended.is_renewable, ended.is_users_own) == (False, False)
    assert app.current("u") is None
    told = await app.renew("u", no_call)
    assert told is not None
    assert isinstance(told.verdict, AuthExpired)


async def test_each_user_is_renewed_alone():
    """A lost session is that user's own; trouble that may pass stays what it is."""
    sources = {"good": Source(), "lost": Source(LOST), "away": Source(AWAY)}
    users = UserAuth(
        "users.csv",
        lambda user: Renewing(sources[user], FakeClock()) if user in sources else None,
    )

    assert await users.renew("good", no_call) is None
    lost = await users.renew("lost", no_call)
    missing = await users.renew("nobody", no_call)
    away = await users.renew("away", no_call)

    assert away == AWAY
    for told in (lost, missing):
        assert told is not None
        assert isinstance(told.verdict, AuthExpired)
        assert told.verdict.is_users_own
        assert "users.csv" in told.verdict.advice
    good = users.current("good")
    assert good is not None
    assert users.refused(good, "good", is_users_own=False).is_renewable
    assert users.current("lost") is None

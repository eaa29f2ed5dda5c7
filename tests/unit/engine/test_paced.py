"""Requests at the gateway's pace: permit, credentials, one request; and what the gate learns."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from bulkbind.engine.paced import Paced
from bulkbind.model import (
    Accepted,
    Attempt,
    AuthExpired,
    Device,
    Listing,
    NoAnswer,
    Throttled,
    Unbinding,
    UnbindKind,
)
from tests.support.fakes import OpenGate

if TYPE_CHECKING:
    from bulkbind.engine.ports import Came

DEVICE = Device("user_1", "SN_1")


class CountingGate(OpenGate):
    """An open gate that notes what happens, in order, in a list that others note in, too."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    async def permit(self, user_id=None):
        self.seen.append(f"permit {user_id}")
        return 1

    def report(self, permit, verdict, limits=()):
        super().report(permit, verdict, limits)
        self.seen.append(f"report {type(verdict).__name__}")

    def forget(self, permit):
        super().forget(permit)
        self.seen.append("forget")


class FakeAuth:
    """Gives one credential after the other; each renewal is a session call."""

    def __init__(self, seen: list[str], credentials: list[str | None]) -> None:
        self.seen = seen
        self.credentials = credentials
        self.trouble: Attempt | None = None
        self.witness_id: str | None = None

    def current(self, user_id):  # noqa: ARG002  # the protocol's
        return self.credentials[0]

    async def renew(self, user_id, call):  # noqa: ARG002  # the protocol's
        self.seen.append("renew")
        await call("session call")
        if self.trouble is None:
            self.credentials.pop(0)
        return self.trouble

    def accepted(self, credential, user_id):  # noqa: ARG002  # the protocol's
        self.seen.append(f"accepted {credential}")

    def witness(self, credential, user_id):  # noqa: ARG002  # the protocol's
        return self.witness_id

    def refused(self, credential, user_id, *, is_users_own):  # noqa: ARG002  # the protocol's
        return AuthExpired(is_users_own=is_users_own)

    async def close(self):
        self.seen.append("close")


class FakeClient:
    """Answers as planned, and notes with what credential it was asked."""

    def __init__(self, seen: list[str], *attempts: Attempt) -> None:
        self.seen = seen
        self.attempts = list(attempts) or [Attempt(Accepted("id", "now"))]
        self.others: Others | None = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.seen.append("exit")

    def now(self):
        return 42.0

    def server_time(self):
        return 42.0

    def patience_s(self):
        return 30.0

    async def bind(self, device, credential):  # noqa: ARG002  # the protocol's
        self.seen.append(f"bind with {credential}")
        return self.attempts.pop(0)

    def post(self, device, credential, landed):  # noqa: ARG002  # the protocol's
        self.seen.append(f"post with {credential}")
        self.landed = landed

    def hand_over(self):
        raise NotImplementedError

    def pool(self):
        return self.others

    async def list_devices(self, user_id, credential):
        self.seen.append(f"list of {user_id} with {credential}")
        return Listing(self.attempts.pop(0), {})

    async def unbind(self, item, credential):
        self.seen.append(f"unbind {item.device_id} with {credential}")
        return self.attempts.pop(0)

    def post_unbind(self, item, credential, landed):
        self.seen.append(f"post unbind {item.device_id} with {credential}")
        self.landed = landed

    def on_unasked(self, _):
        """Note nothing."""

    async def call(self, call):
        self.seen.append(call)
        return Attempt(Accepted("", ""))


def paced(*attempts, credentials=("one",)):
    """Return the API at the pace of an open gate, its parts, and what they note."""
    seen: list[str] = []
    gate, auth = CountingGate(seen), FakeAuth(seen, list(credentials))
    return Paced(FakeClient(seen, *attempts), auth, gate), auth, gate, seen


async def test_the_permit_comes_before_the_credential():
    """What is sent is authorised once it may leave, by the credential of that moment."""
    api, auth, _, seen = paced()

    async def renewed_meanwhile() -> None:
        seen.append("before")
        auth.credentials = ["two"]

    await api.bind(DEVICE, renewed_meanwhile)

    assert seen == ["permit user_1", "before", "bind with two", "report Accepted", "accepted two"]


async def test_session_calls_take_permits_too():
    """A renewal goes through the gate, and its request after it."""
    api, _, _, seen = paced(credentials=(None, "one"))

    await api.bind(DEVICE)

    assert seen[:4] == ["renew", "permit None", "session call", "report Accepted"]
    assert seen[4:6] == ["permit user_1", "bind with one"]


async def test_without_credentials_nothing_is_sent():
    """The attempt says why, at the server's time, and bears nothing of the session call."""
    api, auth, _, seen = paced(credentials=(None,))
    auth.trouble = Attempt(AuthExpired(), "session", "no", trace_id="t", http_status=401)

    attempt = await api.bind(DEVICE)

    assert attempt == Attempt(AuthExpired(), "session", "no", sent_at=42.0)
    assert not any(item.startswith("bind") for item in seen)


async def test_a_credential_that_ends_while_the_request_waits_gives_the_permit_back():
    """The permit is not used up by a request that is not made."""
    api, auth, gate, seen = paced(credentials=("one",))

    async def ended_meanwhile() -> None:
        if auth.credentials == ["one"]:
            auth.credentials = [None, "two"]

    await api.bind(DEVICE, ended_meanwhile)

    assert gate.forgotten == 1
    assert seen[-2:] == ["report Accepted", "accepted two"]


async def test_what_fails_before_the_request_gives_the_permit_back():
    """A row that cannot be claimed again is not sent."""
    api, _, gate, seen = paced()

    async def failing() -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # the very one
        await api.bind(DEVICE, failing)

    assert gate.forgotten == 1
    assert gate.reported == []
    assert "bind with one" not in seen


async def test_a_witness_is_asked_through_the_gate():
    """A refusal is about one user alone where another's list can be read with the same token."""
    api, auth, gate, seen = paced(
        Attempt(AuthExpired()), Attempt(Throttled()), Attempt(Accepted("", ""))
    )
    auth.witness_id = "user_2"

    attempt = await api.bind(DEVICE)

    assert attempt.verdict == AuthExpired(is_users_own=True)
    assert seen.count("permit user_2") == 2
    assert gate.reported == [AuthExpired(), Throttled(), Accepted("", "")]


async def test_leaving_lets_the_renewal_end_before_the_client():
    """A session call that is under way needs the client."""
    api, _, _, seen = paced()

    async with api:
        await api.unbind(Unbinding(1, UnbindKind.UNDO, "user_1", "SN_1", "id7"))

    assert "unbind id7 with one" in seen
    assert seen[-2:] == ["close", "exit"]


# --- what others send -----------------------------------------------------------------------------


class Others:
    """Takes binds, and notes what it is told of them."""

    def __init__(self):
        self.sent = []
        self.heard = []

    def takes(self, width):
        return width

    def ahead_s(self):
        return 0.5

    def post_all(self, devices, credential, landing):
        self.sent.append(([device.user_id for device in devices], credential))
        self.landing = landing

    def passed(self, places, attempts, *, is_ours):
        self.heard.append((places, attempts, is_ours))

    def landed(self, place, came):
        self.heard.append((place, came))


async def test_binds_are_handed_over_as_far_as_permits_and_one_credential_go():
    """All that passed is told to the gate at once; what else comes lands as if it were alone."""
    api, auth, gate, seen = paced()
    devices = [Device(user, f"SN_{user}") for user in "aabca"]
    own: dict[str, str | None] = {"c": "another"}
    auth.current = lambda user_id: own.get(user_id, "one")
    assert (api.takes(4), api.post_all(devices, Others())) == (None, 0)
    api._client.others = others = Others()

    assert (api.takes(4), api.post_all(devices, others)) == (4, 3)
    passed = [Attempt(Accepted("id", "now"))] * 2
    others.landing.passed([2, 0], passed, is_ours=True)
    others.landing.landed(1, None)
    own["a"] = None
    assert api.post_all(devices, others) == 0

    assert others.sent == [(["a", "a", "b"], "one")]
    assert others.heard == [([2, 0], passed, True), (1, None)]
    assert gate.reported == [Accepted("", "")] * 2
    assert gate.forgotten == 1
    assert seen.count("accepted one") == 2


async def posted(api, *, before=lambda: None):
    """Post a bind; return whether it could be, and what landed."""
    came: list[Came] = []
    return await api.post(Device("user", "SN"), before, came.append), came


async def test_a_posted_bind_has_its_permit_and_credential_and_lands_later():
    """Its verdict is told to the gate, and its credential counts as accepted, when it lands."""
    api, _, gate, seen = paced()

    is_posted, came = await posted(api)
    assert (is_posted, came, gate.reported) == (True, [], [])
    attempt = Attempt(Accepted("id", "now"))
    api._client.landed(attempt)

    assert "post with one" in seen
    assert came == [attempt]
    assert gate.reported == [attempt.verdict]
    assert seen[-1] == "accepted one"


async def test_a_posted_bind_that_was_not_sent_gives_its_permit_back():
    """A worker whose lease had ended says nothing of the server."""
    api, _, gate, _ = paced()

    _, came = await posted(api)
    api._client.landed(None)

    assert came == [None]
    assert (gate.forgotten, gate.reported) == (1, [])


async def test_a_bind_of_a_lost_worker_says_nothing_of_the_server():
    """No answer came of it, and that is no reason to slow down, nor to take the server as away."""
    api, _, gate, _ = paced()
    attempt = Attempt(NoAnswer(under_way_s=3.0))

    _, came = await posted(api)
    api._client.landed(attempt)

    assert came == [attempt]
    assert (gate.forgotten, gate.reported) == (1, [])


async def test_nothing_is_posted_without_a_credential():
    """It must be renewed first, which is waited for: that is no matter of a moment."""
    api, _, gate, seen = paced(credentials=(None,))

    is_posted, came = await posted(api)

    assert (is_posted, came, gate.forgotten) == (False, [], 0)
    assert not [each for each in seen if str(each).startswith("post")]


async def test_what_must_not_leave_after_all_gives_its_permit_back():
    """What *before* raises ends the post, and nothing lands."""
    api, _, gate, _ = paced()

    def before():
        raise LookupError

    with pytest.raises(LookupError):
        await posted(api, before=before)

    assert gate.forgotten == 1


async def test_a_refused_credential_of_a_posted_bind_is_weighed_before_it_is_judged():
    """The witness is asked by whoever awaits it, not while other answers wait."""
    api, _, gate, _ = paced()
    refusal = AuthExpired(advice="as it came")
    attempt = Attempt(refusal)

    _, came = await posted(api)
    api._client.landed(attempt)
    assert attempt.verdict is refusal
    (late,) = came
    assert callable(late)

    assert await late() is attempt
    assert attempt.verdict == AuthExpired()
    assert gate.reported == [refusal]


@pytest.mark.parametrize("error", [None, OSError], ids=["it comes", "it fails"])
async def test_what_has_to_be_awaited_is_told_to_the_gate_once_it_has_come(error):
    """An answer in parts holds its permit until all of it is there, or none is."""
    api, _, gate, _ = paced()
    attempt = Attempt(Accepted("id", "now"))

    async def late():
        if error is not None:
            raise error
        return attempt

    _, came = await posted(api)
    api._client.landed(late)
    (awaited,) = came
    assert callable(awaited)
    assert gate.reported == []
    with nullcontext() if error is None else pytest.raises(error):
        assert await awaited() is attempt

    assert gate.reported == ([] if error else [attempt.verdict])
    assert gate.forgotten == (error is not None)

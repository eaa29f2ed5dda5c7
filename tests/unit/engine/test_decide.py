from __future__ import annotations

import pytest

from bulkbind.engine.decide import (
    COSTS,
    Again,
    Halt,
    Park,
    Settle,
    Suspect,
    decide,
)
from bulkbind.engine.proof import absent, accepted, found
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    Claim,
    ClockRefused,
    Device,
    NoAnswer,
    Outcome,
    QuotaUsedUp,
    Record,
    Refused,
    Status,
    Throttled,
    Transient,
    Unreachable,
)

FAILED = Outcome(Status.FAILED)
NO_TOKEN = Outcome(Status.FAILED, detail="the user's credentials: x")
SENT = 1_000_000.0  # 1970-01-12T13:46:40Z
AT_SENDING = "1970-01-12T13:46:40.000Z"
NOBODY_YET = Suspect(Settle(NO_TOKEN), is_about_user=True)


def claim(**values):
    """Return a row after one attempt, but for *values*."""
    return Claim(row=1, device=Device("u", "M"), **({"attempts": 1} | values))


def attempt(verdict):
    """Return an attempt with this verdict."""
    return Attempt(verdict=verdict, trace_id="t", sent_at=SENT, took_s=0.1, message="words")


def step(verdict, unreachable=None, **values):
    """Return what follows."""
    return decide(
        claim(**values), attempt(verdict), max_attempts=6, unreachable=unreachable, max_wait_s=120.0
    )


@pytest.mark.parametrize(
    ("verdict", "values", "expected"),
    [
        (Refused(), {}, Settle(Outcome(Status.FAILED))),
        (Refused(set_up=True), {}, Suspect(Settle(Outcome(Status.FAILED)))),
        (Refused(), {"attempts": 2}, Park(FAILED, if_disabled=FAILED)),
        (Refused(set_up=True), {"attempts": 2}, Park(FAILED, if_disabled=FAILED)),
        (Refused(), {"doubts": 1}, Park(if_absent=Outcome(Status.FAILED))),
        (Transient(), {}, Again(backoff=True)),
        (Transient(retry_after_s=7.0), {"attempts": 5}, Again(backoff=True, retry_after_s=7.0)),
        (NoAnswer(), {}, Park()),
        (NoAnswer(), {"attempts": 6}, Park()),
        (Throttled(), {"attempts": 0}, Again(backoff=False)),
        (Unreachable(), {"attempts": 0}, Again(backoff=False)),
        (ClockRefused(), {"clock_refusals": 1}, Again(backoff=False)),
        (AuthExpired(is_renewable=True), {"attempts": 0}, Again(backoff=False)),
        (AuthExpired(is_users_own=True, advice="x"), {}, NOBODY_YET),
        (
            AuthExpired(is_users_own=True, advice="x"),
            {"doubts": 1},
            Park(if_absent=NO_TOKEN, if_disabled=None),
        ),
    ],
    ids=str,
)
def test_each_verdict_has_its_step(verdict, values, expected):
    """The table of states: what follows from a verdict."""
    assert step(verdict, **values) == expected


@pytest.mark.parametrize(
    ("verdict", "values"),
    [
        (AuthExpired(), {}),
        (QuotaUsedUp(), {}),
        (ClockRefused(), {"clock_refusals": 8}),
    ],
    ids=["credentials", "quota", "clock"],
)
def test_what_no_device_can_help_halts_the_run(verdict, values):
    """Credentials, quota and a clock that stays refused stop the run with 3."""
    halted = step(verdict, **values)

    assert isinstance(halted, Halt)
    assert halted.reason.exit_code == 3
    assert "words" in halted.reason.text


def test_attempts_run_out_as_a_suspect():
    """The last error fails the device, unless the list shows it; at first it is held back."""
    last = step(Transient(), attempts=6)

    assert isinstance(last, Suspect)
    assert isinstance(last.step, Park)
    assert last.step.if_absent is not None
    assert last.step.if_absent == last.step.if_disabled
    assert "6 attempts" in last.step.if_absent.detail


def test_attempts_that_run_out_after_doubt_wait_for_the_list():
    """A row that was ever in doubt is not failed before the list was read."""
    assert isinstance(step(Transient(), attempts=6, doubts=1), Park)


@pytest.mark.parametrize(
    ("told", "go_on"),
    [
        (Throttled(limit=5000, window_s=86400), "1970-01-13 13:46:40 UTC"),
        (Throttled(limit=100, window_s=3600), "1970-01-12 14:46:40 UTC"),
        (Throttled(retry_after_s=600), "1970-01-12 13:56:40 UTC"),
        (Throttled(limit=5000, window_s=86400, retry_after_s=121), "1970-01-12 13:48:41 UTC"),
        (Throttled(limit=5000, window_s=86400, retry_after_s=120), None),
        (Throttled(limit=600, window_s=60), None),
        (Throttled(), None),
    ],
    ids=str,
)
def test_a_long_wait_is_a_decision(told, go_on):
    """What would take longer than max_wait stops the run, and says when to go on."""
    after = step(told, attempts=0)

    if go_on is None:
        assert after == Again(backoff=False)
    else:
        assert isinstance(after, Halt)
        assert go_on in after.reason.hint
        assert after.reason.exit_code == 3


@pytest.mark.parametrize(("failed", "halts"), [(4, False), (5, True), (None, False)])
def test_a_start_without_connection_halts(failed, halts):
    """Five failed connections before anything was answered stop the run; later none does."""
    assert isinstance(step(Unreachable(), unreachable=failed), Halt) is halts


def test_already_bound_asks_the_list():
    """The code may mean somebody else: the list decides, and without a list it is believed."""
    asked = step(AlreadyBound())

    assert isinstance(asked, Park)
    assert asked.if_absent is not None
    assert asked.if_absent.status is Status.FAILED
    assert asked.if_unreadable is not None
    assert asked.if_unreadable.status is Status.ALREADY_BOUND


@pytest.mark.parametrize(
    ("verdict", "counts"),
    [
        (Accepted("1", ""), True),
        (AlreadyBound(), True),
        (Refused(), True),
        (Transient(), True),
        (NoAnswer(), True),
        (Throttled(), False),
        (Unreachable(), False),
        (AuthExpired(), False),
        (AuthExpired(is_users_own=True), False),
        (ClockRefused(), False),
        (QuotaUsedUp(), False),
    ],
    ids=str,
)
def test_which_attempts_cost(verdict, counts):
    """Only attempts in which the device had a say count."""
    assert isinstance(verdict, COSTS) is counts


@pytest.mark.parametrize(
    ("created", "values", "status", "repeated"),
    [
        (AT_SENDING, {}, Status.BOUND, False),
        ("1970-01-12T13:46:39.100Z", {}, Status.BOUND, False),
        ("1970-01-12T13:46:38.900Z", {}, Status.ALREADY_BOUND, False),
        ("", {}, Status.ALREADY_BOUND, False),
        ("yesterday", {}, Status.ALREADY_BOUND, False),
        ("1970-01-12T13:46:40", {}, Status.ALREADY_BOUND, False),
        ("1970-01-12T13:46:10Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, True),
        ("1970-01-12T13:46:39.998Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, True),
        ("1970-01-12T13:46:39.999Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, False),
        ("1970-01-12T13:46:39Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, False),
        ("1970-01-12T13:46:38Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, True),
        ("1970-01-12T13:46:41Z", {"attempts": 2, "sent_at": SENT - 40}, Status.BOUND, False),
        ("1970-01-12T13:45:00Z", {"doubts": 1, "sent_at": SENT - 40}, Status.ALREADY_BOUND, False),
        (AT_SENDING, {"doubts": 1, "sent_at": None}, Status.ALREADY_BOUND, False),
    ],
    ids=[
        "now",
        "within the margin",
        "older",
        "no time",
        "no date",
        "no zone",
        "by an earlier attempt of ours",
        "by an earlier attempt, 1 ms before",
        "perhaps in the same millisecond",
        "perhaps in the same second",
        "in the second before",
        "by this attempt",
        "before our first attempt",
        "our clock was not known",
    ],
)
def test_bound_or_already_bound_by_create_time(created, values, status, repeated):
    """Bound is what is younger than our first sending, by the server's clock."""
    outcome = accepted(claim(**values), attempt(None), Accepted("7", created))

    assert (outcome.status, outcome.repeated, outcome.device_id) == (status, repeated, "7")


@pytest.mark.parametrize(
    ("values", "park", "status"),
    [
        ({"doubts": 1, "sent_at": SENT - 5}, Park(), Status.BOUND),
        ({"doubts": 1, "sent_at": SENT + 5}, Park(), Status.ALREADY_BOUND),
        ({"doubts": 1, "sent_at": None}, Park(), Status.ALREADY_BOUND),
        ({"attempts": 0, "doubts": 0}, Park(), Status.SKIPPED),
        (
            {"sent_at": SENT - 5},
            Park(if_unreadable=Outcome(Status.ALREADY_BOUND)),
            Status.ALREADY_BOUND,
        ),
    ],
    ids=["ours", "older", "clock unknown", "sent by another run", "the server said so"],
)
def test_what_a_list_shows(values, park, status):
    """A row in doubt that the list shows is bound or already bound, by createTime."""
    was_said = park.if_unreadable is not None
    outcome = found(
        claim(**values), Record("M", "7", AT_SENDING), attempt(Accepted("", "")), was_said=was_said
    )

    assert (outcome.status, outcome.device_id) == (status, "7")


@pytest.mark.parametrize(
    ("values", "park", "is_own", "status"),
    [
        ({}, Park(), True, None),
        ({"attempts": 6}, Park(), True, Status.FAILED),
        ({}, Park(), False, Status.WITHDRAWN),
        ({}, Park(if_absent=Outcome(Status.FAILED)), True, Status.FAILED),
    ],
    ids=["again", "attempts used up", "another run's", "refused meanwhile"],
)
def test_what_a_list_does_not_show(values, park, is_own, status):
    """A row that is surely not bound is sent again, unless it has ended."""
    outcome = absent(claim(**values), park.if_absent, is_own=is_own, max_attempts=6)

    assert (outcome.status if outcome else None) == status

"""Frames and messages between a driver and its workers."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, strategies as st

from bulkbind.engine.workers.messages import (
    MOST_BYTES,
    TO_DRIVER,
    TO_WORKER,
    After,
    Beat,
    Frames,
    Hello,
    Kept,
    Key,
    Lease,
    Named,
    Order,
    Passed,
    Ready,
    Said,
    Start,
    ToDriver,
    ToWorker,
    Unasked,
    UnreadableError,
    frame,
)
from bulkbind.model import (
    Accepted,
    AlreadyBound,
    Attempt,
    AuthExpired,
    ClockRefused,
    Device,
    NoAnswer,
    QuotaUsedUp,
    Refused,
    ServerLimit,
    Throttled,
    Transient,
    Unreachable,
    Verdict,
)

VERDICTS: list[Verdict] = [
    Accepted("1842812272691451648", "2025-11-03T07:01:40Z"),
    AlreadyBound(),
    Refused(set_up=True, is_about_user=True),
    Throttled(60.0, 1.0, 0.5),
    QuotaUsedUp(3600.0),
    Transient(2.0),
    NoAnswer(was_read=True),
    Unreachable(),
    AuthExpired(is_renewable=True, advice="renew it"),
    ClockRefused(),
]
ATTEMPT = Attempt(
    VERDICTS[0],
    code="0",
    message="success",
    trace_id="t" * 58,
    sent_at=1.5,
    took_s=0.25,
    date=2.0,
    connection=7,
    is_named=True,
    http_status=200,
    request_id="r1",
    limits=(ServerLimit(60.0, 1.0, 59.0, None, "X-RateLimit-Limit"),),
)


def every_field(attempt):
    """Return all that an attempt says, what equality leaves out too."""
    verdict = attempt.verdict
    return [
        *(getattr(attempt, field.name) for field in fields(attempt)),
        getattr(verdict, "was_read", None),
        getattr(verdict, "under_way_s", None),
    ]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: type(verdict).__name__)
def test_an_attempt_comes_as_it_was(verdict):
    """No field of any verdict, and none of the attempt, is lost or changed on the way."""
    attempt = replace(ATTEMPT, verdict=verdict)

    (said,) = Frames(TO_DRIVER).feed(frame([Said.of(3, attempt)]))

    assert isinstance(said, Said)
    assert said.number == 3
    assert every_field(said.attempt()) == every_field(attempt)


TOLD: list[ToWorker] = [
    Start(b"\x00\xff"),
    Lease(4),
    Key(1, ("id", "secret")),
    Order(2, 1, 15.0, [Device("user", "SN_1", (None, "Android 15")), Device("u", "S")]),
    Named(),
    After(0.01),
]
ANSWERED: list[ToDriver] = [
    Hello("1.0"),
    Ready(),
    Beat(9),
    Kept(2),
    Unasked(5),
    Said.of(3, ATTEMPT),
    Passed.of([(4, ATTEMPT)] * 2, is_ours=True),
]


@given(cuts=st.lists(st.integers(1, 60), max_size=40))
def test_a_stream_may_be_cut_anywhere(cuts):
    """However the bytes come, the messages are the same, in order, and each once."""
    frames, data = Frames(TO_WORKER), frame(TOLD) + frame(TOLD[:2])
    heard = []
    for cut in cuts:
        heard += list(frames.feed(data[:cut]))
        data = data[cut:]

    heard += list(frames.feed(data))

    assert heard == TOLD + TOLD[:2]


def test_both_sides_understand_all_that_they_are_told():
    """Every message comes through its own side's decoder."""
    assert list(Frames(TO_WORKER).feed(frame(TOLD))) == TOLD
    assert list(Frames(TO_DRIVER).feed(frame(ANSWERED))) == ANSWERED


@pytest.mark.parametrize(
    "data",
    [
        (MOST_BYTES + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x02hi",
        frame([Lease(1)]),
        frame([Beat(1)])[:-1] + b"\xc0",
        frame([("passed", True, True, "0", "", None, [4, 5], ["id"])]),  # type: ignore[arg-type]
    ],
    ids=["too long", "no messages", "of the other side", "of another form", "uneven columns"],
)
def test_what_is_none_of_ours_is_refused(data):
    """Nothing is made of bytes that no driver or worker sends."""
    with pytest.raises(UnreadableError, match=r"."):
        list(Frames(TO_DRIVER).feed(data))


def test_secrets_are_not_shown():
    """A credential, and what a worker is told at the start, show nothing of what they hold."""
    assert "secret" not in repr([Key(1, ("id", "secret")), Start(b"secret")])

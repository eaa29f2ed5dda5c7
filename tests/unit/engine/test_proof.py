"""What lists and answers prove, one by one; in tests/acceptance they are over sockets."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bulkbind.clock import DAY_S
from bulkbind.engine import proof
from bulkbind.engine.proof import Connections, look
from bulkbind.koodrive.server_clock import ServerClock
from bulkbind.model import (
    Accepted,
    Attempt,
    Claim,
    Device,
    Listing,
    NoAnswer,
    Record,
    Refused,
    Status,
    Unbinding,
    UnbindKind,
    UnbindStatus,
)
from tests.support.fake_clock import FakeClock

SENT = 1_000_000.0  # 1970-01-12T13:46:40Z
KNOWN = {"A": "1", "B": "2", "C": "3"}


def seen(*shown, known=KNOWN, asked=("A",), stranger=None, is_part=False):
    """Return what a list shows of devices, each a machine code and an id."""
    records: dict[str, Record] = {}
    doubles = []
    for code, device_id in shown:
        record = Record(code, device_id, "")
        if records.setdefault(code, record) is not record:
            doubles.append(record)
    listing = Listing(Attempt(Accepted("", "")), records, tuple(doubles), is_part)
    return look(listing, known, asked, stranger)


OTHERS = (("B", "2"), ("C", "3"))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (seen(*OTHERS), ""),
        (seen(*OTHERS, asked=("NEW",), known={}), ""),
        (seen(asked=("NEW",), known={}), ""),
        (seen(("B", "2")), "lacks other devices known as bound, such as C"),
        (seen(), "known as bound, such as B and 1 more"),
        (seen(known={"A": "1"}), "no other device"),
        (seen(("a", "9"), *OTHERS), "another letter case"),
        (seen(*OTHERS, stranger="X"), "other users, e.g. X"),
        (seen(*OTHERS, is_part=True), "only a part"),
        (seen(("A", "1"), ("A", "9"), *OTHERS), "more than one device id"),
    ],
    ids=[
        *("all else", "nothing known", "nothing at all, nothing known", "another missing"),
        *("all missing", "no other known", "case", "strangers", "part", "doubled"),
    ],
)
def test_a_list_proves_absence_only_if_it_shows_all_else(found, why):
    """What stands in the way is said; without anything in the way it is one of two proofs."""
    [code] = {"A", "NEW"} & {"NEW" if "all" in why or not found.known else "A"}

    assert (found.why_not_absent(code, {code}) == "") == (why == "")
    assert why in found.why_not_absent(code, {code})
    assert found.proves_absent(code, {code}) == (why == "")
    assert proof.vanished(code, (found, found)) == (why == "")
    assert not proof.vanished(code, (found,))


def test_a_device_in_another_letter_case_is_known_by_its_id():
    """The id that the ledger knows says that it is the same."""
    found = seen(("a", "1"), ("b", "2"), ("c", "3"))

    assert not found.lacks
    assert found.shows("A", "1")


@pytest.mark.parametrize(
    ("dates", "unknown_s"),
    [((0.0,), 0.0), ((0.9,), 0.9), ((0.4,), 0.4), ((0.9, 1.7, 2.05), 0.05), ((0.3, 0.9), 0.3)],
    ids=["at a full second", "just before one", "between", "narrowed", "not narrowed"],
)
def test_our_sending_is_known_to_what_the_whole_seconds_of_date_leave_open(dates, unknown_s):
    """Never too late, so ours counts; a binding before it does only within margin and doubt.

    *dates*: when answers came, by the server's clock, each with that in whole seconds.
    """
    server = ServerClock(FakeClock())
    for at in dates:
        server.observe_moment(SENT + int(at), at, at)
    attempt = Attempt(Accepted("", ""), sent_at=server.at(3.0), took_s=0.1)

    def status(older_s):
        created = datetime.fromtimestamp(SENT + 3.0 - older_s, UTC).isoformat()
        claim = Claim(1, Device("u", "A"), attempts=1)
        return proof.accepted(claim, attempt, Accepted("1", created)).status

    assert attempt.sent_at == pytest.approx(SENT + 3.0 - unknown_s)
    assert {status(older_s) for older_s in (-0.1, 0.0, 0.99)} == {Status.BOUND}
    assert (status(1.1) is Status.BOUND) is (unknown_s > 0.1)
    assert status(1.0 + unknown_s + 0.01) is Status.ALREADY_BOUND


@pytest.mark.parametrize(
    ("created", "date", "status"),
    [
        ("1970-01-12T13:46:39.100Z", SENT, Status.BOUND),
        ("1970-01-12T13:46:42.000Z", SENT, Status.BOUND),
        ("1970-01-12T13:46:42.001Z", SENT, Status.ALREADY_BOUND),
        ("1970-01-12T13:46:42.050Z", None, Status.BOUND),
        ("1970-01-12T13:46:42.200Z", None, Status.ALREADY_BOUND),
        ("1970-01-12T21:46:40.000Z", SENT, Status.ALREADY_BOUND),
        ("1970-01-12T21:46:40.000Z", SENT + 8 * 3600, Status.BOUND),
    ],
)
def test_create_time_counts_from_our_sending_to_the_answers_date(created, date, status):
    """Two seconds more, as `Date` has whole seconds; without it, by our estimate of the clock."""
    answer = Attempt(Accepted("7", created), sent_at=SENT, took_s=0.1, date=date)
    row = Claim(row=1, device=Device("u", "A"), attempts=1)

    assert isinstance(answer.verdict, Accepted)
    accepted = proof.accepted(row, answer, answer.verdict)
    row.sent_at, row.doubts = SENT, 1
    found = proof.found(row, Record("A", "7", created), answer, was_said=False)

    assert accepted.status is found.status is status


HOUR = 3600.0


@pytest.mark.parametrize("off_s", [-2 * HOUR, 2 * HOUR])
@pytest.mark.parametrize(
    ("created_s", "status"),
    [
        (0.05, Status.BOUND),
        (-HOUR, Status.ALREADY_BOUND),
        (HOUR, Status.ALREADY_BOUND),
        (-3.0, Status.ALREADY_BOUND),
    ],
    ids=["ours", "an hour older", "an hour later", "seconds older"],
)
@pytest.mark.parametrize("node_s", [0.0, 1.0], ids=["by the clock", "by the Date"])
def test_one_wrong_date_does_not_decide_whose_a_binding_is(off_s, created_s, status, node_s):
    """Request and binding must fit by one clock: that so far, or that of a node that is off.

    *created_s*: how much later than the request, by the clock that wrote it.
    """
    created = datetime.fromtimestamp(SENT + node_s * off_s + created_s, UTC).isoformat()
    answer = Attempt(Accepted("7", created), sent_at=SENT, took_s=0.1, date=SENT + off_s)
    row = Claim(row=1, device=Device("u", "A"), attempts=1)

    assert isinstance(answer.verdict, Accepted)
    accepted = proof.accepted(row, answer, answer.verdict)
    row.sent_at, row.doubts = SENT, 1
    found = proof.found(row, Record("A", "7", created), answer, was_said=False)

    assert accepted.status is found.status is status
    assert ("Date contradicts" in accepted.detail) is (status is Status.ALREADY_BOUND)


@pytest.mark.parametrize(
    ("created", "why"),
    [
        ("1970-01-12T13:46:40Z", ""),
        ("1970-01-12t13:46:40.5z", ""),
        ("1970-01-12T21:46:40.123456789+08:00", ""),
        ("1970-01-12 13:46:40,25+0000", ""),
        ("19700112T134640Z", ""),
        ("", "the server sent no createTime"),
        ("1970-01-12T13:46:40", "no time with a zone"),
        ("1000000000", "no time with a zone"),
        ("1970-01-12T13:46:60Z", "no time with a zone"),
    ],
)
def test_create_time_is_read_in_any_zone_and_with_any_digits(created, why):
    """What tells no moment proves nothing, and the reason is the right one."""
    verdict = Accepted("7", created)
    answer = Attempt(verdict, sent_at=SENT, took_s=0.1, date=SENT)

    outcome = proof.accepted(Claim(row=1, device=Device("u", "A"), attempts=1), answer, verdict)

    assert outcome.status is (Status.ALREADY_BOUND if why else Status.BOUND)
    assert why in outcome.detail
    assert bool(outcome.detail) == bool(why)


def unbinding(verdict=None, *, was_sent=False, kind=UnbindKind.UNDO):
    """Return an unbinding of device A after an answer."""
    last = None if verdict is None else Attempt(verdict)
    return Unbinding(1, kind, "u", "A", "1", was_sent=was_sent, last=last)


WHOLE, EMPTY, ANEW, THERE = seen(*OTHERS), seen(), seen(("A", "9"), *OTHERS), seen(("A", "1"))
PART = seen(("A", "9"), *OTHERS, is_part=True)


@pytest.mark.parametrize(
    ("item", "looks", "expected"),
    [
        (unbinding(), (WHOLE, WHOLE), UnbindStatus.ALREADY_GONE),
        (unbinding(), (WHOLE, EMPTY), None),
        (unbinding(), (EMPTY, EMPTY), None),
        (unbinding(), (WHOLE,), None),
        (unbinding(), (WHOLE, THERE), None),
        (unbinding(), (WHOLE, ANEW), UnbindStatus.CHANGED),
        (unbinding(), (WHOLE, PART), None),
        (unbinding(), (ANEW,), None),
        (unbinding(kind=UnbindKind.MOVE), (WHOLE, WHOLE), None),
        (unbinding(kind=UnbindKind.MOVE), (ANEW, ANEW), UnbindStatus.CHANGED),
    ],
)
def test_without_a_request_two_lists_prove_an_end(item, looks, expected):
    """None: a request is sent by device id, and decides."""
    ended = proof.unsent(item, looks)

    assert (ended and ended[0]) == expected


@pytest.mark.parametrize(
    ("item", "looks", "expected"),
    [
        (unbinding(NoAnswer(), was_sent=True), (WHOLE,), None),
        (unbinding(NoAnswer(), was_sent=True), (WHOLE, WHOLE), UnbindStatus.UNBOUND),
        (unbinding(NoAnswer(), was_sent=True), (EMPTY, EMPTY), None),
        (unbinding(Refused(is_missing=True)), (EMPTY,), UnbindStatus.ALREADY_GONE),
        (unbinding(Refused(is_missing=True)), (THERE,), None),
        (unbinding(Refused(is_missing=True), was_sent=True), (EMPTY,), UnbindStatus.UNBOUND),
        (unbinding(Refused()), (THERE,), None),
        (unbinding(Accepted("", ""), was_sent=True), (EMPTY,), UnbindStatus.UNBOUND),
        (unbinding(Accepted("", ""), was_sent=True), (THERE,), None),
    ],
)
def test_after_a_request_its_answer_and_the_next_lists_prove_an_end(item, looks, expected):
    """None: it is not proven yet."""
    ended = proof.by_lists(item, looks, {"A"})

    assert (ended and ended[0]) == expected


@pytest.mark.parametrize(
    ("shown", "is_part", "ended"),
    [((), False, True), ((), True, False), ((("A", "1"),), False, False)],
    ids=["lacks it", "is a part", "shows it"],
)
def test_no_such_binding_needs_the_next_list_whole(shown, is_part, ended):
    """A part may leave out anything, so it confirms nothing."""
    gone = Refused(is_missing=True)
    item = Unbinding(1, UnbindKind.UNDO, "u", "A", "1", last=Attempt(gone))

    found = proof.by_lists(item, [seen(*shown, known={"A": "1"}, is_part=is_part)], {"A"})

    assert (found is not None) == ended


def test_a_connection_is_doubted_back_to_its_last_answer_with_a_name():
    """Rows of other connections, and those that a later named answer vouches for, are not."""
    connections = Connections()
    named, bare, other = (
        Attempt(Accepted("1", ""), connection=1, is_named=True),
        Attempt(Refused(), connection=1, sent_at=SENT),
        Attempt(Refused(), connection=2),
    )
    again = replace(bare, sent_at=SENT + 1)
    said = ((1, bare), (2, named), (3, bare), (4, other), (5, bare), (3, again))
    for row, attempt in said:
        assert connections.proves(attempt)
        connections.heard(row, attempt)

    assert connections.doubt(1) == {3: SENT, 5: SENT}
    assert connections.doubt(1) == {}
    assert not connections.proves(bare)
    assert connections.proves(named)
    assert connections.proves(other)


def test_rows_and_moments_of_any_size_are_remembered():
    """Of several runs, of a long one, and of moments to the millisecond, which is never later."""
    connections = Connections()
    sent = {1: 0.0, (3 << 40) + 7: SENT + 0.0019, (3 << 40) + 8: SENT + 100 * DAY_S, 2**62: 1e9}
    for row, sent_at in sent.items():
        connections.heard(row, Attempt(Refused(), connection=1, sent_at=sent_at))
    connections.heard(2**62, Attempt(Refused(), connection=1, sent_at=1e10))

    found = connections.doubt(1)

    assert list(found) == list(sent)
    assert all(0 <= sent_at - found[row] < 0.001 for row, sent_at in sent.items())


def test_a_row_whose_answer_names_no_device_takes_nine_bytes():
    """A server may never name one: 3,000,000 rows on a few connections."""
    connections = Connections()
    attempt = Attempt(Refused(), connection=1, sent_at=SENT)
    tracemalloc.start()
    try:
        for row in range(20_000):
            connections.heard(row, attempt)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 9.5 * 20_000 + 2_000

"""How many processes send."""

from __future__ import annotations

import pytest

from bulkbind.app.session import workers
from bulkbind.app.session.workers import (
    FEW_PLACES,
    FEW_ROWS,
    MOST_AUTO,
    SLOW_PER_S,
    Here,
    is_even,
    why_alone,
    workers_of,
)
from bulkbind.clock import SystemClock
from bulkbind.engine import StopSignal
from bulkbind.model import ServerLimit, Throttled
from bulkbind.pacing import Limit, Pacer
from bulkbind.settings import SendSettings

MANY = 1_000_000


@pytest.mark.parametrize(
    ("rows", "pace_per_s", "cores", "number"),
    [
        (MANY, None, 4, 3),
        (MANY, None, 64, MOST_AUTO),
        (MANY, None, 2, 1),
        (MANY, None, 1, 1),
        (MANY, SLOW_PER_S, 4, 3),
        (MANY, SLOW_PER_S - 1, 4, 1),
        (FEW_ROWS, None, 4, 3),
        (FEW_ROWS - 1, None, 4, 1),
    ],
)
def test_auto_is_one_unless_more_are_worth_it(rows, pace_per_s, cores, number):
    """One for few rows or a slow pace; else one a core, but for the driver's, up to a most."""
    send = SendSettings(workers="auto")

    assert workers_of(send, rows, pace_per_s, cores) == number


def test_a_number_is_meant():
    """Whoever names one gets it, however few rows there are."""
    assert workers_of(SendSettings(workers=3), 1, 1.0, 1) == 3


def test_auto_counts_the_cores_of_this_machine():
    """At least the one that runs this."""
    assert 1 <= workers_of(SendSettings(workers="auto"), MANY, None) <= MOST_AUTO


@pytest.mark.parametrize(("cores", "at_once"), [(1, 1), (2, 1), (8, 7)])
def test_a_core_is_left_to_the_driver_while_workers_start(monkeypatch, cores, at_once):
    """Its timers set the pace."""
    monkeypatch.setattr(workers, "_cores", lambda: cores)

    assert Here(8).at_once == at_once


@pytest.mark.parametrize(
    ("learned_per_s", "places", "scope", "why"),
    [
        (None, None, "credential", ""),
        (200.0, None, "credential", "the limit is under 5,000/s"),
        (200.0, None, "x-user-id", ""),
        (2 * SLOW_PER_S, None, "credential", ""),
        (None, FEW_PLACES, "credential", "the gateway takes 64 at a time"),
        (None, FEW_PLACES + 1, "credential", ""),
    ],
)
def test_the_driver_sends_alone_where_the_gateway_allows_no_more_than_it_can(
    learned_per_s, places, scope, why
):
    """Where users are counted apart, there may be many; what the operator allows shows no limit."""
    learned = learned_per_s and Limit(learned_per_s, is_spaced=False)
    pacer = Pacer(SystemClock(), StopSignal(), learned=learned)
    capped = Pacer(SystemClock(), StopSignal(), 200.0)
    pacer.flight.places.limit = places or float("inf")

    assert why_alone(pacer, SendSettings(rate_scope=scope)) == why
    assert not why_alone(capped, SendSettings(rate_scope=scope))


def test_the_driver_sends_alone_where_the_gateway_tells_a_slow_limit_or_refuses():
    """Before any 429, and while it is not known what one means."""
    told, closed = (Pacer(SystemClock(), StopSignal()) for _ in range(2))
    told.learner.stated([ServerLimit(600, 1.0, None, None, "")])
    closed.report(closed.try_permit() or 0, Throttled(retry_after_s=60.0))

    assert why_alone(told, SendSettings())
    assert why_alone(closed, SendSettings())


def test_binds_may_leave_together_unless_a_429_has_shown_otherwise():
    """Where requests must be spaced, or few may be in flight, and while one alone tries."""
    clock, stop = SystemClock(), StopSignal()
    pacers = [Pacer(clock, stop, learned=Limit(100.0, is_spaced=each)) for each in (False, True)]
    assert [is_even(each) for each in pacers] == [True, False]

    pacer = pacers[0]
    pacer.flight.places.limit = 4
    was_even = is_even(pacer)
    pacer.flight.places.forget()
    pacer.report(pacer.try_permits(1)[0], Throttled(retry_after_s=9.0))

    assert not was_even
    assert not is_even(pacer)

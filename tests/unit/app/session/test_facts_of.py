"""What a session records about its sending."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bulkbind.app.session.sending import facts_of
from bulkbind.engine import StopSignal
from bulkbind.model import RunFacts
from bulkbind.pacing import Limit, Pacer
from bulkbind.settings.model import SendSettings
from tests.support.fake_clock import FakeClock


def recorded(scope="credential", limit=None):
    """Return the facts of a session in which some limit was found."""
    server_clock = SimpleNamespace(measured=True, skew_s=lambda: -0.1234)
    client: Any = SimpleNamespace(requests=5, server_clock=server_clock)
    pacer = Pacer(FakeClock(), StopSignal())
    pacer.limit = lambda: limit  # type: ignore[method-assign]  # learned, in a moment
    send = SendSettings(rate_scope=scope)
    return facts_of(client, pacer, send, lists=2, again=0, backed_off_s=0.25)


def test_each_cause_of_waiting_is_measured():
    """A cause that is declared and never recorded would be told as if nobody had waited."""
    declared = {fact.name for fact, _, _ in RunFacts().waits()}

    assert declared
    assert declared <= set(recorded().as_json())


@pytest.mark.parametrize(
    ("scope", "name"), [("credential", "limit"), ("x-user-id", "limit_per_user")]
)
def test_a_limit_is_carried_to_the_next_run(scope, name):
    """Under its scope's name, with the clock's skew, and nothing else."""
    facts = recorded(scope, Limit(20.0, is_spaced=True))

    assert facts.carried() == {
        name: {"per_s": 20.0, "is_spaced": True},
        "clock_skew_s": -0.124,
    }
    assert recorded(scope).carried() == {"clock_skew_s": -0.124}

"""What is told of the time left."""

from __future__ import annotations

from bulkbind.app.session.eta import Gauge
from bulkbind.engine import StopSignal
from bulkbind.model import Accepted, Unreachable
from bulkbind.pacing import Pacer
from bulkbind.report.measures import left_s
from tests.support.fake_clock import FakeClock


async def test_no_time_left_is_told_while_the_endpoint_is_away():
    """Nobody knows for how long; what is waited for is told, and the time left once it is back."""
    clock = FakeClock()
    pacer = Pacer(clock, StopSignal(), 10.0)
    gauge = Gauge(pacer, clock)
    told = []
    for verdict in (Accepted("1", ""), Unreachable(), Accepted("2", "")):
        pacer.report(await pacer.permit(), verdict)
        told.append((left_s(100, 8.0, gauge.per_s(), gauge.waiting()), gauge.waits()))

    assert [left for left, _ in told] == [12.5, None, 12.5]
    assert told[1][1] == "one request tries whether the endpoint is back"

"""Progress lines: often enough, not too often, and none beside lines for each device."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from bulkbind.app.session.eta import Gauge
from bulkbind.app.session.listener import Listener
from bulkbind.app.session.progress import LOG_EVERY_S, Progress
from bulkbind.engine import StopSignal
from bulkbind.model import Accepted, Attempt, Claim, Device, Outcome, Status
from bulkbind.pacing import Pacer
from tests.support.fake_clock import FakeClock


class Hears(Listener):
    """Remembers what it was told."""

    counts: dict[str, int]
    problems: list[str]

    def settled(self, counts, problems):
        self.counts = dict(counts)
        self.problems = list(problems)


class Shows(Listener):
    """Remembers whether something is shown."""

    is_shown = False

    def sending(self, rows, gauge):  # noqa: ARG002  # the protocol's
        assert not self.is_shown
        self.is_shown = True

    def sent(self):
        assert self.is_shown
        self.is_shown = False


@pytest.fixture
def log():
    """Return the events that are logged, as they come."""
    with structlog.testing.capture_logs() as events:
        structlog.configure(cache_logger_on_first_use=False)
        yield events
    structlog.reset_defaults()


def settlements(count, status=Status.BOUND, run=1):
    """Return outcomes of the first rows of a run."""
    attempt = Attempt(
        Accepted("d1", "t"),
        "0",
        "success",
        trace_id="trace",
        sent_at=0.0,
        took_s=0.25,
        http_status=200,
    )
    return [
        (Claim((run << 40) + n, Device("u", f"SN{n}"), 1, last=attempt), Outcome(status))
        for n in range(count)
    ]


def progress(rows, *, log_devices=False):
    """Return a progress on a clock of its own, and both it and its listener."""
    clock, hears = FakeClock(), Hears()
    made = Progress(rows, hears, clock, lambda: 40.0, log_devices=log_devices)
    return made, clock, hears


def test_a_tenth_of_the_rows_is_told_but_not_every_flush(log):
    """A line at each tenth, at most one a second, with totals and the mean rate."""
    made, clock, hears = progress(100)
    for _ in range(10):
        clock.advance(0.5)
        made.settled(settlements(5))
    made.settled(settlements(3, Status.FAILED))

    assert hears.counts == {"bound": 50, "failed": 3}
    assert [event["settled"] for event in log] == [10, 20, 30, 40, 50]
    assert log[-1] == {
        "event": "run.progress",
        "log_level": "info",
        "settled": 50,
        "rows": 100,
        "bound": 50,
        "per_s": 10.0,
        "pace_per_s": 40.0,
        "left_s": 5.0,
    }


async def test_a_line_tells_no_time_left_that_nobody_knows(log):
    """While the run is paused, the rate of before says nothing of when it ends."""
    made, clock, _ = progress(100)
    pacer = Pacer(clock, StopSignal(), 40.0)
    with made.shown(Gauge(pacer, clock)):
        for pacer.is_paused in (False, True):
            clock.advance(2.0)
            made.settled(settlements(20))

    assert [event["left_s"] is None for event in log] == [False, True]


async def test_silence_is_told_too(log):
    """A run that settles nothing for long still writes a line every half minute."""
    made, clock, _ = progress(100)
    telling = asyncio.create_task(made.run())

    await clock.sleep(3 * LOG_EVERY_S + 1)
    telling.cancel()

    assert [event["settled"] for event in log] == [0, 0, 0]


def test_with_lines_for_devices_there_is_no_progress_line(log):
    """Each settled device is one line with what is needed to ask the provider about it."""
    made, clock, _ = progress(2, log_devices=True)
    clock.advance(60)
    made.settled(settlements(2, run=7))

    assert [event["event"] for event in log] == ["device.settled"] * 2
    assert log[1] == {
        "event": "device.settled",
        "log_level": "info",
        "row": 2,
        "machine_code": "SN1",
        "user_id": "u",
        "outcome": "bound",
        "device_id": "",
        "attempts": 1,
        "took_s": 0.25,
        "http_status": 200,
        "code": "0",
        "message": "success",
        "trace_id": "trace",
        "detail": "",
    }


@pytest.mark.parametrize("ends", [RuntimeError, asyncio.CancelledError, KeyboardInterrupt])
async def test_what_is_shown_ends_however_the_sending_does(ends):
    """By an error, a cancellation or a Ctrl-C, and so does the task that writes lines."""
    clock, shows = FakeClock(), Shows()
    gauge = Gauge(Pacer(clock, StopSignal(), 40.0), clock)
    made = Progress(10, shows, clock, lambda: None, log_devices=False)

    def breaks_off():
        with made.shown(gauge):
            assert shows.is_shown
            raise ends

    with pytest.raises(ends):
        breaks_off()

    assert not shows.is_shown
    await asyncio.sleep(0)  # noqa: TID251  # yields to the loop, no time passes
    assert [task for task in asyncio.all_tasks() if task.get_name() == "progress"] == []


def test_what_needs_a_person_is_shown_with_its_line():
    """The newest three, each once, after somebody has looked up where they stand."""
    made, _, hears = progress(100)
    made.settled(settlements(5, Status.FAILED))
    fresh = made.fresh()
    made.show([each.text(f"a.csv:{row}") for row, each in fresh.items()])

    assert [row % 10 for row in fresh] == [8, 9, 0]
    assert hears.problems[-1].endswith("0 SN4: failed: 0 success")
    assert made.fresh() == {}

"""The live display: what a person wants to know, on any terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console as Terminal

from bulkbind.app.session.eta import GO, Gauge
from bulkbind.cli.live import LiveDisplay
from bulkbind.engine import StopSignal
from bulkbind.model import Throttled, WorkerState
from bulkbind.pacing import Pacer
from tests.support.fake_clock import FakeClock


@pytest.fixture
async def parts():
    """Return a clock and a pacer."""
    clock = FakeClock()
    return clock, Pacer(clock, StopSignal(), 40.0)


def display(parts, width, *, no_color=False):
    """Return a display on a terminal of a width, and what it would write."""
    clock, pacer = parts
    terminal = Terminal(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        no_color=no_color,
        legacy_windows=False,
    )
    return LiveDisplay(1_000, Gauge(pacer, clock), clock, terminal), terminal


def frame(shown, terminal) -> str:
    """Return what stands on the screen."""
    with terminal.capture() as captured:
        terminal.print(shown.shown())
    return str(captured.get())


def plain(shown, terminal) -> list[str]:
    """Return the lines without colours."""
    lines = terminal.render_lines(shown.shown(), pad=False)
    return ["".join(segment.text for segment in line) for line in lines]


async def test_it_tells_counts_rates_and_time_left(parts):
    """Done of all, rows by status, rate now and allowed with its source, and how long it takes."""
    shown, terminal = display(parts, 80)
    for second in range(1, 6):
        parts[0].advance(1)
        shown.settled({"bound": 18 * second, "failed": 2 * second}, [f"SN{second}: failed: no"])
        shown.shown()

    lines = plain(shown, terminal)
    assert "100 / 1,000" in lines[0]
    assert lines[1].split() == ["90", "bound", "10", "failed"]
    assert lines[2].startswith("20/s of 40/s (set by --rate)")
    assert lines[2].endswith("5 s so far  ·  about 45 s left")
    assert lines[3:] == ["! SN3: failed: no", "! SN4: failed: no", "! SN5: failed: no"]


async def test_a_slow_rate_is_that_of_the_last_minute(parts):
    """As `status` measures it: five a minute are no 0/s between two of them."""
    shown, terminal = display(parts, 80)
    for second in range(90):
        parts[0].advance(1)
        shown.settled({"bound": second // 12}, [])
        shown.shown()

    assert plain(shown, terminal)[2].startswith("5/min of 40/s (set by --rate)")


async def test_it_says_why_it_waits(parts):
    """While the gate is closed it says until when; once it opens, that one request tries."""
    clock, pacer = parts
    shown, terminal = display(parts, 80)
    assert not any("waiting" in line for line in plain(shown, terminal))
    permit = await pacer.permit()

    pacer.report(permit, Throttled(retry_after_s=90.0))
    closed = plain(shown, terminal)
    clock.advance(95)
    probing = plain(shown, terminal)

    assert any(line.startswith("waiting: the gateway refuses (429) until ") for line in closed)
    assert any("one request tries" in line for line in probing)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
async def test_it_fits_any_width(parts, width):
    """No line is wider than the terminal, however long a problem is."""
    shown, terminal = display(parts, width)
    shown.settled({"bound": 900, "in_doubt": 3, "failed": 90}, ["SN1: " + "no " * 100])

    assert max(map(len, plain(shown, terminal))) <= width


async def test_without_colours_it_says_the_same(parts):
    """With NO_COLOR nothing is coloured, and every word is there."""
    coloured, bare = display(parts, 80), display(parts, 80, no_color=True)
    for shown, _ in (coloured, bare):
        shown.settled({"bound": 5, "failed": 1}, ["SN1: failed"])

    assert "\x1b[3" in frame(*coloured)
    assert "\x1b[3" not in frame(*bare)
    assert "5 bound" in frame(*bare)


async def test_a_narrower_terminal_is_overdrawn_whole(parts):
    """After a shrink, a line that the terminal has broken in two is erased as two."""
    shown, terminal = display(parts, 80)
    shown.settled({"bound": 500}, [])
    shown.shown()

    terminal.width = 40
    shown.shown()

    written = terminal.file
    assert isinstance(written, io.StringIO)
    assert written.getvalue() == 2 * "\x1b[2K\x1b[1A"  # the bar, and the pace


class Away(Gauge):
    """Of an endpoint that is away."""

    def is_blocked(self):
        return True

    def trouble(self):
        return "lists to be read for 3 devices"


async def test_while_the_endpoint_is_away_no_time_is_left(parts):
    """Nobody knows; what is in doubt is told all the same."""
    clock, pacer = parts
    terminal = Terminal(file=io.StringIO(), width=80, force_terminal=True)
    shown = LiveDisplay(1_000, Away(pacer, clock), clock, terminal)
    clock.advance(5)
    shown.settled({"bound": 100}, [])

    lines = plain(shown, terminal)
    assert lines[2] == "20/s of 40/s (set by --rate)  ·  5 s so far"
    assert lines[3] == "lists to be read for 3 devices"


async def test_why_it_waits_is_told_whole(parts, monkeypatch):
    """With the command as it is typed here, on as many lines as that takes."""
    whole = "`bulkbind adjust --go --endpoint http://127.0.0.1:8080 --ledger /var/lib/b/l.db`"
    monkeypatch.setattr("bulkbind.cli.live.completed", lambda text: text.replace(GO, whole))
    clock, pacer = parts
    pacer.is_paused = True
    terminal = Terminal(file=io.StringIO(), width=60, force_terminal=True)
    shown = LiveDisplay(1_000, Gauge(pacer, clock), clock, terminal)

    words = " ".join(plain(shown, terminal)[3:]).split()
    assert " ".join(words) == f"waiting: paused by an operator; {whole} resumes it"


async def test_workers_stand_below_the_pace(parts):
    """How many send, how fast, what they have; in one line on any terminal."""
    clock, pacer = parts
    workers = [
        WorkerState(number=number, pid=number, is_alive=True, settled=50, in_hand=16,
                    per_s=19.5, lost="")
        for number in (1, 2)
    ]  # fmt: skip
    terminal = Terminal(file=io.StringIO(), width=80, force_terminal=True)
    shown = LiveDisplay(1_000, Gauge(pacer, clock, workers=lambda: workers), clock, terminal)

    assert plain(shown, terminal)[3] == "workers: 2 sending at 19.5/s and 19.5/s; 32 rows in hand"
    terminal.width = 30
    assert max(map(len, plain(shown, terminal))) <= 30


async def test_all_is_done_only_when_all_is_done(parts):
    """The last rows may take longest: 100 % is not said before them."""
    shown, terminal = display(parts, 80)
    shown.settled({"bound": 999}, [])
    before = plain(shown, terminal)[0]
    shown.settled({"bound": 1_000}, [])

    assert "999 / 1,000  99 %" in before
    assert "1,000 / 1,000  100 %" in plain(shown, terminal)[0]

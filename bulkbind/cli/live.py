"""The live display: a few lines on a terminal with the progress, the pace and why it waits."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Console as Terminal, Group
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from bulkbind.app.session.eta import GO
from bulkbind.cli.colours import STYLES
from bulkbind.cli.here import completed
from bulkbind.redaction import line
from bulkbind.report.measures import (
    RATE_OVER_S,
    left_s,
    pace_text,
    rate_over_s,
    workers_now,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bulkbind.app.session.eta import Gauge
    from bulkbind.clock import Clock

LAST_PROBLEMS = 3
REFRESHES_PER_S = 4


class LiveDisplay:
    """Shows the progress from `start` to `stop`, adapting to the terminal's width."""

    def __init__(self, rows: int, gauge: Gauge, clock: Clock, terminal: Terminal) -> None:
        self._rows = rows
        self._gauge = gauge
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._problems: deque[str] = deque(maxlen=LAST_PROBLEMS)
        self._began_at = self._settled_at = clock.monotonic()
        self._samples: deque[tuple[float, int]] = deque([(self._began_at, 0)])
        self._known_at = gauge.known_at
        self._terminal = terminal
        self._go = str(completed(GO))  # what it needs is known here, and not in rich's thread
        self._width = 0
        self._lengths: list[int] = []
        """The widths of the terminal and of the lines in the last frame."""
        self._live = Live(
            console=terminal,
            get_renderable=self.shown,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,  # it carries results
        )

    def start(self) -> None:
        """Start the display. Log lines and notices are written above it."""
        with contextlib.suppress(OSError, ValueError):  # as in `stop`
            self._live.start()

    def stop(self) -> None:
        """Remove the display; ignore a closed terminal."""
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()

    def settled(self, counts: dict[str, int], problems: Sequence[str]) -> None:
        """Update counts and problems."""
        if counts != self._counts:
            self._settled_at = self._clock.monotonic()
        self._counts = dict(counts)
        self._problems.extend(problems)

    def shown(self) -> Group:
        """Return the current frame. Called from rich's thread before each refresh."""
        frame = self._frame()
        width = self._terminal.width
        if width < self._width:
            # A narrower terminal has wrapped our lines into more than rich knows to overwrite.
            more = sum(max(1, math.ceil(length / width)) - 1 for length in self._lengths)
            up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
            self._terminal.control(Control(*up * more))
        lines = self._terminal.render_lines(frame, pad=False)
        self._width = width
        self._lengths = [Segment.get_line_length(line) for line in lines]
        return frame

    def _frame(self) -> Group:
        done = sum(self._counts.values())
        width = self._terminal.width
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True)
        percent = f"{100 * done // max(self._rows, 1)} %"  # 100 only when all is done
        table.add_row(
            ProgressBar(total=max(self._rows, 1), completed=done),
            Text(f"{done:,} / {self._rows:,}  {percent}"),
        )
        lines: list[Table | Text] = [table, self._counts_line()]
        if stopping := self._gauge.stopping():
            return Group(*lines, Text(line(f"stopping: {stopping}"), style="yellow"))
        lines.append(self._pace_line(done))
        if workers := self._gauge.workers():
            lines.append(_line(f"workers: {workers_now(workers)}", "", width))
        if waits := self._gauge.waits():
            whole = line(f"waiting: {waits}").replace(GO, self._go)
            lines.append(Text(whole, style="yellow"))
        if trouble := self._gauge.trouble():
            lines.append(Text(line(trouble), style="yellow"))
        lines += [_line(f"! {problem}", "red", width) for problem in self._problems]
        return Group(*lines)

    def _counts_line(self) -> Text:
        text = Text()
        for status, count in self._counts.items():
            if count:
                text.append(f"{count:,} {status}", style=STYLES[status])
                text.append("  ")
        return text or Text(f"{self._gauge.what} …")

    def _pace_line(self, done: int) -> Text:
        now, allowed = self._clock.monotonic(), self._gauge.per_s()
        ended, over_s = self._ended(done)
        rate = ended / over_s if over_s else 0.0
        left = None
        if not self._gauge.is_blocked():
            left = left_s(
                self._rows - done,
                rate,
                allowed,
                self._gauge.waiting(),
                over_s=over_s,
                since_s=now - self._settled_at,
            )
        took_s = now - self._began_at
        source, told = self._gauge.source(), self._gauge.told()
        return Text(pace_text(rate, allowed, source, took_s, left, told=told))

    def _ended(self, done: int) -> tuple[int, float]:
        """Return how many rows ended of late, and in how many seconds."""
        now, samples = self._clock.monotonic(), self._samples
        if self._gauge.known_at != self._known_at:
            self._known_at = self._gauge.known_at
            samples.clear()
        if not samples or now - samples[-1][0] >= 1 / REFRESHES_PER_S:
            samples.append((now, done))
        while len(samples) > 2 and now - samples[1][0] >= RATE_OVER_S[-1]:  # noqa: PLR2004  # two make a rate
            samples.popleft()

        def at(longest_s: float) -> tuple[float, int]:
            old = (sample for sample in reversed(samples) if now - sample[0] >= longest_s)
            return next(old, samples[0])

        since, before = at(rate_over_s(lambda longest_s: done - at(longest_s)[1]))
        return done - before, now - since


def _line(text: str, style: str, width: int) -> Text:
    """Return one line, truncated to the terminal's width."""
    shown = Text(line(text), style=style, no_wrap=True, overflow="ellipsis")
    shown.truncate(width, overflow="ellipsis")
    return shown

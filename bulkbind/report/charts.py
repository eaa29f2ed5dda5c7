"""Charts as inline SVG: small, without scripts, coloured by the page's style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from bulkbind.clock import HOUR_S, MINUTE_S

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 74, 34, 30, 34
"""Room for the labels of the axes, also in the larger letters of a phone."""
MOST_LABELS = 5
_NICE = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Series:
    """One line or filled area of a chart over time."""

    name: str
    values: Sequence[float | None]
    """Evenly spaced; None is a gap."""
    style: str
    """A class of the page's style sheet, which sets the colour."""
    is_area: bool = False
    is_stepped: bool = False


def nice_ceiling(value: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 times a power of ten that is at least *value*."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in _NICE if step * power >= value * (1 - 1e-9))


def over_time(
    series: Sequence[Series],
    times_s: Sequence[float],
    *,
    title: str,
    unit: str = "",
    breaks: Sequence[int] = (),
    marks: Sequence[int] = (),
) -> Markup:
    """Return lines over time.

    Args:
        series: Each with as many values as *times_s*.
        times_s: Times from the start.
        title: Text alternative for screen readers.
        unit: Of the values, above their axis.
        breaks: Positions before which the run was stopped.
        marks: Positions to mark below the axis.
    """
    count = len(times_s)
    if count == 0:
        return Markup("")
    highest = max((v for each in series for v in each.values if v is not None), default=0.0)
    ceiling = nice_ceiling(highest)
    plot = _Plot(max(count - 1, 1), ceiling)
    parts = [*plot.grid(ceiling, unit), *plot.time_axis(times_s)]
    parts += [plot.drawn(each) for each in series]
    parts += [
        f'<line class="break" x1="{plot.x(at - 0.5)}" x2="{plot.x(at - 0.5)}" '
        f'y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        for at in breaks
    ]
    parts += [
        f'<rect class="mark" x="{plot.x(at) - 1.5:.1f}" y="{HEIGHT - BOTTOM + 1}" width="3" '
        'height="5"/>'
        for at in marks
    ]
    return _svg("".join(parts), title)


class _Plot:
    def __init__(self, last: float, ceiling: float) -> None:
        self._last = last
        self._ceiling = ceiling

    def x(self, position: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * position / self._last, 1)

    def y(self, value: float) -> float:
        share = min(value / self._ceiling, 1.0)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)

    def grid(self, ceiling: float, unit: str) -> Iterator[str]:
        yield f'<text x="{LEFT}" y="{TOP - 14}" text-anchor="start">{escape(unit)}</text>'
        for quarter in range(5):
            value = ceiling * quarter / 4
            y = self.y(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            if quarter % 2 == 0:
                label = number_text(value)
                yield f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>'

    def time_axis(self, times_s: Sequence[float]) -> Iterator[str]:
        count = len(times_s)
        for place in sorted({0, (count - 1) // 2, count - 1}):
            anchor = "start" if place == 0 else "end" if place == count - 1 else "middle"
            yield (
                f'<text x="{self.x(place)}" y="{HEIGHT - 12}" text-anchor="{anchor}">'
                f"{clock_text(times_s[place])}</text>"
            )

    def drawn(self, series: Series) -> str:
        paths = []
        for run in _runs(series.values):
            points = list(self._points(run, is_stepped=series.is_stepped))
            line = " ".join(f"{x},{y}" for x, y in points)
            if series.is_area:
                floor = HEIGHT - BOTTOM
                first, last = points[0][0], points[-1][0]
                paths.append(
                    f'<polygon class="area {series.style}" '
                    f'points="{first},{floor} {line} {last},{floor}"/>'
                )
            paths.append(f'<polyline class="line {series.style}" points="{line}"/>')
        return "".join(paths)

    def _points(
        self, run: Sequence[tuple[int, float]], *, is_stepped: bool
    ) -> Iterator[tuple[float, float]]:
        before: float | None = None
        for position, value in run:
            if is_stepped and before is not None:
                yield self.x(position), self.y(before)
            yield self.x(position), self.y(value)
            before = value
        if len(run) == 1:  # a single point is drawn as a short line
            yield self.x(run[0][0] + 0.5), self.y(run[0][1])


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Yield each run of values between gaps, with positions."""
    run: list[tuple[int, float]] = []
    for position, value in enumerate(values):
        if value is not None:
            run.append((position, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def histogram(
    labels: Sequence[str], counts: Sequence[int], *, title: str, unit: str = ""
) -> Markup:
    """Return a bar chart with some of the labels below."""
    if not counts:
        return Markup("")
    ceiling = nice_ceiling(max(counts))
    plot = _Plot(len(counts), ceiling)
    parts = list(plot.grid(ceiling, unit))
    every = max(1, math.ceil(len(counts) / MOST_LABELS))
    for position, (label, count) in enumerate(zip(labels, counts, strict=True)):
        x, y = plot.x(position + 0.08), plot.y(count)
        width = round(plot.x(position + 0.92) - x, 1)
        height = round(HEIGHT - BOTTOM - y, 1)
        parts.append(
            f'<rect class="bar" x="{x}" y="{y}" width="{width}" height="{height}">'
            f"<title>{escape(label)}: {count:,}</title></rect>"
        )
        if position % every == 0:
            parts.append(
                f'<text x="{plot.x(position + 0.5)}" y="{HEIGHT - 12}" text-anchor="middle">'
                f"{escape(label)}</text>"
            )
    return _svg("".join(parts), title)


def number_text(value: float) -> str:
    """Return a number of an axis, without an exponent: `0.25`, `12.5`, `20,000`."""
    return f"{value:,.4f}".rstrip("0").rstrip(".")


def clock_text(seconds: float) -> str:
    """Return a time since the start of a run: `45 s`, `3 min 20 s`, `1 h 2 min`."""
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    minutes, rest = divmod(whole, int(MINUTE_S))
    if whole < HOUR_S:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _svg(inner: str, title: str) -> Markup:
    # It contains only our own numbers and text escaped above.
    return Markup(  # noqa: S704  # as above
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'preserveAspectRatio="xMidYMid meet">{inner}</svg>'
    )

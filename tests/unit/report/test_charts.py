"""Charts: axes that a person can read, lines that break where nothing is known, texts escaped."""

from __future__ import annotations

import re

import pytest

from bulkbind.report.charts import (
    Series,
    clock_text,
    histogram,
    nice_ceiling,
    number_text,
    over_time,
)


@pytest.mark.parametrize(
    ("value", "ceiling"),
    [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (2.2, 2.5), (49, 50), (51, 100), (1234, 2000)],
)
def test_an_axis_ends_at_a_round_number(value, ceiling):
    """The axis ends at the least of 1, 2, 2.5, 5 times a power of ten that holds the value."""
    assert nice_ceiling(value) == pytest.approx(ceiling)


def test_a_gap_breaks_the_line():
    """What stands around a None is two lines; an area has a polygon below each."""
    values = [1.0, 2.0, None, 3.0, 4.0]

    svg = over_time([Series("x", values, "s1", is_area=True)], range(5), title="t")

    assert len(re.findall(r'class="line s1"', svg)) == 2
    assert len(re.findall(r'class="area s1"', svg)) == 2


def test_a_step_goes_sideways_before_it_goes_up():
    """A stepped series holds its value until the next moment."""
    svg = over_time([Series("x", [10.0, 10.0, 5.0], "s2", is_stepped=True)], range(3), title="t")

    found = re.search(r'class="line s2" points="([^"]*)"', svg)
    assert found is not None
    heights = [point.split(",")[1] for point in found[1].split()]
    assert heights == [heights[0]] * 4 + [heights[-1]]
    assert heights[0] != heights[-1]


def test_marks_and_breaks_stand_at_their_places():
    """Each stop of the run is a dashed line, each throttled moment a mark under the axis."""
    line = Series("x", [1.0] * 10, "s1")

    svg = over_time([line], range(10), title="t", breaks=[5], marks=[2, 3])

    assert svg.count('class="break"') == 1
    assert svg.count('class="mark"') == 2


def test_texts_are_escaped():
    """No title and no label becomes markup."""
    svg = histogram(["<b>", "ok"], [1, 2], title='"><script>')

    assert "<b>" not in svg
    assert "<script>" not in svg
    assert "&lt;b&gt;: 1" in svg


def test_nothing_is_no_chart():
    """Without a value there is no chart; one value alone is still seen."""
    alone = over_time([Series("x", [3.0], "s1")], [0.0], title="t")

    assert over_time([], [], title="t") == ""
    assert histogram([], [], title="t") == ""
    found = re.search(r'points="([^"]*)"', alone)
    assert found is not None
    assert len(found[1].split()) == 2


@pytest.mark.parametrize("value", [0, 0.0625, 12.5, 20_000, 2_500_000])
def test_a_number_of_an_axis_is_plain(value):
    """It has no exponent, whatever its size, and is the number itself."""
    assert float(number_text(value).replace(",", "")) == value
    assert "e" not in number_text(value)


def test_axes_have_units():
    """The unit of the values stands above their axis, escaped; times have theirs."""
    svg = over_time([Series("x", [10_000.0, 20_000.0], "s1")], [0.0, 90.0], title="t", unit="<u>")

    assert "&lt;u&gt;" in svg
    assert ">20,000<" in svg
    assert ">1 min 30 s<" in svg


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (1800, "30 min"),
        (3725, "1 h 2 min"),
        (7200, "2 h"),
    ],
)
def test_a_moment_reads_like_a_clock(seconds, text):
    """Seconds alone, then minutes, then hours, each with its unit."""
    assert clock_text(seconds) == text

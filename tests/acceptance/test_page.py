"""`report.html` as a browser shows it; skipped where Chromium is absent."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest

from bulkbind.model import (
    PENDING,
    ResultRow,
    RunFacts,
    RunState,
    RunSummary,
    Source,
    Status,
    TimelinePart,
    WorkerState,
)
from bulkbind.model.wording import meaning, to_do
from bulkbind.redaction import line
from bulkbind.report.page import MOST_ROWS, write_html
from tests.support.browser import CHROMIUM, DRIVER, axe_core, chromium
from tests.support.rows import ShownRows, device

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromium-driver (apt-get install)"
    ),
]
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=http://127.0.0.1:9/x onerror="document.title=1">',
    "{{ 7 * 7 }} {% raw %}",
    "' onmouseover='document.title=1",
    "</script></style><svg onload=document.title=1>",
    "javascript:document.title=1",
    "\u202eevil\u202c \U0001f680 名前",
)
KINDS = (Status.FAILED, Status.INVALID, Status.DUPLICATE, PENDING)


@pytest.fixture(scope="module")
def browser():
    """Serve one browser for all tests."""
    with chromium() as opened:
        yield opened


class Rows(ShownRows):
    """A run of many rows, of which every tenth is bound."""

    def __init__(self, count: int, names: tuple[str, ...] = ("Van",)) -> None:
        self.count = count
        self.names = names

    def sources(self):
        return [Source(f"fleet {self.names[0]}.csv", "csv", "utf-8", bom=False)]

    def status(self, number: int) -> str:
        return str(Status.BOUND if number % 10 == 0 else KINDS[number % len(KINDS)])

    def rows(self, statuses=()):
        for number in range(self.count):
            status = self.status(number)
            if not statuses or status in statuses:
                yield self.row(number, status)

    def row(self, number: int, status: str) -> ResultRow:
        name = self.names[number % len(self.names)]
        values: dict[str, Any] = {
            "source": 0,
            "line": number + 2,
            "user_id": f"user_{number % 9} {name if name != 'Van' else ''}",
            "machine_code": f"SN{number}",
            "optional": tuple(value or "" for value in device("", "", name, "Android 15").optional),
            "status": status,
            "device_id": "",
            "create_time": "",
            "http_status": 200,
            "code": "13000301",
            "message": f"space missing {name}",
            "attempts": number % 4,
            "trace_id": "a" * 58,
            "settled_at": "2026-11-23T12:00:01Z",
            "detail": name,
            "problems": (),
            "cells": None,
        }
        return ResultRow(**values)

    def users(self, most):
        users = [
            {"user_id": f"user_{n} {self.names[0]}", "counts": {"failed": 3}, "rows": 3}
            for n in range(min(9, most))
        ]
        return users, 9

    def leavers(self):
        return iter(())

    def attempts(self):
        return iter(())

    def verdicts(self):
        return [{"verdict": "Throttled", "code": self.names[0], "count": 12}]

    def summary(self) -> RunSummary:
        counts: dict[str, int] = {}
        for number in range(self.count):
            status = self.status(number)
            counts[status] = counts.get(status, 0) + 1
        name = self.names[0]
        reason = {"status": "failed", "code": "1", "message": name, "count": 3, "detail": name}
        part = TimelinePart(
            began_at="2026-11-23T12:00:02.000Z",
            step_s=1.0,
            settled=[40, 80, 60, 0, 20],
            pace_per_s=[None, 98.0, 98.0, 49.0, 49.0],
            throttled=[0, 1, 0, 0, 0],
            latency_edges_ms=[10, 20, 40],
            latency=[100, 60, 30, 10],
        )
        facts = RunFacts()
        facts.parts = [part, part]
        facts.requests = 321
        facts.requests_throttled = 12
        facts.sending_s = 9.5
        facts.pace_from = name
        facts.workers = [
            WorkerState(number=number, pid=number, is_alive=not lost, settled=100, in_hand=0,
                        per_s=40.0, lost=lost)
            for number, lost in ((1, ""), (2, f"ended by signal 9 {name}"))
        ]  # fmt: skip
        facts.pace_per_s = 49.0
        return RunSummary(
            "20261123-120000-abcd",
            RunState.DONE,
            (f"fleet {name}.csv",),
            counts,
            ({**reason, "example": "fleet.csv:3"},) if counts else (),
            facts,
            created_at="2026-11-23T12:00:00.000Z",
            confirmed_at="2026-11-23T12:00:02.000Z",
            ended_at="2026-11-23T12:01:00.000Z",
            settings={"endpoint": "https://example.org", "user_id": name},
            operator=name,
        )


def page_of(tmp_path, count, names=("Van",)):
    """Write the page of a run and return its path."""
    run = Rows(count, names)
    path = tmp_path / "report.html"
    write_html(path, run, run.summary())
    return path


def shown_rows(browser) -> list[list[str]]:
    """Return the cells of the rows that are seen."""
    found: list[list[str]] = browser.run(
        "return [...document.querySelectorAll('#rows tbody tr')].filter(r => !r.hidden)"
        ".map(r => [...r.cells].map(c => c.innerText.trim()))"
    )
    return found


def type_into(browser, text: str) -> None:
    """Search as a person does."""
    browser.run(
        "const find = document.getElementById('find'); find.value = arguments[0];"
        "find.dispatchEvent(new Event('input'))",
        text,
    )


@pytest.mark.parametrize("count", [0, 10, 1_000, 100_000])
def test_the_page_asks_nobody_and_complains_of_nothing(browser, tmp_path, count):
    """No request leaves it, the console stays empty, and it fits 360 px, whatever the rows."""
    browser.requests()
    browser.complaints()
    page = page_of(tmp_path, count)

    browser.load(page, width=360)

    assert {url for url in browser.requests() if not url.startswith("data:")} == {page.as_uri()}
    assert browser.complaints() == []
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert page.stat().st_size < 4_000_000
    assert len(shown_rows(browser)) == min(20, sum(1 for n in range(count) if n % 10))


def test_a_large_page_holds_what_needs_a_person_and_points_to_the_rest(browser, tmp_path):
    """Of 100,000 rows the page has so many as a browser bears, no duplicates, and names the CSV."""
    browser.load(page_of(tmp_path, 100_000))

    statuses = browser.run(
        "return [...document.querySelectorAll('#rows tbody tr')].map(r => r.dataset.status)"
    )
    assert set(statuses) == {"failed", "invalid", "pending"}
    assert browser.run("return document.querySelectorAll('#rows tbody tr').length") == MOST_ROWS
    assert "results.csv beside it holds every row" in browser.run("return document.body.innerText")


def test_rows_can_be_searched_narrowed_sorted_and_turned(browser, tmp_path):
    """All words must be found; a status narrows; a header sorts both ways; pages turn."""
    browser.load(page_of(tmp_path, 1_000))
    click = "document.querySelector(arguments[0]).click()"

    assert len(shown_rows(browser)) == 50
    browser.run(click, "#forth")
    assert shown_rows(browser)[0][2] == "SN56"
    type_into(browser, "SPACE sn77")
    assert {row[2] for row in shown_rows(browser)} == {"SN77", *(f"SN77{n}" for n in range(1, 10))}
    said = browser.run("return document.getElementById('said').innerText")
    assert "10 of 10 rows (900 in all)" in said
    browser.run(
        "const pick = document.getElementById('pick'); pick.value = 'failed';"
        "pick.dispatchEvent(new Event('change'))"
    )
    assert {row[4] for row in shown_rows(browser)} == {"failed"}
    browser.run(click, "#rows th:nth-child(3) button")
    up = [row[2] for row in shown_rows(browser)]
    browser.run(click, "#rows th:nth-child(3) button")
    down = [row[2] for row in shown_rows(browser)]
    assert up == sorted(up, key=lambda code: int(code[2:]))
    assert down == up[::-1]
    sorts = (
        "return [...document.querySelectorAll('#rows th')].map(h => h.getAttribute('aria-sort'))"
    )
    assert browser.run(sorts) == [None, None, "descending", None, None, None, None]
    type_into(browser, "nobody has this")
    assert shown_rows(browser) == []
    browser.run(click, "#rows th:nth-child(7) button")
    type_into(browser, "")
    assert [int(row[6]) for row in shown_rows(browser)] == [0] * 50


def test_the_theme_follows_the_system_and_the_button(browser, tmp_path):
    """Light and dark by the system's wish, then as the button says; paper is always light."""
    page = page_of(tmp_path, 10)
    colour = "return getComputedStyle(document.body).backgroundColor"
    click = "const b = document.getElementById('theme'); b.click(); return b.innerText"

    browser.load(page, theme="light")
    light = browser.run(colour)
    browser.load(page, theme="dark")
    dark = browser.run(colour)
    said = browser.run(click)
    forced = browser.run(colour)
    browser.media("dark", "print")
    paper = browser.run(colour)
    browser.media("light")
    again = browser.run(click)
    forced_dark = browser.run(colour)

    assert light != dark
    assert (said, forced) == ("Theme: light", light)
    assert (again, forced_dark) == ("Theme: dark", dark)
    assert paper == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(browser, tmp_path, name):
    """What stands in names and messages is shown, runs nothing, asks nobody; marks are escaped."""
    browser.requests()
    browser.complaints()
    page = page_of(tmp_path, 10, (name,))

    browser.load(page)

    assert browser.run("return document.title").endswith("bulkbind run 20261123-120000-abcd")
    assert {url for url in browser.requests() if not url.startswith("data:")} == {page.as_uri()}
    assert browser.complaints() == []
    assert browser.run("return document.querySelectorAll('img, main script').length") == 0
    shown = browser.run(
        "return document.querySelector('#rows tbody tr td:nth-child(4)').textContent"
    )
    assert shown == line(name)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(browser, tmp_path, theme, width):
    """axe-core finds no violation, contrast and names of controls included."""
    script = axe_core()
    if script is None:
        pytest.skip("needs axe-core (npm install axe-core)")
    browser.load(page_of(tmp_path, 300), width=width, theme=theme)
    browser.run(script.read_text(encoding="utf-8"))

    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(JSON.stringify(r.violations)))"
    )
    told = [
        (item["id"], [node["html"][:120] for node in item["nodes"][:3]])
        for item in json.loads(found)
    ]
    assert told == []


def test_a_small_run_fits_two_sheets(browser, tmp_path):
    """Printed on A4, thirteen rows that are not bound take two pages at most."""
    browser.load(page_of(tmp_path, 15))
    browser.run("document.querySelectorAll('details').forEach(d => d.open = false)")

    assert len(shown_rows(browser)) == 13
    assert browser.sheets() <= 2


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_text_of_a_chart_is_cut(browser, tmp_path, width):
    """Labels of the axes lie within their charts and do not overlap, and have a unit above."""
    browser.load(page_of(tmp_path, 100), width=width)

    boxes = browser.run(
        "return [...document.querySelectorAll('figure svg')].map(svg => {"
        " const box = svg.getBoundingClientRect();"
        " return [...svg.querySelectorAll('text')].map(t => { const b = t.getBoundingClientRect();"
        "  return [t.textContent, b.left - box.left, box.right - b.right, Math.round(b.top)]})})"
    )
    assert [chart[0][0] for chart in boxes] == ["devices per second", "answers"]
    for chart in boxes:
        assert all(left >= 0 and right >= 0 for _, left, right, _ in chart), chart
        bottom = [text for text in chart if text[3] == chart[-1][3]]
        spans = sorted((left, box_width(browser) - right) for _, left, right, _ in bottom)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans)), bottom


def box_width(browser) -> float:
    """Return the width of a chart."""
    return float(
        browser.run("return document.querySelector('figure svg').getBoundingClientRect().width")
    )


def test_each_reason_says_what_it_means_and_what_to_do(browser, tmp_path):
    """A provider's code is explained, and has a step of its own; any other has its status's."""
    run = Rows(10)
    reasons = [
        {"status": status, "code": code, "message": "m", "count": 3, "detail": "", "example": "f:1"}
        for status, code in (("failed", "13000301"), ("failed", "1"), ("invalid", ""))
    ]
    summary = dataclasses.replace(run.summary(), reasons=tuple(reasons))
    write_html(tmp_path / "report.html", run, summary)
    browser.load(tmp_path / "report.html")

    shown = browser.run(
        "return [...document.querySelectorAll('[aria-labelledby=h-reasons] tbody tr')]"
        ".map(r => r.cells[2].innerText)"
    )
    assert shown[0].startswith(f"13000301 m: {meaning('13000301')}")
    assert to_do("13000301") in shown[0]
    assert Status.FAILED.about.to_do in shown[1]
    assert Status.INVALID.about.to_do in shown[2]


def test_no_backtick_is_shown_raw(browser, tmp_path):
    """What a person types is set apart, whoever says so, and stays text."""
    run = Rows(10, ("see `bulkbind help limits`, not `<b>`",))
    summary = dataclasses.replace(
        run.summary(), state=RunState.STOPPED, stop_reason="ended by `adjust --drain`"
    )
    write_html(tmp_path / "report.html", run, summary)
    browser.load(tmp_path / "report.html")

    shown = browser.run(
        "return ['.says', '[aria-labelledby=h-reasons] tbody', '#rows tbody tr td:nth-child(6)']"
        ".map(q => document.querySelector(q).innerText)"
    )
    typed = browser.run(
        "return [...document.querySelectorAll('.says .mono, #rows .mono')].map(e => e.innerText)"
    )
    assert not any("`" in text for text in [*shown, browser.run("return document.title")])
    assert {"adjust --drain", "bulkbind help limits", "<b>"} <= set(typed)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_place_is_shown_whole(browser, tmp_path, width):
    """File and line of a row are not cut, however long the path; a trace id is called so."""
    name = "/srv/exports/of-the-warehouse/north/monday-and-tuesday-together/fleet.csv"
    browser.load(page_of(tmp_path, 10, (name,)), width=width)

    cut = browser.run(
        "return [...document.querySelectorAll('td.place')].filter("
        "c => c.scrollWidth > c.clientWidth + 1 || getComputedStyle(c).textOverflow == 'ellipsis')"
        ".length"
    )
    assert cut == 0
    assert shown_rows(browser)[0][0].replace("\n", "").endswith(f"{name}.csv:3")
    assert "trace id aaaa" in shown_rows(browser)[0][5]


def test_a_keyboard_reaches_everything(browser, tmp_path):
    """Tab comes to the skip link first, then to every control, in the order in which they stand."""
    browser.load(page_of(tmp_path, 100))

    order = browser.run(
        "return [...document.querySelectorAll('a[href], button:not(:disabled), input, select, "
        "summary, [tabindex]')].filter(e => e.offsetParent !== null || e.className === 'skip')"
        ".map(e => [e.tagName, e.tabIndex])"
    )
    assert order[0][0] == "A"
    assert {index for _, index in order} == {0}
    assert {tag for tag, _ in order} >= {"A", "BUTTON", "INPUT", "SELECT", "SUMMARY"}

"""A plan in Markdown: its tables stay tables, and nothing from outside becomes markup."""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt

from bulkbind.model import Forecast, Plan, PlanWord, Problem, ProblemGroups
from bulkbind.report.plan_text import plan_markdown

HOSTILE = "a|b`c`<img src=x>\n# *d* @all [e](http://127.0.0.1/)"


def plan_of(name, **more):
    """Return a plan whose names are all the same."""
    groups = ProblemGroups()
    groups.add(0, name, 3, Problem("machine_code", name, name, f"rule {name}", f"found {name}"))
    counts = dict.fromkeys(map(str, PlanWord), 0) | {"bind": 1_200, "invalid": 1, "moved": 2}
    values: dict[str, Any] = {
        "manifests": (name,),
        "counts": counts,
        "users": {name: {"bind": 1_200, "invalid": 1}, "": {"moved": 2}},
        "user_count": 30,
        "moved": (),
        "problems": (),
        "forecast": Forecast(1_200, 0, 60.0, "learned"),
        "digest": "",
        "mark": "",
        "broken": tuple(groups),
    }
    return Plan(**(values | more))


def tables_of(text):
    """Return the rows of each table as a reader of GitHub's Markdown sees them."""
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(str(text))
    return [re.findall(r"<tr>", table) for table in html.split("<table>")[1:]], html


def test_whatever_a_plan_holds_its_tables_stay_tables():
    """Three tables: what would be done, rules that are broken, users; no markup from a name."""
    tables, html = tables_of(plan_markdown(plan_of(HOSTILE)))

    assert [len(rows) for rows in tables] == [1 + 3, 1 + 1, 1 + 2]
    assert "<img" not in html
    assert "<em>" not in html
    assert "href" not in html
    assert "<h1>" not in html


def test_a_plan_in_markdown_says_what_the_text_says():
    """Counts with their meaning, the forecast, and that more users are not listed."""
    text = plan_markdown(plan_of("fleet.csv"))

    assert "**`fleet.csv`: 1,203 rows, 30 users**" in text
    assert "| + | 1,200 | to bind |" in text
    assert "Forecast: 1,200 calls (1,200 binds), about 20 s at 60/s (learned)" in text
    assert "| (none) | > 2 |" in text.replace("&gt;", ">")
    assert "… and 28 more" in text

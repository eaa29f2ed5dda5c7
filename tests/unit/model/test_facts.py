"""The facts of a run: what is declared once, and whatever follows from it."""

from __future__ import annotations

import ast
import inspect
import re

import pytest
from jinja2 import Environment, nodes

from bulkbind.app.inbox import InboxFile, InboxResult
from bulkbind.app.notices.run_end import of_inbox
from bulkbind.errors import ExitCode
from bulkbind.model import Changes, RunFacts, RunState, RunSummary, UndoSummary, facts as module
from bulkbind.model.facts import MOST_PARTS, MOST_WORKERS, adds
from bulkbind.report import as_text
from bulkbind.report.metrics import Measured, write_metrics
from bulkbind.report.page import _time_spent
from tests.support.paths import ROOT

PACKAGE = ROOT / "bulkbind"
WAITS = [pytest.param(fact, wait, id=fact.name) for fact, wait, _ in RunFacts().waits()]


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        pytest.param({"requests": 3}, {"requests": 4}, {"requests": 7}, id="counts add"),
        pytest.param({"paced_s": 0.5}, {"paced_s": 2}, {"paced_s": 2.5}, id="seconds add"),
        pytest.param({}, {"sending_s": 2.0}, {"sending_s": 2.0}, id="missing at first"),
        pytest.param({"requests": 3}, {}, {"requests": 3}, id="missing later"),
        pytest.param({"requests": 3}, {"requests": None}, {"requests": 3}, id="nothing to add"),
        pytest.param({"requests": "x"}, {"requests": 3}, {"requests": 3}, id="no number"),
        pytest.param({"parts": [1]}, {"parts": [2]}, {"parts": [1, 2]}, id="lists join"),
        pytest.param(
            {"pace_per_s": 9.5, "pace_from": "learned from 429s"},
            {"pace_per_s": None, "pace_from": "no limit met"},
            {"pace_per_s": None, "pace_from": "no limit met"},
            id="the newest pace, with where it is from",
        ),
        pytest.param(
            {"limit": {"per_s": 5.0}}, {"requests": 1}, {"limit": {"per_s": 5.0}, "requests": 1},
            id="a limit is kept",
        ),
        pytest.param(
            {"changes": {"since": "a", "added": 1}}, {"changes": {"mended": 2}},
            {"changes": {"since": "a", "added": 1, "mended": 2}}, id="changes complete each other",
        ),
        pytest.param({"of_another": 1}, {"of_another": 2}, {"of_another": 2}, id="not declared"),
        pytest.param({"of_another": [1]}, {}, {"of_another": [1]}, id="not declared, and kept"),
    ],
)  # fmt: skip
def test_each_fact_merges_as_declared(earlier, later, merged):
    """The earlier facts are first, and the order stays theirs; neither side is changed."""
    one, other = RunFacts(earlier), RunFacts(later)

    assert list(one.merge(other).as_json().items()) == list(merged.items())
    assert (one.as_json(), other.as_json()) == (earlier, later)


def test_of_many_parts_the_last_are_kept():
    """A run that is stopped and resumed every hour does not grow without end."""
    many = [RunFacts({"parts": [n], "requests": 1}) for n in range(MOST_PARTS + 5)]

    total = RunFacts.total(many)

    assert total.as_json() == {"parts": list(range(5, MOST_PARTS + 5)), "requests": MOST_PARTS + 5}
    assert RunFacts.total([]) == RunFacts()


def test_of_many_workers_the_last_are_kept():
    """Each part of a run has workers of its own; the newest are kept, with as many as it may."""
    many = [RunFacts({"workers": [{"number": n, "part": part} for n in range(1, 65)]})
            for part in range(3)]  # fmt: skip

    kept = RunFacts.total(many).workers

    assert len(kept) == MOST_WORKERS
    assert kept[-64:] == many[-1].workers
    assert RunFacts().workers == ()


def test_all_that_is_counted_or_waited_for_adds():
    """Of a resumed run, nothing but the sum would be true."""
    spent = {name for name in RunFacts.declared if name.startswith("requests")}
    spent |= {"cut_offs", "own_settled", "sending_s", "cpu_s"} | {
        fact.name for fact, _, _ in RunFacts().waits()
    }

    assert len(spent) >= 7
    assert {name for name, fact in RunFacts.declared.items() if fact.merged is adds} == spent


def test_each_fact_says_what_it_is():
    """Unit and meaning stand below each attribute."""
    classes = [
        item
        for item in ast.parse(inspect.getsource(module)).body
        if isinstance(item, ast.ClassDef) and item.name in ("RunFacts", "Changes")
    ]
    for item in classes:
        told = {
            here.targets[0].id
            for here, below in zip(item.body, item.body[1:], strict=False)
            if isinstance(here, ast.Assign)
            and isinstance(here.targets[0], ast.Name)
            and isinstance(below, ast.Expr)
        }
        owner = getattr(module, item.name)
        assert set(owner.declared) == told - {"__slots__"}
        assert len(told) > 6


def test_a_name_that_is_not_declared_is_refused():
    """A typing error does not become a fact that nobody reads."""
    for facts in (RunFacts(), Changes()):
        with pytest.raises(AttributeError):
            facts.requets = 1  # type: ignore[union-attr]  # which mypy finds, too


def test_what_is_missing_reads_as_nothing():
    """A ledger of an older version has fewer facts, and null stands for none."""
    for facts in (RunFacts(), RunFacts(dict.fromkeys(RunFacts.declared))):
        read = {name: getattr(facts, name) for name in RunFacts.declared}
        assert not any(read.values())
        assert read["requests"] == 0
        assert read["changes"].newly_failed is None
    RunFacts().changes.added = 1
    assert not RunFacts().changes


@pytest.mark.parametrize(("fact", "wait"), WAITS)
def test_each_cause_of_waiting_is_told_everywhere(tmp_path, fact, wait):
    """A cause stands in the summary's lines, in the page's account, and in the metrics."""
    rest_s = 0.0 if fact is RunFacts.in_flight_s else 87.5
    facts = RunFacts({"requests": 1, "sending_s": rest_s + 12.5, fact.name: 12.5})
    summary = RunSummary("r", RunState.DONE, (), {}, (), facts)

    write_metrics(
        tmp_path / "m.prom",
        Measured(
            endpoint="e", manifest="m", exit_code=ExitCode.DONE, took_s=1.0, ended_at=1.0,
            counts={}, facts=facts,
        ),
    )  # fmt: skip

    assert f" 12.5 s {wait.said}" in as_text(summary)
    spent = {item["what"]: item["share"] for item in _time_spent(summary)}
    rest = {"sending": 87.5} if wait.uses else {"sending": 100.0}
    if fact is RunFacts.in_flight_s:
        rest = {"sending": 100.0}
    assert spent == (rest | {wait.said: rest.get(wait.said, 12.5)} if wait.uses else rest)
    text = (tmp_path / "m.prom").read_text()
    name = f"bulkbind_run_{fact.name[:-2]}_seconds"
    assert f"# HELP {name} {wait.metric}\n" in text
    assert re.search(rf"^{name}\{{.*\}} 12\.5$", text, re.MULTILINE)


def test_sql_reads_declared_facts():
    """Every name by which SQL reads the JSON of facts is an attribute."""
    text = "\n".join(
        path.read_text("utf-8") for kind in ("py", "sql") for path in PACKAGE.rglob(f"*.{kind}")
    )
    by_name = r"\bfacts\s*->>?\s*'(?:\$\.)?(\w+)|\bjson_\w+\(facts,\s*'\$\.(\w+)"
    names = {one or other for one, other in re.findall(by_name, text)}

    assert names >= {"pruned_at", "pruned_rows"}
    assert names <= set(RunFacts.declared)


def test_the_page_reads_declared_attributes():
    """A wrong name in the template is found, also in a branch that few runs take."""
    text = (PACKAGE / "report" / "page" / "report.html").read_text("utf-8")
    roots = {"facts": RunFacts, "summary": RunSummary}
    read = [
        (node.node.name, node.attr)
        for node in Environment(autoescape=True).parse(text).find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name) and node.node.name in roots
    ]
    nested = [
        node.attr
        for node in Environment(autoescape=True).parse(text).find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Getattr) and node.node.attr == "changes"
    ]

    assert len(read) > 20
    assert [item for item in read if not hasattr(roots[item[0]], item[1])] == []
    assert len(nested) > 3
    assert set(nested) <= set(Changes.declared)


def test_no_attribute_of_a_summary_hides_a_fact():
    """In summary.json and undo.json both stand side by side."""
    for kind in (RunSummary, UndoSummary):
        assert set(kind.__dataclass_fields__) & set(RunFacts.declared) == set()


def test_an_inbox_adds_up_its_runs(tmp_path):
    """What was sent and waited is summed over the files; the pace is the newest."""
    files = [
        InboxFile(name="a", exit_code=ExitCode.DONE, facts=RunFacts(facts))
        for facts in (
            {"requests": 3, "sending_s": 1.5, "paced_s": 1.0, "pace_per_s": 9.0},
            {},
            {"requests": 4, "sending_s": 2.0, "cooled_s": 2.0, "pace_per_s": 7.0},
        )
    ]
    result = InboxResult(
        inbox=tmp_path, archive=tmp_path, started_at="", ended_at="", files=tuple(files),
        waiting=0, exit_code=ExitCode.DONE,
    )  # fmt: skip

    assert of_inbox(result).facts.as_json() == {
        "requests": 7, "sending_s": 3.5, "paced_s": 1.0, "pace_per_s": 7.0, "cooled_s": 2.0,
    }  # fmt: skip

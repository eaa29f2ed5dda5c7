"""Reports of a run that unbinds: in its words, and of what is still bound."""

from __future__ import annotations

from dataclasses import replace

from bulkbind.model import RunKind
from bulkbind.report import as_text
from bulkbind.report.page import write_html
from tests.unit.report.test_report import CSV, FakeRun, result


def page_of(tmp_path, *statuses, kind=RunKind.UNBIND):
    """Return the page of a run whose rows ended so."""
    rows = [result(line=line, status=status) for line, status in enumerate(statuses, start=2)]
    run = FakeRun([CSV], rows)
    write_html(tmp_path / "report.html", run, replace(run.summary(), kind=kind))
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_lists_what_is_still_bound(tmp_path):
    """What is gone was meant to be; a run that binds lists it."""
    told = page_of(tmp_path, "unbound", "already_gone", "failed")

    assert "Rows that are not unbound (1)" in told
    assert "not bound (" not in told
    assert "Every row is unbound." in page_of(tmp_path, "unbound", "already_gone")
    assert "Rows that are not bound (1)" in page_of(tmp_path, "bound", "failed", kind=RunKind.BIND)


def test_failed_rows_are_to_be_unbound(tmp_path):
    """`run failed.csv` would bind what was to leave; texts and page say so."""
    summary = FakeRun([CSV], [result(status="failed")]).summary()
    reason = {
        "status": "failed",
        "code": "13000902",
        "message": "locked",
        "count": 1,
        "example": "fleet.csv:2",
        "detail": "",
    }
    of_bind = replace(summary, reasons=(reason,))
    of_unbind = replace(of_bind, kind=RunKind.UNBIND)
    run = FakeRun([CSV], [result(status="failed")])
    write_html(tmp_path / "report.html", run, of_unbind)

    assert "run its failed file once more" in as_text(of_bind)
    for told in (as_text(of_unbind), (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert "run its failed file" not in told
        assert "its failed file as it is" in told

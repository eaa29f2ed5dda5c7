"""The facts of a run in the ledger: old ones read without loss, sessions merged into one."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bulkbind.errors import UsageError
from bulkbind.ledger import RunReader, UndoReader, find_run, reading, runs, unbinding
from bulkbind.ledger.opening import connect
from bulkbind.ledger.store import get_facts, get_meta, put_facts, transaction
from bulkbind.model import RunFacts
from bulkbind.report import as_json
from bulkbind.report.undo_report import undo_json
from tests.support.make_ledger import FOLDER, summary_text

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
LEDGERS = sorted(FOLDER.glob("version-*.db"))
STORED = {
    "of_another_version": {"n": [1, None]},
    "pace_from": "learned from 429s",
    "requests": 3,
    "parts": [],
    "retrying_s": 0.5,
}
"""In no order of ours."""


@pytest.fixture
def old(tmp_path):
    """Return a ledger of the oldest version, whose finished run is number 1."""
    path = tmp_path / "ledger.db"
    shutil.copyfile(LEDGERS[0], path)
    with reading(path):
        pass  # brings it up to date
    with closing(connect(path, "")) as db:
        yield db


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_an_old_ledger_gives_the_summary_that_it_gave(tmp_path, ledger):
    """Each key of summary.json, in its place, as it was written when the facts had no type.

    Only the kind of the run is told besides, where it was not known.
    """
    path = Path(shutil.copyfile(ledger, tmp_path / "ledger.db"))
    kind = '  "kind": "bind",\n'
    told = summary_text(path)

    wanted = ledger.with_suffix(".summary.json").read_text("utf-8")
    assert kind in told
    assert told.replace(kind, "", 1) == wanted.replace(kind, "", 1)


def test_facts_of_another_version_are_kept(old):
    """Stored, merged with a later session, and shown: each name in its place, none lost."""
    later = RunFacts({"retrying_s": 1.0, "requests": 4, "clock_skew_s": -0.5})
    with transaction(old):
        put_facts(old, "runs", 1, RunFacts(STORED))
        runs.finish(old, NOW, 1, None, later)

    merged = STORED | {"requests": 7, "retrying_s": 1.5, "clock_skew_s": -0.5}
    assert list(get_facts(old, "runs", 1).as_json().items()) == list(merged.items())
    assert get_meta(old, "clock_skew_s") == -0.5
    shown = as_json(RunReader(old, 1).summary())
    names = [name for name in merged if name != "parts"]
    assert [name for name in shown if name in merged] == names
    assert {name: shown[name] for name in names} == {name: merged[name] for name in names}


def test_an_undo_that_is_resumed_adds_up(old):
    """undo.json tells of the whole undo, not only of what its last session sent."""
    first = {"requests": 10, "requests_lists": 2, "sending_s": 5.0, "pace_from": "no limit met"}
    later = {"requests": 4, "requests_lists": 1, "sending_s": 2.0, "pace_from": "set by --rate"}
    who = {"started_at": "now", "operator": "me", "host": "here", "pid": 1, "version": "0"}
    with transaction(old):
        unbinding.begin_undo(old, NOW, 1, who)
        for facts in (first, later):
            unbinding.start_undo(old, 1, who)
            unbinding.finish_undo(old, NOW, 1, "enough", RunFacts(facts))

    summary = UndoReader(old, 1).summary()
    assert summary is not None
    told = undo_json(summary)
    assert {name: told[name] for name in first} == {
        "requests": 14, "requests_lists": 3, "sending_s": 7.0, "pace_from": "set by --rate",
    }  # fmt: skip
    assert list(told)[-7:] == [
        "created_at", "ended_at", "stop_reason", "operator", "host", "pid", "version",
    ]  # fmt: skip


def test_a_name_in_the_facts_does_not_take_a_columns_place(old):
    """What the ledger's table says of a run is what its summary says."""
    with transaction(old):
        put_facts(old, "runs", 1, RunFacts({"operator": "nobody", "requests": 1}))
        old.execute("UPDATE runs SET operator = 'somebody' WHERE run = 1")

    assert as_json(RunReader(old, 1).summary())["operator"] == "somebody"


def test_a_pruned_run_keeps_its_short_summary(old):
    """Its manifests and counts are read from the facts, and it is named as pruned."""
    facts = RunFacts()
    facts.pruned_at = "2026-11-30T00:00:00.000Z"
    facts.pruned_counts = {"bound": 7}
    facts.pruned_manifests = ["a.csv"]
    with transaction(old):
        put_facts(old, "runs", 1, facts)

    summary = RunReader(old, 1).summary()

    assert (summary.manifests, summary.counts) == (("a.csv",), {"bound": 7})
    with pytest.raises(UsageError, match="were pruned on 2026-11-30"):
        find_run(old, summary.run_id)

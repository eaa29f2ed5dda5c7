"""Ledgers of every version that there ever was: opened, gone on with, reported, pruned."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bulkbind.ledger.versions import VERSION
from tests.support.in_process import called
from tests.support.make_ledger import FINISHED, FOLDER, ROWS
from tests.support.processes import ask, read_results, sandbox, sandbox_bindings, statuses

LEDGERS = sorted(FOLDER.glob("version-*.db"))


def test_every_version_before_this_one_is_kept():
    """`python -m tests.support.make_ledger` makes one; without it, its upgrade cannot be tested."""
    kept = {int(re.sub(r"\D", "", path.stem)) for path in LEDGERS}

    assert kept >= set(range(1, VERSION))
    assert 1 in kept
    for path in LEDGERS:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            assert f"version-{db.execute('PRAGMA user_version').fetchone()[0]}" == path.stem
            found = {status for (status,) in db.execute("SELECT DISTINCT status FROM rows")}
        assert found >= {"bound", "failed", "duplicate", "invalid", "staged", "claimed"}


@pytest.fixture(params=LEDGERS, ids=lambda path: path.stem)
def old(request, tmp_path):
    """Serve what was bound then, with the ledger of then; yield options, ledger and URL."""
    ledger = Path(shutil.copyfile(request.param, tmp_path / "old.db"))
    state = shutil.copyfile(request.param.with_suffix(".jsonl"), tmp_path / "state.jsonl")
    with sandbox("--state", str(state), home=tmp_path) as url:
        with closing(sqlite3.connect(ledger)) as db:
            db.execute("UPDATE meta SET value = ? WHERE key = 'endpoint'", (json.dumps(url),))
            db.commit()
        (tmp_path / "quick.yaml").write_text("readback_settle: 200ms\n")
        yield ("--endpoint", url, "--ledger", ledger, "--config", "quick.yaml"), ledger, url


@pytest.mark.slow
def test_an_upgrade_in_the_middle_of_a_run_works(tmp_path, old):
    """`resume` goes on: what was in flight is settled, each device is bound once, nothing twice."""
    common, ledger, url = old

    called("resume", *common, "--out", "out", home=tmp_path, check=1)

    assert sum(statuses(tmp_path / "out").values()) == ROWS
    assert set(statuses(tmp_path / "out")) <= {"bound", "already_bound", "skipped", "moved"}
    assert statuses(tmp_path / "out")["moved"] == 1
    assert ask(f"{url}/sandbox/stats").get("posted_again", 0) == 0
    held = [(item["userId"], item["machineCode"]) for item in sandbox_bindings(url)]
    assert len(held) == len(set(held))
    rows = [row for row in read_results(tmp_path / "out") if row["status"] != "moved"]
    assert set(held) >= {(row["user_id"], row["machine_code"]) for row in rows}
    with closing(sqlite3.connect(ledger)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = called("resume", *common, home=tmp_path, check=2)
    assert "no unfinished run in the ledger" in again.stderr


@pytest.mark.slow
def test_what_was_finished_then_can_be_reported_and_pruned(tmp_path, old):
    """Its report has every row; pruned, its devices are still known as bound."""
    common, _, _ = old
    listed = json.loads(called("resume", *common, "--json", home=tmp_path, check=1).stdout)
    runs = json.loads(called("runs", *common, "--json", home=tmp_path, check=0).stdout)
    first = runs[-1]["run_id"]

    called("report", first, *common, "--out", "then", home=tmp_path, check=0)
    called("prune", "--older-than", "0s", *common, home=tmp_path, check=0)
    manifest = tmp_path / "again.csv"
    bound = [row for row in read_results(tmp_path / "then") if row["status"] == "bound"]
    lines = [f"{row['machine_code']},{row['user_id']}\n" for row in bound]
    manifest.write_text("machine_code,user_id\n" + "".join(lines))
    called("run", manifest, *common, "--out", "now", home=tmp_path, check=0)

    assert listed["state"] == "done"
    assert len(read_results(tmp_path / "then")) == len(FINISHED)
    assert statuses(tmp_path / "now") == {"skipped": len(bound)}
    assert len(bound) >= 4

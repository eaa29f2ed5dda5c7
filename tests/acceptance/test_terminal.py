"""What a person sees: the plan, the question, a display that nothing tears, a typed number."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.test_rough import Terminal
from tests.kit import BULKBIND, bulkbind, environment, fleet, sandbox, sandbox_bindings, write_csv

WALK = Path(__file__).parents[2] / "samples/walk.sh"


@pytest.mark.slow
def test_the_walk_walks(tmp_path):
    """`samples/walk.sh` goes through the whole loop; each of its steps ends as it should."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/bulkbind"
    command.write_text(f'#!/bin/sh\nexec {" ".join(BULKBIND)} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    around = environment(tmp_path)
    done = subprocess.run(
        ["/bin/bash", str(WALK), str(tmp_path / "walk")],
        env=around | {"PATH": f"{command.parent}:{around['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "== done" in done.stdout
    assert {path.name for path in (tmp_path / "walk/first").iterdir()} >= {
        "results.csv",
        "failed.csv",
        "summary.json",
        "report.html",
        "report-filtered.md",
        "results-filtered.jsonl",
        "undo.csv",
        "undo.json",
    }


@pytest.mark.slow
def test_the_display_is_torn_by_nothing(tmp_path):
    """The plan stands before the question; notices stand whole above the display, which goes."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--limit", "40/s", home=tmp_path) as url:
        terminal = Terminal(tmp_path, "run", manifest, "--endpoint", url)
        terminal.until("Bind them? [y/N]")
        asked = terminal.screen
        terminal.type(b"y\n")
        terminal.until("of 39.8/s (told by the gateway)")
        terminal.type(b"\x03")
        ended = terminal.ended(b"\x03")

    assert ended == 130, terminal.screen
    assert "300  to bind" in asked
    assert "forecast: 300 calls" in asked
    notice = "SIGINT: nothing new is sent; what is in flight may end (again: at once)"
    assert notice in terminal.screen
    shown = terminal.screen.split(notice)[0].rpartition("\x1b[2K")[2]
    assert shown == ""  # the display was taken off the line on which the notice stands
    after = terminal.screen.rpartition("\x1b[2K")[2]
    assert after.startswith("run 2")
    assert "go on with: bulkbind resume" in after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "code", "left"), [(b"5\n", 0, 0), (b"4\n", 2, 5), (b"yes\n", 2, 5), (b"\x03", 130, 5)]
)
def test_undo_has_its_number_typed(tmp_path, typed, code, left):
    """On a terminal the number of devices has to be typed; anything else unbinds nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(5))
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url)
        bulkbind("run", manifest, *common, "--out", "report", home=tmp_path, check=0)
        run_id = json.loads((tmp_path / "report/summary.json").read_text())["run_id"]
        terminal = Terminal(tmp_path, "undo", run_id, *common)
        terminal.until("Type 5 to unbind them")
        terminal.type(typed)
        ended = terminal.ended(typed if typed == b"\x03" else b"")
        remaining = len(sandbox_bindings(url))

    assert (ended, remaining) == (code, left), terminal.screen


@pytest.mark.slow
def test_quiet_says_nothing_where_all_is_well(tmp_path):
    """Under cron, `--quiet` writes nothing at all, unless a row needs a person."""
    good = write_csv(tmp_path / "good.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        done = bulkbind("run", good, "--endpoint", url, "--quiet", home=tmp_path, check=0)
        bad = write_csv(tmp_path / "bad.csv", [*fleet(3), ("SN-1", "u", "", "")])
        common = ("--endpoint", url, "--on-invalid", "skip", "--quiet")
        failed = bulkbind("run", bad, *common, home=tmp_path, check=1)

    assert (done.stdout, done.stderr) == ("", "")
    assert "(1 invalid)" in failed.stderr

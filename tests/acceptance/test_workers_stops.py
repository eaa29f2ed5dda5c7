"""A run with workers that is stopped, or loses its ground: it ends as one process would."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.acceptance.test_disk import fill, small  # noqa: F401  # a fixture
from tests.acceptance.test_workers import (
    SLOW,
    check_all_bound_once,
    running,
    summary,
    wait_until_gone,
)
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import ask, bulkbind, read_results, sandbox, sandbox_bindings, statuses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROWS = 1500
LONG_S = 300.0
"""The longest time that the rest of a run takes on a busy machine."""
UNTIL_READY = ("--rate", "8")
"""Few rows end before the workers can send, also where that takes a minute."""
GO_ON = ("resume", "--yes", "--config", "settings.yaml", "--out", "report")


def gone(pids):
    """Return once all workers are gone."""
    for pid in pids:
        wait_until_gone(pid, 3)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(None, 3, id="deadline"),
    ],
)
def test_a_stop_drains_the_workers(tmp_path, number, code):
    """What is in flight ends, nothing is in doubt, workers are gone; `resume` does the rest."""
    with sandbox(*SLOW, "--limit", "150/s", home=tmp_path) as url:
        with running(tmp_path, url, *UNTIL_READY, rows=ROWS) as run:
            pids = run.workers()
            run.heard("run.progress")
            if number is not None:
                run.process.send_signal(number)
            else:
                called("adjust", "--config", "settings.yaml", "--deadline", "1s", home=tmp_path)

            assert run.ended() == code
            gone(pids)
        found = statuses(tmp_path / "report")
        sent = ask(f"{url}/sandbox/stats")["binds"]
        bulkbind(*GO_ON, "--workers", "2", home=tmp_path, check=0, timeout=LONG_S)
        check_all_bound_once(tmp_path, url, ROWS)

    assert found.keys() == {"bound", "pending"}
    assert found["bound"] == sent
    assert sum(found.values()) == ROWS


def test_a_wrong_token_ends_as_without_workers(tmp_path):
    """The first request shows it: no worker is told anything, code and report are the same."""
    ends = []
    with sandbox("--accept-token", "another", home=tmp_path) as url:
        for workers in ("1", "2"):
            write_csv(tmp_path / "fleet.csv", fleet(50))
            command = ("run", "fleet.csv", "--endpoint", url, "--out", "report", "--rebind")
            done = bulkbind(*command, "--workers", workers, home=tmp_path)
            ends.append((done.returncode, statuses(tmp_path / "report")))
            assert "401" in done.stderr
        assert ask(f"{url}/sandbox/stats")["requests"] <= 4

    assert ends[0] == ends[1]


@pytest.mark.parametrize("how", ["full", "gone"])
def test_trouble_with_the_ledger_ends_the_workers(tmp_path, small, how):  # noqa: F811  # the fixture
    """Exit 4; nobody sends without a ledger, and the next run finds everything, once."""
    disk = small("40m")
    with sandbox(*SLOW, "--second-bind", "error", home=tmp_path) as url:
        with running(
            tmp_path,
            url,
            *UNTIL_READY,
            rows=ROWS,
            settings=f"ledger: {disk / 'l.db'}\n",
        ) as run:
            pids = run.workers()
            run.heard("run.progress")
            filler = None
            if how == "full":
                filler = fill(disk)
            else:
                for path in [*disk.iterdir()]:
                    path.unlink()

            assert run.ended() == 4
            gone(pids)
        sent = ask(f"{url}/sandbox/stats")["binds"]
        if filler is not None:
            filler.unlink()
        again = (
            "run",
            "fleet.csv",
            "--config",
            "settings.yaml",
            "--out",
            "report",
            "--workers",
            "2",
        )
        bulkbind(*again, "--yes", home=tmp_path, check=0)
        stats = ask(f"{url}/sandbox/stats")

    told = statuses(tmp_path / "report")
    assert sum(told.values()) == ROWS
    assert told.keys() <= {"bound", "already_bound", "skipped"}
    assert sent < ROWS
    assert stats.get("posted_again", 0) == 0


def test_moves_and_undo_are_the_drivers(tmp_path):
    """Devices that others have are unbound and bound again; what the run bound can be undone."""
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url, "--out", "report", "--workers", "2", "--yes")
        write_csv(tmp_path / "a.csv", [(f"SN{n}", "user_a", "", "") for n in range(300)])
        write_csv(tmp_path / "b.csv", [(f"SN{n}", "user_b", "", "") for n in range(300)])
        bulkbind("run", "a.csv", *common, home=tmp_path, check=0)
        bulkbind("run", "b.csv", "--move", *common, home=tmp_path, check=0)
        moved = {row["status"] for row in read_results(tmp_path / "report")}
        held = {line["userId"] for line in sandbox_bindings(url)}
        run_id = summary(tmp_path)["run_id"]
        undo = ("undo", run_id, "--yes-unbind", "300", "--endpoint", url)
        bulkbind(*undo, home=tmp_path, check=0)

        assert moved == {"bound"}
        assert held == {"user_b"}
        assert sandbox_bindings(url) == []


def test_a_driver_killed_again_and_again_loses_nothing(tmp_path):
    """Whatever of its parts was killed, in any order, the run ends with every row bound once."""
    with sandbox(*SLOW, "--second-bind", "error", home=tmp_path) as url:
        for number in range(3):
            with running(tmp_path, url, *UNTIL_READY, rows=ROWS) as run:
                pids = run.workers()
                run.heard("run.progress")
                os.kill(pids[number % 2], signal.SIGKILL)
                run.process.kill()
                run.process.wait()
                gone(pids)
        bulkbind(*GO_ON, "--workers", "3", home=tmp_path, check=0, timeout=LONG_S)
        check_all_bound_once(tmp_path, url, ROWS)


def test_status_tells_of_workers(tmp_path):
    """Alive, what they have, and how many rows ended through each; the summary keeps it."""
    with (
        sandbox(*SLOW, "--limit", "60/s", home=tmp_path) as url,
        running(tmp_path, url, *UNTIL_READY, rows=ROWS) as run,
    ):
        pids = run.workers()
        run.heard("run.progress")
        os.kill(pids[0], signal.SIGKILL)
        run.heard("worker.lost")
        time.sleep(1.5)  # noqa: TID251  # it says so each second
        status = called("status", "--config", "settings.yaml", home=tmp_path)
        told = called("status", "--config", "settings.yaml", "--json", home=tmp_path)
        run.process.send_signal(signal.SIGTERM)
        run.ended()
    states = {state["pid"]: state for state in json.loads(told.stdout)["workers"]}

    assert states.keys() == set(pids)
    assert states[pids[0]]["lost"] == "it was ended by SIGKILL"
    assert states[pids[1]]["is_alive"]
    assert states[pids[1]]["settled"] > 0
    assert "workers: 1 of 2 sending at " in status.stdout
    assert "lost: it was ended by SIGKILL" in status.stdout
    assert {state["pid"] for state in summary(tmp_path)["workers"]} == set(pids)

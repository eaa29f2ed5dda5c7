"""A run with workers that is stopped, or loses its ground: it ends as one process would."""

from __future__ import annotations

import os
import signal
import time

import pytest

from bulkbind.koodrive.client import KooDrive
from tests.acceptance.test_disk import binds, fill, small  # noqa: F401  # a fixture
from tests.acceptance.test_workers import (
    SLOW,
    check_all_bound_once,
    gone,
    running,
    sent_more,
    summary,
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


def test_stopped_and_killed_again_and_again_a_run_loses_nothing(tmp_path):
    """A stop drains the workers, with a driver that is killed they end; the next run goes on.

    After a stop nothing is in doubt; what was claimed when the driver was killed is, with or
    without a worker, until the next one has settled it.
    """
    limited = ("--limit", "150/s", "--second-bind", "error")
    with sandbox(*SLOW, *limited, home=tmp_path) as url:
        for how in (signal.SIGINT, signal.SIGTERM, "deadline", signal.SIGKILL, "all killed"):
            with running(tmp_path, url, *UNTIL_READY, rows=ROWS) as run:
                pids = run.workers()
                sent_more(url)
                if how == "deadline":
                    called("adjust", "--config", "settings.yaml", "--deadline", "1s", home=tmp_path)
                elif how == "all killed":
                    os.kill(pids[0], signal.SIGKILL)
                    run.process.kill()
                else:
                    run.process.send_signal(how)
                code = run.ended()
                gone(pids)

            if code >= 0:
                assert code == (128 + how if isinstance(how, signal.Signals) else 3)
                found = statuses(tmp_path / "report")
                assert found.keys() == {"bound", "pending"}
                assert found["bound"] == binds(url)
                assert sum(found.values()) == ROWS
        goes_on = ("resume", "--yes", "--config", "settings.yaml", "--out", "report")
        bulkbind(*goes_on, "--workers", "3", home=tmp_path, check=0, timeout=LONG_S)
        check_all_bound_once(tmp_path, url, ROWS)
    assert not any(state["is_alive"] for state in summary(tmp_path)["workers"])


def test_a_wrong_token_ends_as_without_workers(tmp_path):
    """The first request shows it: no worker is told anything, code and report are the same."""
    ends = []
    with sandbox("--accept-token", "another", home=tmp_path) as url:
        for workers in ("1", "2"):
            write_csv(tmp_path / "fleet.csv", fleet(50))
            command = ("run", "fleet.csv", "--endpoint", url, "--out", "report", "--rebind")
            done = called(*command, "--workers", workers, "--yes", home=tmp_path)
            ends.append((done.returncode, statuses(tmp_path / "report")))
            assert "401" in done.stderr
        assert ask(f"{url}/sandbox/stats")["requests"] <= 4

    assert ends[0] == ends[1]


def test_trouble_with_the_ledger_ends_the_workers(tmp_path, small):  # noqa: F811  # the fixture
    """Exit 4; nobody sends without a ledger, and the next run finds everything, once."""
    disk = small("40m")
    with sandbox(*SLOW, "--second-bind", "error", home=tmp_path) as url:
        own = f"ledger: {disk / 'l.db'}\n"
        for is_full in (False, True):
            with running(tmp_path, url, *UNTIL_READY, rows=ROWS, settings=own) as run:
                pids = run.workers()
                sent_more(url)
                if is_full:
                    fill(disk)
                else:
                    for path in [*disk.iterdir()]:
                        path.unlink()

                assert run.ended() == 4
                gone(pids)
        sent = binds(url)
        (disk / "filler").unlink()
        again = ("run", "fleet.csv", "--config", "settings.yaml", "--out", "report")
        done = called(*again, "--workers", "2", "--yes", home=tmp_path)
        assert done.returncode == 0, done.stderr
        stats = ask(f"{url}/sandbox/stats")

    told = statuses(tmp_path / "report")
    assert sum(told.values()) == ROWS
    assert told.keys() <= {"bound", "already_bound", "skipped"}
    assert sent < ROWS
    assert stats.get("posted_again", 0) == 0


def test_moves_and_undo_are_the_drivers(tmp_path):
    """Devices that others have are unbound and bound again; what the run bound can be undone."""

    def done(*arguments):
        ended = called(*arguments, "--endpoint", url, home=tmp_path)
        assert ended.returncode == 0, ended.stderr

    with sandbox(home=tmp_path) as url:
        common = ("--out", "report", "--workers", "2", "--yes")
        write_csv(tmp_path / "a.csv", [(f"SN{n}", "user_a", "", "") for n in range(300)])
        write_csv(tmp_path / "b.csv", [(f"SN{n}", "user_b", "", "") for n in range(300)])
        done("run", "a.csv", *common)
        done("run", "b.csv", "--move", *common)
        moved = {row["status"] for row in read_results(tmp_path / "report")}
        held = {line["userId"] for line in sandbox_bindings(url)}
        done("undo", summary(tmp_path)["run_id"], "--yes-unbind", "300")

        assert moved == {"bound"}
        assert held == {"user_b"}
        assert sandbox_bindings(url) == []


def test_the_grace_ends_what_hangs_in_workers(tmp_path):
    """Nobody waits for those answers: the rows are in doubt, and all processes end."""
    hangs = ("--fault", "silence-after=0.5", "--seed", "7")
    given = {"BULKBIND_TIMEOUT": "100s", "BULKBIND_GRACE": "500ms"}
    with sandbox(*hangs, home=tmp_path) as url:
        with running(tmp_path, url, rows=ROWS, given=given) as run:
            pids = [each["pid"] for each in run.heard("worker.started", 2)]
            sent_more(url, 30)
            run.process.send_signal(signal.SIGTERM)
            began = time.monotonic()

            assert run.ended() == 143
            assert time.monotonic() - began < 50
            gone(pids)
        sent = binds(url)

    found = statuses(tmp_path / "report")
    assert found["bound"] < sent <= found["bound"] + found["in_doubt"]
    assert sum(found.values()) == ROWS
    assert not any(state["lost"] for state in summary(tmp_path)["workers"])


def test_an_error_of_our_own_while_a_worker_is_heard_ends_the_run(tmp_path, monkeypatch):
    """It does not go on without those rows, and is not done: the next one settles them."""
    command = ("run", "fleet.csv", "--workers", "2", "--yes", "--out", "report")
    write_csv(tmp_path / "fleet.csv", fleet(400))
    with sandbox(*SLOW, home=tmp_path) as url:
        with monkeypatch.context() as patch:
            patch.setattr(KooDrive, "learn_passed", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                called(*command, "--endpoint", url, "--rate", "100", home=tmp_path)
        sent = binds(url)
        done = called(*command, "--endpoint", url, home=tmp_path, BULKBIND_READBACK_SETTLE="500ms")
        stats = ask(f"{url}/sandbox/stats")

    assert done.returncode == 0, done.stderr
    assert 0 < sent < 400
    assert statuses(tmp_path / "report").keys() <= {"bound", "already_bound"}
    assert stats.get("posted_again", 0) == 0

"""What stops a run, and what the same manifest does when it comes again changed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    count_rows,
    environment,
    ledger_of,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for tests with ledgers of their own."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def summary_of(folder):
    """Return a report's summary."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def until(condition, seconds=20.0):
    """Poll until something holds; fail where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)  # noqa: TID251  # polling other processes


# --- stops ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_too_many_failures_stop_a_run_that_can_go_on(tmp_path):
    """--max-failures: exit 3, the number is told, the rest stays pending, and resume goes on."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(600))
    with sandbox("--fault", "business=0.3,until=5m", "--seed", "4", home=tmp_path) as served:
        common = ("--endpoint", served, "--out", "out")
        stopped = bulkbind(
            "run", manifest, *common, "--max-failures", "10%", "--rate", "200",
            home=tmp_path, check=3,
        )  # fmt: skip
        first = statuses(tmp_path / "out")
        bulkbind("resume", *common, home=tmp_path, check=1)

    assert re.search(r"that have ended, \d+ failed, (as many as|more than) --max-f", stopped.stderr)
    told = stopped.stderr.splitlines()[-1]
    assert told.startswith("resume with: bulkbind resume ")
    assert "--max-failures 10%" in told
    assert first["pending"] > 300
    assert first["failed"] >= 10
    assert sum(statuses(tmp_path / "out").values()) == 600
    assert "pending" not in statuses(tmp_path / "out")


@pytest.mark.slow
def test_the_grace_bounds_what_is_in_flight(tmp_path):
    """After SIGTERM, requests that hang are left after --grace; their rows are in doubt."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(200))
    # With this seed the first request is answered: the others are not waited for before that.
    with sandbox("--fault", "silence-before=0.5", "--seed", "2", home=tmp_path) as served:
        common = ("--endpoint", served, "--out", "out", "--rate", "50")
        command = ("run", manifest, *common, "--grace", "500ms")
        with process(*command, home=tmp_path) as started:
            until(lambda: ask(f"{served}/sandbox/stats").get("silence-before", 0) >= 3)
            began = time.monotonic()
            started.send_signal(signal.SIGTERM)
            code = started.wait(10)
            took_s = time.monotonic() - began

    assert code == 143
    assert took_s < 4
    assert statuses(tmp_path / "out")["in_doubt"] >= 3


@pytest.mark.slow
def test_what_is_in_doubt_is_read_back_within_the_grace(tmp_path):
    """After one Ctrl-C the lists are asked at once: connections were reset, and all was bound."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    with sandbox("--fault", "reset-after=0.3", "--seed", "3", home=tmp_path) as served:
        common = ("--endpoint", served, "--out", "out", "--rate", "40")
        with process("run", manifest, *common, home=tmp_path) as started:
            until(lambda: ask(f"{served}/sandbox/stats").get("reset-after", 0) >= 5)
            started.send_signal(signal.SIGINT)
            code = started.wait(25)
        bound = len(sandbox_bindings(served))

    found = statuses(tmp_path / "out")
    assert code == 130
    assert found == {"bound": bound, "pending": 300 - bound}
    assert bound > 5


@pytest.mark.slow
def test_sighup_drains_like_sigterm(tmp_path, url):
    """A closed terminal ends a run with 143 and a report, and it can go on."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(400))
    ledger = tmp_path / "hup.db"
    common = ("--endpoint", url, "--ledger", ledger, "--out", "out")
    with process("run", manifest, *common, "--rate", "100", home=tmp_path) as started:
        until(lambda: count_rows(ledger, "bound") + count_rows(ledger, "already_bound") > 10)
        started.send_signal(signal.SIGHUP)
        code = started.wait(10)

    assert code == 143
    assert statuses(tmp_path / "out")["pending"] > 100
    bulkbind("resume", *common, home=tmp_path, check=0)


@pytest.mark.slow
def test_a_second_run_waits_for_the_first(tmp_path, url):
    """--wait: it says whom it waits for, and begins when the first has ended."""
    first = write_csv(tmp_path / "first.csv", fleet(100))
    second = write_csv(tmp_path / "second.csv", fleet(5))
    common = ("--endpoint", url, "--ledger", tmp_path / "wait.db")
    with process("run", first, *common, "--rate", "15", home=tmp_path) as started:
        until(lambda: count_rows(tmp_path / "wait.db", "claimed") > 0)
        started.send_signal(signal.SIGSTOP)  # it holds its ledger for as long as is needed
        refused = bulkbind("run", second, *common, home=tmp_path, check=75)
        short = bulkbind("run", second, *common, "--wait", "1s", home=tmp_path, check=75)
        started.send_signal(signal.SIGCONT)
        waited = bulkbind(
            "run", second, *common, "--wait", "30s", "--out", "out", home=tmp_path, check=0
        )
        assert started.wait(10) == 0

    assert f"pid {started.pid} on " in refused.stderr
    assert "--wait" in refused.stderr
    assert "waiting for it" in short.stderr
    assert waited.stderr.count("waiting for it") == 1
    assert statuses(tmp_path / "out") == {"skipped": 5}


@pytest.mark.slow
def test_waiting_can_be_interrupted(tmp_path, url):
    """Ctrl-C ends a run that waits for the ledger with 130, and nothing was sent."""
    first = write_csv(tmp_path / "first.csv", fleet(400))
    common = ("--endpoint", url, "--ledger", tmp_path / "int.db")
    with process("run", first, *common, "--rate", "20", home=tmp_path):
        until(lambda: count_rows(tmp_path / "int.db", "claimed") > 0)
        with process("run", first, *common, "--wait", "60s", home=tmp_path) as waiting:
            assert waiting.stderr is not None
            until(lambda: "waiting for it" in waiting.stderr.readline())
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(5) == 130


@pytest.mark.slow
def test_an_endpoint_that_goes_away_pauses_the_run(tmp_path):
    """While nobody listens no attempt is spent; the run goes on by itself when it is back."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    state = str(tmp_path / "state.jsonl")
    with sandbox("--state", state, home=tmp_path) as served:
        port = served.rpartition(":")[2]
        command = ("run", manifest, "--endpoint", served, "--out", "out", "--rate", "100")
        started = process(*command, home=tmp_path)
        running = started.__enter__()
        until(lambda: ask(f"{served}/sandbox/stats").get("binds", 0) >= 50)
    time.sleep(1.0)  # noqa: TID251  # the endpoint is away
    assert running.poll() is None
    with sandbox("--state", state, "--port", port, home=tmp_path) as again:
        assert again == served
        code = running.wait(60)
        stats = ask(f"{again}/sandbox/stats")
    started.__exit__(None, None, None)

    assert code == 0
    assert statuses(tmp_path / "out") == {"bound": 300}
    assert stats.get("posted_again", 0) == 0
    assert {row["attempts"] for row in read_results(tmp_path / "out")} <= {"1", "2"}


@pytest.mark.slow
def test_a_run_killed_while_staging_leaves_nothing_to_send(tmp_path):
    """What was read before it was confirmed is thrown away: a later run sends only its own."""
    large = write_csv(tmp_path / "large.csv", fleet(300_000))
    small = write_csv(tmp_path / "small.csv", [("OTHER", "u", "", "")])
    with sandbox(home=tmp_path) as served:
        with process("run", large, "--endpoint", served, home=tmp_path) as started:
            until(lambda: count_rows(ledger_of(tmp_path, served), "staged") > 10_000)
            started.kill()
            started.wait(10)
        bulkbind("run", small, "--endpoint", served, "--out", "out", home=tmp_path, check=0)
        stats = ask(f"{served}/sandbox/stats")

    assert stats["binds"] == 1
    assert count_rows(ledger_of(tmp_path, served), "staged") == 0
    assert statuses(tmp_path / "out") == {"bound": 1}


# --- before anything is sent ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_pipe_of_the_shell_is_a_manifest_and_can_be_ended(tmp_path, url):
    """`<(…)` is read to its end; one that nobody writes to ends with the deadline or a signal."""
    write_csv(tmp_path / "fleet.csv", [("PIPE1", "u", "", "")])
    os.mkfifo(tmp_path / "fifo")
    common = ("--endpoint", url, "--ledger", tmp_path / "pipe.db", "--out", "out")
    command = shlex.join([*BULKBIND, "run", *map(str, common)])
    done = subprocess.run(
        ["bash", "-c", f"{command} <(cat fleet.csv)"],  # noqa: S607  # the system's own
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    late = bulkbind("run", "fifo", *common, "--deadline", "100ms", home=tmp_path, check=3)
    with process("run", "fifo", *common, "--log-level", "debug", home=tmp_path) as waiting:
        until(lambda: "bulkbind-stdin" in opened_by(waiting.pid))
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(10) == 143

    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "out") == {"bound": 1}
    assert "the deadline of 100ms has come; nothing was sent" in late.stderr


@pytest.mark.slow
def test_doctor_ends_with_a_signal_while_it_waits_for_a_secret(tmp_path, url):
    """A token file that is a FIFO: what was found until then has been printed."""
    os.mkfifo(tmp_path / "token", 0o600)
    (tmp_path / "bulkbind.yaml").write_text("auth:\n  token_file: token\n")
    command = ("doctor", "--endpoint", url, "--config", "bulkbind.yaml")
    with process(*command, home=tmp_path, BULKBIND_TOKEN="") as waiting:
        assert waiting.stdout is not None
        until(lambda: "free for the report" in waiting.stdout.readline())
        waiting.send_signal(signal.SIGTERM)
        code = waiting.wait(10)

    assert code == 143


def opened_by(pid: int) -> str:
    """Return the names of a process's open files."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return "\n".join(found)


# --- edits and repeats ---------------------------------------------------------------------------


@pytest.mark.slow
def test_an_edited_manifest_does_the_right_thing_and_says_what(tmp_path):
    """Added rows are sent, removed ones stay bound, renamed and moved lines are known."""
    rows = fleet(20)
    manifest = write_csv(tmp_path / "fleet.csv", rows)
    with sandbox(home=tmp_path) as served:
        command = ("run", manifest, "--endpoint", served, "--out", "out")
        bulkbind(*command, home=tmp_path, check=0)
        code, user, _, system = rows[3]
        edited = [*reversed(rows[5:]), (code, user, "Another name", system), *fleet(23)[20:]]
        write_csv(manifest, edited)
        again = bulkbind(*command, home=tmp_path, check=0)
        stats = ask(f"{served}/sandbox/stats")
        third = bulkbind(*command, home=tmp_path, check=0)

    assert stats["binds"] == 23
    results = {row["machine_code"]: row for row in read_results(tmp_path / "out")}
    assert "under another name or OS: --rebind" in results[code]["detail"]
    assert "3 devices added, 4 devices no longer named, 1 device bound under" in (again.stderr)
    changes = summary_of(tmp_path / "out")["changes"]
    assert {changes["added"], changes["removed"], changes["renamed"]} == {0, 1}
    assert "added" not in third.stderr

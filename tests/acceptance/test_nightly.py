"""What a scheduler sees: codes, mails, notifications, time boxes, logs that are rotated."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from socket import gethostname

import pytest
from pydantic import SecretStr

import bulkbind as library
from bulkbind.app.session.listener import Listener
from bulkbind.engine import StopSignal
from bulkbind.errors import InterruptedRunError
from bulkbind.settings import (
    ApiSettings,
    AuthSettings,
    ReadbackSettings,
    SendSettings,
    Settings,
)
from tests.support.manifests import fleet, write_csv
from tests.support.paths import ROOT
from tests.support.processes import bulkbind, count_rows, process, sandbox, statuses

BAD = ("a-hyphen", "user_1", "", "")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for tests with ledgers of their own."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def night(home, url, *more, check=None, manifest="fleet.csv", **environ):
    """Run the manifest as cron would."""
    return bulkbind(
        "run", manifest, "--endpoint", url, "--ledger", "l.db", "--out", "out", "--quiet",
        "--on-invalid", "skip", *more, home=home, check=check, **environ,
    )  # fmt: skip


# --- quiet and loud ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_week_of_nights_says_what_is_new_and_nothing_else(tmp_path, url):
    """Nothing when all is well; known rows are no failure with --fail-on new, new ones are."""
    manifest = tmp_path / "fleet.csv"
    write_csv(manifest, fleet(5))
    well = night(tmp_path, url, check=0)
    write_csv(manifest, [*fleet(5), BAD])
    first = night(tmp_path, url, "--fail-on", "new", check=1)
    known = night(tmp_path, url, "--fail-on", "new", check=0)
    loud = night(tmp_path, url, check=1)
    write_csv(manifest, [*fleet(5), BAD, ("b.dot", "user_2", "", "")])
    none = night(tmp_path, url, "--fail-on", "none", check=0)
    write_csv(manifest, [*fleet(5), BAD, ("b.dot", "user_2", "", ""), ("", "user_3", "", "")])
    new = night(tmp_path, url, "--fail-on", "new", check=1)

    for quiet in (well, known, none):
        assert (quiet.stdout, quiet.stderr) == ("", "")
    mail = f"bulkbind on {gethostname()}: fleet.csv: {{}} (exit 1: some rows need a person)"
    assert first.stderr.splitlines()[0] == mail.format("1 of 6 devices needs you")
    assert "fleet.csv:7: machine_code 'a-hyphen'" in loud.stderr
    lines = new.stderr.splitlines()
    assert lines[0] == mail.format("3 of 8 devices need you")
    assert lines[2].startswith("1 of them is new since run 2")
    assert lines[3].startswith("  fleet.csv:9  invalid: machine_code: ")
    assert f"to fix or try again: {tmp_path / 'out/failed.csv'}" in lines
    assert any(line.strip().startswith("-> fix the cell") for line in lines)
    assert any(re.match(r"last went well: 20\d\d-", line) for line in lines)
    assert lines[-1].startswith(f"  bulkbind run {tmp_path / 'fleet.csv'} --endpoint {url} ")


@pytest.mark.slow
def test_the_summary_tells_what_drifted(tmp_path):
    """Newly failed and fixed rows are counted, against the last finished run."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(6))
    state = ("--state", str(tmp_path / "state.jsonl"))
    with sandbox("--fault", "business=1,count=2", *state, home=tmp_path) as served:
        port = served.rpartition(":")[2]
        night(tmp_path, served, check=1)
        write_csv(manifest, [*fleet(6), BAD])
        night(tmp_path, served, check=1)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    with sandbox("--port", port, *state, home=tmp_path) as served:
        done = bulkbind(
            "run", manifest, "--endpoint", served, "--ledger", "l.db", "--on-invalid", "skip",
            home=tmp_path, check=1,
        )  # fmt: skip

    changes = summary["changes"]
    assert (changes["newly_failed"], changes["mended"], changes["added"]) == (1, 2, 0)
    assert changes["newly_failed_rows"][0]["place"] == "fleet.csv:8"
    assert "since run" not in done.stderr  # nothing is new any more


@pytest.mark.slow
def test_a_stopped_run_is_told_with_what_is_left(tmp_path, url):
    """The mail names the reason, how many rows are left, and what goes on with them."""
    write_csv(tmp_path / "fleet.csv", fleet(300))

    stopped = night(tmp_path, url, "--rate", "30", "--deadline", "4s", check=3)

    first, *_, last = stopped.stderr.splitlines()
    assert ": fleet.csv: stopped: the deadline of 4s has come; " in first
    said = r"^\d+ of 300 devices are bound: \d+ now[^.]*\. \d+ are left\.$"
    assert re.search(said, stopped.stderr, re.MULTILINE)
    assert last.startswith(f"  bulkbind run {tmp_path / 'fleet.csv'} --endpoint {url} ")


# --- telling --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_is_named_is_told_of_every_end(tmp_path, url):
    """After a failure, a run that could not start, and not after a good one; codes stay."""
    write_csv(tmp_path / "fleet.csv", [*fleet(3), BAD])
    heard = tmp_path / "heard"
    script = tmp_path / "tell.sh"
    script.write_text(f"#!/bin/sh\ncat >> {heard}; echo >> {heard}\n")
    script.chmod(0o755)
    (tmp_path / "c.yaml").write_text(f"notify_command: {script}\nmetrics_file: m.prom\n")
    given = ("--config", "c.yaml")

    night(tmp_path, url, *given, check=1)
    night(tmp_path, url, *given, manifest="none.csv", check=2)
    write_csv(tmp_path / "fleet.csv", fleet(3))
    night(tmp_path, url, *given, check=0)

    told = [json.loads(line) for line in heard.read_text().splitlines()]
    assert [item["exit_code"] for item in told] == [1, 2]
    assert told[0]["counts"]["invalid"] == 1
    assert ": fleet.csv: 1 of 4 devices needs you (exit 1: " in told[0]["text"]
    assert told[1]["error"] == "manifest none.csv does not exist"
    assert "bulkbind_run_exit_code{" in (tmp_path / "m.prom").read_text()
    assert "secret-token" not in heard.read_text()


@pytest.mark.slow
def test_a_notification_that_fails_is_said_and_changes_no_code(tmp_path, url):
    """The run ends with its own code, and the trouble stands in the mail."""
    write_csv(tmp_path / "fleet.csv", fleet(2))
    (tmp_path / "c.yaml").write_text(
        "notify_command: /none/at/all\nnotify_on: always\nmetrics_file: none/m.prom\n"
    )

    done = night(tmp_path, url, "--config", "c.yaml", check=0)

    assert "note: notify_command could not be started: No such file" in done.stderr
    assert "note: metrics none/m.prom cannot be written: No such file" in done.stderr


# --- time boxes -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_deadline_counts_the_wait_for_the_ledger(tmp_path, url):
    """A run that waits for another one ends at its deadline, with 3, and says so."""
    write_csv(tmp_path / "fleet.csv", fleet(400))
    holder = ("run", "fleet.csv", "--endpoint", url, "--ledger", "l.db", "--rate", "10")
    with process(*holder, home=tmp_path) as started:
        end = time.monotonic() + 30
        while not count_rows(tmp_path / "l.db", "claimed") and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        late = night(tmp_path, url, "--wait", "60s", "--deadline", "1s", check=3)
        started.send_signal(signal.SIGTERM)
        started.wait(30)

    assert "the deadline of 1s has come; nothing was sent" in late.stderr


class Hanging(Listener):
    """A listener in whose call the reading hangs, as on a disk that is gone, until a stop."""

    def __init__(self, stop):
        self._stop = stop

    def staged(self, rows):  # noqa: ARG002  # the protocol's
        end = time.monotonic() + 30
        while not self._stop.is_set and time.monotonic() < end:
            threading.Event().wait(0.02)


@pytest.mark.slow
async def test_a_reading_that_hangs_is_a_stall(tmp_path, url):
    """Nothing is read for --stall: the run ends with 3 and the reason, and nothing was sent."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(20))
    settings = Settings(
        api=ApiSettings(endpoint=url, timeout=0.2, list_timeout=0.2, connect_timeout=0.2),
        auth=AuthSettings(token=SecretStr("any")),
        send=SendSettings(stall=0.5, backoff_cap=0.1),
        doubt=ReadbackSettings(readback_settle=0.1),
        ledger=tmp_path / "l.db",
        out=tmp_path / "out",
    )
    stop = StopSignal()

    with pytest.raises(InterruptedRunError) as caught:
        await library.run([manifest], settings, listener=Hanging(stop), stop=stop)
    again = await library.run([manifest], settings)

    assert caught.value.exit_code == 3
    assert str(caught.value) == "nothing was read, sent or settled for 500ms; nothing was sent"
    assert again.report is not None
    assert again.report.summary.total == 20
    assert len(library.runs(settings)) == 1


@pytest.mark.slow
def test_what_cannot_be_stopped_is_ended():
    """A command that hangs in something that no stop reaches ends its process, with its code."""
    code = (
        "import asyncio, sys\n"
        "from bulkbind.cli import running\n"
        "from bulkbind.engine import StopReason\n"
        "running.LAST_RESORT_S = 0.3\n"
        "async def work(stop):\n"
        "    stop.set(StopReason('the deadline has come'))\n"
        "    await asyncio.shield(asyncio.get_running_loop().create_future())\n"
        "sys.exit(running.run_until_done(work, grace_s=0.1))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

    assert done.returncode == 3
    assert "error: the deadline has come, and it does not end" in done.stderr


# --- logs -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_log_may_be_rotated_while_it_is_written(tmp_path, url):
    """Renamed, a new one of that name is begun for its owner only; no line is lost."""
    write_csv(tmp_path / "fleet.csv", fleet(90))
    log, old = tmp_path / "run.log", tmp_path / "run.log.1"
    command = ("run", "fleet.csv", "--endpoint", url, "--ledger", "l.db", "--out", "out", "--quiet")
    more = ("--log-file", "run.log", "--log-devices", "--rate", "60")
    with process(*command, *more, home=tmp_path) as started:
        end = time.monotonic() + 30
        while (not log.exists() or "device.settled" not in log.read_text()) and (
            time.monotonic() < end
        ):
            time.sleep(0.02)  # noqa: TID251  # polling another process
        log.rename(old)
        assert started.wait(30) == 0

    lines = [json.loads(line) for path in (old, log) for line in path.read_text().splitlines()]
    settled = [line["machine_code"] for line in lines if line["event"] == "device.settled"]
    assert sorted(settled) == [row[0] for row in fleet(90)]
    assert log.stat().st_mode & 0o777 == 0o600
    assert sum(statuses(tmp_path / "out").values()) == 90


# --- housekeeping ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_prune_says_what_went_and_sends_nothing_twice(tmp_path, url):
    """A trial counts; the real one deletes; the next night still sends nothing."""
    write_csv(tmp_path / "fleet.csv", fleet(8))
    common = ("--endpoint", url, "--ledger", "l.db")
    for _ in range(2):
        bulkbind("run", "fleet.csv", *common, home=tmp_path, check=0)
    house = ("prune", *common, "--older-than", "0s", "--keep-reports", "1")

    trial = bulkbind(*house, "--dry-run", home=tmp_path, check=0)
    done = bulkbind(*house, home=tmp_path, check=0)
    again = bulkbind(*house, "--quiet", home=tmp_path, check=0)
    night(tmp_path, url, check=0)

    assert "ledger: 16 rows and 0 attempts of 2 runs would be deleted" in trial.stderr
    assert "ledger: 16 rows and 0 attempts of 2 runs deleted" in done.stderr
    assert "reports: 1 folder deleted" in done.stderr
    assert trial.stdout == done.stdout
    assert (again.stdout, again.stderr) == ("", "")
    assert statuses(tmp_path / "out") == {"skipped": 8}
    nothing = bulkbind("prune", *common, home=tmp_path, check=2)
    assert "prune has to know what is old" in nothing.stderr

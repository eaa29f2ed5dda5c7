"""`run --workers N`: real processes that send, stopped and killed while they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bulkbind.clock import SystemClock
from tests.acceptance.test_doctor import tls_sandbox
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    environment,
    sandbox,
    sandbox_bindings,
    statuses,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SETTLE_S, TIME_OUT_S = 0.5, 1.0
SETTINGS = f"timeout: {TIME_OUT_S}\nreadback_settle: {SETTLE_S}\nendpoint: "
UNTIL_READY_PER_S = 40
SLOW = ("--fault", "delay-after=1,for=100ms")


class Run:
    """A run with workers that is under way.

    Attributes:
        said: Its log so far.
    """

    def __init__(self, process, home):
        self.process = process
        self.home = home
        self.said = []

    def heard(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        """Return the log lines of an event, once there are so many."""
        for line in self.process.stderr:
            with suppress(ValueError):
                self.said.append(json.loads(line))
            found = [each for each in self.said if each.get("event") == event]
            if len(found) >= times:
                return found
        raise AssertionError(f"{event} was not said {times} times: {self.said}")

    def workers(self, number: int = 2) -> list[int]:
        """Return the workers' process ids once all are ready; the run is slow until then."""
        pids = [each["pid"] for each in self.heard("worker.started", number)]
        done = called("adjust", "--config", "settings.yaml", "--rate", "none", home=self.home)
        assert done.returncode == 0, done.stderr
        return pids

    def ended(self) -> int:
        """Return its exit code."""
        for line in self.process.stderr:
            with suppress(ValueError):
                self.said.append(json.loads(line))
        return int(self.process.wait(120))


@contextmanager
def running(
    home: Path, url: str, *options: str, rows: int, workers: int = 2, settings="", **environ: str
):
    """Start a run with workers; they are gone at the end."""
    write_csv(home / "fleet.csv", fleet(rows))
    (home / "settings.yaml").write_text(f"{SETTINGS}{url}\n{settings}", encoding="utf-8")
    command = [
        *[*BULKBIND, "run", "fleet.csv", "--yes", "--out", "report"],
        *["--config", "settings.yaml", "--workers", str(workers), "--log-level", "info"],
        *["--log-format", "json", "--rate", str(UNTIL_READY_PER_S), *options],
    ]
    process = subprocess.Popen(
        command, env=environment(home, **environ), cwd=home, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Run(process, home)
    finally:
        process.kill()
        process.communicate()


def summary(home: Path) -> dict[str, Any]:
    """Return the report's summary."""
    found: dict[str, Any] = json.loads((home / "report/summary.json").read_text(encoding="utf-8"))
    return found


def check_all_bound_once(home: Path, url: str, rows: int) -> None:
    """Report, server and counts agree: nothing is lost, false, or posted again."""
    assert statuses(home / "report") == {"bound": rows}
    assert len(sandbox_bindings(url)) == rows
    assert ask(f"{url}/sandbox/stats").get("posted_again", 0) == 0
    assert summary(home)["posted_again_after_bound"] == 0


def wait_until_gone(pid: int, within_s: float) -> None:
    """Return once a process that is not ours is gone."""
    clock = SystemClock()
    until = clock.monotonic() + within_s
    while Path(f"/proc/{pid}").exists():
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        if state == "Z":
            return
        assert clock.monotonic() < until, f"process {pid} is still there"
        os.sched_yield()


def test_workers_send_every_row_once_and_end_with_the_run(tmp_path):
    """Two workers settle what the driver did not, and are gone at the end."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, rows=2000) as run:
            pids = run.workers()

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert ask(f"{url}/sandbox/stats")["requests"] == summary(tmp_path)["requests"]
        states = summary(tmp_path)["workers"]
        assert [state["number"] for state in states] == [1, 2]
        assert all(state["settled"] > 0 and not state["lost"] for state in states)
        for pid in pids:
            wait_until_gone(pid, 0)


def test_a_killed_worker_loses_nothing(tmp_path):
    """What it had in hand is in doubt, is read back, and ends like all else."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, rows=2000) as run:
            pid = run.workers()[0]
            run.heard("run.progress")
            os.kill(pid, signal.SIGKILL)
            (lost,) = run.heard("worker.lost")

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert lost["pid"] == pid
        assert lost["why"] == "it was ended by SIGKILL"
        assert lost["rows"] > 0
        assert summary(tmp_path)["requests_lists"] > 0
        assert summary(tmp_path)["requests_unsure"] == lost["rows"]
        assert [bool(state["lost"]) for state in summary(tmp_path)["workers"]].count(True) == 1


def test_a_worker_stopped_for_longer_than_its_lease_is_buried(tmp_path):
    """It sends nothing any more, and the others do all."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, rows=2000) as run:
            pid = run.workers()[1]
            run.heard("run.progress")
            os.kill(pid, signal.SIGSTOP)
            (lost,) = run.heard("worker.lost")

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert lost["pid"] == pid
        assert lost["why"].startswith("it said nothing for ")
        wait_until_gone(pid, 0)


def test_workers_end_with_a_killed_driver_and_resume_goes_on(tmp_path):
    """They are gone at once; what was claimed is in doubt, and another run settles it."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, rows=2000) as run:
            pids = run.workers()
            run.heard("run.progress")
            run.process.kill()
            run.process.wait()

            for pid in pids:
                wait_until_gone(pid, 3)
        bulkbind(
            *["resume", "--yes", "--config", "settings.yaml", "--out", "report", "--workers", "2"],
            home=tmp_path,
            check=0,
        )

        check_all_bound_once(tmp_path, url, 2000)


def test_a_stopped_driver_goes_on_with_its_workers(tmp_path):
    """Workers send nothing beyond their leases meanwhile, and nobody is buried for it."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, rows=3000) as run:
            run.workers()
            run.heard("run.progress")
            run.process.send_signal(signal.SIGSTOP)
            clock = SystemClock()
            until = clock.monotonic() + 2.5
            while clock.monotonic() < until:
                os.sched_yield()
            requests = ask(f"{url}/sandbox/stats")["requests"]
            until += 1.5
            while clock.monotonic() < until:
                os.sched_yield()
            later = ask(f"{url}/sandbox/stats")["requests"]
            run.process.send_signal(signal.SIGCONT)

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 3000)
        assert later == requests
        assert not [each for each in run.said if each.get("event") == "worker.lost"]


# --- what else a run may be -----------------------------------------------------------------------

CREDENTIALS = """
refresh_tokens: {refresh-once: any}
apps: {app1: app-secret-1}
"""


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (("--session-calls", "60"), {"BULKBIND_REFRESH_TOKEN": "refresh-once"}),
        ((), {"BULKBIND_APP_ID": "app1", "BULKBIND_APP_SECRET": "app-secret-1"}),
    ],
    ids=["renewed sessions", "signatures"],
)
def test_workers_send_with_the_drivers_credentials(tmp_path, arguments, environ):
    """A session is renewed once for all, an app's requests are signed by whoever sends them."""
    accepted = tmp_path / "accepted.yaml"
    accepted.write_text(CREDENTIALS, encoding="utf-8")
    with sandbox("--credentials", str(accepted), *arguments, home=tmp_path) as url:
        with running(tmp_path, url, rows=1500, BULKBIND_TOKEN="", **environ) as run:
            shown = [
                Path(f"/proc/{pid}/{name}").read_bytes()
                for pid in run.workers()
                for name in ("cmdline", "environ")
            ]

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 1500)
        assert all(state["settled"] > 100 for state in summary(tmp_path)["workers"])
    said = json.dumps(run.said)
    for secret in ("refresh-once", "app-secret-1"):
        assert secret not in said
        assert not [text for text in shown if secret.encode() in text]


def test_workers_trust_what_the_driver_trusts(tmp_path):
    """A private authority's certificate is checked by every worker."""
    with tls_sandbox(home=tmp_path) as (url, ca):
        with running(tmp_path, url, rows=2000, settings=f"ca_file: {ca}\n") as run:
            run.workers()

            assert run.ended() == 0

        assert statuses(tmp_path / "report") == {"bound": 2000}
        assert all(state["settled"] > 100 for state in summary(tmp_path)["workers"])


@pytest.mark.parametrize(
    ("limit", "options", "settings"),
    [
        ("bucket:150/s,burst=20", (), ""),
        ("40/s,per=user", ("--rate", "8"), "rate_scope: x-user-id\n"),
    ],
    ids=["one limit", "a limit for each user"],
)
def test_workers_share_a_limit(tmp_path, limit, options, settings):
    """What is refused is no more than one process would meet, and no device's fault."""
    with sandbox("--limit", f"{limit},tell=nothing", home=tmp_path) as url:
        with running(tmp_path, url, *options, rows=2000, settings=settings) as run:
            run.workers()

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert summary(tmp_path)["requests_throttled"] < 100


def test_a_pilot_sends_no_more_than_it_was_told(tmp_path):
    """`--first N` counts over all workers."""
    with sandbox(home=tmp_path) as url:
        with running(tmp_path, url, "--first", "1200", rows=2000) as run:
            run.workers()

            assert run.ended() == 3

        assert statuses(tmp_path / "report") == {"bound": 1200, "pending": 800}
        assert len(sandbox_bindings(url)) == 1200


def test_a_run_stops_at_as_many_failures_as_are_allowed(tmp_path):
    """`--max-failures` counts over all workers, and before more are sent than may fail."""
    refused = ("--fault", "business=0.02,code=13000999", "--seed", "7")
    with sandbox(*refused, home=tmp_path) as url:
        with running(tmp_path, url, "--max-failures", "60", rows=6000) as run:
            run.workers()

            assert run.ended() == 3

        found = statuses(tmp_path / "report")
    assert 60 <= found["failed"] < 70
    assert found["pending"] > 0

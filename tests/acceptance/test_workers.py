"""`run --workers N`: real processes that send, stopped and killed while they do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.test_disk import binds, until
from tests.acceptance.test_doctor import tls_sandbox
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    environment,
    is_running,
    sandbox,
    sandbox_bindings,
    statuses,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SETTLE_S, TIME_OUT_S = 0.5, 1.0
SETTINGS = f"timeout: {TIME_OUT_S}\nreadback_settle: {SETTLE_S}\nendpoint: "
UNTIL_READY_PER_S = 20
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
    home: Path, url: str, *options: str, rows: int, workers: int = 2, settings="", given=None
):
    """Start a run with workers, and *given* in its environment; they are gone at the end."""
    write_csv(home / "fleet.csv", fleet(rows))
    (home / "settings.yaml").write_text(f"{SETTINGS}{url}\n{settings}", encoding="utf-8")
    command = [
        *[*BULKBIND, "run", "fleet.csv", "--yes", "--out", "report"],
        *["--config", "settings.yaml", "--workers", str(workers), "--log-level", "info"],
        *["--log-format", "json", "--rate", str(UNTIL_READY_PER_S), *options],
    ]
    process = subprocess.Popen(
        command, env=environment(home, **(given or {})), cwd=home, stdin=subprocess.DEVNULL,
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


def gone(pids: Iterable[int], within_s: float = 3.0) -> None:
    """Return once processes that are not ours are gone."""
    until(lambda: not [pid for pid in pids if is_running(pid)], within_s)


def sent_more(url: str, number: int = 20) -> None:
    """Return once so many more binds have been sent."""
    wanted = binds(url) + number
    until(lambda: binds(url) >= wanted, 60.0)


def check_all_sent(home: Path) -> None:
    """Each worker has sent its part, and none was lost."""
    states = summary(home)["workers"]
    assert [state["number"] for state in states] == [1, 2]
    assert all(state["settled"] > 100 and not state["lost"] for state in states)


def test_workers_are_stopped_and_killed_and_nothing_is_lost(tmp_path):
    """A halted driver goes on; workers killed or halted beyond their lease are cut off, and told.

    While the driver is halted its workers send nothing beyond their leases, and nobody is buried
    for it. What the lost ones had in hand is in doubt, is read back, and ends like all else.
    """
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, "--concurrency", "16", rows=1500, workers=3) as run:
            killed, halted, left = run.workers(3)
            sent_more(url)
            run.process.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # noqa: TID251  # longer than a lease
            requests = binds(url)
            time.sleep(1.0)  # noqa: TID251  # and then nothing comes
            later = binds(url)
            run.process.send_signal(signal.SIGCONT)
            sent_more(url)
            os.kill(killed, signal.SIGKILL)
            os.kill(halted, signal.SIGSTOP)
            lost = {each["pid"]: each for each in run.heard("worker.lost", 2)}
            told = called("status", "--config", "settings.yaml", "--json", home=tmp_path)
            status = called("status", "--config", "settings.yaml", home=tmp_path)

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 1500)
        gone([killed, halted, left], 0)
    assert later == requests
    assert lost.keys() == {killed, halted}
    assert lost[killed]["why"] == "it was ended by SIGKILL"
    assert lost[killed]["rows"] > 0
    assert lost[halted]["why"].startswith("it said nothing for ")
    assert summary(tmp_path)["requests_unsure"] == sum(each["rows"] for each in lost.values())
    states = {state["pid"]: state for state in json.loads(told.stdout)["workers"]}
    assert states.keys() == {killed, halted, left}
    assert states[killed]["lost"] == "it was ended by SIGKILL"
    assert states[left]["is_alive"]
    assert states[left]["settled"] > 0
    assert "workers: " in status.stdout
    assert "lost: it was ended by SIGKILL" in status.stdout
    found = summary(tmp_path)
    assert found["requests_lists"] > 0
    assert {state["pid"] for state in found["workers"] if state["lost"]} == {killed, halted}


# --- what else a run may be -----------------------------------------------------------------------

CREDENTIALS = """
refresh_tokens: {refresh-once: any}
apps: {app1: app-secret-1}
"""


def accepted(home: Path) -> tuple[str, str]:
    """Return the options of a sandbox that accepts these."""
    path = home / "accepted.yaml"
    path.write_text(CREDENTIALS, encoding="utf-8")
    return "--credentials", str(path)


def shown(pids: Iterable[int]) -> bytes:
    """Return what all may see of processes."""
    names = ("cmdline", "environ")
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for pid in pids for name in names)


def test_workers_send_every_row_once_with_renewed_sessions(tmp_path):
    """A session is renewed once for all; workers do what the driver did not, and end with it."""
    with sandbox(*accepted(tmp_path), "--session-calls", "60", home=tmp_path) as url:
        given = {"BULKBIND_TOKEN": "", "BULKBIND_REFRESH_TOKEN": "refresh-once"}
        with running(tmp_path, url, rows=1000, given=given) as run:
            pids = run.workers()
            seen = shown(pids)

            assert run.ended() == 0

        gone(pids, 0)
        check_all_bound_once(tmp_path, url, 1000)
        assert ask(f"{url}/sandbox/stats")["requests"] == summary(tmp_path)["requests"]
    check_all_sent(tmp_path)
    assert "refresh-once" not in json.dumps(run.said)
    assert b"refresh-once" not in seen


def test_workers_sign_and_trust_as_the_driver_does(tmp_path):
    """Whoever sends signs an app's requests, and checks a private authority's certificate."""
    with tls_sandbox(*accepted(tmp_path), home=tmp_path) as (url, ca):
        given = {
            "BULKBIND_TOKEN": "",
            "BULKBIND_APP_ID": "app1",
            "BULKBIND_APP_SECRET": "app-secret-1",
        }
        settings = f"ca_file: {ca}\n"
        with running(tmp_path, url, rows=1000, settings=settings, given=given) as run:
            seen = shown(run.workers())

            assert run.ended() == 0

    assert statuses(tmp_path / "report") == {"bound": 1000}
    check_all_sent(tmp_path)
    assert "app-secret-1" not in json.dumps(run.said)
    assert b"app-secret-1" not in seen


def test_workers_share_a_limit_and_a_pilot(tmp_path):
    """Refused is no more than one process would meet; `--first N` counts over all workers."""
    with sandbox("--limit", "bucket:150/s,burst=20,tell=nothing", home=tmp_path) as url:
        with running(tmp_path, url, "--first", "900", rows=1000) as run:
            run.workers()

            assert run.ended() == 3

        assert statuses(tmp_path / "report") == {"bound": 900, "pending": 100}
        assert len(sandbox_bindings(url)) == 900
        assert ask(f"{url}/sandbox/stats").get("posted_again", 0) == 0
        assert summary(tmp_path)["requests_throttled"] < 100


def test_workers_share_a_limit_for_each_user(tmp_path):
    """What is refused is no more than one process would meet, and no device's fault."""
    with sandbox("--limit", "40/s,per=user,tell=nothing", home=tmp_path) as url:
        settings = "rate_scope: x-user-id\n"
        with running(tmp_path, url, "--rate", "8", rows=1000, settings=settings) as run:
            run.workers()

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 1000)
        assert summary(tmp_path)["requests_throttled"] < 100


def test_a_run_stops_at_as_many_failures_as_are_allowed(tmp_path):
    """`--max-failures` counts over all workers, and before more are sent than may fail."""
    refused = ("--fault", "business=0.1,code=13000999", "--seed", "7")
    with (
        sandbox(*refused, home=tmp_path) as url,
        running(tmp_path, url, "--max-failures", "60", rows=1500) as run,
    ):
        run.workers()

        assert run.ended() == 3

    found = statuses(tmp_path / "report")
    assert 60 <= found["failed"] < 90  # a tenth of what leaves until the sixtieth is durable
    assert found["pending"] > 0

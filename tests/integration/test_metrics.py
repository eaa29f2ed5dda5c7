"""The textfile for Prometheus, read by its own tools where they are installed."""

from __future__ import annotations

import shutil
import stat
import subprocess
import time
import urllib.request
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bulkbind.errors import LedgerError
from bulkbind.model import MEANINGS, RunFacts
from bulkbind.report.metrics import LAST_SUCCESS, Measured, write_metrics
from tests.support.processes import free_port

PROMTOOL = shutil.which("promtool")
NODE_EXPORTER = shutil.which("prometheus-node-exporter")


def measured(**more):
    """Return what is known of some run."""
    given: dict[str, Any] = {
        "endpoint": "https://example.test",
        "manifest": "fleet.csv",
        "exit_code": 0,
        "took_s": 12.5,
        "ended_at": 1_800_000_000.0,
        "counts": {"bound": 7, "failed": 2},
        "facts": {
            "requests": 9,
            "requests_throttled": 1,
            "pace_per_s": 60.0,
            "pace_from": "told by the gateway",
            "limit": {"per_s": 61.5, "is_spaced": False},
            "limit_in_flight": 4,
            "paced_s": 8.25,
            "cooled_s": 0.5,
            "retrying_s": 2.0,
            "cpu_s": 1.25,
            "workers": [
                {"number": number, "settled": settled, "lost": lost}
                for number, settled, lost in ((1, 4, ""), (2, 2, "ended by signal 9"), (1, 3, ""))
            ],
        },
        "ledger_bytes": 73_728,
        "bindings": 7,
    }
    given |= more
    return Measured(**(given | {"facts": RunFacts(given["facts"])}))


def samples(path):
    """Return the value of each sample by name and, for rows, status or worker."""
    return {
        (sample.name, sample.labels.get("status", sample.labels.get("worker"))): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_every_figure_is_there(tmp_path):
    """Rows by every status, duration, pace, limit, 429s, last success, ledger size; mode 0644."""
    path = tmp_path / "bulkbind.prom"

    write_metrics(path, measured())

    got = samples(path)
    assert {status for name, status in got if name == "bulkbind_run_rows"} == set(MEANINGS)
    assert got["bulkbind_run_rows", "bound"] == 7
    assert got["bulkbind_run_rows", "moved"] == 0
    assert got["bulkbind_run_duration_seconds", None] == 12.5
    assert got["bulkbind_run_pace_requests_per_second", None] == 60
    assert got["bulkbind_run_limit_requests_per_second", None] == 61.5
    assert got["bulkbind_run_limit_requests_in_flight", None] == 4
    assert got["bulkbind_run_paced_seconds", None] == 8.25
    assert got["bulkbind_run_cooled_seconds", None] == 0.5
    assert got["bulkbind_run_retrying_seconds", None] == 2
    assert got["bulkbind_run_throttled_requests", None] == 1
    assert got["bulkbind_run_processor_seconds", None] == 1.25
    assert got["bulkbind_run_workers", None] == 3
    assert got["bulkbind_run_lost_workers", None] == 1
    assert got["bulkbind_run_worker_rows", "1"] == 7
    assert got["bulkbind_run_worker_rows", "2"] == 2
    assert got["bulkbind_ledger_size_bytes", None] == 73_728
    assert got[LAST_SUCCESS, None] == 1_800_000_000
    assert [item.name for item in tmp_path.iterdir()] == ["bulkbind.prom"]
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444


def test_the_last_success_outlives_failures(tmp_path):
    """A run that failed keeps the moment; another manifest's is not taken for it."""
    path = tmp_path / "bulkbind.prom"

    write_metrics(path, measured(exit_code=1))
    first = samples(path)
    write_metrics(path, measured())
    write_metrics(path, measured(exit_code=3, ended_at=1_800_090_000.0))
    second = samples(path)
    write_metrics(path, measured(exit_code=3, manifest="other.csv"))

    assert (LAST_SUCCESS, None) not in first
    assert second[LAST_SUCCESS, None] == 1_800_000_000
    assert second["bulkbind_run_exit_code", None] == 3
    assert (LAST_SUCCESS, None) not in samples(path)


def test_a_damaged_textfile_is_replaced(tmp_path):
    """What was there before and is no metrics is not in the way."""
    path = tmp_path / "bulkbind.prom"
    path.write_bytes(b"\xff{{{ not metrics")

    write_metrics(path, measured(exit_code=1))

    assert samples(path)["bulkbind_run_exit_code", None] == 1


def test_a_folder_that_is_missing_is_told(tmp_path):
    """The error names the file and the reason."""
    with pytest.raises(LedgerError, match=r"bulkbind\.prom cannot be written: No such file"):
        write_metrics(tmp_path / "none" / "bulkbind.prom", measured())


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(tmp_path):
    """Names and helps keep Prometheus' conventions."""
    path = tmp_path / "bulkbind.prom"
    write_metrics(path, measured(manifest='a "quoted"\\name\nof two lines'))

    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=path.read_text(), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(NODE_EXPORTER is None, reason="prometheus-node-exporter is not installed")
def test_a_real_node_exporter_serves_two_jobs(tmp_path):
    """Two files with the same names and labels of their own are both served, without an error."""
    write_metrics(tmp_path / "nightly.prom", measured())
    write_metrics(tmp_path / "inbox.prom", measured(manifest="/srv/inbox", exit_code=1))
    port = free_port()
    command = [
        str(NODE_EXPORTER), "--collector.disable-defaults", "--collector.textfile",
        f"--collector.textfile.directory={tmp_path}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        text = fetched(f"http://127.0.0.1:{port}/metrics")
    finally:
        started.terminate()
        started.wait(10)

    exit_codes = [line for line in text.splitlines() if line.startswith("bulkbind_run_exit_code{")]
    assert sorted(line.rpartition(" ")[2] for line in exit_codes) == ["0", "1"]
    assert "node_textfile_scrape_error 0" in text.splitlines()


def fetched(url):
    """Return a page once it is served."""
    end = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # loopback
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.05)  # noqa: TID251  # polling another process

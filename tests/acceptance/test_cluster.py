"""`run --cluster`: a real scheduler and real workers of Dask, killed while a run sends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.acceptance.test_docs import command_of
from tests.acceptance.test_workers import SLOW, check_all_bound_once, running, sent_more, summary
from tests.support.certificates import certify
from tests.support.in_process import called
from tests.support.paths import ROOT
from tests.support.processes import bulkbind, environment, sandbox, sandbox_bindings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROWS = 1200


@contextmanager
def dask(part, *arguments, home, until, **environ):
    """Start a part of a cluster; yield its process and the match of *until* in what it says."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments]
    command += ["--host", "127.0.0.1", "--no-dashboard"]
    process = subprocess.Popen(
        command, cwd=home, env=environment(home, **environ), text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = (re.search(until, line) for line in process.stderr)
        yield process, next(filter(None, said))[0]
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


@contextmanager
def cluster(home, *pythonpaths):
    """Start a scheduler and a worker with each path; yield its address, its process and theirs."""
    with ExitStack() as stack:
        scheduler, address = stack.enter_context(
            dask("scheduler", "--port", "0", home=home, until=r"tcp://127\.0\.0\.1:[0-9]+")
        )
        command = ("worker", address, "--no-nanny", "--nthreads", "1", "--local-directory", home)
        parts = [
            stack.enter_context(dask(*command, home=home, until="Registered to", PYTHONPATH=path))
            for path in pythonpaths
        ]
        yield address, scheduler, [worker for worker, _ in parts]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Yield address and workers of a cluster that outlives the tests; the last is an old one."""
    home = tmp_path_factory.mktemp("cluster")
    old = home / "old" / "bulkbind-0.0.1.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: bulkbind\nVersion: 0.0.1\n")
    with cluster(home, "", "", str(old.parent)) as (address, _, workers):
        yield address, workers


def resumed(home, *options):
    """Resume the run of a folder to its end; it would keep to its first rate."""
    command = ["resume", "--yes", "--config", "settings.yaml", "--out", "report", "--rate", "200"]
    bulkbind(*command, *options, home=home, check=0)


def test_a_killed_driver_resumes_with_the_same_cluster(tmp_path, mixed):
    """New workers at the same places settle the rest; neither run needs all of them.

    One of another version is refused; one that is cut off is buried, and what it says later is not
    heard; the leases of those that a killed driver leaves behind end.
    """
    address, workers = mixed
    with sandbox(*SLOW, home=tmp_path) as url:
        with running(tmp_path, url, "--cluster", address, rows=ROWS, workers=3) as run:
            (refused,) = run.heard("worker.lost")
            run.workers()
            sent_more(url)
            workers[1].send_signal(signal.SIGSTOP)
            _, cut_off = run.heard("worker.lost", 2)
            workers[1].send_signal(signal.SIGCONT)
            sent_more(url)
            run.process.kill()
            run.process.wait()
        assert refused["why"] == f"it is of version 0.0.1, this run of {version('bulkbind')}"
        assert cut_off["why"].startswith("it said nothing for ")
        assert 0 < len(sandbox_bindings(url)) < ROWS
        resumed(tmp_path, "--cluster", address)

        check_all_bound_once(tmp_path, url, ROWS)
        states = summary(tmp_path)["workers"][3:]
        assert [state["settled"] > 0 for state in states].count(True) == 2
        assert [state["lost"] for state in states].count("") == 2


def test_a_run_goes_on_without_a_killed_worker_and_stops_without_a_cluster(tmp_path):
    """What each had in hand is read back, at once or by a resume, which needs no cluster."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with (
            cluster(tmp_path, "", "") as (address, scheduler, workers),
            running(tmp_path, url, "--cluster", address, rows=ROWS) as run,
        ):
            run.workers()
            sent_more(url)
            workers[0].kill()
            (lost,) = run.heard("worker.lost")
            sent_more(url)
            scheduler.kill()

            assert run.ended() == 3
        assert lost["rows"] > 0
        assert "no worker of the cluster is left" in summary(tmp_path)["stop_reason"]
        assert len(sandbox_bindings(url)) < ROWS
        resumed(tmp_path)

        check_all_bound_once(tmp_path, url, ROWS)


def test_a_cluster_that_others_could_listen_to_is_refused(tmp_path):
    """Between machines there is TLS, or no run."""
    (tmp_path / "fleet.csv").write_text("user_id,machine_code\nu,M1\n", encoding="utf-8")
    ended = called(
        *["run", "fleet.csv", "--yes", "--endpoint", "http://127.0.0.1:9"],
        *["--cluster", "tcp://192.0.2.1:8786"],
        home=tmp_path,
    )

    assert ended.returncode == 2
    assert "others can read what it is told" in ended.stderr


def test_doctor_looks_at_each_worker(tmp_path, mixed):
    """It says where they are, of which version, and whether they reach the endpoint."""
    address, _ = mixed
    with sandbox(home=tmp_path) as url:
        ended = bulkbind("doctor", "--endpoint", url, "--cluster", address, home=tmp_path)

    assert f"{address}: 3 workers on 127.0.0.1" in ended.stdout
    assert ended.stdout.count("reaches the endpoint (Python 3.") == 2
    assert f"has bulkbind 0.0.1, and this is {version('bulkbind')}" in ended.stdout


SAMPLES = ROOT / "samples" / "deploy" / "cluster"
COMMANDS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""Where `dask` and `bulkbind` are."""


@contextmanager
def part_of(home, *arguments, until):
    """Start a part with the sample's script, as another machine would; yield what it says."""
    process = subprocess.Popen(
        ["/bin/sh", str(SAMPLES / "machines.sh"), *arguments],
        cwd=home,
        env=environment(
            home, TLS=str(home), LISTEN="127.0.0.1", HOST="127.0.0.1", PORT="0", PATH=COMMANDS
        ),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = (re.search(until, line) for line in process.stderr)
        yield next(filter(None, said))[0]
    finally:
        process.kill()
        process.communicate()


def test_the_sample_for_plain_machines_runs_with_tls(tmp_path):
    """Scheduler, worker and run of `machines.sh`, with certificates of one's own authority."""
    certify(tmp_path)
    (tmp_path / "fleet.csv").write_text("user_id,machine_code\nu,M1\nv,M2\n", encoding="utf-8")
    with (
        sandbox(home=tmp_path) as url,
        part_of(tmp_path, "scheduler", until=r"tls://127\.0\.0\.1:[0-9]+") as address,
        part_of(tmp_path, "worker", address, until="Registered to"),
    ):
        command = ["/bin/sh", str(SAMPLES / "machines.sh"), "run", address, "fleet.csv", "--yes"]
        ended = subprocess.run(
            [*command, "--endpoint", url],
            cwd=tmp_path,
            env=environment(tmp_path, TLS=str(tmp_path), PATH=COMMANDS),
            text=True,
            capture_output=True,
            check=False,
        )

        assert ended.returncode == 0, ended.stderr
        assert len(sandbox_bindings(url)) == 2


def test_the_sample_for_kubernetes_is_whole():
    """Its run is understood, each part has the certificates, one run at a time."""
    parts = list(yaml.safe_load_all((SAMPLES / "kubernetes.yaml").read_text(encoding="utf-8")))
    kinds = [part["kind"] for part in parts]
    assert kinds == ["ConfigMap", "Service", "Deployment", "Deployment", "Job"]
    for part in parts[2:]:
        (container,) = part["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": "bulkbind-cluster"}}]
        assert any(mount["mountPath"] == "/tls" for mount in container["volumeMounts"])
    program, name, *arguments = parts[-1]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert program == "bulkbind"
    command_of(name).make_context(name, arguments)  # raises where it does not parse

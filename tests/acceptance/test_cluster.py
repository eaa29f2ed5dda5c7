"""`run --cluster`: a real scheduler and real workers of Dask, killed while a run sends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from tests.acceptance.test_docs import command_of
from tests.acceptance.test_workers import SLOW, check_all_bound_once, running, summary
from tests.support.paths import ROOT
from tests.support.processes import bulkbind, environment, sandbox, sandbox_bindings

pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@contextmanager
def dask(part, *arguments, home, until):
    """Start a part of a cluster; yield its process and the match of *until* in what it says."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments]
    command += ["--host", "127.0.0.1", "--no-dashboard"]
    process = subprocess.Popen(
        command, cwd=home, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        said = (re.search(until, line) for line in process.stderr)
        yield process, next(filter(None, said))[0]
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


@contextmanager
def cluster(home, workers=2):
    """Start a scheduler and workers; yield its address, its process and theirs."""
    with ExitStack() as stack:
        scheduler, address = stack.enter_context(
            dask("scheduler", "--port", "0", home=home, until=r"tcp://127\.0\.0\.1:[0-9]+")
        )
        options = ("--no-nanny", "--nthreads", "1", "--local-directory", str(home))
        parts = [
            stack.enter_context(dask("worker", address, *options, home=home, until="Registered to"))
            for _ in range(workers)
        ]
        yield address, scheduler, [worker for worker, _ in parts]


def test_a_cluster_sends_every_row_once(tmp_path):
    """Its workers settle what the driver did not; each one's state is kept."""
    with sandbox(*SLOW, home=tmp_path) as url, cluster(tmp_path) as (address, _, _):
        with running(tmp_path, url, "--cluster", address, rows=2000) as run:
            run.workers()

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert all(state["settled"] > 0 for state in summary(tmp_path)["workers"])


def test_a_killed_worker_of_a_cluster_loses_nothing(tmp_path):
    """What it had in hand is read back; the other one does the rest."""
    with sandbox(*SLOW, home=tmp_path) as url, cluster(tmp_path) as (address, _, workers):
        with running(tmp_path, url, "--cluster", address, rows=2000) as run:
            run.workers()
            run.heard("run.progress")
            workers[0].kill()
            (lost,) = run.heard("worker.lost")

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert lost["rows"] > 0


def test_a_worker_of_a_cluster_that_is_cut_off_is_buried(tmp_path):
    """Its process sends nothing beyond its lease, and what it says later is not heard."""
    with sandbox(*SLOW, home=tmp_path) as url, cluster(tmp_path) as (address, _, workers):
        with running(tmp_path, url, "--cluster", address, rows=2000) as run:
            run.workers()
            run.heard("run.progress")
            workers[1].send_signal(signal.SIGSTOP)
            (lost,) = run.heard("worker.lost")
            workers[1].send_signal(signal.SIGCONT)

            assert run.ended() == 0

        check_all_bound_once(tmp_path, url, 2000)
        assert lost["why"].startswith("it said nothing for ")


def test_a_run_whose_cluster_is_gone_stops_and_resumes(tmp_path):
    """With no worker left it stops with 3; the next one settles what was in their hands."""
    with sandbox(*SLOW, home=tmp_path) as url:
        with (
            cluster(tmp_path) as (address, scheduler, workers),
            running(tmp_path, url, "--cluster", address, rows=2000) as run,
        ):
            run.workers()
            run.heard("run.progress")
            scheduler.kill()
            for worker in workers:
                worker.kill()

            assert run.ended() == 3
        assert "no worker of the cluster is left" in summary(tmp_path)["stop_reason"]
        assert 0 < len(sandbox_bindings(url)) < 2000
        bulkbind(
            *["resume", "--yes", "--config", "settings.yaml", "--out", "report"],
            home=tmp_path,
            check=0,
        )

        check_all_bound_once(tmp_path, url, 2000)


def test_workers_of_a_cluster_end_with_a_killed_driver(tmp_path):
    """Their leases end; a resume with the same cluster goes on."""
    with sandbox(*SLOW, home=tmp_path) as url, cluster(tmp_path) as (address, _, _):
        with running(tmp_path, url, "--cluster", address, rows=2000) as run:
            pids = run.workers()
            run.heard("run.progress")
            os.kill(run.process.pid, signal.SIGKILL)
            run.process.wait()
        assert len(pids) == 2
        bulkbind(
            *["resume", "--yes", "--config", "settings.yaml", "--out", "report"],
            *["--cluster", address],
            home=tmp_path,
            check=0,
        )

        check_all_bound_once(tmp_path, url, 2000)


def test_a_cluster_that_others_could_listen_to_is_refused(tmp_path):
    """Between machines there is TLS, or no run."""
    with sandbox(home=tmp_path) as url:
        (tmp_path / "fleet.csv").write_text("user_id,machine_code\nu,M1\n", encoding="utf-8")
        ended = bulkbind(
            *["run", "fleet.csv", "--yes", "--endpoint", url, "--cluster", "tcp://192.0.2.1:8786"],
            home=tmp_path,
            check=2,
        )

        assert "others can read what it is told" in ended.stderr
        assert not sandbox_bindings(url)


def test_doctor_looks_at_each_worker(tmp_path):
    """It says where they are, and whether they reach the endpoint."""
    with sandbox(home=tmp_path) as url, cluster(tmp_path, workers=1) as (address, _, _):
        ended = bulkbind("doctor", "--endpoint", url, "--cluster", address, home=tmp_path)

        assert f"{address}: 1 worker on 127.0.0.1" in ended.stdout
        assert "reaches the endpoint (Python 3." in ended.stdout


SAMPLES = ROOT / "samples" / "deploy" / "cluster"


@contextmanager
def part_of(home, *arguments, until):
    """Start a part with the sample's script, as another machine would; yield what it says."""
    process = subprocess.Popen(
        ["/bin/sh", str(SAMPLES / "machines.sh"), *arguments],
        cwd=home,
        env=environment(home, TLS=str(home), LISTEN="127.0.0.1", HOST="127.0.0.1", PORT="0"),
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
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=cluster", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*made, *names], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "cert.pem").read_bytes())
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
            env=environment(tmp_path, TLS=str(tmp_path)),
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

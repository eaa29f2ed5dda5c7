"""Asking and steering over processes: those rows only, by e-mail, who bound this, slower now."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest

from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv, write_xlsx
from tests.support.processes import (
    count_rows,
    ledger_of,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve a sandbox for all stories."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def bulkbind(*arguments, home, check):
    """Call bulkbind beside the processes, and return how it ended; *check*: its exit code."""
    done = called(*arguments, home=home)
    assert done.returncode == check, done
    return done


def bound(url, prefix):
    """Return which machine codes that begin so are bound to whom on the server."""
    return {
        each["machineCode"]: each["userId"]
        for each in sandbox_bindings(url)
        if each["machineCode"].startswith(prefix)
    }


def test_a_wave_is_bound_and_then_the_rest(tmp_path, url):
    """Two files, a list of assets saved by a spreadsheet; killed, gone on with, then the others."""
    one = write_csv(
        tmp_path / "one.csv",
        [(f"WA{n}", "u1", f"asset {n}", "") for n in range(60)],
        ("machine_code", "user_id", "Asset", "Note"),
    )
    two = write_xlsx(
        tmp_path / "two.xlsx",
        ("One", [["machine_code", "user_id", "Asset"], ["WB1", "u2", 77], ["WB2", "u2", 78]]),
    )
    listed = "".join(f'"asset {n}"\r\n' for n in range(40)) + "\r\n77\r\n"
    (tmp_path / "wave.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
    where = ("--where", "Asset in wave.txt", "--where-not", "machine_code~9$")
    common = ("run", one, two, "--endpoint", url, "--out", tmp_path / "out")

    with process(*common, *where, "--rate", "20", home=tmp_path) as started:
        end = time.monotonic() + 60
        while count_rows(ledger_of(tmp_path, url), "bound") < 5 and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        started.kill()
    bulkbind(*common, *where, "--json", home=tmp_path, check=0)

    wave = {f"WA{n}" for n in range(40) if n % 10 != 9} | {"WB1"}
    assert set(bound(url, "W")) == wave
    assert {row["machine_code"] for row in read_results(tmp_path / "out")} == wave
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["left_out"] == {
        "rows": 25,
        "by": {"--where 'Asset in wave.txt'": 21, "--where-not 'machine_code~9$'": 4},
    }
    missing = bulkbind(*common, "--where", "Note=", home=tmp_path, check=2)
    assert "two.xlsx:1: there is no column `Note`" in missing.stderr
    bulkbind(*common, "--keep-left-out", *where[2:], home=tmp_path, check=0)
    assert statuses(tmp_path / "out") == {"bound": 19, "skipped": 37, "left_out": 6}


def test_users_are_found_by_e_mail(tmp_path, url):
    """Only who is exactly one user gets a device, and a table with a broken row binds nobody."""
    fleet_file = write_csv(
        tmp_path / "fleet.csv",
        [("UA1", " Max@X.org "), ("UA2", "eva@x.org"), ("UA3", "nobody@x.org"), ("UA4", "")],
        ("machine_code", "Owner"),
    )
    table = tmp_path / "users.csv"
    users = "user_id,mail\r\nu1,max@x.org\r\nu2,eva@x.org\r\nu3,EVA@x.org\r\n"
    common = (
        *("run", fleet_file, "--user-table", table, "--user-key", "Owner=mail"),
        *("--endpoint", url, "--out", tmp_path / "out", "--on-invalid", "skip"),
    )

    table.write_text(users + "u 4,otto@x.org\r\n", encoding="utf-8")
    broken = bulkbind(*common, home=tmp_path, check=2)
    nobody = bound(url, "UA")
    table.write_text(users, encoding="utf-8")
    bulkbind(*common, home=tmp_path, check=1)

    assert "line 5: user_id 'u 4'" in broken.stderr
    assert nobody == {}
    assert bound(url, "UA") == {"UA1": "u1"}
    reasons = [row["detail"] for row in read_results(tmp_path / "out")][1:]
    said = ("2 users have it: u2 (line 3), u3 (line 4)", "no user has it", "it is missing")
    assert all(text in reason for text, reason in zip(said, reasons, strict=True))
    failed = (tmp_path / "out" / "failed.csv").read_text(encoding="utf-8-sig")
    assert "UA2,eva@x.org,invalid" in failed


def test_who_bound_this(tmp_path, url):
    """The note of the run, its file and line, and the trace id by which the server knows it."""
    manifest = write_csv(tmp_path / "fleet.csv", [("HA1", "u1", "", ""), ("HA2", "u1", "", "")])
    common = ("--endpoint", url)
    out = ("--out", tmp_path / "out")
    bulkbind("run", manifest, *common, *out, "--note", "CHG0042", home=tmp_path, check=0)
    run_id = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["run_id"]
    trace = read_results(tmp_path / "out")[0]["trace_id"]
    bulkbind("undo", run_id, *common, *out, "--yes-unbind", "2", home=tmp_path, check=0)

    told = bulkbind("history", "HA1", *common, home=tmp_path, check=0).stdout
    found = bulkbind("history", "--user", "u1", *common, "--json", home=tmp_path, check=0)
    unknown = bulkbind("history", "HA9", *common, home=tmp_path, check=2)
    runs = bulkbind("runs", *common, home=tmp_path, check=0).stdout

    assert f"{run_id}, done" in told
    assert "CHG0042" in told
    assert f"trace {trace}" in told
    assert "undo by" in told
    rows = json.loads(found.stdout)["rows"]
    assert [(row["machine_code"], row["line"], row["status"]) for row in rows] == [
        ("HA1", 2, "bound"),
        ("HA2", 3, "bound"),
    ]
    assert all(row["taken"][0]["status"] == "unbound" for row in rows)
    assert "no run in the ledger names the device 'HA9'" in unknown.stderr
    assert "CHG0042" in runs


@contextmanager
def sending(tmp_path, url, *options):
    """Start a run of 600 rows, and yield it and its log lines once it sends."""
    manifest = write_csv(tmp_path / "fleet.csv", [(f"A{c}", u, *_) for c, u, *_ in fleet(600)])
    command = ("run", manifest, "--endpoint", url, "--out", tmp_path / "out", *options)
    with process(*command, home=tmp_path) as started:
        end = time.monotonic() + 60
        while not count_rows(ledger_of(tmp_path, url), "bound") and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        yield started


def test_slower_now(tmp_path, url):
    """From another shell: paused, faster, ended; kept with who, when and why; then gone on with."""
    common = ("--endpoint", url)
    with sending(tmp_path, url, "--rate", "10") as started:
        bulkbind("adjust", *common, "--pause", "--why", "lunch", home=tmp_path, check=0)
        time.sleep(0.3)  # noqa: TID251  # what was in flight ends
        paused = count_rows(ledger_of(tmp_path, url), "bound")
        status = bulkbind("status", *common, home=tmp_path, check=0).stdout
        assert count_rows(ledger_of(tmp_path, url), "bound") == paused
        more = ("--go", "--rate", "40", "--concurrency", "16")
        bulkbind("adjust", *common, *more, home=tmp_path, check=0)
        end = time.monotonic() + 60
        while count_rows(ledger_of(tmp_path, url), "bound") < paused + 20:
            time.sleep(0.02)  # noqa: TID251  # polling another process
            assert time.monotonic() < end
        bulkbind("adjust", *common, "--drain", "--why", "enough", home=tmp_path, check=0)
        _, log = started.communicate(timeout=60)

    assert started.returncode == 3
    assert "pause: lunch" in status
    assert "paused by an operator" in status
    assert "run.adjusted" in log
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert [each["what"] for each in summary["adjusted"]] == [
        {"pause": True}, {"rate": 40.0, "concurrency": 16, "go": True}, {"drain": True},
    ]  # fmt: skip
    assert summary["adjusted"][0]["why"] == "lunch"
    assert summary["paused_s"] > 0.2
    nobody = bulkbind("adjust", *common, "--pause", home=tmp_path, check=2)
    assert "no run is sending" in nobody.stderr
    bulkbind("resume", *common, "--out", tmp_path / "out", home=tmp_path, check=0)
    assert statuses(tmp_path / "out") == {"bound": 600}

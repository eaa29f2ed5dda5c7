"""`run INBOX --archive DONE`, as processes against a sandbox in a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.manifests import write_csv
from tests.support.paths import ROOT
from tests.support.processes import (
    ask,
    bulkbind,
    count_rows,
    ledger_of,
    process,
    read_results,
    sandbox,
)

NOW = ("--min-age", "0s")
OTHER_DISKS = (Path("/dev/shm"), Path("/var/tmp"))  # noqa: S108  # nothing is kept there
BAD = ("a hyphen-code", "u", "", "")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for tests with ledgers of their own."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


@pytest.fixture
def inbox(tmp_path):
    """Return an empty inbox."""
    folder: Path = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def fleet(request):
    """Return a function that makes rows no other test has."""
    prefix = f"T{abs(hash(request.node.name)) % 10**8}x"
    return lambda count: [(f"{prefix}{n}", f"{prefix}u{n % 3}", "", "") for n in range(count)]


def drop(inbox, name, rows, age=0):
    """Put a manifest into the inbox, made so many seconds ago."""
    path = write_csv(inbox / name, rows)
    moment = time.time() - age  # noqa: TID251  # the system's own
    os.utime(path, (moment, moment))
    return path


def names(folder):
    """Return the names of the files in a folder, without the run's id in front."""
    return sorted(path.name.split("-", 3)[-1] for path in folder.iterdir() if path.is_file())


def pass_over(inbox, url, *more, check=None, home=None, **environ):
    """Let bulkbind look at the inbox once."""
    home = home or inbox.parent
    return bulkbind(
        "run", inbox, "--archive", home / "done", "--endpoint", url, "--ledger", home / "l.db",
        "--out", home / "reports", *more, home=home, check=check, **environ,
    )  # fmt: skip


def inbox_json(home):
    """Return the report on all files of the last pass."""
    return json.loads((home / "reports" / "inbox.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_files_are_run_oldest_first_and_moved(tmp_path, inbox, url, fleet):
    """Each file gets a run and a report; the good ones and those with problems lie apart."""
    drop(inbox, "new.csv", fleet(6)[3:], age=10)
    drop(inbox, "old.csv", [*fleet(3), BAD], age=100)

    done = pass_over(inbox, url, *NOW, "--on-invalid", "skip", "--quiet", check=1)

    report = inbox_json(tmp_path)
    assert [item["name"] for item in report["files"]] == ["old.csv", "new.csv"]
    assert names(inbox) == []
    assert names(tmp_path / "done") == ["new.csv"]
    assert names(tmp_path / "done/with-problems") == ["old.csv", "old.failed.csv"]
    failed = next((tmp_path / "done/with-problems").glob("*failed.csv"))
    assert "a hyphen-code,u,,,invalid," in failed.read_text(encoding="utf-8")
    for item in report["files"]:
        rows = read_results(tmp_path / "reports" / item["run_id"])
        assert len(rows) == item["rows"]
        assert Path(item["moved_to"]).name == f"{item['run_id']}-{item['name']}"
    assert report["counts"] == {"bound": 6, "invalid": 1}
    assert done.stdout == ""
    assert f": {inbox}: 1 of 2 files needs you (exit 1: " in done.stderr.splitlines()[0]
    assert "old.csv:5  invalid: machine_code: only letters" in done.stderr
    assert "-> invalid: fix the cell" in done.stderr


@pytest.mark.slow
def test_what_is_made_is_for_its_owner_whatever_the_umask(tmp_path, inbox, url, fleet):
    """Ledger, reports, archive and log, with all folders; only the metrics are for a reader."""
    drop(inbox, "fleet.csv", [*fleet(2), BAD])
    before = set(tmp_path.rglob("*"))
    umask = os.umask(0)
    try:
        bulkbind(
            "run", inbox, "--archive", tmp_path / "new/done", "--endpoint", url, *NOW,
            "--ledger", tmp_path / "state/deep/l.db", "--out", tmp_path / "reports/nightly",
            "--on-invalid", "skip", "--metrics-file", tmp_path / "bulkbind.prom",
            "--log-file", tmp_path / "log.jsonl", home=tmp_path, check=1,
        )  # fmt: skip
    finally:
        os.umask(umask)

    made = set(tmp_path.rglob("*")) - before
    moved = next((tmp_path / "new/done/with-problems").glob("*-fleet.csv"))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made - {moved}}
    assert modes.pop(tmp_path / "bulkbind.prom") == 0o644
    assert len(modes) > 12
    assert {path: how for path, how in modes.items() if how != 0o700 - 0o100 * path.is_file()} == {}
    assert stat.S_IMODE(inbox.stat().st_mode) & 0o077  # as the test made it


@pytest.mark.slow
def test_every_format_and_any_name_is_run(tmp_path, inbox, url, fleet):
    """JSON Lines and compressed files are manifests as well, also with bytes that are no text."""
    first, other = fleet(2)
    line = json.dumps({"machine_code": first[0], "user_id": first[1]})
    (inbox / os.fsdecode(b"caf\xe9.jsonl")).write_text(f"{line}\n")
    packed = write_csv(tmp_path / "fleet.csv", [other, BAD])
    (inbox / "fleet.csv.gz").write_bytes(gzip.compress(packed.read_bytes()))

    pass_over(inbox, url, *NOW, "--on-invalid", "skip", check=1)

    report = inbox_json(tmp_path)
    assert {item["name"] for item in report["files"]} == {"caf\\udce9.jsonl", "fleet.csv.gz"}
    assert report["counts"] == {"bound": 2, "invalid": 1}
    assert names(inbox) == []
    assert names(tmp_path / "done/with-problems") == ["fleet.csv.gz", "fleet.failed.csv"]
    assert pass_over(inbox, url, *NOW, "--quiet", check=0).stderr == ""


@pytest.mark.slow
def test_what_is_not_complete_is_left(tmp_path, inbox, url, fleet):
    """Links, folders, dotfiles, half-written names and fresh files stay, without a word."""
    elsewhere = write_csv(tmp_path / "elsewhere.csv", fleet(1))
    (inbox / "link.csv").symlink_to(elsewhere)
    (inbox / "folder.csv").mkdir()
    for name in (".hidden.csv", "half.csv.part", "half.TMP", "half.filepart", "old.csv~"):
        drop(inbox, name, fleet(1), age=1000)
    drop(inbox, "fresh.csv", fleet(1), age=1000)  # put there a moment ago all the same
    before = sorted(inbox.iterdir())

    done = pass_over(inbox, url, "--quiet", check=0)

    assert sorted(inbox.iterdir()) == before
    assert done.stderr == ""
    assert inbox_json(tmp_path)["waiting"] == 1
    assert list((tmp_path / "done").iterdir()) == []


@pytest.mark.slow
def test_the_same_name_again_overwrites_nothing(tmp_path, inbox, url, fleet):
    """A file dropped twice, or with another content, is run again and kept beside the first."""
    for rows in (fleet(2), fleet(2), fleet(3)):
        drop(inbox, "fleet.csv", rows)
        pass_over(inbox, url, *NOW, check=0)

    archived = sorted((tmp_path / "done").iterdir())
    assert [path.name.split("-", 3)[-1] for path in archived] == ["fleet.csv"] * 3
    assert [len(path.read_text().splitlines()) for path in archived] == [3, 3, 4]
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (3,)


@pytest.mark.slow
def test_a_file_that_cannot_be_run_keeps_none_of_the_others(tmp_path, inbox, url, fleet):
    """It stays and is told with what to do; exit code 2; the others are done."""
    drop(inbox, "a.csv", [BAD, *fleet(1)])
    (inbox / "b.csv").write_text("who,what\n1,2\n")
    (inbox / "c.csv").write_text("")
    drop(inbox, "d.csv", fleet(2))

    done = pass_over(inbox, url, *NOW, "--quiet", check=2)

    assert names(inbox) == ["a.csv", "b.csv", "c.csv"]
    assert names(tmp_path / "done") == ["d.csv"]
    assert "a.csv is still in the inbox: 1 of 2 rows breaks a rule" in done.stderr
    assert "b.csv is still in the inbox" in done.stderr
    assert "--map user_id=COLUMN names another column" in done.stderr
    assert "c.csv is empty" in done.stderr


@pytest.mark.slow
def test_a_deadline_leaves_the_rest_and_the_next_pass_goes_on_there(tmp_path, inbox, url, fleet):
    """The deadline is one for all files; what was begun is gone on with before older files."""
    drop(inbox, "first.csv", fleet(60), age=50)
    drop(inbox, "second.csv", fleet(70)[60:], age=20)
    stopped = pass_over(inbox, url, *NOW, "--rate", "20", "--deadline", "2s", "--quiet", check=3)
    first = inbox_json(tmp_path)
    drop(inbox, "older.csv", fleet(75)[70:], age=500)

    pass_over(inbox, url, *NOW, check=0)

    second = inbox_json(tmp_path)
    assert "stopped: the deadline of 2s has come" in stopped.stderr
    assert "1 file waits for the next run" in stopped.stderr
    assert [item["name"] for item in first["files"]] == ["first.csv"]
    assert [item["name"] for item in second["files"]] == ["first.csv", "older.csv", "second.csv"]
    assert second["files"][0]["run_id"] == first["files"][0]["run_id"]
    assert second["files"][0]["counts"] == {"bound": 60}
    assert names(tmp_path / "done") == ["first.csv", "older.csv", "second.csv"]


@pytest.mark.slow
def test_a_file_replaced_while_it_is_run_is_not_lost(tmp_path, inbox, url, fleet):
    """The new content stays in the inbox, and the next pass runs it."""
    drop(inbox, "fleet.csv", fleet(60))
    with process(
        "run", inbox, "--archive", tmp_path / "done", "--endpoint", url, "--rate", "30", *NOW,
        "--ledger", tmp_path / "l.db", "--out", tmp_path / "reports", "--quiet", home=tmp_path,
    ) as started:  # fmt: skip
        end = time.monotonic() + 30
        while not count_rows(tmp_path / "l.db", "bound") and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        replaced = write_csv(tmp_path / "other.csv", fleet(65)[60:])
        replaced.rename(inbox / "fleet.csv")
        assert started.wait(30) == 0
    first = inbox_json(tmp_path)
    left = names(inbox)

    pass_over(inbox, url, *NOW, check=0)

    assert left == ["fleet.csv"]
    assert "changed while it was run" in first["files"][0]["problem"]
    assert inbox_json(tmp_path)["counts"] == {"bound": 5}
    assert names(inbox) == []


@pytest.mark.slow
def test_a_signal_drains_and_the_file_stays(tmp_path, inbox, url, fleet):
    """SIGTERM: exit 143, the file is still there, and another pass finishes it."""
    drop(inbox, "fleet.csv", fleet(200))
    with process(
        "run", inbox, "--archive", tmp_path / "done", "--endpoint", url, "--rate", "40", *NOW,
        "--ledger", tmp_path / "l.db", "--out", tmp_path / "reports", home=tmp_path,
    ) as started:  # fmt: skip
        end = time.monotonic() + 30
        while not count_rows(tmp_path / "l.db", "bound") and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        started.send_signal(signal.SIGTERM)
        assert started.wait(30) == 143

    assert names(inbox) == ["fleet.csv"]
    pass_over(inbox, url, *NOW, check=0)
    assert names(tmp_path / "done") == ["fleet.csv"]


@pytest.mark.slow
def test_folders_that_cannot_do_are_refused_before_anything_is_sent(tmp_path, inbox, url):
    """A missing inbox, the inbox as its own archive, several folders: exit 2 and what to do."""
    done = pass_over(tmp_path / "none", url, check=2, home=tmp_path)
    same = bulkbind("run", inbox, "--archive", inbox, "--endpoint", url, home=tmp_path, check=2)
    two = bulkbind("run", inbox, inbox, "--archive", "d", "--endpoint", url, home=tmp_path, check=2)

    assert "wants a folder of manifests" in done.stderr
    assert "another folder than the inbox" in same.stderr
    assert "takes one folder" in two.stderr


@pytest.mark.slow
def test_an_archive_on_another_file_system_is_refused(inbox, url):
    """A move would be no single step there."""
    here = inbox.stat().st_dev
    other = next((it for it in OTHER_DISKS if it.is_dir() and it.stat().st_dev != here), None)
    if other is None:
        pytest.skip("no second file system here")
    archive = other / f"bulkbind-{os.getpid()}"
    done = bulkbind("run", inbox, "--archive", archive, "--endpoint", url, home=inbox.parent)
    if archive.exists():
        archive.rmdir()

    assert done.returncode == 2
    assert "another file system" in done.stderr


@pytest.mark.slow
def test_a_kill_between_any_two_steps_loses_nothing():
    """Every ninth step, with SIGKILL: each file is run once, archived once, bound once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.kill_points", "9", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    points = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(points) >= 7
    assert all(line.endswith("  ok") for line in points)


@pytest.mark.slow
def test_a_kill_while_files_are_made_or_moved_loses_nothing():
    """An inbox that moves, a bundle, a report, a ledger of an older version: two kills each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaigns.file_kills", "--kills", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    scenes = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(scenes) == 4
    assert all("2 kills struck, 0 wrong" in line for line in scenes)


@pytest.mark.slow
def test_two_passes_at_once_are_one(tmp_path, inbox, url, fleet):
    """The second one ends with 75 while the first holds the ledger, and touches no file."""
    drop(inbox, "fleet.csv", fleet(60))
    with process(
        "run", inbox, "--archive", tmp_path / "done", "--endpoint", url, "--rate", "20", *NOW,
        "--ledger", tmp_path / "l.db", "--out", tmp_path / "reports", home=tmp_path,
    ) as started:  # fmt: skip
        end = time.monotonic() + 30
        while not count_rows(tmp_path / "l.db", "bound") and time.monotonic() < end:
            time.sleep(0.02)  # noqa: TID251  # polling another process
        started.send_signal(signal.SIGSTOP)  # it cannot end before the second one begins
        busy = pass_over(inbox, url, *NOW, check=75)
        started.send_signal(signal.SIGCONT)
        assert started.wait(30) == 0

    assert "another run holds the ledger" in busy.stderr
    assert names(tmp_path / "done") == ["fleet.csv"]


@pytest.mark.slow
def test_cron_gives_little_and_it_is_enough(tmp_path, inbox, fleet):
    """No PATH, no HOME's settings, closed streams, another time zone: the pass is done."""
    drop(inbox, "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as served:
        command = f"{sys.executable} -m bulkbind run {inbox} --archive {tmp_path}/done"
        script = f"exec {command} --min-age 0s --endpoint {served} --quiet <&- >&- 2>&-"
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env={
                "XDG_STATE_HOME": str(tmp_path),
                "BULKBIND_TOKEN": "any",
                "TZ": "Pacific/Kiritimati",
                "LC_ALL": "C",
            },
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        binds = ask(f"{served}/sandbox/stats")["binds"]

    assert done.returncode == 0
    assert binds == 3
    assert names(tmp_path / "done") == ["fleet.csv"]
    assert count_rows(ledger_of(tmp_path, served), "bound") == 3

"""One ledger, one lock: by whatever name it is called; and read where nothing can be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    bulkbind,
    count_rows,
    process,
    sandbox,
    sandbox_bindings,
    statuses,
)

pytestmark = pytest.mark.slow
OLD = Path(__file__).parents[1] / "ledgers" / "version-2.db"
QUICK = "readback_settle: 200ms\nconcurrency: 4\n"


@contextmanager
def mounted(source: Path, point: Path, *options: str):
    """Mount a file or folder at a second place, where this user may."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("there is nothing to mount with")
    done = subprocess.run([mount, "--bind", source, point], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting needs a capability that is not here")
    try:
        if options:
            how = ",".join(("remount", "bind", *options))
            subprocess.run([mount, "-o", how, point], check=True)
        yield
    finally:
        subprocess.run([unmount, point], check=True)


@pytest.fixture
def place(tmp_path):
    """Return a folder with a manifest of 40 rows, settings, and a folder for the ledger."""
    write_csv(tmp_path / "fleet.csv", fleet(40, users=4))
    (tmp_path / "c.yaml").write_text(QUICK, encoding="utf-8")
    (tmp_path / "state").mkdir()
    return tmp_path


def command(place, url, ledger, out="out"):
    """Return the arguments of a run."""
    return [
        *("run", place / "fleet.csv", "--config", place / "c.yaml", "--endpoint", url, "--yes"),
        *("--ledger", ledger, "--out", place / out),
    ]


@pytest.mark.parametrize("name", ["link.db", "elsewhere/ledger.db", "symlink.db"])
def test_two_runs_by_two_names_of_one_ledger_are_never_at_once(place, name):
    """A hard link made while a run sends is the same ledger, and the second run hears 75."""
    ledger, other = place / "state/ledger.db", place / "state" / name
    with sandbox("--fault", "delay-before=1,for=1s", home=place) as url:
        with process(*command(place, url, ledger), home=place) as first:
            while count_rows(ledger, "bound") < 4:
                assert first.poll() is None
            other.parent.mkdir(exist_ok=True)
            other.symlink_to(ledger) if "sym" in name else os.link(ledger, other)
            second = bulkbind(*command(place, url, other, "out2"), home=place)
            first.communicate()
        bound = sandbox_bindings(url)

    assert (second.returncode, first.returncode) == (75, 0)
    assert "another run holds the ledger" in second.stderr
    assert len(bound) == count_rows(ledger, "bound") == 40


def test_a_ledger_with_two_names_is_refused_for_writing_and_can_be_read(place):
    """SQLite's log stands beside one of them; nothing is sent, and the reason is said."""
    ledger, other = place / "state/ledger.db", place / "state/link.db"
    with sandbox(home=place) as url:
        bulkbind(*command(place, url, ledger), home=place, check=0)
        os.link(ledger, other)
        done = [bulkbind(*command(place, url, name), home=place) for name in (ledger, other)]
        shown = bulkbind("runs", "--ledger", ledger, home=place)
        other.unlink()
        after = bulkbind(*command(place, url, ledger), home=place)

    assert [one.returncode for one in done] == [4, 4]
    assert all("2 names (hard links)" in one.stderr for one in done)
    assert (shown.returncode, after.returncode) == (0, 0)


def test_a_ledger_mounted_as_a_single_file_is_refused_for_writing(place):
    """Its log would stand where the file comes from; a mount of its folder is good."""
    ledger, point = place / "state/ledger.db", place / "point.db"
    folder = place / "folder"
    folder.mkdir()
    point.touch()
    with sandbox(home=place) as url:
        bulkbind(*command(place, url, ledger), home=place, check=0)
        with mounted(ledger, point):
            refused = bulkbind(*command(place, url, point), home=place)
            plain = bulkbind(*command(place, url, ledger), home=place)
        with mounted(ledger.parent, folder):
            whole = bulkbind(*command(place, url, folder / "ledger.db"), home=place)

    assert refused.returncode == 4
    assert "mounted as a single file" in refused.stderr
    assert (plain.returncode, whole.returncode) == (0, 0)


@pytest.mark.parametrize("kind", ["current", "copied without its log", "of an older version"])
def test_a_ledger_on_a_read_only_disk_is_read(place, kind):
    """Runs, status and report say the same as before; a run says that it is read-only."""
    ledger, seen = place / "state/ledger.db", place / "seen"
    seen.mkdir()
    with sandbox(home=place) as url:
        if kind == "of an older version":
            shutil.copy(OLD, ledger)
        else:
            bulkbind(*command(place, url, ledger), home=place, check=0)
        if kind == "copied without its log":
            for file in (place / "state").glob("ledger.db-*"):
                assert not file.stat().st_size or file.name.endswith("-shm")
                file.unlink()
        before = sorted((place / "state").iterdir())
        with mounted(ledger.parent, seen, "ro"):
            there = ("--ledger", seen / "ledger.db")
            runs = bulkbind("runs", *there, home=place)
            state = bulkbind("status", *there, home=place)
            report = bulkbind("report", *there, "--out", place / "r", home=place)
            sent = bulkbind(*command(place, url, seen / "ledger.db"), home=place)
        after = sorted((place / "state").iterdir())

    assert [runs.returncode, state.returncode, report.returncode] == [0, 0, 0], runs.stderr
    assert sum(statuses(place / "r").values()) == len_of(ledger)
    assert sent.returncode == 4
    assert "read-only" in sent.stderr.lower()
    assert after == before


def len_of(ledger):
    """Return how many rows a ledger has of its newest run."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro&immutable=1", uri=True)) as db:
        query = "SELECT count(*) FROM rows WHERE run = (SELECT max(run) FROM runs)"
        return db.execute(query).fetchone()[0]


def test_a_log_on_a_read_only_disk_is_read_with_its_ledger(place):
    """What a killed run left in the log is not forgotten."""
    ledger, seen = place / "state/ledger.db", place / "seen"
    seen.mkdir()
    with sandbox("--fault", "delay-before=1,for=1s", home=place) as url:
        with process(*command(place, url, ledger), home=place) as first:
            while count_rows(ledger, "bound") < 4:
                assert first.poll() is None
            first.kill()
        (place / "state/ledger.db-shm").unlink()
        assert (place / "state/ledger.db-wal").stat().st_size
        with mounted(ledger.parent, seen, "ro"):
            where = ("--ledger", seen / "ledger.db")
            report = bulkbind("report", *where, "--out", place / "r", home=place)

    assert report.returncode == 0, report.stderr
    assert statuses(place / "r")["bound"] == count_rows(ledger, "bound") >= 4


def test_two_readers_bring_an_old_ledger_up_to_date_once(place):
    """Whoever comes second finds it done, also if it read the old version first."""
    ledger = place / "state/ledger.db"
    for _ in range(3):
        shutil.copy(OLD, ledger)
        with process("runs", "--ledger", ledger, home=place) as first:
            second = bulkbind("runs", "--ledger", ledger, home=place)
            out, error = first.communicate()
        assert (first.returncode, second.returncode) == (0, 0), error + second.stderr
        assert out == second.stdout


def test_a_reader_does_not_upgrade_a_ledger_that_a_run_of_an_older_version_holds(place):
    """That run would no longer understand it; the reader reads a copy."""
    ledger = place / "state/ledger.db"
    shutil.copy(OLD, ledger)
    before = ledger.read_bytes()
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, f"{ledger}.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        shown = bulkbind("runs", "--ledger", ledger, home=place)
        while_held = ledger.read_bytes()
        holder.stdin.close()
    after = bulkbind("runs", "--ledger", ledger, home=place)

    assert (shown.returncode, after.returncode) == (0, 0), shown.stderr
    assert shown.stdout == after.stdout
    assert while_held == before != ledger.read_bytes()


def test_a_ledger_to_which_nothing_was_sent_takes_a_new_endpoint(place):
    """A mistyped endpoint can be fixed; once a row was sent, the ledger is that endpoint's."""
    ledger = place / "state/ledger.db"
    with sandbox(home=place) as url, sandbox(home=place) as another:
        typo = bulkbind(*command(place, "http://127.0.0.1:1", ledger), home=place)
        plan = bulkbind(
            *("plan", place / "fleet.csv", "--endpoint", url, "--ledger", ledger), home=place
        )
        fixed = bulkbind(*command(place, url, ledger), home=place)
        later = bulkbind(*command(place, another, ledger), home=place)

    assert (typo.returncode, plan.returncode, fixed.returncode) == (3, 0, 0), plan.stderr
    assert later.returncode == 4
    assert f"belongs to {url}" in later.stderr

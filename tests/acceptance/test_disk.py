"""Disks that are full, read-only or gone, and ledgers that are damaged; each in a small tmpfs.

What counts is what stands on the server afterwards, and that the next run finds it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from bulkbind import load_settings, run, write_report
from bulkbind.errors import LedgerError
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    ask,
    bulkbind,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 300


def mounted(*arguments: str) -> bool:
    """Call mount; return whether it was permitted."""
    return not subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode  # noqa: S607  # a system's own


@contextmanager
def mount(*arguments: str, at: Path):
    """Mount for the block, or skip the test."""
    if not mounted(*arguments, str(at)):
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=False)  # noqa: S607  # as above


@pytest.fixture
def small(tmp_path):
    """Return a function that mounts a small disk."""
    folder: Path = tmp_path / "small"
    folder.mkdir()
    with ExitStack() as stack:

        def make(size: str) -> Path:
            stack.enter_context(mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", at=folder))
            return folder

        yield make


def fill(folder: Path) -> Path:
    """Leave no byte free on a disk, and return the file that takes the room."""
    path = folder / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return path


def until(condition, seconds=20.0):
    """Poll until something holds; fail where it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)  # noqa: TID251  # polling other processes


def binds(url):
    """Return how many binds a sandbox has done."""
    return ask(f"{url}/sandbox/stats").get("binds", 0)


def assert_once(url, folder, rows=ROWS):
    """Report and server agree on every device, and none was posted after it was bound."""
    held = {(x["userId"], x["machineCode"]): x["deviceId"] for x in sandbox_bindings(url)}
    told = {(x["user_id"], x["machine_code"]): x["device_id"] for x in read_results(folder)}
    assert statuses(folder).keys() <= {"bound", "skipped"}
    assert told == held
    assert len(held) == rows
    assert ask(f"{url}/sandbox/stats").get("posted_again", 0) == 0


def assert_plain(done, words):
    """The error is a text with a hint, and no traceback."""
    stderr = done if isinstance(done, str) else done.stderr
    assert "Traceback" not in stderr, stderr
    assert words in stderr
    assert "hint: " in stderr


# --- the ledger's disk ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_is_full_while_staging_sends_nothing(tmp_path, small):
    """Exit 4 before anything is sent; with room, the same command binds everything once."""
    disk = small("300k")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3000))
    with sandbox(home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--ledger", disk / "l.db", "--out", "out")
        full = bulkbind(*command, home=tmp_path, check=4)
        requests = ask(f"{url}/sandbox/stats")["requests"]
        write_csv(tmp_path / "fleet.csv", fleet(ROWS))
        mounted("-o", "remount,size=20m", str(disk))
        bulkbind(*command, home=tmp_path, check=0)
        assert_once(url, tmp_path / "out")

    assert_plain(full, "full")
    assert requests == 0


@pytest.mark.slow
def test_a_disk_that_fills_while_sending_is_gone_on_with(tmp_path, small):
    """Exit 4 in the middle; what was in flight is found in the list, and nothing is sent twice."""
    disk = small("40m")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(600))
    config = "readback_settle: 200ms\nbackoff_base: 50ms\nbackoff_cap: 100ms\nmax_attempts: 20\n"
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    with sandbox("--fault", "500=0.2", "--second-bind", "error", home=tmp_path) as url:
        common = ("--endpoint", url, "--ledger", disk / "l.db", "--out", "out")
        command = ("run", manifest, *common, "--config", "config.yaml")
        with process(*command, "--rate", "400", home=tmp_path) as started:
            until(lambda: binds(url) > 100)
            filler = fill(disk)
            _, stderr = started.communicate(timeout=30)
        sent = binds(url)
        filler.unlink()
        bulkbind(*command, home=tmp_path, check=0)
        assert_once(url, tmp_path / "out", 600)

    assert started.returncode == 4, stderr
    assert_plain(stderr, "broke off")
    assert sent < 600


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["file", "folder"])
def test_a_ledger_that_vanishes_while_sending_is_said(tmp_path, gone):
    """No false success: exit 4, all that it held is put back, and the next run goes on from it."""
    folder = tmp_path / "ledgers"
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    (tmp_path / "config.yaml").write_text("readback_settle: 100ms\n", encoding="utf-8")
    with sandbox("--second-bind", "error", home=tmp_path) as url:
        common = ("--endpoint", url, "--ledger", folder / "l.db", "--out", "out")
        command = ("run", manifest, *common, "--config", "config.yaml")
        with process(*command, "--rate", "300", home=tmp_path) as started:
            until(lambda: binds(url) > 50)
            for path in [*folder.iterdir()]:
                path.unlink()
            if gone == "folder":
                folder.rmdir()
            _, stderr = started.communicate(timeout=30)
        again = bulkbind(*command, home=tmp_path, check=0)
        assert_once(url, tmp_path / "out")

    assert started.returncode == 4, stderr
    assert_plain(
        stderr, "was deleted or replaced while it was in use; all that it held was put back"
    )
    assert "resuming run" in again.stderr
    assert not list(folder.glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_ledger_that_is_read_only_sends_nothing(tmp_path, what):
    """Exit 4, the reason is told, and the server has seen nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(5))
    ledger = tmp_path / "state" / "l.db"
    with sandbox(home=tmp_path) as url:
        command = ("--endpoint", url, "--ledger", ledger)
        bulkbind("run", write_csv(tmp_path / "one.csv", fleet(1)), *command, home=tmp_path, check=0)
        place = ledger if what == "file" else ledger.parent
        with mount("--bind", str(place), at=place):
            if not mounted("-o", "remount,ro,bind", str(place)):
                pytest.skip("nothing can be mounted read-only here")
            done = bulkbind("run", manifest, *command, home=tmp_path, check=4)
            shown = bulkbind("runs", *command, home=tmp_path)
        stats = ask(f"{url}/sandbox/stats")

    assert "Traceback" not in done.stderr + shown.stderr
    assert "ead-only" in done.stderr or "readonly" in done.stderr
    assert stats["binds"] == 1


# --- the report's disk, and the log's -------------------------------------------------------------


@pytest.mark.slow
def test_a_full_report_folder_loses_nothing(tmp_path, small):
    """Exit 4 after the sending; the report can be written elsewhere, and tells everything."""
    disk = small("64k")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    with sandbox(home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--out", disk / "out")
        with process(*command, "--rate", "500", home=tmp_path) as started:
            until(lambda: binds(url) > 20)
            fill(disk)
            _, stderr = started.communicate(timeout=30)
        bulkbind("report", "--endpoint", url, "--out", "out", home=tmp_path, check=0)
        assert_once(url, tmp_path / "out")

    assert started.returncode == 4, stderr
    assert_plain(stderr, "has ended, but report file")
    assert "bulkbind report" in stderr
    assert not [path for path in disk.rglob("*") if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "while it sends"])
def test_a_read_only_report_folder_is_said(tmp_path, small, when):
    """Read-only from the start: 2 and nothing is sent; later: 4, and nothing is lost."""
    disk = small("1m")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    with sandbox(home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--out", disk / "out")
        if when == "before":
            mounted("-o", "remount,ro", str(disk))
        with process(*command, "--rate", "500", home=tmp_path) as started:
            if when != "before":
                until(lambda: binds(url) > 20)
                mounted("-o", "remount,ro", str(disk))
            _, stderr = started.communicate(timeout=30)
        if when == "before":
            assert binds(url) == 0
        bulkbind("run", manifest, "--endpoint", url, "--out", "out", home=tmp_path, check=0)
        assert_once(url, tmp_path / "out")

    assert started.returncode == (2 if when == "before" else 4), stderr
    assert_plain(stderr, "cannot be written")


@pytest.mark.slow
def test_a_full_log_ends_no_run(tmp_path, small):
    """A log that cannot be written any more changes nothing."""
    disk = small("64k")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    log = disk / "run.log"
    log.touch()
    filler = fill(disk)
    os.truncate(filler, filler.stat().st_size - 4096)
    with sandbox(home=tmp_path) as url:
        logs = ("--log-file", log, "--log-level", "debug", "--log-devices")
        command = ("run", manifest, "--endpoint", url, "--out", "out", *logs)
        done = bulkbind(*command, home=tmp_path)
        assert_once(url, tmp_path / "out")

    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# --- damaged ledgers ------------------------------------------------------------------------------


def pages_of_garbage(data: bytes) -> bytes:
    """Return a ledger whose middle is noise."""
    third = len(data) // 3 // 4096 * 4096
    return data[:third] + b"\xa5\x5a" * (third // 2) + data[2 * third :]


def another_program(path: Path) -> None:
    """Put a database of somebody else in a ledger's place."""
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, status TEXT)")
        db.execute("PRAGMA user_version = 1")


def newer(path: Path) -> None:
    """Make a ledger of the future."""
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {version + 1}")


def noise(path: Path) -> None:
    """Overwrite the middle of a ledger."""
    path.write_bytes(pages_of_garbage(path.read_bytes()))


def folder(path: Path) -> None:
    """Put a folder in a ledger's place."""
    path.unlink()
    path.mkdir()


DAMAGE = {
    "noise in the middle": noise,
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 8192 * 4096),
    "its head": lambda path: os.truncate(path, 50),
    "text": lambda path: path.write_text("machine_code,user_id\n" * 500, encoding="utf-8"),
    "another program's": another_program,
    "a newer one": newer,
    "a folder": folder,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return the manifest, the sandbox and the ledger of a run that has ended."""
    home = tmp_path_factory.mktemp("good")
    manifest = write_csv(home / "fleet.csv", fleet(600))
    with sandbox(home=home) as url:
        common = ("--endpoint", url, "--ledger", home / "l.db")
        bulkbind("run", manifest, *common, home=home, check=0)
        yield manifest, url, (home / "l.db").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_ledger_is_refused_and_left_alone(tmp_path, good, name):
    """Whoever sends or reads ends with 4 and a hint; no byte of the file changes."""
    manifest, url, data = good
    ledger = tmp_path / "l.db"
    ledger.write_bytes(data)
    DAMAGE[name](ledger)
    before = ledger.read_bytes() if ledger.is_file() else None
    sent = binds(url)
    given = {"endpoint": url, "auth.token": "any", "ledger": ledger, "rebind": True}
    settings = load_settings(None, given | {"out": tmp_path / "out"})

    with pytest.raises(LedgerError) as of_run:
        asyncio.run(run([manifest], settings))
    with pytest.raises(LedgerError) as of_report:
        write_report(settings)

    for error in (of_run.value, of_report.value):
        assert error.exit_code == 4
        assert "l.db" in str(error)
        assert error.hint
    assert before == (ledger.read_bytes() if ledger.is_file() else None)
    assert binds(url) == sent


@pytest.mark.slow
def test_a_ledger_without_its_log_ends_right(tmp_path):
    """A killed run whose WAL is deleted has forgotten much; the server's word makes up for it."""
    ledger = tmp_path / "l.db"
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    (tmp_path / "config.yaml").write_text("readback_settle: 100ms\n", encoding="utf-8")
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url, "--ledger", ledger, "--out", "out")
        command = ("run", manifest, *common, "--config", "config.yaml")
        with process(*command, "--rate", "300", home=tmp_path) as started:
            until(lambda: binds(url) > 100)
            started.send_signal(signal.SIGKILL)
            started.wait(10)
        ledger.with_name("l.db-wal").unlink()
        bulkbind(*command, home=tmp_path, check=0)
        held = sandbox_bindings(url)

    told = {(x["machine_code"], x["device_id"]) for x in read_results(tmp_path / "out")}
    assert statuses(tmp_path / "out").keys() <= {"bound", "already_bound"}
    assert told == {(x["machineCode"], x["deviceId"]) for x in held}
    assert len(held) == ROWS

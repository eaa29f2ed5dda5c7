"""Rough treatment: closed streams, odd names, links, questions, hangs, full disks."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    count_rows,
    environment,
    ledger_of,
    process,
    read_results,
    sandbox,
    statuses,
)


def shell(script, home, **environ):
    """Run a shell script in which `bulkbind` is the command; return the finished process."""
    words = " ".join(BULKBIND)
    return subprocess.run(
        ["/bin/bash", "-c", f'bulkbind() {{ {words} "$@"; }}; {script}'],
        env=environment(home, **environ),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.slow
def test_a_link_to_a_ledger_has_its_lock(tmp_path):
    """A run that holds a ledger holds it by whatever name."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    ledger, link = tmp_path / "real.db", tmp_path / "link.db"
    with sandbox(home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url)
        with process(*command, "--ledger", ledger, "--rate", "20", home=tmp_path) as first:
            until = time.monotonic() + 20
            while not count_rows(ledger, "bound") and time.monotonic() < until:
                pass
            link.symlink_to(ledger)
            second = bulkbind(*command, "--ledger", link, home=tmp_path, check=75)
            first.send_signal(signal.SIGTERM)
            first.wait(30)

    assert f"pid {first.pid}" in second.stderr


@pytest.mark.slow
def test_with_a_limit_for_each_user_the_time_left_is_that_of_the_one_who_has_most(tmp_path):
    """Others are done long before: what is settled a second says nothing of the end."""
    of_one = [(f"SN{n}", "long", "", "") for n in range(40)]
    of_others = [(f"SM{n}", f"user_{n % 8}", "", "") for n in range(40)]
    manifest = write_csv(tmp_path / "fleet.csv", of_one + of_others)
    config = tmp_path / "config.yaml"
    config.write_text("rate_scope: x-user-id\nrate: 300/min\n")
    with sandbox(home=tmp_path) as url:
        known = ("--endpoint", url, "--config", config)
        with process("run", manifest, *known, home=tmp_path) as started:
            told: dict[str, Any] = {"counts": {}}
            while told["counts"].get("bound", 0) < 50 and started.poll() is None:
                said = bulkbind("status", *known, "--json", home=tmp_path, check=None)
                told = json.loads(said.stdout) if said.returncode == 0 else told
            started.wait(30)

    pending = told["counts"]["pending"]
    assert 0 < pending < 40
    assert told["left_s"] >= 0.6 * pending / 5


@pytest.mark.slow
def test_few_rows_are_in_question_at_a_slow_pace(tmp_path):
    """At 5/s, a kill leaves some seconds' worth of rows claimed, and they cost no attempt."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(60))
    config = tmp_path / "config.yaml"
    config.write_text("readback_settle: 200ms\nmax_attempts: 1\n")
    with sandbox(home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--config", config, "--out", "report")
        with process(*command, "--rate", "5", home=tmp_path) as started:
            until = time.monotonic() + 30
            while ask(f"{url}/sandbox/stats").get("binds", 0) < 8 and time.monotonic() < until:
                pass
            started.send_signal(signal.SIGKILL)
            started.wait(10)
            claimed = count_rows(ledger_of(tmp_path, url), "claimed")
        bulkbind(*command, home=tmp_path, check=0)
        stats = ask(f"{url}/sandbox/stats")

    assert 0 < claimed <= 20
    assert statuses(tmp_path / "report") == {"bound": 60}
    assert stats.get("posted_again", 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&-"], ids=["stdin", "stderr", "stdout"])
def test_a_closed_stream_changes_nothing(tmp_path, closed):
    """As daemons and cron have it: the run does its work and ends with its own code."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        done = shell(f"bulkbind run fleet.csv --endpoint {url} --out report {closed}", tmp_path)

    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "report") == {"bound": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sink", "code"),
    [("| true; exit ${PIPESTATUS[0]}", 0), ("> /dev/full", 4)],
    ids=["gone", "full"],
)
def test_a_bad_standard_output_loses_no_summary(tmp_path, sink, code):
    """A reader that has gone changes nothing; a full disk is said; both after the summary."""
    write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        done = shell(f"bulkbind run fleet.csv --json --endpoint {url} {sink}", tmp_path)

    assert done.returncode == code, done.stderr
    assert "3  bound by this run" in done.stderr


@pytest.mark.slow
def test_logs_to_a_broken_pipe_do_not_end_a_run(tmp_path):
    """When whoever reads the log has gone, the run goes on."""
    write_csv(tmp_path / "fleet.csv", fleet(20))
    with sandbox(home=tmp_path) as url:
        script = f"bulkbind run fleet.csv --out report --log-level debug --endpoint {url}"
        done = shell(f"{script} 2>&1 | true; exit ${{PIPESTATUS[0]}}", tmp_path)

    assert done.returncode == 0
    assert statuses(tmp_path / "report") == {"bound": 20}


@pytest.mark.slow
def test_a_file_name_that_is_no_text_is_shown_and_stored(tmp_path):
    """Bytes that are not UTF-8, and line breaks, stand as escapes in report and ledger."""
    name = os.fsencode(tmp_path) + b"/fleet\xff\n.csv"
    with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123  # a path of bytes
        file.write("machine_code,user_id\nA,u\nB-,u\n")
    with sandbox(home=tmp_path) as url:
        script = f"bulkbind run fleet*.csv --on-invalid skip --out report --endpoint {url}"
        done = shell(script, tmp_path)
        runs = bulkbind("runs", "--json", "--endpoint", url, home=tmp_path, check=0)

    assert done.returncode == 1, done.stderr
    assert json.loads(runs.stdout)[0]["manifests"] == ["fleet\\udcff\\n.csv"]


@pytest.mark.slow
def test_an_open_pipe_as_manifest_can_be_interrupted(tmp_path):
    """`run -` that waits for its other end stops at Ctrl-C."""
    # Tests that are run in the background ignore it, and what they start would as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [*BULKBIND, "run", "-", "--endpoint", "http://127.0.0.1:9"],
        env=environment(tmp_path, TMPDIR=str(tmp_path)),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as waiting:
        until = time.monotonic() + 20
        while not list(tmp_path.glob("bulkbind-stdin-*")) and time.monotonic() < until:
            pass
        code = None
        while code is None and time.monotonic() < until:
            # Python may swallow one that comes in the very moment in which the file is made.
            waiting.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                code = waiting.wait(2)

    assert code == 130


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "words"),
    [("taken", "is not a folder"), ("taken/inside", "is not a folder")],
    ids=["a file", "below a file"],
)
def test_an_unusable_report_folder_is_said_before_anything_is_sent(tmp_path, place, words):
    """Exit 2, and the sandbox has seen nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    (tmp_path / "taken").write_text("a file")
    with sandbox(home=tmp_path) as url:
        done = bulkbind("run", manifest, "--endpoint", url, "--out", place, home=tmp_path, check=2)
        stats = ask(f"{url}/sandbox/stats")

    assert words in done.stderr
    assert (stats["bindings"], stats["requests"]) == (0, 0)


class Terminal:
    """bulkbind on a terminal of its own; *redirected*: what a shell is to do with its streams."""

    def __init__(self, home, *arguments, redirected=""):
        self.pid, self._file = pty.fork()
        if self.pid == 0:  # the child
            os.chdir(home)
            command = [*BULKBIND, *map(str, arguments)]
            if redirected:
                command = ["/bin/bash", "-c", f'"$@" {redirected}', "bash", *command]
            os.execve(command[0], command, environment(home, TERM="xterm"))  # noqa: S606  # ours
        self.screen = ""

    def until(self, text):
        """Read until *text* is on the screen."""
        end = time.monotonic() + 30
        while text not in self.screen and time.monotonic() < end:
            if select.select([self._file], [], [], 1.0)[0]:
                self.screen += os.read(self._file, 4096).decode("utf-8", "replace")
        assert text in self.screen, self.screen

    def type(self, keys):
        """Press keys."""
        os.write(self._file, keys)

    def close(self):
        """Close the window, and return the exit code."""
        os.close(self._file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def ended(self, again=b""):
        """Return the exit code, once it has ended; press *again* while it has not."""
        try:
            while True:
                if not select.select([self._file], [], [], 3.0)[0]:
                    # Python may swallow a Ctrl-C that comes in the very moment of a clean-up.
                    os.write(self._file, again)
                    continue
                block = os.read(self._file, 4096)
                if not block:
                    break
                self.screen += block.decode("utf-8", "replace")
        except OSError:  # how Linux says that the other end has gone
            pass
        return self.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "code", "bound"),
    [(b"y\n", 0, 3), (b"n\n", 5, 0), (b"\n", 5, 0), (b"\x03", 130, 0)],
    ids=["yes", "no", "just enter", "Ctrl-C"],
)
def test_a_terminal_is_asked(tmp_path, keys, code, bound):
    """Only a yes sends anything; everything else leaves nothing behind."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(3))
    with sandbox(home=tmp_path) as url:
        terminal = Terminal(tmp_path, "run", manifest, "--endpoint", url)
        terminal.until("? [y/N]")
        terminal.type(keys)
        ended = terminal.ended(keys if keys == b"\x03" else b"")
        stats = ask(f"{url}/sandbox/stats")

    assert ended == code, terminal.screen
    assert stats["bindings"] == bound
    assert count_rows(ledger_of(tmp_path, url), "staged") == 0


@pytest.mark.slow
def test_a_full_disk_ends_with_four_and_is_gone_on_with(tmp_path):
    """A ledger that cannot grow: exit 4, the run named, nothing lost once there is room."""
    mount = tmp_path / "small"
    mount.mkdir()
    size = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode:  # noqa: S607  # a system's own
        pytest.skip("a small file system cannot be mounted here")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(1200))
    try:
        with sandbox(home=tmp_path) as url:
            command = ("run", manifest, "--endpoint", url, "--ledger", mount / "l.db")
            full = bulkbind(*command, "--out", "report", home=tmp_path)
            subprocess.run(["mount", "-o", "remount,size=50m", str(mount)], check=True)  # noqa: S607  # as above
            after = bulkbind(*command, "--out", "report", home=tmp_path)
            stats = ask(f"{url}/sandbox/stats")
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)  # noqa: S607  # as above

    assert full.returncode == 4, full.stderr
    assert "Traceback" not in full.stderr
    assert after.returncode == 0, after.stderr
    assert statuses(tmp_path / "report").keys() <= {"bound", "skipped"}
    assert stats["bindings"] == 1200
    assert stats.get("posted_again", 0) == 0


@pytest.mark.slow
def test_a_rough_night_is_sent_at_its_pace(tmp_path):
    """300 rows at 60/s take five seconds, and the silent ones their time-out more.

    Some connections break off, some answers are 500, six stay away for the 8 s of a time-out. The
    same without the pacer's patience takes three time-outs and more.
    """
    manifest = write_csv(tmp_path / "fleet.csv", fleet(300))
    config = tmp_path / "settings.yaml"
    config.write_text("timeout: 8s\nreadback_settle: 100ms\nbackoff_base: 100ms\n")
    faults = ("reset-after=0.05", "500=0.05", "silence-after=0.03,count=6")
    words = [word for fault in faults for word in ("--fault", fault)]
    with sandbox("--seed", "3", *words, home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--config", config, "--yes")
        bulkbind(*command, "--rate", "60", "--out", tmp_path / "report", home=tmp_path, check=0)
        stats = ask(f"{url}/sandbox/stats")
    summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    settled = [
        datetime.fromisoformat(row["settled_at"]) for row in read_results(tmp_path / "report")
    ]
    late = [at for at in settled if (at - min(settled)).total_seconds() > 5 + 4]

    assert summary["counts"] == {"bound": 300}
    assert stats["silence-after"] == 6
    assert len(late) <= 6
    assert summary["sending_s"] < 5 + 8 + 3

"""The manual's commands, run as they stand; how `bulkbind help` shows it, also as a man page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.in_process import called
from tests.support.manual import BLOCKS, NOT_RUN, TOPICS
from tests.support.paths import ROOT
from tests.support.processes import environment, free_port, sandbox

MOST_NOT_RUN = 4
"""The set-up commands, which CI runs, and two that install by the network."""
SHELL = [block for block in BLOCKS if block.language == "sh"]
PAGES = list(dict.fromkeys(block.page for block in SHELL if block.mark != NOT_RUN))
BASH = shutil.which("bash")
GROFF = shutil.which("groff")


def test_few_blocks_are_not_run():
    """A block is of a known language; those that cannot be run here are marked, and few."""
    assert {block.language for block in BLOCKS} <= {"sh", "python", "text"}
    assert {block.mark for block in BLOCKS} <= {"", NOT_RUN}
    assert sum(block.mark == NOT_RUN for block in BLOCKS) <= MOST_NOT_RUN
    assert len(SHELL) >= 12


@pytest.fixture
def home(tmp_path):
    """Return a folder as one in which a person follows the manual, `bulkbind` on the path."""
    for name in ("samples", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("devices.csv", "fleet.csv", "inbox/week.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "samples/fleet.csv", tmp_path / name)
        os.utime(tmp_path / name, (1e9, 1e9))
    program = tmp_path / "bin/bulkbind"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bulkbind "$@"\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_runs(page, home):
    """Each command of a page ends with 0, or with the exit code that stands behind it."""
    script = "\n".join(block.text for block in SHELL if block[:3] == (page, "sh", ""))
    wanted = {
        (number, int(code))
        for number, line in enumerate(script.splitlines(), start=1)
        for code in re.findall(r"#.*\bexit code (\d+)", line)
    }
    if "bulkbind sandbox" in script:
        port = free_port()
        ended = followed(script, home, f"http://127.0.0.1:{port}", BULKBIND_PORT=str(port))
    else:
        with sandbox(home=home) as url:
            ended = followed(script, home, url)

    assert ended == wanted


def followed(script, home, endpoint, **more):
    """Run a page's commands; return the line and exit code of those that did not end with 0."""
    (home / "page.sh").write_text(script)
    environ = environment(home, BULKBIND_ENDPOINT=endpoint, ENDED=str(home / "ended"), **more)
    environ["PATH"] = f"{home / 'bin'}:{environ['PATH']}"
    trap = 'set -uo pipefail; trap \'echo "$LINENO $?" >> "$ENDED"\' ERR; . ./page.sh'
    done = subprocess.run(
        [str(BASH), "-c", trap], env=environ, cwd=home, capture_output=True, text=True, timeout=100,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    sys.stdout.write(done.stdout + done.stderr)  # shown where the test fails
    lines = (home / "ended").read_text().split() if (home / "ended").exists() else []
    return set(zip(map(int, lines[::2]), map(int, lines[1::2]), strict=True))


@pytest.mark.parametrize("topic", TOPICS)
def test_a_pipe_gets_a_topic_as_it_stands(topic, tmp_path):
    """`bulkbind help TOPIC` prints the file's text."""
    done = called("help", topic, home=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, TOPICS[topic], "")


def test_help_lists_topics_and_takes_commands(tmp_path):
    """Without a topic they are listed; a command's name shows its help; a slip is told."""
    listed = called("help", home=tmp_path).stdout
    of_command = called("help", "verify", home=tmp_path).stdout
    slip = called("help", "nightli", home=tmp_path)

    assert re.findall(r"^  ([a-z-]+)  ", listed, re.MULTILINE) == list(TOPICS)
    assert of_command.startswith("Usage: bulkbind verify ")
    assert slip.returncode == 2
    assert "did you mean `nightly`?" in slip.stderr


def test_a_terminal_gets_a_topic_rendered(tmp_path, monkeypatch):
    """Headings and tables are drawn, no line is wider than the screen, NO_COLOR is kept to."""
    from bulkbind.cli.commands import help as module  # noqa: PLC0415  # patched here

    shown: list[str] = []
    monkeypatch.setattr(module, "is_terminal", lambda _: True)
    monkeypatch.setattr("click.echo_via_pager", lambda text, **_: shown.append(text))
    done = called("help", "results", home=tmp_path, COLUMNS="80", TERM="xterm")
    plain = called("help", "results", home=tmp_path, COLUMNS="80", TERM="xterm", NO_COLOR="1")

    assert (done.returncode, plain.returncode) == (0, 0)
    bare = re.sub(r"\x1b\[[\d;]*m", "", shown[0])
    assert max(map(len, bare.splitlines())) <= 80
    assert "already_bound" in bare
    assert "| ---" not in bare
    assert "`bound`" not in bare
    assert re.search(r"\x1b\[[\d;]*3\dm", shown[0])
    assert not re.search(r"\x1b\[(?:[\d;]*;)?[349]\d", shown[1].replace("\x1b[4m", ""))


def test_the_man_page_holds_every_topic_and_command(tmp_path):
    """It is made from the same texts, and roff has nothing to say of it."""
    done = called("help", "--man", home=tmp_path)
    page = done.stdout

    assert done.returncode == 0
    for text in TOPICS.values():
        assert f".SH {text.partition(chr(10))[0].removeprefix('# ').upper()[:12]}" in page
    assert len(re.findall(r"^\.SS ", page, re.MULTILINE)) >= 20 + 18
    assert [line for line in page.splitlines() if re.match(r"'|\.(?![A-Za-z])", line)] == []


@pytest.mark.skipif(GROFF is None, reason="groff is not installed")
def test_roff_takes_the_man_page(tmp_path):
    """Without a warning."""
    page = called("help", "--man", home=tmp_path).stdout.encode()

    done = subprocess.run(
        [str(GROFF), "-Kutf8", "-man", "-ww", "-Tutf8", "-z"], input=page, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip

    said = [line for line in done.stderr.decode().splitlines() if "adjust line" not in line]
    assert (done.returncode, said) == (0, [])

"""The tests' own house: where a test lies, and which tiers there are."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
PACKAGE = ROOT / "bulkbind"


def test_unit_tests_mirror_the_package():
    """A unit test lies in its package's folder, or at the top under the name of its module."""
    unit = TESTS / "unit"
    inside = {path.parent.relative_to(unit) for path in unit.rglob("*/test_*.py")}
    at_the_top = {path.stem.removeprefix("test_") for path in unit.glob("test_*.py")}

    assert {str(folder) for folder in inside if not (PACKAGE / folder).is_dir()} == set()
    assert at_the_top <= {path.stem for path in PACKAGE.glob("*.py")}
    assert len(inside) >= 8


def test_what_tests_share_lies_in_folders():
    """Helpers are in tests/support, campaigns in tests/campaigns; nothing lies beside them."""
    assert [path.name for path in TESTS.glob("*.py")] == ["conftest.py"]


def test_set_up_runs_every_test():
    """README's command runs what plain `pytest` leaves out, and .ci/run finds it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ends = re.findall(
        r"^readme '(.+)' ", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE
    )
    [command] = [line for line in readme.splitlines() if line.endswith(ends[1])]
    words = shlex.split(command)

    assert command.startswith("python3 -m venv ")
    assert words[words.index("-m", words.index(".venv/bin/pytest")) + 1] == ""


def test_no_pattern_repeats_a_group_possessively():
    """Python before 3.11.5 matches `(a|b)*+` wrongly; `(?>(a|b)*)` is the same."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\)[*+?]\+", line)
    ]

    assert found == []


SLEEPERS = """
import pytest
from time import sleep

def test_quick(): pass
def test_long(): sleep(1.1)
@pytest.mark.slow
def test_marked(): sleep(1.2)
@pytest.fixture
def long_in_parts():
    sleep(0.4)
    yield
    sleep(0.4)
def test_parts(long_in_parts): sleep(0.4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_long_tests_without_the_mark_are_named(tmp_path, workers):
    """A run of pytest ends with them, the slowest first; setting up and taking down counts."""
    (tmp_path / "test_sleepers.py").write_text(SLEEPERS, encoding="utf-8")
    (tmp_path / "pytest.toml").write_text('[pytest]\nmarkers = ["slow: long"]\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-n", workers, tmp_path],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    _, said = done.stdout.split("over 1 s and not marked slow")
    named = re.findall(r"^([\d.]+)s test_sleepers.py::(\S+)$", said, re.MULTILINE)
    seconds = [float(text) for text, _ in named]
    assert {name for _, name in named} == {"test_long", "test_parts"}
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] > 1


READERS = ("completion", "config", "report", "runs", "schema", "status", "validate")


def test_commands_that_send_nothing_import_no_http():
    """They start in half the time: aiohttp alone takes as long as they do."""
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        f"for name in {READERS}:\n"
        "    import_module(f'bulkbind.cli.commands.{name}')\n"
        "print(*sorted({'aiohttp', 'jinja2'} & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == []

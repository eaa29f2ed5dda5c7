"""What `run --sync` asks a person, and what it does where there is none."""

from __future__ import annotations

import sys

import pytest

from tests.acceptance.test_rough import Terminal
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import sandbox, sandbox_bindings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = fleet(40, users=4)


@pytest.fixture
def bound(tmp_path):
    """Bind a fleet; return the server, and the manifest."""
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", ROWS)
        called("run", manifest, "--endpoint", url, "--yes", home=tmp_path, check=0)
        yield url, manifest


def test_a_few_are_part_of_the_question(tmp_path, bound):
    """The plan shows what leaves, and the question names both deeds."""
    url, manifest = bound
    write_csv(manifest, [*ROWS[1:], ("NEW_1", "user_1", "", "")])
    terminal = Terminal(tmp_path, "run", manifest, "--sync", "--endpoint", url)
    terminal.until("? [y/N]")
    asked = " ".join(terminal.screen.split())
    terminal.type(b"y\n")

    assert terminal.ended(b"y\n") == 0, terminal.screen
    assert "Bind 1 device of 1 user and unbind 1 device that left the manifest at" in asked
    assert f"{ROWS[0][0]} of user {ROWS[0][1]}" in asked
    listed = called("runs", "--endpoint", url, home=tmp_path, check=0).stdout.splitlines()
    assert listed[0].endswith(": 1 bound, 39 skipped; left the manifest: 1 unbound")
    assert "left the manifest" not in listed[1]
    assert len(sandbox_bindings(url)) == 40


@pytest.mark.parametrize(("typed", "code", "left"), [("y", 5, 40), ("19", 5, 40), ("20", 0, 20)])
def test_many_are_asked_for_by_their_number(tmp_path, bound, typed, code, left):
    """More than may be unbound unasked takes the number; anything else declines."""
    url, manifest = bound
    write_csv(manifest, ROWS[20:])
    terminal = Terminal(tmp_path, "run", manifest, "--sync", "--endpoint", url)
    terminal.until("Type 20 to")
    asked = " ".join(terminal.screen.split())
    terminal.type(f"{typed}\n".encode())

    assert terminal.ended(f"{typed}\n".encode()) == code, terminal.screen
    assert "more than 5% (--max-unbinds)" in asked
    assert len(sandbox_bindings(url)) == left


def test_plan_ends_as_a_run_that_needs_a_person(tmp_path, bound):
    """More than may be unbound, or a device of another user's without --move, ends with 1."""
    url, manifest = bound

    def plan(rows, *options):
        write_csv(manifest, rows)
        given = ("plan", manifest, "--sync", "--endpoint", url, *options)
        return called(*given, home=tmp_path).returncode

    moved = (ROWS[-1][0], next(row[1] for row in ROWS if row[1] != ROWS[-1][1]), "", "")
    assert plan(ROWS[1:]) == 0
    assert plan(ROWS[20:]) == 1
    assert plan(ROWS[20:], "--max-unbinds", "20") == 0
    assert plan([*ROWS[1:-1], moved]) == 1
    assert plan([*ROWS[1:-1], moved], "--move") == 0


def test_standard_input_needs_a_name(tmp_path, bound, monkeypatch):
    """Nobody can be asked there: within the limit it goes, and beyond it ends with 3."""
    url, manifest = bound

    def run(rows, *options):
        command = ("run", "-", "--sync", "--endpoint", url, *options)
        with write_csv(manifest, rows).open(encoding="utf-8") as file:
            monkeypatch.setattr(sys, "stdin", file)
            return called(*command, home=tmp_path)

    assert run(ROWS).returncode == 2
    named = ("--sync-name", "fleet")
    called("undo", "20", "--yes-unbind", "40", "--endpoint", url, home=tmp_path, check=0)
    assert run(ROWS, *named).returncode == 0
    beyond = run(ROWS[20:], *named)
    assert beyond.returncode == 3, beyond.stderr
    assert "nothing was sent" in beyond.stderr
    assert run(ROWS[1:], *named).returncode == 0
    assert len(sandbox_bindings(url)) == 39

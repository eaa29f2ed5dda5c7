"""What an unbind may cost is said before it is done; a device under a backup lock is waited for."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess

import pytest

from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    environment,
    sandbox,
    sandbox_bindings,
)

pytestmark = pytest.mark.slow
WORDS = "backup scopes, settings, records and locks"
SETTINGS = 'readback_settle: 200ms\nlocked_codes: ["13000902"]\n'


def run_id_of(folder):
    """Return the id of the run whose report stands in a folder."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["run_id"]


@pytest.fixture
def place(tmp_path):
    """Return a folder with a manifest, the same for other users, and settings."""
    write_csv(tmp_path / "fleet.csv", fleet(6, users=2))
    moved = [(code, f"new_{user}", *rest) for code, user, *rest in fleet(6, users=2)]
    write_csv(tmp_path / "moved.csv", moved)
    (tmp_path / "c.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path


def ran(place, url, *more, check=0):
    """Run a command with the endpoint and the settings; return what it printed to stderr."""
    common = ("--config", place / "c.yaml", "--endpoint", url, "--ledger", place / "l.db")
    return bulkbind(*more, *common, home=place, check=check).stderr


def asked(place, answer, *arguments):
    """Return what a person sees on a terminal who gives an answer."""
    control, terminal = pty.openpty()
    os.write(control, answer)
    done = subprocess.run(
        [*BULKBIND, *map(str, arguments)],
        env=environment(place), cwd=place, stdin=terminal, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(control)
    os.close(terminal)
    return done.stderr


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_what_an_unbind_may_cost_is_said_once_and_before_the_question(place, quiet):
    """Undo and unbind say it above the number to type, `run --move` above its question."""
    with sandbox(home=place) as url:
        ran(place, url, "run", place / "fleet.csv", "--yes", "--out", place / "out")
        common = ("--config", place / "c.yaml", "--endpoint", url, "--ledger", place / "l.db")
        run_id = run_id_of(place / "out")
        undo = asked(place, b"no\n", "undo", run_id, *common, *quiet)
        move = asked(place, b"n\n", "run", place / "moved.csv", "--move", *common, *quiet)
        plain = asked(place, b"n\n", "run", place / "fleet.csv", "--rebind", *common, *quiet)
        unbind = asked(place, b"7\n", "unbind", place / "fleet.csv", *common, *quiet)
        still = len(sandbox_bindings(url))
        asked(place, b"6\n", "unbind", place / "fleet.csv", *common, *quiet)
        assert (still, sandbox_bindings(url)) == (6, [])

    number = "Type 6 to unbind them at the sandbox"
    for shown, question in ((undo, number), (unbind, number), (move, "? [y/N]")):
        assert shown.count(WORDS) == 1
        assert shown.index(WORDS) < shown.index(question)
    assert WORDS not in plain


def test_what_an_unbind_may_cost_is_said_to_those_who_are_not_asked(place):
    """Once, by undo and by a move; a run that moves nothing does not say it."""
    with sandbox(home=place) as url:
        first = ran(place, url, "run", place / "fleet.csv", "--yes", "--out", place / "out")
        moved = ran(place, url, "run", place / "moved.csv", "--yes", "--move", "--out", place / "m")
        run_id = run_id_of(place / "m")
        undone = ran(place, url, "undo", run_id, "--yes-unbind", "6", "--out", place / "u")

    assert [text.count(WORDS) for text in (first, moved, undone)] == [0, 1, 1]


@pytest.mark.parametrize("what", ["undo", "move"])
def test_a_device_under_a_backup_lock_is_tried_again_later(place, what):
    """It is unbound once its lock has ended; until then nothing else waits for it."""
    with sandbox("--backup-lock", "8s", home=place) as url:
        ran(place, url, "run", place / "fleet.csv", "--yes", "--out", place / "out")
        if what == "undo":
            run_id = run_id_of(place / "out")
            said = ran(place, url, "undo", run_id, "--yes-unbind", "6", "--out", place / "u")
        else:
            moved = ("run", place / "moved.csv", "--yes", "--move", "--out", place / "m")
            said = ran(place, url, *moved)
        stats, bound = ask(f"{url}/sandbox/stats"), sandbox_bindings(url)

    assert stats["locked"] > 0
    assert re.search(r"\d s waiting for devices under a backup lock", said)
    assert "lists can settle doubt" not in said
    users = {record["userId"] for record in bound}
    assert users == (set() if what == "undo" else {"new_user_0", "new_user_1"})


def test_a_lock_without_a_known_code_is_a_refusal(place):
    """What stays bound is said, with the server's words, and a later undo tries it again."""
    (place / "c.yaml").write_text("readback_settle: 200ms\n", encoding="utf-8")
    with sandbox("--backup-lock", "1h", home=place) as url:
        ran(place, url, "run", place / "fleet.csv", "--yes", "--out", place / "out")
        run_id = run_id_of(place / "out")
        ran(place, url, "undo", run_id, "--yes-unbind", "6", "--out", place / "u", check=1)
        bound = sandbox_bindings(url)

    assert len(bound) == 6
    assert (place / "u" / "undo.csv").read_text(encoding="utf-8").count("13000902") == 6

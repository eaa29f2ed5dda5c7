"""What breaks while devices leave, or are taken over: a wrong token, no server, a full disk.

Each ends with its code and a sentence, forgets nothing, and is gone on with by the same command.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_disk import fill, small, until  # noqa: F401  # a fixture
from tests.acceptance.test_undo import held
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import ask, environment, free_port, process, sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
KINDS = ["unbind", "sync", "adopt"]
SETTINGS = "readback_settle: 100ms\nbackoff_base: 20ms\nbackoff_cap: 40ms\n"
WRONG = "a-token-that-nobody-accepts"


class Story:
    """A fleet of which a third leaves, its ledger, and a server on a port of its own."""

    def __init__(self, home: Path, kind: str, devices: int, ledger: Path | None = None) -> None:
        self.home, self.kind = home, kind
        home.mkdir(exist_ok=True)
        self.port = str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.rows = fleet(devices, users=devices // 4)
        self.leaving = self.rows[: devices // 3]
        self.ledger = ledger or home / "ledger.db"
        (home / "settings.yaml").write_text(SETTINGS, encoding="utf-8")
        write_csv(home / "fleet.csv", self.rows)
        write_csv(home / "leavers.csv", self.leaving)
        write_csv(home / "rest.csv", self.rows[len(self.leaving) :])

    def serve(self, *options: str):
        """Serve what is bound so far."""
        state = str(self.home / "state.jsonl")
        accepted = ("--accept-token", environment(self.home)["BULKBIND_TOKEN"])
        where = ("--port", self.port, "--state", state)
        return sandbox(*where, *accepted, *options, home=self.home)

    def begin(self) -> None:
        """Bind the fleet."""
        ledger = self.home / "old.db" if self.kind == "adopt" else self.ledger
        where = ("--endpoint", self.url, "--ledger", ledger, "--out", "first")
        scope = ("--sync-name", "fleet", "--quiet", "--yes")
        called("run", "fleet.csv", *scope, *where, home=self.home, check=0)
        assert len(held(self.url)) == len(self.rows)

    def command(self) -> tuple[str | Path, ...]:
        """Return what is to be broken."""
        many = str(len(self.leaving))
        does = {
            "unbind": ("unbind", "leavers.csv", "--yes-unbind", many, "--out", "report"),
            "sync": (
                *("run", "rest.csv", "--sync", "--sync-name", "fleet", "--yes"),
                *("--max-unbinds", many, "--out", "report"),
            ),
            "adopt": ("adopt", "fleet.csv"),
        }
        where = ("--endpoint", self.url, "--ledger", self.ledger, "--config", "settings.yaml")
        return (*does[self.kind], *where)

    def changes(self) -> int:
        """Return how many unbinds, or, of an adoption, lists there have been."""
        stats = ask(f"{self.url}/sandbox/stats")
        return int(stats.get("lists" if self.kind == "adopt" else "unbinds", 0))

    def check_done(self) -> None:
        """Check that what was to leave has left, and that the ledger knows just what there is."""
        there = held(self.url)
        left = [] if self.kind == "adopt" else self.leaving
        assert there.keys() == {(r[1], r[0]) for r in self.rows} - {(r[1], r[0]) for r in left}
        with closing(sqlite3.connect(self.ledger)) as db:
            query = "SELECT user_id, machine_code, device_id FROM bindings"
            assert {(user, code): device for user, code, device in db.execute(query)} == there


def assert_said(code: int, told: str, wanted: int, words: str, what_to_do: str = "hint: ") -> None:
    """Check that a command ended with a code, a sentence and a way on, and told no secret."""
    assert code == wanted, told
    assert words in told
    assert what_to_do in told
    assert not [word for word in ("Traceback", WRONG, "secret-token") if word in told], told


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_token_changes_nothing(tmp_path, kind):
    """It ends with 3 and says so; the same command then does all of it."""
    story = Story(tmp_path, kind, 12)
    with story.serve():
        story.begin()
        before = held(story.url)
        refused = called(*story.command(), home=tmp_path, BULKBIND_TOKEN=WRONG)
        assert held(story.url) == before
        called(*story.command(), home=tmp_path, check=0)

        story.check_done()
    assert_said(refused.returncode, refused.stdout + refused.stderr, 3, "HTTP 401")


def test_where_nobody_listens_nothing_is_forgotten(tmp_path):
    """It ends with 3 and says so; once somebody does, the same command does all of it.

    An endpoint that has bound devices is waited for until the deadline.
    """
    stories = [Story(tmp_path / kind, kind, 12) for kind in KINDS]
    with ExitStack() as stack:
        started = []  # together, as most of it is waiting
        for story in stories:
            with story.serve():
                story.begin()
            deadline = () if story.kind == "adopt" else ("--deadline", "4s")
            command = (*story.command(), *deadline)
            started.append(stack.enter_context(process(*command, home=story.home)))
        for story, each in zip(stories, started, strict=True):
            told = "".join(each.communicate(timeout=60))
            what_to_do = "hint: " if story.kind == "adopt" else "resume with: "
            assert_said(each.returncode, told, 3, "refused", what_to_do)
    for story in stories:
        with story.serve():
            called(*story.command(), home=story.home, check=0)

            story.check_done()


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_fills_is_gone_on_with(tmp_path, small, kind):  # noqa: F811  # the fixture
    """Exit 4 in the middle; what was in flight is looked up, and the rest is done."""
    disk = small("40m")
    story = Story(tmp_path, kind, 160, disk / "l.db")
    with story.serve("--limit", f"30/s,on={'list' if kind == 'adopt' else 'unbind'}"):
        story.begin()
        with process(*story.command(), home=tmp_path) as started:
            until(lambda: story.changes() > 10)
            filler = fill(disk)
            out, err = started.communicate(timeout=30)
    filler.unlink()
    with story.serve():
        called(*story.command(), home=tmp_path, check=0)

        story.check_done()
    assert_said(started.returncode, out + err, 4, "could not be written")

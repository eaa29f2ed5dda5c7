"""A year of a fleet, as processes: server and ledger agree after each step."""

from __future__ import annotations

import gzip
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_undo import held
from tests.support.in_process import called
from tests.support.manifests import write_csv
from tests.support.processes import ask, sandbox, statuses

if TYPE_CHECKING:
    from pathlib import Path

FLEET, USERS, WEEKLY, LEAVERS = 2_000, 200, 25, 50
SETTINGS = "readback_settle: 200ms\nconcurrency: 32\n"


class Year:
    """A fleet, its manifest, its ledger and its server."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.ledger = "first.db"
        self.manifest = home / "fleet.csv"
        self.rows = [self.device(number) for number in range(FLEET)]
        (home / "settings.yaml").write_text(SETTINGS, encoding="utf-8")

    @staticmethod
    def device(number: int) -> tuple[str, str, str, str]:
        """Return the row of a device."""
        return f"SN{number:06d}", f"user_{number % USERS}", f"van {number}", "Android_15"

    def call(self, command: str, *arguments: str | Path, check: int = 0):
        """Run a command on the fleet's ledger."""
        where = ("--endpoint", self.url, "--config", "settings.yaml", "--ledger", self.ledger)
        return called(command, *arguments, *where, home=self.home, check=check)

    def night(self, *options: str, check: int = 0) -> dict[str, int]:
        """Keep the fleet in step with its manifest; return the rows by status."""
        write_csv(self.manifest, self.rows)
        given = ("--sync", "--yes", "--quiet", "--out", "report", *options)
        self.call("run", self.manifest, *given, check=check)
        return statuses(self.home / "report")

    def left(self) -> dict[str, int]:
        """Return what became of the devices that left, by the last report."""
        summary = json.loads((self.home / "report/summary.json").read_text(encoding="utf-8"))
        found: dict[str, int] = summary["leavers"]
        return found

    def requests(self) -> dict[str, int]:
        """Return what the server has been asked, by call."""
        stats = ask(f"{self.url}/sandbox/stats")
        return {call: stats.get(call, 0) for call in ("binds", "unbinds", "lists")}

    def agree(self) -> None:
        """Check that the server holds what the manifest says, and the ledger knows just that."""
        server = held(self.url)
        with closing(sqlite3.connect(self.home / self.ledger)) as db:
            query = "SELECT user_id, machine_code, device_id FROM bindings"
            known = {(user, code): device for user, code, device in db.execute(query)}
        assert server.keys() == {(row[1], row[0]) for row in self.rows}
        assert known == server


def grow(year):
    """Let it grow night by night; a night that changes nothing sends nothing."""
    for night in range(3):
        first = FLEET + night * WEEKLY
        year.rows += [year.device(number) for number in range(first, first + WEEKLY)]
        assert year.night() == {"bound": WEEKLY, "skipped": first}
        assert year.left() == {}
        year.agree()
    before = year.requests()
    assert year.night() == {"skipped": len(year.rows)}
    assert year.requests() == before


def let_leave(year):
    """Let fifty devices leave in one night, and one come."""
    year.rows = [*year.rows[LEAVERS:], year.device(5_000 + len(year.rows))]
    assert year.night() == {"bound": 1, "skipped": len(year.rows) - 1}
    assert year.left() == {"unbound": LEAVERS}
    year.agree()


def hand_on(year):
    """Give a device to another user: it stays where it is until --move takes it there."""
    was = year.rows[0]
    year.rows[0] = (was[0], "user_of_the_stock", "", "")
    assert year.night(check=1) == {"moved": 1, "skipped": len(year.rows) - 1}
    assert (was[1], was[0]) in held(year.url)
    assert year.night("--move") == {"bound": 1, "skipped": len(year.rows) - 1}
    assert year.left() == {}
    year.agree()


def cut_off(year):
    """Cut the file off at the end of a line, within one, and packed: nothing is unbound."""
    whole, year.rows = year.rows, year.rows[:1_500]
    year.night(check=3)
    text = year.manifest.read_bytes()
    for damaged in (text[:-4], gzip.compress(text)[:-8]):
        year.manifest.write_bytes(damaged)
        given = ("--sync", "--yes", "--quiet", "--max-unbinds", "100%")
        year.call("run", year.manifest, *given, check=2)
    year.rows = whole
    year.agree()


def lose_the_ledger(year):
    """Lose the ledger: a new one adopts what is there, and binds nothing twice."""
    year.ledger = "second.db"
    write_csv(year.manifest, year.rows)
    found = json.loads(year.call("adopt", year.manifest, "--json").stdout)
    assert {k: n for k, n in found["counts"].items() if n} == {"new": len(year.rows)}
    year.agree()
    before = year.requests()
    assert year.night() == {"skipped": len(year.rows)}
    assert year.requests() == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_year_of_a_fleet(tmp_path):
    """Onboarded, grown, left, handed on, cut off, lost and adopted: one binding each, no other."""
    with sandbox(home=tmp_path) as url:
        year = Year(tmp_path, url)
        write_csv(year.manifest, year.rows)
        year.call("run", year.manifest, "--yes", "--quiet", "--out", "report")  # without --sync
        year.agree()

        for step in (grow, let_leave, hand_on, cut_off, lose_the_ledger, let_leave):
            step(year)

        assert year.requests()["binds"] == FLEET + 3 * WEEKLY + 3, "each once, the one moved twice"
        assert year.requests()["unbinds"] == 2 * LEAVERS + 1

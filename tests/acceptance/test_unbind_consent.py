"""Consent to unbind holds for what it was given for, however the run goes on."""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import closing

import pytest

from tests.acceptance.test_rough import Terminal
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import ledger_of, sandbox, sandbox_bindings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = fleet(12, users=3)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve a sandbox for all stories."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


@pytest.fixture
def fleet_of(tmp_path, url):
    """Bind a fleet of its own; return its manifest and how many of it are bound."""
    config = tmp_path / "bulkbind.yaml"
    config.write_text("readback_settle: 100ms\n", encoding="utf-8")
    name = secrets.token_hex(3).upper()
    manifest = write_csv(tmp_path / "p.csv", [(f"{name}{c}", u, d, o) for c, u, d, o in ROWS])
    where = ("--endpoint", url, "--config", config)
    done = called("run", manifest, *where, home=tmp_path)
    assert done.returncode == 0, done

    def bound() -> int:
        codes = [each["machineCode"] for each in sandbox_bindings(url)]
        return sum(code.startswith(name) for code in codes)

    assert bound() == len(ROWS)
    return manifest, where, bound


def forget(ledger) -> None:
    """Let a run that has ended be one that was cut off."""
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("UPDATE runs SET state = 'sending' WHERE state = 'stopped'")


@pytest.mark.parametrize("is_cut_off", [False, True], ids=["stopped", "cut-off"])
@pytest.mark.parametrize("goes_on", ["unbind", "resume"])
def test_a_pilots_consent_is_not_for_the_rest(tmp_path, url, fleet_of, goes_on, is_cut_off):
    """No number, or another one, unbinds none of it; its own number does."""
    manifest, where, bound = fleet_of

    def call(*given):
        return called(*given, *where, home=tmp_path)

    pilot = call("unbind", manifest, "--first", "2", "--yes-unbind", "2")
    assert (pilot.returncode, bound()) == (3, 10), pilot
    if is_cut_off:
        forget(ledger_of(tmp_path, url))
    again = ("unbind", manifest) if goes_on == "unbind" else ("resume",)

    without = call(*again)
    assert (without.returncode, bound()) == (2, 10), without
    assert f"{goes_on} " in without.stderr
    assert "--yes-unbind 10" in without.stderr
    for number in ("0", "2", "9", "12", "999"):
        wrong = call(*again, "--yes-unbind", number)
        assert (wrong.returncode, bound()) == (2, 10), wrong
        assert f"`bulkbind plan {manifest} --unbind " in wrong.stderr
    second = call(*again, "--first", "3", "--yes-unbind", "3")
    assert (second.returncode, bound()) == (3, 7), second
    assert call(*again).returncode == 2
    rest = call(*again, "--yes-unbind", "7")
    assert (rest.returncode, bound()) == (0, 0), rest


@pytest.mark.parametrize("goes_on", ["same", "left", "unbind", "resume"])
def test_what_was_wholly_agreed_to_goes_on(tmp_path, url, fleet_of, goes_on):
    """By the same number, by what is left of it, or by none; another number unbinds none."""
    manifest, where, bound = fleet_of

    def call(*given):
        return called(*given, *where, home=tmp_path)

    stopped = call("unbind", manifest, "--yes-unbind", "12", "--deadline", "1ms")
    assert stopped.returncode == 3, stopped
    assert call("unbind", manifest, "--first", "2", "--yes-unbind", "2").returncode == 3
    agreed = call("unbind", manifest, "--yes-unbind", "10", "--rate", "2", "--deadline", "1s")
    left = bound()
    assert agreed.returncode == 3, agreed
    assert 0 < left < 10

    for again in (("unbind", manifest), ("resume",)):
        wrong = call(*again, "--yes-unbind", "999")
        assert (wrong.returncode, bound()) == (2, left), wrong
    with closing(sqlite3.connect(ledger_of(tmp_path, url))) as db:
        query = "SELECT count(*) FROM rows WHERE status IN ('staged', 'claimed')"
        pending = str(db.execute(query).fetchone()[0])
    command = {
        "same": ("unbind", manifest, "--yes-unbind", "10"),
        "left": ("unbind", manifest, "--yes-unbind", pending),
        "unbind": ("unbind", manifest),
        "resume": ("resume",),
    }
    done = call(*command[goes_on])
    assert (done.returncode, bound()) == (0, 0), done


@pytest.mark.parametrize("goes_on", ["unbind", "resume"])
def test_a_person_is_asked_for_the_rest(tmp_path, fleet_of, goes_on):
    """After a pilot its number is to be typed; anything else leaves the run as it is."""
    manifest, where, bound = fleet_of
    done = called("unbind", manifest, "--first", "2", "--yes-unbind", "2", *where, home=tmp_path)
    assert done.returncode == 3, done
    again = ("unbind", manifest) if goes_on == "unbind" else ("resume",)

    for typed, code, left in (("2", 5, 10), ("10", 0, 0)):
        terminal = Terminal(tmp_path, *again, *where)
        terminal.until("Type 10 to unbind them at")
        terminal.type(f"{typed}\n".encode())
        assert terminal.ended(f"{typed}\n".encode()) == code, terminal.screen
        assert bound() == left


def test_the_mail_has_one_command_to_paste(tmp_path, fleet_of):
    """With the number, the endpoint and whole paths; what it says can be given anywhere."""
    manifest, where, bound = fleet_of

    told = called("unbind", "p.csv", "--any", "--quiet", *where, home=tmp_path)

    commands = [line for line in told.stderr.splitlines() if "unbind" in line and "p.csv" in line]
    assert told.returncode == 2
    given = [line for line in commands if "--endpoint" in line]
    assert len(given) == 1, told.stderr
    words = given[0].partition("`")[2].partition("`")[0].split()
    assert words[1:3] == ["unbind", str(manifest)]
    assert words[-2:] == ["--yes-unbind", "12"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = called(*words[1:], "--json", home=tmp_path)
    assert (done.returncode, bound()) == (0, 0), done
    assert json.loads(done.stdout)["counts"] == {"unbound": 12}

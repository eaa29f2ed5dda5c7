"""`bulkbind adopt`: a ledger is filled from the server's lists, and says what differed."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_undo import delete, held, run_id_of
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import ask, process, read_results, sandbox, statuses

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = fleet(60, users=6)
SETTINGS = "readback_settle: 200ms\n"


class Place:
    """A home with a settings file, and a sandbox."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url
        self.config = home / "settings.yaml"
        self.config.write_text(SETTINGS, encoding="utf-8")
        self.manifest = write_csv(home / "fleet.csv", ROWS)

    def call(self, command, *arguments, ledger="new.db", check=0):
        """Run a command with a ledger, and return the finished process."""
        where = ("--endpoint", self.url, "--config", self.config, "--ledger", ledger)
        return called(command, *arguments, *where, home=self.home, check=check)

    def adopt(self, *arguments, check=0, **more):
        """Adopt, and return what `--json` printed."""
        given = arguments or (self.manifest,)
        return json.loads(self.call("adopt", *given, "--json", check=check, **more).stdout)

    def requests(self):
        """Return the number of binds, unbinds and lists so far."""
        stats = ask(f"{self.url}/sandbox/stats")
        return tuple(stats.get(call, 0) for call in ("binds", "unbinds", "lists"))

    def bindings(self, ledger="new.db"):
        """Return what a ledger knows as bound: user, code, device id."""
        with (
            closing(sqlite3.connect(f"file:{self.home / ledger}?mode=ro", uri=True)) as db,
            suppress(sqlite3.OperationalError),  # it is only being made
        ):
            query = "SELECT user_id, machine_code, device_id FROM bindings"
            return {(user, code): device for user, code, device in db.execute(query)}
        return {}


@pytest.fixture
def place(tmp_path):
    """Serve a sandbox, and bind the fleet to it with another ledger."""
    with sandbox(home=tmp_path) as url:
        place = Place(tmp_path, url)
        place.call("run", place.manifest, "--out", "first", "--yes", ledger="old.db")
        yield place


def differing(found):
    """Return the counts of an adoption but zeros."""
    return {kind: count for kind, count in found["counts"].items() if count}


def test_a_new_ledger_binds_nothing_twice(place):
    """After adopt, run sends nothing; undo leaves alone what was taken over."""
    _, _, lists = place.requests()

    found = place.adopt()
    _, _, after = place.requests()

    assert differing(found) == {"new": 60}
    assert (found["users"], found["exit_code"]) == (6, 0)
    assert after - lists == 12, "one call a user, twice where something differs"
    assert place.bindings() == place.bindings("old.db") == held(place.url)
    before = place.requests()
    place.call("run", place.manifest, "--out", "second", "--yes")
    assert statuses(place.home / "second") == {"skipped": 60}
    assert place.requests() == before
    run_id = run_id_of(place.home / "second")
    place.call("undo", run_id, "--yes-unbind", "0", "--out", "undone")
    assert len(held(place.url)) == 60


def test_adopting_again_finds_the_same_with_one_call_a_user(place):
    """Nothing differs any more."""
    place.adopt()
    _, _, lists = place.requests()

    found = place.adopt()

    assert differing(found) == {"same": 60}
    assert place.requests()[2] - lists == 6


def test_what_differs_is_told_and_taken_over(place):
    """New, gone, under another user, bound anew: the ledger then agrees with the server."""
    place.adopt()
    lost, moved, anew = ROWS[0], ROWS[1], ROWS[2]
    ids = held(place.url)
    for row in (lost, moved, anew):
        delete(place.url, row[1], ids[row[1], row[0]])
    more = [("NEW_1", "user_3", "", ""), (moved[0], "user_5", "", ""), anew]
    other = write_csv(place.home / "more.csv", more)
    place.call("run", other, "--yes", "--out", "x", ledger="third.db")

    found = place.adopt()

    assert differing(found) == {"same": 57, "new": 1, "other_user": 1, "changed": 1, "gone": 2}
    kinds = {(item["kind"], item["user_id"], item["machine_code"]) for item in found["differences"]}
    assert kinds == {
        ("new", "user_3", "NEW_1"),
        ("other_user", "user_5", moved[0]),
        ("gone", moved[1], moved[0]),
        ("gone", lost[1], lost[0]),
        ("changed", anew[1], anew[0]),
    }
    assert place.bindings() == held(place.url)


def test_who_had_a_device_before_is_asked_for_it_alone(place):
    """A device that went to a user who is asked for is looked for at the other one, too."""
    place.adopt()
    row = ROWS[1]
    delete(place.url, row[1], held(place.url)[row[1], row[0]])
    other = write_csv(place.home / "more.csv", [(row[0], "somebody", "", "")])
    place.call("run", other, "--yes", "--out", "x", ledger="third.db")

    found = place.adopt("--user-id", "somebody")

    assert differing(found) == {"other_user": 1, "gone": 1}
    assert found["users"] == 1
    assert place.bindings() == held(place.url)


def test_what_a_run_found_there_is_ours_once_it_is_adopted(place):
    """`already_bound` rows are taken over, and may then be unbound by list."""
    time.sleep(3)  # noqa: TID251  # a server's Date has whole seconds: younger might be ours
    place.call("run", place.manifest, "--out", "second", "--yes")
    assert statuses(place.home / "second") == {"already_bound": 60}
    leavers = write_csv(place.home / "leavers.csv", ROWS[:3])
    place.call("unbind", leavers, "--yes-unbind", "0", "--out", "none", check=1)
    assert {row["status"] for row in read_results(place.home / "none")} == {"not_ours"}

    found = place.adopt()

    assert differing(found) == {"taken_over": 60}
    place.call("unbind", leavers, "--yes-unbind", "3", "--out", "left")
    assert statuses(place.home / "left") == {"unbound": 3}
    assert len(held(place.url)) == 57


def test_what_lists_do_not_prove_stays_as_it_was(place):
    """A user who has lost everything: no list shows what is known, so nothing is proven."""
    place.adopt()
    lost = [row for row in ROWS if row[1] == "user_0"]
    ids = held(place.url)
    for row in lost:
        delete(place.url, row[1], ids[row[1], row[0]])

    found = place.adopt(check=1)

    assert differing(found) == {"same": 50, "not_proven": 10}
    assert len(place.bindings()) == 60


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_was_read_is_kept(tmp_path, how):
    """Interrupted or killed: what was read is known, and the next one goes through."""
    rows = fleet(80, users=80)
    with sandbox("--limit", "20/s,on=list", home=tmp_path) as url:
        place = Place(tmp_path, url)
        write_csv(place.manifest, rows)
        place.call("run", place.manifest, "--out", "first", "--yes", ledger="old.db")
        where = ("--endpoint", url, "--config", place.config, "--ledger", "new.db")
        with process("adopt", place.manifest, *where, home=tmp_path) as running:
            while not (place.home / "new.db").exists() or len(place.bindings()) < 20:
                time.sleep(0.1)  # noqa: TID251  # a process of its own
                assert running.poll() is None
            running.send_signal(how)
            out, err = running.communicate(timeout=60)

        assert running.returncode == (130 if how is signal.SIGINT else -9), err
        kept = place.bindings()
        assert 20 <= len(kept) < 80
        assert kept.items() <= place.bindings("old.db").items()
        if how is signal.SIGINT:
            assert "what was read is kept" in err
            assert "adopted as" in out


def test_a_refused_list_keeps_nobody_else_from_being_read(tmp_path):
    """A user whom the server refuses is told, and ends it with 1; the others are taken over."""
    with sandbox("--fault", "business=1,on=list,from=30s", home=tmp_path) as url:
        place = Place(tmp_path, url)
        place.call("run", place.manifest, "--out", "first", "--yes", ledger="old.db")

    with sandbox("--fault", "business=1,on=list,count=1", home=tmp_path) as url:
        place = Place(tmp_path, url)
        place.call("run", place.manifest, "--out", "second", "--yes", ledger="old2.db")

        found = place.adopt(check=1)

        assert list(found["unread"]) == ["user_0"]
        assert differing(found) == {"new": 50}


def test_where_every_list_is_refused_it_is_the_set_up(tmp_path):
    """Then nothing was read, and the error says so."""
    with sandbox("--fault", "business=1,on=list", home=tmp_path) as url:
        place = Place(tmp_path, url)
        done = place.call("adopt", place.manifest, check=3)

    assert "the list of user user_0 cannot be read" in done.stderr


def test_nobody_to_ask_for_is_an_error(place):
    """Without a manifest and without a user there is nothing to do; nor for what is no id."""
    done = place.call("adopt", check=2)

    assert "name a manifest, or a user with --user-id" in done.stderr
    for user, why in (("u 42", "visible ASCII"), ("1.5E+18", "number"), ("N/A", "placeholder")):
        done = place.call("adopt", "--user-id", user, check=2)
        assert f"user id '{user}'" in done.stderr
        assert why in done.stderr
    assert not (place.home / "new.db").exists()


def test_what_several_lists_lack_is_said_alike_and_adopt_is_named(place):
    """Two of ten devices of each user: refresh and verify prove nothing, and name adopt.

    It goes by the lists without calling that proof, and the next run sends these alone.
    """
    theirs = sorted(held(place.url).items())
    for (user, _), device_id in [*theirs[::10], *theirs[1::10]]:
        delete(place.url, user, device_id)

    given = (place.manifest, "--refresh", "--out", "again", "--yes")
    refreshed = place.call("run", *given, ledger="old.db", check=1)
    verified = place.call("verify", run_id_of(place.home / "first"), ledger="old.db", check=1)
    plan = place.call("plan", place.manifest, "--refresh", ledger="old.db", check=0)
    adopted = place.call("adopt", place.manifest, ledger="old.db")
    before = place.requests()[0]
    place.call("run", place.manifest, "--out", "mended", "--yes", ledger="old.db")

    note = next(line for line in refreshed.stderr.splitlines() if line.startswith("note: 12 bind"))
    assert "nothing proves each of them gone" in note
    assert f"bulkbind adopt {place.manifest}" in note
    assert refreshed.stderr.count("bulkbind adopt ") == 2, "the note, and the summary's cure"
    assert "12 not proven" in verified.stderr
    assert "`bulkbind adopt MANIFEST" in verified.stderr
    assert "12 known ones are on no list, but nothing proves each gone: see adopt" in plan.stdout
    assert "gone               12" in adopted.stdout
    assert "prove" not in adopted.stdout
    assert place.requests()[0] - before == 12


def test_text_says_how_many_of_what(place):
    """The lines of differences, a few of each kind, then the counts; runs list it."""
    told = place.call("adopt", place.manifest).stdout.splitlines()

    assert told[0].startswith("+ user_0 SN")
    assert "+ … and 40 more" in told
    assert any(line.split()[:2] == ["new", "60"] for line in told)
    assert "adopt 6 users: 60 new" in place.call("runs").stdout
    assert "took over what is bound, and has no rows" in place.call("status", check=2).stderr


def test_doubt_that_lists_cannot_settle_names_adopt_which_settles_it(tmp_path):
    """Others unbound known devices: the report says what to do, and it helps."""
    state = ("--state", str(tmp_path / "state.jsonl"))
    new = [(f"NEW{number}", user, "", "") for number, (_, user, *_) in enumerate(ROWS[:4])]
    later = write_csv(tmp_path / "later.csv", new)
    with sandbox(*state, home=tmp_path) as url:
        place = Place(tmp_path, url)
        place.call("run", place.manifest, "--yes")
        ids = place.bindings()
        for code, user, *_ in ROWS[:18]:
            delete(url, user, ids[user, code])
    port = ("--port", url.rpartition(":")[2])
    with sandbox(*state, *port, "--fault", "reset-before=1,on=bind,count=4", home=tmp_path):
        first = place.call("run", later, "--yes", "--out", "first", check=1).stderr
        again = place.call("run", later, "--yes", "--out", "again", check=1).stderr
        stats = ask(f"{url}/sandbox/stats")
        place.adopt(later)
        place.call("run", later, "--yes", "--out", "settled")

    assert statuses(tmp_path / "first") == {"in_doubt": 4}
    for told in (first, again):
        assert "cannot be trusted: it lacks other devices known as bound, such as SN" in told
        assert f"`bulkbind adopt {later}" in told
    assert "bulkbind adopt MANIFEST" in (tmp_path / "first" / "report.html").read_text("utf-8")
    assert (stats["reset-before"], stats.get("binds", 0)) == (4, 0)  # none was sent again
    assert statuses(tmp_path / "settled") == {"bound": 4}

"""`unbind` and its undo as commands, against a sandbox in a process of its own."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_undo import delete, held, run_id_of
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    ask,
    ledger_of,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)  # many processes each
FLEET = fleet(24, users=4)
LEAVING = FLEET[:9]


@contextmanager
def bound(home: Path, rows, *options: str):
    """Serve a sandbox to which rows are bound; yield its address, and what commands share."""
    (home / "settings.yaml").write_text("readback_settle: 300ms\n", encoding="utf-8")
    with sandbox(*options, home=home) as url:
        common = ("--endpoint", url, "--config", home / "settings.yaml", "--out", "report")
        called("run", write_csv(home / "fleet.csv", rows), *common, home=home, check=0)
        yield url, common


def bind_elsewhere(home: Path, rows, common) -> None:
    """Bind rows by another ledger, whose devices are not ours."""
    elsewhere = (*common[:-2], "--ledger", "other.db", "--out", "other")
    called("run", write_csv(home / "others.csv", rows), *elsewhere, home=home, check=0)


def keys(rows) -> set[tuple[str, str]]:
    """Return user and machine code of rows."""
    return {(user, code) for code, user, *_ in rows}


def as_list(rows):
    """Return rows as a list of leavers has them: without names."""
    return [(code, user, "", "") for code, user, *_ in rows]


def named(url: str) -> dict[tuple[str, str], tuple[str, str]]:
    """Return name and OS of every binding of a sandbox."""
    return {
        (r["userId"], r["machineCode"]): (r["deviceName"], r["deviceOS"])
        for r in sandbox_bindings(url)
    }


def requests(url: str) -> int:
    """Return how many requests a sandbox has had."""
    return int(ask(f"{url}/sandbox/stats")["requests"])


@pytest.mark.slow
def test_a_list_is_unbound_and_nothing_else(tmp_path):
    """What this ledger bound for that user: not what it found, what others bound, or moved."""
    foreign, found, moved = FLEET[20], FLEET[21], FLEET[22]
    with bound(tmp_path, FLEET[:20]) as (url, common):
        bind_elsewhere(tmp_path, [foreign, found], common)
        time.sleep(3)  # noqa: TID251  # a server's Date has whole seconds: younger might be ours
        manifest = write_csv(tmp_path / "fleet.csv", [*FLEET[:20], *FLEET[21:]])
        called("run", manifest, *common, home=tmp_path, check=0)
        assert statuses(tmp_path / "report") == {"skipped": 20, "bound": 2, "already_bound": 1}
        before = held(url)
        rows = as_list([*LEAVING, foreign, found, (moved[0], "somebody", "", "")])
        leavers = write_csv(tmp_path / "leavers.csv", [*rows, rows[0]])

        plan = called("plan", leavers, "--unbind", "--json", *common[:4], home=tmp_path, check=1)
        ended = called(
            "unbind", leavers, *common, "--yes-unbind", "9", "--json", home=tmp_path, check=1
        )

        assert set(held(url)) == set(before) - keys(LEAVING)
    results = {row["machine_code"]: row for row in read_results(tmp_path / "report")[:-1]}
    planned = json.loads(plan.stdout)
    assert planned["kind"] == "unbind"
    assert {word: n for word, n in planned["counts"].items() if n} == {
        "unbind": 9, "not_ours": 3, "duplicate": 1,
    }  # fmt: skip
    assert json.loads(ended.stdout)["counts"] == {"unbound": 9, "not_ours": 3, "duplicate": 1}
    assert {results[row[0]]["status"] for row in LEAVING} == {"unbound"}
    assert "knows of no such binding" in results[foreign[0]]["detail"]
    assert "did not bind it" in results[found[0]]["detail"]
    assert results[moved[0]]["detail"] == f"bound to user {moved[1]}"


@pytest.mark.slow
def test_the_next_night_sends_nothing_and_an_undo_binds_again(tmp_path):
    """The ledger knows what is gone; the undo binds it under the names it had, once."""
    with bound(tmp_path, FLEET) as (url, common):
        before = named(url)
        leavers = write_csv(tmp_path / "leavers.csv", as_list(LEAVING))
        called("unbind", leavers, *common, "--yes-unbind", "9", home=tmp_path, check=0)
        run_id = run_id_of(tmp_path / "report")
        verified = called("verify", run_id, *common[:4], "--json", home=tmp_path, check=0)
        sent = requests(url)

        called("unbind", leavers, *common, home=tmp_path, check=0)

        assert requests(url) == sent
        assert statuses(tmp_path / "report") == {"already_gone": 9}
        called("undo", run_id, *common, "--yes-unbind", "0", home=tmp_path, check=0)
        assert statuses(tmp_path / "report") == {"bound": 9}
        assert named(url) == before
        called("undo", run_id, *common, home=tmp_path, check=0)
        assert statuses(tmp_path / "report") == {"skipped": 9}
        runs = json.loads(called("runs", "--json", *common[:4], home=tmp_path).stdout)
    assert json.loads(verified.stdout)["users"] == 4
    assert [run["kind"] for run in reversed(runs)] == ["bind", "unbind", "unbind", "bind", "bind"]


@pytest.mark.slow
def test_unbind_wants_the_number_and_sends_nothing_without(tmp_path):
    """Off a terminal N must be given and be right: else 2, and not one request is made."""
    with bound(tmp_path, FLEET) as (url, common):
        before = requests(url)

        manifest = tmp_path / "fleet.csv"
        without = called("unbind", manifest, *common, home=tmp_path, check=2)
        wrong = called("unbind", manifest, *common, "--yes-unbind", "23", home=tmp_path, check=2)

        assert requests(url) == before
        runs = json.loads(called("runs", "--json", *common[:4], home=tmp_path).stdout)
    assert "--yes-unbind 24" in without.stderr
    assert "23 devices are meant" in wrong.stderr
    assert [run["kind"] for run in runs] == ["bind"]


@pytest.mark.slow
def test_any_takes_what_two_lists_show_and_its_undo_brings_it_back(tmp_path):
    """Also what another ledger bound; under the name that the list showed it comes back."""
    with bound(tmp_path, FLEET[6:12]) as (url, common):
        bind_elsewhere(tmp_path, FLEET[:6], common)
        before = named(url)
        leavers = write_csv(tmp_path / "leavers.csv", as_list([*FLEET[3:9], FLEET[20]]))

        called("unbind", leavers, *common, "--any", "--yes-unbind", "7", home=tmp_path, check=0)

        run_id = run_id_of(tmp_path / "report")
        assert statuses(tmp_path / "report") == {"unbound": 6, "already_gone": 1}
        assert set(held(url)) == keys([*FLEET[:3], *FLEET[9:12]])
        called("undo", run_id, *common, home=tmp_path, check=0)
        assert named(url) == before


@pytest.mark.slow
def test_what_changed_hands_meanwhile_is_left_alone(tmp_path):
    """Gone: told; bound anew under another id: told, comes back, and left alone."""
    user = FLEET[0][1]
    own = [row for row in FLEET if row[1] == user]
    with bound(tmp_path, own) as (url, common):
        before = held(url)
        for row in own[:2]:
            delete(url, user, before[user, row[0]])
        bind_elsewhere(tmp_path, own[1:2], common)
        leavers = write_csv(tmp_path / "leavers.csv", own[:4])

        called("unbind", leavers, *common, "--yes-unbind", "4", home=tmp_path, check=1)

        left = held(url)
        told = [row["status"] for row in read_results(tmp_path / "report")]
        failed = (tmp_path / "report" / "failed.csv").read_text(encoding="utf-8-sig")
    assert told == ["already_gone", "changed", "unbound", "unbound"]
    assert set(left) == keys([own[1], *own[4:]])
    assert [line.split(",")[0] for line in failed.splitlines()[1:]] == [own[1][0]]


@pytest.mark.slow
def test_an_unanswered_unbind_is_looked_up(tmp_path):
    """Carried out and not answered: the lists tell, and nothing is sent for what is gone."""
    faults = ("--fault", "reset-after=1,on=unbind,count=5")
    with bound(tmp_path, FLEET, *faults) as (url, common):
        leavers = write_csv(tmp_path / "leavers.csv", LEAVING)

        logs = ("--log-file", tmp_path / "log.jsonl")
        called("unbind", leavers, *common, *logs, "--yes-unbind", "9", home=tmp_path, check=0)

        assert set(held(url)) == keys(FLEET[9:])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["rows"] for line in log if line["event"] == "run.started"] == [len(LEAVING)]
    assert statuses(tmp_path / "report") == {"unbound": 9}
    details = [row["detail"] for row in read_results(tmp_path / "report")]
    assert any("no answer came" in detail for detail in details)


def struck(started, ledger: Path, url: str, before: int, unbinds: int) -> None:
    """Kill a process once so many unbinds of its have come to the server."""
    end = time.monotonic() + 60
    while requests(url) < before + unbinds and time.monotonic() < end:
        time.sleep(0.02)  # noqa: TID251  # polling another process
    started.kill()
    started.wait(10)
    assert ledger.exists()


def claimed(ledger: Path) -> int:
    """Return how many requests to unbind may have left without an end."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        query = "SELECT count(*) FROM unbindings WHERE status = 'claimed' AND kind = 'leave'"
        return int(db.execute(query).fetchone()[0])


@pytest.mark.slow
@pytest.mark.parametrize("goes_on", ["resume", "unbind"])
def test_a_killed_unbind_goes_on(tmp_path, goes_on):
    """By `resume` without the list, or by the same command: exactly the list has left."""
    rows = fleet(90, users=3)
    with bound(tmp_path, rows, "--limit", "30/s,on=unbind") as (url, common):
        leavers = write_csv(tmp_path / "leavers.csv", rows[:60])
        command = ("unbind", leavers, *common, "--yes-unbind", "60")
        with process(*command, home=tmp_path) as started:
            struck(started, ledger_of(tmp_path, url), url, requests(url), 35)
        assert claimed(ledger_of(tmp_path, url))
        status = json.loads(called("status", "--json", *common[:4], home=tmp_path).stdout)

        again = ("resume", *common) if goes_on == "resume" else command
        called(*again, home=tmp_path, check=0)

        assert set(held(url)) == keys(rows[60:])
    assert status["state"] == "cut off"
    assert statuses(tmp_path / "report") == {"unbound": 60}
    assert run_id_of(tmp_path / "report") == status["run_id"]


@pytest.mark.slow
def test_what_a_killed_unbind_left_is_looked_up_by_the_run_that_takes_its_place(tmp_path):
    """Nothing more is unbound; what that run names is bound in the end, whoever was first."""
    rows = fleet(90, users=3)
    with bound(tmp_path, rows, "--limit", "30/s,on=unbind") as (url, common):
        leavers = write_csv(tmp_path / "leavers.csv", rows[:60])
        command = ("unbind", leavers, *common, "--yes-unbind", "60")
        with process(*command, home=tmp_path) as started:
            struck(started, ledger_of(tmp_path, url), url, requests(url), 35)
        was = set(held(url))
        other = write_csv(tmp_path / "other.csv", rows[30:])
        unbinds = ask(f"{url}/sandbox/stats")["unbinds"]

        called("run", other, *common, home=tmp_path, check=0)

        assert ask(f"{url}/sandbox/stats")["unbinds"] == unbinds
        assert set(held(url)) == was | keys(rows[30:])
        assert claimed(ledger_of(tmp_path, url)) == 0
        with closing(sqlite3.connect(ledger_of(tmp_path, url))) as db:
            known = set(db.execute("SELECT user_id, machine_code FROM bindings"))
        assert known == set(held(url))


@pytest.mark.slow
def test_a_rehearsal_of_an_unbind_touches_nothing_real(tmp_path):
    """The devices are bound in its sandbox, and unbound there."""
    manifest = write_csv(tmp_path / "leavers.csv", LEAVING)

    called("unbind", manifest, "--rehearse", "--out", "report", home=tmp_path, check=0)

    assert statuses(tmp_path / "report") == {"unbound": 9}


@pytest.mark.slow
def test_a_pilot_of_an_unbind_stops_and_goes_on(tmp_path):
    """As many as were asked for; the same command without it does the rest."""
    with bound(tmp_path, FLEET) as (url, common):
        leavers = write_csv(tmp_path / "leavers.csv", LEAVING)
        command = ("unbind", leavers, *common)

        called(*command, "--first", "4", "--yes-unbind", "4", home=tmp_path, check=3)

        assert set(held(url)) == keys(FLEET[4:])
        called(*command, "--yes-unbind", "5", home=tmp_path, check=0)
        assert set(held(url)) == keys(FLEET[9:])

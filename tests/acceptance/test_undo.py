"""Undo, verify, export, status and moves as commands, against a sandbox in a process of its own."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from bulkbind.sandbox import Sandbox, SandboxOptions, parse_fault
from tests.campaigns.undo_campaign import undo_killed
from tests.support.in_process import called
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    environment,
    ledger_of,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)
from tests.support.sandbox_client import stamp

if TYPE_CHECKING:
    from pathlib import Path


def run_id_of(folder: Path) -> str:
    """Return the id of the run whose report stands in a folder."""
    return str(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["run_id"])


def undo_rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `undo.csv`."""
    with (folder / "undo.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def held(url: str) -> dict[tuple[str, str], str]:
    """Return the device id of every binding of a sandbox."""
    return {(r["userId"], r["machineCode"]): r["deviceId"] for r in sandbox_bindings(url)}


def delete(url: str, user: str, device_id: str) -> None:
    """Unbind a device as somebody else would."""
    headers = {
        "X-User-Id": user,
        "Authorization": "Bearer any",
        "X-Date": stamp(datetime.now(UTC)),  # noqa: TID251  # the sandbox's own clock
        "X-Traceid": "t" * 58,
    }
    address = f"{url}/koodrive/ose/v1/backup/device/{device_id}"
    request = urllib.request.Request(address, headers=headers, method="DELETE")  # noqa: S310  # loopback
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # as above
        assert json.load(answer)["code"] == 0


@pytest.mark.slow
def test_kills_in_an_undo_take_exactly_the_runs_devices(tmp_path):
    """Killed three times and gone on with: every device of the run is gone, and nothing else."""
    found = undo_killed(tmp_path, devices=400, kills=3, rate=150)

    assert found.kills_that_struck == 3
    assert found.claimed_when_struck >= 3
    assert found.left_of_the_run == 0
    assert found.lost_of_others == 0
    assert found.ledger_bindings_unlike_the_server == 0
    assert found.exit_code == 0
    assert found.statuses == {"unbound": 400}


@pytest.mark.slow
def test_undo_leaves_alone_what_is_not_the_runs(tmp_path):
    """`already_bound` rows stay; a device gone meanwhile, or bound anew, is told and left alone."""
    rows = fleet(6, users=1)
    user = rows[0][1]
    config = tmp_path / "settings.yaml"
    config.write_text("readback_settle: 300ms\n", encoding="utf-8")
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", rows)
        first = write_csv(tmp_path / "first.csv", rows[:1])
        common = ("--endpoint", url, "--config", config)
        # Another ledger binds the first device, so that this one's run finds it bound.
        elsewhere = ("--ledger", "other.db", "--out", "other")
        called("run", first, *common, *elsewhere, home=tmp_path, check=0)
        time.sleep(3)  # noqa: TID251  # a server's Date has whole seconds: younger might be ours
        called("run", manifest, *common, "--out", "report", home=tmp_path, check=0)
        run_id = run_id_of(tmp_path / "report")
        before = held(url)
        delete(url, user, before[user, rows[1][0]])
        delete(url, user, before[user, rows[2][0]])
        again = write_csv(tmp_path / "again.csv", rows[2:3])
        called("run", again, *common, *elsewhere, home=tmp_path, check=0)

        called(
            "undo", run_id, *common, "--yes-unbind", "5", "--out", "report", home=tmp_path, check=1
        )

        left = held(url)
        again_rows = undo_rows(tmp_path / "report")
    told = {row["machine_code"]: row["status"] for row in again_rows}
    assert told == {
        rows[1][0]: "already_gone",
        rows[2][0]: "changed",
        **{row[0]: "unbound" for row in rows[3:]},
    }
    assert set(left) == {(user, rows[0][0]), (user, rows[2][0])}
    assert left[user, rows[2][0]] != before[user, rows[2][0]]
    assert "device id" in next(r["detail"] for r in again_rows if r["status"] == "changed")


@pytest.mark.slow
def test_undo_wants_the_number_and_sends_nothing_without(tmp_path):
    """Off a terminal N must be given and be right: else 2, and not one request is made."""
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(7))
        common = ("--endpoint", url)
        called("run", manifest, *common, "--out", "report", home=tmp_path, check=0)
        run_id = run_id_of(tmp_path / "report")
        before = ask(f"{url}/sandbox/stats")["requests"]

        without = called("undo", run_id, *common, home=tmp_path, check=2)
        wrong = called("undo", run_id, *common, "--yes-unbind", "8", home=tmp_path, check=2)
        unknown = called("undo", "2020", *common, "--yes-unbind", "7", home=tmp_path, check=2)

        assert ask(f"{url}/sandbox/stats")["requests"] == before
    assert "--yes-unbind 7" in without.stderr
    assert "8 devices are meant" in wrong.stderr
    assert "there is no run 2020" in unknown.stderr


@pytest.mark.slow
def test_an_undone_run_is_not_gone_on_with(tmp_path):
    """A pilot that is undone leaves nothing bound, withdraws the rest, and its report says so."""
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(20))
        common = ("--endpoint", url, "--out", "report")
        called("run", manifest, *common, "--first", "8", home=tmp_path, check=3)
        run_id = run_id_of(tmp_path / "report")

        done = called(
            "undo", run_id, *common, "--yes-unbind", "8", "--quiet", home=tmp_path, check=0
        )
        called("report", run_id, *common, home=tmp_path, check=0)
        undone = statuses(tmp_path / "report")
        details = {
            row["detail"] for row in read_results(tmp_path / "report") if row["status"] == "bound"
        }
        resumed = called("resume", *common, home=tmp_path, check=2)
        again = called("undo", run_id, *common, home=tmp_path, check=0)

        assert held(url) == {}
        called("run", manifest, *common, home=tmp_path, check=0)
        assert len(held(url)) == 20
    assert done.stderr == ""
    assert undone == {"bound": 8, "withdrawn": 12}
    assert all("unbound again by undo" in detail for detail in details)
    assert "no unfinished run in the ledger" in resumed.stderr
    assert "8  unbound" in again.stderr


@pytest.mark.slow
def test_undo_settles_doubt_first(tmp_path):
    """What a killed run had sent and not heard of is looked up, and taken back as well."""
    state = ("--state", "state.jsonl")
    config = tmp_path / "settings.yaml"
    config.write_text("readback_settle: 300ms\n", encoding="utf-8")
    with sandbox(*state, home=tmp_path) as url:
        # The server's clock is known from here on: without it nothing in doubt is called our own.
        first = write_csv(tmp_path / "first.csv", [("FIRST1", "user_9", "", "")])
        called("run", first, "--endpoint", url, home=tmp_path, check=0)
    port = url.rpartition(":")[2]
    with sandbox("--port", port, "--fault", "silence-after=1,count=3", *state, home=tmp_path):
        manifest = write_csv(tmp_path / "fleet.csv", fleet(3, users=1))
        common = ("--endpoint", url, "--config", config)
        started = subprocess.Popen(
            [*BULKBIND, "run", str(manifest), *map(str, common)],
            env=environment(tmp_path),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 30
        while len(held(url)) < 2 and time.monotonic() < until:
            time.sleep(0.05)  # noqa: TID251  # polling another process
        os.kill(started.pid, signal.SIGKILL)
        started.wait(10)
        assert len(held(url)) >= 2
        run, _ = json.loads(called("runs", *common, "--json", home=tmp_path, check=0).stdout)
        called("undo", run["run_id"], *common, "--yes-unbind", "0", home=tmp_path, check=2)
        number = str(_in_doubt(ledger_of(tmp_path, url)))

        called("undo", run["run_id"], *common, "--yes-unbind", number, home=tmp_path, check=0)

        assert set(held(url)) == {("user_9", "FIRST1")}


def _in_doubt(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as db:
        query = "SELECT count(*) FROM rows WHERE status IN ('claimed', 'in_doubt')"
        return int(db.execute(query).fetchone()[0])


# --- verify, export, status ----------------------------------------------------------------------


@pytest.mark.slow
def test_verify_tells_missing_changed_and_extra(tmp_path):
    """0 while ledger and lists agree; 1 with a line for each difference, and JSON alike."""
    rows = fleet(5, users=1)
    user = rows[0][1]
    quick = tmp_path / "quick.yaml"
    quick.write_text("readback_settle: 300ms\n", encoding="utf-8")
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", rows)
        common = ("--endpoint", url, "--config", quick)
        called("run", manifest, *common, "--out", "report", home=tmp_path, check=0)
        run_id = run_id_of(tmp_path / "report")
        same = called("verify", run_id, *common, home=tmp_path, check=0)
        before = held(url)
        for row in rows[:2]:
            delete(url, user, before[user, row[0]])
        other = [(rows[1][0], user, "Another name", ""), ("EXTRA1", user, "", "")]
        elsewhere = ("--ledger", "other.db", "--out", "other")
        again = write_csv(tmp_path / "again.csv", other)
        called("run", again, *common, *elsewhere, home=tmp_path, check=0)

        text = called("verify", run_id, *common, home=tmp_path, check=1)
        told = json.loads(
            called("verify", run_id, *common, "--json", home=tmp_path, check=1).stdout
        )

    assert same.stdout == ""
    assert [line.split(":")[0] for line in text.stdout.splitlines()] == [
        f"? {user} EXTRA1",
        f"_ {user} {rows[0][0]}",
        f"~ {user} {rows[1][0]}",
    ]
    assert told["counts"] == {"same": 3, "missing": 1, "changed": 1, "extra": 1}


@pytest.mark.slow
def test_export_is_a_manifest(tmp_path):
    """What is exported for some users, run against the same server, is skipped or found bound."""
    quick = tmp_path / "quick.yaml"
    quick.write_text("max_attempts: 2\nbackoff_base: 50ms\nbackoff_cap: 50ms\n", encoding="utf-8")
    with sandbox(home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(9, users=3))
        common = ("--endpoint", url, "--config", quick)
        called("run", manifest, *common, "--out", "report", home=tmp_path, check=0)

        done = called("export", "user_2", "user_0", *common, home=tmp_path, check=0)
        called("export", "user_0", "--to", "out.csv", *common, home=tmp_path, check=0)
        called("plan", "out.csv", *common, "--json", home=tmp_path, check=0)
        bad = called("export", "user 0", *common, home=tmp_path, check=2)
    away = called("export", "user_0", *common, home=tmp_path, check=3)

    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["user_id"] for row in rows] == ["user_2"] * 3 + ["user_0"] * 3
    assert {row["device_name"] for row in rows[:3]} == {"Van 2", "Van 5", "Van 8"}
    assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o600
    assert "user id 'user 0'" in bad.stderr
    assert away.stdout == ""
    assert "the list of user user_0 cannot be read" in away.stderr


@pytest.mark.slow
def test_status_reads_beside_a_running_run(tmp_path):
    """While a run sends, another shell sees how far it is, and that its process is there."""
    with sandbox("--limit", "30/s", home=tmp_path) as url:
        manifest = write_csv(tmp_path / "fleet.csv", fleet(400))
        common = ("--endpoint", url)
        started = subprocess.Popen(
            [*BULKBIND, "run", str(manifest), *common],
            env=environment(tmp_path),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 30
            while len(held(url)) < 10 and time.monotonic() < until:
                time.sleep(0.05)  # noqa: TID251  # polling another process
            told = json.loads(called("status", *common, "--json", home=tmp_path, check=0).stdout)
            text = called("status", *common, home=tmp_path, check=0)
        finally:
            started.kill()
            started.wait(10)
        gone = called("status", *common, home=tmp_path, check=0)

    assert told["state"] == "sending"
    assert told["is_alive"] is True
    assert 0 < told["done"] < 400
    assert told["per_s"] > 0
    assert " so far  ·  about " in text.stdout
    assert "cut off: its process" in gone.stdout


# --- moves ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [None, "unbound"], ids=["through", "killed-between"])
def test_a_move_is_two_steps_that_survive_a_crash(tmp_path, kill_after):
    """Moved devices end with their new user alone, also if the run dies between the two steps."""
    rows = fleet(30, users=3)
    moved = [(code, "user_new", name, system) for code, _, name, system in rows]
    with sandbox(home=tmp_path) as url:
        common = ("--endpoint", url, "--out", "report")
        called("run", write_csv(tmp_path / "a.csv", rows), *common, home=tmp_path, check=0)
        manifest = write_csv(tmp_path / "b.csv", moved)
        left_alone = called("run", manifest, *common, home=tmp_path, check=1)
        not_moved = statuses(tmp_path / "report")
        planned = called("plan", manifest, *common[:2], "--move", home=tmp_path, check=0)
        if kill_after:
            _kill_while_moving((manifest, *common), tmp_path, url)

        called("run", manifest, *common, "--move", home=tmp_path, check=0)

        left = held(url)
        results = read_results(tmp_path / "report")
    assert not_moved == {"moved": 30}
    assert "bound to another user" in left_alone.stderr
    assert f"> {rows[0][0]}: user_0 -> user_new" in planned.stdout
    assert set(left) == {("user_new", row[0]) for row in rows}
    assert {row["status"] for row in results} == {"bound"}
    assert all("moved from user user_" in row["detail"] for row in results)


def _kill_while_moving(arguments: tuple[object, ...], home: Path, url: str) -> None:
    """Start a run that moves, slowly, and kill it once some devices are with nobody."""
    started = subprocess.Popen(
        [*BULKBIND, "run", *map(str, arguments), "--move", "--rate", "5"],
        env=environment(home),
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 30
    while len(held(url)) == 30 and time.monotonic() < until:
        time.sleep(0.01)  # noqa: TID251  # polling another process
    os.kill(started.pid, signal.SIGKILL)
    started.wait(10)
    assert 0 < len(held(url)) < 30


# --- lists that lag behind, answers about other devices -------------------------------------------


class Lagging:
    """A sandbox in this process whose lists can lag behind; commands run against it."""

    def __init__(self, served: Sandbox, home: Path) -> None:
        self.bindings = served.bindings
        self._home = home
        self._config = home / "settings.yaml"
        self._config.write_text(
            f"endpoint: {served.url}\nreadback_settle: 300ms\nout: report\n", encoding="utf-8"
        )
        self._honest = served.bindings.of
        served.bindings.of = self._of  # type: ignore[method-assign]  # a copy that lags behind
        self.empty_lists = 0
        """How many of the next lists show nothing."""
        self.lacking = ""
        """The machine code that no list shows."""

    def _of(self, user_id: str) -> list[dict[str, object]]:
        self.empty_lists -= 1
        shown = [] if self.empty_lists >= 0 else self._honest(user_id)
        return [record for record in shown if record["machineCode"] != self.lacking]

    async def ran(self, *words: object, check: int) -> str:
        """Run a command; return what it printed on standard error."""
        given = ("--config", self._config)
        done = await asyncio.to_thread(bulkbind, *words, *given, home=self._home, check=check)  # type: ignore[arg-type]  # paths and words
        return str(done.stderr)

    def held(self) -> set[tuple[str, str]]:
        """Return who has which device."""
        return {(user, record["machineCode"]) for user, record in self.bindings.everything()}


@pytest.fixture
async def lagging(tmp_path):
    """Return a server whose lists can lag behind."""
    async with Sandbox() as served:
        yield Lagging(served, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("empty", [3, 6, 100], ids=["first", "both", "all"])
async def test_an_undo_believes_no_empty_list(lagging, tmp_path, empty):
    """However many lists show nothing, what the run bound is unbound, and called so."""
    rows = fleet(30, users=3)
    await lagging.ran("run", write_csv(tmp_path / "fleet.csv", rows), check=0)
    run_id = run_id_of(tmp_path / "report")
    lagging.empty_lists = empty

    said = await lagging.ran("undo", run_id, "--yes-unbind", "30", check=0)

    assert lagging.held() == set()
    assert "30  unbound" in said
    assert {row["status"] for row in undo_rows(tmp_path / "report")} == {"unbound"}


@pytest.mark.slow
@pytest.mark.parametrize("empty", [3, 6, 100], ids=["first", "both", "all"])
async def test_a_move_leaves_no_device_with_two_users(lagging, tmp_path, empty):
    """However many lists show nothing, a moved device is its new user's alone."""
    rows = fleet(30, users=3)
    moved = [(code, "user_new", name, system) for code, _, name, system in rows]
    await lagging.ran("run", write_csv(tmp_path / "a.csv", rows), check=0)
    lagging.empty_lists = empty

    await lagging.ran("run", write_csv(tmp_path / "b.csv", moved), "--move", check=0)

    assert lagging.held() == {("user_new", row[0]) for row in rows}


@pytest.mark.slow
async def test_a_move_believes_no_list_that_lacks_just_its_device(lagging, tmp_path):
    """All lists show the user's other devices: the one that is moved is unbound all the same."""
    rows = fleet(6, users=1)
    code, _, name, system = rows[2]
    await lagging.ran("run", write_csv(tmp_path / "a.csv", rows), check=0)
    lagging.lacking = code

    moved = write_csv(tmp_path / "b.csv", [(code, "user_new", name, system)])
    await lagging.ran("run", moved, "--move", check=0)

    assert {user for user, held in lagging.held() if held == code} == {"user_new"}


@pytest.mark.slow
async def test_a_move_that_is_refused_leaves_the_device_where_it_is(tmp_path):
    """No list shows the device, and its unbind is refused: it stays `moved`, and is not sent."""
    rows = fleet(4, users=1)
    moved = [(code, "user_new", name, system) for code, _, name, system in rows]
    locked = parse_fault("business=1,on=unbind,code=13009999")
    async with Sandbox(SandboxOptions(faults=(locked,))) as served:
        lagging = Lagging(served, tmp_path)
        await lagging.ran("run", write_csv(tmp_path / "a.csv", rows), check=0)
        before, lagging.empty_lists = lagging.held(), 100

        await lagging.ran("run", write_csv(tmp_path / "b.csv", moved), "--move", check=1)

        assert lagging.held() == before
    assert statuses(tmp_path / "report") == {"moved": 4}
    assert "up to date" in read_results(tmp_path / "report")[0]["detail"]


@pytest.mark.slow
async def test_an_undo_looks_again_for_what_was_gone(lagging, tmp_path):
    """`already_gone` is counted and confirmed like the rest, and unbound if it is there."""
    rows = fleet(3, users=1)
    await lagging.ran("run", write_csv(tmp_path / "fleet.csv", rows), check=0)
    run_id = run_id_of(tmp_path / "report")
    (user, record), *_ = lagging.bindings.everything()
    lagging.bindings.unbind(user, record["deviceId"])
    first = await lagging.ran("undo", run_id, "--yes-unbind", "3", check=0)
    lagging.bindings._put(user, record)  # it had been there all the time

    refused = await lagging.ran("undo", run_id, "--yes-unbind", "0", check=2)
    second = await lagging.ran("undo", run_id, "--yes-unbind", "1", check=0)

    assert "already_gone 1" in " ".join(first.split())
    assert "has 1" in refused
    assert "3  unbound" in second
    assert lagging.held() == set()


@pytest.mark.slow
async def test_an_answer_about_another_device_is_no_unbind(lagging, tmp_path):
    """The server does nothing and answers with another device's record: failed, and still there."""
    rows = fleet(5, users=1)
    await lagging.ran("run", write_csv(tmp_path / "fleet.csv", rows), check=0)
    run_id = run_id_of(tmp_path / "report")
    records = [record for _, record in lagging.bindings.everything()]
    mine, other = records[0], records[1]
    honest = lagging.bindings.unbind

    def unbind(user_id, device_id):
        return other if device_id == mine["deviceId"] else honest(user_id, device_id)

    lagging.bindings.unbind = unbind

    await lagging.ran("undo", run_id, "--yes-unbind", "5", check=1)

    told = {row["machine_code"]: row for row in undo_rows(tmp_path / "report")}
    assert [code for code, row in told.items() if row["status"] != "unbound"] == [rows[0][0]]
    assert told[rows[0][0]]["status"] == "failed"
    assert "names another device" in told[rows[0][0]]["message"]
    assert lagging.held() == {(rows[0][1], rows[0][0])}

"""A server that counts per user, and runs of many users: real sockets, the sandbox's limits."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import bulkbind
from tests.support.manifests import fleet, write_csv
from tests.support.processes import (
    ask,
    bulkbind as run_bulkbind,
    process,
    sandbox,
    sandbox_bindings,
)

USERS, ROWS, PER_S = 40, 15, 5


@pytest.fixture
def served(tmp_path):
    """Return a function that runs USERS x ROWS rows against a sandbox with a limit."""

    async def run(limit, order, **given):
        rows = [(f"SN{u}x{r}", f"user{u}") for u in range(USERS) for r in range(ROWS)]
        if order == "interleaved":
            rows = [row for r in range(ROWS) for row in rows[r::ROWS]]
        manifest = tmp_path / "fleet.csv"
        write_csv(manifest, rows, ("machine_code", "user_id"))
        with sandbox("--limit", limit, home=tmp_path) as url:
            own = {"ledger": str(tmp_path / "l.db"), "out": str(tmp_path / "out")}
            own |= {"endpoint": url, "auth.token": "any", "rate_scope": "x-user-id"}
            result = await bulkbind.run([manifest], bulkbind.load_settings(None, own | given))
        assert result.report is not None
        assert result.exit_code == 0
        assert result.report.summary.counts == {"bound": USERS * ROWS}
        return result.report.summary.facts

    return run


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sorted", "interleaved"])
@pytest.mark.parametrize("tell", ["text", "nothing"])
async def test_users_do_not_wait_for_each_other(served, order, tell):
    """Forty users with 15 rows each at 5/s each: far from the 120 s that one after the other takes.

    Ideal are 3 s; what else happens on the machine may treble them.
    """
    facts = await served(f"{PER_S}/s,per=user,tell={tell}", order)

    assert facts.sending_s < 3 * ROWS / PER_S
    assert facts.requests_throttled < 4 * USERS
    assert facts.pace_from.startswith("for each user, ")
    assert facts.limit_per_user is not None
    assert facts.limit is None


@pytest.mark.slow
def test_what_waits_for_its_turn_survives_a_kill(tmp_path):
    """Killed in the middle and run again: every row is bound once, none was lost."""
    rows = [(f"SN{u}x{r}", f"user{u}") for u in range(USERS) for r in range(ROWS)]
    manifest, config = tmp_path / "fleet.csv", tmp_path / "settings.yaml"
    write_csv(manifest, rows, ("machine_code", "user_id"))
    config.write_text("rate_scope: x-user-id\nreadback_settle: 100ms\n")
    limit = f"{PER_S}/s,per=user,on=bind,tell=retry-after"
    with sandbox("--limit", limit, home=tmp_path) as url:
        command = ("run", manifest, "--endpoint", url, "--config", config, "--yes")
        with process(*command, home=tmp_path) as run:
            while len(sandbox_bindings(url)) < USERS * PER_S:
                assert run.poll() is None
            run.kill()
        again = run_bulkbind(*command, home=tmp_path, check=0)
        bound = Counter(item["machineCode"] for item in sandbox_bindings(url))
        posted_again = ask(f"{url}/sandbox/stats").get("posted_again", 0)

    assert bound == Counter(code for code, _ in rows)
    assert posted_again == 0, again.stderr


@pytest.mark.slow
def test_moves_lists_and_undo_go_at_the_pace_of_each_user(tmp_path):
    """What is staged behind the first rows is sent, too; lists and unbinds heed the same limit."""
    rows = fleet(30, users=3)
    moved = [(code, f"new_{user}", name, system) for code, user, name, system in rows]
    more = [(f"MORE{number}", f"new_{number % 3}", "", "") for number in range(9)]
    config = tmp_path / "settings.yaml"
    config.write_text("rate_scope: x-user-id\nreadback_settle: 100ms\n")
    with sandbox("--limit", "10/s,per=user,tell=retry-after", home=tmp_path) as url:
        common = ("--endpoint", url, "--config", config)
        run_bulkbind("run", write_csv(tmp_path / "a.csv", rows), *common, home=tmp_path, check=0)
        manifest = write_csv(tmp_path / "b.csv", [*more, *moved])
        run_bulkbind("plan", manifest, *common, "--move", "--refresh", home=tmp_path, check=0)
        report = ("--out", "report")
        run_bulkbind("run", manifest, *common, *report, "--move", home=tmp_path, check=0)
        bound = {(item["userId"], item["machineCode"]) for item in sandbox_bindings(url)}
        summary = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
        run_id = summary["run_id"]
        run_bulkbind("verify", run_id, *common, home=tmp_path, check=0)
        run_bulkbind("undo", run_id, *common, "--yes-unbind", "39", home=tmp_path, check=0)
        left = sandbox_bindings(url)

    assert bound == {(user, code) for code, user, *_ in [*more, *moved]}
    assert left == []

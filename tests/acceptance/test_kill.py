"""The installed command as a process, killed with SIGKILL while rows are claimed, and resumed."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.kit import (
    ask,
    bulkbind,
    count_rows,
    fleet,
    ledger_of,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    write_csv,
)

ROWS = 5_000
KILLS = 10


def kill_while_claimed(started, url, ledger, wanted_binds):
    """Kill the process once it has sent a share of the rows; return the rows claimed then."""
    until = time.monotonic() + 60
    while time.monotonic() < until and started.poll() is None:
        if ask(f"{url}/sandbox/stats").get("binds", 0) >= wanted_binds:
            break
    started.send_signal(signal.SIGKILL)
    started.wait(10)
    return count_rows(ledger, "claimed")


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_guess_nothing(tmp_path):
    """Every row ends once, report and server agree, and nothing bound is posted again."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(ROWS))
    config = tmp_path / "config.yaml"
    config.write_text("readback_settle: 300ms\n")
    pick = random.Random(5)
    faults = ("--fault", "reset-after=0.03", "--second-bind", "error", "--seed", "3")
    with sandbox(*faults, "--journal", str(tmp_path / "journal.jsonl"), home=tmp_path) as url:
        ledger = ledger_of(tmp_path, url)
        command = ("run", manifest, "--endpoint", url, "--config", config, "--out", "report")
        struck = 0
        for kill in range(1, KILLS + 1):
            binds = ask(f"{url}/sandbox/stats").get("binds", 0)
            share = (ROWS - binds) // (KILLS - kill + 2)
            with process(*command, home=tmp_path) as started:
                wanted = binds + pick.randint(1, share)
                struck += kill_while_claimed(started, url, ledger, wanted) > 0
        last = bulkbind(*command, home=tmp_path, check=0)
        stats = ask(f"{url}/sandbox/stats")
        held = {(item["userId"], item["machineCode"]): item for item in sandbox_bindings(url)}
    rows = read_results(tmp_path / "report")

    assert struck == KILLS
    assert len(rows) == ROWS
    assert [int(row["line"]) for row in rows] == list(range(2, ROWS + 2))
    assert {row["status"] for row in rows} == {"bound"}, last.stderr
    assert len(held) == ROWS
    for row in rows:
        record = held[row["user_id"], row["machine_code"]]
        assert (record["deviceId"], record["createTime"]) == (row["device_id"], row["create_time"])
    assert stats["reset-after"] > 50
    assert stats.get("posted_again", 0) == 0

"""Kills a run again and again while rows are claimed, then compares report, ledger and server."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from pathlib import Path

FAULTS = ("--fault", "reset-after=0.03", "--second-bind", "error", "--seed", "3")


@dataclass(frozen=True)
class Figures:
    """What a campaign came to; all but the first four should be 0."""

    kills: int
    kills_that_struck: int
    """Kills after which rows were claimed."""
    rows: int
    resets_after_the_binding: int
    rows_not_exactly_once: int
    rows_not_bound: int
    bindings_not_in_the_report: int
    report_rows_not_bound_on_the_server: int
    """Also where device id or createTime differ."""
    posted_again_after_bound: int
    exit_code: int


def kill_and_resume(home: Path, *, rows: int, kills: int, seed: int = 5) -> Figures:
    """Run a manifest of *rows* devices, killed *kills* times at random moments, to its end."""
    manifest = write_csv(home / "fleet.csv", fleet(rows))
    config = home / "config.yaml"
    config.write_text("readback_settle: 300ms\n")
    pick = random.Random(seed)
    with sandbox(*FAULTS, "--journal", str(home / "journal.jsonl"), home=home) as url:
        command = ("run", manifest, "--endpoint", url, "--config", config, "--out", "report")
        struck = 0
        for kill in range(1, kills + 1):
            binds = ask(f"{url}/sandbox/stats").get("binds", 0)
            share = max(1, (rows - binds) // (kills - kill + 2))
            with process(*command, home=home) as started:
                _kill(started, url, binds + pick.randint(1, share))
                struck += count_rows(ledger_of(home, url), "claimed") > 0
        last = bulkbind(*command, home=home)
        stats = ask(f"{url}/sandbox/stats")
        held = {(item["userId"], item["machineCode"]): item for item in sandbox_bindings(url)}
    report = read_results(home / "report")
    lines = [int(row["line"]) for row in report]
    wanted = list(range(2, rows + 2))
    called = {(row["user_id"], row["machine_code"]): row for row in report}
    bound = {key: row for key, row in called.items() if row["status"] == "bound"}
    return Figures(
        kills=kills,
        kills_that_struck=struck,
        rows=rows,
        resets_after_the_binding=stats.get("reset-after", 0),
        rows_not_exactly_once=0 if lines == wanted else len(set(lines) ^ set(wanted)) or rows,
        rows_not_bound=rows - len(bound),
        bindings_not_in_the_report=len(held.keys() - bound.keys()),
        report_rows_not_bound_on_the_server=sum(
            key not in held
            or held[key]["deviceId"] != row["device_id"]
            or held[key]["createTime"] != row["create_time"]
            for key, row in bound.items()
        ),
        posted_again_after_bound=stats.get("posted_again", 0),
        exit_code=last.returncode,
    )


def _kill(started, url: str, wanted_binds: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and started.poll() is None:
        if ask(f"{url}/sandbox/stats").get("binds", 0) >= wanted_binds:
            break
    started.send_signal(signal.SIGKILL)
    started.wait(10)

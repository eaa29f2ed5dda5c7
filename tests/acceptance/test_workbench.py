"""Settings, logs, audit, pilot and rehearsal, as a person at the command line has them."""

from __future__ import annotations

import csv
import json
import sqlite3
import stat
from contextlib import closing

import pytest
import yaml

from bulkbind.model import MEANINGS
from bulkbind.settings import SECRETS, AuthSettings
from tests.support.manifests import fleet, write_csv
from tests.support.processes import ask, bulkbind, ledger_of, read_results, sandbox, statuses


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for tests with ledgers of their own."""
    with sandbox(home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def log_lines(text: str):
    """Return the JSON lines of a text, each of which must be one."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


# --- bulkbind config -----------------------------------------------------------------------------


@pytest.mark.slow
def test_config_prints_every_setting_with_its_origin(tmp_path):
    """Flag, variable, line of the file and default are told apart, and the token is masked."""
    config = tmp_path / "my.yaml"
    config.write_text("timeout: 5s\n\nauth:\n  token_prefix: ''\n", encoding="utf-8")
    command = ("config", "--config", config, "--concurrency", "7", "--map", "machine_code=Serial")

    done = bulkbind(*command, home=tmp_path, check=0, BULKBIND_RATE="20", BULKBIND_TOKEN="hush-1")

    shown = [line.rpartition("  # ") for line in done.stdout.splitlines() if line != "auth:"]
    told = {key.strip(): origin for key, _, origin in shown}
    assert told["concurrency: 7"] == "--concurrency"
    assert told["rate: 20.0"] == "BULKBIND_RATE"
    assert told["columns: {machine_code: Serial}"] == "--map"
    assert told["timeout: 5s"] == f"{config}, line 1"
    assert told["token_prefix: ''"] == f"{config}, line 4"
    assert told["max_attempts: 6"] == "default"
    assert told["# token: ***"] == "BULKBIND_TOKEN"
    assert "hush-1" not in done.stdout + done.stderr


@pytest.mark.slow
def test_what_config_prints_is_a_settings_file(tmp_path):
    """Fed back with --config, every setting is the same."""
    given = ("--rate", "2.5", "--deadline", "50m", "--map", "user_id=A: #b", "--on-invalid", "skip")
    first = bulkbind("config", *given, home=tmp_path, check=0)
    path = tmp_path / "mine.yaml"
    path.write_text(first.stdout, encoding="utf-8")

    again = bulkbind("config", "--config", path, "--json", home=tmp_path, check=0)
    before = bulkbind("config", *given, "--json", home=tmp_path, check=0)

    values = {key: item["value"] for key, item in json.loads(again.stdout).items()}
    assert values == {key: item["value"] for key, item in json.loads(before.stdout).items()}
    assert values["columns"] == {"user_id": "A: #b"}
    assert set(yaml.safe_load(first.stdout)["auth"]) == set(AuthSettings.model_fields) - set(
        SECRETS
    )


@pytest.mark.slow
def test_a_wrong_setting_is_told_with_its_line_and_what_is_allowed(tmp_path):
    """The error names key, value, file and line, variable or flag, and the key that was meant."""
    config = tmp_path / "my.yaml"
    config.write_text("# mine\nconcurency: 5\non_invalid: ignore\n", encoding="utf-8")
    manifest = write_csv(tmp_path / "fleet.csv", fleet(1))
    command = ("run", manifest, "--config", config, "--concurrency", "0")

    done = bulkbind(*command, home=tmp_path, check=2, BULKBIND_RATE="fast")

    assert f"unknown setting `concurency` (from {config}, line 2); did you mean `concurrency`?" in (
        done.stderr
    )
    assert f"setting `on_invalid`: 'ignore' (from {config}, line 3): Input should be 'abort'" in (
        done.stderr
    )
    assert "setting `concurrency`: '0' (from --concurrency): " in done.stderr
    assert "setting `rate`: 'fast' (from BULKBIND_RATE): " in done.stderr


# --- logs ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_off_a_terminal_the_log_is_json_lines_with_the_run(tmp_path, url):
    """Start, progress and end are events that carry the run's id; no line per device."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(60))
    common = ("--endpoint", url, "--ledger", tmp_path / "a.db", "--out", "out")

    done = bulkbind("run", manifest, *common, "--rate", "30", home=tmp_path, check=0)

    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    events = [line["event"] for line in lines]
    assert events[0] == "run.started"
    assert events[-1] == "run.finished"
    assert "run.progress" in events
    assert "device.settled" not in events
    assert {line["run_id"] for line in lines} == {read_summary(tmp_path)["run_id"]}
    assert lines[-1]["counts"] == {"bound": 60}


def read_summary(tmp_path):
    """Return the summary of the report folder `out`."""
    return json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_log_devices_writes_a_line_for_every_settled_device(tmp_path, url):
    """Each row has one line with its outcome and trace id, and there are no progress lines."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(30))
    common = ("--endpoint", url, "--ledger", tmp_path / "b.db", "--out", "out")
    log = tmp_path / "run.log"

    done = bulkbind(
        "run", manifest, *common, "--log-devices", "--log-file", log, "--quiet",
        home=tmp_path, check=0,
    )  # fmt: skip

    assert done.stderr == ""
    lines = log_lines(log.read_text(encoding="utf-8"))
    settled = [line for line in lines if line["event"] == "device.settled"]
    results = {row["machine_code"]: row for row in read_results(tmp_path / "out")}
    assert {line["machine_code"]: line["trace_id"] for line in settled} == {
        code: row["trace_id"] for code, row in results.items()
    }
    assert {line["outcome"] for line in settled} <= {"bound", "already_bound"}
    assert {line["row"] for line in settled} == set(range(1, 31))
    assert "run.progress" not in {line["event"] for line in lines}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.slow
def test_json_given_outright_leaves_standard_error_to_the_machine(tmp_path, url):
    """With --log-format json every line of standard error is JSON, errors and notes included."""
    manifest = write_csv(tmp_path / "fleet.csv", [*fleet(5), ("bad code", "u", "", "")])
    common = ("--endpoint", url, "--ledger", tmp_path / "c.db", "--out", "out")

    refused = bulkbind("run", manifest, *common, "--log-format", "json", home=tmp_path, check=2)
    skipped = bulkbind(
        "run", manifest, *common, "--on-invalid", "skip", "--log-format", "json",
        home=tmp_path, check=1,
    )  # fmt: skip

    [failed] = [x for x in log_lines(refused.stderr) if x["event"] == "command.failed"]
    assert "bad code" in failed["error"]
    assert "--on-invalid skip" in failed["hint"]
    assert {line["event"] for line in log_lines(skipped.stderr)} >= {"run.started", "run.finished"}


@pytest.mark.slow
def test_pace_doubt_and_stop_are_events(tmp_path):
    """A 429, a lost answer and a deadline each leave an event in the log file."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(400))
    config = tmp_path / "config.yaml"
    config.write_text("readback_settle: 200ms\n", encoding="utf-8")
    log = tmp_path / "run.log"
    with sandbox(
        "--limit", "40/s", "--fault", "reset-after=0.2", "--seed", "1", home=tmp_path
    ) as served:
        bulkbind(
            "run", manifest, "--endpoint", served, "--config", config, "--deadline", "6s",
            "--log-file", log, "--log-level", "debug", home=tmp_path, check=3,
        )  # fmt: skip

    lines = log_lines(log.read_text(encoding="utf-8"))
    events = {line["event"] for line in lines}
    assert events >= {"run.started", "pace.changed", "doubt.read", "run.stopping", "run.finished"}
    [finished] = [line for line in lines if line["event"] == "run.finished"]
    assert finished["counts"]["pending"] > 0
    assert finished["counts"].keys() <= MEANINGS.keys()


@pytest.mark.slow
def test_a_log_file_that_cannot_be_opened_stops_the_run_before_it_begins(tmp_path, url):
    """Exit 2, the file and the reason are named, and no ledger is made."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(1))

    done = bulkbind(
        "run", manifest, "--endpoint", url, "--log-file", tmp_path / "no/x.log",
        home=tmp_path, check=2,
    )  # fmt: skip

    assert "no/x.log cannot be opened: No such file or directory" in done.stderr
    assert not ledger_of(tmp_path, url).exists()


# --- audit ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_report_attempts_lists_what_was_not_simply_accepted(tmp_path):
    """Every 429, 500 and lost answer is a line with its trace id, as the server saw it."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(120))
    config = tmp_path / "config.yaml"
    config.write_text("readback_settle: 100ms\nbackoff_base: 20ms\n", encoding="utf-8")
    journal = tmp_path / "journal.jsonl"
    faults = ("--fault", "500=0.1", "--fault", "reset-after=0.1", "--limit", "200/s")
    with sandbox(*faults, "--seed", "3", "--journal", str(journal), home=tmp_path) as served:
        common = ("--endpoint", served, "--out", "out")
        bulkbind("run", manifest, *common, "--config", config, home=tmp_path, check=0)
        plain = bulkbind("report", *common, home=tmp_path, check=0)
        audited = bulkbind("report", *common, "--attempts", home=tmp_path, check=0)

    assert "attempts.csv" not in plain.stdout
    assert audited.stdout.splitlines()[-1].endswith("attempts.csv")
    with (tmp_path / "out/attempts.csv").open(encoding="utf-8", newline="") as file:
        attempts = list(csv.DictReader(file))
    seen = log_lines(journal.read_text(encoding="utf-8"))
    unhappy = {x["trace_id"] for x in seen if x["method"] == "POST" and x["result"] != "bound"}
    assert {row["trace_id"] for row in attempts} == unhappy
    assert {row["verdict"] for row in attempts} >= {"Transient", "NoAnswer"}
    lines = [int(row["line"]) for row in attempts]
    assert lines == sorted(lines)
    assert all(row["sent_at"].endswith("Z") and float(row["took_s"]) >= 0 for row in attempts)
    assert stat.S_IMODE((tmp_path / "out/attempts.csv").stat().st_mode) == 0o600


# --- pilot ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pilot_sends_the_first_rows_and_the_same_command_the_rest(tmp_path):
    """--first 7 sends the first seven rows that need it, then stops with 3; the rest follows."""
    manifest = write_csv(
        tmp_path / "fleet.csv", [("bad code", "u", "", ""), *fleet(40), fleet(1)[0]]
    )
    with sandbox(home=tmp_path) as served:
        command = ("run", manifest, "--endpoint", served, "--out", "out", "--on-invalid", "skip")

        pilot = bulkbind(*command, "--first", "7", home=tmp_path, check=3)
        first = read_results(tmp_path / "out")
        bulkbind(*command, "--first", "5", home=tmp_path, check=3)
        second = statuses(tmp_path / "out")
        bulkbind(*command, home=tmp_path, check=1)
        stats = ask(f"{served}/sandbox/stats")

    assert [row["status"] for row in first] == [
        "invalid", *["bound"] * 7, *["pending"] * 33, "duplicate"
    ]  # fmt: skip
    assert "as many rows were sent as --first asked for" in pilot.stderr
    assert "bulkbind resume" in pilot.stderr.splitlines()[-1]
    assert second == {"invalid": 1, "bound": 12, "pending": 28, "duplicate": 1}
    assert statuses(tmp_path / "out") == {"invalid": 1, "bound": 40, "duplicate": 1}
    assert (stats["binds"], stats.get("posted_again", 0)) == (40, 0)
    with closing(sqlite3.connect(ledger_of(tmp_path, served))) as db:
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.slow
def test_a_pilot_larger_than_the_manifest_is_the_whole_run(tmp_path, url):
    """Where no row is left, the run is done, with 0 and without a reason to stop."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(9))
    common = ("--endpoint", url, "--ledger", tmp_path / "p.db", "--out", "out")

    done = bulkbind("run", manifest, *common, "--first", "9", home=tmp_path, check=0)

    assert "stopped:" not in done.stderr
    assert read_summary(tmp_path)["state"] == "done"
    assert read_summary(tmp_path)["stop_reason"] is None


# --- rehearsal -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_rehearsal_touches_nothing_real(tmp_path, url):
    """--rehearse binds on a sandbox of its own: no ledger, no request to the endpoint, no token."""
    manifest = write_csv(tmp_path / "fleet.csv", [*fleet(30), ("bad code", "u", "", "")])
    config = tmp_path / "config.yaml"
    config.write_text(f"endpoint: {url}\npath: /other/path\n", encoding="utf-8")
    before = ask(f"{url}/sandbox/stats")

    done = bulkbind(
        "run", manifest, "--config", config, "--rehearse", "--on-invalid", "skip",
        home=tmp_path, check=1, BULKBIND_TOKEN="",
    )  # fmt: skip

    after = ask(f"{url}/sandbox/stats")
    assert after.get("binds", 0) == before.get("binds", 0)
    assert "nothing real is touched" in done.stderr
    assert statuses(tmp_path / "bulkbind-report/rehearsal") == {"bound": 30, "invalid": 1}
    assert {path.name for path in tmp_path.iterdir()} == {
        "fleet.csv", "config.yaml", "bulkbind-report"
    }  # fmt: skip


@pytest.mark.slow
def test_a_rehearsal_has_the_limits_and_faults_it_is_told(tmp_path):
    """--limit and --fault shape the rehearsal's gateway; a stopped one offers nothing to go on."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(60))
    command = ("run", manifest, "--rehearse", "--out", "out", "--json")

    limited = bulkbind(*command, "--limit", "20/s", home=tmp_path, check=0)
    faulty = bulkbind(*command, "--fault", "business=0.5", "--seed", "1", home=tmp_path, check=1)
    stopped = bulkbind(*command, "--limit", "5/s", "--deadline", "1s", home=tmp_path, check=3)

    assert json.loads(limited.stdout)["requests_throttled"] > 0
    assert json.loads(faulty.stdout)["counts"]["failed"] > 10
    assert "resume with" not in stopped.stderr


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--limit", "5/s"), ("--fault", "500=1"), ("--seed", "1")])
def test_options_of_a_rehearsal_need_one(tmp_path, option):
    """A limit or a fault for a real run is refused: it would do nothing."""
    manifest = write_csv(tmp_path / "fleet.csv", fleet(1))

    done = bulkbind(
        "run", manifest, *option, "--endpoint", "https://x.test", home=tmp_path, check=2
    )

    assert "rehearse with them: " in done.stderr

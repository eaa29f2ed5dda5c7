"""The command as a process, against a sandbox in a process of its own."""

from __future__ import annotations

import csv
import io
import json
import signal
import socket
import sqlite3
import stat
import subprocess
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bulkbind.manifest.rules import RULES
from tests.support.manifests import write_csv
from tests.support.paths import GPLAY
from tests.support.processes import (
    BULKBIND,
    ask,
    bulkbind,
    count_rows,
    environment,
    ledger_of,
    process,
    read_results,
    sandbox,
    sandbox_bindings,
    statuses,
)

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "secret-token"
"""What `environment` of the kit gives."""
FIELDS = ("machine_code", "user_id", "device_name", "device_os")
RULE = {rule.field: rule.text for rule in RULES}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Serve one sandbox for all tests that tell their devices apart by a prefix of their own."""
    with sandbox("--accept-token", TOKEN, home=tmp_path_factory.mktemp("sandbox")) as served:
        yield served


def devices(prefix: str, rows: int, start: int = 0) -> list[tuple[str, str, str, str]]:
    """Return valid rows whose machine codes begin with *prefix*."""
    return [
        (f"{prefix}{number:05d}", f"{prefix}_user{number % 3}", f"Van {number}", "Android 15")
        for number in range(start, start + rows)
    ]


def yaml_of(rows) -> str:
    """Return rows as a YAML manifest."""
    items = [dict(zip(FIELDS, row, strict=True)) for row in rows]
    return "".join(f"- {json.dumps(item)}\n" for item in items)


def held(url: str, prefix: str):
    """Return the sandbox's records of machine codes with *prefix*, by user and machine code."""
    return {
        (record["userId"], record["machineCode"]): record
        for record in sandbox_bindings(url)
        if record["machineCode"].startswith(prefix)
    }


def assert_agrees(rows: list[dict[str, str]], records) -> None:
    """What the report calls bound is what the sandbox holds, record for record."""
    said = {
        (row["user_id"], row["machine_code"]): (row["device_id"], row["create_time"])
        for row in rows
        if row["status"] in ("bound", "already_bound", "skipped")
    }
    known = {key: (item["deviceId"], item["createTime"]) for key, item in records.items()}
    assert said == known


def codes(rows: list[dict[str, str]]) -> list[str]:
    """Return the machine codes of a report, in its order."""
    return [row["machine_code"] for row in rows]


def summary_of(folder: Path):
    """Return a report's summary."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def wait_for_binds(started, url: str, wanted: int) -> None:
    """Poll until the sandbox has bound so many more; fail once the process is gone."""
    until = time.monotonic() + 30
    while ask(f"{url}/sandbox/stats").get("binds", 0) < wanted:
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < until, "nothing is sent"
        time.sleep(0.02)  # noqa: TID251  # polling another process


def binds(url: str) -> int:
    """Return how many binds the sandbox has done."""
    return int(ask(f"{url}/sandbox/stats").get("binds", 0))


def seen_by(url: str):
    """Return what the sandbox has seen, without how long it has been up."""
    return {name: n for name, n in ask(f"{url}/sandbox/stats").items() if name != "uptime_s"}


# --- the main job --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "name"), [("RC", "fleet.csv"), ("RY", "fleet.yaml")], ids=["csv", "yaml"]
)
def test_run_binds_every_device_of_a_file(tmp_path, url, prefix, name):
    """Every row is bound with the values of the manifest, and report and sandbox agree."""
    rows = devices(prefix, 40)
    manifest = tmp_path / name
    if name.endswith(".yaml"):
        manifest.write_text(yaml_of(rows), encoding="utf-8")
    else:
        write_csv(manifest, rows)

    bulkbind("run", manifest, "--endpoint", url, "--out", "report", home=tmp_path, check=0)

    records = held(url, prefix)
    results = read_results(tmp_path / "report")
    assert {row["status"] for row in results} == {"bound"}
    assert [tuple(row[field] for field in FIELDS) for row in results] == rows
    assert_agrees(results, records)
    for code, user, device_name, device_os in rows:
        record = records[user, code]
        assert (record["deviceName"], record["deviceOS"]) == (device_name, device_os)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["csv", "yaml"])
def test_run_reads_standard_input(tmp_path, url, form):
    """`-` is a manifest like any file, whatever its format, and is called `-` in the report."""
    prefix = f"STDIN{form}"
    rows = devices(prefix, 5)
    text = yaml_of(rows)
    if form == "csv":
        text = "".join(",".join(row) + "\n" for row in [FIELDS, *rows])

    done = subprocess.run(
        [*BULKBIND, "run", "-", "--endpoint", url, "--out", "report"],
        env=environment(tmp_path),
        input=text,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )

    results = read_results(tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert codes(results) == [row[0] for row in rows]
    assert {row["source"].removeprefix("'") for row in results} == {"-"}  # no formula, to be safe
    assert_agrees(results, held(url, prefix))


@pytest.mark.slow
def test_several_manifests_make_one_run(tmp_path, url):
    """Results stand in the order of the manifests, each row under its own file and line."""
    second, first = devices("MANY", 6), devices("MANY", 4, start=6)
    one = write_csv(tmp_path / "one.csv", first)
    two = tmp_path / "two.yaml"
    two.write_text(yaml_of(second), encoding="utf-8")

    bulkbind("run", one, two, "--endpoint", url, "--out", "report", home=tmp_path, check=0)

    results = read_results(tmp_path / "report")
    assert codes(results) == [row[0] for row in [*first, *second]]
    assert [(row["source"], int(row["line"])) for row in results] == [
        *((str(one), line) for line in range(2, 6)),
        *((str(two), line) for line in range(1, 7)),
    ]
    assert_agrees(results, held(url, "MANY"))


@pytest.mark.slow
def test_the_same_command_again_sends_nothing(tmp_path, url):
    """What the ledger knows as bound is skipped, names the run that bound it, and exits 0."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("AGAIN", 20))
    command = ("run", manifest, "--endpoint", url, "--out", "report")
    bulkbind(*command, home=tmp_path, check=0)
    first = summary_of(tmp_path / "report")["run_id"]
    before = seen_by(url)

    bulkbind(*command, home=tmp_path, check=0)

    results = read_results(tmp_path / "report")
    assert seen_by(url) == before
    assert statuses(tmp_path / "report") == {"skipped": 20}
    assert all(f"by run {first}" in row["detail"] for row in results)
    assert_agrees(results, held(url, "AGAIN"))


# --- rows that are not sent ----------------------------------------------------------------------


@pytest.mark.slow
def test_an_invalid_row_keeps_everything_back(tmp_path, url):
    """With abort nothing is sent or recorded; the error names file, line, column, value, rule."""
    rows = [*devices("ABORT", 2), ("ABORT-9", "u1", "", ""), ("ABORT8", "u1", "", "iOS 17.2")]
    header = ("Serial", "user_id", "device_name", "OS")
    manifest = write_csv(tmp_path / "fleet.csv", rows, header)
    before = seen_by(url)
    columns = ("--map", "machine_code=Serial", "--map", "device_os=OS")

    done = bulkbind("run", manifest, "--endpoint", url, *columns, home=tmp_path, check=2)

    with closing(sqlite3.connect(ledger_of(tmp_path, url))) as db:
        left = [db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("runs", "rows")]  # noqa: S608  # constants
    assert seen_by(url) == before
    assert left == [0, 0]
    assert not (tmp_path / "bulkbind-report").exists()
    assert done.stdout == ""
    assert "2 of 4 rows" in done.stderr
    for line, column, value, field in [
        (4, "Serial", "ABORT-9", "machine_code"),
        (5, "OS", "iOS 17.2", "device_os"),
    ]:
        said = next(text for text in done.stderr.splitlines() if f"{manifest}:{line}:" in text)
        assert f" {column} " in said
        assert repr(value) in said
        assert RULE[field].removesuffix(" characters") in done.stderr
    assert "hint: " in done.stderr


@pytest.mark.slow
def test_an_invalid_row_can_be_skipped(tmp_path, url):
    """With skip the other rows are bound; the invalid one is reported with what it breaks: 1."""
    rows = [*devices("SKIP", 2), ("SKIP-9", "SKIP_user0", "", ""), *devices("SKIP", 2, start=2)]
    manifest = write_csv(tmp_path / "fleet.csv", rows)
    command = ("run", manifest, "--endpoint", url, "--on-invalid", "skip", "--out", "report")

    bulkbind(*command, home=tmp_path, check=1)

    results = read_results(tmp_path / "report")
    assert [row["status"] for row in results] == ["bound", "bound", "invalid", "bound", "bound"]
    assert results[2]["machine_code"] == "SKIP-9"
    assert RULE["machine_code"] in results[2]["message"] + results[2]["detail"]
    assert_agrees(results, held(url, "SKIP"))


@pytest.mark.slow
def test_invalid_duplicate_moved_skipped_win_in_this_order(tmp_path, url):
    """Rows that are not sent say why: which row they repeat, which user has it, since which run."""
    monday = write_csv(
        tmp_path / "monday.csv", [("ORDER1", "u1", "", ""), ("ORDER2", "u1", "", "")]
    )
    rows = [
        ("ORDER1", "u1", "", ""),
        ("ORDER1", "u1", "other name", ""),
        ("ORDER2", "u2", "", ""),
        ("ORDER2", "u2", "", ""),
        ("ORDER3", "u1", "", ""),
        ("ORDER3", "u1", "", "Android 15"),
        ("ORDER4", "u2", "", ""),
        ("ORDER-1", "u1", "", ""),
        ("ORDER-1", "u1", "", ""),
    ]
    tuesday = write_csv(tmp_path / "tuesday.csv", rows)
    common = ("--endpoint", url, "--on-invalid", "skip")
    bulkbind("run", monday, *common, "--out", "first", home=tmp_path, check=0)

    bulkbind("run", tuesday, *common, "--out", "second", home=tmp_path, check=1)

    results = read_results(tmp_path / "second")
    details = [row["detail"] for row in results]
    assert [row["status"] for row in results] == [
        "skipped",
        "duplicate",
        "moved",
        "duplicate",
        "bound",
        "duplicate",
        "bound",
        "invalid",
        "invalid",
    ]
    assert f"by run {summary_of(tmp_path / 'first')['run_id']}" in details[0]
    assert (f"{tuesday}:2" in details[1], "skipped" in details[1]) == (True, True)
    assert "u1" in details[2]
    assert (f"{tuesday}:4" in details[3], "moved" in details[3]) == (True, True)
    assert (f"{tuesday}:6" in details[5], "bound" in details[5]) == (True, True)
    assert sorted(held(url, "ORDER")) == [
        ("u1", "ORDER1"),
        ("u1", "ORDER2"),
        ("u1", "ORDER3"),
        ("u2", "ORDER4"),
    ]


@pytest.mark.slow
def test_duplicates_alone_need_nobody(tmp_path, url):
    """Duplicates of bound rows end with 0 and stay out of failed.csv."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("TWICE", 3) * 2)

    bulkbind("run", manifest, "--endpoint", url, "--out", "report", home=tmp_path, check=0)

    assert statuses(tmp_path / "report") == {"bound": 3, "duplicate": 3}
    assert len((tmp_path / "report/failed.csv").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.slow
def test_a_duplicate_of_a_failed_row_names_it(tmp_path):
    """What the server refuses has failed with its words; its duplicate stays one and says so."""
    manifest = write_csv(tmp_path / "fleet.csv", [*devices("NO", 2), *devices("NO", 1)])

    with sandbox("--fault", "business=1", home=tmp_path) as refusing:
        command = ("run", manifest, "--endpoint", refusing, "--out", "report")
        bulkbind(*command, home=tmp_path, check=1)
        left = sandbox_bindings(refusing)

    results = read_results(tmp_path / "report")
    failed = (tmp_path / "report/failed.csv").read_text(encoding="utf-8")
    assert [row["status"] for row in results] == ["failed", "failed", "duplicate"]
    assert (results[0]["code"], results[0]["message"]) == ("13000301", "space missing")
    assert f"{manifest}:2" in results[2]["detail"]
    assert "failed" in results[2]["detail"]
    assert len(failed.splitlines()) == 3
    assert left == []


@pytest.mark.slow
def test_another_manifest_withdraws_what_a_stopped_run_left(tmp_path, url):
    """Rows that only the older run wanted are never sent by surprise, nor gone on with."""
    rows = devices("DRAWN", 6)
    older = write_csv(tmp_path / "older.csv", rows)
    newer = write_csv(tmp_path / "newer.csv", rows[:2])
    common = ("--endpoint", url)
    stopped = ("run", older, *common, "--out", "older")
    bulkbind(*stopped, home=tmp_path, check=3, BULKBIND_TOKEN="wrong-one")
    run_id = summary_of(tmp_path / "older")["run_id"]

    done = bulkbind("run", newer, *common, "--out", "newer", home=tmp_path, check=0)

    bulkbind("report", run_id, *common, "--out", "older", home=tmp_path, check=0)
    again = bulkbind("resume", run_id, *common, home=tmp_path, check=2)
    assert "withdrawn" in done.stderr
    assert statuses(tmp_path / "newer") == {"bound": 2}
    assert [row["status"] for row in read_results(tmp_path / "older")][2:] == ["withdrawn"] * 4
    assert_agrees(read_results(tmp_path / "newer"), held(url, "DRAWN"))
    assert run_id in again.stderr
    assert "hint: " in again.stderr


# --- rows that come back -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "delimiter", "encoding"),
    [
        ("BACK2", ";", "utf-8-sig"),
        ("BACK3", "\t", "utf-16"),
    ],
    ids=["semicolon-utf-8-bom", "tab-utf-16"],
)
def test_a_mended_failed_csv_is_a_manifest(tmp_path, url, prefix, delimiter, encoding):
    """failed.csv has the operator's own form; fixed, the same options bind its rows."""
    header = ["Größe", "Serial", "user_id", "Note"]
    rows = [
        ["1", f"{prefix}_1", "u1", "fine"],
        ["2", f"{prefix}-2", "u1", 'two\nlines, "quoted"; and\ttabs'],
        [" 3 ", f"{prefix}_3", "", "=1+1 é 漢"],
    ]
    manifest = tmp_path / "fleet.csv"
    with manifest.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    common = ("--endpoint", url, "--map", "machine_code=Serial", "--on-invalid", "skip")
    bulkbind("run", manifest, *common, "--out", "first", home=tmp_path, check=1)
    failed = tmp_path / "first/failed.csv"
    raw = failed.read_bytes()
    text = raw.decode(encoding)
    back = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    fixed = text.replace(f"{prefix}-2", f"{prefix}_2").replace(
        f"{prefix}_3{delimiter}", f"{prefix}_3{delimiter}u2"
    )
    with failed.open("w", encoding=encoding, newline="") as file:
        file.write(fixed)

    bulkbind("run", failed, *common, "--out", "second", home=tmp_path, check=0)

    assert raw[:2] == manifest.read_bytes()[:2]  # the byte order mark
    assert back[0] == [*header, "bulkbind_status", "bulkbind_reason"]
    assert [row[:4] for row in back[1:]] == rows[1:]
    assert [row[4] for row in back[1:]] == ["invalid", "invalid"]
    assert RULE["machine_code"] in back[1][5]
    assert statuses(tmp_path / "second") == {"bound": 2}
    assert sorted(held(url, prefix)) == [
        ("u1", f"{prefix}_1"),
        ("u1", f"{prefix}_2"),
        ("u2", f"{prefix}_3"),
    ]


@pytest.mark.slow
def test_a_mended_failed_yaml_is_a_manifest(tmp_path, url):
    """Rows of YAML come back as YAML, defaults included, every scalar the text that it was."""
    manifest = tmp_path / "fleet.yaml"
    manifest.write_text(
        "defaults: {user_id: u7, site: 007}\n"
        "devices:\n"
        "  - machine_code: YBACK_1\n"
        "  - {machine_code: YBACK-2, device_name: no, tags: [a, 'b: c']}\n"
        "  - {machine_code: YBACK_3, device_os: iOS 17.2}\n",
        encoding="utf-8",
    )
    common = ("--endpoint", url, "--on-invalid", "skip")
    bulkbind("run", manifest, *common, "--out", "first", home=tmp_path, check=1)
    failed = tmp_path / "first/failed/fleet.yaml"
    text = failed.read_text(encoding="utf-8")
    fixed = text.replace("machine_code: YBACK-2", "machine_code: YBACK_2")
    failed.write_text(fixed.replace("device_os: iOS 17.2", "device_os: iOS 17"), encoding="utf-8")

    bulkbind("run", failed, *common, "--out", "second", home=tmp_path, check=0)

    records = held(url, "YBACK")
    assert text.count("bulkbind_status: invalid") == 2
    assert statuses(tmp_path / "second") == {"bound": 2}
    assert sorted(records) == [("u7", "YBACK_1"), ("u7", "YBACK_2"), ("u7", "YBACK_3")]
    assert records["u7", "YBACK_2"]["deviceName"] == "no"
    assert records["u7", "YBACK_3"]["deviceOS"] == "iOS 17"


@pytest.mark.slow
def test_several_manifests_come_back_apart(tmp_path, url):
    """With several manifests each one's rows come back in failed/<name>, in its own form."""
    one = write_csv(tmp_path / "one.csv", [("APART_1", "u1", "", ""), ("APART-2", "u1", "", "")])
    two = tmp_path / "two.yaml"
    two.write_text("- {machine_code: APART-3, user_id: u1}\n", encoding="utf-8")
    command = ("run", one, two, "--endpoint", url, "--on-invalid", "skip", "--out", "report")

    bulkbind(*command, home=tmp_path, check=1)

    folder = tmp_path / "report/failed"
    assert sorted(path.name for path in folder.iterdir()) == ["one.csv", "two.yaml"]
    assert "APART-2" in (folder / "one.csv").read_text(encoding="utf-8")
    assert "machine_code: APART-3" in (folder / "two.yaml").read_text(encoding="utf-8")
    assert not (tmp_path / "report/failed.csv").exists()


# --- runs that cannot start, or stop -------------------------------------------------------------


@pytest.mark.slow
def test_a_wrong_token_stops_and_resume_goes_on(tmp_path, url):
    """A refused token fails no device: 3, all pending; the right one goes on under the same id."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("TOKEN", 30))
    common = ("--endpoint", url, "--out", "report")
    wrong = bulkbind(
        "run", manifest, *common, home=tmp_path, check=3, BULKBIND_TOKEN="a-wrong-token"
    )
    first = summary_of(tmp_path / "report")
    pending = statuses(tmp_path / "report")

    bulkbind("resume", *common, home=tmp_path, check=0)

    assert pending == {"pending": 30}
    assert f"bulkbind resume {first['run_id']}" in wrong.stderr.splitlines()[-1]
    assert "hint: " in wrong.stderr
    assert summary_of(tmp_path / "report")["run_id"] == first["run_id"]
    assert statuses(tmp_path / "report") == {"bound": 30}
    assert {row["attempts"] for row in read_results(tmp_path / "report")} == {"1"}
    assert_agrees(read_results(tmp_path / "report"), held(url, "TOKEN"))


LOOPBACK = ("--endpoint", "http://127.0.0.1:9")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fleet.csv",), "endpoint"),
        (("fleet.csv", "--endpoint", "koodrive"), "--endpoint"),
        (("fleet.csv", "--endpoint", "http://koodrive.example"), "loopback"),
        (("missing.csv", *LOOPBACK), "missing.csv"),
        (("strange.csv", *LOOPBACK), "Serial"),
        (("fleet.csv", *LOOPBACK, "--concurrency", "none"), "--concurrency"),
    ],
    ids=[
        "no-endpoint",
        "bad-endpoint",
        "http-to-elsewhere",
        "missing-manifest",
        "no-column-of-ours",
        "concurrency-no-number",
    ],
)
def test_what_cannot_start_says_why(tmp_path, arguments, words):
    """A wrong set-up ends with 2, names what is wrong and where it came from, and gives a hint."""
    write_csv(tmp_path / "fleet.csv", devices("USAGE", 1))
    write_csv(tmp_path / "strange.csv", [("S1", "u1")], ("Serial", "user_id"))

    done = bulkbind("run", *arguments, home=tmp_path, check=2)

    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "\nhint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "bulkbind-report").exists()


@pytest.mark.slow
def test_an_endpoint_that_is_away_stops_the_run(tmp_path):
    """A closed port ends with 3 within 20 s; no device has failed, and the way on is told."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("AWAY", 50))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # not listening: connections are refused
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        command = ("run", manifest, "--endpoint", endpoint, "--out", "report")
        done = bulkbind(*command, home=tmp_path, check=3, timeout=20)

    assert statuses(tmp_path / "report") == {"pending": 50}
    assert "cannot be reached" in done.stderr
    assert "hint: " in done.stderr
    told = done.stderr.splitlines()[-1]
    assert told == f"once it is fixed: bulkbind run {manifest} --endpoint URL --out report"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_drains_and_resume_finishes(tmp_path, url, number, code):
    """An interrupted run reports what is pending and is finished later, each device sent once."""
    prefix = number.name
    manifest = write_csv(tmp_path / "fleet.csv", devices(prefix, 400))
    before = ask(f"{url}/sandbox/stats")
    command = ("run", manifest, "--endpoint", url, "--out", "report", "--rate", "200")
    with process(*command, home=tmp_path) as started:
        wait_for_binds(started, url, before.get("binds", 0) + 20)
        started.send_signal(number)
        ended = started.wait(25)
    first = statuses(tmp_path / "report")
    assert_agrees(read_results(tmp_path / "report"), held(url, prefix))
    run_id = summary_of(tmp_path / "report")["run_id"]

    bulkbind("resume", "--endpoint", url, "--out", "report", home=tmp_path, check=0)

    stats = ask(f"{url}/sandbox/stats")
    assert ended == code
    assert set(first) == {"bound", "pending"}
    assert statuses(tmp_path / "report") == {"bound": 400}
    assert summary_of(tmp_path / "report")["run_id"] == run_id
    assert stats["binds"] - before.get("binds", 0) == 400
    assert stats.get("posted_again", 0) == before.get("posted_again", 0)
    assert_agrees(read_results(tmp_path / "report"), held(url, prefix))


@pytest.mark.slow
def test_a_deadline_stops_and_the_same_command_goes_on(tmp_path, url):
    """A run past its deadline ends with 3; the same command goes on under the same id."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("LATE", 300))
    command = ("run", manifest, "--endpoint", url, "--out", "report")
    bulkbind(*command, "--rate", "100", "--deadline", "500ms", home=tmp_path, check=3)
    first, run_id = statuses(tmp_path / "report"), summary_of(tmp_path / "report")["run_id"]
    before = binds(url)

    bulkbind(*command, home=tmp_path, check=0)

    assert first["pending"] > 0
    assert binds(url) - before == first["pending"]
    assert statuses(tmp_path / "report") == {"bound": 300}
    assert summary_of(tmp_path / "report")["run_id"] == run_id


# --- beside a run --------------------------------------------------------------------------------


@pytest.mark.slow
def test_beside_a_sending_run(tmp_path, url):
    """While one run sends, a second one ends with 75, and `report` and `runs` can be read."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("BESIDE", 2_000))
    common = ("--endpoint", url)
    command = ("run", manifest, *common, "--out", "report", "--rate", "100")
    with process(*command, home=tmp_path) as started:
        wait_for_binds(started, url, binds(url) + 20)
        second = bulkbind("run", manifest, *common, home=tmp_path, check=75)
        bulkbind("report", *common, "--out", "beside", home=tmp_path, check=0)
        listed = bulkbind("runs", *common, "--json", home=tmp_path, check=0)
        is_sending = started.poll() is None
        started.send_signal(signal.SIGTERM)
        started.wait(25)
    beside = statuses(tmp_path / "beside")

    [run] = json.loads(listed.stdout)
    assert is_sending
    assert f"pid {started.pid}" in second.stderr
    assert "hint: " in second.stderr
    assert set(beside) == {"bound", "pending"}
    assert sum(beside.values()) == 2_000
    assert run["state"] == "sending"
    assert run["run_id"] == summary_of(tmp_path / "report")["run_id"]
    assert statuses(tmp_path / "report")["bound"] >= beside["bound"]


@pytest.mark.slow
def test_report_and_runs_tell_of_ended_runs(tmp_path, url):
    """`report` writes the same files again and names them; `runs` lists the newest run first."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("LISTED", 4))
    common = ("--endpoint", url)
    for _ in range(2):
        bulkbind("run", manifest, *common, home=tmp_path, check=0)

    listed = json.loads(bulkbind("runs", *common, "--json", home=tmp_path, check=0).stdout)
    shown = bulkbind("runs", *common, home=tmp_path, check=0)
    older = listed[1]["run_id"]
    written = bulkbind("report", older, *common, "--out", "again", home=tmp_path, check=0)

    assert [run["counts"] for run in listed] == [{"skipped": 4}, {"bound": 4}]
    assert [run["state"] for run in listed] == ["done", "done"]
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [r["run_id"] for r in listed]
    assert written.stdout.split() == [
        f"again/{name}"
        for name in ("results.csv", "failed.csv", "problems.csv", "summary.json", "report.html")
    ]
    for name in ("results.csv", "failed.csv", "summary.json"):
        again, first = tmp_path / "again" / name, tmp_path / "bulkbind-report" / older / name
        assert again.read_bytes() == first.read_bytes()


# --- what it says --------------------------------------------------------------------------------


@pytest.mark.slow
def test_quiet_and_json_keep_the_streams_clean(tmp_path, url):
    """--quiet says nothing when all is well; --json puts one JSON value on stdout, no more."""
    quiet = write_csv(tmp_path / "quiet.csv", devices("QUIET", 5))
    loud = write_csv(tmp_path / "loud.csv", [*devices("LOUD", 5), ("LOUD-9", "u1", "", "")])
    common = ("--endpoint", url, "--out", "report", "--on-invalid", "skip")

    silent = bulkbind("run", quiet, *common, "--quiet", home=tmp_path, check=0)
    spoken = bulkbind("run", loud, *common, "--quiet", home=tmp_path, check=1)
    machine = bulkbind("run", loud, *common, "--json", home=tmp_path, check=1)

    assert (silent.stdout, silent.stderr) == ("", "")
    assert spoken.stdout == ""
    assert "invalid" in spoken.stderr
    assert json.loads(machine.stdout) == summary_of(tmp_path / "report")
    assert json.loads(machine.stdout)["counts"] == {"skipped": 5, "invalid": 1}
    assert "6 rows" in machine.stderr


@pytest.mark.slow
def test_validate_names_every_problem(tmp_path):
    """`validate` prints file, line, column, value and rule of every problem; no ledger is made."""
    write_csv(tmp_path / "bad.csv", [("V1", "u1", "", ""), ("V-2", "u 1", "", "")])

    done = bulkbind("validate", "bad.csv", home=tmp_path, check=1)

    groups = [done.stdout.splitlines()[at : at + 3] for at in (0, 3)]
    for field, value, group in zip(
        ("machine_code", "user_id"), ("V-2", "u 1"), groups, strict=True
    ):
        assert group[0].strip() == f"1  {RULE[field]}"
        assert group[1].strip().startswith(f"bad.csv:3: {field} {value!r}: ")
        assert group[2].strip().startswith("no option fixes these")
    assert len(done.stdout.splitlines()) == 6
    assert not (tmp_path / "bulkbind").exists()


@pytest.mark.slow
def test_reports_and_ledger_are_their_owners(tmp_path, url):
    """Files of the report and the ledger have mode 0600, whatever the umask."""
    one = write_csv(tmp_path / "one.csv", devices("MODE", 2))
    two = write_csv(tmp_path / "two.csv", [("MODE-9", "u1", "", "")])
    command = ("run", one, two, "--endpoint", url, "--on-invalid", "skip", "--out", "report")

    done = subprocess.run(
        [*BULKBIND, *map(str, command)],
        env=environment(tmp_path),
        cwd=tmp_path,
        umask=0,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )

    made = [p for name in ("report", "bulkbind") for p in (tmp_path / name).rglob("*")]
    modes = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in made
        if path.is_file()
    }
    assert done.returncode == 1
    assert len(modes) >= 5
    assert set(modes.values()) == {"0o600"}, modes


# --- a gateway in trouble ------------------------------------------------------------------------


@pytest.mark.slow
def test_a_limited_gateway_fails_no_device(tmp_path):
    """429 is the gateway's state, never a device's fault: all are bound, at one attempt each."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("LIMIT", 350))

    with sandbox("--limit", "200/s", home=tmp_path) as limited:
        command = ("run", manifest, "--endpoint", limited, "--out", "report")
        bulkbind(*command, home=tmp_path, check=0)
        stats = ask(f"{limited}/sandbox/stats")
        records = held(limited, "LIMIT")

    results = read_results(tmp_path / "report")
    assert statuses(tmp_path / "report") == {"bound": 350}
    assert {row["attempts"] for row in results} == {"1"}
    assert stats["throttled"] > 0
    assert stats["binds"] == 350
    assert_agrees(results, records)


@pytest.mark.slow
@pytest.mark.parametrize("second_bind", ["same", "error"])
def test_faults_together_lose_nothing(tmp_path, second_bind):
    """Broken connections and errors end with every device bound, and none posted again."""
    manifest = write_csv(tmp_path / "fleet.csv", devices("FAULT", 400))
    config = tmp_path / "config.yaml"
    config.write_text("readback_settle: 200ms\nbackoff_base: 50ms\n", encoding="utf-8")
    shares = ("reset-before=0.05", "reset-after=0.05", "500=0.05")
    faults = [word for share in shares for word in ("--fault", share)]

    with sandbox(*faults, "--second-bind", second_bind, "--seed", "11", home=tmp_path) as faulty:
        command = ("run", manifest, "--endpoint", faulty, "--config", config, "--out", "report")
        bulkbind(*command, home=tmp_path, check=0)
        stats = ask(f"{faulty}/sandbox/stats")
        records = held(faulty, "FAULT")

    assert min(stats["reset-before"], stats["reset-after"], stats["500"]) > 5
    assert stats.get("posted_again", 0) == 0
    assert stats["binds"] == 400
    assert statuses(tmp_path / "report") == {"bound": 400}
    assert_agrees(read_results(tmp_path / "report"), records)
    assert count_rows(ledger_of(tmp_path, faulty), "bound") == 400


# --- real input ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not GPLAY.exists(), reason="the real file lies beside the checkout, not in it")
def test_a_real_list_of_devices(tmp_path, monkeypatch):
    """Google Play's UTF-16 list: every row accounted for; again, no bind is sent, and it ends 1."""
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)  # nothing that others do not cover
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    with sandbox(home=tmp_path) as served:
        command = ("run", GPLAY, "--endpoint", served, "--out", "report", "--user-id", "fleet")
        columns = ("machine_code=Device", "device_name=Marketing Name", "device_os=Retail Branding")
        mapping = [word for column in columns for word in ("--map", column)]
        command = (*command, *mapping, "--on-invalid", "skip")
        bulkbind(*command, home=tmp_path, check=1)
        first = statuses(tmp_path / "report")
        results = read_results(tmp_path / "report")
        records = held(served, "")
        before = seen_by(served)

        bulkbind(*command, home=tmp_path, check=1)

        after = seen_by(served)

    again = statuses(tmp_path / "report")
    lines = [int(row["line"]) for row in results]
    assert len(results) == 35_244
    assert lines == sorted(set(lines))
    assert first == {"bound": 19_794, "duplicate": 7_256, "invalid": 8_194}
    assert len(records) == before["binds"] == 19_794
    assert_agrees(results, records)
    assert after == before
    assert again == {"skipped": 19_794, "duplicate": 7_256, "invalid": 8_194}
    assert Counter(row["user_id"] for row in results) == {"fleet": 35_244}

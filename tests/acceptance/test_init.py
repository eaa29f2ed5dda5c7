"""`bulkbind init`: a settings file from a header; and settings that are found in the folder."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest

from bulkbind.settings import FOUND, load
from tests.acceptance.test_rough import Terminal
from tests.support.in_process import called
from tests.support.manifests import write_xlsx
from tests.support.processes import ask, sandbox, sandbox_bindings

TABLE = "Serial;Owner;Model;OS version\nA001;u1;Van 1;iOS 17.2\nA002;u2;Van 2;Android 15\n"
COLUMNS = {
    "user_id": "Owner",
    "machine_code": "Serial",
    "device_name": "Model",
    "device_os": "OS version",
}


@pytest.fixture
def home(tmp_path):
    """Return a folder with a manifest that has another program's names."""
    (tmp_path / "my devices.csv").write_text(TABLE)
    return tmp_path


def commands(text):
    """Return the commands that a text gives to be pasted."""
    return [
        shlex.split(line)[1:] for line in text.splitlines() if line.strip().startswith("bulkbind ")
    ]


def settings_of(home):
    """Return the settings that were written."""
    return load(home / FOUND, {}).settings


def test_the_proposals_are_taken(home):
    """Mapping and three rows are shown; the file is ours alone, commented, and holds no secret."""
    done = called(
        "init", "my devices.csv", "--endpoint", "https://a.example", "--yes", home=home,
        BULKBIND_TOKEN="a-secret-token",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "2     u1       A001          Van 1        iOS 17_2\n" in done.stdout
    settings = settings_of(home)
    assert settings.manifest.columns == COLUMNS
    assert (settings.manifest.clean, settings.auth.mode) == ("names", None)
    assert settings.api.endpoint == "https://a.example"
    text = (home / FOUND).read_text()
    assert text.count("# ") > 10
    assert "secret-token" not in text
    assert (home / FOUND).stat().st_mode & 0o777 == 0o600
    verbs = [words[0] for words in commands(done.stdout)]
    assert verbs == ["doctor", "plan", "run"]


@pytest.mark.slow
def test_the_next_commands_work(home):
    """As they are printed, to a bound fleet."""
    with sandbox(home=home) as url:
        made = called("init", "my devices.csv", "--endpoint", url, "--auth", "token", "--yes",
                      home=home)  # fmt: skip
        for words in commands(made.stdout):
            done = called(*words, home=home)
            assert done.returncode == 0, done.stderr
        bound = sandbox_bindings(url)

    assert sorted(each["deviceOS"] for each in bound) == ["Android 15", "iOS 17_2"]
    assert settings_of(home).api.already_bound_codes == ("13000901",)  # the sandbox's own


@pytest.mark.slow
def test_without_endpoint_its_line_is_a_comment(home):
    """That is said, and the next commands need none."""
    made = called("init", "my devices.csv", "--yes", home=home)

    assert "# endpoint: https://host\n" in (home / FOUND).read_text()
    assert "`endpoint:` in it is a comment" in made.stdout
    assert [words[0] for words in commands(made.stdout)] == ["validate", "plan", "run"]
    for words in commands(made.stdout):
        done = called(*words, home=home)
        assert done.returncode == 0, done.stderr


def test_a_file_that_is_there_stays(home):
    """Whatever it is; the hint can be typed."""
    (home / FOUND).symlink_to("nowhere")
    done = called("init", "my devices.csv", "--yes", home=home)

    assert done.returncode == 2
    assert "there is a bulkbind.yaml in this folder already; nothing was written" in done.stderr
    assert "mv bulkbind.yaml bulkbind.yaml.old" in done.stderr
    assert not (home / "nowhere").exists()


def test_nobody_to_ask(home):
    """Without a terminal, --yes is needed, and said as a whole command."""
    done = called("init", "my devices.csv", home=home)

    assert done.returncode == 2
    assert "take the proposals: bulkbind init 'my devices.csv' --yes" in done.stderr
    assert not (home / FOUND).exists()


JSON = '[{"Serial": "A1", "Assigned To": "u1", "Hostname": "h-1"}]'
YAML = "- Serial: A1\n  Assigned To: u1\n  Hostname: h-1\n"
LINES = '{"Serial": "A1", "Assigned To": "u1", "Hostname": "h-1"}\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.csv", "Fleet of May\n\nSerial,Assigned To,Hostname\nA1,u1,h-1\n"),
        ("d.tsv", "Serial\tAssigned To\tHostname\nA1\tu1\th-1\n"),
        ("d.json", JSON),
        ("d.jsonl", LINES),
        ("d.yaml", YAML),
        ("d.csv.gz", "Serial,Assigned To,Hostname\nA1,u1,h-1\n"),
        ("d.xlsx", None),
    ],
)
def test_any_manifest_has_a_header(tmp_path, name, text):
    """Whatever reads manifests reads it."""
    path = tmp_path / name
    if text is None:
        write_xlsx(path, ("One", [["Serial", "Assigned To", "Hostname"], ["A1", "u1", "h-1"]]))
    else:
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    done = called("init", name, "--yes", home=tmp_path)

    assert done.returncode == 0, done.stderr
    columns = settings_of(tmp_path).manifest.columns
    assert columns == {
        "user_id": "Assigned To", "machine_code": "Serial", "device_name": "Hostname"
    }  # fmt: skip
    assert re.search(r"u1 +A1 +h-1", done.stdout)


def test_names_of_ours_need_no_mapping(tmp_path):
    """Only what is called otherwise is mapped."""
    (tmp_path / "d.csv").write_text("machine_code,user_id,Model\nA1,u1,Van\n")
    called("init", "d.csv", "--yes", home=tmp_path)

    reads = settings_of(tmp_path).manifest
    assert reads.columns["device_name"] == "Model"
    assert called("validate", "d.csv", "--config", FOUND, home=tmp_path).returncode == 0


def test_a_manifest_without_users(tmp_path):
    """The rows are shown all the same; the user is a comment to be filled in."""
    (tmp_path / "d.csv").write_text("Serial,Model\nA1,Van\n")
    done = called("init", "d.csv", "--yes", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "no column names the user" in done.stdout
    assert re.search(r"\?  +A1 +Van", done.stdout)
    assert "# user_id: ID\n" in (tmp_path / FOUND).read_text()
    assert "USER" not in (tmp_path / FOUND).read_text()

    (tmp_path / FOUND).unlink()
    given = called("init", "d.csv", "--user-id", "u9", "--yes", home=tmp_path)
    assert given.returncode == 0
    assert settings_of(tmp_path).manifest.user_id == "u9"


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        (
            "foo,bar\n1,2\n",
            "`machine_code` for machine_code; columns found: `foo`, `bar`",
            "bulkbind init d.csv --yes --map machine_code=COLUMN --map user_id=COLUMN",
        ),
        (
            "Serial,IMEI,Owner\nA1,2,u1\n",
            "several columns may hold machine_code: Serial, IMEI",
            "say which: bulkbind init d.csv --yes --map machine_code=Serial",
        ),
        ("", "d.csv is empty", ""),
        ("machine_code,user_id\n\x00\x00", "NUL", ""),
    ],
)
def test_what_cannot_be_told_is_not_guessed(tmp_path, text, words, hint):
    """An error names what there is; nothing is written."""
    (tmp_path / "d.csv").write_text(text)
    done = called("init", "d.csv", "--yes", home=tmp_path)

    assert done.returncode == 2
    assert words in done.stderr
    assert hint in done.stderr
    assert not (tmp_path / FOUND).exists()


def test_hostile_names_stay_values(tmp_path):
    """A header is text from outside: it adds no key, and steers no terminal."""
    evil = 'Serial,Owner,"Model\nendpoint: https://evil.example\n#","x\x1b[2J: {y"'
    (tmp_path / "d.csv").write_text(f"{evil}\nA1,u1,m,z\n")
    done = called("init", "d.csv", "--yes", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert settings_of(tmp_path).api.endpoint is None
    assert "\x1b" not in done.stdout + (tmp_path / FOUND).read_text()


@pytest.mark.slow
def test_a_person_is_asked(home):
    """Endpoint, credentials, columns; then the run names target and caller."""
    with sandbox(home=home) as url:
        terminal = Terminal(home, "init", "my devices.csv")
        terminal.until("Are these the columns? [Y/n]")
        terminal.type(b"\n")
        terminal.until("Number or https://host [later]:")
        terminal.type(b"nonsense\n")
        terminal.until("nonsense: ")
        terminal.type(f"{url}\n".encode())
        terminal.until("Number [1]:")
        terminal.type(b"\n")
        assert terminal.ended() == 0, terminal.screen

        terminal = Terminal(home, "run", "my devices.csv")
        host = url.removeprefix("http://")
        terminal.until(
            f"Bind 2 devices of 2 users at the sandbox {host} with the token from\r\n"
            "BULKBIND_TOKEN? [y/N]"
        )
        assert "note: settings from bulkbind.yaml in this folder" in terminal.screen
        assert ask(f"{url}/sandbox/stats")["requests"] == 0
        terminal.type(b"y\n")
        assert terminal.ended() == 0, terminal.screen
        assert len(sandbox_bindings(url)) == 2

        again = Terminal(home, "init", "my devices.csv")
        again.until("Replace it? [y/N]")
        again.type(b"n\n")
        assert again.ended() == 5, again.screen

    assert settings_of(home).auth.mode == "token"


# --- settings that nobody named ------------------------------------------------------------------


def found_settings(home, url):
    """Leave a settings file that leads to a sandbox and runs a program of its own."""
    marker = home / "ran"
    script = home / "tell"
    script.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(marker))}\n")
    script.chmod(0o700)
    (home / FOUND).write_text(
        f"endpoint: {url}\nnotify_on: always\nnotify_command: {script}\n"
        f"metrics_file: {home / 'metrics'}\nlog_file: {home / 'log'}\n"
        f"auth:\n  token_command: [{script}]\n"
        f"columns: {json.dumps(COLUMNS)}\nclean: names\n"
    )
    (home / FOUND).chmod(0o600)
    return marker


@pytest.mark.parametrize(
    "line",
    [
        ("run", "my devices.csv"),
        ("run", "my devices.csv", "--yes"),
        ("run", "-"),
        ("run", ".", "--archive", "done"),
        ("resume",),
        ("resume", "--yes"),
        ("undo", "2", "--yes-unbind", "1"),
        ("plan", "my devices.csv", "--refresh"),
        ("export", "u1"),
        ("verify", "2"),
    ],
)
def test_settings_found_get_no_credentials_unasked(home, line):
    """And run nothing; the hint names the file, and is whole."""
    marker = found_settings(home, "http://127.0.0.1:9")
    done = called(*line, home=home, BULKBIND_TOKEN="")

    assert done.returncode == 2
    assert "bulkbind.yaml was found in this folder, and nobody has named it" in done.stderr
    assert f"name it: bulkbind {shlex.join(line)} --config bulkbind.yaml" in done.stderr
    assert not {"ran", "metrics", "log"} & {path.name for path in home.iterdir()}
    assert not marker.exists()


@pytest.mark.parametrize(
    "line",
    [
        ("validate", "my devices.csv"),
        ("plan", "my devices.csv"),
        ("config",),
        ("doctor",),
        ("run", "my devices.csv", "--rehearse"),
    ],
)
def test_settings_found_are_read(home, line):
    """Once, and said once; what they would run or write beside the reports is not done."""
    marker = found_settings(home, "http://127.0.0.1:9")
    done = called(*line, home=home)

    assert done.stderr.count("settings from bulkbind.yaml in this folder") == 1
    assert not {"ran", "metrics", "log"} & {path.name for path in home.iterdir()}
    assert not marker.exists()
    assert line[0] == "doctor" or done.returncode == 0, done.stderr


@pytest.mark.slow
def test_settings_found_count_once_somebody_has_agreed(home):
    """On a terminal: then also what they run; with no answer, nothing is sent or run."""
    with sandbox(home=home) as url:
        marker = found_settings(home, url)
        for answer, code in ((b"n\n", 5), (b"y\n", 0)):
            assert not marker.exists()
            terminal = Terminal(home, "run", "my devices.csv")
            terminal.until("? [y/N]")
            terminal.type(answer)
            assert terminal.ended() == code, terminal.screen
            assert len(sandbox_bindings(url)) == (2 if code == 0 else 0)

        assert marker.exists()
        assert (home / "metrics").exists()
        assert ask(f"{url}/sandbox/stats")["requests"] > 0

        export = Terminal(home, "export", "u1")
        export.until("bulkbind.yaml in this folder leads to the sandbox")
        export.type(b"n\n")
        assert export.ended() == 5, export.screen


@pytest.mark.slow
def test_settings_that_are_named_need_no_question(home):
    """By option and by variable; both win over what is found."""
    with sandbox(home=home) as url:
        marker = found_settings(home, url)
        first = called("run", "my devices.csv", "--config", FOUND, "--yes", home=home)
        assert first.returncode == 0, first.stderr
        assert marker.exists()
        (home / "other.yaml").write_text("columns: {machine_code: Serial, user_id: Owner}\n")
        second = called("plan", "my devices.csv", home=home, BULKBIND_CONFIG="other.yaml")

    assert "settings from bulkbind.yaml" not in first.stderr + second.stderr
    assert "no endpoint is set" in second.stderr


@pytest.mark.slow
def test_settings_found_that_lead_nowhere_do_not_ask(home):
    """Columns alone send nothing anywhere: the endpoint is named by whoever calls."""
    (home / FOUND).write_text(f"columns: {json.dumps(COLUMNS)}\nclean: names\n")
    (home / FOUND).chmod(0o600)
    with sandbox(home=home) as url:
        done = called("run", "my devices.csv", "--endpoint", url, home=home)

    assert done.returncode == 0, done.stderr


def test_settings_that_others_can_write_are_not_used(home):
    """That is said, with what to do."""
    found_settings(home, "http://127.0.0.1:9")
    (home / FOUND).chmod(0o666)
    done = called("plan", "my devices.csv", home=home)

    assert done.returncode == 2
    assert "is not used: others can write it (mode 0666)" in done.stderr
    assert not Path(home, "ran").exists()
